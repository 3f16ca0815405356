//! What became of the one packet that was sent where a snapshot is loaded: by whether it came out again, and by
//! what was counted there.
//!
//! Place on the line: counters of another namespace -> **outcome**.
//!
//! ```text
//! link.nft     drop_*                       why not
//! pc-raw       pc-untracked                 nobody tracks it
//! pc-infrastructure                         whatever the rules say
//! pc-in, -out  OPEN                         the rules permit everything
//!              *-live, or if marked LIVE    by the rules for its flow's first packet
//!              pc-error                     by the flow that it is about
//!              rules and elements           by this one
//! ```

use super::Snapshot;
use super::question::Named;
use crate::counters;
use crate::found::elements;
use crate::found::link::Link;
use crate::parts::Table;
use crate::render::names;
use crate::render::profile::is_live;
use crate::skeleton::{DROPS, PASSED_FROM, drop_set};
use dataplane::Outcome;
use model::{
    Direction, DropReason, Family, FlowKey, GroupId, L4Match, PassReason, RuleId, RuleRef, Verdict,
};
use policy::PeerView;
use std::io;

/// What the packet met of iptables.
#[derive(Default)]
struct Met {
    /// Rules of our chains: the chain, the rule.
    rules: Vec<(String, String)>,
    /// What is said of the rule that permits it.
    comment: Option<String>,
}

impl Snapshot<'_> {
    /// Of the namespace of the calling thread, where the packet has come in once. `arrived`: and went out at
    /// the other end. `None`: the kernel keeps it, as it is a fragment.
    pub fn outcome(&self, arrived: bool) -> io::Result<Option<Outcome>> {
        let link = Link::read(self.tools, self.table)?.unwrap_or_default();
        let met = self.read_met()?;
        let passed = match self.is_for_host() {
            true => !self.is_judged() || self.is_counted(&link, PASSED_FROM),
            false => arrived,
        };
        let verdict = match self.drop_reason(&link) {
            Some(reason) => Verdict::Drop(reason),
            None if passed => Verdict::Pass(self.pass_reason(&met)),
            None if self.question.is_in_pieces() => return Ok(None),
            // The kernel's own IP code doesn't pass on what it can't read.
            None => Verdict::Drop(DropReason::BadHeader),
        };
        let flow = self.flow(match self.question.quoted {
            Some(quoted) => Some(quoted),
            None => self.question.named,
        });
        let permits = |(key, original): &(FlowKey, Direction)| {
            policy::permitting(&self.target.view, self.question.port, *original, key).is_some()
        };
        let is_live = matches!(verdict, Verdict::Pass(PassReason::Live(_)));
        Ok(Some(Outcome {
            flow_found: is_live || flow.is_some(),
            live: is_live || flow.is_some_and(|flow| permits(&flow)),
            elidable: met.rules.iter().any(|(chain, _)| chain == "pc-untracked"),
            verdict,
        }))
    }

    fn drop_reason(&self, link: &Link) -> Option<DropReason> {
        let way = match self.question.direction {
            Direction::Egress => "from",
            Direction::Ingress => "to",
        };
        let mut drops = DROPS.iter();
        let found = drops.find(|(_, name)| self.is_counted(link, &drop_set(way, name)));
        found.map(|(reason, _)| *reason)
    }

    fn is_counted(&self, link: &Link, set: &str) -> bool {
        let counts = link.counts.get(set);
        counts.is_some_and(|counts| counts.contains_key(&self.device.ifindex))
    }

    /// The kernel knows the device as a port's, or as closed.
    fn is_judged(&self) -> bool {
        let device = self.device.ifindex.to_string();
        let knows = |set: &str| {
            let elements = self.loaded.link.elements.get(set);
            elements.is_some_and(|elements| elements.contains_key(&device))
        };
        knows("ports") || knows("closed")
    }

    fn read_met(&self) -> io::Result<Met> {
        let mut met = Met::default();
        let Some(family) = self.question.family() else {
            return Ok(met);
        };
        for (tools, _) in &self.loaded.chains {
            for table in [Table::Raw, Table::Mangle] {
                met.add(&tools.save_counted(family, table)?);
            }
        }
        let sets = self.tools.ipset(&["save"])?;
        let elements = elements::counts(&sets).find(|(_, packets, _)| *packets > 0);
        if let Some((comment, ..)) = elements {
            met.comment = Some(comment.to_owned());
        }
        Ok(met)
    }

    fn pass_reason(&self, met: &Met) -> PassReason {
        let direction = self.question.direction;
        if !self.is_judged() {
            return PassReason::Unguarded;
        }
        let Some(family) = self.question.family() else {
            return PassReason::Infrastructure;
        };
        let way = names::way(direction);
        let gate = format!("pc-{way}");
        if met.went("pc-infrastructure", "pc-pass") {
            return PassReason::Infrastructure;
        }
        if met.went("pc-error", "pc-pass") {
            return self.error_reason();
        }
        if !met.went_to("pc-pass") {
            return PassReason::Unguarded;
        }
        let is_live = is_live();
        let live = met.rules.iter();
        let live = live.filter(|(chain, rule)| chain.ends_with("-live") || rule.contains(&is_live));
        let live = live.into_iter().any(|(_, rule)| leads_to(rule, "pc-pass"));
        let is_open = match live {
            true => met.went(&format!("{gate}-live"), "pc-pass"),
            false => met.went(&gate, names::start(direction)),
        };
        let asked = if live {
            direction.opposite()
        } else {
            direction
        };
        let rule = match is_open {
            true => self.open_rule(family, asked),
            false => met.comment.as_deref().and_then(|said| self.rule(said)),
        };
        let rule = rule.unwrap_or_else(|| nameless(met));
        match live {
            true => PassReason::Live(rule),
            false => PassReason::Rule(rule),
        }
    }

    /// An ICMP error about a flow: whether that is still live the kernel doesn't ask.
    fn error_reason(&self) -> PassReason {
        let flow = self.flow(self.question.quoted);
        let rule = flow.and_then(|(key, original)| {
            policy::permitting(&self.target.view, self.question.port, original, &key)
        });
        rule.map_or(PassReason::ElidedError, PassReason::Live)
    }

    /// The port's flow that a packet is of, and in which direction it began.
    fn flow(&self, named: Option<Named>) -> Option<(FlowKey, Direction)> {
        let named = named?;
        let entries = self.entries.iter().filter(|entry| named.is_of(entry));
        let flows = entries.flat_map(|entry| self.locals.flows(entry));
        let mut own = flows.filter(|flow| flow.started && flow.port == self.question.port);
        own.next().map(|flow| (flow.key, flow.original))
    }

    /// Of the rules that permit everything, of stateful groups, that which is reported.
    fn open_rule(&self, family: Family, direction: Direction) -> Option<RuleRef> {
        let view = &self.target.view;
        let groups = &view.ports.get(self.question.port)?.groups;
        let groups = groups
            .iter()
            .filter_map(|id| Some((id, view.groups.get(id)?)));
        let mut rules = groups
            .filter(|(_, group)| group.stateful)
            .flat_map(|(id, group)| group.rules.iter().map(move |(rule, of)| (id, rule, of)));
        let open = rules.find(|(_, _, rule)| {
            (rule.direction, rule.family) == (direction, family)
                && rule.l4 == L4Match::Any
                && rule.peer == PeerView::Any
        });
        open.map(|(group, rule, _)| RuleRef {
            group: group.clone(),
            rule: rule.clone(),
        })
    }

    fn rule(&self, said: &str) -> Option<RuleRef> {
        counters::rules(self.target).remove(said)
    }
}

impl Met {
    fn add(&mut self, saved: &str) {
        for line in saved.lines() {
            let counted = line.strip_prefix('[').filter(|l| !l.starts_with("0:"));
            let rule = counted.and_then(|line| line.split_once("] -A ")?.1.split_once(' '));
            if let Some((chain, rule)) = rule.filter(|(chain, _)| chain.starts_with("pc-")) {
                self.rules.push((chain.to_owned(), rule.to_owned()));
            }
        }
        let counted = counters::counted(saved).find(|(_, packets, _)| *packets > 0);
        if let Some((comment, ..)) = counted {
            self.comment = Some(comment.to_owned());
        }
    }

    /// It left the chain by a rule that leads there.
    fn went(&self, from: &str, to: &str) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|(chain, rule)| chain == from && leads_to(rule, to))
    }

    fn went_to(&self, to: &str) -> bool {
        self.rules.iter().any(|(_, rule)| leads_to(rule, to))
    }
}

fn leads_to(rule: &str, chain: &str) -> bool {
    rule.strip_suffix(chain)
        .is_some_and(|rule| rule.ends_with("-g "))
}

/// Something permits it that the policy in force knows nothing of.
fn nameless(met: &Met) -> RuleRef {
    let rule = met.comment.as_deref().unwrap_or("(without a name)");
    RuleRef {
        group: GroupId::new("(not of the policy)"),
        rule: RuleId::new(rule),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_packet_met_is_what_was_counted() {
        let mut met = Met::default();
        met.add(
            "\
:pc-in - [0:0]
[1:60] -A FORWARD -m comment --comment portcullis -j pc-in
[0:0] -A pc-in -m mark --mark 0x40000000/0x40000000 -g pc-pass
[1:60] -A pc-in -j pc-in-by
[0:0] -A pc-in-3 -p udp -m comment --comment \"web/dns\" -g pc-in-start
[1:60] -A pc-in-3 -p tcp -m comment --comment \"web/http\" -g pc-in-start
",
        );
        assert!(met.went("pc-in-3", "pc-in-start"));
        assert!(!met.went("pc-in", "pc-pass"));
        assert!(!met.went_to("pc-pass"));
        assert!(!met.went_to("in-start"));
        assert_eq!(met.comment.as_deref(), Some("web/http"));
    }
}
