//! The agent's end: what a server sends goes into the agent's mailbox, what the agent says of itself to the server.
//!
//! Place on the line: store commit -> **watch** -> inventory -> compile; and back: execute -> **report**.

use crate::policy_source::InspectionArgs;
use agent::{Event, Input, Mailbox, PortState, Progress};
use model::{HostId, Inventory, InventoryChange, Revision};
use protocol::{
    Carrier, Credentials, FollowConfig, Followed, Instance, PortReport, Report, Timing,
};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tracing::{info, warn};

pub(crate) struct Following {
    pub(crate) servers: Vec<String>,
    pub(crate) host: HostId,
    /// Said over what the server says.
    pub(crate) inspection: InspectionArgs,
    pub(crate) credentials: Credentials,
    /// The last good policy, if there is one.
    pub(crate) kept: Option<Inventory>,
    pub(crate) reports: watch::Receiver<Option<Report>>,
    pub(crate) mailbox: Mailbox,
    pub(crate) carrier: Carrier,
    /// Where it is kept when an agent began.
    pub(crate) begun: PathBuf,
}

/// Follows until another agent with this host's name came later; says why then.
pub(crate) async fn follow(following: Following) -> String {
    let mut hearing = Hearing {
        host: following.host.clone(),
        inspection: following.inspection,
        kept: following.kept.clone(),
        mailbox: following.mailbox,
    };
    let config = FollowConfig {
        servers: following.servers,
        host: following.host,
        instance: instance(&following.begun),
        credentials: following.credentials,
        kept: following.kept,
        reports: following.reports,
        carrier: Some(following.carrier),
        software: format!("portcullis {}", env!("CARGO_PKG_VERSION")),
        timing: Timing::default(),
    };
    match protocol::follow(config, |event| hearing.hear(event)).await {
        Followed::Fenced { server, why } => {
            format!(
                "{server} says: {why}. Two agents have this host's name, and this one follows no longer"
            )
        }
        Followed::NoServers => "no server was given".to_owned(),
    }
}

/// Of two agents the later is right; a clock that goes back must not make it the earlier.
fn instance(begun: &Path) -> Instance {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = since.map_or(0, |since| since.as_millis() as u64);
    let last = std::fs::read_to_string(begun).ok();
    let last_ms: u64 = last.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let started_ms = now_ms.max(last_ms.saturating_add(1));
    let written = begun.parent().map_or(Ok(()), std::fs::create_dir_all);
    if let Err(error) = written.and_then(|()| std::fs::write(begun, format!("{started_ms}\n"))) {
        warn!(%error, file = %begun.display(), "if the clock goes back, servers may take the next agent for an old one");
    }
    Instance {
        started_ms,
        number: u64::from(std::process::id()),
    }
}

struct Hearing {
    host: HostId,
    inspection: InspectionArgs,
    /// The agent hasn't got it yet, unless as its cache: a server that has nothing newer goes on from it.
    kept: Option<Inventory>,
    mailbox: Mailbox,
}

impl Hearing {
    fn hear(&mut self, event: protocol::Event) {
        let event = match event {
            protocol::Event::Connected { server, version } => {
                return info!(server, version, "following");
            }
            protocol::Event::Refused(refused) => {
                for refused in refused {
                    warn!(%refused, "can't be read, and is left out: it permits nothing");
                }
                return;
            }
            protocol::Event::NewEpoch { from, to } => {
                return warn!(%from, %to, "the store was restored from a backup: all policy comes anew");
            }
            protocol::Event::Replaced(inventory) => {
                self.kept = None;
                self.replaced(inventory)
            }
            protocol::Event::Changed(mut change) => {
                let host = change.hosts.get_mut(&self.host);
                self.inspection.set(host.and_then(Option::as_mut));
                Event::InventoryChanged(change)
            }
            protocol::Event::Progress(revision) => match self.kept.take() {
                Some(kept) => self.replaced(Inventory { revision, ..kept }),
                None => Event::InventoryChanged(no_change(revision)),
            },
            protocol::Event::Disconnected { server, why } => {
                warn!(server, why, "not connected; what is enforced stays");
                Event::ServerUnreached(format!("{server}: {why}"))
            }
        };
        self.mailbox.send(Input::Event(event));
    }

    fn replaced(&self, mut inventory: Inventory) -> Event {
        self.inspection.set(inventory.hosts.get_mut(&self.host));
        Event::InventoryReplaced(inventory)
    }
}

fn no_change(revision: Revision) -> InventoryChange {
    InventoryChange {
        revision,
        ..Default::default()
    }
}

/// What a server is told. `None`: nothing is enforced yet.
pub(crate) fn report(progress: Progress) -> Option<Report> {
    let ports = progress.not_enforced.into_iter().filter_map(|(id, state)| {
        let (state, why) = match state {
            PortState::Enforced => return None,
            PortState::Pending => (protocol::PortState::Pending, String::new()),
            PortState::NoDevice => (protocol::PortState::Absent, String::new()),
            PortState::Refused(why) => (protocol::PortState::Refused, why),
        };
        let report = PortReport {
            state,
            enforced: None,
            why,
        };
        Some((id, report))
    });
    Some(Report {
        applied: progress.applied?,
        ports: ports.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(commit: u64) -> Revision {
        Revision { epoch: 1, commit }
    }

    fn whole(commit: u64) -> Inventory {
        Inventory {
            revision: at(commit),
            ..Inventory::default()
        }
    }

    /// What is kept at the start, what a server says, and what the agent is told.
    fn check(kept: Option<Inventory>, said: Vec<protocol::Event>, expected: &[(&str, u64)]) {
        let (mailbox, told) = Mailbox::new();
        let mut hearing = Hearing {
            host: HostId::new("h"),
            inspection: InspectionArgs::default(),
            kept,
            mailbox,
        };
        said.into_iter().for_each(|event| hearing.hear(event));
        let told: Vec<(&str, u64)> = told
            .try_iter()
            .filter_map(|input| match input {
                Input::Event(Event::InventoryReplaced(all)) => Some(("all", all.revision.commit)),
                Input::Event(Event::InventoryChanged(change)) => {
                    Some(("change", change.revision.commit))
                }
                _ => None,
            })
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_kept_is_what_changes_come_to() {
        use protocol::Event::{Changed, Progress, Replaced};
        check(
            Some(whole(3)),
            vec![Progress(at(5)), Changed(no_change(at(6))), Progress(at(7))],
            &[("all", 5), ("change", 6), ("change", 7)],
        );
        check(
            Some(whole(3)),
            vec![Replaced(whole(5)), Progress(at(6))],
            &[("all", 5), ("change", 6)],
        );
        check(None, vec![Replaced(whole(5))], &[("all", 5)]);
    }
}
