//! What holds between policies, whatever they are: shown by planes in memory that see the same
//! packets under two of them.

#[path = "../../policy/tests/support/mod.rs"]
mod support;

use model::{
    Direction, DropReason, Elision, Inventory, MacAddr, PassReason, Peer, PortId, Rule, Verdict,
};
use policy::compile;
use portcullis_dataplane::ModelPlane;
use proptest::prelude::*;
use proptest::sample::select;
use std::net::IpAddr;
use std::time::Duration;
use support::inventory;
use support::random::{PORT, lines};
use wire::{TcpFlags, build};

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0]);
const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);
const LOCAL_V4: &str = "10.0.0.1";

/// A packet between the port and a remote.
#[derive(Clone, Debug)]
struct Shot {
    direction: Direction,
    remote: IpAddr,
    l4: L4,
    local_l4: u16,
    remote_l4: u16,
}

#[derive(Clone, Copy, Debug)]
enum L4 {
    Tcp(u8),
    Udp,
    Gre,
    EchoRequest,
    EchoReply,
    /// Unreachable, about a TCP packet of the same two ends that went the other way.
    Error,
}

impl Shot {
    fn frame(&self) -> Vec<u8> {
        let local = match self.remote {
            IpAddr::V4(_) => support::parsed(LOCAL_V4),
            IpAddr::V6(_) => MAC.eui64_link_local().into(),
        };
        let (macs, ends, l4) = match self.direction {
            Direction::Egress => (
                (MAC, GATEWAY),
                (local, self.remote),
                (self.local_l4, self.remote_l4),
            ),
            Direction::Ingress => (
                (GATEWAY, MAC),
                (self.remote, local),
                (self.remote_l4, self.local_l4),
            ),
        };
        let ip = build::ip(ends.0, ends.1).macs(macs.0, macs.1);
        match self.l4 {
            L4::Tcp(flags) => ip.tcp(l4.0, l4.1, flags),
            L4::Udp => ip.udp(l4.0, l4.1),
            L4::Gre => ip.protocol(47, &[0; 4]),
            L4::EchoRequest => ip.echo_request(l4.0),
            L4::EchoReply => ip.echo_reply(l4.0),
            L4::Error => {
                let quoted = build::ip(ends.1, ends.0).tcp(l4.1, l4.0, TcpFlags::ACK);
                let unreachable = if self.remote.is_ipv4() { 3 } else { 1 };
                ip.icmp_error(unreachable, 1, &quoted.packet())
            }
        }
        .bytes()
    }
}

fn shots() -> impl Strategy<Value = Vec<Shot>> {
    let remotes = [
        "10.0.0.2",
        "10.0.0.5",
        "10.0.0.130",
        "192.0.2.1",
        "2001:db8::1",
        "2001:db8::2",
        "fe80::77",
    ];
    let flags = [
        TcpFlags::SYN,
        TcpFlags::SYN | TcpFlags::ACK,
        TcpFlags::ACK,
        TcpFlags::ACK,
        TcpFlags::FIN | TcpFlags::ACK,
        TcpFlags::RST,
    ];
    let l4 = prop_oneof![
        6 => select(flags.to_vec()).prop_map(L4::Tcp),
        2 => Just(L4::Udp),
        1 => Just(L4::Gre),
        1 => Just(L4::EchoRequest),
        1 => Just(L4::EchoReply),
        2 => Just(L4::Error),
    ];
    let direction = select(Direction::BOTH.to_vec());
    let l4_port = || select(vec![22u16, 53, 65_535]);
    let shot = (
        direction,
        select(remotes.to_vec()),
        l4,
        l4_port(),
        l4_port(),
    );
    let shot = shot.prop_map(|(direction, remote, l4, local_l4, remote_l4)| Shot {
        direction,
        remote: support::parsed(remote),
        l4,
        local_l4,
        remote_l4,
    });
    proptest::collection::vec(shot, 1..40)
}

/// A plane under this policy; a second passes with each packet.
fn verdicts(inventory: &Inventory, mode: Elision, shots: &[Shot]) -> Vec<Verdict> {
    let (mut view, _) = compile(inventory, &"h1".into());
    view.settings.elision = mode;
    let mut plane = ModelPlane::new();
    plane.apply_at(&view, Duration::ZERO);
    let port = PortId::from(PORT);
    let times = (1..).map(Duration::from_secs);
    let judged = shots.iter().zip(times);
    judged
        .map(|(shot, now)| plane.judge(&port, shot.direction, &shot.frame(), now))
        .collect()
}

fn with_rule(inventory: &Inventory, rule: &Rule) -> Inventory {
    let mut more = inventory.clone();
    let group = more.groups.get_mut("g0").expect("always there");
    group.rules.insert(rule.id.clone(), rule.clone());
    more
}

fn new_rule() -> impl Strategy<Value = Rule> {
    let l4 = select(vec!["any", "tcp", "tcp:22-22", "udp", "icmp", "47"]);
    let direction = select(vec!["ingress", "egress"]);
    let remote = select(vec![
        "10.0.0.0/25",
        "10.0.0.2",
        "192.0.0.0/8",
        "2001:db8::/64",
        "2001:db8::1",
        "fe80::/10",
    ]);
    (direction, l4, remote).prop_map(|(direction, l4, remote)| {
        let family = if remote.contains(':') { "IPv6" } else { "IPv4" };
        support::rule("g0/new", [direction, family, l4, remote])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// C6. Nor does it drop anything there.
    #[test]
    fn a_rule_for_some_remotes_changes_nothing_for_others(
        lines in lines(),
        rule in new_rule(),
        shots in shots(),
    ) {
        let Peer::Prefix(named) = rule.peer else { unreachable!("all are prefixes") };
        let before = inventory(lines.iter().map(String::as_str));
        let after = with_rule(&before, &rule);
        let outside = shots.into_iter().filter(|s| !named.contains(s.remote));
        let outside: Vec<Shot> = outside.collect();
        let before = verdicts(&before, Elision::On, &outside);
        let after = verdicts(&after, Elision::On, &outside);
        prop_assert_eq!(before, after);
    }

    /// C5: a rule for an empty set, or for one that is not there, is no rule.
    #[test]
    fn empty_is_nobody(
        lines in lines(),
        rule in new_rule(),
        empty in select(vec!["group:empty", "group:ghost", "addresses:empty", "addresses:ghost"]),
        shots in shots(),
    ) {
        let there = ["group empty", "addresses empty -"];
        let before = inventory(lines.iter().map(String::as_str).chain(there));
        let rule = Rule {
            peer: match empty.split_once(':') {
                Some(("group", id)) => Peer::Group(id.into()),
                Some((_, id)) => Peer::AddressGroup(id.into()),
                None => unreachable!("all have a colon"),
            },
            ..rule
        };
        let after = with_rule(&before, &rule);
        let before = verdicts(&before, Elision::On, &shots);
        let after = verdicts(&after, Elision::On, &shots);
        prop_assert_eq!(before, after);
    }

    /// More rules never drop what passed, at one fixed policy each, but for the budgets.
    #[test]
    fn rules_only_permit(lines in lines(), rule in new_rule(), shots in shots()) {
        let before = inventory(lines.iter().map(String::as_str));
        let after = with_rule(&before, &rule);
        // From no state; with state a rule can end a flow's being elided, or let other flows begin.
        for shot in shots {
            let passed = |inventory| verdicts(inventory, Elision::Off, std::slice::from_ref(&shot));
            let (before, after) = (passed(&before), passed(&after));
            prop_assert!(!before[0].passes() || after[0].passes());
        }
    }

    #[test]
    fn modes_differ_by_errors_alone(lines in lines(), shots in shots()) {
        let inventory = inventory(lines.iter().map(String::as_str));
        let [on, strict, off] = [Elision::On, Elision::Strict, Elision::Off]
            .map(|mode| verdicts(&inventory, mode, &shots));
        for (n, shot) in shots.iter().enumerate() {
            prop_assert_eq!(strict[n].passes(), off[n].passes(), "{:?}", shot);
            let more = matches!(on[n], Verdict::Pass(PassReason::ElidedError));
            prop_assert!(on[n].passes() == off[n].passes() || more, "{:?}", shot);
        }
    }
}

#[test]
fn an_error_about_an_elided_flow_passes_at_a_bounded_rate() {
    let mut inventory = inventory([
        "host h1",
        "network net blue 10.0.0.0/24",
        "group g0",
        "rule g0/in ingress IPv4 tcp any",
        "rule g0/out egress IPv4 tcp any",
        "port vm0 net h1 02:00:00:00:00:00 10.0.0.1 in=g0",
    ]);
    let host = inventory.hosts.get_mut("h1").expect("a host");
    host.settings.budgets.elided_errors_per_s = 2;
    let (view, _) = compile(&inventory, &"h1".into());
    let mut plane = ModelPlane::new();
    plane.apply_at(&view, Duration::ZERO);
    let error = Shot {
        direction: Direction::Ingress,
        remote: support::parsed("192.0.2.1"),
        l4: L4::Error,
        local_l4: 22,
        remote_l4: 40_000,
    };
    let mut check = |now_ms, expected| {
        let now = Duration::from_millis(now_ms);
        let seen = plane.judge(&PortId::from(PORT), error.direction, &error.frame(), now);
        assert_eq!(seen, expected, "at {now:?}");
    };
    check(1_000, Verdict::Pass(PassReason::ElidedError));
    check(1_001, Verdict::Pass(PassReason::ElidedError));
    check(1_999, Verdict::Drop(DropReason::ErrorRate));
    check(2_000, Verdict::Pass(PassReason::ElidedError));
    assert_eq!(plane.flows(&PortId::from(PORT)), 0);
}
