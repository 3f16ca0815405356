//! The seam between the agent and a data plane.
//!
//! Place on the line: view -> **render -> plan -> execute** -> report.
//! Knows nothing of: files, servers, device discovery, and how any one plane works.

mod model_plane;
mod moved;

pub use model::{Capabilities, Flows, NdOptions};
use model::{
    Direction, DropReason, FlowKey, FlowState, MacAddr, PortId, Revision, RuleRef, Verdict,
};
pub use model_plane::ModelPlane;
pub use moved::{BadFlows, Imported, LeftOut, MAX_FLOWS, MovedFlow, NO_TURN, PortFlows};
use policy::HostView;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A local port's device as it is now on the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    pub name: String,
    pub ifindex: u32,
}

/// Which devices are judged for a port, and which pass nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DevicesInForce {
    pub of_ports: BTreeMap<PortId, Device>,
    pub closed: BTreeSet<Device>,
    /// Packets between them go straight, past the bridge.
    pub direct: bool,
}

/// What the host is to enforce, and on which devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub view: HostView,
    /// Ports of the view whose device is there. A port without one is prepared, not attached.
    pub devices: BTreeMap<PortId, Device>,
    /// Devices that are ours and belong to no port of the view: they pass nothing.
    pub closed: BTreeSet<Device>,
    /// The bridges that any of these devices are on. A plane that hooks into devices needs none.
    pub bridges: BTreeMap<Device, Bridge>,
}

/// What is on a bridge of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// Frames to these MACs go to the host itself: the bridge's own, and those of the devices on it.
    pub macs: BTreeSet<MacAddr>,
    /// All devices on it, the ports' among them.
    pub members: BTreeSet<Device>,
}

/// Enforces a target on this host.
///
/// Every call may block on the kernel. One thread calls. Enforcement outlives the value: dropping it
/// changes no verdict.
pub trait DataPlane {
    fn capabilities(&self) -> Capabilities;

    /// Makes the kernel enforce the target; idempotent. Each port is under its old or its new policy
    /// at every instant. A port that can't be served keeps its last policy, or stays closed if it
    /// has none, and is named in the report.
    fn apply(&mut self, target: &Target) -> Result<ApplyReport, ApplyError>;

    /// Reads the host back and says what is not as the last target wants it. Changes nothing.
    fn audit(&mut self) -> Result<Vec<Drift>, ApplyError>;

    /// How often an agent audits.
    fn audit_every(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn counters(&mut self) -> Result<Counters, ApplyError>;

    /// Called about once a second while an agent runs: for what a plane has to do all the time, such
    /// as removing what has expired. Changes no verdict.
    fn tend(&mut self) -> Result<(), ApplyError> {
        Ok(())
    }

    /// The ids that a virtual switch has for its interfaces, by the names of their devices; an agent asks about
    /// once a second if ports are found by them. `None`: this plane's switch has no such ids.
    fn interface_ids(&mut self) -> Result<Option<BTreeMap<String, String>>, ApplyError> {
        Ok(None)
    }

    /// What the port remembers of its packets, to go to another host with its VM. Changes nothing. A
    /// port that is not under a policy here is an error (`NotFound`); so is a plane that can't
    /// (`Unsupported`), as its flows are a tracker's: no flows at all would look like a port without any.
    fn export_flows(&mut self, port: &PortId) -> Result<PortFlows, ApplyError> {
        Err(cant_move(port))
    }

    /// Takes in what another host's plane has exported, under the port's policy here, which has to be in
    /// force (`NotFound`): a flow whose first packet no rule permits here is dead. What is here already
    /// stays as it is, budgets hold.
    fn import_flows(&mut self, port: &PortId, _flows: &PortFlows) -> Result<Imported, ApplyError> {
        Err(cant_move(port))
    }

    /// Removes all enforcement: the one thing that opens ports.
    fn detach(&mut self) -> Result<(), ApplyError>;
}

/// A port whose flows are asked for, or brought, has no policy here.
pub fn not_in_force(doing: &str, port: &PortId) -> ApplyError {
    ApplyError {
        step: format!("{doing} the flows of port {port}"),
        source: std::io::Error::new(
            std::io::ErrorKind::NotFound,
            "the port is under no policy here",
        ),
    }
}

fn cant_move(port: &PortId) -> ApplyError {
    ApplyError {
        step: format!("moving the flows of port {port}"),
        source: std::io::Error::new(
            std::io::ErrorKind::Unsupported,
            "this data plane keeps no flows of its own",
        ),
    }
}

/// A plane that can be shown a packet by hand, at a time that it is told: for tests and the selftest.
pub trait ShownPackets: DataPlane {
    /// What it does about the packet, as if it had been there: it moves state and counters. The frame
    /// has at least an Ethernet header.
    fn show(
        &mut self,
        port: &PortId,
        direction: Direction,
        frame: &[u8],
    ) -> std::io::Result<Verdict>;

    /// The plane's clock stands at this time.
    fn set_time(&mut self, now: Duration) -> std::io::Result<()>;

    /// Removes all flows and remembered fragments.
    fn forget_state(&mut self) -> std::io::Result<()>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplyReport {
    pub revision: Revision,
    /// Ports that now enforce the target, whether or not their device is there.
    pub applied: BTreeSet<PortId>,
    /// Ports that don't, and why; what they enforce instead is in the text.
    pub refused: BTreeMap<PortId, String>,
    /// What people should know, although it is enforced.
    pub remarks: Vec<String>,
    /// Writes to the kernel.
    pub writes: u64,
    pub took: Duration,
}

/// The kernel, or the host, refused. Ports are under their old or new policy, each for itself; the
/// next apply reads back first.
#[derive(Debug)]
pub struct ApplyError {
    /// What was tried, on what.
    pub step: String,
    pub source: std::io::Error,
}

impl std::fmt::Display for ApplyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.step, self.source)
    }
}

impl std::error::Error for ApplyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Something on the host is not as it was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// The port's device is there, and our hooks are not on it.
    Detached { port: PortId, device: String },
    /// Another program sees the port's packets before ours.
    NotFirst {
        port: PortId,
        device: String,
        first: String,
    },
    /// State of the plane was changed by someone else.
    Changed { what: String },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub ports: BTreeMap<PortId, PortCounters>,
    pub rules: BTreeMap<RuleRef, Count>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    pub passed_ingress: Count,
    pub passed_egress: Count,
    pub drops: BTreeMap<DropReason, Count>,
    pub flows: u32,
    pub half_open: u32,
}

/// A tracked flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    pub port: PortId,
    pub key: FlowKey,
    /// The direction of its first packet.
    pub original: Direction,
    pub state: FlowState,
    pub replied: bool,
    pub idle: Duration,
    pub standing: Standing,
}

/// What permits a flow's first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Rule(RuleRef),
    /// Nothing does any more.
    Revoked,
    /// The policy has changed since it was asked; the flow's next packet asks again.
    NotAsked,
}

/// What a plane says of a packet that is shown to it and neither counted nor remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// There is a flow of the packet's tuple, and whether what permits it still stands.
    pub flow_found: bool,
    pub live: bool,
    /// The packet's flow needs no tracking.
    pub elidable: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}
