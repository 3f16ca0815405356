//! Generated traces on the wire, through the iptables plane by both back ends.

#[path = "common/netfilter.rs"]
mod netfilter;

use dataplane_iptables::{Backend, CAPABILITIES};
use model::Capabilities;
use netfilter::with_plane;
use portcullis_conformance::scenario::{DeviceKind, WireJudge};
use portcullis_conformance::selftest;

fn check(backend: Backend, seed: u64) {
    // Each port is on a bridge of its own.
    let capabilities = Capabilities {
        per_end_start: true,
        ..CAPABILITIES
    };
    let cases = std::env::var("CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(4_000);
    let report = with_plane(DeviceKind::Veth, backend, false, |wire| {
        selftest::run(
            &mut WireJudge(wire),
            capabilities,
            cases,
            seed,
            selftest::on,
        )
    });
    let told: Vec<String> = report.failures.iter().map(|f| f.to_string()).collect();
    assert_eq!(report.trouble, None);
    println!(
        "{} cases, {} open, {} may be dropped",
        report.cases, report.open, report.may_drop
    );
    assert_eq!(report.mismatches, 0, "seed {seed}\n{}", told.join("\n"));
}

#[test]
fn by_nft() {
    check(Backend::Nft, seed(1));
}

#[test]
fn by_legacy() {
    check(Backend::Legacy, seed(2));
}

fn seed(default: u64) -> u64 {
    std::env::var("SEED")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(default)
}
