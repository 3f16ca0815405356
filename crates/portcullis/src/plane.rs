//! Which data plane, and what only a loaded one can be asked.
//!
//! Place on the line: view -> **the plane**. A file for each plane's crate.

mod connections;
mod ebpf;
mod iptables;
mod ovs;

pub(crate) use connections::forget_revoked;
pub(crate) use dataplane_iptables::COMMENT;

use crate::failure::Failure;
use agent::Instance;
use clap::{Args, ValueEnum};
use conformance::Judge;
use conformance::selftest::Deliveries;
use dataplane::{Capabilities, DataPlane, DevicesInForce, FlowRecord, Outcome, Target};
use dataplane_iptables::Backend;
use model::{Direction, PortId};
use policy::HostView;
use std::convert::Infallible;
use std::io;
use std::path::Path;

#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlaneArgs {
    /// The data plane that enforces
    #[arg(long, value_enum, default_value = "ebpf", env = "PORTCULLIS_PLANE")]
    pub(crate) plane: PlaneName,

    /// For the iptables plane: which of the two implementations of iptables [default: the one that
    /// `iptables` is on this host]
    #[arg(long, value_enum, value_name = "BACKEND", env = "PORTCULLIS_IPTABLES")]
    iptables: Option<BackendName>,

    /// For the ovs plane: where Open vSwitch has its sockets, db.sock and <bridge>.mgmt among them
    #[arg(long, value_name = "DIR", default_value = OVS_RUN_DIR, value_parser = for_ever, env = OVS_RUN_DIR_VARIABLE)]
    ovs_run_dir: &'static Path,
}

const OVS_RUN_DIR: &str = "/var/run/openvswitch";
const OVS_RUN_DIR_VARIABLE: &str = "PORTCULLIS_OVS_RUN_DIR";

/// An argument is needed as long as the process lives.
fn for_ever(path: &str) -> Result<&'static Path, Infallible> {
    Ok(Box::leak(Box::<Path>::from(Path::new(path))))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlaneName {
    /// Our own programs on the devices (tcx, or clsact before Linux 6.6)
    Ebpf,
    /// iptables, ipset and nftables, for devices on Linux bridges
    Iptables,
    /// OpenFlow, for devices on bridges of Open vSwitch
    Ovs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BackendName {
    Nft,
    Legacy,
}

impl PlaneArgs {
    pub(crate) fn ebpf() -> Self {
        Self::of(PlaneName::Ebpf)
    }

    pub(crate) fn iptables() -> Self {
        Self::of(PlaneName::Iptables)
    }

    fn of(plane: PlaneName) -> Self {
        Self {
            plane,
            iptables: None,
            ovs_run_dir: Path::new(OVS_RUN_DIR),
        }
    }

    /// By its name in CloudStack's configuration. Its agent builds no bridges of Open vSwitch with security
    /// groups.
    pub(crate) fn set_plane(&mut self, name: &str) -> Result<(), String> {
        self.plane = match PlaneName::from_str(name, false) {
            Ok(plane @ (PlaneName::Ebpf | PlaneName::Iptables)) => plane,
            Ok(PlaneName::Ovs) | Err(_) => {
                return Err(format!("`{name}` is neither ebpf nor iptables"));
            }
        };
        Ok(())
    }

    pub(crate) fn set_backend(&mut self, name: &str) -> Result<(), String> {
        let backend = BackendName::from_str(name, false);
        self.iptables = Some(backend.map_err(|_| format!("`{name}` is neither nft nor legacy"))?);
        Ok(())
    }

    pub(crate) fn name(self) -> &'static str {
        match self.plane {
            PlaneName::Ebpf => "ebpf",
            PlaneName::Iptables => "iptables",
            PlaneName::Ovs => "ovs",
        }
    }

    /// Under these, a command of ours is about the same plane.
    pub(crate) fn environment(self) -> Vec<(&'static str, String)> {
        let backend = self.backend().map(|backend| backend.name().to_owned());
        let backend = backend.map(|name| ("PORTCULLIS_IPTABLES", name));
        let run_dir = self.ovs_run_dir.display().to_string();
        [
            ("PORTCULLIS_PLANE", self.name().to_owned()),
            (OVS_RUN_DIR_VARIABLE, run_dir),
        ]
        .into_iter()
        .chain(backend)
        .collect()
    }

    pub(crate) fn backend(self) -> Option<Backend> {
        self.iptables.map(|name| match name {
            BackendName::Nft => Backend::Nft,
            BackendName::Legacy => Backend::Legacy,
        })
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

    /// Reads back all of what it holds: what is not as it should be. Dearer than an audit.
    fn verify(&mut self) -> Result<Vec<Flaw>, Failure>;

    /// Before the first apply where somebody else has judged these ports' packets so far: connections that the
    /// kernel tracks for them go on. How many.
    fn take_over(&mut self, target: &Target) -> Result<u64, Failure>;

    /// Before somebody else judges as well: the kernel tracks the connections of what is in force where nobody
    /// says a zone, too. How many more. Again whenever some may have begun.
    fn give_back(&mut self, target: &Target) -> Result<u64, Failure>;

    /// Detaches, where somebody else judges from then on: the last connections go over with it.
    fn hand_over(&mut self, target: &Target) -> Result<u64, Failure>;

    /// Makes a change of ours to nftables that isn't the plane's: one transaction, or none if it fails. The plane
    /// need not read back what it holds because of it.
    fn beside(&mut self, change: &mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failure>;

    /// What it would answer about this frame; nothing is counted or remembered. `Err` inside: it can't be
    /// asked that, and why.
    fn dry_run(
        &mut self,
        port: &PortId,
        direction: Direction,
        frame: &[u8],
    ) -> Result<Result<Outcome, String>, Failure>;
}

/// Something in the kernel is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) at: FlawAt,
    pub(crate) what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FlawAt {
    /// Packets don't come by.
    Hooks,
    Rules,
    /// The guard at the link layer.
    Guard,
}

/// To enforce: loads it, or takes over what is there.
pub(crate) fn open(
    args: PlaneArgs,
    instance: &Instance,
    max_ports: u32,
    direct: bool,
) -> Result<Box<dyn LivePlane>, Failure> {
    match args.plane {
        PlaneName::Ebpf => ebpf::open(instance, max_ports, direct),
        PlaneName::Iptables if direct => Err(Failure::Usage(
            "--direct is for --plane ebpf: iptables judges what a bridge passes on".to_owned(),
        )),
        PlaneName::Iptables => iptables::open(instance, args.backend()),
        PlaneName::Ovs if direct => Err(Failure::Usage(
            "--direct is for --plane ebpf: Open vSwitch judges what a bridge of its passes on"
                .to_owned(),
        )),
        PlaneName::Ovs => ovs::open(instance, args.ovs_run_dir),
    }
}

/// To look at what is there; changes nothing.
pub(crate) fn look(args: PlaneArgs, instance: &Instance) -> Result<Box<dyn LivePlane>, Failure> {
    match args.plane {
        PlaneName::Ebpf => ebpf::look(instance),
        PlaneName::Iptables => iptables::look(instance, args.backend()),
        PlaneName::Ovs => ovs::look(instance, args.ovs_run_dir),
    }
}

/// Removes all enforcement of this instance; `false`: there was none.
pub(crate) fn remove(args: PlaneArgs, instance: &Instance) -> Result<bool, Failure> {
    match args.plane {
        PlaneName::Ebpf => ebpf::remove(instance),
        PlaneName::Iptables => iptables::remove(instance, args.backend()),
        PlaneName::Ovs => ovs::remove(instance, args.ovs_run_dir),
    }
}

/// Is anything of this instance in the kernel, be it the rest of a start that failed?
pub(crate) fn is_there(args: PlaneArgs, instance: &Instance) -> Result<bool, Failure> {
    match args.plane {
        PlaneName::Ebpf => ebpf::is_there(instance),
        PlaneName::Iptables => iptables::is_there(instance),
        PlaneName::Ovs => ovs::is_there(instance, args.ovs_run_dir),
    }
}

/// Calls `work` with a plane of its own that judges no device of this host: packets are shown to it.
pub(crate) fn with_trial<T: Send>(
    args: PlaneArgs,
    work: impl FnOnce(&mut dyn Judge, Capabilities) -> T + Send,
) -> Result<T, Failure> {
    match args.plane {
        PlaneName::Ebpf => ebpf::with_trial(args.name(), work),
        PlaneName::Iptables => iptables::with_trial(args.backend(), work),
        PlaneName::Ovs => ovs::with_trial(work),
    }
}

/// Calls `work` with two hosts of their own that tunnel to each other.
pub(crate) fn with_trial_hosts<T>(
    args: PlaneArgs,
    work: impl FnOnce(&mut dyn Deliveries, Capabilities) -> T,
) -> Result<T, Failure> {
    match args.plane {
        PlaneName::Ovs => ovs::with_trial_hosts(|hosts| work(hosts, dataplane_ovs::CAPABILITIES)),
        PlaneName::Ebpf | PlaneName::Iptables => Err(Failure::Usage(
            "--hosts 2 is for --plane ovs: the others build no tunnels".to_owned(),
        )),
    }
}

fn asking(step: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::System(format!("{step}: {error}; nothing was changed"))
}
