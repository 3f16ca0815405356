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
use netfilter::conntrack::{self, Change, Entry, Filter, Outcome};
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

/// The entries of our zones become entries of zone 0, without our marks; how many.
pub(crate) fn give_back(books: &Books) -> io::Result<u64> {
    let mut given = Vec::new();
    for (_, number) in books.bridges.all() {
        given.extend(entries(zone(number))?.into_iter().map(|entry| Entry {
            zone: 0,
            zone_only: None,
            mark: entry.mark & !(mark::STARTED_OUT | mark::STARTED_IN),
            ..entry
        }));
    }
    create(&given)
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
