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
    networks: HashMap<String, Segment>,
    /// `None`: the file has no hosts, and its ports are on this one.
    hosts: Option<HashMap<String, HostId>>,
    here: HostId,
    names: &'n GroupNames,
    /// Of the ports so far; below they go by their place in here, which is cheap to copy and forget.
    ports: Vec<Cow<'a, str>>,
    macs: HashMap<(u32, MacAddr), usize>,
    addresses: HashMap<(AddressSpace, IpAddr), usize>,
    devices: HashMap<(HostId, Cow<'a, str>), usize>,
    interface_ids: HashMap<(HostId, Cow<'a, str>), usize>,
}

#[derive(Clone)]
struct Segment {
    network: NetworkId,
    /// Its and its scope's number in this file.
    number: u32,
    scope: u32,
}

/// Where an address is unique: link-local ones mean something in their network only.
#[derive(PartialEq, Eq, Hash)]
enum AddressSpace {
    Scope(u32),
    Network(u32),
}

impl<'a, 'n> PortBuilder<'a, 'n> {
    pub(crate) fn new(
        inventory: &Inventory,
        has_hosts: bool,
        here: &HostId,
        names: &'n GroupNames,
        ports: usize,
    ) -> Self {
        let mut scopes: HashMap<&ScopeId, u32> = HashMap::new();
        let mut networks = HashMap::new();
        for (network, number) in inventory.networks.values().zip(0..) {
            let next = scopes.len() as u32;
            let segment = Segment {
                network: network.id.clone(),
                number,
                scope: *scopes.entry(&network.scope).or_insert(next),
            };
            networks.insert(network.id.as_str().to_owned(), segment);
        }
        let hosts = inventory.hosts.keys();
        Self {
            networks,
            hosts: has_hosts.then(|| hosts.map(|h| (h.as_str().to_owned(), h.clone())).collect()),
            here: here.clone(),
            names,
            ports: Vec::with_capacity(ports),
            macs: HashMap::with_capacity(ports),
            addresses: HashMap::with_capacity(2 * ports),
            devices: HashMap::with_capacity(ports),
            interface_ids: HashMap::new(),
        }
    }

    /// `None` when the port is broken, which is noted.
    pub(crate) fn build(
        &mut self,
        name: Text<'a>,
        draft: PortDraft<'a>,
        log: &mut Log<'a>,
    ) -> Result<Option<Port>, Stop> {
        let this = self.ports.len();
        self.ports.push(name.value.clone());
        let segment = self.segment(&name, draft.network.as_ref(), log)?;
        let host = self.host(&name, draft.host.as_ref(), log)?;
        let groups = self.groups(&name, &draft.groups, log)?;
        if let Some(host) = &host {
            self.device(host, &draft, this, log)?;
        }
        let (Some(segment), Some((mac, mac_at))) = (segment, draft.mac) else {
            return Ok(None);
        };
        if let Some(other) = self.macs.insert((segment.number, mac), this) {
            let what = format!(
                "the MAC {mac} is taken in the network {}",
                quoted(segment.network.as_str())
            );
            self.taken(log, mac_at, ErrorKind::DuplicateMac, what, other)?;
        }
        let mut fixed_addresses = BTreeSet::new();
        for (address, at) in draft.addresses {
            let space = match address {
                IpAddr::V6(a) if a.is_unicast_link_local() => AddressSpace::Network(segment.number),
                IpAddr::V4(_) | IpAddr::V6(_) => AddressSpace::Scope(segment.scope),
            };
            if let Some(other) = self.addresses.insert((space, address), this) {
                let what = format!("the address {address} is taken");
                self.taken(log, at, ErrorKind::DuplicateAddress, what, other)?;
            }
            fixed_addresses.insert(address);
        }
        Ok(Some(Port {
            id: PortId::new(&*name.value),
            network: segment.network,
            host,
            device: device_match(draft.device, draft.interface_id),
            moving: None,
            mac,
            fixed_addresses: fixed_addresses.into(),
            address_pairs: draft.pairs.into(),
            groups: groups.into(),
            port_security: !draft.no_port_security,
            dhcp_server: draft.dhcp_server,
            router: draft.router,
        }))
    }

    /// Notes it if another port of the host has the same.
    fn device(
        &mut self,
        host: &HostId,
        draft: &PortDraft<'a>,
        this: usize,
        log: &mut Log<'a>,
    ) -> Result<(), Stop> {
        if let Some(device) = &draft.device {
            let key = (host.clone(), device.value.clone());
            if let Some(other) = self.devices.insert(key, this)
                && !is_pattern(&device.value)
            {
                let what = format!("the device {} is taken", quoted(&device.value));
                self.taken(log, device.at, ErrorKind::DuplicateDevice, what, other)?;
            }
        }
        if let Some(id) = &draft.interface_id {
            let key = (host.clone(), id.value.clone());
            if let Some(other) = self.interface_ids.insert(key, this) {
                let what = format!("the interface id {} is taken", quoted(&id.value));
                self.taken(log, id.at, ErrorKind::DuplicateDevice, what, other)?;
            }
        }
        Ok(())
    }

    fn segment(
        &self,
        port: &Text<'a>,
        network: Option<&Text<'a>>,
        log: &mut Log<'a>,
    ) -> Result<Option<Segment>, Stop> {
        let known = match network {
            None if self.networks.len() == 1 => self.networks.values().next(),
            None => None,
            Some(name) => self.networks.get(&*name.value),
        };
        match network {
            _ if known.is_some() => {}
            None => {
                let what = format!("the port {} has no `network`", quoted(&port.value));
                let advice = match self.networks.len() {
                    0 => "add a section `networks:` with one, as in docs/policy-file.md",
                    _ => "it can be left out only where the file has just one network",
                };
                note(log, port.at, ErrorKind::MissingField, what, advice)?;
            }
            Some(name) => {
                let mut names: Vec<&str> = self.networks.keys().map(String::as_str).collect();
                names.sort_unstable();
                let what = ("network", "networks");
                let names = names.iter().copied();
                unknown(log, name, ErrorKind::UnknownNetwork, what, names)?;
            }
        }
        Ok(known.cloned())
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

    fn taken(
        &self,
        log: &mut Log<'_>,
        at: Place,
        kind: ErrorKind,
        what: String,
        by: usize,
    ) -> Result<(), Stop> {
        let advice = format!("the port {} has it", quoted(&self.ports[by]));
        note(log, at, kind, what, advice)
    }
}

fn is_pattern(device: &str) -> bool {
    device.contains('*')
}

fn device_match(device: Option<Text<'_>>, interface_id: Option<Text<'_>>) -> DeviceMatch {
    let text = |text: Text<'_>| text.value.into_owned();
    match (device.map(text), interface_id.map(text)) {
        (Some(name), _) if is_pattern(&name) => DeviceMatch::Pattern(name),
        (Some(name), _) => DeviceMatch::Name(name),
        (None, Some(id)) => DeviceMatch::InterfaceId(id),
        (None, None) => DeviceMatch::Mac,
    }
}
