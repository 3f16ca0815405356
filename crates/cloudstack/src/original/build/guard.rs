//! Where the packets of a VM's NICs are led from the bridges, and the guard that they come to.
//!
//! A guard's rules, of each NIC one after the other; *own* is: from an address in the VM's set.
//!
//! | | bridged | routed by the host |
//! | --- | --- | --- |
//! | from the VM | by its device | by its device |
//! | to the VM | by its device | by the VM's addresses |
//! | permitted to send | up to 4.22 back to the bridge's chain, whose end accepts; since then accepted | marked |
//! | DHCP, router solicitations, neighbours asking for the VM | yes | no: nobody does |
//! | state | up to 4.22 first of all; since then last, and the rest is dropped | last, and the rest is dropped |

use super::super::Version;
use super::super::names::APPROVED;
use super::plan::{PlannedNic, PlannedSystemVm, PlannedVm, Way};
use super::tables::Table;
use crate::Nic;
use model::Family;

/// A tenant's VM: its guard, and the ways to it.
pub(super) fn add(filter: &mut Table, family: Family, version: Version, vm: &PlannedVm<'_>) {
    let guard = &vm.names.guard;
    filter.chain(guard);
    for nic in &vm.nics {
        let terms = Terms::new(family, version, vm, nic);
        let (from, to, bridge) = (&terms.from, &terms.to, &nic.nic.bridge);
        filter.append(&format!("BF-{bridge}-OUT"), format!("{to} -j {guard}"));
        filter.append(&format!("BF-{bridge}-IN"), format!("{from} -j {guard}"));
        let rules = match (nic.way, family) {
            (Way::Closed, _) => vec![format!("{from} -j DROP"), format!("{to} -j DROP")],
            (Way::Bridged | Way::Routed, Family::V4) => terms.guarded(terms.four(nic.nic)),
            (Way::Bridged | Way::Routed, Family::V6) => terms.guarded(terms.six(nic)),
        };
        filter.chain(guard).extend(rules);
    }
}

/// A system VM: everything passes. IPv4 alone: in IPv6 its bridges drop what is for it.
pub(super) fn add_system_vm(filter: &mut Table, vm: &PlannedSystemVm<'_>) {
    filter.chain(vm.chain);
    for nic in &vm.nics {
        let (from, to) = (from_device(Version::Before, nic), to_device(nic));
        let (bridge, chain) = (&nic.bridge, vm.chain);
        filter.append(&format!("BF-{bridge}-OUT"), format!("{to} -j {chain}"));
        filter.append(&format!("BF-{bridge}-IN"), format!("{from} -j {chain}"));
        filter.append(chain, format!("{from} -j RETURN"));
    }
    filter.append(vm.chain, "-j ACCEPT");
}

/// Among the rules of its bridge.
pub(super) fn bar(filter: &mut Table, version: Version, nic: &Nic) {
    let (from, to, bridge) = (from_device(version, nic), to_device(nic), &nic.bridge);
    filter.append(&format!("BF-{bridge}-IN"), format!("{from} -j DROP"));
    filter.append(&format!("BF-{bridge}-OUT"), format!("{to} -j DROP"));
}

fn from_device(version: Version, nic: &Nic) -> String {
    let from = format!("-m physdev --physdev-in {}", nic.vif);
    match version {
        Version::Before | Version::After => from + " --physdev-is-bridged",
        Version::Main => from,
    }
}

fn to_device(nic: &Nic) -> String {
    format!("-m physdev --physdev-out {} --physdev-is-bridged", nic.vif)
}

/// How the rules of one NIC and family tell its packets, and what becomes of them.
struct Terms<'p> {
    version: Version,
    is_routed: bool,
    vm: &'p PlannedVm<'p>,
    from: String,
    to: String,
    own: String,
    not_own: String,
    /// What a permitted packet of the VM comes to.
    pass: String,
}

impl<'p> Terms<'p> {
    fn new(family: Family, version: Version, vm: &'p PlannedVm<'_>, nic: &PlannedNic<'_>) -> Self {
        let set = vm.names.set(family);
        let is_routed = nic.way == Way::Routed;
        Self {
            version,
            is_routed,
            vm,
            from: from_device(version, nic.nic),
            to: match is_routed {
                true => format!("-m set --match-set {set} dst"),
                false => to_device(nic.nic),
            },
            own: format!("-m set --match-set {set} src"),
            not_own: format!("-m set ! --match-set {set} src"),
            pass: pass(version, is_routed),
        }
    }

    /// The NIC's rules with those about state around them.
    fn guarded(&self, rules: Vec<String>) -> Vec<String> {
        let Self { from, to, pass, .. } = self;
        let stateful = "-m state --state RELATED,ESTABLISHED";
        if self.version == Version::Before {
            return [vec![format!("{stateful} -j ACCEPT")], rules].concat();
        }
        let mut rules = rules;
        rules.push(format!("{from} {stateful} -j {pass}"));
        rules.push(format!("{to} {stateful} -j ACCEPT"));
        rules.extend(self.approved());
        rules.push(format!("{from} -j DROP"));
        rules.push(format!("{to} -j DROP"));
        rules
    }

    /// A mark ends nothing by itself.
    fn approved(&self) -> Option<String> {
        let approved = format!("{} -m mark --mark {APPROVED} -j RETURN", self.from);
        self.is_routed.then_some(approved)
    }

    fn four(&self, nic: &Nic) -> Vec<String> {
        let Self { from, to, .. } = self;
        let mut rules = Vec::new();
        if !self.is_routed {
            rules.extend([
                format!("-p udp {from} -m udp --sport 68 --dport 67 -j ACCEPT"),
                format!("-p udp {to} -m udp --sport 67 --dport 68 -j ACCEPT"),
                format!("-p udp {from} -m udp --sport 67 -j DROP"),
            ]);
        }
        // Without an address, what it sends comes to the guard's end at once.
        if nic.ipv4.is_some() {
            let Self {
                own, not_own, pass, ..
            } = self;
            rules.push(format!("{from} {not_own} -j DROP"));
            if !self.is_routed {
                let set = self.vm.names.set(Family::V4);
                rules.push(format!("{to} -m set ! --match-set {set} dst -j DROP"));
            }
            for protocol in ["udp", "tcp"] {
                rules.push(format!(
                    "-p {protocol} {from} {own} -m {protocol} --dport 53 -j {pass}"
                ));
            }
            rules.push(format!("{from} {own} -j {}", self.vm.names.egress));
        }
        rules.push(format!("{to} -j {}", self.vm.names.chain));
        rules
    }

    fn six(&self, nic: &PlannedNic<'_>) -> Vec<String> {
        let Self {
            from,
            to,
            own,
            not_own,
            pass,
            ..
        } = self;
        let mut rules = self.discovery();
        // Too big, unreachable, time exceeded, parameter problem.
        for error in [2, 1, 3, 4] {
            let [sent, received] = [from, to].map(|end| icmp(end, error));
            rules.push(format!("{sent} {own} -j {pass}"));
            rules.push(format!("{received} -j ACCEPT"));
        }
        rules.push(format!("-d ff02::16/128 -p ipv6-icmp {from} -j {pass}"));
        if !self.is_routed {
            let address = nic.mac.eui64_link_local();
            let client =
                format!("-s {address}/128 -d ff02::1:2/128 -p udp {from} -m udp --sport 546");
            let answer = format!("-s fe80::/64 -d {address}/128 -p udp {to} -m udp --dport 546");
            let server = format!("! -d fe80::/64 -p udp {from} -m udp --sport 547");
            rules.push(format!("{client} -j {pass}"));
            rules.push(format!("{answer} -j ACCEPT"));
            rules.push(format!("{server} -j DROP"));
        }
        for protocol in ["udp", "tcp"] {
            rules.push(format!(
                "-p {protocol} {from} -m {protocol} --dport 53 {own} -j {pass}"
            ));
        }
        rules.extend(self.approved());
        rules.push(format!("{from} {not_own} -j DROP"));
        rules.push(format!("{from} {own} -j {}", self.vm.names.egress));
        rules.push(format!("{to} -j {}", self.vm.names.chain));
        rules
    }

    /// Routers and neighbours; none of the VM's own advertisements of a router.
    fn discovery(&self) -> Vec<String> {
        const NEAR: &str = "-m hl --hl-eq 255";
        let Self {
            from,
            to,
            own,
            pass,
            ..
        } = self;
        let is_bridged = !self.is_routed;
        let mut rules = Vec::new();
        let mut add = |is_there: bool, rule: String| rules.extend(is_there.then_some(rule));
        let (advertised, solicits) = (icmp(to, 134), icmp(from, 133));
        add(
            is_bridged,
            format!("-s fe80::/64 -d ff02::1/128 {advertised} {NEAR} -j ACCEPT"),
        );
        add(
            is_bridged,
            format!("-d ff02::2/128 {solicits} {NEAR} -j {pass}"),
        );
        add(true, format!("{} -j DROP", icmp(from, 134)));
        add(true, format!("{} {NEAR} -j {pass}", icmp(from, 135)));
        add(is_bridged, format!("{} {NEAR} -j ACCEPT", icmp(to, 135)));
        add(true, format!("{} {own} {NEAR} -j {pass}", icmp(from, 136)));
        add(is_bridged, format!("{} {NEAR} -j ACCEPT", icmp(to, 136)));
        rules
    }
}

/// The target that a permitted packet of a VM comes to.
pub(super) fn pass(version: Version, is_routed: bool) -> String {
    match (version, is_routed) {
        (Version::Before, _) => "RETURN".to_owned(),
        (Version::After | Version::Main, false) => "ACCEPT".to_owned(),
        (Version::After | Version::Main, true) => format!("MARK --set-xmark {APPROVED}"),
    }
}

fn icmp(end: &str, icmp_type: u8) -> String {
    format!("-p ipv6-icmp {end} -m icmp6 --icmpv6-type {icmp_type}")
}
