//! Who reaches whom, in small policies that can be read. The oracle's view of larger ones is in `conformance`.

mod support;

use model::{Family, Inventory, L4Match, L4PortRange, PortedProtocol};
use portcullis_policy::{By, L4Part, L4Set, Party, Question, Reach, Who, changes, reach};
use support::inventory;

const HOST_AND_NETWORK: [&str; 2] = ["host h1", "network net blue 10.0.0.0/24"];

fn policy(lines: &[&str]) -> Inventory {
    inventory(HOST_AND_NETWORK.iter().chain(lines).copied())
}

/// The answers in lines, `SOURCES -> DESTINATIONS: KINDS | RULES OUT | RULES IN`.
fn check(lines: &[&str], question: &Question, expected: &[&str]) {
    assert_eq!(told(&reach(&policy(lines), question)), expected);
}

fn check_changes(old: &[&str], new: &[&str], opened: &[&str], closed: &[&str]) {
    let changes = changes(&policy(old), &policy(new));
    assert_eq!(told(&changes.opened), opened, "opened");
    assert_eq!(told(&changes.closed), closed, "closed");
}

fn told(rows: &[Reach]) -> Vec<String> {
    let line = |reach: &Reach| {
        let [from, to] = [&reach.from, &reach.to].map(party);
        let [out, into] = [&reach.leaves_by, &reach.enters_by].map(by);
        format!(
            "{from} -> {to}: {} {} | {out} | {into}",
            reach.kinds.family(),
            kinds(&reach.kinds)
        )
    };
    rows.iter().map(line).collect()
}

fn party(party: &Party) -> String {
    match party {
        Party::Ports { ports, addresses } => {
            let ports: Vec<&str> = ports.iter().map(|port| port.as_str()).collect();
            let addresses: Vec<String> = addresses
                .iter()
                .flat_map(|set| set.prefixes())
                .map(|prefix| format!("@{prefix}"))
                .collect();
            format!("{}{}", ports.join(","), addresses.concat())
        }
        Party::Outside { within, except, .. } => {
            let within: Vec<String> = within.iter().map(|prefix| prefix.to_string()).collect();
            let except: Vec<String> = except
                .iter()
                .map(|prefix| format!(" but {prefix}"))
                .collect();
            format!("outside {}{}", within.join(","), except.concat())
        }
    }
}

fn by(by: &By) -> String {
    match by {
        By::Rules(rules) => {
            let rules: Vec<String> = rules.iter().map(|rule| rule.to_string()).collect();
            rules.join(",")
        }
        By::NoPortSecurity => "no port security".to_owned(),
        By::NoHost => "no host".to_owned(),
        By::Outside => "-".to_owned(),
    }
}

fn kinds(kinds: &L4Set) -> String {
    if kinds.is_any() {
        return "any".to_owned();
    }
    let part = |part: L4Part| match part {
        L4Part::Protocols { first, last } if first == last => format!("{first}"),
        L4Part::Protocols { first, last } => format!("{first}-{last}"),
        L4Part::Ports { protocol, dst } => {
            format!("{}:{}-{}", protocol.number(), dst.first(), dst.last())
        }
        L4Part::IcmpTypes { first, last } => format!("icmp {first}-{last}"),
        L4Part::IcmpCodes {
            icmp_type,
            first,
            last,
        } => format!("icmp {icmp_type}/{first}-{last}"),
    };
    let parts: Vec<String> = kinds.parts().into_iter().map(part).collect();
    parts.join(",")
}

fn everything() -> Question {
    Question::everything()
}

fn ports(names: &[&str]) -> Who {
    Who::Ports(names.iter().map(|name| (*name).into()).collect())
}

fn to(names: &[&str]) -> Question {
    let to = ports(names);
    Question { to, ..everything() }
}

fn from(names: &[&str]) -> Question {
    let from = ports(names);
    Question {
        from,
        ..everything()
    }
}

const TIERS: [&str; 9] = [
    "group web",
    "group db",
    "rule web/https ingress IPv4 tcp:443-443 any",
    "rule web/to-db egress IPv4 tcp:5432-5432 group:db",
    "rule db/from-web ingress IPv4 tcp:5432-5432 group:web",
    "rule db/ping ingress IPv4 icmp:8 192.0.2.0/24",
    "port web1 net h1 02:00:00:00:00:01 10.0.0.1 in=web",
    "port web2 net h1 02:00:00:00:00:02 10.0.0.2 in=web",
    "port db1 net h1 02:00:00:00:00:03 10.0.0.3 in=db",
];

#[test]
fn both_ends_have_to_permit_it_and_outside_has_no_rules() {
    check(
        &TIERS,
        &to(&["db1"]),
        &[
            "web1,web2 -> db1: IPv4 6:5432-5432 | web/to-db | db/from-web",
            "outside 192.0.2.0/24 -> db1: IPv4 icmp 8-8 | - | db/ping",
        ],
    );
    // Web's own rules let nothing out to web, and nothing to outside.
    check(
        &TIERS,
        &from(&["web1"]),
        &["web1 -> db1: IPv4 6:5432-5432 | web/to-db | db/from-web"],
    );
    check(
        &TIERS,
        &to(&["web2"]),
        &["outside 0.0.0.0/0 -> web2: IPv4 6:443-443 | - | web/https"],
    );
}

#[test]
fn kinds_and_addresses_narrow_the_question() {
    let tcp_443 = L4Match::Ported {
        protocol: PortedProtocol::Tcp,
        dst: L4PortRange::new(443, 443).expect("a range"),
    };
    let kinds = Family::BOTH.map(|family| L4Set::of(family, tcp_443));
    check(
        &TIERS,
        &Question {
            kinds,
            ..to(&["db1"])
        },
        &[],
    );
    let of = |prefix: &str| {
        let from = Who::Addresses([support::parsed(prefix)].into());
        Question {
            from,
            ..everything()
        }
    };
    check(
        &TIERS,
        &of("10.0.0.1"),
        &["web1 -> db1: IPv4 6:5432-5432 | web/to-db | db/from-web"],
    );
    check(
        &TIERS,
        &of("192.0.2.0/25"),
        &[
            "outside 192.0.2.0/25 -> db1: IPv4 icmp 8-8 | - | db/ping",
            "outside 192.0.2.0/25 -> web1,web2: IPv4 6:443-443 | - | web/https",
        ],
    );
}

#[test]
fn rules_that_permit_the_same_are_told_of_in_one_form() {
    let apart = [
        "group g",
        "rule g/1 ingress IPv4 tcp:1-5 any",
        "rule g/2 ingress IPv4 tcp:6-9 0.0.0.0/1",
        "rule g/3 ingress IPv4 tcp:6-9 128.0.0.0/1",
        "rule g/4 ingress IPv4 tcp:3-7 10.0.0.0/8",
        "port vm net h1 02:00:00:00:00:01 10.0.0.1 in=g",
    ];
    check(
        &apart,
        &to(&["vm"]),
        &["outside 0.0.0.0/0 -> vm: IPv4 6:1-9 | - | g/1,g/2,g/3,g/4"],
    );
    let all = [
        "group g",
        "rule g/1 ingress IPv4 any any",
        "rule g/2 ingress IPv4 tcp:6-9 10.1.0.0/16",
        "port vm net h1 02:00:00:00:00:01 10.0.0.1 in=g",
    ];
    check(
        &all,
        &to(&["vm"]),
        &["outside 0.0.0.0/0 -> vm: IPv4 any | - | g/1,g/2"],
    );
}

#[test]
fn of_outside_is_told_without_the_addresses_of_ports() {
    check(
        &[
            "group g",
            "rule g/in ingress IPv4 tcp:22-22 10.0.0.0/30",
            "port a net h1 02:00:00:00:00:01 10.0.0.1",
            "port b net h1 02:00:00:00:00:02 10.0.0.2 in=g pairs=10.0.0.9,0.0.0.0/0",
        ],
        &to(&["b"]),
        &["outside 10.0.0.0/30 -> b: IPv4 6:22-22 | - | g/in"],
    );
}

#[test]
fn members_are_addresses_pairs_are_too_and_wide_ones_are_not() {
    let lines = [
        "group g",
        "rule g/out egress IPv4 any any",
        "group db",
        "rule db/in ingress IPv4 tcp:1-1 group:g",
        "port member net h1 02:00:00:00:00:01 10.0.0.1 in=g pairs=10.0.0.8/29,10.2.0.0/16",
        // It has a member's address, though it isn't in the group.
        "port other net h1 02:00:00:00:00:02 10.0.0.2 in=free pairs=10.0.0.9",
        "group free",
        "rule free/out egress IPv4 any any",
        "port db net h1 02:00:00:00:00:03 10.0.0.3 in=db",
    ];
    check(
        &lines,
        &to(&["db"]),
        &[
            "member@10.0.0.1@10.0.0.8/29 -> db: IPv4 6:1-1 | g/out | db/in",
            "other@10.0.0.9 -> db: IPv4 6:1-1 | free/out | db/in",
        ],
    );
}

#[test]
fn without_port_security_or_a_host_no_rules_are_asked() {
    let lines = [
        "group g",
        "rule g/in ingress IPv4 tcp:1-1 10.0.0.0/24",
        "port judged net h1 02:00:00:00:00:01 10.0.0.1 in=g",
        "port open net h1 02:00:00:00:00:02 10.0.0.2 in=g off",
        "port away net - 02:00:00:00:00:03 10.0.0.3 in=g",
        "network red red -",
        "port stranger red h1 02:00:00:00:00:04 10.0.0.1 off",
    ];
    let among = Question {
        from: ports(&["judged", "open", "away", "stranger"]),
        ..to(&["judged", "open", "away", "stranger"])
    };
    check(
        &lines,
        &among,
        &[
            "open -> away: IPv4 any | no port security | no host",
            "away -> judged: IPv4 6:1-1 | no host | g/in",
            "open -> judged: IPv4 6:1-1 | no port security | g/in",
            "away -> open: IPv4 any | no host | no port security",
        ],
    );
}

#[test]
fn only_rules_that_permit_some_of_it_are_named() {
    let lines = [
        "group open",
        "rule open/out egress IPv4 any any",
        "group g",
        "rule g/a ingress IPv4 tcp:1-1 10.0.0.1",
        "rule g/b ingress IPv4 tcp:1-1 10.0.0.2",
        "rule g/c ingress IPv4 tcp:2-2 10.0.0.1",
        "port a net h1 02:00:00:00:00:01 10.0.0.1 in=open",
        "port b net h1 02:00:00:00:00:02 10.0.0.2 in=open",
        "port g net h1 02:00:00:00:00:03 10.0.0.3 in=g",
    ];
    check(
        &lines,
        &to(&["g"]),
        &[
            "a -> g: IPv4 6:1-2 | open/out | g/a,g/c",
            "b -> g: IPv4 6:1-1 | open/out | g/b",
        ],
    );
}

#[test]
fn addresses_of_the_two_sides_decide_each_for_the_others_rules() {
    let lines = [
        "group a",
        "rule a/out egress IPv4 tcp:1-4 10.0.0.16/28",
        "group b",
        "rule b/in ingress IPv4 tcp:3-9 10.0.0.1",
        "port a net h1 02:00:00:00:00:01 10.0.0.1,10.0.0.2 in=a",
        "port b net h1 02:00:00:00:00:02 10.0.0.3,10.0.0.17,10.0.0.18 in=b",
    ];
    let question = Question {
        from: ports(&["a"]),
        ..to(&["b"])
    };
    check(
        &lines,
        &question,
        &["a@10.0.0.1 -> b@10.0.0.17@10.0.0.18: IPv4 6:3-4 | a/out | b/in"],
    );
}

#[test]
fn ports_that_are_alike_are_told_of_together() {
    let mut lines: Vec<String> = TIERS.iter().map(|line| (*line).to_owned()).collect();
    lines.extend((0..10_000).map(|n| {
        let (a, b) = (n / 256, n % 256);
        format!("port m{n} net h1 02:00:00:01:{a:02x}:{b:02x} 10.1.{a}.{b} in=web")
    }));
    let inventory = policy(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let told = reach(&inventory, &everything());
    let sizes: Vec<(usize, usize)> = told
        .iter()
        .map(|row| (size(&row.from), size(&row.to)))
        .collect();
    assert_eq!(sizes, [(10_002, 1), (0, 1), (0, 10_002)]);
}

fn size(party: &Party) -> usize {
    match party {
        Party::Ports { ports, .. } => ports.len(),
        Party::Outside { .. } => 0,
    }
}

fn tiers_and(more: &[&'static str], without: &str) -> Vec<&'static str> {
    let kept = TIERS
        .into_iter()
        .filter(|line| without.is_empty() || !line.starts_with(without));
    kept.chain(more.iter().copied()).collect()
}

#[test]
fn all_but_a_little_is_told_as_that() {
    let narrower = tiers_and(
        &[
            "rule web/https ingress IPv4 tcp:443-443 203.0.113.0/24",
            "rule web/2 ingress IPv4 tcp:443-443 10.0.0.8/29",
        ],
        "rule web/https",
    );
    check_changes(
        &TIERS,
        &narrower,
        &[],
        &[
            "outside 0.0.0.0/0 but 10.0.0.8/29 but 203.0.113.0/24 -> web1,web2: IPv4 6:443-443 | - | web/https",
        ],
    );
}

#[test]
fn what_permits_the_same_is_no_change() {
    let renamed = tiers_and(
        &[
            "rule web/tls ingress IPv4 tcp:443-443 0.0.0.0/1",
            "rule web/too ingress IPv4 tcp:443-443 128.0.0.0/1",
            // Nobody in it sends there.
            "rule db/unused ingress IPv4 tcp:80-80 group:db",
        ],
        "rule web/https",
    );
    check_changes(&TIERS, &renamed, &[], &[]);
    check_changes(&renamed, &TIERS, &[], &[]);
    check_changes(&[], &[], &[], &[]);
}

#[test]
fn changes_are_the_flows_that_open_and_close() {
    let wider = tiers_and(
        &["rule db/from-web ingress IPv4 tcp:5432-5439 group:web"],
        "rule db/from-web",
    );
    check_changes(&TIERS, &wider, &[], &[]);
    let wider_out = tiers_and(
        &[
            "rule db/from-web ingress IPv4 tcp:5432-5439 group:web",
            "rule web/to-db egress IPv4 tcp:5430-5433 group:db",
        ],
        "rule db/from-web",
    );
    let row = |rest: &str| format!("web1,web2 -> db1: IPv4 6:{rest} | web/to-db | db/from-web");
    check_changes(&TIERS, &wider_out, &[&row("5433-5433")], &[]);
    check_changes(&wider_out, &TIERS, &[], &[&row("5433-5433")]);
    check_changes(
        &TIERS,
        &tiers_and(
            &["rule db/ping ingress IPv4 icmp:8/0 192.0.2.0/25"],
            "rule db/ping",
        ),
        &[],
        &[
            "outside 192.0.2.0/24 -> db1: IPv4 icmp 8/1-255 | - | db/ping",
            "outside 192.0.2.128/25 -> db1: IPv4 icmp 8/0-0 | - | db/ping",
        ],
    );
}

#[test]
fn a_port_that_comes_brings_its_flows_and_no_others() {
    let more = tiers_and(&["port web3 net h1 02:00:00:00:00:04 10.0.0.4 in=web"], "");
    let expected = [
        "web3 -> db1: IPv4 6:5432-5432 | web/to-db | db/from-web",
        "outside 0.0.0.0/0 -> web3: IPv4 6:443-443 | - | web/https",
    ];
    check_changes(&TIERS, &more, &expected, &[]);
    check_changes(&more, &TIERS, &[], &expected);
}

#[test]
fn another_address_is_another_end() {
    let moved = tiers_and(
        &["port web1 net h1 02:00:00:00:00:01 10.0.0.7 in=web"],
        "port web1",
    );
    let [db, web] = [
        "-> db1: IPv4 6:5432-5432 | web/to-db | db/from-web",
        "IPv4 6:443-443 | - | web/https",
    ];
    check_changes(
        &TIERS,
        &moved,
        &[
            &format!("web1 {db}"),
            &format!("outside 0.0.0.0/0 -> web1: {web}"),
        ],
        &[
            &format!("web1 {db}"),
            &format!("outside 0.0.0.0/0 -> web1: {web}"),
        ],
    );
}
