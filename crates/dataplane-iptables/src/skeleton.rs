//! What stands in the kernel whatever the policy: gates.rules and link.nft, with numbers for words.
//!
//! Place on the line: beside the parts. Pure.

use crate::mark;
use crate::parts::{Chain, ChainName, Table};
use model::{DropReason, Family};
use std::collections::BTreeMap;

/// Chains of ours, and rules for chains that are the kernel's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gates {
    pub(crate) chains: BTreeMap<ChainName, Chain>,
    /// By the chain that they go into, as its first.
    pub(crate) hooks: BTreeMap<ChainName, Chain>,
}

const GATES: &str = include_str!("gates.rules");
const LINK: &str = include_str!("link.nft");

pub(crate) fn gates() -> Gates {
    let mut gates = Gates::default();
    for family in Family::BOTH {
        let (mut table, mut chain) = (None, String::new());
        for line in GATES.lines() {
            let other = match family {
                Family::V4 => '6',
                Family::V6 => '4',
            };
            if line.is_empty() || line.starts_with(['#', other]) || line == "COMMIT" {
                continue;
            }
            let line = line.strip_prefix(['4', '6']).unwrap_or(line);
            if let Some(name) = line.strip_prefix('*') {
                table = Table::ALL.into_iter().find(|table| table.name() == name);
                continue;
            }
            let table = table.expect("gates.rules names one of the tables first");
            if let Some(name) = line.strip_prefix(':') {
                name.clone_into(&mut chain);
            }
            let name = ChainName {
                family,
                table,
                chain: chain.clone(),
            };
            let ours = chain.starts_with("pc-");
            let of = if ours {
                &mut gates.chains
            } else {
                &mut gates.hooks
            };
            let rules = of.entry(name).or_default();
            if let Some(rule) = line.strip_prefix(&format!("-A {chain} ")) {
                rules.push(filled(rule, family));
            }
        }
    }
    gates
}

/// The table, empty but for its rules.
pub(crate) fn link(table: &str) -> String {
    let counting = counting_sets().map(|name| {
        format!("\tset {name} {{ type iface_index; size 65535; flags dynamic; counter; }}\n")
    });
    let text = LINK.replace("\tCOUNTING_SETS\n", &counting.collect::<String>());
    let mut out = String::with_capacity(text.len() * 2);
    for line in text.lines() {
        out.push_str(&dropping(line));
        out.push('\n');
    }
    words(&out, |word| match word {
        "TABLE" => Some(table.to_owned()),
        _ => mark_word(word).map(|mark| format!("{mark:#010x}")),
    })
}

/// A set or a map of the table.
pub(crate) struct LinkSet<'a> {
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
    /// What is in it comes of packets or ends by itself; it is not written for a target.
    pub(crate) keeps: bool,
}

/// Of the table's text.
pub(crate) fn sets(text: &str) -> impl Iterator<Item = LinkSet<'_>> {
    text.lines().filter_map(|line| {
        let (kind, rest) = line.strip_prefix('\t')?.split_once(' ')?;
        let (name, about) = rest.split_once(" {")?;
        matches!(kind, "set" | "map").then(|| LinkSet {
            kind,
            name,
            keeps: about.contains("dynamic") || about.contains("timeout"),
        })
    })
}

/// The reasons that are counted in link.nft, and how they are called there.
pub(crate) const DROPS: [(DropReason, &str); 15] = [
    (DropReason::NotReady, "not_ready"),
    (DropReason::VlanTag, "vlan_tag"),
    (DropReason::Ethertype, "ethertype"),
    (DropReason::BadHeader, "bad_header"),
    (DropReason::SpoofedMac, "spoofed_mac"),
    (DropReason::SpoofedArp, "spoofed_arp"),
    (DropReason::SpoofedNd, "spoofed_nd"),
    (DropReason::RogueRa, "rogue_ra"),
    (DropReason::RogueQuery, "rogue_query"),
    (DropReason::RogueDhcp, "rogue_dhcp"),
    (DropReason::SpoofedIp, "spoofed_ip"),
    (DropReason::ForeignDestination, "foreign_destination"),
    (DropReason::Martian, "martian"),
    (DropReason::NoRule, "no_rule"),
    (DropReason::FlowBudget, "flow_budget"),
];

/// What passed and what was dropped, by device.
pub(crate) const PASSED_FROM: &str = "passed_from";
pub(crate) const PASSED_TO: &str = "passed_to";

/// The sets in which frames are counted.
pub(crate) fn counting_sets() -> impl Iterator<Item = String> {
    let drops = DROPS.iter();
    let drops = drops.flat_map(|(_, name)| ["from", "to"].map(|way| drop_set(way, name)));
    [PASSED_FROM, PASSED_TO]
        .map(str::to_owned)
        .into_iter()
        .chain(drops)
}

pub(crate) fn drop_set(way: &str, name: &str) -> String {
    format!("drop_{way}_{name}")
}

/// `DROP_FROM x`: counted for the device that it came from, and dropped.
fn dropping(line: &str) -> String {
    for (word, way, device) in [("DROP_FROM ", "from", "iif"), ("DROP_TO ", "to", "oif")] {
        if let Some((rule, reason)) = line.split_once(word) {
            let set = drop_set(way, reason);
            return format!("{rule}update @{set} {{ {device} }} drop");
        }
    }
    line.to_owned()
}

fn mark_word(word: &str) -> Option<u32> {
    Some(match word {
        "JUDGED" => mark::JUDGED,
        "INFRASTRUCTURE" => mark::INFRASTRUCTURE,
        "UNTRACKED" => mark::UNTRACKED,
        "MANY" => mark::MANY,
        "HELD" => mark::HELD,
        "OPEN_OUT" => mark::OPEN_OUT,
        "OPEN_IN" => mark::OPEN_IN,
        "GATE" => mark::GATE,
        "PIECES" => mark::PIECES,
        "NOT_PIECES" => !mark::PIECES,
        "LIVE" => mark::LIVE,
        "FULL" => mark::FULL,
        "BRIDGE" => mark::BRIDGE,
        "NO_BRIDGE" => !mark::BRIDGE,
        "STARTED_OUT" => mark::STARTED_OUT,
        "STARTED_IN" => mark::STARTED_IN,
        _ => return None,
    })
}

fn filled(rule: &str, family: Family) -> String {
    let (digit, six) = match family {
        Family::V4 => ("4", ""),
        Family::V6 => ("6", "6"),
    };
    let rule = rule.replace("cs_notrackSIX", &format!("cs_notrack{six}"));
    let rule = rule.replace("pc-served-F", &format!("pc-served-{digit}"));
    let rule = rule.replace("pc-to-F", &format!("pc-to-{digit}"));
    words(&rule, |word| {
        mark_word(word).map(|mark| format!("{mark:#x}"))
    })
}

/// Replaces words: runs of capitals and `_`.
fn words(text: &str, with: impl Fn(&str) -> Option<String>) -> String {
    let is_word = |c: char| c.is_ascii_uppercase() || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(is_word) {
        let (before, from) = rest.split_at(begin);
        out.push_str(before);
        let end = from.find(|c| !is_word(c)).unwrap_or(from.len());
        let (word, behind) = from.split_at(end);
        let inside = before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            || behind.starts_with(|c: char| c.is_ascii_alphanumeric());
        match with(word).filter(|_| !inside) {
            Some(value) => out.push_str(&value),
            None => out.push_str(word),
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_is_left_and_no_rule_is_lost() {
        let gates = gates();
        let all = gates.chains.values().chain(gates.hooks.values()).flatten();
        // What iptables itself writes in capitals.
        let known = [
            "CT",
            "ACCEPT",
            "RETURN",
            "MARK",
            "CONNMARK",
            "SET",
            "ESTABLISHED",
            "REPLY",
            "RELATED",
            "NEW",
            "FIN",
            "SYN",
            "RST",
            "ACK",
            "ORIGINAL",
        ];
        let mut rules = 0;
        for rule in all {
            rules += 1;
            words(rule, |word| {
                let left = word.len() > 1 && !known.contains(&word);
                assert!(!left, "{word} in {rule}");
                None
            });
        }
        let mut expected = 0;
        for line in GATES.lines() {
            expected += match line.as_bytes() {
                [b'-', ..] => 2,
                [b'4' | b'6', ..] => 1,
                _ => 0,
            };
        }
        assert_eq!(rules, expected);
    }
}
