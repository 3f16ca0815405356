//! Every scenario, by the plane in memory that interprets a compiled view.

mod common;

use dataplane::ModelPlane;
use model::{Direction, Inventory, PortId};
use portcullis_conformance::scenario::here;
use portcullis_conformance::{Answer, Judge};
use std::process::ExitCode;
use std::time::Duration;

struct ModelSubject {
    plane: ModelPlane,
    now: Duration,
}

fn main() -> ExitCode {
    common::check_every_scenario(|ask| {
        ask(&mut ModelSubject {
            plane: ModelPlane::new(),
            now: Duration::ZERO,
        });
    })
}

impl Judge for ModelSubject {
    fn name(&self) -> &str {
        "model"
    }

    fn reset(&mut self) {
        self.plane = ModelPlane::new();
    }

    fn apply(&mut self, inventory: &Inventory) {
        let (view, _) = policy::compile(inventory, &here());
        self.plane.apply_at(&view, self.now);
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    fn judge(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> Answer {
        self.plane.judge(port, direction, frame, self.now).into()
    }
}
