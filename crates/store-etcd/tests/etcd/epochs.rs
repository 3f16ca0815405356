//! Which life of the store it is, and whose.

use crate::server::Server;
use crate::words::{commit, put, seen, watch, within};
use std::sync::Arc;
use store::{CommitError, KeyPrefix, Store, WatchEnd};
use store_etcd::{Config, ConnectError, Etcd};
use tokio::task::JoinSet;

#[tokio::test]
async fn a_new_epoch_is_noticed_by_everybody() {
    let server = Server::start();
    let (store, other) = (server.connect().await, server.connect().await);
    let before = commit(&store, put("a", "1")).await;
    let mut watching = watch(&other, before).await;
    assert_eq!(seen(&mut *watching, before).await, (vec![], None));
    let begin = store.renew_epoch().await.expect("nobody else does");
    assert!(begin.epoch > before.epoch);
    let end = within(watching.next()).await;
    assert_eq!(end, Err(WatchEnd::Compacted));
    let mut again = watch(&other, before).await;
    assert_eq!(within(again.next()).await, Err(WatchEnd::Compacted));
    let stale = other.commit(put("a", "2")).await;
    assert!(
        matches!(stale, Err(CommitError::Conflict(None))),
        "{stale:?}"
    );
    let after = commit(&other, put("a", "3")).await;
    assert!(after > begin && after.epoch == begin.epoch);
    let listing = store.list(&KeyPrefix::all()).await.expect("it serves");
    assert_eq!(listing.revision, after);
}

#[tokio::test]
async fn of_many_who_make_the_store_all_have_one_epoch() {
    let server = Server::start();
    let config = Arc::new(server.config());
    let mut makers = JoinSet::new();
    for n in 0..8 {
        let config = config.clone();
        makers.spawn(async move {
            let store = Etcd::connect((*config).clone()).await.expect("it serves");
            let epoch = commit(&store, put(&format!("{n}"), "")).await.epoch;
            (epoch, store.is_new())
        });
    }
    let (epochs, new): (Vec<u64>, Vec<bool>) = makers.join_all().await.into_iter().unzip();
    assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "{epochs:?}");
    assert_eq!(new.iter().filter(|new| **new).count(), 1, "one has made it");
    assert!(!server.connect().await.is_new());
}

#[tokio::test]
async fn stores_below_other_roots_are_others() {
    let server = Server::start();
    let store = server.connect().await;
    let elsewhere = Config {
        root: "/portcullis2".to_owned(),
        ..server.config()
    };
    let other = Etcd::connect(elsewhere).await.expect("it serves");
    let begin = commit(&store, put("a", "1")).await;
    let mut watching = watch(&store, begin).await;
    commit(&other, put("a", "2")).await;
    commit(&other, put("b", "2")).await;
    let last = commit(&store, put("c", "1")).await;
    assert_eq!(seen(&mut *watching, last).await, (vec![last], None));
    let records = store
        .list(&KeyPrefix::all())
        .await
        .expect("it serves")
        .records;
    assert!(records.iter().all(|record| &*record.value == b"1"));
    assert_eq!(records.len(), 2);
}

#[tokio::test]
async fn what_a_newer_program_made_is_refused() {
    let server = Server::start();
    let mut client = etcd_client::Client::connect([server.url()], None).await;
    let client = client.as_mut().expect("it serves");
    for (value, newer) in [("2 17", true), ("1 x", false), ("something", false)] {
        let put = client.put("/portcullis/epoch", value, None).await;
        put.expect("it serves");
        let error = Etcd::connect(server.config()).await.err().expect("refused");
        match error {
            ConnectError::Newer {
                format: 2,
                known: 1,
            } => assert!(newer, "{value}"),
            ConnectError::NotOurs { .. } => assert!(!newer, "{value}"),
            other => panic!("{value}: {other}"),
        }
    }
}
