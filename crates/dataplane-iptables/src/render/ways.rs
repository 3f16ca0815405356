//! The ways from a number in the mark to its chain: to a profile's, and to a bridge's zone.
//!
//! iptables has no jump by a number, and a list of all would be tried one by one. So there is a tree, of 16
//! branches at each fork: with 4,096 profiles a packet tries 24 rules on average, with 16 it tries 8. The
//! last rule of each way asks for the whole number, so a number without a chain leads nowhere. A fork is a
//! jump: while a tree that gets deeper stands beside the old one, what isn't in the one is in the other.

use super::names::{dispatch, profile_chain};
use super::profile::Profile;
use crate::books;
use crate::mark;
use crate::parts::{Chain, ChainName, Table};
use model::{Direction, Family};
use std::collections::{BTreeMap, BTreeSet};

/// What there are ways to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    /// With their devices' indices.
    bridges: BTreeMap<u16, u32>,
    /// By family, then direction: the profiles that have a chain.
    profiles: [[BTreeSet<u16>; 2]; 2],
}

/// A chain on the way: whom it asks for, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    tree: Tree,
    branches: Vec<Branch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tree {
    Zones,
    Profiles(Direction),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Branch {
    /// The numbers that begin so; so many forks are behind it.
    Fork {
        level: u32,
        known: u16,
    },
    Profile(Direction, u16),
    /// Whose number it is stands with it, in case that the books are lost.
    Bridge {
        number: u16,
        ifindex: u32,
    },
}

/// The root of the way to the zones.
const ZONES: &str = "pc-zone";

/// Bits of a number that a fork looks at.
const FORK_BITS: u32 = 4;

impl Ways {
    /// `bridges`: with their devices' indices.
    pub(crate) fn to<'a>(
        bridges: BTreeMap<u16, u32>,
        profiles: impl Iterator<Item = &'a Profile>,
    ) -> Self {
        let mut ways = Self {
            bridges,
            ..Self::default()
        };
        for profile in profiles {
            for family in Family::BOTH {
                for direction in Direction::BOTH {
                    let (f, d) = (family as usize, direction as usize);
                    if profile.summary.chains[f][d] {
                        ways.profiles[f][d].insert(profile.number);
                    }
                }
            }
        }
        ways
    }

    pub(crate) fn chains(&self) -> BTreeMap<ChainName, Way> {
        let mut chains = BTreeMap::new();
        for family in Family::BOTH {
            let bridge = |number| Branch::Bridge {
                number,
                ifindex: self.bridges[&number],
            };
            let bridges: Vec<u16> = self.bridges.keys().copied().collect();
            chains.extend(Tree::Zones.chains(family, &bridges, bridge));
            for direction in Direction::BOTH {
                let profiles = &self.profiles[family as usize][direction as usize];
                let profiles: Vec<u16> = profiles.iter().copied().collect();
                let tree = Tree::Profiles(direction);
                let leaf = |number| Branch::Profile(direction, number);
                chains.extend(tree.chains(family, &profiles, leaf));
            }
        }
        chains
    }
}

impl Tree {
    fn root(self) -> String {
        match self {
            Tree::Zones => ZONES.to_owned(),
            Tree::Profiles(direction) => dispatch(direction),
        }
    }

    /// Where in the mark the number is.
    fn mask(self) -> u32 {
        match self {
            Tree::Zones => mark::BRIDGE,
            Tree::Profiles(_) => mark::PROFILE,
        }
    }

    fn table(self) -> Table {
        match self {
            Tree::Zones => Table::Raw,
            Tree::Profiles(_) => Table::Mangle,
        }
    }

    /// The chains that lead to these numbers, which are in order; the root among them.
    fn chains(
        self,
        family: Family,
        numbers: &[u16],
        leaf: impl Fn(u16) -> Branch,
    ) -> BTreeMap<ChainName, Way> {
        let largest = numbers.last().copied().unwrap_or_default();
        let bits = u16::BITS - largest.leading_zeros();
        let forks = bits.div_ceil(FORK_BITS).max(1);
        let mut chains = BTreeMap::new();
        let mut above = vec![(self.root(), numbers)];
        for level in (0..forks).rev() {
            let mut below = Vec::new();
            for (chain, numbers) in above {
                let branches = match level {
                    0 => numbers.iter().map(|number| leaf(*number)).collect(),
                    _ => self.fork(level, numbers, &mut below),
                };
                let name = ChainName {
                    family,
                    table: self.table(),
                    chain,
                };
                let tree = self;
                chains.insert(name, Way { tree, branches });
            }
            above = below;
        }
        chains
    }

    fn fork<'n>(
        self,
        level: u32,
        numbers: &'n [u16],
        below: &mut Vec<(String, &'n [u16])>,
    ) -> Vec<Branch> {
        let known = |number: u16| number >> (level * FORK_BITS);
        let parts = numbers.chunk_by(|a, b| known(*a) == known(*b));
        let branches = parts.map(|numbers| {
            let known = known(numbers[0]);
            below.push((self.below(level, known), numbers));
            Branch::Fork { level, known }
        });
        branches.collect()
    }

    fn below(self, level: u32, known: u16) -> String {
        format!("{}-{level}.{known:x}", self.root())
    }
}

impl Way {
    pub(crate) fn render(&self) -> Chain {
        self.branches
            .iter()
            .map(|branch| self.rule(branch))
            .collect()
    }

    fn rule(&self, branch: &Branch) -> String {
        let mask = self.tree.mask();
        let place = mask.trailing_zeros();
        let whole =
            |number: u16| format!("-m mark --mark {:#x}/{mask:#x}", u32::from(number) << place);
        match *branch {
            Branch::Fork { level, known } => {
                let shift = level * FORK_BITS + place;
                let fork = (((1 << FORK_BITS) - 1) << shift) & mask;
                let value = (u32::from(known) << shift) & fork;
                let below = self.tree.below(level, known);
                format!("-m mark --mark {value:#x}/{fork:#x} -j {below}")
            }
            Branch::Profile(direction, number) => {
                format!("{} -g {}", whole(number), profile_chain(direction, number))
            }
            Branch::Bridge { number, ifindex } => {
                let zone = books::zone(number);
                format!(
                    "{} -m comment --comment {ifindex} -j CT --zone {zone}",
                    whole(number)
                )
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILES: Tree = Tree::Profiles(Direction::Ingress);

    /// The rules by chain.
    fn rules(tree: Tree, numbers: &[u16]) -> BTreeMap<String, Chain> {
        let leaf = |number| match tree {
            Tree::Zones => Branch::Bridge { number, ifindex: 7 },
            Tree::Profiles(direction) => Branch::Profile(direction, number),
        };
        let chains = tree.chains(Family::V4, numbers, leaf).into_iter();
        chains
            .map(|(name, way)| (name.chain, way.render()))
            .collect()
    }

    fn goal(tree: Tree, number: u16) -> String {
        match tree {
            Tree::Zones => books::zone(number).to_string(),
            Tree::Profiles(direction) => profile_chain(direction, number),
        }
    }

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
        let ways = Ways::to(bridges.clone(), std::iter::empty());
        let mut found = BTreeMap::new();
        for (name, way) in ways.chains() {
            for rule in way.render() {
                if let Some((ifindex, number)) = bridge_in(&name.chain, &rule) {
                    found.insert(number, ifindex);
                }
            }
        }
        assert_eq!(found, bridges);
    }

    #[test]
    fn each_number_leads_to_its_own_chain_and_others_nowhere() {
        for (tree, numbers) in [
            (PROFILES, vec![1, 2, 15]),
            (PROFILES, vec![1, 16, 17, 255]),
            (PROFILES, vec![3, 300, 4_095]),
            (Tree::Zones, vec![1, 17, 511]),
            (PROFILES, vec![]),
        ] {
            let chains = rules(tree, &numbers);
            let mask = tree.mask();
            let place = mask.trailing_zeros();
            for number in 0..=(mask >> place) as u16 {
                let known = numbers.contains(&number);
                let expected = known.then(|| goal(tree, number));
                let mark = u32::from(number) << place;
                for noise in [0, !mask] {
                    let found = walk(&chains, &tree.root(), mark | noise);
                    assert_eq!(found, expected, "{number} in {mask:#x}");
                }
            }
            assert!(chains.values().all(|chain| chain.len() <= 16));
        }
    }

    #[test]
    fn of_a_deeper_tree_beside_the_old_one_each_number_leads_to_its_chain() {
        let (old, new) = (rules(PROFILES, &[3, 8]), rules(PROFILES, &[15, 16]));
        for (first, second) in [(&old, &new), (&new, &old)] {
            let mut both = first.clone();
            for (name, rules) in second {
                both.entry(name.clone()).or_default().extend(rules.clone());
            }
            for number in [3, 8, 15, 16] {
                let found = walk(&both, &PROFILES.root(), number.into());
                assert_eq!(found, Some(goal(PROFILES, number)));
            }
        }
    }
}
