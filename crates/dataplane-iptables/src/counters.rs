//! What was counted: by port and reason in link.nft, by rule in sets and chains.
//!
//! Place on the line: kernel -> **counters**. A rule's count begins anew when its chain is written anew, and
//! a port's when its device is made anew.

use crate::books::Books;
use crate::flows::{self, Locals};
use crate::found::elements;
use crate::found::link::Link;
use crate::parts::Table;
use crate::render::names;
use crate::skeleton::{DROPS, PASSED_FROM, PASSED_TO, drop_set};
use crate::tools::Tools;
use dataplane::{Count, Counters, Device, PortCounters, Target};
use model::{Family, FlowState, PortId, RuleRef};
use std::collections::BTreeMap;
use std::io;

pub(crate) fn read(
    tools: &Tools,
    table: &str,
    target: &Target,
    books: &Books,
) -> io::Result<Counters> {
    let mut counters = of_devices(tools, table, &target.devices)?;
    for id in target.view.ports.keys() {
        counters.ports.entry(id.clone()).or_default();
    }
    for flow in flows::records(target, &Locals::of(target, &books.bridges), None)? {
        if let Some(port) = counters.ports.get_mut(&flow.port) {
            match flow.state {
                FlowState::Opening => port.half_open += 1,
                FlowState::Established | FlowState::Closing | FlowState::Reset => port.flows += 1,
            }
        }
    }
    let rules = rules(target);
    let mut add = |comment: &str, packets, bytes| {
        if let Some(rule) = rules.get(comment) {
            let count = counters.rules.entry(rule.clone()).or_default();
            count.packets += packets;
            count.bytes += bytes;
        }
    };
    for (comment, packets, bytes) in elements::counts(&tools.ipset(&["save"])?) {
        add(comment, packets, bytes);
    }
    for family in Family::BOTH {
        for (comment, packets, bytes) in counted(&tools.save_counted(family, Table::Mangle)?) {
            add(comment, packets, bytes);
        }
    }
    Ok(counters)
}

/// Without rules and flows: all that can be told where the policy isn't known.
pub(crate) fn of_devices(
    tools: &Tools,
    table: &str,
    devices: &BTreeMap<PortId, Device>,
) -> io::Result<Counters> {
    let link = Link::read(tools, table)?.unwrap_or_default();
    let ports = devices.iter();
    Ok(Counters {
        ports: ports
            .map(|(id, device)| (id.clone(), of_port(device, &link)))
            .collect(),
        rules: BTreeMap::new(),
    })
}

fn of_port(device: &Device, link: &Link) -> PortCounters {
    let count = |set: &str| {
        let set = link.counts.get(set);
        set.and_then(|counts| counts.get(&device.ifindex))
            .copied()
            .unwrap_or_default()
    };
    let drops = DROPS.iter().filter_map(|(reason, name)| {
        let [from, to] = ["from", "to"].map(|way| count(&drop_set(way, name)));
        let both = Count {
            packets: from.packets + to.packets,
            bytes: from.bytes + to.bytes,
        };
        (both.packets > 0).then_some((*reason, both))
    });
    PortCounters {
        passed_ingress: count(PASSED_TO),
        passed_egress: count(PASSED_FROM),
        drops: drops.collect(),
        ..PortCounters::default()
    }
}

/// Rules by what is said of them in the kernel.
pub(crate) fn rules(target: &Target) -> BTreeMap<String, RuleRef> {
    let groups = target.view.groups.iter();
    let rules = groups.flat_map(|(group, view)| {
        view.rules.keys().map(|rule| RuleRef {
            group: group.clone(),
            rule: rule.clone(),
        })
    });
    rules.map(|rule| (names::comment(&rule), rule)).collect()
}

/// Of chains of ours, as `iptables-save -c` prints them: the rule's name, packets, bytes.
pub(crate) fn counted(saved: &str) -> impl Iterator<Item = (&str, u64, u64)> {
    saved.lines().filter_map(|line| {
        let (counts, rule) = line.strip_prefix('[')?.split_once("] -A pc-")?;
        let (packets, bytes) = counts.split_once(':')?;
        let comment = rule.split_once("--comment \"")?.1.split_once('"')?.0;
        Some((comment, packets.parse().ok()?, bytes.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_counted_by_their_names() {
        let saved = "\
[7:99] -A pc-in-3 -p tcp -m comment --comment \"web/http\" -g pc-in-start
[1:2] -A pc-in -g pc-deny
[3:4] -A OTHER -m comment --comment \"web/http\" -j ACCEPT
:pc-in-3 - [0:0]
";
        let counts: Vec<_> = counted(saved).collect();
        assert_eq!(counts, [("web/http", 7, 99)]);
    }
}
