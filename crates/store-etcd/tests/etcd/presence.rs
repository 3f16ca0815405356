//! Presence when the process, or etcd, stops.

use crate::server::Server;
use crate::words::{commit, key, put, until_it_serves, watch, within};
use std::time::Duration;
use store::{Change, Event, KeyPrefix, Store, Watch};

const TTL: Duration = Duration::from_secs(2);

/// A runtime that ends takes no leave, as a process that was killed.
#[test]
fn whoever_is_killed_is_gone_after_the_time_to_live() {
    let server = Server::start();
    let announcer = tokio::runtime::Runtime::new().expect("a runtime");
    let presence = announcer.block_on(async {
        let store = server.connect().await;
        let announced = store
            .announce(&key("server/1"), b"x".as_slice().into(), TTL)
            .await;
        announced.expect("it serves")
    });
    let revision = presence.revision();
    announcer.shutdown_background();
    let watcher = tokio::runtime::Runtime::new().expect("a runtime");
    watcher.block_on(async {
        let store = server.connect().await;
        let mut watching = watch(&store, revision).await;
        assert_eq!(
            next_change(&mut *watching).await,
            Change::Delete(key("server/1"))
        );
    });
}

async fn next_change(watch: &mut dyn Watch) -> Change {
    loop {
        if let Event::Commit { mut changes, .. } = within(watch.next()).await.expect("it goes on") {
            return changes.remove(0);
        }
    }
}

#[tokio::test]
async fn a_presence_that_etcd_forgot_is_said_to_be_lost() {
    let server = Server::start();
    let store = server.connect().await;
    let announced = store
        .announce(&key("server/1"), b"x".as_slice().into(), TTL)
        .await;
    let mut presence = announced.expect("it serves");
    server.pause();
    within(presence.lost()).await;
    within(presence.lost()).await;
    server.go_on();
    until_it_serves(&store).await;
    let again = store
        .announce(&key("server/1"), b"y".as_slice().into(), TTL)
        .await;
    let kept = again.expect("it serves");
    drop(presence);
    commit(&store, put("mark", "")).await;
    let there = store.get(&key("server/1")).await.expect("it serves");
    assert_eq!(there.expect("it is there").modified, kept.revision().commit);
}

/// A restart that is shorter than the time to live harms nobody.
#[tokio::test]
async fn a_presence_outlives_a_restart_of_etcd() {
    let mut server = Server::start();
    let store = server.connect().await;
    let ttl = Duration::from_secs(20);
    let announced = store
        .announce(&key("server/1"), b"x".as_slice().into(), ttl)
        .await;
    let mut presence = announced.expect("it serves");
    server.kill();
    server.restart();
    until_it_serves(&store).await;
    let lost = tokio::time::timeout(Duration::from_secs(8), presence.lost()).await;
    lost.expect_err("it is renewed");
    let listing = store.list(&KeyPrefix::all()).await.expect("it serves");
    assert_eq!(listing.records.len(), 1);
}
