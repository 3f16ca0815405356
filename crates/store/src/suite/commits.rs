//! Checks of commits and of what is read after them.

use super::tools::{
    commit, delete, get, is_conflict, key, list, next_commit, now, prefix, put, record, watch,
};
use crate::{
    Change, CommitError, Condition, KeyPrefix, MOST_CONDITIONS, MOST_TRANSACTION_BYTES,
    MOST_VALUE_BYTES, MOST_WRITES, Store, TooLarge, Transaction,
};
use std::sync::Arc;

pub async fn a_record_is_read_as_it_was_written(store: Arc<dyn Store>) {
    let store = &*store;
    assert_eq!(get(store, "a/1").await, None);
    let made = commit(store, put("a/1", "one")).await;
    let first = record("a/1", "one", made, made);
    assert_eq!(get(store, "a/1").await, Some(first));
    let written = commit(store, put("a/1", "two")).await;
    assert!(written > made);
    let second = record("a/1", "two", made, written);
    assert_eq!(get(store, "a/1").await, Some(second));
    commit(store, delete("a/1")).await;
    assert_eq!(get(store, "a/1").await, None);
    let again = commit(store, put("a/1", "")).await;
    let third = record("a/1", "", again, again);
    assert_eq!(get(store, "a/1").await, Some(third), "another incarnation");
}

pub async fn a_listing_is_of_one_revision_and_in_order(store: Arc<dyn Store>) {
    let store = &*store;
    let empty = list(store, &KeyPrefix::all()).await;
    assert_eq!(empty.records, []);
    let two = put("b/2", "x").put(key("b/10"), &b"y"[..]);
    let first = commit(store, two.put(key("a/1"), &b"z"[..])).await;
    let second = commit(store, put("b0/1", "not under b/").delete(key("a/1"))).await;
    let under_b = list(store, &prefix("b/")).await;
    assert_eq!(under_b.revision, second);
    assert!(empty.revision < first && first < second);
    let expected = [
        record("b/10", "y", first, first),
        record("b/2", "x", first, first),
    ];
    assert_eq!(under_b.records, expected);
    let all = list(store, &KeyPrefix::all()).await;
    let keys: Vec<&str> = all.records.iter().map(|r| r.key.as_str()).collect();
    assert_eq!(keys, ["b/10", "b/2", "b0/1"]);
    assert_eq!(list(store, &prefix("c/")).await.records, []);
}

/// More than a back end moves in one message.
pub async fn a_large_listing_is_whole(store: Arc<dyn Store>) {
    let store = &*store;
    let value = vec![7u8; 4000];
    const AT_ONCE: usize = 128;
    let count = 40 * AT_ONCE;
    for chunk in 0..40 {
        let numbers = chunk * AT_ONCE..(chunk + 1) * AT_ONCE;
        let transaction = numbers.fold(Transaction::new(), |t, n| {
            t.put(key(&format!("large/{n:05}")), value.clone())
        });
        commit(store, transaction).await;
    }
    let listing = list(store, &prefix("large/")).await;
    assert_eq!(listing.records.len(), count);
    for (n, record) in listing.records.iter().enumerate() {
        assert_eq!(record.key, key(&format!("large/{n:05}")));
        assert_eq!(*record.value, *value);
    }
}

pub async fn a_transaction_is_all_or_nothing(store: Arc<dyn Store>) {
    let store = &*store;
    let made = commit(store, put("a", "1")).await;
    let refused = put("b", "2")
        .delete(key("a"))
        .when(Condition::Absent(key("c")))
        .when(Condition::Absent(key("a")));
    let result = store.commit(refused).await;
    match result {
        Err(CommitError::Conflict(Some(condition))) => {
            assert_eq!(condition, Condition::Absent(key("a")), "the one that fails");
        }
        Err(CommitError::Conflict(None)) => {}
        other => panic!("a conflict is expected: {other:?}"),
    }
    let all = list(store, &KeyPrefix::all()).await;
    assert_eq!(all.revision, made);
    assert_eq!(all.records, [record("a", "1", made, made)]);
}

pub async fn what_changes_nothing_makes_no_commit(store: Arc<dyn Store>) {
    let store = &*store;
    let made = commit(store, put("a", "1")).await;
    assert_eq!(commit(store, Transaction::new()).await, made);
    assert_eq!(commit(store, delete("b")).await, made);
    let there = Transaction::new().when(Condition::Absent(key("a")));
    assert!(is_conflict(&store.commit(there).await));
    assert_eq!(now(store).await, made);
    let again = commit(store, put("a", "1")).await;
    assert!(again > made, "the same value is written all the same");
}

pub async fn each_condition_is_judged(store: Arc<dyn Store>) {
    let store = &*store;
    let made = commit(store, put("a/1", "x")).await.commit;
    let written = commit(store, put("a/1", "y")).await.commit;
    commit(store, put("a/2", "gone")).await;
    let deleted = commit(store, delete("a/2")).await.commit;
    let at = |text: &str| key(text);
    let unchanged = |k: &str, modified| Condition::Unchanged {
        key: at(k),
        modified,
    };
    let same = |k: &str, created| Condition::SameIncarnation {
        key: at(k),
        created,
    };
    let none_newer = |p: &str, after| Condition::NothingNewUnder {
        prefix: prefix(p),
        after,
    };
    let everything = |after| Condition::NothingNewUnder {
        prefix: KeyPrefix::all(),
        after,
    };
    let cases = [
        (Condition::Absent(at("a/1")), false),
        (Condition::Absent(at("a/2")), true),
        (Condition::Absent(at("a/3")), true),
        (unchanged("a/1", made), false),
        (unchanged("a/1", written), true),
        (unchanged("a/1", deleted), false),
        (unchanged("a/2", deleted), false),
        (unchanged("a/3", 0), false),
        (same("a/1", made), true),
        (same("a/1", written), false),
        (same("a/2", made), false),
        (same("a/3", 0), false),
        (none_newer("a/", made), false),
        (none_newer("a/", written), true),
        (none_newer("a/", deleted), true),
        (none_newer("b/", 0), true),
        (everything(made), false),
        (everything(written), true),
    ];
    for (condition, expected) in cases {
        let tried = store
            .commit(Transaction::new().when(condition.clone()))
            .await;
        assert_eq!(!is_conflict(&tried), expected, "{condition:?}");
        assert_eq!(tried.is_ok(), expected, "{condition:?}: {tried:?}");
    }
    let both = Transaction::new()
        .when(same("a/1", made))
        .when(unchanged("a/1", made));
    assert!(is_conflict(&store.commit(both).await), "all must hold");
}

pub async fn what_is_too_large_is_refused(store: Arc<dyn Store>) {
    let store = &*store;
    let before = now(store).await;
    let value = vec![0; MOST_VALUE_BYTES + 1];
    let large = store.commit(Transaction::new().put(key("a"), value)).await;
    assert!(
        matches!(
            large,
            Err(CommitError::TooLarge(TooLarge::Value { bytes, .. })) if bytes == MOST_VALUE_BYTES + 1
        ),
        "{large:?}"
    );
    let many = (0..=MOST_WRITES).fold(Transaction::new(), |t, n| t.delete(key(&format!("{n}"))));
    let many = store.commit(many).await;
    assert!(
        matches!(many, Err(CommitError::TooLarge(TooLarge::Writes(n))) if n == MOST_WRITES + 1)
    );
    let many = (0..=MOST_CONDITIONS).fold(put("a", "x"), |t, n| {
        t.when(Condition::Absent(key(&format!("{n}"))))
    });
    let many = store.commit(many).await;
    assert!(
        matches!(many, Err(CommitError::TooLarge(TooLarge::Conditions(n))) if n == MOST_CONDITIONS + 1)
    );
    assert_eq!(now(store).await, before);
}

/// All of it, or none; and with one revision, which a watcher is told whole.
pub async fn the_largest_transaction_is_possible(store: Arc<dyn Store>) {
    let store = &*store;
    let name = |n: usize| key(&format!("large/{n:04}"));
    let begin = commit(store, put(name(0).as_str(), "goes")).await;
    let value = vec![1; MOST_TRANSACTION_BYTES / MOST_WRITES - 2 * "large/0000".len()];
    let writes = (1..MOST_WRITES).fold(Transaction::new(), |t, n| t.put(name(n), value.clone()));
    let writes = writes.delete(name(0));
    let largest = (1..=MOST_CONDITIONS).fold(writes, |t, n| t.when(Condition::Absent(name(n))));
    let made = commit(store, largest.clone()).await;
    assert!(is_conflict(&store.commit(largest).await), "it is there now");
    assert_eq!(now(store).await, made);
    let listing = list(store, &KeyPrefix::all()).await;
    assert_eq!(listing.records.len(), MOST_WRITES - 1);
    for record in &listing.records {
        assert_eq!(
            (record.created, record.modified),
            (made.commit, made.commit)
        );
        assert_eq!(*record.value, *value);
    }
    let mut watch = watch(store, KeyPrefix::all(), begin).await;
    let (revision, changes) = next_commit(&mut *watch).await;
    assert_eq!(revision, made);
    let names = Vec::from_iter((0..MOST_WRITES).map(name));
    assert_eq!(
        Vec::from_iter(changes.iter().map(|c| c.key().clone())),
        names
    );
    assert_eq!(changes[0], Change::Delete(name(0)));
    let value = vec![2; MOST_VALUE_BYTES];
    commit(store, Transaction::new().put(key("one"), value.clone())).await;
    let one = get(store, "one").await.expect("it was written");
    assert_eq!(*one.value, *value);
}

/// The last condition is the one that doesn't hold: none of many writes is done.
pub async fn a_large_transaction_is_all_or_nothing(store: Arc<dyn Store>) {
    let store = &*store;
    let made = commit(store, put("a", "1")).await;
    let writes = (0..MOST_WRITES).fold(Transaction::new(), |t, n| {
        t.put(key(&format!("large/{n:04}")), &b"x"[..])
    });
    let holding = (1..MOST_CONDITIONS).fold(writes, |t, n| {
        t.when(Condition::Absent(key(&format!("large/{n:04}"))))
    });
    let late = holding.when(Condition::Absent(key("a")));
    match store.commit(late).await {
        Err(CommitError::Conflict(Some(condition))) => {
            assert_eq!(condition, Condition::Absent(key("a")), "the one that fails");
        }
        Err(CommitError::Conflict(None)) => {}
        other => panic!("a conflict is expected: {other:?}"),
    }
    let all = list(store, &KeyPrefix::all()).await;
    assert_eq!(all.revision, made);
    assert_eq!(all.records, [record("a", "1", made, made)]);
}
