//! What one host needs to know to judge every packet of its ports: the compiler's output and every
//! data plane's input.
//!
//! Place on the line: inventory -> compile -> **view** -> render. A view is a pure function of the
//! inventory and the host, holds no number of any plane, and compares equal when nothing that
//! matters to the host has changed (the revision aside).
//! Knows nothing of: maps, flows of OpenFlow, sets, chains; devices that exist; connections.

use model::{
    AddressGroupId, DeviceMatch, Direction, Family, GroupId, L4Match, MacAddr, NetworkId, PortId,
    Prefix, Revision, RuleId, ScopeId, Settings,
};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// Shape: only what the host's own ports lead to: their networks, their groups, and of other groups
/// and address groups just the members, where a rule of a local group names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostView {
    pub revision: Revision,
    pub settings: Settings,
    pub networks: BTreeMap<NetworkId, NetworkView>,
    pub ports: BTreeMap<PortId, PortView>,
    pub groups: BTreeMap<GroupId, GroupView>,
    /// Members of the groups that local rules name, in the scopes of the local ports with these
    /// rules; no link-local address and no short pair is in here. An absent entry has no members.
    pub members: BTreeMap<(ScopeId, GroupId), Arc<BTreeSet<Prefix>>>,
    /// Address groups that local rules name. An absent entry has no prefixes.
    pub address_groups: BTreeMap<AddressGroupId, Arc<BTreeSet<Prefix>>>,
}

impl HostView {
    /// A number that is the same for views that enforce the same (the revision isn't enforced), and but for
    /// an accident of 64 bits not for others. Good for comparing within one build of a program.
    pub fn digest(&self) -> u64 {
        let Self {
            revision: _,
            settings,
            networks,
            ports,
            groups,
            members,
            address_groups,
        } = self;
        let mut hasher = DefaultHasher::new();
        (settings, networks, ports, groups, members, address_groups).hash(&mut hasher);
        hasher.finish()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetworkView {
    pub scope: ScopeId,
    pub subnets: BTreeSet<Prefix>,
    pub dhcp_servers: BTreeSet<IpAddr>,
    /// Link-local addresses that only their owners may use: routers', and ports' by their MACs or
    /// their lists. The ports need not be local. Empty with `eui64_only`, which needs none.
    /// A port may use the address that its own MAC derives, and what it lists, in any case; so whose
    /// they are is not in here.
    pub reserved_link_local: BTreeSet<Ipv6Addr>,
    pub eui64_only: bool,
}

/// A local port: what the guard and the dispatch at its device need.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortView {
    pub network: NetworkId,
    pub device: DeviceMatch,
    pub mac: MacAddr,
    /// Off: everything passes and nothing below matters.
    pub port_security: bool,
    pub dhcp_server: bool,
    pub router: bool,
    /// What the port may use as a source, and with which MAC; its destinations are these with any
    /// MAC. Sorted, no doubles; link-local addresses that need no listing are not here.
    pub addresses: BTreeSet<OwnAddress>,
    /// Groups that exist, in the order of their ids: the order in which rules are reported.
    pub groups: Vec<GroupId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnAddress {
    pub prefix: Prefix,
    /// `None`: with any MAC of the port (fixed addresses); else with just this one (pairs).
    pub mac: Option<MacAddr>,
}

impl PortView {
    /// The port's MAC and those of its pairs.
    pub fn macs(&self) -> BTreeSet<MacAddr> {
        self.addresses
            .iter()
            .filter_map(|a| a.mac)
            .chain([self.mac])
            .collect()
    }
}

/// A group that a local port is in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupView {
    pub stateful: bool,
    pub tag: Option<u16>,
    /// Rules that can match something, normalized; broken ones are findings instead.
    pub rules: BTreeMap<RuleId, RuleView>,
}

/// A rule without doubt: the family fits the peer, and a whole-family prefix is `Any`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleView {
    pub direction: Direction,
    pub family: Family,
    pub l4: L4Match,
    pub peer: PeerView,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerView {
    Any,
    Prefix(Prefix),
    Group(GroupId),
    AddressGroup(AddressGroupId),
}

impl PeerView {
    /// Whether it stands for members that can change while the rule stays.
    pub fn is_set(&self) -> bool {
        match self {
            PeerView::Any | PeerView::Prefix(_) => false,
            PeerView::Group(_) | PeerView::AddressGroup(_) => true,
        }
    }
}
