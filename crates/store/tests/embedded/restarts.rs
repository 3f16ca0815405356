//! What goes on when the store is opened again, and by whom it can't be.

use crate::bed::{Bed, another_process, commit, contents, key, put, run, seen, watch};
use std::path::Path;
use std::time::Duration;
use store::embedded::{Bounds, Embedded, OpenError};
use store::{Condition, KeyPrefix, Store, Transaction, WatchEnd};

#[tokio::test]
async fn records_and_watchers_go_on_over_a_restart() {
    let bed = Bed::new();
    let store = bed.open();
    let first = commit(&store, put("a", "1")).await;
    let second = commit(&store, put("b", "2")).await;
    let mut before = watch(&store, second).await;
    assert_eq!(seen(&mut *before).await, Ok(vec![]));
    drop(store);
    let end = before.next().await;
    assert!(matches!(end, Err(WatchEnd::Lost(_))), "{end:?}");
    let store = bed.open();
    assert_eq!(
        contents(&store).await,
        [("a".into(), "1".into()), ("b".into(), "2".into())]
    );
    let third = commit(&store, put("c", "3").delete(key("a"))).await;
    assert_eq!(third.epoch, first.epoch);
    assert_eq!(third.commit, second.commit + 1);
    let mut resumed = watch(&store, first).await;
    assert_eq!(seen(&mut *resumed).await, Ok(vec![second, third]));
}

#[tokio::test]
async fn the_log_is_bounded_by_commits_and_by_bytes() {
    for bounds in [
        Bounds {
            log_commits: 3,
            ..Bounds::default()
        },
        Bounds {
            // An entry is 115 bytes.
            log_bytes: 3 * 115 + 50,
            ..Bounds::default()
        },
    ] {
        let bed = Bed::new();
        let mut revisions = Vec::new();
        let store = Embedded::open_with(&bed.store(), bounds).expect("a new store");
        let begin = commit(&store, put("a", "")).await;
        let mut slow = watch(&store, begin).await;
        for _ in 0..5 {
            let value = "x".repeat(99);
            revisions.push(commit(&store, put("a", &value)).await);
        }
        assert_eq!(slow.next().await, Err(WatchEnd::Compacted), "{bounds:?}");
        let mut again = watch(&store, revisions[0]).await;
        assert_eq!(again.next().await, Err(WatchEnd::Compacted), "{bounds:?}");
        let mut near = watch(&store, revisions[1]).await;
        assert_eq!(seen(&mut *near).await, Ok(revisions[2..].to_vec()));
        // One that is larger than the bound is still told to those who are there.
        let large = commit(&store, put("a", &"x".repeat(2000))).await;
        assert_eq!(seen(&mut *near).await, Ok(vec![large]));
    }
}

/// The log and the records say the same of what is new.
#[tokio::test]
async fn what_is_new_is_known_with_and_without_a_log() {
    for log_commits in [2, 50_000] {
        let bed = Bed::new();
        let bounds = Bounds {
            log_commits,
            ..Bounds::default()
        };
        let store = Embedded::open_with(&bed.store(), bounds).expect("a new store");
        let first = commit(&store, put("a/1", "")).await.commit;
        commit(&store, put("a/2", "")).await;
        let third = commit(&store, put("b/1", "")).await.commit;
        commit(&store, Transaction::new().delete(key("a/2"))).await;
        for _ in 0..10 {
            commit(&store, put("c/1", "")).await;
        }
        for (under, after, expected) in [
            ("a/", first - 1, false),
            ("a/", first, true),
            ("b/", third - 1, false),
            ("b/", third, true),
            ("c/", third, false),
            ("c/", u64::MAX, true),
            ("d/", 0, true),
        ] {
            let prefix = KeyPrefix::new(under).expect("a prefix");
            let asked = Transaction::new().when(Condition::NothingNewUnder { prefix, after });
            let holds = store.commit(asked).await.is_ok();
            assert_eq!(holds, expected, "{log_commits}: {under} after {after}");
        }
    }
}

/// Whoever had announced itself had the file before, and is gone.
#[tokio::test]
async fn presence_ends_with_the_process() {
    let bed = Bed::new();
    let store = bed.open();
    let ttl = Duration::from_secs(60);
    let value = || b"x".as_slice().into();
    let guard = store.announce(&key("server/1"), value(), ttl).await;
    let taken_over = store.announce(&key("server/2"), value(), ttl).await;
    commit(&store, put("server/2", "an ordinary record now")).await;
    std::mem::forget((guard, taken_over));
    drop(store);
    let store = bed.open();
    // Comes after what the start itself does.
    commit(&store, put("mark", "")).await;
    let keys: Vec<String> = contents(&store).await.into_iter().map(|(k, _)| k).collect();
    assert_eq!(keys, ["mark", "server/2"]);
}

#[tokio::test]
async fn a_second_opener_is_refused() {
    let bed = Bed::new();
    let store = bed.open();
    check_in_use(&bed.store());
    commit(&store, put("a", "1")).await;
    drop(store);
    bed.open();
}

const IN_USE: &str = "PORTCULLIS_TEST_STORE_IN_USE";

#[test]
fn a_second_process_is_refused() {
    if let Some(path) = std::env::var_os(IN_USE) {
        return check_in_use(Path::new(&path));
    }
    let bed = Bed::new();
    let _store = bed.open();
    let name = "restarts::a_second_process_is_refused";
    run(another_process(name, (IN_USE, &bed.store())));
}

fn check_in_use(path: &Path) {
    let error = Embedded::open(path).err().expect("it is in use");
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("in use by another process"));
}

/// Many start at once on a path where there is nothing: they have one store, one after the other.
#[test]
fn of_many_who_make_the_store_one_has_it() {
    for _ in 0..20 {
        let bed = Bed::new();
        let path = bed.store();
        let opened: Vec<_> = std::thread::scope(|scope| {
            let openers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Embedded::open(&path)))
                .collect();
            let opened = openers.into_iter().map(|opener| opener.join());
            opened.map(|opened| opened.expect("no panic")).collect()
        });
        let (have, refused): (Vec<_>, Vec<_>) = opened.into_iter().partition(Result::is_ok);
        assert_eq!(have.len(), 1);
        for error in refused.into_iter().filter_map(Result::err) {
            assert!(matches!(error, OpenError::InUse { .. }), "{error}");
        }
        let files = std::fs::read_dir(path.parent().expect("a directory"));
        assert_eq!(
            files.expect("it is there").count(),
            1,
            "nothing is left over"
        );
    }
}

#[tokio::test]
async fn an_empty_transaction_writes_nothing() {
    let bed = Bed::new();
    let store = bed.open();
    commit(&store, put("a", "1")).await;
    let before = std::fs::read(bed.store()).expect("the file");
    commit(&store, Transaction::new()).await;
    commit(&store, Transaction::new().delete(key("none"))).await;
    assert!(std::fs::read(bed.store()).expect("the file") == before);
}
