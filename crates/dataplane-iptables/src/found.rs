//! What of ours is in the kernel.
//!
//! Place on the line: kernel -> **readback** -> plan. Needed where the books are not to be trusted: after a
//! foreign change, or when nobody knows what the last process did. Names are all that a plan needs; to
//! compare what is there with what should be takes all of it.

pub(crate) mod elements;
pub(crate) mod link;
pub(crate) mod protocols;

use crate::parts::{Chain, ChainName, Table};
use crate::render::ways;
use crate::skeleton;
use crate::tools::Tools;
use elements::SetElements;
use link::Link;
use model::Family;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// The comment of our rules in the kernel's chains.
pub const COMMENT: &str = "portcullis";

/// How the table of link.nft is called, with the instance's name behind. No instance has a dot in its name,
/// so no other table of ours is called so.
pub(crate) const TABLE: &str = "portcullis.plane.";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Our chains with their rules, as iptables-save prints them.
    pub(crate) chains: BTreeMap<ChainName, Chain>,
    /// Our rules in the kernel's chains.
    pub(crate) hooks: BTreeMap<ChainName, Chain>,
    /// Our sets, by type and family.
    pub(crate) sets: BTreeMap<String, String>,
    /// Devices in `held`, and for how many seconds.
    pub(crate) held: BTreeMap<u32, u32>,
    /// Tables of link.nft, of whatever instance.
    pub(crate) tables: BTreeSet<String>,
    /// Ours has the chains and sets that it should have, and no others.
    pub(crate) link_stands: bool,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) names: Found,
    pub(crate) elements: BTreeMap<String, SetElements>,
    /// `None`: there is no such table.
    pub(crate) link: Option<Link>,
}

/// Numbers that are in use in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) profiles: BTreeSet<u16>,
    pub(crate) members: BTreeSet<u16>,
    /// Of bridges, by their device's index.
    pub(crate) bridges: BTreeMap<u32, u16>,
}

impl Whole {
    pub(crate) fn read(tools: &Tools, table: &str) -> io::Result<Self> {
        let mut names = Found::read_chains(tools)?;
        names.add_sets(&tools.ipset(&["list", "-terse"])?);
        Ok(Self {
            names,
            elements: elements::parse(&tools.ipset(&["save"])?),
            link: Link::read(tools, table)?,
        })
    }
}

impl Found {
    pub(crate) fn read(tools: &Tools, table: &str) -> io::Result<Self> {
        let mut found = Self::read_chains(tools)?;
        found.add_sets(&tools.ipset(&["list", "-terse"])?);
        found.tables = tables(tools)?;
        if found.tables.contains(table) {
            // A table that was emptied may have no such set.
            let held = tools.nft(&["-j", "list", "set", "bridge", table, "held"]);
            let held = held.ok().and_then(|json| Link::parse(&json).ok());
            found.held = held.map(|listed| listed.held()).unwrap_or_default();
            let terse = Link::parse(&tools.nft(&["-jt", "list", "table", "bridge", table])?)?;
            found.link_stands = terse.is_of(&skeleton::link(table));
        }
        Ok(found)
    }

    /// What of ours one back end of iptables has.
    pub(crate) fn read_chains(tools: &Tools) -> io::Result<Self> {
        let mut found = Self::default();
        for family in Family::BOTH {
            found.add_saved(family, &tools.save(family)?);
        }
        Ok(found)
    }

    pub(crate) fn has_chains(&self) -> bool {
        !(self.chains.is_empty() && self.hooks.is_empty())
    }

    pub(crate) fn numbers(&self) -> Numbers {
        let mut numbers = Numbers::default();
        for (name, rules) in &self.chains {
            let profile = ["pc-in-", "pc-out-"]
                .iter()
                .find_map(|way| leading(name.chain.strip_prefix(way)?));
            numbers.profiles.extend(profile);
            let bridges = rules
                .iter()
                .filter_map(|rule| ways::bridge_in(&name.chain, rule));
            numbers.bridges.extend(bridges);
        }
        for set in self.sets.keys() {
            let rest = set.strip_prefix("pc-").unwrap_or_default();
            numbers.profiles.extend(leading(rest));
            numbers
                .members
                .extend(rest.strip_prefix('m').and_then(leading));
        }
        numbers
    }

    pub(crate) fn add_saved(&mut self, family: Family, saved: &str) {
        let mut table = None;
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = Table::ALL.into_iter().find(|table| table.name() == name);
                continue;
            }
            let Some(table) = table else {
                continue;
            };
            let name = |chain: &str| ChainName {
                family,
                table,
                chain: chain.to_owned(),
            };
            if let Some(chain) = line.strip_prefix(':') {
                let chain = chain.split(' ').next().unwrap_or_default();
                if chain.starts_with("pc-") {
                    self.chains.entry(name(chain)).or_default();
                }
            } else if let Some(rule) = line.strip_prefix("-A ")
                && let Some((chain, rule)) = rule.split_once(' ')
            {
                let ours = rule.contains(&format!("--comment {COMMENT} "))
                    || rule.contains(&format!("--comment \"{COMMENT}\" "));
                if chain.starts_with("pc-") {
                    self.chains
                        .entry(name(chain))
                        .or_default()
                        .push(rule.to_owned());
                } else if ours {
                    self.hooks
                        .entry(name(chain))
                        .or_default()
                        .push(rule.to_owned());
                }
            }
        }
    }

    fn add_sets(&mut self, listed: &str) {
        let mut name = "";
        let mut set_type = "";
        for line in listed.lines() {
            if let Some(found) = line.strip_prefix("Name: ") {
                name = found;
            } else if let Some(found) = line.strip_prefix("Type: ") {
                set_type = found;
            } else if let Some(header) = line.strip_prefix("Header: ")
                && is_ours(name)
            {
                let mut words = header.split(' ').skip_while(|word| *word != "family");
                let family = words.nth(1).unwrap_or_default();
                self.sets
                    .insert(name.to_owned(), format!("{set_type} {family}"));
            }
        }
    }
}

/// The tables of link.nft, of whatever instance.
pub(crate) fn tables(tools: &Tools) -> io::Result<BTreeSet<String>> {
    let listed = tools.nft(&["list", "tables", "bridge"])?;
    let names = listed
        .lines()
        .filter_map(|line| line.split_whitespace().last());
    let ours = names.filter(|name| name.starts_with(TABLE));
    Ok(ours.map(str::to_owned).collect())
}

/// Our sets that no rule asks, as `ipset list -terse` has it.
pub(crate) fn unused(listed: &str) -> BTreeSet<String> {
    let mut name = "";
    let mut unused = BTreeSet::new();
    for line in listed.lines() {
        if let Some(found) = line.strip_prefix("Name: ") {
            name = found;
        } else if line == "References: 0" && is_ours(name) {
            unused.insert(name.to_owned());
        }
    }
    unused
}

/// The sets named as CloudStack's change names them are ours as well.
pub(crate) fn is_ours(set: &str) -> bool {
    set.starts_with("pc-") || matches!(set, "cs_notrack" | "cs_notrack6")
}

/// The number that a text begins with.
fn leading(text: &str) -> Option<u16> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text[..end.unwrap_or(text.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_told_from_what_is_not() {
        let saved = "\
# Generated
*mangle
:PREROUTING ACCEPT [1:2]
:pc-out - [0:0]
:other - [0:0]
-A PREROUTING -m mark --mark 0x1/0x1 -m comment --comment portcullis -j pc-out
-A PREROUTING -j other
-A pc-out -j ACCEPT
-A other -m comment --comment \"not portcullis \" -j RETURN
COMMIT
*nat
:pc-nat - [0:0]
COMMIT
";
        let mut found = Found::default();
        found.add_saved(Family::V4, saved);
        let name = |chain: &str| ChainName {
            family: Family::V4,
            table: Table::Mangle,
            chain: chain.to_owned(),
        };
        let out = BTreeMap::from([(name("pc-out"), vec!["-j ACCEPT".to_owned()])]);
        assert_eq!(found.chains, out);
        let hook = "-m mark --mark 0x1/0x1 -m comment --comment portcullis -j pc-out".to_owned();
        assert_eq!(
            found.hooks,
            BTreeMap::from([(name("PREROUTING"), vec![hook])])
        );
    }

    #[test]
    fn sets_are_known_by_name_type_and_family() {
        let mut found = Found::default();
        found.add_sets(
            "Name: pc-1-in4-port\nType: hash:net,port\nRevision: 8\n\
             Header: family inet hashsize 64 maxelem 4194304 counters comment\nReferences: 1\n\n\
             Name: i-2-104-VM\nType: hash:ip\nHeader: family inet hashsize 1024 maxelem 65536\n",
        );
        let expected = ("pc-1-in4-port".to_owned(), "hash:net,port inet".to_owned());
        assert_eq!(found.sets, BTreeMap::from([expected]));
    }

    #[test]
    fn a_set_that_a_rule_asks_is_in_use() {
        let listed = "Name: cs_notrack\nType: hash:ip\nReferences: 2\n\n\
             Name: pc-to-4\nType: hash:mac\nReferences: 0\n\nName: mine\nReferences: 0\n";
        assert_eq!(unused(listed), BTreeSet::from(["pc-to-4".to_owned()]));
    }

    #[test]
    fn numbers_in_use_are_read_off_names() {
        let mut found = Found::default();
        for chain in ["pc-in-7", "pc-out-12-live", "pc-in-by-1.3", "pc-in-start"] {
            let name = ChainName {
                family: Family::V6,
                table: Table::Mangle,
                chain: chain.to_owned(),
            };
            found.chains.insert(name, Chain::new());
        }
        for set in ["pc-3-in4-port", "pc-m5-6", "pc-to-4", "cs_notrack"] {
            found.sets.insert(set.to_owned(), String::new());
        }
        let expected = Numbers {
            profiles: BTreeSet::from([3, 7, 12]),
            members: BTreeSet::from([5]),
            bridges: BTreeMap::new(),
        };
        assert_eq!(found.numbers(), expected);
    }
}
