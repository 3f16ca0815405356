//! The epoch: which life of the store this is, and the format it is in. One record below the root.
//!
//! Knows nothing of: records.

use crate::call::{Calls, ConnectError, commit_error, read_error};
use crate::layout::Layout;
use etcd_client::{Client, Compare, CompareOp, GetResponse, Txn, TxnOp};
use std::time::{SystemTime, UNIX_EPOCH};
use store::{CommitError, ReadError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch(pub(crate) u64);

/// Of what is below the root.
const FORMAT: u64 = 1;

impl Epoch {
    /// What is in etcd: the format, a space, the epoch.
    pub(crate) fn text(self) -> String {
        format!("{FORMAT} {}", self.0)
    }

    pub(crate) fn is_unchanged(self, layout: &Layout) -> Compare {
        Compare::value(layout.epoch(), CompareOp::Equal, self.text())
    }

    /// Greater than another one, and than that of any store made before, if the clock is right.
    fn after(epoch: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(now.map_or(0, |now| now.as_secs()).max(epoch + 1))
    }
}

/// As it is now, with the newest revision of etcd.
pub(crate) async fn read(
    client: &Client,
    layout: &Layout,
    calls: Calls,
) -> Result<(Epoch, u64), ReadError> {
    let kv = client.kv_client();
    let got = calls.get(&kv, layout.epoch(), None);
    let got = got.await.map_err(read_error)?;
    let epoch = found(&got, layout).map_err(|error| ReadError::Broken(error.to_string()))?;
    match epoch {
        Some(epoch) => Ok((epoch, newest(&got))),
        None => Err(ReadError::Broken("the epoch was deleted".to_owned())),
    }
}

/// And whether it was made. Where several make it at once, the first one does.
pub(crate) async fn read_or_make(
    client: &Client,
    layout: &Layout,
    calls: Calls,
) -> Result<(Epoch, bool), ConnectError> {
    let absent = Compare::create_revision(layout.epoch(), CompareOp::Equal, 0);
    let make = TxnOp::put(layout.epoch(), Epoch::after(0).text(), None);
    let make = Txn::new().when([absent]).and_then([make]);
    let kv = client.kv_client();
    let got = calls.get(&kv, layout.epoch(), None).await?;
    if let Some(epoch) = found(&got, layout)? {
        return Ok((epoch, false));
    }
    // Whatever becomes of it: what is there afterwards counts.
    let is_ours = calls.txn(&kv, make).await?.succeeded();
    let got = calls.get(&kv, layout.epoch(), None).await?;
    let made = found(&got, layout)?;
    let made = made.map(|epoch| (epoch, is_ours));
    made.ok_or_else(|| ConnectError::Unavailable("the epoch was deleted again".to_owned()))
}

/// The old one, the new one, and the commit that wrote it.
pub(crate) async fn renew(
    client: &Client,
    layout: &Layout,
    calls: Calls,
) -> Result<(Epoch, Epoch, u64), CommitError> {
    let (old, _) = read(client, layout, calls)
        .await
        .map_err(|error| match error {
            ReadError::Unavailable(why) => CommitError::Unavailable(why),
            ReadError::Broken(why) => CommitError::Broken(why),
        })?;
    let new = Epoch::after(old.0);
    let put = TxnOp::put(layout.epoch(), new.text(), None);
    let renew = Txn::new().when([old.is_unchanged(layout)]).and_then([put]);
    let kv = client.kv_client();
    let renewed = calls.txn(&kv, renew).await;
    let renewed = renewed.map_err(commit_error)?;
    if !renewed.succeeded() {
        return Err(CommitError::Conflict(None));
    }
    let commit = renewed.header().map_or(0, |header| header.revision());
    Ok((old, new, commit as u64))
}

/// `None`: there is none yet.
pub(crate) fn found(got: &GetResponse, layout: &Layout) -> Result<Option<Epoch>, ConnectError> {
    let Some(kv) = got.kvs().first() else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(kv.value()).into_owned();
    let numbers = text.split_once(' ').and_then(|(format, epoch)| {
        let format: u64 = format.parse().ok()?;
        Some((format, epoch.parse().ok()))
    });
    match numbers {
        Some((FORMAT, Some(epoch))) => Ok(Some(Epoch(epoch))),
        Some((format, _)) if format > FORMAT => Err(ConnectError::Newer {
            format,
            known: FORMAT,
        }),
        _ => Err(ConnectError::NotOurs {
            key: layout.epoch(),
            value: text,
        }),
    }
}

pub(crate) fn newest(got: &GetResponse) -> u64 {
    got.header().map_or(0, |header| header.revision() as u64)
}
