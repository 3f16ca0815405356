//! What the policy says of itself, symbolically, against the oracle, packet by packet: at the ends of all ranges, just
//! beside them, and anywhere.

use model::{
    Capabilities, Direction, DropReason, Family, HostId, Inventory, L4Match, MacAddr, PassReason,
    Peer, Port, PortId, Prefix, ScopeId, Verdict,
};
use oracle::Oracle;
use policy::{By, L4Part, L4Set, Party, Question, Reach, Who, changes, reach};
use portcullis_conformance::generate::{self, Dice, Event};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use wire::{TcpFlags, build};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Port(PortId),
    Outside(ScopeId),
}

/// A first packet, but for what nobody asks about.
#[derive(Clone, Debug)]
struct Flow {
    from: End,
    to: End,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Destination port, or ICMP type and code.
    detail: u16,
}

#[derive(Clone, Copy, Debug, Default)]
struct Compared {
    permitted: u64,
    denied: u64,
    /// The guard, not the rules, decides about the packet.
    skipped: u64,
}

const SEEDS: u64 = 250;

#[test]
fn what_may_begin_is_what_the_oracle_lets_begin() {
    let mut compared = Compared::default();
    for seed in 0..SEEDS {
        let mut dice = Dice::new(seed);
        for inventory in policies(seed, 60).iter().take(2) {
            let judges = Judges::new(inventory);
            let mut questions = vec![Question::everything()];
            questions.extend((0..3).map(|_| question(inventory, &mut dice)));
            for question in questions {
                let told = reach(inventory, &question);
                check_form(&told);
                let answer = |flow: &Flow| {
                    let found = told.iter().filter(|reach| holds(inventory, reach, flow));
                    told_once(found, &judges, flow)
                };
                for flow in samples(&[inventory], &told, &mut dice) {
                    let expected = judges.permit(&flow).map(|is| is && asks(&question, &flow));
                    let context = || format!("seed {seed}, {question:?}\n{told:#?}");
                    compared.note(&flow, expected, answer(&flow), context);
                }
            }
        }
    }
    compared.check();
}

#[test]
fn what_opens_and_closes_is_what_the_oracle_judges_otherwise() {
    let mut compared = Compared::default();
    for seed in 0..SEEDS {
        let mut dice = Dice::new(seed);
        let policies = policies(seed, 200);
        for pair in policies.windows(2).take(4) {
            let [old, new] = pair else {
                unreachable!("windows of two")
            };
            let judges = [old, new].map(Judges::new);
            let told = changes(old, new);
            check_form(&told.opened);
            check_form(&told.closed);
            let back = changes(new, old);
            assert_eq!(
                (&back.opened, &back.closed),
                (&told.closed, &told.opened),
                "seed {seed}"
            );
            let all: Vec<Reach> = told.opened.iter().chain(&told.closed).cloned().collect();
            for flow in samples(&[old, new], &all, &mut dice) {
                let [was, is] = [0, 1].map(|n| judges[n].permit(&flow));
                let context = || format!("seed {seed}\n{told:#?}");
                let [by_old, by_new] = &judges;
                for (inventory, judge, rows, before, after) in [
                    (new, by_new, &told.opened, was, is),
                    (old, by_old, &told.closed, is, was),
                ] {
                    let expected = before.zip(after).map(|(before, after)| !before && after);
                    let found = rows.iter().filter(|reach| holds(inventory, reach, &flow));
                    let answer = told_once(found, judge, &flow);
                    compared.note(&flow, expected, answer, context);
                }
            }
        }
    }
    compared.check();
}

/// The inventories of a trace.
fn policies(seed: u64, packets: usize) -> Vec<Inventory> {
    let events = generate::trace(seed, packets).events.into_iter();
    let policies = events.filter_map(|event| match event {
        Event::Policy(inventory) => Some((*inventory).clone()),
        Event::Advance(_) | Event::Packet(_) => None,
    });
    policies.collect()
}

fn question(inventory: &Inventory, dice: &mut Dice) -> Question {
    let ports: Vec<&PortId> = inventory.ports.keys().collect();
    let prefixes: Vec<Prefix> = prefixes(inventory).into_iter().collect();
    let mut who = || match dice.below(3) {
        0 => Who::Anybody,
        1 => Who::Ports(
            dice.pick_if_any(&ports)
                .into_iter()
                .map(|p| (*p).clone())
                .collect(),
        ),
        _ => Who::Addresses(dice.pick_if_any(&prefixes).into_iter().copied().collect()),
    };
    let (from, to) = (who(), who());
    let rules = inventory.groups.values().flat_map(|g| g.rules.values());
    let l4: Vec<L4Match> = rules.map(|rule| rule.l4).collect();
    let l4 = dice.pick_if_any(&l4).copied().unwrap_or(L4Match::Any);
    let kinds = Family::BOTH.map(|family| L4Set::of(family, l4));
    Question { from, to, kinds }
}

fn asks(question: &Question, flow: &Flow) -> bool {
    let is = |who: &Who, end: &End, address: IpAddr| match (who, end) {
        (Who::Anybody, _) => true,
        (Who::Ports(ports), End::Port(port)) => ports.contains(port),
        (Who::Ports(_), End::Outside(_)) => false,
        (Who::Addresses(prefixes), _) => prefixes.iter().any(|p| p.contains(address)),
    };
    let family = Family::of(flow.source);
    let kinds = question.kinds.iter().find(|kinds| kinds.family() == family);
    is(&question.from, &flow.from, flow.source)
        && is(&question.to, &flow.to, flow.destination)
        && kinds.is_some_and(|kinds| kinds.contains(flow.protocol, flow.detail))
}

/// Whether there is a row, and then the only one: with the rules that the oracle meets first.
fn told_once<'a>(
    mut found: impl Iterator<Item = &'a Reach>,
    judges: &Judges<'_>,
    flow: &Flow,
) -> bool {
    let Some(row) = found.next() else {
        return false;
    };
    assert_eq!(
        found.next(),
        None,
        "{flow:?} is told of twice, as in {row:?}"
    );
    let ends = [
        (&flow.from, Direction::Egress, &row.leaves_by),
        (&flow.to, Direction::Ingress, &row.enters_by),
    ];
    for (end, direction, by) in ends {
        match judges.at(end, direction, flow) {
            Some(Verdict::Pass(PassReason::Rule(rule))) => {
                let is_named = matches!(by, By::Rules(rules) if rules.contains(&rule));
                assert!(is_named, "{rule} isn't named for {flow:?}: {row:?}");
            }
            Some(Verdict::Pass(PassReason::Unguarded)) => assert_eq!(*by, By::NoPortSecurity),
            Some(Verdict::Pass(_) | Verdict::Drop(_)) => {}
            None => assert!(matches!(by, By::NoHost | By::Outside), "{flow:?}: {row:?}"),
        }
    }
    true
}

/// Of the inventory whose rules permit it.
fn holds(inventory: &Inventory, reach: &Reach, flow: &Flow) -> bool {
    let is = |party: &Party, end: &End, address: IpAddr| match (party, end) {
        (Party::Ports { ports, addresses }, End::Port(port)) => {
            let meant = match addresses {
                Some(addresses) => addresses.contains(address),
                None => has(inventory, end, address),
            };
            ports.contains(port) && meant
        }
        (
            Party::Outside {
                scope,
                addresses,
                within,
                except,
            },
            End::Outside(of),
        ) => {
            let is_in = |prefixes: &[Prefix]| prefixes.iter().any(|p| p.contains(address));
            let named = is_in(within) && !is_in(except);
            assert_eq!(
                scope == of && addresses.contains(address),
                scope == of && named,
                "{address} in {within:?} but {except:?}"
            );
            scope == of && named
        }
        (Party::Ports { .. }, End::Outside(_)) | (Party::Outside { .. }, End::Port(_)) => false,
    };
    reach.kinds.family() == Family::of(flow.source)
        && reach.kinds.contains(flow.protocol, flow.detail)
        && is(&reach.from, &flow.from, flow.source)
        && is(&reach.to, &flow.to, flow.destination)
}

/// No flow is told of twice, and nothing empty is.
fn check_form(told: &[Reach]) {
    assert!(told.is_sorted());
    for reach in told {
        assert!(!reach.kinds.parts().is_empty());
        for party in [&reach.from, &reach.to] {
            match party {
                Party::Ports { ports, addresses } => {
                    assert!(!ports.is_empty());
                    assert!(addresses.as_ref().is_none_or(|a| !a.prefixes().is_empty()));
                }
                Party::Outside {
                    addresses,
                    within,
                    except,
                    ..
                } => {
                    let told = within.len() + except.len();
                    assert!(!within.is_empty() && told <= addresses.prefixes().len());
                }
            }
        }
    }
}

impl Compared {
    fn note(
        &mut self,
        flow: &Flow,
        expected: Option<bool>,
        answer: bool,
        context: impl Fn() -> String,
    ) {
        match expected {
            None => self.skipped += 1,
            Some(true) => self.permitted += 1,
            Some(false) => self.denied += 1,
        }
        let agree = expected.is_none_or(|expected| expected == answer);
        assert!(
            agree,
            "{flow:?}: oracle {expected:?}, not {answer}\n{}",
            context()
        );
    }

    fn check(self) {
        println!("{self:?}");
        assert!(self.permitted > 10_000 && self.denied > 10_000, "{self:?}");
        assert!(
            self.skipped < (self.permitted + self.denied) / 3,
            "{self:?}"
        );
    }
}

/// The oracle of each host, and what it knows of ends.
struct Judges<'a> {
    inventory: &'a Inventory,
    oracles: BTreeMap<HostId, Oracle>,
}

impl<'a> Judges<'a> {
    fn new(inventory: &'a Inventory) -> Self {
        let hosts: BTreeSet<&HostId> = inventory
            .ports
            .values()
            .filter_map(|p| p.host.as_ref())
            .collect();
        let oracles = hosts.into_iter().map(|host| {
            let mut oracle = Oracle::new(host.clone(), Capabilities::ALL);
            oracle.apply(inventory, Duration::ZERO);
            (host.clone(), oracle)
        });
        Self {
            inventory,
            oracles: oracles.collect(),
        }
    }

    /// Whether both ends' rules permit it, as a first packet. `None`: the guard answers for one of them.
    fn permit(&self, flow: &Flow) -> Option<bool> {
        let scopes = [&flow.from, &flow.to].map(|end| scope(self.inventory, end));
        let there = has(self.inventory, &flow.from, flow.source)
            && has(self.inventory, &flow.to, flow.destination);
        if !there || scopes[0] != scopes[1] || scopes[0].is_none() {
            return Some(false);
        }
        let out = permits(self.at(&flow.from, Direction::Egress, flow));
        let into = permits(self.at(&flow.to, Direction::Ingress, flow));
        match (out, into) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            (None, _) | (_, None) => None,
        }
    }

    /// `None`: nobody judges there.
    fn at(&self, end: &End, direction: Direction, flow: &Flow) -> Option<Verdict> {
        let End::Port(id) = end else {
            return None;
        };
        let port = &self.inventory.ports[id];
        let frame = frame(port, direction, flow);
        let oracle = &self.oracles[port.host.as_ref()?];
        let decision = oracle.explain(id, direction, &frame, Duration::from_secs(1));
        Some(decision.verdict)
    }
}

/// Whether rules permit it. `None`: they aren't asked, as the guard has answered.
fn permits(verdict: Option<Verdict>) -> Option<bool> {
    match verdict {
        None
        | Some(
            Verdict::Pass(PassReason::Rule(_) | PassReason::Unguarded)
            | Verdict::Drop(DropReason::FlowBudget),
        ) => Some(true),
        Some(Verdict::Drop(DropReason::NoRule)) => Some(false),
        Some(Verdict::Pass(_) | Verdict::Drop(_)) => None,
    }
}

fn frame(port: &Port, direction: Direction, flow: &Flow) -> Vec<u8> {
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);
    // Ports that mean nothing to the guard.
    let (from, to) = (40_000, flow.detail);
    let [icmp_type, code] = flow.detail.to_be_bytes();
    let packet = build::ip(flow.source, flow.destination);
    let packet = match (flow.protocol, Family::of(flow.source)) {
        (6, _) => packet.tcp(from, to, TcpFlags::SYN),
        (17, _) => packet.udp(from, to),
        (33, _) => packet.dccp(from, to),
        (132, _) => packet.sctp(from, to),
        (136, _) => packet.udp_lite(from, to),
        (1, Family::V4) | (58, Family::V6) => packet.icmp(icmp_type, code, [0, 7, 0, 1]),
        (other, _) => packet.protocol(other, &[0; 8]),
    };
    let packet = match direction {
        Direction::Egress => packet.src_mac(mac(port, flow.source)),
        Direction::Ingress => packet.src_mac(OTHER),
    };
    packet.bytes()
}

/// With which this address may be used.
fn mac(port: &Port, address: IpAddr) -> MacAddr {
    let fixed = port.fixed_addresses.contains(&address);
    let pair = port
        .address_pairs
        .iter()
        .find(|p| p.prefix.contains(address));
    let of_pair = pair.filter(|_| !fixed).and_then(|pair| pair.mac);
    of_pair.unwrap_or(port.mac)
}

fn scope<'a>(inventory: &'a Inventory, end: &'a End) -> Option<&'a ScopeId> {
    match end {
        End::Outside(scope) => Some(scope),
        End::Port(id) => {
            let port = inventory.ports.get(id)?;
            let network = inventory.networks.get(&port.network)?;
            Some(&network.scope)
        }
    }
}

fn has(inventory: &Inventory, end: &End, address: IpAddr) -> bool {
    let is_link_local = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
    match end {
        _ if is_link_local => false,
        End::Port(id) => inventory.ports.get(id).is_some_and(|port| {
            let mut pairs = port.address_pairs.iter();
            port.fixed_addresses.contains(&address)
                || pairs.any(|pair| pair.prefix.contains(address))
        }),
        End::Outside(of) => !inventory.ports.values().any(|port| {
            scope(inventory, &End::Port(port.id.clone())) == Some(of)
                && port
                    .member_prefixes()
                    .any(|prefix| prefix.contains(address))
        }),
    }
}

/// Flows between all ends at the edges of what rules, ports and answers say.
fn samples(inventories: &[&Inventory], told: &[Reach], dice: &mut Dice) -> Vec<Flow> {
    let addresses = edges(inventories, told);
    let kinds = Family::BOTH.map(|family| kinds(inventories, told, family));
    let ends: BTreeSet<End> = inventories.iter().flat_map(|i| ends(i)).collect();
    let ends: Vec<End> = ends.into_iter().collect();
    let usable = |end: &End| -> [Vec<IpAddr>; 2] {
        // Outside is what is outside in both.
        let holds = |inventory: &&Inventory, a: &IpAddr| has(inventory, end, *a);
        let of = |family: Family| {
            let near = addresses.iter().filter(|a| Family::of(**a) == family);
            let near = near.filter(|a| match end {
                End::Port(_) => inventories.iter().any(|i| holds(i, a)),
                End::Outside(_) => inventories.iter().all(|i| holds(i, a)),
            });
            near.copied().collect()
        };
        Family::BOTH.map(of)
    };
    let usable: Vec<[Vec<IpAddr>; 2]> = ends.iter().map(usable).collect();
    let mut flows = Vec::new();
    for (from, sources) in ends.iter().zip(&usable) {
        for (to, destinations) in ends.iter().zip(&usable) {
            let outside = matches!((from, to), (End::Outside(_), End::Outside(_)));
            if from == to || outside {
                continue;
            }
            for family in [0, 1] {
                for _ in 0..8 {
                    let source = dice.pick_if_any(&sources[family]);
                    let destination = dice.pick_if_any(&destinations[family]);
                    let (Some(source), Some(destination)) = (source, destination) else {
                        continue;
                    };
                    let (protocol, detail) = *dice.pick(&kinds[family]);
                    flows.push(Flow {
                        from: from.clone(),
                        to: to.clone(),
                        source: *source,
                        destination: *destination,
                        protocol,
                        detail,
                    });
                }
            }
        }
    }
    flows.extend(
        told.iter()
            .flat_map(|row| inside(row, &ends, &usable, dice)),
    );
    flows
}

/// Of what a row says, at the edges of it.
fn inside(row: &Reach, ends: &[End], usable: &[[Vec<IpAddr>; 2]], dice: &mut Dice) -> Vec<Flow> {
    let family = usize::from(row.kinds.family() == Family::V6);
    let of = |party: &Party, dice: &mut Dice| {
        let fits = |(_, end): &(usize, &End)| match (party, end) {
            (Party::Ports { ports, .. }, End::Port(port)) => ports.contains(port),
            (Party::Outside { scope, .. }, End::Outside(of)) => scope == of,
            (Party::Ports { .. }, End::Outside(_)) | (Party::Outside { .. }, End::Port(_)) => false,
        };
        let fitting: Vec<(usize, &End)> = ends.iter().enumerate().filter(fits).collect();
        let (index, end) = *dice.pick_if_any(&fitting)?;
        let address = *dice.pick_if_any(&usable[index][family])?;
        Some((end.clone(), address))
    };
    let parts = row.kinds.parts().into_iter();
    let kinds: Vec<_> = parts
        .flat_map(|part| edges_of(part, row.kinds.family()))
        .collect();
    let flow = |dice: &mut Dice| {
        let (from, source) = of(&row.from, dice)?;
        let (to, destination) = of(&row.to, dice)?;
        let (protocol, detail) = *dice.pick(&kinds);
        (from != to).then_some(Flow {
            from,
            to,
            source,
            destination,
            protocol,
            detail,
        })
    };
    (0..8).filter_map(|_| flow(dice)).collect()
}

fn ends(inventory: &Inventory) -> Vec<End> {
    let ports = inventory.ports.keys().map(|id| End::Port(id.clone()));
    let scopes = inventory.networks.values().map(|n| n.scope.clone());
    ports.chain(scopes.map(End::Outside)).collect()
}

/// All that an inventory mentions.
fn prefixes(inventory: &Inventory) -> BTreeSet<Prefix> {
    let ports = inventory.ports.values();
    let fixed = ports
        .clone()
        .flat_map(|p| p.fixed_addresses.iter().map(|a| Prefix::host(*a)));
    let pairs = ports.flat_map(|p| p.address_pairs.iter().map(|pair| pair.prefix));
    let rules = inventory.groups.values().flat_map(|g| g.rules.values());
    let peers = rules.filter_map(|rule| match &rule.peer {
        Peer::Prefix(prefix) => Some(*prefix),
        Peer::Any | Peer::Group(_) | Peer::AddressGroup(_) => None,
    });
    let lists = inventory
        .address_groups
        .values()
        .flat_map(|g| g.prefixes.iter().copied());
    fixed.chain(pairs).chain(peers).chain(lists).collect()
}

fn edges(inventories: &[&Inventory], told: &[Reach]) -> BTreeSet<IpAddr> {
    let mut all: BTreeSet<Prefix> = inventories.iter().flat_map(|i| prefixes(i)).collect();
    for party in told.iter().flat_map(|reach| [&reach.from, &reach.to]) {
        match party {
            Party::Ports { addresses, .. } => {
                all.extend(addresses.iter().flat_map(|set| set.prefixes()));
            }
            Party::Outside { within, except, .. } => all.extend(within.iter().chain(except)),
        }
    }
    let near = |prefix: &Prefix| {
        let (first, last) = (prefix.network(), prefix.last());
        [Some(first), Some(last), moved(first, -1), moved(last, 1)]
    };
    all.iter().flat_map(near).flatten().collect()
}

fn moved(address: IpAddr, by: i8) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(a) => Ipv4Addr::from(u32::from(a).checked_add_signed(by.into())?).into(),
        IpAddr::V6(a) => Ipv6Addr::from(u128::from(a).checked_add_signed(by.into())?).into(),
    })
}

/// Protocols and details: what is named and just beside it, and some that nobody names.
fn kinds(inventories: &[&Inventory], told: &[Reach], family: Family) -> Vec<(u8, u16)> {
    let rules = inventories
        .iter()
        .flat_map(|i| i.groups.values())
        .flat_map(|g| g.rules.values());
    let mut sets: BTreeSet<L4Set> = rules.map(|rule| L4Set::of(family, rule.l4)).collect();
    sets.extend(told.iter().map(|reach| reach.kinds.clone()));
    let icmp = icmp(family);
    let mut kinds = BTreeSet::from([(6, 0), (17, 65_535), (33, 7), (132, 7), (136, 7), (253, 0)]);
    kinds.extend([(icmp, 0x0800), (icmp, 0x8000), (47, 0), (1, 0), (58, 0)]);
    let parts = sets
        .iter()
        .filter(|set| set.family() == family)
        .flat_map(L4Set::parts);
    for (protocol, detail) in parts.flat_map(|part| edges_of(part, family)) {
        let beside = [Some(detail), detail.checked_sub(1), detail.checked_add(1)];
        kinds.extend(
            beside
                .into_iter()
                .flatten()
                .map(|detail| (protocol, detail)),
        );
    }
    // In IPv6 these are headers, and what stands behind them would be the protocol.
    let headers = [0, 43, 44, 51, 60];
    kinds.retain(|(protocol, _)| family == Family::V4 || !headers.contains(protocol));
    kinds.into_iter().collect()
}

fn edges_of(part: L4Part, family: Family) -> [(u8, u16); 2] {
    let icmp = icmp(family);
    let join = |icmp_type, code| u16::from_be_bytes([icmp_type, code]);
    match part {
        L4Part::Protocols { first, last } => [(first, 0), (last, u16::MAX)],
        L4Part::Ports { protocol, dst } => {
            [dst.first(), dst.last()].map(|port| (protocol.number(), port))
        }
        L4Part::IcmpTypes { first, last } => [(icmp, join(first, 0)), (icmp, join(last, u8::MAX))],
        L4Part::IcmpCodes {
            icmp_type,
            first,
            last,
        } => [first, last].map(|code| (icmp, join(icmp_type, code))),
    }
}

fn icmp(family: Family) -> u8 {
    match family {
        Family::V4 => 1,
        Family::V6 => 58,
    }
}
