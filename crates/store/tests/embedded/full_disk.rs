//! A disk that is full refuses writes and costs the readers nothing.

use crate::bed::{Bed, another_process, commit, contents, key, put, run, seen, watch};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use store::embedded::{BackupError, Embedded};
use store::{CommitError, KeyPrefix, Store};
use tokio::task::JoinSet;

/// Enough to meet each other: each refusal opens the file anew under the readers.
const READERS: usize = 4;
const REFUSALS: usize = 100;

const SMALL: &str = "PORTCULLIS_TEST_SMALL_DISK";

/// In a mount namespace of its own, so that nothing is left of the small disk. Needs root.
#[test]
fn a_full_disk_refuses_writes_and_serves_reads() {
    let name = "full_disk::a_full_disk_refuses_writes_and_serves_reads";
    if let Some(path) = std::env::var_os(SMALL) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(on_small_disk(Path::new(&path)));
    }
    let bed = Bed::new();
    let disk = bed.path("disk");
    fs::create_dir(&disk).expect("a directory");
    let itself = another_process(name, (SMALL, &disk));
    let script = "mount -t tmpfs -o size=6M small \"$0\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(&disk);
    command.arg(itself.get_program()).args(itself.get_args());
    command.env(SMALL, &disk);
    run(command);
}

async fn on_small_disk(disk: &Path) {
    let store = Arc::new(Embedded::open(&disk.join("store")).expect("there is room yet"));
    let begin = commit(&store, put("small", "1")).await;
    let (stop, reads) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        readers.spawn(read_on(store.clone(), stop.clone(), reads.clone()));
    }
    let filled = fill(&store).await;
    let before = store.list(&KeyPrefix::all()).await.expect("reads go on");
    assert_eq!(before.revision, filled);
    let backup = store.backup(&disk.join("backup")).expect_err("no room");
    assert!(matches!(backup, BackupError::Write { .. }), "{backup}");
    for _ in 0..REFUSALS {
        let refused = store.commit(large(0)).await;
        assert!(matches!(refused, Err(CommitError::Full(_))), "{refused:?}");
        let there = store.list(&KeyPrefix::all()).await.expect("reads go on");
        assert_eq!(there, before, "nothing was changed");
    }
    assert!(!disk.join("backup.new").exists(), "nothing is left of it");
    let until = reads.load(Ordering::SeqCst) + 10;
    while reads.load(Ordering::SeqCst) < until {
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::SeqCst);
    // Panics if a read has failed.
    readers.join_all().await;
    drop(store);
    let store = Embedded::open(&disk.join("store")).expect("it needs no more room to open");
    let there = store.list(&KeyPrefix::all()).await.expect("reads go on");
    assert_eq!(there, before);
    fs::remove_file(disk.join("ballast")).expect("it is there");
    let after = commit(&store, put("small", "2")).await;
    assert!(after > filled);
    let mut watch = watch(&store, begin).await;
    let commits = seen(&mut *watch).await.expect("none is missing");
    assert_eq!(commits.last(), Some(&after));
    drop(store);
    let store = Embedded::open(&disk.join("store")).expect("whole");
    assert!(
        contents(&store)
            .await
            .contains(&("small".into(), "2".into()))
    );
}

/// A file of others takes the room, then commits take what is left. The newest revision.
async fn fill(store: &Embedded) -> model::Revision {
    let listing = store.list(&KeyPrefix::all()).await.expect("a listing");
    let mut newest = listing.revision;
    let disk = std::env::var_os(SMALL).expect("it is set");
    fs::write(Path::new(&disk).join("ballast"), vec![0; 3 << 20]).expect("there is room");
    for n in 0..1000 {
        match store.commit(large(n)).await {
            Ok(revision) => newest = revision,
            Err(CommitError::Full(_)) => return newest,
            Err(other) => panic!("another reason: {other}"),
        }
    }
    panic!("1000 large records don't fill the disk");
}

fn large(n: usize) -> store::Transaction {
    put(&format!("large/{n}"), &"x".repeat(100_000))
}

async fn read_on(store: Arc<Embedded>, stop: Arc<AtomicBool>, reads: Arc<AtomicU64>) {
    while !stop.load(Ordering::SeqCst) {
        let record = store.get(&key("small")).await.expect("reads go on");
        assert!(record.is_some());
        reads.fetch_add(1, Ordering::SeqCst);
    }
}
