//! In which order the kernel gets from one state to another.
//!
//! Place on the line: parts -> **plan** -> steps. Pure.
//!
//! ```text
//! 1  sets        new sets, new elements           what others will refer to
//! 2  chains      new rules, old ones too          (only if 3 has something to switch)
//! 3  link        marks, guard: one transaction    the switch
//! 4  sets        marks of what the host itself sends
//! 5  chains      old rules and chains go
//! 6  sets        old elements and sets go         what nothing refers to any more
//! ```
//! Rules only permit. So at each moment a packet is permitted by an old rule or by a new one, and what both
//! policies permit is never dropped. What an old rule and a new member would permit together is kept apart by
//! numbers (`renew`).
//! Knows nothing of: processes, files, what failed before.

use crate::element::Element;
use crate::found::Found;
use crate::link::{ForATime, LinkChange};
use crate::parts::{Chain, ChainName, Content, IpSet, Part, Table};
use crate::render::{Input, Inputs};
use crate::sets::SetChange;
use crate::skeleton::{self, Gates};
use model::Family;
use netfilter::ipset::{self, Said};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What is done at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) work: Work,
    /// Objects that it changes.
    pub(crate) writes: u64,
}

/// Scripts are what a program gets on its standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Ipset(String),
    Iptables(Family, String),
    Nft(String),
    Sets(Vec<SetChange>),
    Link(LinkChange),
}

impl Step {
    /// `None`: nothing is to be done.
    pub(crate) fn new(work: Work, writes: u64) -> Option<Self> {
        let is_empty = match &work {
            Work::Ipset(script) | Work::Iptables(_, script) | Work::Nft(script) => {
                script.is_empty()
            }
            Work::Sets(changes) => changes.is_empty(),
            Work::Link(change) => change.len() == 0,
        };
        (!is_empty).then_some(Self { work, writes })
    }
}

/// What differs between two states.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    pub(crate) elements_gone: BTreeSet<Element>,
    pub(crate) elements_come: BTreeSet<Element>,
    pub(crate) sets_gone: BTreeSet<String>,
    pub(crate) sets_come: BTreeMap<String, IpSet>,
    /// Of sets that stay.
    pub(crate) members: SetChanges,
    /// Of those that mark what the host itself sends.
    pub(crate) marks: SetChanges,
    pub(crate) chains_gone: BTreeMap<ChainName, Chain>,
    /// New ones and changed ones, with what they were.
    pub(crate) chains_come: BTreeMap<ChainName, (Chain, Option<Chain>)>,
}

/// By set: what it loses and gains.
#[derive(Clone, Debug, Default)]
pub(crate) struct SetChanges {
    gone: BTreeMap<String, Vec<ipset::Element>>,
    come: BTreeMap<String, Vec<(ipset::Element, Said)>>,
}

/// Renders what differs, and nothing else.
pub(crate) fn change(old: &Inputs, new: &Inputs) -> Change {
    let mut change = Change::default();
    for (key, before, after) in policy::differing(&old.parts, &new.parts) {
        match (before, after) {
            (Some(before), Some(after)) => {
                let (before, after) = Input::apart(before, after);
                change.between(before.render(key), after.render(key));
            }
            _ => {
                let [before, after] = [before, after]
                    .map(|input| input.map_or_else(Part::default, |input| input.render(key)));
                change.between(before, after);
            }
        }
    }
    // What goes from one part and comes in another stays.
    let moved: BTreeSet<Element> = change
        .elements_gone
        .intersection(&change.elements_come)
        .cloned()
        .collect();
    change
        .elements_gone
        .retain(|element| !moved.contains(element));
    change
        .elements_come
        .retain(|element| !moved.contains(element));
    change
}

impl Change {
    fn between(&mut self, mut before: Part, after: Part) {
        self.elements_gone
            .extend(before.elements.difference(&after.elements).cloned());
        self.elements_come
            .extend(after.elements.difference(&before.elements).cloned());
        for (name, set) in after.sets {
            match before.sets.remove(&name) {
                None => drop(self.sets_come.insert(name, set)),
                Some(old) => {
                    let (gone, come) = crate::parts::change(&old, &set);
                    let changes = match set.content {
                        Content::NetDevices(_) => &mut self.marks,
                        _ => &mut self.members,
                    };
                    changes.gone.insert(name.clone(), gone);
                    changes.come.insert(name, come);
                }
            }
        }
        self.sets_gone.extend(before.sets.into_keys());
        for (name, chain) in after.chains {
            let old = before.chains.remove(&name);
            if old.as_ref() != Some(&chain) {
                self.chains_come.insert(name, (chain, old));
            }
        }
        self.chains_gone.append(&mut before.chains);
    }
}

/// The steps of a change. `holds`: ports' devices at which TCP flows start by SYN only from now on, for so
/// many seconds.
pub(crate) fn plan(change: &Change, table: &str, holds: &BTreeMap<u32, u32>) -> Vec<Step> {
    let link = link(change, table, holds);
    let mut steps = vec![sets_that_come(change)];
    let switches = link.is_some();
    for family in Family::BOTH {
        steps.push(chains_that_come(change, family, switches));
    }
    steps.push(link);
    steps.push(marks_of_the_hosts_own(change));
    for family in Family::BOTH {
        steps.push(chains_that_go(change, family, switches));
    }
    steps.push(sets_that_go(change));
    steps.into_iter().flatten().collect()
}

fn sets_that_come(change: &Change) -> Option<Step> {
    let come = change.sets_come.iter();
    let come = come.map(|(name, set)| SetChange::Create(name.clone(), set.clone()));
    sets(come.chain(change.members.additions()))
}

impl SetChanges {
    fn additions(&self) -> impl Iterator<Item = SetChange> {
        let come = self.come.iter().filter(|(_, some)| !some.is_empty());
        come.map(|(name, some)| SetChange::Add(name.clone(), some.clone()))
    }

    fn deletions(&self) -> impl Iterator<Item = SetChange> {
        let gone = self.gone.iter().filter(|(_, some)| !some.is_empty());
        gone.map(|(name, some)| SetChange::Delete(name.clone(), some.clone()))
    }
}

/// As near to the link as can be: before it come the chains that the new marks lead to, behind it go those of
/// the old.
fn marks_of_the_hosts_own(change: &Change) -> Option<Step> {
    sets(change.marks.additions().chain(change.marks.deletions()))
}

fn sets_that_go(change: &Change) -> Option<Step> {
    let gone = change.sets_gone.iter().cloned().map(SetChange::Destroy);
    sets(change.members.deletions().chain(gone))
}

fn sets(changes: impl Iterator<Item = SetChange>) -> Option<Step> {
    let changes: Vec<SetChange> = changes.collect();
    let writes = changes.iter().map(SetChange::writes).sum();
    Step::new(Work::Sets(changes), writes)
}

/// Before the switch: rules that come beside those that go, or, where nothing is switched, all of it.
fn chains_that_come(change: &Change, family: Family, switches: bool) -> Option<Step> {
    let come = change
        .chains_come
        .iter()
        .filter(|(name, _)| name.family == family);
    // One that only loses rules loses them behind the switch.
    let only_shrinks = |(chain, old): &(Chain, Option<Chain>)| {
        let old = old.as_ref().filter(|_| switches);
        old.is_some_and(|old| shrinks(chain, old) && !shrinks(old, chain))
    };
    let come = come.filter(|(_, change)| !only_shrinks(change));
    let come = come.map(|(name, (chain, old))| {
        let mut rules = chain.clone();
        if switches && let Some(old) = old {
            rules.extend(old.iter().filter(|rule| !chain.contains(rule)).cloned());
        }
        (name, rules)
    });
    restore(family, come, &[], &BTreeMap::new())
}

fn chains_that_go(change: &Change, family: Family, switches: bool) -> Option<Step> {
    let shrinks = |chain: &Chain, old: &Option<Chain>| {
        switches && old.as_ref().is_some_and(|old| shrinks(chain, old))
    };
    let final_ones = change
        .chains_come
        .iter()
        .filter(|(name, _)| name.family == family);
    let final_ones = final_ones
        .filter(|(_, (chain, old))| shrinks(chain, old))
        .map(|(name, (chain, _))| (name, chain.clone()));
    let gone = change
        .chains_gone
        .keys()
        .filter(|name| name.family == family);
    let gone: Vec<&ChainName> = gone.collect();
    restore(family, final_ones, &gone, &BTreeMap::new())
}

/// Loses a rule.
fn shrinks(chain: &Chain, old: &Chain) -> bool {
    old.iter().any(|rule| !chain.contains(rule))
}

/// One commit per table: chains as they are to be, chains that go, and lines about the kernel's chains. A
/// chain that goes is emptied first, so that those that refer to each other can all go.
fn restore<'a>(
    family: Family,
    chains: impl Iterator<Item = (&'a ChainName, Chain)>,
    gone: &[&ChainName],
    hooks: &BTreeMap<Table, String>,
) -> Option<Step> {
    let chains: Vec<_> = chains.collect();
    let mut script = String::new();
    let mut writes = 0;
    for table in Table::ALL {
        let here: Vec<_> = chains
            .iter()
            .filter(|(name, _)| name.table == table)
            .collect();
        let gone: Vec<_> = gone.iter().filter(|name| name.table == table).collect();
        let hooks = hooks.get(&table);
        if here.is_empty() && gone.is_empty() && hooks.is_none() {
            continue;
        }
        let _ = writeln!(script, "*{}", table.name());
        for (name, _) in &here {
            let _ = writeln!(script, ":{} - [0:0]", name.chain);
        }
        for name in &gone {
            let _ = writeln!(script, ":{} - [0:0]", name.chain);
        }
        for (name, rules) in here {
            writes += 1 + rules.len() as u64;
            for rule in rules {
                let _ = writeln!(script, "-A {} {rule}", name.chain);
            }
        }
        if let Some(hooks) = hooks {
            writes += hooks.lines().count() as u64;
            script.push_str(hooks);
        }
        for name in gone {
            writes += 1;
            let _ = writeln!(script, "-X {}", name.chain);
        }
        script.push_str("COMMIT\n");
    }
    Step::new(Work::Iptables(family, script), writes)
}

/// One transaction: what goes, then what comes.
fn link(change: &Change, table: &str, holds: &BTreeMap<u32, u32>) -> Option<Step> {
    let holds = holds.iter().map(|(device, seconds)| ForATime {
        set: "held",
        device: *device,
        seconds: *seconds,
    });
    let change = LinkChange {
        gone: change.elements_gone.clone(),
        come: change.elements_come.clone(),
        for_a_time: holds.collect(),
        ..LinkChange::of(table)
    };
    let writes = change.len() as u64;
    Step::new(Work::Link(change), writes)
}

/// All of it anew, whatever is there. What was found stays until the link has switched, as in a change: profiles
/// and sets of members have other names than those that are there.
pub(crate) fn rebuild(inputs: &Inputs, gates: &Gates, found: &Found, table: &str) -> Vec<Step> {
    let whole = change(&Inputs::default(), inputs);
    let is_late = |name: &str, set: &IpSet| {
        matches!(set.content, Content::NetDevices(_)) && found.sets.contains_key(name)
    };
    let (late, early): (Vec<_>, Vec<_>) = whole
        .sets_come
        .iter()
        .partition(|(name, set)| is_late(name, set));
    let mut steps = Vec::new();
    steps.extend(sets_anew(&early, found));
    let chains: BTreeMap<&ChainName, &Chain> = whole
        .chains_come
        .iter()
        .map(|(name, (chain, _))| (name, chain))
        .collect();
    let old = |name: &ChainName| found.chains.get(name).into_iter().flatten();
    for family in Family::BOTH {
        let come = chains.iter().map(|(name, chain)| {
            let stays = old(name).filter(|rule| !chain.contains(rule));
            (*name, chain.iter().chain(stays).cloned().collect())
        });
        let gates_come = gates.chains.iter().map(|(name, gate)| (name, gate.clone()));
        let come = gates_come
            .chain(come)
            .filter(|(name, _)| name.family == family);
        let hooks = hooks(family, &gates.hooks, &found.hooks);
        steps.extend(restore(family, come, &[], &hooks));
    }
    steps.extend(link_anew(&whole, found, table));
    steps.extend(sets_anew(&late, found));
    for family in Family::BOTH {
        let shrinks = |name: &ChainName, chain: &Chain| old(name).any(|rule| !chain.contains(rule));
        let final_ones = chains
            .iter()
            .filter(|(name, chain)| name.family == family && shrinks(name, chain))
            .map(|(name, chain)| (*name, (*chain).clone()));
        let stays = |name: &ChainName| chains.contains_key(name) || gates.chains.contains_key(name);
        let gone = found.chains.keys();
        let gone = gone.filter(|name| name.family == family && !stays(name));
        let gone: Vec<&ChainName> = gone.collect();
        steps.extend(restore(family, final_ones, &gone, &BTreeMap::new()));
    }
    let gone = found
        .sets
        .keys()
        .filter(|name| !whole.sets_come.contains_key(*name));
    steps.extend(sets(gone.cloned().map(SetChange::Destroy)));
    steps
}

fn sets_anew(anew: &[(&String, &IpSet)], found: &Found) -> Option<Step> {
    let anew = anew.iter().map(|(name, set)| {
        let (name, set) = ((*name).clone(), (*set).clone());
        match found.sets.contains_key(&name) {
            true => SetChange::Replace(name, set),
            false => SetChange::Create(name, set),
        }
    });
    sets(anew)
}

/// The whole table in one transaction; devices that are held stay so. Where it stands, it is filled anew: of a
/// table that goes and one that comes, a packet might meet neither's rules.
fn link_anew(whole: &Change, found: &Found, table: &str) -> Option<Step> {
    let text = skeleton::link(table);
    let mut script = String::new();
    if found.link_stands {
        let _ = writeln!(script, "flush table bridge {table}");
        for set in skeleton::sets(&text).filter(|set| !set.keeps) {
            let _ = writeln!(script, "flush {} bridge {table} {}", set.kind, set.name);
        }
    } else {
        let _ = writeln!(
            script,
            "add table bridge {table}\ndelete table bridge {table}"
        );
    }
    script.push_str(&text);
    let elements = LinkChange {
        come: whole.elements_come.clone(),
        ..LinkChange::of(table)
    };
    script.push_str(&elements.script());
    if !found.link_stands {
        for (device, seconds) in &found.held {
            let held = ForATime {
                set: "held",
                device: *device,
                seconds: *seconds,
            };
            script.push_str(&held.addition(table));
        }
    }
    let writes = 1 + whole.elements_come.len() + found.held.len();
    Step::new(Work::Nft(script), writes as u64)
}

/// Removes all that was found but its sets, which have to be out of use first.
pub(crate) fn removal(found: &Found, table: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let script = format!("add table bridge {table}\ndelete table bridge {table}\n");
    // First the link: what it dropped, the gates don't.
    steps.extend(Step::new(Work::Nft(script), 1));
    steps.extend(chains_removal(found));
    steps
}

pub(crate) fn sets_removal(unused: &BTreeSet<String>) -> Vec<Step> {
    let gone = unused.iter().cloned().map(SetChange::Destroy);
    sets(gone).into_iter().collect()
}

/// Removes what one back end of iptables has of us.
pub(crate) fn chains_removal(found: &Found) -> Vec<Step> {
    let none = BTreeMap::new();
    let families = Family::BOTH.into_iter();
    let steps = families.filter_map(|family| {
        let gone = found.chains.keys().filter(|name| name.family == family);
        let gone: Vec<&ChainName> = gone.collect();
        let hooks = hooks(family, &none, &found.hooks);
        restore(family, std::iter::empty(), &gone, &hooks)
    });
    steps.collect()
}

/// Writes the chains and hooks that were found, where there are none of ours.
pub(crate) fn chains_copy(found: &Found) -> Vec<Step> {
    let none = BTreeMap::new();
    let families = Family::BOTH.into_iter();
    let steps = families.filter_map(|family| {
        let chains = found.chains.iter();
        let chains = chains.filter(|(name, _)| name.family == family);
        let chains = chains.map(|(name, chain)| (name, chain.clone()));
        let hooks = hooks(family, &found.hooks, &none);
        restore(family, chains, &[], &hooks)
    });
    steps.collect()
}

/// By table: lines that put our rules where they belong, and others of ours away.
fn hooks(
    family: Family,
    wanted: &BTreeMap<ChainName, Chain>,
    found: &BTreeMap<ChainName, Chain>,
) -> BTreeMap<Table, String> {
    let mut lines: BTreeMap<Table, String> = BTreeMap::new();
    for (name, rules) in found.iter().filter(|(name, _)| name.family == family) {
        let script = lines.entry(name.table).or_default();
        for rule in rules {
            let _ = writeln!(script, "-D {} {rule}", name.chain);
        }
    }
    for (name, rules) in wanted.iter().filter(|(name, _)| name.family == family) {
        let script = lines.entry(name.table).or_default();
        for rule in rules.iter().rev() {
            let _ = writeln!(script, "-I {} 1 {rule}", name.chain);
        }
    }
    lines
}

#[cfg(test)]
mod tests;
