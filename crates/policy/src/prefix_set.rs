//! Questions to a set of prefixes, as member sets are. Prefixes nest and never overlap otherwise, and
//! they are ordered by (network, length); so what covers an address stands before it, in order of
//! length, and what is inside a prefix stands right behind it.

use crate::shared_set::SharedSet;
use model::{Family, Prefix};
use std::net::IpAddr;

pub fn contains(set: &SharedSet<Prefix>, address: IpAddr) -> bool {
    covers(set, &Prefix::host(address))
}

/// Whether one prefix of the set covers all of this one.
pub fn covers(set: &SharedSet<Prefix>, wanted: &Prefix) -> bool {
    let mut bound = *wanted;
    loop {
        // Whatever covers `wanted` stands at or before `bound`, and if it stands before `found`, it
        // covers `found` as well, so also what the two have in common.
        let Some(found) = set.last_up_to(&bound) else {
            return false;
        };
        if found.family() != wanted.family() {
            return false;
        }
        if found.covers(wanted) {
            return true;
        }
        bound = common(found, wanted);
    }
}

/// The prefixes of the set inside this one, itself not counted.
pub(crate) fn inside<'a>(
    set: &'a SharedSet<Prefix>,
    outer: &Prefix,
) -> impl Iterator<Item = &'a Prefix> + use<'a> {
    set.between(*outer, Prefix::host(outer.last()))
}

/// The longest prefix that covers both; they are of one family.
fn common(one: &Prefix, other: &Prefix) -> Prefix {
    let same = match (one.network(), other.network()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)).leading_zeros(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    };
    let same = u8::try_from(same).expect("at most 128 bits are the same");
    Prefix::containing(one.network(), same.min(one.length()).min(other.length()))
}

/// First and last address as numbers.
pub(crate) fn bounds(prefix: &Prefix) -> (u128, u128) {
    let number = |address| match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    };
    (number(prefix.network()), number(prefix.last()))
}

pub(crate) fn both_families() -> Vec<Prefix> {
    Family::BOTH.map(Prefix::whole).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> SharedSet<Prefix> {
        let parse = |text: &&str| text.parse().expect("a prefix");
        texts.iter().map(parse).collect()
    }

    #[test]
    fn an_address_is_found_behind_longer_and_nearer_prefixes() {
        let set = set(&[
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.3",
            "10.1.2.200/31",
            "10.2.0.0/24",
            "2001:db8::/64",
            "2001:db8::7",
        ]);
        let check = |address: &str, expected: bool| {
            let address = address.parse().expect("an address");
            assert_eq!(contains(&set, address), expected, "{address}");
        };
        check("10.1.2.4", true);
        check("10.255.0.1", true);
        check("10.0.0.0", true);
        check("9.255.255.255", false);
        check("11.0.0.0", false);
        check("2001:db8::1:0:0:1", true);
        check("2001:db8:0:1::", false);
        check("::", false);
    }

    #[test]
    fn what_is_inside_is_not_what_is_beside() {
        let set = set(&["10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/24", "10.2.0.0/16"]);
        let outer = "10.1.0.0/16".parse().expect("a prefix");
        let found: Vec<String> = inside(&set, &outer).map(Prefix::to_string).collect();
        assert_eq!(found, ["10.1.0.0/24"]);
    }
}
