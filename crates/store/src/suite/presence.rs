//! Checks of presence.

use super::tools::{commit, get, key, next_commit, now, prefix, put, watch, within};
use crate::{Change, Store, Value};
use std::sync::Arc;
use std::time::Duration;

/// The shortest that every back end can do.
const TTL: Duration = Duration::from_secs(1);

fn value(text: &str) -> Value {
    Value::from(text.as_bytes())
}

pub async fn a_presence_goes_with_its_guard(store: Arc<dyn Store>) {
    let store = &*store;
    let begin = now(store).await;
    let mut watch = watch(store, prefix("server/"), begin).await;
    let announced = store.announce(&key("server/1"), value("x"), TTL).await;
    let presence = announced.expect("it can be announced");
    let (seen, changes) = next_commit(&mut *watch).await;
    assert_eq!(seen, presence.revision());
    let there = get(store, "server/1").await.expect("it is there");
    assert_eq!(changes, [Change::Put(there)]);
    drop(presence);
    let (_, changes) = next_commit(&mut *watch).await;
    assert_eq!(changes, [Change::Delete(key("server/1"))]);
    assert_eq!(get(store, "server/1").await, None);
}

pub async fn a_presence_is_kept_alive(store: Arc<dyn Store>) {
    let announced = store.announce(&key("server/1"), value("x"), TTL).await;
    let mut presence = announced.expect("it can be announced");
    let lost = tokio::time::timeout(4 * TTL, presence.lost()).await;
    lost.expect_err("it isn't lost");
    let there = get(&*store, "server/1").await;
    assert_eq!(there.expect("it is there").value, value("x"));
}

pub async fn a_presence_that_was_replaced_takes_nothing_away(store: Arc<dyn Store>) {
    let store = &*store;
    let first = store.announce(&key("server/1"), value("old"), TTL).await;
    let second = store.announce(&key("server/1"), value("new"), TTL).await;
    let second = second.expect("it takes the place");
    let begin = second.revision();
    let mut watch = watch(store, prefix("server/"), begin).await;
    drop(first);
    // Whatever the first one's end did would be seen before this.
    tokio::time::sleep(2 * TTL).await;
    let mark = commit(store, put("server/mark", "x")).await;
    assert_eq!(within(next_commit(&mut *watch)).await.0, mark);
    let there = get(store, "server/1").await.expect("it is there");
    assert_eq!(there.value, value("new"));
}
