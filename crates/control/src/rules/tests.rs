use super::*;
use crate::testing::{Dice, Servers, admin, member, new_group, new_rule, refusal, tcp_rule};
use model::{
    AddressGroup, DeviceMatch, Host, HostId, Inventory, MacAddr, Network, NetworkId, Peer,
    PeerTrust, Port, PortId, PortedProtocol, Rule, ScopeId, SecurityGroup, Settings,
};

#[derive(Clone, Copy)]
enum N {
    None,
    Is(i64),
    Text(&'static str),
}
use N::{Is, Text};

type Row = (Family, &'static str, N, N, &'static str);

/// Empty text: not given.
fn canonical_of((family, protocol, min, max, prefix): Row) -> Result<Asks, Refused> {
    let [min, max] = [min, max].map(|number| match number {
        N::None => None,
        Is(number) => Some(AskedNumber::Number(number)),
        Text(text) => Some(AskedNumber::Text(text.to_owned())),
    });
    let given = |text: &'static str| (!text.is_empty()).then_some(text);
    canonical(Asked {
        direction: Direction::Ingress,
        family: Some(family),
        protocol: given(protocol),
        range: [min.as_ref(), max.as_ref()],
        prefix: given(prefix),
    })
}

fn check(row: Row, expected: Result<&str, Refused>) {
    let seen = canonical_of(row).map(|asks| {
        let number = |n: Option<u16>| n.map_or("-".to_owned(), |n| n.to_string());
        let (min, max) = (number(asks.range_min), number(asks.range_max));
        let protocol = asks.protocol.as_deref().unwrap_or("-");
        let peer = match &asks.peer {
            AskedPeer::Prefix { written, prefix } => format!("{written} {prefix}"),
            _ => "-".to_owned(),
        };
        format!("{protocol} {min} {max} {peer}")
    });
    let (family, protocol, .., prefix) = row;
    assert_eq!(
        seen,
        expected.map(str::to_owned),
        "{family} {protocol} {prefix}"
    );
}

use Family::{V4, V6};

#[test]
fn c3_there_is_one_canonical_form() {
    check((V4, "", N::None, N::None, ""), Ok("- - - -"));
    check((V4, "any", N::None, N::None, ""), Ok("- - - -"));
    check((V4, "ANY", N::None, N::None, ""), Ok("- - - -"));
    check((V4, "TcP", Is(22), Is(22), ""), Ok("tcp 22 22 -"));
    check((V4, "tcp", Text("22"), Text("0022"), ""), Ok("tcp 22 22 -"));
    check((V4, "006", N::None, N::None, ""), Ok("6 - - -"));
    check((V4, "0", N::None, N::None, ""), Ok("0 - - -"));
    check((V4, "255", N::None, N::None, ""), Ok("255 - - -"));
    check((V4, "tcp", Is(1), Is(65535), ""), Ok("tcp - - -"));
    check((V4, "any", Is(1), Is(65535), ""), Ok("- - - -"));
    check((V4, "gre", Is(1), Is(65535), ""), Ok("gre - - -"));
    check((V6, "icmp", Is(1), Is(65535), ""), Ok("ipv6-icmp - - -"));
    check((V4, "udp", Is(1), Is(65534), ""), Ok("udp 1 65534 -"));
    check((V4, "sctp", Is(5), Is(9), ""), Ok("sctp 5 9 -"));
    check((V4, "136", Is(5), Is(9), ""), Ok("136 5 9 -"));
    check((V4, "dccp", Is(5), Is(9), ""), Ok("dccp 5 9 -"));
    check((V4, "icmp", Is(0), Is(0), ""), Ok("icmp 0 0 -"));
    check((V4, "icmp", Is(8), N::None, ""), Ok("icmp 8 - -"));
    check((V4, "1", Is(255), Is(255), ""), Ok("1 255 255 -"));
    for name in ["icmp", "ICMPv6", "icmpv6", "ipv6-icmp"] {
        check((V6, name, N::None, N::None, ""), Ok("ipv6-icmp - - -"));
    }
    check((V6, "1", N::None, N::None, ""), Ok("58 - - -"));
    check((V6, "58", Is(128), Is(0), ""), Ok("58 128 0 -"));
    let any = |prefix, expected| check((V4, "", N::None, N::None, prefix), Ok(expected));
    any("10.0.0.5", "- - - 10.0.0.5/32 10.0.0.5");
    any("10.0.0.5/24", "- - - 10.0.0.5/24 10.0.0.0/24");
    any("0.0.0.0/0", "- - - 0.0.0.0/0 0.0.0.0/0");
    any("1.2.3.4/00", "- - - 1.2.3.4/0 0.0.0.0/0");
    let any = |prefix, expected| check((V6, "", N::None, N::None, prefix), Ok(expected));
    any("2001:DB8::1", "- - - 2001:db8::1/128 2001:db8::1");
    any("2001:db8:0:0::/32", "- - - 2001:db8::/32 2001:db8::/32");
    any("::/0", "- - - ::/0 ::/0");
}

#[test]
fn c3_what_only_looks_like_a_number_or_a_name_is_none() {
    for protocol in [
        "tcp ",
        " tcp",
        "+6",
        "-1",
        "256",
        "6.0",
        "0x6",
        "６",
        "ｔｃｐ",
        "tcpp",
        "1e1",
    ] {
        let refused = canonical_of((V4, protocol, N::None, N::None, ""));
        let Err(Refused::InvalidProtocol { protocol: said, .. }) = refused else {
            panic!("{protocol:?}: {refused:?}");
        };
        assert_eq!(said, protocol);
    }
    // Not the same as not given.
    assert!(matches!(
        super::protocol(""),
        Err(Refused::InvalidProtocol { .. })
    ));
    for text in [
        "",
        " 22",
        "+22",
        "2２",
        "22.0",
        "http",
        "65536",
        "99999999999",
    ] {
        let expected = Err(Refused::InvalidPortValue(text.to_owned()));
        check((V4, "tcp", Text(text), Is(22), ""), expected.clone());
        check((V4, "tcp", Is(22), Text(text), ""), expected);
    }
    for prefix in [
        "::ffff:1.2.3.4",
        "::ffff:1.2.3.4/128",
        "010.0.0.1",
        "10.0.0.0/33",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/",
        "10.0.0.0/+8",
        "10.0.0.0/８",
        "10.0.0.0/8/8",
        "10/8",
        "0/0",
        "/0",
        " 10.0.0.1",
        "fe80::1%eth0",
        "::/129",
        "example.org",
    ] {
        let invalid = Refused::InvalidCidr(prefix.to_owned());
        for family in Family::BOTH {
            check((family, "", N::None, N::None, prefix), Err(invalid.clone()));
        }
    }
    let invalid = Refused::InvalidCidr(String::new());
    assert_eq!(super::prefix(V4, ""), Err(invalid));
}

#[test]
fn what_cant_be_is_refused_as_neutron_refuses_it() {
    let port = |value: &str| Err(Refused::InvalidPortValue(value.to_owned()));
    check((V4, "tcp", Is(0), Is(0), ""), port("0"));
    check((V4, "tcp", Is(0), Is(80), ""), port("0"));
    check((V4, "tcp", Is(-1), Is(80), ""), port("-1"));
    check((V4, "tcp", Is(80), Is(65536), ""), port("65536"));
    check((V4, "icmp", Is(-1), N::None, ""), port("-1"));
    let range = || Err(Refused::InvalidPortRange);
    check((V4, "tcp", Is(81), Is(80), ""), range());
    check((V4, "tcp", Is(80), N::None, ""), range());
    check((V4, "tcp", N::None, Is(80), ""), range());
    let needs = || Err(Refused::ProtocolRequiredWithPorts);
    check((V4, "", Is(80), Is(80), ""), needs());
    check((V4, "any", Is(80), Is(80), ""), needs());
    // CVE-2019-9735.
    for (protocol, number) in [("vrrp", 112), ("112", 112), ("esp", 50), ("47", 47)] {
        let refused = Refused::InvalidProtocolForPort { protocol: number };
        check((V4, protocol, Is(80), Is(80), ""), Err(refused));
    }
    let icmp = |field, attribute, value| {
        Err(Refused::InvalidIcmpValue {
            field,
            attribute,
            value,
        })
    };
    let of_type = icmp("type", "port_range_min", 256);
    check((V4, "icmp", Is(256), N::None, ""), of_type);
    let of_code = icmp("code", "port_range_max", 300);
    check((V6, "icmp", Is(1), Is(300), ""), of_code);
    let missing = Refused::MissingIcmpType { code: 0 };
    check((V4, "icmp", N::None, Is(0), ""), Err(missing));
    for (family, cidr) in [(V4, "2001:db8::/32"), (V6, "10.0.0.0/8"), (V6, "0.0.0.0/0")] {
        let refused = Refused::RuleParameterConflict {
            family,
            cidr: cidr.to_owned(),
        };
        check((family, "", N::None, N::None, cidr), Err(refused));
    }
    let conflicts = |family, protocols: &[&'static str]| {
        for protocol in protocols {
            let refused = Refused::EthertypeConflictWithProtocol {
                family,
                protocol: (*protocol).to_owned(),
            };
            check((family, protocol, N::None, N::None, ""), Err(refused));
        }
    };
    conflicts(V4, &["icmpv6", "ipv6-icmp", "58", "ipv6-encap", "41"]);
    conflicts(V4, &["ipv6-frag", "44", "ipv6-nonxt", "59"]);
    conflicts(V4, &["ipv6-opts", "60", "ipv6-route", "43"]);
}

#[test]
fn messages_are_those_that_clients_know() {
    let check = |refused: Refused, expected: &str| assert_eq!(refused.to_string(), expected);
    check(
        canonical_of((V4, "icmp", Is(256), N::None, "")).expect_err("no type"),
        "Invalid value for ICMP type (port_range_min) 256. It must be 0 to 255.",
    );
    check(
        canonical_of((V4, "112", Is(1), Is(1), "")).expect_err("no ports"),
        "Ports cannot be specified for protocol 112. \
         Ports are only supported for DCCP, SCTP, TCP, UDP, UDPLITE.",
    );
    check(
        Refused::over(Resource::SecurityGroup),
        "Quota exceeded for resources: ['security_group'].",
    );
    check(
        canonical_of((V4, "", N::None, N::None, "x")).expect_err("no prefix"),
        "Invalid CIDR x given as IP prefix.",
    );
}

/// Every kind of thing that can be asked, right or wrong.
fn all_asked() -> impl Iterator<Item = Row> {
    let numbers = (0..=256).map(|n: u16| &*n.to_string().leak());
    let names = protocols::names().chain(["", "any", "nonsense"]);
    let protocols: Vec<&'static str> = names.chain(numbers).collect();
    let ends = [N::None, Is(0), Is(1), Is(80), Is(255), Is(256), Is(65535)];
    let prefixes = ["", "10.0.0.5/24", "0.0.0.0/0", "2001:db8::/32", "::/0"];
    Family::BOTH.into_iter().flat_map(move |family| {
        protocols.clone().into_iter().flat_map(move |protocol| {
            ends.into_iter().flat_map(move |min| {
                ends.into_iter().flat_map(move |max| {
                    let rows = prefixes.into_iter();
                    rows.map(move |prefix| (family, protocol, min, max, prefix))
                })
            })
        })
    })
}

fn rule_of(asks: Asks) -> Rule {
    let rule = GroupRule {
        id: RuleId::from("r"),
        group: GroupId::from("g"),
        project: ProjectId::from("p"),
        said: Default::default(),
        asks,
    };
    rule.rule().expect("what is admitted has a meaning")
}

#[test]
fn c4_what_is_admitted_compiles_without_a_broken_rule() {
    let admitted = all_asked().filter_map(|row| canonical_of(row).ok());
    let rules = admitted.enumerate().map(|(n, asks)| {
        let id = RuleId::new(n.to_string());
        let rule = rule_of(asks);
        (id.clone(), Rule { id, ..rule })
    });
    let group = SecurityGroup {
        id: GroupId::from("g"),
        project: None,
        name: "g".to_owned(),
        stateful: true,
        rules: rules.collect(),
        tag: None,
    };
    assert!(group.rules.len() > 2500, "{} rules", group.rules.len());
    // In IPv6 these are headers on the way to a protocol.
    for protocol in ["ah", "51", "ip", "0", "43", "44", "60", "ipv6-opts"] {
        let refused = Refused::EthertypeConflictWithProtocol {
            family: V6,
            protocol: protocol.to_owned(),
        };
        check((V6, protocol, N::None, N::None, ""), Err(refused));
    }
    let (_, findings) = policy::compile(&inventory(group), &HostId::from("h"));
    assert_eq!(findings, []);
}

fn inventory(group: SecurityGroup) -> Inventory {
    let host = Host {
        id: HostId::from("h"),
        tunnel_address: None,
        peer_trust: PeerTrust::Address,
        settings: Settings::default(),
    };
    let network = Network {
        id: NetworkId::from("n"),
        scope: ScopeId::from("s"),
        vni: None,
        mtu: None,
        subnets: Default::default(),
        dhcp_servers: Default::default(),
        routers: Default::default(),
        eui64_only: false,
    };
    let port = Port {
        id: PortId::from("p"),
        network: network.id.clone(),
        host: Some(host.id.clone()),
        device: DeviceMatch::Mac,
        moving: None,
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        fixed_addresses: Default::default(),
        address_pairs: Default::default(),
        groups: [group.id.clone()].into(),
        port_security: true,
        dhcp_server: false,
        router: false,
    };
    let none: [(model::AddressGroupId, AddressGroup); 0] = [];
    Inventory {
        revision: Default::default(),
        hosts: [(host.id.clone(), host)].into(),
        networks: [(network.id.clone(), network)].into(),
        ports: [(port.id.clone(), port)].into(),
        groups: [(group.id.clone(), group)].into(),
        address_groups: none.into(),
    }
}

#[test]
fn c6_a_rule_admits_nothing_outside_of_what_was_asked() {
    for row in all_asked() {
        let Ok(asks) = canonical_of(row) else {
            continue;
        };
        let (family, protocol, min, max, prefix) = row;
        let rule = rule_of(asks);
        assert_eq!(rule.family, family);
        let number = protocols::number(protocol);
        let given = [min, max].map(|n| match n {
            Is(n) => Some(n),
            N::None | Text(_) => None,
        });
        // All ports: as if none were said.
        let given = match given {
            [Some(1), Some(65535)] => [None, None],
            given => given,
        };
        match rule.l4 {
            L4Match::Any => assert!(matches!(protocol, "" | "any"), "{protocol}"),
            L4Match::Ported { protocol, dst } => {
                assert_eq!(number, Some(protocol.number()));
                let dst = [dst.first(), dst.last()].map(|l4_port| Some(i64::from(l4_port)));
                let all = given == [None, None];
                assert!(dst == given || all, "{dst:?}");
            }
            L4Match::Icmp { kind } => {
                assert!(matches!(number, Some(1 | 58)));
                let seen = [
                    kind.map(|kind| i64::from(kind.icmp_type)),
                    kind.and_then(|kind| kind.code).map(i64::from),
                ];
                assert_eq!(seen, given);
            }
            L4Match::Other(portless) => {
                assert_eq!(number, Some(portless.number()));
                assert_eq!(given, [None, None]);
            }
        }
        match rule.peer {
            Peer::Any => assert_eq!(prefix, ""),
            Peer::Prefix(peer) => {
                let length = prefix.split_once('/').expect("a prefix").1;
                assert_eq!(peer.length().to_string(), length);
                assert_eq!(peer.family(), family);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What is kept asks for itself; and the meaning decides what is equal.
#[test]
fn c3_the_canonical_form_is_its_own() {
    let mut seen = std::collections::BTreeMap::new();
    for asks in all_asked().filter_map(|row| canonical_of(row).ok()) {
        let numbers = [asks.range_min, asks.range_max];
        let numbers = numbers.map(|n| n.map(|n| AskedNumber::Number(i64::from(n))));
        let written = match &asks.peer {
            AskedPeer::Prefix { written, .. } => Some(written.as_str()),
            _ => None,
        };
        let again = canonical(Asked {
            direction: asks.direction,
            family: Some(asks.family),
            protocol: asks.protocol.as_deref(),
            range: [numbers[0].as_ref(), numbers[1].as_ref()],
            prefix: written,
        });
        assert_eq!(again.as_ref(), Ok(&asks));
        let mut rule = rule_of(asks.clone());
        if matches!(rule.peer, Peer::Prefix(prefix) if prefix.length() == 0) {
            rule.peer = Peer::Any;
        }
        let known = seen.entry(content(&asks)).or_insert_with(|| rule.clone());
        assert_eq!(*known, rule);
    }
    let rules: BTreeSet<&Rule> = seen.values().collect();
    assert_eq!(rules.len(), seen.len(), "equal rules have one key");
    let ported = seen.values().filter(|rule| match rule.l4 {
        L4Match::Ported { protocol, .. } => protocol == PortedProtocol::Tcp,
        _ => false,
    });
    assert!(ported.count() > 20);
}

/// Each asked of a group that has the one before.
#[tokio::test]
async fn a_group_has_a_rule_once_however_it_is_written() {
    let servers = Servers::open().await;
    let (one, who) = (&servers.one, member("p"));
    let groups = one.create_groups(&who, vec![new_group("g")]).await;
    let group = &groups.expect("a group")[0];
    let text = |text: &str| Some(text.to_owned());
    let rule = |family, protocol: &str, prefix: Option<&str>| NewRule {
        family: Some(family),
        protocol: text(protocol),
        remote_prefix: prefix.map(str::to_owned),
        description: format!("{protocol} {prefix:?}"),
        ..new_rule(group)
    };
    let all = |written: Vec<NewRule>| async {
        let mut first = None;
        for new in written {
            match &first {
                None => {
                    let ids = one.create_rules(&who, vec![new]).await;
                    first = Some(ids.expect("it is new")[0].clone());
                }
                Some(id) => assert_eq!(
                    refusal(one.create_rules(&who, vec![new]).await),
                    Refused::RuleExists(id.to_string())
                ),
            }
        }
        let id = first.expect("there are some");
        one.delete_rule(&who, id.as_str(), None)
            .await
            .expect("it is there");
    };
    let mut all_ports = rule(V4, "tcp", None);
    all_ports.range_min = Some(AskedNumber::Number(1));
    all_ports.range_max = Some(AskedNumber::Number(65535));
    all(vec![
        rule(V4, "tcp", None),
        rule(V4, "TCP", Some("0.0.0.0/0")),
        rule(V4, "6", Some("9.9.9.9/0")),
        all_ports,
    ])
    .await;
    all(vec![
        rule(V6, "icmp", None),
        rule(V6, "1", Some("::/0")),
        rule(V6, "58", None),
    ])
    .await;
    all(vec![
        rule(V4, "any", Some("10.0.0.1/24")),
        rule(V4, "any", Some("10.0.0.2/24")),
    ])
    .await;
    // As at the first time: its key is free again.
    all(vec![rule(V4, "tcp", None), rule(V4, "tcp", None)]).await;
}

#[tokio::test]
async fn rules_in_bulk_are_made_all_or_none() {
    let servers = Servers::open().await;
    let (one, who) = (&servers.one, member("p"));
    let groups = vec![new_group("g"), new_group("h")];
    let groups = one.create_groups(&who, groups).await.expect("groups");
    let [g, h] = &groups[..] else { panic!("two") };
    let check = async |new: Vec<NewRule>, expected: Refused| {
        let before = servers.listed().await;
        assert_eq!(refusal(one.create_rules(&who, new).await), expected);
        assert_eq!(servers.listed().await.revision, before.revision);
    };
    let empty = Refused::input("security_group_rules", "there is none");
    check(vec![], empty).await;
    check(
        vec![tcp_rule(g, 1), tcp_rule(h, 1)],
        Refused::NotSingleGroupRules,
    )
    .await;
    check(
        vec![tcp_rule(g, 1), tcp_rule(g, 2), tcp_rule(g, 1)],
        Refused::DuplicateRuleInPost,
    )
    .await;
    check(
        vec![tcp_rule(g, 1), tcp_rule(g, 0)],
        Refused::InvalidPortValue("0".to_owned()),
    )
    .await;
    let many: Vec<_> = (1..=101).map(|n| tcp_rule(g, n)).collect();
    let too_many = "101 objects; at most 100 are possible".to_owned();
    check(many, Refused::TooMany(too_many)).await;
    let both = NewRule {
        remote_group: Some(g.to_string()),
        remote_prefix: Some("10.0.0.0/8".to_owned()),
        ..new_rule(g)
    };
    check(vec![both], Refused::MultipleRemoteEntities).await;
    let nowhere = NewRule {
        remote_group: Some("nowhere".to_owned()),
        ..new_rule(g)
    };
    let missing = Refused::SecurityGroupNotFound("nowhere".to_owned());
    check(vec![nowhere], missing).await;
    let nowhere = NewRule {
        remote_addresses: Some("nowhere".to_owned()),
        ..new_rule(g)
    };
    let missing = Refused::AddressGroupNotFound("nowhere".to_owned());
    check(vec![nowhere], missing).await;
    let foreign = NewRule {
        project: Some(ProjectId::from("q")),
        ..new_rule(g)
    };
    check(vec![foreign], Refused::ForeignProject).await;
    let long = NewRule {
        description: "x".repeat(256),
        ..new_rule(g)
    };
    let why = format!("'{}' exceeds maximum length of 255", "x".repeat(256));
    check(vec![long], Refused::input("description", why)).await;

    let made = one.create_rules(&who, (1..=90).map(|n| tcp_rule(g, n)).collect());
    let made = made.await.expect("they fit");
    let state = one.state();
    let ports = made
        .iter()
        .map(|id| state.rule(id).expect("made").asks.range_min);
    assert_eq!(
        ports.collect::<Vec<_>>(),
        (1..=90).map(Some).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_rules_description_changes_and_its_group_with_it() {
    let servers = Servers::open().await;
    let (one, who) = (&servers.one, member("p"));
    let groups = one.create_groups(&who, vec![new_group("g")]).await;
    let group = &groups.expect("a group")[0];
    let id = &one
        .create_rules(&who, vec![new_rule(group)])
        .await
        .expect("a rule")[0];
    let revisions = || {
        let state = one.state();
        let rule = state.rule(id).expect("it is there").modified;
        (rule, state.group_revision(&state.groups[group]))
    };
    let (rule, of_group) = revisions();
    assert_eq!(of_group, rule);
    let wrong = one
        .update_rule(&who, id.as_str(), "new", Some(rule + 1))
        .await;
    let (wanted, current) = (rule + 1, rule);
    assert_eq!(
        refusal(wrong),
        Refused::RevisionConstraint { wanted, current }
    );
    let right = one.update_rule(&who, id.as_str(), "new", Some(rule)).await;
    right.expect("the revision is that");
    assert_eq!(
        one.state().rule(id).expect("it is there").said.description,
        "new"
    );
    assert!(revisions() > (rule, of_group));
    assert_eq!(revisions().0, revisions().1);
    let wrong = one.delete_rule(&who, id.as_str(), Some(rule)).await;
    assert!(matches!(refusal(wrong), Refused::RevisionConstraint { .. }));
    let right = one
        .delete_rule(&who, id.as_str(), Some(revisions().0))
        .await;
    right.expect("the revision is that");
    let gone = Refused::SecurityGroupRuleNotFound(id.to_string());
    assert_eq!(
        refusal(one.delete_rule(&who, id.as_str(), None).await),
        gone
    );
    assert_eq!(
        refusal(one.update_rule(&admin(), "../x", "", None).await),
        { Refused::SecurityGroupRuleNotFound("../x".to_owned()) }
    );
}

/// A plain check of [`Dice`]: else random tests would try one thing only.
#[test]
fn dice_fall_on_every_side() {
    let mut dice = Dice::new(1);
    let sides: BTreeSet<usize> = (0..100).map(|_| dice.below(6)).collect();
    assert_eq!(sides.len(), 6);
}
