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

use crate::contents::{Contents, DevicePlace, InForce, SetState};
use crate::layout::{
    Config, ELISION_OFF, ELISION_ON, ELISION_STRICT, PortRecord, Range, SET_MAY_ELIDE, SLOT_CLOSED,
    TICK_SHIFT, TIMEOUT_TCP_ESTABLISHED,
};
use crate::numbers::{Numbers, PeerName};
use books::{Books, Limits, New};
use dataplane::{Device, Target};
use model::{Elision, Narrowing, PortId, ScopeId, Settings};
use peers::{Lists, NamedPeers};
use policy::{ElisionChange, HostView, PortView};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
    let mut sets_in: BTreeSet<(&ScopeId, u32)> = BTreeSet::new();
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
        sets_in.insert((&network.scope, set));
        let index = before.map_or(0, |p| p.index);
        desired.ports.insert(slot, InForce { index, record });
    }
    let mut named_peers = NamedPeers::new();
    for (scope, set) in sets_in {
        if let Some(compiled) = books.compiled.get(&set) {
            let named = named_peers.entry(scope.clone()).or_default();
            named.extend(compiled.named.iter().map(|(n, name)| (*n, name.clone())));
        }
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
