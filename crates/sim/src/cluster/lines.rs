//! Hosts and servers: who connects, what is sent, what of it arrives, and when.
//!
//! Place on the line: **watch** -> inventory -> compile -> view -> apply -> report.

use super::{Done, End, Pending, Sim, now};
use crate::check::Difference;
use crate::config::Defect;
use crate::host::Host;
use model::HostId;
use protocol::{Ended, Line, MessageKind};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What was sent in a step.
#[derive(Default)]
struct Sent {
    /// Hosts, and how large each message was.
    changes: Vec<(HostId, u64)>,
    /// The servers', for changes.
    work: Duration,
}

impl Sim<'_> {
    /// Agents begin, and connect.
    pub(super) fn connect(&mut self) {
        let up = self.up();
        let both = self.hosts.values_mut().chain(self.elders.values_mut());
        for host in both.filter(|host| !host.is_fenced) {
            if host.process.is_none() && host.down_until <= self.step {
                host.start(&mut now(self.step, &mut self.dice, self.config, false));
                self.dirty.insert(host.id.clone());
                let alone = host.cut_until > self.step || up.is_empty();
                if alone || self.dice.one_in(4) {
                    // It was tried in vain: then the cache.
                    host.disconnected(&mut now(self.step, &mut self.dice, self.config, false));
                }
            }
            if host.is_connected() || host.cut_until > self.step || host.connect_at > self.step {
                continue;
            }
            let left = host.leaves.take();
            let others: Vec<usize> = up.iter().copied().filter(|up| Some(*up) != left).collect();
            let of = if others.is_empty() { &up } else { &others };
            let Some(number) = self.dice.one_of(of).copied() else {
                continue;
            };
            let server = self.servers[number].server.as_mut().expect("it is up");
            if let Some(hello) = host.hello(self.config.defect) {
                self.trace.add(&hello);
                let line = server.desk.connect(&hello).ok();
                host.line = line.map(|line| (number, line));
                host.connect_at = self.step + 3;
            }
        }
    }

    /// What the desks have for each host, onto its way.
    pub(super) fn send(&mut self, done: Option<Done>, faulty: bool) {
        let spoken = std::mem::take(&mut self.spoken);
        let mut sent = Sent::default();
        self.count(&spoken, &mut sent);
        let newly: Vec<HostId> = sent.changes.iter().map(|(id, _)| id.clone()).collect();
        self.send_to_agents(faulty, &mut sent);
        for id in newly {
            self.give_agent(&id);
        }
        let Some(done) = done else {
            return;
        };
        let row = self.figures.rows.entry(done.class).or_default();
        row.changes += 1;
        let told: BTreeSet<HostId> = sent.changes.iter().map(|(id, _)| id.clone()).collect();
        if done.is_quiet {
            row.told.add(told.len() as u64);
            row.objects.add(done.objects);
            let work = done.work + sent.work;
            row.server_us.add(work.as_micros() as u64);
        }
        for (_, size) in sent.changes {
            row.message_bytes.add(size);
        }
        let is_there = |id: &HostId| self.hosts.contains_key(id);
        let hosts: BTreeSet<HostId> = told.into_iter().filter(is_there).collect();
        if !hosts.is_empty() {
            self.pending.push(Pending {
                step: self.step,
                class: done.class,
                revision: self.ledger.revision,
                hosts,
            });
        }
    }

    /// How far the store is, to everybody.
    pub(super) fn send_progress(&mut self, faulty: bool) {
        for slot in &mut self.servers {
            if let Some(server) = &mut slot.server {
                server.desk.tell_progress(true);
            }
        }
        let all: BTreeSet<HostId> = self.counted.keys().cloned().collect();
        self.count(&all, &mut Sent::default());
        self.send_to_agents(faulty, &mut Sent::default());
    }

    /// What is for hosts without an agent.
    fn count(&mut self, hosts: &BTreeSet<HostId>, sent: &mut Sent) {
        for id in hosts {
            let Some((number, line)) = self.counted.get_mut(id) else {
                continue;
            };
            let server = self.servers[*number].server.as_mut();
            let server = server.expect("its hosts went when it crashed");
            let mut began = Instant::now();
            while let Some(message) = server.desk.next(line) {
                match message.kind {
                    MessageKind::Change => {
                        sent.work += began.elapsed();
                        let size = message.bytes.len() as u64;
                        sent.changes.push((id.clone(), size));
                    }
                    MessageKind::Progress => self.figures.progress += 1,
                    // It is as slow as this desk has it, and would be sent its part.
                    MessageKind::Welcome | MessageKind::Part | MessageKind::Closing => {}
                }
                self.trace.add(&message.bytes);
                began = Instant::now();
            }
        }
    }

    fn send_to_agents(&mut self, faulty: bool, sent: &mut Sent) {
        let mut faults: BTreeMap<&'static str, u64> = BTreeMap::new();
        let both = self.hosts.values_mut().chain(self.elders.values_mut());
        for host in both.filter(|host| host.slow_until <= self.step) {
            let Some((number, line)) = &mut host.line else {
                continue;
            };
            let Some(server) = &mut self.servers[*number].server else {
                continue;
            };
            let mut began = Instant::now();
            while let Some(message) = server.desk.next(line) {
                let took = began.elapsed();
                began = Instant::now();
                let size = message.bytes.len() as u64;
                match message.kind {
                    MessageKind::Change => {
                        sent.work += took;
                        sent.changes.push((host.id.clone(), size));
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
        for (kind, count) in faults {
            *self.figures.faults.entry(kind).or_default() += count;
        }
    }

    /// From now on the host is there, if there is room.
    fn give_agent(&mut self, id: &HostId) {
        let Some((number, line)) = self.counted.get(id) else {
            return;
        };
        if self.agent_ports >= self.config.most_agent_ports {
            return;
        }
        let named = self.ledger.named_by(id);
        let largest = self.world.largest.as_ref();
        let names_largest = largest.is_some_and(|largest| named.contains(largest));
        let members: usize = named.iter().map(|group| self.ledger.members(group)).sum();
        let ports = self.ledger.on_host(id).map_or(0, BTreeSet::len) + members;
        if names_largest && !self.has_room_for_large(ports) {
            return;
        }
        self.agent_ports += ports;
        let server = self.servers[*number].server.as_mut().expect("it is up");
        server.desk.gone(line);
        self.counted.remove(id);
        let mut host = Host::new(id.clone());
        host.part_ports = ports;
        host.names_largest = names_largest;
        let mut now = now(self.step, &mut self.dice, self.config, false);
        for port in self.ledger.on_host(id).into_iter().flatten() {
            let port = self.ledger.port(port).expect("it is listed");
            host.plug(&mut now, &port.id, port.mac);
        }
        host.start(&mut now);
        self.hosts.insert(id.clone(), host);
        let is_first = self.had_agents.insert(id.clone());
        self.figures.largest_agents += usize::from(names_largest && is_first);
        self.figures.agents = self.had_agents.len();
        self.figures.agents_at_once = self.figures.agents_at_once.max(self.hosts.len());
    }

    /// Hosts where a rule names the largest group have at most half of the room, if there are many others.
    fn has_room_for_large(&self, ports: usize) -> bool {
        let large = self.hosts.values().filter(|host| host.names_largest);
        let taken: usize = large.map(|host| host.part_ports).sum();
        let are_many = self.config.hosts > 2 * self.figures.watching;
        !are_many || taken + ports <= self.config.most_agent_ports / 2
    }

    pub(super) fn receive(&mut self, faulty: bool) -> Result<(), End> {
        let mut now = now(self.step, &mut self.dice, self.config, faulty);
        let mut wrongly_fenced = None;
        let hosts = self.hosts.values_mut().map(|host| (host, false));
        let elders = self.elders.values_mut().map(|host| (host, true));
        for (host, is_elder) in hosts.chain(elders) {
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
                let kind = match &ended {
                    Ended::Wrong(_) => "stream broken, noticed",
                    Ended::Lost(_) => "stream closed",
                    Ended::Fenced(_) => "agent fenced",
                };
                *self.figures.faults.entry(kind).or_default() += 1;
                if let Some((number, line)) = &host.line
                    && let Some(server) = &mut self.servers[*number].server
                {
                    server.desk.gone(line);
                }
                host.disconnected(&mut now);
                host.connect_at = self.step + now.dice.between(1, 4);
                if let Ended::Fenced(why) = ended {
                    if self.config.defect == Some(Defect::IgnoresFence) {
                        host.start(&mut now);
                    } else {
                        host.is_fenced = true;
                    }
                    if !is_elder {
                        wrongly_fenced = Some((host.id.clone(), why));
                    }
                }
            }
            let ended = |(_, line): &(usize, Line)| line.is_ended();
            if host.line.as_ref().is_some_and(ended) && host.inbox.is_empty() {
                host.disconnected(&mut now);
                touched = true;
            }
            if touched && !is_elder {
                self.dirty.insert(host.id.clone());
            }
        }
        let failed = now.failed;
        if failed > 0 {
            *self.figures.faults.entry("apply failed").or_default() += failed;
        }
        let Some((id, found)) = wrongly_fenced else {
            return Ok(());
        };
        let differs = Difference {
            port: None,
            what: "an agent that was fenced, although none of its host began later".to_owned(),
            expected: "it follows".to_owned(),
            found,
        };
        Err(self.violation(&id, differs))
    }
}
