//! Seeded runs with all faults: nothing is ever enforced that wasn't committed, and all comes to what is.

use sim::{Config, Defect, Outcome, run};
use std::ops::ControlFlow;

const FAULTS: [&str; 13] = [
    "message lost",
    "message doubled",
    "message reordered",
    "message late",
    "agent crashed",
    "host cut off",
    "store's watch compacted",
    "apply failed",
    "server behind",
    "server crashed, its hosts went to another",
    "host to another server",
    "two agents of one host",
    "agent fenced",
];

fn ran(config: &Config) -> Outcome {
    run(config, &mut |_| ControlFlow::Continue(()))
}

fn small(seed: u64) -> Config {
    Config::new(20, 400, 400, seed)
}

#[test]
fn without_faults_all_is_told_by_changes() {
    let config = Config {
        faults: false,
        ..small(1)
    };
    let outcome = ran(&config);
    assert_eq!(outcome.violation, None);
    assert!(
        outcome.figures.faults.is_empty(),
        "{:?}",
        outcome.figures.faults
    );
    assert!(outcome.figures.checks > 1_000, "{}", outcome.figures.checks);
    assert!(outcome.figures.whole_checks > 0);
}

#[test]
fn whatever_faults_there_are_hosts_enforce_what_was_committed() {
    let mut seen = std::collections::BTreeMap::new();
    for seed in 1..=3 {
        let outcome = ran(&small(seed));
        if let Some(violation) = &outcome.violation {
            panic!("{violation}");
        }
        for (kind, count) in outcome.figures.faults {
            *seen.entry(kind).or_insert(0) += count;
        }
    }
    for kind in FAULTS {
        assert!(seen.contains_key(kind), "no {kind}: {seen:?}");
    }
    assert!(seen.contains_key("stream broken, noticed"), "{seen:?}");
    assert!(
        seen.keys().any(|kind| kind.starts_with("server crashed")),
        "{seen:?}"
    );
}

#[test]
fn the_same_seed_is_the_same_run() {
    let [one, other, another] = [7, 7, 8].map(|seed| ran(&small(seed)));
    assert_eq!(one.trace, other.trace);
    assert_eq!(one.figures.faults, other.figures.faults);
    assert_ne!(one.trace, another.trace);
}

#[test]
fn one_server_that_crashes_is_enough() {
    let config = Config {
        servers: 1,
        ..small(1)
    };
    let outcome = ran(&config);
    assert_eq!(outcome.violation, None);
    let faults = outcome.figures.faults;
    let crashed = faults.keys().any(|kind| kind.starts_with("server crashed"));
    assert!(crashed, "{faults:?}");
}

/// Hosts leave, and others come in their place.
#[test]
fn agents_take_turns_where_there_is_no_room_for_all() {
    let config = Config {
        most_agent_ports: 500,
        ..small(1)
    };
    let outcome = ran(&config);
    assert_eq!(outcome.violation, None);
    let (all, at_once) = (outcome.figures.agents, outcome.figures.agents_at_once);
    assert!(at_once < all && all <= 20, "{at_once} of {all}");
}

/// Without faults, which would resync what is wrong.
fn found(defect: Defect, what: &str) {
    found_with(defect, false, what);
}

fn found_with(defect: Defect, faults: bool, what: &str) {
    let config = Config {
        faults,
        defect: Some(defect),
        ..small(1)
    };
    let violation = ran(&config).violation.expect("it is found");
    assert!(violation.to_string().contains(what), "{violation}");
    assert_eq!(violation.seed, 1);
}

#[test]
fn an_agent_that_ignores_removals_is_found() {
    found(Defect::IgnoresRemovals, "port");
}

#[test]
fn a_change_that_is_applied_again_after_a_later_one_is_found() {
    found(Defect::AppliedTwice, "who is in group");
}

#[test]
fn a_policy_that_was_never_committed_is_found() {
    found(Defect::NeverCommitted, "group");
}

#[test]
fn a_server_that_forgets_to_tell_is_found() {
    found(Defect::Forgets, "VIOLATION");
}

#[test]
fn c9_an_agent_that_goes_on_when_it_is_fenced_is_found() {
    let what = "an agent that was fenced, although none of its host began later";
    found_with(Defect::IgnoresFence, true, what);
}

#[test]
fn c9_servers_that_do_not_hear_of_each_others_hosts_are_found() {
    let what = "an agent that isn't fenced, although a later one follows";
    found_with(Defect::DeafServers, true, what);
}

#[test]
fn an_agent_that_goes_back_to_what_a_server_behind_tells_is_found() {
    found_with(Defect::GoesBack, true, "a revision that went back");
}
