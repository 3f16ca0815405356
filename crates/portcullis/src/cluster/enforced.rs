//! What the hosts report that follow this server, as the API shows it and the store keeps it.
//!
//! Place on the line: execute -> **report**.

use ::control::told::{Lack, NotEnforced};
use api::{Enforcement, HostTold, PortStatus};
use model::{HostId, PortId, Revision};
use protocol::{HostStatus, PortState, Report, Watchers};
use std::collections::BTreeMap;

pub(crate) struct Enforced(pub(crate) Watchers);

impl Enforcement for Enforced {
    /// Active once the host says that it enforces the port as it was written last.
    fn port(&self, host: &HostId, port: &PortId, written: Revision) -> Option<PortStatus> {
        let status = self.0.look(host, |status| {
            let report = report(status)?;
            let told = report.ports.get(port);
            if told.is_some_and(|told| told.state == PortState::Refused) {
                return Some(PortStatus::Error);
            }
            let enforced = status.enforced(port);
            let is_new = enforced.is_some_and(|e| e.epoch == written.epoch && e >= written);
            Some(if is_new {
                PortStatus::Active
            } else {
                PortStatus::Down
            })
        });
        status.flatten()
    }

    fn is_connected(&self, host: &HostId) -> bool {
        let connected = self.0.look(host, |status| status.is_connected);
        connected.unwrap_or(false)
    }

    fn hosts(&self) -> BTreeMap<HostId, HostTold> {
        let hosts = self.0.hosts().into_iter();
        let told = |status: &HostStatus| {
            let report = report(status)?;
            Some(HostTold {
                software: status.software.clone(),
                applied: report.applied,
                not_enforced: not_enforced(report),
            })
        };
        hosts
            .filter_map(|(id, status)| Some((id, told(&status)?)))
            .collect()
    }
}

/// Of a host that has gone elsewhere, what it told here may no longer be so.
fn report(status: &HostStatus) -> Option<&Report> {
    status.report.as_ref().filter(|_| status.is_connected)
}

pub(super) fn not_enforced(report: &Report) -> BTreeMap<PortId, NotEnforced> {
    let ports = report.ports.iter().map(|(id, port)| {
        let lack = match port.state {
            PortState::Absent => Lack::Absent,
            PortState::Refused => Lack::Refused,
            PortState::Pending => Lack::Pending,
        };
        let why = port.why.clone();
        (id.clone(), NotEnforced { lack, why })
    });
    ports.collect()
}
