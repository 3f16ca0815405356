//! Who an address is to the rules: the contents of `exact` and `prefixes`.
//!
//! Place on the line: members, address groups, rule prefixes -> **lists of peers** -> maps.
//! An address lists in `exact` the peers that name it as such; in `prefixes` its longest prefix
//! lists all peers whose prefixes contain it, nearest first. A packet asks both. A list of more
//! peers than fit ends in a union, which stands for the rest.
//! Knows nothing of: what the peers may do.

use super::Named;
use crate::layout::{ExactKey, PEERS_PER_ADDRESS, Peers, PrefixKey};
use crate::numbers::{Numbers, PeerName};
use model::{Prefix, ScopeId};
use policy::HostView;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lists {
    pub(crate) exact: Vec<(ExactKey, Peers)>,
    pub(crate) prefixes: Vec<(PrefixKey, Peers)>,
}

/// The peers that the sets of a scope's ports name.
pub(crate) type NamedPeers = BTreeMap<ScopeId, Named>;

pub(crate) fn render(view: &HostView, named: &NamedPeers, numbers: &mut Numbers) -> Lists {
    let mut exact: Vec<(ExactKey, u32)> = Vec::new();
    let mut direct: Vec<(u32, Prefix, u32)> = Vec::new();
    for (scope, peers) in named {
        let scope_number = numbers.scope(scope);
        for (number, peer) in peers {
            let number = *number;
            let mut add = |prefix: &Prefix| match prefix.as_host() {
                Some(address) => exact.push((exact_key(scope_number, address), number)),
                None => direct.push((scope_number, *prefix, number)),
            };
            match peer {
                PeerName::Prefix(prefix) => add(prefix),
                PeerName::Group(id) => {
                    let members = view.members.get(&(scope.clone(), id.clone()));
                    members.into_iter().flat_map(|m| m.iter()).for_each(add);
                }
                PeerName::AddressGroup(id) => {
                    let prefixes = view.address_groups.get(id);
                    prefixes.into_iter().flat_map(|p| p.iter()).for_each(add);
                }
                PeerName::Union(_) => {}
            }
        }
    }
    Lists {
        exact: exact_lists(exact, numbers),
        prefixes: inherit(direct, numbers),
    }
}

fn exact_lists(mut pairs: Vec<(ExactKey, u32)>, numbers: &mut Numbers) -> Vec<(ExactKey, Peers)> {
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
fn inherit(mut direct: Vec<(u32, Prefix, u32)>, numbers: &mut Numbers) -> Vec<(PrefixKey, Peers)> {
    // By scope, family and network, the shorter first: what contains a prefix comes before it.
    direct.sort_unstable();
    direct.dedup();
    let mut around: Vec<(u32, Prefix, Vec<u32>)> = Vec::new();
    let mut lists = Vec::new();
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
        lists.push((prefix_key(scope, &prefix), list(&peers, numbers)));
        around.push((scope, prefix, peers));
    }
    lists.sort_unstable_by_key(|(key, _)| *key);
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
