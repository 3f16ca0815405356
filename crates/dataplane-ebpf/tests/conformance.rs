//! The loaded program against the oracle, and against itself: generated policies and packets.
//! More of it: `CASES=1000000 SEED=7 cargo test -p portcullis-dataplane-ebpf --test conformance`.

use conformance::{Judge, PlaneJudge, generate, invariants, selftest};
use dataplane::DataPlane;
use model::Capabilities;
use portcullis_dataplane_ebpf::{EbpfConfig, EbpfPlane};

/// An instance of its own, gone at the end whatever happens.
struct Instance(PlaneJudge<EbpfPlane>);

impl Instance {
    fn new(name: &str) -> Self {
        let config = EbpfConfig {
            // The fewer, the faster swept; a trace has some hundreds.
            max_flows: 4_096,
            ..EbpfConfig::small(format!("pc-{name}-{}", std::process::id()))
        };
        let plane = EbpfPlane::open(config).unwrap_or_else(|error| panic!("{error}"));
        Self(PlaneJudge::new("ebpf", generate::host(), plane))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let gone = self.0.plane().detach();
        // Of a test that fails already, its own reason matters.
        assert!(gone.is_ok() || std::thread::panicking(), "{gone:?}");
    }
}

#[test]
fn the_loaded_program_answers_as_the_oracle_does() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (cases, seed) = (
        number("CASES").unwrap_or(100_000),
        number("SEED").unwrap_or(1),
    );
    let mut instance = Instance::new("conformance");
    let report = selftest::run(
        &mut instance.0,
        Capabilities::ALL,
        cases,
        seed,
        selftest::on,
    );
    let told: Vec<String> = report.failures.iter().map(|f| f.to_string()).collect();
    assert_eq!(report.trouble, None);
    assert_eq!(
        report.mismatches,
        0,
        "of {} cases\n{}",
        report.cases,
        told.join("\n")
    );
}

#[test]
fn only_the_last_policy_counts() {
    check_invariant("last", invariants::only_the_last_policy_counts);
}

#[test]
fn doubled_policies_change_nothing() {
    check_invariant("doubled", invariants::doubled_policies_change_nothing);
}

#[test]
fn elision_shows_in_errors_alone() {
    check_invariant("elision", invariants::elision_shows_in_errors_alone);
}

fn check_invariant(name: &str, holds: fn(&mut dyn Judge, u64) -> Result<(), String>) {
    let mut instance = Instance::new(name);
    for seed in 0..60 {
        assert_eq!(holds(&mut instance.0, seed), Ok(()));
        assert_eq!(instance.0.trouble(), None);
    }
}
