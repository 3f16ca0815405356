//! What the kernel is to hold for a target: as inputs, which are compared, and parts, which are rendered
//! of those inputs alone that differ.
//!
//! Place on the line: view, devices, bridges -> **render** -> parts -> plan. A pure function of the target
//! and the numbers.
//! Knows nothing of: what the kernel holds, how it is written.

pub(crate) mod ends;
pub(crate) mod names;
pub(crate) mod port;
pub(crate) mod profile;
pub(crate) mod ways;

use crate::books::{Books, MembersName, ProfileName, members_set};
use crate::mark;
use crate::parts::{Content, Part};
use dataplane::{Bridge, Target};
use ends::Ends;
use model::{Elision, Family, GroupId, NetworkId, PortId, Prefix};
use policy::{HostView, PortView};
use port::{NetworkInput, PortInput, address_number};
use profile::{Groups, Peers, Summary};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::Arc;
use ways::Ways;

/// What a part is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Closed(u32),
    Bridge(u16),
    Networks,
    Ethertypes,
    Port(PortId),
    Profile(u16),
    Members(String),
    Ends,
    Ways,
}

/// All that a part depends on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Input<'a> {
    Closed(u32),
    /// Its number, and its device's index.
    Bridge(u16, u32, &'a Bridge),
    /// The link-local addresses that are reserved in each network, and the MACs of all bridges.
    Networks(
        BTreeMap<u16, &'a BTreeSet<Ipv6Addr>>,
        BTreeSet<model::MacAddr>,
    ),
    Ethertypes(&'a BTreeSet<u16>),
    Port(PortInput<'a>),
    Profile(u16, Groups<'a>, Peers<'a>, Summary),
    /// The set's name.
    Members(String, Family, Arc<BTreeSet<Prefix>>),
    Ends(Ends<'a>),
    Ways(Ways),
}

/// The inputs of a target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs<'a> {
    pub(crate) parts: BTreeMap<Key, Input<'a>>,
    pub(crate) refused: BTreeMap<PortId, String>,
    /// The bridges of devices, for whoever looks for a port's flows.
    pub(crate) bridge_of: BTreeMap<PortId, u16>,
}

impl Input<'_> {
    pub(crate) fn render(&self) -> Part {
        let mut part = Part::default();
        match self {
            Input::Closed(ifindex) => part.element("closed", ifindex.to_string()),
            Input::Bridge(number, _, bridge) => {
                for device in &bridge.members {
                    let device = device.ifindex.to_string();
                    part.element("members", &device);
                    part.entry("bridge_of", device, mark::bridge(*number));
                }
            }
            Input::Networks(networks, macs) => {
                for mac in macs {
                    part.element("host_macs", mac.to_string());
                }
                for (number, reserved) in networks {
                    for address in *reserved {
                        let raw = address_number(*address);
                        part.element("reserved_ll", format!("{number:#x} . {address}"));
                        part.element("reserved_nd", format!("{number:#x} . {raw}"));
                        part.element("reserved_somewhere", address.to_string());
                    }
                }
            }
            Input::Ethertypes(listed) => {
                for ethertype in *listed {
                    part.element("ethertypes", format!("{ethertype:#06x}"));
                }
            }
            Input::Port(port) => part = port.render(),
            Input::Profile(number, groups, peers, summary) => {
                part = profile::render(*number, groups, peers, summary);
            }
            Input::Members(name, family, members) => {
                part.set(name, *family, Content::Nets(Arc::clone(members)));
            }
            Input::Ends(ends) => part = ends.render(),
            Input::Ways(ways) => part = ways.render(),
        }
        part
    }
}

/// The inputs of a target. Gives numbers to what has none yet.
pub(crate) fn inputs<'a>(target: &'a Target, books: &mut Books) -> Inputs<'a> {
    let mut inputs = Inputs::default();
    let view = &target.view;
    add_bridges(target, books, &mut inputs);
    add_networks(target, books, &mut inputs);
    let profiles = add_profiles(view, books, &mut inputs);
    let mut ends = Ends::new(view.settings.elision != Elision::Off);
    for (id, device) in &target.devices {
        let Some(port) = view.ports.get(id) else {
            continue;
        };
        let Some((bridge, bridge_number)) = bridge_of(device.ifindex, target, books) else {
            let why = format!(
                "device {} is on no bridge that can be told: only what bridges pass on is judged; \
                 nothing is enforced on it",
                device.name
            );
            inputs.refused.insert(id.clone(), why);
            continue;
        };
        inputs.bridge_of.insert(id.clone(), bridge_number);
        if !port.port_security {
            continue;
        }
        let Some(profile) = profile_of(view, port, &profiles) else {
            let why = format!(
                "all {} numbers of profiles are given: the port passes nothing",
                mark::PROFILE
            );
            inputs.refused.insert(id.clone(), why);
            inputs
                .parts
                .insert(Key::Closed(device.ifindex), Input::Closed(device.ifindex));
            continue;
        };
        let network = &view.networks[&port.network];
        let input = PortInput {
            ifindex: device.ifindex,
            port,
            network: NetworkInput::of(network),
            network_number: books.networks.get(&port.network).unwrap_or_default(),
            bridge: bridge_number,
            profile: profile.number,
            open: profile.summary.open,
            elides: Family::BOTH.map(|family| ends.may_elide(&profile.summary, family)),
        };
        ends.add(input.clone(), &bridge.name, &profile.summary.served);
        inputs
            .parts
            .insert(Key::Port(id.clone()), Input::Port(input));
    }
    let closed = target.closed.iter().map(|device| device.ifindex);
    inputs
        .parts
        .extend(closed.map(|i| (Key::Closed(i), Input::Closed(i))));
    let ethertypes = Input::Ethertypes(&view.settings.ethertypes);
    inputs.parts.insert(Key::Ethertypes, ethertypes);
    let ways = Ways::to(&inputs.parts);
    inputs.parts.insert(Key::Ways, Input::Ways(ways));
    inputs.parts.insert(Key::Ends, Input::Ends(ends));
    inputs
}

struct Profile {
    number: u16,
    summary: Summary,
}

fn add_bridges<'a>(target: &'a Target, books: &mut Books, inputs: &mut Inputs<'a>) {
    for (device, bridge) in &target.bridges {
        // Beyond so many, a bridge's ports are refused.
        if let Some(number) = books.bridges.give(&device.ifindex) {
            let input = Input::Bridge(number, device.ifindex, bridge);
            inputs.parts.insert(Key::Bridge(number), input);
        }
    }
}

fn add_networks<'a>(target: &'a Target, books: &mut Books, inputs: &mut Inputs<'a>) {
    let mut reserved = BTreeMap::new();
    for (id, network) in &target.view.networks {
        if let Some(number) = books.networks.give(id) {
            reserved.insert(number, &network.reserved_link_local);
        }
    }
    let macs = target
        .bridges
        .values()
        .flat_map(|bridge| bridge.macs.iter().copied());
    let networks = Input::Networks(reserved, macs.collect());
    inputs.parts.insert(Key::Networks, networks);
}

/// The profiles of the ports that are guarded, and the sets of members that they name.
fn add_profiles<'a>(
    view: &'a HostView,
    books: &mut Books,
    inputs: &mut Inputs<'a>,
) -> BTreeMap<ProfileName, Profile> {
    let mut profiles = BTreeMap::new();
    let guarded = view
        .ports
        .values()
        .filter(|p| p.port_security && !p.groups.is_empty());
    let wanted: BTreeMap<ProfileName, &'a PortView> = guarded
        .map(|port| (profile_name(view, port), port))
        .collect();
    for (name, port) in wanted {
        let scope = &view.networks[&port.network].scope;
        let groups = groups(view, &port.groups);
        let Some(number) = books.profiles.give(&name) else {
            continue;
        };
        let mut peers = Peers::new();
        for peer in profile::named(&groups) {
            let Some(members) = MembersName::of(scope, peer) else {
                continue;
            };
            let number = books
                .members
                .give(&members)
                .expect("fewer peers than the kernel has sets");
            peers.insert(peer, number);
            let found = match &members {
                MembersName::Group(scope, group) => {
                    view.members.get(&(scope.clone(), group.clone()))
                }
                MembersName::AddressGroup(group) => view.address_groups.get(group),
            };
            for family in Family::BOTH {
                let set = members_set(number, family);
                let found = found.cloned().unwrap_or_default();
                let input = Input::Members(set.clone(), family, found);
                inputs.parts.insert(Key::Members(set), input);
            }
        }
        let summary = profile::summary(&groups);
        let input = Input::Profile(number, groups, peers, summary.clone());
        inputs.parts.insert(Key::Profile(number), input);
        profiles.insert(name, Profile { number, summary });
    }
    profiles
}

fn groups<'a>(view: &'a HostView, ids: &'a [GroupId]) -> Groups<'a> {
    let known = ids.iter().filter_map(|id| Some((id, view.groups.get(id)?)));
    known.collect()
}

/// `None`: there was no number left for it.
fn profile_of<'p>(
    view: &HostView,
    port: &PortView,
    profiles: &'p BTreeMap<ProfileName, Profile>,
) -> Option<&'p Profile> {
    static NONE: std::sync::LazyLock<Profile> = std::sync::LazyLock::new(|| Profile {
        number: 0,
        summary: Summary::default(),
    });
    match port.groups.is_empty() {
        true => Some(&NONE),
        false => profiles.get(&profile_name(view, port)),
    }
}

pub(crate) fn profile_name(view: &HostView, port: &PortView) -> ProfileName {
    ProfileName {
        scope: view.networks[&port.network].scope.clone(),
        groups: port.groups.clone(),
    }
}

fn bridge_of<'a>(
    ifindex: u32,
    target: &'a Target,
    books: &Books,
) -> Option<(&'a dataplane::Device, u16)> {
    let mut bridges = target.bridges.iter();
    let on_it = |bridge: &Bridge| bridge.members.iter().any(|d| d.ifindex == ifindex);
    let (device, _) = bridges.find(|(_, bridge)| on_it(bridge))?;
    Some((device, books.bridges.get(&device.ifindex)?))
}

/// The numbers that a target uses; others may be given back once nothing in the kernel has them.
pub(crate) fn keep_used(books: &mut Books, inputs: &Inputs<'_>, view: &HostView) {
    let mut bridges = BTreeSet::new();
    let mut profiles = BTreeSet::new();
    for key in inputs.parts.keys() {
        match key {
            Key::Bridge(number) => drop(bridges.insert(*number)),
            Key::Profile(number) => drop(profiles.insert(*number)),
            Key::Closed(_)
            | Key::Networks
            | Key::Ethertypes
            | Key::Port(_)
            | Key::Members(_)
            | Key::Ends
            | Key::Ways => {}
        }
    }
    let networks: BTreeSet<NetworkId> = view.networks.keys().cloned().collect();
    let networks = networks
        .iter()
        .filter_map(|id| books.networks.get(id))
        .collect();
    let members = books.members.all().map(|(_, number)| number);
    let named = |number: &u16| {
        let set = members_set(*number, Family::V4);
        inputs.parts.contains_key(&Key::Members(set))
    };
    let members = members.filter(named).collect();
    books.bridges.retain(&bridges);
    books.profiles.retain(&profiles);
    books.networks.retain(&networks);
    books.members.retain(&members);
}
