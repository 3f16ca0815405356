//! From a target to what the maps should hold.
//!
//! Place on the line: view, devices -> **render** -> desired contents -> plan. Touches no map; it
//! keeps the books of numbers and places, which `readback` sets up again after a restart or a
//! failure.
//!
//! ```text
//! actual --(passing: what both policies may see)--> switch --> desired
//! ```
//! Between the old and the new policy an address's list holds the memberships that both know, and
//! those that only rules of one side name; so each packet is judged by what one of the two permits.

pub(crate) mod guard;
pub(crate) mod peers;
pub(crate) mod sets;
mod transition;

use crate::contents::{Contents, DevicePlace, InForce, PolicyEntries, SetState, Space};
use crate::layout::{
    Config, ELISION_OFF, ELISION_ON, ELISION_STRICT, PolicyEntry, PolicyKey, PortRecord, Range,
    SET_MAY_ELIDE, SLOT_CLOSED, TICK_SHIFT, TIMEOUT_TCP_ESTABLISHED,
};
use crate::numbers::{Numbers, PeerName};
use dataplane::{Device, Target};
use model::{Elision, GroupId, Narrowing, PortId, Settings};
use peers::{Lists, NamedPeers};
use policy::{ElisionChange, HostView, PortView};
use sets::{CompiledSet, Entry, EntryKey};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How much there is room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) ports: u32,
    pub(crate) sets: u32,
    pub(crate) policy: u32,
    pub(crate) ranges: u32,
    pub(crate) rules: u32,
    pub(crate) members: u32,
    pub(crate) flows: u32,
}

/// Numbers and places that are taken, and what sets were compiled from.
#[derive(Clone, Debug)]
pub(crate) struct Books {
    pub(crate) limits: Limits,
    pub(crate) numbers: Numbers,
    pub(crate) ranges: Space,
    pub(crate) rules: Space,
    /// By set number.
    pub(crate) compiled: BTreeMap<u32, Arc<CompiledSet>>,
    by_groups: BTreeMap<Vec<GroupId>, u32>,
    /// What was given up by the last apply: not used again before the next one is done, so that a
    /// packet that is being judged meets no stranger in an old place.
    resting: Resting,
    set_hand: u32,
}

#[derive(Clone, Debug, Default)]
struct Resting {
    sets: BTreeSet<u32>,
    ranges: Vec<(u32, u32)>,
    rules: Vec<(u32, u32)>,
}

pub(crate) struct Rendered {
    pub(crate) desired: Contents,
    /// Address lists, and sets, that hold while ports switch.
    pub(crate) passing_lists: Arc<Lists>,
    pub(crate) passing_sets: BTreeMap<u32, SetState>,
    /// Slots whose hold begins before anything is taken away, and when it ends.
    pub(crate) holds: BTreeMap<u32, u32>,
    pub(crate) new_ranges: Vec<(u32, Range)>,
    /// Runs of `rule_stats` that count somebody else's packets still.
    pub(crate) reused_rules: Vec<(u32, u32)>,
    pub(crate) device_names: BTreeMap<u32, String>,
    /// Ports, by slot and number, whose flows that need no tracking any more are to go.
    pub(crate) becoming_elidable: Vec<(u32, u32)>,
    pub(crate) refused: BTreeMap<PortId, String>,
}

pub(crate) fn render(
    target: &Target,
    old: Option<&HostView>,
    actual: &Contents,
    books: &mut Books,
    now_ticks: u32,
) -> Rendered {
    let view = &target.view;
    let mut new = New::default();
    let mut desired = Contents {
        config: config(&view.settings, view.ports.len(), &actual.config, books),
        ..Contents::default()
    };
    let mut refused = BTreeMap::new();
    let set_of = books.sets(view, old, actual, &mut new);
    let network_numbers = networks(view, &mut books.numbers, actual, &mut desired);
    let mut slots = BTreeMap::new();
    let mut named_peers = NamedPeers::new();
    for (id, port) in &view.ports {
        let set = set_of.get(&port.groups).unwrap_or(&Ok(0));
        let known = books
            .numbers
            .slot(id)
            .and_then(|slot| actual.ports.get(&slot));
        let set = match (set, known) {
            (Ok(set), _) => *set,
            (Err(why), Some(in_force)) => {
                refused.insert(id.clone(), format!("{why}; it keeps its last policy"));
                in_force.record.set
            }
            (Err(why), None) => {
                refused.insert(id.clone(), format!("{why}; it stays closed"));
                continue;
            }
        };
        let Some(slot) = books.numbers.take_slot(id, books.limits.ports) else {
            let why = format!(
                "there is room for {} ports; it stays closed",
                books.limits.ports
            );
            refused.insert(id.clone(), why);
            continue;
        };
        slots.insert(id.clone(), slot);
        let network = view.networks.get(&port.network);
        let network = network.expect("a view has the networks of its ports");
        let mut record = guard::record(port, network);
        record.set = set;
        record.network = network_numbers[&port.network];
        record.scope = books.numbers.scope(&network.scope);
        let before = actual.ports.get(&slot).filter(|p| p.record.number != 0);
        record.number = before.map_or_else(|| books.numbers.new_port(), |p| p.record.number);
        record.hold_until = before.map_or(0, |p| p.record.hold_until);
        addresses(
            port,
            &mut record,
            before,
            actual,
            &mut desired,
            &mut books.numbers,
        );
        if let Some(compiled) = books.compiled.get(&set) {
            let named = named_peers.entry(network.scope.clone()).or_default();
            named.extend(
                compiled
                    .named
                    .iter()
                    .map(|(number, name)| (*number, name.clone())),
            );
        }
        let index = before.map_or(0, |p| p.index);
        desired.ports.insert(slot, InForce { index, record });
    }
    desired.lists = Arc::new(peers::render(view, &named_peers, &mut books.numbers));
    let (passing_lists, passing_sets) = transition::pass(actual, &mut desired, books, &mut new);
    let (holds, becoming_elidable) =
        elision_changes(view, old, actual, &mut desired, &slots, now_ticks);
    let device_names = devices(target, &slots, actual, &mut desired);
    let used = Used::of(&desired, &slots, books);
    books
        .numbers
        .keep(&used.ports, &used.scopes, &used.networks, &used.peers);
    desired.names = books.numbers.names();
    Rendered {
        desired,
        passing_lists,
        passing_sets,
        holds,
        new_ranges: new.ranges,
        reused_rules: new.reused_rules,
        device_names,
        becoming_elidable,
        refused,
    }
}

impl Rendered {
    /// Refuses what the maps can't hold, before anything is written.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), String> {
        let lists = &self.passing_lists;
        let entries: usize = self
            .passing_sets
            .values()
            .map(|set| set.all_entries().count())
            .sum();
        let rooms = [
            (
                lists.exact.len(),
                limits.members,
                "addresses that rules name",
            ),
            (
                self.desired.lists.exact.len(),
                limits.members,
                "addresses that rules name",
            ),
            (
                lists.prefixes.len(),
                limits.members,
                "prefixes that rules name",
            ),
            (
                self.desired.lists.prefixes.len(),
                limits.members,
                "prefixes that rules name",
            ),
            (entries, limits.policy, "policy entries"),
        ];
        match rooms
            .iter()
            .find(|(needed, room, _)| *needed > *room as usize)
        {
            Some((needed, room, what)) => Err(format!(
                "{needed} {what} are needed; there is room for {room}"
            )),
            None => Ok(()),
        }
    }
}

/// What a render adds to the arrays.
#[derive(Default)]
pub(crate) struct New {
    pub(crate) ranges: Vec<(u32, Range)>,
    reused_rules: Vec<(u32, u32)>,
    /// By number; not in the actual contents.
    pub(crate) sets: BTreeMap<u32, SetState>,
}

impl Books {
    pub(crate) fn new(limits: Limits, numbers: Numbers) -> Self {
        Self {
            limits,
            numbers,
            ranges: Space::new(limits.ranges),
            rules: Space::new(limits.rules),
            compiled: BTreeMap::new(),
            by_groups: BTreeMap::new(),
            resting: Resting::default(),
            set_hand: 1,
        }
    }

    /// Each list of groups' set, or why it can't be served.
    fn sets(
        &mut self,
        view: &HostView,
        old: Option<&HostView>,
        actual: &Contents,
        new: &mut New,
    ) -> BTreeMap<Vec<GroupId>, Result<u32, String>> {
        let unchanged: BTreeSet<&GroupId> = view
            .groups
            .iter()
            .filter(|(id, group)| old.and_then(|o| o.groups.get(*id)) == Some(*group))
            .map(|(id, _)| id)
            .collect();
        let mut by_digest: BTreeMap<[u64; 2], u32> = BTreeMap::new();
        for (number, set) in &actual.sets {
            if set.record.digest != [0; 2] {
                by_digest.insert(set.record.digest, *number);
            }
        }
        let mut of_groups = BTreeMap::new();
        let guarded = view.ports.values().filter(|port| port.port_security);
        for port in guarded {
            if of_groups.contains_key(&port.groups) {
                continue;
            }
            let known = self.by_groups.get(&port.groups).copied();
            let same = port.groups.iter().all(|group| unchanged.contains(group));
            if let Some(set) = known.filter(|set| same && actual.sets.contains_key(set)) {
                of_groups.insert(port.groups.clone(), Ok(set));
                continue;
            }
            let groups = port
                .groups
                .iter()
                .filter_map(|id| view.groups.get_key_value(id));
            let groups: Vec<_> = groups.collect();
            let compiled = sets::compile(&groups, |peer| self.numbers.peer(peer));
            let number = if compiled.rules.is_empty() {
                Ok(0)
            } else if let Some(number) = by_digest.get(&compiled.record.digest) {
                self.compiled.insert(*number, Arc::new(compiled));
                Ok(*number)
            } else {
                let added = self.add(compiled, actual, new);
                if let Ok(number) = added {
                    by_digest.insert(new.sets[&number].record.digest, number);
                }
                added
            };
            of_groups.insert(port.groups.clone(), number);
        }
        self.by_groups = of_groups
            .iter()
            .filter_map(|(groups, set)| {
                Some((groups.clone(), set.clone().ok().filter(|s| *s != 0)?))
            })
            .collect();
        of_groups
    }

    /// Finds what is in force in the view that it comes from.
    pub(crate) fn recognize(&mut self, view: &HostView, actual: &Contents) {
        let mut numbers = self.numbers.clone();
        let lists: BTreeSet<&Vec<GroupId>> = view.ports.values().map(|port| &port.groups).collect();
        for list in lists {
            let groups = list.iter().filter_map(|id| view.groups.get_key_value(id));
            let groups: Vec<_> = groups.collect();
            let compiled = sets::compile(&groups, |peer| numbers.peer(peer));
            let mut known = actual.sets.iter();
            let known = known.find(|(_, set)| set.record.digest == compiled.record.digest);
            if let Some((number, _)) = known {
                self.by_groups.insert(list.clone(), *number);
                self.compiled.insert(*number, Arc::new(compiled));
            }
        }
    }

    /// Places for a new set.
    fn add(
        &mut self,
        compiled: CompiledSet,
        actual: &Contents,
        new: &mut New,
    ) -> Result<u32, String> {
        let sets = actual.sets.values().chain(new.sets.values());
        let taken: usize = sets.map(|set| set.all_entries().count()).sum();
        let entries = compiled.entries.len();
        if taken + entries > self.limits.policy as usize {
            return Err(format!(
                "its rules need {entries} policy entries, and {} are left",
                (self.limits.policy as usize).saturating_sub(taken)
            ));
        }
        let number = (0..self.limits.sets)
            .map(|step| (self.set_hand + step) % self.limits.sets)
            .find(|number| {
                *number != 0
                    && !actual.sets.contains_key(number)
                    && !new.sets.contains_key(number)
                    && !self.resting.sets.contains(number)
            })
            .ok_or_else(|| {
                format!(
                    "there is room for {} different lists of groups",
                    self.limits.sets
                )
            })?;
        let rules = compiled.rules.len() as u32;
        let fresh_from = self.rules.untouched();
        let rule_base = self
            .rules
            .take(rules)
            .ok_or_else(|| format!("there is no room for counters of {rules} rules more"))?;
        let several = |entry: &&(EntryKey, Entry)| entry.1.ranges > 1;
        let ranges: u32 = compiled
            .entries
            .iter()
            .filter(several)
            .map(|(_, e)| e.ranges)
            .sum();
        let Some(mut base) = self.ranges.take(ranges) else {
            self.rules.give(rule_base, rules);
            return Err(format!("there is no room for {ranges} port ranges more"));
        };
        if rule_base < fresh_from {
            new.reused_rules
                .push((rule_base, rules.min(fresh_from - rule_base)));
        }
        self.set_hand = number + 1;
        let mut policy = PolicyEntries::with_capacity(entries);
        for (key, entry) in &compiled.entries {
            let ranges = compiled.ranges_of(entry);
            policy.push(policy_entry(
                number,
                key,
                entry,
                ranges,
                &mut base,
                &mut new.ranges,
            ));
        }
        policy.sort_unstable_by_key(|(key, _)| *key);
        let mut record = compiled.record;
        record.rule_base = rule_base;
        let state = SetState {
            record,
            entries: Arc::new(policy),
            unions: BTreeMap::new(),
        };
        new.sets.insert(number, state);
        self.compiled.insert(number, Arc::new(compiled));
        Ok(number)
    }

    /// A union's entries in one set.
    pub(crate) fn add_union(
        &mut self,
        set: u32,
        union: u32,
        new: &mut Vec<(u32, Range)>,
    ) -> Option<Arc<PolicyEntries>> {
        let compiled = self.compiled.get(&set)?;
        let parts = self.numbers.unions().get(&union)?;
        let entries = compiled.union_entries(union, parts);
        let mut policy = PolicyEntries::with_capacity(entries.len());
        for (key, entry, ranges) in &entries {
            let several = if entry.ranges > 1 { entry.ranges } else { 0 };
            // Without room the peer permits nothing: the closed side.
            let mut base = self.ranges.take(several)?;
            policy.push(policy_entry(set, key, entry, ranges, &mut base, new));
        }
        (!policy.is_empty()).then(|| Arc::new(policy))
    }

    /// After an apply: what it gave up rests, and what the one before gave up is free again.
    pub(crate) fn settle(
        &mut self,
        before: &Contents,
        passing: &BTreeMap<u32, SetState>,
        after: &Contents,
    ) {
        let rested = std::mem::take(&mut self.resting);
        rested
            .ranges
            .iter()
            .for_each(|(start, length)| self.ranges.give(*start, *length));
        rested
            .rules
            .iter()
            .for_each(|(start, length)| self.rules.give(*start, *length));
        let gone = |number: &u32| !after.sets.contains_key(number);
        let all: BTreeSet<u32> = before.sets.keys().chain(passing.keys()).copied().collect();
        for number in all.into_iter().filter(|number| *number != 0) {
            let set = passing.get(&number).or_else(|| before.sets.get(&number));
            let set = set.expect("the number is of one of them");
            if gone(&number) {
                self.resting.sets.insert(number);
                self.resting
                    .rules
                    .push((set.record.rule_base, set.record.rules));
                let runs = set.all_entries().filter(|(_, entry)| entry.count > 1);
                self.resting
                    .ranges
                    .extend(runs.map(|(_, entry)| (entry.base, entry.count)));
                self.compiled.remove(&number);
            } else {
                let kept = &after.sets[&number].unions;
                let left = set
                    .unions
                    .iter()
                    .filter(|(union, _)| !kept.contains_key(union));
                let entries = left.flat_map(|(_, entries)| entries.iter());
                let runs = entries.filter(|(_, entry)| entry.count > 1);
                self.resting
                    .ranges
                    .extend(runs.map(|(_, entry)| (entry.base, entry.count)));
            }
        }
    }
}

fn policy_entry(
    set: u32,
    key: &EntryKey,
    entry: &Entry,
    ranges: &[Range],
    base: &mut u32,
    new: &mut Vec<(u32, Range)>,
) -> (PolicyKey, PolicyEntry) {
    let key = PolicyKey {
        set,
        peer: key.peer,
        protocol: key.protocol,
        direction: key.direction,
        family: key.family,
    };
    let mut value = PolicyEntry {
        whole: entry.whole,
        count: entry.ranges,
        errors: entry.errors,
        ..PolicyEntry::default()
    };
    match ranges {
        [] => {}
        [one] => {
            value.base = u32::from(one.first) << 16 | u32::from(one.last);
            value.word = one.word;
        }
        several => {
            value.base = *base;
            new.extend((*base..).zip(several.iter().copied()));
            *base += several.len() as u32;
        }
    }
    (key, value)
}

fn config(settings: &Settings, ports: usize, before: &Config, books: &Books) -> Config {
    let ticks = |seconds: u32| {
        let ticks = ((u64::from(seconds) * 1_000_000_000) >> TICK_SHIFT) + 1;
        u32::try_from(ticks)
            .unwrap_or(u32::MAX / 2)
            .min(u32::MAX / 2)
    };
    let t = &settings.timeouts;
    let budgets = &settings.budgets;
    let reserves = u64::from(budgets.reserve_per_port) * ports as u64;
    let host = u64::from(budgets.flows_per_host.min(books.limits.flows));
    let mut config = Config {
        elision: match settings.elision {
            Elision::Off => ELISION_OFF,
            Elision::Strict => ELISION_STRICT,
            Elision::On => ELISION_ON,
        },
        timeouts_ticks: [
            ticks(t.tcp_opening_s),
            ticks(t.tcp_established_s),
            ticks(t.tcp_closing_s),
            ticks(t.tcp_reset_s),
            ticks(t.udp_s),
            ticks(t.udp_replied_s),
            ticks(t.icmp_s),
            ticks(t.other_s),
        ],
        flows_per_port: budgets.flows_per_port,
        half_open_per_port: budgets
            .half_open_per_port
            .min(crate::layout::HALF_OPEN_PLACES),
        shared_flows: u32::try_from(host.saturating_sub(reserves)).unwrap_or(u32::MAX),
        reserve_per_port: budgets.reserve_per_port,
        elided_errors_per_s: budgets.elided_errors_per_s,
        ethertypes: [0; 8],
        ethertypes_len: settings.ethertypes.len().min(8) as u32,
        ..*before
    };
    for (place, ethertype) in config.ethertypes.iter_mut().zip(&settings.ethertypes) {
        *place = *ethertype;
    }
    config
}

fn networks<'a>(
    view: &'a HostView,
    numbers: &mut Numbers,
    actual: &Contents,
    desired: &mut Contents,
) -> BTreeMap<&'a model::NetworkId, u32> {
    let mut of_network = BTreeMap::new();
    for (id, network) in &view.networks {
        let number = numbers.network(&guard::network_name(id, network));
        let block = guard::network_block(network, number);
        let same = actual
            .networks
            .get(&number)
            .filter(|known| ***known == block);
        let block = same.cloned().unwrap_or_else(|| Arc::new(block));
        desired.networks.insert(number, block);
        desired.reserved.extend(guard::reserved(network, number));
        of_network.insert(id, number);
    }
    of_network
}

/// The port's addresses under the number that they have, or under a new one.
fn addresses(
    port: &PortView,
    record: &mut PortRecord,
    before: Option<&InForce>,
    actual: &Contents,
    desired: &mut Contents,
    numbers: &mut Numbers,
) {
    if let Some(InForce { record: old, .. }) = before {
        let block = guard::address_block(port, old.addresses);
        let known = actual.addresses.get(&old.addresses);
        let same_block = known.map_or(block == guard::AddressBlock::default(), |k| **k == block);
        if same_block && (old.mac, old.v4, old.v6) == (record.mac, record.v4, record.v6) {
            record.addresses = old.addresses;
            if let Some(known) = known {
                desired.addresses.insert(old.addresses, Arc::clone(known));
            }
            return;
        }
    }
    record.addresses = numbers.new_addresses();
    let block = guard::address_block(port, record.addresses);
    if block != guard::AddressBlock::default() {
        desired.addresses.insert(record.addresses, Arc::new(block));
    }
}

/// Which ports' TCP flows begin by SYN only from now on, and which ports' flows need no tracking
/// any more.
fn elision_changes(
    view: &HostView,
    old: Option<&HostView>,
    actual: &Contents,
    desired: &mut Contents,
    slots: &BTreeMap<PortId, u32>,
    now_ticks: u32,
) -> (BTreeMap<u32, u32>, Vec<(u32, u32)>) {
    let (mut holds, mut becoming) = (BTreeMap::new(), Vec::new());
    let mut change = old.map(|old| ElisionChange::between(old, view));
    let mut ports = std::mem::take(&mut desired.ports);
    let until =
        now_ticks.wrapping_add(desired.config.timeouts_ticks[TIMEOUT_TCP_ESTABLISHED as usize]);
    for (id, slot) in slots {
        let (Some(before), Some(now)) = (actual.ports.get(slot), ports.get_mut(slot)) else {
            continue;
        };
        if before.record.number != now.record.number {
            continue;
        }
        // Without rules of both directions nothing is elidable: a cheap answer for most.
        let may = |number: u32, sets: &BTreeMap<u32, SetState>, mode: u32| {
            let flags = sets.get(&number).map(|set| set.record.flags[0]);
            let both_ways = flags.is_some_and(|f| f.iter().any(|f| f & SET_MAY_ELIDE != 0));
            both_ways && mode != ELISION_OFF
        };
        let could = may(before.record.set, &actual.sets, actual.config.elision);
        let can = may(now.record.set, &desired.sets, desired.config.elision);
        let (stops, becomes) = match &mut change {
            Some(change) => (could && change.stops(id), can && change.becomes(id)),
            // The old view is not known: whatever may have changed, has.
            None => {
                let changed = before.record.set != now.record.set
                    || before.record.scope != now.record.scope
                    || actual.lists != desired.lists
                    || actual.config.elision != desired.config.elision;
                (could && changed, can && changed)
            }
        };
        if stops && view.settings.narrowing == Narrowing::Cut {
            // 0 says that there is no hold.
            now.record.hold_until = until.max(1);
            holds.insert(*slot, now.record.hold_until);
        }
        if becomes {
            becoming.push((*slot, now.record.number));
        }
    }
    desired.ports = ports;
    (holds, becoming)
}

fn devices(
    target: &Target,
    slots: &BTreeMap<PortId, u32>,
    actual: &Contents,
    desired: &mut Contents,
) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    let mut wanted: BTreeMap<u32, (&Device, u32)> = BTreeMap::new();
    for device in &target.closed {
        wanted.insert(device.ifindex, (device, SLOT_CLOSED));
    }
    for (port, device) in &target.devices {
        let slot = slots.get(port).copied().unwrap_or(SLOT_CLOSED);
        wanted.insert(device.ifindex, (device, slot));
    }
    let low = |ifindex: u32| ifindex & 0xffff;
    let kept = actual
        .devices
        .iter()
        .filter(|(ifindex, _)| wanted.contains_key(ifindex));
    let mut first: BTreeSet<u32> = kept
        .filter(|(_, p)| !p.more)
        .map(|(i, _)| low(*i))
        .collect();
    for (ifindex, (device, slot)) in wanted {
        let known = actual.devices.get(&ifindex).map(|place| place.more);
        let more = known.unwrap_or_else(|| !first.insert(low(ifindex)));
        desired.devices.insert(ifindex, DevicePlace { slot, more });
        desired.attached.insert(ifindex);
        names.insert(ifindex, device.name.clone());
    }
    names
}

/// Which names stay.
struct Used {
    ports: BTreeSet<PortId>,
    scopes: BTreeSet<u32>,
    networks: BTreeSet<u32>,
    peers: BTreeSet<u32>,
}

impl Used {
    fn of(desired: &Contents, slots: &BTreeMap<PortId, u32>, books: &Books) -> Self {
        let records = desired.ports.values().map(|port| port.record);
        let compiled = desired
            .sets
            .keys()
            .filter_map(|set| books.compiled.get(set));
        let mut peers: BTreeSet<u32> = compiled.flat_map(|set| set.named.keys().copied()).collect();
        peers.extend(transition::unions_in(&desired.lists, &books.numbers));
        Self {
            ports: slots.keys().cloned().collect(),
            scopes: records.clone().map(|record| record.scope).collect(),
            networks: desired.networks.keys().copied().collect(),
            peers,
        }
    }
}

pub(crate) type Named = BTreeMap<u32, PeerName>;
