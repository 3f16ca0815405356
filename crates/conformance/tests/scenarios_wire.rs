//! Every scenario on the wire: exact frames between namespaces, through the eBPF plane. Needs root.

mod common;

use dataplane::DataPlane;
use dataplane_ebpf::{EbpfConfig, EbpfPlane};
use portcullis_conformance::scenario::{RealPlane, WirePlane};
use std::process::ExitCode;
use std::time::Duration;

struct Attached(EbpfPlane);

fn main() -> ExitCode {
    common::check_every_scenario(|ask| {
        let make = || -> Box<dyn RealPlane> {
            let config = EbpfConfig::small(format!("pc-wire-{}", std::process::id()));
            let plane = EbpfPlane::open(config).unwrap_or_else(|error| panic!("{error}"));
            Box::new(Attached(plane))
        };
        let ran = WirePlane::run(make, |wire| ask(wire));
        ran.unwrap_or_else(|error| panic!("{error}"));
    })
}

impl RealPlane for Attached {
    fn name(&self) -> &str {
        "ebpf"
    }

    fn plane(&mut self) -> &mut dyn DataPlane {
        &mut self.0
    }

    fn forget(&mut self) {
        self.0.forget_state().expect("flows can be removed");
    }

    fn set_clock(&mut self, now: Duration) {
        let set = self.0.set_fixed_clock(now);
        set.expect("the clock can be set");
        // As an agent does each second.
        self.0.sweep().expect("flows can be swept");
    }
}
