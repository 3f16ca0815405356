//! A profile: the rules of one list of groups, in sets as far as they fit and in chains for the rest.
//!
//! Place on the line: groups -> **profile** -> parts.
//!
//! ```text
//! pc-12-in4-port      hash:net,port   prefixes and single ports; most rules are in here
//! pc-12-in4-any       hash:net        prefixes, any protocol
//! pc-12-in4-tcp1-99   hash:net        prefixes with a wide range of ports, or ICMP: one set for each such
//! pc-in-12            chain           asks these sets, and has a rule for each rule that names a group
//! pc-in-12-live       chain           the rules out, turned round: is the first packet of a reply's flow
//!                                     permitted now? If they are just a few they stand in pc-in-12
//! ```
//! `in4s` is of stateless groups: what they alone permit starts no flow. A direction in which a stateful
//! rule permits everything has no chain: the mark says so.
//! Traps of iptables that are seen to here: `-p 0` and `--icmp-type 255` would match everything.

use super::names;
use crate::books::members_set;
use crate::parts::{Chain, Content, NetPort, Part, Service, Table};
use model::{
    Direction, Family, GroupId, IcmpKind, L4Match, L4PortRange, PortedProtocol, Prefix, RuleRef,
};
use policy::{GroupView, PeerView, RuleView};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The groups of a profile, in the order in which rules are reported.
pub(crate) type Groups = Vec<(GroupId, Arc<GroupView>)>;

/// Peers that have members, by the numbers of their sets.
pub(crate) type Peers = BTreeMap<PeerView, u16>;

/// All that its sets and chains depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    /// 0: it has no rules, and no sets and chains.
    pub(crate) number: u16,
    groups: Groups,
    peers: Peers,
    pub(crate) summary: Summary,
}

/// What a port's mark says of its profile, and the common part needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// A stateful rule permits everything: by family, then direction.
    pub(crate) open: [[bool; 2]; 2],
    /// There is a chain: by family, then direction.
    pub(crate) chains: [[bool; 2]; 2],
    /// Services that need no tracking, by family.
    pub(crate) served: [BTreeSet<Service>; 2],
}

/// A range of more ports than this is a rule of its own.
const PORTS_IN_A_SET: usize = 16;
/// More services than this of one port are tracked.
const SERVED: usize = 256;

fn summary(groups: &Groups) -> Summary {
    let mut summary = Summary::default();
    for family in Family::BOTH {
        let f = family as usize;
        summary.open[f] = Direction::BOTH.map(|direction| is_open(groups, family, direction));
        let [has_in, has_out] =
            Direction::BOTH.map(|direction| rules(groups, family, direction).next().is_some());
        let [open_in, open_out] = summary.open[f];
        summary.chains[f] = [
            !open_in && (has_in || has_out),
            !open_out && (has_in || has_out),
        ];
        if open_out && !open_in {
            summary.served[f] = served(groups, family);
        }
    }
    summary
}

impl Profile {
    pub(crate) fn new(number: u16, groups: Groups, peers: Peers) -> Self {
        Self {
            number,
            summary: summary(&groups),
            groups,
            peers,
        }
    }

    /// Its sets and chains.
    pub(crate) fn render(&self) -> Part {
        render(self.number, &self.groups, &self.peers, &self.summary)
    }
}

fn render(number: u16, groups: &Groups, peers: &Peers, summary: &Summary) -> Part {
    let mut part = Part::default();
    for family in Family::BOTH {
        let lanes = Direction::BOTH.map(|direction| {
            [true, false].map(|stateful| {
                let of_lane = rules(groups, family, direction).filter(|r| r.stateful == stateful);
                Lane::sort(of_lane, peers)
            })
        });
        for direction in Direction::BOTH {
            let (f, d) = (family as usize, direction as usize);
            if summary.open[f][d] {
                continue;
            }
            for (lane, suffix) in lanes[d].iter().zip(["", "s"]) {
                lane.add_sets(
                    &mut part,
                    &set_prefix(number, direction, family, suffix),
                    family,
                );
            }
        }
        for direction in Direction::BOTH {
            let (f, d) = (family as usize, direction as usize);
            if !summary.chains[f][d] {
                continue;
            }
            let opposite = direction.opposite();
            let (start, end) = (names::start(direction), "pc-pass");
            let mut chain = Chain::new();
            if !summary.open[f][opposite as usize] {
                let mut live = Chain::new();
                for (lane, suffix) in lanes[opposite as usize].iter().zip(["", "s"]) {
                    let sets = set_prefix(number, opposite, family, suffix);
                    lane.add_rules(&mut live, &sets, direction, Asked::AboutReply, end);
                }
                if live.len() <= FEW {
                    chain.extend(live.iter().map(|rule| if_live(rule)));
                } else {
                    let name = format!("{}-live", names::profile_chain(direction, number));
                    chain.push(format!("{} -j {name}", is_live()));
                    part.chain(family, Table::Mangle, name, live);
                }
            }
            for (lane, suffix, target) in [(&lanes[d][0], "", start), (&lanes[d][1], "s", end)] {
                let sets = set_prefix(number, direction, family, suffix);
                lane.add_rules(&mut chain, &sets, direction, Asked::AboutPacket, target);
            }
            let name = names::profile_chain(direction, number);
            part.chain(family, Table::Mangle, name, chain);
        }
    }
    part
}

/// Each chain is one more that a change's programs have to read and write, and iptables-legacy writes all of
/// them each time; each rule is one more that packets are asked about that are no replies.
const FEW: usize = 3;

/// Of replies of flows that may be live.
pub(crate) fn is_live() -> String {
    let mark = crate::mark::LIVE;
    format!("-m mark --mark {mark:#x}/{mark:#x}")
}

/// The rule for these alone. iptables has the protocol first.
fn if_live(rule: &str) -> String {
    let is_live = is_live();
    let protocol = rule
        .strip_prefix("-p ")
        .and_then(|rest| rest.split_once(' '));
    match protocol {
        Some((protocol, rest)) => format!("-p {protocol} {is_live} {rest}"),
        None => format!("{is_live} {rule}"),
    }
}

/// The peers that rules of these groups name by sets of their own.
pub(crate) fn named(groups: &Groups) -> impl Iterator<Item = &PeerView> {
    let rules = groups.iter().flat_map(|(_, group)| group.rules.values());
    rules.map(|rule| &rule.peer).filter(|peer| peer.is_set())
}

#[derive(Clone, Copy)]
struct NamedRule<'a> {
    group: &'a GroupId,
    id: &'a model::RuleId,
    stateful: bool,
    rule: &'a RuleView,
}

impl NamedRule<'_> {
    fn comment(&self) -> String {
        names::comment(&RuleRef {
            group: self.group.clone(),
            rule: self.id.clone(),
        })
    }
}

fn rules(
    groups: &Groups,
    family: Family,
    direction: Direction,
) -> impl Iterator<Item = NamedRule<'_>> {
    let all = groups.iter().flat_map(|(group, view)| {
        view.rules.iter().map(move |(id, rule)| NamedRule {
            group,
            id,
            stateful: view.stateful,
            rule,
        })
    });
    all.filter(move |r| r.rule.family == family && r.rule.direction == direction)
        .filter(|r| can_match(r.rule.l4))
}

/// What an operator should know of a group: rules of it that permit nothing here, though they say that they do.
pub(crate) fn remark(group: &GroupId, view: &GroupView) -> Option<String> {
    let unmatched = view.rules.iter().filter(|(_, rule)| !can_match(rule.l4));
    let named: Vec<String> = unmatched.map(|(id, _)| id.to_string()).collect();
    (!named.is_empty()).then(|| {
        format!(
            "group {group}: iptables can't match ports of UDP-Lite and DCCP, so these rules permit nothing: {}",
            named.join(", ")
        )
    })
}

/// The capabilities `udplite-ports` and `dccp-ports` are missing.
fn can_match(l4: L4Match) -> bool {
    match l4 {
        L4Match::Ported { protocol, dst } => match protocol {
            PortedProtocol::Tcp | PortedProtocol::Udp | PortedProtocol::Sctp => true,
            PortedProtocol::UdpLite | PortedProtocol::Dccp => dst == L4PortRange::ALL,
        },
        L4Match::Any | L4Match::Icmp { .. } | L4Match::Other(_) => true,
    }
}

fn is_open(groups: &Groups, family: Family, direction: Direction) -> bool {
    rules(groups, family, direction)
        .any(|r| r.stateful && r.rule.l4 == L4Match::Any && r.rule.peer == PeerView::Any)
}

/// Of a port whose rules let everything out: the services that anybody may ask for, if ICMP errors from
/// anybody come in by rule. Nothing else of it is left untracked: that is allowed, and much simpler.
fn served(groups: &Groups, family: Family) -> BTreeSet<Service> {
    let from_any =
        || rules(groups, family, Direction::Ingress).filter(|r| r.rule.peer == PeerView::Any);
    let types: &[u8] = match family {
        Family::V4 => &[3, 11, 12],
        Family::V6 => &[1, 2, 3, 4],
    };
    let errors_come_in = types.iter().all(|icmp_type| {
        from_any().any(|r| match r.rule.l4 {
            L4Match::Any | L4Match::Icmp { kind: None } => true,
            L4Match::Icmp { kind: Some(kind) } => {
                kind.icmp_type == *icmp_type && kind.code.is_none()
            }
            L4Match::Ported { .. } | L4Match::Other(_) => false,
        })
    });
    if !errors_come_in {
        return BTreeSet::new();
    }
    let mut served: BTreeSet<Service> = from_any()
        .filter_map(|r| single_services(r.rule.l4))
        .flatten()
        .collect();
    if served.len() > SERVED {
        served.clear();
    }
    // Protocols without ports have no service.
    served.retain(|service| PortedProtocol::from_number(service.protocol).is_some());
    served
}

/// What a set of nets and ports can hold: a few ports, or a protocol without any.
fn single_services(l4: L4Match) -> Option<Vec<Service>> {
    match l4 {
        L4Match::Ported { protocol, dst } => match protocol {
            PortedProtocol::Tcp | PortedProtocol::Udp | PortedProtocol::Sctp => {
                let ports = dst.first()..=dst.last();
                let few = usize::from(dst.last() - dst.first()) < PORTS_IN_A_SET;
                few.then(|| {
                    let service = |l4_port| Service {
                        protocol: protocol.number(),
                        l4_port,
                    };
                    ports.map(service).collect()
                })
            }
            PortedProtocol::UdpLite | PortedProtocol::Dccp => None,
        },
        // ipset finds no protocol in a packet of 0, nor in one of IPv6 that says there is none.
        L4Match::Other(protocol) if !matches!(protocol.number(), 0 | 59) => Some(vec![Service {
            protocol: protocol.number(),
            l4_port: 0,
        }]),
        L4Match::Any | L4Match::Icmp { .. } | L4Match::Other(_) => None,
    }
}

/// Rules of one direction, stateful or not, by how they are asked for.
#[derive(Default)]
struct Lane {
    ports: BTreeMap<NetPort, String>,
    by_l4: BTreeMap<L4Match, BTreeMap<Prefix, String>>,
    /// Rules that name a group, or anybody: L4, the set of the group, the rule's name.
    rest: Vec<(Family, L4Match, Option<String>, String)>,
}

/// A packet is asked about itself, or about the first packet of the flow that it is a reply of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    AboutPacket,
    AboutReply,
}

impl Lane {
    fn sort<'a>(rules: impl Iterator<Item = NamedRule<'a>>, peers: &Peers) -> Self {
        let mut lane = Self::default();
        for named in rules {
            let rule = named.rule;
            let net = match &rule.peer {
                PeerView::Any => Some(Prefix::whole(rule.family)),
                PeerView::Prefix(prefix) => Some(*prefix),
                PeerView::Group(_) | PeerView::AddressGroup(_) => None,
            };
            match (net, single_services(rule.l4)) {
                (Some(net), Some(services)) => {
                    for service in services {
                        let key = NetPort { net, service };
                        lane.ports.entry(key).or_insert_with(|| named.comment());
                    }
                }
                (Some(net), None) if rule.peer != PeerView::Any => {
                    let nets = lane.by_l4.entry(rule.l4).or_default();
                    nets.entry(net).or_insert_with(|| named.comment());
                }
                (Some(_) | None, _) => {
                    let set = rule
                        .peer
                        .is_set()
                        .then(|| members_set(peers[&rule.peer], rule.family));
                    lane.rest.push((rule.family, rule.l4, set, named.comment()));
                }
            }
        }
        lane
    }

    fn add_sets(&self, part: &mut Part, prefix: &str, family: Family) {
        if !self.ports.is_empty() {
            let content = Content::NetPorts(self.ports.clone());
            part.set(format!("{prefix}-port"), family, content);
        }
        for (l4, nets) in &self.by_l4 {
            let name = format!("{prefix}-{}", l4_name(*l4));
            part.set(name, family, Content::RuleNets(nets.clone()));
        }
    }

    /// At the gate of `direction`: there the other side is the source of what comes in, the destination
    /// of what goes out.
    fn add_rules(
        &self,
        chain: &mut Chain,
        sets: &str,
        direction: Direction,
        asked: Asked,
        target: &str,
    ) {
        let remote = match direction {
            Direction::Ingress => "src",
            Direction::Egress => "dst",
        };
        if !self.ports.is_empty() {
            let l4 = match asked {
                Asked::AboutPacket => "dst",
                Asked::AboutReply => "src",
            };
            chain.push(format!(
                "-m set --match-set {sets}-port {remote},{l4} -g {target}"
            ));
        }
        for l4 in self.by_l4.keys() {
            let family = self.family_of(*l4);
            if let Some(l4_match) = l4_match(*l4, family, asked) {
                let name = l4_name(*l4);
                chain.push(format!(
                    "{l4_match}-m set --match-set {sets}-{name} {remote} -g {target}"
                ));
            }
        }
        for (family, l4, set, comment) in &self.rest {
            if let Some(l4_match) = l4_match(*l4, *family, asked) {
                let set = set
                    .as_ref()
                    .map(|set| format!("-m set --match-set {set} {remote} "));
                let set = set.unwrap_or_default();
                chain.push(format!(
                    "{l4_match}{set}-m comment --comment \"{comment}\" -g {target}"
                ));
            }
        }
    }

    fn family_of(&self, l4: L4Match) -> Family {
        let mut nets = self.by_l4[&l4].keys();
        nets.next()
            .expect("a set is made with its first net")
            .family()
    }
}

fn set_prefix(number: u16, direction: Direction, family: Family, suffix: &str) -> String {
    let direction = names::way(direction);
    format!("pc-{number}-{direction}{}{suffix}", names::digit(family))
}

/// At most 17 characters.
fn l4_name(l4: L4Match) -> String {
    match l4 {
        L4Match::Any => "any".to_owned(),
        L4Match::Ported { protocol, dst } => {
            let name = match protocol {
                PortedProtocol::Tcp => "tcp",
                PortedProtocol::Udp => "udp",
                PortedProtocol::Sctp => "sctp",
                PortedProtocol::Dccp => "dccp",
                PortedProtocol::UdpLite => "lite",
            };
            format!("{name}{}-{}", dst.first(), dst.last())
        }
        L4Match::Icmp { kind: None } => "icmp".to_owned(),
        L4Match::Icmp {
            kind: Some(IcmpKind { icmp_type, code }),
        } => match code {
            None => format!("icmp{icmp_type}"),
            Some(code) => format!("icmp{icmp_type}.{code}"),
        },
        L4Match::Other(protocol) => format!("p{}", protocol.number()),
    }
}

/// In iptables' words, with a space behind; `None` where no reply is of such a flow.
fn l4_match(l4: L4Match, family: Family, asked: Asked) -> Option<String> {
    let reply = asked == Asked::AboutReply;
    let (icmp, icmp_module, icmp_type) = match family {
        Family::V4 => ("icmp", "icmp", "--icmp-type"),
        Family::V6 => ("ipv6-icmp", "icmp6", "--icmpv6-type"),
    };
    Some(match l4 {
        L4Match::Any => String::new(),
        L4Match::Ported { protocol, dst } => {
            let name = match protocol {
                PortedProtocol::Tcp => "tcp",
                PortedProtocol::Udp => "udp",
                PortedProtocol::Sctp => "sctp",
                PortedProtocol::Dccp | PortedProtocol::UdpLite if reply => return None,
                PortedProtocol::Dccp => "33",
                PortedProtocol::UdpLite => "136",
            };
            let end = if reply { "--sport" } else { "--dport" };
            match (dst.first(), dst.last()) {
                (0, u16::MAX) => format!("-p {name} "),
                (first, last) if first == last => format!("-p {name} -m {name} {end} {first} "),
                (first, last) => format!("-p {name} -m {name} {end} {first}:{last} "),
            }
        }
        // The mark LIVE says that it answers a request.
        L4Match::Icmp { kind: None } => format!("-p {icmp} "),
        L4Match::Icmp {
            kind: Some(IcmpKind { icmp_type: t, code }),
        } => {
            if reply {
                let answer = match (family, t) {
                    (Family::V4, 8) => 0,
                    (Family::V4, 13) => 14,
                    (Family::V6, 128) => 129,
                    _ => return None,
                };
                let of_flows = code.is_none_or(|code| code == 0);
                return of_flows
                    .then(|| format!("-p {icmp} -m {icmp_module} {icmp_type} {answer}/0 "));
            }
            match (family, t, code) {
                // 255 would mean any type.
                (Family::V4, 255, None) => {
                    "-p icmp -m u32 --u32 \"0x0>>0x16&0x3c@0x0>>0x18=0xff\" ".to_owned()
                }
                (Family::V4, 255, Some(code)) => {
                    let both = 0xff00 | u32::from(code);
                    format!("-p icmp -m u32 --u32 \"0x0>>0x16&0x3c@0x0>>0x10={both:#x}\" ")
                }
                (_, _, None) => format!("-p {icmp} -m {icmp_module} {icmp_type} {t} "),
                (_, _, Some(code)) => format!("-p {icmp} -m {icmp_module} {icmp_type} {t}/{code} "),
            }
        }
        // As `-p 0` it would be any protocol.
        L4Match::Other(protocol) if protocol.number() == 0 => {
            "-m u32 --u32 \"0x6&0xff=0x0\" ".to_owned()
        }
        L4Match::Other(protocol) => format!("-p {} ", protocol.number()),
    })
}
