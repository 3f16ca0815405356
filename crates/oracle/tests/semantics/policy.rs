//! "Objects" and what static says in "Policy".

use crate::support::*;
use model::{AddressPair, Capabilities, Elision, MacAddr};

const MEMBER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 5]);

/// Mode off, so that rules alone are seen at work.
fn world(rules: &[&str]) -> World {
    World::in_mode(Elision::Off, rules)
}

#[test]
fn nothing_passes_without_a_rule() {
    let mut w = world(&[]);
    w.sends(out(PEER).udp(1, 2), "no-rule");
    w.gets(into_vm(PEER6).udp(1, 2), "no-rule");
    w.edit_port(|p| p.groups.clear());
    w.sends(out(PEER).udp(1, 2), "no-rule");
}

#[test]
fn a_rule_has_a_direction_and_a_family() {
    let mut w = world(&["in udp 53 any", "out6 udp 53 any"]);
    w.gets(into_vm(PEER).udp(1, 53), "rule g/r0");
    w.sends(out(PEER).udp(2, 53), "no-rule");
    w.sends(out(PEER6).udp(1, 53), "rule g/r1");
    w.gets(into_vm(PEER6).udp(2, 53), "no-rule");
}

#[test]
fn ports_are_destination_ports_both_ends_included() {
    let mut w = world(&["in tcp 1000-2000 any", "in udp 0 any"]);
    for (port, expected) in [
        (999, "no-rule"),
        (1000, "rule g/r0"),
        (2000, "rule g/r0"),
        (2001, "no-rule"),
    ] {
        w.gets(into_vm(PEER).tcp(5, port, SYN), expected);
    }
    w.gets(into_vm(PEER).tcp(1500, 80, SYN), "no-rule");
    w.gets(into_vm(PEER).udp(5, 1500), "no-rule");
    w.gets(into_vm(PEER).udp(5, 0), "rule g/r1");
}

#[test]
fn protocols_go_by_name_or_number() {
    let mut w = world(&[
        "in sctp 7 any",
        "in udplite 7 any",
        "in dccp 7 any",
        "in 47 any",
        "in 0 any",
    ]);
    w.gets(into_vm(PEER).sctp(1, 7), "rule g/r0");
    w.gets(into_vm(PEER).udp_lite(1, 7), "rule g/r1");
    w.gets(into_vm(PEER).dccp(1, 7), "rule g/r2");
    w.gets(into_vm(PEER).protocol(47, &[]), "rule g/r3");
    w.gets(into_vm(PEER).protocol(0, &[]), "rule g/r4");
    w.gets(into_vm(PEER).protocol(46, &[]), "no-rule");
    w.gets(into_vm(PEER).udp(1, 7), "no-rule");
}

#[test]
fn icmp_rules_name_types_and_codes() {
    let mut w = world(&["in icmp 8 any", "in icmp 3/4 any", "in6 icmp any any"]);
    w.gets(into_vm(PEER).echo_request(1), "rule g/r0");
    w.gets(into_vm(PEER).icmp(8, 5, [0; 4]), "rule g/r0");
    w.gets(into_vm(PEER).icmp(3, 4, [0; 4]), "rule g/r1");
    w.gets(into_vm(PEER).icmp(3, 3, [0; 4]), "no-rule");
    w.gets(into_vm(PEER6).echo_request(1), "rule g/r2");
    // The other family's ICMP is a protocol by number, which no rule can name.
    w.gets(
        into_vm(PEER).protocol(58, &[8, 0, 0, 0, 0, 0, 0, 0]),
        "no-rule",
    );
    w.gets(
        into_vm(PEER6).protocol(1, &[8, 0, 0, 0, 0, 0, 0, 0]),
        "no-rule",
    );
    w.rules(&["in any any", "in6 any any"]);
    w.gets(
        into_vm(PEER).protocol(58, &[8, 0, 0, 0, 0, 0, 0, 0]),
        "rule g/r0",
    );
}

#[test]
fn rules_for_ipv6_extension_headers_match_nobody() {
    let mut w = world(&[
        "in6 0 any",
        "in6 43 any",
        "in6 44 any",
        "in6 51 any",
        "in6 60 any",
    ]);
    for protocol in [0, 43, 44, 51, 60] {
        let later = into_vm(PEER6).protocol(protocol, &[59, 0, 0, 0, 0, 0, 0, 0]);
        w.gets(later, "no-rule");
    }
    w.rules(&["in 51 any"]);
    w.gets(into_vm(PEER).protocol(51, &[]), "rule g/r0");
}

#[test]
fn a_prefix_of_the_other_family_matches_nobody() {
    let mut w = world(&["in any ::/0", "in6 any 10.0.0.0/8", "in any addresses six"]);
    w.edit(|i| put_addresses(i, "six", &["::/0"]));
    w.gets(into_vm(PEER).udp(1, 2), "no-rule");
    w.gets(into_vm(PEER6).udp(1, 2), "no-rule");
}

#[test]
fn prefixes_and_address_groups_contain_addresses() {
    let mut w = world(&["in any 10.1.0.0/16", "in any addresses office"]);
    w.gets(into_vm("10.1.255.255").udp(1, 2), "rule g/r0");
    w.gets(into_vm("10.2.0.0").udp(1, 2), "no-rule");
    // A dangling address group is nobody.
    w.gets(into_vm("192.0.2.5").udp(1, 2), "no-rule");
    w.edit(|i| put_addresses(i, "office", &["192.0.2.0/28", "198.51.100.1"]));
    w.gets(into_vm("192.0.2.5").udp(1, 2), "rule g/r1");
    w.gets(into_vm("198.51.100.1").udp(1, 2), "rule g/r1");
    w.gets(into_vm("198.51.100.2").udp(1, 2), "no-rule");
    w.edit(|i| put_addresses(i, "office", &[]));
    w.gets(into_vm("192.0.2.5").udp(1, 2), "no-rule");
}

#[test]
fn a_remote_group_is_its_members_addresses() {
    let mut w = world(&["in any group web", "in6 any group web"]);
    w.edit(|i| {
        put_port(
            i,
            port("member", MEMBER_MAC, &["10.0.0.5", "2001:db8::5"], &["web"]),
        )
    });
    // Of a group that doesn't exist.
    w.gets(into_vm("10.0.0.5").udp(1, 2), "no-rule");
    w.edit(|i| put_group(i, "web", true, &[]));
    w.gets(into_vm("10.0.0.5").udp(1, 2), "rule g/r0");
    w.gets(into_vm("2001:db8::5").udp(1, 2), "rule g/r1");
    w.gets(into_vm("10.0.0.6").udp(1, 2), "no-rule");
    // On whatever host, or none.
    w.edit(|i| i.ports.get_mut("member").expect("is there").host = None);
    w.gets(into_vm("10.0.0.5").udp(1, 2), "rule g/r0");
    w.edit(|i| i.ports.get_mut("member").expect("is there").port_security = false);
    w.gets(into_vm("10.0.0.5").udp(1, 2), "no-rule");
}

#[test]
fn members_are_of_the_same_scope() {
    let mut w = world(&["in any group web"]);
    w.edit(|i| {
        put_group(i, "web", true, &[]);
        i.networks.insert("far".into(), network("far", "other"));
        let mut member = port("member", MEMBER_MAC, &["10.0.0.5"], &["web"]);
        member.network = "far".into();
        put_port(i, member);
    });
    w.gets(into_vm("10.0.0.5").udp(1, 2), "no-rule");
    // Another network of the same scope.
    w.edit(|i| {
        i.networks.insert("far".into(), network("far", "s"));
    });
    w.gets(into_vm("10.0.0.5").udp(1, 2), "rule g/r0");
    w.edit(|i| {
        i.networks.remove("far");
    });
    w.gets(into_vm("10.0.0.5").udp(1, 2), "no-rule");
}

#[test]
fn short_pairs_and_link_local_addresses_are_no_members() {
    let mut w = world(&["in any group web", "in6 any group web", "in6 any fe80::/10"]);
    w.edit(|i| {
        put_group(i, "web", true, &[]);
        let mut member = port("member", MEMBER_MAC, &["fe80::5"], &["web"]);
        let prefixes = [
            "10.1.0.0/24",
            "10.2.0.0/23",
            "2001:db8:1::/64",
            "2001:db8:2::/63",
        ];
        member.address_pairs.extend(prefixes.map(|p| AddressPair {
            prefix: p.parse().expect("a prefix"),
            mac: None,
        }));
        put_port(i, member);
    });
    w.gets(into_vm("10.1.0.77").udp(1, 2), "rule g/r0");
    w.gets(into_vm("10.2.0.77").udp(1, 2), "no-rule");
    w.gets(into_vm("2001:db8:1::77").udp(1, 2), "rule g/r1");
    w.gets(into_vm("2001:db8:2::77").udp(1, 2), "no-rule");
    w.gets(into_vm("fe80::5").udp(1, 2), "rule g/r2");
}

#[test]
fn a_port_has_the_union_of_its_groups_rules() {
    let mut w = world(&["in udp 1-10 any"]);
    w.edit(|i| {
        put_group(i, "f", true, &["in udp 5-20 any"]);
        put_group(i, "z", true, &["in udp 1-30 any"]);
    });
    w.edit_port(|p| p.groups.extend(["f".into(), "z".into(), "missing".into()]));
    // The least of those that permit is reported.
    w.gets(into_vm(PEER).udp(9, 5), "rule f/r0");
    w.gets(into_vm(PEER).udp(9, 1), "rule g/r0");
    w.gets(into_vm(PEER).udp(9, 25), "rule z/r0");
}

#[test]
fn two_ends_on_one_host_are_judged_apart() {
    let mut w = world(&["out udp 53 any"]);
    w.edit(|i| {
        put_group(i, "closed", true, &[]);
        put_port(i, port("server", MEMBER_MAC, &["10.0.0.5"], &["closed"]));
    });
    let query = out("10.0.0.5").udp(9, 53);
    w.sends(query.clone(), "rule g/r0");
    let ingress = model::Direction::Ingress;
    let seen = w
        .oracle
        .decide(&"server".into(), ingress, &query.bytes(), w.now);
    assert_eq!(text(&seen.verdict), "no-rule");
    // The sender's flow is its own: its reply would be live, and the server's port has none.
    w.gets(into_vm("10.0.0.5").udp(53, 9), "live g/r0");
    assert_eq!(w.oracle.flows(&"server".into(), w.now), []);
}

#[test]
fn a_plane_without_a_protocols_ports_refuses_such_rules() {
    let capabilities = Capabilities {
        dccp_ports: false,
        ..Capabilities::ALL
    };
    let mut w = World::with(
        capabilities,
        Elision::On,
        &["in dccp 7 any", "in udplite 7 any"],
    );
    w.gets(into_vm(PEER).dccp(1, 7), "no-rule");
    w.gets(into_vm(PEER).udp_lite(1, 7), "rule g/r1");
    w.rules(&["in dccp any any"]);
    w.gets(into_vm(PEER).dccp(1, 7), "rule g/r0");
}
