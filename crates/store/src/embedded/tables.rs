//! What is in the file, and how it is read.
//!
//! ```text
//! records   key          -> created (8) | modified (8) | value
//! log       commit       -> its changes: kind (1), length of the key (2), key;
//!                           of a put also created (8), length of the value (4), value
//! presence  key          -> nothing: the record goes at the next start
//! meta      name         -> number
//! ```
//! Units: numbers are big-endian. The log holds each commit after `forgotten`, up to the newest.
//!
//! Knows nothing of: what may be written when.

use crate::{Change, Key, KeyPrefix, Record};
use model::Revision;
use redb::{Error, ReadTransaction, ReadableTable, TableDefinition};
use std::ops::Bound;

pub(super) const RECORDS: TableDefinition<&str, &[u8]> = TableDefinition::new("records");
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
pub(super) const PRESENCE: TableDefinition<&str, ()> = TableDefinition::new("presence");
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Of these tables. A change of them is a new number, and a migration when the file is opened.
pub(super) const FORMAT: u64 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) format: u64,
    pub(super) epoch: u64,
    /// The newest commit.
    pub(super) commit: u64,
    /// Changes up to this commit are not in the log.
    pub(super) forgotten: u64,
    pub(super) log_bytes: u64,
    pub(super) is_backup: bool,
}

/// The next commits of the log.
pub(super) struct Logged {
    pub(super) commits: Vec<(u64, Vec<Change>)>,
    pub(super) until: u64,
    pub(super) is_newest: bool,
}

/// What a record begins with.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    pub(super) created: u64,
    pub(super) modified: u64,
}

/// A watcher takes so much at once, and one commit more.
const PAGE_COMMITS: u64 = 256;
const PAGE_RECORDS: usize = 1000;
const PAGE_BYTES: usize = 1024 * 1024;

pub(super) fn get(snapshot: &ReadTransaction, key: &Key) -> Result<Option<Record>, Error> {
    let found = snapshot.open_table(RECORDS)?.get(key.as_str())?;
    let record = found.map(|bytes| record(key.clone(), bytes.value()));
    record.transpose()
}

/// `take`: whether there is still somebody who wants them.
pub(super) fn read_all(
    snapshot: &ReadTransaction,
    prefix: &KeyPrefix,
    mut take: impl FnMut(Page) -> bool,
) -> Result<(), Error> {
    let meta = Meta::load(&snapshot.open_table(META)?)?;
    let mut wanted = take(Page::Begin(meta.revision()));
    let mut records = Vec::new();
    for entry in range(&snapshot.open_table(RECORDS)?, prefix)? {
        let (key, bytes) = entry?;
        records.push(record(stored_key(key.value())?, bytes.value())?);
        if records.len() == PAGE_RECORDS {
            wanted = wanted && take(Page::Records(std::mem::take(&mut records)));
        }
        if !wanted {
            return Ok(());
        }
    }
    take(Page::Records(records));
    Ok(())
}

/// Of all that there is.
pub(super) enum Page {
    Begin(Revision),
    Records(Vec<Record>),
}

/// `None`: not all of it is kept any more, or this commit has never been.
pub(super) fn log_after(snapshot: &ReadTransaction, commit: u64) -> Result<Option<Logged>, Error> {
    let meta = Meta::load(&snapshot.open_table(META)?)?;
    if commit < meta.forgotten || commit > meta.commit {
        return Ok(None);
    }
    let log = snapshot.open_table(LOG)?;
    let (mut commits, mut bytes, mut until) = (Vec::new(), 0, commit);
    for entry in log.range(commit + 1..=commit + PAGE_COMMITS)? {
        let (number, changes) = entry?;
        until = number.value();
        bytes += changes.value().len();
        commits.push((until, decode_changes(until, changes.value())?));
        if bytes > PAGE_BYTES {
            break;
        }
    }
    Ok(Some(Logged {
        commits,
        until,
        is_newest: until == meta.commit,
    }))
}

pub(super) fn range<'t>(
    records: &'t impl ReadableTable<&'static str, &'static [u8]>,
    prefix: &KeyPrefix,
) -> Result<redb::Range<'t, &'static str, &'static [u8]>, Error> {
    let (begin, end) = prefix.range();
    let ends = (as_text(&begin), as_text(&end));
    Ok(records.range::<&str>(ends)?)
}

fn as_text(bound: &Bound<String>) -> Bound<&str> {
    bound.as_ref().map(String::as_str)
}

impl Meta {
    pub(super) fn load(table: &impl ReadableTable<&'static str, u64>) -> Result<Self, Error> {
        let number = |name: &str| match table.get(name)? {
            Some(number) => Ok(number.value()),
            None => Err(damaged(format!("it has no {name}"))),
        };
        Ok(Self {
            format: number("format")?,
            epoch: number("epoch")?,
            commit: number("commit")?,
            forgotten: number("forgotten")?,
            log_bytes: number("log_bytes")?,
            is_backup: number("is_backup")? != 0,
        })
    }

    pub(super) fn save(&self, table: &mut redb::Table<'_, &'static str, u64>) -> Result<(), Error> {
        for (name, number) in [
            ("format", self.format),
            ("epoch", self.epoch),
            ("commit", self.commit),
            ("forgotten", self.forgotten),
            ("log_bytes", self.log_bytes),
            ("is_backup", u64::from(self.is_backup)),
        ] {
            table.insert(name, number)?;
        }
        Ok(())
    }

    pub(super) fn revision(&self) -> Revision {
        Revision {
            epoch: self.epoch,
            commit: self.commit,
        }
    }
}

impl Stamp {
    const BYTES: usize = 16;

    pub(super) fn of(bytes: &[u8]) -> Result<Self, Error> {
        let mut rest = bytes;
        Ok(Self {
            created: u64::from_be_bytes(take(&mut rest)?),
            modified: u64::from_be_bytes(take(&mut rest)?),
        })
    }
}

pub(super) fn encode_record(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(Stamp::BYTES + record.value.len());
    bytes.extend(record.created.to_be_bytes());
    bytes.extend(record.modified.to_be_bytes());
    bytes.extend(&*record.value);
    bytes
}

fn record(key: Key, bytes: &[u8]) -> Result<Record, Error> {
    let stamp = Stamp::of(bytes)?;
    Ok(Record {
        key,
        value: bytes[Stamp::BYTES..].into(),
        created: stamp.created,
        modified: stamp.modified,
    })
}

pub(super) fn stored_key(text: &str) -> Result<Key, Error> {
    Key::new(text).map_err(|error| damaged(error.to_string()))
}

const PUT: u8 = 1;
const DELETE: u8 = 0;

pub(super) fn encode_changes(changes: &[Change]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for change in changes {
        let (kind, key) = match change {
            Change::Put(record) => (PUT, record.key.as_str()),
            Change::Delete(key) => (DELETE, key.as_str()),
        };
        bytes.push(kind);
        bytes.extend((key.len() as u16).to_be_bytes());
        bytes.extend(key.as_bytes());
        if let Change::Put(record) = change {
            bytes.extend(record.created.to_be_bytes());
            bytes.extend((record.value.len() as u32).to_be_bytes());
            bytes.extend(&*record.value);
        }
    }
    bytes
}

pub(super) fn decode_changes(modified: u64, mut bytes: &[u8]) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    while !bytes.is_empty() {
        changes.push(decode_change(modified, &mut bytes)?);
    }
    Ok(changes)
}

fn decode_change(modified: u64, rest: &mut &[u8]) -> Result<Change, Error> {
    let [kind] = take(rest)?;
    let key = u16::from_be_bytes(take(rest)?);
    let key = std::str::from_utf8(take_slice(rest, key.into())?);
    let key = stored_key(key.map_err(|error| damaged(error.to_string()))?)?;
    match kind {
        DELETE => Ok(Change::Delete(key)),
        PUT => {
            let created = u64::from_be_bytes(take(rest)?);
            let length = u32::from_be_bytes(take(rest)?);
            Ok(Change::Put(Record {
                key,
                value: take_slice(rest, length as usize)?.into(),
                created,
                modified,
            }))
        }
        other => Err(damaged(format!("a change of kind {other}"))),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Error> {
    let (taken, left) = rest.split_first_chunk().ok_or_else(cut_short)?;
    *rest = left;
    Ok(*taken)
}

fn take_slice<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Error> {
    let (taken, left) = rest.split_at_checked(length).ok_or_else(cut_short)?;
    *rest = left;
    Ok(taken)
}

fn cut_short() -> Error {
    damaged("an entry is cut short".to_owned())
}

pub(super) fn damaged(what: String) -> Error {
    Error::Corrupted(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_as_they_were_written_and_never_beyond_their_end() {
        let key = |text: &str| Key::new(text).expect("a key");
        let put = |at: &str, value: &[u8]| {
            Change::Put(Record {
                key: key(at),
                value: value.into(),
                created: 3,
                modified: 9,
            })
        };
        let changes = [put("a/1", b"x"), Change::Delete(key("b")), put("c", b"")];
        let bytes = encode_changes(&changes);
        assert_eq!(decode_changes(9, &bytes).expect("whole"), changes);
        let whole = |end: usize| [0, 15 + 4, 15 + 4 + 4, bytes.len()].contains(&end);
        for end in 0..bytes.len() {
            let seen = decode_changes(9, &bytes[..end]);
            assert_eq!(seen.is_ok(), whole(end), "cut at {end}: {seen:?}");
        }
        decode_changes(9, &[7, 0, 1, b'a']).expect_err("no such kind");
    }
}
