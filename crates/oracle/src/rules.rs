//! What the rules of one port say: the stages identity and policy, `static(d, p)` of the contract.
//!
//! A look-up scans all rules of the port in the order of (group, rule): the first one that permits is
//! the one that is reported.

use model::{
    AddressGroupId, Capabilities, Direction, Family, FlowKey, GroupId, Inventory, L4Match,
    L4PortRange, Peer, Port, PortedProtocol, Prefix, RuleRef, ScopeId,
};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use wire::{L4, Packet};

/// The rules of all of a port's groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules(pub(crate) Vec<ResolvedRule>);

/// A rule with its remote looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResolvedRule {
    pub(crate) name: RuleRef,
    pub(crate) stateful: bool,
    pub(crate) direction: Direction,
    pub(crate) family: Family,
    pub(crate) l4: L4Match,
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Remote {
    Any,
    Prefix(Prefix),
    Group(GroupId, Arc<AddressSet>),
    AddressGroup(AddressGroupId, Arc<AddressSet>),
}

/// Single addresses apart, for speed alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AddressSet {
    pub(crate) hosts: HashSet<IpAddr>,
    pub(crate) prefixes: BTreeSet<Prefix>,
}

/// What static asks about a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) direction: Direction,
    pub(crate) remote: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) target: Target,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    DestinationPort(u16),
    Icmp { icmp_type: u8, code: u8 },
    Nothing,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Permission<'a> {
    /// The least of those that permit.
    pub(crate) rule: &'a RuleRef,
    /// Some rule of a stateful group permits it.
    pub(crate) stateful: bool,
}

impl Rules {
    pub(crate) fn permits(&self, question: &Question) -> Option<Permission<'_>> {
        let mut permitting = self.0.iter().filter(|rule| rule.permits(question));
        let first = permitting.next()?;
        Some(Permission {
            rule: &first.name,
            stateful: first.stateful || permitting.any(|rule| rule.stateful),
        })
    }
}

impl ResolvedRule {
    fn permits(&self, question: &Question) -> bool {
        self.direction == question.direction
            && self.family == Family::of(question.remote)
            && covers(self.l4, question)
            && self.remote.contains(question.remote)
    }
}

fn covers(l4: L4Match, question: &Question) -> bool {
    match l4 {
        L4Match::Any => true,
        L4Match::Ported { protocol, dst } => {
            protocol.number() == question.protocol
                && matches!(question.target, Target::DestinationPort(port) if dst.contains(port))
        }
        L4Match::Icmp { kind } => match (question.target, kind) {
            (Target::Icmp { .. }, None) => true,
            (Target::Icmp { icmp_type, code }, Some(kind)) => {
                kind.icmp_type == icmp_type && kind.code.is_none_or(|c| c == code)
            }
            (Target::DestinationPort(_) | Target::Nothing, _) => false,
        },
        L4Match::Other(protocol) => protocol.number() == question.protocol,
    }
}

impl Remote {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match self {
            Remote::Any => true,
            Remote::Prefix(prefix) => prefix.contains(address),
            Remote::Group(_, set) | Remote::AddressGroup(_, set) => {
                set.hosts.contains(&address) || set.prefixes.iter().any(|p| p.contains(address))
            }
        }
    }
}

impl Question {
    pub(crate) fn about(packet: &Packet<'_>, direction: Direction) -> Self {
        Self {
            direction,
            remote: match direction {
                Direction::Ingress => packet.src,
                Direction::Egress => packet.dst,
            },
            protocol: packet.protocol,
            target: match packet.l4 {
                L4::Tcp { dst, .. } | L4::Ported { dst, .. } => Target::DestinationPort(dst),
                L4::Icmp {
                    icmp_type, code, ..
                } => Target::Icmp { icmp_type, code },
                L4::Opaque | L4::Absent => Target::Nothing,
            },
        }
    }

    /// About the packets of a flow that go in this direction. All are alike to static: of an ICMP
    /// flow there is one request and one reply.
    pub(crate) fn about_flow(key: &FlowKey, direction: Direction) -> Self {
        let target = match key.icmp {
            Some(request) => {
                let asks = request.by_local == (direction == Direction::Egress);
                let icmp_type = match asks {
                    true => request.icmp_type,
                    false => reply_type(request.icmp_type),
                };
                Target::Icmp { icmp_type, code: 0 }
            }
            None if PortedProtocol::from_number(key.protocol).is_some() => {
                Target::DestinationPort(match direction {
                    Direction::Ingress => key.local_l4,
                    Direction::Egress => key.remote_l4,
                })
            }
            None => Target::Nothing,
        };
        Self {
            direction,
            remote: key.remote,
            protocol: key.protocol,
            target,
        }
    }
}

/// Echo 8 to 0, timestamp 13 to 14; echo in IPv6 128 to 129.
fn reply_type(request_type: u8) -> u8 {
    match request_type {
        8 => 0,
        other => other + 1,
    }
}

/// Looks up what rules refer to in one inventory; each set is made once.
pub(crate) struct Identities<'a> {
    inventory: &'a Inventory,
    capabilities: Capabilities,
    members: HashMap<(&'a ScopeId, &'a GroupId), Arc<AddressSet>>,
    address_groups: HashMap<&'a AddressGroupId, Arc<AddressSet>>,
}

impl<'a> Identities<'a> {
    pub(crate) fn new(inventory: &'a Inventory, capabilities: Capabilities) -> Self {
        Self {
            inventory,
            capabilities,
            members: HashMap::new(),
            address_groups: HashMap::new(),
        }
    }

    pub(crate) fn rules(&mut self, port: &'a Port, scope: &'a ScopeId) -> Rules {
        let inventory = self.inventory;
        let groups = port.groups.iter().filter_map(|id| inventory.groups.get(id));
        let mut rules = Vec::new();
        for group in groups {
            for rule in group.rules.values() {
                if is_broken(rule.family, rule.l4, self.capabilities) {
                    continue;
                }
                rules.push(ResolvedRule {
                    name: RuleRef {
                        group: group.id.clone(),
                        rule: rule.id.clone(),
                    },
                    stateful: group.stateful,
                    direction: rule.direction,
                    family: rule.family,
                    l4: rule.l4,
                    remote: self.remote(&rule.peer, rule.family, scope),
                });
            }
        }
        Rules(rules)
    }

    fn remote(&mut self, peer: &'a Peer, family: Family, scope: &'a ScopeId) -> Remote {
        let inventory = self.inventory;
        match peer {
            Peer::Any => Remote::Any,
            Peer::Prefix(prefix) if *prefix == Prefix::whole(family) => Remote::Any,
            Peer::Prefix(prefix) => Remote::Prefix(*prefix),
            Peer::Group(id) => {
                let set = self
                    .members
                    .entry((scope, id))
                    .or_insert_with(|| Arc::new(members(inventory, scope, id)));
                Remote::Group(id.clone(), Arc::clone(set))
            }
            Peer::AddressGroup(id) => {
                let prefixes = inventory.address_groups.get(id).map(|g| &g.prefixes);
                let set = self
                    .address_groups
                    .entry(id)
                    .or_insert_with(|| Arc::new(prefixes.into_iter().flatten().copied().collect()));
                Remote::AddressGroup(id.clone(), Arc::clone(set))
            }
        }
    }
}

/// Such a rule matches nobody: a protocol that is an extension header in IPv6, or transport ports
/// that the plane can't match.
fn is_broken(family: Family, l4: L4Match, capabilities: Capabilities) -> bool {
    match l4 {
        L4Match::Any | L4Match::Icmp { .. } => false,
        L4Match::Other(protocol) => {
            family == Family::V6 && matches!(protocol.number(), 0 | 43 | 44 | 51 | 60)
        }
        L4Match::Ported { protocol, dst } => {
            let can_match_ports = match protocol {
                PortedProtocol::Tcp | PortedProtocol::Udp | PortedProtocol::Sctp => true,
                PortedProtocol::UdpLite => capabilities.udplite_ports,
                PortedProtocol::Dccp => capabilities.dccp_ports,
            };
            !can_match_ports && dst != L4PortRange::ALL
        }
    }
}

/// The addresses of the group's ports in the scope, on whatever host.
fn members(inventory: &Inventory, scope: &ScopeId, group: &GroupId) -> AddressSet {
    if !inventory.groups.contains_key(group) {
        return AddressSet::default();
    }
    let in_scope = |port: &&Port| {
        let network = inventory.networks.get(&port.network);
        network.is_some_and(|n| n.scope == *scope)
    };
    inventory
        .ports
        .values()
        .filter(|port| port.port_security && port.groups.contains(group))
        .filter(in_scope)
        .flat_map(Port::member_prefixes)
        .filter(|prefix| !is_link_local(prefix.network()))
        .collect()
}

impl FromIterator<Prefix> for AddressSet {
    fn from_iter<I: IntoIterator<Item = Prefix>>(prefixes: I) -> Self {
        let mut set = Self::default();
        for prefix in prefixes {
            match prefix.as_host() {
                Some(address) => set.hosts.insert(address),
                None => set.prefixes.insert(prefix),
            };
        }
        set
    }
}

/// fe80::/10. IPv4's 169.254.0.0/16 is ordinary.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}
