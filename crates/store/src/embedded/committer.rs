//! The one thread that writes: takes all that wait, writes them durably in one go, answers.
//!
//! Place on the line: **store commit**.
//!
//! ```text
//! wait -> gather -> write, fsync -+-> answer each
//!                                 +-> failed: open anew; is it in the file? -> answer all
//! ```
//! While one group is written the next one gathers, so groups grow with the load, by themselves.
//!
//! Knows nothing of: how a transaction is judged and written.

use super::Bounds;
use super::apply::Batch;
use super::handle::{Handle, Opened};
use super::tables::{META, Meta, PRESENCE, stored_key};
use crate::{CommitError, ReadError, Transaction};
use model::Revision;
use redb::{ReadTransaction, ReadableTable};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

pub(super) struct Job {
    pub(super) kind: Kind,
    pub(super) answer: oneshot::Sender<Answer>,
}

pub(super) enum Kind {
    Commit(Transaction),
    Announce(Transaction),
    Compact { before: u64 },
}

type Answer = Result<Revision, CommitError>;

pub(super) struct Committer {
    handle: Arc<Handle>,
    /// As the file has it.
    meta: Meta,
    bounds: Bounds,
    jobs: mpsc::Receiver<Job>,
    news: watch::Sender<()>,
}

/// In one durable write.
const MOST_TOGETHER: usize = 256;
const MOST_BYTES_TOGETHER: usize = 4 * 1024 * 1024;

impl Committer {
    pub(super) fn new(
        handle: Arc<Handle>,
        meta: Meta,
        bounds: Bounds,
        jobs: mpsc::Receiver<Job>,
        news: watch::Sender<()>,
    ) -> Self {
        Self {
            handle,
            meta,
            bounds,
            jobs,
            news,
        }
    }

    pub(super) fn run(mut self) {
        self.end_old_presence();
        while let Some(first) = self.jobs.blocking_recv() {
            let group = self.gather(first);
            let kinds: Vec<&Kind> = group.iter().map(|job| &job.kind).collect();
            let answers = self.write(&kinds);
            for (job, answer) in group.into_iter().zip(answers) {
                // Whoever asked may have gone.
                let _ = job.answer.send(answer);
            }
        }
    }

    fn gather(&mut self, first: Job) -> Vec<Job> {
        let mut bytes = first.kind.bytes();
        let mut group = vec![first];
        while group.len() < MOST_TOGETHER && bytes < MOST_BYTES_TOGETHER {
            let Ok(next) = self.jobs.try_recv() else {
                break;
            };
            bytes += next.kind.bytes();
            group.push(next);
        }
        group
    }

    /// One answer for each.
    fn write(&mut self, group: &[&Kind]) -> Vec<Answer> {
        let opened = match self.handle.current() {
            Ok(opened) => opened,
            Err(error) => return all(group, || refused(&error)),
        };
        // What redb doesn't expect in its file makes it panic.
        let writing = || write(&opened, group, &self.meta, self.bounds);
        let written = catch_unwind(AssertUnwindSafe(writing));
        let failure = match written {
            Ok(Ok((answers, meta))) => {
                self.meta = meta;
                self.news.send_replace(());
                return answers;
            }
            Ok(Err(error)) => Failure::of(&error),
            Err(_) => Failure::Broken("it makes no sense to its writer".to_owned()),
        };
        self.after(failure, &opened, group)
    }

    /// What the file has now tells whether anything was written.
    fn after(&mut self, failure: Failure, opened: &Arc<Opened>, group: &[&Kind]) -> Vec<Answer> {
        let found = self.handle.renew(opened);
        let found = found.and_then(|_| self.handle.read(newest));
        match found {
            Ok(meta) if meta.commit == self.meta.commit => all(group, || failure.error()),
            Ok(meta) => {
                self.meta = meta;
                self.news.send_replace(());
                all(group, || failure.unknown())
            }
            Err(_) => all(group, || failure.unknown()),
        }
    }

    /// Those who had announced themselves were processes that had this file before us. If it fails, they
    /// seem to be there until the next start: no reason not to serve.
    fn end_old_presence(&mut self) {
        let Ok(keys) = self.handle.read(announced) else {
            return;
        };
        let kinds: Vec<Kind> = keys
            .into_iter()
            .map(|key| Kind::Commit(Transaction::new().delete(key)))
            .collect();
        for group in kinds.chunks(MOST_TOGETHER) {
            self.write(&group.iter().collect::<Vec<_>>());
        }
    }
}

impl Kind {
    fn bytes(&self) -> usize {
        match self {
            Self::Commit(transaction) | Self::Announce(transaction) => transaction.bytes(),
            Self::Compact { .. } => 0,
        }
    }
}

fn write(
    opened: &Opened,
    group: &[&Kind],
    before: &Meta,
    bounds: Bounds,
) -> Result<(Vec<Answer>, Meta), redb::Error> {
    let writing = opened.database.begin_write()?;
    let mut batch = Batch::begin(&writing)?;
    let mut answers = Vec::with_capacity(group.len());
    for kind in group {
        answers.push(apply(&mut batch, kind)?);
    }
    let meta = batch.finish(bounds)?;
    if meta != *before {
        writing.commit()?;
    } else {
        writing.abort()?;
    }
    Ok((answers, meta))
}

fn apply(batch: &mut Batch<'_>, kind: &Kind) -> Result<Answer, redb::Error> {
    match kind {
        Kind::Commit(transaction) => batch.commit(transaction),
        Kind::Announce(transaction) => {
            let answer = batch.commit(transaction)?;
            batch.mark_presence(transaction)?;
            Ok(answer)
        }
        Kind::Compact { before } => {
            batch.compact(*before)?;
            batch.commit(&Transaction::new())
        }
    }
}

fn newest(snapshot: &ReadTransaction) -> Result<Meta, redb::Error> {
    Meta::load(&snapshot.open_table(META)?)
}

fn announced(snapshot: &ReadTransaction) -> Result<Vec<crate::Key>, redb::Error> {
    let presence = snapshot.open_table(PRESENCE)?;
    let keys = presence.iter()?.map(|entry| stored_key(entry?.0.value()));
    keys.collect()
}

/// Why a write didn't succeed.
enum Failure {
    Full(String),
    Broken(String),
}

impl Failure {
    fn of(error: &redb::Error) -> Self {
        match error {
            redb::Error::Io(source) if is_full(source) => Self::Full(source.to_string()),
            other => Self::Broken(other.to_string()),
        }
    }

    fn error(&self) -> CommitError {
        match self {
            Self::Full(why) => CommitError::Full(why.clone()),
            Self::Broken(why) => CommitError::Broken(why.clone()),
        }
    }

    fn unknown(&self) -> CommitError {
        match self {
            Self::Full(why) | Self::Broken(why) => CommitError::Unknown(why.clone()),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn refused(error: &ReadError) -> CommitError {
    match error {
        ReadError::Unavailable(why) => CommitError::Unavailable(why.clone()),
        ReadError::Broken(why) => CommitError::Broken(why.clone()),
    }
}

fn all(group: &[&Kind], error: impl Fn() -> CommitError) -> Vec<Answer> {
    group.iter().map(|_| Err(error())).collect()
}
