//! Generated traces on the wire, through the Open vSwitch plane.

#[path = "common/switch.rs"]
mod switch;

use dataplane_ovs::CAPABILITIES;
use portcullis_conformance::scenario::{DeviceKind, WireJudge};
use portcullis_conformance::selftest;

#[test]
fn generated_traces() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let (cases, seed) = (
        number("CASES").unwrap_or(4_000),
        number("SEED").unwrap_or(1),
    );
    let report = switch::with_plane(DeviceKind::Veth, |wire| {
        let judge = &mut WireJudge(wire);
        selftest::run(judge, CAPABILITIES, cases, seed, selftest::on)
    });
    let told: Vec<String> = report.failures.iter().map(|f| f.to_string()).collect();
    assert_eq!(report.trouble, None);
    println!(
        "{} cases, {} open, {} may be dropped",
        report.cases, report.open, report.may_drop
    );
    assert_eq!(report.mismatches, 0, "seed {seed}\n{}", told.join("\n"));
}
