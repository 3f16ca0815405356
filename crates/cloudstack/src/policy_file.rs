//! The VMs of a host as the text of a policy file, for a host that goes on without CloudStack.
//!
//! Place on the line: state -> inventory -> **text**, which the policy file's reader makes the same
//! inventory of, but for the ids: names in a policy file have at most 63 characters, and rules are
//! joined in lists, so that somebody can read and edit them.
//!
//! What the file can't say as the inventory does:
//!
//! | in the state | in the file |
//! | --- | --- |
//! | an address that two NICs of a bridge have | an address of the first, a pair of the second |
//! | a MAC that two NICs of a bridge have | the second NIC's bridge is there twice, in one scope |
//! | rules that match nobody: an IPv6 extension header, an IPv4 address in IPv6's form | a comment |
//!
//! Bounds: those of a policy file; more than a million rules don't fit into one.
//! Knows nothing of: how the file is read, where it lies.

use crate::inventory::{Options, inventory, port_id};
use crate::{State, UserVm, VmKind, VmName};
use model::{
    Direction, Family, Host, IcmpKind, Inventory, L4Match, L4PortRange, MacAddr, NetworkId, Peer,
    Port, PortedProtocol, Prefix, Rule, SecurityGroup,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

/// Names in a policy file are no longer.
const MAX_NAME: usize = 63;

/// Prefixes in one rule; a policy file takes ten times as many.
const MAX_PREFIXES: usize = 1_000;

/// The text of a policy file that says what the state's inventory says.
///
/// Total: every state whose devices are each one NIC's has such a text.
pub fn policy_file(state: &State, options: &Options) -> String {
    let host = Host {
        id: "here".into(),
        tunnel_address: None,
        peer_trust: Default::default(),
        settings: Default::default(),
    };
    let inventory = inventory(state, host, options);
    let groups = group_names(state);
    let ports = ports(state, &inventory);
    let mut out = String::from(HEAD);
    write_networks(&mut out, &inventory, &ports);
    write_groups(&mut out, state, &inventory, &groups);
    write_ports(&mut out, &ports, &groups);
    out
}

const HEAD: &str = "\
# The security groups of the VMs of a CloudStack host.
# A bridge is a network and an address scope of its own; CloudStack doesn't tell its subnets. A VM's rules
# are a group of the VM's name, which each of its NICs is in. System VMs are unguarded.

version: 1
";

/// Groups' names by VM: the VM's own where it can be a name.
fn group_names(state: &State) -> BTreeMap<&VmName, String> {
    let is_user = |(_, vm): &(&VmName, &crate::Vm)| match vm.kind {
        VmKind::User(_) => true,
        VmKind::System => false,
    };
    let vms: Vec<&VmName> = state
        .vms
        .iter()
        .filter(is_user)
        .map(|(name, _)| name)
        .collect();
    let mut names = Names::default();
    // In a rule, `any` is everybody, and digits and dots are an address.
    let is_other = |name: &str| {
        name.eq_ignore_ascii_case("any") || name.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    };
    let fits = |vm: &&VmName| vm.as_str().len() <= MAX_NAME && !is_other(vm.as_str());
    let (fitting, others): (Vec<&VmName>, Vec<&VmName>) = vms.iter().partition(|vm| fits(vm));
    let fitting = fitting.into_iter().map(|vm| (vm, names.take(vm.as_str())));
    let mut taken: BTreeMap<&VmName, String> = fitting.collect();
    taken.extend(others.into_iter().map(|vm| (vm, names.make(vm.as_str()))));
    taken
}

/// Names that are taken already.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    /// The wanted name, if it is short enough and free; else one made from it.
    fn take(&mut self, wanted: &str) -> String {
        match wanted.len() <= MAX_NAME && self.0.insert(wanted.to_owned()) {
            true => wanted.to_owned(),
            false => self.make(wanted),
        }
    }

    /// The wanted name's beginning, and a number that is made of all of it: the same for the same name.
    fn make(&mut self, wanted: &str) -> String {
        const DIGITS: usize = 16;
        let beginning = &wanted[..wanted.len().min(MAX_NAME - 1 - DIGITS)];
        let mut number = fnv(wanted);
        loop {
            let name = format!("{beginning}-{number:0DIGITS$x}");
            if self.0.insert(name.clone()) {
                return name;
            }
            number = number.wrapping_add(1);
        }
    }
}

/// Fowler, Noll and Vo's hash (1a, 64 bits): no secret, and the same everywhere and always.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A port with what the file says of it differently.
struct FilePort<'s> {
    name: String,
    vm: &'s VmName,
    port: Port,
    /// Of the port's addresses, those that are another's already.
    pairs: BTreeSet<IpAddr>,
    /// The network's name.
    network: String,
}

fn ports<'s>(state: &'s State, inventory: &Inventory) -> Vec<FilePort<'s>> {
    let mut names = Names::default();
    let mut networks = Names(inventory.networks.keys().map(|id| id.to_string()).collect());
    // By bridge: the networks that stand for it.
    let mut of_bridge: BTreeMap<&NetworkId, Vec<String>> = BTreeMap::new();
    let mut macs: BTreeSet<(String, MacAddr)> = BTreeSet::new();
    let mut addresses: BTreeSet<(&NetworkId, IpAddr)> = BTreeSet::new();
    let mut ports = Vec::new();
    for (vm, nics) in state.vms.iter().map(|(name, vm)| (name, &vm.nics)) {
        for mac in nics.keys() {
            let port = &inventory.ports[&port_id(vm, *mac)];
            let bridge = inventory.networks.get_key_value(&port.network);
            let (bridge, _) = bridge.expect("every port's network is there");
            let standing = of_bridge
                .entry(bridge)
                .or_insert_with(|| vec![bridge.to_string()]);
            let free = standing
                .iter()
                .find(|network| !macs.contains(&((*network).clone(), *mac)));
            let network = match free {
                Some(network) => network.clone(),
                None => {
                    let network = networks.make(bridge.as_str());
                    standing.push(network.clone());
                    network
                }
            };
            macs.insert((network.clone(), *mac));
            let is_taken = |address: &IpAddr| !addresses.insert((bridge, *address));
            let pairs: BTreeSet<IpAddr> = port
                .fixed_addresses
                .iter()
                .copied()
                .filter(is_taken)
                .collect();
            ports.push(FilePort {
                name: names.take(&format!("{vm}.{}", mac.to_string().replace(':', "-"))),
                vm,
                port: port.clone(),
                pairs,
                network,
            });
        }
    }
    ports
}

fn write_networks(out: &mut String, inventory: &Inventory, ports: &[FilePort<'_>]) {
    let mut names: BTreeMap<&str, &NetworkId> = BTreeMap::new();
    for port in ports {
        names.insert(&port.network, &port.port.network);
    }
    begin(out, "networks", names.is_empty());
    for (name, bridge) in names {
        let network = &inventory.networks[bridge];
        if name != bridge.as_str() {
            line(
                out,
                format_args!("  # {bridge} again: two of its NICs have one MAC."),
            );
        }
        let scope = quoted(network.scope.as_str());
        let subnets = list(
            network
                .subnets
                .iter()
                .map(|subnet| quoted(&subnet.to_string())),
        );
        let eui64 = if network.eui64_only { "on" } else { "off" };
        line(
            out,
            format_args!(
                "  {}: {{ scope: {scope}, subnets: {subnets}, eui64-only: {eui64} }}",
                quoted(name)
            ),
        );
    }
}

fn write_groups(
    out: &mut String,
    state: &State,
    inventory: &Inventory,
    names: &BTreeMap<&VmName, String>,
) {
    begin(out, "groups", names.is_empty());
    for (vm, name) in names {
        let VmKind::User(user) = &state.vms[*vm].kind else {
            continue;
        };
        let group = &inventory.groups[&crate::inventory::group_id(vm)];
        if *name != vm.as_str() {
            line(
                out,
                format_args!("  # VM {vm}, whose name can't be one here."),
            );
        }
        if let Some(note) = note(user) {
            line(out, format_args!("  # {note}"));
        }
        let rules = rules(group);
        for nobody in &rules.nobodys {
            line(
                out,
                format_args!("  # Not here, as it matches nobody: {nobody}."),
            );
        }
        line(out, format_args!("  {}:", quoted(name)));
        if rules.lines.is_empty() {
            line(out, format_args!("    rules: []"));
            continue;
        }
        line(out, format_args!("    rules:"));
        for rule in rules.lines {
            line(out, format_args!("      - {{ {rule} }}"));
        }
    }
}

/// What an editor of the file should know of a VM's rules.
fn note(user: &UserVm) -> Option<&'static str> {
    match &user.push {
        None => Some("No rules had come yet."),
        Some(push) if push.is_provisional() => {
            Some("These rules were found on the host, and may be incomplete.")
        }
        Some(_) => None,
    }
}

fn write_ports(out: &mut String, ports: &[FilePort<'_>], groups: &BTreeMap<&VmName, String>) {
    begin(out, "ports", ports.is_empty());
    for FilePort {
        name,
        vm,
        port,
        pairs,
        network,
    } in ports
    {
        let mut fields = vec![format!("network: {}", quoted(network))];
        if let model::DeviceMatch::Name(device) = &port.device {
            fields.push(format!("device: {}", quoted(device)));
        }
        fields.push(format!("mac: {}", quoted(&port.mac.to_string())));
        let own = port.fixed_addresses.iter();
        let own = own.filter(|address| !pairs.contains(address));
        for (field, addresses) in [
            ("addresses", own.collect()),
            ("pairs", pairs.iter().collect::<Vec<_>>()),
        ] {
            if !addresses.is_empty() {
                let addresses = addresses.iter().map(|address| quoted(&address.to_string()));
                fields.push(format!("{field}: {}", list(addresses)));
            }
        }
        match groups.get(vm) {
            Some(group) if port.port_security => {
                fields.push(format!("groups: {}", list([quoted(group)])))
            }
            Some(_) | None => {}
        }
        if !port.port_security {
            fields.push("port-security: off".to_owned());
        }
        if !name.starts_with(vm.as_str()) {
            line(out, format_args!("  # VM {vm}, whose name is too long."));
        }
        line(
            out,
            format_args!("  {}: {{ {} }}", quoted(name), fields.join(", ")),
        );
    }
}

/// A group's rules as the file has them.
#[derive(Default)]
struct FileRules {
    /// The fields of each.
    lines: Vec<String>,
    /// Those that the file can't say.
    nobodys: Vec<String>,
}

/// What rules have in common that are one in the file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Common {
    direction: Direction,
    /// For names: `tcp-22`.
    word: String,
    /// The fields that say it.
    fields: Vec<String>,
}

#[derive(Default)]
struct Remotes {
    any: BTreeSet<Family>,
    prefixes: BTreeSet<Prefix>,
}

fn rules(group: &SecurityGroup) -> FileRules {
    let mut file = FileRules::default();
    let mut by_service: BTreeMap<Common, Remotes> = BTreeMap::new();
    for rule in group.rules.values() {
        let Some(common) = common(rule).filter(|_| !is_nobody(&rule.peer)) else {
            file.nobodys.push(rule.id.to_string());
            continue;
        };
        let remotes = by_service.entry(common).or_default();
        match &rule.peer {
            Peer::Any => _ = remotes.any.insert(rule.family),
            Peer::Prefix(prefix) => _ = remotes.prefixes.insert(*prefix),
            Peer::Group(_) | Peer::AddressGroup(_) => {
                unreachable!("CloudStack's rules name prefixes alone")
            }
        }
    }
    for (common, remotes) in &by_service {
        let (direction, side) = match common.direction {
            Direction::Ingress => ("in", "from"),
            Direction::Egress => ("eg", "to"),
        };
        let name = format!("{direction}-{}", common.word);
        let mut add = |name: &str, remotes: &str, family: Option<&str>| {
            let mut fields = vec![
                format!("name: {}", quoted(name)),
                format!("{side}: {remotes}"),
            ];
            fields.extend(common.fields.iter().cloned());
            fields.extend(family.map(|family| format!("family: {family}")));
            file.lines.push(fields.join(", "));
        };
        match (
            remotes.any.contains(&Family::V4),
            remotes.any.contains(&Family::V6),
        ) {
            (true, true) => add(&format!("{name}-any"), "any", None),
            (true, false) => add(&format!("{name}-any4"), "any", Some("ipv4")),
            (false, true) => add(&format!("{name}-any6"), "any", Some("ipv6")),
            (false, false) => {}
        }
        let prefixes: Vec<&Prefix> = remotes.prefixes.iter().collect();
        for (part, prefixes) in prefixes.chunks(MAX_PREFIXES).enumerate() {
            let name = match part {
                0 => name.clone(),
                part => format!("{name}-part{}", part + 1),
            };
            add(
                &name,
                &list(prefixes.iter().map(|prefix| quoted(&prefix.to_string()))),
                None,
            );
        }
    }
    file
}

/// `None`: the file has no word for it, as it matches nobody.
fn common(rule: &Rule) -> Option<Common> {
    let protocol = |protocol: String| format!("protocol: {protocol}");
    let (word, fields) = match (rule.l4, rule.family) {
        (L4Match::Any, _) => ("all".to_owned(), vec![]),
        (
            L4Match::Ported {
                protocol: ported,
                dst,
            },
            _,
        ) => {
            let name = match ported {
                PortedProtocol::Tcp => "tcp",
                PortedProtocol::Udp => "udp",
                PortedProtocol::Dccp => "dccp",
                PortedProtocol::Sctp => "sctp",
                PortedProtocol::UdpLite => "udplite",
            };
            let ports = match (dst.first(), dst.last()) {
                _ if dst == L4PortRange::ALL => None,
                (first, last) if first == last => Some(first.to_string()),
                (first, last) => Some(format!("{first}-{last}")),
            };
            let word = ports
                .as_ref()
                .map_or(name.to_owned(), |ports| format!("{name}-{ports}"));
            let ports = ports.map(|ports| format!("ports: {ports}"));
            (
                word,
                [protocol(name.to_owned())]
                    .into_iter()
                    .chain(ports)
                    .collect(),
            )
        }
        (L4Match::Icmp { kind: None }, _) => ("icmp".to_owned(), vec![protocol("icmp".to_owned())]),
        // Its number means one thing in IPv4 and another in IPv6.
        (
            L4Match::Icmp {
                kind: Some(IcmpKind { icmp_type, code }),
            },
            family,
        ) => {
            let name = match family {
                Family::V4 => "icmp",
                Family::V6 => "icmpv6",
            };
            let (word, kind) = match code {
                Some(code) => (
                    format!("{name}-{icmp_type}-{code}"),
                    format!("{icmp_type}/{code}"),
                ),
                None => (format!("{name}-{icmp_type}"), icmp_type.to_string()),
            };
            (word, vec![protocol(format!("{name} {kind}"))])
        }
        (L4Match::Other(other), family) => match (other.number(), family) {
            // Extension headers, behind which rules look.
            (0 | 43 | 44 | 51 | 60, Family::V6) => return None,
            (number, _) => (
                format!("proto-{number}"),
                vec![protocol(number.to_string())],
            ),
        },
    };
    Some(Common {
        direction: rule.direction,
        word,
        fields,
    })
}

/// An IPv4 address in IPv6's form is in no packet, and the file refuses it.
fn is_nobody(peer: &Peer) -> bool {
    match peer {
        Peer::Prefix(prefix) => match prefix.network() {
            IpAddr::V6(network) => prefix.length() >= 96 && network.to_ipv4_mapped().is_some(),
            IpAddr::V4(_) => false,
        },
        Peer::Any | Peer::Group(_) | Peer::AddressGroup(_) => false,
    }
}

fn begin(out: &mut String, section: &str, is_empty: bool) {
    if !is_empty {
        line(out, format_args!("\n{section}:"));
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{text}"); // To a string, which can't fail.
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().collect();
    format!("[{}]", items.join(", "))
}

/// Names, addresses and prefixes are ASCII without quotes and backslashes, by their types: in quotes
/// they are texts and nothing else.
fn quoted(text: &str) -> String {
    debug_assert!(
        text.bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'))
    );
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests;
