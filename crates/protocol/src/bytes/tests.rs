//! Objects through messages and back; what can't be read; how much it is.

use super::*;
use crate::read::Kind;
use model::*;

#[path = "../../../distribution/tests/support/mod.rs"]
mod support;

use support::{Dice, change, inventory};

#[test]
fn inventories_come_back_as_they_were() {
    for seed in 0..500 {
        let made = inventory(&mut Dice(seed));
        let bytes = encode(&made);
        let (back, refused) = decode(&bytes).expect("it was just encoded");
        assert_eq!(back, made, "seed {seed}");
        assert_eq!(refused, []);
        assert_eq!(encode(&back), bytes);
    }
    for l4 in every_l4() {
        let made = with_rule(Rule { l4, ..rule() });
        let (back, refused) = decode(&encode(&made)).expect("it was just encoded");
        assert_eq!((back, refused), (made, vec![]), "{l4:?}");
    }
}

fn every_l4() -> Vec<L4Match> {
    let icmp = |icmp_type, code| L4Match::Icmp {
        kind: Some(IcmpKind { icmp_type, code }),
    };
    let ports = [(0, 0), (0, 65_535), (22, 22), (65_535, 65_535)];
    let ported = ports.into_iter().flat_map(|(first, last)| {
        PortedProtocol::ALL.map(|protocol| L4Match::Ported {
            protocol,
            dst: L4PortRange::new(first, last).expect("a range"),
        })
    });
    let others = (0..=255)
        .filter_map(PortlessProtocol::new)
        .map(L4Match::Other);
    let icmp = [
        L4Match::Icmp { kind: None },
        icmp(0, None),
        icmp(0, Some(0)),
        icmp(255, Some(255)),
    ];
    ported
        .chain(others)
        .chain(icmp)
        .chain([L4Match::Any])
        .collect()
}

#[test]
fn changes_come_back_as_they_were() {
    for seed in 0..500 {
        let mut dice = Dice(seed);
        let now = inventory(&mut dice);
        let made = change(&mut dice, &now);
        let bytes = put::objects(made.clone()).encode_to_vec();
        let objects = m::Objects::decode(bytes.as_slice()).expect("it was just encoded");
        let (back, refused) = read::change(objects);
        let revision = made.revision;
        assert_eq!(InventoryChange { revision, ..back }, made, "seed {seed}");
        assert_eq!(refused, []);
    }
}

#[test]
fn pieces_make_the_whole() {
    let mut made = inventory(&mut Dice(1));
    for number in 0..5_000u32 {
        let id = PortId::new(format!("port-{number}"));
        let port = Port {
            id: id.clone(),
            ..port()
        };
        made.ports.insert(id, port);
    }
    let of_group = made.groups.values_mut().next().expect("there are groups");
    for number in 0..5_000 {
        let id = RuleId::new(format!("rule-{number}"));
        of_group.rules.insert(id.clone(), Rule { id, ..rule() });
    }
    let chunks = chunks(made.clone());
    assert!(chunks.len() > 5 && chunks.iter().all(|chunk| chunk.len() <= CHUNK));
    let mut back = Inventory::default();
    for chunk in chunks {
        let objects = m::Objects::decode(chunk.as_slice()).expect("it was just encoded");
        let (change, refused) = read::change(objects);
        assert_eq!(refused, []);
        let revision = made.revision;
        back.change(InventoryChange { revision, ..change });
    }
    assert_eq!(back, made);
}

#[test]
fn a_member_more_is_less_than_300_bytes() {
    let uuid = |n: u8| format!("{n:08}-1111-4222-8333-123456789012");
    let member = Port {
        id: PortId::new(uuid(1)),
        network: NetworkId::new(uuid(2)),
        host: None,
        device: DeviceMatch::Mac,
        moving: None,
        mac: MacAddr::ZERO,
        fixed_addresses: [support::address("10.0.0.5"), support::address("fd00::5")].into(),
        groups: [GroupId::new(uuid(3)), GroupId::new(uuid(4))].into(),
        ..port()
    };
    let change = InventoryChange {
        ports: [(member.id.clone(), Some(member))].into(),
        ..InventoryChange::default()
    };
    let message = m::FromServer {
        sequence: 1_000_000,
        said: Some(m::from_server::Said::Change(m::Change {
            revision: Some(put::revision(Revision {
                epoch: 1,
                commit: 1 << 40,
            })),
            objects: put::objects(change).encode_to_vec(),
        })),
    };
    let bytes = message.encoded_len();
    assert!(bytes < 300, "{bytes}");
}

#[test]
fn a_digest_is_of_what_is_in_it() {
    let made = inventory(&mut Dice(3));
    let mut later = made.clone();
    later.revision.commit += 1;
    assert_eq!(digest(&later), digest(&made));
    later.ports.pop_first();
    assert_ne!(digest(&later), digest(&made));
}

/// Damage is noticed or makes another inventory; it never panics.
#[test]
fn o4_damaged_bytes_never_panic() {
    let bytes = encode(&inventory(&mut Dice(5)));
    for at in 0..bytes.len() {
        let _ = decode(&bytes[..at]);
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let _ = decode(&damaged);
        }
    }
    assert!(decode(&[]).is_err());
}

fn port() -> Port {
    Port {
        id: "port".into(),
        network: "net".into(),
        host: Some("host".into()),
        device: DeviceMatch::Mac,
        moving: None,
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        fixed_addresses: [support::address("10.0.0.1")].into(),
        address_pairs: FrozenSet::new(),
        groups: ["group".into()].into(),
        port_security: true,
        dhcp_server: false,
        router: false,
    }
}

fn rule() -> Rule {
    Rule {
        id: "rule".into(),
        direction: Direction::Ingress,
        family: Family::V4,
        l4: L4Match::Any,
        peer: Peer::Any,
    }
}

fn with_rule(rule: Rule) -> Inventory {
    let group = SecurityGroup {
        id: "group".into(),
        project: Some("project".into()),
        name: "name".to_owned(),
        stateful: true,
        tag: Some(7),
        rules: [(rule.id.clone(), rule)].into(),
    };
    Inventory {
        groups: [(group.id.clone(), group)].into(),
        ..Inventory::default()
    }
}

/// What is refused, where this is done to messages that are in order.
fn check_refused(spoil: impl FnOnce(&mut m::Objects), kind: Kind, id: &str) {
    let mut whole = with_rule(rule());
    whole.ports.insert("port".into(), port());
    let host = support::host(&mut Dice(1), "host");
    whole.hosts.insert("host".into(), host);
    let network = support::network(&mut Dice(1), "net");
    whole.networks.insert("net".into(), network);
    let prefixes = [support::prefix("10.0.0.0/8")].into();
    let addresses = AddressGroup {
        id: "set".into(),
        prefixes,
    };
    whole.address_groups.insert("set".into(), addresses);
    let mut objects = put::objects(super::whole(whole.clone()));
    spoil(&mut objects);
    let (change, refused) = read::change(objects);
    let seen: Vec<(Kind, &str)> = refused.iter().map(|r| (r.kind, r.id.as_str())).collect();
    assert_eq!(seen, [(kind, id)]);
    // On what was there before, the refused one is gone, and the rest as it was.
    let mut expected = whole.clone();
    match kind {
        Kind::Host => drop(expected.hosts.remove(id)),
        Kind::Network => drop(expected.networks.remove(id)),
        Kind::Port => drop(expected.ports.remove(id)),
        Kind::Group => drop(expected.groups.remove(id)),
        Kind::Rule => expected
            .groups
            .values_mut()
            .for_each(|group| group.rules.clear()),
        Kind::AddressGroup => drop(expected.address_groups.remove(id)),
    }
    whole.change(change);
    assert_eq!(whole, expected);
}

#[test]
fn c5_what_cannot_be_read_is_gone_and_nothing_else() {
    let rule = |spoil: fn(&mut m::Rule)| {
        check_refused(
            |o| spoil(&mut o.groups[0].rules[0]),
            Kind::Rule,
            "group/rule",
        );
    };
    rule(|rule| rule.direction = 0);
    rule(|rule| rule.direction = 99);
    rule(|rule| rule.family = 3);
    rule(|rule| rule.l4 = None);
    rule(|rule| rule.peer = None);
    rule(|rule| rule.peer = Some(m::rule::Peer::Prefix(vec![10, 0, 0, 1, 8])));
    rule(|rule| rule.peer = Some(m::rule::Peer::Prefix(vec![10, 0, 0, 0, 33])));
    rule(|rule| rule.peer = Some(m::rule::Peer::Prefix(vec![])));
    rule(|rule| rule.l4 = Some(m::rule::L4::Protocol(6)));
    rule(|rule| rule.l4 = Some(m::rule::L4::Protocol(256)));
    let ported = |protocol, first, last| {
        Some(m::rule::L4::Ported(m::Ported {
            protocol,
            first,
            last,
        }))
    };
    check_refused(
        |o| o.groups[0].rules[0].l4 = ported(6, 2, 1),
        Kind::Rule,
        "group/rule",
    );
    check_refused(
        |o| o.groups[0].rules[0].l4 = ported(6, 0, 65_536),
        Kind::Rule,
        "group/rule",
    );
    check_refused(
        |o| o.groups[0].rules[0].l4 = ported(1, 0, 1),
        Kind::Rule,
        "group/rule",
    );
    rule(|rule| {
        let (icmp_type, code) = (None, Some(0));
        rule.l4 = Some(m::rule::L4::Icmp(m::Icmp { icmp_type, code }));
    });
    check_refused(|o| o.groups[0].tag = Some(65_536), Kind::Group, "group");
    check_refused(|o| o.ports[0].device = None, Kind::Port, "port");
    check_refused(|o| o.ports[0].mac = vec![1, 2, 3], Kind::Port, "port");
    check_refused(
        |o| o.ports[0].fixed_addresses = vec![vec![1; 5]],
        Kind::Port,
        "port",
    );
    check_refused(|o| o.networks[0].mtu = Some(65_536), Kind::Network, "net");
    check_refused(|o| o.hosts[0].settings = None, Kind::Host, "host");
    check_refused(|o| o.hosts[0].peer_trust = 9, Kind::Host, "host");
    check_refused(
        |o| o.hosts[0].settings.as_mut().expect("it was put").inspection = 9,
        Kind::Host,
        "host",
    );
    check_refused(
        |o| o.address_groups[0].prefixes = vec![vec![10, 0, 0, 0, 8, 0]],
        Kind::AddressGroup,
        "set",
    );
}

/// A field of the next version, as prost would see it: number 1000, a varint.
#[test]
fn a_field_that_is_not_known_is_left_out() {
    let made = inventory(&mut Dice(7));
    let mut bytes = put::objects(whole(made.clone())).encode_to_vec();
    bytes.extend([0xc0, 0x3e, 1]);
    let objects = m::Objects::decode(bytes.as_slice()).expect("fields may be new");
    let (change, refused) = read::change(objects);
    assert_eq!(refused, []);
    let mut back = Inventory::default();
    back.change(InventoryChange {
        revision: made.revision,
        ..change
    });
    assert_eq!(back, made);
}
