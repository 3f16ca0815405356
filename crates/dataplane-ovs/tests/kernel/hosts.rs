//! Two hosts with a cable between them: tunnels, with the groups of the source in an option.

use crate::bed::Bed;
use conformance::lab::{Asked, CableEnd, cable};
use model::{Family, HostId};
use std::net::Ipv4Addr;

pub(crate) struct Hosts {
    pub(crate) a: Bed,
    pub(crate) b: Bed,
}

/// The first VM of each pair is on host a, the second on host b; two tenants have the same addresses.
const VMS: [[(&str, u8, [&str; 2]); 2]; 3] = [
    [
        ("web", 1, ["10.0.0.1", "fd00::1"]),
        ("friend", 2, ["10.0.0.2", "fd00::2"]),
    ],
    [
        ("web-b", 3, ["10.0.0.1", "fd00::1"]),
        ("friend-b", 4, ["10.0.0.2", "fd00::2"]),
    ],
    [
        ("mate", 5, ["10.0.0.5", "fd00::5"]),
        ("stranger", 6, ["10.0.0.6", "fd00::6"]),
    ],
];

const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];

impl Hosts {
    pub(crate) fn new() -> Self {
        let [mut a, mut b] = [(); 2].map(|()| Bed::new(&[("br-int", true)]));
        for [here, there] in VMS {
            for (bed, (name, last, addresses)) in [(&mut a, here), (&mut b, there)] {
                bed.add_vm(name, last, &addresses, "br-int");
            }
        }
        (a.host, b.host) = (HostId::new("a"), HostId::new("b"));
        let [near, far] = [(&a, ADDRESSES[0]), (&b, ADDRESSES[1])].map(|(bed, address)| CableEnd {
            lab: &bed.lab,
            switch: &bed.switch,
            address,
        });
        cable(near, far).unwrap_or_else(|error| panic!("{error}"));
        Self { a, b }
    }

    pub(crate) fn apply(&mut self, policy: &str) {
        self.a.apply(policy);
        self.b.apply(policy);
    }

    /// While a switch asks who has the other host's address, it drops what is for it.
    pub(crate) fn find_each_other(&self) {
        let permitted = || self.answers("friend", "web", Family::V4, Asked::Udp(53));
        assert!((0..20).any(|_| permitted()), "no way from host to host");
    }

    /// Whether one VM is answered by another, wherever they are.
    pub(crate) fn answers(&self, from: &str, to: &str, family: Family, asked: Asked) -> bool {
        let vm = |name: &str| match self.a.has(name) {
            true => self.a.vm(name),
            false => self.b.vm(name),
        };
        let answered = vm(from).is_answered(vm(to), family, asked, crate::bed::SILENCE);
        answered.unwrap_or_else(|error| panic!("{from} asks {to} {asked:?} by {family}: {error}"))
    }
}

pub(crate) fn policy(trust: &str, inspection: &str) -> String {
    let ports = VMS.iter().flat_map(|pair| pair.iter().zip(["a", "b"]));
    let ports = ports.map(|((name, last, [v4, v6]), host)| {
        let network = if name.ends_with("-b") { "blue" } else { "red" };
        let group = match *name {
            "web" | "web-b" => "web",
            "friend" | "friend-b" | "mate" => "friends",
            _ => "others",
        };
        format!(
            "  {name}: {{ host: {host}, network: {network}, device: {name}, mac: '52:54:00:00:00:{last:02x}', addresses: [{v4}, '{v6}'], groups: {group} }}\n"
        )
    });
    format!(
        "
version: 1
settings: {{ inspection: {inspection} }}
hosts:
  a: {{ tunnel-address: 192.0.2.1, peer-trust: {trust} }}
  b: {{ tunnel-address: 192.0.2.2, peer-trust: {trust} }}
networks:
  red: {{ subnets: [10.0.0.0/24, 'fd00::/64'], scope: red, vni: 100 }}
  blue: {{ subnets: [10.0.0.0/24, 'fd00::/64'], scope: blue, vni: 200 }}
groups:
  web:
    tag: 10
    rules:
      - {{ name: http, from: friends, protocol: tcp, ports: 80 }}
      - {{ name: dns, from: any, protocol: udp, ports: 53 }}
      - {{ name: out, to: friends, protocol: icmp }}
  friends: {{ tag: 11, rules: [{{ name: ping, from: any, protocol: icmp }}, {{ name: out, to: any }}] }}
  others: {{ tag: 12, rules: [{{ name: out, to: any }}] }}
ports:
{}",
        ports.collect::<String>()
    )
}

/// What the policy says, whatever the solution.
pub(crate) fn check(hosts: &Hosts) {
    hosts.find_each_other();
    for family in Family::BOTH {
        let answers = |from, to, asked| hosts.answers(from, to, family, asked);
        for (friend, web) in [("friend", "web"), ("friend-b", "web-b")] {
            assert!(answers(friend, web, Asked::Udp(53)), "{friend} {family}");
            assert!(answers(friend, web, Asked::Tcp(80)), "{friend} {family}");
            assert!(!answers(friend, web, Asked::Tcp(81)), "{friend} {family}");
            assert!(!answers(friend, web, Asked::Ping), "{friend} {family}");
            assert!(answers(web, friend, Asked::Ping), "{friend} {family}");
            assert!(!answers(web, friend, Asked::Tcp(80)), "{friend} {family}");
        }
        // On one host, and one who is in no group that the rule names.
        assert!(answers("mate", "web", Asked::Tcp(80)), "{family}");
        assert!(answers("stranger", "web", Asked::Udp(53)), "{family}");
        assert!(!answers("stranger", "web", Asked::Tcp(80)), "{family}");
        assert!(answers("stranger", "friend", Asked::Ping), "{family}");
    }
}

#[test]
fn the_destination_judges_by_the_groups_that_came_with_the_packet() {
    let mut hosts = Hosts::new();
    hosts.apply(&policy("tag", "destination"));
    check(&hosts);
    assert_eq!(hosts.a.audit(), []);
    assert_eq!(hosts.b.audit(), []);
}

#[test]
fn hosts_that_know_members_by_address_understand_each_other() {
    let mut hosts = Hosts::new();
    hosts.apply(&policy("address", "destination"));
    check(&hosts);
}

#[test]
fn a_host_that_is_known_by_addresses_understands_one_that_tags() {
    let mut hosts = Hosts::new();
    let tags = policy("tag", "destination");
    let mixed = tags.replace(
        "192.0.2.2, peer-trust: tag",
        "192.0.2.2, peer-trust: address",
    );
    assert_ne!(mixed, tags);
    hosts.apply(&mixed);
    check(&hosts);
}

#[test]
fn the_source_judges_for_both() {
    let mut hosts = Hosts::new();
    hosts.apply(&policy("tag", "source"));
    check(&hosts);
}

#[test]
fn what_the_destination_would_drop_is_not_sent() {
    let mut hosts = Hosts::new();
    hosts.apply(&policy("tag", "both"));
    check(&hosts);
}

/// The same with the friend on host b in so many groups more that they have a number together in the option.
fn crowded(policy: &str) -> String {
    let more: Vec<String> = (0..9).map(|n| format!("g{n}")).collect();
    let groups = more.iter().zip(20..);
    let groups =
        groups.map(|(id, tag)| format!("  {id}: {{ tag: {tag}, rules: [{{ to: any }}] }}\n"));
    let groups: String = groups.collect();
    let friend = policy.lines().find(|line| line.starts_with("  friend:"));
    let friend = friend.expect("a friend");
    let in_all = format!("groups: [friends, {}]", more.join(", "));
    let policy = policy.replace(friend, &friend.replace("groups: friends", &in_all));
    policy.replace("groups:\n  web:", &format!("groups:\n{groups}  web:"))
}

#[test]
fn a_port_in_more_groups_than_the_option_has_room_for_is_known_by_them() {
    let mut hosts = Hosts::new();
    for inspection in ["destination", "source"] {
        hosts.apply(&crowded(&policy("tag", inspection)));
        check(&hosts);
    }
    // Not in one of them any more.
    let left = crowded(&policy("tag", "destination")).replace("[friends, g0,", "[g0,");
    hosts.apply(&left);
    assert!(hosts.answers("friend", "web", Family::V4, Asked::Udp(53)));
    assert!(!hosts.answers("friend", "web", Family::V4, Asked::Tcp(80)));
}
