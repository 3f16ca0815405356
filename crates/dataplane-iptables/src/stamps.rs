//! By what it is known that nobody else changed the rules, without reading them.
//!
//! Place on the line: beside read back. nftables numbers its changes. For iptables-legacy a digest of the
//! tables stands in; what is in ipsets has nothing of the kind, but for how many elements each set has.

use crate::parts::Table;
use crate::plan::{Step, Work};
use crate::tools::Backend;
use model::Family;
use netfilter::legacy::Fingerprint;
use netfilter::{generation, ipset, legacy};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Form", into = "Form")]
pub(crate) struct Stamps {
    backend: Backend,
    generation: u32,
    /// Of the tables of iptables-legacy; empty with the other back end.
    legacy: BTreeMap<(Family, Table), Legacy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Legacy {
    size: u32,
    digest: u64,
}

/// As in a file, where keys are text: by family.
#[derive(Deserialize, Serialize)]
struct Form {
    backend: Backend,
    generation: u32,
    legacy: [BTreeMap<Table, Legacy>; 2],
}

impl From<Form> for Stamps {
    fn from(form: Form) -> Self {
        let families = Family::BOTH.into_iter().zip(form.legacy);
        let tables = families
            .flat_map(|(family, of)| of.into_iter().map(move |(table, of)| ((family, table), of)));
        Self {
            backend: form.backend,
            generation: form.generation,
            legacy: tables.collect(),
        }
    }
}

impl From<Stamps> for Form {
    fn from(stamps: Stamps) -> Self {
        let mut legacy = [BTreeMap::new(), BTreeMap::new()];
        for ((family, table), of) in stamps.legacy {
            legacy[family as usize].insert(table, of);
        }
        Self {
            backend: stamps.backend,
            generation: stamps.generation,
            legacy,
        }
    }
}

impl Stamps {
    /// As it is now.
    pub(crate) fn read(backend: Backend) -> io::Result<Self> {
        Ok(Self {
            backend,
            generation: generation::nft().map_err(io::Error::other)?,
            legacy: match backend {
                Backend::Nft => BTreeMap::new(),
                Backend::Legacy => legacy_tables()?,
            },
        })
    }

    /// As it is after these steps. Of tables that they don't write, what was known before is believed: who changes
    /// them meanwhile is noticed.
    pub(crate) fn read_after(
        before: Option<&Self>,
        backend: Backend,
        steps: &[Step],
    ) -> io::Result<Self> {
        let Some(before) = before.filter(|before| before.backend == backend) else {
            return Self::read(backend);
        };
        let mut after = Self {
            backend,
            generation: generation::nft().map_err(io::Error::other)?,
            legacy: before.legacy.clone(),
        };
        if backend == Backend::Legacy {
            for (family, table) in written(steps) {
                match legacy_table(family, table)? {
                    Some(of) => after.legacy.insert((family, table), of),
                    None => after.legacy.remove(&(family, table)),
                };
            }
        }
        Ok(after)
    }

    /// Whether nobody has changed nftables since.
    pub(crate) fn nft_holds(&self) -> bool {
        generation::nft().is_ok_and(|now| now == self.generation)
    }

    /// Takes one transaction for ours, if there was just one since. `false`: there was none, or more.
    pub(crate) fn pass_over_one(&mut self) -> bool {
        let next = self.generation.wrapping_add(1);
        let just_one = generation::nft().is_ok_and(|now| now == next);
        if just_one {
            self.generation = next;
        }
        just_one
    }

    /// Whether what costs nothing to ask is still so: it notices all but rules of iptables-legacy that were
    /// replaced by others of the same size.
    pub(crate) fn hold_cheaply(&self) -> io::Result<bool> {
        if generation::nft().map_err(io::Error::other)? != self.generation {
            return Ok(false);
        }
        for ((family, table), known) in &self.legacy {
            let size = legacy::size(*family, table.name()).map_err(io::Error::other)?;
            if size != Some(known.size) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether these steps alone lead from the one to the other. Of iptables-legacy that can't be told.
    pub(crate) fn lead_to(&self, after: &Self, steps: &[Step]) -> bool {
        let commits = |script: &str| script.lines().filter(|l| *l == "COMMIT").count();
        let ours: usize = steps
            .iter()
            .map(|step| match (&step.work, self.backend) {
                (Work::Nft(_) | Work::Link(_), _) => 1,
                (Work::Iptables(_, script), Backend::Nft) => commits(script),
                (Work::Iptables(..), Backend::Legacy) | (Work::Ipset(_) | Work::Sets(_), _) => 0,
            })
            .sum();
        self.backend == after.backend
            && self.generation.wrapping_add(ours as u32) == after.generation
    }
}

/// The tables of iptables that are written.
fn written(steps: &[Step]) -> BTreeSet<(Family, Table)> {
    let mut written = BTreeSet::new();
    for step in steps {
        if let Work::Iptables(family, script) = &step.work {
            let tables = script.lines().filter_map(|line| line.strip_prefix('*'));
            let tables: BTreeSet<&str> = tables.collect();
            let ours = Table::ALL.into_iter();
            let ours = ours.filter(|table| tables.contains(table.name()));
            written.extend(ours.map(|table| (*family, table)));
        }
    }
    written
}

fn legacy_tables() -> io::Result<BTreeMap<(Family, Table), Legacy>> {
    let mut tables = BTreeMap::new();
    for family in Family::BOTH {
        for table in Table::ALL {
            if let Some(of) = legacy_table(family, table)? {
                tables.insert((family, table), of);
            }
        }
    }
    Ok(tables)
}

/// `None`: it isn't set up.
fn legacy_table(family: Family, table: Table) -> io::Result<Option<Legacy>> {
    let found = legacy::fingerprint(family, table.name()).map_err(io::Error::other)?;
    Ok(found.map(|Fingerprint { size, digest }| Legacy { size, digest }))
}

/// How many elements each set of ours has; `None` where the kernel doesn't tell.
pub(crate) fn set_sizes() -> io::Result<BTreeMap<String, Option<u32>>> {
    let headers = ipset::headers("").map_err(io::Error::other)?;
    let ours = headers
        .into_iter()
        .filter(|h| crate::found::is_ours(&h.name));
    Ok(ours.map(|header| (header.name, header.elements)).collect())
}

/// `None`: there is no such set. `Some(None)`: the kernel doesn't tell.
pub(crate) fn set_size(name: &str) -> io::Result<Option<Option<u32>>> {
    let header = ipset::header(name).map_err(io::Error::other)?;
    Ok(header.map(|header| header.elements))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_that_a_change_writes_are_known() {
        let restore = |family, script: &str| Work::Iptables(family, script.to_owned());
        let steps = [
            Work::Ipset("*raw\n".to_owned()),
            restore(Family::V4, "*mangle\n:pc-in-1 - [0:0]\nCOMMIT\n"),
            restore(Family::V6, "*raw\nCOMMIT\n*filter\nCOMMIT\n"),
        ];
        let steps = steps.map(|work| Step { work, writes: 1 });
        let expected = [
            (Family::V4, Table::Mangle),
            (Family::V6, Table::Raw),
            (Family::V6, Table::Filter),
        ];
        assert_eq!(written(&steps), BTreeSet::from(expected));
    }

    #[test]
    fn stamps_come_back_from_a_file() {
        let legacy = |size, digest| Legacy { size, digest };
        let stamps = Stamps {
            backend: Backend::Legacy,
            generation: u32::MAX,
            legacy: BTreeMap::from([
                ((Family::V4, Table::Raw), legacy(u32::MAX, u64::MAX)),
                ((Family::V6, Table::Filter), legacy(0, 0)),
            ]),
        };
        let text = serde_json::to_string(&stamps).expect("it is plain data");
        let read: Stamps = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(read, stamps);
    }
}
