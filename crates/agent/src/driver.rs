//! Carries the core's wishes out: the one thread that writes to the kernel.
//!
//! Place on the line: between the agent's core and the world.
//!
//! ```text
//! watch thread, or a server --+
//! link thread ----------------+--> mailbox (bounded) --> drive: step -> effects -> plane, guard, cache, log
//! asks, signals --------------+                            ^------ results, after what waits in the mailbox
//! ```
//! A full mailbox makes the threads wait; the kernel then drops device messages, and the link thread
//! lists anew. Nothing is lost for good.
//! Knows nothing of: what the events mean, how a plane works, the syntax of policies.

use crate::agent::{Agent, Config, Effect, Encode, Event, Exit, GuardState, PolicyText, Timer};
use crate::cache;
use crate::devices::{self, LinkEvent};
use crate::guard::{Guard, GuardError};
use crate::instance::{Instance, InstanceError};
use crate::pages;
use crate::report::{Progress, SHOWN, Snapshot, more_than_shown};
use crate::watch::{Poke, Watch, WatchError};
use dataplane::{Capabilities, Counters, DataPlane, PortFlows};
use model::{HostId, Inventory, PortId, Revision};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

/// From a policy file's bytes to what they mean, or to sentences about what is wrong.
pub type Parse = Arc<dyn Fn(&[u8]) -> Result<Inventory, Vec<String>> + Send + Sync>;

pub struct Setup {
    pub host: HostId,
    /// Locked by the caller.
    pub instance: Instance,
    pub policy: PolicySource,
    pub confirm: Option<Duration>,
    /// Drop at the bridge what is not armed: devices that the policy names, and these. `None`: no
    /// guard, also none that an earlier agent has left.
    pub guard: Option<BTreeSet<String>>,
}

/// Where the policy comes from, and what is kept of it for the next start.
pub enum PolicySource {
    /// Read by the agent whenever it changes; kept as it is.
    File { path: PathBuf, parse: Parse },
    /// Comes by the mailbox: `InventoryReplaced`, `InventoryChanged`, `ServerUnreached`.
    Server {
        encode: Encode,
        decode: Parse,
        /// Told what has come of it, whenever the agent has nothing more to do.
        tell: Box<dyn Fn(Progress) + Send>,
        /// Gets the flows of ports that go to other hosts.
        departed: Box<dyn Fn(PortId, PortFlows) + Send>,
    },
}

impl PolicySource {
    fn parse(&self) -> &Parse {
        match self {
            PolicySource::File { parse, .. } => parse,
            PolicySource::Server { decode, .. } => decode,
        }
    }

    fn encode(&self) -> Option<Encode> {
        match self {
            PolicySource::File { .. } => None,
            PolicySource::Server { encode, .. } => Some(encode.clone()),
        }
    }
}

/// Something for the agent: from its threads, from signals, from people who ask.
pub enum Input {
    Event(Event),
    Ask(Ask),
    /// A thread that the agent can't do without has ended.
    Lost(String),
}

pub enum Ask {
    Status(Sender<Status>),
    /// Answered with the newest valid policy, as its file says it.
    Policy(Sender<Option<(Revision, Arc<[u8]>)>>),
    /// Answered with whether there was something to confirm.
    Confirm(Sender<bool>),
    /// Answered once enforcement is removed, or with why it could not be.
    Detach(Sender<Result<(), String>>),
}

pub struct Status {
    pub snapshot: Snapshot,
    pub capabilities: Capabilities,
    pub counters: Result<Counters, String>,
}

#[derive(Clone, Debug)]
pub enum Outcome {
    Stopped,
    Detached,
    RolledBack,
    /// Nothing was changed.
    NoPolicy(Vec<String>),
    /// Enforcement stays as it is; why the agent can't go on.
    Lost(String),
    /// Enforcement was to be removed and is not, or not all of it.
    DetachFailed(String),
}

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error("{0}; nothing was changed")]
    Guard(#[from] GuardError),
    #[error("starting a thread: {0}")]
    Thread(std::io::Error),
}

/// Where events and asks go in. Cheap to clone.
#[derive(Clone)]
pub struct Mailbox(SyncSender<Input>);

impl Mailbox {
    const ROOM: usize = 1_024;

    pub fn new() -> (Self, Receiver<Input>) {
        let (sender, receiver) = sync_channel(Self::ROOM);
        (Self(sender), receiver)
    }

    /// `false`: the agent has ended.
    pub fn send(&self, input: Input) -> bool {
        self.0.send(input).is_ok()
    }
}

/// Runs the agent until it is stopped. `on_ready` gets what makes it read the policy file again, if there is one.
pub fn drive(
    plane: &mut dyn DataPlane,
    setup: Setup,
    mailbox: &Mailbox,
    inputs: &Receiver<Input>,
    on_ready: impl FnOnce(Option<Poke>),
) -> Result<Outcome, SetupError> {
    let guard = Guard::new(setup.instance.name());
    if setup.guard.is_some() {
        guard.check()?;
    }
    let confirmed = setup.instance.is_confirmed();
    let agent = Agent::new(Config {
        host: setup.host.clone(),
        ours: setup.instance.ours(),
        confirm: setup.confirm.filter(|_| !confirmed),
        guard_names: setup.guard.clone().unwrap_or_default(),
        audit_every: plane.audit_every(),
        encode: setup.policy.encode(),
    });
    let mut driver = Driver {
        agent,
        plane,
        setup,
        guard,
        guard_in_place: true,
        guarded: None,
        unguarded: BTreeSet::new(),
        started: Instant::now(),
        timers: BTreeMap::new(),
        results: VecDeque::new(),
        detach_askers: Vec::new(),
        cache_complains: false,
        settled: false,
    };
    driver.read_cache();
    on_ready(driver.start_threads(mailbox)?);
    Ok(driver.run(inputs))
}

struct Driver<'a> {
    agent: Agent,
    plane: &'a mut dyn DataPlane,
    setup: Setup,
    guard: Guard,
    /// There may be one of an earlier agent.
    guard_in_place: bool,
    /// What it was last set to, and the generation of nft's rules when it was as it should be.
    guarded: Option<(GuardState, u32)>,
    /// Names that it can't hold, told once.
    unguarded: BTreeSet<String>,
    started: Instant,
    timers: BTreeMap<Timer, Instant>,
    /// What the plane answered; told after everything that waits in the mailbox.
    results: VecDeque<Event>,
    detach_askers: Vec<Sender<Result<(), String>>>,
    /// A disk that stays full is told once.
    cache_complains: bool,
    /// A policy has been in force for a while.
    settled: bool,
}

impl Driver<'_> {
    /// Inputs that are taken before a result at most: a flood must not keep the agent from acting.
    const BURST: usize = 4 * Mailbox::ROOM;

    fn run(mut self, inputs: &Receiver<Input>) -> Outcome {
        let mut burst = 0;
        loop {
            let outcome = if let Some(timer) = self.due() {
                self.step(Event::TimerFired(timer))
            } else {
                match inputs.try_recv() {
                    Ok(input) if burst < Self::BURST || self.results.is_empty() => {
                        burst += 1;
                        self.take(input)
                    }
                    Ok(input) => {
                        burst = 0;
                        let first = self.take_result();
                        first.or_else(|| self.take(input))
                    }
                    Err(TryRecvError::Empty) if !self.results.is_empty() => {
                        burst = 0;
                        self.take_result()
                    }
                    Err(TryRecvError::Empty) => match self.wait(inputs) {
                        Ok(input) => self.take(input),
                        Err(RecvTimeoutError::Timeout) => None,
                        Err(RecvTimeoutError::Disconnected) => self.step(Event::StopAsked),
                    },
                    Err(TryRecvError::Disconnected) => self.step(Event::StopAsked),
                }
            };
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
    }

    fn wait(&mut self, inputs: &Receiver<Input>) -> Result<Input, RecvTimeoutError> {
        if let PolicySource::Server { tell, .. } = &self.setup.policy {
            tell(self.agent.progress());
        }
        inputs.recv_timeout(self.until_due())
    }

    fn take(&mut self, input: Input) -> Option<Outcome> {
        match input {
            Input::Event(event) => self.step(event),
            Input::Lost(what) => Some(Outcome::Lost(what)),
            Input::Ask(Ask::Status(answer)) => {
                // Who asked may have gone; then nobody misses the answer.
                let _ = answer.send(Status {
                    snapshot: self.agent.snapshot(self.now()),
                    capabilities: self.plane.capabilities(),
                    counters: self.plane.counters().map_err(|e| e.to_string()),
                });
                None
            }
            Input::Ask(Ask::Policy(answer)) => {
                let _ = answer.send(self.agent.policy());
                None
            }
            Input::Ask(Ask::Confirm(answer)) => {
                let waiting = self.agent.snapshot(self.now()).confirm_left.is_some();
                let outcome = self.step(Event::Confirmed);
                let _ = answer.send(waiting);
                outcome
            }
            Input::Ask(Ask::Detach(answer)) => {
                self.detach_askers.push(answer);
                self.step(Event::DetachAsked)
            }
        }
    }

    fn take_result(&mut self) -> Option<Outcome> {
        let event = self.results.pop_front()?;
        self.step(event)
    }

    fn step(&mut self, event: Event) -> Option<Outcome> {
        let effects = self.agent.step(self.now(), event);
        let mut detach_error = None;
        for effect in effects {
            match effect {
                Effect::Apply(target) => {
                    let result = match self.plane.apply(&target) {
                        Ok(report) => Event::Applied(report),
                        Err(error) => Event::ApplyFailed(error.to_string()),
                    };
                    self.results.push_back(result);
                }
                Effect::ExportFlows(port) => self.export_flows(port),
                Effect::ImportFlows { port, flows } => self.import_flows(&port, &flows),
                Effect::Audit => {
                    self.look_after_guard();
                    let result = match self.plane.audit() {
                        Ok(drift) => Event::Audited(drift),
                        Err(error) => Event::AuditFailed(error.to_string()),
                    };
                    self.results.push_back(result);
                }
                Effect::Tend => {
                    if let Err(error) = self.plane.tend() {
                        tracing::warn!(%error, "plane not tended");
                    }
                }
                Effect::ReadInterfaceIds => {
                    let result = match self.plane.interface_ids() {
                        Ok(ids) => Event::InterfaceIdsRead(ids),
                        Err(error) => Event::InterfaceIdsUnread(error.to_string()),
                    };
                    self.results.push_back(result);
                }
                Effect::StartTimer(timer, after) => {
                    self.timers.insert(timer, Instant::now() + after);
                }
                Effect::Guard(state) => self.guard(&state),
                Effect::RememberOurs(ours) => {
                    self.warn_of(self.setup.instance.remember_ours(&ours))
                }
                Effect::MarkConfirmed => self.warn_of(self.setup.instance.mark_confirmed()),
                Effect::SaveCache { revision, text } => self.save_cache(revision, &text),
                Effect::Detach => detach_error = self.detach().err(),
                Effect::Report(report) => report.log(),
                Effect::Exit(exit) => {
                    return Some(match (exit, detach_error) {
                        (_, Some(error)) => Outcome::DetachFailed(error),
                        (Exit::Stopped, None) => Outcome::Stopped,
                        (Exit::Detached, None) => Outcome::Detached,
                        (Exit::RolledBack, None) => Outcome::RolledBack,
                        (Exit::NoPolicy(errors), None) => Outcome::NoPolicy(errors),
                    });
                }
            }
        }
        None
    }

    /// Without them the port's connections begin anew at its new host.
    fn export_flows(&mut self, port: PortId) {
        let PolicySource::Server { departed, .. } = &self.setup.policy else {
            return;
        };
        match self.plane.export_flows(&port) {
            Ok(flows) => {
                tracing::info!(%port, flows = flows.flows.len(), "the port moves to another host, and its flows with it");
                departed(port, flows);
            }
            Err(error) => {
                tracing::warn!(%port, %error, "the port moves to another host without its flows");
            }
        }
    }

    fn import_flows(&mut self, port: &PortId, flows: &PortFlows) {
        match self.plane.import_flows(port, flows) {
            Ok(imported) => {
                let left_out: Vec<String> = imported
                    .left_out
                    .iter()
                    .map(|(why, count)| format!("{count} {why}"))
                    .collect();
                let taken = imported.taken;
                tracing::info!(%port, taken, ?left_out, "flows came from the port's earlier host");
            }
            Err(error) => {
                tracing::warn!(%port, %error, "flows from the port's earlier host are not taken in");
            }
        }
    }

    fn detach(&mut self) -> Result<(), String> {
        let plane = self.plane.detach().map_err(|e| e.to_string());
        let guard = self.guard.remove().map_err(|e| e.to_string());
        let result = plane.and(guard);
        if result.is_ok() {
            self.warn_of(self.setup.instance.forget());
        }
        for asker in self.detach_askers.drain(..) {
            let _ = asker.send(result.clone());
        }
        result
    }

    fn guard(&mut self, state: &GuardState) {
        if self.setup.guard.is_none() {
            if self.guard_in_place {
                match self.guard.remove() {
                    Ok(()) => self.guard_in_place = false,
                    Err(error) => tracing::warn!(%error, "an earlier guard may be left"),
                }
            }
            return;
        }
        let unguarded = Guard::unguarded(state);
        let new: Vec<&String> = unguarded.difference(&self.unguarded).collect();
        for name in new.iter().take(SHOWN) {
            tracing::warn!(%name, "the guard can't hold devices of this name; use an exact one, or a * at the end");
        }
        if let Some(more) = more_than_shown(&new) {
            tracing::warn!(more, "more names that the guard can't hold");
        }
        self.unguarded = unguarded;
        let set = match &self.guarded {
            Some((old, _)) => self.guard.change(old, state),
            None => self.guard.set(state),
        };
        match set {
            Ok(()) => self.guarded = generation().map(|now| (state.clone(), now)),
            Err(error) => {
                tracing::error!(%error, armed = state.armed.len(), "guard not changed: devices that came since pass nothing on a bridge");
            }
        }
    }

    /// Others may have taken it away with what is theirs.
    fn look_after_guard(&mut self) {
        let Some((state, seen)) = self.guarded.clone() else {
            return;
        };
        let Some(now) = generation().filter(|now| *now != seen) else {
            return;
        };
        match self.guard.is_in_place(&state) {
            Ok(true) => self.guarded = Some((state, now)),
            Ok(false) => {
                tracing::warn!("the guard was not as it was left; it is put there anew");
                self.guarded = None;
                self.guard(&state);
            }
            Err(error) => tracing::warn!(%error, "guard not looked after"),
        }
    }

    fn save_cache(&mut self, revision: Revision, text: &[u8]) {
        self.settle();
        let saved = cache::save(&self.setup.instance.cache_path(), revision, text);
        match saved {
            Ok(()) => self.cache_complains = false,
            Err(error) if !self.cache_complains => {
                self.cache_complains = true;
                tracing::warn!(%revision, %error, "policy not cached: after a reboot an older one may stand in for a broken file");
            }
            Err(_) => {}
        }
    }

    /// Once: the first policy is in force.
    fn settle(&mut self) {
        let is_news = !std::mem::replace(&mut self.settled, true);
        if is_news && let Err(error) = pages::give_back() {
            tracing::debug!(%error, "more of the program stays in memory than is needed");
        }
    }

    fn warn_of(&self, result: Result<(), InstanceError>) {
        if let Err(error) = result {
            tracing::warn!(%error, "not remembered for the next agent");
        }
    }

    fn read_cache(&mut self) {
        if let Some((policy, revision)) =
            cached_policy(&self.setup.instance, self.setup.policy.parse())
        {
            let outcome = self.step(Event::CacheRead(policy, revision));
            assert!(outcome.is_none(), "a cached policy ends nothing");
        }
    }

    fn start_threads(&self, mailbox: &Mailbox) -> Result<Option<Poke>, SetupError> {
        let poke = match &self.setup.policy {
            PolicySource::File { path, parse } => Some(follow_policy(path, parse, mailbox)?),
            PolicySource::Server { .. } => None,
        };
        let (to, lost) = (mailbox.clone(), mailbox.clone());
        let started = self.started;
        let follow_links = move || {
            let result = devices::follow(devices::ROOM_BYTES, |event| {
                to.send(Input::Event(match event {
                    LinkEvent::Listed(links) => Event::DevicesListed(links),
                    LinkEvent::Seen(link) => Event::DeviceSeen {
                        link,
                        at: started.elapsed(),
                    },
                    LinkEvent::Gone { ifindex } => Event::DeviceGone { ifindex },
                }))
            });
            if let Err(error) = result {
                lost.send(Input::Lost(error.to_string()));
            }
        };
        spawn("links", follow_links)?;
        Ok(poke)
    }

    fn due(&mut self) -> Option<Timer> {
        let now = Instant::now();
        let (timer, _) = self.timers.iter().find(|(_, at)| **at <= now)?;
        let timer = *timer;
        self.timers.remove(&timer);
        Some(timer)
    }

    fn until_due(&self) -> Duration {
        const NEVER: Duration = Duration::from_secs(3_600);
        let next = self.timers.values().min();
        next.map_or(NEVER, |at| at.saturating_duration_since(Instant::now()))
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

fn follow_policy(path: &Path, parse: &Parse, mailbox: &Mailbox) -> Result<Poke, SetupError> {
    let (watch, poke) = Watch::new(path)?;
    let parse = parse.clone();
    let (to, lost) = (mailbox.clone(), mailbox.clone());
    let follow = move || {
        let result = watch.follow(|text| {
            let event = match text {
                Ok(text) => match parse(text) {
                    Ok(inventory) => Event::PolicyRead(PolicyText {
                        text: text.into(),
                        inventory,
                    }),
                    Err(errors) => Event::PolicyInvalid(errors),
                },
                Err(error) => Event::PolicyInvalid(vec![error.to_owned()]),
            };
            to.send(Input::Event(event))
        });
        if let Err(error) = result {
            lost.send(Input::Lost(error.to_string()));
        }
    };
    spawn("policy", follow)?;
    Ok(poke)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), SetupError> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(work).map_err(SetupError::Thread).map(drop)
}

/// What is enforced where the policy file can't be used. A cached policy that can't be used itself is
/// told, loudly: it is what would help after a reboot.
pub fn cached_policy(instance: &Instance, parse: &Parse) -> Option<(PolicyText, Revision)> {
    let cached = match cache::load(&instance.cache_path()) {
        Ok(cached) => cached?,
        Err(error) => {
            tracing::error!(%error, "cached policy not usable");
            return None;
        }
    };
    match parse(&cached.text) {
        Ok(inventory) => {
            let policy = PolicyText {
                text: cached.text.into(),
                inventory,
            };
            Some((policy, cached.revision))
        }
        // It was written by another version of this program.
        Err(errors) => {
            tracing::error!(error = errors.first(), "cached policy not understood");
            None
        }
    }
}

/// Whoever changes any of nft's rules makes it another one. `None`: the kernel doesn't say.
fn generation() -> Option<u32> {
    netfilter::generation::nft().ok()
}
