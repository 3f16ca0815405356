//! Backups, and stores from them.

use crate::bed::{Bed, commit, contents, key, put, seen, watch};
use std::fs;
use std::os::unix::fs::MetadataExt;
use store::embedded::{BackupError, Embedded, OpenError, RestoreError, restore};
use store::{Event, Store, WatchEnd};

#[tokio::test]
async fn a_restored_store_is_the_backup_in_a_new_epoch() {
    let bed = Bed::new();
    let store = bed.open();
    commit(&store, put("a", "1").put(key("b"), &b"2"[..])).await;
    let ttl = std::time::Duration::from_secs(60);
    let presence = store
        .announce(&key("server"), b"x".as_slice().into(), ttl)
        .await;
    let kept = presence.expect("it is announced").revision();
    let backup = bed.path("backup");
    let saved = store.backup(&backup).expect("there is room");
    assert_eq!(saved.epoch, kept.epoch);
    let lost = commit(&store, put("a", "after the backup")).await;
    let bytes = fs::read(&backup).expect("the backup");

    let path = bed.path("restored");
    let begin = restore(&backup, &path).expect("a backup that is whole");
    assert!(begin > lost, "{begin} comes after all that was handed out");
    assert_eq!(begin.commit, saved.commit);
    for file in [bed.store(), backup.clone(), path.clone()] {
        let mode = fs::metadata(&file).expect("it is there").mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    let restored = Embedded::open(&path).expect("a store");
    assert_eq!(
        contents(&restored).await,
        [("a".into(), "1".into()), ("b".into(), "2".into())],
        "what processes had announced isn't in it"
    );
    for after in [saved, lost] {
        let mut old = watch(&restored, after).await;
        assert_eq!(old.next().await, Err(WatchEnd::Compacted), "after {after}");
    }
    let next = commit(&restored, put("a", "2")).await;
    assert!(next > begin && next.epoch == begin.epoch);
    let mut new = watch(&restored, begin).await;
    assert_eq!(seen(&mut *new).await, Ok(vec![next]));
    assert!(
        fs::read(&backup).expect("the backup") == bytes,
        "it stays as it is"
    );
}

#[tokio::test]
async fn a_backup_is_of_one_revision_while_others_write() {
    let bed = Bed::new();
    let store = std::sync::Arc::new(bed.open());
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..500 {
                let value = n.to_string();
                let both = put("a", &value).put(key("b"), value.into_bytes());
                commit(&store, both).await;
            }
        })
    };
    let mut first = watch(&store, commit(&store, put("c", "")).await).await;
    while !matches!(first.next().await, Ok(Event::Commit { .. })) {}
    for n in 0..5 {
        let (backup, path) = (bed.path(&format!("b{n}")), bed.path(&format!("r{n}")));
        let maker = store.clone();
        let to = backup.clone();
        let saved = tokio::task::spawn_blocking(move || maker.backup(&to)).await;
        let saved = saved.expect("no panic").expect("there is room");
        assert_eq!(restore(&backup, &path).expect("whole").commit, saved.commit);
        let restored = Embedded::open(&path).expect("a store");
        let there = contents(&restored).await;
        assert_eq!(there[0].1, there[1].1, "both or none: {there:?}");
    }
    writer.await.expect("the writer isn't disturbed");
}

#[tokio::test]
async fn nothing_is_written_over() {
    let bed = Bed::new();
    let store = bed.open();
    commit(&store, put("a", "1")).await;
    let backup = bed.path("backup");
    store.backup(&backup).expect("there is room");
    let bytes = fs::read(&backup).expect("the backup");
    let again = store.backup(&backup).expect_err("it is there already");
    assert!(matches!(again, BackupError::Write { .. }), "{again}");
    assert!(fs::read(&backup).expect("the backup") == bytes);
    let error = restore(&backup, &bed.store()).expect_err("it is there");
    assert!(matches!(error, RestoreError::Exists { .. }), "{error}");
    commit(&store, put("a", "2")).await;
}

#[tokio::test]
async fn a_backup_is_no_store_and_a_store_no_backup() {
    let bed = Bed::new();
    let store = bed.open();
    let backup = bed.path("backup");
    store.backup(&backup).expect("there is room");
    let error = Embedded::open(&backup).err().expect("it is a backup");
    assert!(matches!(error, OpenError::IsBackup { .. }), "{error}");
    drop(store);
    let path = bed.path("restored");
    let error = restore(&bed.store(), &path).expect_err("it is no backup");
    assert!(matches!(error, RestoreError::NoBackup { .. }), "{error}");
    let mut bytes = fs::read(&backup).expect("the backup");
    let middle = bytes.len() / 2;
    bytes.truncate(middle);
    fs::write(&backup, bytes).expect("it can be written");
    let error = restore(&backup, &path).expect_err("it is damaged");
    assert!(matches!(error, RestoreError::Damaged { .. }), "{error}");
    assert!(!error.to_string().contains("the store"), "{error}");
    assert!(!path.exists() && !bed.path("restored.new").exists());
}
