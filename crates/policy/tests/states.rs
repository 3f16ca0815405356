//! Named states: what is in the inventory, and the view and findings that come of it. The result
//! depends on the content alone, so each state is also reached in other ways, and through others.

mod support;

use model::{DeviceMatch, Inventory};
use portcullis_policy::{Finding, compile};
use std::collections::BTreeMap;
use support::inventory;

struct State {
    name: &'static str,
    lines: &'static [&'static str],
    /// Without settings.
    view: &'static [&'static str],
    /// Codes, in order.
    findings: &'static [&'static str],
}

const STATES: &[State] = &[
    State {
        name: "nothing",
        lines: &[],
        view: &[],
        findings: &["host-missing"],
    },
    State {
        name: "a port without groups",
        lines: &[
            "host h1",
            "network net blue 10.0.0.0/24 routers=10.0.0.1,fe80::1 dhcp=10.0.0.2",
            "port vm net h1 02:00:00:00:00:01 10.0.0.5,fe80::5",
        ],
        view: &[
            "network net scope=blue",
            "  subnets 10.0.0.0/24",
            "  dhcp-servers 10.0.0.2",
            "  reserved fe80::1",
            "  reserved fe80::5",
            "  reserved fe80::ff:fe00:1",
            "port vm network=net device=name:tap-vm mac=02:00:00:00:00:01",
            "  address 10.0.0.5",
            "  address fe80::5",
        ],
        findings: &[],
    },
    State {
        name: "a rule names a group on two networks of one scope",
        lines: &[
            "host h1",
            "host h2",
            "network net blue 10.0.0.0/24 eui64",
            "network far blue 10.0.1.0/24",
            "network other red 10.0.0.0/24",
            "group web tag=7",
            "group db",
            "rule web/out egress IPv4 tcp:5432-5432 group:db",
            "rule web/in ingress IPv4 tcp:443-443 0.0.0.0/0",
            "rule db/in ingress IPv4 tcp:5432-5432 group:web",
            "port vm net h1 02:00:00:00:00:01 10.0.0.5 in=web",
            "port db1 net h2 02:00:00:00:00:02 10.0.0.6,fe80::6 in=db",
            "port db2 far h2 02:00:00:00:00:03 10.0.1.6 in=db pairs=10.0.1.128/25",
            "port db3 far - 02:00:00:00:00:04 10.0.1.7 in=db",
            "port stranger other h2 02:00:00:00:00:02 10.0.0.6,10.0.0.7 in=db",
        ],
        view: &[
            "network net scope=blue eui64-only",
            "  subnets 10.0.0.0/24",
            "port vm network=net device=name:tap-vm mac=02:00:00:00:00:01",
            "  address 10.0.0.5",
            "  groups web",
            "group web stateful tag=7",
            "  rule in: ingress IPv4 tcp 443-443 from any",
            "  rule out: egress IPv4 tcp 5432-5432 to group db",
            "members db in blue: 10.0.0.6 10.0.1.6 10.0.1.7 10.0.1.128/25",
        ],
        findings: &[],
    },
    State {
        name: "a port on its way here is one's own, and one on its way elsewhere still is",
        lines: &[
            "host h1",
            "host h2",
            "network net blue 10.0.0.0/24 eui64",
            "group web",
            "rule web/in ingress IPv4 any group:web",
            "port comes net h2 02:00:00:00:00:01 10.0.0.5 in=web to=h1:tap9",
            "port goes net h1 02:00:00:00:00:02 10.0.0.6 in=web to=h2:tap9",
            "port passes net h2 02:00:00:00:00:03 10.0.0.7 in=web to=h3:tap9",
        ],
        view: &[
            "network net scope=blue eui64-only",
            "  subnets 10.0.0.0/24",
            "port comes network=net device=name:tap9 mac=02:00:00:00:00:01",
            "  address 10.0.0.5",
            "  groups web",
            "port goes network=net device=name:tap-goes mac=02:00:00:00:00:02",
            "  address 10.0.0.6",
            "  groups web",
            "group web stateful",
            "  rule in: ingress IPv4 any from group web",
            "members web in blue: 10.0.0.5 10.0.0.6 10.0.0.7",
        ],
        findings: &[],
    },
    State {
        name: "an empty group stays in its rule and has no members",
        lines: &[
            "host h1",
            "network net blue 10.0.0.0/24 eui64",
            "group web",
            "group db",
            "addresses none -",
            "rule web/db ingress IPv4 any group:db",
            "rule web/none ingress IPv4 any addresses:none",
            "port vm net h1 02:00:00:00:00:01 - in=web",
        ],
        view: &[
            "network net scope=blue eui64-only",
            "  subnets 10.0.0.0/24",
            "port vm network=net device=name:tap-vm mac=02:00:00:00:00:01",
            "  groups web",
            "group web stateful",
            "  rule db: ingress IPv4 any from group db",
            "  rule none: ingress IPv4 any from address-group none",
        ],
        findings: &[],
    },
    State {
        name: "what is wrong with a rule costs that rule",
        lines: &[
            "host h1",
            "network net blue - eui64",
            "group web stateless",
            "addresses office 192.0.2.0/24,2001:db8::/32",
            "rule web/1-fine ingress IPv6 tcp:22-22 addresses:office",
            "rule web/2-no-group ingress IPv4 any group:nobody",
            "rule web/3-no-addresses ingress IPv4 any addresses:nobody",
            "rule web/4-family ingress IPv4 any ::/0",
            "rule web/5-ah egress IPv6 51 any",
            "rule web/6-ah egress IPv4 51 any",
            "rule web/7-icmp ingress IPv4 icmp:8/0 10.0.0.0/8",
            "port vm net h1 02:00:00:00:00:01 - in=web",
        ],
        view: &[
            "network net scope=blue eui64-only",
            "port vm network=net device=name:tap-vm mac=02:00:00:00:00:01",
            "  groups web",
            "group web stateless",
            "  rule 1-fine: ingress IPv6 tcp 22-22 from address-group office",
            "  rule 6-ah: egress IPv4 protocol 51 to any",
            "  rule 7-icmp: ingress IPv4 icmp 8/0 from 10.0.0.0/8",
            "address-group office: 192.0.2.0/24 2001:db8::/32",
        ],
        findings: &[
            "rule-group-missing",
            "rule-address-group-missing",
            "rule-prefix-family",
            "rule-extension-header",
        ],
    },
    State {
        name: "what is wrong with a port costs that port",
        lines: &[
            "host h1",
            "network net blue 10.0.0.0/24 eui64",
            "group web",
            "rule web/in ingress IPv4 any group:web",
            "port no-group net h1 02:00:00:00:00:01 10.0.0.1 in=web,ghost",
            "port no-host net h9 02:00:00:00:00:02 10.0.0.2 in=web",
            "port no-network ghost h1 02:00:00:00:00:03 10.0.0.3 in=web",
            "port off net h1 02:00:00:00:00:04 10.0.0.4 in=web off router dhcp-server",
            "port wide net h1 02:00:00:00:00:05 10.0.0.5 in=web pairs=0.0.0.0/0,10.9.9.0/24@02:00:00:00:00:99",
        ],
        view: &[
            "network net scope=blue eui64-only",
            "  subnets 10.0.0.0/24",
            "port no-group network=net device=name:tap-no-group mac=02:00:00:00:00:01",
            "  address 10.0.0.1",
            "  groups web",
            "port off network=net device=name:tap-off mac=02:00:00:00:00:04 port-security-off",
            "port wide network=net device=name:tap-wide mac=02:00:00:00:00:05",
            "  address 0.0.0.0/0 with 02:00:00:00:00:05",
            "  address 10.0.0.5",
            "  address 10.9.9.0/24 with 02:00:00:00:00:99",
            "  groups web",
            "group web stateful",
            "  rule in: ingress IPv4 any from group web",
            "members web in blue: 10.0.0.1 10.0.0.2 10.0.0.5 10.9.9.0/24",
        ],
        findings: &[
            "port-host-missing",
            "port-network-missing",
            "port-group-missing",
            "unguarded-in-groups",
            "wide-pair",
        ],
    },
    State {
        name: "two ports with one MAC, one address, and one device",
        lines: &[
            "host h1",
            "network net blue 10.0.0.0/24",
            "network far blue 10.0.0.0/24",
            "port a net h1 02:00:00:00:00:01 10.0.0.1,fe80::9",
            "port b far h1 02:00:00:00:00:01 10.0.0.1,fe80::9",
            "port c net h1 02:00:00:00:00:01 10.0.0.3 device=tap-a",
        ],
        view: &[
            "network far scope=blue",
            "  subnets 10.0.0.0/24",
            "  reserved fe80::9",
            "  reserved fe80::ff:fe00:1",
            "network net scope=blue",
            "  subnets 10.0.0.0/24",
            "  reserved fe80::9",
            "  reserved fe80::ff:fe00:1",
            "port a network=net device=name:tap-a mac=02:00:00:00:00:01",
            "  address 10.0.0.1",
            "  address fe80::9",
            "port b network=far device=name:tap-b mac=02:00:00:00:00:01",
            "  address 10.0.0.1",
            "  address fe80::9",
            "port c network=net device=name:tap-a mac=02:00:00:00:00:01",
            "  address 10.0.0.3",
        ],
        findings: &["duplicate-mac", "duplicate-address", "duplicate-device"],
    },
    State {
        name: "link-local addresses are reserved and no members",
        lines: &[
            "host h1",
            "host h2",
            "network net blue 2001:db8::/64 routers=2001:db8::1,fe80::1",
            "group web",
            "rule web/in ingress IPv6 any group:web",
            "port a net h1 02:00:00:00:00:01 2001:db8::5 in=web",
            "port b net h2 02:00:00:00:00:02 fe80::b in=web pairs=fe80::c/128,fe80::/64,2001:db8:1::/64",
        ],
        view: &[
            "network net scope=blue",
            "  subnets 2001:db8::/64",
            "  reserved fe80::1",
            "  reserved fe80::b",
            "  reserved fe80::c",
            "  reserved fe80::ff:fe00:1",
            "  reserved fe80::ff:fe00:2",
            "port a network=net device=name:tap-a mac=02:00:00:00:00:01",
            "  address 2001:db8::5",
            "  groups web",
            "group web stateful",
            "  rule in: ingress IPv6 any from group web",
            "members web in blue: 2001:db8::5 2001:db8:1::/64",
        ],
        findings: &[],
    },
];

fn check(state: &State, inventory: &Inventory, way: &str) {
    let (view, findings) = compile(inventory, &"h1".into());
    let dump = view.dump();
    let seen: Vec<&str> = dump.lines().skip(4).collect();
    assert_eq!(seen, state.view, "{}, {way}", state.name);
    let codes: Vec<&str> = findings.iter().map(Finding::code).collect();
    assert_eq!(codes, state.findings, "{}, {way}: {findings:?}", state.name);
}

#[test]
fn each_state_has_its_view() {
    for state in STATES {
        check(state, &inventory(state.lines.iter().copied()), "as written");
    }
}

#[test]
fn the_way_to_a_state_does_not_matter() {
    for state in STATES {
        let lines = state.lines;
        let reversed = lines.iter().rev().copied();
        check(state, &inventory(reversed), "reversed");
        let doubled = lines.iter().chain(lines).copied();
        check(state, &inventory(doubled), "doubled");
        let content = inventory(lines.iter().copied());
        for _ in 0..20 {
            check(state, &content, "again");
        }
        for before in STATES {
            let mut squashed = inventory(before.lines.iter().copied());
            replace(&mut squashed.hosts, &content.hosts);
            replace(&mut squashed.networks, &content.networks);
            replace(&mut squashed.ports, &content.ports);
            replace(&mut squashed.groups, &content.groups);
            replace(&mut squashed.address_groups, &content.address_groups);
            check(state, &squashed, "squashed");
        }
    }
}

/// Puts the new objects one by one, and then removes what is not among them.
fn replace<K: Ord + Clone, V: Clone>(old: &mut BTreeMap<K, V>, new: &BTreeMap<K, V>) {
    for (id, object) in new {
        old.insert(id.clone(), object.clone());
    }
    old.retain(|id, _| new.contains_key(id));
}

#[test]
fn what_no_local_port_leads_to_changes_nothing() {
    let noise = [
        "host elsewhere",
        "network elsewhere grey 172.16.0.0/12",
        "group elsewhere",
        "addresses elsewhere 172.16.0.0/12",
        "rule elsewhere/in ingress IPv4 any group:elsewhere",
        "rule elsewhere/addresses ingress IPv4 any addresses:elsewhere",
        "port elsewhere elsewhere elsewhere 02:00:00:00:99:99 172.16.0.1 in=elsewhere",
    ];
    for state in STATES {
        let lines = state.lines.iter().copied().chain(noise);
        check(state, &inventory(lines), "with noise");
    }
}

#[test]
fn too_many_groups_are_none() {
    let mut content = inventory([
        "host h1",
        "network net blue -",
        "port vm net h1 02:00:00:00:00:01 10.0.0.1",
        "group g",
        "rule g/in ingress IPv4 any group:g",
    ]);
    let check = |count: usize, content: &mut Inventory, expected: usize| {
        let names = (1..count).map(|n| format!("g{n}").as_str().into());
        let port = content.ports.get_mut("vm").expect("a port");
        port.groups = names.chain(["g".into()]).collect();
        let (view, findings) = compile(content, &"h1".into());
        assert_eq!(view.ports["vm"].groups.len(), expected);
        assert_eq!(view.members.len(), expected);
        let told = findings.iter().any(|f| f.code() == "port-too-many-groups");
        assert_eq!(told, expected == 0);
    };
    check(10_000, &mut content, 1);
    check(10_001, &mut content, 0);
}

#[test]
fn findings_say_what_is_true_now() {
    let content = inventory([
        "host h1",
        "network net blue -",
        "group web",
        "rule web/in ingress IPv4 any group:nobody",
        "port vm net h1 02:00:00:00:00:01 10.0.0.1 pairs=10.0.0.0/8",
    ]);
    let (_, findings) = compile(&content, &"h1".into());
    let texts: Vec<String> = findings.iter().map(Finding::to_string).collect();
    let expected = [
        "port vm may use 10.0.0.0/8, which is too wide for a group: rules that name the port's \
         groups do not match these addresses",
        "rule web/in names group nobody, which does not exist: it matches nobody",
    ];
    assert_eq!(texts, expected);
}

#[test]
fn two_ports_of_a_host_that_name_one_device_are_found() {
    let check = |devices: [DeviceMatch; 2], expected: &[&str]| {
        let mut content = inventory([
            "host h1",
            "network net blue -",
            "port a net h1 02:00:00:00:00:01 10.0.0.1",
            "port b net h1 02:00:00:00:00:02 10.0.0.2",
        ]);
        for (port, device) in content.ports.values_mut().zip(devices) {
            port.device = device;
        }
        let (_, findings) = compile(&content, &"h1".into());
        let texts: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert_eq!(texts, expected);
    };
    let name = || DeviceMatch::Name("x".to_owned());
    let id = || DeviceMatch::InterfaceId("x".to_owned());
    check([name(), id()], &[]);
    check([DeviceMatch::Mac, DeviceMatch::Mac], &[]);
    check(
        [name(), name()],
        &["ports a and b of host h1 both name device x: it can serve one of them only"],
    );
    check(
        [id(), id()],
        &[
            "ports a and b of host h1 both name device of interface id x: it can serve one of them only",
        ],
    );
}
