//! Connections that somebody else has let through so far, or will from now on.
//!
//! Place on the line: beside the steps: entries of zone 0, where the kernel tracks what no zone was said for, to
//! those of our bridges' zones, and back. Which packets of them pass is decided as for all others: an entry
//! permits nothing by itself.

use crate::books::{Books, zone};
use crate::flows::{LocalFlow, Locals};
use crate::mark;
use dataplane::Target;
use model::Direction;
use netfilter::conntrack::{self, Change, Entry, Filter, Outcome, State, Tcp};
use std::io;

/// Entries of zone 0 become entries of the bridges that their ends are on; how many. Those that are there
/// already stay as they are.
pub(crate) fn take(target: &Target, books: &Books) -> io::Result<u64> {
    let locals = Locals::of(target, &books.bridges);
    let mut taken = Vec::new();
    for entry in entries(0)? {
        for (_, number) in books.bridges.all() {
            let here = Entry {
                zone: zone(number),
                zone_only: None,
                ..entry
            };
            let flows = locals.flows(&here);
            let needed =
                |flow: &LocalFlow<'_>| !policy::elidable(&target.view, flow.port, &flow.key);
            if !flows.iter().any(needed) {
                continue;
            }
            let bits = flows.iter().map(|flow| match flow.original {
                Direction::Egress => mark::STARTED_OUT,
                Direction::Ingress => mark::STARTED_IN,
            });
            taken.push(Entry {
                mark: bits.fold(here.mark, |mark, bit| mark | bit),
                ..here
            });
        }
    }
    create(&taken)
}

/// What goes back: the connections of our bridges' zones, as the plane knew them last.
pub(crate) struct Giving<'a> {
    target: &'a Target,
    books: Books,
    locals: Locals,
}

impl<'a> Giving<'a> {
    pub(crate) fn new(target: &'a Target, books: &Books) -> Self {
        Self {
            target,
            books: books.clone(),
            locals: Locals::of(target, &books.bridges),
        }
    }

    /// Those that are live become entries of zone 0, without our marks, too; how many. One that is there
    /// already stays as it is.
    pub(crate) fn give(&self) -> io::Result<u64> {
        let mut given = self.ours()?;
        given.retain(|entry| is_open(entry) && self.is_permitted(entry));
        for entry in &mut given {
            entry.zone = 0;
            entry.zone_only = None;
            entry.mark &= !(mark::STARTED_OUT | mark::STARTED_IN);
        }
        create(&given)
    }

    /// Nobody asks our zones any more.
    pub(crate) fn forget(&self) -> io::Result<()> {
        let ours = self.ours()?;
        let changes: Vec<Change<'_>> = ours.iter().map(Change::Delete).collect();
        conntrack::change(&changes).map_err(io::Error::other)?;
        Ok(())
    }

    fn ours(&self) -> io::Result<Vec<Entry>> {
        let mut ours = Vec::new();
        for (_, number) in self.books.bridges.all() {
            ours.extend(entries(zone(number))?);
        }
        Ok(ours)
    }

    /// Whoever judges next may take an entry for a permission; to us it was none.
    fn is_permitted(&self, entry: &Entry) -> bool {
        let flows = self.locals.flows(entry);
        let permitted = |flow: &LocalFlow<'_>| {
            policy::permitting(&self.target.view, flow.port, flow.original, &flow.key).is_some()
        };
        !flows.is_empty() && flows.iter().all(permitted)
    }
}

/// A handshake that goes on would find an entry that has stopped in its midst; without one it is begun anew.
fn is_open(entry: &Entry) -> bool {
    match entry.state {
        State::Tcp(Tcp { state, .. }) => {
            !matches!(state, Tcp::SYN_SENT | Tcp::SYN_SENT2 | Tcp::SYN_RECV)
        }
        State::Sctp(_) | State::Stateless => true,
    }
}

fn entries(zone: u16) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    if conntrack::count().map_err(io::Error::other)? > 0 {
        let filter = Filter {
            zone: Some(zone),
            ..Filter::default()
        };
        conntrack::dump(&filter, |entry| entries.push(entry)).map_err(io::Error::other)?;
    }
    // An address that the kernel translates is the host's own matter.
    entries.retain(|entry| !entry.is_translated());
    Ok(entries)
}

fn create(entries: &[Entry]) -> io::Result<u64> {
    let changes: Vec<Change<'_>> = entries.iter().map(Change::Create).collect();
    let outcomes = conntrack::change(&changes).map_err(io::Error::other)?;
    let done = outcomes.iter().filter(|outcome| **outcome == Outcome::Done);
    Ok(done.count() as u64)
}
