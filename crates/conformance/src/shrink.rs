//! A failing trace, made small: fewer events, then less policy, for as long as it still fails.
//!
//! Knows nothing of: judges. It is told whether, and where, a candidate fails.

use crate::generate::{Event, Trace};
use model::{Elision, GroupId, Inventory, PortId, RuleId, Settings};
use std::sync::Arc;

/// Candidates tried at most; a plane in a kernel needs milliseconds for each.
pub(crate) const TRIES: usize = 2_000;

/// `fails` says at which event a candidate fails.
pub(crate) fn shrink(
    tries: usize,
    trace: Trace,
    fails: impl FnMut(&Trace) -> Option<usize>,
) -> Trace {
    let mut shrinker = Shrinker {
        smallest: trace,
        tries,
        fails,
    };
    shrinker.events();
    shrinker.policy();
    shrinker.events();
    shrinker.smallest
}

struct Shrinker<F> {
    smallest: Trace,
    tries: usize,
    fails: F,
}

impl<F: FnMut(&Trace) -> Option<usize>> Shrinker<F> {
    /// Keeps the candidate if it fails, up to where it does.
    fn accepts(&mut self, mut events: Vec<Event>) -> bool {
        if self.tries == 0 {
            return false;
        }
        self.tries -= 1;
        let seed = self.smallest.seed;
        let candidate = Trace {
            seed,
            events: events.clone(),
        };
        match (self.fails)(&candidate) {
            None => false,
            Some(at) => {
                events.truncate(at + 1);
                self.smallest = Trace { seed, events };
                true
            }
        }
    }

    /// Large pieces first. The first policy stays where it is, unless a later one can take its place.
    fn events(&mut self) {
        let mut size = self.smallest.events.len() / 2;
        while size > 0 {
            // From behind: what is late depends on what is early.
            let mut end = self.smallest.events.len().saturating_sub(1);
            while end > 0 {
                let start = end.saturating_sub(size);
                let mut events = self.smallest.events.clone();
                events.drain(start..end);
                self.accepts(events);
                end = start.min(self.smallest.events.len().saturating_sub(1));
            }
            size /= 2;
        }
    }

    fn policy(&mut self) {
        let reductions: Vec<Reduction> = self.reductions();
        for reduction in reductions {
            let mut events = self.smallest.events.clone();
            let mut changed = false;
            for event in &mut events {
                if let Event::Policy(inventory) = event {
                    let mut reduced = Inventory::clone(inventory);
                    reduction.apply(&mut reduced);
                    changed |= reduced != **inventory;
                    *inventory = Arc::new(reduced);
                }
            }
            if changed {
                self.accepts(events);
            }
        }
    }

    /// Everything that could go, the larger first.
    fn reductions(&self) -> Vec<Reduction> {
        let mut found = vec![
            Reduction::Settings(|s| {
                let inspection = s.inspection;
                *s = Settings {
                    inspection,
                    ..Settings::default()
                };
            }),
            Reduction::Settings(|s| s.budgets = Settings::default().budgets),
            Reduction::Settings(|s| s.timeouts = Settings::default().timeouts),
            Reduction::Settings(|s| s.elision = Elision::Off),
            Reduction::Settings(|s| s.ethertypes.clear()),
            Reduction::AddressGroups,
        ];
        let mut small = Vec::new();
        for event in &self.smallest.events {
            let Event::Policy(inventory) = event else {
                continue;
            };
            for port in inventory.ports.values() {
                found.push(Reduction::Port(port.id.clone()));
                small.push(Reduction::PortDetails(port.id.clone()));
                small.push(Reduction::Pairs(port.id.clone()));
                small.push(Reduction::Addresses(port.id.clone()));
                let groups = port.groups.iter();
                small.extend(groups.map(|g| Reduction::Member(port.id.clone(), g.clone())));
            }
            for group in inventory.groups.values() {
                found.push(Reduction::Group(group.id.clone()));
                let rules = group.rules.keys();
                small.extend(rules.map(|r| Reduction::Rule(group.id.clone(), r.clone())));
            }
        }
        small.push(Reduction::Networks);
        found.extend(small);
        let mut once = Vec::new();
        for reduction in found {
            if !once.contains(&reduction) {
                once.push(reduction);
            }
        }
        once
    }
}

/// Something taken out of every policy of a trace.
#[derive(Clone, Debug)]
enum Reduction {
    Settings(fn(&mut Settings)),
    Port(PortId),
    PortDetails(PortId),
    Pairs(PortId),
    Addresses(PortId),
    Member(PortId, GroupId),
    Group(GroupId),
    Rule(GroupId, RuleId),
    AddressGroups,
    Networks,
}

impl PartialEq for Reduction {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            // Each is listed once.
            (Reduction::Settings(_), _) | (_, Reduction::Settings(_)) => false,
            _ => format!("{self:?}") == format!("{other:?}"),
        }
    }
}

impl Reduction {
    fn apply(&self, made: &mut Inventory) {
        match self {
            Reduction::Settings(change) => {
                made.hosts
                    .values_mut()
                    .for_each(|h| change(&mut h.settings));
            }
            Reduction::Port(id) => {
                made.ports.remove(id);
            }
            Reduction::PortDetails(id) => {
                if let Some(port) = made.ports.get_mut(id) {
                    (port.dhcp_server, port.router) = (false, false);
                }
            }
            Reduction::Pairs(id) => {
                if let Some(port) = made.ports.get_mut(id) {
                    port.address_pairs.clear();
                }
            }
            Reduction::Addresses(id) => {
                if let Some(port) = made.ports.get_mut(id) {
                    port.fixed_addresses.clear();
                }
            }
            Reduction::Member(port, group) => {
                if let Some(port) = made.ports.get_mut(port) {
                    port.groups.remove(group);
                }
            }
            Reduction::Group(id) => {
                made.groups.remove(id);
                made.ports.values_mut().for_each(|p| {
                    p.groups.remove(id);
                });
            }
            Reduction::Rule(group, rule) => {
                if let Some(group) = made.groups.get_mut(group) {
                    group.rules.remove(rule);
                }
            }
            Reduction::AddressGroups => made.address_groups.clear(),
            Reduction::Networks => {
                let used = made.ports.values().map(|p| p.network.clone());
                let used: Vec<_> = used.collect();
                made.networks.retain(|id, _| used.contains(id));
                for network in made.networks.values_mut() {
                    network.dhcp_servers.clear();
                    network.routers.clear();
                    network.eui64_only = false;
                }
            }
        }
    }
}
