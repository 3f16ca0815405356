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
use crate::element::Field;
use crate::mark;
use crate::parts::{ChainName, Content, Part};
use dataplane::Target;
use ends::Ends;
use model::{Elision, Family, GroupId, MacAddr, NetworkId, PortId, Prefix, ScopeId};
use policy::{HostView, PortView, SharedSet};
use port::{NetworkInput, PortInput};
use profile::{Groups, Peers, Profile};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;
use std::sync::Arc;
use ways::{Way, Ways};

/// What a part is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Closed(u32),
    Bridge(u16),
    HostMacs,
    Reserved,
    ReservedSomewhere,
    Ethertypes,
    Port(PortId),
    Profile(u16),
    /// The number of the set.
    Members(u16, Family),
    Ends,
    Way(ChainName),
}

/// All that a part depends on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Input {
    Closed(u32),
    /// Its number, and the indices of the devices on it.
    Bridge(u16, BTreeSet<u32>),
    /// Of all bridges.
    HostMacs(BTreeSet<MacAddr>),
    /// Link-local addresses, with the networks that they are reserved in.
    Reserved(BTreeSet<(u16, Ipv6Addr)>),
    ReservedSomewhere(BTreeSet<Ipv6Addr>),
    Ethertypes(BTreeSet<u16>),
    Port(Arc<PortInput>),
    Profile(Arc<Profile>),
    Members(Arc<SharedSet<Prefix>>),
    Ends(Ends),
    Way(Way),
}

/// The inputs of a target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) parts: BTreeMap<Key, Input>,
    pub(crate) refused: BTreeMap<PortId, String>,
}

impl Input {
    pub(crate) fn render(&self, key: &Key) -> Part {
        let mut part = Part::default();
        match self {
            Input::Closed(ifindex) => part.element("closed", [Field::Device(*ifindex)]),
            Input::Bridge(number, members) => {
                for device in members {
                    let device = Field::Device(*device);
                    part.element("members", [device]);
                    part.entry("bridge_of", [device], mark::bridge(*number));
                }
            }
            Input::HostMacs(macs) => {
                for mac in macs {
                    part.element("host_macs", [Field::Mac(*mac)]);
                }
            }
            Input::Reserved(reserved) => {
                for (network, address) in reserved {
                    let network = Field::Mark((*network).into());
                    let plain = Field::Address((*address).into());
                    part.element("reserved_ll", [network, plain]);
                    part.element("reserved_nd", [network, Field::RawAddress(*address)]);
                }
            }
            Input::ReservedSomewhere(reserved) => {
                for address in reserved {
                    part.element("reserved_somewhere", [Field::Address((*address).into())]);
                }
            }
            Input::Ethertypes(listed) => {
                for ethertype in listed {
                    part.element("ethertypes", [Field::Ethertype(*ethertype)]);
                }
            }
            Input::Port(port) => part = port.render(),
            Input::Profile(profile) => part = profile.render(),
            Input::Members(members) => {
                if let Key::Members(number, family) = key {
                    let content = Content::Nets(Arc::clone(members));
                    part.set(members_set(*number, *family), *family, content);
                }
            }
            Input::Ends(ends) => part = ends.render(),
            Input::Way(way) => {
                if let Key::Way(chain) = key {
                    part.chains.insert(chain.clone(), way.render());
                }
            }
        }
        part
    }

    /// Of two inputs of one part, what has to be rendered to find where the parts differ: of things that stand
    /// next to each other, those that not both have.
    pub(crate) fn apart<'a>(one: &'a Self, other: &'a Self) -> (Cow<'a, Self>, Cow<'a, Self>) {
        use Input::{Bridge, Ends, HostMacs, Reserved, ReservedSomewhere};
        let (one, other) = match (one, other) {
            (Bridge(number, a), Bridge(other, b)) if number == other => {
                (Bridge(*number, a - b), Bridge(*number, b - a))
            }
            (HostMacs(a), HostMacs(b)) => (HostMacs(a - b), HostMacs(b - a)),
            (Reserved(a), Reserved(b)) => (Reserved(a - b), Reserved(b - a)),
            (ReservedSomewhere(a), ReservedSomewhere(b)) => {
                (ReservedSomewhere(a - b), ReservedSomewhere(b - a))
            }
            (Ends(a), Ends(b)) => {
                let (a, b) = ends::apart(a, b);
                (Ends(a), Ends(b))
            }
            _ => return (Cow::Borrowed(one), Cow::Borrowed(other)),
        };
        (Cow::Owned(one), Cow::Owned(other))
    }
}

/// The inputs of a target. Gives numbers to what has none yet.
pub(crate) fn inputs(target: &Target, books: &mut Books) -> Inputs {
    let mut inputs = Inputs::default();
    let view = &target.view;
    let places = add_bridges(target, books, &mut inputs);
    let networks = add_networks(target, books, &mut inputs);
    let profiles = add_profiles(view, books, &mut inputs);
    let mut ends = Ends::new(view.settings.elision != Elision::Off);
    for (id, device) in &target.devices {
        let Some(port) = view.ports.get(id) else {
            continue;
        };
        let place = places.of_devices.get(&device.ifindex);
        let Some(place) = place.and_then(|place| places.bridges[*place].as_ref()) else {
            let why = format!(
                "device {} is on no bridge that can be told: only what bridges pass on is judged; \
                 nothing is enforced on it",
                device.name
            );
            inputs.refused.insert(id.clone(), why);
            continue;
        };
        if !port.port_security {
            continue;
        }
        let Some(profile) = profiles.of(view, port) else {
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
        let (network_number, network) = &networks[&port.network];
        let input = Arc::new(PortInput {
            ifindex: device.ifindex,
            port: Arc::clone(port),
            network: Arc::clone(network),
            network_number: *network_number,
            bridge: place.number,
            profile: profile.number,
            open: profile.summary.open,
            elides: Family::BOTH.map(|family| ends.may_elide(&profile.summary, family)),
        });
        ends.add(id, &input, &place.name, profile);
        inputs
            .parts
            .insert(Key::Port(id.clone()), Input::Port(input));
    }
    let closed = target.closed.iter().map(|device| device.ifindex);
    inputs
        .parts
        .extend(closed.map(|i| (Key::Closed(i), Input::Closed(i))));
    let ethertypes = Input::Ethertypes(view.settings.ethertypes.clone());
    inputs.parts.insert(Key::Ethertypes, ethertypes);
    let ways = Ways::to(places.numbers(), profiles.all()).chains();
    let ways = ways.into_iter();
    inputs
        .parts
        .extend(ways.map(|(chain, way)| (Key::Way(chain), Input::Way(way))));
    inputs.parts.insert(Key::Ends, Input::Ends(ends));
    inputs
}

/// Which bridge a device is on.
#[derive(Default)]
struct Places {
    /// `None`: there was no number left for it.
    bridges: Vec<Option<Place>>,
    of_devices: HashMap<u32, usize>,
}

struct Place {
    number: u16,
    ifindex: u32,
    name: Arc<str>,
}

impl Places {
    /// With the bridges' indices.
    fn numbers(&self) -> BTreeMap<u16, u32> {
        let bridges = self.bridges.iter().flatten();
        bridges.map(|place| (place.number, place.ifindex)).collect()
    }
}

fn add_bridges(target: &Target, books: &mut Books, inputs: &mut Inputs) -> Places {
    let mut places = Places::default();
    let mut macs = BTreeSet::new();
    for (device, bridge) in &target.bridges {
        let members: BTreeSet<u32> = bridge.members.iter().map(|d| d.ifindex).collect();
        for ifindex in &members {
            let place = places.bridges.len();
            places.of_devices.entry(*ifindex).or_insert(place);
        }
        // Beyond so many, a bridge's ports are refused.
        let number = books.bridges.give(&device.ifindex);
        places.bridges.push(number.map(|number| Place {
            number,
            ifindex: device.ifindex,
            name: device.name.as_str().into(),
        }));
        if let Some(number) = number {
            let input = Input::Bridge(number, members);
            inputs.parts.insert(Key::Bridge(number), input);
        }
        macs.extend(&bridge.macs);
    }
    inputs.parts.insert(Key::HostMacs, Input::HostMacs(macs));
    places
}

/// What ports need of their networks, with the networks' numbers.
fn add_networks<'a>(
    target: &'a Target,
    books: &mut Books,
    inputs: &mut Inputs,
) -> BTreeMap<&'a NetworkId, (u16, Arc<NetworkInput>)> {
    let mut networks = BTreeMap::new();
    let mut reserved = BTreeSet::new();
    let mut somewhere = BTreeSet::new();
    for (id, network) in &target.view.networks {
        let number = books.networks.give(id);
        if let Some(number) = number {
            let addresses = network.reserved_link_local.iter();
            reserved.extend(addresses.map(|address| (number, *address)));
            somewhere.extend(network.reserved_link_local.iter());
        }
        let input = Arc::new(NetworkInput::of(network));
        networks.insert(id, (number.unwrap_or_default(), input));
    }
    let parts = [
        (Key::Reserved, Input::Reserved(reserved)),
        (Key::ReservedSomewhere, Input::ReservedSomewhere(somewhere)),
    ];
    inputs.parts.extend(parts);
    networks
}

/// The profiles of guarded ports.
struct Profiles<'a> {
    /// Of ports without groups.
    none: Arc<Profile>,
    by_name: BTreeMap<(&'a ScopeId, &'a [GroupId]), Arc<Profile>>,
}

impl<'a> Profiles<'a> {
    /// `None`: there was no number left for it.
    fn of(&self, view: &'a HostView, port: &'a PortView) -> Option<&Arc<Profile>> {
        match port.groups.is_empty() {
            true => Some(&self.none),
            false => self.by_name.get(&scope_and_groups(view, port)),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Profile> {
        self.by_name.values().map(|profile| &**profile)
    }
}

/// The profiles of the ports that are guarded, and the sets of members that they name.
fn add_profiles<'a>(view: &'a HostView, books: &mut Books, inputs: &mut Inputs) -> Profiles<'a> {
    let mut profiles = Profiles {
        none: Arc::default(),
        by_name: BTreeMap::new(),
    };
    let guarded = view.ports.values().filter(|p| p.port_security);
    let guarded = guarded.filter(|port| !port.groups.is_empty());
    let wanted: BTreeSet<_> = guarded.map(|port| scope_and_groups(view, port)).collect();
    for (scope, ids) in wanted {
        let name = ProfileName {
            scope: scope.clone(),
            groups: ids.to_vec(),
        };
        let Some(number) = books.profiles.give(&name) else {
            continue;
        };
        let groups = groups(view, ids);
        let peers = add_members(view, scope, &groups, books, inputs);
        let profile = Arc::new(Profile::new(number, groups, peers));
        let input = Input::Profile(Arc::clone(&profile));
        inputs.parts.insert(Key::Profile(number), input);
        profiles.by_name.insert((scope, ids), profile);
    }
    profiles
}

/// The sets that these groups' rules name.
fn add_members(
    view: &HostView,
    scope: &ScopeId,
    groups: &Groups,
    books: &mut Books,
    inputs: &mut Inputs,
) -> Peers {
    let mut peers = Peers::new();
    for peer in profile::named(groups) {
        if peers.contains_key(peer) {
            continue;
        }
        let Some(members) = MembersName::of(scope, peer) else {
            continue;
        };
        let number = books
            .members
            .give(&members)
            .expect("fewer peers than the kernel has sets");
        peers.insert(peer.clone(), number);
        let found = match members {
            MembersName::Group(scope, group) => view.members.get(&(scope, group)),
            MembersName::AddressGroup(group) => view.address_groups.get(&group),
        };
        for family in Family::BOTH {
            let input = Input::Members(found.cloned().unwrap_or_default());
            inputs.parts.insert(Key::Members(number, family), input);
        }
    }
    peers
}

fn groups(view: &HostView, ids: &[GroupId]) -> Groups {
    let known = ids.iter().filter_map(|id| view.groups.get_key_value(id));
    known
        .map(|(id, group)| (id.clone(), Arc::clone(group)))
        .collect()
}

fn scope_and_groups<'a>(view: &'a HostView, port: &'a PortView) -> (&'a ScopeId, &'a [GroupId]) {
    (&view.networks[&port.network].scope, &port.groups)
}

pub(crate) fn profile_name(view: &HostView, port: &PortView) -> ProfileName {
    let (scope, groups) = scope_and_groups(view, port);
    ProfileName {
        scope: scope.clone(),
        groups: groups.to_vec(),
    }
}

/// The numbers that a target uses; others may be given back once nothing in the kernel has them.
pub(crate) fn keep_used(books: &mut Books, inputs: &Inputs, view: &HostView) {
    let mut bridges = BTreeSet::new();
    let mut profiles = BTreeSet::new();
    let mut members = BTreeSet::new();
    for key in inputs.parts.keys() {
        match key {
            Key::Bridge(number) => drop(bridges.insert(*number)),
            Key::Profile(number) => drop(profiles.insert(*number)),
            Key::Members(number, _) => drop(members.insert(*number)),
            Key::Closed(_)
            | Key::HostMacs
            | Key::Reserved
            | Key::ReservedSomewhere
            | Key::Ethertypes
            | Key::Port(_)
            | Key::Ends
            | Key::Way(_) => {}
        }
    }
    let networks = view.networks.keys();
    let networks = networks.filter_map(|id| books.networks.get(id)).collect();
    books.bridges.retain(&bridges);
    books.profiles.retain(&profiles);
    books.networks.retain(&networks);
    books.members.retain(&members);
}
