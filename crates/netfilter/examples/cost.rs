//! What this crate's questions and changes cost on this kernel: `cargo run --release --example cost
//! --package portcullis-netfilter`, as root. In namespaces of its own; leaves nothing behind.

use model::Family;
use portcullis_netfilter::conntrack::{
    self, Change, Entry, Filter, Masked, State, Status, Tuple, TupleL4,
};
use portcullis_netfilter::{generation, ipset, legacy, sysctl};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SETS: usize = 4_000;
const RULES: usize = 10_000;
const ENTRIES: u32 = 10_000;
const ENTRIES_OF_OTHERS: u32 = 90_000;

fn main() {
    alone(conntrack_entries);
    for (words, options) in [("of 1,024 buckets", ""), ("of 64 buckets", "hashsize 64")] {
        alone(move || sets(words, options));
    }
    alone(rules);
}

/// The least of some times that it takes, printed.
fn time<T>(what: &str, times: usize, mut work: impl FnMut() -> T) -> T {
    let mut least = Duration::MAX;
    let mut last = None;
    for _ in 0..times {
        let start = Instant::now();
        last = Some(work());
        least = least.min(start.elapsed());
    }
    println!("{:>9.3} ms  {what}", least.as_secs_f64() * 1e3);
    last.expect("at least once")
}

fn conntrack_entries() {
    let all = Filter::default();
    let zone = Filter {
        zone: Some(7),
        ..all
    };
    let mark = Masked {
        value: 5,
        mask: 0xff,
    };
    let buckets = sysctl::read("net/netfilter/nf_conntrack_buckets").unwrap_or_default();
    println!("conntrack: a table of {buckets} buckets");
    time("count", 100, || conntrack::count().expect("count"));
    time("list none", 10, || list(&all));
    let ours: Vec<_> = (0..ENTRIES).map(|n| entry(7, n)).collect();
    let others: Vec<_> = (0..ENTRIES_OF_OTHERS).map(|n| entry(8, n)).collect();
    time(&format!("create {ENTRIES}"), 1, || {
        change(&ours, Change::Create);
    });
    time(&format!("list {ENTRIES}"), 5, || list(&all));
    change(&others, Change::Create);
    let listed = time(
        &format!("list {ENTRIES} by zone, {ENTRIES_OF_OTHERS} in another"),
        5,
        || list(&zone),
    );
    time(
        &format!("list all {}", ENTRIES + ENTRIES_OF_OTHERS),
        3,
        || list(&all),
    );
    time(&format!("mark {ENTRIES}"), 3, || {
        change(&listed, |of| Change::Mark { of, mark });
    });
    time(&format!("list {ENTRIES} by mark"), 5, || {
        list(&Filter {
            mark: Some(mark),
            ..all
        })
    });
    time(&format!("new timeouts for {ENTRIES}"), 3, || {
        change(&listed, |of| Change::Timeout { of, seconds: 60 });
    });
    time("delete one", 1, || {
        conntrack::delete(&listed[0]).expect("it is deleted")
    });
    time(&format!("delete {ENTRIES}"), 1, || {
        change(&listed, Change::Delete);
    });
    time(&format!("delete {ENTRIES} that are gone"), 1, || {
        change(&listed, Change::Delete);
    });
}

fn entry(zone: u16, number: u32) -> Entry {
    let original = Tuple {
        src: IpAddr::from((0x0a00_0000 + number).to_be_bytes()),
        dst: IpAddr::from([192, 168, 0, 1]),
        l4: TupleL4::Ports { src: 1000, dst: 53 },
    };
    Entry {
        protocol: 17,
        original,
        reply: original.reversed().expect("it has an answer"),
        zone,
        zone_only: None,
        mark: 1,
        status: Status::SEEN_REPLY,
        timeout_s: 600,
        state: State::Stateless,
        id: None,
    }
}

fn list(filter: &Filter) -> Vec<Entry> {
    let mut entries = Vec::new();
    conntrack::dump(filter, |entry| entries.push(entry)).expect("a list");
    entries
}

fn change<'a>(entries: &'a [Entry], to: impl Fn(&'a Entry) -> Change<'a>) {
    let changes: Vec<_> = entries.iter().map(to).collect();
    conntrack::change(&changes).expect("the changes");
}

fn sets(words: &str, options: &str) {
    println!("ipset: {SETS} sets {words}, 10 elements each");
    let mut lines = String::new();
    for set in 0..SETS {
        writeln!(lines, "create pc-{set} hash:net,port {options}").expect("a string");
        for element in 0..10 {
            writeln!(lines, "add pc-{set} 10.{element}.0.0/16,tcp:80").expect("a string");
        }
    }
    feed(&["ipset", "restore"], &lines);
    time("their headers", 5, || {
        ipset::headers("pc-").expect("headers")
    });
    time("the header of one", 5, || {
        ipset::headers("pc-7").expect("headers")
    });
}

fn rules() {
    println!("rules: {RULES} of iptables-legacy and ip6tables-legacy each, as many of nftables");
    for (family, program, any) in [
        (Family::V4, "iptables-legacy-restore", "10.0.0.0/8"),
        (Family::V6, "ip6tables-legacy-restore", "fd00::/8"),
    ] {
        let mut lines = String::from("*filter\n");
        for rule in 0..RULES {
            let port = rule + 1;
            let what = format!("-s {any} -p tcp --dport {port} -m comment --comment {rule}");
            writeln!(lines, "-A FORWARD {what} -j ACCEPT").expect("a string");
        }
        lines.push_str("COMMIT\n");
        feed(&[program], &lines);
        time(&format!("fingerprint of {family}"), 5, || {
            legacy::fingerprint(family, "filter").expect("a fingerprint")
        });
    }
    time("fingerprint of no table", 5, || {
        legacy::fingerprint(Family::V4, "raw").expect("an answer")
    });
    let mut lines = String::from("table inet t {\n chain c {\n");
    for rule in 0..RULES {
        writeln!(lines, "tcp dport {} accept", rule + 1).expect("a string");
    }
    lines.push_str(" }\n}\n");
    feed(&["nft", "-f", "-"], &lines);
    time("generation", 100, || generation::nft().expect("a number"));
}

fn feed(command: &[&str], input: &str) {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .spawn()
        .expect("it is installed");
    let mut stdin = child.stdin.take().expect("it was piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    assert!(child.wait().expect("it ran").success(), "{command:?}");
}

fn alone(work: impl FnOnce() + Send + 'static) {
    let ran = std::thread::spawn(|| {
        // SAFETY: takes no pointers; it moves just this thread, which ends here.
        let moved = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(moved, 0, "a new network namespace needs root");
        work();
    });
    ran.join().expect("it went well");
}
