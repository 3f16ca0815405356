//! Is what the kernel holds what it should hold?
//!
//! Place on the line: beside it: parts and read back -> **differences**, in words for operators.
//! Of the rules of link.nft their number by chain is compared; of all else each word.

use crate::found::Whole;
use crate::found::elements::{self, SetElements};
use crate::found::link::{self, Link};
use crate::found::protocols::Protocols;
use crate::link::range_that_nft_wrote;
use crate::parts::{Chain, ChainName};
use crate::plan;
use crate::render::Inputs;
use crate::skeleton::{self, Gates};
use std::collections::{BTreeMap, BTreeSet};

/// Something is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub at: Place,
    /// For an operator.
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// What leads packets to our rules: rules in the kernel's own chains, settings.
    Hooks,
    /// Chains and sets.
    Rules,
    /// The table of link.nft.
    Guard,
}

pub(crate) struct Expected {
    chains: BTreeMap<ChainName, Chain>,
    hooks: BTreeMap<ChainName, Chain>,
    sets: BTreeMap<String, Set>,
    elements: BTreeMap<String, BTreeMap<String, Option<String>>>,
    rules: BTreeMap<String, usize>,
}

struct Set {
    type_and_family: String,
    elements: SetElements,
}

impl Expected {
    pub(crate) fn of(inputs: &Inputs, gates: &Gates, table: &str) -> Self {
        let whole = plan::change(&Inputs::default(), inputs);
        let constant = range_that_nft_wrote();
        let come = whole.chains_come.into_iter();
        let come = come.map(|(name, (chain, _))| (name, chain));
        let sets = whole.sets_come.iter().map(|(name, set)| {
            let set = Set {
                type_and_family: set.type_and_family(),
                elements: elements::expected(set),
            };
            (name.clone(), set)
        });
        Self {
            chains: gates.chains.clone().into_iter().chain(come).collect(),
            hooks: gates.hooks.clone(),
            sets: sets.collect(),
            elements: link::expected_by_set(whole.elements_come.iter().chain([&constant])),
            rules: link::rules_of(&skeleton::link(table)),
        }
    }

    /// How many elements each set has.
    pub(crate) fn sizes(&self) -> BTreeMap<String, u32> {
        let sets = self.sets.iter();
        sets.map(|(name, set)| (name.clone(), set.elements.len() as u32))
            .collect()
    }

    /// Empty: it is as it should be.
    pub(crate) fn differences(&self, found: &Whole, table: &str) -> Vec<Difference> {
        let mut told = Vec::new();
        let (rules, hooks) = (Place::Rules, Place::Hooks);
        chains(
            &self.chains,
            &found.names.chains,
            (rules, "chain"),
            &mut told,
        );
        let ours_in = (hooks, "rules of ours in");
        chains(&self.hooks, &found.names.hooks, ours_in, &mut told);
        self.sets(found, &mut told);
        match &found.link {
            Some(link) => self.link(link, table, &mut told),
            None => told.push(Difference {
                at: Place::Guard,
                what: format!("table bridge {table} is gone"),
            }),
        }
        told
    }

    fn sets(&self, found: &Whole, told: &mut Vec<Difference>) {
        let mut gone = BTreeSet::new();
        let mut changed = BTreeSet::new();
        for (name, set) in &self.sets {
            match found.names.sets.get(name) {
                None => drop(gone.insert(name.as_str())),
                Some(type_and_family) => {
                    let elements = found.elements.get(name);
                    if *type_and_family != set.type_and_family
                        || elements.is_none_or(|elements| *elements != set.elements)
                    {
                        changed.insert(name.as_str());
                    }
                }
            }
        }
        let more = found.names.sets.keys().map(String::as_str);
        let more = more.filter(|name| !self.sets.contains_key(*name)).collect();
        tell((Place::Rules, "set"), &gone, "gone", told);
        tell((Place::Rules, "set"), &changed, "changed", told);
        tell((Place::Rules, "set"), &more, "not wanted", told);
    }

    fn link(&self, found: &Link, table: &str, told: &mut Vec<Difference>) {
        let of_table = format!("table bridge {table}: chain");
        let (gone, changed) = compared(&self.rules, &found.rules);
        tell((Place::Guard, &of_table), &gone, "gone", told);
        tell((Place::Guard, &of_table), &changed, "changed", told);
        // What comes and goes by itself.
        let moving: BTreeSet<String> = skeleton::counting_sets()
            .chain(["held", "full"].map(str::to_owned))
            .collect();
        let none = BTreeMap::new();
        let names = self.elements.keys().chain(found.elements.keys());
        let changed = names.filter(|name| {
            let wanted = self.elements.get(*name).unwrap_or(&none);
            let there = found.elements.get(*name).unwrap_or(&none);
            !moving.contains(*name) && wanted != there
        });
        let changed: BTreeSet<&str> = changed.map(String::as_str).collect();
        let set = format!("table bridge {table}: set");
        tell((Place::Guard, &set), &changed, "changed", told);
        let gone = moving
            .iter()
            .filter(|name| !found.elements.contains_key(*name));
        let gone = gone.map(String::as_str).collect();
        tell((Place::Guard, &set), &gone, "gone", told);
    }
}

fn chains(
    wanted: &BTreeMap<ChainName, Chain>,
    found: &BTreeMap<ChainName, Chain>,
    (at, what): (Place, &str),
    told: &mut Vec<Difference>,
) {
    let protocols = Protocols::read();
    let places: BTreeSet<_> = wanted
        .keys()
        .chain(found.keys())
        .map(|name| (name.family, name.table))
        .collect();
    for (family, table) in places {
        let here = |chains: &BTreeMap<ChainName, Chain>| -> BTreeMap<String, Chain> {
            let chains = chains.iter();
            let here = chains.filter(|(name, _)| name.family == family && name.table == table);
            let rules = |chain: &Chain| chain.iter().map(|r| protocols.in_numbers(r)).collect();
            here.map(|(name, chain)| (name.chain.clone(), rules(chain)))
                .collect()
        };
        let (wanted, found) = (here(wanted), here(found));
        let (gone, changed) = compared(&wanted, &found);
        let more = found.keys().map(String::as_str);
        let more = more.filter(|name| !wanted.contains_key(*name)).collect();
        let what = format!("{family}, table {}: {what}", table.name());
        tell((at, &what), &gone, "gone", told);
        tell((at, &what), &changed, "changed", told);
        tell((at, &what), &more, "not wanted", told);
    }
}

/// Names that are not there, and those of which something else is there.
fn compared<'a, T: PartialEq>(
    wanted: &'a BTreeMap<String, T>,
    found: &BTreeMap<String, T>,
) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
    let mut gone = BTreeSet::new();
    let mut changed = BTreeSet::new();
    for (name, value) in wanted {
        match found.get(name) {
            None => drop(gone.insert(name.as_str())),
            Some(there) if there != value => drop(changed.insert(name.as_str())),
            Some(_) => {}
        }
    }
    (gone, changed)
}

fn tell((at, what): (Place, &str), names: &BTreeSet<&str>, how: &str, told: &mut Vec<Difference>) {
    const NAMED: usize = 3;
    if names.is_empty() {
        return;
    }
    let named: Vec<&str> = names.iter().take(NAMED).copied().collect();
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = format!("{what} {}{more} {how}", named.join(", "));
    told.push(Difference { at, what });
}
