//! Commits per second beside bare transactions of etcd that write the same:
//! `cargo bench -p portcullis-store-etcd`. Starts an etcd of its own.
//!
//! A commit is what the creation of a rule is: one record that must not be there yet, and its group's.

#[path = "../tests/etcd/server.rs"]
#[allow(dead_code, reason = "the tests do more to it")]
mod server;

use etcd_client::{Client, Compare, CompareOp, Txn, TxnOp};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Condition, Key, Store, Transaction};
use tokio::task::JoinSet;

const LASTS: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() {
    for clients in [1, 8] {
        let server = server::Server::start();
        let client = Client::connect([server.url()], None).await;
        let client = client.expect("it serves");
        let bare = rate(clients, move |who, number| {
            let mut client = client.clone();
            async move {
                assert!(
                    client
                        .txn(bare(who, number))
                        .await
                        .expect("it serves")
                        .succeeded()
                )
            }
        });
        let bare = bare.await;
        let server = server::Server::start();
        let store: Arc<dyn Store> = Arc::new(server.connect().await);
        let ours = rate(clients, move |who, number| {
            let store = store.clone();
            async move {
                let committed = store.commit(ours(who, number)).await;
                committed.expect("it serves");
            }
        });
        let ours = ours.await;
        let share = 100.0 * ours / bare;
        println!("{clients:3} clients  {bare:6.0}/s bare, {ours:6.0}/s ours: {share:.0} %");
    }
}

async fn rate<F>(clients: u64, commit: impl Fn(u64, u64) -> F + Clone + Send + 'static) -> f64
where
    F: Future<Output = ()> + Send,
{
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let commit = commit.clone();
        tasks.spawn(async move {
            let mut done = 0;
            while start.elapsed() < LASTS {
                commit(client, done).await;
                done += 1;
            }
            done
        });
    }
    let done: u64 = tasks.join_all().await.into_iter().sum();
    done as f64 / start.elapsed().as_secs_f64()
}

fn names(client: u64, number: u64) -> (String, String) {
    let rule = format!("rule/group-{client}/rule-{number}");
    (rule, format!("group/group-{client}"))
}

fn bare(client: u64, number: u64) -> Txn {
    let (rule, group) = names(client, number);
    let absent = Compare::create_revision(rule.clone(), CompareOp::Equal, 0);
    Txn::new().when([absent]).and_then([
        TxnOp::put(rule, vec![b'r'; 300], None),
        TxnOp::put(group, vec![b'g'; 200], None),
    ])
}

fn ours(client: u64, number: u64) -> Transaction {
    let (rule, group) = names(client, number);
    let key = |text: &str| Key::new(text).expect("a valid key");
    Transaction::new()
        .when(Condition::Absent(key(&rule)))
        .put(key(&rule), vec![b'r'; 300])
        .put(key(&group), vec![b'g'; 200])
}
