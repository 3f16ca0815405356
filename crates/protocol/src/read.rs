//! Messages as the model's objects. What can't be read is refused, object by object.
//!
//! Refused is as gone: a port that isn't known passes nothing and is a member of no group, a rule or a group that
//! isn't there permits nothing, an address group that isn't there contains nobody, a host that isn't known has the
//! default settings. So what a newer server says, and we don't understand, closes and never opens.

use crate::messages as m;
use model::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// An object that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub kind: Kind,
    /// Of rules: `group/rule`.
    pub id: String,
    pub why: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Host,
    Network,
    Port,
    Group,
    Rule,
    AddressGroup,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Host => "host",
            Kind::Network => "network",
            Kind::Port => "port",
            Kind::Group => "group",
            Kind::Rule => "rule",
            Kind::AddressGroup => "address group",
        };
        let (id, why) = (&self.id, self.why);
        write!(f, "{kind} {id} can't be read ({why}): it is left out")
    }
}

type Read<T> = Result<T, &'static str>;

/// Without a revision.
pub(crate) fn change(objects: m::Objects) -> (InventoryChange, Vec<Refused>) {
    let mut change = InventoryChange::default();
    let mut refused = Vec::new();
    let all = &mut refused;
    let id = |host: &m::Host| host.id.clone();
    fill(&mut change.hosts, objects.hosts, id, host, Kind::Host, all);
    gone(&mut change.hosts, objects.hosts_gone);
    let id = |network: &m::Network| network.id.clone();
    fill(
        &mut change.networks,
        objects.networks,
        id,
        network,
        Kind::Network,
        all,
    );
    gone(&mut change.networks, objects.networks_gone);
    let id = |port: &m::Port| port.id.clone();
    fill(&mut change.ports, objects.ports, id, port, Kind::Port, all);
    gone(&mut change.ports, objects.ports_gone);
    for group in objects.groups {
        read_group(&mut change, group, all);
    }
    gone(&mut change.groups, objects.groups_gone);
    for of in objects.rules {
        let group = GroupId::from(of.group.as_str());
        let (rule, read) = match of.rule {
            Some(rule) => (RuleId::from(rule.id.as_str()), self::rule(rule)),
            None => (RuleId::from(""), Err("there is nothing in it")),
        };
        let of = RuleRef { group, rule };
        let read = keep(
            read,
            Kind::Rule,
            || format!("{}/{}", of.group, of.rule),
            all,
        );
        change.rules.insert(of, read);
    }
    for of in objects.rules_gone {
        let of = RuleRef {
            group: GroupId::from(of.group.as_str()),
            rule: RuleId::from(of.rule.as_str()),
        };
        change.rules.insert(of, None);
    }
    let (groups, id) = (objects.address_groups, |group: &m::AddressGroup| {
        group.id.clone()
    });
    fill(
        &mut change.address_groups,
        groups,
        id,
        address_group,
        Kind::AddressGroup,
        all,
    );
    gone(&mut change.address_groups, objects.address_groups_gone);
    (change, refused)
}

fn fill<I: for<'a> From<&'a str> + Ord, T, M>(
    objects: &mut BTreeMap<I, Option<T>>,
    messages: Vec<M>,
    id: impl Fn(&M) -> String,
    read: impl Fn(M) -> Read<T>,
    kind: Kind,
    refused: &mut Vec<Refused>,
) {
    for message in messages {
        let id = id(&message);
        let object = keep(read(message), kind, || id.clone(), refused);
        objects.insert(I::from(&id), object);
    }
}

fn gone<I: for<'a> From<&'a str> + Ord, T>(
    objects: &mut BTreeMap<I, Option<T>>,
    gone: Vec<String>,
) {
    objects.extend(gone.iter().map(|id| (I::from(id), None)));
}

fn keep<T>(
    read: Read<T>,
    kind: Kind,
    id: impl FnOnce() -> String,
    refused: &mut Vec<Refused>,
) -> Option<T> {
    match read {
        Ok(object) => Some(object),
        Err(why) => {
            let id = id();
            refused.push(Refused { kind, id, why });
            None
        }
    }
}

/// A rule that can't be read takes the older one of its name along.
fn read_group(change: &mut InventoryChange, group: m::Group, refused: &mut Vec<Refused>) {
    let id = GroupId::from(group.id.as_str());
    let tag = group.tag.map(u16::try_from).transpose();
    let tag = tag.map_err(|_| "its tag is no number of 16 bits");
    let Some(tag) = keep(tag, Kind::Group, || id.to_string(), refused) else {
        change.groups.insert(id, None);
        return;
    };
    let mut rules = BTreeMap::new();
    for message in group.rules {
        let rule = RuleId::from(message.id.as_str());
        let name = || format!("{id}/{rule}");
        match keep(self::rule(message), Kind::Rule, name, refused) {
            Some(read) => {
                rules.insert(rule, read);
            }
            None => {
                let group = id.clone();
                change.rules.insert(RuleRef { group, rule }, None);
            }
        }
    }
    let group = SecurityGroup {
        id: id.clone(),
        project: group.project.as_deref().map(ProjectId::from),
        name: group.name,
        stateful: group.stateful,
        tag,
        rules,
    };
    change.groups.insert(id, Some(group));
}

pub(crate) fn revision(revision: Option<m::Revision>) -> Option<Revision> {
    revision.map(|revision| Revision {
        epoch: revision.epoch,
        commit: revision.commit,
    })
}

fn host(host: m::Host) -> Read<Host> {
    let peer_trust = match host.peer_trust() {
        m::PeerTrust::Tag => PeerTrust::Tag,
        m::PeerTrust::Address => PeerTrust::Address,
        m::PeerTrust::Unspecified => return Err("its trust of peers is unknown"),
    };
    Ok(Host {
        id: HostId::from(host.id.as_str()),
        tunnel_address: host.tunnel_address.as_deref().map(address).transpose()?,
        peer_trust,
        settings: settings(host.settings.ok_or("it has no settings")?)?,
    })
}

fn settings(settings: m::Settings) -> Read<Settings> {
    let ethertypes = settings
        .ethertypes
        .iter()
        .map(|number| u16::try_from(*number));
    let ethertypes: Result<BTreeSet<u16>, _> = ethertypes.collect();
    Ok(Settings {
        elision: match settings.elision() {
            m::Elision::On => Elision::On,
            m::Elision::Strict => Elision::Strict,
            m::Elision::Off => Elision::Off,
            m::Elision::Unspecified => return Err("its mode of elision is unknown"),
        },
        narrowing: match settings.narrowing() {
            m::Narrowing::Cut => Narrowing::Cut,
            m::Narrowing::Keep => Narrowing::Keep,
            m::Narrowing::Unspecified => return Err("its mode of narrowing is unknown"),
        },
        inspection: match settings.inspection() {
            m::Inspection::Destination => Inspection::Destination,
            m::Inspection::Source => Inspection::Source,
            m::Inspection::Both => Inspection::Both,
            m::Inspection::Unspecified => return Err("its place of inspection is unknown"),
        },
        timeouts: timeouts(settings.timeouts.ok_or("it has no timeouts")?),
        budgets: budgets(settings.budgets.ok_or("it has no budgets")?),
        ethertypes: ethertypes.map_err(|_| "an ethertype is no number of 16 bits")?,
    })
}

fn timeouts(timeouts: m::Timeouts) -> Timeouts {
    let m::Timeouts {
        tcp_opening_s,
        tcp_established_s,
        tcp_closing_s,
        tcp_reset_s,
        udp_s,
        udp_replied_s,
        icmp_s,
        other_s,
    } = timeouts;
    Timeouts {
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

fn budgets(budgets: m::Budgets) -> Budgets {
    let m::Budgets {
        flows_per_port,
        half_open_per_port,
        flows_per_host,
        reserve_per_port,
        elided_errors_per_s,
    } = budgets;
    Budgets {
        flows_per_port,
        half_open_per_port,
        flows_per_host,
        reserve_per_port,
        elided_errors_per_s,
    }
}

fn network(network: m::Network) -> Read<Network> {
    let mtu = network.mtu.map(u16::try_from).transpose();
    Ok(Network {
        id: NetworkId::from(network.id.as_str()),
        scope: ScopeId::from(network.scope.as_str()),
        vni: network.vni,
        mtu: mtu.map_err(|_| "its MTU is no number of 16 bits")?,
        subnets: set(&network.subnets, prefix)?,
        dhcp_servers: set(&network.dhcp_servers, address)?,
        routers: set(&network.routers, address)?,
        eui64_only: network.eui64_only,
    })
}

fn port(port: m::Port) -> Read<Port> {
    Ok(Port {
        id: PortId::from(port.id.as_str()),
        network: NetworkId::from(port.network.as_str()),
        host: port.host.as_deref().map(HostId::from),
        device: device(port.device)?,
        moving: port.moving.map(moving).transpose()?,
        mac: match port.mac.as_slice() {
            [] => MacAddr::ZERO,
            bytes => mac(bytes)?,
        },
        fixed_addresses: set(&port.fixed_addresses, address)?.into(),
        address_pairs: port.address_pairs.iter().map(pair).collect::<Read<_>>()?,
        groups: port
            .groups
            .iter()
            .map(|id| GroupId::from(id.as_str()))
            .collect(),
        port_security: !port.unguarded,
        dhcp_server: port.dhcp_server,
        router: port.router,
    })
}

fn moving(moving: m::Moving) -> Read<Box<Moving>> {
    Ok(Box::new(Moving {
        to: HostId::from(moving.to.as_str()),
        device: device(moving.device)?,
    }))
}

fn device(device: Option<m::Device>) -> Read<DeviceMatch> {
    Ok(match device.and_then(|device| device.by) {
        Some(m::device::By::Name(name)) => DeviceMatch::Name(name),
        Some(m::device::By::Mac(_)) => DeviceMatch::Mac,
        Some(m::device::By::Pattern(pattern)) => DeviceMatch::Pattern(pattern),
        Some(m::device::By::InterfaceId(id)) => DeviceMatch::InterfaceId(id),
        None => return Err("how its device is found is unknown"),
    })
}

fn pair(pair: &m::AddressPair) -> Read<AddressPair> {
    Ok(AddressPair {
        prefix: prefix(&pair.prefix)?,
        mac: pair.mac.as_deref().map(mac).transpose()?,
    })
}

fn rule(rule: m::Rule) -> Read<Rule> {
    Ok(Rule {
        id: RuleId::from(rule.id.as_str()),
        direction: match rule.direction() {
            m::Direction::Ingress => Direction::Ingress,
            m::Direction::Egress => Direction::Egress,
            m::Direction::Unspecified => return Err("its direction is unknown"),
        },
        family: match rule.family() {
            m::Family::V4 => Family::V4,
            m::Family::V6 => Family::V6,
            m::Family::Unspecified => return Err("its family is unknown"),
        },
        l4: l4(rule.l4.ok_or("its protocol is unknown")?)?,
        peer: match rule.peer.ok_or("its remote is unknown")? {
            m::rule::Peer::Anybody(_) => Peer::Any,
            m::rule::Peer::Prefix(bytes) => Peer::Prefix(prefix(&bytes)?),
            m::rule::Peer::Group(id) => Peer::Group(GroupId::from(id.as_str())),
            m::rule::Peer::AddressGroup(id) => {
                Peer::AddressGroup(AddressGroupId::from(id.as_str()))
            }
        },
    })
}

fn l4(l4: m::rule::L4) -> Read<L4Match> {
    let byte = |number: u32, why| u8::try_from(number).map_err(|_| why);
    Ok(match l4 {
        m::rule::L4::AnyProtocol(_) => L4Match::Any,
        m::rule::L4::Ported(ported) => {
            let why = "it is no protocol with ports";
            let protocol = PortedProtocol::from_number(byte(ported.protocol, why)?).ok_or(why)?;
            let why = "its ports are no range";
            let end = |number: u32| u16::try_from(number).map_err(|_| why);
            let dst = L4PortRange::new(end(ported.first)?, end(ported.last)?).ok_or(why)?;
            L4Match::Ported { protocol, dst }
        }
        m::rule::L4::Icmp(icmp) => {
            let why = "its ICMP type or code is no number of 8 bits";
            let kind = match (icmp.icmp_type, icmp.code) {
                (None, None) => None,
                (None, Some(_)) => return Err("it has an ICMP code and no type"),
                (Some(icmp_type), code) => Some(IcmpKind {
                    icmp_type: byte(icmp_type, why)?,
                    code: code.map(|code| byte(code, why)).transpose()?,
                }),
            };
            L4Match::Icmp { kind }
        }
        m::rule::L4::Protocol(number) => {
            let why = "its protocol is no number of one without ports";
            L4Match::Other(PortlessProtocol::new(byte(number, why)?).ok_or(why)?)
        }
    })
}

fn address_group(group: m::AddressGroup) -> Read<AddressGroup> {
    Ok(AddressGroup {
        id: AddressGroupId::from(group.id.as_str()),
        prefixes: set(&group.prefixes, prefix)?,
    })
}

fn set<T: Ord>(items: &[Vec<u8>], read: impl Fn(&[u8]) -> Read<T>) -> Read<BTreeSet<T>> {
    items.iter().map(|bytes| read(bytes)).collect()
}

fn mac(bytes: &[u8]) -> Read<MacAddr> {
    let bytes = bytes.try_into().map_err(|_| "a MAC hasn't 6 bytes")?;
    Ok(MacAddr(bytes))
}

fn address(bytes: &[u8]) -> Read<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(v4));
    }
    let v6 = <[u8; 16]>::try_from(bytes);
    v6.map(IpAddr::from)
        .map_err(|_| "an address has neither 4 bytes nor 16")
}

fn prefix(bytes: &[u8]) -> Read<Prefix> {
    if let 4 | 16 = bytes.len() {
        return Ok(Prefix::host(address(bytes)?));
    }
    let Some((length, network)) = bytes.split_last() else {
        return Err("a prefix is empty");
    };
    Prefix::new(address(network)?, *length).map_err(|_| "a prefix is none")
}
