//! etcd killed, paused, compacted and restarted under us.

use crate::server::{Server, TIMEOUT};
use crate::words::{commit, key, put, seen, until_it_serves, watch, within};
use model::Revision;
use std::sync::Arc;
use std::time::Instant;
use store::{CommitError, KeyPrefix, ReadError, Store, Transaction, WatchEnd};
use store_etcd::{ConnectError, Etcd};
use tokio::task::JoinSet;

#[tokio::test]
async fn a_killed_etcd_is_said_and_found_again() {
    let mut server = Server::start();
    let store = server.connect().await;
    let first = commit(&store, put("a", "1")).await;
    let second = commit(&store, put("a", "2")).await;
    let mut watching = watch(&store, first).await;
    assert_eq!(seen(&mut *watching, second).await, (vec![second], None));
    server.kill();
    let end = within(watching.next()).await;
    assert!(matches!(end, Err(WatchEnd::Lost(_))), "{end:?}");
    let read = store.get(&key("a")).await;
    assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}");
    let listing = store.list(&KeyPrefix::all()).await;
    assert!(
        matches!(listing, Err(ReadError::Unavailable(_))),
        "{listing:?}"
    );
    let written = store.commit(put("a", "3")).await;
    let nothing_happened = matches!(written, Err(CommitError::Unavailable(_)));
    assert!(nothing_happened, "there was no connection: {written:?}");
    let refused = Etcd::connect(server.config())
        .await
        .err()
        .expect("it is dead");
    assert!(matches!(refused, ConnectError::Unavailable(_)), "{refused}");

    server.restart();
    until_it_serves(&store).await;
    let third = commit(&store, put("a", "4")).await;
    assert_eq!(third.epoch, first.epoch);
    let mut resumed = watch(&store, first).await;
    let (revisions, end) = seen(&mut *resumed, third).await;
    assert_eq!((revisions, end), (vec![second, third], None));
}

/// Each client writes the same number into its records. Whatever is answered: they are alike, what was
/// acknowledged is there, and what was refused isn't.
#[tokio::test]
async fn a_kill_in_mid_commit_leaves_transactions_whole_or_absent() {
    let mut server = Server::start();
    let store = Arc::new(server.connect().await);
    let mut clients = JoinSet::new();
    for client in 0..8 {
        let store = store.clone();
        clients.spawn(async move { (client, write_until_it_fails(&store, client).await) });
    }
    within(async { while number(&store).await < 20 {} }).await;
    server.kill();
    let outcomes = within(clients.join_all()).await;
    server.restart();
    until_it_serves(&*store).await;
    for (client, (acknowledged, error)) in outcomes {
        let prefix = KeyPrefix::new(&format!("client-{client}/")).expect("a prefix");
        let records = store.list(&prefix).await.expect("it serves").records;
        let numbers: Vec<u64> = records
            .iter()
            .map(|record| {
                String::from_utf8_lossy(&record.value)
                    .parse()
                    .expect("a number")
            })
            .collect();
        assert_eq!(numbers.len(), 3, "{client}: {numbers:?}");
        assert!(
            numbers.iter().all(|n| *n == numbers[0]),
            "{client}: {numbers:?}"
        );
        let possible = match error {
            CommitError::Unknown(_) => acknowledged..=acknowledged + 1,
            CommitError::Unavailable(_) => acknowledged..=acknowledged,
            other => panic!("another reason: {other}"),
        };
        assert!(
            possible.contains(&numbers[0]),
            "{client}: {numbers:?} in {possible:?}"
        );
    }
}

/// How far the first client has come.
async fn number(store: &Etcd) -> u64 {
    let record = store.get(&key("client-0/0")).await.expect("it serves");
    record.map_or(0, |record| {
        let text = String::from_utf8_lossy(&record.value);
        text.parse().expect("a number")
    })
}

/// The last number that was acknowledged, and what came of the next one.
async fn write_until_it_fails(store: &Etcd, client: usize) -> (u64, CommitError) {
    for number in 1.. {
        let all = (0..3).fold(Transaction::new(), |t, n| {
            let at = key(&format!("client-{client}/{n}"));
            t.put(at, number.to_string().into_bytes())
        });
        if let Err(error) = store.commit(all).await {
            return (number - 1, error);
        }
    }
    unreachable!("it is killed")
}

#[tokio::test]
async fn a_paused_etcd_holds_nobody_up() {
    let server = Server::start();
    let store = server.connect().await;
    let first = commit(&store, put("a", "1")).await;
    let mut watching = watch(&store, first).await;
    assert_eq!(seen(&mut *watching, first).await, (vec![], None));
    server.pause();
    let begin = Instant::now();
    let written = store.commit(put("a", "2")).await;
    assert!(
        matches!(written, Err(CommitError::Unknown(_))),
        "{written:?}"
    );
    let read = store.get(&key("a")).await;
    assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}");
    let again = store.watch(&KeyPrefix::all(), first).await.err();
    assert!(
        matches!(again, Some(ReadError::Unavailable(_))),
        "{again:?}"
    );
    let took = begin.elapsed();
    assert!(took < 5 * TIMEOUT, "{took:?} for three calls");
    let end = within(watching.next()).await;
    assert!(matches!(end, Err(WatchEnd::Lost(_))), "{end:?}");
    server.go_on();
    until_it_serves(&store).await;
    let last = commit(&store, put("b", "3")).await;
    // What wasn't known is: once or never.
    let mut resumed = watch(&store, first).await;
    let (revisions, end) = seen(&mut *resumed, last).await;
    assert_eq!(end, None);
    let a = store
        .get(&key("a"))
        .await
        .expect("it serves")
        .expect("it is there");
    let expected: Vec<Revision> = match &*a.value {
        b"1" => vec![last],
        _ => vec![at(first, a.modified), last],
    };
    assert_eq!(revisions, expected);
}

fn at(like: Revision, commit: u64) -> Revision {
    Revision { commit, ..like }
}

/// It goes on where it was, or is told to list again: it never jumps.
#[tokio::test]
async fn a_watcher_behind_a_compaction_misses_nothing_unsaid() {
    let server = Server::start();
    let store = server.connect().await;
    let begin = commit(&store, put("a", "begin")).await;
    let mut watching = watch(&store, begin).await;
    let mut committed = Vec::new();
    let value = "x".repeat(4000);
    for _ in 0..2500 {
        committed.push(commit(&store, put("a", &value)).await);
    }
    let newest = committed[committed.len() - 1];
    store.compact(newest.commit).await.expect("it is compacted");
    let (revisions, end) = seen(&mut *watching, newest).await;
    assert!(
        committed.starts_with(&revisions),
        "in order, and none left out"
    );
    match end {
        None => assert_eq!(revisions, committed),
        Some(end) => assert_eq!(end, WatchEnd::Compacted),
    }
}

#[tokio::test]
async fn a_compaction_while_nobody_watched_is_said() {
    let mut server = Server::start();
    let store = server.connect().await;
    let first = commit(&store, put("a", "1")).await;
    let mut watching = watch(&store, first).await;
    assert_eq!(seen(&mut *watching, first).await, (vec![], None));
    server.kill();
    server.restart();
    until_it_serves(&store).await;
    commit(&store, put("a", "2").delete(key("b"))).await;
    let third = commit(&store, put("a", "3")).await;
    store.compact(third.commit).await.expect("it is compacted");
    let end = within(watching.next()).await;
    assert!(matches!(end, Err(WatchEnd::Lost(_))), "{end:?}");
    let mut again = watch(&store, first).await;
    assert_eq!(
        seen(&mut *again, third).await,
        (vec![], Some(WatchEnd::Compacted))
    );
    let listing = store.list(&KeyPrefix::all()).await.expect("it serves");
    let mut again = watch(&store, listing.revision).await;
    let fourth = commit(&store, put("a", "4")).await;
    assert_eq!(seen(&mut *again, fourth).await, (vec![fourth], None));
}
