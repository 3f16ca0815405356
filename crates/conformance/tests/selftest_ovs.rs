//! Generated traces on the wire, through the Open vSwitch plane.

#[path = "common/switch.rs"]
mod switch;

use dataplane_ovs::CAPABILITIES;
use model::Inspection;
use portcullis_conformance::scenario::{DeviceKind, Plane, TwoHosts, WireJudge};
use portcullis_conformance::selftest::{self, Report};
use std::path::Path;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

#[test]
fn generated_traces() {
    let (cases, seed) = (
        number("CASES").unwrap_or(4_000),
        number("SEED").unwrap_or(1),
    );
    let report = switch::with_plane(DeviceKind::Veth, |wire| {
        let judge = &mut WireJudge(wire);
        selftest::run(judge, CAPABILITIES, cases, seed, selftest::on)
    });
    check(&report, seed);
}

#[test]
fn generated_traces_between_hosts_that_ask_the_receivers_rules_at_the_destination() {
    check_between(Inspection::Destination);
}

#[test]
fn generated_traces_between_hosts_that_ask_the_receivers_rules_at_the_source() {
    check_between(Inspection::Source);
}

#[test]
fn generated_traces_between_hosts_that_ask_the_receivers_rules_at_both() {
    check_between(Inspection::Both);
}

fn check_between(inspection: Inspection) {
    let (cases, seed) = (number("CASES").unwrap_or(400), number("SEED").unwrap_or(1));
    let make = |run_dir: &Path| Ok(Box::new(switch::Switch::open(run_dir)?) as Plane);
    let hosts = TwoHosts::new(make);
    let mut hosts = hosts.unwrap_or_else(|error| panic!("{error}"));
    let go_on = selftest::on;
    let report = selftest::run_between(&mut hosts, CAPABILITIES, inspection, cases, seed, go_on);
    check(&report, seed);
}

fn check(report: &Report, seed: u64) {
    let told: Vec<String> = report.failures.iter().map(|f| f.to_string()).collect();
    println!(
        "{} cases, {} open, {} may be dropped\n{}",
        report.cases, report.open, report.may_drop, report.coverage
    );
    assert_eq!(report.trouble, None);
    assert_eq!(report.mismatches, 0, "seed {seed}\n{}", told.join("\n"));
}
