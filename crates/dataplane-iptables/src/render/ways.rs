//! The ways from a number in the mark to its chain: to a profile's, and to a bridge's zone.
//!
//! iptables has no jump by a number, and a list of all would be tried one by one. So there is a tree, of 16
//! branches at each fork: with 4,096 profiles a packet tries 24 rules on average, with 16 it tries 8. The
//! last rule of each way asks for the whole number, so a number without a chain leads nowhere. A fork is a
//! jump: while a tree that gets deeper stands beside the old one, what isn't in the one is in the other.

use super::names::{dispatch, profile_chain};
use super::{Input, Key};
use crate::books;
use crate::mark;
use crate::parts::{Chain, Part, Table};
use model::{Direction, Family};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    /// With their devices' indices.
    bridges: BTreeMap<u16, u32>,
    /// By family, then direction: the profiles that have a chain.
    profiles: [[BTreeSet<u16>; 2]; 2],
}

/// The root of the way to the zones.
const ZONES: &str = "pc-zone";

/// Bits of a number that a fork looks at.
const FORK_BITS: u32 = 4;

impl Ways {
    pub(crate) fn to(inputs: &BTreeMap<Key, Input<'_>>) -> Self {
        let mut ways = Self::default();
        for input in inputs.values() {
            match input {
                Input::Bridge(number, ifindex, _) => {
                    ways.bridges.insert(*number, *ifindex);
                }
                Input::Profile(number, _, _, summary) => {
                    for family in Family::BOTH {
                        for direction in Direction::BOTH {
                            let (f, d) = (family as usize, direction as usize);
                            if summary.chains[f][d] {
                                ways.profiles[f][d].insert(*number);
                            }
                        }
                    }
                }
                Input::Closed(_)
                | Input::Networks(..)
                | Input::Ethertypes(_)
                | Input::Port(_)
                | Input::Members(..)
                | Input::Ends(_)
                | Input::Ways(_) => {}
            }
        }
        ways
    }

    pub(crate) fn render(&self) -> Part {
        let mut part = Part::default();
        for family in Family::BOTH {
            // Whose number it is stands with it, in case that the books are lost.
            let zone = |bridge| {
                let (ifindex, zone) = (self.bridges[&bridge], books::zone(bridge));
                format!("-m comment --comment {ifindex} -j CT --zone {zone}")
            };
            let bridges = self.bridges.keys().copied().collect();
            for (name, rules) in tree(ZONES, &bridges, mark::BRIDGE, zone) {
                part.chain(family, Table::Raw, name, rules);
            }
            for direction in Direction::BOTH {
                let chain = |number| format!("-g {}", profile_chain(direction, number));
                let profiles = &self.profiles[family as usize][direction as usize];
                for (name, rules) in tree(&dispatch(direction), profiles, mark::PROFILE, chain) {
                    part.chain(family, Table::Mangle, name, rules);
                }
            }
        }
        part
    }
}

/// By device index: the number that a bridge has in the kernel, of a chain on the way to the zones.
pub(crate) fn bridge_in(chain: &str, rule: &str) -> Option<(u32, u16)> {
    if !chain.starts_with(ZONES) {
        return None;
    }
    let mut words = rule.split_whitespace();
    let mark = words.find(|w| *w == "--mark").and_then(|_| words.next())?;
    let ifindex = words
        .find(|w| *w == "--comment")
        .and_then(|_| words.next())?;
    let (mark, _) = mark.strip_prefix("0x")?.split_once('/')?;
    let mark = u32::from_str_radix(mark, 16).ok()?;
    let number = (mark & mark::BRIDGE) >> mark::BRIDGE.trailing_zeros();
    Some((ifindex.parse().ok()?, u16::try_from(number).ok()?))
}

/// Chains by name, the root among them. `mask` is where in the mark the number is.
fn tree(
    root: &str,
    numbers: &BTreeSet<u16>,
    mask: u32,
    leaf: impl Fn(u16) -> String,
) -> BTreeMap<String, Chain> {
    let largest = numbers.last().copied().unwrap_or_default();
    let bits = u16::BITS - largest.leading_zeros();
    let forks = bits.div_ceil(FORK_BITS).max(1);
    let mut chains = BTreeMap::from([(root.to_owned(), Chain::new())]);
    let mut named: BTreeSet<(u32, u16)> = BTreeSet::new();
    let place = mask.trailing_zeros();
    for number in numbers {
        // From the root, which is `forks` above the leaves, down.
        let mut chain = root.to_owned();
        for level in (1..forks).rev() {
            let known = number >> (level * FORK_BITS);
            let below = format!("{root}-{level}.{known:x}");
            if named.insert((level, known)) {
                let fork = (((1 << FORK_BITS) - 1) << (level * FORK_BITS + place)) & mask;
                let value = (u32::from(known) << (level * FORK_BITS + place)) & fork;
                let rule = format!("-m mark --mark {value:#x}/{fork:#x} -j {below}");
                chains.entry(chain).or_default().push(rule);
                chains.entry(below.clone()).or_default();
            }
            chain = below;
        }
        let value = u32::from(*number) << place;
        let rule = format!("-m mark --mark {value:#x}/{mask:#x} {}", leaf(*number));
        chains.entry(chain).or_default().push(rule);
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a mark leads from a chain, by the tree's rules.
    fn walk(chains: &BTreeMap<String, Chain>, chain: &str, mark: u32) -> Option<String> {
        let matching = chains[chain].iter().filter(|rule| {
            let asked = rule
                .split_whitespace()
                .nth(3)
                .expect("a mark with its mask");
            let (value, mask) = asked.split_once('/').expect("a mask");
            let number = |text: &str| u32::from_str_radix(&text[2..], 16).expect("a number");
            mark & number(mask) == number(value)
        });
        let mut targets = matching.map(|rule| rule.rsplit(' ').next().expect("a target"));
        targets.find_map(|target| match chains.contains_key(target) {
            true => walk(chains, target, mark),
            false => Some(target.to_owned()),
        })
    }

    #[test]
    fn a_bridge_is_known_by_the_rule_for_its_zone() {
        let bridges = BTreeMap::from([(3, 77), (300, 78)]);
        let ways = Ways {
            bridges: bridges.clone(),
            ..Ways::default()
        };
        let mut found = BTreeMap::new();
        for (name, rules) in ways.render().chains {
            for rule in rules {
                if let Some((ifindex, number)) = bridge_in(&name.chain, &rule) {
                    found.insert(number, ifindex);
                }
            }
        }
        assert_eq!(found, bridges);
    }

    #[test]
    fn each_number_leads_to_its_own_chain_and_others_nowhere() {
        for (mask, numbers) in [
            (mark::PROFILE, vec![1, 2, 15]),
            (mark::PROFILE, vec![1, 16, 17, 255]),
            (mark::PROFILE, vec![3, 300, 4_095]),
            (mark::BRIDGE, vec![1, 17, 511]),
            (mark::PROFILE, vec![]),
        ] {
            let numbers: BTreeSet<u16> = numbers.into_iter().collect();
            let leaf = |number| format!("-g leaf-{number}");
            let chains = tree("root", &numbers, mask, leaf);
            let place = mask.trailing_zeros();
            for number in 0..=(mask >> place) {
                let known = numbers.contains(&(number as u16));
                let expected = known.then(|| format!("leaf-{number}"));
                let noise = !mask;
                assert_eq!(
                    walk(&chains, "root", number << place),
                    expected,
                    "{number} in {mask:#x}"
                );
                assert_eq!(
                    walk(&chains, "root", number << place | noise),
                    expected,
                    "{number} in {mask:#x}"
                );
            }
            assert!(chains.values().all(|chain| chain.len() <= 16));
        }
    }

    #[test]
    fn of_a_deeper_tree_beside_the_old_one_each_number_leads_to_its_chain() {
        let leaf = |number| format!("-g leaf-{number}");
        let tree = |numbers| tree("root", &BTreeSet::from(numbers), mark::PROFILE, leaf);
        let (old, new) = (tree([3, 8]), tree([15, 16]));
        for (first, second) in [(&old, &new), (&new, &old)] {
            let mut both = first.clone();
            for (name, rules) in second {
                both.entry(name.clone()).or_default().extend(rules.clone());
            }
            for number in [3, 8, 15, 16] {
                let expected = format!("leaf-{number}");
                assert_eq!(walk(&both, "root", number), Some(expected));
            }
        }
    }
}
