//! What a host that tunnels has to know of the others: who they are, whose networks they share, and which
//! groups its own addresses are in.
//!
//! Place on the line: inventory -> compile -> **view** -> render. Part of a view only where the host has a tunnel
//! address.
//! Cost: one pass over all ports.
//! Knows nothing of: tunnels' headers, switches.

use crate::view::{HostView, PortView};
use model::{
    GroupId, HostId, Inspection, Inventory, MacAddr, NetworkId, PeerTrust, Port, PortId, Prefix,
    ScopeId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Shape: networks of local ports that have a number; of other hosts those that have ports in them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OverlayView {
    pub address: IpAddr,
    pub inspection: Inspection,
    pub peers: BTreeMap<HostId, PeerHost>,
    pub networks: BTreeMap<NetworkId, OverlayNetwork>,
    /// Of the addresses of local ports: all their groups, whoever's rules name them, and whoever else has them.
    pub identities: BTreeMap<(ScopeId, Prefix), BTreeSet<GroupId>>,
    /// Addresses of other hosts' ports that are in more groups than [`SHORT`].
    pub crowded: BTreeMap<(ScopeId, Prefix), BTreeSet<GroupId>>,
    /// Of all groups in sight that have one.
    pub tags: BTreeMap<GroupId, u16>,
    /// For inspection at the source: ports of other hosts in these networks, and the groups that they are in.
    pub remote_ports: BTreeMap<PortId, RemotePort>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerHost {
    pub address: IpAddr,
    /// By tag only if both hosts are known so.
    pub trust: PeerTrust,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OverlayNetwork {
    pub vni: u32,
    pub mtu: Option<u16>,
    /// Others that have ports in it.
    pub hosts: BTreeSet<HostId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RemotePort {
    pub host: HostId,
    pub network: NetworkId,
    pub macs: BTreeSet<MacAddr>,
    pub port_security: bool,
    pub groups: Vec<GroupId>,
}

/// The option of Geneve in which a packet's source says its groups. The class is one of those for experiments; the
/// type is critical, so that a host that doesn't know it drops the packet.
pub const OPTION_CLASS: u16 = 0xff70;
pub const OPTION_TYPE: u8 = 0x81;
pub const OPTION_BYTES: u8 = 20;
/// So many groups of an address are carried one by one; more have a number together.
pub const SHORT: usize = 8;

impl OverlayView {
    /// Whether tags alone say who is in which group, wherever packets of this scope come from.
    pub fn is_tagged(&self, view: &HostView, scope: &ScopeId) -> bool {
        let mut networks = view
            .networks
            .iter()
            .filter(|(_, network)| network.scope == *scope);
        networks.all(|(id, _)| {
            self.networks.get(id).is_some_and(|network| {
                let mut peers = network.hosts.iter().filter_map(|host| self.peers.get(host));
                peers.all(|peer| peer.trust == PeerTrust::Tag)
            })
        })
    }
}

pub(crate) fn overlay(
    inventory: &Inventory,
    host: &HostId,
    ports: &BTreeMap<PortId, Arc<PortView>>,
) -> Option<Arc<OverlayView>> {
    let this = inventory.hosts.get(host)?;
    let address = this.tunnel_address?;
    let used: BTreeSet<&NetworkId> = ports.values().map(|port| &port.network).collect();
    let mut networks = BTreeMap::new();
    for id in used {
        if let Some(network) = inventory.networks.get(id)
            && let Some(vni) = network.vni
        {
            let hosts = BTreeSet::new();
            networks.insert(
                id.clone(),
                OverlayNetwork {
                    vni,
                    mtu: network.mtu,
                    hosts,
                },
            );
        }
    }
    let mut peers = BTreeMap::new();
    let elsewhere = inventory
        .ports
        .values()
        .filter(|port| port.host.as_ref() != Some(host));
    for port in elsewhere.clone() {
        let Some(network) = networks.get_mut(&port.network) else {
            continue;
        };
        let Some(other) = port.host.as_ref().and_then(|id| inventory.hosts.get(id)) else {
            continue;
        };
        if let Some(address) = other.tunnel_address {
            // Who isn't sent the option can't ask for it.
            let trust = match (this.peer_trust, other.peer_trust) {
                (PeerTrust::Tag, PeerTrust::Tag) => PeerTrust::Tag,
                (PeerTrust::Address, _) | (_, PeerTrust::Address) => PeerTrust::Address,
            };
            network.hosts.insert(other.id.clone());
            peers.insert(other.id.clone(), PeerHost { address, trust });
        }
    }
    let inspection = this.settings.inspection;
    let remote_ports = match inspection {
        Inspection::Destination => BTreeMap::new(),
        Inspection::Source | Inspection::Both => elsewhere
            .filter(|port| networks.contains_key(&port.network))
            .filter_map(|port| Some((port.id.clone(), remote_port(inventory, port)?)))
            .collect(),
    };
    let (identities, crowded) = identities(inventory, host, &networks);
    let tags = inventory.groups.iter();
    let tags = tags
        .filter_map(|(id, group)| Some((id.clone(), group.tag?)))
        .collect();
    Some(Arc::new(OverlayView {
        address,
        inspection,
        peers,
        networks,
        identities,
        crowded,
        tags,
        remote_ports,
    }))
}

fn remote_port(inventory: &Inventory, port: &Port) -> Option<RemotePort> {
    Some(RemotePort {
        host: port.host.clone()?,
        network: port.network.clone(),
        macs: port
            .address_pairs
            .iter()
            .filter_map(|pair| pair.mac)
            .chain([port.mac])
            .collect(),
        port_security: port.port_security,
        groups: crate::compile::known_groups(inventory, port)
            .cloned()
            .collect(),
    })
}

type Identities = BTreeMap<(ScopeId, Prefix), BTreeSet<GroupId>>;

/// Of the local ports' addresses, and of others' that are in many groups.
fn identities(
    inventory: &Inventory,
    host: &HostId,
    networks: &BTreeMap<NetworkId, OverlayNetwork>,
) -> (Identities, Identities) {
    let scopes: BTreeSet<&ScopeId> = networks
        .keys()
        .filter_map(|id| inventory.networks.get(id))
        .map(|network| &network.scope)
        .collect();
    let mut all = Identities::new();
    let mut here = BTreeSet::new();
    for port in inventory.ports.values() {
        let Some(network) = inventory.networks.get(&port.network) else {
            continue;
        };
        if !scopes.contains(&network.scope) || !port.port_security {
            continue;
        }
        let groups: Vec<&GroupId> = crate::compile::joined_groups(port).collect();
        for prefix in crate::compile::members_of(port) {
            let key = (network.scope.clone(), prefix);
            if port.is_on(host) {
                here.insert(key.clone());
            }
            all.entry(key)
                .or_default()
                .extend(groups.iter().map(|group| (*group).clone()));
        }
    }
    let (local, others): (Identities, Identities) =
        all.into_iter().partition(|(key, _)| here.contains(key));
    let crowded = others
        .into_iter()
        .filter(|(_, groups)| groups.len() > SHORT);
    (local, crowded.collect())
}
