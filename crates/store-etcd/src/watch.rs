//! A watch: etcd's, on everything below the root, with what isn't under the prefix left out here.
//!
//! Place on the line: store commit -> **watch**.
//!
//! Why on everything: so a commit elsewhere is progress. etcd's own progress answers can't be believed before
//! 3.4.25 and 3.5.8, which may answer before they have sent what came earlier. And when a watch begins, it
//! writes the mark: having seen that, it is current.
//!
//! Why from `after`, not the commit behind it: etcd takes a watch from the very revision that it was
//! compacted to, and may have forgotten a deletion by then.
//!
//! Nothing is kept back here but one revision in fragments: who doesn't ask for the next event lets the
//! connection fill, and etcd reads from its own history later.
//!
//! Knows nothing of: what else is going on with the connection.

use crate::call::{CallError, Calls, read_error};
use crate::epoch;
use crate::layout::{Layout, Place};
use async_trait::async_trait;
use etcd_client::{Client, EventType, Txn, TxnOp, WatchOptions, WatchResponse, WatchStream};
use model::Revision;
use std::collections::{BTreeMap, VecDeque};
use store::{Change, Event, KeyPrefix, ReadError, Watch, WatchEnd};

pub(crate) struct EtcdWatch {
    /// `None`: it ended before it began.
    stream: Option<WatchStream>,
    layout: Layout,
    prefix: KeyPrefix,
    /// Up to here all is said, or in `ready`.
    seen: Revision,
    /// The commit with which it is current; 0 once it has been.
    mark: u64,
    /// Of revisions whose last fragment hasn't come.
    partial: BTreeMap<u64, Vec<Change>>,
    ready: VecDeque<Event>,
    end: Option<WatchEnd>,
}

pub(crate) async fn begin(
    client: &Client,
    layout: &Layout,
    calls: Calls,
    prefix: &KeyPrefix,
    after: Revision,
) -> Result<EtcdWatch, ReadError> {
    let mut watch = EtcdWatch {
        stream: None,
        layout: layout.clone(),
        prefix: prefix.clone(),
        seen: after,
        mark: 0,
        partial: BTreeMap::new(),
        ready: VecDeque::new(),
        end: None,
    };
    let (epoch, newest) = epoch::read(client, layout, calls).await?;
    if epoch.0 != after.epoch || after.commit > newest {
        watch.end = Some(WatchEnd::Compacted);
        return Ok(watch);
    }
    watch.stream = Some(open(client, layout, calls, after).await?);
    watch.mark = write_mark(client, layout, calls).await.unwrap_or(newest);
    Ok(watch)
}

async fn open(
    client: &Client,
    layout: &Layout,
    calls: Calls,
    after: Revision,
) -> Result<WatchStream, ReadError> {
    let (begin, end) = layout.everything();
    let options = WatchOptions::new()
        .with_range(end)
        .with_start_revision(after.commit.max(1) as i64)
        .with_progress_notify()
        .with_fragment();
    let opened = calls.ask(|| {
        let (mut watches, begin) = (client.watch_client(), begin.clone());
        let options = options.clone();
        async move { watches.watch(begin, Some(options)).await }
    });
    let mut stream = opened.await.map_err(read_error)?;
    let first = calls.wait_for(stream.message()).await.map_err(read_error)?;
    match first {
        Some(first) if first.created() && !first.canceled() => Ok(stream),
        Some(first) => Err(ReadError::Broken(first.cancel_reason().to_owned())),
        None => Err(ReadError::Unavailable("etcd ended the watch".to_owned())),
    }
}

/// Without it (etcd is full, say), the watch is current with the next commit of somebody.
async fn write_mark(client: &Client, layout: &Layout, calls: Calls) -> Result<u64, CallError> {
    let put = Txn::new().and_then([TxnOp::put(layout.mark(), "", None)]);
    let put = calls.txn(&client.kv_client(), put).await?;
    Ok(put.header().map_or(0, |header| header.revision() as u64))
}

impl EtcdWatch {
    async fn advance(&mut self) -> Result<(), WatchEnd> {
        let lost = |why: String| WatchEnd::Lost(why);
        let stream = self.stream.as_mut();
        let stream = stream.ok_or_else(|| lost("it never began".to_owned()))?;
        let message = stream.message().await;
        let message = message.map_err(|error| lost(CallError::Etcd(error).to_string()))?;
        let message = message.ok_or_else(|| lost("etcd ended it".to_owned()))?;
        if message.canceled() {
            return Err(match message.compact_revision() {
                0 => lost(message.cancel_reason().to_owned()),
                _ => WatchEnd::Compacted,
            });
        }
        let notified = self.take_events(&message)?;
        if !message.0.fragment {
            self.finish(notified);
        }
        Ok(())
    }

    /// The revision that is reached with this message.
    fn take_events(&mut self, message: &WatchResponse) -> Result<u64, WatchEnd> {
        let mut reached = match message.header() {
            // Only etcd's own notices are so: it has sent all up to here.
            Some(header) if message.events().is_empty() && !message.created() => {
                header.revision() as u64
            }
            _ => 0,
        };
        for event in message.events() {
            let Some(kv) = event.kv() else {
                continue;
            };
            let revision = kv.mod_revision() as u64;
            reached = reached.max(revision);
            if revision <= self.seen.commit {
                continue;
            }
            let place = self.layout.place(kv.key());
            let key = match place.map_err(|error| WatchEnd::Broken(error.to_string()))? {
                Place::Epoch => return Err(WatchEnd::Compacted),
                Place::Mark => continue,
                Place::Record(key) => key,
            };
            if !self.prefix.contains(&key) {
                continue;
            }
            let change = match event.event_type() {
                EventType::Delete => Change::Delete(key),
                EventType::Put => {
                    let record = self.layout.read_record(kv.clone());
                    Change::Put(record.map_err(|error| WatchEnd::Broken(error.to_string()))?)
                }
            };
            self.partial.entry(revision).or_default().push(change);
        }
        Ok(reached)
    }

    /// etcd never parts a revision between messages, other than in fragments of one.
    fn finish(&mut self, reached: u64) {
        let epoch = self.seen.epoch;
        for (commit, mut changes) in std::mem::take(&mut self.partial) {
            changes.sort_by(|a, b| a.key().cmp(b.key()));
            let revision = Revision { epoch, commit };
            self.seen.commit = self.seen.commit.max(commit);
            self.ready.push_back(Event::Commit { revision, changes });
        }
        self.seen.commit = self.seen.commit.max(reached);
        if self.seen.commit >= self.mark {
            self.mark = 0;
            self.ready.push_back(Event::Progress(self.seen));
        }
    }
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<Event, WatchEnd> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if let Some(end) = &self.end {
                return Err(end.clone());
            }
            if let Err(end) = self.advance().await {
                self.end = Some(end);
                self.stream = None;
            }
        }
    }
}
