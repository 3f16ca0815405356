//! A transaction as etcd's: conditions become compares, writes its operations. If a compare fails, a second call
//! reads what tells which: most don't, and what they would carry for it goes through etcd's log.
//!
//! ```text
//! when    epoch, conditions              112 at most
//! then    writes, or                      112 at most
//!         then, then, ... of 16 writes    96 at most, each a transaction in this one that asks nothing
//! ```
//! etcd counts, of each transaction, the longest of these lists: 128 at most, and in a transaction in it only what the
//! outer one leaves. All of it is one revision still; that a key is written once is asked across all of them.
//! Source: etcd 3.4, `etcdserver/api/v3rpc/key.go`, `checkTxnRequest`.
//!
//! Place on the line: **store commit**.
//! Knows nothing of: how calls fail.

use crate::call::{CallError, Calls, commit_error, is_full};
use crate::epoch::{Epoch, found};
use crate::layout::Layout;
use etcd_client::{
    Client, Compare, CompareOp, GetOptions, GetResponse, PutOptions, SortOrder, SortTarget, Txn,
    TxnOp, TxnOpResponse, TxnResponse,
};
use model::Revision;
use store::{CommitError, Condition, MOST_CONDITIONS, MOST_WRITES, Transaction, Write};
use tokio::time::Instant;

/// etcd's `--max-txn-ops`, if it isn't told otherwise.
const MOST_OPERATIONS: usize = 128;
/// Conditions, and that of the epoch.
const MOST_COMPARES: usize = MOST_CONDITIONS + 1;
/// Writes of a transaction in the transaction.
const PART: usize = MOST_OPERATIONS - MOST_COMPARES;
const _: () = assert!(MOST_WRITES.div_ceil(PART) <= MOST_COMPARES);

pub(crate) enum Refused {
    OtherEpoch(Epoch),
    Error(CommitError),
}

pub(crate) async fn commit(
    client: &Client,
    layout: &Layout,
    calls: Calls,
    epoch: Epoch,
    transaction: &Transaction,
    lease: Option<i64>,
) -> Result<Revision, Refused> {
    let until = Instant::now() + calls.timeout();
    let request = request(layout, epoch, transaction, lease);
    let kv = client.kv_client();
    let answer = calls.txn(&kv, request).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) if is_full(&error) => {
            let refused = when_full(client, layout, calls, transaction, error).await;
            return Err(Refused::Error(refused));
        }
        Err(error) => return Err(Refused::Error(commit_error(error))),
    };
    if !answer.succeeded() {
        return Err(match calls.until(until) {
            Some(calls) => refused(client, layout, calls, epoch, transaction).await,
            None => Refused::Error(CommitError::Conflict(None)),
        });
    }
    let commit = answer.header().map(|header| header.revision() as u64);
    let commit = commit.ok_or_else(|| {
        let why = "etcd's answer has no header".to_owned();
        Refused::Error(CommitError::Unknown(why))
    })?;
    Ok(Revision {
        epoch: epoch.0,
        commit,
    })
}

fn request(layout: &Layout, epoch: Epoch, transaction: &Transaction, lease: Option<i64>) -> Txn {
    let conditions = transaction.conditions().iter();
    let compares = [epoch.is_unchanged(layout)]
        .into_iter()
        .chain(conditions.map(|condition| compare(layout, condition)));
    let writes = transaction.writes().iter().map(|(key, write)| {
        let at = layout.record(key);
        match write {
            Write::Put(value) => {
                let options = lease.map(|lease| PutOptions::new().with_lease(lease));
                TxnOp::put(at, &**value, options)
            }
            Write::Delete => TxnOp::delete(at, None),
        }
    });
    Txn::new()
        .when(compares.collect::<Vec<_>>())
        .and_then(in_parts(writes.collect()))
}

fn in_parts(writes: Vec<TxnOp>) -> Vec<TxnOp> {
    if writes.len() <= MOST_COMPARES {
        return writes;
    }
    let parts = writes.chunks(PART);
    let parts = parts.map(|part| TxnOp::txn(Txn::new().and_then(part)));
    parts.collect()
}

fn compare(layout: &Layout, condition: &Condition) -> Compare {
    match condition {
        Condition::Absent(key) => Compare::create_revision(layout.record(key), CompareOp::Equal, 0),
        Condition::Unchanged { key, modified } => {
            let modified = of_a_record(*modified);
            Compare::mod_revision(layout.record(key), CompareOp::Equal, modified)
        }
        Condition::SameIncarnation { key, created } => {
            let created = of_a_record(*created);
            Compare::create_revision(layout.record(key), CompareOp::Equal, created)
        }
        Condition::NothingNewUnder { prefix, after } => {
            let (begin, end) = layout.records(prefix);
            let next = i64::try_from(*after).unwrap_or(i64::MAX).saturating_add(1);
            Compare::mod_revision(begin, CompareOp::Less, next).with_range(end)
        }
    }
}

/// etcd says 0 of what isn't there, so that must not be asked for; -1 it says of nothing.
fn of_a_record(commit: u64) -> i64 {
    match i64::try_from(commit) {
        Ok(0) | Err(_) => -1,
        Ok(number) => number,
    }
}

/// A read of what the condition is about, without values.
fn evidence(layout: &Layout, condition: &Condition) -> TxnOp {
    let options = GetOptions::new().with_keys_only();
    match condition {
        Condition::Absent(key)
        | Condition::Unchanged { key, .. }
        | Condition::SameIncarnation { key, .. } => TxnOp::get(layout.record(key), Some(options)),
        Condition::NothingNewUnder { prefix, .. } => {
            let (begin, end) = layout.records(prefix);
            let newest = options
                .with_range(end)
                .with_sort(SortTarget::Mod, SortOrder::Descend)
                .with_limit(1);
            TxnOp::get(begin, Some(newest))
        }
    }
}

/// Why nothing was done, as far as it still can be seen: what stood against it may be gone.
async fn refused(
    client: &Client,
    layout: &Layout,
    calls: Calls,
    epoch: Epoch,
    transaction: &Transaction,
) -> Refused {
    let conditions = transaction.conditions().iter();
    let reads = [TxnOp::get(layout.epoch(), None)]
        .into_iter()
        .chain(conditions.map(|condition| evidence(layout, condition)));
    let reads = Txn::new().and_then(reads.collect::<Vec<_>>());
    match calls.txn(&client.kv_client(), reads).await {
        Ok(answer) => told_by(&answer, layout, epoch, transaction),
        Err(_) => Refused::Error(CommitError::Conflict(None)),
    }
}

fn told_by(
    answer: &TxnResponse,
    layout: &Layout,
    epoch: Epoch,
    transaction: &Transaction,
) -> Refused {
    let mut reads = answer.op_responses().into_iter().map(|read| match read {
        TxnOpResponse::Get(got) => Some(got),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    });
    if let Some(Some(got)) = reads.next()
        && let Ok(Some(other)) = found(&got, layout)
        && other != epoch
    {
        return Refused::OtherEpoch(other);
    }
    let conditions = transaction.conditions().iter();
    let failing = conditions
        .zip(reads)
        .find(|(condition, read)| read.as_ref().is_some_and(|got| !holds(condition, got)));
    let condition = failing.map(|(condition, _)| condition.clone());
    Refused::Error(CommitError::Conflict(condition))
}

fn holds(condition: &Condition, got: &GetResponse) -> bool {
    let found = got.kvs().first();
    match condition {
        Condition::Absent(_) => found.is_none(),
        Condition::Unchanged { modified, .. } => {
            found.is_some_and(|kv| kv.mod_revision() as u64 == *modified)
        }
        Condition::SameIncarnation { created, .. } => {
            found.is_some_and(|kv| kv.create_revision() as u64 == *created)
        }
        Condition::NothingNewUnder { after, .. } => {
            found.is_none_or(|kv| kv.mod_revision() as u64 <= *after)
        }
    }
}

/// etcd refuses what finds its quota used up before it does anything. But the write that uses it up is done,
/// and answered alike: so one of its records tells.
///
/// Source: etcd 3.4, `etcdserver/apply.go`, `quotaApplierV3`.
async fn when_full(
    client: &Client,
    layout: &Layout,
    calls: Calls,
    transaction: &Transaction,
    error: CallError,
) -> CommitError {
    let why = error.to_string();
    let mut puts = transaction.writes().iter().filter_map(|(key, write)| {
        let value = match write {
            Write::Put(value) => value,
            Write::Delete => return None,
        };
        Some((layout.record(key), value))
    });
    let Some((at, value)) = puts.next() else {
        return CommitError::Unknown(why);
    };
    let kv = client.kv_client();
    let got = calls.get(&kv, at, None).await;
    match got {
        Ok(got) if got.kvs().first().is_none_or(|kv| kv.value() != &**value) => {
            CommitError::Full(why)
        }
        _ => CommitError::Unknown(why),
    }
}
