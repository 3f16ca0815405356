//! The run: step by step a change, faults, messages, hosts, and then whether all is as it must be.
//!
//! Place on the line: all of it.
//!
//! ```text
//! step:   change -> commit -> ledger, desks -> faults -> servers tell each other -> messages -> agents -> checks
//! ```

mod faults;
mod lines;
mod servers;
mod settle;

use crate::check::{self, Difference, Violation};
use crate::config::Config;
use crate::dice::Dice;
use crate::faulty::Faulty;
use crate::figures::{Class, Figures};
use crate::host::{Host, Now};
use crate::ledger::Ledger;
use crate::server::open;
use crate::world::{self, Plan, World};
use model::{HostId, Revision};
use protocol::Line;
use servers::Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use store::Presence;
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

/// Changes come in rounds of so many, but in a few at least; after each, all settles and is compared.
const ROUND: usize = 100;
const FEW_ROUNDS: usize = 4;
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
    servers: Vec<Slot>,
    /// How many servers there were, one after the other.
    runs: u64,
    /// Of servers that have crashed, until others know.
    ghosts: Vec<(u64, Box<dyn Presence>)>,
    /// Those that have an agent.
    hosts: BTreeMap<HostId, Host>,
    /// Agents of the same name that began earlier, and don't know of the others yet.
    elders: BTreeMap<HostId, Host>,
    had_agents: BTreeSet<HostId>,
    /// The others: their messages are made, counted, and nobody's. To the server of this number.
    counted: BTreeMap<HostId, (usize, Line)>,
    /// Hosts that desks have something for.
    spoken: BTreeSet<HostId>,
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

/// What a change was, how long the server that was asked worked at it, and at how many objects all of them looked.
struct Done {
    class: Class,
    work: Duration,
    objects: u64,
    /// No fault came with it.
    is_quiet: bool,
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
            servers: (0..config.servers).map(|_| Slot::default()).collect(),
            runs: 0,
            ghosts: Vec::new(),
            hosts: BTreeMap::new(),
            elders: BTreeMap::new(),
            had_agents: BTreeSet::new(),
            counted: BTreeMap::new(),
            spoken: BTreeSet::new(),
            agent_ports: 0,
            figures: Figures::default(),
            classes: BTreeMap::new(),
            pending: Vec::new(),
            dirty: BTreeSet::new(),
            order: 0,
            trace: Trace(0xcbf2_9ce4_8422_2325),
        };
        sim.open_servers();
        sim.count_world();
        Some(sim)
    }

    fn count_world(&mut self) {
        let members = |group: &Option<_>| group.as_ref().map_or(0, |id| self.ledger.members(id));
        let (largest, middle) = (members(&self.world.largest), members(&self.world.middle));
        self.figures.servers = self.config.servers;
        self.figures.hosts = self.world.hosts.len();
        self.figures.ports = self.ledger.ports();
        self.figures.groups = self.world.groups.len() + self.world.spare.len() + 4;
        self.figures.largest = largest;
        self.figures.middle = middle;
        self.figures.watching = (self.config.hosts / 100).max(2).min(self.config.hosts);
    }

    fn run(&mut self, tell: Told<'_>) -> Result<(), End> {
        let rounds = (self.config.changes / ROUND).max(FEW_ROUNDS);
        for round in 1..=rounds {
            let until = (self.config.changes * round / rounds) as u64;
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
        self.open_servers();
        let done = match busy && self.is_served() {
            true => self.change(faulty),
            false => None,
        };
        if faulty {
            self.server_faults();
            self.host_faults();
        }
        self.tell_each_other();
        self.connect();
        self.send(done, faulty);
        if self.step.is_multiple_of(HEARTBEAT) {
            self.send_progress(faulty);
        }
        self.receive(faulty)?;
        self.check()
    }

    fn fault(&mut self, kind: &'static str) {
        *self.figures.faults.entry(kind).or_default() += 1;
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
                && let (Some((number, line)), Some(said)) = (&host.line, host.report())
                && let Some(server) = &mut self.servers[*number].server
            {
                server.desk.hear(line, &said);
            }
            self.figures.checks += 1;
            self.figures.largest_checks += u64::from(host.names_largest);
            if let Some(differs) = differs(&self.ledger, host, applied) {
                return Err(self.violation(&id, differs));
            }
            for pending in &mut self.pending {
                if applied >= pending.revision {
                    pending.hosts.remove(&id);
                }
            }
        }
        let mut elders = self.elders.values_mut();
        let wrong = elders.find_map(|elder| {
            let applied = elder.applied()?;
            let differs = differs(&self.ledger, elder, applied)?;
            Some((elder.id.clone(), differs))
        });
        if let Some((id, differs)) = wrong {
            return Err(self.violation(&id, differs));
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

fn differs(ledger: &Ledger, host: &mut Host, applied: Revision) -> Option<Difference> {
    let (known, view) = (&mut host.expected, host.plane.view());
    check::enforced(ledger, known, &host.id, applied, view)
}

fn went_back(before: Revision, applied: Revision) -> Difference {
    Difference {
        port: None,
        what: "a revision that went back".to_owned(),
        expected: format!("{before} or later"),
        found: applied.to_string(),
    }
}
