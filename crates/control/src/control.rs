//! Use cases are carried out: decided on the copy, committed under conditions, decided anew if somebody was faster.
//!
//! Place on the line: **use case -> store commit -> watch** -> inventory.
//!
//! ```text
//! decide(&State) -> Transaction --commit--> store
//!      ^  conflict: wait for news             |
//!      +---------------------- copy <--watch--+--> observers: in order, each commit once
//! ```
//! Invariants: an answer is given when the copy has the commit, so whoever reads next sees it. Nothing is tried
//! again whose outcome isn't known.
//! Knows nothing of: what is decided.

use crate::ids::{self, Moment};
use crate::objects::Quota;
use crate::refused::{Failed, OpenError, Refused};
use crate::state::{Changed, State};
use crate::template;
use async_trait::async_trait;
use model::Revision;
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::Duration;
use store::{Event, KeyPrefix, ReadError, Store, Transaction, Watch, WatchEnd};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

/// What a use case wants written, and what it says then.
pub struct Decided<T> {
    pub transaction: Transaction,
    pub answer: T,
}

impl Decided<()> {
    /// It is so already.
    pub(crate) fn nothing() -> Self {
        Self {
            transaction: Transaction::new(),
            answer: (),
        }
    }
}

/// Told of each commit, in order, while the copy can't change: take what is needed and be quick.
#[async_trait]
pub trait Observer: Send {
    /// The copy was made anew; what was told before may have missed something.
    fn listed(&mut self, state: &State);
    fn committed(&mut self, state: &State, changes: &[Changed]);

    /// After each of these: for what takes time. The copy waits for it before it goes on, so that nothing piles up.
    async fn pass_on(&mut self) {}
}

pub struct Control {
    store: Arc<dyn Store>,
    state: Arc<RwLock<State>>,
    /// The copy's revision.
    seen: watch::Receiver<Revision>,
    follower: JoinHandle<()>,
    /// For those of this process who were too late: they don't get in each other's way again.
    turns: Mutex<()>,
}

const MOST_TRIES: usize = 32;
/// So long a decision that was too late waits for what made it so.
const NEWS: Duration = Duration::from_millis(500);
/// And an answer for its commit.
const OWN_COMMIT: Duration = Duration::from_secs(5);
const WATCH_AGAIN: Duration = Duration::from_millis(200);

impl Control {
    /// With a copy that is whole, and what every store has at least. Quotas are the usual ones.
    pub async fn open(
        store: Arc<dyn Store>,
        observers: Vec<Box<dyn Observer>>,
    ) -> Result<Self, OpenError> {
        Self::open_with(store, observers, Quota::default()).await
    }

    /// `defaults`: quotas of projects that have none of their own.
    pub async fn open_with(
        store: Arc<dyn Store>,
        observers: Vec<Box<dyn Observer>>,
        defaults: Quota,
    ) -> Result<Self, OpenError> {
        let control = Self::follow(store, observers, defaults).await?;
        control
            .carry_out(|state, now| Ok(template::built_in(state, now, &mut ids::new_id)))
            .await?;
        if let Err(error) = control.sweep_all().await {
            warn!(%error, "what deleted groups have left stays, unseen, until the next start");
        }
        Ok(control)
    }

    async fn follow(
        store: Arc<dyn Store>,
        mut observers: Vec<Box<dyn Observer>>,
        defaults: Quota,
    ) -> Result<Self, ReadError> {
        let mut state = State::read(&*store).await?;
        state.defaults = defaults;
        tell_unreadable(&state);
        for observer in &mut observers {
            observer.listed(&state);
            observer.pass_on().await;
        }
        let (told, seen) = watch::channel(state.revision);
        let state = Arc::new(RwLock::new(state));
        let follower = Follower {
            store: store.clone(),
            state: state.clone(),
            told,
            observers,
            silent: false,
        };
        let follower = tokio::spawn(follower.follow());
        Ok(Self {
            store,
            state,
            seen,
            follower,
            turns: Mutex::default(),
        })
    }

    /// Don't hold it across an await.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("nothing panics while it writes")
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Carries out what is decided, however often it has to be decided.
    pub async fn carry_out<T>(
        &self,
        mut decide: impl FnMut(&State, &Moment) -> Result<Decided<T>, Refused>,
    ) -> Result<T, Failed> {
        let mut turn = None;
        for _ in 0..MOST_TRIES {
            let (decided, on) = {
                let state = self.state();
                (decide(&state, &Moment::now())?, state.revision)
            };
            if decided.transaction.writes().is_empty() {
                return Ok(decided.answer);
            }
            match self.store.commit(decided.transaction).await {
                Ok(revision) => {
                    self.wait_for(revision).await?;
                    return Ok(decided.answer);
                }
                Err(error) => match Failed::of(error) {
                    Some(failed) => return Err(failed),
                    None => self.wait_for_news(on).await,
                },
            }
            if turn.is_none() {
                turn = Some(self.turns.lock().await);
            }
        }
        Err(Failed::Busy)
    }

    /// Until the copy has this commit.
    pub async fn wait_for(&self, revision: Revision) -> Result<(), Failed> {
        let mut seen = self.seen.clone();
        match timeout(OWN_COMMIT, seen.wait_for(|seen| *seen >= revision)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Failed::Broken(
                "the copy of the store is no longer kept".into(),
            )),
            Err(_) => Err(Failed::Behind(OWN_COMMIT)),
        }
    }

    async fn wait_for_news(&self, after: Revision) {
        let mut seen = self.seen.clone();
        // Without any, what was in the way may be gone again, or told later: the next try finds out.
        let _ = timeout(NEWS, seen.wait_for(|seen| *seen > after)).await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

struct Follower {
    store: Arc<dyn Store>,
    state: Arc<RwLock<State>>,
    told: watch::Sender<Revision>,
    observers: Vec<Box<dyn Observer>>,
    /// Nothing has come since the watch ended, which was told.
    silent: bool,
}

impl Follower {
    /// Until nobody listens.
    async fn follow(mut self) {
        while !self.told.is_closed() {
            let after = *self.told.borrow();
            let end = match self.store.watch(&KeyPrefix::all(), after).await {
                Ok(mut watch) => self.take_all(&mut *watch).await,
                Err(error) => WatchEnd::Lost(error.to_string()),
            };
            let known = std::mem::replace(&mut self.silent, true);
            match end {
                WatchEnd::Compacted => self.list_anew().await,
                WatchEnd::Lost(why) if known => debug!(why, "the store can't be watched"),
                WatchEnd::Broken(why) if known => debug!(why, "the store is broken"),
                WatchEnd::Lost(why) => warn!(why, "the store is no longer watched; trying again"),
                WatchEnd::Broken(why) => error!(why, "the store is broken; trying again"),
            }
            sleep(WATCH_AGAIN).await;
        }
    }

    async fn take_all(&mut self, watch: &mut dyn Watch) -> WatchEnd {
        loop {
            let event = match watch.next().await {
                Ok(event) => event,
                Err(end) => return end,
            };
            if std::mem::take(&mut self.silent) {
                info!("the store is watched again");
            }
            match event {
                Event::Commit { revision, changes } => self.commit(revision, changes).await,
                Event::Progress(revision) => self.progress(revision),
            }
        }
    }

    async fn commit(&mut self, revision: Revision, changes: Vec<store::Change>) {
        {
            let mut state = self.state.write().expect("nothing panics while it writes");
            let changed = state.commit(revision, changes);
            for observer in &mut self.observers {
                observer.committed(&state, &changed);
            }
        }
        debug!(%revision, "commit seen");
        self.told.send_replace(revision);
        self.pass_on().await;
    }

    fn progress(&mut self, revision: Revision) {
        if revision > *self.told.borrow() {
            self.state
                .write()
                .expect("nothing panics while it writes")
                .revision = revision;
            self.told.send_replace(revision);
        }
    }

    async fn list_anew(&mut self) {
        let mut listed = match State::read(&*self.store).await {
            Ok(listed) => listed,
            Err(error) => return warn!(%error, "the store can't be listed"),
        };
        let revision = listed.revision;
        info!(%revision, "the store was listed anew: changes were missed");
        tell_unreadable(&listed);
        {
            let mut state = self.state.write().expect("nothing panics while it writes");
            listed.defaults = std::mem::take(&mut state.defaults);
            *state = listed;
            for observer in &mut self.observers {
                observer.listed(&state);
            }
        }
        self.told.send_replace(revision);
        self.pass_on().await;
    }

    async fn pass_on(&mut self) {
        for observer in &mut self.observers {
            observer.pass_on().await;
        }
    }
}

fn tell_unreadable(state: &State) {
    for (key, what) in &state.unreadable {
        error!(%key, what, "a record can't be read, and is left out");
    }
}
