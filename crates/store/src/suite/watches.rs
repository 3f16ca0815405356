//! Checks of watches.

use super::tools::{
    commit, commits_until, delete, end, key, list, next_commit, now, prefix, put, record, watch,
    within,
};
use crate::{Change, Event, KeyPrefix, MOST_VALUE_BYTES, Store, Transaction, WatchEnd};
use model::Revision;
use std::sync::Arc;

pub async fn a_watcher_sees_whole_commits_in_order(store: Arc<dyn Store>) {
    let store = &*store;
    let begin = now(store).await;
    let mut watch = watch(store, KeyPrefix::all(), begin).await;
    let both = put("b", "1").put(key("a"), &b"2"[..]);
    let first = commit(store, both).await;
    let second = commit(store, put("c", "3").delete(key("b")).delete(key("none"))).await;
    let third = commit(store, delete("a")).await;
    let (seen, changes) = next_commit(&mut *watch).await;
    let expected = [
        Change::Put(record("a", "2", first, first)),
        Change::Put(record("b", "1", first, first)),
    ];
    assert_eq!((seen, &changes[..]), (first, &expected[..]));
    let (seen, changes) = next_commit(&mut *watch).await;
    let expected = [
        Change::Delete(key("b")),
        Change::Put(record("c", "3", second, second)),
    ];
    assert_eq!((seen, &changes[..]), (second, &expected[..]));
    let (seen, changes) = next_commit(&mut *watch).await;
    let expected = [Change::Delete(key("a"))];
    assert_eq!((seen, &changes[..]), (third, &expected[..]));
}

pub async fn a_watcher_begins_where_it_is_told(store: Arc<dyn Store>) {
    let store = &*store;
    let begin = now(store).await;
    let mut revisions = Vec::new();
    for value in ["1", "2", "3"] {
        revisions.push(commit(store, put("a", value)).await);
    }
    for (skipped, after) in [begin].iter().chain(&revisions).enumerate() {
        let mut watch = watch(store, KeyPrefix::all(), *after).await;
        let commits = commits_until(&mut *watch, revisions[2]).await;
        let seen: Vec<Revision> = commits.iter().map(|(revision, _)| *revision).collect();
        assert_eq!(seen, revisions[skipped..], "after {after}");
    }
}

pub async fn a_watcher_is_told_that_it_is_current(store: Arc<dyn Store>) {
    let store = &*store;
    let begin = commit(store, put("a/1", "x")).await;
    let mut watch = watch(store, prefix("a/"), begin).await;
    let first = within(watch.next()).await.expect("an event");
    assert!(
        matches!(first, Event::Progress(revision) if revision >= begin),
        "{first:?}"
    );
    let elsewhere = commit(store, put("b/1", "x")).await;
    let none = commits_until(&mut *watch, elsewhere).await;
    assert_eq!(none, [], "nothing happened under the prefix");
}

pub async fn a_watcher_sees_its_prefix_only(store: Arc<dyn Store>) {
    let store = &*store;
    let begin = now(store).await;
    let mut watch = watch(store, prefix("a/"), begin).await;
    commit(store, put("a0/1", "x")).await;
    let both = commit(store, put("b/1", "x").put(key("a/1"), &b"y"[..])).await;
    commit(store, delete("b/1")).await;
    let last = commit(store, delete("a/1")).await;
    let commits = commits_until(&mut *watch, last).await;
    let expected = [
        (both, vec![Change::Put(record("a/1", "y", both, both))]),
        (last, vec![Change::Delete(key("a/1"))]),
    ];
    assert_eq!(commits, expected);
}

/// Far more than a back end moves in one message, and commits of nearly the largest size.
pub async fn a_watcher_far_behind_catches_up(store: Arc<dyn Store>) {
    let store = &*store;
    let begin = now(store).await;
    let mut expected = Vec::new();
    for n in 0..1500 {
        expected.push(commit(store, put("a", &format!("{n}"))).await);
    }
    for _ in 0..6 {
        let value = vec![3; MOST_VALUE_BYTES];
        let large = (0..7).fold(Transaction::new(), |t, n| {
            t.put(key(&format!("large/{n}")), value.clone())
        });
        expected.push(commit(store, large).await);
    }
    let mut watch = watch(store, KeyPrefix::all(), begin).await;
    let commits = commits_until(&mut *watch, expected[expected.len() - 1]).await;
    let seen: Vec<Revision> = commits.iter().map(|(revision, _)| *revision).collect();
    assert_eq!(seen, expected);
    let whole = commits.iter().rev().take(6);
    assert!(whole.clone().all(|(_, changes)| changes.len() == 7));
}

/// It reads nothing while much is committed; the store doesn't wait for it.
pub async fn a_slow_watcher_misses_nothing(store: Arc<dyn Store>) {
    let store = &*store;
    let begin = now(store).await;
    let mut watch = watch(store, KeyPrefix::all(), begin).await;
    let mut expected = Vec::new();
    for _ in 0..300 {
        let value = vec![5; 20_000];
        expected.push(commit(store, Transaction::new().put(key("a"), value)).await);
    }
    let commits = commits_until(&mut *watch, expected[expected.len() - 1]).await;
    let seen: Vec<Revision> = commits.iter().map(|(revision, _)| *revision).collect();
    assert_eq!(seen, expected);
}

pub async fn a_compacted_watch_ends(store: Arc<dyn Store>) {
    let store = &*store;
    let mut revisions = Vec::new();
    for value in ["1", "2", "3", "4"] {
        revisions.push(commit(store, put("a", value)).await);
        revisions.push(commit(store, delete("a")).await);
    }
    let newest = revisions[7];
    let compacted = store.compact(revisions[4].commit).await;
    compacted.expect("it can be compacted");
    for after in &revisions[..3] {
        let mut watch = watch(store, KeyPrefix::all(), *after).await;
        assert_eq!(end(&mut *watch).await, WatchEnd::Compacted, "after {after}");
        assert_eq!(end(&mut *watch).await, WatchEnd::Compacted, "once more");
    }
    for (skipped, after) in revisions.iter().enumerate().skip(3) {
        let mut watch = watch(store, KeyPrefix::all(), *after).await;
        let commits = commits_until(&mut *watch, newest).await;
        let seen: Vec<Revision> = commits.iter().map(|(revision, _)| *revision).collect();
        assert_eq!(seen, revisions[skipped + 1..], "after {after}");
    }
    for before in [0, revisions[2].commit, u64::MAX] {
        let compacted = store.compact(before).await;
        compacted.expect("to the same, or as far as there is something");
    }
    let begin = now(store).await;
    let last = commit(store, put("a", "5")).await;
    let mut watch = watch(store, KeyPrefix::all(), begin).await;
    assert_eq!(next_commit(&mut *watch).await.0, last);
}

pub async fn another_epoch_ends_a_watch(store: Arc<dyn Store>) {
    let store = &*store;
    let here = commit(store, put("a", "1")).await;
    let elsewhere = [
        Revision {
            epoch: here.epoch - 1,
            ..here
        },
        Revision {
            epoch: here.epoch + 1,
            ..here
        },
        // Of this epoch, and never handed out.
        Revision {
            commit: here.commit + 1000,
            ..here
        },
    ];
    for after in elsewhere {
        let mut watch = watch(store, KeyPrefix::all(), after).await;
        assert_eq!(end(&mut *watch).await, WatchEnd::Compacted, "after {after}");
    }
    assert_eq!(
        list(store, &KeyPrefix::all()).await.revision.epoch,
        here.epoch
    );
}
