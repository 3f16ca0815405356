//! Lists of ports, for an index that is made of all there is.
//!
//! Shape: gathered first, and then made trees at once. Filled one by one and in order these would be half empty, and
//! closed up later they would leave as much room in between.

use super::{Entry, Holders, Index};
use model::{GroupId, HostId, NetworkId, PortId, Prefix, ScopeId};
use std::collections::{BTreeMap, HashMap};

#[derive(Default)]
pub(super) struct Gathered {
    hosts: HashMap<HostId, Vec<PortId>>,
    networks: HashMap<NetworkId, Vec<PortId>>,
    groups: HashMap<GroupId, Vec<PortId>>,
    addresses: HashMap<ScopeId, Vec<(Prefix, PortId)>>,
}

impl Gathered {
    /// What is counted, and not listed, comes back.
    pub(super) fn add(&mut self, entry: Entry, port: &PortId) -> Option<Entry> {
        let port = port.clone();
        match entry {
            Entry::OnHost(host) => self.hosts.entry(host).or_default().push(port),
            Entry::InNetwork(network) => self.networks.entry(network).or_default().push(port),
            Entry::Member(group) => self.groups.entry(group).or_default().push(port),
            Entry::Address(scope, prefix) => {
                let of = self.addresses.entry(scope).or_default();
                of.push((prefix, port));
            }
            Entry::HostInNetwork(..) | Entry::GroupInNetwork(..) => return Some(entry),
        }
        None
    }

    pub(super) fn fill(self, index: &mut Index) {
        for (scope, addresses) in self.addresses {
            index.addresses.insert(scope, holders(addresses));
        }
        for (host, ports) in self.hosts {
            index.hosts.insert(host, ports.into_iter().collect());
        }
        for (network, ports) in self.networks {
            let of = index.networks.entry(network).or_default();
            of.ports = ports.into_iter().collect();
        }
        for (group, ports) in self.groups {
            let of = index.groups.entry(group).or_default();
            of.members = ports.into_iter().collect();
        }
    }
}

fn holders(mut addresses: Vec<(Prefix, PortId)>) -> BTreeMap<Prefix, Holders> {
    addresses.sort_unstable();
    let by_prefix = addresses.chunk_by(|(a, _), (b, _)| a == b);
    let by_prefix = by_prefix.map(|same| match same {
        [(prefix, port)] => (*prefix, Holders::One(port.clone())),
        more => {
            let ports = more.iter().map(|(_, port)| port.clone());
            (more[0].0, Holders::More(ports.collect()))
        }
    });
    by_prefix.collect()
}
