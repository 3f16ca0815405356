//! One task that takes the feed, keeps the distribution, and fills outboxes.
//!
//! Fencing: of two agents that are connected under one host name, the instance that started later is right. The other
//! is told why, and stops following. Of other servers' connections this one hears ([`Elsewhere`]); whoever feeds it
//! learns by [`Watchers::news`] of whom to tell them.

use crate::Connection;
use crate::messages::ClosingReason;
use crate::server::outbox::Outbox;
use crate::server::table::{HostStatus, Lag, Report, Table};
use distribution::{Distribution, Messages, Work};
use model::{HostId, Inventory, InventoryChange, PortId, Revision};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

/// What the store's watch comes to.
#[derive(Clone, Debug)]
pub enum Feed {
    Replaced(Inventory),
    Changed(InventoryChange),
    /// Nothing that a host could need: none is told before the next heartbeat.
    Progress(Revision),
}

/// The connections that hosts have to other servers.
#[derive(Clone, Debug)]
pub enum Elsewhere {
    /// All that there are.
    All(BTreeMap<HostId, Connection>),
    /// Of these hosts; `None`: there is none any more.
    Changed(BTreeMap<HostId, Option<Connection>>),
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
    /// Hosts of which others have to hear, and that there are some.
    concerned: Mutex<BTreeSet<HostId>>,
    news: Notify,
    committed: watch::Sender<Revision>,
}

/// Connections have numbers, so that the end of an old one isn't taken for that of the new.
#[derive(Clone)]
pub(crate) struct Subscriber {
    pub(crate) host: HostId,
    pub(crate) connection: Connection,
    pub(crate) software: String,
    pub(crate) outbox: Arc<Outbox>,
}

pub(crate) enum Command {
    Feed(Feed),
    Elsewhere(Elsewhere),
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
    #[error("this agent has another connection that came later")]
    Late,
    #[error("this server is about to stop")]
    Stopping,
}

/// Commands that wait; beyond, whoever has one waits.
const COMMANDS: usize = 1024;

impl Watchers {
    /// On the current runtime. The task ends with the last handle.
    pub fn start(limits: Limits) -> Self {
        let (commands, received) = mpsc::channel(COMMANDS);
        let keeper = Keeper::new(limits);
        let shared = Arc::clone(&keeper.shared);
        tokio::spawn(keeper.run(received));
        Self { commands, shared }
    }

    /// Returns when it is on its way, which is in order.
    pub async fn feed(&self, feed: Feed) {
        self.command(Command::Feed(feed)).await;
    }

    /// Of what is heard later comes later.
    pub async fn elsewhere(&self, elsewhere: Elsewhere) {
        self.command(Command::Elsewhere(elsewhere)).await;
    }

    /// Hosts of which there is news since the last time: they come, go, or report. Waits until there is some.
    pub async fn news(&self) -> BTreeSet<HostId> {
        loop {
            let news = self.shared.news.notified();
            let concerned = self.shared.take_concerned();
            if !concerned.is_empty() {
                return concerned;
            }
            news.await;
        }
    }

    /// There is news of these as well.
    pub fn concern(&self, hosts: impl IntoIterator<Item = HostId>) {
        self.shared.concern_all(hosts);
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

impl Shared {
    fn concerned(&self) -> MutexGuard<'_, BTreeSet<HostId>> {
        let locked = self.concerned.lock();
        locked.expect("nobody panics who holds this lock")
    }

    pub(crate) fn take_concerned(&self) -> BTreeSet<HostId> {
        std::mem::take(&mut *self.concerned())
    }

    fn concern(&self, host: &HostId) {
        self.concern_all([host.clone()]);
    }

    pub(crate) fn concern_all(&self, hosts: impl IntoIterator<Item = HostId>) {
        self.concerned().extend(hosts);
        self.news.notify_one();
    }
}

/// What the task knows, and does at each command.
pub(crate) struct Keeper {
    distribution: Distribution,
    connected: HashMap<HostId, Subscriber>,
    elsewhere: HashMap<HostId, Connection>,
    /// Before the first inventory there is nothing to tell, and that isn't the same as that there is nothing.
    is_ready: bool,
    is_stopping: bool,
    pub(crate) shared: Arc<Shared>,
    /// The newest revision of something that hosts might need.
    policy: Revision,
    /// The progress that all were told.
    told: Revision,
}

impl Keeper {
    pub(crate) fn new(limits: Limits) -> Self {
        let shared = Arc::new(Shared {
            parts: Semaphore::new(limits.parts_at_once),
            limits,
            table: Table::default(),
            concerned: Mutex::default(),
            news: Notify::new(),
            committed: watch::Sender::new(Revision::default()),
        });
        Self {
            distribution: Distribution::default(),
            connected: HashMap::new(),
            elsewhere: HashMap::new(),
            is_ready: false,
            is_stopping: false,
            shared,
            policy: Revision::default(),
            told: Revision::default(),
        }
    }

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

    pub(crate) fn obey(&mut self, command: Command) {
        match command {
            Command::Feed(feed) => drop(self.take(feed)),
            Command::Elsewhere(elsewhere) => self.hear_of(elsewhere),
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
                // When all are sent away, they will be heard of from where they go.
                if !self.is_stopping {
                    self.shared.concern(host);
                }
            }
            Command::Report(subscriber, report) if self.is_current(&subscriber) => {
                let host = &subscriber.host;
                self.shared
                    .table
                    .update(host, |status| status.report = Some(report));
                self.shared.concern(host);
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

    pub(crate) fn work(&self) -> Work {
        self.distribution.work()
    }

    /// Hosts that are told something of it.
    pub(crate) fn take(&mut self, feed: Feed) -> Vec<HostId> {
        match feed {
            Feed::Replaced(inventory) => self.replace(inventory),
            Feed::Changed(change) => self.change(change, true),
            Feed::Progress(revision) => {
                let nothing = InventoryChange {
                    revision,
                    ..InventoryChange::default()
                };
                self.change(nothing, false)
            }
        }
    }

    /// As if it had been sent all of its part as of now.
    pub(crate) fn follow_from_now(&mut self, subscriber: &Subscriber) {
        if self.is_current(subscriber) {
            self.distribution.follow(&subscriber.host);
            subscriber.outbox.begin_now();
        }
    }

    fn is_current(&self, subscriber: &Subscriber) -> bool {
        let current = self.connected.get(&subscriber.host);
        current.is_some_and(|current| Arc::ptr_eq(&current.outbox, &subscriber.outbox))
    }

    fn replace(&mut self, inventory: Inventory) -> Vec<HostId> {
        let (before, after) = (self.distribution.revision(), inventory.revision);
        if self.is_ready && after < before {
            warn!(%before, %after, "an inventory from before what is known was left out");
            return Vec::new();
        }
        let messages = self.distribution.replace(inventory);
        if self.is_ready && after.epoch != before.epoch {
            warn!(%before, %after, "the store was restored: all hosts get their policy anew");
            for subscriber in self.connected.values() {
                subscriber.outbox.resync();
            }
        }
        self.is_ready = true;
        self.policy = after;
        self.send(messages)
    }

    fn change(&mut self, change: InventoryChange, is_policy: bool) -> Vec<HostId> {
        let (before, after) = (self.distribution.revision(), change.revision);
        // Older than what is known, it would bring back what is gone.
        if !self.is_ready || after.epoch != before.epoch || after.commit <= before.commit {
            warn!(%before, %after, "a change that doesn't follow on what is known was left out");
            return Vec::new();
        }
        if is_policy {
            self.policy = after;
        }
        let messages = self.distribution.change(change);
        self.send(messages)
    }

    fn send(&mut self, messages: Messages) -> Vec<HostId> {
        let mut told = Vec::new();
        for (host, change) in messages {
            let Some(subscriber) = self.connected.get(&host) else {
                continue;
            };
            if subscriber.outbox.put_change(change) {
                warn!(%host, "too much waits for a slow agent: it gets its policy anew");
            }
            told.push(host);
        }
        let committed = self.distribution.revision();
        self.shared.committed.send_replace(committed);
        told
    }

    pub(crate) fn subscribe(&mut self, subscriber: Subscriber) -> Result<Revision, Unwelcome> {
        if self.is_stopping {
            return Err(Unwelcome::Stopping);
        }
        if !self.is_ready {
            return Err(Unwelcome::NotReady);
        }
        let host = subscriber.host.clone();
        let new = subscriber.connection;
        let current = self.connected.get(&host);
        let here = current.map(|current| current.connection);
        let elsewhere = self.elsewhere.get(&host).copied();
        if let Some(latest) = here.max(elsewhere).filter(|latest| new < *latest) {
            return Err(self.turned_away(host, new, latest));
        }
        if let Some(current) = current {
            if new.instance == current.connection.instance {
                let why = "the same agent has connected again";
                current.outbox.close(ClosingReason::Replaced, why);
            } else {
                self.fence(current, new);
            }
            // Until the new one asks for its part, nobody hears.
            self.distribution.unsubscribe(&host);
        }
        self.shared.table.update(&host, |status| {
            status.instance = new.instance;
            status.turn = new.turn;
            // What it said on an earlier connection may no longer be so.
            status.report = None;
            status.software.clone_from(&subscriber.software);
            status.is_connected = true;
        });
        info!(%host, software = subscriber.software, "an agent follows");
        self.shared.concern(&host);
        self.connected.insert(host, subscriber);
        Ok(self.distribution.revision())
    }

    fn turned_away(&self, host: HostId, new: Connection, latest: Connection) -> Unwelcome {
        if new.instance == latest.instance {
            return Unwelcome::Late;
        }
        self.shared.table.update(&host, |status| status.fenced += 1);
        warn!(%host, old = ?latest, ?new, "an agent was turned away: a later one follows for this host");
        Unwelcome::Fenced { host }
    }

    fn fence(&self, current: &Subscriber, new: Connection) {
        let (host, old) = (&current.host, current.connection);
        self.shared.table.update(host, |status| status.fenced += 1);
        warn!(%host, ?old, ?new, "an agent was fenced: a later one follows for this host");
        let why = format!("an agent that started later follows for host {host}");
        current.outbox.close(ClosingReason::Fenced, why);
    }

    fn hear_of(&mut self, elsewhere: Elsewhere) {
        let changed = match elsewhere {
            Elsewhere::Changed(changed) => changed,
            Elsewhere::All(all) => {
                self.elsewhere.clear();
                all.into_iter()
                    .map(|(host, connection)| (host, Some(connection)))
                    .collect()
            }
        };
        for (host, connection) in changed {
            if let Some(current) = self.connected.get(&host) {
                self.yield_to(current, connection);
            }
            match connection {
                Some(connection) => self.elsewhere.insert(host, connection),
                None => self.elsewhere.remove(&host),
            };
        }
    }

    /// To a later connection. Of an earlier one, or none, others have to hear that there is this one.
    fn yield_to(&self, current: &Subscriber, elsewhere: Option<Connection>) {
        match elsewhere.filter(|elsewhere| *elsewhere > current.connection) {
            None => self.shared.concern(&current.host),
            Some(later) if later.instance == current.connection.instance => {
                let why = "the same agent follows another server";
                current.outbox.close(ClosingReason::Replaced, why);
            }
            Some(later) => self.fence(current, later),
        }
    }

    pub(crate) fn tell_progress(&mut self, anyway: bool) {
        let revision = self.distribution.revision();
        if !anyway && self.policy <= self.told {
            return;
        }
        self.told = revision;
        for subscriber in self.connected.values() {
            subscriber.outbox.put_progress(revision);
        }
    }
}
