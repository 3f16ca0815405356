//! The store in one file, for one process: what a cluster has that needs no etcd.
//!
//! Place on the line: **store commit -> watch**.
//!
//! ```text
//! commit --> queue --> committer (one thread) --> one durable write for all that wait --> answers, news
//! get, list, watch --> a snapshot of the file, beside it
//! ```
//! The file is a redb database: copy-on-write pages with checksums, so that it is whole after a crash at any
//! instant. What we need beside it: transactions that wait together share one fsync; a bounded log, so that
//! watchers go on over a restart; a lock; and that a failed write (a full disk) leaves the readers alone.
//!
//! Knows nothing of: what a record says.
//!
//! Why this crate. Looked at in November 2026: `redb` is in Rust alone, kept up, its file format is stable,
//! and it says when it was damaged. `rusqlite` and `heed` bring C, `sled` and `persy` have stood still,
//! `fjall` and `rocksdb` are many files.

mod apply;
mod backup;
mod committer;
mod file;
mod handle;
mod tables;

pub use backup::{BackupError, RestoreError, restore};
pub use file::OpenError;

use crate::follow::{Commit, Follower, History, Page};
use crate::{
    CommitError, Key, KeyPrefix, Presence, ReadError, Reader, Record, Store, Transaction, Value,
    Watch, WatchEnd,
};
use async_trait::async_trait;
use committer::{Committer, Job, Kind};
use handle::Handle;
use model::Revision;
use redb::ReadTransaction;
use std::future;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::runtime;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task;

pub struct Embedded {
    epoch: u64,
    shared: Arc<Shared>,
    /// `None` only while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    committer: Option<JoinHandle<()>>,
    news: watch::Receiver<()>,
}

struct Shared {
    handle: Arc<Handle>,
}

/// How far back the file keeps changes for watchers.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub log_commits: u64,
    pub log_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            log_commits: 50_000,
            log_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Of records that were read, and are not taken yet.
const PAGES_AHEAD: usize = 2;
/// So many transactions wait in the queue; more wait before it.
const MOST_WAITING: usize = 1024;

impl Embedded {
    /// Makes the store if there is none. What other processes had announced is taken away: only one has
    /// the store open, so they are gone.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_with(path, Bounds::default())
    }

    pub fn open_with(path: &Path, bounds: Bounds) -> Result<Self, OpenError> {
        let (handle, meta) = file::open(path)?;
        let handle = Arc::new(handle);
        let (jobs, waiting) = mpsc::channel(MOST_WAITING);
        let (news, heard) = watch::channel(());
        let committer = Committer::new(handle.clone(), meta, bounds, waiting, news);
        let thread = thread::Builder::new()
            .name("store-committer".to_owned())
            .spawn(move || committer.run())
            .map_err(|source| OpenError::io("starting a thread for", path, source))?;
        Ok(Self {
            epoch: meta.epoch,
            shared: Arc::new(Shared { handle }),
            jobs: Some(jobs),
            committer: Some(thread),
            news: heard,
        })
    }

    /// A copy of what is there now, in one file, for [`restore`]. Blocks; the store goes on meanwhile.
    pub fn backup(&self, to: &Path) -> Result<Revision, BackupError> {
        backup::backup(&self.shared.handle, to)
    }

    fn jobs(&self) -> &mpsc::Sender<Job> {
        self.jobs.as_ref().expect("only a drop takes it")
    }

    async fn submit(&self, kind: Kind) -> Result<Revision, CommitError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.jobs().send(Job { kind, answer }).await;
        sent.map_err(|_| CommitError::Broken("its writing thread is gone".to_owned()))?;
        let answered = answered.await;
        answered
            .unwrap_or_else(|_| Err(CommitError::Unknown("the writing thread ended".to_owned())))
    }
}

/// Waits for the write that is under way. Other handles on the file are closed as soon as their reads end.
impl Drop for Embedded {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(committer) = self.committer.take() {
            // It can't have panicked; and if it had, its reason has been printed.
            let _ = committer.join();
        }
        self.shared.handle.close();
    }
}

#[async_trait]
impl Store for Embedded {
    async fn read_all(&self, prefix: &KeyPrefix, reader: &mut dyn Reader) -> Result<(), ReadError> {
        let prefix = prefix.clone();
        let (pages, mut read) = mpsc::channel(PAGES_AHEAD);
        let shared = self.shared.clone();
        let reading = async move {
            let take = move |snapshot: &ReadTransaction| {
                let take = |page| pages.blocking_send(page).is_ok();
                tables::read_all(snapshot, &prefix, take)
            };
            shared.read(take).await
        };
        let taking = async {
            while let Some(page) = read.recv().await {
                match page {
                    tables::Page::Begin(revision) => reader.begin(revision),
                    tables::Page::Records(records) => {
                        records.into_iter().for_each(|record| reader.take(record));
                    }
                }
            }
        };
        let (read, ()) = tokio::join!(reading, taking);
        read
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>, ReadError> {
        let key = key.clone();
        let read = move |snapshot: &ReadTransaction| tables::get(snapshot, &key);
        self.shared.read(read).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        transaction.check_size()?;
        self.submit(Kind::Commit(transaction)).await
    }

    async fn watch(
        &self,
        prefix: &KeyPrefix,
        after: Revision,
    ) -> Result<Box<dyn Watch>, ReadError> {
        let (history, news) = (self.shared.clone(), self.news.clone());
        let follower = Follower::new(history, news, prefix.clone(), after);
        Ok(Box::new(if after.epoch == self.epoch {
            follower
        } else {
            follower.ended(WatchEnd::Compacted)
        }))
    }

    /// Needs no time to live: the guard takes it away, or the next start does.
    async fn announce(
        &self,
        key: &Key,
        value: Value,
        _ttl: Duration,
    ) -> Result<Box<dyn Presence>, CommitError> {
        let put = Transaction::new().put(key.clone(), value);
        put.check_size()?;
        Ok(Box::new(Announced {
            key: key.clone(),
            revision: self.submit(Kind::Announce(put)).await?,
            jobs: self.jobs().downgrade(),
        }))
    }

    async fn compact(&self, before: u64) -> Result<(), ReadError> {
        match self.submit(Kind::Compact { before }).await {
            Ok(_) => Ok(()),
            Err(CommitError::Broken(why)) => Err(ReadError::Broken(why)),
            Err(other) => Err(ReadError::Unavailable(other.to_string())),
        }
    }
}

impl Shared {
    /// On a thread for what blocks: a file may have to be read.
    async fn read<T: Send + 'static>(
        &self,
        read: impl Fn(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, ReadError> {
        let handle = self.handle.clone();
        let done = task::spawn_blocking(move || handle.read(read)).await;
        done.unwrap_or_else(|panic| Err(ReadError::Broken(panic.to_string())))
    }
}

#[async_trait]
impl History for Shared {
    async fn after(&self, commit: u64) -> Result<Page, WatchEnd> {
        let logged = self.read(move |snapshot| tables::log_after(snapshot, commit));
        let logged = logged.await.map_err(|error| match error {
            ReadError::Unavailable(why) => WatchEnd::Lost(why),
            ReadError::Broken(why) => WatchEnd::Broken(why),
        })?;
        let logged = logged.ok_or(WatchEnd::Compacted)?;
        let commits = logged.commits.into_iter();
        Ok(Page {
            commits: commits
                .map(|(number, changes)| Commit { number, changes })
                .collect(),
            until: logged.until,
            is_newest: logged.is_newest,
        })
    }
}

struct Announced {
    key: Key,
    revision: Revision,
    jobs: mpsc::WeakSender<Job>,
}

#[async_trait]
impl Presence for Announced {
    fn revision(&self) -> Revision {
        self.revision
    }

    async fn lost(&mut self) {
        future::pending().await
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let withdraw = Transaction::withdraw(&self.key, self.revision.commit);
        let (answer, _) = oneshot::channel();
        let job = Job {
            kind: Kind::Commit(withdraw),
            answer,
        };
        // Where it can't be sent, the store is closing, and the next start takes the record away.
        let Some(jobs) = self.jobs.upgrade() else {
            return;
        };
        if let Err(TrySendError::Full(job)) = jobs.try_send(job)
            && let Ok(runtime) = runtime::Handle::try_current()
        {
            runtime.spawn(async move { jobs.send(job).await });
        }
    }
}
