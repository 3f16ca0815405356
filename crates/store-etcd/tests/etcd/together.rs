//! Transactions that wait while another one is under way. An etcd that is stopped keeps that one under way for as
//! long as the test wants.

use crate::server::{Server, TIMEOUT};
use crate::words::{commit, key, put, until_it_serves, watch, within};
use model::Revision;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use store::{CommitError, Condition, Event, Store, Transaction};
use store_etcd::Etcd;
use tokio::task::JoinHandle;

type Outcome = Result<Revision, CommitError>;

/// What nobody else writes, and a mark that all write alike.
fn own(n: usize) -> Transaction {
    let keys = ["a", "b"].map(|of| key(&format!("{of}/{n}")));
    keys.into_iter().fold(put("mark", "x"), |transaction, at| {
        let absent = Condition::Absent(at.clone());
        transaction.when(absent).put(at, *b"x")
    })
}

/// They come in this order, before anything else happens: the test has one thread.
async fn begin(store: &Arc<Etcd>, transactions: Vec<Transaction>) -> Vec<JoinHandle<Outcome>> {
    let begun = transactions.into_iter().map(|transaction| {
        let store = store.clone();
        tokio::spawn(async move { store.commit(transaction).await })
    });
    let begun = begun.collect();
    tokio::task::yield_now().await;
    begun
}

async fn outcomes(begun: Vec<JoinHandle<Outcome>>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for one in begun {
        let outcome = within(one).await;
        outcomes.push(outcome.expect("it doesn't panic"));
    }
    outcomes
}

/// The first one was on its way, and the others have waited for it.
async fn after_a_pause(
    server: &Server,
    store: &Arc<Etcd>,
    waiting: Vec<Transaction>,
) -> (Revision, Vec<Outcome>) {
    server.pause();
    let mut all = vec![put("first", "x")];
    all.extend(waiting);
    let begun = begin(store, all).await;
    server.go_on();
    let mut all = outcomes(begun).await;
    let first = all.remove(0).expect("nothing stands against it");
    (first, all)
}

async fn commits_after(store: &Etcd, begin: Revision, until: Revision) -> Vec<(Revision, usize)> {
    let mut watch = watch(store, begin).await;
    let mut commits = Vec::new();
    loop {
        match within(watch.next()).await.expect("the watch goes on") {
            Event::Commit { revision, changes } => commits.push((revision, changes.len())),
            Event::Progress(revision) if revision >= until => return commits,
            Event::Progress(_) => {}
        }
    }
}

#[tokio::test]
async fn those_who_wait_together_are_one_commit() {
    let server = Server::start();
    let store = Arc::new(server.connect().await);
    let before = commit(&*store, put("before", "x")).await;
    let (first, joined) = after_a_pause(&server, &store, (0..8).map(own).collect()).await;
    let revisions: BTreeSet<Revision> = joined
        .into_iter()
        .map(|outcome| outcome.expect("nothing stands against it"))
        .collect();
    let all = Vec::from_iter(revisions);
    let [one] = all[..] else {
        panic!("one commit is expected: {all:?}");
    };
    assert!(one > first);
    // Two records of each, and the mark once.
    let expected = [(first, 1), (one, 17)];
    assert_eq!(commits_after(&store, before, one).await, expected);
    for n in 0..8 {
        let again = store.commit(own(n)).await;
        assert!(matches!(again, Err(CommitError::Conflict(_))), "{again:?}");
    }
}

#[tokio::test]
async fn what_one_of_them_asks_in_vain_is_nothing_to_the_others() {
    let server = Server::start();
    let store = Arc::new(server.connect().await);
    let before = commit(&*store, put("taken", "x")).await;
    let mut waiting = Vec::from_iter((0..8).map(own));
    waiting[3] = own(3).when(Condition::Absent(key("taken")));
    let (_, outcomes) = after_a_pause(&server, &store, waiting).await;
    for (n, outcome) in outcomes.iter().enumerate() {
        let there = store.get(&key(&format!("b/{n}"))).await.expect("it serves");
        match outcome {
            Err(CommitError::Conflict(Some(condition))) if n == 3 => {
                assert_eq!(*condition, Condition::Absent(key("taken")), "its own");
                assert_eq!(there, None);
            }
            Ok(revision) if n != 3 => {
                assert!(*revision > before);
                let there = there.expect("it was written");
                assert_eq!(there.created, revision.commit, "done once");
                assert_eq!(there.modified, revision.commit);
            }
            other => panic!("{n}: {other:?}"),
        }
    }
}

/// Two that want the same go beside each other, and whoever can be joined with either is.
#[tokio::test]
async fn those_who_exclude_each_other_are_two_commits() {
    let server = Server::start();
    let store = Arc::new(server.connect().await);
    let waiting = vec![own(0), own(0), own(1), own(2)];
    let (_, outcomes) = after_a_pause(&server, &store, waiting).await;
    let [one, other, third, fourth] = &outcomes[..] else {
        panic!("four were asked");
    };
    let won = one.as_ref().or(other.as_ref()).expect("one of them has it");
    let lost = [one, other].into_iter().filter(|outcome| outcome.is_err());
    let lost = Vec::from_iter(lost);
    assert!(
        matches!(lost[..], [Err(CommitError::Conflict(_))]),
        "{outcomes:?}"
    );
    let there = store.get(&key("a/0")).await.expect("it serves");
    assert_eq!(there.expect("it is taken").created, won.commit);
    assert!(third.is_ok() && fourth.is_ok(), "{outcomes:?}");
}

/// Whoever began it has gone, and etcd is killed before it says anything: none of them is told more than is known,
/// and nothing is done twice.
#[tokio::test]
async fn a_kill_under_them_is_unknown_to_each() {
    let mut server = Server::start();
    let store = Arc::new(server.connect().await);
    let before = commit(&*store, put("before", "x")).await;
    server.pause();
    let mut begun = begin(&store, vec![put("first", "x")]).await;
    begun.extend(begin(&store, (0..8).map(own).collect()).await);
    let first = begun.remove(0);
    first.abort();
    assert!(first.await.is_err_and(|gone| gone.is_cancelled()));
    tokio::task::yield_now().await;
    server.kill();
    for outcome in outcomes(begun).await {
        assert!(
            matches!(outcome, Err(CommitError::Unknown(_))),
            "{outcome:?}"
        );
    }
    server.restart();
    until_it_serves(&*store).await;
    let last = commit(&*store, put("last", "x")).await;
    let written = commits_after(&store, before, last).await;
    let joined = written.iter().filter(|(_, changes)| *changes > 1);
    let joined = Vec::from_iter(joined.map(|(_, changes)| *changes));
    assert!(joined.is_empty() || joined == [17], "{written:?}");
    // Nobody is in the way of those who come now.
    let next = within(store.commit(put("next", "x"))).await;
    assert!(next.is_ok_and(|next| next > last));
}

/// Many times, with the kill at another moment each: all of them or none, and who was told a revision has it.
#[tokio::test]
async fn a_kill_at_any_moment_leaves_all_of_them_or_none() {
    let mut server = Server::start();
    let store = Arc::new(server.connect().await);
    for round in 0..12 {
        until_it_serves(&*store).await;
        let mut begun = begin(&store, vec![put("first", &round.to_string())]).await;
        let numbers = round * 10..round * 10 + 8;
        begun.extend(begin(&store, numbers.clone().map(own).collect()).await);
        let first = begun.remove(0).await.expect("it doesn't panic");
        assert!(first.is_ok(), "{first:?}");
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        server.kill();
        let told = outcomes(begun).await;
        server.restart();
        until_it_serves(&*store).await;
        let mut created = BTreeSet::new();
        for (n, told) in numbers.zip(&told) {
            for of in ["a", "b"] {
                let there = store.get(&key(&format!("{of}/{n}"))).await;
                let there = there.expect("it serves");
                let modified = there.as_ref().map(|record| record.modified);
                let made = there.map(|record| record.created);
                assert_eq!(modified, made, "written once");
                match told {
                    Ok(revision) => assert_eq!(made, Some(revision.commit)),
                    Err(CommitError::Unknown(_)) => {}
                    Err(CommitError::Unavailable(_)) => assert_eq!(made, None),
                    Err(other) => panic!("another reason: {other}"),
                }
                created.insert(made);
            }
        }
        assert_eq!(created.len(), 1, "{told:?}");
    }
}

/// They are sent while nothing is heard of the first one: that may be the silence of one member.
#[tokio::test]
async fn nobody_waits_for_who_is_not_answered() {
    let server = Server::start();
    let store = Arc::new(server.connect().await);
    server.pause();
    let asked = Instant::now();
    let begun = begin(&store, vec![put("first", "x"), own(0), own(1)]).await;
    let outcomes = outcomes(begun).await;
    let took = asked.elapsed();
    server.go_on();
    assert!(took < 2 * TIMEOUT, "{took:?}: not one after the other");
    for outcome in &outcomes {
        assert!(
            matches!(outcome, Err(CommitError::Unknown(_))),
            "{outcome:?}"
        );
    }
    // The connection may be taken to be lost once more.
    within(async { while store.commit(put("next", "x")).await.is_err() {} }).await;
}

/// What was decided before isn't done afterwards: numbers of commits mean something else then.
#[tokio::test]
async fn who_waited_in_another_epoch_is_refused() {
    let server = Server::start();
    let (store, other) = (server.connect().await, server.connect().await);
    let store = Arc::new(store);
    commit(&*store, put("before", "x")).await;
    let begin_of_epoch = other.renew_epoch().await.expect("nobody else does");
    let begun = begin(&store, (0..6).map(own).collect()).await;
    for outcome in outcomes(begun).await {
        assert!(
            matches!(outcome, Err(CommitError::Conflict(None))),
            "{outcome:?}"
        );
    }
    let after = commit(&*store, own(0)).await;
    assert_eq!(after.epoch, begin_of_epoch.epoch);
}

/// An etcd that takes fewer operations than those who wait have together takes each by itself.
#[tokio::test]
async fn what_is_too_much_together_is_done_one_by_one() {
    let server = Server::start_with(&["--max-txn-ops", "8"]);
    let store = Arc::new(server.connect().await);
    let (_, outcomes) = after_a_pause(&server, &store, (0..8).map(own).collect()).await;
    let revisions: BTreeSet<Revision> = outcomes
        .into_iter()
        .map(|outcome| outcome.expect("nothing stands against it"))
        .collect();
    assert_eq!(revisions.len(), 8);
}
