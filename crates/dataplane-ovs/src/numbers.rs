//! Which number stands for what, in registers and cookies.
//!
//! Invariants: a number comes of the name alone, so that it is the same after a restart and on the way to any
//! state, unless two names would have the same one: then the later name takes the next free one. Numbers that a
//! connection may hold (zones) are not given here.
//! Knows nothing of: what the numbers are used for.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;

/// Numbers of `bits` bits, never 0 nor all ones.
pub(crate) fn number<K: Ord + Clone + Hash>(
    names: impl IntoIterator<Item = K>,
    text: impl Fn(&K) -> String,
    bits: u32,
    taken: &BTreeSet<u32>,
) -> BTreeMap<K, u32> {
    let most = (1u64 << bits) - 2;
    let mut taken = taken.clone();
    let names: BTreeSet<K> = names.into_iter().collect();
    let mut numbers = BTreeMap::new();
    for name in names {
        let mut number = (hash(&text(&name)) % most) as u32 + 1;
        while !taken.insert(number) {
            number = (u64::from(number) % most) as u32 + 1;
        }
        numbers.insert(name, number);
    }
    numbers
}

/// FNV-1a: small, and the same in every build.
pub(crate) fn hash(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    // The low bits of short texts are close together.
    hash ^ hash >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(names: &[&str], bits: u32) -> BTreeMap<String, u32> {
        let names = names.iter().map(|n| (*n).to_owned());
        number(names, String::clone, bits, &BTreeSet::new())
    }

    #[test]
    fn a_number_comes_of_the_name_alone() {
        let (few, more) = (numbers(&["b"], 16), numbers(&["a", "b", "c"], 16));
        assert_eq!(few["b"], more["b"]);
    }

    #[test]
    fn no_two_names_share_one() {
        let names = ["a", "b", "c", "d", "e", "f"];
        let seen: BTreeSet<u32> = numbers(&names, 3).into_values().collect();
        assert_eq!(seen, BTreeSet::from([1, 2, 3, 4, 5, 6]));
    }
}
