//! What users have asked for, as the store keeps it: the nouns of `model` with what people write beside them.
//!
//! Place on the line: use case -> **store commit -> watch** -> inventory.
//! An object's shape here is the shape of its record (records.rs). So a field that is added has a default, and
//! what else changes is a migration.
//! Knows nothing of: JSON of any outside interface, how a host enforces.

pub use crate::device_id::DeviceId;
pub use crate::fixed::FixedAddresses;
use crate::settings::optional;
use crate::{ids, text};
use arcstr::ArcStr;
use model::{
    AddressGroupId, AddressPair, DeviceMatch, Direction, Family, FrozenSet, GroupId, HostId,
    L4Match, MacAddr, Moving, NetworkId, Peer, PeerTrust, PortId, Prefix, ProjectId, Rule, RuleId,
    ScopeId, Settings,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Seconds since 1970, UTC.
pub type Seconds = u64;

/// What every object has that people see. Its revision number is the commit that wrote it last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    #[serde(default, skip_serializing_if = "ArcStr::is_empty")]
    pub name: ArcStr,
    #[serde(default, skip_serializing_if = "ArcStr::is_empty")]
    pub description: ArcStr,
    #[serde(default, with = "text::set", skip_serializing_if = "no_tags")]
    pub tags: FrozenSet<ArcStr>,
    pub created_at: Seconds,
    pub updated_at: Seconds,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    #[serde(with = "text")]
    pub id: GroupId,
    #[serde(with = "text")]
    pub project: ProjectId,
    #[serde(flatten)]
    pub said: Described,
    pub stateful: bool,
    /// The one that a project has from the beginning.
    #[serde(default, skip_serializing_if = "is_false")]
    pub default: bool,
    /// Its number on the wire; none once all are given away, and then hosts know members by address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire_tag: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRule {
    #[serde(with = "text")]
    pub id: RuleId,
    #[serde(with = "text")]
    pub group: GroupId,
    #[serde(with = "text")]
    pub project: ProjectId,
    #[serde(flatten)]
    pub said: Described,
    #[serde(flatten)]
    pub asks: Asks,
}

/// A rule of the template for new groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateRule {
    #[serde(with = "text")]
    pub id: RuleId,
    #[serde(flatten)]
    pub said: Described,
    #[serde(flatten)]
    pub asks: Asks,
    /// The remote is the group itself that the rule comes to be in; `asks.peer` is `Anyone` then.
    pub remote_is_own_group: bool,
    pub in_default_groups: bool,
    pub in_other_groups: bool,
}

/// What a rule asks of packets, as people wrote it. Checked when it was made; [`GroupRule::rule`] is what it means.
///
/// In a record every field is there, also one that says *any*: a record that has lost one is unreadable, and not
/// a wider rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Asks {
    #[serde(with = "text")]
    pub direction: Direction,
    #[serde(with = "text")]
    pub family: Family,
    /// `None`: any. In lower case: a name, or a number as text.
    #[serde(deserialize_with = "Option::deserialize")]
    pub protocol: Option<String>,
    /// Ports, or for ICMP type and code; each as given.
    #[serde(deserialize_with = "Option::deserialize")]
    pub range_min: Option<u16>,
    #[serde(deserialize_with = "Option::deserialize")]
    pub range_max: Option<u16>,
    pub peer: AskedPeer,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskedPeer {
    #[default]
    Anyone,
    Prefix {
        /// With the host bits that were written, such as `10.0.0.5/24`.
        written: String,
        #[serde(with = "text")]
        prefix: Prefix,
    },
    Group(#[serde(with = "text")] GroupId),
    Addresses(#[serde(with = "text")] AddressGroupId),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    #[serde(with = "text")]
    pub id: AddressGroupId,
    #[serde(with = "text")]
    pub project: ProjectId,
    #[serde(flatten)]
    pub said: Described,
    #[serde(with = "text::set")]
    pub prefixes: BTreeSet<Prefix>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    #[serde(with = "text")]
    pub id: NetworkId,
    #[serde(with = "text")]
    pub project: ProjectId,
    #[serde(flatten)]
    pub said: Described,
    pub admin_up: bool,
    /// All projects may have ports in it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shared: bool,
    /// What ports get that don't say.
    pub port_security: bool,
    /// Where addresses are unique.
    #[serde(with = "text")]
    pub scope: ScopeId,
    pub mtu: Option<u16>,
    pub segment: Option<Segment>,
    /// Of link-local addresses, ports may use only those that are derived from their MACs.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub eui64_only: bool,
    /// `None`: those of the ports that are DHCP servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp_servers: Option<BTreeSet<IpAddr>>,
    /// `None`: those of the ports that are routers', and the subnets' gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routers: Option<BTreeSet<IpAddr>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// `geneve`, `vlan`, `flat`, ...
    pub kind: String,
    pub physical_network: Option<String>,
    pub number: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: ArcStr,
    #[serde(with = "text")]
    pub project: ProjectId,
    #[serde(with = "text")]
    pub network: NetworkId,
    #[serde(flatten)]
    pub said: Described,
    #[serde(with = "text")]
    pub prefix: Prefix,
    pub gateway: Option<IpAddr>,
    pub dhcp: bool,
    /// Both ends included; what ports get addresses from.
    pub pools: Vec<(IpAddr, IpAddr)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_servers: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_routes: Vec<(String, IpAddr)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    #[serde(with = "text")]
    pub id: PortId,
    #[serde(with = "text")]
    pub project: ProjectId,
    #[serde(with = "text")]
    pub network: NetworkId,
    #[serde(flatten)]
    pub said: Described,
    #[serde(with = "text")]
    pub mac: MacAddr,
    pub fixed: FixedAddresses,
    #[serde(default, skip_serializing_if = "<[Pair]>::is_empty")]
    pub pairs: Box<[Pair]>,
    #[serde(with = "text::set")]
    pub groups: FrozenSet<GroupId>,
    pub port_security: bool,
    pub admin_up: bool,
    #[serde(default, with = "text", skip_serializing_if = "DeviceId::is_empty")]
    pub device_id: DeviceId,
    #[serde(default, skip_serializing_if = "ArcStr::is_empty")]
    pub device_owner: ArcStr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Arc<Binding>>,
    /// Only without a binding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unbound: Option<Box<Unbound>>,
}

/// Memory is given away in steps of 16 bytes, and a server has a million of them.
const _: () = assert!(size_of::<Port>() <= 160);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FixedAddress {
    /// Empty: the address is in none.
    #[serde(default, skip_serializing_if = "ArcStr::is_empty")]
    pub subnet: ArcStr,
    pub address: IpAddr,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pair {
    #[serde(with = "text")]
    pub prefix: Prefix,
    #[serde(with = "text")]
    pub mac: MacAddr,
}

/// On which host a port's VM is, and how its device is found there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    #[serde(with = "text")]
    pub host: HostId,
    /// As the API has it: `{"device": "tap1"}` names the device; else it is found by the port's id or MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub profile: BTreeMap<String, String>,
    #[serde(default)]
    pub vnic_type: ArcStr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<Box<Move>>,
}

/// What is said of a port's binding before it has one: the next one has it by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unbound {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub profile: BTreeMap<String, String>,
    pub vnic_type: ArcStr,
}

/// A live migration. A record without it is of a port that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Move {
    To(Destination),
    /// It is here from that host since then, and may have left flows there.
    From {
        #[serde(with = "text")]
        host: HostId,
        at: Seconds,
        /// When the move began.
        since: Seconds,
    },
}

/// Where a port's VM is about to run, and how its device is found there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    #[serde(with = "text")]
    pub host: HostId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// `None`: what the binding has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<BTreeMap<String, String>>,
    /// When the move began: with where from and where to, it tells one move from another.
    pub since: Seconds,
}

/// Some of the flows that a port's old host has told of, for its new one: what the record beside them says of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    #[serde(with = "text")]
    pub port: PortId,
    pub part: u32,
    pub id: String,
    #[serde(with = "text")]
    pub from: HostId,
    #[serde(with = "text")]
    pub to: HostId,
    /// The move's.
    pub since: Seconds,
    /// They were like this then.
    pub at: Seconds,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    Name(String),
    Mac,
    Pattern(String),
    InterfaceId(String),
}

/// A machine that runs VMs, as an operator or its agent has told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    #[serde(with = "text")]
    pub id: HostId,
    pub tunnel_address: Option<IpAddr>,
    /// It learns the groups of other hosts' packets from the tunnel's header.
    #[serde(default)]
    pub tagged: bool,
    #[serde(default, with = "text::set", skip_serializing_if = "no_tags")]
    pub tags: FrozenSet<ArcStr>,
    /// `None`: the usual ones.
    #[serde(default, with = "optional", skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
}

/// The most that a project may have; an absent one is the default's, and -1 is no bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    pub limits: BTreeMap<Resource, i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    SecurityGroup,
    SecurityGroupRule,
    AddressGroup,
    Network,
    Subnet,
    Port,
    RbacPolicy,
}

/// Lets another project see and use a group or address group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    pub id: String,
    #[serde(with = "text")]
    pub project: ProjectId,
    pub object: Shared,
    /// `None`: all projects.
    pub target: Option<String>,
    pub created_at: Seconds,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shared {
    Group(#[serde(with = "text")] GroupId),
    Addresses(#[serde(with = "text")] AddressGroupId),
    Network(#[serde(with = "text")] NetworkId),
}

/// What a project has once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    #[serde(with = "text")]
    pub id: ProjectId,
    #[serde(with = "text")]
    pub default_group: GroupId,
}

fn no_tags(tags: &FrozenSet<ArcStr>) -> bool {
    tags.is_empty()
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_true(value: &bool) -> bool {
    *value
}

fn yes() -> bool {
    true
}

impl Resource {
    pub const ALL: [Resource; 7] = [
        Resource::SecurityGroup,
        Resource::SecurityGroupRule,
        Resource::AddressGroup,
        Resource::Network,
        Resource::Subnet,
        Resource::Port,
        Resource::RbacPolicy,
    ];

    /// As quotas and their errors name it.
    pub fn name(self) -> &'static str {
        match self {
            Resource::SecurityGroup => "security_group",
            Resource::SecurityGroupRule => "security_group_rule",
            Resource::AddressGroup => "address_group",
            Resource::Network => "network",
            Resource::Subnet => "subnet",
            Resource::Port => "port",
            Resource::RbacPolicy => "rbac_policy",
        }
    }
}

impl Segment {
    /// Of one that goes through tunnels.
    pub(crate) fn vni(&self) -> Option<u32> {
        let tunnelled = matches!(self.kind.as_str(), "geneve" | "vxlan");
        self.number.filter(|_| tunnelled)
    }
}

impl GroupRule {
    /// What it means. `None` for what a check of [`Asks`] would have refused.
    pub fn rule(&self) -> Option<Rule> {
        Some(Rule {
            id: self.id.clone(),
            direction: self.asks.direction,
            family: self.asks.family,
            l4: self.asks.l4()?,
            peer: self.asks.peer.peer(),
        })
    }
}

impl AskedPeer {
    pub fn peer(&self) -> Peer {
        match self {
            AskedPeer::Anyone => Peer::Any,
            AskedPeer::Prefix { prefix, .. } => Peer::Prefix(*prefix),
            AskedPeer::Group(id) => Peer::Group(id.clone()),
            AskedPeer::Addresses(id) => Peer::AddressGroup(id.clone()),
        }
    }
}

impl Asks {
    /// What is asked of the transport header; `None` if these fields don't go together.
    pub fn l4(&self) -> Option<L4Match> {
        crate::protocols::l4(self)
    }

    /// It has a meaning, and names what may have a name.
    pub(crate) fn is_sound(&self) -> bool {
        let peer = match &self.peer {
            AskedPeer::Anyone => true,
            AskedPeer::Prefix { prefix, .. } => prefix.family() == self.family,
            AskedPeer::Group(id) => ids::is_id(id.as_str()),
            AskedPeer::Addresses(id) => ids::is_id(id.as_str()),
        };
        peer && self.l4().is_some()
    }
}

impl Port {
    /// As a host sees it.
    pub fn placed(&self) -> model::Port {
        let binding = self.binding.as_deref();
        model::Port {
            id: self.id.clone(),
            network: self.network.clone(),
            host: binding.map(|b| b.host.clone()),
            device: found(binding.and_then(|binding| binding.device.as_ref())),
            moving: binding.and_then(Binding::destination).map(|to| {
                Box::new(Moving {
                    to: to.host.clone(),
                    device: found(to.device.as_ref()),
                })
            }),
            mac: self.mac,
            fixed_addresses: self.fixed.addresses().clone(),
            address_pairs: self.pairs.iter().map(|p| p.pair(self.mac)).collect(),
            groups: self.groups.clone(),
            port_security: self.port_security,
            dhcp_server: self.is_dhcp_server(),
            router: self.is_router(),
        }
    }

    pub fn is_dhcp_server(&self) -> bool {
        self.device_owner == "network:dhcp"
    }

    pub fn is_router(&self) -> bool {
        self.device_owner.starts_with("network:router")
    }
}

impl Binding {
    /// Of one that is on its way.
    pub fn destination(&self) -> Option<&Destination> {
        match self.moving.as_deref() {
            Some(Move::To(destination)) => Some(destination),
            Some(Move::From { .. }) | None => None,
        }
    }

    /// Where the port is, and where it is on its way to.
    pub fn hosts(&self) -> impl Iterator<Item = &HostId> {
        let to = self.destination().map(|to| &to.host);
        [&self.host].into_iter().chain(to)
    }
}

fn found(device: Option<&Device>) -> DeviceMatch {
    match device {
        Some(Device::Name(name)) => DeviceMatch::Name(name.clone()),
        Some(Device::Pattern(pattern)) => DeviceMatch::Pattern(pattern.clone()),
        Some(Device::InterfaceId(id)) => DeviceMatch::InterfaceId(id.clone()),
        Some(Device::Mac) | None => DeviceMatch::Mac,
    }
}

impl Pair {
    fn pair(&self, own: MacAddr) -> AddressPair {
        AddressPair {
            prefix: self.prefix,
            mac: (self.mac != own).then_some(self.mac),
        }
    }
}

impl Host {
    pub fn host(&self) -> model::Host {
        model::Host {
            id: self.id.clone(),
            tunnel_address: self.tunnel_address,
            peer_trust: match self.tagged {
                true => PeerTrust::Tag,
                false => PeerTrust::Address,
            },
            settings: self.settings.clone().unwrap_or_default(),
        }
    }
}
