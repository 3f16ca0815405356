//! Judges transactions and writes them into the tables, one after the other, for one durable write.
//!
//! Place on the line: **store commit**.
//! Knows nothing of: who waits for it, files, failures.

use super::Bounds;
use super::tables::{
    LOG, META, Meta, PRESENCE, RECORDS, Stamp, damaged, decode_changes, encode_changes,
    encode_record, range,
};
use crate::{Change, CommitError, Condition, Key, KeyPrefix, Record, Transaction, Write};
use model::Revision;
use redb::{Error, ReadableTable, Table, WriteTransaction};

/// So many commits of the log are read rather than all records.
const MOST_LOOKED_BACK: u64 = 256;

pub(super) struct Batch<'t> {
    records: Table<'t, &'static str, &'static [u8]>,
    log: Table<'t, u64, &'static [u8]>,
    presence: Table<'t, &'static str, ()>,
    meta_table: Table<'t, &'static str, u64>,
    meta: Meta,
}

impl<'t> Batch<'t> {
    pub(super) fn begin(writing: &'t WriteTransaction) -> Result<Self, Error> {
        let meta_table = writing.open_table(META)?;
        Ok(Self {
            records: writing.open_table(RECORDS)?,
            log: writing.open_table(LOG)?,
            presence: writing.open_table(PRESENCE)?,
            meta: Meta::load(&meta_table)?,
            meta_table,
        })
    }

    /// The outer error means the file, the inner one this transaction alone, which has left no trace.
    pub(super) fn commit(
        &mut self,
        transaction: &Transaction,
    ) -> Result<Result<Revision, CommitError>, Error> {
        for condition in transaction.conditions() {
            if !self.holds(condition)? {
                return Ok(Err(CommitError::Conflict(Some(condition.clone()))));
            }
        }
        let number = self.meta.commit + 1;
        let mut changes = Vec::new();
        for (key, write) in transaction.writes() {
            changes.extend(self.write(key, write, number)?);
        }
        if !changes.is_empty() {
            self.meta.commit = number;
            self.append(number, &changes)?;
        }
        Ok(Ok(self.meta.revision()))
    }

    /// The records at the keys go when the store is opened next.
    pub(super) fn mark_presence(&mut self, transaction: &Transaction) -> Result<(), Error> {
        for key in transaction.writes().keys() {
            self.presence.insert(key.as_str(), ())?;
        }
        Ok(())
    }

    pub(super) fn compact(&mut self, before: u64) -> Result<(), Error> {
        while self.meta.forgotten + 1 < before.min(self.meta.commit) {
            self.forget_oldest()?;
        }
        Ok(())
    }

    /// The newest commit stays, whatever its size.
    pub(super) fn finish(mut self, bounds: Bounds) -> Result<Meta, Error> {
        while self.meta.commit - self.meta.forgotten > bounds.log_commits.max(1)
            || self.meta.log_bytes > bounds.log_bytes && self.meta.forgotten + 1 < self.meta.commit
        {
            self.forget_oldest()?;
        }
        self.meta.save(&mut self.meta_table)?;
        Ok(self.meta)
    }

    fn holds(&self, condition: &Condition) -> Result<bool, Error> {
        Ok(match condition {
            Condition::Absent(key) => self.stamp(key)?.is_none(),
            Condition::Unchanged { key, modified } => {
                let stamp = self.stamp(key)?;
                stamp.is_some_and(|stamp| stamp.modified == *modified)
            }
            Condition::SameIncarnation { key, created } => {
                let stamp = self.stamp(key)?;
                stamp.is_some_and(|stamp| stamp.created == *created)
            }
            Condition::NothingNewUnder { prefix, after } => self.nothing_new(prefix, *after)?,
        })
    }

    /// Mostly it is about the last few commits, and a prefix may hold a hundred thousand records.
    fn nothing_new(&self, prefix: &KeyPrefix, after: u64) -> Result<bool, Error> {
        if after >= self.meta.commit {
            return Ok(true);
        }
        if after >= self.meta.forgotten && self.meta.commit - after <= MOST_LOOKED_BACK {
            return self.nothing_new_in_log(prefix, after);
        }
        for entry in range(&self.records, prefix)? {
            if Stamp::of(entry?.1.value())?.modified > after {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What was put and is gone again doesn't count.
    fn nothing_new_in_log(&self, prefix: &KeyPrefix, after: u64) -> Result<bool, Error> {
        for entry in self.log.range(after + 1..)? {
            let (number, bytes) = entry?;
            for change in decode_changes(number.value(), bytes.value())? {
                let key = change.key();
                if prefix.contains(key) && self.stamp(key)?.is_some() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn stamp(&self, key: &Key) -> Result<Option<Stamp>, Error> {
        let found = self.records.get(key.as_str())?;
        found.map(|bytes| Stamp::of(bytes.value())).transpose()
    }

    /// `None`: nothing was there to delete.
    fn write(&mut self, key: &Key, write: &Write, number: u64) -> Result<Option<Change>, Error> {
        self.presence.remove(key.as_str())?;
        match write {
            Write::Put(value) => {
                let record = Record {
                    key: key.clone(),
                    value: value.clone(),
                    created: self.stamp(key)?.map_or(number, |stamp| stamp.created),
                    modified: number,
                };
                let bytes = encode_record(&record);
                self.records.insert(key.as_str(), &*bytes)?;
                Ok(Some(Change::Put(record)))
            }
            Write::Delete => {
                let removed = self.records.remove(key.as_str())?;
                Ok(removed.map(|_| Change::Delete(key.clone())))
            }
        }
    }

    fn append(&mut self, number: u64, changes: &[Change]) -> Result<(), Error> {
        let bytes = encode_changes(changes);
        self.meta.log_bytes += bytes.len() as u64;
        self.log.insert(number, &*bytes)?;
        Ok(())
    }

    fn forget_oldest(&mut self) -> Result<(), Error> {
        let Some((number, bytes)) = self.log.pop_first()? else {
            return Err(damaged("the log ends too early".to_owned()));
        };
        self.meta.forgotten = number.value();
        self.meta.log_bytes -= bytes.value().len() as u64;
        Ok(())
    }
}
