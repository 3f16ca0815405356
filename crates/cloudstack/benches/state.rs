//! What one call of the agent costs beside enforcing: the state of 1,000 VMs with ten rules each, read,
//! changed, written, and made an inventory. `cargo bench -p portcullis-cloudstack -- [DIRECTORY]`: where
//! the file lies decides what flushing it costs.

use portcullis_cloudstack::change::{self, Facts};
use portcullis_cloudstack::inventory::{Options, inventory};
use portcullis_cloudstack::{State, arguments, files};
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const VMS: u32 = 1_000;
const ROUNDS: usize = 50;

fn main() {
    println!("-- every VM with rules of its own");
    report(|vm| vm);
    println!("-- ten groups of VMs");
    report(|vm| vm % 10);
}

/// `group_of` tells which VMs have the same rules.
fn report(group_of: fn(u32) -> u32) {
    let directory = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let directory = directory.map_or_else(std::env::temp_dir, PathBuf::from);
    let path = directory.join(format!("portcullis-bench-{}.json", std::process::id()));
    let state = busy_host(group_of);
    let text = state.to_json();
    println!("{VMS} VMs, {} bytes in {}", text.len(), directory.display());
    time("read the text", || State::from_json(&text).expect("ours"));
    time("write the text", || state.to_json());
    time("save the file", || {
        files::save(&path, &state).expect("written")
    });
    time("load the file", || files::load(&path).expect("ours"));
    let line = push(500, 2, group_of(500));
    let push = arguments::parse(&words(&line)).expect("good");
    time("copy and push", || {
        let mut state = state.clone();
        change::apply(&mut state, &push, &Facts::default()).expect("good");
        state
    });
    let host = model::Host {
        id: "kvm1".into(),
        tunnel_address: None,
        peer_trust: Default::default(),
        settings: Default::default(),
    };
    time("make the inventory", || {
        inventory(&state, host.clone(), &Options::default())
    });
    std::fs::remove_file(&path).expect("it is ours");
}

fn busy_host(group_of: fn(u32) -> u32) -> State {
    let mut state = State::default();
    for vm in 0..VMS {
        let command = arguments::parse(&words(&push(vm, 1, group_of(vm)))).expect("good");
        change::apply(&mut state, &command, &Facts::default()).expect("good");
    }
    state
}

fn push(vm: u32, sequence: u32, group: u32) -> String {
    let (high, low) = (vm / 250, vm % 250);
    let port = 1_000 + group;
    let rules: String = (0..5)
        .map(|i| {
            format!(
                "I:tcp;{port};{port};10.{i}.0.0/16,NEXT;I:udp;{port};{port};fd00:{i}::/32,NEXT;"
            )
        })
        .collect();
    format!(
        "add_network_rules --vmname i-2-{vm}-VM --vmid {vm} --vmip 10.1.{high}.{low} --vmip6 fd00::{vm} --vmmac 02:00:4c:5f:{high:02x}:{low:02x} --vif vnet{vm} --brname cloudbr0 --nicsecips 10.2.{high}.{low}; --sig 9a0364b9e99bb480dd25e1f0284c{group:04} --seq {sequence} --rules {rules}"
    )
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Prints the first, as in a process that does one call, the best and the middle one. What the work
/// leaves is freed outside of its time: such a process exits instead.
fn time<T>(what: &str, mut work: impl FnMut() -> T) {
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let left = black_box(work());
        took.push(start.elapsed());
        drop(left);
    }
    let first = took[0];
    took.sort();
    let [first, best, middle] = [first, took[0], took[ROUNDS / 2]].map(|d| d.as_secs_f64() * 1e3);
    println!("{what:20} first {first:6.2} ms, best {best:6.2} ms, usually {middle:6.2} ms");
}
