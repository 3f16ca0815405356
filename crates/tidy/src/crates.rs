//! The table of crates in ARCHITECTURE.md against what cargo says: no arrow that isn't in the table,
//! no crate of others that isn't named there.
//!
//! "May use" goes on: who may use `policy` may also use what `policy` may use.

use crate::repository::Package;
use crate::{Complaint, complaint};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    inside: Allowed,
    outside: Allowed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    /// The table says `anything`.
    Anything,
    These(BTreeSet<String>),
}

const PLACE: &str = "ARCHITECTURE.md";
const COLUMNS: [&str; 3] = ["crate", "may use", "crates of others"];

pub(crate) fn check(architecture: &str, packages: &[Package]) -> Vec<Complaint> {
    let Some(table) = table(architecture) else {
        return vec![complaint(
            PLACE,
            format!("no table with the columns {COLUMNS:?}"),
        )];
    };
    let mut complaints = Vec::new();
    let known: BTreeSet<&String> = packages.iter().map(|package| &package.name).collect();
    for name in table.keys().filter(|name| !known.contains(name)) {
        complaints.push(complaint(PLACE, format!("there is no crate `{name}`")));
    }
    for package in packages {
        let Some(row) = table.get(&package.name) else {
            let text = format!("crate `{}` is not in the table", package.name);
            complaints.push(complaint(PLACE, text));
            continue;
        };
        let allowed = reach(&table, &row.inside);
        for used in refused(&package.inside, &allowed) {
            let text = format!("uses `{used}`; {PLACE} doesn't allow that arrow");
            complaints.push(complaint(&package.name, text));
        }
        for used in refused(&package.outside, &row.outside) {
            let text = format!("uses `{used}` of others; {PLACE} doesn't name it");
            complaints.push(complaint(&package.name, text));
        }
    }
    complaints
}

fn refused<'a>(used: &'a BTreeSet<String>, allowed: &'a Allowed) -> Vec<&'a String> {
    match allowed {
        Allowed::Anything => Vec::new(),
        Allowed::These(names) => used.difference(names).collect(),
    }
}

fn reach(table: &BTreeMap<String, Row>, from: &Allowed) -> Allowed {
    let Allowed::These(names) = from else {
        return Allowed::Anything;
    };
    let mut reached = BTreeSet::new();
    let mut open: Vec<&String> = names.iter().collect();
    while let Some(name) = open.pop() {
        if !reached.insert(name.clone()) {
            continue;
        }
        match table.get(name).map(|row| &row.inside) {
            Some(Allowed::These(names)) => open.extend(names),
            Some(Allowed::Anything) => return Allowed::Anything,
            None => {}
        }
    }
    Allowed::These(reached)
}

/// The first table of the text that has the columns.
fn table(text: &str) -> Option<BTreeMap<String, Row>> {
    let mut lines = text.lines();
    let columns = lines.find_map(|line| {
        let cells: Vec<String> = cells(line)?
            .iter()
            .map(|cell| cell.to_lowercase())
            .collect();
        let at = COLUMNS.map(|name| cells.iter().position(|cell| cell == name));
        let [Some(name), Some(inside), Some(outside)] = at else {
            return None;
        };
        Some([name, inside, outside])
    })?;
    let rows = lines.skip(1).map_while(|line| {
        let cells = cells(line)?;
        let [name, inside, outside] = columns.map(|column| *cells.get(column).unwrap_or(&""));
        Some((name, inside, outside))
    });
    let mut table = BTreeMap::new();
    for (name, inside, outside) in rows {
        for name in names(name) {
            let row = Row {
                inside: allowed(inside),
                outside: allowed(outside),
            };
            table.insert(name, row);
        }
    }
    Some(table)
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

fn allowed(cell: &str) -> Allowed {
    if cell == "anything" {
        Allowed::Anything
    } else {
        Allowed::These(names(cell))
    }
}

/// What stands in backticks.
fn names(cell: &str) -> BTreeSet<String> {
    let inside = cell.split('`').skip(1).step_by(2);
    inside.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "
| crate | owns | may use | crates of others | does not know |
| --- | --- | --- | --- | --- |
| `model` | nouns | - | - | files |
| `policy` | compiling | `model` | - | planes |
| `plane` | enforcing | `policy` | `libc` | files |
| `tool` | wiring | anything | anything | - |
";

    fn package(name: &str, inside: &[&str], outside: &[&str]) -> Package {
        let set = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        Package {
            name: name.to_owned(),
            inside: set(inside),
            outside: set(outside),
            roots: Vec::new(),
        }
    }

    fn check_with(changed: Package, expected: &[&str]) {
        let mut packages = vec![
            package("model", &[], &[]),
            package("policy", &["model"], &[]),
            package("plane", &["policy", "model"], &["libc"]),
            package("tool", &["plane"], &["clap"]),
        ];
        packages.retain(|package| package.name != changed.name);
        packages.push(changed);
        let complaints = check(TABLE, &packages);
        let texts: Vec<String> = complaints.iter().map(|c| c.to_string()).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn arrows_of_the_table_and_what_they_lead_to_are_allowed() {
        check_with(package("plane", &["policy", "model"], &["libc"]), &[]);
    }

    #[test]
    fn an_arrow_that_is_not_in_the_table_is_not() {
        check_with(
            package("policy", &["model", "plane"], &[]),
            &["policy: uses `plane`; ARCHITECTURE.md doesn't allow that arrow"],
        );
    }

    #[test]
    fn a_crate_of_others_must_be_named() {
        check_with(
            package("model", &[], &["serde"]),
            &["model: uses `serde` of others; ARCHITECTURE.md doesn't name it"],
        );
    }

    #[test]
    fn a_crate_must_be_in_the_table() {
        check_with(
            package("new", &[], &[]),
            &["ARCHITECTURE.md: crate `new` is not in the table"],
        );
    }

    #[test]
    fn a_row_must_have_a_crate() {
        let packages = [package("model", &[], &[])];
        let texts: Vec<String> = check(TABLE, &packages)
            .iter()
            .map(|c| c.text.clone())
            .collect();
        assert_eq!(
            texts,
            [
                "there is no crate `plane`",
                "there is no crate `policy`",
                "there is no crate `tool`"
            ]
        );
    }

    #[test]
    fn the_table_itself_must_be_there() {
        assert_eq!(check("# Architecture", &[]).len(), 1);
    }
}
