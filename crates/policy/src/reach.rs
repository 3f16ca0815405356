//! Who may begin which flows with whom: the policy itself is asked, for every address and port at once.
//!
//! Place on the line: inventory -> compile's meaning of rules -> **reach**. Both ends of a flow are asked, on whatever
//! hosts: the rules of its source as they are for egress, and those of its destination for ingress, if these are ports
//! of one address scope; where one of them is no port of the scope (it is *outside*), those of the other alone.
//! Knows nothing of: packets, connections, hosts, planes. The answer is that of `static` to first packets, so left out
//! are replies and errors (which need no rule); what the guard passes without rules (ARP, neighbour discovery, DHCP,
//! multicast membership) and what it drops in spite of them (what is spoofed or malformed, rogue servers and routers);
//! link-local addresses (fe80::/10), which mean something in one network only; what a port sends to itself. A port is
//! taken to have its own addresses, also where port security is off and it might forge others. A packet of a stateless
//! group is as good as any, though its reply needs a rule of its own.
//! Cost: as many pairs of ends as there are of different lists of groups, and a pass over the ports for each set of
//! addresses that rules name.
//! Source: docs/semantics.md "Policy".

mod addresses;
mod changes;
mod classes;
mod ends;
mod flows;
mod l4;
mod permits;
mod ranges;

pub use addresses::AddressSet;
pub use changes::{Changes, changes};
pub use l4::{L4Part, L4Set};

use classes::{Class, Likeness, Peers, classes};
use ends::{End, Gate, MeantRule};
use flows::Flows;
use model::{Direction, Family, Inventory, PortId, Prefix, RuleRef, ScopeId};
use ranges::Ranges;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
pub struct Question {
    pub from: Who,
    pub to: Who,
    /// In the order of `Family::BOTH`.
    pub kinds: [L4Set; 2],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    Anybody,
    Ports(BTreeSet<PortId>),
    /// Whoever has one of them, in any scope.
    Addresses(BTreeSet<Prefix>),
}

/// Each source reaches each destination, but none itself: by each of these kinds of flows, from each of its addresses
/// that are meant to each of the other's. All is of one family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reach {
    pub to: Party,
    pub from: Party,
    pub kinds: L4Set,
    /// What lets it out at the source, and in at the destination.
    pub leaves_by: By,
    pub enters_by: By,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    Ports {
        ports: BTreeSet<PortId>,
        /// `None`: all that they have of the family.
        addresses: Option<AddressSet>,
    },
    /// Addresses of a scope that none of its ports has: fixed ones, and pairs that enter remote groups.
    Outside {
        scope: ScopeId,
        addresses: AddressSet,
        /// The same in few prefixes: what is outside in the first of these lists, and not in the second, which is
        /// empty unless that is shorter.
        within: Vec<Prefix>,
        except: Vec<Prefix>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// Each permits some of it, together they permit all.
    Rules(BTreeSet<RuleRef>),
    /// The port has port security off.
    NoPortSecurity,
    /// The port is on no host, and so judged nowhere.
    NoHost,
    /// It is no port.
    Outside,
}

impl Question {
    /// What may anybody begin with anybody?
    pub fn everything() -> Self {
        Self {
            from: Who::Anybody,
            to: Who::Anybody,
            kinds: Family::BOTH.map(L4Set::any),
        }
    }
}

/// In order of destinations. What may flow between two ends is told in one form, whatever the rules.
pub fn reach(inventory: &Inventory, question: &Question) -> Vec<Reach> {
    let ends = ends::ends(inventory, &question.kinds);
    let sources = asked(ends.clone(), &question.from);
    let destinations = asked(ends, &question.to);
    let from = alike(&sources, &Peers::of(&destinations, Direction::Ingress));
    let to = alike(&destinations, &Peers::of(&sources, Direction::Egress));
    let mut found = Vec::new();
    for from in &from {
        for to in to.iter().filter(|to| from.one.may_meet(to.one)) {
            let Some(pair) = Pair::of((from.one, &from.ports), (to.one, &to.ports)) else {
                continue;
            };
            for family in Family::BOTH {
                let flows = flows::between(pair.from, pair.to, family);
                found.extend(pair.told(family, &flows));
            }
        }
    }
    together(found)
}

fn asked<'a>(mut ends: Vec<End<'a>>, who: &Who) -> Vec<End<'a>> {
    match who {
        Who::Anybody => {}
        Who::Ports(ports) => ends.retain(|end| end.port.is_some_and(|port| ports.contains(port))),
        Who::Addresses(prefixes) => ends.retain_mut(|end| end.ask_only(prefixes)),
    }
    ends
}

fn alike<'a>(ends: &'a [End<'a>], peers: &Peers<'_>) -> Vec<Class<&'a End<'a>>> {
    let ends = ends.iter().map(|end| (end.port, end));
    classes(ends, |end| Likeness::of(end, peers))
}

impl End<'_> {
    /// What goes from outside to outside is none of ours.
    fn may_meet(&self, to: &End<'_>) -> bool {
        self.scope == to.scope && (self.port.is_some() || to.port.is_some())
    }
}

/// Alike sources and alike destinations.
struct Pair<'a> {
    from: &'a End<'a>,
    to: &'a End<'a>,
    sources: BTreeSet<PortId>,
    destinations: BTreeSet<PortId>,
}

impl<'a> Pair<'a> {
    /// `None`: it would be a port with itself.
    fn of(
        from: (&'a End<'a>, &BTreeSet<PortId>),
        to: (&'a End<'a>, &BTreeSet<PortId>),
    ) -> Option<Self> {
        let (mut sources, mut destinations) = (from.1.clone(), to.1.clone());
        if sources.len() == 1 {
            destinations = &destinations - &sources;
        }
        if destinations.len() == 1 {
            sources = &sources - &destinations;
        }
        let gone = |end: &End<'_>, ports: &BTreeSet<PortId>| end.port.is_some() && ports.is_empty();
        let itself = gone(from.0, &sources) || gone(to.0, &destinations);
        (!itself).then_some(Self {
            from: from.0,
            to: to.0,
            sources,
            destinations,
        })
    }

    fn told(&self, family: Family, flows: &[Flows]) -> Vec<Reach> {
        let told = flows.iter().map(|flows| Reach {
            from: party(self.from, &self.sources, family, &flows.sources),
            to: party(self.to, &self.destinations, family, &flows.destinations),
            leaves_by: by(
                self.from,
                (Direction::Egress, family),
                &flows.l4,
                &flows.destinations,
            ),
            enters_by: by(
                self.to,
                (Direction::Ingress, family),
                &flows.l4,
                &flows.sources,
            ),
            kinds: L4Set::new(family, flows.l4.clone()),
        });
        told.collect()
    }
}

fn party(end: &End<'_>, ports: &BTreeSet<PortId>, family: Family, meant: &Ranges) -> Party {
    let own = end.own(family);
    let addresses = AddressSet::new(family, meant.clone());
    match end.port {
        Some(_) => Party::Ports {
            ports: ports.clone(),
            addresses: (meant != own).then_some(addresses),
        },
        None => {
            let (within, except) = outside(family, own, meant);
            Party::Outside {
                scope: end.scope.clone(),
                addresses,
                within,
                except,
            }
        }
    }
}

fn outside(family: Family, own: &Ranges, meant: &Ranges) -> (Vec<Prefix>, Vec<Prefix>) {
    let of_ports = ends::whole(family).without(own);
    let within = addresses::cover(family, meant, &of_ports);
    let except = addresses::cover(family, &own.without(meant), &of_ports);
    match except.len() + 1 < within.len() {
        true => (vec![Prefix::whole(family)], except),
        false => (within, Vec::new()),
    }
}

/// The rules of this end that permit some of these flows.
fn by(end: &End<'_>, way: (Direction, Family), l4: &Ranges, others: &Ranges) -> By {
    let permits = |rule: &&MeantRule| {
        (rule.direction, rule.family) == way && rule.l4.meets(l4) && rule.peer.meets(others)
    };
    match end.gate {
        Gate::Rules => {
            let rules = end.profile.rules.iter().filter(permits);
            By::Rules(rules.map(|rule| rule.name.clone()).collect())
        }
        Gate::NoPortSecurity => By::NoPortSecurity,
        Gate::NoHost => By::NoHost,
        Gate::Outside => By::Outside,
    }
}

/// Ports of which the same is told are told of together: sources, then destinations.
fn together(found: Vec<Reach>) -> Vec<Reach> {
    let by_source = gathered(found, |reach| &mut reach.from);
    gathered(by_source, |reach| &mut reach.to)
}

fn gathered(found: Vec<Reach>, side: fn(&mut Reach) -> &mut Party) -> Vec<Reach> {
    let mut alike: BTreeMap<Reach, BTreeSet<PortId>> = BTreeMap::new();
    for mut reach in found {
        let mut ports = match side(&mut reach) {
            Party::Ports { ports, .. } => std::mem::take(ports),
            Party::Outside { .. } => BTreeSet::new(),
        };
        alike.entry(reach).or_default().append(&mut ports);
    }
    let mut all: Vec<Reach> = alike
        .into_iter()
        .map(|(mut reach, gathered)| {
            if let Party::Ports { ports, .. } = side(&mut reach) {
                *ports = gathered;
            }
            reach
        })
        .collect();
    all.sort();
    all
}
