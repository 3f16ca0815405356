//! "Elision", and ICMP errors about tracked and untracked flows.

use crate::support::*;
use model::{Capabilities, Direction, Elision, Narrowing};
use wire::build::{Builder, Ip};

const ALL_OUT_SSH_IN: &[&str] = &["in tcp 22 any", "out any any"];
const ERROR_TYPES: &[&str] = &[
    "in icmp 3 any",
    "in icmp 11 any",
    "in icmp 12 any",
    "out icmp 3 any",
    "out icmp 11 any",
    "out icmp 12 any",
];

/// An ICMP error to the VM from some router, about what the VM sent.
fn error_about(sent: &Builder<Ip>) -> Builder<Ip> {
    into_vm("10.0.0.254").icmp_error(3, 4, &sent.packet())
}

fn ssh_answer() -> Builder<Ip> {
    out(PEER).tcp(22, 5, ACK)
}

#[test]
fn elidable_flows_are_kept_no_state_for() {
    let mut w = World::new(ALL_OUT_SSH_IN);
    w.gets(into_vm(PEER).tcp(5, 22, SYN), "rule g/r0");
    w.sends(ssh_answer(), "rule g/r1");
    w.sends(out(PEER).tcp(22, 5, SYN), "rule g/r1");
    assert_eq!(w.flows(), 0);
    // Connections that the VM opens aren't elidable: their replies go to another port.
    w.sends(out(PEER).tcp(40_000, 443, SYN), "rule g/r1");
    w.gets(into_vm(PEER).tcp(443, 40_000, SYN_ACK), "live g/r1");
    assert_eq!(w.flows(), 1);
}

#[test]
fn the_same_remote_counts_in_both_directions() {
    let mut w = World::new(&["in tcp 22 10.0.0.9", "out tcp any 10.0.0.8"]);
    w.gets(into_vm(PEER).tcp(5, 22, SYN), "rule g/r0");
    assert_eq!(w.flows(), 1);
    w.rules(&["in tcp 22 10.0.0.9", "out tcp any 10.0.0.0/24"]);
    assert_eq!(w.flows(), 0, "entries of what becomes elidable go");
    w.gets(into_vm(PEER).tcp(5, 22, ACK), "rule g/r0");
    assert_eq!(w.flows(), 0);
}

#[test]
fn in_and_out_may_come_from_different_groups() {
    let mut w = World::new(&["in tcp 22 any"]);
    w.stateless(&["out any any"]);
    w.gets(into_vm(PEER).tcp(5, 22, SYN), "rule g/r0");
    assert_eq!(w.flows(), 0);
}

#[test]
fn icmp_and_portless_protocols_are_elided() {
    let mut w = World::in_mode(
        Elision::On,
        &["in icmp 8 any", "out icmp 0 any", "in 47 any", "out 47 any"],
    );
    w.gets(into_vm(PEER).echo_request(1), "rule g/r0");
    w.sends(out(PEER).echo_reply(1), "rule g/r1");
    w.gets(into_vm(PEER).protocol(47, &[]), "rule g/r2");
    w.sends(out(PEER).protocol(47, &[]), "rule g/r3");
    assert_eq!(w.flows(), 0);
    w.rules(&["in icmp 8 any", "out icmp 8 any"]);
    w.gets(into_vm(PEER).echo_request(1), "rule g/r0");
    w.sends(out(PEER).echo_reply(1), "live g/r0");
    assert_eq!(w.flows(), 1);
}

#[test]
fn mode_off_tracks_all() {
    let mut w = World::in_mode(Elision::Off, ALL_OUT_SSH_IN);
    w.gets(into_vm(PEER).tcp(5, 22, SYN), "rule g/r0");
    w.sends(out(PEER).tcp(22, 5, SYN_ACK), "live g/r0");
    assert_eq!(w.flows(), 1);
}

#[test]
fn mode_strict_elides_where_rules_permit_errors() {
    let with = |more: &[&str]| {
        let mut w = World::in_mode(Elision::Strict, &[ALL_OUT_SSH_IN, more].concat());
        w.gets(into_vm(PEER).tcp(5, 22, SYN), "rule g/r0");
        w.flows()
    };
    assert_eq!(with(&[]), 1, "no errors in");
    assert_eq!(with(&["in icmp any any"]), 0);
    assert_eq!(with(&["in icmp any 0.0.0.0/0"]), 0);
    assert_eq!(with(&["in icmp any 10.0.0.0/8"]), 1, "not from any source");
    assert_eq!(with(ERROR_TYPES), 0);
    assert_eq!(with(&ERROR_TYPES[1..]), 1, "a type is missing");
    assert_eq!(
        with(&["in icmp 3/4 any", ERROR_TYPES[1], ERROR_TYPES[2]]),
        1,
        "one code"
    );
    let egress = |rules: &[&str]| {
        let rules = [
            &["in tcp 22 any", "out tcp any any", "in icmp any any"],
            rules,
        ]
        .concat();
        let mut w = World::in_mode(Elision::Strict, &rules);
        w.gets(into_vm(PEER).tcp(5, 22, SYN), "rule g/r0");
        w.flows()
    };
    assert_eq!(egress(&[]), 1, "no errors out");
    assert_eq!(egress(&["out icmp any 10.0.0.8"]), 1, "to another remote");
    assert_eq!(egress(&["out icmp any 10.0.0.9"]), 0);
}

#[test]
fn a_plane_that_cannot_look_into_quotes_runs_strict() {
    let capabilities = Capabilities {
        quote_match: false,
        ..Capabilities::ALL
    };
    let mut w = World::with(capabilities, Elision::On, ALL_OUT_SSH_IN);
    w.gets(into_vm(PEER).tcp(5, 22, SYN), "rule g/r0");
    assert_eq!(w.flows(), 1);
}

#[test]
fn errors_about_a_live_flow_are_live() {
    let mut w = World::in_mode(Elision::Off, &["in tcp 22 any"]);
    w.gets(error_about(&ssh_answer()), "no-rule");
    w.gets(into_vm(PEER).tcp(5, 22, SYN), "rule g/r0");
    w.gets(error_about(&ssh_answer()), "live g/r0");
    let quote = ssh_answer().packet();
    for (icmp_type, expected) in [
        (3, "live g/r0"),
        (11, "live g/r0"),
        (12, "live g/r0"),
        (4, "no-rule"),
        (5, "no-rule"),
        (8, "no-rule"),
    ] {
        let error = into_vm("10.0.0.254").icmp_error(icmp_type, 0, &quote);
        w.gets(error, expected);
    }
    // The VM's own errors quote what it got.
    let got = into_vm(PEER).tcp(5, 22, ACK).packet();
    w.sends(out(PEER).icmp_error(3, 3, &got), "live g/r0");
    // A rule that permits errors comes first.
    w.rules(&["in tcp 22 any", "in icmp 3 any"]);
    w.gets(error_about(&ssh_answer()), "rule g/r1");
    // Of a dead flow, nothing is live.
    w.rules(&["in tcp 80 any"]);
    w.gets(error_about(&ssh_answer()), "no-rule");
}

#[test]
fn errors_in_ipv6() {
    let mut w = World::in_mode(Elision::Off, &["in6 tcp 22 any"]);
    w.gets(into_vm(PEER6).tcp(5, 22, SYN), "rule g/r0");
    let quote = out(PEER6).tcp(22, 5, ACK).packet();
    for (icmp_type, expected) in [
        (1, "live g/r0"),
        (2, "live g/r0"),
        (3, "live g/r0"),
        (4, "live g/r0"),
        (5, "no-rule"),
        (137, "no-rule"),
    ] {
        w.gets(
            into_vm("2001:db8::fe").icmp_error(icmp_type, 0, &quote),
            expected,
        );
    }
}

#[test]
fn an_error_is_about_what_went_the_other_way() {
    let mut w = World::in_mode(Elision::Off, &["in tcp 22 any"]);
    w.gets(into_vm(PEER).tcp(5, 22, SYN), "rule g/r0");
    // Quotes what came in, as if it had gone out.
    let got = into_vm(PEER).tcp(5, 22, ACK);
    w.gets(error_about(&got), "no-rule");
    // To another than the quoted source.
    w.edit_port(|p| p.fixed_addresses.extend([address("10.0.0.3")]));
    let quote = ssh_answer().packet();
    w.gets(
        received("10.0.0.254", "10.0.0.3").icmp_error(3, 4, &quote),
        "no-rule",
    );
    w.gets(error_about(&ssh_answer()), "live g/r0");
}

#[test]
fn a_quote_shows_enough_and_is_no_fragment() {
    let mut w = World::in_mode(Elision::Off, &["in tcp 22 any", "in icmp 8 any"]);
    w.gets(into_vm(PEER).tcp(5, 22, SYN), "rule g/r0");
    let quote = ssh_answer().packet();
    let router = || into_vm("10.0.0.254");
    w.gets(router().icmp_error(3, 4, &quote[..28]), "live g/r0");
    w.gets(router().icmp_error(3, 4, &quote[..27]), "no-rule");
    w.gets(router().icmp_error(3, 4, &[]), "no-rule");
    let first = ssh_answer().fragment(1, 0, true);
    w.gets(error_about(&first), "live g/r0");
    let later = out(PEER).protocol(6, &quote[20..]).fragment(1, 8, false);
    w.gets(error_about(&later), "no-rule");
    w.gets(error_about(&ssh_answer().options(&[131, 3, 4])), "no-rule");
    // An error about an error, and about an echo reply.
    w.gets(into_vm(PEER).echo_request(1), "rule g/r1");
    w.gets(error_about(&out(PEER).echo_reply(1)), "live g/r1");
    let nested = out(PEER).icmp_error(3, 3, &into_vm(PEER).tcp(5, 22, ACK).packet());
    w.gets(error_about(&nested), "no-rule");
}

#[test]
fn errors_keep_nothing_alive() {
    let mut w = World::in_mode(Elision::Off, &["in udp 53 any"]);
    w.gets(into_vm(PEER).udp(9, 53), "rule g/r0");
    let error = error_about(&out(PEER).udp(53, 9));
    w.later(20);
    w.gets(error.clone(), "live g/r0");
    w.later(20);
    w.gets(error, "no-rule");
}

#[test]
fn errors_about_elidable_flows_pass_whether_or_not_they_were_sent() {
    let mut w = World::new(ALL_OUT_SSH_IN);
    w.gets(error_about(&ssh_answer()), "elided-error");
    w.gets(error_about(&out(PEER).tcp(23, 5, ACK)), "no-rule");
    // Egress: what is quoted came to an address of the port.
    let mut w = World::new(&["in tcp any any", "out tcp any any"]);
    let got = |dst| received(PEER, dst).tcp(5, 22, ACK).packet();
    w.sends(out(PEER).icmp_error(3, 3, &got(VM)), "elided-error");
    w.sends(out(PEER).icmp_error(3, 3, &got("10.0.0.77")), "no-rule");
    assert_eq!(w.flows(), 0);
    // The other modes need a rule.
    let mut w = World::in_mode(Elision::Strict, ALL_OUT_SSH_IN);
    w.gets(error_about(&ssh_answer()), "no-rule");
}

#[test]
fn what_only_stateless_groups_permit_has_no_errors() {
    let mut w = World::new(&[]);
    w.stateless(ALL_OUT_SSH_IN);
    w.gets(error_about(&ssh_answer()), "no-rule");
    // One stateful rule in either direction is enough.
    w.rules(&["in tcp 22 any"]);
    w.gets(error_about(&ssh_answer()), "elided-error");
}

#[test]
fn elided_errors_are_counted_by_second_and_direction() {
    let mut w = World::new(&["in tcp any any", "out tcp any any"]);
    w.settings(|s| s.budgets.elided_errors_per_s = 2);
    let error = error_about(&ssh_answer());
    w.gets(error.clone(), "elided-error");
    w.gets(error.clone(), "elided-error");
    w.gets(error.clone(), "error-rate");
    let got = into_vm(PEER).tcp(5, 22, ACK).packet();
    w.sends(out(PEER).icmp_error(3, 3, &got), "elided-error");
    w.later(1);
    w.gets(error.clone(), "elided-error");
}

/// Mid-stream segments of a flow that was elidable, after the rules changed.
fn after_narrowing(narrowing: Narrowing, old: &[&str], new: &[&str]) -> World {
    let mut w = World::new(old);
    w.settings(|s| s.narrowing = narrowing);
    w.gets(into_vm(PEER).tcp(5, 22, ACK), "rule g/r0");
    w.rules(new);
    w
}

#[test]
fn open_flows_of_a_narrowed_class_are_cut() {
    let mut w = after_narrowing(Narrowing::Cut, ALL_OUT_SSH_IN, &["out any any"]);
    // The server's next segment passes by the rule, and revives nothing.
    w.sends(ssh_answer(), "rule g/r0");
    w.gets(into_vm(PEER).tcp(5, 22, ACK), "no-rule");
    // By SYN, flows start.
    w.sends(out(PEER).tcp(40_000, 443, SYN), "rule g/r0");
    w.gets(into_vm(PEER).tcp(443, 40_000, SYN_ACK), "live g/r0");
    // For the established timeout.
    w.later(86_400);
    w.sends(ssh_answer(), "rule g/r0");
    w.gets(into_vm(PEER).tcp(5, 22, ACK), "no-rule");
    w.later(1);
    w.sends(ssh_answer(), "rule g/r0");
    w.gets(into_vm(PEER).tcp(5, 22, ACK), "live g/r0");
}

#[test]
fn narrowing_keep_picks_flows_up() {
    let mut w = after_narrowing(Narrowing::Keep, ALL_OUT_SSH_IN, &["out any any"]);
    w.sends(ssh_answer(), "rule g/r0");
    w.gets(into_vm(PEER).tcp(5, 22, ACK), "live g/r0");
}

#[test]
fn a_hold_does_not_concern_flows_with_an_entry_nor_other_protocols() {
    let mut w = World::new(ALL_OUT_SSH_IN);
    w.sends(out(PEER).tcp(40_000, 443, SYN), "rule g/r1");
    w.rules(&["out any any", "in tcp 80 any"]);
    w.gets(into_vm(PEER).tcp(443, 40_000, SYN_ACK), "live g/r0");
    w.sends(out(PEER).tcp(40_000, 443, ACK), "rule g/r0");
    w.gets(into_vm(PEER).tcp(443, 40_000, ACK), "live g/r0");
    w.sends(out(PEER).udp(9, 53), "rule g/r0");
    w.gets(into_vm(PEER).udp(53, 9), "live g/r0");
    // What is elidable now needs no start.
    w.gets(into_vm(PEER).tcp(5, 80, ACK), "rule g/r1");
    w.sends(out(PEER).tcp(80, 5, ACK), "rule g/r0");
}

/// Is the port held after its rules change like this?
fn check_hold(old: &[&str], new: &[&str], expected: bool) {
    let mut w = World::new(old);
    w.rules(new);
    w.rules(&["in tcp 22 any"]);
    w.gets(into_vm(PEER).tcp(5, 22, ACK), "rule g/r0");
    let picked_up = w.flows() == 1;
    assert_eq!(!picked_up, expected, "{old:?} -> {new:?}");
}

#[test]
fn a_hold_is_set_when_some_elidable_flow_no_longer_is() {
    // `check_hold` ends in rules that elide nothing; what comes before must have been so, too.
    let nothing = &["in tcp 22 any"];
    check_hold(nothing, nothing, false);
    check_hold(nothing, &["in tcp 22 any", "in udp any any"], false);
    check_hold(ALL_OUT_SSH_IN, nothing, true);
    check_hold(&["in udp any any", "out udp any any"], nothing, false);
    check_hold(
        &["in tcp 22 10.0.0.9", "out tcp 1 10.0.0.8/29"],
        nothing,
        true,
    );
    check_hold(
        &["in tcp 22 10.0.0.9", "out tcp 1 10.0.0.10"],
        nothing,
        false,
    );
    check_hold(&["in6 tcp 22 any", "out6 tcp 1 any"], nothing, true);
    check_hold(&["in tcp 22 any", "out6 tcp 1 any"], nothing, false);
}

/// Is the port held after its rules change, when mode, members and all else stay?
fn narrows(old: &[&str], new: &[&str]) -> bool {
    let mut w = World::new(old);
    w.rules(new);
    let probe = out("198.51.100.7").tcp(9, 9, ACK).bytes();
    w.edit(|i| put_group(i, "probe", true, &["out tcp 9 198.51.100.7"]));
    w.edit_port(|p| p.groups.extend(["probe".into()]));
    assert!(w.decide(Direction::Egress, &probe).verdict.passes());
    w.flows() == 0
}

#[test]
fn narrowing_is_exact() {
    let base = &["in tcp 100-200 10.0.0.0/8", "out tcp 5-9 10.0.0.0/8"][..];
    assert!(!narrows(base, base));
    assert!(!narrows(
        base,
        &[
            "in tcp 100-150 10.0.0.0/8",
            "in tcp 151-200 10.0.0.0/8",
            base[1]
        ]
    ));
    assert!(narrows(
        base,
        &[
            "in tcp 100-150 10.0.0.0/8",
            "in tcp 152-200 10.0.0.0/8",
            base[1]
        ]
    ));
    assert!(!narrows(
        base,
        &["in tcp 100-200 10.0.0.0/9", "in any 10.128.0.0/9", base[1]]
    ));
    assert!(narrows(
        base,
        &["in tcp 100-200 10.0.0.0/9", "in any 10.128.0.0/10", base[1]]
    ));
    assert!(narrows(base, &[base[0], "out tcp 5-8 any"]));
    assert!(narrows(
        base,
        &[base[0], "out tcp 5-8 10.0.0.0/8", "out tcp 9 10.0.0.0/9"]
    ));
    assert!(!narrows(base, &["in any 8.0.0.0/5", "out any any"]));
    assert!(narrows(base, &[]));
}

#[test]
fn members_and_the_mode_are_policy() {
    let mut w = World::new(&["in tcp 22 group web", "out any any"]);
    w.edit(|i| {
        put_group(i, "web", true, &[]);
        put_port(i, port("web", PEER_MAC, &[PEER], &["web"]));
    });
    w.edit(|i| i.ports.get_mut("web").expect("is there").groups.clear());
    w.sends(ssh_answer(), "rule g/r1");
    assert_eq!(w.flows(), 0, "held");

    let mut w = World::new(ALL_OUT_SSH_IN);
    w.settings(|s| s.elision = Elision::Off);
    w.sends(ssh_answer(), "rule g/r1");
    assert_eq!(w.flows(), 0, "held");

    let mut w = World::in_mode(Elision::Off, ALL_OUT_SSH_IN);
    w.rules(&["out any any"]);
    w.sends(ssh_answer(), "rule g/r0");
    assert_eq!(w.flows(), 1, "nothing was elided");
}

#[test]
fn a_first_policy_and_port_security_set_no_hold() {
    let mut w = World::new(ALL_OUT_SSH_IN);
    w.edit_port(|p| p.port_security = false);
    w.edit(|i| {
        put_group(i, "g", true, &["out any any"]);
        i.ports.get_mut("vm").expect("is there").port_security = true;
    });
    w.sends(ssh_answer(), "rule g/r0");
    assert_eq!(w.flows(), 1);
}

#[test]
fn at_one_policy_the_modes_differ_by_errors_alone() {
    let frames = [
        (Direction::Ingress, into_vm(PEER).tcp(5, 22, SYN).bytes()),
        (Direction::Egress, out(PEER).tcp(22, 5, SYN_ACK).bytes()),
        (Direction::Egress, out(PEER).tcp(40_000, 443, SYN).bytes()),
        (
            Direction::Ingress,
            into_vm(PEER).tcp(443, 40_000, SYN_ACK).bytes(),
        ),
        (Direction::Ingress, into_vm(PEER).tcp(5, 80, SYN).bytes()),
        (Direction::Egress, out(PEER).echo_request(1).bytes()),
        (Direction::Ingress, into_vm(PEER).echo_reply(1).bytes()),
    ];
    let passes = |elision| {
        let mut w = World::in_mode(elision, ALL_OUT_SSH_IN);
        let seen = frames.iter().map(|(d, f)| w.decide(*d, f).verdict.passes());
        seen.collect::<Vec<_>>()
    };
    let off = passes(Elision::Off);
    assert_eq!(off, [true, true, true, true, false, true, true]);
    assert_eq!(passes(Elision::Strict), off);
    assert_eq!(passes(Elision::On), off);
}
