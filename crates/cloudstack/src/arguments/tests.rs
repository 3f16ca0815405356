use super::*;
use proptest::prelude::*;

/// A line as a shell would take it apart: words without blanks.
fn read(line: &str) -> Result<Command, ArgumentError> {
    parse(&line.split_whitespace().collect::<Vec<_>>())
}

fn check(line: &str, expected: Command) {
    assert_eq!(read(line), Ok(expected), "{line}");
}

fn check_bad(line: &str, expected: &str) {
    match read(line) {
        Err(error) => assert_eq!(error.to_string(), expected, "{line}"),
        Ok(command) => panic!("{line}: {command:?}"),
    }
}

fn vm(name: &str) -> VmName {
    VmName::new(name).expect("a name")
}

fn device(name: &str) -> DeviceName {
    DeviceName::new(name).expect("a name")
}

fn mac() -> MacAddr {
    "02:00:4c:5f:00:01".parse().expect("a MAC")
}

fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
    let address = |a: &&str| a.parse().expect("an address");
    addresses.iter().map(address).collect()
}

fn nic() -> NicArguments {
    NicArguments {
        mac: mac(),
        vif: device("vnet0"),
        bridge: device("cloudbr0"),
        ipv4: Some(Ipv4Addr::new(10, 1, 1, 10)),
        ipv6: None,
        secondary: BTreeSet::new(),
        direct_routed: false,
    }
}

const NIC: &str = "--vmname i-2-10-VM --vmid 10 --vmip 10.1.1.10 --vmmac 02:00:4c:5f:00:01 --vif vnet0 --brname cloudbr0 --nicsecips 0;";

#[test]
fn a_nic_comes() {
    let rules = DefaultRules {
        vm: vm("i-2-10-VM"),
        vm_id: 10,
        nic: nic(),
        first: true,
        check: false,
    };
    let first = format!("default_network_rules {NIC} --isFirstNic");
    check(&first, Command::DefaultRules(rules.clone()));
    let checked = DefaultRules {
        first: false,
        check: true,
        nic: NicArguments {
            ipv6: Some("fd00::10".parse().expect("an address")),
            secondary: set(&["10.1.1.110", "fd00::110"]),
            direct_routed: true,
            ..nic()
        },
        ..rules.clone()
    };
    let line = "--check --directrouted default_network_rules --vmname=i-2-10-VM --vmid=10 --vmip=10.1.1.10 --vmip6=FD00::10 --vmmac=02:00:4C:5F:00:01 --vif=vnet0 --brname=cloudbr0 --nicsecips=10.1.1.110;fd00::110";
    check(line, Command::DefaultRules(checked));
    let no_ipv4 = DefaultRules {
        nic: NicArguments {
            ipv4: None,
            ..nic()
        },
        ..rules
    };
    let line = first.replace("--vmip 10.1.1.10", "--vmip=");
    check(&line, Command::DefaultRules(no_ipv4.clone()));
    let line = first.replace("--vmip 10.1.1.10", "");
    check(&line, Command::DefaultRules(no_ipv4));
}

#[test]
fn rules_are_pushed() {
    let text = "I:tcp;22;22;0.0.0.0/0,NEXT;";
    let push = AddRules {
        vm: vm("i-2-10-VM"),
        vm_id: 10,
        nic: nic(),
        signature: Signature::new("9a0364b9e99bb480dd25e1f0284c8555").expect("a signature"),
        sequence: 7,
        rules: Rules::parse(text).expect("rules"),
    };
    let line = format!("add_network_rules {NIC} --sig 9a0364b9e99bb480dd25e1f0284c8555 --seq 7");
    check(
        &format!("{line} --rules {text}"),
        Command::AddRules(push.clone()),
    );
    let none = AddRules {
        rules: Rules::default(),
        ..push
    };
    check(&line, Command::AddRules(none.clone()));
    check(&format!("{line} --rules="), Command::AddRules(none));
    check_bad(
        &format!("{line} --rules I:tcp;22;22;0.0.0.0/0,NEXT;E:tcp;22;22;NEXT;"),
        "--rules: record 2 of the rules, `E:tcp;22;22;`: it has no prefixes",
    );
}

#[test]
fn a_vm_or_one_of_its_nics_goes() {
    let stop = Command::DestroyVm {
        vm: vm("i-2-10-VM"),
    };
    check(
        "destroy_network_rules_for_vm --vmname i-2-10-VM --vif vnet0",
        stop.clone(),
    );
    check("destroy_network_rules_for_vm --vmname i-2-10-VM", stop);
    let unplug = Command::UnplugNic {
        vm: vm("i-2-10-VM"),
        mac: mac(),
    };
    let line = "destroy_network_rules_for_vm --vmname i-2-10-VM --vmip 10.1.1.10 --vmmac 02:00:4c:5f:00:01 --vif vnet0 --nicsecips 0;";
    check(line, unplug.clone());
    // A NIC without IPv4: the agent leaves --vmip out, and the VM goes on.
    check(&line.replace("--vmip 10.1.1.10", ""), unplug);
    check_bad(
        "destroy_network_rules_for_vm --vmname i-2-10-VM --vmip 10.1.1.10",
        "destroy_network_rules_for_vm needs --vmmac",
    );
}

#[test]
fn the_other_commands() {
    check(
        "can_bridge_firewall --privnic cloudbr0",
        Command::CanBridgeFirewall,
    );
    check("get_rule_logs_for_vms", Command::RuleLogs);
    check("cleanup_rules", Command::CleanupRules);
    check("post_default_network_rules", Command::PostDefaultRules);
    check(
        "default_network_rules_systemvm --vmname r-4-VM --localbrname cloud0",
        Command::SystemVmRules {
            vm: vm("r-4-VM"),
            local_bridge: device("cloud0"),
        },
    );
    let secondary = |action| Command::SecondaryAddresses {
        vm: vm("i-2-10-VM"),
        mac: mac(),
        addresses: set(&["10.1.1.110"]),
        action,
    };
    let line = "network_rules_vmSecondaryIp --vmname i-2-10-VM --vmmac 02:00:4c:5f:00:01 --nicsecips 10.1.1.110";
    check(
        &format!("{line} --action=-A"),
        secondary(AddressAction::Add),
    );
    check(
        &format!("{line}; --action=-D"),
        secondary(AddressAction::Remove),
    );
    let verify = Verify {
        vm: vm("i-2-10-VM"),
        ipv4: Ipv4Addr::new(10, 1, 1, 10),
        mac: mac(),
        vm_id: None,
        ipv6: None,
        vif: None,
        bridge: None,
        secondary: BTreeSet::new(),
    };
    let line = "verify_network_rules --vmname i-2-10-VM --vmip 10.1.1.10 --vmmac 02:00:4c:5f:00:01";
    check(line, Command::Verify(verify.clone()));
    let all = Verify {
        vm_id: Some(10),
        vif: Some(device("vnet0")),
        bridge: Some(device("cloudbr0")),
        ..verify
    };
    check(
        &format!("{line} --vmid 10 --vif vnet0 --brname cloudbr0 --nicsecips 0;"),
        Command::Verify(all),
    );
}

#[test]
fn options_that_a_command_does_not_use_are_not_read() {
    check(
        "cleanup_rules --rules nonsense --vmip ?",
        Command::CleanupRules,
    );
}

#[test]
fn a_bad_line_is_refused() {
    let commands = "can_bridge_firewall, default_network_rules, add_network_rules, destroy_network_rules_for_vm, default_network_rules_systemvm, network_rules_vmSecondaryIp, get_rule_logs_for_vms, cleanup_rules, post_default_network_rules, verify_network_rules";
    check_bad("", &format!("no command is given: one of {commands}"));
    check_bad(
        "nonsense",
        &format!("`nonsense` is no command: one of {commands}"),
    );
    check_bad(
        "cleanup_rules --direction=in",
        "there is no option `--direction`",
    );
    check_bad("cleanup_rules -v", "there is no option `-v`");
    // argparse would take it for --vmname.
    check_bad("cleanup_rules --vmn x", "there is no option `--vmn`");
    check_bad(
        "cleanup_rules x",
        "`x` is neither the command nor the value of an option",
    );
    check_bad(
        "cleanup_rules --action -A",
        "--action needs a value; one that begins with `-` is given as --action=VALUE",
    );
    check_bad(
        "cleanup_rules --action",
        "--action needs a value; one that begins with `-` is given as --action=VALUE",
    );
    check_bad("cleanup_rules --check=yes", "--check takes no value");
    check_bad("cleanup_rules --check --check", "--check is given twice");
    check_bad("cleanup_rules --vif a --vif=a", "--vif is given twice");
}

#[test]
fn what_a_command_needs_is_named() {
    let needs = |line: &str, option: &str| {
        let command = line.split_whitespace().next().expect("a command");
        check_bad(line, &format!("{command} needs {option}"));
    };
    needs("default_network_rules", "--vmname");
    needs("default_network_rules --vmname=", "--vmname");
    needs("default_network_rules --vmname i-2-10-VM", "--vmid");
    needs(
        "default_network_rules --vmname i-2-10-VM --vmid 1",
        "--vmmac",
    );
    for option in ["--vmname", "--vmid", "--vmmac", "--vif", "--brname"] {
        for command in ["default_network_rules", "add_network_rules"] {
            let line = format!(
                "{command} {} --sig s --seq 1",
                NIC.replace(option, "--privnic")
            );
            needs(&line, option);
        }
    }
    needs(&format!("add_network_rules {NIC}"), "--sig");
    needs(&format!("add_network_rules {NIC} --sig s"), "--seq");
    needs("destroy_network_rules_for_vm", "--vmname");
    needs(
        "default_network_rules_systemvm --vmname r-4-VM",
        "--localbrname",
    );
    needs(
        "network_rules_vmSecondaryIp --vmname i-2-10-VM --vmmac 02:00:4c:5f:00:01",
        "--action",
    );
    needs("verify_network_rules --vmname i-2-10-VM", "--vmip");
}

#[test]
fn a_value_that_cannot_be_right_is_named() {
    let bad = |option: &str, value: &str, expected: &str| {
        let line = format!("add_network_rules {NIC} --sig s --seq 1 --vmip6 fd00::1");
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == option).expect(option);
        words[at + 1] = value;
        let error = parse(&words).expect_err(value);
        assert_eq!(error.to_string(), expected, "{option} {value}");
    };
    bad(
        "--vmname",
        "../i-2-10-VM",
        "--vmname: `../i-2-10-VM` is no name of a VM: at most 128 letters, digits, `.`, `_` or `-`",
    );
    bad("--vmid", "١٠", "--vmid: `١٠` is no number");
    bad("--vmid", "010", "--vmid: `010` is no number");
    bad("--seq", "1.5", "--seq: `1.5` is no number");
    bad(
        "--vmip",
        "10.1.1.010",
        "--vmip: `10.1.1.010` is no IPv4 address of a VM",
    );
    bad(
        "--vmip",
        "10.1.1.10/24",
        "--vmip: `10.1.1.10/24` is no IPv4 address of a VM",
    );
    bad(
        "--vmip",
        "0.0.0.0",
        "--vmip: `0.0.0.0` is no IPv4 address of a VM",
    );
    bad(
        "--vmip",
        "fd00::1",
        "--vmip: `fd00::1` is no IPv4 address of a VM",
    );
    bad(
        "--vmip6",
        "10.1.1.10",
        "--vmip6: `10.1.1.10` is no IPv6 address of a VM",
    );
    bad(
        "--vmip6",
        "::ffff:10.1.1.10",
        "--vmip6: `::ffff:10.1.1.10` is no IPv6 address of a VM",
    );
    bad(
        "--vmmac",
        "01:00:5e:00:00:01",
        "--vmmac: `01:00:5e:00:00:01` is no MAC of a NIC, such as 02:00:4c:5f:00:01",
    );
    bad(
        "--vif",
        "vnet0;x",
        "--vif: `vnet0;x` is no name of a network device: at most 15 letters, digits, `.`, `_` or `-`",
    );
    bad(
        "--brname",
        "a-name-that-is-too-long",
        "--brname: `a-name-that-is-too-long` is no name of a network device: at most 15 letters, digits, `.`, `_` or `-`",
    );
    bad(
        "--sig",
        "a,b",
        "--sig: `a,b` is no signature: at most 64 letters, digits or `_`",
    );
    bad(
        "--nicsecips",
        "10.1.1.110;x",
        "--nicsecips: `x` is no address that a VM can have",
    );
    check_bad(
        "network_rules_vmSecondaryIp --vmname i-2-10-VM --vmmac 02:00:4c:5f:00:01 --action=-X",
        "--action: `-X` is no action: -A or -D",
    );
}

proptest! {
    #[test]
    fn any_line_is_read_or_refused_in_one_line(
        words in proptest::collection::vec(
            prop_oneof![
                proptest::sample::select(&COMMANDS[..]).prop_map(str::to_owned),
                proptest::sample::select(&VALUED[..]).prop_map(str::to_owned),
                proptest::sample::select(&FLAGS[..]).prop_map(str::to_owned),
                proptest::sample::select(&VALUED[..]).prop_map(|option| format!("{option}=x")),
                Just("i-2-10-VM".to_owned()),
                Just("10.1.1.10".to_owned()),
                "\\PC{0,12}",
                "(?s).{0,6}",
            ],
            0..14,
        )
    ) {
        if let Err(error) = parse(&words) {
            prop_assert!(!error.to_string().contains('\n'), "{}", error);
        }
    }
}
