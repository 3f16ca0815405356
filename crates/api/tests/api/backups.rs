//! Backups of a server that runs.

use crate::bed::{Bed, Plan};
use crate::client::Client;
use api::Limits;
use control::Copies;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::embedded::{Embedded, restore};
use store::{Change, Event, Key, KeyPrefix, Store, Transaction};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BACKUP: &str = "/portcullis/v1/backup";
const WRITES: usize = 400;
const PATIENCE: Duration = Duration::from_secs(20);

/// What was there at each revision, by what was committed one after the other.
type History = BTreeMap<u64, BTreeMap<String, Vec<u8>>>;

async fn bed(directory: &TempDir) -> (Arc<Embedded>, Bed) {
    let path = directory.path().join("store");
    let store = Arc::new(Embedded::open(&path).expect("the directory is ours"));
    let plan = Plan {
        copies: Some(Copies::new(store.clone(), &path)),
        store: store.clone(),
        ..Plan::default()
    };
    (store, plan.start().await)
}

async fn write(client: Client) {
    for n in 0..WRITES {
        let group = client.group(&format!("g{n}")).await;
        if n % 3 == 0 {
            client
                .delete(&format!("security-groups/{group}"))
                .await
                .done(204);
        }
    }
}

/// From the log: nothing that a listing says comes into it.
async fn history(store: &Embedded, until: u64) -> History {
    let begin = model::Revision {
        epoch: store
            .list(&KeyPrefix::all())
            .await
            .expect("it can be read")
            .revision
            .epoch,
        commit: 0,
    };
    let mut watch = store
        .watch(&KeyPrefix::all(), begin)
        .await
        .expect("it is kept");
    let (mut history, mut now) = (History::new(), BTreeMap::new());
    while history
        .last_key_value()
        .is_none_or(|(commit, _)| *commit < until)
    {
        match watch.next().await.expect("nothing is lost") {
            Event::Commit { revision, changes } => {
                for change in changes {
                    match change {
                        Change::Put(record) => {
                            now.insert(record.key.as_str().to_owned(), record.value.to_vec())
                        }
                        Change::Delete(key) => now.remove(key.as_str()),
                    };
                }
                history.insert(revision.commit, now.clone());
            }
            Event::Progress(_) => {}
        }
    }
    history
}

async fn contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let store = Embedded::open(path).expect("it is a store");
    let all = store.list(&KeyPrefix::all()).await.expect("it can be read");
    let records = all.records.into_iter();
    records
        .map(|r| (r.key.as_str().to_owned(), r.value.to_vec()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_running_server_is_one_revision_of_its_history() {
    let directory = tempfile::tempdir().expect("there is room");
    let (store, bed) = bed(&directory).await;
    let writers = ["p1", "p2", "p3"].map(|project| tokio::spawn(write(bed.member(project))));
    let mut restored = Vec::new();
    while !writers.iter().all(|writer| writer.is_finished()) {
        let answer = bed.admin().get(BACKUP).await.done(200);
        let header = |name: &str| {
            answer.headers[name]
                .to_str()
                .expect("it is text")
                .to_owned()
        };
        assert_eq!(header("content-length"), answer.bytes.len().to_string());
        let backup = directory.path().join(format!("backup{}", restored.len()));
        let path = backup.with_extension("restored");
        std::fs::write(&backup, &answer.bytes).expect("there is room");
        let begin = restore(&backup, &path).expect("it is a backup, and whole");
        let said = header("x-portcullis-revision");
        assert!(
            said.ends_with(&format!(".{}", begin.commit)),
            "{said} {begin}"
        );
        restored.push((begin.commit, contents(&path).await));
    }
    for writer in writers {
        writer.await.expect("the writers aren't disturbed");
    }
    let (last, _) = restored.last().expect("there were some");
    let history = history(&store, *last).await;
    let mut seen: Vec<u64> = restored.iter().map(|(commit, _)| *commit).collect();
    for (commit, contents) in restored {
        let then = history
            .range(..=commit)
            .next_back()
            .expect("something was")
            .1;
        assert!(contents == *then, "revision {commit}");
    }
    seen.dedup();
    assert!(seen.len() >= 3, "backups of several revisions: {seen:?}");
    let left = std::fs::read_dir(directory.path()).expect("it is ours");
    let names = left.map(|entry| entry.expect("it is ours").file_name());
    let copies = names.filter(|name| name.to_string_lossy().contains("copy"));
    assert_eq!(copies.count(), 0, "nothing is left beside the store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_take_a_backup_is_cut_off_and_then_it_is_the_next_one_s() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("store");
    let store = Arc::new(Embedded::open(&path).expect("the directory is ours"));
    // More than connections hold.
    for n in 0..40 {
        let key = |part| Key::new(&format!("large/{n}/{part}")).expect("it is a key");
        let put = |all: Transaction, part| all.put(key(part), vec![n; 60_000]);
        let large = (0..16).fold(Transaction::new(), put);
        store.commit(large).await.expect("there is room");
    }
    let plan = Plan {
        copies: Some(Copies::new(store.clone(), &path)),
        store,
        limits: Limits {
            taking_time: Duration::from_secs(6),
            ..Limits::default()
        },
        ..Plan::default()
    };
    let bed = plan.start().await;
    let mut slow = TcpStream::connect(bed.address).await.expect("it listens");
    let headers = "Host: x\r\nX-User-Id: u\r\nX-Project-Id: p\r\nX-Roles: admin\r\n\r\n";
    let request = format!("GET {BACKUP} HTTP/1.1\r\n{headers}");
    slow.write_all(request.as_bytes())
        .await
        .expect("it listens");
    slow.read_u8().await.expect("it begins");
    bed.admin().get(BACKUP).await.refused(409, "BackupUnderWay");
    let began = Instant::now();
    let whole = loop {
        let answer = bed.admin().get(BACKUP).await;
        if answer.status == 200 {
            break answer.bytes.len();
        }
        answer.refused(409, "BackupUnderWay");
        assert!(began.elapsed() < PATIENCE, "who is slow is not cut off");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let mut came = Vec::new();
    let _ = slow.read_to_end(&mut came).await;
    assert!(came.len() < whole, "{} of {whole} bytes", came.len());
}

#[tokio::test]
async fn who_gets_a_backup() {
    let directory = tempfile::tempdir().expect("there is room");
    let (_, bed) = bed(&directory).await;
    for other in [bed.member("p"), bed.reader("p")] {
        other.get(BACKUP).await.refused(403, "PolicyNotAuthorized");
    }
    bed.admin()
        .post(BACKUP, json!({}))
        .await
        .refused(405, "HTTPMethodNotAllowed");
    // A store that isn't this server's own.
    let bed = Bed::new().await;
    bed.admin().get(BACKUP).await.refused(409, "NoBackupOfEtcd");
}
