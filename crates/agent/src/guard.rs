//! A drop at the bridge for devices that are not armed yet: makes the window between a device's
//! link-up and its first program zero.
//!
//! Place on the line: beside the plane. Lifted for a device after the plane has armed it, and keyed by
//! its index: a device that is made again under the same name is closed again. It stays when the agent
//! dies, and goes with `detach`.
//!
//! ```text
//! table bridge portcullis-<instance>
//!   set names  {tap1, tap2, ...}      devices that the policy names (and rules for tap*)
//!   set armed  {7, 8, ...}            indices of those that have their program
//!   prerouting, postrouting           of names and not armed: drop
//! ```
//! nftables' bridge family, because it sees every bridge's ports and needs nothing of the bridge's
//! configuration. Forwarding on a bridge is what it guards: a device that is routed has no bridge.
//! Knows nothing of: planes, policies.

use crate::agent::GuardState;
use hurry::Hurry;
use netfilter::elements::{Element, Transaction};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

#[derive(Clone, Debug)]
pub struct Guard {
    table: String,
}

#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("starting nft: {0}; --guard-bridge needs the package nftables")]
    Start(io::Error),
    #[error("nft refused {what}: {said}")]
    Refused { what: &'static str, said: String },
}

impl Guard {
    pub fn new(instance: &str) -> Self {
        Self {
            table: format!("portcullis-{instance}"),
        }
    }

    /// Whether this kernel and this host can do it; changes nothing.
    pub fn check(&self) -> Result<(), GuardError> {
        let script = render("portcullis-check", &GuardState::default());
        let what = "a table in the bridge family";
        nft(&["--check", "--file", "-"], &script, what).map(drop)
    }

    /// Replaces the whole table in one transaction.
    pub fn set(&self, state: &GuardState) -> Result<(), GuardError> {
        let _hurry = Hurry::up();
        let script = render(&self.table, state);
        nft(&["--file", "-"], &script, "the guard").map(drop)
    }

    /// Writes what differs, in one transaction; all of it where what was there isn't there any more.
    pub fn change(&self, old: &GuardState, new: &GuardState) -> Result<(), GuardError> {
        if old.names != new.names {
            return self.set(new);
        }
        let hurry = Hurry::up();
        let mut transaction = Transaction::in_bridge_table(&self.table);
        transaction.delete("armed", &elements(&old.armed - &new.armed));
        transaction.add("armed", &elements(&new.armed - &old.armed));
        transaction.commit().or_else(|_| {
            drop(hurry);
            self.set(new)
        })
    }

    /// Whether the table still closes what it should: all its drops are there, and it lets pass as many devices
    /// as it was told of.
    pub fn is_in_place(&self, state: &GuardState) -> Result<bool, GuardError> {
        let arguments = ["list", "table", "bridge", &self.table];
        match nft(&arguments, "", "to list the guard") {
            Ok(listed) => Ok(holds(&listed, state)),
            // There is none.
            Err(GuardError::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Fine when there is none; where nft isn't, there can be none.
    pub fn remove(&self) -> Result<(), GuardError> {
        let table = &self.table;
        let script = format!("add table bridge {table}\ndelete table bridge {table}\n");
        match nft(&["--file", "-"], &script, "the guard's removal") {
            Err(GuardError::Start(e)) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map(drop),
        }
    }

    /// Names that can't be guarded: nftables knows `*` at the end only, and a lone `*` would close
    /// the whole host.
    pub fn unguarded(state: &GuardState) -> BTreeSet<String> {
        let plain = |name: &&String| kind_of(name).is_none();
        state.names.iter().filter(plain).cloned().collect()
    }
}

enum NameKind {
    Exact,
    Prefix,
}

fn kind_of(name: &str) -> Option<NameKind> {
    let (stem, kind) = match name.strip_suffix('*') {
        Some(stem) => (stem, NameKind::Prefix),
        None => (name, NameKind::Exact),
    };
    // Names go into nft's own language between quotes.
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@' | b':');
    (!stem.is_empty() && stem.len() < 16 && stem.bytes().all(safe)).then_some(kind)
}

fn render(table: &str, state: &GuardState) -> String {
    let quoted = |name: &String| format!("\"{name}\"");
    let exact: Vec<String> = state
        .names
        .iter()
        .filter(|n| matches!(kind_of(n), Some(NameKind::Exact)))
        .map(quoted)
        .collect();
    let prefixes: Vec<String> = state
        .names
        .iter()
        .filter(|n| matches!(kind_of(n), Some(NameKind::Prefix)))
        .map(quoted)
        .collect();
    let armed: Vec<String> = state.armed.iter().map(ToString::to_string).collect();
    let elements = |list: &[String]| match list {
        [] => String::new(),
        list => format!(" elements = {{ {} }};", list.join(", ")),
    };

    // Added first so that there is something to delete; all of it is one transaction.
    let mut script = format!("add table bridge {table}\ndelete table bridge {table}\n");
    let _ = writeln!(script, "table bridge {table} {{");
    let _ = writeln!(script, " set names {{ type ifname;{} }}", elements(&exact));
    let _ = writeln!(
        script,
        " set armed {{ type iface_index;{} }}",
        elements(&armed)
    );
    for (hook, name, index) in [
        ("prerouting", "iifname", "iif"),
        ("postrouting", "oifname", "oif"),
    ] {
        let _ = writeln!(
            script,
            " chain {hook} {{ type filter hook {hook} priority -300; policy accept;"
        );
        let _ = writeln!(script, "  {name} @names {index} != @armed counter drop");
        for prefix in &prefixes {
            let _ = writeln!(script, "  {name} {prefix} {index} != @armed counter drop");
        }
        script.push_str(" }\n");
    }
    script.push_str("}\n");
    script
}

fn elements(ifindices: BTreeSet<u32>) -> Vec<Element> {
    let of = |ifindex: u32| Element {
        key: ifindex.to_ne_bytes().to_vec(),
        ..Element::default()
    };
    ifindices.into_iter().map(of).collect()
}

/// As nft lists the table.
fn holds(listed: &str, state: &GuardState) -> bool {
    let is_prefix = |name: &&String| matches!(kind_of(name), Some(NameKind::Prefix));
    let prefixes = state.names.iter().filter(is_prefix).count();
    let exact = |name: &&String| matches!(kind_of(name), Some(NameKind::Exact));
    let drops = listed.lines().filter(|line| line.ends_with(" drop"));
    drops.count() == 2 * (1 + prefixes)
        && element_count(listed, "names") == state.names.iter().filter(exact).count()
        && element_count(listed, "armed") == state.armed.len()
}

/// How many elements a set has.
fn element_count(listed: &str, set: &str) -> usize {
    let of_set = listed.split_once(&format!("set {set} {{"));
    let own = of_set.and_then(|(_, rest)| rest.split_once("\n\t}"));
    let elements = own.and_then(|(own, _)| own.split_once("elements = {"));
    elements.map_or(0, |(_, elements)| elements.split(',').count())
}

/// What it says.
fn nft(arguments: &[&str], script: &str, what: &'static str) -> Result<String, GuardError> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(GuardError::Start)?;
    let mut stdin = child.stdin.take().expect("it is piped");
    // A child that ends early says why on its stderr.
    let _ = stdin.write_all(script.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(GuardError::Start)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(GuardError::Refused {
        what,
        said: said.lines().next().unwrap_or("no reason given").to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use conformance::lab::Lab;

    fn state(names: &[&str], armed: &[u32]) -> GuardState {
        GuardState {
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            armed: armed.iter().copied().collect(),
        }
    }

    #[test]
    fn exact_names_share_a_set_and_prefixes_have_rules() {
        let script = render("portcullis-blue", &state(&["tap1", "tap2", "vnet*"], &[7]));
        let expected = r#"add table bridge portcullis-blue
delete table bridge portcullis-blue
table bridge portcullis-blue {
 set names { type ifname; elements = { "tap1", "tap2" }; }
 set armed { type iface_index; elements = { 7 }; }
 chain prerouting { type filter hook prerouting priority -300; policy accept;
  iifname @names iif != @armed counter drop
  iifname "vnet*" iif != @armed counter drop
 }
 chain postrouting { type filter hook postrouting priority -300; policy accept;
  oifname @names oif != @armed counter drop
  oifname "vnet*" oif != @armed counter drop
 }
}
"#;
        assert_eq!(script, expected);
    }

    #[test]
    fn names_that_say_more_than_a_name_never_reach_nft() {
        let hostile = [
            "tap\" drop; }",
            "a\nb",
            "*",
            "t*p",
            "",
            "x y",
            "seventeen-letters",
        ];
        let state = state(&hostile, &[]);
        assert_eq!(Guard::unguarded(&state).len(), hostile.len());
        assert!(!render("t", &state).contains("elements"));
    }

    #[test]
    fn what_nft_lists_holds_or_does_not() {
        let listed = r#"table bridge portcullis-blue {
	set names {
		type ifname
		elements = { "tap1",
			     "tap2" }
	}

	set armed {
		type iface_index
		elements = { "lo", 8 }
	}

	chain prerouting {
		type filter hook prerouting priority dstnat; policy accept;
		iifname @names iif != @armed counter packets 0 bytes 0 drop
		iifname "vnet*" iif != @armed counter packets 0 bytes 0 drop
	}

	chain postrouting {
		type filter hook postrouting priority dstnat; policy accept;
		oifname @names oif != @armed counter packets 0 bytes 0 drop
		oifname "vnet*" oif != @armed counter packets 0 bytes 0 drop
	}
}
"#;
        let of = |names: &[&str], armed: &[u32]| holds(listed, &state(names, armed));
        assert!(of(&["tap1", "tap2", "vnet*"], &[1, 8]));
        assert!(!of(&["tap1", "tap2", "vnet*"], &[1]));
        assert!(!of(&["tap1", "tap2"], &[1, 8]));
        assert!(!of(&["tap1", "vnet*"], &[1, 8]));
        let less = listed.replacen(" drop", "", 1);
        assert!(!holds(&less, &state(&["tap1", "tap2", "vnet*"], &[1, 8])));
    }

    #[test]
    fn a_change_is_made_whether_the_table_is_there_or_not() {
        let lab = Lab::new("guard").expect("root");
        lab.host().run(|| {
            let guard = Guard::new("test");
            let told = [[1, 2, 3], [2, 4, 5], [4, 5, 6]].map(|armed| state(&["vnet*"], &armed));
            let is_in_place = |state: &GuardState| guard.is_in_place(state).expect("nft lists it");
            guard.set(&told[0]).expect("nft takes it");
            guard
                .change(&told[0], &told[1])
                .expect("the kernel takes it");
            assert!(is_in_place(&told[1]) && !is_in_place(&state(&["vnet*"], &[2, 4])));
            guard.remove().expect("it is there");
            guard.change(&told[1], &told[2]).expect("nft takes it");
            assert!(is_in_place(&told[2]));
        });
    }

    #[test]
    fn nft_takes_what_is_rendered() {
        Guard::new("test")
            .check()
            .expect("nft and its bridge family are here");
    }
}
