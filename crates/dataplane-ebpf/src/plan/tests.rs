//! Generated changes of policy, step by step on maps in memory: after each step nothing dangles, no
//! port is unguarded, and what passes would pass by the old or the new policy.

use super::*;
use crate::contents::Desired;
use crate::layout::{
    PEER_ANY, PROTOCOL_ANY, SET_ALL_IS_LEAST, SET_ANY, SET_EXACT, SET_EXACT_ANY_PROTOCOL,
    SET_PREFIX, SET_PREFIX_ANY_PROTOCOL,
};
use crate::numbers::Numbers;
use crate::render::books::{Books, Limits};
use crate::render::peers::{exact_key, octets};
use crate::render::render;
use crate::render::sets::{direction, family, merge};
use conformance::generate::{self, Event};
use dataplane::{Device, Target};
use model::{Family, PortId};
use policy::HostView;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use wire::{Body, Fragment, L4};

const LIMITS: Limits = Limits {
    ports: 64,
    sets: 64,
    policy: 1 << 20,
    ranges: 1 << 20,
    rules: 1 << 20,
    members: 1 << 20,
    flows: 1 << 20,
};

/// The maps, as the hooks see them.
#[derive(Clone, Default, PartialEq)]
struct Maps {
    index: BTreeMap<u32, u32>,
    records: BTreeMap<u32, PortRecord>,
    sets: BTreeMap<u32, SetRecord>,
    policy: BTreeMap<PolicyKey, PolicyEntry>,
    ranges: BTreeMap<u32, Range>,
    exact: BTreeMap<ExactKey, Peers>,
    prefixes: BTreeMap<PrefixKey, Peers>,
    own: BTreeSet<OwnKey>,
    macs: BTreeMap<MacKey, u32>,
    net_addresses: BTreeSet<NetAddressKey>,
    subnets: BTreeSet<SubnetKey>,
    reserved: BTreeSet<ReservedKey>,
    devices: BTreeMap<u32, u32>,
    attached: BTreeSet<u32>,
}

/// A packet as the stages identity and policy see it.
#[derive(Clone, Debug)]
struct Question {
    port: PortId,
    direction: usize,
    remote: IpAddr,
    protocol: u8,
    l4: u16,
}

fn change<K: Ord, V>(map: &mut BTreeMap<K, V>, change: Change<K, V>) {
    match change {
        Change::Put(entries) => map.extend(entries),
        Change::Delete(keys) => keys.iter().for_each(|key| {
            map.remove(key);
        }),
    }
}

fn change_keys<K: Ord>(set: &mut BTreeSet<K>, change: Change<K, u8>) {
    match change {
        Change::Put(entries) => set.extend(entries.into_iter().map(|(key, _)| key)),
        Change::Delete(keys) => keys.iter().for_each(|key| {
            set.remove(key);
        }),
    }
}

impl Maps {
    fn run(&mut self, step: Step) {
        match step {
            Step::Names(_)
            | Step::ZeroRules(..)
            | Step::Occupy(..)
            | Step::Config(_)
            | Step::Sweep(..) => {}
            Step::Own(keys) => change_keys(&mut self.own, keys),
            Step::Macs(entries) => change(&mut self.macs, entries),
            Step::Reserved(keys) => change_keys(&mut self.reserved, keys),
            Step::NetAddresses(keys) => change_keys(&mut self.net_addresses, keys),
            Step::Subnets(keys) => change_keys(&mut self.subnets, keys),
            Step::Ranges(entries) => self.ranges.extend(entries),
            Step::Policy(entries) => change(&mut self.policy, entries),
            Step::Sets(entries) => self.sets.extend(entries),
            Step::Exact(entries) => change(&mut self.exact, entries),
            Step::Prefixes(entries) => change(&mut self.prefixes, entries),
            Step::Record(place, record) => {
                let (slot, index) = (place / PORT_RECORDS, place % PORT_RECORDS);
                assert_ne!(
                    self.index.get(&slot),
                    Some(&index),
                    "a record in force is rewritten"
                );
                self.records.insert(place, record);
            }
            Step::PortIndex(slot, index) => {
                self.index.insert(slot, index);
            }
            Step::Device(ifindex, Some(place), _) => {
                self.devices.insert(ifindex, place.slot);
            }
            Step::Device(ifindex, None, _) => {
                self.devices.remove(&ifindex);
                assert!(!self.attached.contains(&ifindex), "hooks without an entry");
            }
            Step::Attach(ifindex, _) => {
                assert!(
                    self.devices.contains_key(&ifindex),
                    "hooks without an entry"
                );
                self.attached.insert(ifindex);
            }
            Step::Detach(ifindex) => {
                self.attached.remove(&ifindex);
            }
        }
    }

    fn port(&self, slot: u32) -> Option<&PortRecord> {
        let record = self
            .records
            .get(&(slot * PORT_RECORDS + self.index.get(&slot)?));
        record.filter(|record| record.number != 0)
    }

    /// policy.h, `permits`.
    fn permits(&self, slot: Option<u32>, q: &Question) -> u32 {
        let Some(port) = slot.and_then(|slot| self.port(slot)) else {
            return 0;
        };
        let fam = family(Family::of(q.remote));
        let set = self.sets.get(&port.set).copied().unwrap_or_default();
        let flags = set.flags[q.direction][fam];
        let mut word = set.all[q.direction][fam];
        if word != 0 && flags & SET_ALL_IS_LEAST != 0 {
            return word;
        }
        let mut ask = |peer: u32, protocol: u16| {
            let key = PolicyKey {
                set: port.set,
                peer,
                protocol,
                direction: q.direction as u8,
                family: fam as u8,
            };
            word = merge(word, self.entry_word(&key, q.l4));
        };
        if flags & SET_ANY != 0 {
            ask(PEER_ANY, q.protocol.into());
        }
        let exact = self.exact.get(&exact_key(port.scope, q.remote)).copied();
        let prefix = self.longest_prefix(port.scope, q.remote);
        let kinds = [
            (exact, SET_EXACT, SET_EXACT_ANY_PROTOCOL),
            (prefix, SET_PREFIX, SET_PREFIX_ANY_PROTOCOL),
        ];
        for (peers, kind, any_protocol) in kinds {
            let listed = peers.filter(|_| flags & kind != 0).unwrap_or_default();
            for peer in listed.peer.into_iter().take_while(|peer| *peer != 0) {
                ask(peer, q.protocol.into());
                if flags & any_protocol != 0 {
                    ask(peer, PROTOCOL_ANY as u16);
                }
            }
        }
        word
    }

    fn entry_word(&self, key: &PolicyKey, l4: u16) -> u32 {
        let Some(entry) = self.policy.get(key) else {
            return 0;
        };
        let range = match entry.count {
            0 => None,
            1 => Some(Range {
                first: (entry.base >> 16) as u16,
                last: entry.base as u16,
                word: entry.word,
            }),
            count => (entry.base..entry.base + count)
                .map(|at| self.ranges[&at])
                .find(|range| (range.first..=range.last).contains(&l4)),
        };
        let hit = range.filter(|range| (range.first..=range.last).contains(&l4));
        hit.map_or(entry.whole, |range| range.word)
    }

    fn longest_prefix(&self, scope: u32, remote: IpAddr) -> Option<Peers> {
        let (fam, address) = octets(remote);
        let bits = u128::from_be_bytes(address);
        let covers = |key: &PrefixKey| {
            let mask = u128::MAX
                .checked_shl(128 - (key.prefix_len - 32))
                .unwrap_or(0);
            key.scope_family == scope * 2 + fam && u128::from_be_bytes(key.address) == bits & mask
        };
        let found = self.prefixes.iter().filter(|(key, _)| covers(key));
        found
            .max_by_key(|(key, _)| key.prefix_len)
            .map(|(_, peers)| *peers)
    }

    /// What every record in force refers to is there, all of it.
    fn check(&self, blocks: &Blocks, sets: &BTreeMap<u32, SetState>) {
        for slot in self.index.keys() {
            let Some(port) = self.port(*slot) else {
                continue;
            };
            if port.set != 0 {
                let known = &sets[&port.set];
                assert_eq!(
                    self.sets.get(&port.set),
                    Some(&known.record),
                    "a set without record"
                );
                for (key, entry) in known.entries.iter() {
                    assert_eq!(
                        self.policy.get(key),
                        Some(entry),
                        "a set without its entries"
                    );
                    if entry.count > 1 {
                        let mut places = entry.base..entry.base + entry.count;
                        assert!(places.all(|at| self.ranges.contains_key(&at)));
                    }
                }
            }
            let addresses = blocks.addresses.get(&port.addresses);
            if let Some(block) = addresses {
                assert!(block.own.is_subset(&self.own), "addresses are missing");
                assert!(
                    block
                        .macs
                        .iter()
                        .all(|(key, mac)| self.macs.get(key) == Some(mac))
                );
            }
            let network = &blocks.networks[&port.network];
            assert!(network.addresses.is_subset(&self.net_addresses));
            assert!(network.subnets.is_subset(&self.subnets));
        }
    }
}

/// All that was ever written under these numbers.
#[derive(Default)]
struct Blocks {
    addresses: BTreeMap<u32, AddressBlock>,
    networks: BTreeMap<u32, NetworkBlock>,
}

impl Blocks {
    fn learn(&mut self, contents: &Desired) {
        let addresses = contents
            .addresses
            .iter()
            .map(|(n, block)| (*n, (**block).clone()));
        self.addresses.extend(addresses);
        let networks = contents
            .networks
            .iter()
            .map(|(n, block)| (*n, (**block).clone()));
        self.networks.extend(networks);
    }
}

/// A plane without a kernel.
struct Plane {
    maps: Maps,
    contents: Contents,
    books: Books,
    view: Option<HostView>,
    blocks: Blocks,
}

impl Plane {
    fn new() -> Self {
        Self {
            maps: Maps::default(),
            contents: Contents::default(),
            books: Books::new(LIMITS, Numbers::new()),
            view: None,
            blocks: Blocks::default(),
        }
    }

    /// Applies, and shows the maps and the slots after each step.
    fn apply(&mut self, target: &Target, mut each: impl FnMut(&Maps, &Numbers)) -> usize {
        let old = self.view.as_ref();
        let before = self.books.numbers.clone();
        let rendered = render(target, old, &self.contents, &mut self.books, 1000);
        assert!(rendered.refused.is_empty(), "{:?}", rendered.refused);
        self.blocks.learn(&rendered.desired);
        let (steps, ending) = plan(&self.contents, &rendered);
        let mut sets = self.contents.sets.clone();
        sets.extend(rendered.passing_sets.clone());
        let count = steps.len();
        for step in steps {
            // A port that goes is known by its old number only.
            let numbers = if self.books.numbers.ports().len() < before.ports().len() {
                &before
            } else {
                &self.books.numbers
            };
            self.maps.run(step);
            self.maps.check(&self.blocks, &sets);
            each(&self.maps, numbers);
        }
        let Rendered {
            desired,
            passing_sets,
            ..
        } = rendered;
        self.books
            .settle(&self.contents.sets, &passing_sets, &desired.sets);
        self.contents.advance(desired, ending);
        self.view = Some(target.view.clone());
        count
    }

    fn permits(&self, question: &Question) -> u32 {
        self.maps
            .permits(self.books.numbers.slot(&question.port), question)
    }

    /// The rule behind a word, which doesn't depend on numbers.
    fn answer(&self, question: &Question) -> Option<(model::RuleRef, bool)> {
        let word = self.permits(question);
        let slot = self.books.numbers.slot(&question.port)?;
        let compiled = self.books.compiled.get(&self.maps.port(slot)?.set)?;
        let rank = (word & crate::layout::WORD_RANK) as usize;
        let rule = compiled.rules.get(rank.checked_sub(1)?)?;
        Some((rule.clone(), word & crate::layout::WORD_STATEFUL != 0))
    }
}

fn questions(events: &[Event]) -> Vec<Question> {
    let mut questions = Vec::new();
    for event in events {
        let Event::Packet(sent) = event else {
            continue;
        };
        let Ok(frame) = wire::parse(&sent.frame) else {
            continue;
        };
        let Body::Ip(Ok(packet)) = frame.body else {
            continue;
        };
        if packet.fragment != Fragment::Whole {
            continue;
        }
        let l4 = match packet.l4 {
            L4::Tcp { dst, .. } | L4::Ported { dst, .. } => dst,
            L4::Icmp {
                icmp_type, code, ..
            } => u16::from(icmp_type) << 8 | u16::from(code),
            L4::Opaque | L4::Absent => 0,
        };
        for remote in [packet.src, packet.dst] {
            for direction in model::Direction::BOTH.map(direction) {
                questions.push(Question {
                    port: sent.port.clone(),
                    direction,
                    remote,
                    protocol: packet.protocol,
                    l4,
                });
            }
        }
    }
    questions
}

/// The generated policy on devices that come and go.
fn target(inventory: &model::Inventory, turn: usize) -> Target {
    let (view, _) = policy::compile(inventory, &generate::host());
    let mut target = Target {
        view,
        ..Target::default()
    };
    for (number, port) in target.view.ports.keys().enumerate() {
        let device = Device {
            name: format!("dev{number}"),
            // Two devices in one place of `devices`.
            ifindex: (number as u32 % 3) << 16 | (number as u32 / 3 + 1),
        };
        match (number + turn) % 5 {
            0 => {}
            1 => {
                target.closed.insert(device);
            }
            _ => {
                target.devices.insert(port.clone(), device);
            }
        }
    }
    target
}

fn policies(events: &[Event]) -> impl Iterator<Item = &model::Inventory> {
    events.iter().filter_map(|event| match event {
        Event::Policy(inventory) => Some(&**inventory),
        Event::Advance(_) | Event::Packet(_) => None,
    })
}

/// Policies of several traces in a row: the names are the same, so that rules, members and addresses
/// change all at once.
#[test]
fn each_step_leaves_what_one_of_the_two_policies_permits() {
    let (mut steps, mut changes) = (0, 0);
    for first_seed in (0..240).step_by(4) {
        let traces: Vec<_> = (0..4)
            .map(|n| generate::trace(first_seed + n, 200))
            .collect();
        let questions: Vec<Question> = traces.iter().flat_map(|t| questions(&t.events)).collect();
        let mut plane = Plane::new();
        let all = traces.iter().flat_map(|t| policies(&t.events).take(3));
        for (turn, inventory) in all.enumerate() {
            let target = target(inventory, turn);
            let mut fresh = Plane::new();
            fresh.apply(&target, |_, _| {});
            let old: Vec<bool> = questions.iter().map(|q| plane.permits(q) != 0).collect();
            let new: Vec<bool> = questions.iter().map(|q| fresh.permits(q) != 0).collect();
            steps += plane.apply(&target, |maps, numbers| {
                for (q, (old, new)) in questions.iter().zip(old.iter().zip(&new)) {
                    let passes = maps.permits(numbers.slot(&q.port), q) != 0;
                    assert!(
                        !passes || *old || *new,
                        "from seed {first_seed}, policy {turn}: {q:?}"
                    );
                }
            });
            changes += 1;
            for q in &questions {
                let (seen, expected) = (plane.answer(q), fresh.answer(q));
                assert_eq!(
                    seen, expected,
                    "by delta and in full; from seed {first_seed}: {q:?}"
                );
            }
            assert_eq!(
                plane.apply(&target, |_, _| {}),
                0,
                "the same again is nothing to do"
            );
        }
    }
    assert!(
        changes > 240 && steps > 4000,
        "{changes} changes, {steps} steps"
    );
}

/// One plane renders what changes, the other one all there is, each time: the same steps, and the same maps.
#[test]
fn what_changes_is_all_that_differs() {
    let mut partial = 0;
    for first_seed in (0..200).step_by(2) {
        let [mut whole, mut by_change] = [Plane::new(), Plane::new()];
        let mut compiler: Option<policy::Compiler> = None;
        let traces = (0..2).map(|n| generate::trace(first_seed + n, 400));
        let events: Vec<Event> = traces.flat_map(|trace| trace.events).collect();
        for (turn, inventory) in policies(&events).enumerate() {
            // As an agent has them: what is equal is the same in memory.
            let compiler = match &mut compiler {
                Some(compiler) => {
                    compiler.replace(inventory.clone());
                    compiler
                }
                none => none.insert(policy::Compiler::new(inventory.clone(), generate::host())),
            };
            let target = Target {
                view: compiler.view().clone(),
                ..target(inventory, turn / 3)
            };
            whole.books.last = None;
            partial += usize::from(by_change.books.last.is_some());
            let (mut all, mut changes) = (Vec::new(), Vec::new());
            whole.apply(&target, |maps, _| all.push(maps.clone()));
            by_change.apply(&target, |maps, _| changes.push(maps.clone()));
            assert!(all == changes, "from seed {first_seed}, policy {turn}");
            assert_eq!(whole.contents, by_change.contents);
        }
    }
    assert!(partial > 1_000, "{partial}");
}

#[test]
fn what_is_given_up_is_given_back() {
    let trace = generate::trace(7, 100);
    let inventory = policies(&trace.events)
        .next()
        .expect("a policy comes first");
    let mut plane = Plane::new();
    for _ in 0..40 {
        plane.apply(&target(inventory, 0), |_, _| {});
        plane.apply(&Target::default(), |_, _| {});
    }
    plane.apply(&Target::default(), |_, _| {});
    // What the last apply gave up rests until the one after the next.
    assert!(
        plane.books.rules.untouched() <= 4 * 256,
        "counters' places are used again"
    );
    let maps = &plane.maps;
    assert!(maps.policy.is_empty() && maps.exact.is_empty() && maps.prefixes.is_empty());
    assert!(maps.own.is_empty() && maps.macs.is_empty() && maps.reserved.is_empty());
    assert!(maps.net_addresses.is_empty() && maps.subnets.is_empty());
    assert!(maps.sets.values().all(|set| *set == SetRecord::default()));
    assert!(maps.devices.is_empty() && maps.attached.is_empty());
    assert_eq!(plane.contents.names.len(), 1, "only the plane's own entry");
}
