//! Who may begin which flows with whom, for people and machines: what `reach` and `diff` print.

use crate::output::{Columns, Tone, text};
use model::{Family, Inventory, L4PortRange, PortedProtocol, RuleRef};
use policy::{By, L4Part, L4Set, Party, Reach};
use policyfile::spoken::{icmp_name, protocol_name};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// So many names of a list are in a table; all are in a wide one.
const SHOWN: usize = 4;

pub(crate) fn rows(told: &[Reach]) -> Vec<Value> {
    told.iter().map(row).collect()
}

fn row(reach: &Reach) -> Value {
    let family = match reach.kinds.family() {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    let parts = reach.kinds.parts();
    json!({
        "from": party(&reach.from),
        "to": party(&reach.to),
        "family": family,
        "flows": in_words(&reach.kinds),
        "parts": parts.into_iter().map(part).collect::<Vec<_>>(),
        "leaves_by": by(&reach.leaves_by),
        "enters_by": by(&reach.enters_by),
    })
}

fn party(party: &Party) -> Value {
    match party {
        Party::Ports { ports, addresses } => json!({
            "ports": ports.iter().map(|port| port.as_str()).collect::<Vec<_>>(),
            "addresses": addresses.as_ref().map(|set| strings(&set.prefixes())),
        }),
        Party::Outside {
            scope,
            within,
            except,
            ..
        } => json!({
            "outside": strings(within),
            "but": strings(except),
            "scope": scope.as_str(),
        }),
    }
}

fn strings<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn by(by: &By) -> Value {
    let not_asked = match by {
        By::Rules(rules) => {
            let rules: Vec<String> = rules.iter().map(RuleRef::to_string).collect();
            return json!({ "rules": rules });
        }
        By::NoPortSecurity => "port security off",
        By::NoHost => "on no host",
        By::Outside => "outside",
    };
    json!({ "no_rules": not_asked })
}

fn part(part: L4Part) -> Value {
    match part {
        L4Part::Protocols { first, last } => json!({ "protocols": [first, last] }),
        L4Part::Ports { protocol, dst } => json!({
            "protocol": protocol.number(),
            "ports": [dst.first(), dst.last()],
        }),
        L4Part::IcmpTypes { first, last } => json!({ "icmp_types": [first, last] }),
        L4Part::IcmpCodes {
            icmp_type,
            first,
            last,
        } => json!({ "icmp_type": icmp_type, "icmp_codes": [first, last] }),
    }
}

/// In the policy file's words, or as all but what is told shorter.
fn in_words(kinds: &L4Set) -> String {
    let (parts, rest) = (kinds.parts(), kinds.rest().parts());
    let family = kinds.family();
    if rest.is_empty() {
        "any".to_owned()
    } else if rest.len() < parts.len() {
        format!("any but {}", list_of(family, &rest))
    } else {
        list_of(family, &parts)
    }
}

/// Ports of one protocol stand behind it together, and ICMP behind all, as its number is another one in each family.
fn list_of(family: Family, parts: &[L4Part]) -> String {
    let mut parts = parts.to_vec();
    parts.sort_by_key(is_icmp);
    let mut words: Vec<String> = Vec::new();
    let mut last_ported: Option<PortedProtocol> = None;
    for part in &parts {
        let ported = match part {
            L4Part::Ports { protocol, dst } => Some((*protocol, *dst)),
            L4Part::Protocols { .. } | L4Part::IcmpTypes { .. } | L4Part::IcmpCodes { .. } => None,
        };
        match (ported, words.last_mut()) {
            (Some((protocol, dst)), Some(word)) if last_ported == Some(protocol) => {
                word.push(',');
                word.push_str(&span(dst));
            }
            _ => words.push(word(family, *part)),
        }
        last_ported = ported.map(|(protocol, _)| protocol);
    }
    words.join("; ")
}

fn is_icmp(part: &L4Part) -> bool {
    match part {
        L4Part::IcmpTypes { .. } | L4Part::IcmpCodes { .. } => true,
        L4Part::Ports { .. } => false,
        L4Part::Protocols { first, last } => first == last && matches!(first, 1 | 58),
    }
}

fn span(dst: L4PortRange) -> String {
    match dst.first() == dst.last() {
        true => dst.first().to_string(),
        false => format!("{}-{}", dst.first(), dst.last()),
    }
}

fn word(family: Family, part: L4Part) -> String {
    let icmp = match family {
        Family::V4 => "icmp",
        Family::V6 => "icmpv6",
    };
    match part {
        L4Part::Protocols { first, last } if first == last => protocol(family, first),
        L4Part::Protocols { first, last } => format!("protocols {first}-{last}"),
        L4Part::Ports { protocol: p, dst } => {
            format!("{} {}", protocol(family, p.number()), span(dst))
        }
        L4Part::IcmpTypes { first, last } if first == last => {
            match icmp_name(family, first, None) {
                Some(name) => format!("icmp {name}"),
                None => format!("{icmp} {first}"),
            }
        }
        L4Part::IcmpTypes { first, last } => format!("{icmp} types {first}-{last}"),
        L4Part::IcmpCodes {
            icmp_type,
            first,
            last,
        } => match icmp_name(family, icmp_type, Some(first)) {
            Some(name) if first == last => format!("icmp {name}"),
            Some(_) | None if first == last => format!("{icmp} {icmp_type}/{first}"),
            Some(_) | None => format!("{icmp} {icmp_type}/{first}-{last}"),
        },
    }
}

fn protocol(family: Family, number: u8) -> String {
    match (family, number) {
        (Family::V4, 1) | (Family::V6, 58) => "icmp".to_owned(),
        _ => protocol_name(number).map_or_else(|| format!("protocol {number}"), str::to_owned),
    }
}

/// Whether there are address scopes to tell apart.
pub(crate) fn has_scopes(inventory: &Inventory) -> bool {
    let mut scopes = inventory.networks.values().map(|network| &network.scope);
    let first = scopes.next();
    scopes.any(|scope| Some(scope) != first)
}

/// Lists of rows in one table; their marks, if they have any, are its first column.
pub(crate) struct Listing<'a> {
    pub(crate) wide: bool,
    /// There are several scopes, so what is outside is so of one.
    pub(crate) scopes: bool,
    pub(crate) marked: &'a [(&'a str, Tone, &'a Value)],
}

/// What is the same in both families is told once.
struct Line {
    from: String,
    to: String,
    flows: String,
    ways: [Way; 2],
}

/// How an end is passed. Of the other family there may be other rules.
enum Way {
    NoRules(String),
    Rules(BTreeSet<String>),
}

impl Listing<'_> {
    pub(crate) fn text(&self) -> String {
        let is_marked = self.marked.iter().any(|(mark, ..)| !mark.is_empty());
        let mut header = vec!["FROM", "TO", "FLOWS", "FAMILY", "LEAVES BY", "ENTERS BY"];
        if is_marked {
            header.insert(0, "CHANGE");
        }
        let mut columns = Columns::new(&header);
        for (mark, tone, rows) in self.marked {
            let rows = rows.as_array().into_iter().flatten();
            for (line, family) in self.lines(rows) {
                let [leaves, enters] = line.ways.map(|way| self.way(&way));
                let cells = [line.from, line.to, line.flows, family, leaves, enters];
                let cells = cells.map(|cell| (cell, Tone::Plain));
                let first = is_marked.then(|| ((*mark).to_owned(), *tone));
                columns.row(first.into_iter().chain(cells));
            }
        }
        columns.text()
    }

    fn lines<'v>(&self, rows: impl Iterator<Item = &'v Value>) -> Vec<(Line, String)> {
        let mut lines: Vec<(Line, String)> = Vec::new();
        for row in rows {
            let line = Line {
                from: self.party(&row["from"]),
                to: self.party(&row["to"]),
                flows: text(row, "flows"),
                ways: [way(&row["leaves_by"]), way(&row["enters_by"])],
            };
            let family = match row["family"] == "ipv4" {
                true => "IPv4",
                false => "IPv6",
            };
            let twin = lines
                .iter_mut()
                .find(|(known, of)| of != family && of != "both" && known.is_twin_of(&line));
            match twin {
                Some((known, of)) => {
                    known.join(line);
                    "both".clone_into(of);
                }
                None => lines.push((line, family.to_owned())),
            }
        }
        lines
    }

    fn party(&self, party: &Value) -> String {
        if party["outside"].is_array() {
            let within = self.short(items(&party["outside"]));
            let of_scope = match self.scopes {
                true => format!(" of scope {}", text(party, "scope")),
                false => String::new(),
            };
            let except = self.short(items(&party["but"]));
            return match (within.as_str(), except.as_str()) {
                ("0.0.0.0/0" | "::/0", "") => format!("outside{of_scope}"),
                ("0.0.0.0/0" | "::/0", except) => format!("outside{of_scope} but {except}"),
                (within, _) => format!("outside{of_scope}: {within}"),
            };
        }
        let ports = self.short(items(&party["ports"]));
        match party["addresses"].is_array() {
            true => format!("{ports} ({})", self.short(items(&party["addresses"]))),
            false => ports,
        }
    }

    fn way(&self, way: &Way) -> String {
        match way {
            Way::NoRules(why) if why == "outside" => "-".to_owned(),
            Way::NoRules(why) => format!("({why})"),
            Way::Rules(rules) => self.short(by_both_families(rules)),
        }
    }

    fn short(&self, items: Vec<String>) -> String {
        let shown = match self.wide || items.len() <= SHOWN + 1 {
            true => items.len(),
            false => SHOWN,
        };
        match items.len() - shown {
            0 => items.join(", "),
            more => format!("{} and {more} more", items[..shown].join(", ")),
        }
    }
}

impl Line {
    fn is_twin_of(&self, other: &Line) -> bool {
        let same_way = |(one, other): (&Way, &Way)| match (one, other) {
            (Way::Rules(_), Way::Rules(_)) => true,
            (Way::NoRules(one), Way::NoRules(other)) => one == other,
            (Way::Rules(_), Way::NoRules(_)) | (Way::NoRules(_), Way::Rules(_)) => false,
        };
        (&self.from, &self.to, &self.flows) == (&other.from, &other.to, &other.flows)
            && self.ways.iter().zip(&other.ways).all(same_way)
    }

    fn join(&mut self, other: Line) {
        for (way, more) in self.ways.iter_mut().zip(other.ways) {
            if let (Way::Rules(rules), Way::Rules(mut more)) = (way, more) {
                rules.append(&mut more);
            }
        }
    }
}

fn way(by: &Value) -> Way {
    match by["no_rules"].as_str() {
        Some(why) => Way::NoRules(why.to_owned()),
        None => Way::Rules(items(&by["rules"]).into_iter().collect()),
    }
}

fn items(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What the file says once, for both families, is shown once: `web/https.v4` and `web/https.v6` as
/// `web/https.v4+v6`.
fn by_both_families(rules: &BTreeSet<String>) -> Vec<String> {
    let mut shown = Vec::new();
    for rule in rules {
        let other = |end: &str, other: &str| {
            let stem = rule.strip_suffix(end)?;
            rules.contains(&format!("{stem}{other}")).then_some(stem)
        };
        match (other(".v4", ".v6"), other(".v6", ".v4")) {
            (Some(stem), _) => shown.push(format!("{stem}.v4+v6")),
            (None, Some(_)) => {}
            (None, None) => shown.push(rule.clone()),
        }
    }
    shown
}
