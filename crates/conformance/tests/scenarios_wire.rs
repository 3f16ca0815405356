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
    let all = kinds.map(|(devices, attach)| check_scenarios_on(devices, attach));
    common::exit(all == [true; 3])
}
