//! Who an address is to the rules: the contents of `exact` and `prefixes`.
//!
//! Place on the line: members, address groups, rule prefixes -> **lists of peers** -> maps.
//! An address lists in `exact` the peers that name it as such; in `prefixes` its longest prefix
//! lists all peers whose prefixes contain it, nearest first. A packet asks both. A list of more
//! peers than fit ends in a union, which stands for the rest.
//! Knows nothing of: what the peers may do.

use super::{Before, Named};
use crate::layout::{ExactKey, PEERS_PER_ADDRESS, Peers, PrefixKey};
use crate::numbers::{Numbers, PeerName};
use model::{Prefix, ScopeId};
use policy::{HostView, SharedSet, differing};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lists {
    pub(crate) exact: BTreeMap<ExactKey, Peers>,
    pub(crate) prefixes: BTreeMap<PrefixKey, Peers>,
}

/// What is another one than before.
pub(crate) struct ChangedLists {
    pub(crate) exact: Vec<(ExactKey, Option<Peers>, Option<Peers>)>,
    /// All there are now; `None`: the same as before. They depend on each other, and are few.
    pub(crate) prefixes: Option<BTreeMap<PrefixKey, Peers>>,
}

/// The peers that the sets of a scope's ports name.
pub(crate) type NamedPeers = BTreeMap<ScopeId, Named>;

pub(crate) fn render(view: &HostView, named: &NamedPeers, numbers: &mut Numbers) -> Lists {
    let mut exact: Vec<(ExactKey, u32)> = Vec::new();
    for (scope, peers) in named {
        let scope_number = numbers.scope(scope);
        for (number, peer) in peers {
            each_prefix(view, scope, peer, |prefix| {
                if let Some(address) = prefix.as_host() {
                    exact.push((exact_key(scope_number, address), *number));
                }
            });
        }
    }
    Lists {
        exact: exact_lists(exact, numbers),
        prefixes: prefix_lists(view, named, numbers),
    }
}

impl Lists {
    pub(crate) fn after(self, before: &Lists) -> ChangedLists {
        let exact = differing(&before.exact, &self.exact);
        ChangedLists {
            exact: exact
                .map(|(key, before, after)| (*key, before.copied(), after.copied()))
                .collect(),
            prefixes: (before.prefixes != self.prefixes).then_some(self.prefixes),
        }
    }
}

/// The same by what has changed since the lists were rendered.
pub(super) fn changed(
    before: Before<'_>,
    view: &HostView,
    named: &Arc<NamedPeers>,
    lists: &Lists,
    numbers: &mut Numbers,
) -> ChangedLists {
    let mut moves = Moves::default();
    if Arc::ptr_eq(&before.last.named, named) {
        moves.of_members(before.view, view, named, numbers);
    } else {
        moves.of_names(before, view, named, numbers);
    }
    let mut exact = Vec::new();
    for (key, (come, gone)) in moves.exact {
        let was = lists.exact.get(&key).copied();
        let mut peers = was.map_or_else(Vec::new, |was| expand(&was, numbers));
        peers.retain(|peer| !gone.contains(peer));
        peers.extend(come);
        peers.sort_unstable();
        peers.dedup();
        let is = (!peers.is_empty()).then(|| list(&peers, numbers));
        if was != is {
            exact.push((key, was, is));
        }
    }
    let prefixes = moves.prefixes.then(|| prefix_lists(view, named, numbers));
    ChangedLists {
        exact,
        prefixes: prefixes.filter(|prefixes| *prefixes != lists.prefixes),
    }
}

/// By which peers addresses are named that weren't before, and the other way round.
#[derive(Default)]
struct Moves {
    exact: BTreeMap<ExactKey, (Vec<u32>, Vec<u32>)>,
    /// Of prefixes only whether there are any.
    prefixes: bool,
}

impl Moves {
    /// The same rules, with other members.
    fn of_members(
        &mut self,
        old: &HostView,
        new: &HostView,
        named: &NamedPeers,
        numbers: &mut Numbers,
    ) {
        for ((scope, group), before, after) in differing(&old.members, &new.members) {
            let peer = numbers.number_of(&PeerName::Group(group.clone()));
            let names = |peer: &u32| named.get(scope).is_some_and(|n| n.contains_key(peer));
            if let Some(peer) = peer.filter(names) {
                self.between(numbers.scope(scope), peer, before, after);
            }
        }
        for (group, before, after) in differing(&old.address_groups, &new.address_groups) {
            let peer = numbers.number_of(&PeerName::AddressGroup(group.clone()));
            for (scope, peers) in named {
                if let Some(peer) = peer.filter(|peer| peers.contains_key(peer)) {
                    self.between(numbers.scope(scope), peer, before, after);
                }
            }
        }
    }

    /// Other rules, and perhaps other members.
    fn of_names(
        &mut self,
        before: Before<'_>,
        view: &HostView,
        named: &NamedPeers,
        numbers: &mut Numbers,
    ) {
        let none = Named::new();
        let scopes: BTreeSet<&ScopeId> = before.last.named.keys().chain(named.keys()).collect();
        for scope in scopes {
            let number = numbers.scope(scope);
            let was = before.last.named.get(scope).unwrap_or(&none);
            let is = named.get(scope).unwrap_or(&none);
            for (peer, name) in was {
                if !is.contains_key(peer) {
                    each_prefix(before.view, scope, name, |p| {
                        self.add(number, p, *peer, false)
                    });
                } else {
                    let [was, is] = [before.view, view].map(|view| set(view, scope, name));
                    self.between(number, *peer, was, is);
                }
            }
            for (peer, name) in is.iter().filter(|(peer, _)| !was.contains_key(peer)) {
                each_prefix(view, scope, name, |p| self.add(number, p, *peer, true));
            }
        }
    }

    fn between(&mut self, scope: u32, peer: u32, before: Option<&Set>, after: Option<&Set>) {
        let empty = Set::default();
        let (before, after) = (before.unwrap_or(&empty), after.unwrap_or(&empty));
        if before == after {
            return;
        }
        for prefix in before.difference(after) {
            self.add(scope, prefix, peer, false);
        }
        for prefix in after.difference(before) {
            self.add(scope, prefix, peer, true);
        }
    }

    fn add(&mut self, scope: u32, prefix: &Prefix, peer: u32, comes: bool) {
        match prefix.as_host() {
            Some(address) => {
                let moves = self.exact.entry(exact_key(scope, address)).or_default();
                if comes { &mut moves.0 } else { &mut moves.1 }.push(peer);
            }
            None => self.prefixes = true,
        }
    }
}

type Set = Arc<SharedSet<Prefix>>;

/// Of peers whose members can change.
fn set<'a>(view: &'a HostView, scope: &ScopeId, peer: &PeerName) -> Option<&'a Set> {
    match peer {
        PeerName::Group(id) => view.members.get(&(scope.clone(), id.clone())),
        PeerName::AddressGroup(id) => view.address_groups.get(id),
        PeerName::Prefix(_) | PeerName::Union(_) => None,
    }
}

fn each_prefix(view: &HostView, scope: &ScopeId, peer: &PeerName, mut add: impl FnMut(&Prefix)) {
    match peer {
        PeerName::Prefix(prefix) => add(prefix),
        PeerName::Group(_) | PeerName::AddressGroup(_) | PeerName::Union(_) => {
            let set = set(view, scope, peer);
            set.into_iter().flat_map(|set| set.iter()).for_each(add);
        }
    }
}

fn prefix_lists(
    view: &HostView,
    named: &NamedPeers,
    numbers: &mut Numbers,
) -> BTreeMap<PrefixKey, Peers> {
    let mut direct: Vec<(u32, Prefix, u32)> = Vec::new();
    for (scope, peers) in named {
        let scope_number = numbers.scope(scope);
        for (number, peer) in peers {
            each_prefix(view, scope, peer, |prefix| {
                if prefix.as_host().is_none() {
                    direct.push((scope_number, *prefix, *number));
                }
            });
        }
    }
    inherit(direct, numbers)
}

fn exact_lists(
    mut pairs: Vec<(ExactKey, u32)>,
    numbers: &mut Numbers,
) -> BTreeMap<ExactKey, Peers> {
    // Each peer's members come in order: a stable sort merges them.
    pairs.sort();
    pairs.dedup();
    let lists = pairs.chunk_by(|a, b| a.0 == b.0).map(|same| {
        let peers: Vec<u32> = same.iter().map(|(_, peer)| *peer).collect();
        (same[0].0, list(&peers, numbers))
    });
    lists.collect()
}

/// Each prefix lists its own peers and those of the prefixes around it.
fn inherit(
    mut direct: Vec<(u32, Prefix, u32)>,
    numbers: &mut Numbers,
) -> BTreeMap<PrefixKey, Peers> {
    // By scope, family and network, the shorter first: what contains a prefix comes before it.
    direct.sort_unstable();
    direct.dedup();
    let mut around: Vec<(u32, Prefix, Vec<u32>)> = Vec::new();
    let mut lists = BTreeMap::new();
    for same in direct.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let (scope, prefix, _) = same[0];
        while let Some((outer_scope, outer, _)) = around.last() {
            if *outer_scope == scope && outer.covers(&prefix) {
                break;
            }
            around.pop();
        }
        let mut peers: Vec<u32> = same.iter().map(|(_, _, peer)| *peer).collect();
        if let Some((_, _, outer)) = around.last() {
            let inherited = outer.iter().filter(|peer| !peers.contains(peer));
            let inherited: Vec<u32> = inherited.copied().collect();
            peers.extend(inherited);
        }
        lists.insert(prefix_key(scope, &prefix), list(&peers, numbers));
        around.push((scope, prefix, peers));
    }
    lists
}

/// Peers in order of their nearness; those that don't fit become a union.
pub(crate) fn list(peers: &[u32], numbers: &mut Numbers) -> Peers {
    let mut listed = Peers::default();
    let room = PEERS_PER_ADDRESS as usize;
    if peers.len() <= room {
        listed.peer[..peers.len()].copy_from_slice(peers);
        return listed;
    }
    listed.peer[..room - 1].copy_from_slice(&peers[..room - 1]);
    let mut rest = peers[room - 1..].to_vec();
    rest.sort_unstable();
    listed.peer[room - 1] = numbers.peer(&PeerName::Union(rest));
    listed
}

/// The peers of a list, unions taken apart.
pub(crate) fn expand(list: &Peers, numbers: &Numbers) -> Vec<u32> {
    let listed = list.peer.iter().take_while(|peer| **peer != 0);
    listed
        .flat_map(|peer| numbers.parts(peer).to_vec())
        .collect()
}

pub(crate) fn exact_key(scope: u32, address: IpAddr) -> ExactKey {
    let (family, address) = octets(address);
    ExactKey {
        scope_family: scope * 2 + family,
        address,
    }
}

pub(crate) fn prefix_key(scope: u32, prefix: &Prefix) -> PrefixKey {
    let (family, address) = octets(prefix.network());
    PrefixKey {
        prefix_len: 32 + u32::from(prefix.length()),
        scope_family: scope * 2 + family,
        address,
    }
}

/// The family's number, and the address as maps hold it.
pub(crate) fn octets(address: IpAddr) -> (u32, [u8; 16]) {
    match address {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            (crate::layout::FAM_V4, octets)
        }
        IpAddr::V6(address) => (crate::layout::FAM_V6, address.octets()),
    }
}
