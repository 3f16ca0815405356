//! A watch on a back end that keeps its own history: it holds a place in that history, and nothing else, so
//! that slow watchers cost no memory.
//!
//! Place on the line: store commit -> **watch**.
//! Knows nothing of: where the history is kept.

use crate::{Change, Event, KeyPrefix, Watch, WatchEnd};
use async_trait::async_trait;
use model::Revision;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;

/// The changes of past commits, as far back as they are kept.
#[async_trait]
pub(crate) trait History: Send + Sync {
    /// The next commits after this one, some of them if there are many.
    async fn after(&self, commit: u64) -> Result<Page, WatchEnd>;
}

pub(crate) struct Page {
    pub(crate) commits: Vec<Commit>,
    /// Up to this commit nothing is missing.
    pub(crate) until: u64,
    pub(crate) is_newest: bool,
}

pub(crate) struct Commit {
    pub(crate) number: u64,
    pub(crate) changes: Vec<Change>,
}

pub(crate) struct Follower {
    history: Arc<dyn History>,
    /// Changes at every commit.
    news: watch::Receiver<()>,
    prefix: KeyPrefix,
    /// Up to here all is said, or in `ready`.
    seen: Revision,
    ready: VecDeque<Event>,
    /// The first progress has been said.
    is_current: bool,
    end: Option<WatchEnd>,
}

impl Follower {
    pub(crate) fn new(
        history: Arc<dyn History>,
        news: watch::Receiver<()>,
        prefix: KeyPrefix,
        after: Revision,
    ) -> Self {
        Self {
            history,
            news,
            prefix,
            seen: after,
            ready: VecDeque::new(),
            is_current: false,
            end: None,
        }
    }

    /// A watch that has ended before it began.
    pub(crate) fn ended(mut self, end: WatchEnd) -> Self {
        self.end = Some(end);
        self
    }

    async fn advance(&mut self) -> Result<(), WatchEnd> {
        // Marked as seen before it is read: what comes in between wakes the next call.
        self.news.borrow_and_update();
        let page = self.history.after(self.seen.commit).await?;
        if page.until > self.seen.commit || !self.is_current {
            self.take(page);
            return Ok(());
        }
        let changed = self.news.changed().await;
        changed.map_err(|_| WatchEnd::Lost("the store was closed".to_owned()))
    }

    fn take(&mut self, page: Page) {
        let epoch = self.seen.epoch;
        for commit in page.commits {
            let mut changes = commit.changes;
            changes.retain(|change| self.prefix.contains(change.key()));
            if !changes.is_empty() {
                let revision = Revision {
                    epoch,
                    commit: commit.number,
                };
                self.ready.push_back(Event::Commit { revision, changes });
            }
        }
        self.seen.commit = page.until;
        if page.is_newest {
            self.is_current = true;
            self.ready.push_back(Event::Progress(self.seen));
        }
    }
}

#[async_trait]
impl Watch for Follower {
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
            }
        }
    }
}
