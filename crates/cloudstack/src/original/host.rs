//! A host's texts, read, with what is looked for in them.

use super::dump::{Chains, Rule, Set, Tables};
use super::{Doubt, Dump, Dumps, Link};
use crate::VmName;
use crate::log_files::LogLine;
use model::Family;
use std::collections::BTreeMap;

/// Everything that is read of a host.
#[derive(Debug)]
pub(crate) struct Host<'a> {
    pub(crate) four: Tables<'a>,
    pub(crate) six: Tables<'a>,
    pub(crate) link_layer: Tables<'a>,
    pub(crate) sets: BTreeMap<&'a str, Set<'a>>,
}

/// What the host says beside its dumps, by name.
pub(super) struct Beside<'a> {
    pub(super) logs: BTreeMap<&'a VmName, &'a LogLine>,
    pub(super) links: BTreeMap<&'a str, &'a Link>,
}

impl<'a> Host<'a> {
    pub(crate) fn read(dumps: &Dumps<'a>) -> Self {
        Self {
            four: Tables::of_iptables(dumps.iptables),
            six: Tables::of_iptables(dumps.ip6tables),
            link_layer: Tables::of_ebtables(dumps.ebtables),
            sets: super::dump::sets(dumps.ipset),
        }
    }

    pub(crate) fn dumps(&self) -> [(Dump, &Tables<'a>); 3] {
        [
            (Dump::Iptables, &self.four),
            (Dump::Ip6tables, &self.six),
            (Dump::Ebtables, &self.link_layer),
        ]
    }

    /// What is wrong with the texts themselves.
    pub(crate) fn doubts(&self) -> Vec<Doubt> {
        let mut doubts = Vec::new();
        for (dump, tables) in self.dumps() {
            doubts.extend(tables.is_cut.then_some(Doubt::Cut(dump)));
            doubts.extend(tables.hidden.iter().map(|table| Doubt::Hidden {
                dump,
                table: (*table).to_owned(),
            }));
            doubts.extend(tables.strange.iter().map(|line| Doubt::Line {
                dump,
                line: (*line).to_owned(),
            }));
        }
        doubts
    }

    pub(super) fn filter(&self, family: Family) -> Option<&Chains<'a>> {
        self.of(family).table("filter")
    }

    /// The rules of a chain of the filter table.
    pub(super) fn chain(&self, family: Family, name: &str) -> Option<&[Rule<'a>]> {
        self.filter(family)?.get(name).map(Vec::as_slice)
    }

    /// Nothing may be missing from the family's chains.
    pub(super) fn is_whole(&self, family: Family) -> bool {
        let tables = self.of(family);
        !tables.is_cut && !tables.hidden.contains(&"filter")
    }

    /// The rules of a chain of the link layer.
    pub(super) fn link_layer_chain(&self, name: &str) -> &[Rule<'a>] {
        let chains = self.link_layer.table("nat");
        chains
            .and_then(|chains| chains.get(name))
            .map_or(&[], Vec::as_slice)
    }

    fn of(&self, family: Family) -> &Tables<'a> {
        match family {
            Family::V4 => &self.four,
            Family::V6 => &self.six,
        }
    }
}

impl<'a> Beside<'a> {
    pub(super) fn new(logs: &'a [LogLine], links: &'a [Link]) -> Self {
        Self {
            logs: logs.iter().map(|log| (&log.vm, log)).collect(),
            links: links.iter().map(|link| (&*link.device, link)).collect(),
        }
    }
}
