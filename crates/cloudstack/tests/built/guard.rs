//! The bridges' chains, the guard of each NIC, and the link layer.

use super::{BuiltNic, BuiltVm, Family, Made, Table, link_local};

const MARK: &str = "0x40000000/0x40000000";

/// Of one bridge. The newest bridge's rules are on top.
pub(super) fn framework(filter: &mut Table, made: Made, bridge: &str) {
    let chain = format!("BF-{bridge}");
    for part in ["", "-IN", "-OUT"] {
        filter.chain(&format!("{chain}{part}"));
    }
    filter.insert("FORWARD", format!("-i {bridge} -j DROP"));
    filter.insert("FORWARD", format!("-o {bridge} -j DROP"));
    for option in ["-i", "-o"] {
        let jump = format!("{option} {bridge} -m physdev --physdev-is-bridged -j {chain}");
        filter.insert("FORWARD", jump);
    }
    if made == Made::Before {
        filter.append(&chain, "-m state --state RELATED,ESTABLISHED -j ACCEPT");
    }
    for (side, part) in [("in", "IN"), ("out", "OUT")] {
        let jump = format!("-m physdev --physdev-is-{side} --physdev-is-bridged -j {chain}-{part}");
        filter.append(&chain, jump);
    }
    let uplink = format!("-m physdev --physdev-out up-{bridge} --physdev-is-bridged -j ACCEPT");
    filter.append(&chain, uplink);
}

/// Of the bridges whose networks the host routes.
pub(super) fn routing(filter: &mut Table, bridges: &[&str]) {
    if bridges.is_empty() {
        return;
    }
    filter.insert("FORWARD", "-j BF-L3");
    filter.append("BF-L3", "-j MARK --set-xmark 0x0/0x40000000");
    filter.append("BF-L3", "-j BF-L3-IN");
    filter.append("BF-L3", "-j BF-L3-OUT");
    filter.append("BF-L3", format!("-m mark --mark {MARK} -j ACCEPT"));
    for bridge in bridges {
        filter.chain(&format!("BF-{bridge}"));
        filter.chain(&format!("BF-{bridge}-IN"));
        filter.chain(&format!("BF-{bridge}-OUT"));
        filter.insert("BF-L3-IN", format!("-i {bridge} -j BF-{bridge}-IN"));
        filter.append(
            "BF-L3-IN",
            format!("-i {bridge} -m mark ! --mark {MARK} -j DROP"),
        );
        filter.insert("BF-L3-OUT", format!("-o {bridge} -j BF-{bridge}-OUT"));
        filter.append("BF-L3-OUT", format!("-o {bridge} -j DROP"));
    }
}

/// The guard's chain: the VM's name with another last part.
fn chain(vm: &str) -> String {
    let (front, _) = vm.rsplit_once('-').expect("a name of several parts");
    format!("{front}-def")
}

pub(super) fn nic(filter: &mut Table, family: Family, made: Made, vm: &BuiltVm, nic: &BuiltNic) {
    let guard = chain(vm.name);
    filter.chain(vm.name);
    filter.chain(&format!("{}-eg", vm.name));
    filter.chain(&guard);
    let from = from_vif(made, nic.vif);
    let to = format!("-m physdev --physdev-out {} --physdev-is-bridged", nic.vif);
    let (bridge_in, bridge_out) = (
        format!("BF-{}-IN", nic.bridge),
        format!("BF-{}-OUT", nic.bridge),
    );
    if nic.routed {
        let set = match family {
            Family::Four => vm.name.to_owned(),
            Family::Six => format!("{}-6", vm.name),
        };
        filter.append(
            &bridge_out,
            format!("-m set --match-set {set} dst -j {guard}"),
        );
        filter.append(&bridge_in, format!("{from} -j {guard}"));
        for rule in routed(family, vm.name, nic, &set) {
            filter.append(&guard, rule);
        }
        return;
    }
    filter.append(&bridge_out, format!("{to} -j {guard}"));
    filter.append(&bridge_in, format!("{from} -j {guard}"));
    let rules = match family {
        Family::Four => four(made, vm.name, nic, &from, &to),
        Family::Six => six(made, vm.name, nic, &from, &to),
    };
    let stateful = "-m state --state RELATED,ESTABLISHED -j ACCEPT";
    if made == Made::Before {
        filter.append(&guard, stateful);
    }
    for rule in rules {
        filter.append(&guard, rule);
    }
    if made != Made::Before {
        for rule in [
            format!("{from} {stateful}"),
            format!("{to} {stateful}"),
            format!("{from} -j DROP"),
            format!("{to} -j DROP"),
        ] {
            filter.append(&guard, rule);
        }
    }
}

fn from_vif(made: Made, vif: &str) -> String {
    match made {
        Made::Main => format!("-m physdev --physdev-in {vif}"),
        Made::Before | Made::After => format!("-m physdev --physdev-in {vif} --physdev-is-bridged"),
    }
}

/// What a version makes of "permitted" for packets of the VM.
fn pass(made: Made) -> &'static str {
    match made {
        Made::Before => "RETURN",
        Made::After | Made::Main => "ACCEPT",
    }
}

fn four(made: Made, vm: &str, nic: &BuiltNic, from: &str, to: &str) -> Vec<String> {
    let pass = pass(made);
    let mut rules = vec![
        format!("-p udp {from} -m udp --sport 68 --dport 67 -j ACCEPT"),
        format!("-p udp {to} -m udp --sport 67 --dport 68 -j ACCEPT"),
        format!("-p udp {from} -m udp --sport 67 -j DROP"),
    ];
    if nic.ipv4.is_some() {
        let own = format!("{from} -m set --match-set {vm} src");
        rules.extend([
            format!("{from} -m set ! --match-set {vm} src -j DROP"),
            format!("{to} -m set ! --match-set {vm} dst -j DROP"),
            format!("-p udp {own} -m udp --dport 53 -j {pass}"),
            format!("-p tcp {own} -m tcp --dport 53 -j {pass}"),
            format!("{own} -j {vm}-eg"),
        ]);
    }
    rules.push(format!("{to} -j {vm}"));
    rules
}

fn six(made: Made, vm: &str, nic: &BuiltNic, from: &str, to: &str) -> Vec<String> {
    let pass = pass(made);
    let own = format!("-m set --match-set {vm}-6 src");
    let address = link_local(nic.mac);
    let icmp = |end: &str, kind: u8| format!("-p ipv6-icmp {end} -m icmp6 --icmpv6-type {kind}");
    let near = "-m hl --hl-eq 255";
    let mut rules = vec![
        format!(
            "-s fe80::/64 -d ff02::1/128 {} {near} -j ACCEPT",
            icmp(to, 134)
        ),
        format!("-d ff02::2/128 {} {near} -j {pass}", icmp(from, 133)),
        format!("{} -j DROP", icmp(from, 134)),
        format!("{} {near} -j {pass}", icmp(from, 135)),
        format!("{} {near} -j ACCEPT", icmp(to, 135)),
        format!("{} {own} {near} -j {pass}", icmp(from, 136)),
        format!("{} {near} -j ACCEPT", icmp(to, 136)),
    ];
    for kind in [2, 1, 3, 4] {
        rules.push(format!("{} {own} -j {pass}", icmp(from, kind)));
        rules.push(format!("{} -j ACCEPT", icmp(to, kind)));
    }
    rules.extend([
        format!("-d ff02::16/128 -p ipv6-icmp {from} -j {pass}"),
        format!("-s {address}/128 -d ff02::1:2/128 -p udp {from} -m udp --sport 546 -j {pass}"),
        format!("-s fe80::/64 -d {address}/128 -p udp {to} -m udp --dport 546 -j ACCEPT"),
        format!("! -d fe80::/64 -p udp {from} -m udp --sport 547 -j DROP"),
        format!("-p udp {from} -m udp --dport 53 {own} -j {pass}"),
        format!("-p tcp {from} -m tcp --dport 53 {own} -j {pass}"),
        format!("{from} -m set ! --match-set {vm}-6 src -j DROP"),
        format!("{from} {own} -j {vm}-eg"),
        format!("{to} -j {vm}"),
    ]);
    rules
}

/// Where the host routes: no DHCP, no discovery towards the VM, and a mark for what it may send.
fn routed(family: Family, vm: &str, nic: &BuiltNic, set: &str) -> Vec<String> {
    let from = from_vif(Made::Main, nic.vif);
    let to = format!("-m set --match-set {set} dst");
    let own = format!("-m set --match-set {set} src");
    let mark = format!("-j MARK --set-xmark {MARK}");
    let marked = format!("{from} -m mark --mark {MARK} -j RETURN");
    let spoofed = format!("{from} -m set ! --match-set {set} src -j DROP");
    let sends = format!("{from} {own} -j {vm}-eg");
    let mut rules = match family {
        Family::Four if nic.ipv4.is_none() => vec![],
        Family::Four => vec![
            spoofed,
            format!("-p udp {from} {own} -m udp --dport 53 {mark}"),
            format!("-p tcp {from} {own} -m tcp --dport 53 {mark}"),
            sends,
        ],
        Family::Six => {
            let icmp =
                |end: &str, kind| format!("-p ipv6-icmp {end} -m icmp6 --icmpv6-type {kind}");
            let errors = [2, 1, 3, 4].map(|kind| {
                let sent = format!("{} {own} {mark}", icmp(&from, kind));
                [sent, format!("{} -j ACCEPT", icmp(&to, kind))]
            });
            let discovery = [
                format!("{} -j DROP", icmp(&from, 134)),
                format!("{} -m hl --hl-eq 255 {mark}", icmp(&from, 135)),
                format!("{} {own} -m hl --hl-eq 255 {mark}", icmp(&from, 136)),
            ];
            let rest = [
                format!("-d ff02::16/128 -p ipv6-icmp {from} {mark}"),
                format!("-p udp {from} -m udp --dport 53 {own} {mark}"),
                format!("-p tcp {from} -m tcp --dport 53 {own} {mark}"),
                marked.clone(),
                spoofed,
                sends,
            ];
            [&discovery[..], errors.as_flattened(), &rest].concat()
        }
    };
    rules.extend([
        format!("{to} -j {vm}"),
        format!("{from} -m state --state RELATED,ESTABLISHED {mark}"),
        format!("{to} -m state --state RELATED,ESTABLISHED -j ACCEPT"),
        marked,
        format!("{from} -j DROP"),
        format!("{to} -j DROP"),
    ]);
    rules
}

/// The same in all versions.
pub(super) fn system_vm(filter: &mut Table, name: &str, nics: &[(&str, &str)]) {
    for (vif, bridge) in nics {
        let from = format!("-m physdev --physdev-in {vif} --physdev-is-bridged");
        let to = format!("-m physdev --physdev-out {vif} --physdev-is-bridged");
        filter.append(&format!("BF-{bridge}-OUT"), format!("{to} -j {name}"));
        filter.append(&format!("BF-{bridge}-IN"), format!("{from} -j {name}"));
        filter.append(name, format!("{from} -j RETURN"));
    }
    filter.append(name, "-j ACCEPT");
}

/// Of one NIC; with the first, the VM's chains are begun.
pub(super) fn link_layer(nat: &mut Table, made: Made, vm: &str, nic: &BuiltNic, first: bool) {
    nat.append("PREROUTING", format!("-i {} -j {vm}-in", nic.vif));
    nat.append("POSTROUTING", format!("-o {} -j {vm}-out", nic.vif));
    if first {
        for (part, rules) in [
            (
                "in",
                vec![
                    format!("-j {vm}-in-src"),
                    format!("-p ARP -j {vm}-in-ips"),
                    "-p ARP --arp-op Request -j ACCEPT".to_owned(),
                    "-p ARP --arp-op Reply -j ACCEPT".to_owned(),
                    "-p ARP -j DROP".to_owned(),
                ],
            ),
            ("in-src", vec!["-j DROP".to_owned()]),
            ("in-ips", vec!["-j DROP".to_owned()]),
            (
                "out",
                vec![
                    format!("-p ARP --arp-op Reply -j {vm}-out-dst"),
                    format!("-p ARP -j {vm}-out-ips"),
                    "-p ARP --arp-op Request -j ACCEPT".to_owned(),
                    "-p ARP --arp-op Reply -j ACCEPT".to_owned(),
                    "-p ARP -j DROP".to_owned(),
                ],
            ),
            ("out-dst", vec!["-p ARP --arp-op Reply -j DROP".to_owned()]),
            ("out-ips", vec!["-j DROP".to_owned()]),
        ] {
            for rule in rules {
                nat.append(&format!("{vm}-{part}"), rule);
            }
        }
    }
    let mac = nic.mac;
    nat.insert(&format!("{vm}-in-src"), format!("-s {mac} -j RETURN"));
    let reply = format!("-p ARP --arp-op Reply --arp-mac-dst {mac} -j RETURN");
    nat.insert(&format!("{vm}-out-dst"), reply);
    let secondary = nic.secondary.iter().copied();
    // From 4.23 on, the primary one is there twice.
    let again = nic.ipv4.filter(|_| made != Made::Before);
    let addresses = nic.ipv4.into_iter().chain(secondary).chain(again);
    for address in addresses.filter(|address| !address.contains(':')) {
        let request =
            format!("-p ARP -s {mac} --arp-ip-src {address} --arp-mac-src {mac} -j RETURN");
        nat.insert(&format!("{vm}-in-ips"), request);
        nat.insert(
            &format!("{vm}-out-ips"),
            format!("-p ARP --arp-ip-dst {address} -j RETURN"),
        );
    }
}
