//! The connections that the kernel tracks: list them, and create, change and delete single ones.
//!
//! Place on the line: conntrack, from outside. Which entries must go is decided elsewhere.
//!
//! - A request to delete without a tuple would delete everything: each one here carries a tuple.
//! - An entry is named by its zone and its original tuple. Deleting also compares its id, so an entry
//!   that has taken the place of the listed one survives, unless by chance it lies at the same place in
//!   memory. Where the kernel changes an entry it compares no id.
//! - A list is not a snapshot: what comes or goes meanwhile may be in it or not, and an entry may be
//!   told twice (where the kernel's place in the list was deleted).
//! - The kernel keeps the entries of all namespaces in one table, so a list takes time by the size of
//!   that table, whatever the filter, and for as long keeps a CPU from its packets. Not for every second.
//!   Expired entries that it meets are dropped.
//!
//! Source: linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h; net/netfilter/nf_conntrack_netlink.c.

mod entry;
mod message;
mod tuple;

pub use entry::{Entry, Sctp, State, Status, Tcp, TcpOptions};
pub use tuple::{Side, Tuple, TupleL4};

use crate::Error;
use crate::codec::Requests;
use crate::socket::{REQUESTS_AT_ONCE, Socket, list};
use crate::sysctl;
use model::Family;

/// Which entries to list. The default: all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub family: Option<Family>,
    pub zone: Option<u16>,
    pub mark: Option<Masked>,
}

/// Bits of a mark; those outside of the mask don't matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masked {
    pub value: u32,
    pub mask: u32,
}

impl Filter {
    pub fn admits(&self, entry: &Entry) -> bool {
        self.family.is_none_or(|family| family == entry.family())
            && self.zone.is_none_or(|zone| zone == entry.zone)
            && self
                .mark
                .is_none_or(|m| entry.mark & m.mask == m.value & m.mask)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// As it was listed, as far as the kernel takes it: see [`Entry`]. One whose addresses are
    /// translated is refused (EOPNOTSUPP).
    Create(&'a Entry),
    Delete(&'a Entry),
    /// Expires this many seconds from now, unless packets or the kernel think otherwise.
    Timeout {
        of: &'a Entry,
        seconds: u32,
    },
    /// The bits of the mask become those of the value.
    Mark {
        of: &'a Entry,
        mark: Masked,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// There was no such entry (any more).
    Gone,
    /// To be created, and there is an entry with one of its tuples already: left as it is.
    Exists,
    /// The entry is as it was, or not there.
    Refused {
        errno: i32,
    },
}

/// Tells each entry that the filter admits. The kernel sorts out what it can (marks; zones since 6.8);
/// all is checked again here, so older kernels give the same answer, slower.
pub fn dump(filter: &Filter, mut each: impl FnMut(Entry)) -> Result<(), Error> {
    list(message::listing(filter), |family, attributes| {
        let Some(entry) = message::entry(family, attributes) else {
            return false;
        };
        if filter.admits(&entry) {
            each(entry);
        }
        true
    })
    .map_err(|e| Error::new("listing conntrack entries", e))
}

/// Makes the changes in their order; one outcome for each. An error says that it isn't known which of
/// them were made: list again.
pub fn change(changes: &[Change]) -> Result<Vec<Outcome>, Error> {
    let failed = |e| Error::new(format!("{} changes of conntrack entries", changes.len()), e);
    let mut socket = Socket::open().map_err(failed)?;
    let mut outcomes = Vec::with_capacity(changes.len());
    for changes in changes.chunks(REQUESTS_AT_ONCE) {
        let mut requests = Requests::default();
        for change in changes.iter().filter(|change| is_possible(change)) {
            message::change(&mut requests, change);
        }
        let mut errnos = socket.execute(requests).map_err(failed)?.into_iter();
        outcomes.extend(changes.iter().map(|change| {
            let errno = match is_possible(change) {
                true => errnos.next().expect("one for each that was asked for"),
                false => libc::EOPNOTSUPP,
            };
            outcome(errno, change)
        }));
    }
    Ok(outcomes)
}

/// [`Outcome::Done`] or [`Outcome::Exists`].
pub fn create(entry: &Entry) -> Result<Outcome, Error> {
    change_one("creating", entry, Change::Create(entry))
}

/// [`Outcome::Done`] or [`Outcome::Gone`].
pub fn delete(entry: &Entry) -> Result<Outcome, Error> {
    change_one("deleting", entry, Change::Delete(entry))
}

/// [`Outcome::Done`] or [`Outcome::Gone`].
pub fn set_timeout(entry: &Entry, seconds: u32) -> Result<Outcome, Error> {
    let change = Change::Timeout { of: entry, seconds };
    change_one("setting the timeout of", entry, change)
}

/// [`Outcome::Done`] or [`Outcome::Gone`].
pub fn set_mark(entry: &Entry, mark: Masked) -> Result<Outcome, Error> {
    change_one("marking", entry, Change::Mark { of: entry, mark })
}

/// How many entries this namespace has: those that packets are known to belong to, expired ones that
/// nobody has come across included.
pub fn count() -> Result<u32, Error> {
    const PATH: &str = "net/netfilter/nf_conntrack_count";
    let text = sysctl::read(PATH)?;
    text.parse().map_err(|_| {
        Error::unreadable(
            format!("counting conntrack entries: {PATH}"),
            "not a number",
        )
    })
}

fn change_one(verb: &str, entry: &Entry, change: Change) -> Result<Outcome, Error> {
    let tried = || format!("{verb} the conntrack entry {entry}");
    let outcomes = self::change(&[change]).map_err(|e| Error::new(tried(), e.into_source()))?;
    match outcomes[0] {
        Outcome::Refused { errno } => Err(Error::answered(tried(), errno)),
        outcome => Ok(outcome),
    }
}

/// The kernel would take a translated entry as it is listed, and then not translate.
fn is_possible(change: &Change) -> bool {
    match change {
        Change::Create(entry) => !entry.is_translated(),
        Change::Delete(_) | Change::Timeout { .. } | Change::Mark { .. } => true,
    }
}

fn outcome(errno: i32, change: &Change) -> Outcome {
    match (errno, change) {
        (0, _) => Outcome::Done,
        (libc::EEXIST, Change::Create(_)) => Outcome::Exists,
        (libc::ENOENT, Change::Delete(_) | Change::Timeout { .. } | Change::Mark { .. }) => {
            Outcome::Gone
        }
        (errno, _) => Outcome::Refused { errno },
    }
}
