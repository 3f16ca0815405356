//! The objects of a policy, and the inventory that holds them.

use crate::{
    AddressGroupId, Family, FrozenSet, GroupId, HostId, MacAddr, NetworkId, PortId, Prefix,
    ProjectId, Revision, Rule, RuleId, ScopeId, Settings,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Everything that is known at one revision: the input of the oracle and of the compiler.
///
/// Shape: maps by id. References between objects are by id and may dangle; what names a missing
/// object matches nobody. Each map's key equals the `id` inside its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    pub revision: Revision,
    pub hosts: BTreeMap<HostId, Host>,
    pub networks: BTreeMap<NetworkId, Network>,
    pub ports: BTreeMap<PortId, Port>,
    pub groups: BTreeMap<GroupId, SecurityGroup>,
    pub address_groups: BTreeMap<AddressGroupId, AddressGroup>,
}

/// A machine that runs VMs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub id: HostId,
    pub tunnel_address: Option<IpAddr>,
    pub peer_trust: PeerTrust,
    pub settings: Settings,
}

/// How hosts learn the groups of a packet that another host sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub enum PeerTrust {
    /// From the option that the sending host puts into the tunnel header.
    Tag,
    /// From the packet's source address.
    #[default]
    Address,
}

/// A layer-2 segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    pub id: NetworkId,
    pub scope: ScopeId,
    pub vni: Option<u32>,
    pub mtu: Option<u16>,
    pub subnets: BTreeSet<Prefix>,
    /// DHCP servers and relays. Empty: not known, and then any address of `subnets` may answer.
    pub dhcp_servers: BTreeSet<IpAddr>,
    /// Addresses of routers; their link-local ones are reserved.
    pub routers: BTreeSet<IpAddr>,
    /// Ports may use only the link-local address derived from their MAC (and listed ones), rather
    /// than any that is not reserved.
    pub eui64_only: bool,
}

/// One virtual NIC of one VM: the unit that joins groups and at whose device packets are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub id: PortId,
    pub network: NetworkId,
    /// Unbound ports are members of their groups and enforced nowhere.
    pub host: Option<HostId>,
    pub device: DeviceMatch,
    /// The VM is about to run on another host, in a live migration.
    pub moving: Option<Box<Moving>>,
    pub mac: MacAddr,
    pub fixed_addresses: FrozenSet<IpAddr>,
    pub address_pairs: FrozenSet<AddressPair>,
    pub groups: FrozenSet<GroupId>,
    /// Off: everything passes, untracked, and the port is no member of its groups.
    pub port_security: bool,
    /// May send what DHCP servers send.
    pub dhcp_server: bool,
    /// May send router advertisements and redirects.
    pub router: bool,
}

/// To that host the port is its own already, so that its policy is there before its first packet; to all others it
/// is where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moving {
    pub to: HostId,
    /// How its device is found there.
    pub device: DeviceMatch,
}

/// How a port's device is found on its host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceMatch {
    Name(String),
    /// The device whose MAC is the port's, or the port's with `fe` as its first byte (as libvirt
    /// names taps).
    Mac,
    /// A name with `*` for any text; it has to fit exactly one device.
    Pattern(String),
    /// The device for whose interface a virtual switch has this id written down: Open vSwitch does in
    /// `external_ids:iface-id`, where OpenStack and libvirt put the port's id.
    InterfaceId(String),
}

/// Addresses beside the fixed ones that a port may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressPair {
    pub prefix: Prefix,
    /// The source MAC to use with them; `None`: the port's own.
    pub mac: Option<MacAddr>,
}

impl AddressPair {
    /// Shorter ones let their port use the addresses and don't enter remote groups: one VM with
    /// 0.0.0.0/0 must not make a group mean the world.
    pub fn enters_remote_groups(&self) -> bool {
        self.prefix.length()
            >= match self.prefix.family() {
                Family::V4 => 24,
                Family::V6 => 64,
            }
    }
}

/// A named set of rules that ports join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityGroup {
    pub id: GroupId,
    pub project: Option<ProjectId>,
    pub name: String,
    /// What only stateless groups permit starts no flow: replies need rules of their own.
    pub stateful: bool,
    /// The group's number on the wire, unique in its address scope.
    pub tag: Option<u16>,
    pub rules: BTreeMap<RuleId, Rule>,
}

/// A named set of prefixes; both families may be in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressGroup {
    pub id: AddressGroupId,
    pub prefixes: BTreeSet<Prefix>,
}

impl Port {
    /// More groups than this on one port are refused.
    pub const MAX_GROUPS: usize = 10_000;

    /// How the port's device is found on this host. `None`: it is neither there nor on its way there.
    pub fn device_on(&self, host: &HostId) -> Option<&DeviceMatch> {
        if self.host.as_ref() == Some(host) {
            return Some(&self.device);
        }
        let moving = self.moving.as_deref();
        moving.filter(|m| m.to == *host).map(|m| &m.device)
    }

    pub fn is_on(&self, host: &HostId) -> bool {
        self.device_on(host).is_some()
    }

    /// Where it is, and where it is on its way to.
    pub fn hosts(&self) -> impl Iterator<Item = &HostId> {
        let moving = self.moving.as_deref().map(|moving| &moving.to);
        self.host.iter().chain(moving)
    }

    /// What stands for this port in remote groups, before link-local addresses are taken out.
    pub fn member_prefixes(&self) -> impl Iterator<Item = Prefix> + '_ {
        let pairs = self
            .address_pairs
            .iter()
            .filter(|p| p.enters_remote_groups());
        self.fixed_addresses
            .iter()
            .map(|a| Prefix::host(*a))
            .chain(pairs.map(|p| p.prefix))
    }
}
