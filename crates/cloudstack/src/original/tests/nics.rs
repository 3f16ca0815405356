use super::*;
use crate::built::{BuiltNic, BuiltVm};
use std::net::IpAddr;

/// A VM with two NICs on one bridge: device, MAC and addresses of each, as they are read back.
fn check(built: &Built, texts: &Texts, links: &[Link], nics: &[&str], expected: &[Doubt]) {
    let recovered = recover(&dumps(texts), &logs(built), links);
    let (_, seen) = user(&recovered, "i-2-10-VM");
    let words = |(mac, nic): (&MacAddr, &Nic)| {
        let ipv4 = nic.ipv4.map(IpAddr::V4);
        let primary: Vec<IpAddr> = ipv4.into_iter().chain(nic.ipv6.map(IpAddr::V6)).collect();
        let first = if nic.first { " first" } else { "" };
        format!(
            "{} {} {mac} {primary:?} {:?}{first}",
            nic.vif, nic.bridge, nic.secondary
        )
    };
    let seen: Vec<String> = seen.iter().map(words).collect();
    assert_eq!(seen, nics, "{:#?}", said(&recovered));
    assert_eq!(recovered.doubts, expected);
}

const FIRST: BuiltNic = BuiltNic {
    vif: "vnet0",
    bridge: "cloudbr0",
    mac: "02:00:4c:5f:00:01",
    ipv4: Some("10.1.1.10"),
    ipv6: None,
    secondary: &["10.1.1.9"],
    routed: false,
};
const SECOND: BuiltNic = BuiltNic {
    vif: "vnet10",
    mac: "02:00:4c:5f:00:02",
    ipv4: Some("10.1.1.20"),
    secondary: &[],
    ..FIRST
};

fn two_nics(first: BuiltNic, second: BuiltNic) -> Built {
    Built {
        made: Made::After,
        vms: vec![BuiltVm {
            name: "i-2-10-VM",
            id: 10,
            nics: vec![first, second],
            push: None,
        }],
        system_vms: vec![],
    }
}

fn one_nic(first: BuiltNic) -> Built {
    let mut built = two_nics(first, SECOND);
    built.vms[0].nics.truncate(1);
    built
}

fn mac(text: &str) -> MacAddr {
    text.parse().expect("a MAC")
}

const FIRST_READ: &str = "vnet0 cloudbr0 02:00:4c:5f:00:01 [10.1.1.10] {10.1.1.9} first";
const SECOND_READ: &str = "vnet10 cloudbr0 02:00:4c:5f:00:02 [10.1.1.20] {}";

#[test]
fn the_first_nic_is_the_one_whose_guard_comes_first() {
    let built = two_nics(FIRST, SECOND);
    let (texts, links) = (built.texts(), links(&built));
    check(&built, &texts, &links, &[FIRST_READ, SECOND_READ], &[]);
    let built = two_nics(SECOND, FIRST);
    let (texts, links) = (built.texts(), super::links(&built));
    let first = "vnet0 cloudbr0 02:00:4c:5f:00:01 [10.1.1.10] {10.1.1.9}";
    let second = "vnet10 cloudbr0 02:00:4c:5f:00:02 [10.1.1.20] {} first";
    check(&built, &texts, &links, &[first, second], &[]);
}

#[test]
fn ipv6_addresses_are_told_by_their_making_or_are_every_nics() {
    let second = BuiltNic {
        ipv6: Some("fd00::4cff:fe5f:2"),
        secondary: &["fd00::99", "fd01::4cff:fe5f:2", "fe80::99"],
        ..SECOND
    };
    let built = two_nics(FIRST, second);
    let any = |address: &str| Doubt::AnyNic {
        vm: name("i-2-10-VM"),
        address: address.parse().expect("an address"),
    };
    check(
        &built,
        &built.texts(),
        &links(&built),
        &[
            "vnet0 cloudbr0 02:00:4c:5f:00:01 [10.1.1.10] {10.1.1.9, fd00::99, fe80::99} first",
            "vnet10 cloudbr0 02:00:4c:5f:00:02 [10.1.1.20, fd00::4cff:fe5f:2] \
                {fd00::99, fd01::4cff:fe5f:2, fe80::99}",
        ],
        &[any("fd00::99"), any("fe80::99")],
    );
    // Of one NIC, they are all its.
    let built = one_nic(BuiltNic {
        ipv6: Some("fd00::98"),
        secondary: &["fd00::99"],
        ..FIRST
    });
    check(
        &built,
        &built.texts(),
        &links(&built),
        &["vnet0 cloudbr0 02:00:4c:5f:00:01 [10.1.1.10, fd00::98] {fd00::99} first"],
        &[],
    );
}

/// As the agent's own list ends, the script's rule for ARP has no target.
#[test]
fn an_address_whose_arp_rule_is_broken_is_its_nics() {
    let built = two_nics(FIRST, SECOND);
    let mut texts = built.texts();
    let rule = "--arp-ip-src 10.1.1.9 --arp-mac-src 02:00:4c:5f:00:01 -j ";
    let whole = format!("{rule}RETURN");
    assert!(texts.ebtables.contains(&whole));
    texts.ebtables = texts.ebtables.replace(&whole, &format!("{rule}CONTINUE"));
    check(
        &built,
        &texts,
        &links(&built),
        &[FIRST_READ, SECOND_READ],
        &[],
    );
}

#[test]
fn without_the_link_layer_ipv4_addresses_are_every_nics() {
    let built = two_nics(FIRST, SECOND);
    let texts = Texts {
        ebtables: String::new(),
        ..built.texts()
    };
    let any = |last| Doubt::AnyNic {
        vm: name("i-2-10-VM"),
        address: IpAddr::from([10, 1, 1, last]),
    };
    check(
        &built,
        &texts,
        &links(&built),
        &[
            "vnet0 cloudbr0 02:00:4c:5f:00:01 [10.1.1.10] {10.1.1.9, 10.1.1.20} first",
            "vnet10 cloudbr0 02:00:4c:5f:00:02 [10.1.1.10] {10.1.1.9, 10.1.1.20}",
        ],
        &[any(9), any(10), any(20)],
    );
}

/// ebtables before nf_tables prints them so.
#[test]
fn macs_may_come_without_leading_zeros() {
    let built = two_nics(FIRST, SECOND);
    let mut texts = built.texts();
    texts.ebtables = texts.ebtables.replace("02:00:4c:5f:00:0", "2:0:4c:5f:0:");
    check(
        &built,
        &texts,
        &links(&built),
        &[FIRST_READ, SECOND_READ],
        &[],
    );
}

/// iptables forgets an unplugged NIC, ip6tables and the IPv6 set don't.
#[test]
fn an_unplugged_nic_is_gone_and_its_traces_are_told() {
    let second = BuiltNic {
        ipv6: Some("fd00::4cff:fe5f:2"),
        secondary: &["fd00::99"],
        ..SECOND
    };
    let built = two_nics(FIRST, second);
    let mut texts = built.texts();
    let lines = texts
        .iptables
        .lines()
        .filter(|line| !line.contains("vnet10"));
    texts.iptables = lines.map(|line| format!("{line}\n")).collect();
    let gone = mac(SECOND.mac);
    let former = |address: &str| Doubt::FormerAddress {
        vm: name("i-2-10-VM"),
        mac: gone,
        address: address.parse().expect("an address"),
    };
    let vm = name("i-2-10-VM");
    check(
        &built,
        &texts,
        &links(&built),
        &["vnet0 cloudbr0 02:00:4c:5f:00:01 [10.1.1.10, fd00::99] {10.1.1.9} first"],
        &[
            former("10.1.1.20"),
            former("fd00::4cff:fe5f:2"),
            Doubt::FormerNic { vm, mac: gone },
        ],
    );
}

#[test]
fn a_mac_is_found_by_the_link_where_no_rule_tells_it() {
    let built = two_nics(FIRST, SECOND);
    let mut texts = built.texts();
    let lines = texts
        .ip6tables
        .lines()
        .filter(|line| !line.contains("ff02::1:2"));
    texts.ip6tables = lines.map(|line| format!("{line}\n")).collect();
    check(
        &built,
        &texts,
        &links(&built),
        &[FIRST_READ, SECOND_READ],
        &[],
    );
    let no_mac = |device| Doubt::NoMac {
        vm: name("i-2-10-VM"),
        vif: vif(device),
    };
    let vm = || name("i-2-10-VM");
    let left = |mac: &str, last| Doubt::FormerAddress {
        vm: vm(),
        mac: mac.parse().expect("a MAC"),
        address: IpAddr::from([10, 1, 1, last]),
    };
    let former = |mac: &str| Doubt::FormerNic {
        vm: vm(),
        mac: mac.parse().expect("a MAC"),
    };
    check(
        &built,
        &texts,
        &[],
        &[],
        &[
            no_mac("vnet0"),
            no_mac("vnet10"),
            Doubt::NoNics { vm: vm() },
            left(FIRST.mac, 9),
            left(FIRST.mac, 10),
            left(SECOND.mac, 20),
            former(FIRST.mac),
            former(SECOND.mac),
        ],
    );
    // Of one NIC, there is but one that it can be.
    let built = one_nic(FIRST);
    let mut texts = built.texts();
    let lines = texts
        .ip6tables
        .lines()
        .filter(|line| !line.contains("ff02::1:2"));
    texts.ip6tables = lines.map(|line| format!("{line}\n")).collect();
    check(&built, &texts, &[], &[FIRST_READ], &[]);
}

#[test]
fn the_host_has_the_last_word_on_devices() {
    let built = one_nic(FIRST);
    let texts = built.texts();
    let link = |device: &str, bridge: &str, mac: &str| Link {
        device: device.to_owned(),
        bridge: Some(bridge.to_owned()),
        mac: Some(mac.parse().expect("a MAC")),
    };
    let vm = || name("i-2-10-VM");
    let guests_own = link("vnet0", "cloudbr0", "02:00:4c:5f:00:01");
    check(&built, &texts, &[guests_own], &[FIRST_READ], &[]);
    check(
        &built,
        &texts,
        &[link("vnet0", "cloudbr1", "fe:00:4c:5f:00:01")],
        &["vnet0 cloudbr1 02:00:4c:5f:00:01 [10.1.1.10] {10.1.1.9} first"],
        &[Doubt::OtherBridge {
            vm: vm(),
            vif: vif("vnet0"),
            said: vif("cloudbr0"),
            found: vif("cloudbr1"),
        }],
    );
    // Whoever is behind it now, nothing of it passes the guard.
    check(
        &built,
        &texts,
        &[link("vnet0", "cloudbr0", "fe:00:4c:5f:00:77")],
        &[FIRST_READ],
        &[Doubt::OtherMac {
            vm: vm(),
            vif: vif("vnet0"),
            mac: mac("02:00:4c:5f:00:01"),
            found: mac("fe:00:4c:5f:00:77"),
        }],
    );
    let no_device = Doubt::NoDevice {
        vm: vm(),
        vif: vif("vnet0"),
    };
    let former = |last| Doubt::FormerAddress {
        vm: vm(),
        mac: mac(FIRST.mac),
        address: IpAddr::from([10, 1, 1, last]),
    };
    let former_nic = Doubt::FormerNic {
        vm: vm(),
        mac: mac(FIRST.mac),
    };
    check(
        &built,
        &texts,
        &[link("vnet1", "cloudbr0", "fe:00:4c:5f:00:01")],
        &[],
        &[
            no_device,
            Doubt::NoNics { vm: vm() },
            former(9),
            former(10),
            former_nic,
        ],
    );
}

#[test]
fn a_device_of_two_vms_is_the_one_whose_mac_is_there() {
    let mut built = one_nic(FIRST);
    built.vms.push(BuiltVm {
        name: "i-2-11-VM",
        id: 11,
        nics: vec![BuiltNic {
            mac: "02:00:4c:5f:00:77",
            ipv4: Some("10.1.1.11"),
            secondary: &[],
            ..FIRST
        }],
        push: None,
    });
    let texts = built.texts();
    let owner = |links: &[Link]| {
        let recovered = recover(&dumps(&texts), &logs(&built), links);
        let owns = |(vm, state): (&VmName, &Vm)| (!state.nics.is_empty()).then(|| vm.to_string());
        let owners: Vec<String> = recovered.state.vms.iter().filter_map(owns).collect();
        let is_told = |doubt: &&Doubt| matches!(doubt, Doubt::TwoOwners { .. });
        assert_eq!(recovered.doubts.iter().filter(is_told).count(), 1);
        owners
    };
    let link = |mac: &str| Link {
        device: "vnet0".to_owned(),
        bridge: Some("cloudbr0".to_owned()),
        mac: Some(mac.parse().expect("a MAC")),
    };
    assert_eq!(owner(&[link("fe:00:4c:5f:00:01")]), ["i-2-10-VM"]);
    assert_eq!(owner(&[link("fe:00:4c:5f:00:77")]), ["i-2-11-VM"]);
    // The newer one.
    assert_eq!(owner(&[]), ["i-2-11-VM"]);
    assert_eq!(owner(&[link("fe:00:4c:5f:00:99")]), ["i-2-11-VM"]);
}

#[test]
fn a_half_built_nic_is_told() {
    let built = one_nic(FIRST);
    for lost in [
        "-A BF-cloudbr0-IN -m physdev",
        "-A BF-cloudbr0-OUT -m physdev",
        "-A i-2-10-def -m physdev --physdev-out vnet0 --physdev-is-bridged -j i-2-10-VM\n",
        "-j i-2-10-VM-eg\n",
    ] {
        let mut texts = built.texts();
        let lines = texts.iptables.lines();
        let stays = |line: &&str| !format!("{line}\n").contains(lost);
        texts.iptables = lines
            .filter(stays)
            .map(|line| format!("{line}\n"))
            .collect();
        let half_built = Doubt::HalfBuilt {
            vm: name("i-2-10-VM"),
            vif: vif("vnet0"),
        };
        check(&built, &texts, &links(&built), &[FIRST_READ], &[half_built]);
    }
}

#[test]
fn members_that_no_machine_can_have_are_left_out() {
    let built = one_nic(FIRST);
    let mut texts = built.texts();
    texts.ipset += "add i-2-10-VM 224.0.0.1\nadd i-2-10-VM-6 fd00::/64\nadd i-2-10-VM fd00::1\n";
    let member = |member: &str| Doubt::Member {
        vm: name("i-2-10-VM"),
        member: member.to_owned(),
    };
    let doubts = [member("224.0.0.1"), member("fd00::/64"), member("fd00::1")];
    check(&built, &texts, &links(&built), &[FIRST_READ], &doubts);
}

#[test]
fn rules_of_others_among_the_scripts_are_told() {
    let built = one_nic(FIRST);
    for (chain, rule) in [
        ("BF-cloudbr0", "-s 192.0.2.1/32 -j ACCEPT"),
        (
            "BF-cloudbr0-IN",
            "-m physdev --physdev-in vnet0 -m comment --comment x -j i-2-10-def",
        ),
        ("BF-cloudbr0-OUT", "-j mine"),
        ("i-2-10-def", "-s 10.0.0.0/8 -j ACCEPT"),
        (
            "i-2-10-def",
            "-m physdev --physdev-in vnet0 -j REJECT --reject-with icmp-port-unreachable",
        ),
    ] {
        let mut texts = built.texts();
        let text = format!("-A {chain} {rule}\nCOMMIT\n");
        let at = texts.iptables.rfind("COMMIT\n").expect("there");
        texts.iptables.replace_range(at.., &text);
        let foreign = Doubt::ForeignRule {
            dump: Dump::Iptables,
            chain: chain.to_owned(),
            rule: rule.to_owned(),
        };
        check(&built, &texts, &links(&built), &[FIRST_READ], &[foreign]);
    }
}
