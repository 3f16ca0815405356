use super::*;
use crate::built::{Made, sample};
use crate::change::{self, Facts, Interface};
use crate::rules::{self, Rules};
use crate::{DeviceName, Nic, Push, Signature, Vm, arguments};
use model::{DeviceMatch, HostId};
use proptest::prelude::*;

fn here() -> HostId {
    HostId::new("here")
}

fn state(lines: &[&str]) -> State {
    let mut state = State::default();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let command = arguments::parse(&words).unwrap_or_else(|e| panic!("{line}: {e}"));
        let interface = Interface {
            vif: DeviceName::new("vnet5").expect("a name"),
            bridge: DeviceName::new("cloudbr0").expect("a name"),
            mac: "02:00:4c:5f:00:05".parse().expect("a MAC"),
        };
        let facts = Facts {
            interfaces: vec![interface],
            ..Facts::default()
        };
        change::apply(&mut state, &command, &facts).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
    state
}

/// What a port is, whatever it is called.
type PortMeaning = (
    String,
    MacAddr,
    String,
    BTreeSet<IpAddr>,
    BTreeSet<String>,
    bool,
);

/// A rule, whatever it is called.
type RuleMeaning = (Direction, Family, L4Match, Peer);

#[derive(Debug, PartialEq)]
struct Meaning {
    ports: BTreeSet<PortMeaning>,
    /// The rules of each group, without those that match nobody.
    groups: BTreeMap<String, BTreeSet<RuleMeaning>>,
}

/// `rename` gives groups the names of the file.
fn meaning(inventory: &Inventory, rename: impl Fn(&str) -> String) -> Meaning {
    let port = |port: &Port| {
        let DeviceMatch::Name(device) = &port.device else {
            panic!("{port:?}");
        };
        let network = &inventory.networks[&port.network];
        let everything: BTreeSet<Prefix> = Family::BOTH.map(Prefix::whole).into();
        assert!(network.eui64_only && network.subnets == everything);
        let pairs = port.address_pairs.iter();
        let pairs = pairs.map(|pair| pair.prefix.as_host().expect("one address"));
        let addresses = port.fixed_addresses.iter().copied().chain(pairs).collect();
        let groups = port
            .groups
            .iter()
            .map(|group| rename(group.as_str()))
            .collect();
        let scope = network.scope.to_string();
        let is_guarded = port.port_security;
        (
            device.clone(),
            port.mac,
            scope,
            addresses,
            groups,
            is_guarded,
        )
    };
    let said = |rule: &&Rule| common(rule).is_some() && !is_nobody(&rule.peer);
    let rule = |rule: &Rule| (rule.direction, rule.family, rule.l4, rule.peer.clone());
    let group = |(id, group): (&model::GroupId, &SecurityGroup)| {
        let rules = group.rules.values().filter(said).map(rule).collect();
        (rename(id.as_str()), rules)
    };
    Meaning {
        ports: inventory.ports.values().map(port).collect(),
        groups: inventory.groups.iter().map(group).collect(),
    }
}

fn parsed(text: &str) -> Inventory {
    let file = policyfile::parse(text, "policy.yaml", &here());
    file.unwrap_or_else(|errors| panic!("{errors:?}\n{text}"))
        .inventory
}

/// The file says what the inventory says. Returns the text.
fn check_with(state: &State, options: &Options) -> String {
    let text = policy_file(state, options);
    let host = Host {
        id: here(),
        tunnel_address: None,
        peer_trust: Default::default(),
        settings: Default::default(),
    };
    let names = group_names(state);
    let rename = |vm: &str| names[&VmName::new(vm).expect("a name")].clone();
    let expected = inventory(state, host, options);
    let read = parsed(&text);
    assert_eq!(
        meaning(&read, str::to_owned),
        meaning(&expected, rename),
        "{text}"
    );
    assert_eq!(read.hosts, expected.hosts);
    text
}

fn check(lines: &[&str]) -> String {
    check_with(&state(lines), &Options::default())
}

const NIC: &str = "--vmname i-2-10-VM --vmid 10 --vmip 10.1.1.10 --vmip6 fd00::10 --vmmac 02:00:4c:5f:00:01 --vif vnet0 --brname cloudbr0 --nicsecips 10.1.1.110;";

#[test]
fn a_host_is_a_file_to_read() {
    let push = format!(
        "add_network_rules {NIC} --sig s --seq 1 --rules=I:tcp;22;22;192.0.2.0/24,2001:db8::/32,NEXT;I:icmp;8;0;0.0.0.0/0,fd00::/8,NEXT;I:tcp;8000;8099;0.0.0.0/0,::/0,NEXT;E:47;0;0;10.0.0.0/8,NEXT;"
    );
    let text = check(&[
        &push,
        "default_network_rules --vmname i-2-11-VM --vmid 11 --vmmac 02:00:4c:5f:00:02 --vif vnet1 --brname brbond0-304 --isFirstNic",
        "default_network_rules_systemvm --vmname r-4-VM --localbrname cloud0",
    ]);
    let expected = format!(
        r#"{HEAD}
networks:
  "brbond0-304": {{ scope: "brbond0-304", subnets: ["0.0.0.0/0", "::/0"], eui64-only: on }}
  "cloudbr0": {{ scope: "cloudbr0", subnets: ["0.0.0.0/0", "::/0"], eui64-only: on }}

groups:
  "i-2-10-VM":
    rules:
      - {{ name: "in-icmp-8-0-any4", from: any, protocol: icmp 8/0, family: ipv4 }}
      - {{ name: "in-icmpv6-8-0", from: ["fd00::/8"], protocol: icmpv6 8/0 }}
      - {{ name: "in-tcp-22", from: ["192.0.2.0/24", "2001:db8::/32"], protocol: tcp, ports: 22 }}
      - {{ name: "in-tcp-8000-8099-any", from: any, protocol: tcp, ports: 8000-8099 }}
      - {{ name: "eg-all-any6", to: any, family: ipv6 }}
      - {{ name: "eg-proto-47", to: ["10.0.0.0/8"], protocol: 47 }}
      - {{ name: "eg-tcp-53-any4", to: any, protocol: tcp, ports: 53, family: ipv4 }}
      - {{ name: "eg-udp-53-any4", to: any, protocol: udp, ports: 53, family: ipv4 }}
  # No rules had come yet.
  "i-2-11-VM":
    rules:
      - {{ name: "eg-all-any", to: any }}

ports:
  "i-2-10-VM.02-00-4c-5f-00-01": {{ network: "cloudbr0", device: "vnet0", mac: "02:00:4c:5f:00:01", addresses: ["10.1.1.10", "10.1.1.110", "fd00::10"], groups: ["i-2-10-VM"] }}
  "i-2-11-VM.02-00-4c-5f-00-02": {{ network: "brbond0-304", device: "vnet1", mac: "02:00:4c:5f:00:02", groups: ["i-2-11-VM"] }}
  "r-4-VM.02-00-4c-5f-00-05": {{ network: "cloudbr0", device: "vnet5", mac: "02:00:4c:5f:00:05", port-security: off }}
"#
    );
    assert_eq!(text, expected);
    let read = parsed(&text);
    let (_, findings) = policy::compile(&read, &here());
    assert_eq!(findings, []);
}

#[test]
fn nothing_is_a_file_too() {
    assert_eq!(check(&[]), HEAD);
}

#[test]
fn whatever_the_script_has_left_is_a_file() {
    for made in Made::ALL {
        let built = sample::host(made, made);
        let commands = built.commands();
        let lines: Vec<&str> = commands.iter().map(String::as_str).collect();
        check(&lines);
    }
}

#[test]
fn options_are_said_as_rules() {
    let closed = Options {
        dns: false,
        egress_before_rules: false,
    };
    let state = state(&[&format!("default_network_rules {NIC} --isFirstNic")]);
    let text = check_with(&state, &closed);
    assert!(text.contains("    rules: []\n"), "{text}");
}

#[test]
fn what_matches_nobody_is_a_comment() {
    let push = format!(
        "add_network_rules {NIC} --sig s --seq 1 --rules=I:51;0;0;10.0.0.0/8,fd00::/8,NEXT;I:tcp;22;22;::ffff:1.2.3.4/128,NEXT;E:all;0;0;null/32,NEXT;"
    );
    let text = check(&[&push]);
    for id in ["in-proto-51-fd00::_8", "in-tcp-22-22-::ffff:1.2.3.4_128"] {
        let comment = format!("  # Not here, as it matches nobody: {id}.\n");
        assert!(text.contains(&comment), "{text}");
    }
}

#[test]
fn rules_that_were_found_say_so() {
    let mut state = state(&[&format!("default_network_rules {NIC} --isFirstNic")]);
    let vm = state.vms.values_mut().next().expect("one");
    if let VmKind::User(user) = &mut vm.kind {
        user.push = Some(Push::provisional(Rules::default()));
    }
    let text = check_with(&state, &Options::default());
    assert!(text.contains("  # These rules were found on the host, and may be incomplete.\n"));
}

fn check_name(vm: &str, expected: &str) {
    let line = format!(
        "default_network_rules --vmname {vm} --vmid 1 --vmmac 02:00:00:00:00:01 --vif v0 --brname b0 --isFirstNic"
    );
    let text = check(&[&line]);
    let group = format!("\n  {}:\n", quoted(expected));
    assert!(text.contains(&group), "{text}");
    let comment = format!("  # VM {vm}, whose name can't be one here.\n");
    assert_eq!(text.contains(&comment), vm != expected, "{text}");
}

#[test]
fn names_that_fit_stay_and_others_are_made_from_theirs() {
    check_name("i-2-10-VM", "i-2-10-VM");
    let long = "x".repeat(63);
    check_name(&long, &long);
    check_name(
        &"x".repeat(64),
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-b96a5acbb56db825",
    );
    check_name("any", "any-e6f7b419052023cd");
    check_name("10.1", "10.1-0d606ef0f8716c3d");
}

#[test]
fn a_made_name_is_nobody_elses() {
    let mut names = Names::default();
    let long = "x".repeat(80);
    let made = names.make(&long);
    assert_eq!(made.len(), MAX_NAME);
    assert_ne!(names.make(&long), made);
    assert_eq!(Names::default().make(&long), made);
    assert_ne!(Names(BTreeSet::from([made.clone()])).take(&long), made);
}

#[test]
fn what_two_nics_share_is_said_in_another_way() {
    let nic = |vm: &str, mac: &str, vif: &str, bridge: &str| {
        format!(
            "default_network_rules --vmname {vm} --vmid 1 --vmip 10.1.1.10 --vmip6 fe80::99 --vmmac {mac} --vif {vif} --brname {bridge} --isFirstNic"
        )
    };
    let lines = [
        nic("i-2-10-VM", "02:00:00:00:00:01", "vnet0", "br0"),
        nic("i-2-11-VM", "02:00:00:00:00:01", "vnet1", "br0"),
        nic("i-2-12-VM", "02:00:00:00:00:01", "vnet2", "br1"),
        nic("i-2-13-VM", "02:00:00:00:00:02", "vnet3", "br0"),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let text = check(&lines);
    let read = parsed(&text);
    let networks: Vec<(&str, &str)> = read
        .networks
        .values()
        .map(|n| (n.id.as_str(), n.scope.as_str()))
        .collect();
    assert_eq!(networks.len(), 3);
    assert_eq!(
        networks.iter().filter(|(_, scope)| *scope == "br0").count(),
        2
    );
    let pairs = |device: &str| {
        let is_it = |port: &&Port| port.device == DeviceMatch::Name(device.to_owned());
        read.ports
            .values()
            .find(is_it)
            .expect("there")
            .address_pairs
            .len()
    };
    assert_eq!(
        ["vnet0", "vnet1", "vnet2", "vnet3"].map(pairs),
        [0, 2, 0, 2]
    );
}

#[test]
fn many_prefixes_are_several_rules() {
    let remotes: String = (0..2_500)
        .map(|n| format!("10.{}.{}.0/24,", n / 256, n % 256))
        .collect();
    let push = format!("add_network_rules {NIC} --sig s --seq 1 --rules=I:all;0;0;{remotes}NEXT;");
    let text = check(&[&push]);
    for name in ["\"in-all\"", "\"in-all-part2\"", "\"in-all-part3\""] {
        assert!(text.contains(name), "{name}");
    }
}

fn any_state() -> impl Strategy<Value = State> {
    let name = prop_oneof![
        "i-[1-3]-[0-9]{1,2}-VM",
        "[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}",
        "[0-9][0-9.]{0,3}",
        Just("Any".to_owned()),
        "x{60,70}",
    ];
    let bridge = prop_oneof![Just("br0"), Just("cloudbr0-300"), Just("0.1")];
    let addresses = proptest::collection::btree_set(
        prop_oneof![
            (0..20_u8).prop_map(|last| IpAddr::from([10, 0, 0, last])),
            (1..20_u16).prop_map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])),
            (1..20_u16).prop_map(|last| IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, last])),
        ],
        0..4,
    );
    let nic = (0..6_u8, bridge, addresses);
    let push = proptest::option::of(proptest::collection::vec(rules::tests::any_record(), 0..6));
    let vm = (proptest::collection::vec(nic, 0..3), any::<bool>(), push);
    proptest::collection::btree_map(name, vm, 0..6).prop_map(|vms| {
        let mut devices = 0..;
        let mut state = State::default();
        for (name, (nics, is_user, push)) in vms {
            let nics = nics.into_iter().map(|(mac, bridge, addresses)| {
                let nic = Nic {
                    vif: DeviceName::new(&format!("vnet{}", devices.next().expect("endless")))
                        .expect("a name"),
                    bridge: DeviceName::new(bridge).expect("a name"),
                    ipv4: None,
                    ipv6: None,
                    secondary: addresses,
                    first: false,
                    direct_routed: false,
                };
                (MacAddr([2, 0, 0, 0, 0, mac]), nic)
            });
            let user = UserVm {
                id: 1,
                address: None,
                push: push.map(|records| Push {
                    signature: Signature::new("s").expect("a signature"),
                    sequence: 1,
                    rules: Rules::new(records),
                }),
            };
            let vm = Vm {
                kind: if is_user {
                    VmKind::User(user)
                } else {
                    VmKind::System
                },
                domain: None,
                nics: nics.collect(),
            };
            state.vms.insert(VmName::new(&name).expect("a name"), vm);
        }
        state
    })
}

proptest! {
    #[test]
    fn any_state_is_a_file_that_means_the_same(
        state in any_state(),
        dns in any::<bool>(),
        egress_before_rules in any::<bool>(),
    ) {
        check_with(&state, &Options { dns, egress_before_rules });
    }
}
