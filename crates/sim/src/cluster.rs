//! The run: step by step a change, faults, messages, hosts, and then whether all is as it must be.
//!
//! Place on the line: all of it.
//!
//! ```text
//! step:   change -> commit -> ledger, desk -> faults -> messages out -> messages in -> agents -> checks
//! ```

mod settle;

use crate::change::Change;
use crate::check::{self, Difference, Violation};
use crate::config::{Config, Defect};
use crate::dice::Dice;
use crate::faulty::Faulty;
use crate::figures::{Class, Figures};
use crate::host::{Host, Now};
use crate::ledger::{Ledger, PortChange, host_of};
use crate::server::{Heard, Server, open};
use crate::world::{self, Plan, World};
use control::Failed;
use model::{HostId, InventoryChange, Revision};
use protocol::{Ended, Feed, Line, MessageKind};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::WatchEnd;
use tokio::runtime::{Builder, Runtime};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub doing: &'static str,
    pub done: usize,
    pub of: usize,
}

#[derive(Debug)]
pub struct Outcome {
    pub figures: Figures,
    pub violation: Option<Violation>,
    /// It was stopped before its end.
    pub stopped: bool,
    /// Of all that happened, and all that was sent: the same for the same seed.
    pub trace: u64,
}

type Told<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// Changes come in so many rounds; after each, all settles and is compared.
const ROUNDS: usize = 4;
const HEARTBEAT: u64 = 10;

pub fn run(config: &Config, tell: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Outcome {
    let Some(mut sim) = Sim::build(config, tell) else {
        return Outcome {
            figures: Figures::default(),
            violation: None,
            stopped: true,
            trace: 0,
        };
    };
    let ran = sim.run(tell);
    sim.figures.steps = sim.step;
    Outcome {
        stopped: matches!(ran, Err(End::Stopped)),
        violation: match ran {
            Err(End::Violation(violation)) => Some(*violation),
            Err(End::Stopped) | Ok(()) => None,
        },
        trace: sim.trace.0,
        figures: sim.figures,
    }
}

enum End {
    Violation(Box<Violation>),
    Stopped,
}

struct Sim<'a> {
    config: &'a Config,
    dice: Dice,
    step: u64,
    runtime: Runtime,
    store: Arc<Faulty>,
    world: World,
    ledger: Ledger,
    server: Option<Server>,
    server_down_until: u64,
    /// Those that have an agent.
    hosts: BTreeMap<HostId, Host>,
    /// The others: their messages are made, counted, and nobody's.
    counted: BTreeMap<HostId, Line>,
    agent_ports: usize,
    figures: Figures,
    classes: BTreeMap<u64, Class>,
    /// Changes that some don't enforce yet.
    pending: Vec<Pending>,
    /// Hosts to compare at the end of this step.
    dirty: BTreeSet<HostId>,
    order: u64,
    trace: Trace,
}

struct Pending {
    step: u64,
    class: Class,
    revision: Revision,
    hosts: BTreeSet<HostId>,
}

/// FNV-1a.
struct Trace(u64);

impl Trace {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl<'a> Sim<'a> {
    /// `None`: it was stopped before it was whole.
    fn build(config: &'a Config, tell: Told<'_>) -> Option<Self> {
        let mut runtime = Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime of one thread needs nothing");
        let store = Arc::new(Faulty::new());
        let mut dice = Dice::new(config.seed);
        control::ids::tell(dice.number(), 1_000_000_000);
        let plan = Plan {
            hosts: config.hosts,
            ports: config.ports,
        };
        let mut goes_on = true;
        let control = open(&runtime, store.clone(), Vec::new());
        let building = world::build(&control, &plan, &mut dice, |done| {
            let progress = Progress {
                doing: "ports made",
                done,
                of: config.ports,
            };
            goes_on = tell(progress).is_continue();
            goes_on
        });
        let world = runtime.block_on(building);
        let world = world.expect("nobody hinders what the plan asks for");
        drop(control);
        if !goes_on {
            return None;
        }
        let mut sim = Self {
            config,
            dice,
            step: 0,
            runtime,
            store,
            world,
            ledger: Ledger::default(),
            server: None,
            server_down_until: 0,
            hosts: BTreeMap::new(),
            counted: BTreeMap::new(),
            agent_ports: 0,
            figures: Figures::default(),
            classes: BTreeMap::new(),
            pending: Vec::new(),
            dirty: BTreeSet::new(),
            order: 0,
            trace: Trace(0xcbf2_9ce4_8422_2325),
        };
        sim.open_server();
        sim.count_world();
        Some(sim)
    }

    fn count_world(&mut self) {
        let members = |group: &Option<_>| group.as_ref().map_or(0, |id| self.ledger.members(id));
        let (largest, middle) = (members(&self.world.largest), members(&self.world.middle));
        self.figures.hosts = self.world.hosts.len();
        self.figures.ports = self.ledger.ports();
        self.figures.groups = self.world.groups.len() + self.world.spare.len() + 4;
        self.figures.largest = largest;
        self.figures.middle = middle;
        self.figures.watching = (self.config.hosts / 100).max(2).min(self.config.hosts);
    }

    fn run(&mut self, tell: Told<'_>) -> Result<(), End> {
        for round in 1..=ROUNDS {
            let until = (self.config.changes * round / ROUNDS) as u64;
            while self.figures.changes < until {
                self.step(true)?;
                let progress = Progress {
                    doing: "changes",
                    done: self.figures.changes as usize,
                    of: self.config.changes,
                };
                if tell(progress).is_break() {
                    return Err(End::Stopped);
                }
            }
            self.settle()?;
        }
        Ok(())
    }

    fn step(&mut self, busy: bool) -> Result<(), End> {
        self.step += 1;
        control::ids::tell(self.dice.number(), 1_000_000_000 + self.step);
        let faulty = busy && self.config.faults;
        if self.server.is_none() && self.step >= self.server_down_until {
            self.open_server();
        }
        let mut work = Duration::ZERO;
        let class = match busy && self.server.is_some() {
            true => self.change(faulty, &mut work),
            false => None,
        };
        if faulty {
            self.server_faults();
            self.host_faults();
        }
        if self.step.is_multiple_of(HEARTBEAT)
            && let Some(server) = &mut self.server
        {
            server.desk.tell_progress(true);
        }
        self.connect();
        self.send(class, faulty, work);
        self.receive(faulty)?;
        self.check()
    }

    /// A use case; what it has come to goes to the ledger and the desk.
    fn change(&mut self, faulty: bool, work: &mut Duration) -> Option<Class> {
        let change = Change::draw(&mut self.dice, &self.world, &self.ledger)?;
        self.trace.add(format!("{change:?}").as_bytes());
        let rare = match self.config.ports > 200_000 {
            true => 400,
            false => 50,
        };
        if faulty && self.dice.one_in(rare) {
            self.store.end_watch(WatchEnd::Compacted);
            self.fault("store's watch compacted");
        } else if faulty && self.dice.one_in(50) {
            self.store.end_watch(WatchEnd::Lost("a fault".to_owned()));
            self.fault("store's watch lost");
        }
        if faulty && self.dice.one_in(50) {
            self.store.lose_answer();
            self.fault("store's answer lost");
        }
        let server = self.server.as_ref()?;
        let began = Instant::now();
        let asked = change.ask(&server.control, &mut self.world);
        let asked = self.runtime.block_on(asked);
        *work += began.elapsed();
        self.figures.changes += 1;
        match asked {
            Ok(()) => {}
            Err(Failed::Refused(_)) => self.figures.refused += 1,
            Err(_) => {
                self.figures.unanswered += 1;
                let seen = server.control.wait_for(self.store.newest());
                let seen = self.runtime.block_on(seen);
                seen.expect("the copy comes to what was committed");
            }
        }
        self.store.heal();
        let class = change.class();
        let before = self.ledger.revision;
        *work += self.hear();
        for commit in before.commit + 1..=self.ledger.revision.commit {
            self.classes.insert(commit, class);
        }
        Some(class)
    }

    /// What the server's copy has come to; how long the desk was at it.
    fn hear(&mut self) -> Duration {
        let mut took = Duration::ZERO;
        let Some(server) = &mut self.server else {
            return took;
        };
        let mut moved: Vec<PortChange> = Vec::new();
        for heard in server.heard() {
            let feed = match heard {
                Heard::Listed(inventory, ports) => {
                    let mut rest = inventory;
                    let all = std::mem::take(&mut rest.ports);
                    let kept = rest.clone();
                    moved.extend(self.ledger.replace(kept, ports));
                    rest.ports = all;
                    Feed::Replaced(rest)
                }
                Heard::Committed(change, ports) => {
                    self.ledger.change(change.clone(), &ports);
                    moved.extend(ports);
                    Feed::Changed(tampered(self.config.defect, &self.world, change))
                }
            };
            let began = Instant::now();
            server.desk.feed(feed);
            took += began.elapsed();
        }
        // At the beginning nobody is there yet.
        if !self.hosts.is_empty() {
            self.plug(moved);
        }
        took
    }

    /// VMs start, stop and move where their ports do.
    fn plug(&mut self, moved: Vec<PortChange>) {
        let mut now = now(self.step, &mut self.dice, self.config, false);
        for (id, before, after) in moved {
            let of = |port: &Option<Arc<control::objects::Port>>| {
                port.as_ref().and_then(|port| host_of(port)).cloned()
            };
            let (was, is) = (of(&before), of(&after));
            if was == is {
                continue;
            }
            if let Some(host) = was.and_then(|was| self.hosts.get_mut(&was)) {
                host.unplug(&mut now, &id);
                self.dirty.insert(host.id.clone());
            }
            if let (Some(host), Some(port)) = (is.and_then(|is| self.hosts.get_mut(&is)), after) {
                host.plug(&mut now, &id, port.mac);
                self.dirty.insert(host.id.clone());
            }
        }
    }

    fn fault(&mut self, kind: &'static str) {
        *self.figures.faults.entry(kind).or_default() += 1;
    }

    /// Its memory is gone; another one, or the same again, goes on from the store.
    fn open_server(&mut self) {
        let server = Server::open(&self.runtime, self.store.clone());
        self.server = Some(server);
        self.hear();
        let Some(server) = &mut self.server else {
            return;
        };
        self.counted.clear();
        for id in &self.world.hosts {
            if !self.hosts.contains_key(id) {
                let line = join(server, id);
                self.counted.insert(id.clone(), line);
            }
        }
    }

    fn server_faults(&mut self) {
        let many = match self.config.ports > 200_000 {
            true => 500,
            false => 120,
        };
        if self.server.is_none() || !self.dice.one_in(many) {
            return;
        }
        let takeover = self.dice.one_in(2);
        self.fault(match takeover {
            true => "server crashed, another took over",
            false => "server crashed and restarted",
        });
        let down = match takeover {
            true => 1,
            false => self.dice.between(5, 20),
        };
        self.server_down_until = self.step + down;
        self.server = None;
        self.counted.clear();
        let mut all = std::mem::take(&mut self.hosts);
        for host in all.values_mut() {
            host.connect_at = self.step + self.dice.between(1, 3);
            host.disconnected(&mut now(self.step, &mut self.dice, self.config, false));
            self.dirty.insert(host.id.clone());
        }
        self.hosts = all;
    }

    fn host_faults(&mut self) {
        let ids: Vec<HostId> = self.hosts.keys().cloned().collect();
        let Some(id) = self.dice.one_of(&ids).cloned() else {
            return;
        };
        let kind = match self.dice.below(100) {
            0..4 => "agent crashed",
            4..6 => "host rebooted",
            6..10 => "host cut off",
            10..14 => "host slow",
            _ => return,
        };
        let until = self.step + self.dice.between(5, 60);
        let tells = self.dice.one_in(2);
        let host = self.hosts.get_mut(&id).expect("it is one of them");
        if host.down_until.max(host.cut_until) > self.step {
            return;
        }
        let line = host.line.take();
        match kind {
            "agent crashed" => {
                host.crash();
                host.down_until = self.step + 1 + until % 5;
            }
            "host rebooted" => {
                host.reboot();
                host.claimed = None;
                host.down_until = until;
            }
            "host cut off" => {
                host.disconnected(&mut now(self.step, &mut self.dice, self.config, false));
                host.cut_until = until;
            }
            _ => {
                host.slow_until = until;
                host.line = line;
                self.fault(kind);
                return;
            }
        }
        host.connect_at = self.step + 1;
        self.dirty.insert(id);
        // Else the server learns it when the agent is there again.
        if let (Some(line), Some(server), true) = (line, &mut self.server, tells) {
            server.desk.gone(&line);
        }
        self.fault(kind);
    }

    /// Agents begin, and connect.
    fn connect(&mut self) {
        for host in self.hosts.values_mut() {
            if host.process.is_none() && host.down_until <= self.step {
                host.start(&mut now(self.step, &mut self.dice, self.config, false));
                self.dirty.insert(host.id.clone());
                let alone = host.cut_until > self.step || self.server.is_none();
                if alone || self.dice.one_in(4) {
                    // It was tried in vain: then the cache.
                    host.disconnected(&mut now(self.step, &mut self.dice, self.config, false));
                }
            }
            if host.is_connected() || host.cut_until > self.step || host.connect_at > self.step {
                continue;
            }
            let Some(server) = &mut self.server else {
                continue;
            };
            if let Some(hello) = host.hello() {
                self.trace.add(&hello);
                host.line = server.desk.connect(&hello).ok();
                host.connect_at = self.step + 3;
            }
        }
    }

    /// What the desk has for each host, onto its way.
    fn send(&mut self, class: Option<Class>, faulty: bool, mut work: Duration) {
        let Some(server) = &mut self.server else {
            return;
        };
        let mut told: BTreeSet<HostId> = BTreeSet::new();
        let mut sizes = Vec::new();
        let mut newly = Vec::new();
        let began = Instant::now();
        for (id, line) in &mut self.counted {
            while let Some(message) = server.desk.next(line) {
                match message.kind {
                    MessageKind::Change => {
                        sizes.push(message.bytes.len() as u64);
                        told.insert(id.clone());
                        newly.push(id.clone());
                    }
                    MessageKind::Progress => self.figures.progress += 1,
                    // It is as slow as this desk has it, and would be sent its part.
                    MessageKind::Welcome | MessageKind::Part | MessageKind::Closing => {}
                }
                self.trace.add(&message.bytes);
            }
        }
        let mut faults: BTreeMap<&'static str, u64> = BTreeMap::new();
        for host in self.hosts.values_mut() {
            if host.slow_until > self.step {
                continue;
            }
            let Some(line) = &mut host.line else {
                continue;
            };
            while let Some(message) = server.desk.next(line) {
                let size = message.bytes.len() as u64;
                match message.kind {
                    MessageKind::Change => {
                        sizes.push(size);
                        told.insert(host.id.clone());
                        if self.config.defect == Some(Defect::Forgets) && self.dice.one_in(20) {
                            // Unlike one that is lost, it leaves no gap.
                            line.unsay();
                            continue;
                        }
                    }
                    MessageKind::Progress => self.figures.progress += 1,
                    MessageKind::Part => {
                        self.figures.parts += 1;
                        self.figures.part_bytes += size;
                    }
                    MessageKind::Welcome | MessageKind::Closing => {}
                }
                self.trace.add(&message.bytes);
                let fault = match faulty {
                    true => self.dice.below(1_000),
                    false => 999,
                };
                let mut due = host.last_due.max(self.step);
                self.order += 1;
                let copy = (fault == 1).then(|| message.bytes.clone());
                match fault {
                    0 => {
                        *faults.entry("message lost").or_default() += 1;
                        continue;
                    }
                    1 => *faults.entry("message doubled").or_default() += 1,
                    2 => {
                        *faults.entry("message reordered").or_default() += 1;
                        host.inbox.insert((due + 2, self.order), message.bytes);
                        continue;
                    }
                    3..20 => {
                        *faults.entry("message late").or_default() += 1;
                        due += self.dice.between(1, 8);
                    }
                    _ => {}
                }
                host.last_due = due;
                host.inbox.insert((due, self.order), message.bytes);
                if let Some(copy) = copy {
                    self.order += 1;
                    host.inbox.insert((due, self.order), copy);
                }
            }
        }
        work += began.elapsed();
        for (kind, count) in faults {
            *self.figures.faults.entry(kind).or_default() += count;
        }
        newly.dedup();
        for id in newly {
            self.give_agent(&id);
        }
        let Some(class) = class else {
            return;
        };
        let row = self.figures.rows.entry(class).or_default();
        row.changes += 1;
        row.told.add(told.len() as u64);
        row.server_us.add(work.as_micros() as u64);
        for size in sizes {
            row.message_bytes.add(size);
        }
        let hosts: BTreeSet<HostId> = told
            .into_iter()
            .filter(|id| self.hosts.contains_key(id))
            .collect();
        if !hosts.is_empty() {
            self.pending.push(Pending {
                step: self.step,
                class,
                revision: self.ledger.revision,
                hosts,
            });
        }
    }

    /// From now on the host is there, if there is room.
    fn give_agent(&mut self, id: &HostId) {
        let Some(server) = &mut self.server else {
            return;
        };
        let Some(line) = self.counted.get(id) else {
            return;
        };
        if self.agent_ports >= self.config.most_agent_ports {
            return;
        }
        let ports = server.desk.part(line).map_or(0, |part| part.ports.len());
        // Those where a rule names the largest group have at most half of the room.
        let large = ports > 20_000 && self.agent_ports + ports > self.config.most_agent_ports / 2;
        if large && self.config.hosts > 2 * self.figures.watching {
            return;
        }
        self.agent_ports += ports;
        server.desk.gone(line);
        self.counted.remove(id);
        let mut host = Host::new(id.clone());
        let mut now = now(self.step, &mut self.dice, self.config, false);
        for port in self.ledger.on_host(id).into_iter().flatten() {
            let port = self.ledger.port(port).expect("it is listed");
            host.plug(&mut now, &port.id, port.mac);
        }
        host.start(&mut now);
        self.hosts.insert(id.clone(), host);
        self.figures.agents = self.hosts.len();
    }

    fn receive(&mut self, faulty: bool) -> Result<(), End> {
        let mut now = now(self.step, &mut self.dice, self.config, faulty);
        for host in self.hosts.values_mut() {
            let mut touched = host.tick(&mut now);
            while let Some(first) = host.inbox.first_entry()
                && first.key().0 <= self.step
                && host.process.is_some()
            {
                let message = first.remove();
                let taken = host.take(&mut now, &message);
                touched = true;
                for revision in taken.changes {
                    if let Some(class) = self.classes.get(&revision.commit) {
                        let row = self.figures.rows.entry(*class).or_default();
                        row.agent_us.add(taken.took.as_micros() as u64);
                    }
                }
                let Some(ended) = taken.ended else {
                    continue;
                };
                let kind = match ended {
                    Ended::Wrong(_) => "stream broken, noticed",
                    Ended::Lost(_) => "stream closed",
                    Ended::Fenced(_) => "agent fenced",
                };
                *self.figures.faults.entry(kind).or_default() += 1;
                if let (Some(line), Some(server)) = (&host.line, &mut self.server) {
                    server.desk.gone(line);
                }
                host.disconnected(&mut now);
                host.connect_at = self.step + now.dice.between(1, 4);
            }
            if host.line.as_ref().is_some_and(Line::is_ended) && host.inbox.is_empty() {
                host.disconnected(&mut now);
                touched = true;
            }
            if touched {
                self.dirty.insert(host.id.clone());
            }
        }
        let failed = now.failed;
        if failed > 0 {
            *self.figures.faults.entry("apply failed").or_default() += failed;
        }
        Ok(())
    }

    /// Each host at which something has happened.
    fn check(&mut self) -> Result<(), End> {
        for id in std::mem::take(&mut self.dirty) {
            let Some(host) = self.hosts.get_mut(&id) else {
                continue;
            };
            let Some(applied) = host.applied() else {
                continue;
            };
            if let Some(before) = host.claimed
                && applied < before
            {
                if !host.may_go_back {
                    return Err(self.violation(&id, went_back(before, applied)));
                }
                self.figures.from_older_cache += 1;
            }
            let new = host.claimed != Some(applied);
            host.may_go_back = false;
            host.claimed = Some(applied);
            self.trace.add(format!("{id} {applied}").as_bytes());
            if new
                && let (Some(server), Some(line), Some(said)) =
                    (&mut self.server, &host.line, host.report())
            {
                server.desk.hear(line, &said);
            }
            self.figures.checks += 1;
            let (known, view) = (&mut host.expected, host.plane.view());
            let differs = check::enforced(&self.ledger, known, &id, applied, view);
            if let Some(differs) = differs {
                return Err(self.violation(&id, differs));
            }
            for pending in &mut self.pending {
                if applied >= pending.revision {
                    pending.hosts.remove(&id);
                }
            }
        }
        let step = self.step;
        for done in self.pending.extract_if(.., |one| one.hosts.is_empty()) {
            let row = self.figures.rows.entry(done.class).or_default();
            row.steps.add(step - done.step);
        }
        Ok(())
    }

    fn violation(&self, host: &HostId, differs: Difference) -> End {
        let Difference {
            port,
            what,
            expected,
            found,
        } = differs;
        End::Violation(Box::new(Violation {
            seed: self.config.seed,
            step: self.step,
            host: host.clone(),
            port,
            what,
            expected,
            found,
        }))
    }
}

fn now<'a>(step: u64, dice: &'a mut Dice, config: &Config, faulty: bool) -> Now<'a> {
    Now {
        step,
        dice,
        apply_fails: match faulty {
            true => 100,
            false => 0,
        },
        failed: 0,
        defect: config.defect,
    }
}

fn went_back(before: Revision, applied: Revision) -> Difference {
    Difference {
        port: None,
        what: "a revision that went back".to_owned(),
        expected: format!("{before} or later"),
        found: applied.to_string(),
    }
}

/// A host without an agent follows, as if it had been sent its part.
fn join(server: &mut Server, id: &HostId) -> Line {
    let instance = protocol::Instance::default();
    let hello = protocol::Listener::new(id.clone(), instance, None).hello();
    let line = server.desk.connect(&hello);
    let mut line = line.expect("nobody else has this name");
    let welcome = server.desk.next(&mut line);
    debug_assert!(welcome.is_some_and(|said| said.kind == MessageKind::Welcome));
    server.desk.follow_from_now(&line);
    line
}

/// What the desk is fed, if something is wrong on purpose: whoever is put is in the largest group as well.
fn tampered(defect: Option<Defect>, world: &World, mut change: InventoryChange) -> InventoryChange {
    if defect == Some(Defect::NeverCommitted) {
        for port in change.ports.values_mut().flatten() {
            port.groups.extend(world.largest.clone());
        }
    }
    change
}
