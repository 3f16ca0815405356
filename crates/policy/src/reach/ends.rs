//! Who may begin a flow, or be asked: the ports of an inventory, and in each scope everybody else.
//!
//! Place: inventory -> compile's meaning of rules -> **ends** -> flows.
//! Cost: a pass over ports, and one over the rules of each list of groups that ports are in, in each scope.

use super::addresses;
use super::l4::L4Set;
use super::permits::{Permits, Permitted};
use super::ranges::Ranges;
use crate::compile::{self, Meaning, is_link_local, known_groups};
use crate::shared_set::SharedSet;
use crate::view::{PeerView, RuleView};
use model::{Direction, Family, GroupId, Inventory, PortId, Prefix, RuleRef, ScopeId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

#[derive(Clone)]
pub(super) struct End<'a> {
    /// `None`: whoever has an address of the scope that no port has.
    pub(super) port: Option<&'a PortId>,
    pub(super) scope: &'a ScopeId,
    /// What it has, and what of it is asked about; in the order of `Family::BOTH`.
    own: [Ranges; 2],
    asked: [Ranges; 2],
    pub(super) gate: Gate,
    pub(super) profile: Arc<Profile>,
}

/// Whether rules are asked at an end, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Gate {
    Rules,
    NoPortSecurity,
    NoHost,
    Outside,
}

/// The rules of a list of groups in a scope. Where no rules are asked, it has none and permits everything.
pub(super) struct Profile {
    /// Of those of one inventory, each has another one.
    pub(super) number: usize,
    pub(super) rules: Vec<MeantRule>,
    pub(super) permits: BothWays,
}

/// What is permitted, in the order of `Direction::BOTH`, of each family in the order of `Family::BOTH`.
pub(super) type BothWays = [[Permits; 2]; 2];

/// A rule, and what it stands for.
pub(super) struct MeantRule {
    pub(super) name: RuleRef,
    pub(super) direction: Direction,
    pub(super) family: Family,
    pub(super) l4: Ranges,
    pub(super) peer: Arc<Ranges>,
}

/// The ports of an inventory in their order, then the outside of each scope; and kinds of flows that are asked about,
/// in the order of `Family::BOTH`.
pub(super) fn ends<'a>(inventory: &'a Inventory, kinds: &[L4Set; 2]) -> Vec<End<'a>> {
    let mut profiles = Profiles::new(inventory, kinds);
    let mut ends = Vec::with_capacity(inventory.ports.len());
    let mut taken: BTreeMap<&ScopeId, Vec<Prefix>> = BTreeMap::new();
    for (id, port) in &inventory.ports {
        let Some(network) = inventory.networks.get(&port.network) else {
            continue;
        };
        let scope = &network.scope;
        taken
            .entry(scope)
            .or_default()
            .extend(port.member_prefixes());
        let gate = match (&port.host, port.port_security) {
            (None, _) => Gate::NoHost,
            (Some(_), false) => Gate::NoPortSecurity,
            (Some(_), true) => Gate::Rules,
        };
        let profile = match gate {
            Gate::Rules => profiles.of(scope, known_groups(inventory, port).collect()),
            Gate::NoPortSecurity | Gate::NoHost | Gate::Outside => Arc::clone(&profiles.open),
        };
        let fixed = port.fixed_addresses.iter().map(|a| Prefix::host(*a));
        let pairs = port.address_pairs.iter().map(|pair| pair.prefix);
        let own: Vec<Prefix> = fixed.chain(pairs).collect();
        let own = Family::BOTH.map(|family| routed(family, addresses::ranges(family, &own)));
        ends.push(End {
            port: Some(id),
            scope,
            asked: own.clone(),
            own,
            gate,
            profile,
        });
    }
    for (scope, taken) in taken {
        let own = Family::BOTH.map(|family| {
            let taken = addresses::ranges(family, &taken);
            routed(family, whole(family).without(&taken))
        });
        ends.push(End {
            port: None,
            scope,
            asked: own.clone(),
            own,
            gate: Gate::Outside,
            profile: Arc::clone(&profiles.open),
        });
    }
    ends
}

impl End<'_> {
    pub(super) fn own(&self, family: Family) -> &Ranges {
        &self.own[index(family)]
    }

    pub(super) fn asked(&self, family: Family) -> &Ranges {
        &self.asked[index(family)]
    }

    pub(super) fn permits(&self, direction: Direction, family: Family) -> &Permits {
        self.profile.permits(direction, family)
    }

    /// From now on only these of its addresses are asked about. `false`: it has none of them.
    pub(super) fn ask_only(&mut self, prefixes: &BTreeSet<Prefix>) -> bool {
        for family in Family::BOTH {
            let asked = addresses::ranges(family, prefixes);
            let before = &mut self.asked[index(family)];
            *before = before.intersection(&asked);
        }
        self.asked.iter().any(|asked| !asked.is_empty())
    }

    /// From now on it has only what the other one has, too.
    pub(super) fn keep_shared(&mut self, other: &End<'_>) {
        for (own, others) in self.own.iter_mut().zip(&other.own) {
            *own = own.intersection(others);
        }
        self.asked.clone_from(&self.own);
    }
}

impl Profile {
    pub(super) fn permits(&self, direction: Direction, family: Family) -> &Permits {
        let [ingress, egress] = &self.permits;
        let of_direction = match direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
        };
        &of_direction[index(family)]
    }

    fn new(number: usize, rules: Vec<MeantRule>) -> Self {
        let permits = Direction::BOTH.map(|direction| {
            Family::BOTH.map(|family| {
                let here = rules
                    .iter()
                    .filter(|rule| (rule.direction, rule.family) == (direction, family));
                permits(here)
            })
        });
        Self {
            number,
            rules,
            permits,
        }
    }

    /// Where no rules are asked.
    fn open(kinds: &[L4Set; 2]) -> Self {
        let permits = Direction::BOTH.map(|_| {
            Family::BOTH.map(|family| {
                let everything = Permitted {
                    l4: kinds[index(family)].line.clone(),
                    addresses: whole(family),
                };
                [everything].into_iter().collect()
            })
        });
        Self {
            number: 0,
            rules: Vec::new(),
            permits,
        }
    }
}

fn permits<'a>(rules: impl Iterator<Item = &'a MeantRule>) -> Permits {
    let mut by_peer: BTreeMap<&Ranges, Vec<&Ranges>> = BTreeMap::new();
    for rule in rules {
        by_peer.entry(&rule.peer).or_default().push(&rule.l4);
    }
    let unions = by_peer.into_iter();
    let unions = unions.map(|(peer, l4)| (peer, Ranges::union(l4))).collect();
    Permits::of(&unions)
}

/// Profiles by what they are made of; so is the set of addresses that a peer stands for.
struct Profiles<'a> {
    meaning: Meaning,
    kinds: &'a [L4Set; 2],
    open: Arc<Profile>,
    known: HashMap<(&'a ScopeId, Vec<&'a GroupId>), Arc<Profile>>,
    peers: HashMap<(&'a ScopeId, Family, PeerView), Arc<Ranges>>,
}

impl<'a> Profiles<'a> {
    fn new(inventory: &Inventory, kinds: &'a [L4Set; 2]) -> Self {
        Self {
            meaning: compile::meaning(inventory),
            kinds,
            open: Arc::new(Profile::open(kinds)),
            known: HashMap::new(),
            peers: HashMap::new(),
        }
    }

    fn of(&mut self, scope: &'a ScopeId, groups: Vec<&'a GroupId>) -> Arc<Profile> {
        if let Some(known) = self.known.get(&(scope, groups.clone())) {
            return Arc::clone(known);
        }
        let mut rules = Vec::new();
        for id in &groups {
            let Some(group) = self.meaning.groups.get(*id).map(Arc::clone) else {
                continue;
            };
            for (rule_id, rule) in &group.rules {
                let name = RuleRef {
                    group: (*id).clone(),
                    rule: rule_id.clone(),
                };
                rules.extend(self.meant(scope, name, rule));
            }
        }
        let profile = Arc::new(Profile::new(1 + self.known.len(), rules));
        self.known.insert((scope, groups), Arc::clone(&profile));
        profile
    }

    /// `None`: it permits nothing of what is asked.
    fn meant(&mut self, scope: &'a ScopeId, name: RuleRef, rule: &RuleView) -> Option<MeantRule> {
        let asked = &self.kinds[index(rule.family)].line;
        let l4 = L4Set::of(rule.family, rule.l4).line.intersection(asked);
        let peer = self.peer(scope, rule.family, &rule.peer);
        (!l4.is_empty() && !peer.is_empty()).then_some(MeantRule {
            name,
            direction: rule.direction,
            family: rule.family,
            l4,
            peer,
        })
    }

    fn peer(&mut self, scope: &'a ScopeId, family: Family, peer: &PeerView) -> Arc<Ranges> {
        let meaning = &self.meaning;
        let known = self.peers.entry((scope, family, peer.clone()));
        let set = known.or_insert_with(|| {
            let of = |set: Option<&Arc<SharedSet<Prefix>>>| {
                addresses::ranges(family, set.into_iter().flat_map(|set| set.iter()))
            };
            Arc::new(match peer {
                PeerView::Any => whole(family),
                PeerView::Prefix(prefix) => addresses::ranges(family, [prefix]),
                PeerView::Group(id) => of(meaning.members.get(&(scope.clone(), id.clone()))),
                PeerView::AddressGroup(id) => of(meaning.address_groups.get(id)),
            })
        });
        Arc::clone(set)
    }
}

pub(super) fn whole(family: Family) -> Ranges {
    addresses::ranges(family, [&Prefix::whole(family)])
}

/// Without link-local addresses: these mean something in one network only.
fn routed(family: Family, addresses: Ranges) -> Ranges {
    let first = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0));
    let link_local = Prefix::containing(first, 10);
    debug_assert!(is_link_local(&link_local));
    addresses.without(&addresses::ranges(family, [&link_local]))
}

fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}
