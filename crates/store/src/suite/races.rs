//! Checks of several clients at once.

use super::tools::{commit, commits_until, get, is_conflict, key, list, now, prefix, put, watch};
use crate::{Change, Condition, Key, KeyPrefix, Record, Store, Transaction};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;

const CLIENTS: u64 = 8;

/// Each round all of them want the same key.
pub async fn of_conflicting_commits_exactly_one_wins(store: Arc<dyn Store>) {
    for round in 0..20 {
        let taken = key(&format!("taken/{round}"));
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let (store, taken) = (store.clone(), taken.clone());
            let own = key(&format!("own/{round}/{client}"));
            clients.spawn(async move {
                let claim = Transaction::new()
                    .when(Condition::Absent(taken.clone()))
                    .put(taken, client.to_string().into_bytes())
                    .put(own, &b"won"[..]);
                (client, store.commit(claim).await)
            });
        }
        let results = clients.join_all().await;
        let won: Vec<u64> = results
            .iter()
            .filter(|(_, result)| result.is_ok())
            .map(|(client, _)| *client)
            .collect();
        let refused = results.iter().filter(|(_, result)| is_conflict(result));
        assert_eq!((won.len(), refused.count()), (1, CLIENTS as usize - 1));
        let own = list(&*store, &prefix(&format!("own/{round}/"))).await;
        assert_eq!(own.records.len(), 1, "nothing is left of the losers");
        let winner = get(&*store, taken.as_str()).await.expect("it is taken");
        assert_eq!(*winner.value, *won[0].to_string().as_bytes());
    }
}

/// Read, add one, write if nobody else did: the sum tells whether one was lost.
pub async fn concurrent_counters_lose_nothing(store: Arc<dyn Store>) {
    const EACH: u64 = 10;
    commit(&*store, put("counter", "0")).await;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let store = store.clone();
        clients.spawn(async move {
            for _ in 0..EACH {
                while !add_one(&*store).await {}
            }
        });
    }
    clients.join_all().await;
    let counter = get(&*store, "counter").await.expect("it is there");
    assert_eq!(*counter.value, *(CLIENTS * EACH).to_string().as_bytes());
}

async fn add_one(store: &dyn Store) -> bool {
    let counter = get(store, "counter").await.expect("it is there");
    let text = std::str::from_utf8(&counter.value).expect("a number");
    let number: u64 = text.parse().expect("a number");
    let add = put("counter", &(number + 1).to_string()).when(Condition::Unchanged {
        key: counter.key,
        modified: counter.modified,
    });
    let result = store.commit(add).await;
    assert!(result.is_ok() || is_conflict(&result), "{result:?}");
    result.is_ok()
}

/// While others write, listings and watches from them come to what is there in the end.
pub async fn a_listing_and_a_watch_from_it_miss_nothing(store: Arc<dyn Store>) {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let store = store.clone();
        clients.spawn(async move {
            for n in 0..30 {
                let at = key(&format!("a/{}", (client * 7 + n * 3) % 20));
                let transaction = if n % 4 == 3 {
                    Transaction::new().delete(at)
                } else {
                    Transaction::new().put(at, format!("{client} {n}").into_bytes())
                };
                commit(&*store, transaction).await;
            }
        });
    }
    let mut followers = Vec::new();
    for _ in 0..5 {
        let listing = list(&*store, &prefix("a/")).await;
        let watch = watch(&*store, prefix("a/"), listing.revision).await;
        followers.push((listing, watch));
        commit(&*store, put("between", "x")).await;
    }
    clients.join_all().await;
    let until = now(&*store).await;
    let expected = by_key(list(&*store, &prefix("a/")).await.records);
    for (listing, mut watch) in followers {
        let mut seen = by_key(listing.records);
        let mut last = listing.revision;
        for (revision, changes) in commits_until(&mut *watch, until).await {
            assert!(revision > last, "never back, never twice");
            last = revision;
            changes
                .into_iter()
                .for_each(|change| apply(&mut seen, change));
        }
        assert_eq!(seen, expected);
    }
    assert!(list(&*store, &KeyPrefix::all()).await.revision >= until);
}

fn by_key(records: Vec<Record>) -> BTreeMap<Key, Record> {
    let pairs = records
        .into_iter()
        .map(|record| (record.key.clone(), record));
    pairs.collect()
}

fn apply(records: &mut BTreeMap<Key, Record>, change: Change) {
    match change {
        Change::Put(record) => drop(records.insert(record.key.clone(), record)),
        Change::Delete(key) => drop(records.remove(&key)),
    }
}
