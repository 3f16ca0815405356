//! The nat table of ebtables: with which MAC a VM sends, and who says in ARP to have which address.
//!
//! | chain | passes on |
//! | --- | --- |
//! | `<vm>-in-src` | frames with the MAC of one of its NICs |
//! | `<vm>-in-ips` | ARP of a MAC about one of that NIC's addresses |
//! | `<vm>-out-dst` | ARP replies for one of its MACs |
//! | `<vm>-out-ips` | ARP for one of its addresses |
//!
//! Of a closed NIC nothing is listed there.

use super::super::Version;
use super::Ebtables;
use super::plan::{Plan, PlannedNic, PlannedVm};
use super::tables::Table;
use std::net::IpAddr;

/// System VMs have nothing here.
pub(super) fn table(plan: &Plan<'_>) -> Table {
    let mut nat = Table::default();
    for vm in &plan.vms {
        add(&mut nat, plan, vm);
    }
    nat
}

fn add(nat: &mut Table, plan: &Plan<'_>, vm: &PlannedVm<'_>) {
    let chain = |part: &str| vm.names.link_layer_chain(part);
    for part in PARTS {
        nat.chain(&chain(part));
    }
    for nic in &vm.nics {
        let vif = &nic.nic.vif;
        nat.hook(format!("-A PREROUTING -i {vif} -j {}", chain("in")));
        nat.hook(format!("-A POSTROUTING -o {vif} -j {}", chain("out")));
    }
    if vm.is_closed {
        // It may share them with another.
        for part in ["in", "out"] {
            *nat.chain(&chain(part)) = vec!["-j DROP".to_owned()];
        }
        return;
    }
    // What came last is tried first.
    for nic in vm.open_nics().rev() {
        add_nic(nat, plan.version, vm, nic);
    }
    for part in ["in-src", "in-ips", "out-ips"] {
        nat.append(&chain(part), "-j DROP");
    }
    nat.append(&chain("out-dst"), "-p ARP --arp-op Reply -j DROP");
    let [comes, goes] = leads(vm, plan.ebtables);
    if comes {
        let checked = [
            format!("-j {}", chain("in-src")),
            format!("-p ARP -j {}", chain("in-ips")),
        ];
        nat.chain(&chain("in")).extend(checked);
        nat.chain(&chain("in")).extend(arp());
    }
    if goes {
        let checked = [
            format!("-p ARP --arp-op Reply -j {}", chain("out-dst")),
            format!("-p ARP -j {}", chain("out-ips")),
        ];
        nat.chain(&chain("out")).extend(checked);
        nat.chain(&chain("out")).extend(arp());
    }
}

const PARTS: [&str; 6] = ["in", "in-src", "in-ips", "out", "out-dst", "out-ips"];

/// Whether the chains from and to a VM can lead to the others of it. ebtables on nf_tables makes longer
/// names than it takes for a target; there the script fills neither chain, or one.
pub(super) fn leads(vm: &PlannedVm<'_>, ebtables: Ebtables) -> [bool; 2] {
    const LONGEST_TARGET: usize = 28;
    let can_be = |part: &str| match ebtables {
        Ebtables::Legacy => true,
        Ebtables::NfTables => vm.names.link_layer_chain(part).len() <= LONGEST_TARGET,
    };
    [["in-src", "in-ips"], ["out-dst", "out-ips"]].map(|parts| parts.into_iter().all(can_be))
}

fn add_nic(nat: &mut Table, version: Version, vm: &PlannedVm<'_>, nic: &PlannedNic<'_>) {
    let chain = |part: &str| vm.names.link_layer_chain(part);
    let mac = nic.mac;
    nat.append(&chain("in-src"), format!("-s {mac} -j RETURN"));
    let reply = format!("-p ARP --arp-op Reply --arp-mac-dst {mac} -j RETURN");
    nat.append(&chain("out-dst"), reply);
    for address in addresses(version, nic).into_iter().rev() {
        let claim = format!("-p ARP -s {mac} --arp-ip-src {address} --arp-mac-src {mac}");
        nat.append(&chain("in-ips"), format!("{claim} -j RETURN"));
        let question = format!("-p ARP --arp-ip-dst {address} -j RETURN");
        nat.append(&chain("out-ips"), question);
    }
}

/// What is left of ARP when the addresses in it are right.
fn arp() -> impl Iterator<Item = String> {
    let rules = [
        "--arp-op Request -j ACCEPT",
        "--arp-op Reply -j ACCEPT",
        "-j DROP",
    ];
    rules.into_iter().map(|rule| format!("-p ARP {rule}"))
}

/// IPv4 addresses, in the order in which the script comes to them: since 4.23, to the primary one twice.
fn addresses(version: Version, nic: &PlannedNic<'_>) -> Vec<IpAddr> {
    let primary = nic.nic.ipv4.map(IpAddr::V4);
    let secondary = nic.nic.secondary.iter().copied().filter(IpAddr::is_ipv4);
    let again = primary.filter(|_| version != Version::Before);
    primary.into_iter().chain(secondary).chain(again).collect()
}
