//! Traces of two hosts: what the VMs of either send to each other, on their own host and across.
//!
//! Whoever has an address answers for it, so that what one end hears is what the other end says.

use super::change::Changes;
use super::dice::Dice;
use super::scene::{GATEWAY, Local, Scene};
use super::talk::{self, Talk};
use super::{ETHERNET_HEADER, Event, REMEMBERED, Sent, TALKS, TICK, Trace};
use super::{infrastructure, inventory, oddities};
use model::{Direction, HostId, Inspection, Inventory, MacAddr, PeerTrust, Port, PortId};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

pub fn hosts() -> [HostId; 2] {
    [inventory::here(), HostId::new("there")]
}

pub fn tunnel_address(host: &HostId) -> Ipv4Addr {
    let [here, _] = hosts();
    Ipv4Addr::new(192, 0, 2, if *host == here { 1 } else { 2 })
}

/// Whether a frame in the port's network is for it, by the destination's MAC.
pub fn is_addressed(port: &Port, frame: &[u8]) -> bool {
    let Some(destination) = frame.first_chunk().copied().map(MacAddr) else {
        return false;
    };
    let to_many = destination.0[0] & 1 == 1;
    let pairs = port.address_pairs.iter().filter_map(|pair| pair.mac);
    to_many || pairs.chain([port.mac]).any(|mac| mac == destination)
}

#[derive(Clone, Copy)]
enum Step {
    Converse,
    Error,
    Fragments,
    Infrastructure,
    Again,
    Burst,
    Tick,
    Jump,
    Change,
}

const STEPS: [(usize, Step); 9] = [
    (700, Step::Converse),
    (40, Step::Error),
    (10, Step::Fragments),
    (40, Step::Infrastructure),
    (30, Step::Again),
    (15, Step::Burst),
    (10, Step::Tick),
    (8, Step::Jump),
    (14, Step::Change),
];

/// A trace in which this many packets are sent.
pub fn between(seed: u64, packets: usize, inspection: Inspection) -> Trace {
    let mut dice = Dice::new(seed);
    let inventory = two_hosts(&mut dice, inspection);
    let mut generator = Generator {
        scene: scene(&inventory),
        jumps: super::jumps(&inventory),
        events: vec![Event::Policy(Arc::new(inventory.clone()))],
        changes: Changes::default(),
        talks: Vec::new(),
        sent: VecDeque::new(),
        packets: 0,
        packets_wanted: packets,
        inventory,
        dice,
    };
    while generator.packets < packets {
        generator.step();
    }
    let events = generator.events;
    Trace { seed, events }
}

/// The first two ports are of one network, and on two hosts.
fn two_hosts(dice: &mut Dice, inspection: Inspection) -> Inventory {
    let mut made = inventory::inventory(dice);
    for host in made.hosts.values_mut() {
        host.tunnel_address = Some(tunnel_address(&host.id).into());
        host.peer_trust = dice.weighted(&[(3, PeerTrust::Tag), (1, PeerTrust::Address)]);
        host.settings.inspection = inspection;
    }
    // State is as old on one host as on the other.
    let timeouts = made.hosts[&hosts()[0]].settings.timeouts;
    for host in made.hosts.values_mut() {
        host.settings.timeouts = timeouts;
    }
    for (network, vni) in made.networks.values_mut().zip(100..) {
        network.vni = Some(vni);
    }
    let networks: Vec<_> = made.networks.keys().cloned().collect();
    let [here, there] = hosts();
    let mut first = None;
    for (number, port) in made.ports.values_mut().enumerate() {
        port.mac = MacAddr([0x52, 0x54, 0, 0, 0, number as u8 + 1]);
        if !networks.contains(&port.network) {
            port.network = networks[0].clone();
        }
        let network = first.get_or_insert_with(|| port.network.clone());
        let on_here = match number {
            0 => true,
            1 => {
                port.network = network.clone();
                false
            }
            _ => dice.chance(50),
        };
        port.host = Some(if on_here { here.clone() } else { there.clone() });
    }
    made
}

fn scene(made: &Inventory) -> Scene {
    Scene::with(made, |port| port.host.is_some() && port.port_security)
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
    events: Vec<Event>,
    packets: usize,
    packets_wanted: usize,
}

impl Generator {
    fn step(&mut self) {
        if self.scene.ports.is_empty() {
            return self.change();
        }
        match self.dice.weighted(&STEPS) {
            Step::Converse => self.converse(),
            Step::Error => self.error(),
            Step::Fragments => self.fragments(),
            Step::Infrastructure => self.infrastructure(),
            Step::Again => self.again(),
            Step::Burst => self.burst(),
            Step::Tick => {
                let ticks = *self.dice.pick(&[1, 3, 10]);
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
            let Some(talk) = self.talk() else { return };
            talk::keep(&mut self.talks, talk, &mut self.dice);
        }
        let Some((i, step)) = talk::go_on(&mut self.talks, &mut self.dice, 15) else {
            return;
        };
        let talk = &self.talks[i];
        let direction = talk.direction(step);
        let mut packet = talk.packet(step);
        // What no gate lets through is for the traces of one host.
        if self.dice.chance(15) {
            packet = oddities::decorated(&mut self.dice, packet, talk.family());
        }
        let (talk, frame) = (talk.clone(), packet.bytes());
        self.say(&talk, direction, frame);
    }

    /// Mostly with somebody of the same network.
    fn talk(&mut self) -> Option<Talk> {
        let mut last = None;
        for _ in 0..12 {
            let talk = Talk::new(&mut self.dice, &self.scene);
            if talk.as_ref().is_some_and(|talk| self.has_two_ends(talk)) {
                return talk;
            }
            last = talk.or(last);
        }
        let mut talk = last?;
        let network = &self.inventory.ports[&talk.port].network;
        let others = self.scene.ports.iter().filter(|other| {
            other.id != talk.port && self.inventory.ports[&other.id].network == *network
        });
        let others: Vec<&Local> = others.collect();
        let other = self.dice.pick_if_any(&others)?;
        talk.remote = other.any_own(&mut self.dice, talk.family())?.address;
        Some(talk)
    }

    fn has_two_ends(&self, talk: &Talk) -> bool {
        self.other_end(&talk.port, talk.remote).is_some()
    }

    /// Who else of the port's network may use this address, and with which MAC.
    fn other_end(&self, port: &PortId, address: IpAddr) -> Option<(PortId, MacAddr, MacAddr)> {
        let network = &self.inventory.ports.get(port)?.network;
        let mut others = self.scene.ports.iter().filter(|other| {
            other.id != *port && self.inventory.ports[&other.id].network == *network
        });
        others.find_map(|other| {
            let own = other.own.iter().find(|own| own.address == address)?;
            Some((other.id.clone(), other.mac, own.mac))
        })
    }

    /// What goes this way is sent by whoever is at that end, to the MAC of the other.
    fn say(&mut self, talk: &Talk, direction: Direction, mut frame: Vec<u8>) {
        let other = self.other_end(&talk.port, talk.remote);
        let to_many = frame.first().is_none_or(|byte| byte & 1 == 1);
        let gateway = |at: std::ops::Range<usize>, frame: &[u8]| frame.get(at) == Some(&GATEWAY.0);
        match (direction, other) {
            (Direction::Egress, Some((_, mac, _))) if !to_many => {
                if gateway(0..6, &frame) {
                    frame[..6].copy_from_slice(&mac.0);
                }
                self.send(talk.port.clone(), frame);
            }
            (Direction::Egress, _) => self.send(talk.port.clone(), frame),
            (Direction::Ingress, Some((sender, _, mac))) => {
                if gateway(6..12, &frame) {
                    frame[6..12].copy_from_slice(&mac.0);
                }
                self.send(sender, frame);
            }
            // Nobody is there.
            (Direction::Ingress, None) => {}
        }
    }

    fn error(&mut self) {
        if let Some(talk) = self.dice.pick_if_any(&self.talks) {
            let talk = talk.clone();
            let (direction, frame) = oddities::error(&mut self.dice, &self.scene, &talk);
            self.say(&talk, direction, frame);
        }
    }

    fn fragments(&mut self) {
        if let Some(talk) = self.dice.pick_if_any(&self.talks) {
            let talk = talk.clone();
            let (direction, frames) = oddities::fragments(&mut self.dice, &talk);
            for frame in frames {
                self.say(&talk, direction, frame);
            }
        }
    }

    fn infrastructure(&mut self) {
        let port = self.dice.pick(&self.scene.ports);
        let id = port.id.clone();
        let of = infrastructure::infrastructure;
        let mut frame = of(&mut self.dice, &self.scene, port, Direction::Egress);
        let network = &self.inventory.ports[&id].network;
        let others = self.inventory.ports.values();
        let others = others.filter(|other| other.id != id && other.network == *network);
        let others: Vec<MacAddr> = others.map(|other| other.mac).collect();
        if let Some(mac) = self.dice.pick_if_any(&others)
            && frame.get(..6) == Some(&GATEWAY.0)
        {
            frame[..6].copy_from_slice(&mac.0);
        }
        self.send(id, frame);
    }

    /// A packet from before: exactly, damaged, or from somewhere else.
    fn again(&mut self) {
        let sent: Vec<&Sent> = self.sent.iter().collect();
        let Some(sent) = self.dice.pick_if_any(&sent) else {
            return;
        };
        let mut again = Sent::clone(sent);
        match self.dice.below(4) {
            0..=1 => {}
            2 => again.port = self.dice.pick(&self.scene.ports).id.clone(),
            _ => oddities::damage(&mut self.dice, &mut again.frame),
        }
        self.send(again.port, again.frame);
    }

    /// New flows at once, for the budgets.
    fn burst(&mut self) {
        let Some(talk) = self.dice.pick_if_any(&self.talks) else {
            return;
        };
        let talk = talk.clone();
        for _ in 0..2 + self.dice.below(4) {
            let mut sibling = talk.sibling(&mut self.dice);
            for _ in 0..1 + self.dice.below(4) {
                let Some(step) = sibling.next_step() else {
                    break;
                };
                let frame = sibling.packet(step).bytes();
                self.say(&sibling, sibling.direction(step), frame);
            }
            if self.talks.len() < TALKS {
                self.talks.push(sibling);
            }
        }
    }

    fn change(&mut self) {
        self.changes.change(&mut self.dice, &mut self.inventory);
        self.scene = scene(&self.inventory);
        let ports = &self.inventory.ports;
        self.talks.retain(|talk| ports.contains_key(&talk.port));
        let next = Arc::new(self.inventory.clone());
        self.events.push(Event::Policy(next));
    }

    fn send(&mut self, port: PortId, mut frame: Vec<u8>) {
        if self.packets == self.packets_wanted {
            return;
        }
        if frame.len() < ETHERNET_HEADER {
            frame.resize(ETHERNET_HEADER, 0);
        }
        let sent = Sent {
            port,
            direction: Direction::Egress,
            frame,
        };
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back(sent.clone());
        self.events.push(Event::Packet(sent));
        self.packets += 1;
    }
}
