//! The state of a host's VMs as an inventory: what CloudStack's words mean in ours.
//!
//! Place on the line: command -> state -> **inventory** -> compile.
//!
//! | CloudStack | here |
//! | --- | --- |
//! | bridge | a network and an address scope of the same name: two bridges may carry the same addresses |
//! | tenant's VM | a group of the same name, and in it a port for each NIC |
//! | system VM | a port for each NIC, with port security off |
//! | record of rules | a rule for each of its prefixes |
//!
//! CloudStack doesn't tell a bridge's prefixes or its DHCP servers, so a network's subnets are
//! everything: DHCP is answered from anywhere.
//! Knows nothing of: what is enforced, and how.

use crate::rules::{Remote, RuleRecord, Service, Transport};
use crate::{Nic, State, UserVm, Vm, VmKind, VmName};
use model::{
    DeviceMatch, Direction, Family, FrozenSet, GroupId, Host, HostId, IcmpKind, Inventory, L4Match,
    L4PortRange, MacAddr, Network, NetworkId, Peer, Port, PortId, PortedProtocol, PortlessProtocol,
    Prefix, Rule, RuleId, ScopeId, SecurityGroup,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

/// What a host's operator may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// A VM may ask any DNS server (TCP and UDP 53), whatever its egress rules say. CloudStack's own
    /// script has it so.
    pub dns: bool,
    /// A VM whose rules haven't come yet may send anything: the script did so up to CloudStack 4.22. Off:
    /// nothing but DNS, as it does since.
    pub egress_before_rules: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dns: true,
            egress_before_rules: true,
        }
    }
}

/// What one host enforces for these VMs.
///
/// Total: every state has an inventory. Its revision is the default one: whoever keeps the state counts.
pub fn inventory(state: &State, host: Host, options: &Options) -> Inventory {
    let mut inventory = Inventory::default();
    for (name, vm) in &state.vms {
        let group = match &vm.kind {
            VmKind::User(user) => Some(group(name, user, options)),
            VmKind::System => None,
        };
        for (mac, nic) in &vm.nics {
            let port = port(name, *mac, nic, vm, &host.id);
            inventory.ports.insert(port.id.clone(), port);
            let network = network(nic);
            inventory
                .networks
                .entry(network.id.clone())
                .or_insert(network);
        }
        if let Some(group) = group {
            inventory.groups.insert(group.id.clone(), group);
        }
    }
    inventory.hosts.insert(host.id.clone(), host);
    inventory
}

/// The id of a NIC's port, and so of the same NIC when it is plugged anew: its device is another one
/// then, and its MAC is not.
pub fn port_id(vm: &VmName, mac: MacAddr) -> PortId {
    PortId::new(format!("{vm}/{mac}"))
}

/// The id of a VM's group.
pub fn group_id(vm: &VmName) -> GroupId {
    GroupId::new(vm.as_str())
}

fn network(nic: &Nic) -> Network {
    let bridge = nic.bridge.as_str();
    Network {
        id: NetworkId::new(bridge),
        scope: ScopeId::new(bridge),
        vni: None,
        mtu: None,
        subnets: Family::BOTH.map(Prefix::whole).into(),
        dhcp_servers: BTreeSet::new(),
        routers: BTreeSet::new(),
        eui64_only: true,
    }
}

fn port(name: &VmName, mac: MacAddr, nic: &Nic, vm: &Vm, host: &HostId) -> Port {
    let is_user = match &vm.kind {
        VmKind::User(_) => true,
        VmKind::System => false,
    };
    Port {
        id: port_id(name, mac),
        network: NetworkId::new(nic.bridge.as_str()),
        host: Some(host.clone()),
        device: DeviceMatch::Name(nic.vif.to_string()),
        moving: None,
        mac,
        fixed_addresses: nic.addresses().collect(),
        address_pairs: FrozenSet::new(),
        groups: is_user.then(|| group_id(name)).into_iter().collect(),
        port_security: is_user,
        dhcp_server: false,
        router: false,
    }
}

fn group(name: &VmName, user: &UserVm, options: &Options) -> SecurityGroup {
    let mut rules = RuleSet::default();
    let records: &[RuleRecord] = match &user.push {
        Some(push) => push.rules.records(),
        None => &[],
    };
    for record in records {
        rules.add_record(record);
    }
    for family in Family::BOTH {
        let restricts =
            |record: &RuleRecord| record.direction == Direction::Egress && record.is_of(family);
        let open = match user.push {
            Some(_) => !records.iter().any(restricts),
            None => options.egress_before_rules,
        };
        if open {
            rules.add(Direction::Egress, Service::All, Prefix::whole(family));
        } else if options.dns {
            for transport in [Transport::Tcp, Transport::Udp] {
                let ports = L4PortRange::new(53, 53).expect("in order");
                let dns = Service::Ports { transport, ports };
                rules.add(Direction::Egress, dns, Prefix::whole(family));
            }
        }
    }
    SecurityGroup {
        id: group_id(name),
        project: None,
        name: name.to_string(),
        stateful: true,
        tag: None,
        rules: rules.0,
    }
}

/// Rules by what they say: the same thing said twice is one rule, and its id stays when others come
/// before it.
#[derive(Default)]
struct RuleSet(BTreeMap<RuleId, Rule>);

impl RuleSet {
    fn add_record(&mut self, record: &RuleRecord) {
        for remote in &record.remotes {
            match remote {
                Remote::Prefix(prefix) => self.add(record.direction, record.service, *prefix),
                // Nobody is admitted by having no address.
                Remote::NoAddress => {}
            }
        }
    }

    fn add(&mut self, direction: Direction, service: Service, remote: Prefix) {
        let family = remote.family();
        let Some(l4) = l4_match(service, family) else {
            return;
        };
        let id = rule_id(direction, service, remote);
        let peer = match remote.length() {
            0 => Peer::Any,
            _ => Peer::Prefix(remote),
        };
        let rule = Rule {
            id: id.clone(),
            direction,
            family,
            l4,
            peer,
        };
        self.0.insert(id, rule);
    }
}

/// `None` where nothing can be meant: ICMPv6 in IPv4, ICMP's own number in IPv6.
fn l4_match(service: Service, family: Family) -> Option<L4Match> {
    match (service, family) {
        (Service::All, _) => Some(L4Match::Any),
        (Service::Ports { transport, ports }, _) => {
            let protocol = match transport {
                Transport::Tcp => PortedProtocol::Tcp,
                Transport::Udp => PortedProtocol::Udp,
            };
            let dst = ports;
            Some(L4Match::Ported { protocol, dst })
        }
        (Service::Icmp(kind), _) => Some(L4Match::Icmp { kind }),
        (Service::Protocol(58), Family::V4) | (Service::Protocol(1), Family::V6) => None,
        (Service::Protocol(58), Family::V6) | (Service::Protocol(1), Family::V4) => {
            Some(L4Match::Icmp { kind: None })
        }
        (Service::Protocol(number), _) => match PortedProtocol::from_number(number) {
            Some(protocol) => Some(L4Match::Ported {
                protocol,
                dst: L4PortRange::ALL,
            }),
            None => PortlessProtocol::new(number).map(L4Match::Other),
        },
    }
}

/// `in-tcp-22-22-10.0.0.0_8`, `eg-icmp-any6`: what the rule says, and so unique in its group.
fn rule_id(direction: Direction, service: Service, remote: Prefix) -> RuleId {
    // Ten thousand of them in each call: written into one text.
    let mut id = String::with_capacity(48);
    let written = write_rule_id(&mut id, direction, service, remote);
    written.expect("writing to a String doesn't fail");
    RuleId::new(id)
}

fn write_rule_id(
    id: &mut String,
    direction: Direction,
    service: Service,
    remote: Prefix,
) -> fmt::Result {
    id.push_str(match direction {
        Direction::Ingress => "in-",
        Direction::Egress => "eg-",
    });
    match service {
        Service::All => id.push_str("all"),
        Service::Ports { transport, ports } => {
            write!(id, "{transport}-{}-{}", ports.first(), ports.last())?;
        }
        Service::Icmp(None) => id.push_str("icmp"),
        Service::Icmp(Some(IcmpKind { icmp_type, code })) => match code {
            Some(code) => write!(id, "icmp-{icmp_type}-{code}")?,
            None => write!(id, "icmp-{icmp_type}")?,
        },
        Service::Protocol(number) => write!(id, "proto-{number}")?,
    }
    match (remote.length(), remote.family()) {
        (0, Family::V4) => id.push_str("-any4"),
        (0, Family::V6) => id.push_str("-any6"),
        (length, _) => write!(id, "-{}_{length}", remote.network())?,
    }
    Ok(())
}

#[cfg(test)]
mod tests;
