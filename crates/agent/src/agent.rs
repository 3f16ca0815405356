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

use crate::arming::Arming;
use crate::devices::Link;
use crate::matching::{DeviceFinding, match_devices};
use crate::report::{PortState, PortStatus, Report, Snapshot, Source};
use dataplane::{ApplyReport, Device, Drift, Target};
use model::{DeviceMatch, HostId, Inventory, PortId, Revision};
use policy::HostView;
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
}

/// What the driver is to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Answered by `Applied` or `ApplyFailed`.
    Apply(Arc<Target>),
    /// Answered by `Audited` or `AuditFailed`.
    Audit,
    Tend,
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
}

pub struct Agent {
    config: Config,
    cached: Option<(PolicyText, Revision)>,
    policy: Option<Policy>,
    policy_errors: Vec<String>,
    /// `None` until they are listed.
    links: Option<BTreeMap<u32, Link>>,
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
    text: Arc<[u8]>,
    inventory: Inventory,
}

struct Compiled {
    view: HostView,
    findings: Vec<String>,
}

struct Enforced {
    /// Newer than the target's when a later policy changed nothing here.
    revision: Revision,
    target: Arc<Target>,
    refused: BTreeMap<PortId, String>,
}

impl Agent {
    pub const AUDIT_EVERY: Duration = Duration::from_secs(10);
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
            links: None,
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
            Event::DevicesListed(links) => self.devices_listed(now, links, &mut effects),
            Event::DeviceSeen { link, at } => self.device_seen(at, link),
            Event::DeviceGone { ifindex } => self.device_gone(ifindex, &mut effects),
            Event::Applied(report) => self.applied(now, report, &mut effects),
            Event::ApplyFailed(error) => self.apply_failed(error, &mut effects),
            Event::Audited(drift) => self.audited(drift, &mut effects),
            Event::AuditFailed(error) => {
                effects.push(Effect::Report(Report::AuditFailed(error)));
                effects.push(Effect::StartTimer(Timer::Audit, Self::AUDIT_EVERY));
            }
            Event::TimerFired(Timer::Retry) => self.repair = true,
            Event::TimerFired(Timer::Audit) => {
                // While an apply runs the host is rightly not as the last one left it.
                if self.applying.is_none() {
                    effects.push(Effect::Audit);
                } else {
                    effects.push(Effect::StartTimer(Timer::Audit, Self::AUDIT_EVERY));
                }
            }
            Event::TimerFired(Timer::Tend) => {
                effects.push(Effect::Tend);
                effects.push(Effect::StartTimer(Timer::Tend, Self::TEND_EVERY));
            }
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
            Event::StopAsked => self.end(Exit::Stopped, &mut effects),
        }
        self.decide(&mut effects);
        effects
    }

    pub fn snapshot(&self, now: Duration) -> Snapshot {
        let ports = self.compiled.as_ref().map_or_else(BTreeMap::new, |c| {
            c.view
                .ports
                .keys()
                .map(|id| (id.clone(), self.port_status(id)))
                .collect()
        });
        let mut findings: Vec<String> = self
            .compiled
            .as_ref()
            .map_or_else(Vec::new, |c| c.findings.clone());
        findings.extend(self.device_findings.iter().map(ToString::to_string));
        Snapshot {
            host: self.config.host.clone(),
            read: self.policy.as_ref().map(|p| p.revision),
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

    /// The newest valid policy, as its file says it.
    pub fn policy(&self) -> Option<(Revision, Arc<[u8]>)> {
        let policy = self.policy.as_ref()?;
        Some((policy.revision, policy.text.clone()))
    }

    fn policy_read(&mut self, read: PolicyText, effects: &mut Vec<Effect>) {
        self.policy_errors.clear();
        // Numbers go on where the last agent stopped; the same text keeps its number.
        let last = self.policy.as_ref().map(|p| (p.revision, &p.text));
        let cached = self
            .cached
            .as_ref()
            .map(|(c, revision)| (*revision, &c.text));
        let revision = match last.or(cached) {
            Some((revision, text)) if *text == read.text => revision,
            Some((revision, _)) => Revision {
                commit: revision.commit + 1,
                ..revision
            },
            None => Revision {
                epoch: 0,
                commit: 1,
            },
        };
        let known = self.policy.as_ref().is_some_and(|p| p.revision == revision);
        if known {
            if let Some(policy) = &mut self.policy {
                policy.source = Source::File;
            }
            return;
        }
        let mut inventory = read.inventory;
        inventory.revision = revision;
        effects.push(Effect::Report(Report::PolicyRead {
            revision,
            ports: inventory.ports.len(),
        }));
        self.adopt(Policy {
            revision,
            source: Source::File,
            text: read.text,
            inventory,
        });
    }

    /// Keeps what is in force. At the start nothing is: then the cached policy, loudly, or nothing.
    fn policy_invalid(&mut self, errors: Vec<String>, effects: &mut Vec<Effect>) {
        self.policy_errors.clone_from(&errors);
        let invalid = |enforced| {
            Effect::Report(Report::PolicyInvalid {
                errors: errors.clone(),
                enforced,
            })
        };
        if let Some(policy) = &self.policy {
            effects.push(invalid(Some(policy.revision)));
            return;
        }
        match self.cached.take() {
            Some((cached, revision)) => {
                effects.push(invalid(Some(revision)));
                effects.push(Effect::Report(Report::EnforcingCached { revision }));
                let mut inventory = cached.inventory;
                inventory.revision = revision;
                self.adopt(Policy {
                    revision,
                    source: Source::Cache,
                    text: cached.text,
                    inventory,
                });
            }
            None => {
                effects.push(invalid(None));
                self.end(Exit::NoPolicy(errors.clone()), effects);
            }
        }
    }

    fn adopt(&mut self, policy: Policy) {
        self.policy = Some(policy);
        self.compiled = None;
        self.stale = true;
    }

    fn devices_listed(&mut self, now: Duration, listed: Vec<Link>, effects: &mut Vec<Effect>) {
        let listed: BTreeMap<u32, Link> = listed.into_iter().map(|l| (l.ifindex, l)).collect();
        let Some(before) = &self.links else {
            // An index that now means another device is not ours any more.
            self.ours
                .retain(|d| listed.get(&d.ifindex).is_some_and(|l| l.name == d.name));
            self.links = Some(listed);
            self.stale = true;
            return;
        };
        let gone: Vec<u32> = before
            .keys()
            .filter(|i| !listed.contains_key(i))
            .copied()
            .collect();
        for ifindex in gone {
            self.device_gone(ifindex, effects);
        }
        for link in listed.into_values() {
            self.device_seen(now, link);
        }
    }

    fn device_seen(&mut self, at: Duration, link: Link) {
        // Before the first list: the list will have it.
        let Some(links) = &mut self.links else {
            return;
        };
        let before = links.get(&link.ifindex);
        if before == Some(&link) {
            return;
        }
        if before.is_none() {
            self.arming.appeared(link.ifindex);
        }
        if link.up {
            self.arming.up(link.ifindex, at);
        } else {
            self.arming.down(link.ifindex);
        }
        // A renamed device stays ours: it is still the same VM behind it.
        if let Some(old) = before.filter(|b| b.name != link.name)
            && self.ours.remove(&old.device())
        {
            self.ours.insert(link.device());
        }
        self.stale |= before.is_none_or(|b| b.name != link.name || b.mac != link.mac);
        links.insert(link.ifindex, link);
    }

    fn device_gone(&mut self, ifindex: u32, effects: &mut Vec<Effect>) {
        let Some(link) = self.links.as_mut().and_then(|l| l.remove(&ifindex)) else {
            return;
        };
        self.arming.gone(ifindex);
        self.stale = true;
        if self.ours.remove(&link.device()) {
            effects.push(Effect::Report(Report::DeviceGone {
                device: link.name,
                ifindex,
            }));
        }
    }

    fn applied(&mut self, now: Duration, report: ApplyReport, effects: &mut Vec<Effect>) {
        let Some(target) = self.applying.take() else {
            return;
        };
        let revision = target.view.revision;
        self.apply_error = None;
        effects.push(Effect::Report(Report::Applied {
            revision,
            ports: report.applied.len(),
            devices: target.devices.len(),
            closed: target.closed.len(),
            writes: report.writes,
            took: report.took,
        }));
        let refused_before = self.enforced.take().map(|e| e.refused).unwrap_or_default();
        for (port, why) in &report.refused {
            if refused_before.get(port) != Some(why) {
                effects.push(Effect::Report(Report::Refused {
                    revision,
                    port: port.clone(),
                    why: why.clone(),
                }));
            }
        }
        if report.refused.is_empty() {
            self.failures = 0;
        } else {
            effects.push(Effect::StartTimer(Timer::Retry, self.backoff()));
        }

        self.arm(now, &target, &report, effects);
        self.guard(&target, &report, effects);
        self.enforced = Some(Enforced {
            revision,
            target,
            refused: report.refused,
        });
        if !self.auditing {
            self.auditing = true;
            effects.push(Effect::StartTimer(Timer::Audit, Self::AUDIT_EVERY));
            effects.push(Effect::StartTimer(Timer::Tend, Self::TEND_EVERY));
        }
        if self.confirmed {
            effects.push(Effect::MarkConfirmed);
            self.save(effects);
        } else if let (None, Some(time)) = (self.confirm_until, self.config.confirm) {
            self.confirm_until = Some(now + time);
            effects.push(Effect::StartTimer(Timer::Confirm, time));
            effects.push(Effect::Report(Report::ConfirmWithin(time)));
        }
    }

    /// Says which devices were armed or closed just now, and remembers that they are ours.
    fn arm(
        &mut self,
        now: Duration,
        target: &Target,
        report: &ApplyReport,
        effects: &mut Vec<Effect>,
    ) {
        let mut ours = self.ours.clone();
        for (port, device) in &target.devices {
            if !report.refused.contains_key(port) {
                self.arming.armed(device.ifindex, now);
                if ours.insert(device.clone()) {
                    effects.push(Effect::Report(Report::DeviceArmed {
                        port: port.clone(),
                        device: device.name.clone(),
                        ifindex: device.ifindex,
                    }));
                }
            }
        }
        for device in &target.closed {
            let already = self
                .enforced
                .as_ref()
                .is_some_and(|e| e.target.closed.contains(device));
            ours.insert(device.clone());
            if !already {
                effects.push(Effect::Report(Report::DeviceClosed {
                    device: device.name.clone(),
                    ifindex: device.ifindex,
                }));
            }
        }
        // A device that went while the plane was at it has been taken out by its own event.
        let links = self.links.as_ref();
        ours.retain(|d| links.is_some_and(|l| l.contains_key(&d.ifindex)));
        if ours != self.ours || self.ours != self.config.ours {
            self.ours.clone_from(&ours);
            self.config.ours.clone_from(&ours);
            effects.push(Effect::RememberOurs(ours));
        }
    }

    /// Opens the bridge-level drop for what is armed, after it is armed.
    fn guard(&mut self, target: &Target, report: &ApplyReport, effects: &mut Vec<Effect>) {
        let named = target.view.ports.values().filter_map(|p| match &p.device {
            DeviceMatch::Name(name) | DeviceMatch::Pattern(name) => Some(name.clone()),
            DeviceMatch::Mac => None,
        });
        let armed = target
            .devices
            .iter()
            .filter(|(port, d)| {
                // A refused port keeps its last policy if it had one: it stays as it was.
                !report.refused.contains_key(*port) || self.guard.armed.contains(&d.ifindex)
            })
            .map(|(_, d)| d.ifindex)
            .collect();
        let guard = GuardState {
            names: named
                .chain(self.config.guard_names.iter().cloned())
                .collect(),
            armed,
        };
        if guard != self.guard {
            self.guard = guard.clone();
            effects.push(Effect::Guard(guard));
        }
    }

    fn apply_failed(&mut self, error: String, effects: &mut Vec<Effect>) {
        let Some(target) = self.applying.take() else {
            return;
        };
        // Some of it may have landed, so nothing is known to be enforced; the revision in force is
        // still the last whole one.
        self.repair = false;
        let retry_after = self.backoff();
        effects.push(Effect::StartTimer(Timer::Retry, retry_after));
        if self.apply_error.as_ref() != Some(&error) {
            effects.push(Effect::Report(Report::ApplyFailed {
                revision: target.view.revision,
                error: error.clone(),
                retry_after,
            }));
        }
        self.apply_error = Some(error);
    }

    fn audited(&mut self, drift: Vec<Drift>, effects: &mut Vec<Effect>) {
        effects.push(Effect::StartTimer(Timer::Audit, Self::AUDIT_EVERY));
        // Who stands before us stays there whatever we write; people have to know.
        self.repair |= drift.iter().any(|d| match d {
            Drift::Detached { .. } | Drift::Changed { .. } => true,
            Drift::NotFirst { .. } => false,
        });
        if drift != self.drift {
            if !drift.is_empty() {
                effects.push(Effect::Report(Report::Drifted(drift.clone())));
            }
            self.drift = drift;
        }
    }

    fn confirm(&mut self, effects: &mut Vec<Effect>) {
        if self.confirm_until.take().is_some() {
            effects.push(Effect::Report(Report::Confirmed));
            effects.push(Effect::MarkConfirmed);
            self.confirmed = true;
            self.save(effects);
        } else {
            self.confirmed = true;
        }
    }

    /// Only what is enforced and stands is worth coming back to.
    fn save(&self, effects: &mut Vec<Effect>) {
        if let (Some(policy), Some(enforced)) = (&self.policy, &self.enforced)
            && policy.revision == enforced.revision
            && policy.source == Source::File
        {
            effects.push(Effect::SaveCache {
                revision: policy.revision,
                text: policy.text.clone(),
            });
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
                let (view, findings) = policy::compile(&policy.inventory, &self.config.host);
                let compiled = Compiled {
                    view,
                    findings: findings.iter().map(ToString::to_string).collect(),
                };
                effects.push(Effect::Report(Report::PolicyCompiled {
                    revision: policy.revision,
                    ports: compiled.view.ports.len(),
                    findings: compiled.findings.clone(),
                }));
                self.compiled.insert(compiled)
            }
        };
        let matching = match_devices(&compiled.view.ports, links);
        if matching.findings != self.device_findings {
            self.device_findings.clone_from(&matching.findings);
            if !matching.findings.is_empty() {
                effects.push(Effect::Report(Report::DeviceFindings(matching.findings)));
            }
        }
        let given: BTreeSet<&Device> = matching.devices.values().collect();
        let mut closed = matching.contested;
        closed.extend(self.ours.iter().filter(|d| !given.contains(d)).cloned());
        self.stale = false;

        if let Some(enforced) = &mut self.enforced
            && !self.repair
            && self.apply_error.is_none()
            && enforced.target.devices == matching.devices
            && enforced.target.closed == closed
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
        });
        self.applying = Some(target.clone());
        effects.push(Effect::Apply(target));
    }

    fn backoff(&mut self) -> Duration {
        let wait = Self::RETRY_FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        wait.min(Self::RETRY_LAST)
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
    } = a;
    *settings == b.settings
        && *networks == b.networks
        && *ports == b.ports
        && *groups == b.groups
        && *members == b.members
        && *address_groups == b.address_groups
}

#[cfg(test)]
mod tests;
