//! What the checks share.

use crate::{
    Change, CommitError, Event, Key, KeyPrefix, Listing, Record, Store, Transaction, Value, Watch,
    WatchEnd,
};
use model::Revision;
use std::time::Duration;

/// Whatever is waited for comes long before this, or never.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn key(text: &str) -> Key {
    Key::new(text).expect("a valid key")
}

pub(super) fn prefix(text: &str) -> KeyPrefix {
    KeyPrefix::new(text).expect("a valid prefix")
}

pub(super) fn put(at: &str, value: &str) -> Transaction {
    Transaction::new().put(key(at), value.as_bytes())
}

pub(super) fn delete(at: &str) -> Transaction {
    Transaction::new().delete(key(at))
}

pub(super) async fn commit(store: &dyn Store, transaction: Transaction) -> Revision {
    let committed = store.commit(transaction).await;
    committed.expect("nothing stands against it")
}

pub(super) async fn list(store: &dyn Store, prefix: &KeyPrefix) -> Listing {
    store.list(prefix).await.expect("a listing")
}

pub(super) async fn now(store: &dyn Store) -> Revision {
    list(store, &KeyPrefix::all()).await.revision
}

pub(super) async fn get(store: &dyn Store, at: &str) -> Option<Record> {
    store.get(&key(at)).await.expect("it can be read")
}

pub(super) async fn watch(store: &dyn Store, under: KeyPrefix, after: Revision) -> Box<dyn Watch> {
    store.watch(&under, after).await.expect("a watch")
}

pub(super) fn record(at: &str, value: &str, created: Revision, modified: Revision) -> Record {
    Record {
        key: key(at),
        value: Value::from(value.as_bytes()),
        created: created.commit,
        modified: modified.commit,
    }
}

pub(super) fn is_conflict(result: &Result<Revision, CommitError>) -> bool {
    matches!(result, Err(CommitError::Conflict(_)))
}

/// The next that isn't progress.
pub(super) async fn next_commit(watch: &mut dyn Watch) -> (Revision, Vec<Change>) {
    loop {
        match within(watch.next()).await.expect("the watch goes on") {
            Event::Commit { revision, changes } => return (revision, changes),
            Event::Progress(_) => {}
        }
    }
}

/// All commits until the watcher knows that it has seen everything up to a revision.
pub(super) async fn commits_until(
    watch: &mut dyn Watch,
    until: Revision,
) -> Vec<(Revision, Vec<Change>)> {
    let mut commits = Vec::new();
    loop {
        match within(watch.next()).await.expect("the watch goes on") {
            Event::Commit { revision, changes } => commits.push((revision, changes)),
            Event::Progress(revision) if revision >= until => return commits,
            Event::Progress(_) => {}
        }
    }
}

/// How the watch ends, whatever it says before.
pub(super) async fn end(watch: &mut dyn Watch) -> WatchEnd {
    loop {
        if let Err(end) = within(watch.next()).await {
            return end;
        }
    }
}

pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.expect("it comes in time")
}

/// Small numbers that look random; the same for the same seed.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}
