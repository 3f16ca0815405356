//! What is left of an object in one host's part.
//!
//! Local ports, their networks and groups are whole. Of other ports there is what the view needs: as members of groups
//! that rules name, as owners of link-local addresses, as ends of the overlay.

use crate::index::{is_link_local, joined};
use crate::interest::{Interest, LocalNetwork};
use crate::undo::{World, head};
use model::{
    AddressGroup, AddressGroupId, AddressPair, DeviceMatch, FrozenSet, GroupId, Host, HostId,
    MacAddr, Network, NetworkId, PeerTrust, Port, PortId, Prefix, ScopeId, SecurityGroup, Settings,
};
use std::collections::BTreeSet;
use std::net::IpAddr;

#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) world: World<'a>,
    pub(crate) host: &'a HostId,
    pub(crate) interest: &'a Interest,
}

/// A group, without its rules.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum GroupPart {
    Absent,
    /// That it is there, and its number.
    Name(SecurityGroup),
    /// Its rules are there, too.
    Whole(SecurityGroup),
}

/// Why a port of another host is in the part.
struct Uses {
    /// Its addresses are members of these groups.
    groups: FrozenSet<GroupId>,
    is_member: bool,
    /// Its link-local addresses are its own.
    reserves: bool,
    is_overlay: bool,
    asks_ahead: bool,
}

impl Part<'_> {
    pub(crate) fn host(self, id: &HostId) -> Option<Host> {
        let host = self.world.host(id)?;
        if id == self.host {
            return Some(host.clone());
        }
        let tunnel = self.interest.tunnel.as_ref()?;
        tunnel.hosts.contains(id).then(|| Host {
            id: id.clone(),
            tunnel_address: host.tunnel_address,
            peer_trust: match host.tunnel_address {
                Some(_) => host.peer_trust,
                None => PeerTrust::default(),
            },
            settings: Settings::default(),
        })
    }

    pub(crate) fn network(self, id: &NetworkId) -> Option<Network> {
        let network = self.world.network(id)?;
        if self.interest.networks.contains_key(id) {
            return Some(network.clone());
        }
        let is_remote = self.interest.remote_networks.contains(id);
        is_remote.then(|| Network {
            id: id.clone(),
            scope: network.scope.clone(),
            vni: None,
            mtu: None,
            subnets: BTreeSet::new(),
            dhcp_servers: BTreeSet::new(),
            routers: BTreeSet::new(),
            eui64_only: false,
        })
    }

    pub(crate) fn group(self, id: &GroupId) -> GroupPart {
        let Some(group) = self.world.group(id) else {
            return GroupPart::Absent;
        };
        if self.interest.full.contains(id) {
            return GroupPart::Whole(head(group));
        }
        let tag = group.tag.filter(|_| self.interest.tunnel.is_some());
        if tag.is_none() && !self.interest.named.contains_key(id) {
            return GroupPart::Absent;
        }
        GroupPart::Name(SecurityGroup {
            id: id.clone(),
            project: None,
            name: String::new(),
            stateful: true,
            tag,
            rules: Default::default(),
        })
    }

    pub(crate) fn address_group(self, id: &AddressGroupId) -> Option<AddressGroup> {
        let group = self.world.address_group(id)?;
        let is_named = self.interest.address_groups.contains(id);
        is_named.then(|| group.clone())
    }

    pub(crate) fn port(self, id: &PortId) -> Option<Port> {
        let port = self.world.port(id)?;
        if port.is_on(self.host) {
            return Some(self.own(port));
        }
        Some(reduced(port, self.uses(port)?))
    }

    /// Of one on its way here it is told where it is if tunnels lead there.
    fn own(self, port: &Port) -> Port {
        let local = self.interest.networks.get(&port.network);
        let is_overlay = local.is_some_and(|local| local.is_overlay);
        let told = |host: &HostId| host == self.host || is_overlay;
        Port {
            host: port.host.clone().filter(told),
            ..port.clone()
        }
    }

    fn uses(self, port: &Port) -> Option<Uses> {
        let scope = &self.world.network(&port.network)?.scope;
        let tunnel = self.interest.tunnel.as_ref();
        let local = self.interest.networks.get(&port.network);
        let LocalNetwork {
            reserves,
            is_overlay,
        } = local.copied().unwrap_or_default();
        let asks_ahead = is_overlay && tunnel.is_some_and(|tunnel| tunnel.asks_ahead);
        let is_watched = tunnel.is_some_and(|tunnel| {
            let crowd = tunnel.crowds.get(scope);
            tunnel.shared.contains(&port.id) || crowd.is_some_and(|ports| ports.contains(&port.id))
        });
        let all = asks_ahead || is_watched;
        let uses = Uses {
            groups: self.groups(port, scope, all),
            is_member: is_watched || joined(port).any(|g| self.interest.is_named_in(g, scope)),
            reserves,
            is_overlay: is_overlay && port.host.is_some(),
            asks_ahead,
        };
        let is_of_use = uses.is_member || reserves || uses.is_overlay || asks_ahead;
        is_of_use.then_some(uses)
    }

    fn groups(self, port: &Port, scope: &ScopeId, all: bool) -> FrozenSet<GroupId> {
        let groups = joined(port).filter(|group| all || self.interest.is_named_in(group, scope));
        groups.cloned().collect()
    }
}

/// A MAC of zeros is one that isn't told.
fn reduced(port: &Port, uses: Uses) -> Port {
    let tells_mac = uses.reserves || uses.asks_ahead;
    Port {
        id: port.id.clone(),
        network: port.network.clone(),
        host: port.host.clone().filter(|_| uses.is_overlay),
        device: DeviceMatch::Mac,
        moving: None,
        mac: if tells_mac { port.mac } else { MacAddr::ZERO },
        fixed_addresses: port
            .fixed_addresses
            .iter()
            .copied()
            .filter(|address| match is_link_local(&Prefix::host(*address)) {
                true => uses.reserves,
                false => uses.is_member,
            })
            .collect(),
        address_pairs: pairs(port, &uses),
        groups: uses.groups,
        port_security: port.port_security,
        dhcp_server: false,
        router: false,
    }
}

/// With a MAC where frames are sent to it.
fn pairs(port: &Port, uses: &Uses) -> FrozenSet<AddressPair> {
    let pairs = port.address_pairs.iter().filter(|pair| {
        let is_link_local = is_link_local(&pair.prefix);
        let is_reserved = is_link_local && pair.prefix.as_host().is_some_and(is_v6);
        uses.asks_ahead
            || (uses.reserves && is_reserved)
            || (uses.is_member && !is_link_local && pair.enters_remote_groups())
    });
    pairs
        .map(|pair| AddressPair {
            prefix: pair.prefix,
            mac: pair.mac.filter(|_| uses.asks_ahead),
        })
        .collect()
}

fn is_v6(address: IpAddr) -> bool {
    address.is_ipv6()
}
