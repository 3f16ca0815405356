//! The same random transactions on a back end and on [`Memory`], the reference: the same results, records
//! and changes.
//!
//! Commit numbers differ between back ends, so a history names commits by their index, and each side has its
//! own numbers for them.

use super::tools::{Dice, commits_until, key, list, now, prefix, watch};
use crate::memory::Memory;
use crate::{Change, CommitError, Condition, KeyPrefix, Record, Store, Transaction};
use model::Revision;
use std::sync::Arc;

const STEPS: usize = 300;

pub async fn a_random_history_is_as_in_memory(store: Arc<dyn Store>) {
    compare(&*store, 1).await;
}

/// On a store that is empty.
pub async fn compare(store: &dyn Store, seed: u64) {
    let mut dice = Dice::new(seed);
    let memory = Memory::new();
    let mut expected = Side::begin(&memory).await;
    let mut seen = Side::begin(store).await;
    for step in 0..STEPS {
        let plan = Plan::random(&mut dice, expected.numbers.len());
        let place = format!("seed {seed}, step {step}: {plan:?}");
        let (result, other) = (expected.run(&plan).await, seen.run(&plan).await);
        assert_eq!(other, result, "{place}");
        assert_eq!(seen.records().await, expected.records().await, "{place}");
    }
    assert_eq!(
        seen.history().await,
        expected.history().await,
        "seed {seed}"
    );
}

/// A store, and the numbers it has given to the history's commits.
struct Side<'a> {
    store: &'a dyn Store,
    begin: Revision,
    numbers: Vec<u64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Commit(usize),
    Nothing,
    Conflict,
}

/// A record with indices in place of numbers.
#[derive(Debug, PartialEq, Eq)]
struct Indexed {
    key: String,
    value: Vec<u8>,
    created: usize,
    modified: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum IndexedChange {
    Put(Indexed),
    Delete(String),
}

#[derive(Debug)]
struct Plan {
    conditions: Vec<PlannedCondition>,
    /// `None` deletes.
    writes: Vec<(&'static str, Option<u64>)>,
}

#[derive(Debug)]
enum PlannedCondition {
    Absent(&'static str),
    Unchanged(&'static str, usize),
    SameIncarnation(&'static str, usize),
    NothingNewUnder(Option<&'static str>, usize),
}

const KEYS: [&str; 8] = ["a/1", "a/2", "a/3/x", "a0/1", "b/1", "b/2", "c", "d/1"];
const PREFIXES: [&str; 4] = ["a/", "b/", "a/3/", "e/"];

impl Plan {
    fn random(dice: &mut Dice, commits: usize) -> Self {
        let conditions = dice.below(3);
        let writes = dice.below(4);
        Self {
            conditions: (0..conditions)
                .map(|_| PlannedCondition::random(dice, commits))
                .collect(),
            writes: (0..writes).map(|_| random_write(dice)).collect(),
        }
    }
}

impl PlannedCondition {
    /// Mostly of the last commits: others seldom hold.
    fn random(dice: &mut Dice, commits: usize) -> Self {
        let at = pick(dice, &KEYS);
        let index = commits.saturating_sub(1 + dice.below(6) as usize);
        match dice.below(5) {
            0 => Self::Absent(at),
            1 => Self::Unchanged(at, index),
            2 => Self::SameIncarnation(at, index),
            3 => Self::NothingNewUnder(Some(pick(dice, &PREFIXES)), index),
            _ => Self::NothingNewUnder(None, index),
        }
    }
}

fn random_write(dice: &mut Dice) -> (&'static str, Option<u64>) {
    let at = pick(dice, &KEYS);
    (at, (dice.below(3) > 0).then(|| dice.below(100)))
}

fn pick(dice: &mut Dice, of: &[&'static str]) -> &'static str {
    of[dice.below(of.len() as u64) as usize]
}

impl<'a> Side<'a> {
    async fn begin(store: &'a dyn Store) -> Self {
        Self {
            store,
            begin: now(store).await,
            numbers: Vec::new(),
        }
    }

    async fn run(&mut self, plan: &Plan) -> Outcome {
        let before = now(self.store).await;
        match self.store.commit(self.transaction(plan)).await {
            Ok(revision) if revision == before => Outcome::Nothing,
            Ok(revision) => {
                assert!(revision > before);
                self.numbers.push(revision.commit);
                Outcome::Commit(self.numbers.len() - 1)
            }
            Err(CommitError::Conflict(_)) => Outcome::Conflict,
            Err(error) => panic!("{plan:?}: {error}"),
        }
    }

    fn transaction(&self, plan: &Plan) -> Transaction {
        let conditions = plan.conditions.iter().map(|c| self.condition(c));
        let transaction = conditions.fold(Transaction::new(), Transaction::when);
        let writes = plan.writes.iter();
        writes.fold(transaction, |t, (at, value)| match value {
            Some(value) => t.put(key(at), value.to_string().into_bytes()),
            None => t.delete(key(at)),
        })
    }

    fn condition(&self, planned: &PlannedCondition) -> Condition {
        match planned {
            PlannedCondition::Absent(at) => Condition::Absent(key(at)),
            PlannedCondition::Unchanged(at, index) => Condition::Unchanged {
                key: key(at),
                modified: self.number(*index),
            },
            PlannedCondition::SameIncarnation(at, index) => Condition::SameIncarnation {
                key: key(at),
                created: self.number(*index),
            },
            PlannedCondition::NothingNewUnder(under, index) => Condition::NothingNewUnder {
                prefix: under.map_or_else(KeyPrefix::all, prefix),
                after: self.number(*index),
            },
        }
    }

    fn number(&self, index: usize) -> u64 {
        *self.numbers.get(index).unwrap_or(&self.begin.commit)
    }

    fn index(&self, number: u64) -> usize {
        let index = self.numbers.binary_search(&number);
        index.expect("a commit of this history")
    }

    async fn records(&self) -> Vec<Indexed> {
        let records = list(self.store, &KeyPrefix::all()).await.records;
        records.into_iter().map(|r| self.indexed(r)).collect()
    }

    /// As a watcher from the beginning sees it.
    async fn history(&self) -> Vec<(usize, Vec<IndexedChange>)> {
        let until = now(self.store).await;
        let mut watch = watch(self.store, KeyPrefix::all(), self.begin).await;
        let commits = commits_until(&mut *watch, until).await.into_iter();
        let indexed = commits.map(|(revision, changes)| {
            let changes = changes.into_iter().map(|change| match change {
                Change::Put(record) => IndexedChange::Put(self.indexed(record)),
                Change::Delete(key) => IndexedChange::Delete(key.to_string()),
            });
            (self.index(revision.commit), changes.collect())
        });
        indexed.collect()
    }

    fn indexed(&self, record: Record) -> Indexed {
        Indexed {
            key: record.key.to_string(),
            value: record.value.to_vec(),
            created: self.index(record.created),
            modified: self.index(record.modified),
        }
    }
}
