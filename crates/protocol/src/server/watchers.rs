//! One task that takes the feed, keeps the distribution, and fills outboxes.
//!
//! Fencing: of two agents that are connected under one host name, the instance that started later is right. The other
//! is told why, and stops following. Only this server's connections are known here.

use crate::Instance;
use crate::messages::ClosingReason;
use crate::server::outbox::Outbox;
use crate::server::table::{HostStatus, Lag, Report, Table};
use distribution::{Distribution, Messages};
use model::{HostId, Inventory, InventoryChange, PortId, Revision};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

/// What the store's watch comes to.
#[derive(Clone, Debug)]
pub enum Feed {
    Replaced(Inventory),
    Changed(InventoryChange),
}

#[derive(Clone, Debug)]
pub struct Limits {
    /// Objects that wait for one host; beyond it gets its whole part again.
    pub waiting_objects: usize,
    /// Parts that are made and sent at the same time: each is in memory meanwhile.
    pub parts_at_once: usize,
    /// A part that isn't taken within this time closes the connection, so that others get theirs.
    pub part: Duration,
    /// The same of any other message.
    pub message: Duration,
    /// Who had nothing to hear is told how far the store is, this often at most.
    pub progress: Duration,
    /// And, if nothing happens at all, that the server is there.
    pub heartbeat: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            waiting_objects: 20_000,
            parts_at_once: 32,
            part: Duration::from_secs(120),
            message: Duration::from_secs(30),
            progress: Duration::from_secs(1),
            heartbeat: Duration::from_secs(10),
        }
    }
}

/// Cheap to clone: all are one.
#[derive(Clone)]
pub struct Watchers {
    commands: mpsc::Sender<Command>,
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) parts: Semaphore,
    pub(crate) table: Table,
    committed: watch::Sender<Revision>,
}

/// Connections have numbers, so that the end of an old one isn't taken for that of the new.
#[derive(Clone)]
pub(crate) struct Subscriber {
    pub(crate) host: HostId,
    pub(crate) instance: Instance,
    pub(crate) software: String,
    pub(crate) outbox: Arc<Outbox>,
}

enum Command {
    Feed(Feed),
    Subscribe(Subscriber, oneshot::Sender<Result<Revision, Unwelcome>>),
    MakePart(Subscriber),
    Gone(Subscriber),
    Report(Subscriber, Report),
    Shutdown,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Unwelcome {
    #[error("this server has no policy yet")]
    NotReady,
    #[error("another agent of host {host} is connected that started later")]
    Fenced { host: HostId },
    #[error("this server is about to stop")]
    Stopping,
}

/// Commands that wait; beyond, whoever has one waits.
const COMMANDS: usize = 1024;

impl Watchers {
    /// On the current runtime. The task ends with the last handle.
    pub fn start(limits: Limits) -> Self {
        let (commands, received) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared {
            parts: Semaphore::new(limits.parts_at_once),
            limits,
            table: Table::default(),
            committed: watch::Sender::new(Revision::default()),
        });
        let keeper = Keeper {
            distribution: Distribution::default(),
            connected: HashMap::new(),
            is_ready: false,
            is_stopping: false,
            shared: Arc::clone(&shared),
            told: Revision::default(),
        };
        tokio::spawn(keeper.run(received));
        Self { commands, shared }
    }

    /// Returns when it is on its way, which is in order.
    pub async fn feed(&self, feed: Feed) {
        self.command(Command::Feed(feed)).await;
    }

    /// Agents are told to go elsewhere; no new ones are taken.
    pub async fn shutdown(&self) {
        self.command(Command::Shutdown).await;
    }

    /// Of the inventory that hosts are being told.
    pub fn committed(&self) -> Revision {
        *self.shared.committed.borrow()
    }

    /// All that were ever connected.
    pub fn hosts(&self) -> BTreeMap<HostId, HostStatus> {
        self.shared.table.hosts().clone()
    }

    pub fn host(&self, host: &HostId) -> Option<HostStatus> {
        self.look(host, HostStatus::clone)
    }

    /// Without a copy of it.
    pub fn look<T>(&self, host: &HostId, at: impl FnOnce(&HostStatus) -> T) -> Option<T> {
        self.shared.table.hosts().get(host).map(at)
    }

    pub fn lag(&self, host: &HostId) -> Lag {
        let lag = self.look(host, |status| status.lag(self.committed()));
        lag.unwrap_or(Lag::Unknown)
    }

    pub fn enforced(&self, host: &HostId, port: &PortId) -> Option<Revision> {
        self.look(host, |status| status.enforced(port))?
    }

    /// A host that is no more.
    pub fn forget(&self, host: &HostId) {
        self.shared.table.hosts().remove(host);
    }

    pub(crate) async fn subscribe(&self, subscriber: Subscriber) -> Result<Revision, Unwelcome> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Subscribe(subscriber, answer)).await;
        answered.await.unwrap_or(Err(Unwelcome::Stopping))
    }

    pub(crate) async fn make_part(&self, subscriber: &Subscriber) {
        self.command(Command::MakePart(subscriber.clone())).await;
    }

    pub(crate) async fn gone(&self, subscriber: &Subscriber) {
        self.command(Command::Gone(subscriber.clone())).await;
    }

    pub(crate) async fn report(&self, subscriber: &Subscriber, report: Report) {
        let command = Command::Report(subscriber.clone(), report);
        self.command(command).await;
    }

    /// The task is there as long as a handle is, but while the runtime stops.
    async fn command(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }
}

struct Keeper {
    distribution: Distribution,
    connected: HashMap<HostId, Subscriber>,
    /// Before the first inventory there is nothing to tell, and that isn't the same as that there is nothing.
    is_ready: bool,
    is_stopping: bool,
    shared: Arc<Shared>,
    /// The progress that all were told.
    told: Revision,
}

impl Keeper {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut progress = tokio::time::interval(self.shared.limits.progress);
        let mut heartbeat = tokio::time::interval(self.shared.limits.heartbeat);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                _ = progress.tick() => self.tell_progress(false),
                _ = heartbeat.tick() => self.tell_progress(true),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Feed(Feed::Replaced(inventory)) => self.replace(inventory),
            Command::Feed(Feed::Changed(change)) => self.change(change),
            Command::Subscribe(subscriber, answer) => {
                // Who doesn't wait any more says so by `Gone`.
                let _ = answer.send(self.subscribe(subscriber));
            }
            Command::MakePart(subscriber) if self.is_current(&subscriber) => {
                let part = self.distribution.subscribe(&subscriber.host);
                subscriber.outbox.put_part(part);
            }
            Command::Gone(subscriber) if self.is_current(&subscriber) => {
                let host = &subscriber.host;
                self.connected.remove(host);
                self.distribution.unsubscribe(host);
                self.shared
                    .table
                    .update(host, |status| status.is_connected = false);
            }
            Command::Report(subscriber, report) if self.is_current(&subscriber) => {
                let host = &subscriber.host;
                self.shared
                    .table
                    .update(host, |status| status.report = Some(report));
            }
            Command::MakePart(_) | Command::Gone(_) | Command::Report(..) => {}
            Command::Shutdown => {
                self.is_stopping = true;
                for subscriber in self.connected.values() {
                    let outbox = &subscriber.outbox;
                    outbox.close(ClosingReason::Shutdown, "this server stops");
                }
            }
        }
    }

    fn is_current(&self, subscriber: &Subscriber) -> bool {
        let current = self.connected.get(&subscriber.host);
        current.is_some_and(|current| Arc::ptr_eq(&current.outbox, &subscriber.outbox))
    }

    fn replace(&mut self, inventory: Inventory) {
        let (before, after) = (self.distribution.revision(), inventory.revision);
        if self.is_ready && after < before {
            warn!(%before, %after, "an inventory from before what is known was left out");
            return;
        }
        let messages = self.distribution.replace(inventory);
        if self.is_ready && after.epoch != before.epoch {
            warn!(%before, %after, "the store was restored: all hosts get their policy anew");
            for subscriber in self.connected.values() {
                subscriber.outbox.resync();
            }
        }
        self.is_ready = true;
        self.send(messages);
    }

    fn change(&mut self, change: InventoryChange) {
        let (before, after) = (self.distribution.revision(), change.revision);
        // Older than what is known, it would bring back what is gone.
        if !self.is_ready || after.epoch != before.epoch || after.commit <= before.commit {
            warn!(%before, %after, "a change that doesn't follow on what is known was left out");
            return;
        }
        let messages = self.distribution.change(change);
        self.send(messages);
    }

    fn send(&mut self, messages: Messages) {
        for (host, change) in messages {
            let Some(subscriber) = self.connected.get(&host) else {
                continue;
            };
            if subscriber.outbox.put_change(change) {
                warn!(%host, "too much waits for a slow agent: it gets its policy anew");
            }
        }
        let committed = self.distribution.revision();
        self.shared.committed.send_replace(committed);
    }

    fn subscribe(&mut self, subscriber: Subscriber) -> Result<Revision, Unwelcome> {
        if self.is_stopping {
            return Err(Unwelcome::Stopping);
        }
        if !self.is_ready {
            return Err(Unwelcome::NotReady);
        }
        let host = subscriber.host.clone();
        if let Some(current) = self.connected.get(&host) {
            let (old, new) = (current.instance, subscriber.instance);
            if new < old {
                self.shared.table.update(&host, |status| status.fenced += 1);
                warn!(%host, ?old, ?new, "an agent was turned away: a later one follows for this host");
                return Err(Unwelcome::Fenced { host });
            }
            if new == old {
                let why = "the same agent has connected again";
                current.outbox.close(ClosingReason::Replaced, why);
            } else {
                self.shared.table.update(&host, |status| status.fenced += 1);
                warn!(%host, ?old, ?new, "an agent was fenced: a later one follows for this host");
                let why = format!("an agent that started later follows for host {host}");
                current.outbox.close(ClosingReason::Fenced, why);
            }
            // Until the new one asks for its part, nobody hears.
            self.distribution.unsubscribe(&host);
        }
        self.shared.table.update(&host, |status| {
            status.instance = subscriber.instance;
            status.software.clone_from(&subscriber.software);
            status.is_connected = true;
        });
        info!(%host, software = subscriber.software, "an agent follows");
        self.connected.insert(host, subscriber);
        Ok(self.distribution.revision())
    }

    fn tell_progress(&mut self, anyway: bool) {
        let revision = self.distribution.revision();
        if !anyway && revision == self.told {
            return;
        }
        self.told = revision;
        for subscriber in self.connected.values() {
            subscriber.outbox.put_progress(revision);
        }
    }
}
