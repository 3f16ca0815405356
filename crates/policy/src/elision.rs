//! Which flows need no tracking, and what a change of policy does to that.
//!
//! Place on the line: views -> the answers that a plane needs to elide, to hold, and to forget.
//! Knows nothing of: flows that exist, packets, time. Exact both ways: what `some_flow_only_in`
//! says of a policy of any size is what asking [`elidable`] for each possible flow would say.
//! Not looked at: which local addresses a port has; a flow is a remote address, a protocol and ports.
//! A port with port security off has no elidable flow: rules don't concern it.
//! Source: docs/semantics.md "Elision".

mod coverage;
mod sweep;

use crate::differing::{differing, touched_groups};
use crate::prefix_set;
use crate::shared_set::SharedSet;
use crate::view::{GroupView, HostView, NetworkView, PeerView, PortView, RuleView};
pub(crate) use coverage::icmp_number;

use coverage::{Coverage, Kinds, error_types};
use model::{
    Direction, Elision, Family, FlowKey, GroupId, L4Match, PortId, Prefix, RuleRef, ScopeId,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use sweep::{Side, Slot};

/// Whether every packet of this flow passes by rules, whoever starts it, and the view's mode keeps
/// no state for it.
pub fn elidable(view: &HostView, port: &PortId, flow: &FlowKey) -> bool {
    let Some(half) = Half::of(view, port) else {
        return false;
    };
    let permitted = half.mode != Elision::Off
        && Direction::BOTH
            .iter()
            .all(|direction| half.permitting(*direction, flow).is_some());
    permitted && (half.mode == Elision::On || half.errors_permitted(Family::of(flow.remote), flow))
}

/// The rule that is reported to permit a packet of this flow in this direction: of those that do, the least.
/// At a port without port security no rule is asked.
pub fn permitting(
    view: &HostView,
    port: &PortId,
    direction: Direction,
    flow: &FlowKey,
) -> Option<RuleRef> {
    Half::of(view, port)?.permitting(direction, flow)
}

/// The type of an ICMP packet of a flow that goes this way; 0 for other protocols. `None`: it belongs to
/// no flow.
fn icmp_type_of(flow: &FlowKey, direction: Direction) -> Option<u8> {
    if flow.protocol != icmp_number(Family::of(flow.remote)) {
        return Some(0);
    }
    let request = flow.icmp?;
    let asks = request.by_local == (direction == Direction::Egress);
    let reply = match request.icmp_type {
        8 => 0,
        13 => 14,
        128 => 129,
        _ => return None,
    };
    Some(if asks { request.icmp_type } else { reply })
}

fn covers_l4(rule: &RuleView, protocol: u8, l4_port: u16, icmp_type: u8) -> bool {
    match rule.l4 {
        L4Match::Any => true,
        L4Match::Ported { protocol: p, dst } => p.number() == protocol && dst.contains(l4_port),
        L4Match::Icmp { kind } => {
            protocol == icmp_number(rule.family)
                && kind.is_none_or(|k| k.icmp_type == icmp_type && k.code.is_none_or(|c| c == 0))
        }
        L4Match::Other(p) => p.number() == protocol,
    }
}

/// Whether some TCP flow of the port was elidable and is not any more. A port that is new, or gone,
/// has no open flow.
pub fn stops_being_elidable(old: &HostView, new: &HostView, port: &PortId) -> bool {
    ElisionChange::between(old, new).stops(port)
}

/// Whether some flow of the port was not elidable and now is. A port that is new has no flows.
pub fn becomes_elidable(old: &HostView, new: &HostView, port: &PortId) -> bool {
    ElisionChange::between(old, new).becomes(port)
}

/// The two questions for many ports of the same two views: ports with the same groups in the same
/// scope share their answers, and all share what is known about members that came or went. Of a port that
/// nothing has changed for, it is known without asking.
pub struct ElisionChange<'a> {
    old: &'a HostView,
    new: &'a HostView,
    /// The ports for which anything that decides has changed.
    concerned: HashSet<&'a PortId>,
    answers: HashMap<(Question, [Profile<'a>; 2]), bool>,
    groups: HashMap<(Question, &'a GroupId), GroupLoss<'a>>,
    lost_members: HashMap<(Question, ScopeId, &'a PeerView), Vec<Prefix>>,
}

/// What one view has of a group, and the other hasn't.
struct GroupLoss<'a> {
    rules: Vec<&'a RuleView>,
    /// Groups and address groups that the one view's rules name.
    sets: Vec<&'a PeerView>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Question {
    Stops,
    Becomes,
}

/// What of a port decides its answers: whether it has port security, its scope and its groups.
type Profile<'a> = (bool, &'a ScopeId, &'a [GroupId]);

/// More places that a change reaches than this are looked at as one: everywhere.
const MAX_AFFECTED: usize = 256;
/// So many of them are looked at first: mostly what a change does, it does at each.
const FIRST_AFFECTED: usize = 2;

impl<'a> ElisionChange<'a> {
    pub fn between(old: &'a HostView, new: &'a HostView) -> Self {
        Self {
            old,
            new,
            concerned: concerned(old, new),
            answers: HashMap::new(),
            groups: HashMap::new(),
            lost_members: HashMap::new(),
        }
    }

    pub fn stops(&mut self, port: &PortId) -> bool {
        self.answer(Question::Stops, port)
    }

    pub fn becomes(&mut self, port: &PortId) -> bool {
        self.answer(Question::Becomes, port)
    }

    fn answer(&mut self, question: Question, port: &PortId) -> bool {
        if !self.concerned.contains(port) {
            return false;
        }
        let (Some(old), Some(new)) = (self.old.ports.get(port), self.new.ports.get(port)) else {
            return false;
        };
        let old = Half::new(self.old, old);
        let new = Half::new(self.new, new);
        let key = (question, [old.profile(), new.profile()]);
        if let Some(known) = self.answers.get(&key) {
            return *known;
        }
        let answer = match question {
            // Turning port security off, or on, holds nothing.
            Question::Stops if !(old.port.port_security && new.port.port_security) => false,
            Question::Stops => self.some_flow_only_in(question, &old, &new, Kinds::Tcp),
            Question::Becomes => self.some_flow_only_in(question, &new, &old, Kinds::All),
        };
        self.answers.insert(key, answer);
        answer
    }

    /// Whether a flow of these kinds is elidable under `this` and not under `other`: the same two for
    /// each port that the question is about.
    fn some_flow_only_in(
        &mut self,
        question: Question,
        this: &Half<'a>,
        other: &Half<'a>,
        kinds: Kinds,
    ) -> bool {
        if this.mode == Elision::Off || this.port.groups.is_empty() {
            return false;
        }
        let affected = self.affected(question, this, other, kinds);
        let ask = |places: &[Prefix]| {
            let sides = [this, other].map(|half| Side {
                mode: half.mode,
                slots: Direction::BOTH.map(|direction| slot(half, direction, kinds, places)),
            });
            sweep::some_flow_only_in_first(&sides, places, kinds)
        };
        let (first, all) = (affected.first(), affected.disjoint());
        (!first.is_empty() && ask(&first)) || (all != first && ask(&all))
    }

    /// The remote addresses at which `other` may cover less than `this`.
    fn affected(
        &mut self,
        question: Question,
        this: &Half<'a>,
        other: &Half<'a>,
        kinds: Kinds,
    ) -> Places {
        let mut places = Places::default();
        if this.mode != other.mode || this.scope != other.scope {
            places.everywhere = true;
            return places;
        }
        let kinds = kinds.with_errors(this.mode == Elision::Strict);
        let mut sets: HashSet<&'a PeerView> = HashSet::new();
        for group in &this.port.groups {
            let Some(view) = this.view.groups.get(group) else {
                continue;
            };
            let there = other.port.groups.binary_search(group).is_ok();
            let Some(counterpart) = other.view.groups.get(group).filter(|_| there) else {
                let rules = view.rules.values().filter(|r| kinds.asks_for(r));
                rules.for_each(|rule| this.places(rule, &mut places));
                continue;
            };
            let loss = self.groups.entry((question, group));
            let loss = loss.or_insert_with(|| GroupLoss::of(view, counterpart));
            let rules = loss.rules.iter().filter(|r| kinds.asks_for(r));
            rules.for_each(|rule| this.places(rule, &mut places));
            sets.extend(&loss.sets);
        }
        for peer in sets {
            let key = (question, this.scope.clone(), peer);
            let lost = self.lost_members.entry(key);
            let lost = lost.or_insert_with(|| difference(this.set(peer), other.set(peer)));
            places.add(lost.len(), lost.iter());
        }
        places
    }
}

fn concerned<'a>(old: &'a HostView, new: &'a HostView) -> HashSet<&'a PortId> {
    let mut networks = differing(&old.networks, &new.networks);
    let other_scope = networks.any(|(_, before, after)| {
        let scope = |network: &'a NetworkView| &network.scope;
        before.map(scope) != after.map(scope)
    });
    if other_scope || old.settings.elision != new.settings.elision {
        return new.ports.keys().collect();
    }
    let touched = touched_groups(old, new);
    let is_touched = |port: &PortView| port.groups.iter().any(|group| touched.contains(group));
    let ports = new.ports.iter().filter(|(_, port)| is_touched(port));
    let others = differing(&old.ports, &new.ports);
    let others = others.map(|(id, _, _)| id);
    ports.map(|(id, _)| id).chain(others).collect()
}

/// One view's part in a comparison.
struct Half<'a> {
    view: &'a HostView,
    port: &'a PortView,
    scope: &'a ScopeId,
    mode: Elision,
}

impl<'a> Half<'a> {
    fn of(view: &'a HostView, port: &PortId) -> Option<Self> {
        Some(Self::new(view, view.ports.get(port)?))
    }

    fn new(view: &'a HostView, port: &'a PortView) -> Self {
        let network = view.networks.get(&port.network);
        let network = network.expect("a view has the networks of its ports");
        Self {
            view,
            port,
            scope: &network.scope,
            mode: view.settings.elision,
        }
    }

    fn profile(&self) -> Profile<'a> {
        (self.port.port_security, self.scope, &self.port.groups)
    }

    fn groups(&self) -> impl Iterator<Item = (&'a GroupId, &'a GroupView)> + use<'_, 'a> {
        let groups = self.port.groups.iter();
        groups.filter_map(|id| Some((id, &**self.view.groups.get(id)?)))
    }

    fn rules(&self) -> impl Iterator<Item = &'a RuleView> + use<'_, 'a> {
        self.groups().flat_map(|(_, group)| group.rules.values())
    }

    fn set(&self, peer: &PeerView) -> Option<&'a Arc<SharedSet<Prefix>>> {
        match peer {
            PeerView::Any | PeerView::Prefix(_) => None,
            PeerView::Group(group) => {
                let key = (self.scope.clone(), group.clone());
                self.view.members.get(&key)
            }
            PeerView::AddressGroup(group) => self.view.address_groups.get(group),
        }
    }

    fn names(&self, peer: &PeerView, flow: &FlowKey) -> bool {
        match peer {
            PeerView::Any => true,
            PeerView::Prefix(prefix) => prefix.contains(flow.remote),
            PeerView::Group(_) | PeerView::AddressGroup(_) => self
                .set(peer)
                .is_some_and(|set| prefix_set::contains(set, flow.remote)),
        }
    }

    fn permitting(&self, direction: Direction, flow: &FlowKey) -> Option<RuleRef> {
        let family = Family::of(flow.remote);
        if family != Family::of(flow.local) {
            return None;
        }
        let icmp_type = icmp_type_of(flow, direction)?;
        let l4_port = match direction {
            Direction::Egress => flow.remote_l4,
            Direction::Ingress => flow.local_l4,
        };
        let permits = |rule: &RuleView| {
            rule.direction == direction
                && rule.family == family
                && covers_l4(rule, flow.protocol, l4_port, icmp_type)
                && self.names(&rule.peer, flow)
        };
        self.groups().find_map(|(group, view)| {
            let (rule, _) = view.rules.iter().find(|(_, rule)| permits(rule))?;
            Some(RuleRef {
                group: group.clone(),
                rule: rule.clone(),
            })
        })
    }

    /// Mode `strict`: ingress from any source and egress to the remote, each type with every code.
    fn errors_permitted(&self, family: Family, flow: &FlowKey) -> bool {
        error_types(family).iter().all(|icmp_type| {
            let permits = |direction, names: &dyn Fn(&PeerView) -> bool| {
                self.rules().any(|rule| {
                    rule.direction == direction
                        && rule.family == family
                        && coverage::covers_error(rule, *icmp_type)
                        && names(&rule.peer)
                })
            };
            permits(Direction::Ingress, &|peer| *peer == PeerView::Any)
                && permits(Direction::Egress, &|peer| self.names(peer, flow))
        })
    }

    /// Adds the remotes that a rule of this side is about.
    fn places(&self, rule: &RuleView, places: &mut Places) {
        match &rule.peer {
            PeerView::Any => places.add(1, [&Prefix::whole(rule.family)]),
            PeerView::Prefix(prefix) => places.add(1, [prefix]),
            PeerView::Group(_) | PeerView::AddressGroup(_) => {
                if let Some(set) = self.set(&rule.peer) {
                    let members = set.iter().filter(|p| p.family() == rule.family);
                    places.add(set.len(), members);
                }
            }
        }
    }
}

/// Remotes that a change reaches.
#[derive(Default)]
struct Places {
    /// Some of them, where they are everywhere.
    listed: BTreeSet<Prefix>,
    everywhere: bool,
}

impl Places {
    fn add<'p>(&mut self, count: usize, prefixes: impl IntoIterator<Item = &'p Prefix>) {
        let prefixes = prefixes.into_iter();
        if count > MAX_AFFECTED {
            self.everywhere = true;
        }
        match self.everywhere {
            true => self.listed.extend(prefixes.take(FIRST_AFFECTED)),
            false => self.listed.extend(prefixes),
        }
    }

    /// A few of them.
    fn first(&self) -> Vec<Prefix> {
        disjoint(self.listed.iter().take(FIRST_AFFECTED).copied())
    }

    /// All of them; everything, if they are too many to look at each.
    fn disjoint(self) -> Vec<Prefix> {
        let places = disjoint(self.listed);
        match self.everywhere || places.len() > MAX_AFFECTED {
            true => prefix_set::both_families(),
            false => places,
        }
    }
}

/// The widest of these prefixes, which are in order.
fn disjoint(places: impl IntoIterator<Item = Prefix>) -> Vec<Prefix> {
    let mut widest: Vec<Prefix> = Vec::new();
    for place in places {
        if !widest.last().is_some_and(|last| last.covers(&place)) {
            widest.push(place);
        }
    }
    widest
}

impl<'a> GroupLoss<'a> {
    fn of(one: &'a GroupView, other: &'a GroupView) -> Self {
        let mut rules: Vec<&RuleView> = Vec::new();
        if !std::ptr::eq(one, other) {
            let changed = one.rules.iter();
            let changed = changed.filter(|(id, rule)| other.rules.get(*id) != Some(*rule));
            rules.extend(changed.map(|(_, rule)| rule));
        }
        if !rules.is_empty() {
            // Rules without names are numbered: where one goes, others move up.
            let there: BTreeSet<&RuleView> = other.rules.values().collect();
            rules.retain(|rule| !there.contains(rule));
        }
        let named = one.rules.values().map(|rule| &rule.peer);
        let sets: HashSet<&PeerView> = named.filter(|peer| peer.is_set()).collect();
        let sets = sets.into_iter().collect();
        Self { rules, sets }
    }
}

/// What is in the first of the sets only.
fn difference(
    one: Option<&Arc<SharedSet<Prefix>>>,
    other: Option<&Arc<SharedSet<Prefix>>>,
) -> Vec<Prefix> {
    match (one, other) {
        (None, _) => Vec::new(),
        (Some(set), None) => set.iter().copied().collect(),
        (Some(one), Some(other)) if Arc::ptr_eq(one, other) => Vec::new(),
        (Some(one), Some(other)) => one.difference(other).copied().collect(),
    }
}

/// What a side's rules of one direction cover, and where, as far as the affected places go.
fn slot(half: &Half<'_>, direction: Direction, kinds: Kinds, affected: &[Prefix]) -> Slot {
    let kinds = kinds.with_errors(half.mode == Elision::Strict);
    let mut by_peer: BTreeMap<(Family, &PeerView), Vec<&RuleView>> = BTreeMap::new();
    let rules = half.rules();
    for rule in rules.filter(|r| r.direction == direction && kinds.asks_for(r)) {
        let near = match &rule.peer {
            PeerView::Prefix(prefix) => near(prefix, affected),
            PeerView::Any | PeerView::Group(_) | PeerView::AddressGroup(_) => true,
        };
        if near {
            let of_peer = by_peer.entry((rule.family, &rule.peer)).or_default();
            of_peer.push(rule);
        }
    }
    let mut slot = Slot::default();
    for ((family, peer), rules) in by_peer {
        let coverage = Coverage::of_rules(&rules);
        let in_family = affected.iter().filter(|p| p.family() == family);
        match peer {
            PeerView::Any => slot.everywhere(family, coverage),
            PeerView::Prefix(prefix) => {
                let covered = in_family.filter_map(|place| match () {
                    () if prefix.covers(place) => Some(*place),
                    () if place.covers(prefix) => Some(*prefix),
                    () => None,
                });
                slot.at(covered.collect(), coverage);
            }
            PeerView::Group(_) | PeerView::AddressGroup(_) => {
                let Some(set) = half.set(peer) else {
                    continue;
                };
                let mut places = Vec::new();
                for place in in_family {
                    if prefix_set::covers(set, place) {
                        places.push(*place);
                    } else {
                        places.extend(prefix_set::inside(set, place));
                    }
                }
                slot.at(places, coverage);
            }
        }
    }
    slot
}

/// Whether the prefix and one of the disjoint, ordered places have an address in common.
fn near(prefix: &Prefix, places: &[Prefix]) -> bool {
    let behind = places.partition_point(|place| place < prefix);
    let next = places.get(behind).is_some_and(|p| prefix.covers(p));
    next || behind
        .checked_sub(1)
        .is_some_and(|before| places[before].covers(prefix))
}
