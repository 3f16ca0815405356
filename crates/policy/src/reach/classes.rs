//! Ends that are alike: so that 10,000 ports in a handful of groups are as much work as a handful of ports.
//!
//! Two ends are alike if the same rules are asked at both, and each set of addresses that a rule of the other side
//! names holds either all addresses of both or none. An end that such a set cuts in two is like no other.

use super::ends::{End, Gate};
use super::ranges::Ranges;
use model::{Direction, Family, PortId, ScopeId};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;

/// Ends that are alike, by one of them. Of the outside there is no port.
pub(super) struct Class<T> {
    pub(super) one: T,
    pub(super) ports: BTreeSet<PortId>,
}

/// In the order of the first of each.
pub(super) fn classes<'a, T, K: Hash + Eq>(
    ends: impl IntoIterator<Item = (Option<&'a PortId>, T)>,
    likeness: impl Fn(&T) -> K,
) -> Vec<Class<T>> {
    let mut classes: Vec<Class<T>> = Vec::new();
    let mut places = HashMap::new();
    for (port, end) in ends {
        let place = *places.entry(likeness(&end)).or_insert(classes.len());
        if place == classes.len() {
            let ports = BTreeSet::new();
            classes.push(Class { one: end, ports });
        }
        classes[place].ports.extend(port.cloned());
    }
    classes
}

/// Equal for ends that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Likeness<'a> {
    scope: &'a ScopeId,
    gate: Gate,
    profile: usize,
    /// In the order of `Family::BOTH`: is there any address to ask about?
    present: [bool; 2],
    held: Vec<usize>,
    /// What it has and what is asked about, of those that are like no other.
    alone: Option<[(Ranges, Ranges); 2]>,
}

/// The sets of addresses that rules name for one direction, of both families.
pub(super) struct Peers<'a>(Vec<(Family, &'a Ranges)>);

impl<'a> Peers<'a> {
    /// Of the rules that are asked at these ends.
    pub(super) fn of(ends: &'a [End<'_>], direction: Direction) -> Self {
        let mut seen = HashSet::new();
        let mut peers = BTreeSet::new();
        let profiles = ends.iter().map(|end| &end.profile);
        for profile in profiles.filter(|profile| seen.insert(profile.number)) {
            let rules = profile.rules.iter();
            let here = rules.filter(|rule| rule.direction == direction);
            peers.extend(here.map(|rule| (rule.family, &*rule.peer)));
        }
        Self(peers.into_iter().collect())
    }
}

impl<'a> Likeness<'a> {
    pub(super) fn of(end: &End<'a>, peers: &Peers<'_>) -> Self {
        let mut held = Vec::new();
        let mut is_cut = Family::BOTH
            .into_iter()
            .any(|family| end.own(family) != end.asked(family));
        for (index, (family, peer)) in peers.0.iter().enumerate() {
            let asked = end.asked(*family);
            let inside = asked.intersection(peer);
            if !inside.is_empty() {
                held.push(index);
                is_cut |= inside != *asked;
            }
        }
        Self {
            scope: end.scope,
            gate: end.gate,
            profile: end.profile.number,
            present: Family::BOTH.map(|family| !end.asked(family).is_empty()),
            held,
            alone: is_cut.then(|| {
                Family::BOTH.map(|family| (end.own(family).clone(), end.asked(family).clone()))
            }),
        }
    }
}
