//! `kill -9` in mid-commit: each transaction is whole or absent, and what was acknowledged is there.

use crate::bed::{Bed, another_process, contents, key};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use store::embedded::Embedded;
use store::{Store, Transaction};

const VICTIM: &str = "PORTCULLIS_TEST_STORE_VICTIM";
const ROUNDS: usize = 12;
const CLIENTS: usize = 4;
const RECORDS: usize = 3;

#[test]
fn kill_in_mid_commit() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if let Some(path) = std::env::var_os(VICTIM) {
        return runtime.block_on(write_for_ever(Path::new(&path)));
    }
    let bed = Bed::new();
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        write_and_kill(&bed, 20 + 37 * round, &mut acknowledged);
        runtime.block_on(check(&bed, round, &mut acknowledged));
    }
}

/// Waits for so many acknowledgements, and kills while others are under way.
fn write_and_kill(bed: &Bed, acknowledgements: usize, acknowledged: &mut BTreeMap<String, u64>) {
    let mut command = another_process("kill::kill_in_mid_commit", (VICTIM, &bed.store()));
    let mut victim = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let output = victim.stdout.take().expect("a pipe");
    let mut lines = BufReader::new(output).lines();
    let mut note = |line: String| {
        // The test harness has lines of its own.
        if let Some((client, number)) = line.strip_prefix("done ").and_then(|l| l.split_once(' ')) {
            let number = number.parse().expect("a number");
            acknowledged.insert(client.to_owned(), number);
        }
    };
    for line in lines.by_ref().take(acknowledgements) {
        note(line.expect("the victim writes on"));
    }
    victim.kill().expect("it is ours");
    victim.wait().expect("it is ours");
    // What it had said before it died; the last line may be cut short.
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let whole = rest.len().saturating_sub(1);
    rest.into_iter().take(whole).for_each(note);
}

async fn check(bed: &Bed, round: usize, acknowledged: &mut BTreeMap<String, u64>) {
    let store = bed.open();
    let there = contents(&store).await;
    for client in 0..CLIENTS {
        let name = format!("client-{client}");
        let own = there.iter().filter(|(key, _)| key.starts_with(&name));
        let values: Vec<u64> = own.map(|(_, v)| v.parse().expect("a number")).collect();
        let last = acknowledged.get(&name).copied();
        if values.is_empty() {
            assert_eq!(
                last, None,
                "round {round}: {name} was told that it is there"
            );
            continue;
        }
        assert_eq!(values.len(), RECORDS, "round {round}: {name} is whole");
        assert!(
            values.iter().all(|v| *v == values[0]),
            "round {round}: {values:?}"
        );
        let at_least = last.unwrap_or(0);
        assert!(
            values[0] >= at_least,
            "round {round}: {name}, {values:?} < {at_least}"
        );
        acknowledged.insert(name, values[0]);
    }
}

/// Each client writes the same number into its records, and says so when it is done.
async fn write_for_ever(path: &Path) {
    let store = Arc::new(Embedded::open(path).expect("whole after each kill"));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let store = store.clone();
        clients.spawn(async move {
            let name = format!("client-{client}");
            for number in first_number(&store, &name).await.. {
                let all = (0..RECORDS).fold(Transaction::new(), |t, n| {
                    t.put(key(&format!("{name}/{n}")), number.to_string().into_bytes())
                });
                store.commit(all).await.expect("nothing stands against it");
                let mut out = std::io::stdout().lock();
                writeln!(out, "done {name} {number}").expect("somebody reads");
            }
        });
    }
    clients.join_all().await;
}

async fn first_number(store: &Embedded, name: &str) -> u64 {
    let there = store.get(&key(&format!("{name}/0"))).await;
    there.expect("it can be read").map_or(1, |record| {
        let text = String::from_utf8_lossy(&record.value).into_owned();
        text.parse::<u64>().expect("a number") + 1
    })
}
