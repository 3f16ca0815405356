//! A change to what the sets and maps of link.nft hold: one transaction.
//!
//! Place on the line: plan -> **step** -> the kernel, or, in words, nft.
//! Knows nothing of: what the sets mean, when a change is made.

use crate::element::{Element, Field};
use model::Prefix;
use netfilter::Error;
use netfilter::elements::{self, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkChange {
    pub(crate) table: String,
    pub(crate) gone: BTreeSet<Element>,
    pub(crate) come: BTreeSet<Element>,
    pub(crate) for_a_time: Vec<ForATime>,
}

/// A device in a set whose elements end by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ForATime {
    pub(crate) set: &'static str,
    pub(crate) device: u32,
    pub(crate) seconds: u32,
}

impl LinkChange {
    pub(crate) fn of(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            gone: BTreeSet::new(),
            come: BTreeSet::new(),
            for_a_time: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.gone.len() + self.come.len() + self.for_a_time.len()
    }

    /// `false`: the nft that made the table writes ranges otherwise than is known here, and has to write these.
    pub(crate) fn is_for_kernel(&self) -> Result<bool, Error> {
        let mut changed = self.gone.iter().chain(&self.come);
        match changed.any(Element::has_range) {
            true => elements::is_there(&self.table, RANGES, &range_that_nft_wrote().in_kernel()),
            false => Ok(true),
        }
    }

    pub(crate) fn commit(&self) -> Result<(), Error> {
        let mut transaction = Transaction::in_bridge_table(&self.table);
        for (set, elements) in by_set(&self.gone, |element| elements::Element {
            value: None,
            ..element.in_kernel()
        }) {
            transaction.delete(set, &elements);
        }
        for (set, elements) in by_set(&self.come, Element::in_kernel) {
            transaction.add(set, &elements);
        }
        for held in &self.for_a_time {
            let forever = held.element().in_kernel();
            let element = elements::Element {
                timeout: Some(Duration::from_secs(held.seconds.into())),
                ..forever.clone()
            };
            // One that is there gets a new end only by being put there anew.
            transaction.add(held.set, std::slice::from_ref(&forever));
            transaction.delete(held.set, &[forever]);
            transaction.add(held.set, &[element]);
        }
        transaction.commit()
    }

    /// The same in nft's words.
    pub(crate) fn script(&self) -> String {
        let table = &self.table;
        let mut script = String::new();
        for (verb, elements) in [("delete", &self.gone), ("add", &self.come)] {
            for (set, elements) in by_set(elements, ToString::to_string) {
                let elements = elements.join(", ");
                let _ = writeln!(
                    script,
                    "{verb} element bridge {table} {set} {{ {elements} }}"
                );
            }
        }
        for held in &self.for_a_time {
            let ForATime { set, device, .. } = held;
            for verb in ["add", "delete"] {
                let _ = writeln!(script, "{verb} element bridge {table} {set} {{ {device} }}");
            }
            script.push_str(&held.addition(table));
        }
        script
    }
}

impl ForATime {
    fn element(&self) -> Element {
        Element {
            set: self.set,
            key: vec![Field::Device(self.device)],
            value: None,
        }
    }

    /// Where it isn't there.
    pub(crate) fn addition(&self, table: &str) -> String {
        let Self {
            set,
            device,
            seconds,
        } = self;
        format!("add element bridge {table} {set} {{ {device} timeout {seconds}s }}\n")
    }
}

/// The set of link.nft that holds just this.
const RANGES: &str = "ranges";

pub(crate) fn range_that_nft_wrote() -> Element {
    let nowhere = Prefix::host(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Element {
        set: RANGES,
        key: vec![Field::Device(1), Field::Range(nowhere)],
        value: None,
    }
}

fn by_set<T>(
    elements: &BTreeSet<Element>,
    of: impl Fn(&Element) -> T,
) -> BTreeMap<&'static str, Vec<T>> {
    let mut sets: BTreeMap<&str, Vec<T>> = BTreeMap::new();
    for element in elements {
        sets.entry(element.set).or_default().push(of(element));
    }
    sets
}

#[cfg(test)]
mod tests;
