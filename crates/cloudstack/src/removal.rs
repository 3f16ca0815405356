//! Everything that the script has built on a host, taken away, and nothing else.
//!
//! Place on the line: the host's dumps -> **removal** -> scripts for the tools, which the caller runs in
//! this order: iptables, ip6tables and ebtables, then the sets, which no rule may use any more. What a
//! script does to one table it does as a whole or not at all: if a rule has gone since the dump, it
//! fails, and a new dump tells more.
//!
//! | of | goes | stays |
//! | --- | --- | --- |
//! | filter | its chains; the rules in FORWARD that lead to them, and the drops behind those | |
//! | raw | the rules in PREROUTING by its sets | |
//! | nat | a redirection that older agents asked for | |
//! | nat of the link layer | its chains, the rules that lead to them | |
//! | sets | those of VMs | `cs_notrack`, `cs_notrack6`, which our plane has, too |
//!
//! A rule of somebody else's stays as it is. Where one leads into a chain, that chain stays, with all
//! that it leads to and every set that it asks: else the rule would come to mean something else.
//! Of a text that is cut off, nothing is removed: what isn't seen may need it.
//! Knows nothing of: VMs; whether anything else protects them by now.

use crate::DeviceName;
use crate::original::dump::{Chains, Rule};
use crate::original::host::Host;
use crate::original::names::{self, BridgePart, ROUTED, UNTRACKED};
use crate::original::{Doubt, Dump, Dumps};
use std::collections::{BTreeMap, BTreeSet};

/// What to do, and what can't be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// For `iptables-restore --noflush`. Empty: nothing is to be removed.
    pub iptables: String,
    /// For `ip6tables-restore --noflush`. Empty: nothing is to be removed.
    pub ip6tables: String,
    /// At the link layer.
    pub ebtables: LinkLayer,
    /// Sets to destroy, once the rules are gone.
    pub sets: Vec<String>,
    /// What stays. Sorted, each once.
    pub doubts: Vec<Doubt>,
}

/// Steps in the nat table of ebtables, in two forms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkLayer {
    steps: Vec<String>,
}

impl LinkLayer {
    pub(crate) fn new(steps: Vec<String>) -> Self {
        Self { steps }
    }

    /// For `ebtables-restore --noflush`, which ebtables on nf_tables has. Empty: nothing is to be done.
    pub fn script(&self) -> String {
        match self.steps.is_empty() {
            true => String::new(),
            false => format!("*nat\n{}\n", self.steps.join("\n")),
        }
    }

    /// For the older ebtables, whose restore can't add to what is there: the arguments of one command
    /// for each step.
    pub fn commands(&self) -> Vec<Vec<&str>> {
        let steps = self.steps.iter();
        steps
            .map(|step| ["-t", "nat"].into_iter().chain(step.split(' ')).collect())
            .collect()
    }
}

/// What removes all that the script has built. Total.
pub fn removal(dumps: &Dumps<'_>) -> Removal {
    let host = Host::read(dumps);
    let mut former = Former::new(&host, &Rebuilt::default());
    Removal {
        iptables: former.script(Dump::Iptables),
        ip6tables: former.script(Dump::Ip6tables),
        ebtables: LinkLayer::new(former.take(Dump::Ebtables, "nat")),
        sets: former.sets,
        doubts: former.doubts,
    }
}

/// Objects of the script's names that are made anew: they neither go nor stay.
#[derive(Debug, Default)]
pub(crate) struct Rebuilt {
    /// By tool; of the tables that the script has chains in.
    pub(crate) chains: BTreeSet<(Dump, String)>,
    pub(crate) sets: BTreeSet<String>,
}

/// What goes, in steps.
pub(crate) struct Former<'a> {
    /// By tool and table.
    steps: BTreeMap<(Dump, &'a str), Vec<String>>,
    /// Sets to destroy, once the rules are gone.
    pub(crate) sets: Vec<String>,
    /// What stays. Sorted, each once.
    pub(crate) doubts: Vec<Doubt>,
}

impl<'a> Former<'a> {
    pub(crate) fn new(host: &Host<'a>, rebuilt: &Rebuilt) -> Self {
        let mut in_use = InUse::default();
        in_use.add_sets(host);
        let mut former = Self {
            steps: BTreeMap::new(),
            sets: Vec::new(),
            doubts: host.doubts(),
        };
        for (dump, tables) in host.dumps() {
            for (table, chains) in tables.iter() {
                let plan = Plan::new(dump, table, chains, rebuilt);
                former.doubts.extend(plan.doubts(dump));
                in_use.add_rules(&plan);
                if !tables.is_cut {
                    former.steps.insert((dump, table), plan.steps());
                }
            }
        }
        // Rules that aren't seen, and those that stay for their sake, may use any set.
        if !host.four.is_cut && !host.six.is_cut {
            former.add_sets(host, rebuilt, &in_use);
        }
        former.doubts.sort();
        former.doubts.dedup();
        former
    }

    fn add_sets(&mut self, host: &Host<'_>, rebuilt: &Rebuilt, in_use: &InUse) {
        let its = |name: &str| names::is_user_vm(name) && !rebuilt.sets.contains(name);
        for (name, set) in host.sets.iter().filter(|(name, _)| its(name)) {
            let set_name = (*name).to_owned();
            let is_ipv6 = name.ends_with("-6") && set.is("hash:net", "inet6");
            match in_use.0.get(*name) {
                _ if !is_ipv6 && !set.is("hash:ip", "inet") => {
                    self.doubts.push(Doubt::OtherSet { set: set_name });
                }
                Some(user) => self.doubts.push(Doubt::SetInUse {
                    set: set_name,
                    user: user.clone(),
                }),
                None => self.sets.push(set_name),
            }
        }
    }

    /// The steps in a table, which are then no longer here.
    pub(crate) fn take(&mut self, dump: Dump, table: &'static str) -> Vec<String> {
        self.steps.remove(&(dump, table)).unwrap_or_default()
    }

    /// For a restore command: the steps that are left, each table's in one transaction.
    pub(crate) fn script(&self, of: Dump) -> String {
        let tables = self.steps.iter();
        let tables = tables.filter(|((dump, _), steps)| *dump == of && !steps.is_empty());
        let tables =
            tables.map(|((_, table), steps)| format!("*{table}\n{}\nCOMMIT\n", steps.join("\n")));
        tables.collect()
    }
}

/// What becomes of one table.
struct Plan<'c> {
    chains: &'c Chains<'c>,
    /// Its chains in this table.
    its: BTreeSet<&'c str>,
    /// Those that stay, for somebody else's sake.
    stay: BTreeSet<&'c str>,
    /// Those that are made anew: whatever is in them now is gone with that.
    rebuilt: BTreeSet<&'c str>,
    /// Its rules in chains of others, by chain and place.
    rules: BTreeSet<Place<'c>>,
    /// Rules of others that lead into its chains.
    foreign_jumps: Vec<Place<'c>>,
}

type Place<'c> = (&'c str, usize);

impl<'c> Plan<'c> {
    fn new(dump: Dump, table: &str, chains: &'c Chains<'c>, rebuilt: &Rebuilt) -> Self {
        let is_its = |chain: &&str| match (dump, table) {
            (Dump::Iptables | Dump::Ip6tables, "filter") => names::is_filter_chain(chain),
            (Dump::Ebtables, "nat") => names::link_layer_vm(chain).is_some(),
            (Dump::Iptables | Dump::Ip6tables | Dump::Ebtables, _) => false,
        };
        let is_rebuilt = |chain: &&str| rebuilt.chains.contains(&(dump, (*chain).to_owned()));
        let its = chains.keys().copied().filter(is_its);
        let (rebuilt, its) = its.partition(is_rebuilt);
        let mut plan = Self {
            chains,
            its,
            stay: BTreeSet::new(),
            rebuilt,
            rules: its_rules(dump, table, chains),
            foreign_jumps: Vec::new(),
        };
        let leads = |rule: &Rule<'_>| rule.leads_to().is_some_and(|to| plan.its.contains(to));
        let jumps = plan.foreign_rules().filter(|(_, rule)| leads(rule));
        plan.foreign_jumps = jumps.map(|(place, _)| place).collect();
        let mut next: Vec<&str> = plan
            .foreign_jumps
            .iter()
            .copied()
            .map(|at| plan.chain_behind(at))
            .collect();
        while let Some(chain) = next.pop() {
            if let Some(chain) = plan.its.get(chain)
                && plan.stay.insert(chain)
            {
                next.extend(chains[chain].iter().filter_map(Rule::leads_to));
            }
        }
        plan
    }

    fn foreign_rules(&self) -> impl Iterator<Item = (Place<'c>, &'c Rule<'c>)> {
        let is_its = |chain: &&str| self.its.contains(*chain) || self.rebuilt.contains(*chain);
        let others = self.chains.iter().filter(move |(chain, _)| !is_its(chain));
        let rules = others.flat_map(|(chain, rules)| {
            let rules = rules.iter().enumerate();
            rules.map(|(at, rule)| ((*chain, at), rule))
        });
        rules.filter(|(place, _)| !self.rules.contains(place))
    }

    fn rule(&self, (chain, at): Place<'_>) -> &'c Rule<'c> {
        &self.chains[chain][at]
    }

    fn chain_behind(&self, place: Place<'_>) -> &'c str {
        self.rule(place).leads_to().unwrap_or_default()
    }

    fn doubts(&self, dump: Dump) -> impl Iterator<Item = Doubt> {
        self.foreign_jumps
            .iter()
            .map(move |place| Doubt::ForeignJump {
                dump,
                from: place.0.to_owned(),
                rule: self.rule(*place).text.to_owned(),
                chain: self.chain_behind(*place).to_owned(),
            })
    }

    /// First what leads to the chains, then what is in them, which may lead from one to another, then
    /// they themselves.
    fn steps(&self) -> Vec<String> {
        let places = self.rules.iter();
        let rules = places.map(|place| format!("-D {} {}", place.0, self.rule(*place).text));
        let gone = || self.its.difference(&self.stay);
        let flushed = gone().map(|chain| format!("-F {chain}"));
        let deleted = gone().map(|chain| format!("-X {chain}"));
        rules.chain(flushed).chain(deleted).collect()
    }

    /// The rules that will still be there.
    fn remaining(&self) -> impl Iterator<Item = &'c Rule<'c>> {
        let staying = self.stay.iter().flat_map(|chain| &self.chains[*chain]);
        self.foreign_rules().map(|(_, rule)| rule).chain(staying)
    }
}

/// Its rules in the chains that every host has. Only what is printed exactly as it makes them.
fn its_rules<'c>(dump: Dump, table: &str, chains: &'c Chains<'c>) -> BTreeSet<Place<'c>> {
    let of = |chain: &'static str, is_its: &dyn Fn(&Rule<'_>) -> bool| {
        let rules = chains.get(chain).map_or(&[][..], Vec::as_slice);
        let its = rules.iter().enumerate().filter(|(_, rule)| is_its(rule));
        its.map(|(at, _)| (chain, at)).collect::<Vec<_>>()
    };
    match (dump, table) {
        (Dump::Iptables | Dump::Ip6tables, "filter") => forward_rules(chains),
        (Dump::Iptables | Dump::Ip6tables, "raw") => {
            of("PREROUTING", &is_untracking).into_iter().collect()
        }
        (Dump::Iptables, "nat") => of("PREROUTING", &is_redirection).into_iter().collect(),
        (Dump::Ebtables, "nat") => {
            let from_vms = of("PREROUTING", &|rule| is_link_layer_jump(rule, "-i", "-in"));
            let to_vms = of("POSTROUTING", &|rule| {
                is_link_layer_jump(rule, "-o", "-out")
            });
            from_vms.into_iter().chain(to_vms).collect()
        }
        (Dump::Iptables | Dump::Ip6tables | Dump::Ebtables, _) => BTreeSet::new(),
    }
}

/// Of each bridge a jump and a drop in each direction, and the jump of direct routing. A drop of the
/// same form that isn't behind a jump is somebody else's.
fn forward_rules<'c>(chains: &'c Chains<'c>) -> BTreeSet<Place<'c>> {
    const FORWARD: &str = "FORWARD";
    let rules = chains.get(FORWARD).map_or(&[][..], Vec::as_slice);
    let mut its: BTreeSet<Place<'_>> = BTreeSet::new();
    // By direction and bridge: drops that are to come.
    let mut drops: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (at, rule) in rules.iter().enumerate() {
        let is_its = match forward_rule(rule) {
            Some(ForwardRule::Jump(option, bridge)) => {
                *drops.entry((option, bridge)).or_default() += 1;
                true
            }
            Some(ForwardRule::Drop(option, bridge)) => match drops.get_mut(&(option, bridge)) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    true
                }
                Some(_) | None => false,
            },
            Some(ForwardRule::Routed) => true,
            None => false,
        };
        if is_its {
            its.insert((FORWARD, at));
        }
    }
    its
}

enum ForwardRule<'r> {
    /// `-i` or `-o`, and the bridge.
    Jump(&'r str, &'r str),
    Drop(&'r str, &'r str),
    Routed,
}

fn forward_rule<'r>(rule: &'r Rule<'_>) -> Option<ForwardRule<'r>> {
    let to = jump(rule)?;
    if to == ROUTED && rule.matches.is_empty() {
        return Some(ForwardRule::Routed);
    }
    let (first, rest) = rule.matches.split_first()?;
    let option = first.option();
    let bridge = first
        .value()
        .filter(|_| !first.negated && first.words.len() == 2)?;
    if !matches!(option, "-i" | "-o") {
        return None;
    }
    let rest: Vec<String> = rest.iter().map(ToString::to_string).collect();
    let is_bridged = rest == ["-m physdev", "--physdev-is-bridged"];
    let whole =
        |name| names::bridge_chain(name).is_some_and(|chain| chain.part == BridgePart::Whole);
    match to {
        "DROP" if rest.is_empty() => Some(ForwardRule::Drop(option, bridge)),
        _ if is_bridged && whole(to) => Some(ForwardRule::Jump(option, bridge)),
        _ => None,
    }
}

/// The target of `-j`, if it has no options.
fn jump<'r>(rule: &'r Rule<'_>) -> Option<&'r str> {
    match &rule.target[..] {
        [jump, to] if jump == "-j" => Some(to),
        _ => None,
    }
}

/// `-m set --match-set cs_notrack dst -j NOTRACK`, which later versions of iptables print as `-j CT`.
fn is_untracking(rule: &Rule<'_>) -> bool {
    let [module, set] = &rule.matches[..] else {
        return false;
    };
    let of_set = match &set.words[..] {
        [option, set, side] => {
            option == "--match-set"
                && UNTRACKED.contains(&&**set)
                && matches!(&**side, "src" | "dst")
        }
        _ => false,
    };
    let untracks = rule.target == ["-j", "NOTRACK"] || rule.target == ["-j", "CT", "--notrack"];
    of_set && untracks && !set.negated && module.words == ["-m", "set"]
}

/// Towards a host's own web server, from a VM's device: what `post_default_network_rules` makes, which
/// no agent asks for any more and nothing removes.
fn is_redirection(rule: &Rule<'_>) -> bool {
    let clauses: Vec<String> = rule.matches.iter().map(ToString::to_string).collect();
    let [server, protocol, physdev, vif, tcp, web] = &clauses[..] else {
        return false;
    };
    let is_vif = |vif: &str| vif.starts_with("vnet") && DeviceName::new(vif).is_ok();
    let to_web = match &rule.target[..] {
        [jump, dnat, option, to] => {
            jump == "-j" && dnat == "DNAT" && option == "--to-destination" && to.ends_with(":80")
        }
        _ => false,
    };
    server.starts_with("-d ")
        && server.ends_with("/32")
        && [protocol, physdev, tcp, web] == ["-p tcp", "-m physdev", "-m tcp", "--dport 80"]
        && vif.strip_prefix("--physdev-in ").is_some_and(is_vif)
        && to_web
}

/// `-i vnet0 -j i-2-10-VM-in`.
fn is_link_layer_jump(rule: &Rule<'_>, option: &str, part: &str) -> bool {
    let [device] = &rule.matches[..] else {
        return false;
    };
    let to = jump(rule).unwrap_or_default();
    let is_part = names::link_layer_vm(to).is_some() && to.ends_with(part);
    is_part && device.option() == option && device.words.len() == 2 && !device.negated
}

/// Sets that something else needs, each with what.
#[derive(Default)]
struct InUse(BTreeMap<String, String>);

impl InUse {
    fn add_rules(&mut self, plan: &Plan<'_>) {
        const OPTIONS: [&str; 4] = ["--match-set", "--add-set", "--del-set", "--map-set"];
        for rule in plan.remaining() {
            let words: Vec<&str> = rule.words().collect();
            for two in words.windows(2).filter(|two| OPTIONS.contains(&two[0])) {
                self.add(two[1], rule.text);
            }
        }
    }

    /// Sets in lists of sets.
    fn add_sets(&mut self, host: &Host<'_>) {
        for (name, set) in &host.sets {
            if set.kind.first() == Some(&"list:set") {
                for member in &set.members {
                    self.add(member, &format!("the set {name}"));
                }
            }
        }
    }

    fn add(&mut self, set: &str, user: &str) {
        let entry = self.0.entry(set.to_owned());
        entry.or_insert_with(|| user.to_owned());
    }
}

#[cfg(test)]
mod tests;
