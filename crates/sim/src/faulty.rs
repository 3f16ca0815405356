//! The store in memory, whose watch ends and whose answers get lost when they are told to.
//!
//! Knows nothing of: what is in the records.

use async_trait::async_trait;
use model::Revision;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use store::memory::Memory;
use store::{
    CommitError, Event, Key, KeyPrefix, Presence, ReadError, Reader, Record, Store, Transaction,
    Value, Watch, WatchEnd,
};

pub(crate) struct Faulty {
    inner: Memory,
    orders: Arc<Mutex<Orders>>,
}

#[derive(Default)]
struct Orders {
    /// Instead of the next commit.
    end: Option<WatchEnd>,
    lose_answer: bool,
}

struct FaultyWatch {
    inner: Box<dyn Watch>,
    orders: Arc<Mutex<Orders>>,
    end: Option<WatchEnd>,
}

impl Faulty {
    pub(crate) fn new() -> Self {
        Self {
            inner: Memory::with_history(1_000),
            orders: Arc::default(),
        }
    }

    pub(crate) fn end_watch(&self, end: WatchEnd) {
        locked(&self.orders).end = Some(end);
    }

    /// Of the next commit.
    pub(crate) fn lose_answer(&self) {
        locked(&self.orders).lose_answer = true;
    }

    /// What was ordered and hasn't come about.
    pub(crate) fn heal(&self) {
        let mut orders = locked(&self.orders);
        orders.end = None;
        orders.lose_answer = false;
    }

    /// Of what was committed.
    pub(crate) async fn newest(&self) -> Revision {
        let servers = KeyPrefix::new("server/").expect("it is one");
        let listing = self.inner.list(&servers).await;
        listing.expect("a store in memory answers").revision
    }
}

fn locked(orders: &Mutex<Orders>) -> MutexGuard<'_, Orders> {
    orders.lock().expect("nobody panics while holding it")
}

#[async_trait]
impl Store for Faulty {
    async fn read_all(&self, prefix: &KeyPrefix, reader: &mut dyn Reader) -> Result<(), ReadError> {
        self.inner.read_all(prefix, reader).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>, ReadError> {
        self.inner.get(key).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        let revision = self.inner.commit(transaction).await?;
        match std::mem::take(&mut locked(&self.orders).lose_answer) {
            true => Err(CommitError::Unknown("the answer was lost".to_owned())),
            false => Ok(revision),
        }
    }

    async fn watch(
        &self,
        prefix: &KeyPrefix,
        after: Revision,
    ) -> Result<Box<dyn Watch>, ReadError> {
        Ok(Box::new(FaultyWatch {
            inner: self.inner.watch(prefix, after).await?,
            orders: Arc::clone(&self.orders),
            end: None,
        }))
    }

    async fn announce(
        &self,
        key: &Key,
        value: Value,
        ttl: Duration,
    ) -> Result<Box<dyn Presence>, CommitError> {
        self.inner.announce(key, value, ttl).await
    }

    async fn compact(&self, before: u64) -> Result<(), ReadError> {
        self.inner.compact(before).await
    }
}

#[async_trait]
impl Watch for FaultyWatch {
    async fn next(&mut self) -> Result<Event, WatchEnd> {
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        let event = self.inner.next().await?;
        if let Event::Commit { .. } = event {
            self.end = locked(&self.orders).end.take();
        }
        self.end.clone().map_or(Ok(event), Err)
    }
}
