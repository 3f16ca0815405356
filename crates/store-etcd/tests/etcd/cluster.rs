//! Three members, and some of them gone.

use crate::server::{Server, TIMEOUT};
use crate::words::{commit, key, put, seen, until_it_serves, watch, within};
use model::Revision;
use std::time::Instant;
use store::{CommitError, ReadError, Store, Watch, WatchEnd};
use store_etcd::{Config, Etcd};

/// A busy machine must not look like a dead member.
const PATIENT: [&str; 4] = ["--heartbeat-interval", "200", "--election-timeout", "2000"];

/// On a busy machine they may elect a leader once more, just after the start.
async fn connect(members: &[Server]) -> Etcd {
    let config = Config {
        endpoints: members.iter().map(Server::url).collect(),
        ..members[0].config()
    };
    let connected = async {
        loop {
            if let Ok(store) = Etcd::connect(config.clone()).await {
                return store;
            }
        }
    };
    within(connected).await
}

#[tokio::test]
async fn one_member_of_three_may_go() {
    let mut members = Server::start_cluster(3, &PATIENT);
    let store = connect(&members).await;
    let begin = commit(&store, put("a", "begin")).await;
    let mut watching = watch(&store, begin).await;
    for (gone, member) in members.iter_mut().enumerate() {
        member.kill();
        until_it_serves(&store).await;
        // The others elect a leader, if it was that one.
        let again = async { while store.commit(put("elect", "")).await.is_err() {} };
        within(again).await;
        let mut committed = Vec::new();
        for n in 0..20 {
            committed.push(commit(&store, put("a", &format!("{gone} {n}"))).await);
        }
        follow(&store, &mut watching, &committed).await;
        member.restart();
    }
}

/// All of them are seen, in order; where the watch was lost, it is begun again.
async fn follow(store: &Etcd, watching: &mut Box<dyn Watch>, committed: &[Revision]) {
    let (first, last) = (committed[0], committed[committed.len() - 1]);
    let (mut revisions, mut end) = seen(&mut **watching, last).await;
    while let Some(WatchEnd::Lost(_)) = end {
        let before = Revision {
            commit: first.commit - 1,
            ..first
        };
        let after = revisions.last().copied().unwrap_or(before).max(before);
        *watching = watch(store, after).await;
        let (more, next) = seen(&mut **watching, last).await;
        revisions.extend(more);
        end = next;
    }
    assert_eq!(end, None);
    revisions.retain(|revision| *revision >= first);
    assert_eq!(revisions, committed);
}

#[tokio::test]
async fn a_lost_quorum_is_said_and_found_again() {
    let mut members = Server::start_cluster(3, &PATIENT);
    let store = connect(&members).await;
    let begin = commit(&store, put("a", "1")).await;
    let mut watching = watch(&store, begin).await;
    members[0].kill();
    members[1].kill();
    let asked = Instant::now();
    let written = store.commit(put("a", "2")).await;
    let refused = matches!(
        written,
        Err(CommitError::Unknown(_) | CommitError::Unavailable(_))
    );
    assert!(refused, "{written:?}");
    let read = store.get(&key("a")).await;
    assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}");
    let took = asked.elapsed();
    assert!(took < 3 * TIMEOUT, "{took:?} for two calls");
    let (_, end) = seen(&mut *watching, at_last(begin)).await;
    assert!(matches!(end, Some(WatchEnd::Lost(_))), "{end:?}");
    members[0].restart();
    until_it_serves(&store).await;
    within(async { while store.commit(put("a", "3")).await.is_err() {} }).await;
}

/// A revision that is never reached.
fn at_last(like: Revision) -> Revision {
    Revision {
        commit: u64::MAX,
        ..like
    }
}
