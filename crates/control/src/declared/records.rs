//! Objects of an inventory as records: what a file says, over what the record said before.
//!
//! `inventory.rs` leads back. What a file can't say, such as a description or a VM's id, stays as it is.
//! Knows nothing of: what differs, and what is done about it.

use crate::ids::Moment;
use crate::objects::{
    Addresses, AskedPeer, Asks, Binding, Described, Device, FixedAddress, Group, GroupRule, Host,
    Network, Pair, Port, Segment, Subnet,
};
use crate::ports::{USUAL_VNIC, moved};
use crate::subnets::{from_number, number, usable};
use arcstr::ArcStr;
use model::{
    AddressGroup, DeviceMatch, Family, GroupId, L4Match, L4PortRange, NetworkId, Peer, PeerTrust,
    Prefix, ProjectId, Rule, RuleId, SecurityGroup, Settings,
};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// What all objects of one declaration have.
pub(super) struct Common<'a> {
    pub(super) now: &'a Moment,
    pub(super) project: &'a ProjectId,
    pub(super) tag: String,
}

impl Common<'_> {
    fn said(&self, before: Option<&Described>, name: &str) -> Described {
        let mut said = before.cloned().unwrap_or_else(|| Described {
            created_at: self.now.at,
            updated_at: self.now.at,
            ..Default::default()
        });
        said.name = name.into();
        said.tags.insert(self.tag.as_str().into());
        said
    }

    pub(super) fn host(&self, before: Option<&Host>, host: &model::Host) -> Host {
        let mut tags = before.map(|before| before.tags.clone()).unwrap_or_default();
        tags.insert(self.tag.as_str().into());
        Host {
            id: host.id.clone(),
            tunnel_address: host.tunnel_address,
            tagged: host.peer_trust == PeerTrust::Tag,
            tags,
            settings: Some(host.settings.clone()).filter(|s| *s != Settings::default()),
        }
    }

    pub(super) fn addresses(&self, before: Option<&Addresses>, group: &AddressGroup) -> Addresses {
        Addresses {
            id: group.id.clone(),
            project: self.project.clone(),
            said: self.said(before.map(|before| &before.said), group.id.as_str()),
            prefixes: group.prefixes.clone(),
        }
    }

    pub(super) fn network(&self, before: Option<&Network>, network: &model::Network) -> Network {
        Network {
            id: network.id.clone(),
            project: self.project.clone(),
            said: self.said(before.map(|before| &before.said), network.id.as_str()),
            admin_up: before.is_none_or(|before| before.admin_up),
            shared: before.is_some_and(|before| before.shared),
            port_security: before.is_none_or(|before| before.port_security),
            scope: network.scope.clone(),
            mtu: network.mtu,
            segment: segment(before, network.vni),
            eui64_only: network.eui64_only,
            dhcp_servers: Some(network.dhcp_servers.clone()),
            routers: Some(network.routers.clone()),
        }
    }

    pub(super) fn subnet(
        &self,
        before: Option<&Subnet>,
        network: &model::Network,
        prefix: Prefix,
    ) -> Subnet {
        let taken = || network.routers.iter().chain(&network.dhcp_servers);
        let name = before.map_or("", |before| &before.said.name);
        Subnet {
            id: subnet_id(&network.id, prefix).into(),
            project: self.project.clone(),
            network: network.id.clone(),
            said: self.said(before.map(|before| &before.said), name),
            prefix,
            gateway: None,
            dhcp: before.is_some_and(|before| before.dhcp),
            pools: pools(prefix, &taken().copied().collect()),
            dns_servers: before.map(|b| b.dns_servers.clone()).unwrap_or_default(),
            host_routes: before.map(|b| b.host_routes.clone()).unwrap_or_default(),
        }
    }

    /// Without a number on the wire, if there was none before.
    pub(super) fn group(&self, before: Option<&Group>, group: &SecurityGroup) -> Group {
        Group {
            id: group.id.clone(),
            project: self.project.clone(),
            said: self.said(before.map(|before| &before.said), &group.name),
            stateful: group.stateful,
            default: before.is_some_and(|before| before.default),
            wire_tag: before.and_then(|before| before.wire_tag),
        }
    }

    pub(super) fn rule(
        &self,
        before: Option<&GroupRule>,
        group: &GroupId,
        id: RuleId,
        asks: Asks,
    ) -> GroupRule {
        GroupRule {
            id,
            group: group.clone(),
            project: self.project.clone(),
            said: self.said(before.map(|before| &before.said), ""),
            asks,
        }
    }

    /// `subnets`: of its network.
    pub(super) fn port(
        &self,
        before: Option<&Port>,
        port: &model::Port,
        subnets: &[(String, Prefix)],
    ) -> Port {
        let fixed = port.fixed_addresses.iter().map(|address| FixedAddress {
            subnet: subnet_of(*address, subnets).into(),
            address: *address,
        });
        let pairs = port.address_pairs.iter().map(|pair| Pair {
            prefix: pair.prefix,
            mac: pair.mac.unwrap_or(port.mac),
        });
        Port {
            id: port.id.clone(),
            project: self.project.clone(),
            network: port.network.clone(),
            said: self.said(before.map(|before| &before.said), port.id.as_str()),
            mac: port.mac,
            fixed: fixed.collect(),
            pairs: BTreeSet::from_iter(pairs).into_iter().collect(),
            groups: port.groups.clone(),
            port_security: port.port_security,
            admin_up: before.is_none_or(|before| before.admin_up),
            device_id: before.map(|b| b.device_id.clone()).unwrap_or_default(),
            device_owner: owner(before, port),
            binding: binding(before, port, self.now).map(Arc::new),
            unbound: match port.host {
                Some(_) => None,
                None => before.and_then(|before| before.unbound.clone()),
            },
        }
    }
}

pub(super) fn rule_id(group: &GroupId, rule: &RuleId) -> RuleId {
    RuleId::new(format!("{group}.{rule}"))
}

/// `lan-10.0.0.0-24`, `lan-fd00__-64`: of one network and prefix only, as no address has a hyphen.
pub(super) fn subnet_id(network: &NetworkId, prefix: Prefix) -> String {
    let address = prefix.network().to_string().replace(':', "_");
    format!("{network}-{address}-{}", prefix.length())
}

/// The smallest that it is in, if any.
fn subnet_of(address: IpAddr, subnets: &[(String, Prefix)]) -> String {
    let having = subnets
        .iter()
        .filter(|(_, prefix)| prefix.contains(address));
    let smallest = having.max_by_key(|(_, prefix)| prefix.length());
    smallest.map(|(id, _)| id.clone()).unwrap_or_default()
}

/// Another kind of tunnel than ours stays, and so does what is no tunnel.
fn segment(before: Option<&Network>, vni: Option<u32>) -> Option<Segment> {
    let before = before.and_then(|before| before.segment.as_ref());
    let kept = before.filter(|segment| segment.vni() == vni);
    let tunnel = |number| Segment {
        kind: "geneve".to_owned(),
        physical_network: None,
        number: Some(number),
    };
    kept.cloned().or(vni.map(tunnel))
}

/// All addresses that ports can have, but for those of routers and DHCP servers.
fn pools(prefix: Prefix, taken: &BTreeSet<IpAddr>) -> Vec<(IpAddr, IpAddr)> {
    let family = prefix.family();
    let (first, last) = usable(prefix);
    let (mut first, last) = (number(first), number(last));
    let taken = taken.iter().filter(|address| prefix.contains(**address));
    let mut pools = Vec::new();
    for taken in taken.map(|address| number(*address)) {
        if taken > first && taken <= last {
            pools.push((first, taken - 1));
        }
        first = first.max(taken.saturating_add(1));
    }
    if first <= last {
        pools.push((first, last));
    }
    let address = |of| from_number(family, of);
    let pools = pools.into_iter();
    pools
        .map(|(first, last)| (address(first), address(last)))
        .collect()
}

/// Who a port is to DHCP and to routing; another owner stays.
fn owner(before: Option<&Port>, port: &model::Port) -> ArcStr {
    if let Some(before) = before
        && (before.is_dhcp_server(), before.is_router()) == (port.dhcp_server, port.router)
    {
        return before.device_owner.clone();
    }
    let owner = match (port.dhcp_server, port.router) {
        (true, _) => "network:dhcp",
        (false, true) => "network:router_interface",
        (false, false) => "",
    };
    owner.into()
}

/// A file doesn't say that a port is being moved; it ends that by saying that it is somewhere else.
fn binding(before: Option<&Port>, port: &model::Port, now: &Moment) -> Option<Binding> {
    let host = port.host.as_ref()?;
    let before = before.and_then(|before| before.binding.as_deref());
    let moving = before.and_then(|before| moved(before, host, now));
    let before = before.filter(|before| before.host == *host);
    let device = match &port.device {
        DeviceMatch::Name(name) => Some(Device::Name(name.clone())),
        DeviceMatch::Pattern(pattern) => Some(Device::Pattern(pattern.clone())),
        DeviceMatch::InterfaceId(id) => Some(Device::InterfaceId(id.clone())),
        DeviceMatch::Mac => before
            .and_then(|before| before.device.clone())
            .filter(|device| *device == Device::Mac),
    };
    Some(Binding {
        host: host.clone(),
        device,
        profile: before.map(|b| b.profile.clone()).unwrap_or_default(),
        vnic_type: before.map_or_else(|| USUAL_VNIC, |b| b.vnic_type.clone()),
        moving,
    })
}

/// A rule as people would have asked for it.
pub(super) fn asks(rule: &Rule) -> Asks {
    let (protocol, range_min, range_max) = layer4(rule.family, rule.l4);
    Asks {
        direction: rule.direction,
        family: rule.family,
        protocol,
        range_min,
        range_max,
        peer: match &rule.peer {
            Peer::Any => AskedPeer::Anyone,
            Peer::Prefix(prefix) => AskedPeer::Prefix {
                written: format!("{}/{}", prefix.network(), prefix.length()),
                prefix: *prefix,
            },
            Peer::Group(id) => AskedPeer::Group(id.clone()),
            Peer::AddressGroup(id) => AskedPeer::Addresses(id.clone()),
        },
    }
}

fn layer4(family: Family, l4: L4Match) -> (Option<String>, Option<u16>, Option<u16>) {
    match l4 {
        L4Match::Any => (None, None, None),
        L4Match::Ported { protocol, dst } => {
            let name = crate::protocols::name(protocol.number());
            let range = Some(dst).filter(|dst| *dst != L4PortRange::ALL);
            (
                Some(name),
                range.map(|r| r.first()),
                range.map(|r| r.last()),
            )
        }
        L4Match::Icmp { kind } => {
            let name = match family {
                Family::V4 => "icmp",
                Family::V6 => "ipv6-icmp",
            };
            let icmp_type = kind.map(|kind| u16::from(kind.icmp_type));
            let code = kind.and_then(|kind| kind.code).map(u16::from);
            (Some(name.to_owned()), icmp_type, code)
        }
        L4Match::Other(protocol) => {
            let name = crate::protocols::name(protocol.number());
            (Some(name), None, None)
        }
    }
}
