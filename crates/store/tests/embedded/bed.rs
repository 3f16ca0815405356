//! A directory with a store in it, and what the tests say to it.

use model::Revision;
use std::path::PathBuf;
use std::process::Command;
use store::embedded::Embedded;
use store::{CommitError, Event, Key, KeyPrefix, Store, Transaction, Watch, WatchEnd};
use tempfile::TempDir;

pub(crate) struct Bed {
    directory: TempDir,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub(crate) fn open(&self) -> Embedded {
        Embedded::open(&self.store()).expect("a store that is whole, or none yet")
    }
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).expect("a valid key")
}

pub(crate) fn put(at: &str, value: &str) -> Transaction {
    Transaction::new().put(key(at), value.as_bytes())
}

pub(crate) async fn commit(store: &Embedded, transaction: Transaction) -> Revision {
    let committed: Result<Revision, CommitError> = store.commit(transaction).await;
    committed.expect("nothing stands against it")
}

/// Key and value of all there is.
pub(crate) async fn contents(store: &Embedded) -> Vec<(String, String)> {
    let listing = store.list(&KeyPrefix::all()).await.expect("a listing");
    let records = listing.records.into_iter();
    records
        .map(|record| {
            let value = String::from_utf8_lossy(&record.value).into_owned();
            (record.key.to_string(), value)
        })
        .collect()
}

pub(crate) async fn watch(store: &Embedded, after: Revision) -> Box<dyn Watch> {
    let watch = store.watch(&KeyPrefix::all(), after).await;
    watch.expect("a watch")
}

/// The revisions of all commits until the watch is current, or its end.
pub(crate) async fn seen(watch: &mut dyn Watch) -> Result<Vec<Revision>, WatchEnd> {
    let mut revisions = Vec::new();
    loop {
        match watch.next().await? {
            Event::Commit { revision, .. } => revisions.push(revision),
            Event::Progress(_) => return Ok(revisions),
        }
    }
}

/// The test itself once more, in a process of its own, where `role` says something to it.
pub(crate) fn another_process(test: &str, role: (&str, &std::path::Path)) -> Command {
    let program = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new(program);
    command.args([test, "--exact", "--nocapture"]);
    command.env(role.0, role.1);
    command
}

/// Its output is shown only if it fails: it has a result of its own, which nobody should count.
pub(crate) fn run(mut command: Command) {
    let output = command.output().expect("it starts");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
}
