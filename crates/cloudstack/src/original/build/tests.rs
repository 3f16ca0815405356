use super::*;
use crate::arguments;
use crate::change::{self, Facts};
use crate::original::Link;

fn state(commands: &[&str]) -> State {
    let mut state = State::default();
    for line in commands {
        let words: Vec<&str> = line.split_whitespace().collect();
        let command = arguments::parse(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
        let done = change::apply(&mut state, &command, &Facts::default());
        done.unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    state
}

/// A VM with one NIC on a bridge.
fn vm(name: &str, number: u8, bridge: &str, rules: &str) -> [String; 2] {
    let nic = format!(
        "--vmname {name} --vmid {number} --vmip 10.1.1.{number} --vmmac 02:00:4c:5f:00:{number:02x} \
         --vif vnet{number} --brname {bridge} --nicsecips 0;"
    );
    [
        format!("default_network_rules {nic} --isFirstNic"),
        format!("add_network_rules {nic} --sig 9a03 --seq 4 --rules {rules}"),
    ]
}

fn of_vms(vms: &[[String; 2]]) -> State {
    let commands: Vec<&str> = vms.iter().flatten().map(String::as_str).collect();
    state(&commands)
}

/// Both bridges have an uplink; others have none.
fn built(state: &State, version: Version) -> Built {
    let link = |(device, bridge): (&str, &str)| Link {
        device: device.to_owned(),
        bridge: Some(bridge.to_owned()),
        mac: None,
    };
    let facts = BuildFacts {
        dumps: Dumps::default(),
        links: &[("eth0@if3", "cloudbr0"), ("bond0.304", "brbond0-304")].map(link),
        domains: &BTreeMap::new(),
        ebtables: Ebtables::NfTables,
        in_front: "ours",
    };
    build(state, version, &facts)
}

fn rules_of<'t>(script: &'t str, chain: &str) -> Vec<&'t str> {
    let begin = format!("-A {chain} ");
    let rules = script.lines().filter_map(|line| line.strip_prefix(&*begin));
    rules.collect()
}

const SSH: &str = "I:tcp;22;22;0.0.0.0/0,NEXT;";

#[test]
fn of_nothing_nothing_is_built() {
    for version in Version::ALL {
        assert_eq!(built(&State::default(), version), Built::default());
    }
}

#[test]
fn explicit_rules_come_before_or_after_state() {
    let state = of_vms(&[vm("i-2-10-VM", 10, "cloudbr0", SSH)]);
    let check = |version, expected: [&str; 2], bridge_begins: &str| {
        let built = built(&state, version);
        assert_eq!(rules_of(&built.iptables, "i-2-10-VM"), expected);
        let bridge = rules_of(&built.iptables, "BF-cloudbr0");
        assert!(bridge[0].starts_with(bridge_begins), "{bridge:?}");
        let uplink = "-m physdev --physdev-out eth0 --physdev-is-bridged -j ACCEPT";
        assert_eq!(bridge.last(), Some(&uplink));
    };
    let tracked = "-p tcp -m tcp --dport 22 -m state --state NEW -j ACCEPT";
    check(Version::Before, [tracked, "-j DROP"], "-m state");
    let plain = "-p tcp -m tcp --dport 22 -j ACCEPT";
    for version in [Version::After, Version::Main] {
        check(version, [plain, "-j RETURN"], "-m physdev");
    }
}

#[test]
fn a_record_that_the_script_misreads_is_built_narrower() {
    let check = |rules: &str, chain: &str, expected: &[&str], misread| {
        let built = built(
            &of_vms(&[vm("i-2-10-VM", 10, "cloudbr0", rules)]),
            Version::After,
        );
        assert_eq!(rules_of(&built.iptables, chain), expected, "{rules}");
        let told = built.doubts.iter().filter_map(|doubt| match doubt {
            BuildDoubt::Record { misread, .. } => Some(*misread),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), [misread], "{rules}");
    };
    let ingress = "i-2-10-VM";
    check(
        "I:0;0;0;0.0.0.0/0,NEXT;",
        ingress,
        &["-j RETURN"],
        Misread::EveryProtocol,
    );
    check(
        "I:icmp;255;0;0.0.0.0/0,NEXT;",
        ingress,
        &["-j RETURN"],
        Misread::EveryType,
    );
    check(
        "I:icmp;8;-1;0.0.0.0/0,NEXT;",
        ingress,
        &["-p icmp -m icmp --icmp-type 8 -j ACCEPT", "-j RETURN"],
        Misread::AnyCode,
    );
    check(
        "E:tcp;80;80;null/32,NEXT;",
        "i-2-10-VM-eg",
        &["-d 0.0.0.0/32 -j ACCEPT", "-j RETURN"],
        Misread::Nobody,
    );
}

/// Each VM as it is, closed: nothing leads to its rules, and the server is to send them again.
fn check_closed(state: &State, vms: &[&str], version: Version, is_it: fn(&BuildDoubt) -> bool) {
    let built = built(state, version);
    let told = built.doubts.iter().filter(|doubt| is_it(doubt)).count();
    assert_eq!(told, vms.len(), "{:?}", built.doubts);
    for line in built.logs.iter().filter(|l| vms.contains(&l.vm.as_str())) {
        assert_eq!(*line, line.clone().without_rules());
    }
    for vm in vms {
        let vif = state.vms.iter().find(|(name, _)| name.as_str() == *vm);
        let vif = vif.and_then(|(_, vm)| vm.nics.values().next()).expect(vm);
        for script in [&built.iptables, &built.ip6tables] {
            let of_vif = format!(" {} ", vif.vif);
            let about = script.lines().filter(|line| line.contains(&of_vif));
            let judges = |line: &&str| line.ends_with("-j ACCEPT") || line.ends_with("-j RETURN");
            assert_eq!(about.clone().find(judges), None, "{vm}");
            let drops = about.filter(|line| line.ends_with("-j DROP")).count();
            assert!(drops >= 2, "{vm}: {script}");
        }
    }
}

#[test]
fn vms_that_the_script_has_no_names_for_are_closed() {
    // Alike up to where chains are cut.
    let alike = ["i-2-10-abcdefghijklmnopqr-1", "i-2-10-abcdefghijklmnopqr-2"];
    let state = of_vms(&[
        vm(alike[0], 10, "cloudbr0", SSH),
        vm(alike[1], 11, "cloudbr0", SSH),
    ]);
    check_closed(&state, &alike, Version::Before, |doubt| {
        matches!(doubt, BuildDoubt::SameName { .. })
    });
    let long = "i-2-10-abcdefghijklmnopqrstuvw";
    let state = of_vms(&[vm(long, 10, "cloudbr0", SSH)]);
    check_closed(&state, &[long], Version::After, |doubt| {
        matches!(doubt, BuildDoubt::NoSet { .. })
    });
    let strange = of_vms(&[vm("web", 10, "cloudbr0", SSH)]);
    check_closed(&strange, &["web"], Version::Main, |doubt| {
        matches!(doubt, BuildDoubt::StrangeName { .. })
    });
}

#[test]
fn a_network_that_a_version_cannot_route_is_closed() {
    let [begin, push] = vm("i-2-10-VM", 10, "cloudbr0", SSH);
    let state = of_vms(&[[format!("{begin} --directrouted"), push]]);
    for version in [Version::Before, Version::After] {
        check_closed(&state, &["i-2-10-VM"], version, |doubt| {
            matches!(doubt, BuildDoubt::Routed { .. })
        });
    }
    let routed = built(&state, Version::Main);
    assert!(
        routed
            .iptables
            .contains("-A BF-L3-OUT -o cloudbr0 -j BF-cloudbr0-OUT\n")
    );
    assert_eq!(routed.doubts, []);
}

#[test]
fn a_bridge_without_uplink_passes_nothing() {
    let state = of_vms(&[vm("i-2-10-VM", 10, "alone0", SSH)]);
    let built = built(&state, Version::Before);
    assert_eq!(rules_of(&built.iptables, "BF-alone0"), Vec::<&str>::new());
    for way in ["-i", "-o"] {
        let drop = format!("-I FORWARD {way} alone0 -j DROP\n");
        assert!(built.iptables.contains(&drop), "{}", built.iptables);
    }
    let bridge = crate::DeviceName::new("alone0").expect("a name");
    assert_eq!(built.doubts, [BuildDoubt::NoUplink { bridge }]);
}

#[test]
fn what_a_later_version_does_not_judge_is_said() {
    let all = "I:all;0;0;0.0.0.0/0,NEXT;";
    let state = of_vms(&[
        vm("i-2-10-VM", 10, "cloudbr0", SSH),
        vm("i-2-11-VM", 11, "cloudbr0", all),
        vm("i-2-12-VM", 12, "brbond0-304", SSH),
    ]);
    assert_eq!(built(&state, Version::Before).doubts, []);
    assert_eq!(built(&state, Version::Before).untracked, "");
    let later = built(&state, Version::After);
    let bridge = crate::DeviceName::new("cloudbr0").expect("a name");
    let expected = [
        BuildDoubt::SendersAlone { bridge },
        BuildDoubt::Untracked { vms: 1 },
    ];
    assert_eq!(later.doubts, expected);
    let members = later.untracked.lines().filter(|l| l.starts_with("add "));
    assert_eq!(
        members.collect::<Vec<_>>(),
        ["add cs_notrack-new 10.1.1.11"]
    );
}

#[test]
fn the_files_are_the_script_s() {
    let [begin, push] = vm("i-2-10-VM", 10, "cloudbr0", SSH);
    let begin = begin.replace("0;", "10.1.1.110;10.1.1.111;");
    let state = of_vms(&[[begin, push], vm("i-2-11-VM", 11, "cloudbr0", SSH)]);
    let files = |version| {
        let files = built(&state, version).ip_files.into_iter();
        files.map(|file| file.line).collect::<Vec<_>>()
    };
    let with_secondary = "i-2-10-VM,10.1.1.110;10.1.1.111;,10".to_owned();
    let without = "i-2-11-VM,0;,11".to_owned();
    assert_eq!(
        files(Version::Before),
        std::slice::from_ref(&with_secondary)
    );
    assert_eq!(files(Version::After), [with_secondary, without]);
    let logs = built(&state, Version::Before).logs.into_iter();
    let logs: Vec<String> = logs.map(|line| line.to_string()).collect();
    assert_eq!(
        logs,
        [
            "i-2-10-VM,10,10.1.1.10,-1,9a03,4",
            "i-2-11-VM,11,10.1.1.11,-1,9a03,4"
        ]
    );
}
