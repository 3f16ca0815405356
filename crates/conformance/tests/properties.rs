//! The oracle, and the compiler with the plane in memory, on generated traces.

use model::Capabilities;
use portcullis_conformance::generate;
use portcullis_conformance::selftest::{self, Report};
use portcullis_conformance::{Judge, ModelPlaneJudge};

fn against_the_oracle(judge: &mut dyn Judge, cases: u64, seed: u64) -> Report {
    selftest::run(judge, Capabilities::ALL, cases, seed, |_| {})
}

#[test]
fn the_plane_in_memory_agrees_with_the_oracle() {
    let mut plane = ModelPlaneJudge::new(generate::host());
    let cases = std::env::var("CASES")
        .ok()
        .and_then(|c| c.parse().ok())
        .unwrap_or(20_000);
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|c| c.parse().ok())
        .unwrap_or(1);
    let start = std::time::Instant::now();
    let report = against_the_oracle(&mut plane, cases, seed);
    println!(
        "{}\n{} cases, {} open, {} mismatches, {:?}",
        report.coverage,
        report.cases,
        report.open,
        report.mismatches,
        start.elapsed()
    );
    for failure in &report.failures {
        println!("{failure}\n-------------");
    }
    assert_eq!(report.mismatches, 0);
}
