//! Durable commits per second by so many clients, and how long a store takes to open:
//! `cargo bench -p portcullis-store`, with `-- DIRECTORY` for a store on another disk than the one for
//! temporary files.
//!
//! A commit is what the creation of a rule is: one record that must not be there yet, and its group's.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::embedded::{Embedded, restore};
use store::{Condition, Key, Store, Transaction};

const LASTS: Duration = Duration::from_secs(5);
const OPENED_RECORDS: usize = 100_000;

#[tokio::main]
async fn main() {
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    let base = wanted.map_or_else(std::env::temp_dir, Into::into);
    let directory = tempfile::tempdir_in(base).expect("a directory");
    for clients in [1, 8, 64] {
        let path = directory.path().join(format!("store-{clients}"));
        let store = Arc::new(Embedded::open(&path).expect("a new store"));
        commits(store, clients).await;
    }
    open(&directory.path().join("large")).await;
}

async fn commits(store: Arc<dyn Store>, clients: usize) {
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        let store = store.clone();
        tasks.spawn(async move {
            let mut done = 0u64;
            while start.elapsed() < LASTS {
                let made = store.commit(creation(client, done)).await;
                made.expect("nobody else makes it");
                done += 1;
            }
            done
        });
    }
    let done: u64 = tasks.join_all().await.into_iter().sum();
    let rate = done as f64 / start.elapsed().as_secs_f64();
    println!("{clients:3} clients  {rate:8.0} commits/s of 2 records");
}

fn creation(client: usize, number: u64) -> Transaction {
    let rule = key(&format!("rule/group-{client}/rule-{number}"));
    Transaction::new()
        .when(Condition::Absent(rule.clone()))
        .put(rule, vec![b'r'; 300])
        .put(key(&format!("group/group-{client}")), vec![b'g'; 200])
}

async fn open(path: &Path) {
    let store = Embedded::open(path).expect("a new store");
    for chunk in 0..OPENED_RECORDS / 100 {
        let puts = (0..100).fold(Transaction::new(), |t, n| {
            t.put(key(&format!("port/{chunk:05}/{n:03}")), vec![b'p'; 300])
        });
        store.commit(puts).await.expect("it is written");
    }
    let backup = path.with_extension("backup");
    timed("backup", || store.backup(&backup).expect("there is room"));
    drop(store);
    let opened = timed("open", || Embedded::open(path).expect("it is whole"));
    let start = Instant::now();
    let all = opened.list(&store::KeyPrefix::all()).await;
    let count = all.expect("it can be read").records.len();
    println!("list     {:8.1} ms, {count} records", ms(start));
    let restored = path.with_extension("restored");
    timed("restore", || restore(&backup, &restored).expect("a backup"));
}

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = run();
    println!("{what:8} {:8.1} ms, {OPENED_RECORDS} records", ms(start));
    done
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn key(text: &str) -> Key {
    Key::new(text).expect("a valid key")
}
