//! A port's rules, and what they say of a packet and of a flow.
//!
//! Place on the line: conntrack -> identity -> **policy** -> verdict. Identity is here, too: the
//! remote's address is looked up in the member sets that the rules share with the view.
//! Knows nothing of: flows that exist, time.

use model::{
    Direction, Elision, Family, FlowKey, IcmpRequest, L4Match, PortId, Prefix, RuleRef, ScopeId,
};
use policy::{HostView, PeerView, RuleView, SharedSet};
use std::net::IpAddr;
use std::sync::Arc;
use wire::{L4, PROTOCOL_ICMP, PROTOCOL_ICMPV6, Packet};

/// In the order in which rules are reported.
#[derive(Default)]
pub(super) struct Rules {
    rules: Vec<PortRule>,
    mode: Elision,
}

struct PortRule {
    name: RuleRef,
    stateful: bool,
    direction: Direction,
    family: Family,
    l4: L4Match,
    remotes: Remotes,
}

enum Remotes {
    Any,
    Prefix(Prefix),
    Set(Arc<SharedSet<Prefix>>),
}

/// What a rule looks at in a packet.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) direction: Direction,
    remote: IpAddr,
    protocol: u8,
    l4: AskedL4,
}

#[derive(Clone, Copy)]
enum AskedL4 {
    Ported { dst: u16 },
    Icmp { icmp_type: u8, code: u8 },
    Other,
}

impl Asked {
    pub(super) fn of_packet(packet: &Packet<'_>, direction: Direction) -> Self {
        let (_, remote) = ends(packet, direction);
        Self {
            direction,
            remote,
            protocol: packet.protocol,
            l4: match packet.l4 {
                L4::Tcp { dst, .. } | L4::Ported { dst, .. } => AskedL4::Ported { dst },
                L4::Icmp {
                    icmp_type, code, ..
                } => AskedL4::Icmp { icmp_type, code },
                L4::Opaque | L4::Absent => AskedL4::Other,
            },
        }
    }

    /// Any packet of a flow in this direction, as far as rules look at it.
    pub(super) fn of_flow(flow: &FlowKey, direction: Direction) -> Self {
        let ported = model::PortedProtocol::from_number(flow.protocol).is_some();
        Self {
            direction,
            remote: flow.remote,
            protocol: flow.protocol,
            l4: match flow.icmp {
                Some(request) => AskedL4::Icmp {
                    icmp_type: match request.by_local == (direction == Direction::Egress) {
                        true => request.icmp_type,
                        false => reply_type(request.icmp_type),
                    },
                    code: 0,
                },
                None if ported => AskedL4::Ported {
                    dst: match direction {
                        Direction::Egress => flow.remote_l4,
                        Direction::Ingress => flow.local_l4,
                    },
                },
                None => AskedL4::Other,
            },
        }
    }
}

/// The local end's address and the remote's.
pub(super) fn ends(packet: &Packet<'_>, direction: Direction) -> (IpAddr, IpAddr) {
    match direction {
        Direction::Egress => (packet.src, packet.dst),
        Direction::Ingress => (packet.dst, packet.src),
    }
}

/// The flow that a packet is of; `None` for ICMP that is no request or reply, and later fragments.
pub(super) fn flow_of(packet: &Packet<'_>, direction: Direction) -> Option<FlowKey> {
    let (local, remote) = ends(packet, direction);
    let (src_l4, dst_l4, icmp) = match packet.l4 {
        L4::Tcp { src, dst, .. } | L4::Ported { src, dst } => (src, dst, None),
        L4::Icmp {
            icmp_type,
            code: 0,
            identifier,
        } => {
            let sent = direction == Direction::Egress;
            let (icmp_type, by_local) = match (Family::of(local), icmp_type) {
                (Family::V4, 8 | 13) | (Family::V6, 128) => (icmp_type, sent),
                (Family::V4, 0) => (8, !sent),
                (Family::V4, 14) => (13, !sent),
                (Family::V6, 129) => (128, !sent),
                _ => return None,
            };
            let request = IcmpRequest {
                icmp_type,
                by_local,
            };
            (identifier, identifier, Some(request))
        }
        L4::Icmp { .. } | L4::Absent => return None,
        L4::Opaque => (0, 0, None),
    };
    let (local_l4, remote_l4) = match direction {
        Direction::Egress => (src_l4, dst_l4),
        Direction::Ingress => (dst_l4, src_l4),
    };
    Some(FlowKey {
        protocol: packet.protocol,
        local,
        remote,
        local_l4,
        remote_l4,
        icmp,
    })
}

fn reply_type(request: u8) -> u8 {
    match request {
        8 => 0,
        13 => 14,
        128 => 129,
        other => unreachable!("{other} starts no flow"),
    }
}

impl Rules {
    pub(super) fn new(view: &HostView, port: &PortId) -> Self {
        let mut rules = Vec::new();
        if let Some(port) = view.ports.get(port)
            && let Some(network) = view.networks.get(&port.network)
        {
            for id in &port.groups {
                let Some(group) = view.groups.get(id) else {
                    continue;
                };
                for (rule_id, rule) in &group.rules {
                    // A rule for an empty set matches nobody, so it needs no place here.
                    let Some(remotes) = remotes(view, &network.scope, rule) else {
                        continue;
                    };
                    rules.push(PortRule {
                        name: RuleRef {
                            group: id.clone(),
                            rule: rule_id.clone(),
                        },
                        stateful: group.stateful,
                        direction: rule.direction,
                        family: rule.family,
                        l4: rule.l4,
                        remotes,
                    });
                }
            }
        }
        Self {
            rules,
            mode: view.settings.elision,
        }
    }

    /// The first rule that permits it.
    pub(super) fn permits(&self, asked: &Asked) -> Option<&RuleRef> {
        self.permitting(asked).map(|rule| &rule.name).next()
    }

    /// Whether a rule of a stateful group permits it.
    pub(super) fn permits_with_state(&self, asked: &Asked) -> bool {
        self.permitting(asked).any(|rule| rule.stateful)
    }

    /// Whether the flow is kept no state for.
    pub(super) fn elides(&self, flow: &FlowKey) -> bool {
        let both_ways = || {
            Direction::BOTH
                .iter()
                .all(|d| self.permits(&Asked::of_flow(flow, *d)).is_some())
        };
        match self.mode {
            Elision::On => both_ways(),
            Elision::Strict => both_ways() && self.permits_errors(flow.remote),
            Elision::Off => false,
        }
    }

    /// Whether errors about an elided flow pass by being about one.
    pub(super) fn passes_errors_about(&self, flow: &FlowKey) -> bool {
        self.mode == Elision::On
            && self.elides(flow)
            && Direction::BOTH
                .iter()
                .any(|d| self.permits_with_state(&Asked::of_flow(flow, *d)))
    }

    fn permitting(&self, asked: &Asked) -> impl Iterator<Item = &PortRule> + use<'_> {
        let asked = *asked;
        let family = Family::of(asked.remote);
        self.rules.iter().filter(move |rule| {
            rule.direction == asked.direction
                && rule.family == family
                && covers(rule.l4, family, &asked)
                && rule.remotes.contain(asked.remote)
        })
    }

    fn permits_errors(&self, remote: IpAddr) -> bool {
        let family = Family::of(remote);
        let types: &[u8] = match family {
            Family::V4 => &[3, 11, 12],
            Family::V6 => &[1, 2, 3, 4],
        };
        let covers_type = |rule: &PortRule, wanted: u8| {
            rule.family == family
                && match rule.l4 {
                    L4Match::Any | L4Match::Icmp { kind: None } => true,
                    L4Match::Icmp { kind: Some(kind) } => {
                        kind.icmp_type == wanted && kind.code.is_none()
                    }
                    L4Match::Ported { .. } | L4Match::Other(_) => false,
                }
        };
        types.iter().all(|wanted| {
            let mut rules = self.rules.iter().filter(|r| covers_type(r, *wanted));
            let in_from_any = |rule: &PortRule| {
                rule.direction == Direction::Ingress && matches!(rule.remotes, Remotes::Any)
            };
            let out_to_remote = |rule: &PortRule| {
                rule.direction == Direction::Egress && rule.remotes.contain(remote)
            };
            rules.clone().any(in_from_any) && rules.any(out_to_remote)
        })
    }
}

fn remotes(view: &HostView, scope: &ScopeId, rule: &RuleView) -> Option<Remotes> {
    Some(match &rule.peer {
        PeerView::Any => Remotes::Any,
        PeerView::Prefix(prefix) => Remotes::Prefix(*prefix),
        PeerView::Group(group) => {
            let key = (scope.clone(), group.clone());
            Remotes::Set(Arc::clone(view.members.get(&key)?))
        }
        PeerView::AddressGroup(group) => Remotes::Set(Arc::clone(view.address_groups.get(group)?)),
    })
}

impl Remotes {
    fn contain(&self, address: IpAddr) -> bool {
        match self {
            Remotes::Any => true,
            Remotes::Prefix(prefix) => prefix.contains(address),
            Remotes::Set(set) => policy::contains(set, address),
        }
    }
}

fn covers(l4: L4Match, family: Family, asked: &Asked) -> bool {
    let icmp = match family {
        Family::V4 => PROTOCOL_ICMP,
        Family::V6 => PROTOCOL_ICMPV6,
    };
    match l4 {
        L4Match::Any => true,
        L4Match::Ported { protocol, dst } => match asked.l4 {
            AskedL4::Ported { dst: seen } => {
                protocol.number() == asked.protocol && dst.contains(seen)
            }
            AskedL4::Icmp { .. } | AskedL4::Other => false,
        },
        L4Match::Icmp { kind } => match asked.l4 {
            AskedL4::Icmp { icmp_type, code } => {
                asked.protocol == icmp
                    && kind.is_none_or(|k| {
                        k.icmp_type == icmp_type && k.code.is_none_or(|c| c == code)
                    })
            }
            AskedL4::Ported { .. } | AskedL4::Other => false,
        },
        L4Match::Other(protocol) => protocol.number() == asked.protocol,
    }
}
