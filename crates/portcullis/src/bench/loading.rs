//! How long big policies take to load, what a small change of one costs, and how much memory they take.

use super::own_plane::OwnPlane;
use super::policies::{HOST, Policy, inventory, member};
use super::viewer::{self, Viewer};
use comfy_table::Table;
use dataplane::Target;
use model::{HostId, Inventory};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

struct Loaded {
    compile: Duration,
    apply: Duration,
    writes: u64,
}

pub(super) fn measure(viewer: &Viewer) -> anyhow::Result<Value> {
    let mut table = viewer::table([
        "",
        "compile ms",
        "apply ms",
        "map writes",
        "kernel memory KiB",
        "bytes each",
    ]);
    let mut report = Vec::new();
    for (name, policy, count) in [
        ("1,000 prefix rules", Policy::Prefixes(1_000), 1_000),
        ("100,000 prefix rules", Policy::Prefixes(100_000), 100_000),
        ("10,000 members", Policy::Members(10_000), 10_000),
        ("100,000 members", Policy::Members(100_000), 100_000),
    ] {
        viewer.step(format_args!("loading: {name}"))?;
        let mut plane = OwnPlane::ebpf("loading", false)?;
        let empty = kernel_memory()?;
        let mut inventory = inventory(policy, "a", "b");
        let loaded = load(&mut plane, &inventory)?;
        let memory = kernel_memory()? - empty;
        let each = memory / count;
        row(&mut table, &mut report, name, &loaded, Some((memory, each)));
        change(&mut inventory, policy);
        let changed = load(&mut plane, &inventory)?;
        let of_them = match policy {
            Policy::Members(_) => "  then one member more",
            Policy::Prefixes(_) | Policy::Tracked | Policy::Open | Policy::Outside(_) => {
                "  then one rule less"
            }
        };
        row(&mut table, &mut report, of_them, &changed, None);
    }
    viewer.show("Loading", &table);
    Ok(json!({ "experiment": "loading", "lines": report }))
}

/// What the maps that this process holds take, as the kernel counts it.
fn kernel_memory() -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir("/proc/self/fdinfo")? {
        // The directory's own descriptor is gone by now.
        let text = std::fs::read_to_string(entry?.path()).unwrap_or_default();
        let memlock = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        bytes += memlock
            .and_then(|n| n.trim().parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(bytes)
}

fn change(inventory: &mut Inventory, policy: Policy) {
    inventory.revision.commit += 1;
    match policy {
        Policy::Members(count) => {
            let address = Ipv4Addr::from(0x0ac8_0000 + count);
            inventory.ports.extend([member(count, address)]);
        }
        Policy::Prefixes(_) | Policy::Tracked | Policy::Open | Policy::Outside(_) => {
            let group = inventory
                .groups
                .get_mut("b")
                .expect("the policies have this group");
            group.rules.pop_first();
        }
    }
}

fn load(plane: &mut OwnPlane, inventory: &Inventory) -> anyhow::Result<Loaded> {
    let started = Instant::now();
    let (view, _) = policy::compile(inventory, &HostId::from(HOST));
    let compile = started.elapsed();
    let report = plane.enforce(&Target {
        view,
        ..Target::default()
    })?;
    Ok(Loaded {
        compile,
        apply: report.took,
        writes: report.writes,
    })
}

fn row(
    table: &mut Table,
    report: &mut Vec<Value>,
    name: &str,
    loaded: &Loaded,
    memory: Option<(u64, u64)>,
) {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let dash = || String::from("-");
    table.add_row([
        name.to_owned(),
        format!("{:.1}", millis(loaded.compile)),
        format!("{:.1}", millis(loaded.apply)),
        loaded.writes.to_string(),
        memory.map_or_else(dash, |(all, _)| (all / 1024).to_string()),
        memory.map_or_else(dash, |(_, each)| each.to_string()),
    ]);
    report.push(json!({
        "load": name.trim(),
        "compile_ms": millis(loaded.compile),
        "apply_ms": millis(loaded.apply),
        "map_writes": loaded.writes,
        "kernel_bytes": memory.map(|(all, _)| all),
        "bytes_each": memory.map(|(_, each)| each),
    }));
}
