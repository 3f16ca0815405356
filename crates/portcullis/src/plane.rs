//! Which data plane, and what only a loaded one can be asked.
//!
//! Place on the line: view -> **the plane**. The one file here that names a plane's crate.

use crate::failure::Failure;
use agent::Instance;
use clap::{Args, ValueEnum};
use conformance::{Judge, PlaneJudge, generate};
use dataplane::{
    ApplyError, ApplyReport, Capabilities, Counters, DataPlane, DevicesInForce, Drift, FlowRecord,
    Outcome, Target,
};
use dataplane_ebpf::{EbpfConfig, EbpfPlane};
use model::{Direction, PortId};
use policy::HostView;
use std::io;

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct PlaneArgs {
    /// The data plane that enforces
    #[arg(long, value_enum, default_value = "ebpf")]
    plane: PlaneName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PlaneName {
    /// Our own programs on the devices (tcx, or clsact before Linux 6.6)
    Ebpf,
}

impl PlaneArgs {
    pub(crate) fn name(self) -> &'static str {
        match self.plane {
            PlaneName::Ebpf => "ebpf",
        }
    }
}

/// A data plane that is loaded, and can be looked into.
pub(crate) trait LivePlane: DataPlane {
    fn as_plane(&mut self) -> &mut dyn DataPlane;

    /// Says what was in force when it was last written, so that rules have their names.
    fn recognize(&mut self, view: &HostView) -> Result<(), Failure>;

    /// The ports that are under a policy.
    fn ports(&mut self) -> Result<Vec<PortId>, Failure>;

    /// The devices of ports, and the closed ones, as the kernel has them; an audit looks at them.
    fn find_devices(&mut self) -> Result<DevicesInForce, Failure>;

    fn flows(&mut self, port: Option<&PortId>) -> Result<Vec<FlowRecord>, Failure>;

    /// What it would answer about this frame; nothing is written or counted.
    fn dry_run(
        &mut self,
        port: &PortId,
        direction: Direction,
        frame: &[u8],
    ) -> Result<Outcome, Failure>;
}

/// To enforce: loads it, or takes over what is there.
pub(crate) fn open(
    args: PlaneArgs,
    instance: &Instance,
    max_ports: u32,
    direct: bool,
) -> Result<Box<dyn LivePlane>, Failure> {
    match args.plane {
        PlaneName::Ebpf => {
            let config = EbpfConfig {
                instance: instance.name().to_owned(),
                max_ports,
                direct,
                ..EbpfConfig::default()
            };
            let plane = EbpfPlane::open(config).map_err(Failure::system)?;
            Ok(Box::new(Ebpf(plane)))
        }
    }
}

/// To look at what is there; changes nothing.
pub(crate) fn look(args: PlaneArgs, instance: &Instance) -> Result<Box<dyn LivePlane>, Failure> {
    match args.plane {
        PlaneName::Ebpf => {
            let plane = EbpfPlane::open_existing(instance.name()).map_err(Failure::system)?;
            Ok(Box::new(Ebpf(plane)))
        }
    }
}

/// Removes all enforcement of this instance; `false`: there was none.
pub(crate) fn remove(args: PlaneArgs, instance: &Instance) -> Result<bool, Failure> {
    match args.plane {
        PlaneName::Ebpf => EbpfPlane::remove(instance.name()).map_err(Failure::system),
    }
}

/// Is anything of this instance in the kernel, be it the rest of a start that failed?
pub(crate) fn is_there(args: PlaneArgs, instance: &Instance) -> Result<bool, Failure> {
    match args.plane {
        PlaneName::Ebpf => {
            let instances = EbpfPlane::instances();
            let instances = instances.map_err(asking("listing what is enforced"))?;
            Ok(instances.iter().any(|name| name == instance.name()))
        }
    }
}

/// A plane of its own that judges no device: packets are shown to it by hand. Gone with the value.
pub(crate) struct Trial(PlaneJudge<EbpfPlane>);

pub(crate) fn trial(args: PlaneArgs) -> Result<Trial, Failure> {
    match args.plane {
        PlaneName::Ebpf => {
            let config = EbpfConfig {
                // The fewer, the faster swept; a generated trace has some hundreds.
                max_flows: 4_096,
                ..EbpfConfig::small(format!("selftest-{}", std::process::id()))
            };
            let plane = EbpfPlane::open(config).map_err(Failure::system)?;
            Ok(Trial(PlaneJudge::new(args.name(), generate::host(), plane)))
        }
    }
}

impl Trial {
    pub(crate) fn judge(&mut self) -> &mut dyn Judge {
        &mut self.0
    }

    pub(crate) fn capabilities(&mut self) -> Capabilities {
        self.0.plane().capabilities()
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Err(error) = self.0.plane().detach() {
            tracing::warn!(%error, "the selftest's programs and maps are still there");
        }
    }
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

    fn dry_run(
        &mut self,
        port: &PortId,
        direction: Direction,
        frame: &[u8],
    ) -> Result<Outcome, Failure> {
        self.0
            .dry_run(port, direction, frame)
            .map_err(asking("running the packet through the loaded program"))
    }
}

fn asking(step: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::System(format!("{step}: {error}; nothing was changed"))
}
