//! Which addresses and MACs ports have: a million ports hold two of them each, so they are kept small.
//!
//! Place on the line: store commit -> **watch**.
//! Knows nothing of: which port has one. Who asks for one that is taken doesn't learn that, either.

use model::{MacAddr, NetworkId};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    networks: HashMap<NetworkId, Names>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    v4: BTreeSet<Ipv4Addr>,
    v6: BTreeSet<Ipv6Addr>,
    macs: BTreeSet<MacAddr>,
}

/// Of a port, in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Address(IpAddr),
    Mac(MacAddr),
}

impl Name {
    /// As a record's key has it; `None` for what other objects hold.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let address = text.parse().ok().map(Self::Address);
        address.or_else(|| text.parse().ok().map(Self::Mac))
    }
}

impl Taken {
    pub(crate) fn contains(&self, network: &str, name: Name) -> bool {
        let names = self.networks.get(network);
        names.is_some_and(|names| match name {
            Name::Address(IpAddr::V4(v4)) => names.v4.contains(&v4),
            Name::Address(IpAddr::V6(v6)) => names.v6.contains(&v6),
            Name::Mac(mac) => names.macs.contains(&mac),
        })
    }

    pub(crate) fn set(&mut self, network: &str, name: Name, taken: bool) {
        let names = self.networks.entry(NetworkId::from(network)).or_default();
        match name {
            Name::Address(IpAddr::V4(v4)) => put(&mut names.v4, v4, taken),
            Name::Address(IpAddr::V6(v6)) => put(&mut names.v6, v6, taken),
            Name::Mac(mac) => put(&mut names.macs, mac, taken),
        }
        if *names == Names::default() {
            self.networks.remove(network);
        }
    }

    /// Takes no more room than it needs.
    pub(crate) fn close_up(&mut self) {
        for names in self.networks.values_mut() {
            close_up(&mut names.v4);
            close_up(&mut names.v6);
            close_up(&mut names.macs);
        }
    }
}

fn close_up<T: Ord>(names: &mut BTreeSet<T>) {
    *names = std::mem::take(names).into_iter().collect();
}

fn put<T: Ord>(names: &mut BTreeSet<T>, name: T, taken: bool) {
    match taken {
        true => names.insert(name),
        false => names.remove(&name),
    };
}
