//! Inventory to view: what one host needs to know, and what is wrong with it.
//!
//! Place on the line: inventory -> **compile** -> view.
//! Invariants: total; a bad object costs only itself and leaves a finding; the result depends on the
//! inventory's content alone. Findings are about the whole inventory, not just this host's part.
//! Cost: a few passes over ports and one over rules; a member set is built once and shared.

use crate::finding::Finding;
use crate::overlay::overlay;
use crate::shared_set::SharedSet;
use crate::view::{GroupView, HostView, NetworkView, OwnAddress, PeerView, PortView, RuleView};
use model::{
    AddressGroupId, DeviceMatch, Family, GroupId, HostId, Inspection, Inventory, L4Match, MacAddr,
    Network, NetworkId, Peer, Port, PortId, Prefix, Rule, RuleId, RuleRef, ScopeId, SecurityGroup,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// What the host's own ports lead to.
#[derive(Default)]
struct Interest<'a> {
    networks: BTreeMap<&'a NetworkId, &'a Network>,
    /// Groups of local ports, and the scopes of these ports.
    groups: BTreeMap<&'a GroupId, BTreeSet<&'a ScopeId>>,
    /// Groups that rules name, and the scopes in which their members matter.
    remote_groups: HashMap<&'a GroupId, BTreeSet<&'a ScopeId>>,
    address_groups: BTreeSet<&'a AddressGroupId>,
}

pub fn compile(inventory: &Inventory, host: &HostId) -> (HostView, Vec<Finding>) {
    let mut findings = Vec::new();
    check_ports(inventory, &mut findings);
    let settings = match inventory.hosts.get(host) {
        Some(known) => known.settings.clone(),
        None => {
            findings.push(Finding::HostMissing { host: host.clone() });
            Default::default()
        }
    };
    let mut interest = Interest::default();
    let ports = local_ports(inventory, host, &mut interest);
    inspect_ahead(inventory, host, &mut interest);
    let groups = groups(inventory, &mut interest, &mut findings);
    findings.sort();
    findings.dedup();
    let overlay = overlay(inventory, host, &ports);
    let view = HostView {
        revision: inventory.revision,
        settings,
        networks: networks(inventory, &interest),
        ports,
        groups,
        members: members(inventory, &interest),
        overlay,
        address_groups: address_groups(inventory, &interest),
    };
    (view, findings)
}

/// A port whose network is missing is left out: a port that no view knows passes nothing.
fn local_ports<'a>(
    inventory: &'a Inventory,
    host: &HostId,
    interest: &mut Interest<'a>,
) -> BTreeMap<PortId, Arc<PortView>> {
    let mut ports = BTreeMap::new();
    for (id, port) in &inventory.ports {
        let Some(device) = port.device_on(host) else {
            continue;
        };
        let Some(network) = inventory.networks.get(&port.network) else {
            continue;
        };
        interest.networks.insert(&port.network, network);
        let joined: Vec<&GroupId> = known_groups(inventory, port).collect();
        interest.join(&joined, &network.scope);
        ports.insert(id.clone(), Arc::new(port_view(port, device, joined)));
    }
    ports
}

/// Where the rules of receivers on other hosts are asked here, their groups are as interesting as those of local
/// ports.
fn inspect_ahead<'a>(inventory: &'a Inventory, host: &HostId, interest: &mut Interest<'a>) {
    let this = inventory
        .hosts
        .get(host)
        .filter(|this| this.tunnel_address.is_some());
    match this.map(|this| this.settings.inspection) {
        Some(Inspection::Source | Inspection::Both) => {}
        Some(Inspection::Destination) | None => return,
    }
    for port in inventory.ports.values() {
        let network = interest.networks.get(&port.network).copied();
        let Some(network) = network.filter(|network| network.vni.is_some()) else {
            continue;
        };
        let joined: Vec<&GroupId> = known_groups(inventory, port).collect();
        interest.join(&joined, &network.scope);
    }
}

impl<'a> Interest<'a> {
    fn join(&mut self, groups: &[&'a GroupId], scope: &'a ScopeId) {
        for group in groups {
            self.groups.entry(*group).or_default().insert(scope);
        }
    }
}

/// What rules mean: as in the view of a host that all ports are on.
pub(crate) struct Meaning {
    pub(crate) groups: BTreeMap<GroupId, Arc<GroupView>>,
    pub(crate) members: BTreeMap<(ScopeId, GroupId), Arc<SharedSet<Prefix>>>,
    pub(crate) address_groups: BTreeMap<AddressGroupId, Arc<SharedSet<Prefix>>>,
}

pub(crate) fn meaning(inventory: &Inventory) -> Meaning {
    let mut interest = Interest::default();
    for port in inventory.ports.values() {
        if let Some(network) = inventory.networks.get(&port.network) {
            let joined: Vec<&GroupId> = known_groups(inventory, port).collect();
            interest.join(&joined, &network.scope);
        }
    }
    Meaning {
        groups: groups(inventory, &mut interest, &mut Vec::new()),
        members: members(inventory, &interest),
        address_groups: address_groups(inventory, &interest),
    }
}

/// Groups in force: none with port security off, and none of a list too long.
pub(crate) fn joined_groups(port: &Port) -> impl Iterator<Item = &GroupId> {
    let in_force = port.port_security && port.groups.len() <= Port::MAX_GROUPS;
    port.groups.iter().filter(move |_| in_force)
}

/// Of the groups in force those that exist: the ones whose rules count.
pub(crate) fn known_groups<'a>(
    inventory: &Inventory,
    port: &'a Port,
) -> impl Iterator<Item = &'a GroupId> {
    joined_groups(port).filter(|id| inventory.groups.contains_key(*id))
}

pub(crate) fn port_view(port: &Port, device: &DeviceMatch, groups: Vec<&GroupId>) -> PortView {
    let guarded = port.port_security;
    let fixed = port.fixed_addresses.iter().map(|address| OwnAddress {
        prefix: Prefix::host(*address),
        mac: None,
    });
    let pairs = port.address_pairs.iter().map(|pair| OwnAddress {
        prefix: pair.prefix,
        mac: Some(pair.mac.unwrap_or(port.mac)),
    });
    PortView {
        network: port.network.clone(),
        device: device.clone(),
        mac: port.mac,
        port_security: guarded,
        dhcp_server: guarded && port.dhcp_server,
        router: guarded && port.router,
        addresses: fixed.chain(pairs).filter(|_| guarded).collect(),
        groups: groups.into_iter().cloned().collect(),
    }
}

/// Looks at each group's rules for findings; keeps the groups of local ports, and notes what their
/// rules name.
fn groups<'a>(
    inventory: &'a Inventory,
    interest: &mut Interest<'a>,
    findings: &mut Vec<Finding>,
) -> BTreeMap<GroupId, Arc<GroupView>> {
    let mut kept = BTreeMap::new();
    for (id, group) in &inventory.groups {
        let rules = rules(inventory, id, group, findings);
        let Some(scopes) = interest.groups.get(id) else {
            continue;
        };
        let mut named = HashSet::new();
        for (_, rule) in &rules {
            match rule.peer {
                Peer::Any | Peer::Prefix(_) => {}
                Peer::Group(ref group) => {
                    named.insert(group);
                }
                Peer::AddressGroup(ref group) => {
                    interest.address_groups.insert(group);
                }
            }
        }
        for group in named {
            let wanted = interest.remote_groups.entry(group).or_default();
            wanted.extend(scopes);
        }
        kept.insert(id.clone(), Arc::new(group_view(group, rules)));
    }
    kept
}

/// Of the rules those that can match something.
pub(crate) fn group_view(group: &SecurityGroup, sound: Vec<(&RuleId, &Rule)>) -> GroupView {
    let rules = sound.into_iter();
    GroupView {
        stateful: group.stateful,
        tag: group.tag,
        rules: rules
            .map(|(id, rule)| (id.clone(), rule_view(rule)))
            .collect(),
    }
}

/// The rules that can match something.
pub(crate) fn rules<'a>(
    inventory: &Inventory,
    group: &GroupId,
    content: &'a SecurityGroup,
    findings: &mut Vec<Finding>,
) -> Vec<(&'a RuleId, &'a Rule)> {
    let mut sound = Vec::with_capacity(content.rules.len());
    for (id, rule) in &content.rules {
        let name = || RuleRef {
            group: group.clone(),
            rule: id.clone(),
        };
        match broken(inventory, rule, name) {
            None => sound.push((id, rule)),
            Some(finding) => findings.push(finding),
        }
    }
    sound
}

/// Why a rule matches nobody, when it never can as it is written.
fn broken(inventory: &Inventory, rule: &Rule, name: impl Fn() -> RuleRef) -> Option<Finding> {
    if let L4Match::Other(protocol) = rule.l4
        && rule.family == Family::V6
        && is_extension_header(protocol.number())
    {
        return Some(Finding::RuleExtensionHeader {
            rule: name(),
            protocol: protocol.number(),
        });
    }
    match &rule.peer {
        Peer::Any => None,
        Peer::Prefix(prefix) => {
            (prefix.family() != rule.family).then(|| Finding::RulePrefixFamily {
                rule: name(),
                family: rule.family,
                prefix: *prefix,
            })
        }
        Peer::Group(group) => {
            (!inventory.groups.contains_key(group)).then(|| Finding::RuleGroupMissing {
                rule: name(),
                group: group.clone(),
            })
        }
        Peer::AddressGroup(group) => (!inventory.address_groups.contains_key(group)).then(|| {
            Finding::RuleAddressGroupMissing {
                rule: name(),
                address_group: group.clone(),
            }
        }),
    }
}

/// In IPv6 these are headers on the way to a packet's protocol, never its protocol.
pub(crate) fn is_extension_header(protocol: u8) -> bool {
    matches!(protocol, 0 | 43 | 44 | 51 | 60)
}

fn rule_view(rule: &Rule) -> RuleView {
    RuleView {
        direction: rule.direction,
        family: rule.family,
        l4: rule.l4,
        peer: match &rule.peer {
            Peer::Any => PeerView::Any,
            Peer::Prefix(prefix) if prefix.length() == 0 => PeerView::Any,
            Peer::Prefix(prefix) => PeerView::Prefix(*prefix),
            Peer::Group(group) => PeerView::Group(group.clone()),
            Peer::AddressGroup(group) => PeerView::AddressGroup(group.clone()),
        },
    }
}

fn members(
    inventory: &Inventory,
    interest: &Interest<'_>,
) -> BTreeMap<(ScopeId, GroupId), Arc<SharedSet<Prefix>>> {
    let mut found: HashMap<(&ScopeId, &GroupId), Vec<Prefix>> = HashMap::new();
    for port in inventory.ports.values() {
        let Some(network) = inventory.networks.get(&port.network) else {
            continue;
        };
        for group in joined_groups(port) {
            let wanted = interest.remote_groups.get(group);
            if wanted.is_some_and(|scopes| scopes.contains(&network.scope)) {
                let known = found.entry((&network.scope, group)).or_default();
                known.extend(members_of(port));
            }
        }
    }
    found
        .into_iter()
        .filter(|(_, members)| !members.is_empty())
        .map(|((scope, group), members)| {
            let members = Arc::new(members.into_iter().collect());
            ((scope.clone(), group.clone()), members)
        })
        .collect()
}

/// What stands for the port in remote groups.
pub(crate) fn members_of(port: &Port) -> impl Iterator<Item = Prefix> + '_ {
    port.member_prefixes().filter(|p| !is_link_local(p))
}

pub(crate) fn is_link_local(prefix: &Prefix) -> bool {
    match prefix.network() {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => prefix.length() >= 10 && address.is_unicast_link_local(),
    }
}

fn address_groups(
    inventory: &Inventory,
    interest: &Interest<'_>,
) -> BTreeMap<AddressGroupId, Arc<SharedSet<Prefix>>> {
    let wanted = interest.address_groups.iter();
    let known = wanted.filter_map(|id| inventory.address_groups.get_key_value(*id));
    known
        .filter(|(_, group)| !group.prefixes.is_empty())
        .map(|(id, group)| {
            (
                id.clone(),
                Arc::new(group.prefixes.iter().copied().collect()),
            )
        })
        .collect()
}

fn networks(inventory: &Inventory, interest: &Interest<'_>) -> BTreeMap<NetworkId, NetworkView> {
    let mut reserved: HashMap<&NetworkId, Vec<Ipv6Addr>> = HashMap::new();
    for (id, network) in &interest.networks {
        if !network.eui64_only {
            reserved.insert(id, reserved_by_routers(network).collect());
        }
    }
    for port in inventory.ports.values() {
        if let Some(reserved) = reserved.get_mut(&port.network) {
            reserved.extend(reserved_by_port(port));
        }
    }
    let views = interest.networks.iter().map(|(id, network)| {
        let reserved = reserved.remove(id).into_iter().flatten();
        ((*id).clone(), network_view(network, reserved.collect()))
    });
    views.collect()
}

pub(crate) fn network_view(network: &Network, reserved: SharedSet<Ipv6Addr>) -> NetworkView {
    NetworkView {
        scope: network.scope.clone(),
        subnets: network.subnets.clone(),
        dhcp_servers: network.dhcp_servers.clone(),
        reserved_link_local: Arc::new(reserved),
        eui64_only: network.eui64_only,
    }
}

pub(crate) fn reserved_by_routers(network: &Network) -> impl Iterator<Item = Ipv6Addr> + '_ {
    network.routers.iter().copied().filter_map(link_local)
}

/// The link-local addresses that are the port's: listed, and by its MAC.
pub(crate) fn reserved_by_port(port: &Port) -> impl Iterator<Item = Ipv6Addr> + '_ {
    let pairs = port.address_pairs.iter().filter_map(|p| p.prefix.as_host());
    let listed = port.fixed_addresses.iter().copied().chain(pairs);
    let derived = port.mac.eui64_link_local();
    listed.filter_map(link_local).chain([derived])
}

fn link_local(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => address.is_unicast_link_local().then_some(address),
    }
}

/// What is wrong with ports, each by itself and between them.
fn check_ports(inventory: &Inventory, findings: &mut Vec<Finding>) {
    let count = inventory.ports.len();
    let mut macs: HashMap<(&NetworkId, MacAddr), &PortId> = HashMap::with_capacity(count);
    let mut addresses: HashMap<(&ScopeId, IpAddr), &PortId> = HashMap::with_capacity(2 * count);
    let mut devices: HashMap<(&HostId, &DeviceMatch), &PortId> = HashMap::new();
    for (id, port) in &inventory.ports {
        check_port(inventory, id, port, findings);
        let pair = |first: &PortId| [first.clone(), id.clone()];
        let first = *macs.entry((&port.network, port.mac)).or_insert(id);
        // A host isn't told the MACs that it doesn't need.
        if first != id && port.mac != MacAddr::ZERO {
            findings.push(Finding::DuplicateMac {
                network: port.network.clone(),
                mac: port.mac,
                ports: pair(first),
            });
        }
        if let Some(network) = inventory.networks.get(&port.network) {
            let here = port.fixed_addresses.iter();
            // Link-local addresses mean something in their network only, and are checked nowhere.
            for address in here.filter(|a| link_local(**a).is_none()) {
                let first = *addresses.entry((&network.scope, *address)).or_insert(id);
                if first != id {
                    findings.push(Finding::DuplicateAddress {
                        scope: network.scope.clone(),
                        address: *address,
                        ports: pair(first),
                    });
                }
            }
        }
        for host in port.hosts() {
            let device = port.device_on(host).expect("it is on its hosts");
            let first = *devices.entry((host, device)).or_insert(id);
            if first != id
                && let Some(device) = one_device(device)
            {
                findings.push(Finding::DuplicateDevice {
                    host: host.clone(),
                    device,
                    ports: pair(first),
                });
            }
        }
    }
}

/// In words, what can be one device only. `None`: what fits is seen when it is there.
fn one_device(device: &DeviceMatch) -> Option<String> {
    match device {
        DeviceMatch::Name(name) => Some(name.clone()),
        DeviceMatch::InterfaceId(id) => Some(format!("of interface id {id}")),
        DeviceMatch::Mac | DeviceMatch::Pattern(_) => None,
    }
}

fn check_port(inventory: &Inventory, id: &PortId, port: &Port, findings: &mut Vec<Finding>) {
    if let Some(host) = &port.host
        && !inventory.hosts.contains_key(host)
    {
        findings.push(Finding::PortHostMissing {
            port: id.clone(),
            host: host.clone(),
        });
    }
    if !inventory.networks.contains_key(&port.network) {
        findings.push(Finding::PortNetworkMissing {
            port: id.clone(),
            network: port.network.clone(),
        });
    }
    if !port.port_security {
        if !port.groups.is_empty() {
            findings.push(Finding::UnguardedInGroups { port: id.clone() });
        }
        return;
    }
    if port.groups.len() > Port::MAX_GROUPS {
        findings.push(Finding::PortTooManyGroups {
            port: id.clone(),
            groups: port.groups.len(),
        });
    }
    for group in joined_groups(port).filter(|g| !inventory.groups.contains_key(*g)) {
        findings.push(Finding::PortGroupMissing {
            port: id.clone(),
            group: group.clone(),
        });
    }
    for pair in port
        .address_pairs
        .iter()
        .filter(|p| !p.enters_remote_groups())
    {
        findings.push(Finding::WidePair {
            port: id.clone(),
            prefix: pair.prefix,
        });
    }
}
