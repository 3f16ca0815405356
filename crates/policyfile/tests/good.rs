//! What good files mean.

use model::{DeviceMatch, Elision, Family, Inventory, Narrowing, PeerTrust};
use portcullis_policyfile::{PolicyFile, parse};
use std::collections::BTreeSet;

const PORT: &str = "ports: { vm1: { mac: 52:54:00:00:00:01 } }";

fn read(text: &str) -> PolicyFile {
    let file = format!("version: 1\n{text}\n");
    parse(&file, "policy.yaml", &"here".into()).unwrap_or_else(|e| panic!("{e}"))
}

fn inventory(text: &str) -> Inventory {
    read(text).inventory
}

/// The model's rules that one rule of the group `web` stands for: id, direction, family, rest.
fn check(rule: &str, expected: &[&str]) {
    let text = format!(
        "groups:\n  web:\n    rules:\n      - {rule}\n  app: {{}}\naddress-groups: {{ office: 192.0.2.0/24 }}"
    );
    let inventory = inventory(&text);
    let rules = inventory.groups["web"].rules.values();
    let seen: Vec<String> = rules
        .map(|r| {
            assert_eq!(inventory.groups["web"].rules[&r.id], *r);
            format!(
                "{} {} {} {:?} {:?}",
                r.id, r.direction, r.family, r.l4, r.peer
            )
        })
        .collect();
    let shortened: Vec<String> = seen
        .iter()
        .map(|s| {
            s.replace("Ported { protocol: ", "")
                .replace("dst: L4PortRange { first: ", "")
                .replace(", last: ", "-")
                .replace(" } }", "")
                .replace("Icmp { kind: ", "Icmp ")
                .replace("Some(IcmpKind { icmp_type: ", "")
                .replace(", code: None })", "")
                .replace(", code: Some(", "/")
                .replace(") }) }", "")
                .replace(" }", "")
        })
        .collect();
    assert_eq!(shortened, expected, "{rule}");
}

#[test]
fn a_rule_of_no_family_is_one_for_each() {
    check(
        "{ from: any, protocol: tcp, ports: 22 }",
        &[
            "1.v4 ingress IPv4 Tcp, 22-22 Any",
            "1.v6 ingress IPv6 Tcp, 22-22 Any",
        ],
    );
    check("{ from: any, family: ipv6 }", &["1 ingress IPv6 Any Any"]);
    check("{ to: 10.0.0.5 }", &["1 egress IPv4 Any Prefix(10.0.0.5)"]);
    check(
        "{ to: 'fd00::/8' }",
        &["1 egress IPv6 Any Prefix(fd00::/8)"],
    );
    check("{ to: ::/0 }", &["1 egress IPv6 Any Prefix(::/0)"]);
    check(
        "{ name: all, from: web }",
        &[
            "all.v4 ingress IPv4 Any Group(GroupId(web))",
            "all.v6 ingress IPv6 Any Group(GroupId(web))",
        ],
    );
}

#[test]
fn lists_multiply_and_ids_say_which_item() {
    check(
        "{ name: dns, to: [office, 10.0.0.53], protocol: [udp, tcp], ports: 53, family: ipv4 }",
        &[
            "dns.10.0.0.53.tcp egress IPv4 Tcp, 53-53 Prefix(10.0.0.53)",
            "dns.10.0.0.53.udp egress IPv4 Udp, 53-53 Prefix(10.0.0.53)",
            "dns.office.tcp egress IPv4 Tcp, 53-53 AddressGroup(AddressGroupId(office))",
            "dns.office.udp egress IPv4 Udp, 53-53 AddressGroup(AddressGroupId(office))",
        ],
    );
    check(
        "{ from: 10.0.0.0/8, protocol: TCP, ports: [443, 8000-8099, 443] }",
        &[
            "1.443 ingress IPv4 Tcp, 443-443 Prefix(10.0.0.0/8)",
            "1.8000-8099 ingress IPv4 Tcp, 8000-8099 Prefix(10.0.0.0/8)",
        ],
    );
    check(
        "{ from: [10.0.0.0/8, fd00::/8], protocol: icmp echo-request }",
        &[
            "1.10.0.0.0/8 ingress IPv4 Icmp 8 Prefix(10.0.0.0/8)",
            "1.fd00::/8 ingress IPv6 Icmp 128 Prefix(fd00::/8)",
        ],
    );
}

#[test]
fn icmp_types_by_name_fit_the_family_and_numbers_are_of_one() {
    let any = |protocol: &str, expected: &[&str]| {
        check(&format!("{{ from: any, protocol: {protocol} }}"), expected);
    };
    any(
        "icmp",
        &[
            "1.v4 ingress IPv4 Icmp None Any",
            "1.v6 ingress IPv6 Icmp None Any",
        ],
    );
    any(
        "icmp port-unreachable",
        &[
            "1.v4 ingress IPv4 Icmp 3/3 Any",
            "1.v6 ingress IPv6 Icmp 1/4 Any",
        ],
    );
    any("icmp 3/4", &["1.v4 ingress IPv4 Icmp 3/4 Any"]);
    any("ICMPv6 1/4", &["1.v6 ingress IPv6 Icmp 1/4 Any"]);
    any("icmpv6", &["1.v6 ingress IPv6 Icmp None Any"]);
    any("icmpv6 echo-request", &["1.v6 ingress IPv6 Icmp 128 Any"]);
    any("icmp packet-too-big", &["1.v6 ingress IPv6 Icmp 2 Any"]);
    any("icmp timestamp-request", &["1.v4 ingress IPv4 Icmp 13 Any"]);
    check(
        "{ from: any, protocol: icmp 2, family: ipv6 }",
        &["1 ingress IPv6 Icmp 2 Any"],
    );
    check(
        "{ from: fd00::/8, protocol: icmp 2 }",
        &["1 ingress IPv6 Icmp 2 Prefix(fd00::/8)"],
    );
}

#[test]
fn protocols_have_one_form_by_name_and_number() {
    let any = |protocol: &str, expected: &[&str]| {
        check(&format!("{{ from: any, protocol: {protocol} }}"), expected);
    };
    for name in ["tcp", "TCP", "6"] {
        any(
            name,
            &[
                "1.v4 ingress IPv4 Tcp, 0-65535 Any",
                "1.v6 ingress IPv6 Tcp, 0-65535 Any",
            ],
        );
    }
    for name in ["vrrp", "112"] {
        any(
            name,
            &[
                "1.v4 ingress IPv4 Other(PortlessProtocol(112)) Any",
                "1.v6 ingress IPv6 Other(PortlessProtocol(112)) Any",
            ],
        );
    }
    any(
        "any",
        &["1.v4 ingress IPv4 Any Any", "1.v6 ingress IPv6 Any Any"],
    );
    any("ah", &["1.v4 ingress IPv4 Other(PortlessProtocol(51)) Any"]);
    any("0", &["1.v4 ingress IPv4 Other(PortlessProtocol(0)) Any"]);
    any("1", &["1.v4 ingress IPv4 Icmp None Any"]);
    any("58", &["1.v6 ingress IPv6 Icmp None Any"]);
}

#[test]
fn a_small_file_has_sensible_defaults() {
    let inventory = inventory(&format!("networks: {{ lan: }}\n{PORT}"));
    let port = &inventory.ports["vm1"];
    assert_eq!(port.network, "lan".into());
    assert_eq!(port.host, Some("here".into()));
    assert_eq!(port.device, DeviceMatch::Mac);
    assert!(port.port_security && !port.dhcp_server && !port.router);
    assert!(port.groups.is_empty() && port.fixed_addresses.is_empty());
    assert_eq!(inventory.networks["lan"].scope, "default".into());
    assert_eq!(inventory.hosts["here"].settings, model::Settings::default());
}

#[test]
fn devices_are_found_by_name_pattern_interface_id_or_mac() {
    let device = |field: &str, expected: DeviceMatch| {
        let text = format!(
            "networks: {{ lan: }}\nports: {{ vm1: {{ mac: 52:54:00:00:00:01, {field} }} }}"
        );
        assert_eq!(inventory(&text).ports["vm1"].device, expected);
    };
    device("device: tap-web1", DeviceMatch::Name("tap-web1".into()));
    device("device: vnet*", DeviceMatch::Pattern("vnet*".into()));
    device("device: 7", DeviceMatch::Name("7".into()));
    let id = "0c7c1a9e-52f1-4f5c-9d3e-7b1f6f1a2b3c";
    device(
        &format!("iface-id: {id}"),
        DeviceMatch::InterfaceId(id.into()),
    );
    device("iface-id: 007", DeviceMatch::InterfaceId("007".into()));
    device("groups: ", DeviceMatch::Mac);
}

#[test]
fn every_field_of_a_port_arrives() {
    let text = "\
networks: { lan: , wan: }
groups: { web: , app: }
ports:
  vm1:
    network: wan
    device: tap1
    mac: 52-54-00-00-00-01
    addresses: [10.0.0.5, FD00::5]
    pairs:
      - 10.0.1.0/24
      - { prefix: 10.0.0.100, mac: 00:00:5e:00:01:0a }
    groups: [web, app]
    port-security: off
    dhcp-server: true
    router: on";
    let inventory = inventory(text);
    let port = &inventory.ports["vm1"];
    let shown = |items: BTreeSet<String>| items.into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(port.network, "wan".into());
    assert_eq!(port.mac.to_string(), "52:54:00:00:00:01");
    assert_eq!(
        shown(port.fixed_addresses.iter().map(|a| a.to_string()).collect()),
        "10.0.0.5 fd00::5"
    );
    assert_eq!(
        shown(
            port.address_pairs
                .iter()
                .map(|p| format!("{}/{:?}", p.prefix, p.mac))
                .collect()
        ),
        "10.0.0.100/Some(00:00:5e:00:01:0a) 10.0.1.0/24/None"
    );
    assert_eq!(port.groups, ["app".into(), "web".into()].into());
    assert!(!port.port_security && port.dhcp_server && port.router);
}

#[test]
fn settings_arrive_and_a_host_overrides_them() {
    let text = "\
settings: { elision: strict, narrowing: keep, timeouts: { udp: 20, icmp: 7 }, ethertypes: [0x88cc, 35020] }
hosts:
  here: { tunnel-address: 192.0.2.1, peer-trust: tag, settings: { elision: off, timeouts: { icmp: 9 } } }
  there: { settings: { budgets: { half-open-per-port: 17, elided-errors-per-second: 5 } } }";
    let inventory = inventory(text);
    let (here, there) = (&inventory.hosts["here"], &inventory.hosts["there"]);
    assert_eq!(here.peer_trust, PeerTrust::Tag);
    assert_eq!(
        here.tunnel_address.map(|a| a.to_string()).as_deref(),
        Some("192.0.2.1")
    );
    assert_eq!(
        (here.settings.elision, there.settings.elision),
        (Elision::Off, Elision::Strict)
    );
    assert_eq!(here.settings.narrowing, Narrowing::Keep);
    assert_eq!(
        (here.settings.timeouts.udp_s, here.settings.timeouts.icmp_s),
        (20, 9)
    );
    assert_eq!(
        (
            there.settings.timeouts.udp_s,
            there.settings.timeouts.icmp_s
        ),
        (20, 7)
    );
    assert_eq!(there.settings.budgets.half_open_per_port, 17);
    assert_eq!(there.settings.budgets.elided_errors_per_s, 5);
    assert_eq!(here.settings.ethertypes, [0x88cc].into());
}

#[test]
fn ports_are_on_the_host_that_they_name() {
    let text = "\
hosts: { here: , there: }
networks: { lan: }
ports:
  a: { mac: 52:54:00:00:00:01, host: here, device: tap0 }
  b: { mac: 52:54:00:00:00:02, host: there, device: tap0 }
  c: { mac: 52:54:00:00:00:03, host: none }";
    let hosts: Vec<_> = inventory(text)
        .ports
        .into_values()
        .map(|p| p.host)
        .collect();
    assert_eq!(hosts, [Some("here".into()), Some("there".into()), None]);
}

#[test]
fn scopes_keep_equal_addresses_apart() {
    let text = "\
networks: { a: { scope: one }, b: { scope: two }, c: { scope: two } }
ports:
  a: { mac: 52:54:00:00:00:01, network: a, addresses: [10.0.0.5, fe80::5] }
  b: { mac: 52:54:00:00:00:01, network: b, addresses: [10.0.0.5, fe80::5] }
  c: { mac: 52:54:00:00:00:01, network: c, addresses: [10.0.0.6, fe80::5], pairs: 10.0.0.5 }";
    assert_eq!(inventory(text).ports.len(), 3);
}

#[test]
fn sections_may_stand_in_any_order() {
    let sections = [
        "ports: { vm1: { mac: 52:54:00:00:00:01, groups: web } }",
        "groups: { web: { rules: [{ from: office }] } }",
        "address-groups: { office: [192.0.2.0/24, fd00::/8] }",
        "networks: { lan: { subnets: 10.0.0.0/24 } }",
    ];
    let forth = sections.join("\n");
    let back: Vec<&str> = sections.into_iter().rev().collect();
    assert_eq!(inventory(&forth), inventory(&back.join("\n")));
}

#[test]
fn json_and_other_line_ends_are_good_too() {
    let yaml =
        "networks: { lan: { subnets: [10.0.0.0/24] } }\nports: { vm1: { mac: 52:54:00:00:00:01 } }";
    let expected = inventory(yaml);
    let json = r#"{"version": 1, "networks": {"lan": {"subnets": ["10.0.0.0/24"]}}, "ports": {"vm1": {"mac": "52:54:00:00:00:01"}}}"#;
    let parsed = |text: &str| parse(text, "f", &"here".into()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(parsed(json).inventory, expected);
    assert_eq!(
        parsed(&format!(
            "\u{feff}version: 1\r\n{}",
            yaml.replace('\n', "\r\n")
        ))
        .inventory,
        expected
    );
    assert_eq!(
        parsed(&format!("%YAML 1.2\n---\nversion: 1\n{yaml}\n...\n")).inventory,
        expected
    );
}

#[test]
fn positions_lead_back_to_the_file() {
    let file = read(
        "\
networks:
  lan: {}
groups:
  web:
    rules:
      - { from: any, protocol: [tcp, udp], ports: 53 }
      - { name: out, to: any, family: ipv4 }
ports:
  vm1: { mac: 52:54:00:00:00:01 }",
    );
    let at = |line, column| Some(portcullis_policyfile::Position { line, column });
    let positions = &file.positions;
    assert_eq!(positions.networks.get("lan").copied(), at(3, 3));
    assert_eq!(positions.groups.get("web").copied(), at(5, 3));
    assert_eq!(positions.ports.get("vm1").copied(), at(10, 3));
    for rule in file.inventory.groups["web"].rules.keys() {
        let line = if rule.as_str() == "out" { 8 } else { 7 };
        assert_eq!(positions.rule(&"web".into(), rule), at(line, 9), "{rule}");
    }
    assert_eq!(positions.rule(&"web".into(), &"3".into()), None);
    assert_eq!(
        file.inventory.groups["web"].rules[&model::RuleId::from("out")].family,
        Family::V4
    );
}
