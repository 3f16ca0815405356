//! The oracle's answer to every scenario.

mod common;

use model::{Capabilities, Direction, Inventory, PortId};
use oracle::Oracle;
use portcullis_conformance::scenario::here;
use portcullis_conformance::{Answer, Judge};
use std::process::ExitCode;
use std::time::Duration;

struct OracleSubject {
    oracle: Oracle,
    now: Duration,
    trace: Vec<String>,
}

fn main() -> ExitCode {
    common::check_every_scenario(|ask| {
        ask(&mut OracleSubject {
            oracle: Oracle::new(here(), Capabilities::ALL),
            now: Duration::ZERO,
            trace: Vec::new(),
        });
    })
}

impl Judge for OracleSubject {
    fn name(&self) -> &str {
        "oracle"
    }

    fn reset(&mut self) {
        self.oracle = Oracle::new(here(), Capabilities::ALL);
    }

    fn apply(&mut self, inventory: &Inventory) {
        self.oracle.apply(inventory, self.now);
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    fn judge(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> Answer {
        let decision = self.oracle.explain(port, direction, frame, self.now);
        let stages = decision.trace.iter();
        self.trace = stages
            .map(|(stage, text)| format!("{stage:?}: {text}"))
            .collect();
        let decision = self.oracle.decide(port, direction, frame, self.now);
        Answer {
            verdict: decision.verdict,
            open: decision.open,
        }
    }

    fn last_trace(&self) -> Vec<String> {
        self.trace.clone()
    }
}
