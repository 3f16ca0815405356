//! Commits: one at a time is under way to etcd, if it isn't slow, and those who wait meanwhile go together.
//!
//! Place on the line: **store commit**.
//!
//! ```text
//! nobody is under way:  commit -------------------------------> etcd
//! somebody is:          wait -> joined with whom they may be -> etcd -+-> done: all of them, with one revision
//!                                                                     +-> nothing is done: each by itself
//!                                                                     +-> not known: of none of them
//! ```
//! So a round trip and an fsync are for as many as wait, and nobody waits for others to come.
//!
//! Invariants: what may have been done is never sent again. No commit takes longer than the timeout. What was
//! decided in one epoch isn't committed in another.
//! Knows nothing of: which transactions may be joined, how one is said to etcd.

use crate::call::Calls;
use crate::epoch::Epoch;
use crate::join::Join;
use crate::layout::Layout;
use crate::transaction::{self, Refused};
use etcd_client::Client;
use model::Revision;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use store::{CommitError, Transaction};
use tokio::runtime::Handle;
use tokio::sync::oneshot::{self, error::RecvError};
use tokio::time::{Instant, timeout};

pub(crate) struct Commits {
    client: Client,
    layout: Layout,
    calls: Calls,
    /// The last one that was read. A transaction that finds another one does nothing.
    epoch: AtomicU64,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// When one ends, those who wait are next.
    turns: usize,
    waiting: Vec<Waiting>,
    /// How often those who waited were taken.
    taken: u64,
}

struct Waiting {
    transaction: Transaction,
    epoch: Epoch,
    until: Instant,
    answer: oneshot::Sender<Answer>,
}

type Answer = Result<Revision, CommitError>;

enum Entered {
    /// Nobody is under way.
    First(Transaction),
    Waits {
        answered: oneshot::Receiver<Answer>,
        /// As it was then.
        taken: u64,
    },
}

/// Theirs who are under way. However it ends, also by whoever committed being gone, the next one begins.
struct Turn {
    commits: Arc<Commits>,
    runtime: Handle,
}

/// At least one; of one epoch.
struct Group {
    join: Join,
    members: Vec<Waiting>,
}

/// So long those who wait do so for others: a member of etcd that is silent holds up who asked it, and nobody else.
const PATIENCE: Duration = Duration::from_millis(100);

impl Commits {
    pub(crate) fn new(client: Client, layout: Layout, calls: Calls, epoch: Epoch) -> Self {
        Self {
            client,
            layout,
            calls,
            epoch: AtomicU64::new(epoch.0),
            queue: Mutex::default(),
        }
    }

    pub(crate) fn renewed(&self, old: Epoch, new: Epoch) {
        // Unless another one has been read meanwhile.
        let _ = self
            .epoch
            .compare_exchange(old.0, new.0, Ordering::SeqCst, Ordering::SeqCst);
    }

    pub(crate) async fn commit(self: &Arc<Self>, transaction: Transaction) -> Answer {
        let epoch = self.epoch();
        let until = Instant::now() + self.calls.timeout();
        let entered = self.queue().enter(transaction, epoch, until);
        match entered {
            Entered::First(transaction) => {
                let _turn = self.turn();
                let sent = self.send(&transaction, epoch, None, self.calls);
                sent.await.map_err(|refused| self.error(refused))
            }
            Entered::Waits { answered, taken } => {
                let answer = self.wait(answered, taken).await;
                answer.unwrap_or_else(|_| {
                    let why = "the runtime has ended".to_owned();
                    Err(CommitError::Unknown(why))
                })
            }
        }
    }

    async fn wait(
        self: &Arc<Self>,
        mut answered: oneshot::Receiver<Answer>,
        taken: u64,
    ) -> Result<Answer, RecvError> {
        if let Ok(answer) = timeout(PATIENCE, &mut answered).await {
            return answer;
        }
        let waiting = self.queue().take_beside(taken);
        if let Some(waiting) = waiting {
            begin(waiting, self.turn());
        }
        answered.await
    }

    /// One of those that the queue has counted.
    fn turn(self: &Arc<Self>) -> Turn {
        Turn {
            commits: self.clone(),
            runtime: Handle::current(),
        }
    }

    /// With nobody. The records written live as long as the lease does.
    pub(crate) async fn commit_leased(&self, transaction: &Transaction, lease: i64) -> Answer {
        let sent = self.send(transaction, self.epoch(), Some(lease), self.calls);
        sent.await.map_err(|refused| self.error(refused))
    }

    async fn send(
        &self,
        transaction: &Transaction,
        epoch: Epoch,
        lease: Option<i64>,
        calls: Calls,
    ) -> Result<Revision, Refused> {
        let (client, layout) = (&self.client, &self.layout);
        transaction::commit(client, layout, calls, epoch, transaction, lease).await
    }

    fn error(&self, refused: Refused) -> CommitError {
        match refused {
            Refused::OtherEpoch(epoch) => {
                self.epoch.store(epoch.0, Ordering::SeqCst);
                CommitError::Conflict(None)
            }
            Refused::Error(error) => error,
        }
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics while it is held")
    }
}

impl Queue {
    fn enter(&mut self, transaction: Transaction, epoch: Epoch, until: Instant) -> Entered {
        if self.turns == 0 {
            self.turns = 1;
            return Entered::First(transaction);
        }
        let (answer, answered) = oneshot::channel();
        self.waiting.push(Waiting {
            transaction,
            epoch,
            until,
            answer,
        });
        let taken = self.taken;
        Entered::Waits { answered, taken }
    }

    /// For the turn after one that has ended; `None` if nobody waits.
    fn take_after(&mut self) -> Option<Vec<Waiting>> {
        if self.waiting.is_empty() {
            self.turns -= 1;
            return None;
        }
        Some(self.take())
    }

    /// For one more turn; `None` if who waited then does so no longer.
    fn take_beside(&mut self, taken: u64) -> Option<Vec<Waiting>> {
        (self.taken == taken).then(|| {
            self.turns += 1;
            self.take()
        })
    }

    fn take(&mut self) -> Vec<Waiting> {
        self.taken += 1;
        std::mem::take(&mut self.waiting)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let waiting = self.commits.queue().take_after();
        if let Some(waiting) = waiting {
            let next = Turn {
                commits: self.commits.clone(),
                runtime: self.runtime.clone(),
            };
            begin(waiting, next);
        }
    }
}

fn begin(waiting: Vec<Waiting>, turn: Turn) {
    let turn = Arc::new(turn);
    for group in gather(waiting) {
        start(group, turn.clone());
    }
}

/// Those that can't be joined go beside each other.
fn gather(waiting: Vec<Waiting>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    // Who has gone isn't waited for.
    for one in waiting.into_iter().filter(|one| !one.answer.is_closed()) {
        let mut others = groups.iter_mut();
        let joined = others.find_map(|group| group.take(&one).then_some(group));
        match joined {
            Some(group) => group.members.push(one),
            None => groups.push(Group::of(one)),
        }
    }
    groups
}

fn start(group: Group, turn: Arc<Turn>) {
    let runtime = turn.runtime.clone();
    runtime.spawn(group.commit(turn));
}

impl Group {
    fn of(one: Waiting) -> Self {
        Self {
            join: Join::of(&one.transaction),
            members: vec![one],
        }
    }

    /// Whether it was possible.
    fn take(&mut self, one: &Waiting) -> bool {
        self.members[0].epoch == one.epoch && self.join.take(&one.transaction)
    }

    /// Nothing was done of what was refused together, so each may be tried by itself.
    async fn commit(self, turn: Arc<Turn>) {
        let Self { join, members } = self;
        let commits = &turn.commits;
        let until = members.iter().map(|one| one.until).min();
        let calls = until.and_then(|until| commits.calls.until(until));
        let Some(calls) = calls else {
            let why = "etcd was busy for too long with what came before".to_owned();
            return tell(members, &Err(CommitError::Unavailable(why)));
        };
        let epoch = members[0].epoch;
        match commits.send(&join.transaction(), epoch, None, calls).await {
            Ok(revision) => tell(members, &Ok(revision)),
            Err(Refused::Error(CommitError::Conflict(_) | CommitError::Broken(_)))
                if members.len() > 1 =>
            {
                for one in members {
                    start(Self::of(one), turn.clone());
                }
            }
            Err(refused) => tell(members, &Err(commits.error(refused))),
        }
    }
}

fn tell(members: Vec<Waiting>, answer: &Answer) {
    for one in members {
        // Whoever asked may have gone.
        let _ = one.answer.send(answer.clone());
    }
}
