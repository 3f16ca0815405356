//! Servers on one store: a change asks one of them, all hear of it, and hosts are told by the one that they follow.
//!
//! Place on the line: request -> use case -> **store commit -> watch** -> ledger, desks.

use super::{Done, Sim, now};
use crate::change::Change;
use crate::config::Defect;
use crate::ledger::{PortChange, Ports, host_of};
use crate::server::{Server, What};
use crate::world::World;
use control::Failed;
use model::{HostId, Inventory, InventoryChange, Revision};
use protocol::{Feed, Instance, Line, Listener, MessageKind};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::WatchEnd;

/// One server after the other.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) server: Option<Server>,
    pub(super) down_until: u64,
}

impl Sim<'_> {
    pub(super) fn is_served(&self) -> bool {
        self.servers.iter().any(|slot| slot.server.is_some())
    }

    /// Numbers of the servers that are there.
    pub(super) fn up(&self) -> Vec<usize> {
        let slots = self.servers.iter().enumerate();
        slots
            .filter(|(_, slot)| slot.server.is_some())
            .map(|(number, _)| number)
            .collect()
    }

    /// Those that are due. Their memory is gone; they go on from the store.
    pub(super) fn open_servers(&mut self) {
        self.ghosts.retain(|(until, _)| *until > self.step);
        for number in 0..self.servers.len() {
            let slot = &mut self.servers[number];
            if slot.server.is_none() && slot.down_until <= self.step {
                let run = format!("run-{}", self.runs);
                self.runs += 1;
                slot.server = Some(Server::open(&self.runtime, self.store.clone(), run));
                self.hear(None);
            }
        }
        self.join_counted();
    }

    /// Hosts without an agent follow some server.
    fn join_counted(&mut self) {
        let up = self.up();
        if up.is_empty() || self.counted.len() + self.hosts.len() >= self.world.hosts.len() {
            return;
        }
        for (place, id) in self.world.hosts.iter().enumerate() {
            let number = up[place % up.len()];
            let server = self.servers[number].server.as_mut();
            let server = server.expect("it is up");
            if !self.hosts.contains_key(id) && !self.counted.contains_key(id) {
                let line = join(server, id, self.step);
                self.counted.insert(id.clone(), (number, line));
            }
        }
    }

    /// A use case; what it has come to goes to the ledger and the desks.
    pub(super) fn change(&mut self, faulty: bool) -> Option<Done> {
        let change = Change::draw(&mut self.dice, &self.world, &self.ledger)?;
        self.trace.add(format!("{change:?}").as_bytes());
        let step = self.step;
        let is_late = self.there().any(|server| server.is_behind(step));
        let is_quiet = !(faulty && self.store_faults() || is_late);
        let objects = self.objects();
        let asked = *self.dice.one_of(&self.up())?;
        let server = self.servers[asked].server.as_ref().expect("it is up");
        let began = Instant::now();
        let answer = change.ask(&server.control, &mut self.world);
        let answer = self.runtime.block_on(answer);
        let mut work = began.elapsed();
        self.figures.changes += 1;
        match answer {
            Ok(()) => {}
            Err(Failed::Refused(_)) => self.figures.refused += 1,
            Err(_) => self.figures.unanswered += 1,
        }
        let class = change.class();
        let before = self.ledger.revision;
        work += self.hear(Some(asked));
        self.store.heal();
        for commit in before.commit + 1..=self.ledger.revision.commit {
            self.classes.insert(commit, class);
        }
        Some(Done {
            class,
            work,
            objects: self.objects() - objects,
            is_quiet,
        })
    }

    fn there(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter_map(|slot| slot.server.as_ref())
    }

    fn objects(&self) -> u64 {
        self.there().map(Server::objects).sum()
    }

    /// Whether there is one.
    fn store_faults(&mut self) -> bool {
        let rare = match self.config.ports > 200_000 {
            true => 400,
            false => 50,
        };
        let ends = if self.dice.one_in(rare) {
            self.store.end_watch(WatchEnd::Compacted);
            self.fault("store's watch compacted");
            true
        } else if self.dice.one_in(50) {
            self.store.end_watch(WatchEnd::Lost("a fault".to_owned()));
            self.fault("store's watch lost");
            true
        } else {
            false
        };
        let loses = self.dice.one_in(50);
        if loses {
            self.store.lose_answer();
            self.fault("store's answer lost");
        }
        ends || loses
    }

    /// What the servers' copies have come to; how long the desk of that one was at it.
    pub(super) fn hear(&mut self, of: Option<usize>) -> Duration {
        let mut commits: BTreeMap<Revision, (InventoryChange, Vec<PortChange>)> = BTreeMap::new();
        let mut lists: Vec<(Inventory, Ports)> = Vec::new();
        let newest = self.runtime.block_on(self.store.newest());
        let is_alone = self.up().len() == 1;
        for slot in &mut self.servers {
            let Some(server) = &mut slot.server else {
                continue;
            };
            let seen = self.runtime.block_on(server.control.wait_for(newest));
            seen.expect("the copy comes to what was committed");
            for heard in server.heard() {
                match heard.what {
                    What::Listed(mut inventory, ports) => {
                        let all = std::mem::take(&mut inventory.ports);
                        lists.push((inventory.clone(), ports));
                        inventory.ports = all;
                        server.feed(Feed::Replaced(inventory));
                    }
                    What::Committed {
                        change,
                        ports,
                        is_policy,
                    } => {
                        let feed = match is_policy {
                            true => tampered(self.config.defect, &self.world, change.clone()),
                            false => Feed::Progress(change.revision),
                        };
                        commits.insert(change.revision, (change, ports));
                        server.feed(feed);
                    }
                }
                let hears = self.config.defect != Some(Defect::DeafServers);
                if let Some(elsewhere) = heard.elsewhere.filter(|_| hears) {
                    server.desk.hear_of(elsewhere);
                }
                server.desk.concern(heard.concerned);
            }
        }
        self.write_down(commits, lists, is_alone);
        self.pass_on(of)
    }

    /// Commits as they came; what no server has seen one by one comes with what is listed then.
    fn write_down(
        &mut self,
        mut commits: BTreeMap<Revision, (InventoryChange, Vec<PortChange>)>,
        lists: Vec<(Inventory, Ports)>,
        is_alone: bool,
    ) {
        let mut lists = std::collections::VecDeque::from(lists);
        let mut moved = Vec::new();
        loop {
            while let Some((change, ports)) = commits.remove(&self.ledger.next()) {
                self.ledger.change(change, &ports);
                moved.extend(ports);
            }
            let Some((rest, ports)) = lists.pop_front() else {
                break;
            };
            // The same again: of one server alone, whose ports are in memory once then.
            let is_same = is_alone && rest.revision == self.ledger.revision;
            if rest.revision > self.ledger.revision || is_same {
                moved.extend(self.ledger.replace(rest, ports));
            }
        }
        // At the beginning nobody is there yet.
        if !self.hosts.is_empty() {
            self.plug(moved);
        }
    }

    fn pass_on(&mut self, of: Option<usize>) -> Duration {
        let mut work = Duration::ZERO;
        for (number, slot) in self.servers.iter_mut().enumerate() {
            if let Some(server) = &mut slot.server {
                let (told, took) = server.pass_on(self.step);
                self.spoken.extend(told);
                if of == Some(number) {
                    work = took;
                }
            }
        }
        work
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

    /// Which hosts follow which server, and what they report: by the store.
    pub(super) fn tell_each_other(&mut self) {
        for slot in &self.servers {
            if let Some(server) = &slot.server {
                server.tell_others(&self.runtime);
            }
        }
        self.hear(None);
    }
}

/// A host without an agent follows, as if it had been sent its part.
pub(super) fn join(server: &mut Server, id: &HostId, step: u64) -> Line {
    let instance = Instance {
        started_ms: step,
        number: 0,
    };
    let hello = Listener::new(id.clone(), instance, None).hello();
    let line = server.desk.connect(&hello);
    let mut line = line.expect("nobody else has this name");
    let welcome = server.desk.next(&mut line);
    debug_assert!(welcome.is_some_and(|said| said.kind == MessageKind::Welcome));
    server.desk.follow_from_now(&line);
    line
}

/// What the desk is fed, if something is wrong on purpose: whoever is put is in the largest group as well.
fn tampered(defect: Option<Defect>, world: &World, mut change: InventoryChange) -> Feed {
    if defect == Some(Defect::NeverCommitted) {
        for port in change.ports.values_mut().flatten() {
            port.groups.extend(world.largest.clone());
        }
    }
    Feed::Changed(change)
}
