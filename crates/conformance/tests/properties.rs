//! The oracle, and the compiler with the plane in memory, on generated traces.

use model::{Capabilities, DropReason};
use portcullis_conformance::selftest::{self, Coverage};
use portcullis_conformance::{
    Judge, ModelPlaneJudge, OracleJudge, compare_migrating, generate, invariants,
};

const SEEDS: [u64; 3] = [1, 2, 0x5eed];

#[test]
fn the_plane_in_memory_agrees_with_the_oracle() {
    for seed in SEEDS {
        let mut plane = ModelPlaneJudge::new(generate::host());
        let report = selftest::run(&mut plane, Capabilities::ALL, 150_000, seed, selftest::on);
        let told: Vec<String> = report.failures.iter().map(|f| f.to_string()).collect();
        assert_eq!(report.mismatches, 0, "seed {seed}\n{}", told.join("\n"));
        assert!(
            report.open * 100 < report.cases,
            "{} open of {}",
            report.open,
            report.cases
        );
    }
}

#[test]
fn ports_that_migrate_keep_what_they_know() {
    let mut oracle = OracleJudge::new(generate::host(), Capabilities::ALL);
    let mut plane = ModelPlaneJudge::new(generate::host());
    let compared = (0..300).map(|seed| {
        let compared = compare_migrating(&mut oracle, &mut plane, seed, 500);
        compared.unwrap_or_else(|text| panic!("{text}"))
    });
    let compared: usize = compared.sum();
    assert!(compared > 75_000, "{compared} packets");
}

#[test]
fn a_few_thousand_cases_meet_every_reason() {
    for seed in SEEDS {
        let coverage = coverage(Capabilities::ALL, 60_000, seed);
        let missing = |(name, count): (&'static str, u64)| (count == 0).then_some(name);
        let passes: Vec<&str> = coverage.passes().filter_map(missing).collect();
        let drops = coverage
            .drops()
            .map(|(reason, count)| (reason.name(), count));
        // On one host nothing comes through tunnels.
        let drops = drops.filter(|(name, _)| *name != DropReason::UnknownTunnel.name());
        let drops: Vec<&str> = drops.filter_map(missing).collect();
        assert_eq!((passes, drops), (vec![], vec![]), "seed {seed}\n{coverage}");
    }
}

#[test]
fn traces_live_by_their_history() {
    for seed in SEEDS {
        let coverage = coverage(Capabilities::ALL, 60_000, seed);
        let at_least = [
            ("live", coverage.live, 2_000),
            ("live alone", coverage.live_only, 1_000),
            ("live errors", coverage.live_errors, 100),
            ("revocations", coverage.revocations, 50),
            ("permissions", coverage.permissions, 50),
        ];
        for (name, seen, wanted) in at_least {
            assert!(
                seen >= wanted,
                "seed {seed}: {name}: {seen} of {wanted}\n{coverage}"
            );
        }
        // Neither all dropped nor all passed.
        let drops: u64 = coverage.drops().map(|(_, count)| count).sum();
        assert!(
            (15_000..45_000).contains(&drops),
            "seed {seed}: {drops} drops"
        );
        let no_rule = coverage
            .drops()
            .find(|(reason, _)| *reason == DropReason::NoRule);
        assert!(
            no_rule.is_some_and(|(_, count)| count < 25_000),
            "seed {seed}\n{coverage}"
        );
    }
}

#[test]
fn only_the_last_policy_counts() {
    check_invariant(300, invariants::only_the_last_policy_counts);
}

#[test]
fn doubled_policies_change_nothing() {
    check_invariant(300, invariants::doubled_policies_change_nothing);
}

#[test]
fn elision_shows_in_errors_alone() {
    check_invariant(300, invariants::elision_shows_in_errors_alone);
}

fn check_invariant(traces: u64, holds: fn(&mut dyn Judge, u64) -> Result<(), String>) {
    let mut oracle = OracleJudge::new(generate::host(), Capabilities::ALL);
    let mut plane = ModelPlaneJudge::new(generate::host());
    let judges: [&mut dyn Judge; 2] = [&mut oracle, &mut plane];
    for judge in judges {
        for seed in 0..traces {
            if let Err(text) = holds(judge, seed) {
                panic!("{}: {text}", judge.name());
            }
        }
    }
}

/// Of the oracle against itself, which explains: what passes as live alone shows in its steps.
fn coverage(capabilities: Capabilities, cases: u64, seed: u64) -> Coverage {
    let mut judge = OracleJudge::new(generate::host(), capabilities).explaining();
    selftest::run(&mut judge, capabilities, cases, seed, selftest::on).coverage
}
