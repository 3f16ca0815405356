//! Flows in "Policy": start, replies, revocation, states, timeouts, budgets.

use crate::support::*;
use model::{Direction, Elision, MacAddr};
use portcullis_oracle::Open;

/// Mode off: all that can be tracked is.
fn world(rules: &[&str]) -> World {
    World::in_mode(Elision::Off, rules)
}

/// TCP from the peer's port 5 to the VM's port 22.
fn to_ssh(flags: u8) -> wire::build::Builder<wire::build::Ip> {
    into_vm(PEER).tcp(5, 22, flags)
}

/// Back from the VM's port 22.
fn from_ssh(flags: u8) -> wire::build::Builder<wire::build::Ip> {
    out(PEER).tcp(22, 5, flags)
}

/// A world in which the peer has an established connection to port 22.
fn connected(rules: &[&str]) -> World {
    let mut w = world(rules);
    for frame in [to_ssh(SYN), from_ssh(SYN_ACK), to_ssh(ACK)] {
        let ingress = frame == to_ssh(SYN) || frame == to_ssh(ACK);
        let direction = if ingress {
            Direction::Ingress
        } else {
            Direction::Egress
        };
        assert!(w.decide(direction, &frame.bytes()).verdict.passes());
    }
    w
}

const ORIGINAL_ONLY: &[&str] = &["in tcp 22 any"];

#[test]
fn replies_of_a_flow_are_live() {
    let mut w = world(ORIGINAL_ONLY);
    w.sends(from_ssh(SYN_ACK), "no-rule");
    w.gets(to_ssh(SYN), "rule g/r0");
    w.sends(from_ssh(SYN_ACK), "live g/r0");
    w.gets(to_ssh(ACK), "rule g/r0");
    w.sends(from_ssh(ACK), "live g/r0");
    // Another tuple is another matter.
    w.sends(out(PEER).tcp(22, 6, ACK), "no-rule");
    w.sends(out(PEER).tcp(23, 5, ACK), "no-rule");
    w.sends(out("10.0.0.8").tcp(22, 5, ACK), "no-rule");
    w.sends(out(PEER).udp(22, 5), "no-rule");
}

#[test]
fn tcp_starts_by_syn_or_by_ack_in_mid_stream() {
    const FIN: u8 = 1;
    for (flags, starts) in [
        (SYN, true),
        (ACK, true),
        (ACK | 8, true),
        (SYN_ACK, false),
        (SYN | FIN, false),
        (SYN | RST, false),
        (FIN_ACK, false),
        (RST, false),
        (RST | ACK, false),
        (0, false),
        (0xff, false),
    ] {
        let mut w = world(ORIGINAL_ONLY);
        w.gets(to_ssh(flags), "rule g/r0");
        assert_eq!(w.flows() == 1, starts, "{flags:#x}");
    }
}

#[test]
fn other_protocols_start_by_any_packet() {
    let mut w = world(&["in udp 53 any", "in 47 any", "in sctp 7 any"]);
    w.gets(into_vm(PEER).udp(9, 53), "rule g/r0");
    w.sends(out(PEER).udp(53, 9), "live g/r0");
    w.gets(into_vm(PEER).protocol(47, &[1, 2]), "rule g/r1");
    w.sends(out(PEER).protocol(47, &[3, 4]), "live g/r1");
    w.gets(into_vm(PEER).sctp(9, 7), "rule g/r2");
    w.sends(out(PEER).sctp(7, 9), "live g/r2");
    w.sends(out(PEER).protocol(46, &[]), "no-rule");
}

#[test]
fn icmp_replies_answer_their_request() {
    let mut w = world(&["in icmp any any", "in6 icmp any any"]);
    w.gets(into_vm(PEER).echo_request(7), "rule g/r0");
    w.sends(out(PEER).echo_reply(7), "live g/r0");
    w.sends(out(PEER).echo_reply(8), "no-rule");
    w.sends(out(PEER).echo_reply(7).icmp_code(1), "no-rule");
    w.sends(out(PEER).echo_request(7), "no-rule");
    w.sends(out(PEER).icmp_query(14, 7, 1), "no-rule");
    w.gets(into_vm(PEER).icmp_query(13, 7, 1), "rule g/r0");
    w.sends(out(PEER).icmp_query(14, 7, 1), "live g/r0");
    w.gets(into_vm(PEER6).echo_request(7), "rule g/r1");
    w.sends(out(PEER6).echo_reply(7), "live g/r1");
    // Nothing else starts a flow.
    let mut w = world(&["in icmp any any"]);
    w.gets(into_vm(PEER).echo_reply(7), "rule g/r0");
    w.gets(into_vm(PEER).icmp(17, 0, [0, 7, 0, 0]), "rule g/r0");
    w.gets(into_vm(PEER).echo_request(7).icmp_code(1), "rule g/r0");
    assert_eq!(w.flows(), 0);
}

#[test]
fn both_ends_may_ask_with_one_identifier() {
    let mut w = world(&["in icmp 8 any", "out icmp 8 any"]);
    w.gets(into_vm(PEER).echo_request(7), "rule g/r0");
    w.gets(into_vm(PEER).echo_reply(7), "no-rule");
    w.sends(out(PEER).echo_request(7), "rule g/r1");
    w.gets(into_vm(PEER).echo_reply(7), "live g/r1");
    w.sends(out(PEER).echo_reply(7), "live g/r0");
    assert_eq!(w.flows(), 2);
}

#[test]
fn multicast_and_broadcast_start_nothing() {
    let mut w = world(&["out udp any any", "out6 udp any any", "in udp any any"]);
    for group in ["239.1.1.1", "255.255.255.255", "10.0.0.255"] {
        w.sends(out(group).udp(1, 2), "rule g/r0");
    }
    w.sends(out("ff02::fb").udp(1, 2), "rule g/r1");
    w.sends(
        out(PEER)
            .udp(1, 2)
            .dst_mac(MacAddr([0x33, 0x33, 0, 0, 0, 1])),
        "rule g/r0",
    );
    w.gets(received(PEER, "10.0.0.255").udp(1, 2), "rule g/r2");
    assert_eq!(w.flows(), 0);
}

#[test]
fn what_only_stateless_groups_permit_starts_nothing() {
    let mut w = world(&["in tcp 22 10.0.0.9"]);
    w.stateless(&["in tcp any any"]);
    w.gets(into_vm(PEER).tcp(5, 80, SYN), "rule u/r0");
    w.sends(out(PEER).tcp(80, 5, SYN_ACK), "no-rule");
    // A stateful rule permits it, too.
    w.gets(to_ssh(SYN), "rule g/r0");
    w.sends(from_ssh(SYN_ACK), "live g/r0");
    // Whichever is named.
    w.edit(|i| put_group(i, "a", false, &["in any any"]));
    w.edit_port(|p| p.groups.extend(["a".into()]));
    w.gets(into_vm(PEER).tcp(6, 22, SYN), "rule a/r0");
    w.sends(out(PEER).tcp(22, 6, SYN_ACK), "live a/r0");
}

#[test]
fn a_syn_against_an_established_flow_is_not_live() {
    let mut w = connected(ORIGINAL_ONLY);
    w.sends(from_ssh(SYN), "no-rule");
    w.sends(from_ssh(SYN | 0x40), "no-rule");
    w.sends(from_ssh(ACK), "live g/r0");
}

#[test]
fn simultaneous_open_is_live() {
    let mut w = world(ORIGINAL_ONLY);
    w.gets(to_ssh(SYN), "rule g/r0");
    w.sends(from_ssh(SYN), "live g/r0");
    w.gets(to_ssh(SYN_ACK), "rule g/r0");
    w.sends(from_ssh(SYN_ACK), "live g/r0");
}

#[test]
fn revocation_ends_the_replies() {
    let mut w = connected(ORIGINAL_ONLY);
    w.rules(&["in tcp 80 any"]);
    w.gets(to_ssh(ACK), "no-rule");
    w.sends(from_ssh(ACK), "no-rule");
    // Restoring the rule revives the flow.
    w.rules(ORIGINAL_ONLY);
    w.sends(from_ssh(ACK), "live g/r0");
    // Another rule that covers it keeps it.
    w.rules(&["in tcp 80 any", "in tcp 20-30 10.0.0.0/24"]);
    w.sends(from_ssh(ACK), "live g/r1");
}

#[test]
fn a_peer_that_leaves_the_group_is_cut() {
    let mut w = world(&["in tcp 22 group admin"]);
    w.edit(|i| {
        put_group(i, "admin", true, &[]);
        put_port(i, port("admin", PEER_MAC, &[PEER], &["admin"]));
    });
    w.gets(to_ssh(SYN), "rule g/r0");
    w.sends(from_ssh(SYN_ACK), "live g/r0");
    w.edit(|i| i.ports.get_mut("admin").expect("is there").groups.clear());
    w.sends(from_ssh(ACK), "no-rule");
}

#[test]
fn a_dead_flow_is_not_revived_by_its_replies() {
    let mut w = connected(&["in tcp 22 any", "out any any"]);
    w.rules(&["out any any"]);
    // The server's own segments pass by the rule, and start nothing.
    w.sends(from_ssh(ACK), "rule g/r0");
    w.gets(to_ssh(ACK), "no-rule");
    w.sends(from_ssh(ACK), "rule g/r0");
    w.gets(to_ssh(ACK), "no-rule");
    // Nor do they keep the entry.
    w.later(86_400);
    assert_eq!(w.flows(), 1);
    w.later(1);
    assert_eq!(w.flows(), 0);
}

#[test]
fn a_syn_starts_a_dead_flow_anew() {
    let mut w = connected(&["in tcp 22 any", "out any any"]);
    w.rules(&["out any any"]);
    w.sends(from_ssh(SYN_ACK), "rule g/r0");
    w.gets(to_ssh(ACK), "no-rule");
    w.sends(from_ssh(SYN), "rule g/r0");
    w.gets(to_ssh(SYN_ACK), "live g/r0");
    assert_eq!(w.flows(), 1);
}

#[test]
fn a_dead_flow_of_udp_starts_nothing_while_it_is_there() {
    let mut w = world(&["in udp 53 any", "out any any"]);
    w.gets(into_vm(PEER).udp(9, 53), "rule g/r0");
    w.rules(&["out any any"]);
    w.sends(out(PEER).udp(53, 9), "rule g/r0");
    w.gets(into_vm(PEER).udp(9, 53), "no-rule");
    w.later(31);
    w.sends(out(PEER).udp(53, 9), "rule g/r0");
    w.gets(into_vm(PEER).udp(9, 53), "live g/r0");
}

#[test]
fn a_closing_flow_is_restarted_by_a_syn() {
    let mut w = connected(&["in tcp 22 any", "out tcp 5 any"]);
    w.gets(to_ssh(FIN_ACK), "rule g/r0");
    // Closed by one end alone: a SYN of the other passes static, and is no restart.
    w.sends(from_ssh(SYN), "rule g/r1");
    w.gets(to_ssh(ACK), "rule g/r0");
    w.sends(from_ssh(FIN_ACK), "live g/r0");
    w.sends(from_ssh(ACK), "live g/r0");
    // Closed by both: it starts anew, in that SYN's direction.
    w.sends(from_ssh(SYN), "rule g/r1");
    w.gets(to_ssh(SYN_ACK), "live g/r1");
    w.gets(to_ssh(RST), "live g/r1");
    w.gets(to_ssh(SYN), "rule g/r0");
    w.sends(from_ssh(SYN_ACK), "live g/r0");
}

#[test]
fn what_cannot_start_cannot_restart() {
    let mut w = connected(ORIGINAL_ONLY);
    w.stateless(&["out tcp 5 any"]);
    w.gets(to_ssh(RST), "rule g/r0");
    w.sends(from_ssh(SYN), "rule u/r0");
    w.gets(to_ssh(SYN_ACK), "rule g/r0");
    w.sends(from_ssh(ACK), "live g/r0");
}

/// After `idle` seconds the reply is live; a second above the timeout it is not.
fn check_timeout(
    mut w: World,
    reply: impl Fn() -> wire::build::Builder<wire::build::Ip>,
    idle: u64,
) {
    let reply = reply().bytes();
    w.later(idle);
    let at = w
        .oracle
        .explain(&"vm".into(), Direction::Egress, &reply, w.now);
    assert_eq!(text(&at.verdict), "live g/r0", "{:#?}", at.trace);
    w.later(1);
    w.check(Direction::Egress, &reply, "no-rule");
}

#[test]
fn tcp_timeouts() {
    let mut w = world(ORIGINAL_ONLY);
    w.gets(to_ssh(SYN), "rule g/r0");
    check_timeout(w, || from_ssh(SYN_ACK), 30);
    check_timeout(connected(ORIGINAL_ONLY), || from_ssh(ACK), 86_400);
    let mut w = connected(ORIGINAL_ONLY);
    w.gets(to_ssh(FIN_ACK), "rule g/r0");
    w.sends(from_ssh(FIN_ACK), "live g/r0");
    check_timeout(w, || from_ssh(ACK), 120);
    let mut w = connected(ORIGINAL_ONLY);
    w.gets(to_ssh(FIN_ACK), "rule g/r0");
    check_timeout(w, || from_ssh(ACK), 86_400);
    let mut w = connected(ORIGINAL_ONLY);
    w.sends(from_ssh(RST), "live g/r0");
    check_timeout(w, || from_ssh(ACK), 10);
    // Reset stays reset.
    let mut w = connected(ORIGINAL_ONLY);
    w.gets(to_ssh(RST), "rule g/r0");
    w.gets(to_ssh(FIN_ACK), "rule g/r0");
    w.sends(from_ssh(FIN_ACK), "live g/r0");
    check_timeout(w, || from_ssh(ACK), 10);
}

#[test]
fn tcp_is_established_by_the_ack_after_a_reply() {
    // A SYN and its answer alone are still opening.
    let mut w = world(ORIGINAL_ONLY);
    w.gets(to_ssh(SYN), "rule g/r0");
    w.sends(from_ssh(SYN_ACK), "live g/r0");
    check_timeout(w, || from_ssh(ACK), 30);
    // Of a flow picked up in mid-stream, a reply is enough.
    let mut w = world(ORIGINAL_ONLY);
    w.gets(to_ssh(ACK), "rule g/r0");
    w.sends(from_ssh(ACK), "live g/r0");
    check_timeout(w, || from_ssh(ACK), 86_400);
    // The originator's ACKs without a reply are not.
    let mut w = world(ORIGINAL_ONLY);
    w.gets(to_ssh(ACK), "rule g/r0");
    w.gets(to_ssh(ACK), "rule g/r0");
    check_timeout(w, || from_ssh(ACK), 30);
}

#[test]
fn other_timeouts() {
    let dns = || out(PEER).udp(53, 9);
    let mut w = world(&["in udp 53 any"]);
    w.gets(into_vm(PEER).udp(9, 53), "rule g/r0");
    check_timeout(w, dns, 30);
    let mut w = world(&["in udp 53 any"]);
    w.gets(into_vm(PEER).udp(9, 53), "rule g/r0");
    w.sends(dns(), "live g/r0");
    check_timeout(w, dns, 180);
    let mut w = world(&["in icmp 8 any"]);
    w.gets(into_vm(PEER).echo_request(1), "rule g/r0");
    w.sends(out(PEER).echo_reply(1), "live g/r0");
    check_timeout(w, || out(PEER).echo_reply(1), 30);
    let mut w = world(&["in 47 any"]);
    w.gets(into_vm(PEER).protocol(47, &[]), "rule g/r0");
    check_timeout(w, || out(PEER).protocol(47, &[]), 600);
    let mut w = world(&["in udplite 53 any"]);
    w.gets(into_vm(PEER).udp_lite(9, 53), "rule g/r0");
    check_timeout(w, || out(PEER).udp_lite(53, 9), 600);
    let mut w = world(&["in udp 53 any"]);
    w.settings(|s| s.timeouts.udp_s = 5);
    w.gets(into_vm(PEER).udp(9, 53), "rule g/r0");
    check_timeout(w, dns, 5);
}

#[test]
fn only_a_flows_own_packets_keep_it_alive() {
    let mut w = world(&["in udp 53 any", "in tcp 22 any", "out tcp 5 any"]);
    w.gets(into_vm(PEER).udp(9, 53), "rule g/r0");
    w.later(20);
    w.gets(into_vm(PEER).udp(9, 53), "rule g/r0");
    w.later(20);
    w.sends(out(PEER).udp(53, 9), "live g/r0");
    w.later(180);
    w.sends(out(PEER).udp(53, 9), "live g/r0");
    // A SYN against an established flow passes by its rule, and keeps nothing alive.
    let mut w = connected(&["in tcp 22 any", "out tcp 5 any"]);
    w.later(86_000);
    w.sends(from_ssh(SYN), "rule g/r1");
    w.later(401);
    assert_eq!(w.flows(), 0);
}

#[test]
fn the_verdict_near_a_timeout_is_left_open() {
    let reply = out(PEER).udp(53, 9).bytes();
    for (idle, open) in [(27, false), (28, true), (60, true), (61, false)] {
        let mut w = world(&["in udp 53 any"]);
        w.gets(into_vm(PEER).udp(9, 53), "rule g/r0");
        w.later(idle);
        assert_eq!(w.oracle.is_doubtful(w.now), open, "{idle}");
        let left = w.decide(Direction::Egress, &reply).open;
        assert_eq!(left == Open::Either, open, "{idle}");
    }
}

#[test]
fn when_the_ports_budget_is_spent_new_flows_drop() {
    let mut w = world(&["in udp any any", "in tcp any any"]);
    w.settings(|s| s.budgets.flows_per_port = 2);
    for port in [1, 2] {
        w.gets(into_vm(PEER).udp(port, 53), "rule g/r0");
        w.sends(out(PEER).udp(53, port), "live g/r0");
    }
    w.gets(into_vm(PEER).udp(3, 53), "flow-budget");
    w.gets(into_vm(PEER).tcp(3, 53, SYN), "flow-budget");
    // What needs no new flow passes.
    w.gets(into_vm(PEER).udp(1, 53), "rule g/r0");
    w.gets(into_vm(PEER).tcp(3, 53, RST), "rule g/r1");
    // Expired flows are as if absent.
    w.later(181);
    w.gets(into_vm(PEER).udp(3, 53), "rule g/r0");
}

#[test]
fn untracked_classes_pass_when_the_budget_is_spent() {
    let mut w = world(&["in udp any any", "in tcp any any", "out tcp any any"]);
    w.settings(|s| {
        s.budgets.flows_per_port = 1;
        s.elision = Elision::On;
    });
    w.gets(into_vm(PEER).udp(1, 53), "rule g/r0");
    w.sends(out(PEER).udp(53, 1), "live g/r0");
    w.gets(into_vm(PEER).udp(2, 53), "flow-budget");
    w.gets(into_vm(PEER).tcp(2, 22, SYN), "rule g/r1");
}

#[test]
fn a_flow_stays_opening_while_the_budget_is_spent() {
    let mut w = world(&["in udp any any"]);
    w.settings(|s| s.budgets.flows_per_port = 1);
    w.gets(into_vm(PEER).udp(1, 53), "rule g/r0");
    w.gets(into_vm(PEER).udp(2, 53), "rule g/r0");
    w.sends(out(PEER).udp(53, 1), "live g/r0");
    w.sends(out(PEER).udp(53, 2), "live g/r0");
    w.later(31);
    w.sends(out(PEER).udp(53, 2), "no-rule");
    w.sends(out(PEER).udp(53, 1), "live g/r0");
}

#[test]
fn a_restart_needs_a_new_flow() {
    let mut w = connected(ORIGINAL_ONLY);
    w.settings(|s| s.budgets.flows_per_port = 1);
    w.gets(to_ssh(RST), "rule g/r0");
    w.gets(to_ssh(SYN), "flow-budget");
}

#[test]
fn of_half_open_flows_the_oldest_pays() {
    let mut w = world(&["in udp any any"]);
    w.settings(|s| s.budgets.half_open_per_port = 3);
    for port in [1, 2, 3] {
        w.gets(into_vm(PEER).udp(port, 53), "rule g/r0");
    }
    // The second is established and leaves its place, which is then given after the last one.
    w.sends(out(PEER).udp(53, 2), "live g/r0");
    w.gets(into_vm(PEER).udp(4, 53), "rule g/r0");
    w.gets(into_vm(PEER).udp(5, 53), "rule g/r0");
    w.sends(out(PEER).udp(53, 3), "no-rule");
    for port in [1, 2, 4, 5] {
        w.sends(out(PEER).udp(53, port), "live g/r0");
    }
}

#[test]
fn of_32_taken_places_in_turn_the_last_pays() {
    let mut w = world(&["in udp any any"]);
    w.settings(|s| s.budgets.half_open_per_port = 40);
    for port in 0..40 {
        w.gets(into_vm(PEER).udp(port, 53), "rule g/r0");
    }
    // Places 0 to 35 stay taken, 36 to 39 fall free; the search begins at place 0.
    for port in 36..40 {
        w.sends(out(PEER).udp(53, port), "live g/r0");
    }
    w.gets(into_vm(PEER).udp(100, 53), "rule g/r0");
    w.sends(out(PEER).udp(53, 31), "no-rule");
    // Then at place 32.
    w.gets(into_vm(PEER).udp(101, 53), "rule g/r0");
    for port in [30, 32, 33, 34, 35, 100, 101] {
        w.sends(out(PEER).udp(53, port), "live g/r0");
    }
}

#[test]
fn the_host_keeps_a_reserve_for_each_port() {
    let mut w = world(&["in udp any any"]);
    w.edit(|i| put_port(i, port("other", PEER_MAC, &["10.0.0.2"], &["g"])));
    w.settings(|s| {
        s.budgets.flows_per_host = 10;
        s.budgets.reserve_per_port = 3;
    });
    // 10 less two reserves of 3 leaves 4 to share.
    for port in 1..=4 {
        w.gets(into_vm(PEER).udp(port, 53), "rule g/r0");
    }
    w.gets(into_vm(PEER).udp(5, 53), "flow-budget");
    let mut other = |port| {
        let frame = received(PEER, "10.0.0.2").udp(port, 53).bytes();
        let seen = w
            .oracle
            .decide(&"other".into(), Direction::Ingress, &frame, w.now);
        text(&seen.verdict)
    };
    for port in 1..=3 {
        assert_eq!(other(port), "rule g/r0");
    }
    assert_eq!(other(4), "flow-budget");
}

#[test]
fn a_port_that_goes_takes_its_flows_along() {
    let mut w = connected(ORIGINAL_ONLY);
    w.edit_port(|p| p.host = None);
    w.edit_port(|p| p.host = Some("h".into()));
    w.sends(from_ssh(ACK), "no-rule");
    let mut w = connected(ORIGINAL_ONLY);
    w.oracle.remove_device(&"vm".into());
    w.sends(from_ssh(ACK), "no-rule");
}

#[test]
fn two_local_ends_start_jointly_where_the_plane_cannot_do_better() {
    let capabilities = model::Capabilities {
        per_end_start: false,
        ..model::Capabilities::ALL
    };
    let mut w = World::with(capabilities, Elision::On, &["out udp 53 any"]);
    w.edit(|i| {
        put_group(i, "closed", true, &[]);
        put_port(i, port("server", PEER_MAC, &["10.0.0.5"], &["closed"]));
    });
    w.sends(out("10.0.0.5").udp(9, 53), "rule g/r0");
    w.gets(into_vm("10.0.0.5").udp(53, 9), "no-rule");
    w.sends(out("10.0.0.6").udp(9, 53), "rule g/r0");
    w.gets(into_vm("10.0.0.6").udp(53, 9), "live g/r0");
    w.edit(|i| put_group(i, "closed", true, &["in udp 53 any"]));
    w.sends(out("10.0.0.5").udp(9, 53), "rule g/r0");
    w.gets(into_vm("10.0.0.5").udp(53, 9), "live g/r0");
}
