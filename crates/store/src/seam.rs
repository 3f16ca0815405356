//! What is asked of every back end: the trait, and what goes over it.
//!
//! Place on the line: **store commit -> watch**.
//! Knows nothing of: any back end.

use crate::{CommitError, Key, KeyPrefix, ReadError, Transaction, Value, WatchEnd};
use async_trait::async_trait;
use model::Revision;
use std::time::Duration;

/// Records that change in transactions. Each is in one commit, and has its revision; commits are in one order,
/// which is the same for everybody. A reader sees whole commits only.
///
/// A commit may be of several transactions that came together, if it makes no difference in which order they are
/// done: none asks about what another one writes, and what they write both, they write alike.
///
/// Futures must run inside a tokio runtime. One that is dropped half-way leaves a commit whole or absent.
#[async_trait]
pub trait Store: Send + Sync {
    /// All records under the prefix, as they are at one revision, page by page: there may be more of them than one
    /// wants in memory twice. After an error the reader has a part of them, or none.
    async fn read_all(&self, prefix: &KeyPrefix, reader: &mut dyn Reader) -> Result<(), ReadError>;

    /// The same, in one piece.
    async fn list(&self, prefix: &KeyPrefix) -> Result<Listing, ReadError> {
        let mut listing = Listing::default();
        self.read_all(prefix, &mut listing).await?;
        Ok(listing)
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>, ReadError>;

    /// Durable when it is answered. Never tried twice. The revision may be others' as well, who came together
    /// with it.
    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError>;

    /// Everything under the prefix that is committed after `after`, which is the revision of a listing, or
    /// of the last event that was seen. A revision of another epoch leads to [`WatchEnd::Compacted`].
    async fn watch(&self, prefix: &KeyPrefix, after: Revision)
    -> Result<Box<dyn Watch>, ReadError>;

    /// A record that is there while this process lives and says so, and is gone `ttl` after it stopped.
    /// It takes the place of what is at the key; whoever had announced that can't take this one away.
    async fn announce(
        &self,
        key: &Key,
        value: Value,
        ttl: Duration,
    ) -> Result<Box<dyn Presence>, CommitError>;

    /// Forgets the changes of commits before this one (at most, the newest). A watcher that hasn't seen
    /// all of them will be told to list again. Records stay.
    async fn compact(&self, before: u64) -> Result<(), ReadError>;
}

/// A watch holds no changes back in memory: a slow one reads later, or is told [`WatchEnd::Compacted`].
#[async_trait]
pub trait Watch: Send {
    /// Dropping the future loses nothing. After an end, the same end again.
    async fn next(&mut self) -> Result<Event, WatchEnd>;
}

/// Dropped, the record goes: at once if the store can be reached, else after the time to live.
#[async_trait]
pub trait Presence: Send + Sync {
    /// The commit that wrote the record.
    fn revision(&self) -> Revision;

    /// Until the record can't be kept alive any more: announce again.
    async fn lost(&mut self);
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: Key,
    pub value: Value,
    /// The commit that made it, and the one that wrote it last.
    pub created: u64,
    pub modified: u64,
}

/// Who is told what a store has.
pub trait Reader: Send {
    /// What was told before, if anything was, isn't so any more: the store begins anew.
    fn begin(&mut self, revision: Revision);

    /// In the order of the keys.
    fn take(&mut self, record: Record);
}

/// Shape: in the order of the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub revision: Revision,
    pub records: Vec<Record>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What one commit did under the prefix, all of it, of all its transactions; in the order of the keys, and
    /// never empty.
    Commit {
        revision: Revision,
        changes: Vec<Change>,
    },
    /// Everything up to here has been said. The first one comes when all is said that had been committed
    /// before the watch began.
    Progress(Revision),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put(Record),
    Delete(Key),
}

impl Change {
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(record) => &record.key,
            Self::Delete(key) => key,
        }
    }
}

impl Reader for Listing {
    fn begin(&mut self, revision: Revision) {
        self.revision = revision;
        self.records.clear();
    }

    fn take(&mut self, record: Record) {
        self.records.push(record);
    }
}
