//! The Open vSwitch plane in a lab. Needs root.

use dataplane::DataPlane;
use dataplane_ovs::{OvsConfig, OvsPlane};
use portcullis_conformance::START;
use portcullis_conformance::scenario::{DeviceKind, RealPlane, WirePlane};
use std::io;
use std::path::Path;
use std::time::Duration;

pub(crate) struct Switch {
    plane: OvsPlane,
    now: Duration,
}

/// In a lab of its own.
pub(crate) fn with_plane<T: Send>(
    devices: DeviceKind,
    work: impl FnOnce(&mut WirePlane) -> T + Send,
) -> T {
    let make =
        |run_dir: &Path| -> io::Result<Box<dyn RealPlane>> { Ok(Box::new(Switch::open(run_dir)?)) };
    WirePlane::run_on_switch(devices, make, work).unwrap_or_else(|error| panic!("{error}"))
}

impl Switch {
    pub(crate) fn open(run_dir: &Path) -> io::Result<Self> {
        let config = OvsConfig {
            instance: "test".to_owned(),
            run_dir: run_dir.to_owned(),
        };
        Ok(Self {
            plane: OvsPlane::open(config)?,
            now: START,
        })
    }
}

impl RealPlane for Switch {
    fn name(&self) -> &str {
        "ovs"
    }

    fn plane(&mut self) -> &mut dyn DataPlane {
        &mut self.plane
    }

    fn forget(&mut self) -> io::Result<()> {
        self.plane.forget_state()
    }

    /// Back is nowhere: what was forgotten is forgotten.
    fn set_clock(&mut self, now: Duration) -> io::Result<()> {
        if let Some(by) = now.checked_sub(self.now).filter(|by| !by.is_zero()) {
            self.plane.advance(by)?;
        }
        self.now = now;
        Ok(())
    }
}
