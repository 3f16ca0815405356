//! One host: its agent, its plane, its devices, what its disk keeps, and what is on its way to it.
//!
//! Place on the line: watch -> **inventory -> compile -> view -> apply** -> report.
//! What an agent's process does about its events is done here as `portcullis agent` does it, without threads.

use crate::config::Defect;
use crate::dice::Dice;
use crate::ledger::Expected;
use agent::{Agent, Config, Effect, Encode, Event, Link, Timer};
use dataplane::{DataPlane, ModelPlane};
use model::{HostId, Inventory, InventoryChange, MacAddr, PortId, Revision};
use protocol::{Ended, Instance, Line, Listener, Report};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) process: Option<Process>,
    /// Outlives the agent.
    pub(crate) plane: ModelPlane,
    disk: Option<Vec<u8>>,
    links: BTreeMap<PortId, Link>,
    next_ifindex: u32,
    /// To the server of this number.
    pub(crate) line: Option<(usize, Line)>,
    /// By when it arrives.
    pub(crate) inbox: BTreeMap<(u64, u64), Vec<u8>>,
    pub(crate) last_due: u64,
    /// Down, apart from the others, or slow, until then.
    pub(crate) down_until: u64,
    pub(crate) cut_until: u64,
    pub(crate) slow_until: u64,
    pub(crate) connect_at: u64,
    /// What it last said that it enforces.
    pub(crate) claimed: Option<Revision>,
    pub(crate) expected: Option<Expected>,
    /// An agent has begun anew and may enforce what its cache has.
    pub(crate) may_go_back: bool,
    /// A change that a defect has kept.
    kept: Option<InventoryChange>,
    /// It wants another server than this.
    pub(crate) leaves: Option<usize>,
    /// So large was its part when it began.
    pub(crate) part_ports: usize,
    /// A rule of its ports did, then.
    pub(crate) names_largest: bool,
    /// It follows nobody any more: another agent of its host began later.
    pub(crate) is_fenced: bool,
}

/// What ends when the agent crashes.
pub(crate) struct Process {
    agent: Agent,
    instance: Instance,
    listener: Listener,
    timers: BTreeMap<Timer, u64>,
    /// As it was on disk: what a server that has nothing newer goes on from.
    cached: Option<Inventory>,
    connected: bool,
}

/// What a message came to.
#[derive(Default)]
pub(crate) struct Taken {
    /// Revisions of the changes in it.
    pub(crate) changes: Vec<Revision>,
    pub(crate) took: Duration,
    pub(crate) ended: Option<Ended>,
    pub(crate) refused: usize,
}

/// Of one step.
pub(crate) struct Now<'a> {
    pub(crate) step: u64,
    pub(crate) dice: &'a mut Dice,
    /// One apply of so many fails; 0: none.
    pub(crate) apply_fails: usize,
    pub(crate) failed: u64,
    pub(crate) defect: Option<Defect>,
}

pub(crate) const STEP: Duration = Duration::from_millis(100);

impl Host {
    pub(crate) fn new(id: HostId) -> Self {
        Self {
            id,
            process: None,
            plane: ModelPlane::new(),
            disk: None,
            links: BTreeMap::new(),
            next_ifindex: 1,
            line: None,
            inbox: BTreeMap::new(),
            last_due: 0,
            down_until: 0,
            cut_until: 0,
            slow_until: 0,
            connect_at: 0,
            claimed: None,
            expected: None,
            may_go_back: false,
            kept: None,
            leaves: None,
            part_ports: 0,
            names_largest: false,
            is_fenced: false,
        }
    }

    /// Another one with its name, on a machine with the same devices.
    pub(crate) fn twin(&self) -> Self {
        let mut twin = Self::new(self.id.clone());
        twin.links = self.links.clone();
        twin.next_ifindex = self.next_ifindex;
        twin.part_ports = self.part_ports;
        twin.names_largest = self.names_largest;
        twin
    }

    /// The agent begins: with what its disk keeps, and the devices that are there.
    pub(crate) fn start(&mut self, now: &mut Now<'_>) {
        let config = Config {
            host: self.id.clone(),
            ours: Default::default(),
            confirm: None,
            guard_names: Default::default(),
            audit_every: Duration::from_secs(3_600),
            encode: Some(Encode::new(protocol::encode)),
        };
        let cached = self.disk.as_deref().map(|bytes| {
            let read = protocol::decode(bytes);
            read.expect("disks are whole here").0
        });
        let instance = Instance {
            started_ms: now.step,
            // Hosts without an agent have 0.
            number: 1,
        };
        self.process = Some(Process {
            agent: Agent::new(config),
            instance,
            listener: Listener::new(self.id.clone(), instance, cached.clone()),
            timers: BTreeMap::new(),
            cached: cached.clone(),
            connected: false,
        });
        self.may_go_back = self.claimed.is_some();
        if let (Some(inventory), Some(text)) = (cached, &self.disk) {
            let revision = inventory.revision;
            let text = text.clone().into();
            let read = agent::PolicyText { text, inventory };
            self.tell(now, Event::CacheRead(read, revision));
        }
        let links = self.links.values().cloned().collect();
        self.tell(now, Event::DevicesListed(links));
    }

    /// The process ends at once; what is enforced stays.
    pub(crate) fn crash(&mut self) {
        self.process = None;
        self.line = None;
        self.inbox.clear();
    }

    /// The machine begins anew: nothing is enforced before the agent says.
    pub(crate) fn reboot(&mut self) {
        self.crash();
        self.plane = ModelPlane::new();
    }

    /// The first thing to say to a server.
    pub(crate) fn hello(&mut self, defect: Option<Defect>) -> Option<Vec<u8>> {
        let process = self.process.as_mut()?;
        process.connected = true;
        if defect == Some(Defect::GoesBack) {
            process.listener = Listener::new(self.id.clone(), process.instance, None);
        }
        self.last_due = 0;
        Some(process.listener.hello())
    }

    pub(crate) fn disconnected(&mut self, now: &mut Now<'_>) {
        self.line = None;
        self.inbox.clear();
        if let Some(process) = &mut self.process {
            process.connected = false;
            let why = "not connected".to_owned();
            self.tell(now, Event::ServerUnreached(why));
        }
    }

    pub(crate) fn take(&mut self, now: &mut Now<'_>, message: &[u8]) -> Taken {
        let mut taken = Taken::default();
        let Some(process) = &mut self.process else {
            return taken;
        };
        let began = Instant::now();
        let mut events = Vec::new();
        let heard = process.listener.hear(message, |event| events.push(event));
        taken.ended = heard.err();
        let mut told = Vec::new();
        for event in events {
            match event {
                protocol::Event::Replaced(inventory) => {
                    process.cached = None;
                    told.push(Event::InventoryReplaced(inventory));
                }
                protocol::Event::Changed(change) => {
                    taken.changes.push(change.revision);
                    told.extend(distorted(&mut self.kept, now, change));
                }
                protocol::Event::Progress(revision) => told.push(match process.cached.take() {
                    Some(kept) => Event::InventoryReplaced(Inventory { revision, ..kept }),
                    None => Event::InventoryChanged(InventoryChange {
                        revision,
                        ..InventoryChange::default()
                    }),
                }),
                protocol::Event::Refused(refused) => taken.refused += refused.len(),
                protocol::Event::Connected { .. }
                | protocol::Event::NewEpoch { .. }
                | protocol::Event::Disconnected { .. } => {}
            }
        }
        taken.took = began.elapsed();
        for event in told {
            taken.took += self.tell(now, event);
        }
        taken
    }

    /// How long the agent was at work, the plane's work aside.
    fn tell(&mut self, now: &mut Now<'_>, event: Event) -> Duration {
        let mut took = Duration::ZERO;
        let Some(process) = &mut self.process else {
            return took;
        };
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let began = Instant::now();
            let effects = process.agent.step(STEP * now.step as u32, event);
            took += began.elapsed();
            for effect in effects {
                match effect {
                    Effect::Apply(target) => {
                        let fails = now.apply_fails > 0 && now.dice.one_in(now.apply_fails);
                        now.failed += u64::from(fails);
                        events.push_back(match fails {
                            true => Event::ApplyFailed("the plane refuses".to_owned()),
                            false => match self.plane.apply(&target) {
                                Ok(report) => Event::Applied(report),
                                Err(error) => Event::ApplyFailed(error.to_string()),
                            },
                        });
                    }
                    Effect::ReadInterfaceIds => events.push_back(Event::InterfaceIdsRead(None)),
                    Effect::StartTimer(timer @ (Timer::Retry | Timer::Save), after) => {
                        let steps = after.as_millis().div_ceil(STEP.as_millis()) as u64;
                        process.timers.insert(timer, now.step + steps);
                    }
                    Effect::SaveCache { text, .. } => self.disk = Some(text.to_vec()),
                    // Of a plane that nobody else touches there is nothing to find, and nothing to tend; and no packets
                    // are sent, so there are no flows.
                    Effect::StartTimer(Timer::Audit | Timer::Tend | Timer::Confirm, _)
                    | Effect::Audit
                    | Effect::ExportFlows(_)
                    | Effect::ImportFlows { .. }
                    | Effect::Tend
                    | Effect::Guard(_)
                    | Effect::RememberOurs(_)
                    | Effect::MarkConfirmed
                    | Effect::Detach
                    | Effect::Report(_)
                    | Effect::Exit(_) => {}
                }
            }
        }
        took
    }

    /// Timers that have run out; whether there were any.
    pub(crate) fn tick(&mut self, now: &mut Now<'_>) -> bool {
        let Some(process) = &mut self.process else {
            return false;
        };
        let due = |at: &u64| *at <= now.step;
        let due: Vec<Timer> = process
            .timers
            .iter()
            .filter(|(_, at)| due(at))
            .map(|(timer, _)| *timer)
            .collect();
        for timer in &due {
            process.timers.remove(timer);
        }
        for timer in &due {
            self.tell(now, Event::TimerFired(*timer));
        }
        !due.is_empty()
    }

    /// A VM's device comes.
    pub(crate) fn plug(&mut self, now: &mut Now<'_>, port: &PortId, mac: MacAddr) {
        if self.links.contains_key(port) {
            return;
        }
        let ifindex = self.next_ifindex;
        self.next_ifindex += 1;
        let link = Link {
            ifindex,
            name: format!("tap{ifindex}"),
            mac: Some(mac),
            kind: Some("tun".to_owned()),
            up: true,
            master: None,
            interface_id: None,
        };
        self.links.insert(port.clone(), link.clone());
        let at = STEP * now.step as u32;
        self.tell(now, Event::DeviceSeen { link, at });
    }

    pub(crate) fn unplug(&mut self, now: &mut Now<'_>, port: &PortId) {
        if let Some(link) = self.links.remove(port) {
            let ifindex = link.ifindex;
            self.tell(now, Event::DeviceGone { ifindex });
        }
    }

    pub(crate) fn applied(&self) -> Option<Revision> {
        self.process.as_ref()?.agent.progress().applied
    }

    /// What it tells the server.
    pub(crate) fn report(&self) -> Option<Vec<u8>> {
        let applied = self.applied()?;
        let report = Report {
            applied,
            ports: BTreeMap::new(),
        };
        Some(Listener::report(&report))
    }

    /// Ports without their device in force, although all is quiet.
    pub(crate) fn not_enforced(&self) -> Vec<PortId> {
        let process = self.process.as_ref();
        let states = process.map(|process| process.agent.progress().not_enforced);
        states.unwrap_or_default().into_keys().collect()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.line.is_some() && self.process.as_ref().is_some_and(|p| p.connected)
    }

    /// The number of the server that it is connected to.
    pub(crate) fn follows(&self) -> Option<usize> {
        self.line.as_ref().map(|(number, _)| *number)
    }

    /// An apply is to be tried again.
    pub(crate) fn is_retrying(&self) -> bool {
        let timers = self.process.as_ref().map(|process| &process.timers);
        timers.is_some_and(|timers| timers.contains_key(&Timer::Retry))
    }
}

/// What the agent is told of a change, if something is wrong on purpose.
fn distorted(
    kept: &mut Option<InventoryChange>,
    now: &Now<'_>,
    mut change: InventoryChange,
) -> Vec<Event> {
    match now.defect {
        Some(Defect::IgnoresRemovals) => change.ports.retain(|_, port| port.is_some()),
        Some(Defect::AppliedTwice) => {
            let before = kept.replace(change.clone());
            let all = [Some(change), before].into_iter().flatten();
            return all.map(Event::InventoryChanged).collect();
        }
        Some(
            Defect::NeverCommitted
            | Defect::Forgets
            | Defect::DeafServers
            | Defect::IgnoresFence
            | Defect::GoesBack,
        )
        | None => {}
    }
    vec![Event::InventoryChanged(change)]
}
