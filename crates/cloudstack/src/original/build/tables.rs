//! One table with the chains that are made anew in it, as steps for the tools.

use std::collections::BTreeMap;

/// What a table is to have beside what is there.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Own chains with their rules.
    chains: BTreeMap<String, Vec<String>>,
    /// Steps in chains that every host has, in their order.
    hooks: Vec<String>,
}

impl Table {
    /// The rules of an own chain; it is made if it isn't there.
    pub(super) fn chain(&mut self, name: &str) -> &mut Vec<String> {
        // Most are: no name is copied to ask.
        if !self.chains.contains_key(name) {
            self.chains.insert(name.to_owned(), Vec::new());
        }
        self.chains.get_mut(name).expect("it was made")
    }

    pub(super) fn append(&mut self, chain: &str, rule: impl Into<String>) {
        self.chain(chain).push(rule.into());
    }

    /// Such as `-I FORWARD ...`.
    pub(super) fn hook(&mut self, step: String) {
        self.hooks.push(step);
    }

    pub(super) fn chains(&self) -> impl Iterator<Item = &str> {
        self.chains.keys().map(String::as_str)
    }

    /// For a restore command of iptables that flushes nothing: declaring a chain empties it. `former`:
    /// steps that take away what is there. Empty: nothing is to be done.
    pub(super) fn script(&self, table: &str, former: &[String]) -> String {
        let declared = self.chains().map(|chain| format!(":{chain} - [0:0]"));
        let steps = declared
            .chain(former.iter().cloned())
            .chain(self.filling())
            .map(|step| format!("{step}\n"));
        let steps: String = steps.collect();
        match steps.is_empty() {
            true => steps,
            false => format!("*{table}\n{steps}COMMIT\n"),
        }
    }

    /// For ebtables, each of them a command, too.
    pub(super) fn steps(
        &self,
        is_there: impl Fn(&str) -> bool,
        former: Vec<String>,
    ) -> Vec<String> {
        let begun = |chain| match is_there(chain) {
            true => format!("-F {chain}"),
            false => format!("-N {chain}"),
        };
        let begun = self.chains().map(begun);
        begun.chain(former).chain(self.filling()).collect()
    }

    fn filling(&self) -> impl Iterator<Item = String> {
        let of_chain = |(chain, rules): (&String, &Vec<String>)| {
            let rules = rules.iter().map(|rule| format!("-A {chain} {rule}"));
            rules.collect::<Vec<_>>()
        };
        let filled = self.chains.iter().flat_map(of_chain);
        filled.chain(self.hooks.iter().cloned())
    }
}
