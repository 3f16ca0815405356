//! What a list of groups keeps no state for, in a form that flows can ask: by this side's or the other's L4 port.
//!
//! Of all elidable flows these: everything, where the rules permit everything both ways; and services that
//! anybody may ask for, of ports that may send everything, where ICMP errors come in by rule. Tracking the rest
//! is allowed. Mode `strict`, as OpenFlow can't look into ICMP errors.
//! Source: docs/semantics.md "Elision".

use crate::cookie::Cookie;
use crate::draft::{Draft, ETH_IP};
use crate::flow_set::FlowSet;
use crate::registers::{Flag, PROFILE};
use crate::tables::Table;
use model::{Direction, Elision, Family, GroupId, L4Match, L4PortRange, PortedProtocol};
use openflow::{Action, Field, Flow};
use policy::{HostView, PeerView, RuleView};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    pub(crate) family: Family,
    /// `None`: every flow.
    pub(crate) service: Option<(PortedProtocol, u16)>,
}

/// More services than this of one list are tracked: each is a flow of OpenFlow for both gates.
const MOST: usize = 16;

pub(crate) fn classes(view: &HostView, groups: &[GroupId]) -> Vec<Class> {
    let elides = match view.settings.elision {
        Elision::On | Elision::Strict => true,
        Elision::Off => false,
    };
    let families = Family::BOTH.into_iter().filter(|_| elides);
    families
        .flat_map(|family| of_family(view, groups, family))
        .collect()
}

fn of_family(view: &HostView, groups: &[GroupId], family: Family) -> Vec<Class> {
    let rules = |direction| {
        let groups = groups.iter().filter_map(|id| view.groups.get(id));
        let rules = groups.flat_map(|group| group.rules.values());
        rules.filter(move |r| {
            r.family == family && r.direction == direction && r.peer == PeerView::Any
        })
    };
    let all = |direction| rules(direction).any(|rule| rule.l4 == L4Match::Any);
    if !all(Direction::Egress) {
        return Vec::new();
    }
    if all(Direction::Ingress) {
        return vec![Class {
            family,
            service: None,
        }];
    }
    let errors: &[u8] = match family {
        Family::V4 => &[3, 11, 12],
        Family::V6 => &[1, 2, 3, 4],
    };
    let covered = |icmp_type| rules(Direction::Ingress).any(|rule| covers_error(rule, icmp_type));
    if !errors.iter().all(|icmp_type| covered(*icmp_type)) {
        return Vec::new();
    }
    let services = rules(Direction::Ingress).filter_map(service);
    let classes: Vec<Class> = services
        .map(|service| Class {
            family,
            service: Some(service),
        })
        .collect();
    if classes.len() > MOST {
        Vec::new()
    } else {
        classes
    }
}

fn covers_error(rule: &RuleView, icmp_type: u8) -> bool {
    match rule.l4 {
        L4Match::Any | L4Match::Icmp { kind: None } => true,
        L4Match::Icmp { kind: Some(kind) } => kind.icmp_type == icmp_type && kind.code.is_none(),
        L4Match::Ported { .. } | L4Match::Other(_) => false,
    }
}

fn service(rule: &RuleView) -> Option<(PortedProtocol, u16)> {
    match rule.l4 {
        L4Match::Ported { protocol, dst } => match protocol {
            PortedProtocol::Tcp | PortedProtocol::Udp | PortedProtocol::Sctp => {
                single(dst).map(|l4_port| (protocol, l4_port))
            }
            PortedProtocol::UdpLite | PortedProtocol::Dccp => None,
        },
        L4Match::Any | L4Match::Icmp { .. } | L4Match::Other(_) => None,
    }
}

fn single(range: L4PortRange) -> Option<u16> {
    (range.first() == range.last()).then_some(range.first())
}

/// What the flows that a bridge holds keep no state for, by port.
pub(crate) fn in_force(found: &FlowSet) -> BTreeMap<u16, Vec<Class>> {
    let mut by_profile: BTreeMap<u128, Vec<Class>> = BTreeMap::new();
    for flow in found.table(Table::Elide.number()) {
        if let Some((profile, class)) = Class::of(flow) {
            by_profile.entry(profile).or_default().push(class);
        }
    }
    let sends = found.table(Table::Classify.number()).iter();
    let ports = sends.filter_map(|flow| {
        let Cookie::Port(number) = Cookie::from_number(flow.cookie)? else {
            return None;
        };
        let profile = flow.actions.iter().find_map(|action| match action {
            Action::Set { to, value, .. } if *to == PROFILE => value.u128(),
            _other => None,
        });
        Some((number, by_profile.get(&profile?)?.clone()))
    });
    ports.collect()
}

/// Whether some TCP flow of the one is of none of the others.
pub(crate) fn stops(before: &[Class], after: &[Class]) -> bool {
    let is_tcp = |class: &&Class| match class.service {
        None | Some((PortedProtocol::Tcp, _)) => true,
        Some(_) => false,
    };
    let all_of = |family| Class {
        family,
        service: None,
    };
    let mut lost = before.iter().filter(is_tcp);
    lost.any(|class| !after.contains(class) && !after.contains(&all_of(class.family)))
}

impl Class {
    /// The profile and the class that such a flow was made for.
    fn of(flow: &Flow) -> Option<(u128, Self)> {
        let asked = |field| flow.matching.get(field)?.value.u128();
        let profile = asked(PROFILE)?;
        let family = match asked(Field::EthType)? as u16 {
            ETH_IP => Family::V4,
            _ => Family::V6,
        };
        let tcp = [Field::TcpSrc, Field::TcpDst].into_iter().find_map(asked);
        let others = [Field::UdpSrc, Field::UdpDst, Field::SctpSrc, Field::SctpDst];
        let service = match (tcp, others.into_iter().find_map(asked)) {
            (Some(l4_port), _) => Some((PortedProtocol::Tcp, l4_port as u16)),
            (None, None) => None,
            (None, Some(_)) => return None,
        };
        Some((profile, Self { family, service }))
    }

    /// A flow that asks the rest, as flows for what is of the class: the service is at the port's own side.
    pub(crate) fn matched(self, draft: Draft) -> Vec<Draft> {
        let Some((protocol, l4_port)) = self.service else {
            return vec![draft];
        };
        let [src, dst] = match protocol {
            PortedProtocol::Tcp => [Field::TcpSrc, Field::TcpDst],
            PortedProtocol::Udp => [Field::UdpSrc, Field::UdpDst],
            PortedProtocol::Sctp => [Field::SctpSrc, Field::SctpDst],
            // No class is of these.
            PortedProtocol::UdpLite | PortedProtocol::Dccp => return Vec::new(),
        };
        let draft = draft.on(Field::IpProto, protocol.number());
        let ways = [(Flag::FROM_PORT, src), (Flag::TO_PORT, dst)];
        ways.map(|(gate, field)| draft.clone().with(gate).on(field, l4_port))
            .to_vec()
    }
}
