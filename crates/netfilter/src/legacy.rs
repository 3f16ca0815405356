//! Whether the rules of iptables-legacy and ip6tables-legacy changed, which have no generation.
//!
//! Place on the line: read back, as the question whether to read back at all.
//!
//! The whole table is fetched and hashed, counters aside: time by the number of rules. The kernel adds up
//! the counters of all CPUs for it. Fetching makes the kernel set up a table that it has, and that nobody
//! uses, with its hooks on every packet: so only tables are asked for that it says are set up.
//!
//! Source: linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h, linux/netfilter/x_tables.h.

mod table;

use crate::Error;
use crate::sockopt::{Question, ask, open};
use model::Family;
use rustix::fd::OwnedFd;
use std::fs;
use std::io;

/// What is known of a table without looking at its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// In bytes: what most changes change.
    pub size: u32,
    pub digest: u64,
}

/// The digest stays the same while the table has the same rules in the same chains, and changes, but
/// for an accident of 64 bits, with any rule or chain policy; by neither traffic nor reading. Good for
/// comparing within one process: another version may hash differently. `None`: there is no such table.
pub fn fingerprint(family: Family, table: &str) -> Result<Option<Fingerprint>, Error> {
    let tried = || format!("reading the legacy table {table} of {family}");
    if !tables(family)?.iter().any(|name| name == table) {
        return Ok(None);
    }
    let socket = open(family).map_err(|e| Error::new(tried(), e))?;
    for _ in 0..TRIES {
        match fetch(&socket, family, table) {
            Ok((info, entries)) => {
                let entries = &entries[table::ENTRIES_HEADER..];
                let size = info.size();
                return match table::digest(family, &info, entries) {
                    Some(digest) => Ok(Some(Fingerprint { size, digest })),
                    None => Err(Error::unreadable(tried(), "its entries don't add up")),
                };
            }
            // Gone together with its module since we looked.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            // Replaced by one of another size between the questions.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(Error::new(tried(), e)),
        }
    }
    Err(Error::answered(tried(), libc::EAGAIN))
}

/// Of the fingerprint, the part that costs nothing. `None`: there is no such table.
pub fn size(family: Family, table: &str) -> Result<Option<u32>, Error> {
    let tried = || format!("asking for the size of the legacy table {table} of {family}");
    if !tables(family)?.iter().any(|name| name == table) {
        return Ok(None);
    }
    let socket = open(family).map_err(|e| Error::new(tried(), e))?;
    match information(&socket, family, table) {
        Ok(info) => Ok(Some(info.size())),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(Error::new(tried(), e)),
    }
}

/// The tables that are set up in this namespace. Empty, too, where the kernel doesn't have iptables-legacy.
pub fn tables(family: Family) -> Result<Vec<String>, Error> {
    // `/proc/net` itself would be the namespace of the process's first thread.
    let file = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    match fs::read_to_string(file) {
        Ok(names) => Ok(names.lines().map(str::to_owned).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::new(format!("reading {file}"), e)),
    }
}

/// Somebody who replaces the table without a pause would be what it takes.
const TRIES: usize = 8;

fn information(socket: &OwnedFd, family: Family, table: &str) -> io::Result<table::Info> {
    let mut info = table::info_question(table).ok_or(io::ErrorKind::InvalidInput)?;
    ask(socket, family, Question::Info, &mut info.0)?;
    Ok(info)
}

/// The entries stand behind the question's header.
fn fetch(socket: &OwnedFd, family: Family, table: &str) -> io::Result<(table::Info, Vec<u8>)> {
    let info = information(socket, family, table)?;
    let mut entries =
        table::entries_question(table, info.size()).ok_or(io::ErrorKind::InvalidInput)?;
    ask(socket, family, Question::Entries, &mut entries)?;
    Ok((info, entries))
}
