//! The rules of groups, one flow each, and how a port's groups are walked through.
//!
//! ```text
//! Walk      by profile and direction: each of its groups in turn into a register
//! Remotes   each tag of the other side in turn into the other register
//! Rules     group, tag or prefix, protocol, ports -> permitted
//! ```
//! Which register is whose turns with the direction: reg6 is the source's, reg5 the destination's. Of a flow's
//! first packet the tracker's fields are asked, else the packet's.

use super::from_port::{ICMP, ICMPV6};
use super::own::ethertype;
use super::{Scene, is_ingress};
use crate::cookie::Cookie;
use crate::draft::{Draft, ones};
use crate::flow_set::{FlowTable, in_order};
use crate::ranges;
use crate::registers::{
    FROM_GROUP, Flag, PROFILE, RULE, SCOPE, TAGS, TAGS_IN_PLACE, TO_GROUP, WIDE,
};
use crate::tables::Table;
use model::{Direction, Family, GroupId, IcmpKind, L4Match, PortedProtocol, Prefix};
use openflow::{Action, Bits, Field, Flow};
use policy::{GroupView, PeerView, RemotePort, RuleView, SharedSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What of a packet is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Packet,
    /// The first of its flow.
    First,
    /// One that it would answer.
    Reversed,
}

/// The flows of rules. They outlive the rendering: those of a group are made anew when it says something else.
#[derive(Debug)]
pub(crate) struct Rules {
    groups: BTreeMap<GroupId, Made>,
    pub(super) table: FlowTable,
}

#[derive(Debug)]
struct Made {
    of: Said,
    flows: Vec<Arc<Flow>>,
}

/// All that the flows of a group's rules come of.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    group: u32,
    stateful: bool,
    /// Where ports are in it.
    scopes: BTreeSet<u16>,
    inspects_ahead: bool,
    rules: Vec<Asks>,
}

#[derive(Debug, PartialEq, Eq)]
struct Asks {
    rule: u32,
    direction: Direction,
    family: Family,
    l4: L4Match,
    peer: Peer,
}

#[derive(Debug, PartialEq, Eq)]
enum Peer {
    Any,
    Prefix(Prefix),
    Prefixes(Arc<SharedSet<Prefix>>),
    Tag(u16),
}

impl Rules {
    pub(super) fn of(scene: &Scene<'_>, known: Option<Rules>) -> Self {
        let known = known.unwrap_or_else(|| Self::with(BTreeMap::new()));
        let Rules { mut groups, table } = known;
        let said = said(scene);
        let before = groups.len();
        groups.retain(|id, made| said.get(id) == Some(&made.of));
        if groups.len() == before && before == said.len() {
            return Self { groups, table };
        }
        for (id, of) in said {
            groups.entry(id.clone()).or_insert_with(|| Made::of(of));
        }
        Self::with(groups)
    }

    fn with(groups: BTreeMap<GroupId, Made>) -> Self {
        let flows = groups.values().flat_map(|made| &made.flows).cloned();
        let none = Arc::new(Draft::new(Table::Rules, 0).flow());
        let table = in_order(flows.chain([none]).collect());
        Self { groups, table }
    }
}

impl Made {
    fn of(of: Said) -> Self {
        let flows = of.rules.iter().flat_map(|asks| flows(&of, asks));
        let flows = flows.map(Arc::new).collect();
        Self { of, flows }
    }
}

fn said<'a>(scene: &Scene<'a>) -> BTreeMap<&'a GroupId, Said> {
    let scopes = scopes(scene);
    // In the order of groups and of their rules, as both are.
    let mut numbers = scene.names.rules.values().copied();
    let said = scene.view.groups.iter().map(|(id, group)| {
        let rules = group.rules.values().zip(&mut numbers);
        let said = Said {
            group: scene.names.groups[id],
            stateful: group.stateful,
            scopes: scopes.get(id).cloned().unwrap_or_default(),
            inspects_ahead: scene.inspects_ahead(),
            rules: rules
                .map(|(rule, number)| asks(scene, rule, number))
                .collect(),
        };
        (id, said)
    });
    said.collect()
}

pub(super) fn render(scene: &mut Scene<'_>) {
    walks(scene);
    remotes(scene);
    scene.add(Draft::new(Table::Walk, 0));
}

/// The register of the port whose rules are asked, and that of the other side.
fn registers(direction: Direction) -> [Field; 2] {
    match direction {
        Direction::Ingress => [TO_GROUP, FROM_GROUP],
        Direction::Egress => [FROM_GROUP, TO_GROUP],
    }
}

/// Which direction the rules are of that are asked.
fn asked(table: Table, priority: u16, direction: Direction) -> Draft {
    Draft::new(table, priority).flag_is(Flag::TOWARDS, is_ingress(direction))
}

fn walks(scene: &mut Scene<'_>) {
    let here = scene.guarded().map(|(_, port)| &port.view.groups);
    let ahead = remote_ports(scene).map(|port| &port.groups);
    let profiles: BTreeSet<_> = here.chain(ahead).collect();
    for profile in profiles {
        let number = scene.names.profiles[profile];
        for direction in Direction::BOTH {
            let [own, _] = registers(direction);
            let mut draft = asked(Table::Walk, 10, direction).on(PROFILE, number);
            // What the last one says stays: the least group's.
            for group in profile.iter().rev() {
                let number = scene.names.groups[group];
                draft = draft
                    .act(Action::set(own, number.into()))
                    .ask(Table::Remotes);
            }
            scene.add(draft);
        }
    }
}

fn remotes(scene: &mut Scene<'_>) {
    for direction in Direction::BOTH {
        let [_, other] = registers(direction);
        let begin = |priority| asked(Table::Remotes, priority, direction);
        for count in 0..=TAGS_IN_PLACE {
            let draft = begin(10 * (TAGS_IN_PLACE - count + 1) as u16);
            let draft = match count {
                TAGS_IN_PLACE => draft,
                // The first place that is free.
                free => draft.on_masked(TAGS, 0, 0xffff << (16 * free)),
            };
            scene.add(each_tag(draft, count, other));
        }
        for (number, tags) in scene.members.long_lists.clone() {
            let value = u128::from(WIDE) | u128::from(number) << 16;
            let draft = begin(200).on_masked(TAGS, value, ones(48));
            let draft = tags.iter().fold(draft, |draft, tag| {
                draft
                    .act(Action::set(other, (*tag).into()))
                    .ask(Table::Rules)
            });
            scene.add(draft);
        }
        // A list that nobody knows is none.
        let unknown = begin(150).on_masked(TAGS, WIDE.into(), 0xffff);
        scene.add(each_tag(unknown, 0, other));
    }
}

fn each_tag(draft: Draft, count: usize, other: Field) -> Draft {
    if count == 0 {
        return draft.act(Action::set(other, 0)).ask(Table::Rules);
    }
    let draft = draft.act(Action::set(other, 0));
    (0..count).fold(draft, |draft, place| {
        let from = Bits::new(TAGS, 16 * place as u16, 16);
        let to = Bits::new(other, 0, 16);
        draft.act(Action::Move { from, to }).ask(Table::Rules)
    })
}

fn asks(scene: &Scene<'_>, rule: &RuleView, number: u32) -> Asks {
    let peer = match &rule.peer {
        PeerView::Any => Peer::Any,
        PeerView::Prefix(prefix) => Peer::Prefix(*prefix),
        PeerView::AddressGroup(id) => Peer::Prefixes(
            scene
                .view
                .address_groups
                .get(id)
                .cloned()
                .unwrap_or_default(),
        ),
        PeerView::Group(named) => Peer::Tag(scene.names.tags[named]),
    };
    Asks {
        rule: number,
        direction: rule.direction,
        family: rule.family,
        l4: rule.l4,
        peer,
    }
}

/// Where each group's rules are asked.
fn scopes<'a>(scene: &Scene<'a>) -> BTreeMap<&'a GroupId, BTreeSet<u16>> {
    let here = scene.guarded();
    let here = here.map(|(_, port)| (&port.view.groups, &port.view.network));
    let ahead = remote_ports(scene).map(|port| (&port.groups, &port.network));
    let mut scopes: BTreeMap<_, BTreeSet<u16>> = BTreeMap::new();
    for (groups, network) in here.chain(ahead) {
        let Some(network) = scene.view.networks.get(network) else {
            continue;
        };
        let number = scene.names.scopes[&network.scope] as u16;
        for group in groups {
            scopes.entry(group).or_default().insert(number);
        }
    }
    scopes
}

fn flows(of: &Said, asks: &Asks) -> Vec<Flow> {
    // Of what receivers on other hosts may begin.
    let reversible = of.inspects_ahead && !is_ingress(asks.direction);
    let subjects = [Subject::Packet, Subject::First, Subject::Reversed];
    let subjects = subjects[..if reversible { 3 } else { 2 }].iter();
    let [own, _] = registers(asks.direction);
    let flows = subjects.flat_map(|subject| {
        let begin = asked(Table::Rules, 10, asks.direction)
            .flag_is(Flag::ABOUT_FIRST, *subject == Subject::First)
            .cookie(Cookie::Rule(asks.rule))
            .on(own, of.group);
        let begin = match reversible {
            true => begin.flag_is(Flag::REVERSED, *subject == Subject::Reversed),
            false => begin,
        };
        let drafts = peers(&of.scopes, begin, asks, *subject).into_iter();
        let drafts = drafts.flat_map(|draft| l4(draft, asks, *subject));
        drafts.map(|draft| permit(of, asks, draft, *subject).flow())
    });
    flows.collect()
}

fn permit(of: &Said, asks: &Asks, draft: Draft, subject: Subject) -> Draft {
    if subject == Subject::Reversed {
        // No packet passes by it, so it isn't counted.
        return draft.cookie(Cookie::Shared).raise(&[Flag::MAY_ANSWER]);
    }
    let mut flags = vec![Flag::PERMITTED];
    flags.extend((subject == Subject::First).then_some(Flag::LIVE));
    flags.extend(of.stateful.then_some(Flag::STATEFUL));
    draft.set(RULE, asks.rule).raise(&flags)
}

/// With what the rule asks of the other side: nothing, a prefix, or a tag in a scope.
fn peers(scopes: &BTreeSet<u16>, begin: Draft, asks: &Asks, subject: Subject) -> Vec<Draft> {
    let draft = begin.eth(ethertype(asks.family));
    let fields = remote_fields(asks.direction, subject);
    let prefix = |prefix: &Prefix| draft.clone().on_prefix(fields, *prefix);
    match &asks.peer {
        Peer::Any => vec![draft],
        Peer::Prefix(of_one) => vec![prefix(of_one)],
        Peer::Prefixes(all) => {
            let prefixes = all.iter().filter(|p| p.family() == asks.family);
            prefixes.map(prefix).collect()
        }
        Peer::Tag(tag) => {
            let [_, other] = registers(asks.direction);
            let tagged = scopes.iter();
            let tagged = tagged.map(|scope| draft.clone().on_part(SCOPE, *scope).on(other, *tag));
            tagged.collect()
        }
    }
}

/// Ports of other hosts whose rules are asked here.
fn remote_ports<'a>(scene: &Scene<'a>) -> impl Iterator<Item = &'a RemotePort> + use<'a> {
    let inspects = scene.inspects_ahead();
    let overlay = scene.overlay().filter(|_| inspects).into_iter();
    overlay
        .flat_map(|overlay| overlay.remote_ports.values())
        .filter(|port| port.port_security)
}

fn remote_fields(direction: Direction, subject: Subject) -> [Field; 2] {
    match (direction, subject) {
        (Direction::Ingress, Subject::Packet) | (Direction::Egress, Subject::Reversed) => {
            [Field::IpSrc, Field::Ipv6Src]
        }
        (Direction::Egress, Subject::Packet) | (Direction::Ingress, Subject::Reversed) => {
            [Field::IpDst, Field::Ipv6Dst]
        }
        (Direction::Ingress, Subject::First) => [Field::CtNwSrc, Field::CtIpv6Src],
        (Direction::Egress, Subject::First) => [Field::CtNwDst, Field::CtIpv6Dst],
    }
}

/// Of what the tracker remembers, a match has to say that there is something.
const TRACKED: u128 = 1 << 5;
const INVALID: u128 = 1 << 4;

fn l4(draft: Draft, rule: &Asks, subject: Subject) -> Vec<Draft> {
    let (draft, protocol_field) = match subject {
        Subject::Packet | Subject::Reversed => (draft, Field::IpProto),
        Subject::First => (
            draft.on_masked(Field::CtState, TRACKED, TRACKED | INVALID),
            Field::CtNwProto,
        ),
    };
    let of_protocol = |number: u8| draft.clone().on(protocol_field, number);
    match rule.l4 {
        L4Match::Any => vec![draft],
        L4Match::Other(protocol) => vec![of_protocol(protocol.number())],
        L4Match::Ported { protocol, dst } => {
            let draft = of_protocol(protocol.number());
            let whole = dst == model::L4PortRange::ALL;
            let field = match (subject, protocol) {
                (_, _) if whole => return vec![draft],
                (_, PortedProtocol::Dccp | PortedProtocol::UdpLite) => return Vec::new(),
                (Subject::First, _) => Field::CtTpDst,
                (Subject::Packet, PortedProtocol::Tcp) => Field::TcpDst,
                (Subject::Packet, PortedProtocol::Udp) => Field::UdpDst,
                (Subject::Packet, PortedProtocol::Sctp) => Field::SctpDst,
                (Subject::Reversed, PortedProtocol::Tcp) => Field::TcpSrc,
                (Subject::Reversed, PortedProtocol::Udp) => Field::UdpSrc,
                (Subject::Reversed, PortedProtocol::Sctp) => Field::SctpSrc,
            };
            let masks = ranges::masks(dst).into_iter();
            let masked = masks
                .map(|(value, mask)| draft.clone().on_masked(field, value.into(), mask.into()));
            masked.collect()
        }
        // Of ICMP only requests begin a flow, and no packet both begins one and answers another.
        L4Match::Icmp { .. } if subject == Subject::Reversed => Vec::new(),
        L4Match::Icmp { kind } => {
            let draft = of_protocol(match rule.family {
                Family::V4 => ICMP,
                Family::V6 => ICMPV6,
            });
            vec![icmp(draft, kind, rule.family, subject)]
        }
    }
}

fn icmp(draft: Draft, kind: Option<IcmpKind>, family: Family, subject: Subject) -> Draft {
    let [of_type, of_code] = match (subject, family) {
        (Subject::Packet | Subject::Reversed, Family::V4) => [Field::IcmpType, Field::IcmpCode],
        (Subject::Packet | Subject::Reversed, Family::V6) => [Field::Icmpv6Type, Field::Icmpv6Code],
        (Subject::First, _) => [Field::CtTpSrc, Field::CtTpDst],
    };
    let Some(IcmpKind { icmp_type, code }) = kind else {
        return draft;
    };
    let draft = draft.on(of_type, icmp_type);
    match code {
        Some(code) => draft.on(of_code, code),
        None => draft,
    }
}

/// Rules of a group that permit nothing here, though they say that they do.
pub(crate) fn remark(group: &GroupId, view: &GroupView) -> Option<String> {
    let unmatched = view.rules.iter().filter(|(_, rule)| match rule.l4 {
        L4Match::Ported { protocol, dst } => match protocol {
            PortedProtocol::Tcp | PortedProtocol::Udp | PortedProtocol::Sctp => false,
            PortedProtocol::UdpLite | PortedProtocol::Dccp => dst != model::L4PortRange::ALL,
        },
        L4Match::Any | L4Match::Icmp { .. } | L4Match::Other(_) => false,
    });
    let named: Vec<String> = unmatched.map(|(id, _)| id.to_string()).collect();
    (!named.is_empty()).then(|| {
        format!(
            "group {group}: OpenFlow can't match ports of UDP-Lite and DCCP, so these rules permit nothing: {}",
            named.join(", ")
        )
    })
}
