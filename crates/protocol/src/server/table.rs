//! What is known of each host: what it was sent, and what it says it enforces.

use crate::messages as m;
use crate::read;
use crate::{Connection, Instance};
use model::{HostId, PortId, Revision};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

/// What an agent says of itself. A port of the host that isn't named is enforced as of `applied`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub applied: Revision,
    pub ports: BTreeMap<PortId, PortReport>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortReport {
    pub state: PortState,
    /// The policy that is enforced on it; `None`: it passes nothing.
    pub enforced: Option<Revision>,
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// Its device isn't there.
    Absent,
    /// The data plane refused its policy.
    Refused,
    /// It will be enforced.
    Pending,
}

/// What a server knows of a host since the server runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostStatus {
    pub instance: Instance,
    /// Which of its connections this is, or was.
    pub turn: u64,
    pub is_connected: bool,
    pub software: String,
    /// Up to where it was told everything.
    pub sent: Option<Revision>,
    pub report: Option<Report>,
    /// How often it was sent all of its part.
    pub resyncs: u64,
    /// How often a connection was taken from an agent as a later one came.
    pub fenced: u64,
}

/// How far a host is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lag {
    Commits(u64),
    /// It enforces what comes from before the store was restored.
    OtherEpoch,
    /// It hasn't said.
    Unknown,
}

impl HostStatus {
    pub fn connection(&self) -> Connection {
        Connection {
            instance: self.instance,
            turn: self.turn,
        }
    }

    pub fn lag(&self, committed: Revision) -> Lag {
        match self.report.as_ref().map(|report| report.applied) {
            None => Lag::Unknown,
            Some(applied) if applied.epoch != committed.epoch => Lag::OtherEpoch,
            Some(applied) => Lag::Commits(committed.commit.saturating_sub(applied.commit)),
        }
    }

    /// The policy that a port of the host is known to be under.
    pub fn enforced(&self, port: &PortId) -> Option<Revision> {
        let report = self.report.as_ref()?;
        match report.ports.get(port) {
            Some(port) => port.enforced,
            None => Some(report.applied),
        }
    }
}

#[derive(Default)]
pub(crate) struct Table(Mutex<BTreeMap<HostId, HostStatus>>);

impl Table {
    pub(crate) fn hosts(&self) -> MutexGuard<'_, BTreeMap<HostId, HostStatus>> {
        let locked = self.0.lock();
        locked.expect("nobody panics who holds this lock")
    }

    pub(crate) fn update(&self, host: &HostId, change: impl FnOnce(&mut HostStatus)) {
        change(self.hosts().entry(host.clone()).or_default());
    }
}

/// More ports than a host can have; of each, no more text than people read.
const MOST_PORTS: usize = 10_000;
const LONGEST_WHY: usize = 500;

/// A state that isn't known is one in which the port isn't enforced as it should be.
pub(crate) fn report(report: m::Report) -> Option<Report> {
    if report.ports.len() > MOST_PORTS {
        return None;
    }
    let ports = report.ports.into_iter().map(|port| {
        let state = match port.state() {
            m::PortState::Absent => PortState::Absent,
            m::PortState::Refused => PortState::Refused,
            m::PortState::Pending | m::PortState::Unspecified => PortState::Pending,
        };
        let id = PortId::from(port.port.as_str());
        let told = PortReport {
            state,
            enforced: read::revision(port.enforced),
            why: port.why.chars().take(LONGEST_WHY).collect(),
        };
        (id, told)
    });
    Some(Report {
        applied: read::revision(report.applied)?,
        ports: ports.collect(),
    })
}

pub(crate) fn report_message(report: &Report) -> m::Report {
    let ports = report.ports.iter().map(|(id, port)| m::PortReport {
        port: id.to_string(),
        state: match port.state {
            PortState::Absent => m::PortState::Absent,
            PortState::Refused => m::PortState::Refused,
            PortState::Pending => m::PortState::Pending,
        }
        .into(),
        enforced: port.enforced.map(crate::put::revision),
        why: port.why.clone(),
    });
    m::Report {
        applied: Some(crate::put::revision(report.applied)),
        ports: ports.collect(),
    }
}
