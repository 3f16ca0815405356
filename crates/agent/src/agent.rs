//! The core: what wakes the agent, what it decides, and what it wants done.
//!
//! Place on the line: inventory -> **compile -> target** -> the plane.
//!
//! Events only mark what is stale; [`Agent::decide`] alone orders an apply, one at a time. Events
//! that arrive while one runs are folded into the next: a thousand changes make one more apply, as
//! long as the driver hands them over before the result.
//!
//! ```text
//!            policy + first device list            differs, or must be repaired
//!   waiting ----------------------------> synced ------------------------------> applying
//!   (changes nothing)                       ^  <---- Applied, ApplyFailed ------------+
//! ```
//! Knows nothing of: clocks, threads, files, netlink; it is told the time and makes no I/O.

mod applied;
mod edits;
mod ids;
mod links;
mod moves;
mod served;

use crate::arming::Arming;
use crate::devices::Link;
use crate::matching::{DeviceFinding, bridges_of, match_devices};
use crate::report::{PortState, PortStatus, Progress, Report, Snapshot, Source};
use dataplane::{ApplyReport, Device, Drift, PortFlows, Target};
use ids::InterfaceIds;
use model::{DeviceMatch, HostId, Inventory, InventoryChange, PortId, Revision};
use moves::Moves;
use policy::{Compiler, HostView};
pub use served::Encode;
use served::{Incoming, Unsaved};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Everything that can wake the agent.
#[derive(Clone, Debug)]
pub enum Event {
    /// The last good policy on disk, with the revision under which it was enforced. Told at the
    /// start, before the policy file, or never.
    CacheRead(PolicyText, Revision),
    PolicyRead(PolicyText),
    /// The file can't be read, or what is in it is no policy.
    PolicyInvalid(Vec<String>),
    /// All that a server has for this host, at the start and whenever changes may have been lost. Before the first
    /// one the agent changes nothing.
    InventoryReplaced(Inventory),
    /// By the server that sent the inventory, in order.
    InventoryChanged(InventoryChange),
    /// Of a port that is on its way to this host, or has come, from the one where it was.
    FlowsArrived(PortId, PortFlows),
    /// No server answers; told at the start, and as often as it is tried again.
    ServerUnreached(String),
    /// All devices, at the start and whenever single messages may have been lost.
    DevicesListed(Vec<Link>),
    /// `at`: when the kernel told it; not later than now, and perhaps before the last step.
    DeviceSeen {
        link: Link,
        at: Duration,
    },
    DeviceGone {
        ifindex: u32,
    },
    /// Of all interfaces that have one, by the names of their devices; `None`: the plane knows of no such ids.
    InterfaceIdsRead(Option<BTreeMap<String, String>>),
    InterfaceIdsUnread(String),
    Applied(ApplyReport),
    ApplyFailed(String),
    Audited(Vec<Drift>),
    AuditFailed(String),
    TimerFired(Timer),
    Confirmed,
    DetachAsked,
    StopAsked,
}

/// A policy as its file says it and as it was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyText {
    pub text: Arc<[u8]>,
    /// Its revision is given by the agent.
    pub inventory: Inventory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// To try an apply again that failed or was refused in part.
    Retry,
    Audit,
    /// The time to confirm is over.
    Confirm,
    /// For what the plane has to do all the time.
    Tend,
    /// The cache lacks what a server has changed.
    Save,
}

/// What the driver is to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Answered by `Applied` or `ApplyFailed`.
    Apply(Arc<Target>),
    /// Of a port that goes to another host, for that one.
    ExportFlows(PortId),
    ImportFlows {
        port: PortId,
        flows: PortFlows,
    },
    /// Answered by `Audited` or `AuditFailed`.
    Audit,
    Tend,
    /// Answered by `InterfaceIdsRead` or `InterfaceIdsUnread`.
    ReadInterfaceIds,
    /// Replaces a timer of the same kind that is running.
    StartTimer(Timer, Duration),
    /// Which devices the bridge-level drop concerns, and which of them may pass it.
    Guard(GuardState),
    /// The devices that are ours, to be found again by the next agent until the next reboot.
    RememberOurs(BTreeSet<Device>),
    SaveCache {
        revision: Revision,
        text: Arc<[u8]>,
    },
    MarkConfirmed,
    /// Removes all enforcement, and what is remembered of it.
    Detach,
    Report(Report),
    Exit(Exit),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardState {
    /// Names of devices that pass nothing before they are armed; may hold `*` at the end.
    pub names: BTreeSet<String>,
    /// By ifindex.
    pub armed: BTreeSet<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// On request; enforcement stays.
    Stopped,
    /// On request; enforcement is removed.
    Detached,
    /// Nobody confirmed; enforcement is removed.
    RolledBack,
    /// No policy to start with; nothing was changed.
    NoPolicy(Vec<String>),
}

#[derive(Clone, Debug)]
pub struct Config {
    pub host: HostId,
    /// Devices that an earlier agent attached to since the last reboot.
    pub ours: BTreeSet<Device>,
    /// A first enforcement is rolled back after this time; `None`: it stands at once.
    pub confirm: Option<Duration>,
    /// Names of devices to guard beside those that the policy names.
    pub guard_names: BTreeSet<String>,
    pub audit_every: Duration,
    /// What the cache keeps of a policy from a server. `None`: nothing.
    pub encode: Option<Encode>,
}

pub struct Agent {
    config: Config,
    cached: Option<(PolicyText, Revision)>,
    policy: Option<Policy>,
    policy_errors: Vec<String>,
    incoming: Incoming,
    unsaved: Unsaved,
    moves: Moves,
    /// `None` until they are listed.
    links: Option<BTreeMap<u32, Link>>,
    ids: InterfaceIds,
    ours: BTreeSet<Device>,
    compiled: Option<Compiled>,
    device_findings: Vec<DeviceFinding>,
    /// The target may differ from what is enforced.
    stale: bool,
    /// What is enforced may not be what it was: apply even if the target is the same.
    repair: bool,
    applying: Option<Arc<Target>>,
    enforced: Option<Enforced>,
    apply_error: Option<String>,
    failures: u32,
    drift: Vec<Drift>,
    /// The audit timer runs, or an audit does.
    auditing: bool,
    guard: GuardState,
    /// Ends at this time; `None` when there is nothing to confirm (any more).
    confirm_until: Option<Duration>,
    confirmed: bool,
    arming: Arming,
    ended: bool,
}

struct Policy {
    revision: Revision,
    source: Source,
    content: Content,
}

enum Content {
    Text(PolicyText),
    Served(Box<Compiler>),
}

impl Policy {
    fn text(&self) -> Option<&Arc<[u8]>> {
        match &self.content {
            Content::Text(read) => Some(&read.text),
            Content::Served(_) => None,
        }
    }

    fn is_served(&self) -> bool {
        self.text().is_none()
    }
}

struct Compiled {
    view: HostView,
    /// Not of a policy from a server: these are found when somebody asks.
    findings: Vec<String>,
    /// Some port's device is found by its interface id.
    by_interface_id: bool,
}

struct Enforced {
    /// Newer than the target's when a later policy changed nothing here.
    revision: Revision,
    target: Arc<Target>,
    refused: BTreeMap<PortId, String>,
}

impl Agent {
    const TEND_EVERY: Duration = Duration::from_secs(1);
    const RETRY_FIRST: Duration = Duration::from_millis(500);
    const RETRY_LAST: Duration = Duration::from_secs(60);
    pub fn new(config: Config) -> Self {
        Self {
            ours: config.ours.clone(),
            confirmed: config.confirm.is_none(),
            config,
            cached: None,
            policy: None,
            policy_errors: Vec::new(),
            incoming: Incoming::default(),
            unsaved: Unsaved::default(),
            moves: Moves::default(),
            links: None,
            ids: InterfaceIds::new(),
            compiled: None,
            device_findings: Vec::new(),
            stale: false,
            repair: false,
            applying: None,
            enforced: None,
            apply_error: None,
            failures: 0,
            drift: Vec::new(),
            auditing: false,
            guard: GuardState::default(),
            confirm_until: None,
            arming: Arming::default(),
            ended: false,
        }
    }

    /// `now` is the time since any fixed moment; it never goes back.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.ended {
            return effects;
        }
        match event {
            Event::CacheRead(policy, revision) => self.cached = Some((policy, revision)),
            Event::PolicyRead(policy) => self.policy_read(policy, &mut effects),
            Event::PolicyInvalid(errors) => self.policy_invalid(errors, &mut effects),
            Event::InventoryReplaced(inventory) => self.inventory_replaced(inventory),
            Event::InventoryChanged(change) => self.inventory_changed(change),
            Event::FlowsArrived(port, flows) => self.flows_arrived(now, port, flows, &mut effects),
            Event::ServerUnreached(error) => self.server_unreached(error, &mut effects),
            Event::DevicesListed(links) => self.devices_listed(now, links, &mut effects),
            Event::DeviceSeen { link, at } => self.device_seen(at, link),
            Event::DeviceGone { ifindex } => self.device_gone(ifindex, &mut effects),
            Event::InterfaceIdsRead(ids) => self.interface_ids_read(ids),
            Event::InterfaceIdsUnread(error) => self.interface_ids_unread(error, &mut effects),
            Event::Applied(report) => self.applied(now, report, &mut effects),
            Event::ApplyFailed(error) => self.apply_failed(error, &mut effects),
            Event::Audited(drift) => self.audited(drift, &mut effects),
            Event::AuditFailed(error) => {
                effects.push(Effect::Report(Report::AuditFailed(error)));
                effects.push(Effect::StartTimer(Timer::Audit, self.config.audit_every));
            }
            Event::TimerFired(Timer::Retry) => {
                self.repair = true;
                self.ids.stale = true;
            }
            Event::TimerFired(Timer::Audit) => {
                // While an apply runs the host is rightly not as the last one left it.
                if self.applying.is_none() {
                    effects.push(Effect::Audit);
                } else {
                    effects.push(Effect::StartTimer(Timer::Audit, self.config.audit_every));
                }
            }
            Event::TimerFired(Timer::Tend) => {
                self.ids.stale = true;
                effects.push(Effect::Tend);
                effects.push(Effect::StartTimer(Timer::Tend, Self::TEND_EVERY));
            }
            Event::TimerFired(Timer::Save) => self.save_fired(&mut effects),
            Event::TimerFired(Timer::Confirm) => {
                if self.confirm_until.is_some() {
                    effects.push(Effect::Detach);
                    effects.push(Effect::Report(Report::RolledBack));
                    self.end(Exit::RolledBack, &mut effects);
                }
            }
            Event::Confirmed => self.confirm(&mut effects),
            Event::DetachAsked => {
                effects.push(Effect::Detach);
                self.end(Exit::Detached, &mut effects);
            }
            Event::StopAsked => {
                self.save_at_end(&mut effects);
                self.end(Exit::Stopped, &mut effects);
            }
        }
        self.take_in(&mut effects);
        self.import_flows(now, &mut effects);
        self.decide(&mut effects);
        self.ask_interface_ids(&mut effects);
        effects
    }

    /// Costs what the host's own ports are, unlike a snapshot, in which findings are.
    pub fn progress(&self) -> Progress {
        let view = self.compiled.as_ref().map(|compiled| &compiled.view);
        let ports = view.into_iter().flat_map(|view| view.ports.keys());
        let states = ports.map(|id| (id.clone(), self.port_status(id).state));
        Progress {
            applied: self.enforced.as_ref().map(|e| e.revision),
            not_enforced: states.filter(|(_, s)| *s != PortState::Enforced).collect(),
        }
    }

    pub fn snapshot(&self, now: Duration) -> Snapshot {
        let ports = self.compiled.as_ref().map_or_else(BTreeMap::new, |c| {
            c.view
                .ports
                .keys()
                .map(|id| (id.clone(), self.port_status(id)))
                .collect()
        });
        let mut findings = self.findings();
        findings.extend(self.device_findings.iter().map(ToString::to_string));
        findings.extend(self.ids.error.iter().map(|error| {
            format!("interface ids can't be read ({error}); ports keep the devices that they have by them")
        }));
        Snapshot {
            host: self.config.host.clone(),
            read: self
                .incoming
                .revision()
                .or(self.policy.as_ref().map(|p| p.revision)),
            applied: self.enforced.as_ref().map(|e| e.revision),
            source: self.policy.as_ref().map(|p| p.source),
            policy_errors: self.policy_errors.clone(),
            findings,
            apply_error: self.apply_error.clone(),
            drift: self.drift.clone(),
            ports,
            closed: self
                .enforced
                .as_ref()
                .map_or_else(BTreeSet::new, |e| e.target.closed.clone()),
            arming: self.arming.times(),
            confirm_left: self.confirm_until.map(|until| until.saturating_sub(now)),
        }
    }

    fn findings(&self) -> Vec<String> {
        match self.policy.as_ref().map(|policy| &policy.content) {
            Some(Content::Served(compiler)) => {
                let findings = compiler.findings();
                findings.iter().map(ToString::to_string).collect()
            }
            Some(Content::Text(_)) | None => {
                let compiled = self.compiled.as_ref();
                compiled.map_or_else(Vec::new, |c| c.findings.clone())
            }
        }
    }

    fn end(&mut self, exit: Exit, effects: &mut Vec<Effect>) {
        self.ended = true;
        effects.push(Effect::Exit(exit));
    }

    /// The one place that orders an apply.
    fn decide(&mut self, effects: &mut Vec<Effect>) {
        let due = self.stale || self.repair;
        let (Some(policy), Some(links)) = (&self.policy, &self.links) else {
            return;
        };
        if self.ended || !due || self.applying.is_some() {
            return;
        }
        let compiled = match &mut self.compiled {
            Some(compiled) => compiled,
            None => {
                let (view, findings) = match &policy.content {
                    Content::Text(read) => policy::compile(&read.inventory, &self.config.host),
                    // Compiled as it was taken in; what made it stale made it anew.
                    Content::Served(compiler) => (compiler.view().clone(), Vec::new()),
                };
                let findings = findings.iter().map(ToString::to_string).collect();
                let compiled = Compiled::of(view, findings);
                effects.push(Effect::Report(Report::PolicyCompiled {
                    revision: policy.revision,
                    ports: compiled.view.ports.len(),
                    findings: compiled.findings.clone(),
                }));
                self.compiled.insert(compiled)
            }
        };
        let mut matching = match_devices(&compiled.view.ports, links);
        if compiled.by_interface_id {
            match &self.ids.known {
                None => return,
                Some(None) => {
                    let ports = found_by_interface_id(&compiled.view).cloned().collect();
                    let finding = DeviceFinding::NoInterfaceIds { ports };
                    matching.findings.push(finding);
                }
                Some(Some(_)) => {}
            }
        }
        if matching.findings != self.device_findings {
            self.device_findings.clone_from(&matching.findings);
            if !matching.findings.is_empty() {
                effects.push(Effect::Report(Report::DeviceFindings(matching.findings)));
            }
        }
        let given: BTreeSet<&Device> = matching.devices.values().collect();
        let mut closed = matching.contested;
        closed.extend(self.ours.iter().filter(|d| !given.contains(d)).cloned());
        let bridges = bridges_of(given.into_iter().chain(&closed), links);
        self.stale = false;

        if let Some(enforced) = &mut self.enforced
            && !self.repair
            && self.apply_error.is_none()
            && enforced.target.devices == matching.devices
            && enforced.target.closed == closed
            && enforced.target.bridges == bridges
            && same_policy(&enforced.target.view, &compiled.view)
        {
            if enforced.revision != policy.revision {
                enforced.revision = policy.revision;
                effects.push(Effect::Report(Report::NothingToApply {
                    revision: policy.revision,
                }));
                if self.confirmed {
                    self.save(effects);
                }
            }
            return;
        }
        self.repair = false;
        let target = Arc::new(Target {
            view: compiled.view.clone(),
            devices: matching.devices,
            closed,
            bridges,
        });
        self.export_flows(&target.devices, effects);
        self.applying = Some(target.clone());
        effects.push(Effect::Apply(target));
    }

    fn port_status(&self, id: &PortId) -> PortStatus {
        let Some(enforced) = &self.enforced else {
            return PortStatus {
                device: None,
                state: PortState::Pending,
            };
        };
        let device = enforced.target.devices.get(id).cloned();
        let state = match (enforced.refused.get(id), &device) {
            (Some(why), _) => PortState::Refused(why.clone()),
            (None, _) if !enforced.target.view.ports.contains_key(id) => PortState::Pending,
            (None, Some(_)) => PortState::Enforced,
            (None, None) => PortState::NoDevice,
        };
        PortStatus { device, state }
    }
}

impl Compiled {
    fn of(view: HostView, findings: Vec<String>) -> Self {
        let by_interface_id = found_by_interface_id(&view).next().is_some();
        Self {
            view,
            findings,
            by_interface_id,
        }
    }
}

fn found_by_interface_id(view: &HostView) -> impl Iterator<Item = &PortId> {
    let ports = view.ports.iter();
    let found = ports.filter(|(_, port)| match port.device {
        DeviceMatch::InterfaceId(_) => true,
        DeviceMatch::Name(_) | DeviceMatch::Mac | DeviceMatch::Pattern(_) => false,
    });
    found.map(|(id, _)| id)
}

/// Whether both enforce the same; the revision isn't enforced.
fn same_policy(a: &HostView, b: &HostView) -> bool {
    let HostView {
        revision: _,
        settings,
        networks,
        ports,
        groups,
        members,
        address_groups,
        overlay,
    } = a;
    *settings == b.settings
        && *networks == b.networks
        && *ports == b.ports
        && *groups == b.groups
        && *members == b.members
        && *address_groups == b.address_groups
        && *overlay == b.overlay
}

#[cfg(test)]
mod tests;
