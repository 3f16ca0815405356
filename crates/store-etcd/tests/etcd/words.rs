//! What the tests say to a store.

use model::Revision;
use std::time::Duration;
use store::{CommitError, Event, Key, KeyPrefix, Store, Transaction, Watch, WatchEnd};

/// Whatever is waited for comes long before this, or never.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).expect("a valid key")
}

pub(crate) fn put(at: &str, value: &str) -> Transaction {
    Transaction::new().put(key(at), value.as_bytes())
}

pub(crate) async fn commit(store: &dyn Store, transaction: Transaction) -> Revision {
    let committed: Result<Revision, CommitError> = store.commit(transaction).await;
    committed.expect("nothing stands against it")
}

pub(crate) async fn watch(store: &dyn Store, after: Revision) -> Box<dyn Watch> {
    let watch = store.watch(&KeyPrefix::all(), after).await;
    watch.expect("a watch")
}

/// The revisions of all commits until the watch has reached one, or its end.
pub(crate) async fn seen(
    watch: &mut dyn Watch,
    until: Revision,
) -> (Vec<Revision>, Option<WatchEnd>) {
    let mut revisions = Vec::new();
    loop {
        match within(watch.next()).await {
            Ok(Event::Commit { revision, .. }) => revisions.push(revision),
            Ok(Event::Progress(revision)) if revision >= until => return (revisions, None),
            Ok(Event::Progress(_)) => {}
            Err(end) => return (revisions, Some(end)),
        }
    }
}

/// Once the server serves again, so does the store, without anybody's help.
pub(crate) async fn until_it_serves(store: &dyn Store) {
    let again = async { while store.get(&key("any")).await.is_err() {} };
    within(again).await;
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.expect("it comes in time")
}
