//! Every scenario on the wire: exact frames through the eBPF plane, on veths and taps, attached by tcx and
//! by clsact.

#[path = "common/attached.rs"]
mod attached;
mod common;

use attached::check_scenarios_on;
use dataplane_ebpf::Attach;
use portcullis_conformance::scenario::DeviceKind;
use std::process::ExitCode;

fn main() -> ExitCode {
    let kinds = [
        (DeviceKind::Veth, Attach::Tcx),
        (DeviceKind::Tap, Attach::Tcx),
        (DeviceKind::Veth, Attach::Clsact),
    ];
    // A kernel without tcx is asked for less, by name: `make test-vm`.
    let only = std::env::var("ONLY_ATTACH").unwrap_or_default();
    let asked = |attach: Attach| only.is_empty() || only == format!("{attach:?}");
    let asked: Vec<_> = kinds.into_iter().filter(|kind| asked(kind.1)).collect();
    assert!(!asked.is_empty(), "ONLY_ATTACH={only} names none");
    let all: Vec<bool> = asked
        .into_iter()
        .map(|(devices, attach)| check_scenarios_on(devices, attach))
        .collect();
    common::exit(all.iter().all(|good| *good))
}
