//! docs/semantics.md "Guard", a test for each sentence.

use crate::support::*;
use model::{AddressPair, Direction, MacAddr};
use wire::build::{self, SOURCE_LINK_LAYER, TARGET_LINK_LAYER};

/// Without any rule: what passes does so by the guard.
fn world() -> World {
    World::new(&[])
}

const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x77]);
/// Derived from the VM's MAC.
const VM_LINK_LOCAL: &str = "fe80::ff:fe00:1";

fn pair(prefix: &str, mac: Option<MacAddr>) -> AddressPair {
    AddressPair {
        prefix: prefix.parse().expect("a prefix"),
        mac,
    }
}

#[test]
fn tags_and_foreign_ethertypes_drop() {
    let mut w = world();
    w.sends(out(PEER).udp(1, 2).tag(0x8100, 0), "vlan-tag");
    w.gets(into_vm(PEER).udp(1, 2).tag(0x88a8, 5), "vlan-tag");
    w.sends(
        out(PEER).udp(1, 2).tag(0x8100, 0).src_mac(OTHER_MAC),
        "vlan-tag",
    );
    let lldp = build::ethernet(0x88cc, &[0; 50]).macs(VM_MAC, PEER_MAC);
    w.sends(lldp.clone(), "ethertype");
    w.gets(lldp.clone(), "ethertype");
    w.settings(|s| s.ethertypes.extend([0x88cc]));
    w.sends(lldp.clone(), "infrastructure");
    w.gets(lldp.clone(), "infrastructure");
    w.sends(lldp.src_mac(OTHER_MAC), "spoofed-mac");
    w.sends(
        build::ethernet(46, &[0; 46]).macs(VM_MAC, PEER_MAC),
        "ethertype",
    );
}

#[test]
fn what_cannot_be_parsed_drops() {
    let mut w = world();
    w.check(Direction::Egress, &[0; 13], "bad-header");
    w.sends(out(PEER).udp(1, 2).options(&[131, 3, 4]), "bad-header");
    w.gets(into_vm(PEER).udp(1, 2).options(&[137, 3, 4]), "bad-header");
    w.sends(
        out(PEER).udp(1, 2).version(6).src_mac(OTHER_MAC),
        "bad-header",
    );
    w.sends(
        out(PEER).tcp(1, 2, SYN).fragment(1, 0, true).cut(40),
        "bad-fragment",
    );
}

#[test]
fn the_source_mac_is_the_ports_or_a_pairs() {
    let mut w = world();
    w.sends(out(PEER).udp(1, 2), "no-rule");
    w.sends(out(PEER).udp(1, 2).src_mac(OTHER_MAC), "spoofed-mac");
    w.edit_port(|p| p.address_pairs.extend([pair("10.0.0.50", Some(OTHER_MAC))]));
    // A fixed address comes with any MAC of the port.
    w.sends(out(PEER).udp(1, 2).src_mac(OTHER_MAC), "no-rule");
    // To the port, it is nobody's business.
    w.gets(into_vm(PEER).udp(1, 2).src_mac(VM_MAC), "no-rule");
}

#[test]
fn a_pairs_address_comes_with_its_mac() {
    let mut w = world();
    w.edit_port(|p| {
        p.address_pairs.extend([
            pair("10.0.1.0/24", None),
            pair("10.0.2.0/24", Some(OTHER_MAC)),
        ]);
    });
    w.sends(sent("10.0.1.7", PEER).udp(1, 2), "no-rule");
    w.sends(
        sent("10.0.1.7", PEER).udp(1, 2).src_mac(OTHER_MAC),
        "spoofed-ip",
    );
    w.sends(
        sent("10.0.2.7", PEER).udp(1, 2).src_mac(OTHER_MAC),
        "no-rule",
    );
    w.sends(sent("10.0.2.7", PEER).udp(1, 2), "spoofed-ip");
    w.sends(sent("10.0.3.7", PEER).udp(1, 2), "spoofed-ip");
    // As a destination it is the port's, whatever the MAC.
    w.gets(received(PEER, "10.0.2.7").udp(1, 2), "no-rule");
}

#[test]
fn arp_speaks_for_own_addresses() {
    let mut w = world();
    let own = (VM_MAC, v4(VM));
    let request = build::arp_request(own, v4(PEER)).macs(VM_MAC, MacAddr::BROADCAST);
    w.sends(request.clone(), "infrastructure");
    w.sends(
        build::arp_reply(own, (PEER_MAC, v4(PEER))).macs(VM_MAC, PEER_MAC),
        "infrastructure",
    );
    w.sends(request.clone().src_mac(OTHER_MAC), "spoofed-mac");
    w.sends(request.clone().sender_mac(OTHER_MAC), "spoofed-arp");
    w.sends(request.clone().opcode(3), "spoofed-arp");
    for header in [
        (6, 0x0800, 6, 4),
        (1, 0x86dd, 6, 4),
        (1, 0x0800, 8, 4),
        (1, 0x0800, 6, 16),
    ] {
        w.sends(request.clone().arp_header(header), "spoofed-arp");
    }
    w.sends(request.clone().cut(14 + 27), "bad-header");
    w.gets(request.clone().cut(14 + 27), "bad-header");
    let foreign = build::arp_request((VM_MAC, v4("10.0.0.2")), v4(PEER));
    w.sends(foreign.clone().macs(VM_MAC, PEER_MAC), "spoofed-arp");
    w.gets(foreign.macs(PEER_MAC, VM_MAC), "infrastructure");
}

#[test]
fn an_arp_probe_asks_for_an_own_address() {
    let mut w = world();
    let probe = |target| build::arp_request((VM_MAC, v4("0.0.0.0")), v4(target));
    w.sends(probe(VM).macs(VM_MAC, MacAddr::BROADCAST), "infrastructure");
    w.sends(probe(PEER).macs(VM_MAC, MacAddr::BROADCAST), "spoofed-arp");
}

#[test]
fn arp_for_a_pair_comes_with_the_pairs_mac() {
    let mut w = world();
    w.edit_port(|p| p.address_pairs.extend([pair("10.0.0.50", Some(OTHER_MAC))]));
    let with = |mac| build::arp_request((mac, v4("10.0.0.50")), v4(PEER)).macs(mac, PEER_MAC);
    w.sends(with(OTHER_MAC), "infrastructure");
    w.sends(with(VM_MAC), "spoofed-arp");
}

#[test]
fn rarp_announces_the_ports_mac() {
    let mut w = world();
    let rarp = build::rarp(VM_MAC).macs(VM_MAC, MacAddr::BROADCAST);
    w.sends(rarp.clone(), "infrastructure");
    w.gets(rarp.clone(), "infrastructure");
    w.sends(rarp.clone().opcode(4), "spoofed-arp");
    w.sends(rarp.clone().sender_mac(OTHER_MAC), "spoofed-arp");
    w.sends(rarp.target_mac(OTHER_MAC), "spoofed-arp");
}

#[test]
fn neighbour_discovery_speaks_for_own_addresses() {
    let mut w = world();
    let ns = sent(VM6, "ff02::1:ff00:9").neighbour_solicitation(v6(PEER6));
    w.sends(
        ns.clone().nd_link_layer(SOURCE_LINK_LAYER, VM_MAC),
        "infrastructure",
    );
    w.sends(
        ns.clone().nd_link_layer(SOURCE_LINK_LAYER, OTHER_MAC),
        "spoofed-nd",
    );
    w.sends(ns.clone().hops(254), "spoofed-nd");
    w.sends(ns.clone().icmp_code(1), "spoofed-nd");
    w.sends(ns.clone().fragment(1, 0, true), "spoofed-nd");
    w.sends(ns.clone().append(&[1, 0, 0, 0, 0, 0, 0, 0]), "spoofed-nd");
    w.sends(ns.clone().ip_length(23), "spoofed-nd");
    let foreign = sent("2001:db8::2", PEER6).neighbour_solicitation(v6(PEER6));
    w.sends(foreign, "spoofed-nd");
    w.sends(
        sent(VM_LINK_LOCAL, "ff02::2").router_solicitation(),
        "infrastructure",
    );
    w.sends(sent("::", "ff02::2").router_solicitation(), "spoofed-nd");

    let na = |target| sent(VM6, PEER6).neighbour_advertisement(v6(target));
    w.sends(
        na(VM6).nd_link_layer(TARGET_LINK_LAYER, VM_MAC),
        "infrastructure",
    );
    w.sends(na(VM_LINK_LOCAL), "infrastructure");
    w.sends(
        na(VM6).nd_link_layer(TARGET_LINK_LAYER, OTHER_MAC),
        "spoofed-nd",
    );
    w.sends(na(PEER6), "spoofed-nd");
}

#[test]
fn duplicate_address_detection_is_for_own_addresses() {
    let mut w = world();
    let dad = |target| sent("::", "ff02::1:ff00:1").neighbour_solicitation(v6(target));
    w.sends(dad(VM6), "infrastructure");
    w.sends(dad(VM_LINK_LOCAL), "infrastructure");
    w.sends(dad(PEER6), "spoofed-nd");
}

#[test]
fn advertisements_of_routers_are_for_routers() {
    let mut w = world();
    let ra = sent(VM_LINK_LOCAL, "ff02::1").router_advertisement();
    let redirect = sent(VM_LINK_LOCAL, PEER6).redirect(v6(PEER6), v6("2001:db8::7"));
    w.sends(ra.clone(), "rogue-ra");
    w.sends(redirect.clone(), "rogue-ra");
    w.edit_port(|p| p.router = true);
    w.sends(ra.clone(), "infrastructure");
    w.sends(redirect, "infrastructure");
    w.sends(ra.hops(64), "spoofed-nd");
}

#[test]
fn listener_reports_pass_and_queries_do_not() {
    let mut w = world();
    let report = sent(VM_LINK_LOCAL, "ff02::16").mld_v2_report(v6("ff02::1:3"));
    w.sends(report.clone(), "infrastructure");
    w.sends(report.clone().router_alert(), "infrastructure");
    w.sends(
        sent("::", "ff02::16").mld_v2_report(v6("ff02::1:3")),
        "infrastructure",
    );
    w.sends(report.hops(2), "no-rule");
    w.sends(
        sent(VM6, "ff02::16").mld_v2_report(v6("ff02::1:3")),
        "no-rule",
    );
    w.sends(
        sent(VM_LINK_LOCAL, "ff05::16").mld_v2_report(v6("ff02::1:3")),
        "no-rule",
    );
    w.sends(
        sent(VM_LINK_LOCAL, "ff05::7").mld(131, v6("ff05::7")),
        "infrastructure",
    );
    w.sends(
        sent(VM_LINK_LOCAL, "ff05::7").mld(131, v6("ff05::8")),
        "no-rule",
    );
    w.sends(sent(VM_LINK_LOCAL, PEER6).mld(131, v6(PEER6)), "no-rule");
    w.sends(
        sent(VM_LINK_LOCAL, "ff02::2").mld(132, v6("ff05::7")),
        "infrastructure",
    );
    w.sends(
        sent(VM_LINK_LOCAL, "ff02::1").mld(130, v6("::")),
        "rogue-query",
    );
}

#[test]
fn igmp_reports_pass_and_queries_do_not() {
    let mut w = world();
    let group = v4("239.1.1.1");
    for igmp_type in [0x12, 0x16, 0x17] {
        w.sends(
            out("239.1.1.1").igmp_message(igmp_type, group),
            "infrastructure",
        );
    }
    let report = out("224.0.0.22").igmp_v3_report(group);
    w.sends(report.clone(), "infrastructure");
    w.sends(report.clone().router_alert(), "infrastructure");
    w.sends(report.hops(2), "no-rule");
    w.sends(
        sent("0.0.0.0", "224.0.0.22").igmp_v3_report(group),
        "infrastructure",
    );
    w.sends(
        sent("10.0.0.2", "224.0.0.22").igmp_v3_report(group),
        "spoofed-ip",
    );
    w.sends(out(PEER).igmp_message(0x16, group), "no-rule");
    w.sends(out("224.0.0.1").igmp_message(0x11, group), "rogue-query");
}

#[test]
fn a_dhcp_client_reaches_its_servers() {
    let mut w = world();
    w.sends(
        sent("0.0.0.0", "255.255.255.255").dhcp_client(VM_MAC),
        "infrastructure",
    );
    w.sends(out("255.255.255.255").dhcp_client(VM_MAC), "infrastructure");
    w.sends(
        sent("10.0.0.2", "255.255.255.255").dhcp_client(VM_MAC),
        "spoofed-ip",
    );
    // None is listed: the network's own prefixes.
    w.sends(out("10.0.0.2").dhcp_client(VM_MAC), "infrastructure");
    w.sends(out("192.0.2.1").dhcp_client(VM_MAC), "no-rule");
    w.edit_network(|n| n.dhcp_servers.extend([address("192.0.2.1")]));
    w.sends(out("192.0.2.1").dhcp_client(VM_MAC), "infrastructure");
    w.sends(out("10.0.0.2").dhcp_client(VM_MAC), "no-rule");
    for group in ["ff02::1:2", "ff05::1:3"] {
        w.sends(
            sent(VM_LINK_LOCAL, group).dhcp_client(VM_MAC),
            "infrastructure",
        );
        w.sends(sent(VM6, group).dhcp_client(VM_MAC), "no-rule");
    }
    // The list is of the other family.
    w.sends(
        sent(VM_LINK_LOCAL, PEER6).dhcp_client(VM_MAC),
        "infrastructure",
    );
}

#[test]
fn dhcp_servers_answers_are_for_dhcp_servers() {
    let mut w = world();
    w.sends(out(PEER).dhcp_server(PEER_MAC), "rogue-dhcp");
    w.sends(sent("10.0.0.2", PEER).dhcp_server(PEER_MAC), "rogue-dhcp");
    w.sends(
        sent(VM_LINK_LOCAL, PEER6).dhcp_server(PEER_MAC),
        "rogue-dhcp",
    );
    w.gets(into_vm(PEER).dhcp_client(PEER_MAC), "no-rule");
    w.edit_port(|p| p.dhcp_server = true);
    w.sends(out(PEER).dhcp_server(PEER_MAC), "infrastructure");
    w.sends(sent("10.0.0.2", PEER).dhcp_server(PEER_MAC), "spoofed-ip");
    w.sends(
        sent(VM_LINK_LOCAL, PEER6).dhcp_server(PEER_MAC),
        "infrastructure",
    );
    w.gets(into_vm(PEER).dhcp_client(PEER_MAC), "infrastructure");
    w.gets(
        received("0.0.0.0", "255.255.255.255").dhcp_client(PEER_MAC),
        "infrastructure",
    );
}

#[test]
fn link_local_sources_are_free_unless_reserved() {
    let mut w = world();
    w.sends(sent(VM_LINK_LOCAL, PEER6).udp(1, 2), "no-rule");
    w.sends(sent("fe80::5", PEER6).udp(1, 2), "no-rule");
    w.edit_network(|n| n.routers.extend([address("fe80::5")]));
    w.sends(sent("fe80::5", PEER6).udp(1, 2), "spoofed-ip");
    w.gets(received(PEER6, "fe80::5").udp(1, 2), "foreign-destination");
    // Derived from another port's MAC, on whatever host; or listed there.
    w.edit(|i| {
        let mut other = port("other", OTHER_MAC, &["fe80::6"], &[]);
        other.host = Some("elsewhere".into());
        other.address_pairs.extend([pair("fe80::7", None)]);
        put_port(i, other);
    });
    for reserved in ["fe80::ff:fe00:77", "fe80::6", "fe80::7"] {
        w.sends(sent(reserved, PEER6).udp(1, 2), "spoofed-ip");
    }
    w.sends(sent("fe80::8", PEER6).udp(1, 2), "no-rule");
    w.edit_network(|n| n.eui64_only = true);
    w.sends(sent("fe80::8", PEER6).udp(1, 2), "spoofed-ip");
    w.sends(sent(VM_LINK_LOCAL, PEER6).udp(1, 2), "no-rule");
    w.edit_port(|p| p.fixed_addresses.extend([address("fe80::8")]));
    w.sends(sent("fe80::8", PEER6).udp(1, 2), "no-rule");
    w.sends(
        sent("fe80::8", "ff02::16").mld_v2_report(v6("ff02::1:3")),
        "infrastructure",
    );
}

#[test]
fn a_listed_link_local_address_is_its_ports_alone() {
    let mut w = world();
    w.edit(|i| put_port(i, port("other", OTHER_MAC, &["10.0.0.2"], &[])));
    w.edit_port(|p| p.fixed_addresses.extend([address("fe80::6")]));
    w.sends(sent("fe80::6", PEER6).udp(1, 2), "no-rule");
    let frame = sent("fe80::6", PEER6).udp(1, 2).src_mac(OTHER_MAC).bytes();
    let seen = w
        .oracle
        .decide(&"other".into(), Direction::Egress, &frame, w.now);
    assert_eq!(text(&seen.verdict), "spoofed-ip");
}

#[test]
fn unicast_destinations_are_the_ports() {
    let mut w = world();
    w.gets(received(PEER, "10.0.0.2").udp(1, 2), "foreign-destination");
    w.gets(
        received(PEER6, "2001:db8::2").udp(1, 2),
        "foreign-destination",
    );
    w.gets(received(PEER, "0.0.0.0").udp(1, 2), "foreign-destination");
    for many in ["239.1.1.1", "255.255.255.255", "10.0.0.255"] {
        w.gets(received(PEER, many).udp(1, 2), "no-rule");
    }
    w.gets(received(PEER6, "ff02::1").udp(1, 2), "no-rule");
    w.gets(received(PEER6, "fe80::1234").udp(1, 2), "no-rule");
    // A /31 has no broadcast address.
    w.edit_network(|n| {
        n.subnets
            .extend(["10.9.0.0/31".parse::<model::Prefix>().expect("a prefix")])
    });
    w.gets(received(PEER, "10.9.0.1").udp(1, 2), "foreign-destination");
}

#[test]
fn martian_sources_drop() {
    let mut w = World::new(&["in any any", "in6 any any"]);
    for source in [
        "239.1.1.1",
        "255.255.255.255",
        "10.0.0.255",
        "127.0.0.1",
        "0.0.0.0",
    ] {
        w.gets(into_vm(source).udp(1, 2), "martian");
    }
    for source in ["ff02::1", "::1", "::"] {
        w.gets(into_vm(source).udp(1, 2), "martian");
    }
    w.gets(
        received("127.0.0.1", "10.0.0.2").udp(1, 2),
        "foreign-destination",
    );
    // Explained ones aren't martian; whether they pass is another matter.
    w.gets(
        received("0.0.0.0", "255.255.255.255").dhcp_client(PEER_MAC),
        "rule g/r0",
    );
    w.gets(
        received("0.0.0.0", "224.0.0.1").igmp_message(0x11, v4("0.0.0.0")),
        "infrastructure",
    );
    w.gets(
        received("::", "ff02::1:ff00:1").neighbour_solicitation(v6(VM6)),
        "infrastructure",
    );
    w.gets(
        received("::", "ff02::16").mld_v2_report(v6("ff02::1:3")),
        "rule g/r1",
    );
    let later = into_vm("0.0.0.0")
        .protocol(17, &[0; 8])
        .fragment(1, 8, false);
    w.gets(later, "martian");
    let later = into_vm("0.0.0.0")
        .protocol(2, &[0; 8])
        .fragment(1, 8, false);
    w.gets(later, "martian");
}

#[test]
fn infrastructure_reaches_the_port() {
    let mut w = world();
    let ns = received(PEER6, "ff02::1:ff00:1").neighbour_solicitation(v6(VM6));
    w.gets(ns.clone(), "infrastructure");
    w.gets(ns.clone().hops(64), "no-rule");
    w.gets(ns.clone().icmp_code(1), "no-rule");
    w.gets(ns.fragment(1, 0, true), "no-rule");
    w.gets(
        received(PEER6, VM6).neighbour_advertisement(v6(PEER6)),
        "infrastructure",
    );
    w.gets(
        received("fe80::9", "ff02::1").router_advertisement(),
        "infrastructure",
    );
    w.gets(received(PEER6, "ff02::1").router_advertisement(), "no-rule");
    w.gets(
        received("fe80::9", "ff02::1").mld(130, v6("::")),
        "infrastructure",
    );
    w.gets(
        received("fe80::9", "ff02::1").mld(130, v6("::")).hops(2),
        "no-rule",
    );
    w.gets(received(PEER6, "ff02::1").mld(130, v6("::")), "no-rule");
    w.gets(
        received(PEER, "224.0.0.1").igmp_message(0x11, v4("0.0.0.0")),
        "infrastructure",
    );
    w.gets(
        received(PEER, "224.0.0.1").igmp_message(0x16, v4("0.0.0.0")),
        "no-rule",
    );
}

#[test]
fn dhcp_answers_come_from_servers() {
    let mut w = world();
    w.gets(
        received(PEER, "255.255.255.255").dhcp_server(VM_MAC),
        "infrastructure",
    );
    w.gets(into_vm(PEER).dhcp_server(VM_MAC), "infrastructure");
    w.gets(into_vm("192.0.2.1").dhcp_server(VM_MAC), "no-rule");
    w.gets(
        received("fe80::9", VM_LINK_LOCAL).dhcp_server(VM_MAC),
        "infrastructure",
    );
    w.edit_network(|n| {
        n.dhcp_servers
            .extend([address("192.0.2.1"), address(PEER6)])
    });
    w.gets(into_vm(PEER).dhcp_server(VM_MAC), "no-rule");
    w.gets(into_vm("192.0.2.1").dhcp_server(VM_MAC), "infrastructure");
    w.gets(
        received("fe80::9", VM_LINK_LOCAL).dhcp_server(VM_MAC),
        "no-rule",
    );
    w.gets(
        received(PEER6, VM_LINK_LOCAL).dhcp_server(VM_MAC),
        "infrastructure",
    );
}

#[test]
fn later_fragments_pass_the_guard_first() {
    let mut w = world();
    let later = |from: &str| sent(from, PEER).protocol(17, &[0; 8]).fragment(1, 8, false);
    w.sends(later("10.0.0.2"), "spoofed-ip");
    w.sends(later(VM), "orphan-fragment");
}

#[test]
fn unknown_ports_and_missing_networks_pass_nothing() {
    let mut w = World::new(&["in any any"]);
    let frame = into_vm(PEER).udp(1, 2).bytes();
    let seen = w
        .oracle
        .decide(&"nobody".into(), Direction::Ingress, &frame, w.now);
    assert_eq!(text(&seen.verdict), "not-ready");
    w.gets(into_vm(PEER).udp(1, 2), "rule g/r0");
    w.edit_port(|p| p.host = Some("elsewhere".into()));
    w.gets(into_vm(PEER).udp(1, 2), "not-ready");
    w.edit_port(|p| p.host = Some("h".into()));
    w.edit(|i| i.networks.clear());
    w.gets(into_vm(PEER).udp(1, 2), "not-ready");
}

/// O11: so its policy is there before its first packet.
#[test]
fn a_port_on_its_way_here_is_judged_as_an_own_one() {
    let mut w = World::new(&["in any any"]);
    w.edit_port(|p| p.host = Some("elsewhere".into()));
    w.gets(into_vm(PEER).udp(1, 2), "not-ready");
    let to = |host: &str| {
        Some(Box::new(model::Moving {
            to: host.into(),
            device: model::DeviceMatch::Mac,
        }))
    };
    w.edit_port(|p| p.moving = to("third"));
    w.gets(into_vm(PEER).udp(1, 2), "not-ready");
    w.edit_port(|p| p.moving = to("h"));
    w.gets(into_vm(PEER).udp(1, 2), "rule g/r0");
    w.gets(received(PEER, "10.0.0.78").udp(1, 2), "foreign-destination");
    // It is there; and on its way again.
    w.edit_port(|p| (p.host, p.moving) = (Some("h".into()), None));
    w.gets(into_vm(PEER).udp(1, 2), "rule g/r0");
    w.edit_port(|p| p.moving = to("third"));
    w.gets(into_vm(PEER).udp(1, 2), "rule g/r0");
    w.edit_port(|p| (p.host, p.moving) = (Some("third".into()), None));
    w.gets(into_vm(PEER).udp(1, 2), "not-ready");
}

#[test]
fn port_security_off_passes_everything() {
    let mut w = world();
    w.edit_port(|p| p.port_security = false);
    w.sends(
        sent("10.0.0.2", PEER)
            .udp(1, 2)
            .src_mac(OTHER_MAC)
            .tag(0x8100, 1),
        "unguarded",
    );
    w.check(Direction::Ingress, &[0; 3], "unguarded");
    assert_eq!(w.flows(), 0);
}
