//! What hosts report, as the API shows it.

use api::{Enforcement, HostTold, NotEnforced, PortStatus};
use model::{HostId, PortId, Revision};
use protocol::{HostStatus, PortReport, PortState, Watchers};
use std::collections::BTreeMap;

pub(crate) struct Enforced(pub(crate) Watchers);

impl Enforcement for Enforced {
    /// Active once the host says that it enforces the port as it was written last.
    fn port(&self, host: &HostId, port: &PortId, written: Revision) -> PortStatus {
        let status = self.0.look(host, |status| {
            let told = status.report.as_ref()?.ports.get(port);
            if told.is_some_and(|told| told.state == PortState::Refused) {
                return Some(PortStatus::Error);
            }
            let enforced = status.enforced(port)?;
            let is_new = enforced.epoch == written.epoch && enforced >= written;
            is_new.then_some(PortStatus::Active)
        });
        status.flatten().unwrap_or(PortStatus::Down)
    }

    fn host_is_alive(&self, host: &HostId) -> bool {
        let connected = self.0.look(host, |status| status.is_connected);
        connected.unwrap_or(false)
    }

    fn hosts(&self) -> BTreeMap<HostId, HostTold> {
        let hosts = self.0.hosts().into_iter();
        hosts.map(|(id, status)| (id, told(status))).collect()
    }
}

fn told(status: HostStatus) -> HostTold {
    let applied = status.report.as_ref().map(|report| report.applied);
    let ports = status.report.map(|report| report.ports).unwrap_or_default();
    let ports = ports.into_iter().map(|(id, port): (_, PortReport)| {
        let state = match port.state {
            PortState::Absent => NotEnforced::Absent,
            PortState::Refused => NotEnforced::Refused,
            PortState::Pending => NotEnforced::Pending,
        };
        (id, (state, port.why))
    });
    HostTold {
        is_connected: status.is_connected,
        software: status.software,
        applied,
        not_enforced: ports.collect(),
    }
}
