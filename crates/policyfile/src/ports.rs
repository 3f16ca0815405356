//! Ports: their network, host and groups looked up, and what no two of them may share.

use crate::draft::PortDraft;
use crate::error::{ErrorKind, Log, Place, Stop, quoted};
use crate::reader::Text;
use crate::resolve::{GroupNames, NO_HOST, note, unknown};
use model::{DeviceMatch, GroupId, HostId, Inventory, MacAddr, NetworkId, Port, PortId, ScopeId};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

pub(crate) struct PortBuilder<'a, 'n> {
    networks: HashMap<String, (NetworkId, ScopeId)>,
    /// `None`: the file has no hosts, and its ports are on this one.
    hosts: Option<HashMap<String, HostId>>,
    here: HostId,
    names: &'n GroupNames,
    macs: HashMap<(NetworkId, MacAddr), Cow<'a, str>>,
    addresses: HashMap<(AddressSpace, IpAddr), Cow<'a, str>>,
    devices: HashMap<(HostId, Cow<'a, str>), Cow<'a, str>>,
}

/// Where an address is unique: link-local ones mean something in their network only.
#[derive(PartialEq, Eq, Hash)]
enum AddressSpace {
    Scope(ScopeId),
    Network(NetworkId),
}

impl<'a, 'n> PortBuilder<'a, 'n> {
    pub(crate) fn new(
        inventory: &Inventory,
        has_hosts: bool,
        here: &HostId,
        names: &'n GroupNames,
        ports: usize,
    ) -> Self {
        let networks = inventory.networks.values();
        let hosts = inventory.hosts.keys();
        Self {
            networks: networks
                .map(|n| (n.id.as_str().to_owned(), (n.id.clone(), n.scope.clone())))
                .collect(),
            hosts: has_hosts.then(|| hosts.map(|h| (h.as_str().to_owned(), h.clone())).collect()),
            here: here.clone(),
            names,
            macs: HashMap::with_capacity(ports),
            addresses: HashMap::with_capacity(ports),
            devices: HashMap::with_capacity(ports),
        }
    }

    /// `None` when the port is broken, which is noted.
    pub(crate) fn build(
        &mut self,
        name: Text<'a>,
        draft: PortDraft<'a>,
        log: &mut Log<'a>,
    ) -> Result<Option<Port>, Stop> {
        let network = self.network(&name, draft.network.as_ref(), log)?;
        let host = self.host(&name, draft.host.as_ref(), log)?;
        let groups = self.groups(&name, &draft.groups, log)?;
        if let (Some(host), Some(device)) = (&host, &draft.device) {
            let key = (host.clone(), device.value.clone());
            if let Some(other) = self.devices.insert(key, name.value.clone())
                && !is_pattern(&device.value)
            {
                let what = format!("the device {} is taken", quoted(&device.value));
                taken(log, device.at, ErrorKind::DuplicateDevice, what, &other)?;
            }
        }
        let (Some((network, scope)), Some((mac, mac_at))) = (network, draft.mac) else {
            return Ok(None);
        };
        let key = (network.clone(), mac);
        if let Some(other) = self.macs.insert(key, name.value.clone()) {
            let what = format!(
                "the MAC {mac} is taken in the network {}",
                quoted(network.as_str())
            );
            taken(log, mac_at, ErrorKind::DuplicateMac, what, &other)?;
        }
        let mut fixed_addresses = BTreeSet::new();
        for (address, at) in draft.addresses {
            let space = match address {
                IpAddr::V6(a) if a.is_unicast_link_local() => {
                    AddressSpace::Network(network.clone())
                }
                IpAddr::V4(_) | IpAddr::V6(_) => AddressSpace::Scope(scope.clone()),
            };
            if let Some(other) = self.addresses.insert((space, address), name.value.clone()) {
                let what = format!("the address {address} is taken");
                taken(log, at, ErrorKind::DuplicateAddress, what, &other)?;
            }
            fixed_addresses.insert(address);
        }
        Ok(Some(Port {
            id: PortId::new(&*name.value),
            network,
            host,
            device: draft.device.map_or(DeviceMatch::Mac, device_match),
            mac,
            fixed_addresses,
            address_pairs: draft.pairs,
            groups,
            port_security: !draft.no_port_security,
            dhcp_server: draft.dhcp_server,
            router: draft.router,
        }))
    }

    fn network(
        &self,
        port: &Text<'a>,
        network: Option<&Text<'a>>,
        log: &mut Log<'a>,
    ) -> Result<Option<(NetworkId, ScopeId)>, Stop> {
        let mut known: Vec<&str> = self.networks.keys().map(String::as_str).collect();
        known.sort_unstable();
        match (network, &*known) {
            (None, [only]) => return Ok(self.networks.get(*only).cloned()),
            (None, _) => {
                let what = format!("the port {} has no `network`", quoted(&port.value));
                let advice = match known.len() {
                    0 => "add a section `networks:` with one, as in docs/policy-file.md",
                    _ => "it can be left out only where the file has just one network",
                };
                note(log, port.at, ErrorKind::MissingField, what, advice)?;
            }
            (Some(name), _) => match self.networks.get(&*name.value) {
                Some(network) => return Ok(Some(network.clone())),
                None => {
                    let what = ("network", "networks");
                    let known = known.iter().copied();
                    unknown(log, name, ErrorKind::UnknownNetwork, what, known)?;
                }
            },
        }
        Ok(None)
    }

    fn host(
        &self,
        port: &Text<'a>,
        host: Option<&Text<'a>>,
        log: &mut Log<'a>,
    ) -> Result<Option<HostId>, Stop> {
        match (host, &self.hosts) {
            (Some(name), _) if name.value == NO_HOST => {}
            (None, None) => return Ok(Some(self.here.clone())),
            (None, Some(_)) => {
                let what = format!("the port {} has no `host`", quoted(&port.value));
                let advice =
                    "in a file with `hosts`, each port says on which it is, or `host: none`";
                note(log, port.at, ErrorKind::MissingField, what, advice)?;
            }
            (Some(name), None) => {
                let what = format!(
                    "there is no host {}: the file has no `hosts`",
                    quoted(&name.value)
                );
                let advice = "remove it, and the port is on this host; `host: none` makes it a member of its groups that is on no host";
                note(log, name.at, ErrorKind::UnknownHost, what, advice)?;
            }
            (Some(name), Some(hosts)) => match hosts.get(&*name.value) {
                Some(host) => return Ok(Some(host.clone())),
                None => {
                    let mut known: Vec<&str> = hosts.keys().map(String::as_str).collect();
                    known.sort_unstable();
                    let what = ("host", "hosts");
                    let known = known.iter().copied();
                    unknown(log, name, ErrorKind::UnknownHost, what, known)?;
                }
            },
        }
        Ok(None)
    }

    fn groups(
        &self,
        port: &Text<'a>,
        listed: &[Text<'a>],
        log: &mut Log<'a>,
    ) -> Result<BTreeSet<GroupId>, Stop> {
        let mut groups = BTreeSet::new();
        if listed.len() > Port::MAX_GROUPS {
            let what = format!(
                "the port {} is in {} groups",
                quoted(&port.value),
                listed.len()
            );
            let advice = format!(
                "a port is in at most {} groups: join some",
                Port::MAX_GROUPS
            );
            note(log, port.at, ErrorKind::TooManyGroups, what, advice)?;
            return Ok(groups);
        }
        for name in listed {
            if let Some(group) = self.names.groups.get(&*name.value) {
                groups.insert(group.clone());
            } else if self.names.address_groups.contains_key(&*name.value) {
                let what = format!("{} is an address group", quoted(&name.value));
                let advice = "ports join groups; address groups are for rules: `from:`, `to:`";
                note(log, name.at, ErrorKind::UnknownGroup, what, advice)?;
            } else {
                let known = self.names.sorted(false);
                let known = known.iter().copied();
                unknown(
                    log,
                    name,
                    ErrorKind::UnknownGroup,
                    ("group", "groups"),
                    known,
                )?;
            }
        }
        Ok(groups)
    }
}

fn is_pattern(device: &str) -> bool {
    device.contains('*')
}

fn device_match(device: Text<'_>) -> DeviceMatch {
    let name = device.value.into_owned();
    match is_pattern(&name) {
        true => DeviceMatch::Pattern(name),
        false => DeviceMatch::Name(name),
    }
}

fn taken(
    log: &mut Log<'_>,
    at: Place,
    kind: ErrorKind,
    what: String,
    other: &str,
) -> Result<(), Stop> {
    let advice = format!("the port {} has it", quoted(other));
    note(log, at, kind, what, advice)
}
