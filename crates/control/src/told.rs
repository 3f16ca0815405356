//! What hosts have told, and which server each of them follows: in the store, so that every server knows it.
//!
//! Place on the line: execute -> **report -> store commit -> watch**.
//!
//! ```text
//! told/HOST       by the server that the host follows, when what it says of a port may have become another
//! server/RUN      a presence: there while that run of a server is
//! ```
//! Invariants: of two connections the later is right as long as the server at its end is there, and nothing is written
//! for the earlier one. A record of another epoch says nothing. What isn't said is not enforced.
//! Knows nothing of: how hosts are connected; what a status is called outside.

use crate::control::{Control, Decided};
use crate::depend;
use crate::hosts;
use crate::records::Kept;
use crate::refused::Failed;
use crate::state::{Changed, State};
use crate::text;
use model::{HostId, PortId, Revision};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use store::{Condition, MOST_TRANSACTION_BYTES, MOST_VALUE_BYTES, Transaction};

/// Of one run of an agent to one server. Of two of a host the greater is right.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Connection {
    /// When the run began.
    pub started_ms: u64,
    /// At random.
    pub number: u64,
    /// Counts the connections of the run.
    pub turn: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    #[serde(with = "text")]
    pub host: HostId,
    pub connection: Connection,
    /// The run of the server at its end; `None`: it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    pub software: String,
    /// Of the commits below.
    pub epoch: u64,
    /// The host enforces each of its ports that was written last by this commit or an earlier one, as it was written;
    /// but for those in `not_enforced`.
    pub enforced: u64,
    #[serde(
        default,
        with = "text::map",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub not_enforced: BTreeMap<PortId, NotEnforced>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotEnforced {
    pub lack: Lack,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// Its device isn't there.
    Absent,
    /// The data plane can't enforce its policy.
    Refused,
    /// It will be enforced.
    Pending,
}

/// A server that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// No two have the same one, also not one after the other.
    pub run: String,
    /// For people.
    pub name: String,
}

/// What a server has heard of a host that follows it, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub host: HostId,
    pub connection: Connection,
    pub is_connected: bool,
    pub software: String,
    /// `None`: it hasn't said anything yet.
    pub report: Option<Reported>,
}

/// Ports that aren't named are enforced as of `applied`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    pub applied: Revision,
    pub not_enforced: BTreeMap<PortId, NotEnforced>,
}

/// In one go: the copy can't change meanwhile.
const MOST_AT_ONCE: usize = 100;
/// Beyond it nothing is said to be enforced.
const MOST_TOLD_BYTES: usize = MOST_VALUE_BYTES / 2;

impl Control {
    /// For the server of this run itself. How many of the first ones this was about.
    pub async fn tell(&self, run: &str, heard: &[Heard]) -> Result<usize, Failed> {
        self.carry_out(|state, _| Ok(tell(state, run, heard))).await
    }
}

pub(crate) fn tell(state: &State, run: &str, heard: &[Heard]) -> Decided<usize> {
    let mut transaction = Transaction::new();
    let (mut bytes, mut done) = (0, 0);
    for heard in heard.iter().take(MOST_AT_ONCE) {
        if let Some(told) = told(state, run, heard) {
            let (key, value) = (told.key(), told.value());
            bytes += 2 * key.as_str().len() + value.len();
            if bytes > MOST_TRANSACTION_BYTES {
                break;
            }
            let conditional = match state.told.get(&heard.host) {
                Some(seen) => depend::unchanged(transaction, seen),
                None => transaction.when(Condition::Absent(key.clone())),
            };
            transaction = conditional.put(key, value);
        }
        done += 1;
    }
    Decided {
        transaction,
        answer: done,
    }
}

/// `None`: it is so already, or isn't ours to say.
fn told(state: &State, run: &str, heard: &Heard) -> Option<Told> {
    let host = hosts::host_id(heard.host.as_str()).ok()?;
    if state.is_unreadable(Told::KIND, host.as_str()) {
        return None;
    }
    let before = state.told_by(&host);
    let is_ours = match heard.is_connected {
        true => {
            let elsewhere = state.follows_elsewhere(&host, run);
            elsewhere.is_none_or(|elsewhere| elsewhere < heard.connection)
        }
        false => before.is_some_and(|told| told.server.as_deref() == Some(run)),
    };
    if !is_ours {
        return None;
    }
    let (enforced, not_enforced) = enforced(state, heard, before);
    let mut told = Told {
        host,
        connection: heard.connection,
        server: heard.is_connected.then(|| run.to_owned()),
        software: heard.software.clone(),
        epoch: state.revision.epoch,
        enforced,
        not_enforced,
    };
    if told.value().len() > MOST_TOLD_BYTES {
        told.enforced = 0;
        told.not_enforced.clear();
    }
    let is_news = before.is_none_or(|before| *before != told);
    is_news.then_some(told)
}

/// What was said stays said as long as it comes to the same: nobody is told by which commits a host is further.
fn enforced(
    state: &State,
    heard: &Heard,
    before: Option<&Told>,
) -> (u64, BTreeMap<PortId, NotEnforced>) {
    let epoch = state.revision.epoch;
    let report = heard.report.as_ref();
    let Some(report) = report.filter(|report| report.applied.epoch == epoch) else {
        return before
            .map(|told| (told.enforced, told.not_enforced.clone()))
            .unwrap_or_default();
    };
    let own = state.index.ports_on_host.get(&heard.host);
    let is_own = |port: &PortId| own.is_some_and(|own| own.contains(port));
    let not_enforced = report.not_enforced.iter();
    let not_enforced = not_enforced
        .filter(|(port, _)| is_own(port))
        .map(|(port, not)| (port.clone(), not.clone()));
    let applied = report.applied.commit;
    let said = before.map_or(0, |told| told.enforced);
    let (first, last) = (said.min(applied), said.max(applied));
    let mut own = own.into_iter().flatten();
    let differs = own.any(|port| {
        let written = state.ports.get(port).map(|port| port.modified);
        written.is_some_and(|commit| first < commit && commit <= last)
    });
    let enforced = if differs { applied } else { said };
    (enforced, not_enforced.collect())
}

impl State {
    /// What the host has told since the store is this one.
    pub fn told_by(&self, host: &HostId) -> Option<&Told> {
        let told = self.told.get(host)?;
        (told.epoch == self.revision.epoch).then_some(&*told.object)
    }

    /// The server that the host follows, if that is there.
    pub fn followed(&self, host: &HostId) -> Option<&Running> {
        let server = self.told_by(host)?.server.as_deref()?;
        self.servers.get(server).map(|server| &*server.object)
    }

    /// The connection to another server than this one.
    pub fn follows_elsewhere(&self, host: &HostId, run: &str) -> Option<Connection> {
        let server = self.followed(host)?;
        let told = self.told_by(host)?;
        (server.run != run).then_some(told.connection)
    }

    /// Hosts of which a commit says something to other servers: a record of it, or of the server that wrote that.
    pub fn hosts_told_of(&self, changes: &[Changed]) -> BTreeSet<HostId> {
        let mut hosts = BTreeSet::new();
        for change in changes {
            match change {
                Changed::Told(told) => {
                    let both = told.before.iter().chain(&told.after);
                    hosts.extend(both.map(|told| told.host.clone()));
                }
                Changed::Server(server) => {
                    let both = server.before.iter().chain(&server.after);
                    let runs = BTreeSet::from_iter(both.map(|server| server.run.as_str()));
                    let told = self.told.values();
                    let theirs = told.filter(|told| {
                        let server = told.server.as_deref();
                        server.is_some_and(|run| runs.contains(run))
                    });
                    hosts.extend(theirs.map(|told| told.host.clone()));
                }
                Changed::Group(_)
                | Changed::Rule(_)
                | Changed::Addresses(_)
                | Changed::Network(_)
                | Changed::Subnet(_)
                | Changed::Port(_)
                | Changed::Host(_)
                | Changed::Flows(_)
                | Changed::Other => {}
            }
        }
        hosts
    }
}

/// Hosts where ports that a commit changed are or were: what they report may mean something else now.
pub fn hosts_of_ports(changes: &[Changed]) -> BTreeSet<HostId> {
    let ports = changes.iter().filter_map(|change| match change {
        Changed::Port(port) => Some(port.before.iter().chain(&port.after)),
        _ => None,
    });
    let bindings = ports.flatten().filter_map(|port| port.binding.as_deref());
    bindings.map(|binding| binding.host.clone()).collect()
}

#[cfg(test)]
mod tests;
