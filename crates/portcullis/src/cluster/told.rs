//! What servers on one store tell each other of the hosts that follow them, by the store.
//!
//! Place on the line: execute -> **report -> store commit -> watch** -> the other servers.
//!
//! ```text
//! Watchers --news of hosts--> Teller --> told/HOST --watch--> Telling --who follows elsewhere--> Watchers
//! ```
//! Knows nothing of: what is written, and what is not (`control::told`).

use super::enforced::not_enforced;
use ::control::told::{Connection, Heard, Reported, Running, hosts_of_ports};
use ::control::{Changed, Control, Observer, State};
use async_trait::async_trait;
use model::HostId;
use protocol::{Elsewhere, HostStatus, Watchers};
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::time::sleep;
use tracing::{debug, warn};

/// What comes within it is written at once.
const TOGETHER: Duration = Duration::from_millis(20);
/// Of a server that was killed, the others know after so long that it isn't there.
const PRESENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(1);

/// From the copy of the store: who follows another server, and whose ports have changed.
pub(crate) struct Telling {
    watchers: Watchers,
    run: String,
    next: Option<Elsewhere>,
}

impl Telling {
    pub(crate) fn new(watchers: Watchers, run: String) -> Self {
        let next = None;
        Self {
            watchers,
            run,
            next,
        }
    }

    fn connection(&self, state: &State, host: &HostId) -> Option<protocol::Connection> {
        let elsewhere = state.follows_elsewhere(host, &self.run)?;
        Some(protocol::Connection {
            instance: protocol::Instance {
                started_ms: elsewhere.started_ms,
                number: elsewhere.number,
            },
            turn: elsewhere.turn,
        })
    }
}

#[async_trait]
impl Observer for Telling {
    fn listed(&mut self, state: &State) {
        let all = state.told.keys().filter_map(|host| {
            let connection = self.connection(state, host)?;
            Some((host.clone(), connection))
        });
        self.next = Some(Elsewhere::All(all.collect()));
        self.watchers.concern(self.watchers.hosts().into_keys());
    }

    fn committed(&mut self, state: &State, changes: &[Changed]) {
        let concerned = hosts_of_ports(changes);
        if !concerned.is_empty() {
            self.watchers.concern(concerned);
        }
        let hosts = state.hosts_told_of(changes);
        if !hosts.is_empty() {
            let changed = hosts.into_iter().map(|host| {
                let connection = self.connection(state, &host);
                (host, connection)
            });
            self.next = Some(Elsewhere::Changed(changed.collect()));
        }
    }

    async fn pass_on(&mut self) {
        if let Some(next) = self.next.take() {
            self.watchers.elsewhere(next).await;
        }
    }
}

/// Writes what is heard of hosts. Never ends.
pub(crate) async fn tell(control: Arc<Control>, watchers: Watchers, run: String) {
    loop {
        let news = watchers.news().await;
        sleep(TOGETHER).await;
        let of = |host| watchers.look(host, |status| heard(host, status));
        let heard = Vec::from_iter(news.iter().filter_map(of));
        let mut rest = &heard[..];
        while !rest.is_empty() {
            match control.tell(&run, rest).await {
                Ok(done) => rest = &rest[done..],
                Err(error) => {
                    warn!(%error, hosts = rest.len(), "other servers can't be told of hosts; trying again");
                    watchers.concern(rest.iter().map(|heard| heard.host.clone()));
                    sleep(AGAIN).await;
                    break;
                }
            }
        }
    }
}

fn heard(host: &HostId, status: &HostStatus) -> Heard {
    let protocol::Connection { instance, turn } = status.connection();
    let report = status.report.as_ref().map(|report| Reported {
        applied: report.applied,
        not_enforced: not_enforced(report),
    });
    Heard {
        host: host.clone(),
        connection: Connection {
            started_ms: instance.started_ms,
            number: instance.number,
            turn,
        },
        is_connected: status.is_connected,
        software: status.software.clone(),
        report,
    }
}

/// Others see that this run of a server is there, as long as this is kept. Never ends.
pub(crate) async fn be_present(store: Arc<dyn Store>, running: Running) {
    let key = ::control::Kept::key(&running);
    loop {
        let value = ::control::Kept::value(&running);
        match store.announce(&key, value, PRESENCE).await {
            Ok(mut presence) => {
                debug!(run = running.run, "this server is announced");
                presence.lost().await;
                warn!("other servers can't see this one any more; announcing it again");
            }
            Err(error) => warn!(%error, "other servers can't be told that this one is there"),
        }
        sleep(AGAIN).await;
    }
}
