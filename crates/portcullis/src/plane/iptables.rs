//! The iptables plane.

mod twin;

use super::{Flaw, FlawAt, LivePlane, asking};
use crate::failure::Failure;
use agent::Instance;
use conformance::Judge;
use conformance::scenario::{DeviceKind, RealPlane, WireJudge, WirePlane};
use dataplane::{
    ApplyError, ApplyReport, Capabilities, Counters, DataPlane, DevicesInForce, Drift, FlowRecord,
    Outcome, Target,
};
use dataplane_iptables::{Backend, Difference, IptablesConfig, IptablesPlane, Place};
use model::{Direction, PortId};
use policy::HostView;
use std::time::Duration;

pub(super) fn open(
    instance: &Instance,
    backend: Option<Backend>,
) -> Result<Box<dyn LivePlane>, Failure> {
    let plane = IptablesPlane::open(config(instance, backend)).map_err(opening)?;
    Ok(Box::new(Iptables {
        plane,
        only_looks: false,
    }))
}

pub(super) fn look(
    instance: &Instance,
    backend: Option<Backend>,
) -> Result<Box<dyn LivePlane>, Failure> {
    let plane = IptablesPlane::open_existing(config(instance, backend)).map_err(opening)?;
    Ok(Box::new(Iptables {
        plane,
        only_looks: true,
    }))
}

pub(super) fn remove(instance: &Instance, backend: Option<Backend>) -> Result<bool, Failure> {
    let there = is_there(instance)?;
    let mut plane = IptablesPlane::open(config(instance, backend)).map_err(opening)?;
    // Chains may be there, without the table that says whose.
    plane.detach().map_err(Failure::system)?;
    Ok(there)
}

pub(super) fn is_there(instance: &Instance) -> Result<bool, Failure> {
    let instances = IptablesPlane::instances().map_err(opening)?;
    Ok(instances.iter().any(|name| name == instance.name()))
}

/// In network namespaces of its own, each packet for real.
pub(super) fn with_trial<T: Send>(
    backend: Option<Backend>,
    work: impl FnOnce(&mut dyn Judge, Capabilities) -> T + Send,
) -> Result<T, Failure> {
    let make = move || {
        let config = IptablesConfig {
            instance: "selftest".to_owned(),
            directory: None,
            backend,
        };
        let plane = IptablesPlane::open(config);
        plane.map(|plane| Box::new(Trial(plane)) as Box<dyn RealPlane>)
    };
    let shown = |wire: &mut WirePlane| {
        let capabilities = Capabilities {
            // Each port is on a bridge of its own there.
            per_end_start: true,
            ..dataplane_iptables::CAPABILITIES
        };
        work(&mut WireJudge(wire), capabilities)
    };
    WirePlane::run(DeviceKind::Veth, make, shown).map_err(Failure::system)
}

fn config(instance: &Instance, backend: Option<Backend>) -> IptablesConfig {
    IptablesConfig {
        instance: instance.name().to_owned(),
        directory: Some(instance.run_dir().to_owned()),
        backend,
    }
}

fn opening(error: std::io::Error) -> Failure {
    Failure::System(format!("{error}; nothing was changed"))
}

struct Iptables {
    plane: IptablesPlane,
    only_looks: bool,
}

impl DataPlane for Iptables {
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

impl LivePlane for Iptables {
    fn as_plane(&mut self) -> &mut dyn DataPlane {
        self
    }

    fn recognize(&mut self, view: &HostView) -> Result<(), Failure> {
        match self.plane.recognize(view) {
            true => Ok(()),
            false if self.only_looks => Err(Failure::System(
                "what is in force is not the last policy that is known, or another build of this program wrote it; `portcullis run` writes it anew"
                    .to_owned(),
            )),
            false => {
                tracing::warn!("what is in force is not the cached policy; it is written anew");
                Ok(())
            }
        }
    }

    fn ports(&mut self) -> Result<Vec<PortId>, Failure> {
        Ok(self.plane.ports())
    }

    fn find_devices(&mut self) -> Result<DevicesInForce, Failure> {
        Ok(self.plane.find_devices())
    }

    fn flows(&mut self, port: Option<&PortId>) -> Result<Vec<FlowRecord>, Failure> {
        self.plane.flows(port).map_err(asking("reading the flows"))
    }

    fn verify(&mut self) -> Result<Vec<Flaw>, Failure> {
        let differences = self.plane.verify().map_err(Failure::system)?;
        let flaw = |Difference { at, what }| {
            let at = match at {
                Place::Hooks => FlawAt::Hooks,
                Place::Rules => FlawAt::Rules,
                Place::Guard => FlawAt::Guard,
            };
            Flaw { at, what }
        };
        Ok(differences.into_iter().map(flaw).collect())
    }

    fn take_over(&mut self, target: &Target) -> Result<u64, Failure> {
        let taken = self.plane.take_over_connections(target);
        taken.map_err(asking("taking over connections"))
    }

    fn give_back(&mut self, target: &Target) -> Result<u64, Failure> {
        let given = self.plane.give_back_connections(target);
        given.map_err(asking("giving back connections"))
    }

    fn hand_over(&mut self, target: &Target) -> Result<u64, Failure> {
        self.plane.hand_over(target).map_err(Failure::system)
    }

    fn beside(&mut self, change: &mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
        self.plane.beside(change)
    }

    fn dry_run(
        &mut self,
        port: &PortId,
        direction: Direction,
        frame: &[u8],
    ) -> Result<Result<Outcome, String>, Failure> {
        twin::ask(&self.plane, port, direction, frame)
    }
}

/// A plane in namespaces of its own.
struct Trial(IptablesPlane);

impl RealPlane for Trial {
    fn name(&self) -> &str {
        "iptables"
    }

    fn plane(&mut self) -> &mut dyn DataPlane {
        &mut self.0
    }

    fn forget(&mut self) -> std::io::Result<()> {
        self.0.forget_state()
    }

    fn set_clock(&mut self, now: Duration) -> std::io::Result<()> {
        self.0.set_clock(now)
    }
}
