//! etcd's own bounds: its quota, and the size of a message.

use crate::server::Server;
use crate::words::{commit, key, put};
use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client, CompactionOptions};
use store::{CommitError, KeyPrefix, MOST_VALUE_BYTES, MOST_WRITES, Store, Transaction};

/// More than one message may hold, of the largest records.
#[tokio::test]
async fn a_listing_of_the_largest_records_is_possible() {
    let server = Server::start();
    let store = server.connect().await;
    let value = vec![b'x'; MOST_VALUE_BYTES];
    const COUNT: usize = 600;
    for chunk in 0..COUNT / 6 {
        let six = (0..6).fold(Transaction::new(), |t, n| {
            t.put(key(&format!("{chunk:03}/{n}")), value.clone())
        });
        commit(&store, six).await;
    }
    let listing = store.list(&KeyPrefix::all()).await.expect("it serves");
    assert_eq!(listing.records.len(), COUNT);
    assert!(listing.records.is_sorted_by(|a, b| a.key < b.key));
    assert!(
        listing
            .records
            .iter()
            .all(|r| r.value.len() == MOST_VALUE_BYTES)
    );
}

#[tokio::test]
async fn a_full_etcd_refuses_writes_and_serves_reads() {
    let server = Server::start_with(&["--quota-backend-bytes", "8388608"]);
    let store = server.connect().await;
    let newest = fill(&store).await;
    let before = store.list(&KeyPrefix::all()).await.expect("reads go on");
    for _ in 0..3 {
        let refused = store.commit(put("b", &"z".repeat(1000))).await;
        assert!(matches!(refused, Err(CommitError::Full(_))), "{refused:?}");
        let there = store.list(&KeyPrefix::all()).await.expect("reads go on");
        assert_eq!(there, before);
    }
    assert!(
        store.watch(&KeyPrefix::all(), newest).await.is_ok(),
        "watches, too"
    );
    make_room(&server, &store, before.revision.commit).await;
    let after = commit(&store, put("b", "room again")).await;
    assert!(after > newest);
}

/// Over the same record, so that compaction makes room.
async fn fill(store: &dyn Store) -> model::Revision {
    let mut newest = None;
    for n in 0..500 {
        let value = format!("{n} {}", "x".repeat(100_000));
        match (store.commit(put("a", &value)).await, newest) {
            (Ok(revision), _) => newest = Some(revision),
            (Err(CommitError::Full(_) | CommitError::Unknown(_)), Some(newest)) => return newest,
            (Err(other), _) => panic!("another reason: {other}"),
        }
    }
    panic!("it isn't full with 50 MB");
}

/// What an operator does.
async fn make_room(server: &Server, store: &dyn Store, newest: u64) {
    let compacted = store.compact(newest).await;
    compacted.expect("it is possible when full");
    let client = Client::connect([server.url()], None).await;
    let mut client = client.expect("it serves");
    // Answered when the room is free, not only promised.
    let at_once = CompactionOptions::new().with_physical();
    let compacted = client.compact(newest as i64, Some(at_once)).await;
    compacted.expect("it serves");
    client.defragment().await.expect("it serves");
    let raised = client.alarm(AlarmAction::Get, AlarmType::None, None).await;
    for alarm in raised.expect("it serves").alarms() {
        let (off, member) = (AlarmAction::Deactivate, alarm.member_id());
        let mut options = AlarmOptions::new();
        options.with_member(member);
        let disarmed = client.alarm(off, alarm.alarm(), Some(options)).await;
        disarmed.expect("it serves");
    }
}

/// An etcd that takes less than etcd does if it isn't told otherwise: nothing is done, and it is said why.
#[tokio::test]
async fn what_this_etcd_does_not_take_is_refused_whole() {
    for (option, most, why) in [
        ("--max-txn-ops", "64", "too many operations"),
        ("--max-request-bytes", "65536", "request is too large"),
    ] {
        let server = Server::start_with(&[option, most]);
        let store = server.connect().await;
        let many = (0..MOST_WRITES).fold(Transaction::new(), |t, n| {
            t.put(key(&format!("large/{n:04}")), vec![b'x'; 100])
        });
        let before = commit(&store, put("a", "1")).await;
        let refused = store.commit(many).await;
        let said = match refused {
            Err(CommitError::Broken(said)) => said,
            other => panic!("{option}: {other:?}"),
        };
        assert!(said.contains(why), "{said}");
        let there = store.list(&KeyPrefix::all()).await.expect("it serves");
        assert_eq!((there.revision, there.records.len()), (before, 1));
    }
}
