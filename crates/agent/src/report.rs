//! What the agent tells people: milestones as they happen, and its state when asked.
//!
//! Place on the line: beside it; nothing decides by it.
//! Knows nothing of: logs' formats, JSON, tables.

use crate::arming::ArmingTimes;
use crate::matching::DeviceFinding;
use dataplane::{Device, Drift};
use model::{HostId, PortId, Revision};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tracing::{debug, error, info, warn};

/// Where the policy in force comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    File,
    /// The file could not be used, or no server be reached, when the agent started; this is the last one that was.
    Cache,
    Server,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    PolicyRead {
        revision: Revision,
        ports: usize,
    },
    /// `enforced`: what stays in force, if anything does.
    PolicyInvalid {
        errors: Vec<String>,
        enforced: Option<Revision>,
    },
    ServerUnreached(String),
    EnforcingCached {
        revision: Revision,
    },
    PolicyCompiled {
        revision: Revision,
        ports: usize,
        findings: Vec<String>,
    },
    /// By a server: this is taken in.
    PolicyChanged {
        revision: Revision,
    },
    /// That changes have brought, some time ago.
    NewFindings {
        revision: Revision,
        findings: Vec<String>,
    },
    /// Devices that no port could be given.
    DeviceFindings(Vec<DeviceFinding>),
    Applied {
        revision: Revision,
        ports: usize,
        devices: usize,
        closed: usize,
        writes: u64,
        took: Duration,
    },
    /// By the plane, about what it applied just now.
    Remarked(Vec<String>),
    /// A new revision that changes nothing on this host.
    NothingToApply {
        revision: Revision,
    },
    /// Ports that are refused and were not before, or for another reason.
    Refused {
        revision: Revision,
        ports: Vec<(PortId, String)>,
    },
    ApplyFailed {
        revision: Revision,
        error: String,
        retry_after: Duration,
    },
    Drifted(Vec<Drift>),
    AuditFailed(String),
    InterfaceIdsUnread(String),
    DeviceArmed {
        port: PortId,
        device: String,
        ifindex: u32,
    },
    /// Devices that are closed and were not before.
    DevicesClosed(Vec<Device>),
    DeviceGone {
        device: String,
        ifindex: u32,
    },
    /// Of a port that isn't this host's, or they came too late.
    FlowsDropped(PortId),
    /// Enforcement is rolled back unless someone confirms in this time.
    ConfirmWithin(Duration),
    Confirmed,
    RolledBack,
}

/// How far the host is: what a server is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What the plane enforces.
    pub applied: Option<Revision>,
    /// Ports of the policy for which that doesn't hold.
    pub not_enforced: BTreeMap<PortId, PortState>,
}

/// The agent's state, for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub host: HostId,
    /// The newest valid policy.
    pub read: Option<Revision>,
    /// What the plane enforces.
    pub applied: Option<Revision>,
    pub source: Option<Source>,
    /// What is wrong with the file as it is now, or why no server answers; empty when it is in force.
    pub policy_errors: Vec<String>,
    pub findings: Vec<String>,
    pub apply_error: Option<String>,
    pub drift: Vec<Drift>,
    pub ports: BTreeMap<PortId, PortStatus>,
    pub closed: BTreeSet<Device>,
    pub arming: ArmingTimes,
    /// What is left of the time to confirm.
    pub confirm_left: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortStatus {
    pub device: Option<Device>,
    pub state: PortState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortState {
    Enforced,
    /// Its device isn't there; its policy is prepared.
    NoDevice,
    /// The plane keeps what it had for this port, because of this.
    Refused(String),
    /// Not told to the plane yet.
    Pending,
}

impl Report {
    /// One line of the log for each thing that happened, and no more of a kind than people read.
    pub(crate) fn log(&self) {
        match self {
            Report::PolicyRead { revision, ports } => info!(%revision, ports, "policy read"),
            Report::PolicyInvalid { errors, enforced } => {
                for error in errors.iter().take(SHOWN) {
                    error!(%error, "policy file not usable");
                }
                match enforced {
                    Some(revision) => {
                        error!(errors = errors.len(), enforced = %revision, "policy file rejected: nothing changed, the last good policy stays in force");
                    }
                    None => {
                        error!(
                            errors = errors.len(),
                            "policy file rejected: nothing changed, and there is no earlier policy"
                        );
                    }
                }
            }
            Report::EnforcingCached { revision } => {
                error!(%revision, "enforcing the CACHED policy until the policy file is usable again, or a server answers");
            }
            Report::ServerUnreached(error) => {
                error!(%error, "no server answers: what is in force stays");
            }
            Report::PolicyChanged { revision } => debug!(%revision, "policy changed"),
            Report::NewFindings { revision, findings } => tell_findings(revision, findings),
            Report::PolicyCompiled {
                revision,
                ports,
                findings,
            } => {
                info!(%revision, ports, findings = findings.len(), "policy compiled");
                tell_findings(revision, findings);
            }
            Report::DeviceFindings(findings) => {
                for finding in findings.iter().take(SHOWN) {
                    warn!(%finding, "device not clear");
                }
                if let Some(more) = more_than_shown(findings) {
                    warn!(
                        more,
                        "more devices not clear: see portcullis status -o wide"
                    );
                }
            }
            Report::Applied {
                revision,
                ports,
                devices,
                closed,
                writes,
                took,
            } => {
                let took_ms = took.as_secs_f64() * 1_000.0;
                info!(%revision, ports, devices, closed, writes, took_ms, "policy applied");
            }
            Report::Remarked(remarks) => {
                for remark in remarks.iter().take(SHOWN) {
                    warn!(%remark, "policy applied, with a remark");
                }
            }
            Report::NothingToApply { revision } => {
                info!(%revision, "policy applied: nothing changes on this host");
            }
            Report::Refused { revision, ports } => {
                for (port, why) in ports.iter().take(SHOWN) {
                    error!(%revision, %port, %why, "port not served");
                }
                if let Some(more) = more_than_shown(ports) {
                    error!(%revision, more, "more ports not served: see portcullis status");
                }
            }
            Report::ApplyFailed {
                revision,
                error,
                retry_after,
            } => {
                let retry_after_ms = retry_after.as_millis();
                error!(%revision, %error, retry_after_ms, "policy not applied: each port stays under its old or its new policy");
            }
            Report::Drifted(drift) => {
                for drift in drift.iter().take(SHOWN) {
                    warn!(?drift, "host not as it was left");
                }
                if let Some(more) = more_than_shown(drift) {
                    warn!(more, "more is not as it was left: see portcullis status");
                }
            }
            Report::AuditFailed(error) => warn!(%error, "audit failed"),
            Report::InterfaceIdsUnread(error) => {
                warn!(%error, "interface ids not read: ports keep the devices that they have by them");
            }
            Report::DeviceArmed {
                port,
                device,
                ifindex,
            } => debug!(%port, %device, ifindex, "device armed"),
            Report::DevicesClosed(devices) => {
                for Device { name, ifindex } in devices.iter().take(SHOWN) {
                    warn!(device = %name, ifindex, "device closed: it is ours and no port's, and passes nothing");
                }
                if let Some(more) = more_than_shown(devices) {
                    warn!(more, "more devices closed: see portcullis status");
                }
            }
            Report::DeviceGone { device, ifindex } => debug!(%device, ifindex, "device gone"),
            Report::FlowsDropped(port) => {
                warn!(%port, "flows from the port's earlier host are of no use here: its connections begin anew");
            }
            Report::ConfirmWithin(time) => {
                let seconds = time.as_secs();
                warn!(
                    seconds,
                    "enforcing for the first time: removed again unless someone runs `portcullis confirm`"
                );
            }
            Report::Confirmed => info!("enforcement confirmed"),
            Report::RolledBack => error!("nobody confirmed: enforcement is being removed"),
        }
    }
}

fn tell_findings(revision: &Revision, findings: &[String]) {
    for finding in findings.iter().take(SHOWN) {
        warn!(%revision, %finding, "finding");
    }
    if let Some(more) = more_than_shown(findings) {
        warn!(%revision, more, "more findings: see portcullis status -o wide");
    }
}

/// Lines of the log for a list that has no bound.
pub(crate) const SHOWN: usize = 20;

pub(crate) fn more_than_shown<T>(list: &[T]) -> Option<usize> {
    list.len().checked_sub(SHOWN).filter(|more| *more > 0)
}
