//! Every scenario on the wire: exact frames through the iptables plane, by both back ends, on veths and taps.

mod common;
#[path = "common/netfilter.rs"]
mod netfilter;

use common::{check_scenarios, every};
use dataplane_iptables::Backend;
use netfilter::with_plane;
use portcullis_conformance::scenario::DeviceKind;
use std::process::ExitCode;

fn main() -> ExitCode {
    let kinds = [
        (DeviceKind::Veth, Backend::Nft, true),
        (DeviceKind::Veth, Backend::Legacy, true),
        (DeviceKind::Tap, Backend::Nft, false),
    ];
    let all: Vec<bool> = kinds
        .into_iter()
        .map(|(devices, backend, verifies)| check_scenarios_on(devices, backend, verifies))
        .collect();
    common::exit(all.iter().all(|good| *good))
}

fn check_scenarios_on(devices: DeviceKind, backend: Backend, verifies: bool) -> bool {
    println!("\n{devices:?}, iptables {}", backend.name());
    check_scenarios(every, move |ask| {
        with_plane(devices, backend, verifies, |wire| ask(wire));
    })
}
