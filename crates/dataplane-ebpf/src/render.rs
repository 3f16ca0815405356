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

pub(crate) mod books;
pub(crate) mod guard;
pub(crate) mod peers;
pub(crate) mod sets;
mod transition;

use crate::contents::{Contents, Desired, DevicePlace, InForce, ListChange, NameChange, SetState};
use crate::layout::{
    Config, ELISION_OFF, ELISION_ON, ELISION_STRICT, PortRecord, Range, SET_MAY_ELIDE, SLOT_CLOSED,
    TICK_SHIFT, TIMEOUT_TCP_ESTABLISHED,
};
use crate::numbers::{Numbers, PeerName};
use crate::object::META;
use books::{Books, Limits, New};
use dataplane::{Device, Target};
use model::{Elision, Narrowing, NetworkId, PortId, ScopeId, Settings};
use peers::NamedPeers;
use policy::{ElisionChange, HostView, NetworkView, PortView};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) struct Rendered {
    pub(crate) desired: Desired,
    /// Sets that hold while ports switch.
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

/// What a render came to, beside the contents: the next one looks at what is not the same.
#[derive(Clone, Debug)]
pub(crate) struct Last {
    /// Sets in force, by the scopes of their ports, and the peers that they name.
    sets: BTreeSet<(ScopeId, u32)>,
    named: Arc<NamedPeers>,
    /// How many lists end in each union.
    unions: BTreeMap<u32, usize>,
    users: Users,
}

/// The last render, and the view that it was of.
#[derive(Clone, Copy)]
struct Before<'a> {
    view: &'a HostView,
    last: &'a Last,
}

pub(crate) fn render(
    target: &Target,
    old: Option<&HostView>,
    actual: &Contents,
    books: &mut Books,
    now_ticks: u32,
) -> Rendered {
    let last = books.last.take();
    let before = old
        .zip(last.as_ref())
        .map(|(view, last)| Before { view, last });
    let view = &target.view;
    let mut new = New::default();
    let mut desired = Desired {
        config: config(&view.settings, view.ports.len(), &actual.config, books),
        ..Desired::default()
    };
    let mut refused = BTreeMap::new();
    let set_of = books.sets(view, old, actual, &mut new);
    let network_numbers = networks(view, &mut books.numbers, actual, &mut desired);
    desired.reserved = guard::reserved(before.map(|b| b.view), view, actual, &mut books.numbers);
    let same_networks = before.map_or_else(BTreeSet::new, |b| same_networks(b.view, view));
    let mut slots = BTreeMap::new();
    let mut sets_in: BTreeSet<(ScopeId, u32)> = BTreeSet::new();
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
        let in_force = actual.ports.get(&slot).filter(|p| p.record.number != 0);
        let is_same = same_networks.contains(&port.network)
            && before.is_some_and(|b| b.view.ports.get(id).is_some_and(|p| Arc::ptr_eq(p, port)));
        let record = match in_force.filter(|_| is_same) {
            Some(same) => {
                let addresses = actual.addresses.get_key_value(&same.record.addresses);
                desired
                    .addresses
                    .extend(addresses.map(|(n, block)| (*n, Arc::clone(block))));
                PortRecord { set, ..same.record }
            }
            None => {
                let mut record = guard::record(port, network);
                record.set = set;
                record.network = network_numbers[&port.network];
                record.scope = books.numbers.scope(&network.scope);
                record.number =
                    in_force.map_or_else(|| books.numbers.new_port(), |p| p.record.number);
                record.hold_until = in_force.map_or(0, |p| p.record.hold_until);
                let numbers = &mut books.numbers;
                addresses(port, &mut record, in_force, actual, &mut desired, numbers);
                record
            }
        };
        sets_in.insert((network.scope.clone(), set));
        let index = in_force.map_or(0, |p| p.index);
        desired.ports.insert(slot, InForce { index, record });
    }
    let named = match before.filter(|b| b.last.sets == sets_in) {
        Some(before) => Arc::clone(&before.last.named),
        None => Arc::new(named_peers(&sets_in, books)),
    };
    let changed = match before {
        Some(before) => peers::changed(before, view, &named, &actual.lists, &mut books.numbers),
        None => peers::render(view, &named, &mut books.numbers).after(&actual.lists),
    };
    let unions = before.map(|b| &b.last.unions);
    let (passing_sets, unions) =
        transition::pass(actual, &mut desired, books, &mut new, changed, unions);
    let (holds, becoming_elidable) =
        elision_changes(view, old, actual, &mut desired, &slots, now_ticks);
    let device_names = devices(target, &slots, actual, &mut desired);
    let users = Users::of(&desired, slots, unions.keys().copied());
    desired.names = names(before, &users, actual, books);
    books.last = Some(Last {
        sets: sets_in,
        named,
        unions,
        users,
    });
    Rendered {
        desired,
        passing_sets,
        holds,
        new_ranges: new.ranges,
        reused_rules: new.reused_rules,
        device_names,
        becoming_elidable,
        refused,
    }
}

/// The networks that say the same in both views, but for reserved addresses.
fn same_networks<'a>(old: &HostView, new: &'a HostView) -> BTreeSet<&'a NetworkId> {
    let same = new.networks.iter().filter(|(id, network)| {
        let NetworkView {
            scope,
            subnets,
            dhcp_servers,
            reserved_link_local: _,
            eui64_only,
        } = network;
        old.networks.get(*id).is_some_and(|old| {
            (&old.scope, &old.subnets) == (scope, subnets)
                && (&old.dhcp_servers, &old.eui64_only) == (dhcp_servers, eui64_only)
        })
    });
    same.map(|(id, _)| id).collect()
}

fn named_peers(sets: &BTreeSet<(ScopeId, u32)>, books: &Books) -> NamedPeers {
    let mut named_peers = NamedPeers::new();
    for (scope, set) in sets {
        if let Some(compiled) = books.compiled.get(set) {
            let named = named_peers.entry(scope.clone()).or_default();
            named.extend(compiled.named.iter().map(|(n, name)| (*n, name.clone())));
        }
    }
    named_peers
}

impl Rendered {
    /// Refuses what the maps can't hold, before anything is written.
    pub(crate) fn check(&self, actual: &Contents, limits: &Limits) -> Result<(), String> {
        let lists = &self.desired.lists;
        let entries: usize = self
            .passing_sets
            .values()
            .map(|set| set.all_entries().count())
            .sum();
        let rooms = [
            (
                most_lists(actual.lists.exact.len(), &lists.exact),
                limits.members,
                "addresses that rules name",
            ),
            (
                most_lists(actual.lists.prefixes.len(), &lists.prefixes),
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

/// How many there are while ports switch, or afterwards.
fn most_lists<K>(before: usize, changes: &[ListChange<K>]) -> usize {
    let count = |state: fn(&ListChange<K>) -> bool| changes.iter().filter(|c| state(c)).count();
    let stay = before - count(|change| change.before.is_some());
    let passing = count(|change| change.passing.is_some());
    stay + passing.max(count(|change| change.after.is_some()))
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
    desired: &mut Desired,
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
    desired: &mut Desired,
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
    desired: &mut Desired,
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
                    || !desired.lists.is_empty()
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
    desired: &mut Desired,
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
        if !actual.attached.contains(&ifindex) {
            names.insert(ifindex, device.name.clone());
        }
    }
    names
}

/// Who uses names, and so which stay.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Users {
    slots: BTreeMap<PortId, u32>,
    scopes: BTreeSet<u32>,
    networks: BTreeSet<u32>,
    sets: BTreeSet<u32>,
    unions: BTreeSet<u32>,
}

impl Users {
    fn of(
        desired: &Desired,
        slots: BTreeMap<PortId, u32>,
        unions: impl Iterator<Item = u32>,
    ) -> Self {
        let records = desired.ports.values().map(|port| port.record);
        Self {
            slots,
            scopes: records.map(|record| record.scope).collect(),
            networks: desired.networks.keys().copied().collect(),
            sets: desired.sets.keys().copied().collect(),
            unions: unions.collect(),
        }
    }

    fn peers(&self, books: &Books) -> BTreeSet<u32> {
        let compiled = self.sets.iter().filter_map(|set| books.compiled.get(set));
        let named = compiled.flat_map(|set| set.named.keys());
        named.chain(&self.unions).copied().collect()
    }
}

/// Forgets the names that nothing uses any more.
fn names(
    before: Option<Before<'_>>,
    users: &Users,
    actual: &Contents,
    books: &mut Books,
) -> NameChange {
    let same_users = before.is_some_and(|before| before.last.users == *users);
    if books.numbers.take_changed() || !same_users {
        let peers = users.peers(books);
        let numbers = &mut books.numbers;
        numbers.keep(&users.slots, &users.scopes, &users.networks, &peers);
        return NameChange::between(&actual.names, &numbers.names());
    }
    let meta = books.numbers.meta();
    let same = actual.names.get(&META) == Some(&meta);
    NameChange {
        put: (!same).then_some((META, meta)).into_iter().collect(),
        unused: Vec::new(),
    }
}

pub(crate) type Named = BTreeMap<u32, PeerName>;
