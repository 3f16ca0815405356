//! Sets of addresses of one family, and the prefixes that people call them by.

use super::ranges::Ranges;
use crate::prefix_set::bounds;
use model::{Family, Prefix};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A set of addresses of one family. Equal sets are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressSet {
    family: Family,
    pub(super) ranges: Ranges,
}

impl AddressSet {
    pub(super) fn new(family: Family, ranges: Ranges) -> Self {
        Self { family, ranges }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family && self.ranges.contains(number(address))
    }

    /// The fewest prefixes that it consists of, in order.
    pub fn prefixes(&self) -> Vec<Prefix> {
        cover(self.family, &self.ranges, &Ranges::default())
    }
}

/// Those of the prefixes that are of the family.
pub(super) fn ranges<'a>(family: Family, prefixes: impl IntoIterator<Item = &'a Prefix>) -> Ranges {
    let prefixes = prefixes.into_iter().filter(|p| p.family() == family);
    prefixes.map(bounds).collect()
}

/// The fewest prefixes that hold all of the set and, of what is not in it, only what doesn't matter; each as
/// long as it can be.
pub(super) fn cover(family: Family, set: &Ranges, free: &Ranges) -> Vec<Prefix> {
    let allowed = Ranges::union([set, free]);
    let mut found = Vec::new();
    cover_in(Prefix::whole(family), set, &allowed, &mut found);
    found
}

fn cover_in(prefix: Prefix, set: &Ranges, allowed: &Ranges, found: &mut Vec<Prefix>) {
    let (first, last) = bounds(&prefix);
    let whole = Ranges::one(first, last);
    let wanted = set.intersection(&whole);
    let (Some((least, _)), Some((_, most))) = (wanted.iter().next(), wanted.iter().last()) else {
        return;
    };
    if whole.without(allowed).is_empty() {
        return found.push(around(prefix.family(), least, most));
    }
    let length = prefix.length() + 1;
    for start in [first, last] {
        let half = Prefix::containing(address(prefix.family(), start), length);
        cover_in(half, &wanted, allowed, found);
    }
}

/// The longest prefix that both are in.
fn around(family: Family, least: u128, most: u128) -> Prefix {
    let differing = 128 - (least ^ most).leading_zeros();
    let differing = u8::try_from(differing).expect("at most 128 bits");
    Prefix::containing(address(family, least), family.width() - differing)
}

fn number(address: IpAddr) -> u128 {
    let (first, _) = bounds(&Prefix::host(address));
    first
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => {
            let number = u32::try_from(number).expect("a number of an address of IPv4");
            Ipv4Addr::from(number).into()
        }
        Family::V6 => Ipv6Addr::from(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> Ranges {
        let prefixes: Vec<Prefix> = texts.iter().map(|t| t.parse().expect("a prefix")).collect();
        ranges(Family::V4, &prefixes)
    }

    fn check(wanted: &[&str], free: &[&str], expected: &[&str]) {
        let found = cover(Family::V4, &set(wanted), &set(free));
        let found: Vec<String> = found.iter().map(Prefix::to_string).collect();
        assert_eq!(found, expected, "{wanted:?} {free:?}");
    }

    #[test]
    fn few_prefixes_name_a_set() {
        check(&[], &["10.0.0.0/8"], &[]);
        check(&["0.0.0.0/0"], &[], &["0.0.0.0/0"]);
        check(&["10.0.0.0/25", "10.0.0.128/25"], &[], &["10.0.0.0/24"]);
        check(&["10.0.0.1", "10.0.0.2"], &[], &["10.0.0.1", "10.0.0.2"]);
        check(
            &["255.255.255.255", "0.0.0.0"],
            &[],
            &["0.0.0.0", "255.255.255.255"],
        );
    }

    #[test]
    fn what_does_not_matter_makes_it_shorter_and_never_wider_than_needed() {
        let halves = ["10.0.0.0/26", "10.0.0.128/25"];
        check(&halves, &["10.0.0.64/26"], &["10.0.0.0/24"]);
        check(&["10.0.0.4"], &["10.0.0.0/24"], &["10.0.0.4"]);
        check(&["10.0.0.4", "10.0.0.6"], &["0.0.0.0/0"], &["10.0.0.4/30"]);
        check(
            &["10.0.0.4", "10.0.0.6"],
            &["10.0.0.5"],
            &["10.0.0.4", "10.0.0.6"],
        );
    }
}
