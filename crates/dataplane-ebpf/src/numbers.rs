//! The kernel's numbers for what the view names: scopes, networks, peers, ports.
//!
//! Place on the line: view -> **numbers** -> render. The numbers live in the map `names`, from which
//! a new process takes them up, so that it recognizes what it finds.
//! Numbers only grow: what was once said with one never means something else later. Slots of ports
//! are the exception, as they are places in arrays; a port in a slot has a number of its own.

use crate::layout::LAYOUT_VERSION;
use crate::object::META;
use crate::table::Name;
use model::{AddressGroupId, GroupId, NetworkId, PortId, Prefix, ScopeId};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

/// Whom a rule's peer number stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PeerName {
    Group(GroupId),
    AddressGroup(AddressGroupId),
    Prefix(Prefix),
    /// Several peers by their numbers, sorted: for addresses with more peers than fit.
    Union(Vec<u32>),
}

/// How the text of a union begins.
const UNION: &str = "union ";

/// A network in one state: with its subnets and DHCP servers, which a packet sees all old or all new.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NetworkName {
    pub(crate) id: NetworkId,
    pub(crate) content: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Port = 1,
    Scope = 2,
    Network = 3,
    Peer = 4,
    /// Peers that are prefixes, several in an entry: there may be a hundred thousand of them.
    Prefixes = 5,
}

/// An entry of prefixes: for each of so many numbers in a row its prefix, or zeros.
const PREFIXES: u32 = 7;
/// Family (4 or 6), length, address.
const PREFIX_BYTES: usize = 18;

trait Named: Ord + Clone {
    const KIND: Kind;
    fn text(&self) -> String;

    /// Names that go into entries of prefixes.
    fn prefix(&self) -> Option<Prefix> {
        None
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    scopes: Known<ScopeId>,
    networks: Known<NetworkName>,
    peers: Known<PeerName>,
    slots: Slots,
    next_port: u32,
    next_addresses: u32,
    /// What unions are made of.
    parts: BTreeMap<u32, Vec<u32>>,
    found_unions: BTreeSet<u32>,
    /// Names have come or gone since this was last asked.
    changed: bool,
}

/// Names with numbers that are in use, and those that were found and not asked for yet.
#[derive(Clone, Debug)]
struct Known<N> {
    numbers: BTreeMap<N, u32>,
    found: BTreeMap<String, u32>,
    next: u32,
    changed: bool,
}

/// What `names` holds, by key.
pub(crate) type Names = BTreeMap<u64, Name>;

impl<N: Named> Known<N> {
    fn new() -> Self {
        Self {
            numbers: BTreeMap::new(),
            found: BTreeMap::new(),
            next: 1,
            changed: false,
        }
    }

    fn number(&mut self, name: &N) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        self.changed = true;
        let number = if self.found.is_empty() {
            None
        } else {
            self.found.remove(&name.text())
        };
        let number = number.unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.numbers.insert(name.clone(), number);
        number
    }

    fn keep(&mut self, used: &BTreeSet<u32>) {
        self.numbers.retain(|_, number| used.contains(number));
        self.found.retain(|_, number| used.contains(number));
    }

    fn names(&self, names: &mut Names) {
        for (name, number) in &self.numbers {
            match name.prefix() {
                Some(prefix) => put_prefix(names, *number, &prefix),
                None => {
                    names.insert(key(N::KIND, *number), Name::new(&name.text()));
                }
            }
        }
        for (text, number) in &self.found {
            names.insert(key(N::KIND, *number), Name::new(text));
        }
    }
}

/// Which slot is whose. The next free one after the last given is taken, so that a slot rests.
#[derive(Clone, Debug, Default)]
struct Slots {
    taken: BTreeMap<PortId, u32>,
    /// Found, by text.
    found: BTreeMap<String, u32>,
    /// Those of both.
    occupied: BTreeSet<u32>,
    hand: u32,
}

impl Numbers {
    pub(crate) fn new() -> Self {
        Self {
            scopes: Known::new(),
            networks: Known::new(),
            peers: Known::new(),
            slots: Slots::default(),
            next_port: 1,
            next_addresses: 1,
            parts: BTreeMap::new(),
            found_unions: BTreeSet::new(),
            changed: true,
        }
    }

    /// From what `names` holds.
    pub(crate) fn read(names: &[(u64, Name)]) -> Self {
        let mut numbers = Self::new();
        for (key, name) in names {
            let (kind, number) = ((*key >> 32) as u32, *key as u32);
            let text = name.text().to_owned();
            let found = match kind {
                k if k == Kind::Port as u32 => {
                    numbers.slots.found.insert(text, number);
                    numbers.slots.occupied.insert(number);
                    continue;
                }
                k if k == Kind::Scope as u32 => &mut numbers.scopes.found,
                k if k == Kind::Network as u32 => &mut numbers.networks.found,
                k if k == Kind::Peer as u32 => &mut numbers.peers.found,
                k if k == Kind::Prefixes as u32 => {
                    let found = prefixes(number, name);
                    let found = found.map(|(number, prefix)| (PeerName::Prefix(prefix), number));
                    numbers.peers.numbers.extend(found);
                    continue;
                }
                _ => continue,
            };
            found.insert(text, number);
        }
        let unions = numbers
            .peers
            .found
            .iter()
            .filter(|(text, _)| text.starts_with(UNION));
        numbers.found_unions = unions.map(|(_, number)| *number).collect();
        let meta = names.iter().find(|(key, _)| *key == META);
        let meta = meta
            .map(|(_, name)| name.text().to_owned())
            .unwrap_or_default();
        let mut next = meta
            .split_whitespace()
            .skip(1)
            .map(|n| n.parse().unwrap_or(1));
        let mut take = || next.next().unwrap_or(1).max(1);
        numbers.next_port = take();
        numbers.next_addresses = take();
        numbers.scopes.next = take();
        numbers.networks.next = take();
        numbers.peers.next = take();
        numbers
    }

    /// The plane's own entry: the layout, and which numbers come next.
    pub(crate) fn meta(&self) -> Name {
        Name::new(&format!(
            "{LAYOUT_VERSION} {} {} {} {} {}",
            self.next_port,
            self.next_addresses,
            self.scopes.next,
            self.networks.next,
            self.peers.next
        ))
    }

    pub(crate) fn names(&self) -> Names {
        let mut names = Names::from([(META, self.meta())]);
        for (id, slot) in &self.slots.taken {
            names.insert(key(Kind::Port, *slot), Name::new(&id.text()));
        }
        for (text, slot) in &self.slots.found {
            names.insert(key(Kind::Port, *slot), Name::new(text));
        }
        self.scopes.names(&mut names);
        self.networks.names(&mut names);
        self.peers.names(&mut names);
        names
    }

    pub(crate) fn take_changed(&mut self) -> bool {
        let parts = [
            &mut self.changed,
            &mut self.scopes.changed,
            &mut self.networks.changed,
            &mut self.peers.changed,
        ];
        parts.map(std::mem::take).contains(&true)
    }

    pub(crate) fn scope(&mut self, scope: &ScopeId) -> u32 {
        self.scopes.number(scope)
    }

    pub(crate) fn network(&mut self, network: &NetworkName) -> u32 {
        self.networks.number(network)
    }

    pub(crate) fn peer(&mut self, peer: &PeerName) -> u32 {
        let number = self.peers.number(peer);
        if let PeerName::Union(parts) = peer {
            self.parts.entry(number).or_insert_with(|| parts.clone());
        }
        number
    }

    /// Of a peer that has one.
    pub(crate) fn number_of(&self, peer: &PeerName) -> Option<u32> {
        self.peers.numbers.get(peer).copied()
    }

    /// What a union stands for; other peers stand for themselves.
    pub(crate) fn parts<'a>(&'a self, peer: &'a u32) -> &'a [u32] {
        self.parts
            .get(peer)
            .map_or(std::slice::from_ref(peer), Vec::as_slice)
    }

    /// Also of unions that were found, and whose parts are not known yet.
    pub(crate) fn is_union(&self, peer: u32) -> bool {
        self.parts.contains_key(&peer) || self.found_unions.contains(&peer)
    }

    pub(crate) fn unions(&self) -> &BTreeMap<u32, Vec<u32>> {
        &self.parts
    }

    pub(crate) fn new_port(&mut self) -> u32 {
        self.next_port += 1;
        self.next_port - 1
    }

    pub(crate) fn new_addresses(&mut self) -> u32 {
        self.next_addresses += 1;
        self.next_addresses - 1
    }

    pub(crate) fn slot(&self, port: &PortId) -> Option<u32> {
        let taken = self.slots.taken.get(port).copied();
        taken.or_else(|| self.slots.found.get(&port.text()).copied())
    }

    /// The port's slot, taken now if it has none. `None`: all `of` slots are taken.
    pub(crate) fn take_slot(&mut self, port: &PortId, of: u32) -> Option<u32> {
        let slots = &mut self.slots;
        if let Some(slot) = slots.taken.get(port) {
            return Some(*slot);
        }
        self.changed = true;
        if let Some(slot) = slots.found.remove(&port.text()) {
            slots.taken.insert(port.clone(), slot);
            return Some(slot);
        }
        if slots.occupied.len() >= of as usize {
            return None;
        }
        let mut all = (0..of).map(|step| (slots.hand + step) % of);
        let slot = all.find(|slot| !slots.occupied.contains(slot))?;
        slots.hand = (slot + 1) % of;
        slots.occupied.insert(slot);
        slots.taken.insert(port.clone(), slot);
        Some(slot)
    }

    /// Who is in which slot, as far as it is known by name.
    pub(crate) fn ports(&self) -> BTreeMap<u32, PortId> {
        let found = self
            .slots
            .found
            .iter()
            .map(|(text, slot)| (*slot, PortId::new(text.as_str())));
        let taken = self
            .slots
            .taken
            .iter()
            .map(|(id, slot)| (*slot, id.clone()));
        found.chain(taken).collect()
    }

    /// Forgets the names that nothing uses any more.
    pub(crate) fn keep(
        &mut self,
        ports: &BTreeMap<PortId, u32>,
        scopes: &BTreeSet<u32>,
        networks: &BTreeSet<u32>,
        peers: &BTreeSet<u32>,
    ) {
        self.slots.taken.retain(|id, _| ports.contains_key(id));
        self.slots.found.clear();
        self.slots.occupied = self.slots.taken.values().copied().collect();
        self.scopes.keep(scopes);
        self.networks.keep(networks);
        self.peers.keep(peers);
        self.parts.retain(|union, _| peers.contains(union));
    }
}

fn key(kind: Kind, number: u32) -> u64 {
    u64::from(kind as u32) << 32 | u64::from(number)
}

fn put_prefix(names: &mut Names, number: u32, prefix: &Prefix) {
    let name = names
        .entry(key(Kind::Prefixes, number / PREFIXES))
        .or_default();
    let at = (number % PREFIXES) as usize * PREFIX_BYTES;
    let place = &mut name.0[at..at + PREFIX_BYTES];
    place[1] = prefix.length();
    match prefix.network() {
        IpAddr::V4(address) => {
            place[0] = 4;
            place[2..6].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            place[0] = 6;
            place[2..18].copy_from_slice(&address.octets());
        }
    }
}

/// The prefixes of one entry, with their numbers.
fn prefixes(entry: u32, name: &Name) -> impl Iterator<Item = (u32, Prefix)> + '_ {
    let places = name.0.chunks_exact(PREFIX_BYTES);
    let numbers = entry * PREFIXES..(entry + 1) * PREFIXES;
    numbers.zip(places).filter_map(|(number, place)| {
        let address = match place[0] {
            4 => IpAddr::from([place[2], place[3], place[4], place[5]]),
            6 => IpAddr::from(<[u8; 16]>::try_from(&place[2..18]).expect("16 bytes")),
            _ => return None,
        };
        Some((number, Prefix::new(address, place[1]).ok()?))
    })
}

/// Text that fits into a `Name` and is another for another id.
fn short(text: &str) -> String {
    const ROOM: usize = 120;
    if text.len() <= ROOM {
        return text.to_owned();
    }
    let mut end = ROOM - 40;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let [a, b] = digest(&text);
    format!("{}#{a:016x}{b:016x}", &text[..end])
}

/// 128 bits of something.
pub(crate) fn digest(of: &impl Hash) -> [u64; 2] {
    [1u8, 2].map(|salt| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        of.hash(&mut hasher);
        hasher.finish()
    })
}

impl Named for PortId {
    const KIND: Kind = Kind::Port;
    fn text(&self) -> String {
        short(self.as_str())
    }
}

impl Named for ScopeId {
    const KIND: Kind = Kind::Scope;
    fn text(&self) -> String {
        short(self.as_str())
    }
}

impl Named for NetworkName {
    const KIND: Kind = Kind::Network;
    fn text(&self) -> String {
        short(&format!("{:016x} {}", self.content, self.id))
    }
}

impl Named for PeerName {
    const KIND: Kind = Kind::Peer;

    fn prefix(&self) -> Option<Prefix> {
        match self {
            PeerName::Prefix(prefix) => Some(*prefix),
            PeerName::Group(_) | PeerName::AddressGroup(_) | PeerName::Union(_) => None,
        }
    }

    fn text(&self) -> String {
        match self {
            PeerName::Group(id) => short(&format!("group {id}")),
            PeerName::AddressGroup(id) => short(&format!("address-group {id}")),
            PeerName::Prefix(prefix) => format!("prefix {prefix}"),
            PeerName::Union(parts) => {
                let [a, b] = digest(parts);
                format!("{UNION}{a:016x}{b:016x}")
            }
        }
    }
}
