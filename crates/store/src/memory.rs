//! The store in memory: for tests, and the reference that other back ends are compared with. So it is plain,
//! and shares no judgement with them.
//!
//! Knows nothing of: files, other processes.

use crate::follow::{Commit, Follower, History, Page};
use crate::{
    Change, CommitError, Condition, Key, KeyPrefix, Presence, ReadError, Reader, Record, Store,
    Transaction, Value, Watch, WatchEnd, Write,
};
use async_trait::async_trait;
use model::Revision;
use std::collections::{BTreeMap, VecDeque};
use std::future;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

pub struct Memory {
    shared: Arc<Shared>,
    news: watch::Sender<()>,
}

struct Shared {
    state: Mutex<State>,
}

struct State {
    revision: Revision,
    records: BTreeMap<Key, Record>,
    /// The newest commits, one after the other; bounded.
    history: VecDeque<Vec<Change>>,
    most_history: usize,
}

/// How many commits are kept for watchers.
const MOST_HISTORY: usize = 10_000;

/// A watcher takes so many commits at once.
const PAGE: usize = 256;

impl Memory {
    pub fn new() -> Self {
        Self::with_history(MOST_HISTORY)
    }

    pub fn with_history(most_commits: usize) -> Self {
        let state = State {
            revision: Revision {
                epoch: 1,
                commit: 0,
            },
            records: BTreeMap::new(),
            history: VecDeque::new(),
            most_history: most_commits,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
            }),
            news: watch::Sender::new(()),
        }
    }

    fn apply(&self, transaction: &Transaction) -> Result<Revision, CommitError> {
        transaction.check_size()?;
        let revision = self.shared.lock().apply(transaction)?;
        self.news.send_replace(());
        Ok(revision)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for Memory {
    async fn read_all(&self, prefix: &KeyPrefix, reader: &mut dyn Reader) -> Result<(), ReadError> {
        let state = self.shared.lock();
        reader.begin(state.revision);
        for record in state.under(prefix) {
            reader.take(record.clone());
        }
        Ok(())
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>, ReadError> {
        Ok(self.shared.lock().records.get(key).cloned())
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        self.apply(&transaction)
    }

    async fn watch(
        &self,
        prefix: &KeyPrefix,
        after: Revision,
    ) -> Result<Box<dyn Watch>, ReadError> {
        let epoch = self.shared.lock().revision.epoch;
        let news = self.news.subscribe();
        let follower = Follower::new(self.shared.clone(), news, prefix.clone(), after);
        Ok(Box::new(if after.epoch == epoch {
            follower
        } else {
            follower.ended(WatchEnd::Compacted)
        }))
    }

    async fn announce(
        &self,
        key: &Key,
        value: Value,
        _ttl: Duration,
    ) -> Result<Box<dyn Presence>, CommitError> {
        let revision = self.apply(&Transaction::new().put(key.clone(), value))?;
        Ok(Box::new(Announced {
            shared: self.shared.clone(),
            news: self.news.clone(),
            key: key.clone(),
            revision,
        }))
    }

    async fn compact(&self, before: u64) -> Result<(), ReadError> {
        self.shared.lock().compact(before);
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }
}

#[async_trait]
impl History for Shared {
    async fn after(&self, commit: u64) -> Result<Page, WatchEnd> {
        let state = self.lock();
        let newest = state.revision.commit;
        let forgotten = state.forgotten();
        if commit < forgotten || commit > newest {
            return Err(WatchEnd::Compacted);
        }
        let until = newest.min(commit + PAGE as u64);
        let numbers = commit + 1..=until;
        Ok(Page {
            commits: numbers
                .map(|number| Commit {
                    number,
                    changes: state.history[(number - forgotten - 1) as usize].clone(),
                })
                .collect(),
            until,
            is_newest: until == newest,
        })
    }
}

impl State {
    /// Changes up to this commit are not kept.
    fn forgotten(&self) -> u64 {
        self.revision.commit - self.history.len() as u64
    }

    fn compact(&mut self, before: u64) {
        while !self.history.is_empty() && self.forgotten() + 1 < before.min(self.revision.commit) {
            self.history.pop_front();
        }
    }

    fn apply(&mut self, transaction: &Transaction) -> Result<Revision, CommitError> {
        let failing = transaction.conditions().iter().find(|c| !self.holds(c));
        if let Some(condition) = failing {
            return Err(CommitError::Conflict(Some(condition.clone())));
        }
        let number = self.revision.commit + 1;
        let writes = transaction.writes().iter();
        let changes: Vec<Change> = writes
            .filter_map(|(key, write)| self.write(key, write, number))
            .collect();
        if !changes.is_empty() {
            self.revision.commit = number;
            self.history.push_back(changes);
            if self.history.len() > self.most_history {
                self.history.pop_front();
            }
        }
        Ok(self.revision)
    }

    /// In a large store the others are not looked at.
    fn under(&self, prefix: &KeyPrefix) -> impl Iterator<Item = &Record> {
        let first = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let records = self.records.range::<str, _>(first);
        let under = records.take_while(|(key, _)| prefix.contains(key));
        under.map(|(_, record)| record)
    }

    fn holds(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Absent(key) => !self.records.contains_key(key),
            Condition::Unchanged { key, modified } => {
                let record = self.records.get(key);
                record.is_some_and(|record| record.modified == *modified)
            }
            Condition::SameIncarnation { key, created } => {
                let record = self.records.get(key);
                record.is_some_and(|record| record.created == *created)
            }
            Condition::NothingNewUnder { prefix, after } => {
                let mut records = self.under(prefix);
                !records.any(|record| record.modified > *after)
            }
        }
    }

    /// `None`: nothing was there to delete.
    fn write(&mut self, key: &Key, write: &Write, number: u64) -> Option<Change> {
        let before = self.records.get(key).map(|record| record.created);
        match write {
            Write::Put(value) => {
                let record = Record {
                    key: key.clone(),
                    value: value.clone(),
                    created: before.unwrap_or(number),
                    modified: number,
                };
                self.records.insert(key.clone(), record.clone());
                Some(Change::Put(record))
            }
            Write::Delete => {
                self.records.remove(key);
                before.map(|_| Change::Delete(key.clone()))
            }
        }
    }
}

/// Needs no renewing: the records live no longer than the process does.
struct Announced {
    shared: Arc<Shared>,
    news: watch::Sender<()>,
    key: Key,
    revision: Revision,
}

#[async_trait]
impl Presence for Announced {
    fn revision(&self) -> Revision {
        self.revision
    }

    async fn lost(&mut self) {
        future::pending().await
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let withdraw = Transaction::withdraw(&self.key, self.revision.commit);
        // Refused when somebody else has the key now.
        let _ = self.shared.lock().apply(&withdraw);
        self.news.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;

    #[tokio::test]
    async fn a_watcher_that_is_too_slow_is_told_to_list_again() {
        let store = Memory::with_history(3);
        let key = Key::new("a").expect("a key");
        let begin = store.list(&KeyPrefix::all()).await.expect("a listing");
        let mut watch = store.watch(&KeyPrefix::all(), begin.revision).await;
        for n in 0..4u8 {
            let write = Transaction::new().put(key.clone(), vec![n]);
            store.commit(write).await.expect("no conditions");
        }
        let watch = watch.as_mut().expect("a watch");
        for _ in 0..2 {
            assert_eq!(watch.next().await, Err(WatchEnd::Compacted));
        }
        let after = Revision {
            epoch: 1,
            commit: 1,
        };
        let watch = store.watch(&KeyPrefix::all(), after).await;
        let first = watch.expect("a watch").next().await.expect("an event");
        assert!(matches!(first, Event::Commit { revision, .. } if revision.commit == 2));
    }
}
