//! A table of iptables-legacy as bytes: what it is asked with, and a hash of its rules. Pure.
//!
//! ```text
//! getinfo      name 32 | valid hooks 4 | hook entry 5*4 | underflow 5*4 | entries 4 | size 4
//! get_entries  name 32 | size 4 | padding | entries
//! entry        ipt_ip 84 or ip6t_ip6 136 | nfcache 4 | target offset 2 | next offset 2 | comefrom 4 |
//!              padding | packets 8 | bytes 8 | matches | target
//! ```
//! A rule, a chain's head and a chain's policy are all entries. Matches and targets keep what traffic
//! changes (the credit of `limit`, the count of `statistic`) behind the part that the kernel hands out
//! (since 4.11; before, such a rule's hash may change by traffic, which costs whoever asks a reading).

use model::Family;
use std::hash::{DefaultHasher, Hasher};

pub(super) struct Info(pub(super) [u8; INFO]);

const INFO: usize = 84;
const NAME: usize = 32;
const INFO_ENTRIES_AT: usize = 76;
const INFO_SIZE_AT: usize = 80;

/// What stands before the entries, which are aligned as their counters are.
pub(super) const ENTRIES_HEADER: usize = (NAME + 4).next_multiple_of(align_of::<u64>());

/// Where things are in an entry.
struct Layout {
    next_at: usize,
    counters_at: usize,
    header: usize,
}

const COUNTERS: usize = 16;

impl Layout {
    const V4: Layout = Layout::behind(84);
    const V6: Layout = Layout::behind(136);

    fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self::V4,
            Family::V6 => Self::V6,
        }
    }

    const fn behind(ip: usize) -> Self {
        let counters_at = (ip + 12).next_multiple_of(align_of::<u64>());
        Self {
            next_at: ip + 6,
            counters_at,
            header: counters_at + COUNTERS,
        }
    }
}

const _: () = assert!(Layout::V4.header == 112 && Layout::V6.header == 168);

impl Info {
    /// Of all entries, in bytes.
    pub(super) fn size(&self) -> u32 {
        self.number(INFO_SIZE_AT)
    }

    fn entries(&self) -> u32 {
        self.number(INFO_ENTRIES_AT)
    }

    fn number(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[at..at + 4]);
        u32::from_ne_bytes(bytes)
    }
}

/// `None`: no table has such a long name.
pub(super) fn info_question(table: &str) -> Option<Info> {
    let mut info = Info([0; INFO]);
    info.0[..NAME].copy_from_slice(&name(table)?);
    Some(info)
}

pub(super) fn entries_question(table: &str, size: u32) -> Option<Vec<u8>> {
    let mut question = vec![0; ENTRIES_HEADER.checked_add(size as usize)?];
    question[..NAME].copy_from_slice(&name(table)?);
    question[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    Some(question)
}

/// Ends with at least one 0.
fn name(table: &str) -> Option<[u8; NAME]> {
    let mut name = [0; NAME];
    if table.len() >= NAME {
        return None;
    }
    name[..table.len()].copy_from_slice(table.as_bytes());
    Some(name)
}

/// `None`: the entries aren't as many, or as long, as they say.
pub(super) fn digest(family: Family, info: &Info, entries: &[u8]) -> Option<u64> {
    let layout = Layout::of(family);
    let mut hasher = DefaultHasher::new();
    hasher.write(&info.0);
    let mut rest = entries;
    let mut count = 0u32;
    while !rest.is_empty() {
        let length: [u8; 2] = rest.get(layout.next_at..)?.first_chunk().copied()?;
        let length = usize::from(u16::from_ne_bytes(length));
        if length < layout.header {
            return None;
        }
        let entry = rest.get(..length)?;
        hasher.write(&entry[..layout.counters_at]);
        hasher.write(&entry[layout.header..]);
        rest = &rest[length..];
        count = count.checked_add(1)?;
    }
    (count == info.entries()).then(|| hasher.finish())
}

#[cfg(test)]
mod tests;
