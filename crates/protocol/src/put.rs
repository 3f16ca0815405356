//! The model's objects as messages. Total.

use crate::messages as m;
use model::*;
use std::net::IpAddr;

pub(crate) fn objects(change: InventoryChange) -> m::Objects {
    let mut objects = m::Objects::default();
    for (id, host) in change.hosts {
        put(
            host,
            host_of,
            &mut objects.hosts,
            || id.as_str(),
            &mut objects.hosts_gone,
        );
    }
    for (id, network) in change.networks {
        let (here, gone) = (&mut objects.networks, &mut objects.networks_gone);
        put(network, network_of, here, || id.as_str(), gone);
    }
    for (id, port) in change.ports {
        put(
            port,
            port_of,
            &mut objects.ports,
            || id.as_str(),
            &mut objects.ports_gone,
        );
    }
    for (id, group) in change.groups {
        let (here, gone) = (&mut objects.groups, &mut objects.groups_gone);
        put(group, group_of, here, || id.as_str(), gone);
    }
    for (of, rule) in change.rules {
        let group = of.group.to_string();
        match rule {
            Some(rule) => objects.rules.push(m::RuleOf {
                group,
                rule: Some(rule_of(rule)),
            }),
            None => objects.rules_gone.push(m::RuleName {
                group,
                rule: of.rule.to_string(),
            }),
        }
    }
    for (id, group) in change.address_groups {
        let (here, gone) = (
            &mut objects.address_groups,
            &mut objects.address_groups_gone,
        );
        put(group, address_group_of, here, || id.as_str(), gone);
    }
    objects
}

fn put<'a, T, M>(
    object: Option<T>,
    message: impl FnOnce(T) -> M,
    here: &mut Vec<M>,
    id: impl FnOnce() -> &'a str,
    gone: &mut Vec<String>,
) {
    match object {
        Some(object) => here.push(message(object)),
        None => gone.push(id().to_owned()),
    }
}

pub(crate) fn revision(revision: Revision) -> m::Revision {
    m::Revision {
        epoch: revision.epoch,
        commit: revision.commit,
    }
}

pub(crate) fn host_of(host: Host) -> m::Host {
    m::Host {
        id: host.id.to_string(),
        tunnel_address: host.tunnel_address.map(address),
        peer_trust: match host.peer_trust {
            PeerTrust::Tag => m::PeerTrust::Tag,
            PeerTrust::Address => m::PeerTrust::Address,
        }
        .into(),
        settings: Some(settings(host.settings)),
    }
}

fn settings(settings: Settings) -> m::Settings {
    let Settings {
        elision,
        narrowing,
        timeouts,
        budgets,
        inspection,
        ethertypes,
    } = settings;
    m::Settings {
        elision: match elision {
            Elision::On => m::Elision::On,
            Elision::Strict => m::Elision::Strict,
            Elision::Off => m::Elision::Off,
        }
        .into(),
        narrowing: match narrowing {
            Narrowing::Cut => m::Narrowing::Cut,
            Narrowing::Keep => m::Narrowing::Keep,
        }
        .into(),
        inspection: match inspection {
            Inspection::Destination => m::Inspection::Destination,
            Inspection::Source => m::Inspection::Source,
            Inspection::Both => m::Inspection::Both,
        }
        .into(),
        timeouts: Some(self::timeouts(timeouts)),
        budgets: Some(self::budgets(budgets)),
        ethertypes: ethertypes.into_iter().map(u32::from).collect(),
    }
}

fn timeouts(timeouts: Timeouts) -> m::Timeouts {
    let Timeouts {
        tcp_opening_s,
        tcp_established_s,
        tcp_closing_s,
        tcp_reset_s,
        udp_s,
        udp_replied_s,
        icmp_s,
        other_s,
    } = timeouts;
    m::Timeouts {
        tcp_opening_s,
        tcp_established_s,
        tcp_closing_s,
        tcp_reset_s,
        udp_s,
        udp_replied_s,
        icmp_s,
        other_s,
    }
}

fn budgets(budgets: Budgets) -> m::Budgets {
    let Budgets {
        flows_per_port,
        half_open_per_port,
        flows_per_host,
        reserve_per_port,
        elided_errors_per_s,
    } = budgets;
    m::Budgets {
        flows_per_port,
        half_open_per_port,
        flows_per_host,
        reserve_per_port,
        elided_errors_per_s,
    }
}

pub(crate) fn network_of(network: Network) -> m::Network {
    m::Network {
        id: network.id.to_string(),
        scope: network.scope.to_string(),
        vni: network.vni,
        mtu: network.mtu.map(u32::from),
        subnets: network.subnets.into_iter().map(prefix).collect(),
        dhcp_servers: network.dhcp_servers.into_iter().map(address).collect(),
        routers: network.routers.into_iter().map(address).collect(),
        eui64_only: network.eui64_only,
    }
}

pub(crate) fn port_of(port: Port) -> m::Port {
    m::Port {
        id: port.id.to_string(),
        network: port.network.to_string(),
        host: port.host.map(|host| host.to_string()),
        device: Some(device(port.device)),
        mac: match port.mac {
            MacAddr::ZERO => Vec::new(),
            mac => mac.0.to_vec(),
        },
        fixed_addresses: port.fixed_addresses.iter().copied().map(address).collect(),
        address_pairs: port.address_pairs.iter().copied().map(pair).collect(),
        groups: port.groups.iter().map(GroupId::to_string).collect(),
        unguarded: !port.port_security,
        dhcp_server: port.dhcp_server,
        router: port.router,
        moving: port.moving.map(|moving| m::Moving {
            to: moving.to.to_string(),
            device: Some(device(moving.device)),
        }),
    }
}

fn device(device: DeviceMatch) -> m::Device {
    m::Device {
        by: Some(match device {
            DeviceMatch::Name(name) => m::device::By::Name(name),
            DeviceMatch::Mac => m::device::By::Mac(true),
            DeviceMatch::Pattern(pattern) => m::device::By::Pattern(pattern),
            DeviceMatch::InterfaceId(id) => m::device::By::InterfaceId(id),
        }),
    }
}

fn pair(pair: AddressPair) -> m::AddressPair {
    m::AddressPair {
        prefix: prefix(pair.prefix),
        mac: pair.mac.map(|mac| mac.0.to_vec()),
    }
}

pub(crate) fn group_of(group: SecurityGroup) -> m::Group {
    m::Group {
        id: group.id.to_string(),
        project: group.project.map(|project| project.to_string()),
        name: group.name,
        stateful: group.stateful,
        tag: group.tag.map(u32::from),
        rules: group.rules.into_values().map(rule_of).collect(),
    }
}

pub(crate) fn rule_of(rule: Rule) -> m::Rule {
    m::Rule {
        id: rule.id.to_string(),
        direction: match rule.direction {
            Direction::Ingress => m::Direction::Ingress,
            Direction::Egress => m::Direction::Egress,
        }
        .into(),
        family: match rule.family {
            Family::V4 => m::Family::V4,
            Family::V6 => m::Family::V6,
        }
        .into(),
        l4: Some(l4(rule.l4)),
        peer: Some(match rule.peer {
            Peer::Any => m::rule::Peer::Anybody(true),
            Peer::Prefix(of) => m::rule::Peer::Prefix(prefix(of)),
            Peer::Group(id) => m::rule::Peer::Group(id.to_string()),
            Peer::AddressGroup(id) => m::rule::Peer::AddressGroup(id.to_string()),
        }),
    }
}

fn l4(l4: L4Match) -> m::rule::L4 {
    match l4 {
        L4Match::Any => m::rule::L4::AnyProtocol(true),
        L4Match::Ported { protocol, dst } => m::rule::L4::Ported(m::Ported {
            protocol: protocol.number().into(),
            first: dst.first().into(),
            last: dst.last().into(),
        }),
        L4Match::Icmp { kind } => m::rule::L4::Icmp(m::Icmp {
            icmp_type: kind.map(|kind| kind.icmp_type.into()),
            code: kind.and_then(|kind| kind.code).map(u32::from),
        }),
        L4Match::Other(protocol) => m::rule::L4::Protocol(protocol.number().into()),
    }
}

pub(crate) fn address_group_of(group: AddressGroup) -> m::AddressGroup {
    m::AddressGroup {
        id: group.id.to_string(),
        prefixes: group.prefixes.into_iter().map(prefix).collect(),
    }
}

fn address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn prefix(prefix: Prefix) -> Vec<u8> {
    let mut bytes = address(prefix.network());
    if prefix.as_host().is_none() {
        bytes.push(prefix.length());
    }
    bytes
}
