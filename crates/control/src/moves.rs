//! Flows of ports that are being migrated, live, on their way from the old host's server to the new one's: in the store,
//! as servers share nothing else.
//!
//! Place on the line: beside it. Hosts make and take these records, users don't see them.
//!
//! ```text
//! old host -> flows_departed -> moved/P/PART, flows/P/PART -> flows_for -> new host -> flows_taken: gone
//!                                        +-- a minute later, without the port, or when it moves again: swept
//! ```
//! Invariants: a host hands on flows of such ports only that it has and that are on their way to another host, or that
//! have just left it so; they go to that host and to no other.
//! Knows nothing of: what is in the flows. Whether they are worth anything is up to the policy of the new host.

use crate::control::{Control, Decided};
use crate::depend;
use crate::ids::{Moment, new_id};
use crate::objects::{Departure, Move, Port, Seconds};
use crate::records::{self, Kept};
use crate::refused::{Failed, Refused};
use crate::state::{State, Stored};
use model::{HostId, PortId};
use std::collections::BTreeSet;
use std::time::Duration;
use store::record::Encoding;
use store::{Key, MOST_VALUE_BYTES, Transaction};

/// Some of a port's flows, as its old host says them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departed {
    pub port: PortId,
    /// Counted from 0; each is whole by itself.
    pub part: u32,
    pub flows: Vec<u8>,
    /// For so long they have been on their way.
    pub age: Duration,
}

/// The same, for the new host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// No two have the same.
    pub id: String,
    pub port: PortId,
    pub flows: Vec<u8>,
    pub age: Duration,
}

/// Flows are kept for so long, and taken for so long from the host that a port has left.
const WORTH: Duration = Duration::from_secs(60);
/// Of one port: more than its budgets allow by default.
pub const MOST_PARTS: u32 = 64;
pub const MOST_PART_BYTES: usize = MOST_VALUE_BYTES - 1024;

const FLOWS: Encoding = Encoding::new("flows", &[]);

impl Control {
    /// A part that is there already is replaced.
    pub async fn flows_departed(&self, from: &HostId, departed: &Departed) -> Result<(), Failed> {
        let id = new_id();
        self.carry_out(|state, now| depart(state, now, from, departed, &id))
            .await
    }

    /// Of ports that are this host's now or soon; one that isn't in `seen`, which forgets those that are gone.
    pub async fn flows_for(
        &self,
        host: &HostId,
        seen: &mut BTreeSet<String>,
    ) -> Result<Option<Arrived>, Failed> {
        loop {
            let now = Moment::now();
            let next = {
                let state = self.state();
                let there = state.departures_to(host);
                let there: BTreeSet<&str> = there.map(|departure| departure.id.as_str()).collect();
                seen.retain(|id| there.contains(id.as_str()));
                let mut new = state.departures_to(host).filter(|departure| {
                    !seen.contains(&departure.id) && is_current(&state, departure, &now)
                });
                new.next().map(|departure| Departure::clone(departure))
            };
            let Some(departure) = next else {
                return Ok(None);
            };
            let record = self.store().get(&flows_key(&departure)).await;
            let record = record.map_err(|error| Failed::Unavailable(error.to_string()))?;
            seen.insert(departure.id.clone());
            let flows = record.and_then(|record| FLOWS.decode(&record.value).ok());
            // It went, or another took its place, since we looked.
            let Some(flows) = flows else { continue };
            return Ok(Some(Arrived {
                age: Duration::from_secs(now.at.saturating_sub(departure.at)),
                id: departure.id,
                port: departure.port,
                flows,
            }));
        }
    }

    pub async fn flows_taken(&self, host: &HostId, id: &str) -> Result<(), Failed> {
        self.carry_out(|state, _| Ok(remove(state, |d| d.id == id && d.to == *host)))
            .await
    }

    /// What nobody has taken in time, and nobody will.
    pub async fn sweep_flows(&self) -> Result<(), Failed> {
        self.carry_out(|state, now| Ok(remove(state, |d| !is_current(state, d, now))))
            .await
    }
}

fn depart(
    state: &State,
    now: &Moment,
    from: &HostId,
    departed: &Departed,
    id: &str,
) -> Result<Decided<()>, Refused> {
    let port = state.ports.get(&departed.port);
    let port = port.ok_or_else(|| Refused::PortNotFound(departed.port.to_string()))?;
    let passage = passage(port, from).filter(|_| !is_over(port, now));
    let (to, since) = passage.ok_or_else(|| Refused::not_authorized("move_flows"))?;
    if departed.part >= MOST_PARTS || departed.flows.len() > MOST_PART_BYTES {
        let what = format!("flows of port {}, part {}", port.id, departed.part);
        return Err(Refused::TooMany(what));
    }
    let departure = Departure {
        port: port.id.clone(),
        part: departed.part,
        id: id.to_owned(),
        from: from.clone(),
        to: to.clone(),
        since,
        at: now.at.saturating_sub(departed.age.as_secs()),
    };
    let flows = FLOWS.encode(&departed.flows);
    let transaction = depend::unchanged(Transaction::new(), port)
        .put(departure.key(), departure.value())
        .put(flows_key(&departure), flows);
    Ok(Decided {
        transaction,
        answer: (),
    })
}

/// Where the port goes to, or has gone to, from this host; and since when.
fn passage<'a>(port: &'a Port, from: &HostId) -> Option<(&'a HostId, Seconds)> {
    let binding = port.binding.as_ref()?;
    match binding.moving.as_deref()? {
        Move::To(to) => (binding.host == *from).then_some((&to.host, to.since)),
        Move::From { host, since, .. } => (host == from).then_some((&binding.host, *since)),
    }
}

/// Of a port that is there: for how long its old host may say something.
fn is_over(port: &Port, now: &Moment) -> bool {
    let moving = port.binding.as_ref().and_then(|b| b.moving.as_deref());
    match moving {
        Some(Move::From { at, .. }) => !is_fresh(*at, now),
        Some(Move::To(_)) | None => false,
    }
}

fn is_fresh(at: Seconds, now: &Moment) -> bool {
    now.at.saturating_sub(at) <= WORTH.as_secs()
}

/// Of the move that the port is in, or was in last.
fn is_current(state: &State, departure: &Departure, now: &Moment) -> bool {
    let port = state.ports.get(&departure.port);
    let passage = port.and_then(|port| passage(port, &departure.from));
    passage == Some((&departure.to, departure.since)) && is_fresh(departure.at, now)
}

/// As many as there is room for in one transaction; whoever asks again takes the others.
fn remove(state: &State, which: impl Fn(&Departure) -> bool) -> Decided<()> {
    const MOST: usize = store::MOST_WRITES / 2;
    let gone = state.departures().filter(|departure| which(departure));
    let transaction = gone.take(MOST).fold(Transaction::new(), |all, departure| {
        depend::unchanged(all, departure)
            .delete(departure.key())
            .delete(flows_key(departure))
    });
    Decided {
        transaction,
        answer: (),
    }
}

fn flows_key(departure: &Departure) -> Key {
    records::key("flows", &departure.path())
}

impl State {
    pub(crate) fn departures(&self) -> impl Iterator<Item = &Stored<Departure>> {
        self.moved.values().flat_map(|parts| parts.values())
    }

    /// By the host's own ports, those on their way there among them: each host that follows asks whenever flows come, for
    /// whichever host.
    fn departures_to(&self, host: &HostId) -> impl Iterator<Item = &Stored<Departure>> {
        let own = self.index.ports_on_host.get(host);
        let own = own.filter(|_| !self.moved.is_empty());
        let parts = own
            .into_iter()
            .flatten()
            .filter_map(|port| self.moved.get(port));
        let departures = parts.flat_map(|parts| parts.values());
        departures.filter(move |departure| departure.to == *host)
    }
}

#[cfg(test)]
mod tests;
