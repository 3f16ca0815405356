//! The Open vSwitch plane.

use super::{Flaw, FlawAt, LivePlane, asking};
use crate::failure::Failure;
use agent::Instance;
use conformance::scenario::{DeviceKind, Plane, RealPlane, TwoHosts, WireJudge, WirePlane};
use conformance::selftest::Deliveries;
use conformance::{Judge, START};
use dataplane::{
    ApplyError, ApplyReport, Capabilities, Counters, DataPlane, DevicesInForce, Drift, FlowRecord,
    Outcome, Target,
};
use dataplane_ovs::{OvsConfig, OvsPlane};
use model::{Direction, PortId};
use policy::HostView;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

pub(super) fn open(instance: &Instance, run_dir: &Path) -> Result<Box<dyn LivePlane>, Failure> {
    let plane = OvsPlane::open(config(instance, run_dir)).map_err(opening)?;
    Ok(Box::new(Ovs {
        plane,
        only_looks: false,
    }))
}

pub(super) fn look(instance: &Instance, run_dir: &Path) -> Result<Box<dyn LivePlane>, Failure> {
    let plane = OvsPlane::open_existing(config(instance, run_dir)).map_err(opening)?;
    Ok(Box::new(Ovs {
        plane,
        only_looks: true,
    }))
}

pub(super) fn remove(instance: &Instance, run_dir: &Path) -> Result<bool, Failure> {
    let mut plane = OvsPlane::open(config(instance, run_dir)).map_err(opening)?;
    let there = plane.is_there().map_err(opening)?;
    plane.detach().map_err(Failure::system)?;
    Ok(there)
}

pub(super) fn is_there(instance: &Instance, run_dir: &Path) -> Result<bool, Failure> {
    let mut plane = OvsPlane::open(config(instance, run_dir)).map_err(opening)?;
    plane.is_there().map_err(opening)
}

/// By an Open vSwitch of its own in a network namespace of its own, each packet for real.
pub(super) fn with_trial<T: Send>(
    work: impl FnOnce(&mut dyn Judge, Capabilities) -> T + Send,
) -> Result<T, Failure> {
    let make =
        |run_dir: &Path| -> io::Result<Box<dyn RealPlane>> { Ok(Box::new(Trial::open(run_dir)?)) };
    let shown = |wire: &mut WirePlane| work(&mut WireJudge(wire), dataplane_ovs::CAPABILITIES);
    WirePlane::run_on_switch(DeviceKind::Veth, make, shown).map_err(Failure::system)
}

/// By two Open vSwitches of their own, of which each has a plane.
pub(super) fn with_trial_hosts<T>(
    work: impl FnOnce(&mut dyn Deliveries) -> T,
) -> Result<T, Failure> {
    let make = |run_dir: &Path| Ok(Box::new(Trial::open(run_dir)?) as Plane);
    let mut hosts = TwoHosts::new(make).map_err(Failure::system)?;
    Ok(work(&mut hosts))
}

impl Trial {
    fn open(run_dir: &Path) -> io::Result<Self> {
        let plane = OvsPlane::open(OvsConfig {
            instance: "selftest".to_owned(),
            run_dir: run_dir.to_owned(),
        })?;
        Ok(Self { plane, now: START })
    }
}

fn config(instance: &Instance, run_dir: &Path) -> OvsConfig {
    OvsConfig {
        instance: instance.name().to_owned(),
        run_dir: run_dir.to_owned(),
    }
}

fn opening(error: io::Error) -> Failure {
    Failure::System(format!("{error}; nothing was changed"))
}

struct Ovs {
    plane: OvsPlane,
    only_looks: bool,
}

impl DataPlane for Ovs {
    fn capabilities(&self) -> Capabilities {
        self.plane.capabilities()
    }

    fn apply(&mut self, target: &Target) -> Result<ApplyReport, ApplyError> {
        self.plane.apply(target)
    }

    fn audit(&mut self) -> Result<Vec<Drift>, ApplyError> {
        self.plane.audit()
    }

    fn audit_every(&self) -> Duration {
        self.plane.audit_every()
    }

    fn interface_ids(&mut self) -> Result<Option<BTreeMap<String, String>>, ApplyError> {
        self.plane.interface_ids()
    }

    fn counters(&mut self) -> Result<Counters, ApplyError> {
        self.plane.counters()
    }

    fn tend(&mut self) -> Result<(), ApplyError> {
        self.plane.tend()
    }

    fn detach(&mut self) -> Result<(), ApplyError> {
        self.plane.detach()
    }
}

impl LivePlane for Ovs {
    fn as_plane(&mut self) -> &mut dyn DataPlane {
        self
    }

    /// Who only looks is told by `audit` what is otherwise.
    fn recognize(&mut self, view: &HostView) -> Result<(), Failure> {
        let recognized = self.plane.recognize(view);
        let recognized =
            recognized.map_err(asking("comparing the policy with what is in force"))?;
        if !recognized && !self.only_looks {
            tracing::warn!("what is in force is not the cached policy; it is written anew");
        }
        Ok(())
    }

    fn ports(&mut self) -> Result<Vec<PortId>, Failure> {
        let devices = self.find_devices()?;
        Ok(devices.of_ports.into_keys().collect())
    }

    fn find_devices(&mut self) -> Result<DevicesInForce, Failure> {
        let found = self.plane.find_devices();
        found.map_err(asking("asking Open vSwitch for the ports' devices"))
    }

    fn flows(&mut self, port: Option<&PortId>) -> Result<Vec<FlowRecord>, Failure> {
        self.plane.flows(port).map_err(asking("reading the flows"))
    }

    fn verify(&mut self) -> Result<Vec<Flaw>, Failure> {
        let differences = self.plane.verify().map_err(Failure::system)?;
        let flaw = |what| Flaw {
            at: FlawAt::Rules,
            what,
        };
        Ok(differences.into_iter().map(flaw).collect())
    }

    /// None: whoever judged before had no zone for each port, as the tracker of Open vSwitch has for us, and
    /// that of its userspace datapath takes no entries from outside.
    fn take_over(&mut self, _target: &Target) -> Result<u64, Failure> {
        Ok(0)
    }

    /// None: the kernel's own tracker sees nothing of what goes through this switch.
    fn give_back(&mut self, _target: &Target) -> Result<u64, Failure> {
        Ok(0)
    }

    fn hand_over(&mut self, _target: &Target) -> Result<u64, Failure> {
        self.plane.detach().map_err(Failure::system)?;
        Ok(0)
    }

    /// Nothing of this plane is in nftables.
    fn beside(&mut self, change: &mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
        change()
    }

    fn dry_run(
        &mut self,
        port: &PortId,
        direction: Direction,
        frame: &[u8],
    ) -> Result<Result<Outcome, String>, Failure> {
        let outcome = self.plane.dry_run(port, direction, frame);
        outcome.map_err(asking("having the switch trace the packet"))
    }
}

/// A plane on a switch of its own.
struct Trial {
    plane: OvsPlane,
    now: Duration,
}

impl RealPlane for Trial {
    fn name(&self) -> &str {
        "ovs"
    }

    fn plane(&mut self) -> &mut dyn DataPlane {
        &mut self.plane
    }

    fn forget(&mut self) -> io::Result<()> {
        self.plane.forget_state()
    }

    /// Its clock goes on only: what could be missed by that is forgotten then.
    fn set_clock(&mut self, now: Duration) -> io::Result<()> {
        if let Some(by) = now.checked_sub(self.now).filter(|by| !by.is_zero()) {
            self.plane.advance(by)?;
        }
        self.now = now;
        Ok(())
    }
}
