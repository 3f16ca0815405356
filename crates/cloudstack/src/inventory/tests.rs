use super::*;
use crate::{change, rules};
use change::{Facts, Interface};
use proptest::prelude::*;

fn host() -> Host {
    Host {
        id: HostId::new("kvm1"),
        tunnel_address: None,
        peer_trust: Default::default(),
        settings: Default::default(),
    }
}

fn state(lines: &[&str], facts: &Facts) -> State {
    let mut state = State::default();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let command = crate::arguments::parse(&words).unwrap_or_else(|e| panic!("{line}: {e}"));
        change::apply(&mut state, &command, facts).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
    state
}

const NIC: &str = "--vmname i-2-10-VM --vmid 10 --vmip 10.1.1.10 --vmip6 fd00::10 --vmmac 02:00:4c:5f:00:01 --vif vnet0 --brname cloudbr0 --nicsecips 10.1.1.110;fd00::110;";

/// What the rules of one VM become, `None` before they come; in words, in the order of their ids.
fn check_with(options: Options, text: Option<&str>, expected: &[&str]) {
    let line = match text {
        Some(text) => format!("add_network_rules {NIC} --sig s --seq 1 --rules={text}"),
        None => format!("default_network_rules {NIC} --isFirstNic"),
    };
    let state = state(&[&line], &Facts::default());
    let inventory = inventory(&state, host(), &options);
    let group = &inventory.groups[&group_id(state.vms.keys().next().expect("one VM"))];
    let rules = group.rules.values();
    let seen: Vec<String> = rules.map(|r| format!("{}: {}", r.id, words(r))).collect();
    assert_eq!(seen, expected, "{text:?}");
}

fn check(text: &str, expected: &[&str]) {
    check_with(Options::default(), Some(text), expected);
}

fn words(rule: &Rule) -> String {
    let l4 = match rule.l4 {
        L4Match::Any => "anything".to_owned(),
        L4Match::Ported { protocol, dst } if dst == L4PortRange::ALL => format!("{protocol:?}"),
        L4Match::Ported { protocol, dst } => {
            format!("{protocol:?} {}-{}", dst.first(), dst.last())
        }
        L4Match::Icmp { kind: None } => "ICMP".to_owned(),
        L4Match::Icmp { kind: Some(kind) } => match kind.code {
            Some(code) => format!("ICMP {}/{code}", kind.icmp_type),
            None => format!("ICMP {}", kind.icmp_type),
        },
        L4Match::Other(protocol) => format!("protocol {}", protocol.number()),
    };
    let peer = match &rule.peer {
        Peer::Any => "anybody".to_owned(),
        Peer::Prefix(prefix) => prefix.to_string(),
        other => format!("{other:?}"),
    };
    format!("{} {} {l4}, {peer}", rule.direction, rule.family)
}

const OPEN4: &str = "eg-all-any4: egress IPv4 anything, anybody";
const OPEN6: &str = "eg-all-any6: egress IPv6 anything, anybody";
const DNS4: [&str; 2] = [
    "eg-tcp-53-53-any4: egress IPv4 Tcp 53-53, anybody",
    "eg-udp-53-53-any4: egress IPv4 Udp 53-53, anybody",
];

#[test]
fn without_rules_nothing_comes_in_and_everything_goes_out() {
    check("", &[OPEN4, OPEN6]);
    check_with(Options::default(), None, &[OPEN4, OPEN6]);
}

#[test]
fn before_rules_come_an_operator_may_have_it_closed() {
    let options = Options {
        egress_before_rules: false,
        ..Options::default()
    };
    check_with(
        options,
        None,
        &[
            "eg-tcp-53-53-any4: egress IPv4 Tcp 53-53, anybody",
            "eg-tcp-53-53-any6: egress IPv6 Tcp 53-53, anybody",
            "eg-udp-53-53-any4: egress IPv4 Udp 53-53, anybody",
            "eg-udp-53-53-any6: egress IPv6 Udp 53-53, anybody",
        ],
    );
    let options = Options {
        dns: false,
        ..options
    };
    check_with(options, None, &[]);
    // Once they have come, having none is what they say.
    check_with(options, Some(""), &[OPEN4, OPEN6]);
}

#[test]
fn ingress_is_what_rules_admit() {
    check(
        "I:tcp;22;22;192.0.2.0/24,0.0.0.0/0,::/0,NEXT;I:udp;0;0;192.0.2.1/32,NEXT;",
        &[
            OPEN4,
            OPEN6,
            "in-tcp-22-22-192.0.2.0_24: ingress IPv4 Tcp 22-22, 192.0.2.0/24",
            "in-tcp-22-22-any4: ingress IPv4 Tcp 22-22, anybody",
            "in-tcp-22-22-any6: ingress IPv6 Tcp 22-22, anybody",
            "in-udp-0-65535-192.0.2.1_32: ingress IPv4 Udp, 192.0.2.1",
        ],
    );
    check(
        "I:all;0;0;0.0.0.0/0,::/0,NEXT;",
        &[
            OPEN4,
            OPEN6,
            "in-all-any4: ingress IPv4 anything, anybody",
            "in-all-any6: ingress IPv6 anything, anybody",
        ],
    );
}

#[test]
fn the_first_egress_rule_of_a_family_restricts_it() {
    let to_ntp = "eg-udp-123-123-any4: egress IPv4 Udp 123-123, anybody";
    check(
        "E:udp;123;123;0.0.0.0/0,NEXT;",
        &[OPEN6, DNS4[0], to_ntp, DNS4[1]],
    );
    let options = Options {
        dns: false,
        ..Options::default()
    };
    check_with(
        options,
        Some("E:udp;123;123;0.0.0.0/0,NEXT;"),
        &[OPEN6, to_ntp],
    );
    check(
        "E:icmp;-1;-1;fd00::/8,NEXT;",
        &[
            OPEN4,
            "eg-icmp-fd00::_8: egress IPv6 ICMP, fd00::/8",
            "eg-tcp-53-53-any6: egress IPv6 Tcp 53-53, anybody",
            "eg-udp-53-53-any6: egress IPv6 Udp 53-53, anybody",
        ],
    );
    // Everything, but said by a rule.
    check(
        "E:all;0;0;0.0.0.0/0,NEXT;",
        &[OPEN4, OPEN6, DNS4[0], DNS4[1]],
    );
    // Nobody is admitted, and so nothing is.
    check("E:all;0;0;null/32,NEXT;", &[OPEN6, DNS4[0], DNS4[1]]);
    check("E:58;0;0;10.0.0.0/8,NEXT;", &[OPEN6, DNS4[0], DNS4[1]]);
}

#[test]
fn icmp_is_that_of_the_family() {
    check(
        "I:icmp;8;0;10.0.0.0/8,fd00::/8,NEXT;I:icmp;3;-1;10.0.0.0/8,NEXT;I:icmp;-1;-1;::/0,NEXT;",
        &[
            OPEN4,
            OPEN6,
            "in-icmp-3-10.0.0.0_8: ingress IPv4 ICMP 3, 10.0.0.0/8",
            "in-icmp-8-0-10.0.0.0_8: ingress IPv4 ICMP 8/0, 10.0.0.0/8",
            "in-icmp-8-0-fd00::_8: ingress IPv6 ICMP 8/0, fd00::/8",
            "in-icmp-any6: ingress IPv6 ICMP, anybody",
        ],
    );
}

#[test]
fn protocols_go_by_their_numbers() {
    let number = |number: u8, v4: Option<&str>, v6: Option<&str>| {
        let line = |family: &str, remote: &str, what: &str| {
            let (network, length) = remote.split_once('/').expect("a prefix");
            format!("in-proto-{number}-{network}_{length}: ingress {family} {what}, {remote}")
        };
        let v4 = v4.map(|what| line("IPv4", "10.0.0.0/8", what));
        let v6 = v6.map(|what| line("IPv6", "fd00::/8", what));
        let rules: Vec<String> = v4.into_iter().chain(v6).collect();
        let open = [OPEN4, OPEN6].into_iter();
        let expected: Vec<&str> = open.chain(rules.iter().map(String::as_str)).collect();
        check(
            &format!("I:{number};0;0;10.0.0.0/8,fd00::/8,NEXT;"),
            &expected,
        );
    };
    number(47, Some("protocol 47"), Some("protocol 47"));
    // Not every protocol, as iptables reads it.
    number(0, Some("protocol 0"), Some("protocol 0"));
    number(132, Some("Sctp"), Some("Sctp"));
    number(58, None, Some("ICMP"));
}

#[test]
fn what_is_said_twice_is_one_rule() {
    let once = [
        OPEN4,
        OPEN6,
        "in-all-10.0.0.0_8: ingress IPv4 anything, 10.0.0.0/8",
    ];
    check("I:all;0;0;10.0.0.0/8,NEXT;", &once);
    check(
        "I:all;0;0;10.0.0.0/8,10.1.2.3/8,NEXT;I:all;0;0;10.0.0.0/8,NEXT;",
        &once,
    );
}

#[test]
fn a_nic_is_a_port_of_its_bridges_network() {
    let first = format!("default_network_rules {NIC} --isFirstNic");
    let second = "default_network_rules --vmname i-2-10-VM --vmid 10 --vmmac 02:01:4c:5f:00:11 --vif vnet1 --brname brbond0-304";
    let inventory = inventory(
        &state(&[&first, second], &Facts::default()),
        host(),
        &Options::default(),
    );
    let port = |mac: &str, network: &str, vif: &str, addresses: &[&str]| Port {
        id: PortId::new(format!("i-2-10-VM/{mac}")),
        network: network.into(),
        host: Some("kvm1".into()),
        device: DeviceMatch::Name(vif.to_owned()),
        moving: None,
        mac: mac.parse().expect("a MAC"),
        fixed_addresses: (addresses.iter().map(|a| a.parse().expect("an address"))).collect(),
        address_pairs: FrozenSet::new(),
        groups: FrozenSet::from(["i-2-10-VM".into()]),
        port_security: true,
        dhcp_server: false,
        router: false,
    };
    let addresses = ["10.1.1.10", "fd00::10", "10.1.1.110", "fd00::110"];
    let expected = [
        port("02:00:4c:5f:00:01", "cloudbr0", "vnet0", &addresses),
        port("02:01:4c:5f:00:11", "brbond0-304", "vnet1", &[]),
    ];
    let seen: Vec<Port> = inventory.ports.values().cloned().collect();
    assert_eq!(seen, expected);
    for (id, network) in &inventory.networks {
        assert_eq!((&network.id, network.scope.as_str()), (id, id.as_str()));
        assert!(network.eui64_only && network.dhcp_servers.is_empty());
        let everything = Family::BOTH.map(Prefix::whole);
        assert_eq!(network.subnets, everything.into());
    }
    assert_eq!(inventory.networks.len(), 2);
    assert_eq!(inventory.hosts.len(), 1);
}

#[test]
fn a_system_vm_is_not_guarded() {
    let interface = |vif: &str, bridge: &str, mac: &str| Interface {
        vif: crate::DeviceName::new(vif).expect("a name"),
        bridge: crate::DeviceName::new(bridge).expect("a name"),
        mac: mac.parse().expect("a MAC"),
    };
    let facts = Facts {
        interfaces: vec![
            interface("vnet4", "cloud0", "0e:00:a9:fe:00:04"),
            interface("vnet5", "cloudbr0", "02:00:4c:5f:00:04"),
        ],
        ..Facts::default()
    };
    let line = "default_network_rules_systemvm --vmname r-4-VM --localbrname cloud0";
    let inventory = inventory(&state(&[line], &facts), host(), &Options::default());
    let ports: Vec<&Port> = inventory.ports.values().collect();
    let [port] = ports[..] else {
        panic!("{ports:?}");
    };
    assert!(!port.port_security && port.groups.is_empty());
    assert_eq!(port.device, DeviceMatch::Name("vnet5".to_owned()));
    let networks: Vec<&str> = inventory.networks.keys().map(NetworkId::as_str).collect();
    assert_eq!(networks, ["cloudbr0"]);
    assert!(inventory.groups.is_empty());
}

/// The compiler has nothing to say about what CloudStack usually asks for.
#[test]
fn it_compiles_without_findings() {
    let push = format!(
        "add_network_rules {NIC} --sig s --seq 1 --rules I:tcp;22;22;0.0.0.0/0,::/0,NEXT;I:47;0;0;10.0.0.0/8,NEXT;E:icmp;-1;-1;0.0.0.0/0,NEXT;"
    );
    let second = "default_network_rules --vmname i-2-10-VM --vmid 10 --vmip 10.1.1.10 --vmmac 02:01:4c:5f:00:11 --vif vnet1 --brname brbond0-304";
    let state = state(&[&push, second], &Facts::default());
    let inventory = inventory(&state, host(), &Options::default());
    let (_, findings) = policy::compile(&inventory, &host().id);
    assert_eq!(findings, []);
}

proptest! {
    /// Whatever the rules, a family's egress is open exactly if no record of it is an egress rule.
    #[test]
    fn egress_is_open_without_egress_rules(
        records in proptest::collection::vec(rules::tests::any_record(), 0..6)
    ) {
        let text = rules::Rules::new(records.clone());
        let text = text.text();
        let line = format!("add_network_rules {NIC} --sig s --seq 1 --rules={text}");
        let state = state(&[&line], &Facts::default());
        let options = Options { dns: false, ..Options::default() };
        let inventory = inventory(&state, host(), &options);
        let group = inventory.groups.values().next().expect("one");
        for family in Family::BOTH {
            let said = |r: &&RuleRecord| r.direction == Direction::Egress && r.is_of(family);
            let said: Vec<&RuleRecord> = records.iter().filter(said).collect();
            let egress = |r: &&Rule| r.direction == Direction::Egress && r.family == family;
            let egress: Vec<&Rule> = group.rules.values().filter(egress).collect();
            if said.is_empty() {
                let open = |r: &&Rule| (&r.l4, &r.peer) == (&L4Match::Any, &Peer::Any);
                prop_assert_eq!(egress.len(), 1);
                prop_assert!(egress.iter().all(open));
            } else {
                let prefixes: usize = said.iter().map(|r| r.remotes.len()).sum();
                prop_assert!(egress.len() <= prefixes);
            }
        }
    }
}
