//! The iptables plane in a lab. Needs root.

use dataplane::{ApplyError, ApplyReport, Capabilities, Counters, DataPlane, Drift, Target};
use dataplane_iptables::{Backend, IptablesConfig, IptablesPlane};
use portcullis_conformance::scenario::{DeviceKind, RealPlane, WirePlane};
use std::io;
use std::time::Duration;

struct Netfilter {
    plane: IptablesPlane,
    /// After each change.
    verifies: bool,
}

/// In a lab of its own. `verifies`: all of what is in the kernel is read back after each change.
pub(crate) fn with_plane<T: Send>(
    devices: DeviceKind,
    backend: Backend,
    verifies: bool,
    work: impl FnOnce(&mut WirePlane) -> T + Send,
) -> T {
    let make = move || -> io::Result<Box<dyn RealPlane>> {
        let config = IptablesConfig {
            instance: "test".to_owned(),
            directory: None,
            backend: Some(backend),
        };
        let plane = IptablesPlane::open(config)?;
        Ok(Box::new(Netfilter { plane, verifies }))
    };
    WirePlane::run(devices, make, work).unwrap_or_else(|error| panic!("{error}"))
}

impl RealPlane for Netfilter {
    fn name(&self) -> &str {
        "iptables"
    }

    fn plane(&mut self) -> &mut dyn DataPlane {
        self
    }

    fn forget(&mut self) -> io::Result<()> {
        self.plane.forget_state()
    }

    fn set_clock(&mut self, now: Duration) -> io::Result<()> {
        self.plane.set_clock(now)
    }
}

/// What it writes is what is then read back, and no change needs a second attempt.
impl DataPlane for Netfilter {
    fn capabilities(&self) -> Capabilities {
        self.plane.capabilities()
    }

    fn apply(&mut self, target: &Target) -> Result<ApplyReport, ApplyError> {
        let report = self.plane.apply(target)?;
        // But for what a capability says.
        let remarks = report.remarks.iter();
        let mut others = remarks.filter(|remark| !remark.contains("so these rules permit nothing"));
        assert_eq!(others.next(), None);
        if self.verifies {
            assert_eq!(self.plane.verify()?, []);
        }
        Ok(report)
    }

    fn audit(&mut self) -> Result<Vec<Drift>, ApplyError> {
        self.plane.audit()
    }

    fn counters(&mut self) -> Result<Counters, ApplyError> {
        self.plane.counters()
    }

    fn detach(&mut self) -> Result<(), ApplyError> {
        self.plane.detach()
    }
}
