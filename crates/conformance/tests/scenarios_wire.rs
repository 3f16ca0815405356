//! Every scenario on the wire: exact frames between namespaces, through the eBPF plane on veths.

#[path = "common/attached.rs"]
mod attached;
mod common;

use dataplane_ebpf::Attach;
use portcullis_conformance::scenario::DeviceKind;
use std::process::ExitCode;

fn main() -> ExitCode {
    attached::check_every_scenario_on(DeviceKind::Veth, Attach::Auto)
}
