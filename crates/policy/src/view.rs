//! What one host needs to know to judge every packet of its ports: the compiler's output and every
//! data plane's input.
//!
//! Place on the line: inventory -> compile -> **view** -> render. A view is a pure function of the
//! inventory and the host, holds no number of any plane, and compares equal when nothing that
//! matters to the host has changed (the revision aside).
//! Knows nothing of: maps, flows of OpenFlow, sets, chains; devices that exist; connections.

use crate::differing;
use crate::overlay::OverlayView;
use crate::shared_set::SharedSet;
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
    pub ports: BTreeMap<PortId, Arc<PortView>>,
    pub groups: BTreeMap<GroupId, Arc<GroupView>>,
    /// Members of the groups that local rules name, in the scopes of the local ports with these
    /// rules; no link-local address and no short pair is in here. An absent entry has no members.
    pub members: BTreeMap<(ScopeId, GroupId), Arc<SharedSet<Prefix>>>,
    /// Address groups that local rules name. An absent entry has no prefixes.
    pub address_groups: BTreeMap<AddressGroupId, Arc<SharedSet<Prefix>>>,
    /// `None`: the host builds no tunnels.
    pub overlay: Option<Arc<OverlayView>>,
}

impl HostView {
    /// What is equal in the other view is the same in memory from now on, so that comparing the two again
    /// costs little, and keeping both.
    pub fn share(&mut self, other: &HostView) {
        for (id, network) in &mut self.networks {
            let other = other.networks.get(id).map(|n| &n.reserved_link_local);
            if let Some(other) = other.filter(|other| **other == network.reserved_link_local) {
                network.reserved_link_local = Arc::clone(other);
            }
        }
        share(&mut self.ports, &other.ports);
        share(&mut self.groups, &other.groups);
        share(&mut self.members, &other.members);
        share(&mut self.address_groups, &other.address_groups);
        if self.overlay == other.overlay {
            self.overlay.clone_from(&other.overlay);
        }
    }

    /// Takes what one part of an inventory came to out of the view of the whole, and puts in what it comes to now.
    /// The part has nothing to do with the rest but for networks: these are the same by what they say, and no
    /// rule names a group.
    pub fn exchange(&mut self, gone: &HostView, come: HostView) {
        self.revision = come.revision;
        self.settings = come.settings;
        for id in gone.ports.keys() {
            self.ports.remove(id);
        }
        for id in gone.groups.keys() {
            self.groups.remove(id);
        }
        self.ports.extend(come.ports);
        self.groups.extend(come.groups);
        self.networks.extend(come.networks);
        let used: BTreeSet<&NetworkId> = self.ports.values().map(|port| &port.network).collect();
        self.networks.retain(|id, _| used.contains(id));
    }

    /// A number that is the same for views that enforce the same (the revision isn't enforced), and but for
    /// an accident of 64 bits not for others. Good for comparing within one build of a program.
    pub fn digest(&self) -> u64 {
        self.digest_after(&Self::default(), 0)
    }

    /// The same number, told from another view's: just what differs is looked at in depth. So each thing adds
    /// its own number.
    pub fn digest_after(&self, other: &Self, digest: u64) -> u64 {
        let Self {
            revision: _,
            settings,
            networks,
            ports,
            groups,
            members,
            address_groups,
            overlay,
        } = self;
        let settings = number(settings).wrapping_sub(number(&other.settings));
        let overlay = number(overlay).wrapping_sub(number(&other.overlay));
        [
            settings,
            overlay,
            change("network", &other.networks, networks),
            change("port", &other.ports, ports),
            change("group", &other.groups, groups),
            change("members", &other.members, members),
            change("address group", &other.address_groups, address_groups),
        ]
        .into_iter()
        .fold(digest, u64::wrapping_add)
    }
}

fn change<K: Ord + Hash, V: PartialEq + Hash>(
    what: &str,
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> u64 {
    differing(old, new).fold(0, |sum: u64, (key, before, after)| {
        let of = |value: Option<&V>| value.map_or(0, |value| number(&(what, key, value)));
        sum.wrapping_add(of(after)).wrapping_sub(of(before))
    })
}

fn number(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn share<K: Ord, V: Eq>(ours: &mut BTreeMap<K, Arc<V>>, others: &BTreeMap<K, Arc<V>>) {
    let mut others = others.iter().peekable();
    for (key, value) in ours {
        while others.next_if(|(other, _)| *other < key).is_some() {}
        let same = others.next_if(|(other, found)| *other == key && *found == value);
        if let Some((_, found)) = same {
            *value = Arc::clone(found);
        }
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
    pub reserved_link_local: Arc<SharedSet<Ipv6Addr>>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_depends_on_the_view_and_not_on_the_way_to_it() {
        let group = |stateful| {
            Arc::new(GroupView {
                stateful,
                tag: None,
                rules: BTreeMap::new(),
            })
        };
        let view = |groups: &[(&str, bool)]| HostView {
            groups: groups
                .iter()
                .map(|(id, s)| (GroupId::from(*id), group(*s)))
                .collect(),
            ..HostView::default()
        };
        let mut views = vec![
            view(&[]),
            view(&[("a", true)]),
            view(&[("a", false)]),
            view(&[("b", true)]),
            view(&[("a", true), ("b", true)]),
            view(&[("a", true), ("b", false)]),
        ];
        let mut other = view(&[("a", true)]);
        other.settings.ethertypes.insert(0x1234);
        other
            .members
            .insert(("a".into(), "a".into()), Arc::default());
        views.push(other);
        for (i, view) in views.iter().enumerate() {
            for (j, before) in views.iter().enumerate() {
                assert_eq!(view.digest() == before.digest(), i == j, "{i} {j}");
                assert_eq!(view.digest_after(before, before.digest()), view.digest());
            }
        }
    }
}
