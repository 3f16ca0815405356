//! The eBPF plane on the devices of a lab. Needs root.

#[path = "leftovers.rs"]
mod leftovers;

use super::common::{check_scenarios, every};
use dataplane::DataPlane;
use dataplane_ebpf::{Attach, EbpfConfig, EbpfPlane};
use leftovers::instance;
use portcullis_conformance::scenario::{DeviceKind, RealPlane, WirePlane};
use std::io;
use std::time::Duration;

struct Attached(EbpfPlane);

pub(crate) fn check_scenarios_on(devices: DeviceKind, attach: Attach) -> bool {
    println!("\n{devices:?}, attached by {attach:?}");
    check_scenarios(every, move |ask| {
        let make = || -> io::Result<Box<dyn RealPlane>> {
            let instance = instance("wire");
            let config = EbpfConfig {
                attach,
                ..EbpfConfig::small(instance)
            };
            let plane = EbpfPlane::open(config).map_err(io::Error::other)?;
            Ok(Box::new(Attached(plane)))
        };
        let ran = WirePlane::run(devices, make, |wire| ask(wire));
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

    fn forget(&mut self) -> io::Result<()> {
        self.0.forget_state()
    }

    fn set_clock(&mut self, now: Duration) -> io::Result<()> {
        self.0.set_fixed_clock(now)?;
        // As an agent does each second.
        self.0.sweep().map(drop)
    }
}
