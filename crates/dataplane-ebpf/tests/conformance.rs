//! The loaded program against the oracle: generated policies and packets.

use conformance::{Answer, Judge, START, generate, selftest};
use dataplane::{DataPlane, Target};
use model::{Capabilities, Direction, Inventory, PortId};
use portcullis_dataplane_ebpf::{EbpfConfig, EbpfPlane};
use std::time::Duration;

struct Loaded {
    plane: EbpfPlane,
    now: Duration,
}

impl Judge for Loaded {
    fn name(&self) -> &str {
        "ebpf"
    }

    fn reset(&mut self) {
        self.plane
            .apply(&Target::default())
            .expect("an empty policy applies");
        self.plane.forget_state().expect("flows can be removed");
        self.now = START;
        self.advance(Duration::ZERO);
    }

    fn apply(&mut self, inventory: &Inventory) {
        let (view, _) = policy::compile(inventory, &generate::host());
        let target = Target {
            view,
            ..Target::default()
        };
        let report = self
            .plane
            .apply(&target)
            .expect("a generated policy applies");
        assert!(report.refused.is_empty(), "{:?}", report.refused);
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        self.plane
            .set_fixed_clock(self.now)
            .expect("the clock can be set");
        // As an agent does: expired flows count in budgets until they are swept.
        self.plane.sweep().expect("flows can be swept");
    }

    fn judge(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> Answer {
        let verdict = self.plane.judge(port, direction, frame);
        verdict.expect("the kernel judges").into()
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let _ = self.plane.detach();
    }
}

#[test]
fn the_loaded_program_answers_as_the_oracle_does() {
    let config = EbpfConfig::small(format!("pc-conformance-{}", std::process::id()));
    let plane = EbpfPlane::open(config).unwrap_or_else(|error| panic!("{error}"));
    let mut judge = Loaded { plane, now: START };
    let cases = std::env::var("CASES")
        .ok()
        .and_then(|c| c.parse().ok())
        .unwrap_or(20_000);
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|c| c.parse().ok())
        .unwrap_or(1);
    let began = std::time::Instant::now();
    let report = selftest::run(&mut judge, Capabilities::ALL, cases, seed, |_| {});
    for failure in &report.failures {
        eprintln!("{failure}");
    }
    eprintln!("{} cases in {:?}", report.cases, began.elapsed());
    assert_eq!(report.mismatches, 0, "of {} cases", report.cases);
}
