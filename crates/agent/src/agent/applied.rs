//! After the plane has answered: what is ours now, who may pass the guard, what to try again, and whether
//! a first enforcement stands.
//!
//! Place on the line: target -> the plane -> **report**.
//! Knows nothing of: how the target came about.

use super::{Agent, Effect, Enforced, GuardState, Timer};
use crate::report::Report;
use dataplane::{ApplyReport, Device, Drift, Target};
use model::{DeviceMatch, PortId};
use std::time::Duration;

impl Agent {
    pub(super) fn applied(
        &mut self,
        now: Duration,
        report: ApplyReport,
        effects: &mut Vec<Effect>,
    ) {
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
        if !report.remarks.is_empty() {
            effects.push(Effect::Report(Report::Remarked(report.remarks.clone())));
        }
        let before = self.enforced.take();
        let known = |(port, why): &(&PortId, &String)| {
            let refused = before.as_ref().and_then(|b| b.refused.get(*port));
            refused == Some(*why)
        };
        let refused = report.refused.iter().filter(|new| !known(new));
        let refused: Vec<_> = refused.map(|(p, why)| (p.clone(), why.clone())).collect();
        if !refused.is_empty() {
            effects.push(Effect::Report(Report::Refused {
                revision,
                ports: refused,
            }));
        }
        if report.refused.is_empty() {
            self.failures = 0;
        } else {
            effects.push(Effect::StartTimer(Timer::Retry, self.backoff()));
        }

        let closed = before.map(|b| b.target.closed.clone()).unwrap_or_default();
        let closed: Vec<Device> = target.closed.difference(&closed).cloned().collect();
        if !closed.is_empty() {
            effects.push(Effect::Report(Report::DevicesClosed(closed)));
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
            effects.push(Effect::StartTimer(Timer::Audit, self.config.audit_every));
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

    /// Says which devices were armed just now, and remembers which are ours.
    pub(super) fn arm(
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
        ours.extend(target.closed.iter().cloned());
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
    pub(super) fn guard(
        &mut self,
        target: &Target,
        report: &ApplyReport,
        effects: &mut Vec<Effect>,
    ) {
        let named = target.view.ports.values().filter_map(|p| match &p.device {
            DeviceMatch::Name(name) | DeviceMatch::Pattern(name) => Some(name.clone()),
            DeviceMatch::Mac | DeviceMatch::InterfaceId(_) => None,
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

    pub(super) fn apply_failed(&mut self, error: String, effects: &mut Vec<Effect>) {
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

    pub(super) fn audited(&mut self, drift: Vec<Drift>, effects: &mut Vec<Effect>) {
        effects.push(Effect::StartTimer(Timer::Audit, self.config.audit_every));
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

    pub(super) fn confirm(&mut self, effects: &mut Vec<Effect>) {
        if self.confirm_until.take().is_some() {
            effects.push(Effect::Report(Report::Confirmed));
            effects.push(Effect::MarkConfirmed);
            self.confirmed = true;
            self.save(effects);
        } else {
            self.confirmed = true;
        }
    }

    pub(super) fn backoff(&mut self) -> Duration {
        let wait = Self::RETRY_FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        wait.min(Self::RETRY_LAST)
    }
}
