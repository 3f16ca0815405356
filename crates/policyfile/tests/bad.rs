//! Every class of error: where it is noted, and what it advises. Each kind has a line here, and a
//! test that says so.

use portcullis_policyfile::{ErrorKind, Errors, MAX_ERRORS, parse, parse_bytes};
use std::collections::BTreeSet;

/// Sections of a good file, so that each case below has but its own faults.
const SECTIONS: [(&str, &str); 4] = [
    ("networks", "{ lan: { subnets: 10.0.0.0/24 } }"),
    ("address-groups", "{ office: 192.0.2.0/24 }"),
    ("groups", "{ web: , app: , }"),
    ("ports", "{ }"),
];

/// `text` is a file without `version`, to which the sections that it lacks are added; `@` stands
/// before each place where an error is expected, and `kinds` says which.
fn check(text: &str, kinds: &[&str], says: &[&str]) {
    let mut marked = format!("version: 1\n{text}\n");
    for (section, content) in SECTIONS {
        if !text.lines().any(|l| {
            l.trim_start_matches('@')
                .starts_with(&format!("{section}:"))
        }) {
            marked.push_str(&format!("{section}: {content}\n"));
        }
    }
    let mut places = Vec::new();
    for (i, line) in marked.lines().enumerate() {
        let columns = line.chars().enumerate().filter(|(_, c)| *c == '@');
        places.extend(
            columns
                .enumerate()
                .map(|(n, (column, _))| (i + 1, column - n + 1)),
        );
    }
    assert_eq!(places.len(), kinds.len(), "places in {marked}");
    let expected: Vec<String> = places
        .iter()
        .zip(kinds)
        .map(|((line, column), kind)| format!("{line}:{column} {kind}"))
        .collect();
    let file = marked.replace('@', "");
    let errors = check_file(file.as_bytes());
    let seen: Vec<String> = errors
        .errors
        .iter()
        .map(|e| format!("{} {}", e.position.expect("a position"), e.kind))
        .collect();
    assert_eq!(seen, expected, "\n{file}\n{errors}");
    let shown = errors.to_string();
    for fragment in says {
        assert!(shown.contains(fragment), "no {fragment:?} in:\n{shown}");
    }
}

fn check_file(bytes: &[u8]) -> Errors {
    parse_bytes(bytes, "policy.yaml", &"here".into())
        .map(|file| format!("{file:?}"))
        .expect_err("an error")
}

/// `@` in a rule, or before it.
fn rule(rule: &str, kinds: &[&str], says: &[&str]) {
    let text = format!("groups:\n  web:\n    rules:\n      - {rule}\n  app: {{}}");
    check(&text, kinds, says);
}

fn port(fields: &str, kinds: &[&str], says: &[&str]) {
    let text = format!("ports:\n  vm1: {{ mac: 52:54:00:00:00:01, {fields} }}");
    check(&text, kinds, says);
}

#[test]
fn what_is_no_yaml_is_refused() {
    let seen = |text: &str, kind: ErrorKind, says: &str| {
        let errors = check_file(text.as_bytes());
        let last = errors.errors.last().expect("an error");
        assert_eq!(last.kind, kind, "{errors}");
        assert!(errors.to_string().contains(says), "{errors}");
    };
    seen("", ErrorKind::Empty, "version: 1");
    seen("# nothing\n", ErrorKind::Empty, "version: 1");
    seen("version: 1\nports: {", ErrorKind::Syntax, "bracket");
    seen("version: 1\nports: [}", ErrorKind::Syntax, "policy.yaml:2:");
    seen(
        "version: 1\nports:\n\tvm1: 3\n",
        ErrorKind::Syntax,
        "indent with spaces",
    );
    seen("version: \"1\nports:", ErrorKind::Syntax, "quotes");
    seen(
        "version: 1\nports: { a: *b }\n",
        ErrorKind::Syntax,
        "quote a text",
    );
    seen("version: 1\0\nports: }\n", ErrorKind::Syntax, "NUL");
    seen("version: 1\n---\nversion: 1\n", ErrorKind::Documents, "---");
    seen("version: &x 1\n", ErrorKind::Anchor, "anchor");
    seen(
        "version: 1\nports: { <<: {} }\n",
        ErrorKind::Anchor,
        "merge key",
    );
    seen("version: !!int 1\n", ErrorKind::Tag, "policy.yaml:1:");
    seen("version: 2\nbla: 3\n", ErrorKind::Version, "version: 1");
    seen("- 1\n", ErrorKind::WrongShape, "a list");
    seen("hello\n", ErrorKind::WrongShape, "`hello`");
    seen(
        &format!("version: 1\nports: {}", "[".repeat(99)),
        ErrorKind::TooDeep,
        "32",
    );
    seen(
        &format!("version: 1\nports: {}", "{a: ".repeat(99)),
        ErrorKind::TooDeep,
        "32",
    );
    seen(
        &format!("version: {}", "- ".repeat(9999)),
        ErrorKind::Syntax,
        "",
    );
}

#[test]
fn aliases_are_refused_before_they_multiply() {
    let mut text = String::from("version: 1\nports:\n  a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for i in 1..30 {
        let list = vec![format!("*a{}", i - 1); 9].join(", ");
        text.push_str(&format!("  a{i}: &a{i} [{list}]\n"));
    }
    let errors = check_file(text.as_bytes());
    assert_eq!(errors.errors[0].kind, ErrorKind::Anchor);
}

#[test]
fn what_is_no_text_is_refused() {
    let errors = check_file(b"version: 1\nports: { caf\xe9: 1 }\n");
    let error = &errors.errors[0];
    assert_eq!(error.kind, ErrorKind::NotUtf8);
    let position = error.position.expect("a position");
    assert_eq!((position.line, position.column), (2, 13));
    let long = vec![b'#'; (64 << 20) + 1];
    let errors = check_file(&long);
    assert_eq!(errors.errors[0].kind, ErrorKind::TooLarge);
}

#[test]
fn keys_are_known_and_stand_once() {
    check("@prots: {}", &["unknown-field"], &["did you mean `ports`?"]);
    check(
        "ports:\n  vm1: { @mak: 1, mac: 52:54:00:00:00:01 }",
        &["unknown-field"],
        &["`mac`"],
    );
    check("ports: {}\n@ports: {}", &["duplicate-key"], &["twice"]);
    check("groups: { a: , b: , @a: }", &["duplicate-key"], &["line 2"]);
    rule("{ from: any, @from: web }", &["duplicate-key"], &[]);
    rule(
        "{ from: any, @direction: in }",
        &["unknown-field"],
        &["from, to"],
    );
    check(
        "settings: { timeouts: { @tcp: 3 } }",
        &["unknown-field"],
        &["tcp-opening"],
    );
}

#[test]
fn what_is_needed_is_there() {
    let errors = check_file(b"ports: {}\n");
    assert_eq!(errors.errors[0].kind, ErrorKind::MissingField);
    check(
        "ports: { @vm1: { } }",
        &["missing-field"],
        &["has no `mac`"],
    );
    check(
        "ports: { vm1: { mac@: } }",
        &["wrong-shape"],
        &["has no value"],
    );
    check(
        "networks: {}\nports: { @vm1: { mac: 52:54:00:00:00:01 } }",
        &["missing-field"],
        &["networks:"],
    );
    check(
        "networks: { a: , b: }\nports: { @vm1: { mac: 52:54:00:00:00:01 } }",
        &["missing-field"],
        &["just one network"],
    );
    port(
        "pairs: [@{ mac: 52:54:00:00:00:02 }]",
        &["missing-field"],
        &["no `prefix`"],
    );
    let hosts = "hosts: { here: }\nports: { @vm1: { mac: 52:54:00:00:00:01 } }";
    check(hosts, &["missing-field"], &["host: none"]);
}

#[test]
fn values_have_their_shape() {
    check("ports: @3", &["wrong-shape"], &["`3`"]);
    check("ports: @[a]", &["wrong-shape"], &["is a map"]);
    check(
        "groups: { web: { rules: @{ from: any } } }",
        &["wrong-shape"],
        &["behind a `-`"],
    );
    check(
        "groups: { web: { rules: @allow } }",
        &["wrong-shape"],
        &["a rule is a map"],
    );
    rule("{ from: [@[any]] }", &["wrong-shape"], &["a single value"]);
    rule("{ from@: }", &["wrong-shape"], &["names nobody"]);
    rule("{ from: @[] }", &["wrong-shape"], &["names nobody"]);
    port(
        "@mac-address: , groups: [@{ a: b }]",
        &["unknown-field", "wrong-shape"],
        &[],
    );
}

#[test]
fn names_are_sane() {
    let name = |name: &str, says: &str| {
        let text = format!("groups:\n  @{name}: {{}}");
        check(&text, &["bad-name"], &[says]);
    };
    name(&"x".repeat(64), "64 bytes");
    name("''", "empty");
    name("'a b'", "letters, digits");
    name("ünï", "ASCII");
    name("-a", "begin with");
    name("a/b", "can't be a name");
    name("\"a\\u200bb\"", "a\\u{200b}b");
    name("\"a\\0b\"", "\\u{0}");
    name("any", "everybody");
    name("ANY", "everybody");
    name("10.0.0.1", "address");
    name("12", "address");
    rule("{ name: @'12', from: any }", &["bad-name"], &["number"]);
    rule("{ name: @a.v4, from: any }", &["bad-name"], &["number"]);
    check("hosts: { @none: , here: }", &["bad-name"], &["host: none"]);
}

#[test]
fn choices_and_numbers_are_within_their_bounds() {
    check(
        "settings: { elision: @no }",
        &["bad-value"],
        &["on, strict, off"],
    );
    check("settings: { elision: @strct }", &["bad-value"], &["strict"]);
    check(
        "settings: { narrowing: @drop }",
        &["bad-value"],
        &["cut, keep"],
    );
    check(
        "settings: { timeouts: { udp: @0 } }",
        &["bad-number"],
        &["from 1 to"],
    );
    check(
        "settings: { timeouts: { udp: @1h } }",
        &["bad-number"],
        &["in seconds"],
    );
    check("settings: { timeouts: { udp: @-1 } }", &["bad-number"], &[]);
    check("settings: { timeouts: { udp: @٣ } }", &["bad-number"], &[]);
    check(
        "settings: { timeouts: { udp: @99999999999999999999 } }",
        &["bad-number"],
        &[],
    );
    check(
        "settings: { budgets: { half-open-per-port: @4097 } }",
        &["bad-number"],
        &["4096"],
    );
    check(
        "networks: { lan: { vni: @16777216 } }",
        &["bad-number"],
        &["a VNI"],
    );
    check(
        "networks: { lan: { mtu: @67 } }",
        &["bad-number"],
        &["an MTU"],
    );
    check(
        "networks: { lan: { eui64-only: @maybe } }",
        &["bad-value"],
        &["on, off"],
    );
    check(
        "groups: { web: { tag: @65536 } }",
        &["bad-number"],
        &["a tag"],
    );
    check(
        "groups: { web: { stateless: @2 } }",
        &["bad-value"],
        &["on, off"],
    );
    check(
        "hosts: { here: { peer-trust: @no } }",
        &["bad-value"],
        &["tag, address"],
    );
    rule(
        "{ from: any, family: @v4 }",
        &["bad-value"],
        &["ipv4, ipv6"],
    );
}

#[test]
fn ethertypes_are_other_ones() {
    let listed = |value: &str, says| {
        let text = format!("settings: {{ ethertypes: [@{value}] }}");
        check(&text, &["bad-ethertype"], &[says]);
    };
    listed("0x05ff", "length");
    listed("0x0800", "needs no listing");
    listed("0x8100", "VLAN");
    listed("0x10000", "0x88cc");
    listed("0x", "0x88cc");
    listed("lldp", "0x88cc");
    check(
        "settings:\n  @ethertypes: [0x9001, 0x9002, 0x9003, 0x9004, 0x9005, 0x9006, 0x9007, 0x9008, 0x9009]",
        &["too-many-values"],
        &["at most 8"],
    );
}

#[test]
fn addresses_and_prefixes_are_exact() {
    let prefix = |value: &str, kind: &str, says: &str| {
        let text = format!("address-groups: {{ office: [@{value}] }}");
        check(&text, &[kind], &[says]);
    };
    prefix("10.0.0.5/24", "host-bits", "did you mean 10.0.0.0/24?");
    prefix("fd00::1/64", "host-bits", "did you mean fd00::/64?");
    prefix("10.0.0.0/33", "bad-address", "0 to 32");
    prefix("fd00::/129", "bad-address", "0 to 128");
    prefix("10.0.0.0/08", "bad-address", "10.0.0.0/24");
    prefix("10.0.0.0/", "bad-address", "");
    prefix("10.0.0", "bad-address", "");
    prefix("010.0.0.1", "bad-address", "");
    prefix("10.0.0.٣", "bad-address", "");
    prefix("web", "bad-address", "");
    prefix("fe80::1%eth0", "bad-address", "");
    prefix("::ffff:1.2.3.4", "bad-address", "write 1.2.3.4");
    prefix("::ffff:0.0.0.0/96", "bad-address", "IPv6");
    rule(
        "{ from: @10.0.0.300 }",
        &["bad-address"],
        &["no IP address"],
    );
    rule(
        "{ from: @10.0.0.5/24 }",
        &["host-bits"],
        &["written 10.0.0.5"],
    );
    port("addresses: @10.0.0.5/24", &["bad-address"], &["`subnets`"]);
    port("addresses: @224.0.0.1", &["bad-address"], &["multicast"]);
    port("addresses: @'::'", &["bad-address"], &["unspecified"]);
    port(
        "addresses: @255.255.255.255",
        &["bad-address"],
        &["broadcast"],
    );
    port(
        "addresses: [@'::ffff:10.0.0.5']",
        &["bad-address"],
        &["write 10.0.0.5"],
    );
}

#[test]
fn macs_and_devices_can_exist() {
    let mac = |value: &str, says| {
        let text = format!("ports: {{ vm1: {{ mac: @{value} }} }}");
        check(&text, &["bad-mac"], &[says]);
    };
    mac("52:54:00:12:34", "52:54:00:12:34:56");
    mac("52:54:00:12:34:5g", "no MAC");
    mac("ff:ff:ff:ff:ff:ff", "multicast");
    mac("00:00:00:00:00:00", "that a port can have");
    port(
        "device: @a-name-too-long-for-linux",
        &["bad-device"],
        &["15 characters"],
    );
    port("device: @a/b", &["bad-device"], &[]);
    port("device: @'a b'", &["bad-device"], &[]);
    port("device: @..", &["bad-device"], &[]);
}

#[test]
fn an_interface_id_is_text_without_blanks_and_stands_for_the_device() {
    port(
        "iface-id: @'a b'",
        &["bad-iface-id"],
        &["external_ids:iface-id"],
    );
    port("iface-id: @''", &["bad-iface-id"], &["512 characters"]);
    port("iface-id: @[a, b]", &["wrong-shape"], &[]);
    port(
        "device: tap1, iface-id: @a",
        &["device-twice"],
        &["remove one"],
    );
    port("iface-id: @a, device: tap1", &["device-twice"], &["`vm1`"]);
}

#[test]
fn rules_say_whom_and_what() {
    rule(
        "@{ protocol: tcp, ports: 22 }",
        &["direction"],
        &["neither"],
    );
    rule("@{ from: any, to: any }", &["direction"], &["both"]);
    rule(
        "{ from: any, ports: @22 }",
        &["ports-without-protocol"],
        &["protocol: tcp"],
    );
    rule(
        "{ from: any, protocol: icmp, ports: @22 }",
        &["ports-without-protocol"],
        &["`icmp`"],
    );
    rule(
        "{ from: any, protocol: [tcp, gre], ports: @22 }",
        &["ports-without-protocol"],
        &["`gre`"],
    );
    rule(
        "{ from: any, protocol: any, ports: @22 }",
        &["ports-without-protocol"],
        &[],
    );
    rule(
        "{ from: @web2 }",
        &["unknown-group"],
        &["did you mean `web`?"],
    );
    rule(
        "{ from: @zzzzzz }",
        &["unknown-group"],
        &["app, office, web"],
    );
}

#[test]
fn ports_are_numbers_and_ranges() {
    let ports = |value: &str, says| {
        let text = format!("{{ from: any, protocol: tcp, ports: @{value} }}");
        rule(&text, &["bad-ports"], &[says]);
    };
    ports("8099-8000", "did you mean 8000-8099?");
    ports("65536", "0 to 65535");
    ports("-1", "");
    ports("+22", "");
    ports("022", "");
    ports("2_2", "");
    ports("٢٢", "");
    ports("ssh", "");
    ports("8000:8099", "8000-8099");
    ports("'80,443'", "[80, 443]");
    ports("80-", "");
}

#[test]
fn protocols_are_known() {
    let protocol = |value: &str, kind: &str, says: &str| {
        let text = format!("{{ from: any, protocol: @{value} }}");
        rule(&text, &[kind], &[says]);
    };
    protocol("tpc", "bad-protocol", "`tcp`");
    protocol("256", "bad-protocol", "0 to 255");
    protocol("６", "bad-protocol", "");
    protocol("tcp 22", "bad-protocol", "`ports:`");
    protocol("tcp/22", "bad-protocol", "`ports:`");
    protocol("ipv6-frag", "bad-protocol", "extension headers");
    protocol("icmp echo", "bad-icmp", "echo-request");
    protocol("icmp 256", "bad-icmp", "0-255");
    protocol("icmp 3/", "bad-icmp", "3/4");
    protocol("icmp 3/4/5", "bad-icmp", "");
    protocol(
        "icmpv6 timestamp-request",
        "bad-icmp",
        "`icmp timestamp-request`",
    );
    protocol("icmp echo-request 0", "bad-protocol", "");
}

#[test]
fn families_are_not_mixed() {
    rule(
        "{ from: @10.0.0.0/8, family: ipv6 }",
        &["wrong-family"],
        &["remove `family`"],
    );
    rule(
        "{ from: @fd00::/8, family: ipv4 }",
        &["wrong-family"],
        &["IPv6"],
    );
    rule(
        "{ from: 10.0.0.0/8, protocol: @icmpv6 }",
        &["wrong-family"],
        &["`protocol: icmp`"],
    );
    rule(
        "{ from: fd00::/8, protocol: @1 }",
        &["wrong-family"],
        &["`protocol: icmp`"],
    );
    for number in ["ah", "51", "0", "43", "44", "60"] {
        let text = format!("{{ from: any, family: ipv6, protocol: @{number} }}");
        rule(&text, &["wrong-family"], &["extension header"]);
    }
    rule(
        "{ from: [10.0.0.0/8, @fd00::/8], protocol: ah }",
        &["wrong-family"],
        &["`fd00::/8`"],
    );
}

#[test]
fn names_lead_somewhere() {
    port(
        "groups: [@wbe]",
        &["unknown-group"],
        &["did you mean `web`?"],
    );
    port(
        "groups: @office",
        &["unknown-group"],
        &["is an address group"],
    );
    port(
        "network: @wan",
        &["unknown-network"],
        &["did you mean `lan`?"],
    );
    port("host: @h1", &["unknown-host"], &["has no `hosts`"]);
    check(
        "hosts: { here: }\nports: { vm1: { mac: 52:54:00:00:00:01, host: @hree } }",
        &["unknown-host"],
        &["did you mean `here`?"],
    );
    let errors = check_file(b"version: 1\nhosts: { other: }\n");
    assert_eq!(errors.errors[0].kind, ErrorKind::UnknownHost);
    assert!(errors.to_string().contains("this host, `here`"), "{errors}");
}

#[test]
fn what_must_be_unique_is() {
    check(
        "address-groups: { @web: 10.0.0.1 }",
        &["duplicate-name"],
        &["rename"],
    );
    check(
        "groups: { web: { rules: [{ name: a, from: any }, { name: @a, to: any }] } }",
        &["duplicate-name"],
        &["line 2"],
    );
    check(
        "groups: { a: { tag: 7 }, b: { tag: @7 } }",
        &["duplicate-tag"],
        &["7"],
    );
    let ports = |second: &str, expected: &[&str], says: &[&str]| {
        let first = "vm1: { mac: 52:54:00:00:00:01, device: a, addresses: [10.0.0.5, fe80::5] }";
        check(
            &format!("ports:\n  {first}\n  vm2: {{ {second} }}"),
            expected,
            says,
        );
    };
    ports(
        "mac: @52-54-00-00-00-01",
        &["duplicate-mac"],
        &["`vm1` has it"],
    );
    ports(
        "mac: 52:54:00:00:00:02, device: @a",
        &["duplicate-device"],
        &["`vm1`"],
    );
    check(
        "ports:\n  vm1: { mac: 52:54:00:00:00:01, iface-id: a }\n  vm2: { mac: 52:54:00:00:00:02, iface-id: @a }",
        &["duplicate-device"],
        &["interface id `a` is taken", "`vm1`"],
    );
    let address = |a| format!("mac: 52:54:00:00:00:02, addresses: {a}");
    ports(&address("@10.0.0.5"), &["duplicate-address"], &["`vm1`"]);
    ports(&address("@FE80:0::5"), &["duplicate-address"], &["fe80::5"]);
    ports(
        &address("[10.0.0.6, @10.0.0.6]"),
        &["duplicate-address"],
        &["`vm2`"],
    );
}

#[test]
fn a_port_is_in_at_most_10_000_groups() {
    let groups: Vec<String> = (0..10_001).map(|i| format!("g{i}")).collect();
    let text = |count: usize| {
        let all: Vec<String> = groups.iter().map(|g| format!("{g}: ")).collect();
        let (all, listed) = (all.join(", "), groups[..count].join(", "));
        format!(
            "version: 1\nnetworks: {{ lan: }}\ngroups: {{ {all} }}\nports: {{ vm1: {{ mac: 52:54:00:00:00:01, groups: [{listed}] }} }}"
        )
    };
    let errors = check_file(text(10_001).as_bytes());
    assert_eq!(errors.errors[0].kind, ErrorKind::TooManyGroups);
    assert!(parse(&text(10_000), "policy.yaml", &"here".into()).is_ok());
}

#[test]
fn lists_multiply_to_a_bounded_number_of_rules() {
    let ports: Vec<String> = (1..=2501).map(|p| (p * 2).to_string()).collect();
    let rule_of = |count: usize| {
        format!(
            "{{ from: any, protocol: [tcp, udp], ports: [{}] }}",
            ports[..count].join(", ")
        )
    };
    rule(
        &format!("@{}", rule_of(2501)),
        &["too-many-rules"],
        &["10000"],
    );
    let text = |rules: usize| {
        let rules = vec![rule_of(2500); rules].join(", ");
        format!("version: 1\ngroups: {{ web: {{ rules: [{rules}] }} }}\n")
    };
    assert!(parse(&text(3), "policy.yaml", &"here".into()).is_ok());
    let errors = check_file(text(101).as_bytes());
    assert_eq!(errors.errors[0].kind, ErrorKind::TooManyRules);
    assert_eq!(errors.errors.len(), 1);
}

#[test]
fn all_errors_are_told_in_the_order_of_the_file() {
    check(
        "groups:\n  web:\n    rules:\n      - { from: @nobody }\n      - { from: any, protocol: @tpc }\nports:\n  vm1: { mac: @1, groups: [@zzz] }",
        &["unknown-group", "bad-protocol", "bad-mac", "unknown-group"],
        &[],
    );
    let many: String = (0..50).map(|i| format!("bad{i}: 1\n")).collect();
    let errors = check_file(format!("version: 1\n{many}").as_bytes());
    assert_eq!(errors.errors.len(), MAX_ERRORS);
    assert!(errors.more);
    assert!(errors.to_string().ends_with("more errors behind these"));
}

#[test]
fn an_error_shows_its_line_and_points_at_the_word() {
    let errors = check_file(b"version: 1\ngroups:\n  wbe: {}\nnetworks: { lan: }\nports:\n  vm1: { mac: 52:54:00:00:00:01, groups: [web] }\n");
    let expected = "\
policy.yaml:6:43: there is no group `web` [unknown-group]
  6 |   vm1: { mac: 52:54:00:00:00:01, groups: [web] }
    |                                           ^^^
  did you mean `wbe`?";
    assert_eq!(errors.to_string(), expected);
}

#[test]
fn a_long_line_is_cut_around_the_word() {
    let padding = "x, ".repeat(200);
    let text = format!(
        "version: 1\ngroups: {{ x: }}\nnetworks: {{ lan: }}\nports: {{ vm1: {{ mac: 52:54:00:00:00:01, groups: [{padding}nobody, {padding}x] }} }}\n"
    );
    let errors = check_file(text.as_bytes());
    let shown = errors.to_string();
    let lines: Vec<&str> = shown.lines().collect();
    let start = lines[2].find('^').expect("a caret");
    let pointed: String = lines[1].chars().skip(start).take(6).collect();
    assert_eq!(pointed, "nobody", "{shown}");
    assert!(lines[1].chars().count() < 120, "{shown}");
}

#[test]
fn every_class_of_error_is_in_this_file() {
    let here = include_str!("bad.rs");
    let seen: BTreeSet<ErrorKind> = ErrorKind::ALL
        .iter()
        .copied()
        .filter(|kind| {
            here.contains(&format!("\"{kind}\"")) || here.contains(&format!("ErrorKind::{kind:?}"))
        })
        .collect();
    let all: BTreeSet<ErrorKind> = ErrorKind::ALL.iter().copied().collect();
    assert_eq!(seen, all);
}
