//! Every scenario, by the eBPF programs as the kernel has loaded them. Needs root.

mod common;

use dataplane::{DataPlane, Target};
use dataplane_ebpf::{EbpfConfig, EbpfPlane};
use model::{Direction, Inventory, PortId};
use portcullis_conformance::START;
use portcullis_conformance::scenario::{Seen, Subject, here};
use std::process::ExitCode;
use std::time::Duration;

/// The plane without devices: its programs are asked about packets one by one.
struct Loaded {
    plane: EbpfPlane,
    now: Duration,
}

fn main() -> ExitCode {
    common::check_every_scenario(|ask| {
        let config = EbpfConfig::small(format!("pc-scenarios-{}", std::process::id()));
        let plane = EbpfPlane::open(config).unwrap_or_else(|error| panic!("{error}"));
        ask(&mut Loaded { plane, now: START });
    })
}

impl Subject for Loaded {
    fn name(&self) -> String {
        "ebpf".to_owned()
    }

    fn reset(&mut self) {
        let applied = self.plane.apply(&Target::default());
        applied.expect("an empty policy applies");
        self.plane.forget_state().expect("flows can be removed");
        self.now = START;
        self.advance(Duration::ZERO);
    }

    fn apply(&mut self, inventory: &Inventory) {
        let (view, _) = policy::compile(inventory, &here());
        let target = Target {
            view,
            ..Target::default()
        };
        let report = self.plane.apply(&target).expect("the policy applies");
        assert!(report.refused.is_empty(), "{:?}", report.refused);
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        let set = self.plane.set_fixed_clock(self.now);
        set.expect("the clock can be set");
        // As an agent does each second.
        self.plane.sweep().expect("flows can be swept");
    }

    fn send(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> Seen {
        if frame.len() < 14 {
            return Seen::Unshown("the kernel runs no program on less than an Ethernet header");
        }
        let verdict = self.plane.judge(port, direction, frame);
        Seen::Judged(verdict.expect("the program can be asked").into())
    }

    fn trace(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Err(error) = self.plane.detach() {
            eprintln!("the plane of this test is left behind: {error}");
        }
    }
}
