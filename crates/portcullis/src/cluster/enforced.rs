//! What hosts report, as the API shows it.

use ::control::Control;
use api::{Enforcement, HostTold, NotEnforced, PortStatus};
use model::{HostId, PortId};
use protocol::{HostStatus, PortReport, PortState, Watchers};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// The copy comes to be after this does.
pub(crate) struct Enforced {
    pub(crate) watchers: Watchers,
    pub(crate) control: OnceLock<Arc<Control>>,
}

impl Enforcement for Enforced {
    /// Active once the host says that it enforces the port as of its newest revision.
    fn port(&self, port: &PortId) -> PortStatus {
        let asked = self.control.get().and_then(|control| {
            let state = control.state();
            let port = state.ports.get(port)?;
            let host = port.binding.as_ref()?.host.clone();
            Some((host, port.modified, state.revision.epoch))
        });
        let Some((host, modified, epoch)) = asked else {
            return PortStatus::Down;
        };
        let Some(status) = self.watchers.host(&host) else {
            return PortStatus::Down;
        };
        let told = status
            .report
            .as_ref()
            .and_then(|report| report.ports.get(port));
        if told.is_some_and(|told| told.state == PortState::Refused) {
            return PortStatus::Error;
        }
        match status.enforced(port) {
            Some(at) if at.epoch == epoch && at.commit >= modified => PortStatus::Active,
            Some(_) | None => PortStatus::Down,
        }
    }

    fn host_is_alive(&self, host: &HostId) -> bool {
        self.watchers
            .host(host)
            .is_some_and(|status| status.is_connected)
    }

    fn hosts(&self) -> BTreeMap<HostId, HostTold> {
        let hosts = self.watchers.hosts().into_iter();
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
