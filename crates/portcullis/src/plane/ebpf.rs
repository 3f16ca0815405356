//! The eBPF plane.

mod handover;

use super::{Flaw, FlawAt, LivePlane, asking};
use crate::failure::Failure;
use agent::Instance;
use conformance::{Judge, PlaneJudge, generate};
use dataplane::{
    ApplyError, ApplyReport, Capabilities, Counters, DataPlane, DevicesInForce, Drift, FlowRecord,
    Imported, Outcome, PortFlows, Target,
};
use dataplane_ebpf::{EbpfConfig, EbpfPlane};
use model::{Direction, PortId};
use policy::HostView;

pub(super) fn open(
    instance: &Instance,
    max_ports: u32,
    direct: bool,
) -> Result<Box<dyn LivePlane>, Failure> {
    let config = EbpfConfig {
        instance: instance.name().to_owned(),
        max_ports,
        direct,
        ..EbpfConfig::default()
    };
    let plane = EbpfPlane::open(config).map_err(Failure::system)?;
    Ok(Box::new(Ebpf(plane)))
}

pub(super) fn look(instance: &Instance) -> Result<Box<dyn LivePlane>, Failure> {
    let plane = EbpfPlane::open_existing(instance.name()).map_err(Failure::system)?;
    Ok(Box::new(Ebpf(plane)))
}

pub(super) fn remove(instance: &Instance) -> Result<bool, Failure> {
    EbpfPlane::remove(instance.name()).map_err(Failure::system)
}

pub(super) fn is_there(instance: &Instance) -> Result<bool, Failure> {
    let instances = EbpfPlane::instances().map_err(asking("listing what is enforced"))?;
    Ok(instances.iter().any(|name| name == instance.name()))
}

/// Programs and maps of its own, that judge no device: packets are shown to them by hand.
pub(super) fn with_trial<T>(
    name: &'static str,
    work: impl FnOnce(&mut dyn Judge, Capabilities) -> T,
) -> Result<T, Failure> {
    let config = EbpfConfig {
        // The fewer, the faster swept; a generated trace has some hundreds.
        max_flows: 4_096,
        ..EbpfConfig::small(format!("selftest-{}", std::process::id()))
    };
    let plane = EbpfPlane::open(config).map_err(Failure::system)?;
    let capabilities = plane.capabilities();
    let mut judge = PlaneJudge::new(name, generate::host(), plane);
    let done = work(&mut judge, capabilities);
    if let Err(error) = judge.plane().detach() {
        tracing::warn!(%error, "the selftest's programs and maps are still there");
    }
    Ok(done)
}

struct Ebpf(EbpfPlane);

impl DataPlane for Ebpf {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn apply(&mut self, target: &Target) -> Result<ApplyReport, ApplyError> {
        self.0.apply(target)
    }

    fn audit(&mut self) -> Result<Vec<Drift>, ApplyError> {
        self.0.audit()
    }

    fn counters(&mut self) -> Result<Counters, ApplyError> {
        self.0.counters()
    }

    /// Expired flows go, and the samples of drops that have come since are logged.
    fn tend(&mut self) -> Result<(), ApplyError> {
        let failed = |step: &str| {
            let step = step.to_owned();
            move |source| ApplyError { step, source }
        };
        self.0.tend()?;
        for sample in self.0.events().map_err(failed("reading drop samples"))? {
            let port = sample.port.as_ref().map_or("-", PortId::as_str);
            let packet = wire::words::describe(&sample.frame);
            tracing::debug!(port, direction = %sample.direction, reason = %sample.reason, length = sample.length, packet, "packet dropped");
        }
        Ok(())
    }

    fn export_flows(&mut self, port: &PortId) -> Result<PortFlows, ApplyError> {
        self.0.export_flows(port)
    }

    fn import_flows(&mut self, port: &PortId, flows: &PortFlows) -> Result<Imported, ApplyError> {
        self.0.import_flows(port, flows)
    }

    fn detach(&mut self) -> Result<(), ApplyError> {
        self.0.detach()
    }
}

impl LivePlane for Ebpf {
    fn as_plane(&mut self) -> &mut dyn DataPlane {
        self
    }

    fn recognize(&mut self, view: &HostView) -> Result<(), Failure> {
        self.0
            .adopt(view)
            .map_err(asking("reading what is enforced"))
    }

    fn ports(&mut self) -> Result<Vec<PortId>, Failure> {
        self.0.ports().map_err(asking("reading the ports"))
    }

    fn find_devices(&mut self) -> Result<DevicesInForce, Failure> {
        self.0.find_devices().map_err(asking("reading the devices"))
    }

    fn flows(&mut self, port: Option<&PortId>) -> Result<Vec<FlowRecord>, Failure> {
        self.0.flows(port).map_err(asking("reading the flows"))
    }

    fn verify(&mut self) -> Result<Vec<Flaw>, Failure> {
        let drift = self.0.audit().map_err(Failure::system)?;
        let flaw = |drift| match drift {
            Drift::Detached { port, device } => Flaw {
                at: FlawAt::Hooks,
                what: format!("device {device} of port {port} has no program of ours"),
            },
            Drift::NotFirst {
                port,
                device,
                first,
            } => Flaw {
                at: FlawAt::Hooks,
                what: format!("on device {device} of port {port}, {first} is first"),
            },
            Drift::Changed { what } => Flaw {
                at: FlawAt::Rules,
                what,
            },
        };
        Ok(drift.into_iter().map(flaw).collect())
    }

    fn take_over(&mut self, target: &Target) -> Result<u64, Failure> {
        handover::take(&mut self.0, target).map_err(asking("taking over connections"))
    }

    fn give_back(&mut self, target: &Target) -> Result<u64, Failure> {
        handover::give_back(&mut self.0, target).map_err(asking("giving back connections"))
    }

    /// What begins from here on, the kernel has seen itself.
    fn hand_over(&mut self, target: &Target) -> Result<u64, Failure> {
        let given = self.give_back(target)?;
        self.0.detach().map_err(Failure::system)?;
        Ok(given)
    }

    fn beside(&mut self, change: &mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
        change()
    }

    fn dry_run(
        &mut self,
        port: &PortId,
        direction: Direction,
        frame: &[u8],
    ) -> Result<Result<Outcome, String>, Failure> {
        self.0
            .dry_run(port, direction, frame)
            .map(Ok)
            .map_err(asking("running the packet through the loaded program"))
    }
}
