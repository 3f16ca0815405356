//! Which rules in the script's chains are of its making, in all of its versions.
//!
//! What an operator has put among them is permitted or denied by nothing that the script was told, so
//! it has no place in our state: it is said. The chains of a VM's rules are `chains`' matter.

use super::dump::{Chains, Clause, Rule};
use super::names::{self, APPROVED, BridgePart, ROUTED};
use super::{Doubt, Dump};
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// A rule's clauses, in any order, and behind `>` what becomes of the packet. `DEV` is any device,
/// `SET` a VM's set, `LL` a link-local address, `VM` a VM's chain, `PASS` either version's way to
/// permit; `IN`, `OUT` and so on are short for a clause.
const OF_GUARDS: &[&str] = &[
    // Both families.
    "--state RELATED,ESTABLISHED > PASS",
    "IN; --state RELATED,ESTABLISHED > PASS",
    "OUT; --state RELATED,ESTABLISHED > PASS",
    "IN; NOT-OWN > DROP",
    "OUT; NOT-TO > DROP",
    "IN; OWN; -p udp; --dport 53 > PASS",
    "IN; OWN; -p tcp; --dport 53 > PASS",
    "IN; OWN > VM",
    "OUT > VM",
    "IN > DROP",
    "OUT > DROP",
    // IPv4: DHCP, and a pass that nobody asks for any more.
    "IN; -p udp; --sport 68; --dport 67 > PASS",
    "OUT; -p udp; --sport 67; --dport 68 > PASS",
    "IN; -p udp; --sport 67 > DROP",
    "IN; -s ADDRESS > PASS",
    // IPv6: discovery, errors, multicast membership, DHCP.
    "OUT; -s fe80::/64; -d ff02::1/128; -p ipv6-icmp; --icmpv6-type 134; --hl-eq 255 > PASS",
    "IN; -d ff02::2/128; -p ipv6-icmp; --icmpv6-type 133; --hl-eq 255 > PASS",
    "IN; -p ipv6-icmp; --icmpv6-type 134 > DROP",
    "IN; -p ipv6-icmp; --icmpv6-type 135; --hl-eq 255 > PASS",
    "OUT; -p ipv6-icmp; --icmpv6-type 135; --hl-eq 255 > PASS",
    "IN; OWN; -p ipv6-icmp; --icmpv6-type 136; --hl-eq 255 > PASS",
    "OUT; -p ipv6-icmp; --icmpv6-type 136; --hl-eq 255 > PASS",
    "IN; OWN; -p ipv6-icmp; --icmpv6-type 1 > PASS",
    "OUT; -p ipv6-icmp; --icmpv6-type 1 > PASS",
    "IN; OWN; -p ipv6-icmp; --icmpv6-type 2 > PASS",
    "OUT; -p ipv6-icmp; --icmpv6-type 2 > PASS",
    "IN; OWN; -p ipv6-icmp; --icmpv6-type 3 > PASS",
    "OUT; -p ipv6-icmp; --icmpv6-type 3 > PASS",
    "IN; OWN; -p ipv6-icmp; --icmpv6-type 4 > PASS",
    "OUT; -p ipv6-icmp; --icmpv6-type 4 > PASS",
    "IN; -d ff02::16/128; -p ipv6-icmp > PASS",
    "IN; -s LL; -d ff02::1:2/128; -p udp; --sport 546 > PASS",
    "OUT; -s fe80::/64; -d LL; -p udp; --dport 546 > PASS",
    "IN; ! -d fe80::/64; -p udp; --sport 547 > DROP",
    // Direct routing.
    "TO; -p ipv6-icmp; --icmpv6-type 1 > PASS",
    "TO; -p ipv6-icmp; --icmpv6-type 2 > PASS",
    "TO; -p ipv6-icmp; --icmpv6-type 3 > PASS",
    "TO; -p ipv6-icmp; --icmpv6-type 4 > PASS",
    "TO > VM",
    "TO; --state RELATED,ESTABLISHED > PASS",
    "IN; --mark APPROVED > PASS",
    "TO > DROP",
];
const OF_BRIDGES: &[&str] = &[
    "--state RELATED,ESTABLISHED > PASS",
    "--physdev-is-in > BRIDGE-IN",
    "--physdev-is-out > BRIDGE-OUT",
    "OUT > PASS",
];
const TO_VMS: &[&str] = &["IN > VM", "OUT > VM", "TO > VM"];
const OF_ROUTING: &[&str] = &[
    "> CLEAR",
    "> BRIDGE-IN",
    "> BRIDGE-OUT",
    "--mark APPROVED > PASS",
    "-i DEV > BRIDGE-IN",
    "-i DEV; ! --mark APPROVED > DROP",
    "-o DEV > BRIDGE-OUT",
    "-o DEV > DROP",
];
const OF_SYSTEM_VMS: &[&str] = &["IN > PASS", "> PASS"];

const SHORT: &[(&str, &str)] = &[
    ("IN", "--physdev-in DEV"),
    ("OUT", "--physdev-out DEV"),
    ("OWN", "--match-set SET src"),
    ("NOT-OWN", "! --match-set SET src"),
    ("TO", "--match-set SET dst"),
    ("NOT-TO", "! --match-set SET dst"),
];

/// Rules of others in the chains of bridges, of guards and of system VMs.
pub(super) fn rules(dump: Dump, filter: &Chains<'_>, guards: &BTreeSet<String>) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    for (chain, rules) in filter {
        let Some(known) = known(chain, guards) else {
            continue;
        };
        let foreign = rules.iter().filter(|rule| !known.contains(&shape(rule)));
        doubts.extend(foreign.map(|rule| Doubt::ForeignRule {
            dump,
            chain: (*chain).to_owned(),
            rule: rule.text.to_owned(),
        }));
    }
    doubts
}

type Shapes = BTreeSet<String>;

/// `None`: no chain that is looked at here.
fn known(chain: &str, guards: &BTreeSet<String>) -> Option<&'static Shapes> {
    static GUARDS: LazyLock<Shapes> = LazyLock::new(|| shapes(OF_GUARDS));
    static BRIDGES: LazyLock<Shapes> = LazyLock::new(|| shapes(OF_BRIDGES));
    static VMS: LazyLock<Shapes> = LazyLock::new(|| shapes(TO_VMS));
    static ROUTING: LazyLock<Shapes> = LazyLock::new(|| shapes(OF_ROUTING));
    static SYSTEM_VMS: LazyLock<Shapes> = LazyLock::new(|| shapes(OF_SYSTEM_VMS));
    let shapes = match names::bridge_chain(chain) {
        Some(of) if format!("BF-{}", of.bridge) == ROUTED => &ROUTING,
        Some(of) if of.part == BridgePart::Whole => &BRIDGES,
        Some(_) => &VMS,
        None if guards.contains(chain) => &GUARDS,
        None if names::is_system_vm(chain) => &SYSTEM_VMS,
        None => return None,
    };
    Some(shapes)
}

fn shapes(patterns: &[&str]) -> Shapes {
    patterns
        .iter()
        .map(|pattern| pattern_shape(pattern))
        .collect()
}

fn pattern_shape(pattern: &str) -> String {
    let (clauses, target) = pattern
        .rsplit_once('>')
        .expect("every pattern has a target");
    let long = |clause: &str| {
        let short = SHORT.iter().find(|(short, _)| *short == clause);
        short.map_or(clause, |(_, long)| long).to_owned()
    };
    let clauses = clauses.split(';').map(str::trim).filter(|c| !c.is_empty());
    joined(clauses.map(long).collect(), target.trim())
}

/// Of an actual rule; equal to a pattern's if it is of that pattern.
fn shape(rule: &Rule<'_>) -> String {
    let clauses = rule.matches.iter().filter_map(clause_shape).collect();
    joined(clauses, &target_shape(rule))
}

fn joined(mut clauses: Vec<String>, target: &str) -> String {
    clauses.sort();
    format!("{} > {target}", clauses.join("; "))
}

fn clause_shape(clause: &Clause<'_>) -> Option<String> {
    const MODULES: [&str; 9] = [
        "physdev",
        "set",
        "state",
        "conntrack",
        "udp",
        "tcp",
        "icmp6",
        "hl",
        "mark",
    ];
    let mut words: Vec<&str> = clause.words.iter().map(|word| &**word).collect();
    let goes_without_saying = match words[..] {
        ["-m", module] => MODULES.contains(&module),
        ["--physdev-is-bridged"] => !clause.negated,
        _ => false,
    };
    if goes_without_saying {
        return None;
    }
    let is_link_local = |text: &str| {
        let address = text.strip_suffix("/128").unwrap_or_default();
        address.starts_with("fe80:")
    };
    match words[..] {
        ["-i" | "-o" | "--physdev-in" | "--physdev-out", _] => words[1] = "DEV",
        ["--match-set", set, "src" | "dst"] if of_vm(set) => words[1] = "SET",
        ["--mark", APPROVED] => words[1] = "APPROVED",
        ["-s" | "-d", address] if is_link_local(address) => words[1] = "LL",
        ["-s", address] if address.ends_with("/32") && !address.contains(':') => {
            words[1] = "ADDRESS";
        }
        _ => {}
    }
    let not = if clause.negated { "! " } else { "" };
    Some(format!("{not}{}", words.join(" ")))
}

/// A set of a VM, of either family.
fn of_vm(set: &str) -> bool {
    names::is_user_vm(set)
}

fn target_shape(rule: &Rule<'_>) -> String {
    let words: Vec<&str> = rule.target.iter().map(|word| &**word).collect();
    let shape = match words[..] {
        ["-j", "ACCEPT" | "RETURN"] | ["-j", "MARK", "--set-xmark", APPROVED] => "PASS",
        ["-j", "DROP"] => "DROP",
        ["-j", "MARK", "--set-xmark", "0x0/0x40000000"] => "CLEAR",
        ["-j", chain] if names::is_user_vm(chain) || names::is_system_vm(chain) => "VM",
        ["-j", chain] => match names::bridge_chain(chain).map(|chain| chain.part) {
            Some(BridgePart::In) => "BRIDGE-IN",
            Some(BridgePart::Out) => "BRIDGE-OUT",
            Some(BridgePart::Whole) | None => return words.join(" "),
        },
        _ => return words.join(" "),
    };
    shape.to_owned()
}
