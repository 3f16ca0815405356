//! Traces out of a seed: a random inventory, then packets, pauses and policy changes, biased to edges
//! and to history.
//!
//! Place on the line: before it. Knows nothing of: verdicts. A trace depends on its seed alone, so the
//! same one can be shown to every judge.
//! Cost: some microseconds per packet; a trace holds one inventory per policy change.

mod between;
mod change;
mod dice;
mod infrastructure;
mod inventory;
mod oddities;
mod scene;
mod talk;

pub use between::{between, hosts, is_addressed, tunnel_address};
pub use dice::Dice;

use change::Changes;
use model::{Direction, HostId, Inventory, PortId, Timeouts};
use scene::{Local, Scene};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use talk::Talk;

#[derive(Clone, Debug)]
pub struct Trace {
    pub seed: u64,
    /// A policy comes first.
    pub events: Vec<Event>,
}

#[derive(Clone, Debug)]
pub enum Event {
    Policy(Arc<Inventory>),
    Advance(Duration),
    Packet(Sent),
}

/// A packet at a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub port: PortId,
    pub direction: Direction,
    pub frame: Vec<u8>,
}

/// The host whose ports are judged in every trace.
pub fn host() -> HostId {
    inventory::here()
}

/// All pauses are multiples of this, so that no judge's clock is near the edge of a second.
pub const TICK: Duration = Duration::from_millis(100);

/// Whoever delivers frames delivers at least this; the kernel can't be shown less.
const ETHERNET_HEADER: usize = 14;
const TALKS: usize = 12;
const REMEMBERED: usize = 24;

#[derive(Clone, Copy)]
enum Step {
    Converse,
    Error,
    Fragments,
    Infrastructure,
    Spoof,
    Again,
    Burst,
    Junk,
    Tick,
    Jump,
    Change,
}

const STEPS: [(usize, Step); 11] = [
    (520, Step::Converse),
    (90, Step::Error),
    (20, Step::Fragments),
    (90, Step::Infrastructure),
    (40, Step::Spoof),
    (50, Step::Again),
    (20, Step::Burst),
    (15, Step::Junk),
    (15, Step::Tick),
    (12, Step::Jump),
    (18, Step::Change),
];

/// A trace with this many packets.
pub fn trace(seed: u64, packets: usize) -> Trace {
    let mut dice = Dice::new(seed);
    let inventory = inventory::inventory(&mut dice);
    let mut generator = Generator {
        scene: Scene::of(&inventory),
        jumps: jumps(&inventory),
        events: vec![Event::Policy(Arc::new(inventory.clone()))],
        changes: Changes::default(),
        talks: Vec::new(),
        sent: VecDeque::new(),
        waiting: Vec::new(),
        packets: 0,
        inventory,
        dice,
    };
    while generator.packets < packets {
        generator.step();
    }
    let mut events = generator.events;
    for _ in packets..generator.packets {
        let last = events.iter().rposition(|e| matches!(e, Event::Packet(_)));
        events.truncate(last.expect("as many are here as were counted"));
    }
    Trace { seed, events }
}

struct Generator {
    dice: Dice,
    inventory: Inventory,
    scene: Scene,
    jumps: Vec<Duration>,
    changes: Changes,
    talks: Vec<Talk>,
    /// Lately, for doing it again.
    sent: VecDeque<Sent>,
    /// Fragments on their way.
    waiting: Vec<Sent>,
    events: Vec<Event>,
    packets: usize,
}

impl Generator {
    fn step(&mut self) {
        if self.scene.ports.is_empty() {
            return self.change();
        }
        if !self.waiting.is_empty() && self.dice.chance(30) {
            let i = if self.dice.chance(70) {
                0
            } else {
                self.dice.below(self.waiting.len())
            };
            let fragment = self.waiting.remove(i);
            return self.send(fragment);
        }
        match self.dice.weighted(&STEPS) {
            Step::Converse => self.converse(),
            Step::Error => self.error(),
            Step::Fragments => self.fragments(),
            Step::Infrastructure => self.at_a_port(infrastructure::infrastructure),
            Step::Spoof => self.at_a_port(oddities::spoofed),
            Step::Again => self.again(),
            Step::Burst => self.burst(),
            Step::Junk => self.junk(),
            Step::Tick => {
                let ticks = *self.dice.pick(&[1, 1, 3, 10, 12]);
                self.events.push(Event::Advance(TICK * ticks));
            }
            Step::Jump => {
                let jump = *self.dice.pick(&self.jumps);
                self.events.push(Event::Advance(jump));
            }
            Step::Change => self.change(),
        }
    }

    fn converse(&mut self) {
        if self.talks.len() < TALKS / 2 || self.dice.chance(8) {
            let Some(talk) = Talk::new(&mut self.dice, &self.scene) else {
                return self.junk();
            };
            talk::keep(&mut self.talks, talk, &mut self.dice);
        }
        let Some((i, step)) = talk::go_on(&mut self.talks, &mut self.dice, 22) else {
            return;
        };
        let talk = &self.talks[i];
        let direction = talk.direction(step);
        let packet = oddities::decorated(&mut self.dice, talk.packet(step), talk.family());
        let port = talk.port.clone();
        let frame = packet.bytes();
        let other_end = self.other_end(i, direction);
        if let Some((other, mac)) = other_end {
            let mut arriving = frame.clone();
            if let Some(destination) = arriving.first_chunk_mut() {
                *destination = mac;
            }
            self.send_at(port, direction, frame);
            self.send_at(other, Direction::Ingress, arriving);
        } else {
            self.send_at(port, direction, frame);
        }
    }

    /// The local port that a packet of this talk gets to, sometimes: it is judged there as well.
    fn other_end(&mut self, talk: usize, direction: Direction) -> Option<(PortId, [u8; 6])> {
        let talk = &self.talks[talk];
        if direction == Direction::Ingress || !self.dice.chance(70) {
            return None;
        }
        let has = |p: &&Local| p.own.iter().any(|o| o.address == talk.remote);
        let mut others = self.scene.ports.iter().filter(|p| p.id != talk.port);
        let other = others.find(has)?;
        Some((other.id.clone(), other.mac.0))
    }

    fn error(&mut self) {
        if let Some(talk) = self.dice.pick_if_any(&self.talks) {
            let talk = talk.clone();
            let (direction, frame) = oddities::error(&mut self.dice, &self.scene, &talk);
            // More than once, for the rate limit.
            for _ in 0..self.dice.weighted(&[(6, 1), (2, 3), (1, 5)]) {
                self.send_at(talk.port.clone(), direction, frame.clone());
            }
        }
    }

    fn fragments(&mut self) {
        let Some(talk) = self.dice.pick_if_any(&self.talks) else {
            return;
        };
        let talk = talk.clone();
        let (direction, frames) = oddities::fragments(&mut self.dice, &talk);
        for frame in frames {
            self.waiting.push(Sent {
                port: talk.port.clone(),
                direction,
                frame,
            });
        }
        if self.dice.chance(60) {
            for fragment in std::mem::take(&mut self.waiting) {
                self.send(fragment);
            }
        }
    }

    /// A packet from before: exactly, or damaged, or somewhere else.
    fn again(&mut self) {
        let count = self.sent.len();
        if count == 0 {
            return;
        }
        let mut again = self.sent[self.dice.below(count)].clone();
        match self.dice.below(6) {
            0..=1 => {}
            2 => again.direction = again.direction.opposite(),
            3 => again.port = self.dice.pick(&self.scene.ports).id.clone(),
            _ => oddities::damage(&mut self.dice, &mut again.frame),
        }
        self.send(again);
    }

    /// New flows at once, for the budgets.
    fn burst(&mut self) {
        let Some(talk) = self.dice.pick_if_any(&self.talks) else {
            return;
        };
        let talk = talk.clone();
        for _ in 0..2 + self.dice.below(5) {
            let mut sibling = talk.sibling(&mut self.dice);
            let steps = 1 + self.dice.below(4);
            for _ in 0..steps {
                let Some(step) = sibling.next_step() else {
                    break;
                };
                let direction = sibling.direction(step);
                self.send_at(
                    sibling.port.clone(),
                    direction,
                    sibling.packet(step).bytes(),
                );
            }
            if self.talks.len() < TALKS {
                self.talks.push(sibling);
            }
        }
    }

    fn junk(&mut self) {
        let direction = *self.dice.pick(&Direction::BOTH);
        let port = match self.dice.below(8) {
            0 => PortId::new("nobody"),
            1 => {
                let ports: Vec<&PortId> = self.inventory.ports.keys().collect();
                let port = self.dice.pick_if_any(&ports);
                port.map_or(PortId::new("nobody"), |id| (*id).clone())
            }
            _ => match self.dice.pick_if_any(&self.scene.ports) {
                Some(port) => port.id.clone(),
                None => PortId::new("nobody"),
            },
        };
        let frame = oddities::junk(&mut self.dice);
        self.send_at(port, direction, frame);
    }

    fn change(&mut self) {
        self.changes.change(&mut self.dice, &mut self.inventory);
        self.scene = Scene::of(&self.inventory);
        let next = Arc::new(self.inventory.clone());
        self.events.push(Event::Policy(next));
    }

    fn at_a_port(&mut self, make: fn(&mut Dice, &Scene, &Local, Direction) -> Vec<u8>) {
        let direction = *self.dice.pick(&Direction::BOTH);
        let port = self.dice.pick(&self.scene.ports);
        let id = port.id.clone();
        let frame = make(&mut self.dice, &self.scene, port, direction);
        self.send_at(id, direction, frame);
    }

    fn send_at(&mut self, port: PortId, direction: Direction, frame: Vec<u8>) {
        self.send(Sent {
            port,
            direction,
            frame,
        });
    }

    fn send(&mut self, mut packet: Sent) {
        if packet.frame.len() < ETHERNET_HEADER {
            packet.frame.resize(ETHERNET_HEADER, 0);
        }
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back(packet.clone());
        self.events.push(Event::Packet(packet));
        self.packets += 1;
    }
}

/// Pauses that take some state clearly across its timeout and leave no single one at its edge, where
/// the contract leaves the verdict open.
fn jumps(inventory: &Inventory) -> Vec<Duration> {
    let settings = inventory.hosts.get(&host()).map(|h| &h.settings);
    let timeouts = settings.map(|s| s.timeouts).unwrap_or_default();
    let Timeouts {
        tcp_opening_s,
        tcp_established_s,
        tcp_closing_s,
        tcp_reset_s,
        udp_s,
        udp_replied_s,
        icmp_s,
        other_s,
    } = timeouts;
    const FRAGMENTS_S: u32 = 30;
    let all = [
        tcp_opening_s,
        tcp_established_s,
        tcp_closing_s,
        tcp_reset_s,
        udp_s,
        udp_replied_s,
        icmp_s,
        other_s,
        FRAGMENTS_S,
    ];
    let around = all.iter().flat_map(|t| [t / 2, t * 4 / 5, t + 33]);
    let is_clear = |pause: &u32| {
        let open = |t: &u32| (t * 9 / 10..=t + 31).contains(pause);
        *pause > 0 && !all.iter().any(open)
    };
    let clear = around.filter(is_clear);
    clear.map(|s| Duration::from_secs(s.into())).collect()
}

#[cfg(test)]
#[path = "generate/tests.rs"]
mod tests;
