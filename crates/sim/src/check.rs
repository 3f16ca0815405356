//! Does a host enforce what was committed?
//!
//! Place on the line: view -> plane, compared with the ledger.

use crate::ledger::{Expected, Ledger};
use model::{GroupId, HostId, PortId, Prefix, Revision};
use policy::{HostView, PeerView, PortView};
use std::collections::BTreeMap;
use std::fmt;

/// What must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub seed: u64,
    pub step: u64,
    pub host: HostId,
    pub port: Option<PortId>,
    pub what: String,
    pub expected: String,
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            step,
            host,
            port,
            what,
            expected,
            found,
        } = self;
        writeln!(f, "VIOLATION: {what}")?;
        writeln!(f, "  seed      {seed}")?;
        writeln!(f, "  step      {step}")?;
        writeln!(f, "  host      {host}")?;
        match port {
            Some(port) => writeln!(f, "  port      {port}")?,
            None => writeln!(f, "  port      -")?,
        }
        writeln!(f, "  expected  {expected}")?;
        write!(f, "  found     {found}")
    }
}

/// Where two views of one host differ first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) port: Option<PortId>,
    pub(crate) what: String,
    pub(crate) expected: String,
    pub(crate) found: String,
}

/// `None`: the same, the revision aside.
pub(crate) fn difference(expected: &HostView, found: &HostView) -> Option<Difference> {
    let HostView {
        revision: _,
        settings,
        networks,
        ports,
        groups,
        members,
        address_groups,
        overlay,
    } = expected;
    let here = |what: String, port: Option<&PortId>, expected: String, found: String| {
        Some(Difference {
            port: port.cloned(),
            what,
            expected,
            found,
        })
    };
    if *settings != found.settings {
        let (expected, found) = (format!("{settings:?}"), format!("{:?}", found.settings));
        return here("the host's settings".to_owned(), None, expected, found);
    }
    if let Some((id, expected, found)) = first(ports, &found.ports) {
        return here(format!("port {id}"), Some(id), expected, found);
    }
    let in_group = |group| {
        expected
            .ports
            .iter()
            .find(|(_, p)| p.groups.contains(group))
    };
    if let Some((id, expected, found)) = first(groups, &found.groups) {
        let port = in_group(id).map(|(port, _)| port);
        return here(format!("the rules of group {id}"), port, expected, found);
    }
    if *members != found.members {
        let all = members.keys().chain(found.members.keys());
        let mut all = all.filter(|key| members.get(*key) != found.members.get(*key));
        let key = all.next()?;
        let of = |view: &HostView| view.members.get(key).cloned().unwrap_or_default();
        let (should, does) = (of(expected), of(found));
        let told = |some: Vec<&Prefix>| format!("{} others, {some:?}", some.len());
        let what = format!("who is in group {} in scope {}", key.1, key.0);
        let port = expected
            .ports
            .iter()
            .find(|(_, port)| names(expected, port, &key.1));
        return here(
            what,
            port.map(|(id, _)| id),
            short(&told(should.difference(&does).collect())),
            short(&told(does.difference(&should).collect())),
        );
    }
    if let Some((id, expected, found)) = first(address_groups, &found.address_groups) {
        return here(format!("address group {id}"), None, expected, found);
    }
    if let Some((id, expected, found)) = first(networks, &found.networks) {
        return here(format!("network {id}"), None, expected, found);
    }
    if *overlay != found.overlay {
        return here("the overlay".to_owned(), None, String::new(), String::new());
    }
    None
}

fn first<'a, K: Ord, V: PartialEq + fmt::Debug>(
    expected: &'a BTreeMap<K, V>,
    found: &'a BTreeMap<K, V>,
) -> Option<(&'a K, String, String)> {
    if expected == found {
        return None;
    }
    let all = expected.keys().chain(found.keys());
    let mut all = all.filter(|key| expected.get(*key) != found.get(*key));
    let key = all.next()?;
    let told = |value: Option<&V>| match value {
        Some(value) => short(&format!("{value:?}")),
        None => "nothing".to_owned(),
    };
    Some((key, told(expected.get(key)), told(found.get(key))))
}

/// Whether a rule of the port's groups names the group.
fn names(view: &HostView, port: &PortView, group: &GroupId) -> bool {
    let groups = port.groups.iter().filter_map(|id| view.groups.get(id));
    let mut rules = groups.flat_map(|group| group.rules.values());
    rules.any(|rule| rule.peer == PeerView::Group(group.clone()))
}

/// People read it.
fn short(text: &str) -> String {
    const LONGEST: usize = 600;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// The host says that it enforces this revision: does its plane? `known`: what was expected of it last, and is now.
pub(crate) fn enforced(
    ledger: &Ledger,
    known: &mut Option<Expected>,
    host: &HostId,
    revision: Revision,
    plane: Option<&HostView>,
) -> Option<Difference> {
    if revision > ledger.revision {
        return Some(Difference {
            port: None,
            what: "a revision that was never committed".to_owned(),
            expected: format!("{} at most", ledger.revision),
            found: revision.to_string(),
        });
    }
    let nothing = HostView::default();
    let found = plane.unwrap_or(&nothing);
    let mut held = known.take();
    let held = held.take_if(|held| ledger.still_holds(held, revision));
    let expected = known.insert(held.unwrap_or_else(|| ledger.expected(host, revision)));
    let differs = difference(&expected.view, found);
    if differs.is_none() {
        // In memory once.
        expected.view.share(found);
    }
    differs
}
