//! The loaded program against the oracle: generated policies and packets.

use conformance::{OracleJudge, PlaneJudge, compare_migrating, generate, selftest};
use dataplane::DataPlane;
use model::Capabilities;
use portcullis_dataplane_ebpf::{EbpfConfig, EbpfPlane};
use std::ops::ControlFlow;

#[test]
fn the_loaded_program_answers_as_the_oracle_does() {
    let config = EbpfConfig::small(format!("pc-conformance-{}", std::process::id()));
    let plane = EbpfPlane::open(config).unwrap_or_else(|error| panic!("{error}"));
    let mut judge = PlaneJudge::new("ebpf", generate::host(), plane);
    let report = selftest::run(&mut judge, Capabilities::ALL, 50_000, 1, |_| {
        ControlFlow::Continue(())
    });
    judge.plane().detach().expect("nothing is attached");
    for failure in &report.failures {
        eprintln!("{failure}");
    }
    assert_eq!(report.mismatches, 0, "of {} cases", report.cases);
}

#[test]
fn ports_that_migrate_keep_what_they_know() {
    let config = EbpfConfig::small(format!("pc-migrating-{}", std::process::id()));
    let plane = EbpfPlane::open(config).unwrap_or_else(|error| panic!("{error}"));
    let mut judge = PlaneJudge::new("ebpf", generate::host(), plane);
    let mut oracle = OracleJudge::new(generate::host(), Capabilities::ALL);
    let compared: Result<Vec<usize>, String> = (0..40)
        .map(|seed| compare_migrating(&mut oracle, &mut judge, seed, 300))
        .collect();
    judge.plane().detach().expect("nothing is attached");
    let compared: usize = compared
        .unwrap_or_else(|text| panic!("{text}"))
        .iter()
        .sum();
    assert!(compared > 6_000, "{compared} packets");
}
