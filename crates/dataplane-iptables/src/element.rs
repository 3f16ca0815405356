//! An element of a set or a map of link.nft: as nft reads it, and as the kernel has it.
//!
//! Place on the line: render -> **elements** -> plan -> execute.
//! Knows nothing of: which sets there are, what their fields mean.

use model::{MacAddr, Prefix};
use netfilter::elements;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    pub(crate) set: &'static str,
    pub(crate) key: Vec<Field>,
    /// Of a map.
    pub(crate) value: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
    Device(u32),
    Mark(u32),
    Mac(MacAddr),
    Address(IpAddr),
    /// In a set of ranges: all of its addresses.
    Range(Prefix),
    Protocol(u8),
    L4Port(u16),
    Ethertype(u16),
    /// As it stands raw in a packet: to nft, a number.
    RawMac(MacAddr),
    RawAddress(Ipv6Addr),
    RawRange(Prefix),
}

impl Element {
    pub(crate) fn has_range(&self) -> bool {
        self.key.iter().any(|field| field.is_range())
    }

    pub(crate) fn in_kernel(&self) -> elements::Element {
        let ranges = self.has_range();
        let joined = |end: fn(Field) -> Vec<u8>| -> Vec<u8> {
            let mut key = Vec::new();
            for field in &self.key {
                key.extend(match field {
                    // Where there are ranges, nft makes numbers comparable byte by byte.
                    Field::Device(number) | Field::Mark(number) if ranges => {
                        number.to_be_bytes().to_vec()
                    }
                    field => end(*field),
                });
                if self.key.len() > 1 {
                    key.resize(key.len().next_multiple_of(4), 0);
                }
            }
            key
        };
        elements::Element {
            key: joined(Field::first),
            last: ranges.then(|| joined(Field::last)),
            value: self.value,
            timeout: None,
        }
    }
}

impl Field {
    fn is_range(self) -> bool {
        matches!(self, Field::Range(_) | Field::RawRange(_))
    }

    fn first(self) -> Vec<u8> {
        match self {
            Field::Device(number) | Field::Mark(number) => number.to_ne_bytes().to_vec(),
            Field::Mac(mac) | Field::RawMac(mac) => mac.0.to_vec(),
            Field::Address(address) => octets(address),
            Field::RawAddress(address) => address.octets().to_vec(),
            Field::Range(net) | Field::RawRange(net) => octets(net.network()),
            Field::Protocol(number) => vec![number],
            Field::L4Port(number) | Field::Ethertype(number) => number.to_be_bytes().to_vec(),
        }
    }

    fn last(self) -> Vec<u8> {
        match self {
            Field::Range(net) | Field::RawRange(net) => octets(net.last()),
            other => other.first(),
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, field) in self.key.iter().enumerate() {
            let between = if place == 0 { "" } else { " . " };
            write!(f, "{between}{field}")?;
        }
        match self.value {
            Some(value) => write!(f, " : {value:#x}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Device(number) => write!(f, "{number}"),
            Field::Mark(number) => write!(f, "{number:#x}"),
            Field::Mac(mac) => write!(f, "{mac}"),
            Field::Address(address) => write!(f, "{address}"),
            // nft reads no prefix of length 0 among other fields, and can't find a plain address again when
            // it is to go.
            Field::Range(net) => match net.length() {
                0 => write!(f, "{}-{}", net.network(), net.last()),
                length => write!(f, "{}/{length}", net.network()),
            },
            Field::Protocol(number) => write!(f, "{number}"),
            Field::L4Port(number) => write!(f, "{number}"),
            Field::Ethertype(number) => write!(f, "{number:#06x}"),
            Field::RawMac(MacAddr([a, b, c, d, e, g])) => {
                let number = u64::from_be_bytes([0, 0, *a, *b, *c, *d, *e, *g]);
                write!(f, "{number:#x}")
            }
            Field::RawAddress(address) => write!(f, "{:#x}", u128::from(*address)),
            Field::RawRange(net) => {
                let [first, last] = [net.network(), net.last()].map(number);
                match first == last {
                    true => write!(f, "{first:#x}"),
                    false => write!(f, "{first:#x}-{last:#x}"),
                }
            }
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}
