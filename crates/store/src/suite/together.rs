//! Checks of transactions that come at the same time, and that a back end may have in one commit.

use super::tools::{commit, commits_until, get, is_conflict, key, list, now, prefix, put, watch};
use crate::{Change, CommitError, Condition, KeyPrefix, Store, Transaction};
use model::Revision;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::task::JoinSet;

const CLIENTS: usize = 12;
const ROUNDS: usize = 10;

/// In the order in which they were given.
async fn at_once(
    store: &Arc<dyn Store>,
    transactions: Vec<Transaction>,
) -> Vec<Result<Revision, CommitError>> {
    let mut clients = JoinSet::new();
    for (client, transaction) in transactions.into_iter().enumerate() {
        let store = store.clone();
        clients.spawn(async move { (client, store.commit(transaction).await) });
    }
    let mut outcomes = clients.join_all().await;
    outcomes.sort_by_key(|(client, _)| *client);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Two records that nobody else has, and a mark that all write alike.
fn with_a_mark(round: usize, client: usize) -> Transaction {
    ["a", "b"]
        .map(|of| key(&format!("{of}/{round}/{client}")))
        .into_iter()
        .fold(put("mark", &round.to_string()), |transaction, at| {
            let absent = Condition::Absent(at.clone());
            transaction.when(absent).put(at, &b"x"[..])
        })
}

/// Each is in the commit that it was told, with all it wrote; and no commit has anything else.
pub async fn those_that_come_together_are_each_whole(store: Arc<dyn Store>) {
    let begin = commit(&*store, put("mark", "begin")).await;
    let mut watching = watch(&*store, KeyPrefix::all(), begin).await;
    let mut expected: BTreeMap<Revision, BTreeSet<String>> = BTreeMap::new();
    for round in 0..ROUNDS {
        let transactions = (0..CLIENTS).map(|client| with_a_mark(round, client));
        let outcomes = at_once(&store, transactions.collect()).await;
        let mut newest = begin;
        for (client, outcome) in outcomes.into_iter().enumerate() {
            let revision = outcome.expect("nothing stands against it");
            newest = newest.max(revision);
            let keys = expected.entry(revision).or_default();
            keys.insert("mark".to_owned());
            for of in ["a", "b"] {
                let at = format!("{of}/{round}/{client}");
                let there = get(&*store, &at).await.expect("it was written");
                let made = revision.commit;
                assert_eq!((there.created, there.modified), (made, made), "{at}");
                keys.insert(at);
            }
        }
        let mark = get(&*store, "mark").await.expect("it is there");
        assert_eq!(mark.modified, newest.commit, "who writes it last");
        assert_eq!(mark.created, begin.commit);
    }
    let until = now(&*store).await;
    let seen = commits_until(&mut *watching, until).await;
    let seen = Vec::from_iter(seen.iter().map(|(revision, changes)| {
        let keys = changes.iter().map(|change| change.key().to_string());
        (*revision, keys.collect::<BTreeSet<String>>())
    }));
    assert_eq!(seen, Vec::from_iter(expected), "in order, each once");
}

/// What one of them asks doesn't hold: that is nothing to the others.
pub async fn of_those_that_come_together_only_the_late_are_refused(store: Arc<dyn Store>) {
    let taken = commit(&*store, put("taken", "1")).await;
    for round in 0..ROUNDS {
        let is_late = |client: usize| client % 5 == round % 5;
        let transactions = (0..CLIENTS).map(|client| {
            let transaction = with_a_mark(round, client);
            match is_late(client) {
                true => transaction.when(Condition::Absent(key("taken"))),
                false => transaction.when(Condition::Unchanged {
                    key: key("taken"),
                    modified: taken.commit,
                }),
            }
        });
        let outcomes = at_once(&store, transactions.collect()).await;
        for (client, outcome) in outcomes.iter().enumerate() {
            assert_eq!(
                is_conflict(outcome),
                is_late(client),
                "{client}: {outcome:?}"
            );
            assert_eq!(outcome.is_ok(), !is_late(client), "{client}: {outcome:?}");
            if let Err(CommitError::Conflict(Some(condition))) = outcome {
                assert_eq!(*condition, Condition::Absent(key("taken")), "its own");
            }
            for of in ["a", "b"] {
                let there = get(&*store, &format!("{of}/{round}/{client}")).await;
                let created = there.map(|record| record.created);
                let expected = outcome.as_ref().ok().map(|revision| revision.commit);
                assert_eq!(created, expected, "{of}/{round}/{client}");
            }
        }
    }
}

/// Of two that each ask that the other isn't done, one is; whatever else comes at that time.
pub async fn what_excludes_each_other_is_not_done_together(store: Arc<dyn Store>) {
    for round in 0..2 * ROUNDS {
        let at = |what: &str| key(&format!("{round}/{what}"));
        let made = commit(&*store, put(at("group").as_str(), "there")).await;
        let commit = made.commit;
        let same = Condition::SameIncarnation {
            key: at("group"),
            created: commit,
        };
        let unchanged = Condition::Unchanged {
            key: at("group"),
            modified: commit,
        };
        let none_newer = Condition::NothingNewUnder {
            prefix: prefix(&format!("{round}/list/")),
            after: commit,
        };
        let write = |what: &str| put(at(what).as_str(), "x");
        let pairs = [
            // Both would be there.
            write("left").when(Condition::Absent(at("right"))),
            write("right").when(Condition::Absent(at("left"))),
            // A rule without its group.
            write("rule").put(at("mark"), &b"x"[..]).when(same),
            Transaction::new()
                .delete(at("group"))
                .when(unchanged)
                .when(Condition::Absent(at("mark"))),
            // Two that each are the first of a list.
            write("list/1").when(none_newer.clone()),
            write("list/2").when(none_newer),
            // Two that want one thing, and write it alike.
            write("one").when(Condition::Absent(at("one"))),
            write("one").when(Condition::Absent(at("one"))),
        ];
        let others = (0..CLIENTS).map(|client| with_a_mark(round, client));
        let outcomes = at_once(&store, others.chain(pairs).collect()).await;
        let (others, pairs) = outcomes.split_at(CLIENTS);
        assert!(others.iter().all(Result::is_ok), "{others:?}");
        for pair in pairs.chunks(2) {
            let done = pair.iter().filter(|outcome| outcome.is_ok()).count();
            let late = pair.iter().filter(|outcome| is_conflict(outcome)).count();
            assert_eq!((done, late), (1, 1), "{pair:?}");
        }
    }
}

/// Neither asks anything, so both are done: one after the other.
pub async fn what_is_written_otherwise_has_another_revision(store: Arc<dyn Store>) {
    let begin = commit(&*store, put("a", "begin")).await;
    let mut watching = watch(&*store, KeyPrefix::all(), begin).await;
    let mut said = BTreeMap::new();
    for round in 0..ROUNDS {
        let values = Vec::from_iter((0..CLIENTS).map(|client| format!("{round} {client}")));
        let puts = values.iter().map(|value| put("a", value));
        let outcomes = at_once(&store, puts.collect()).await;
        for (value, outcome) in values.into_iter().zip(outcomes) {
            let revision = outcome.expect("nothing stands against it");
            let other = said.insert(revision, value);
            assert_eq!(other, None, "another one was told {revision}, too");
        }
    }
    let until = now(&*store).await;
    let seen = commits_until(&mut *watching, until).await;
    let seen = seen.into_iter().map(|(revision, changes)| match &*changes {
        [Change::Put(record)] => {
            let value = String::from_utf8_lossy(&record.value).into_owned();
            (revision, value)
        }
        other => panic!("one record is written: {other:?}"),
    });
    let last = said.last_key_value().map(|(_, value)| value.clone());
    assert!(seen.eq(said), "each as it was told");
    let there = list(&*store, &KeyPrefix::all()).await.records;
    let value = String::from_utf8_lossy(&there[0].value).into_owned();
    assert_eq!(Some(value), last);
}
