//! The rules of one VM, from its four chains: as a push, as far as they can be believed.
//!
//! Knows nothing of: NICs.

use super::chains::{self, ChainState, Manner, Reading};
use super::dump::Clause;
use super::host::Host;
use super::{Doubt, TenantsLog, Version, names};
use crate::rules::{Remote, RuleRecord, Rules, Service};
use crate::{Push, VmName};
use model::{Direction, Family, Prefix};
use std::collections::BTreeSet;
use std::net::Ipv6Addr;

/// What the four chains of a VM's rules say.
pub(super) struct FoundRules<'h> {
    families: [FoundOfFamily<'h>; 2],
    /// Which version has made the guard, where it is there.
    guard: Option<Version>,
}

struct FoundOfFamily<'h> {
    family: Family,
    ingress: Reading<'h>,
    egress: Reading<'h>,
    /// Of a family whose text is cut, no chain counts as whole.
    is_whole: bool,
}

impl<'h> FoundRules<'h> {
    pub(super) fn read(host: &'h Host<'_>, chain: &str) -> Self {
        let guard = guard_version(host, chain);
        let egress_chain = names::egress_chain(chain);
        let of_family = |family| {
            let read =
                |chain, direction| chains::read(host.chain(family, chain), direction, family);
            let ingress = read(chain, Direction::Ingress);
            let mut egress = read(&egress_chain, Direction::Egress);
            // One push writes both. What is left of a restricted egress can look like an open one of
            // another version.
            let is_tracked = egress.manner == Some(Manner::Tracked);
            if egress.state == ChainState::Open && is_tracked && ingress.manner != egress.manner {
                (egress.state, egress.manner) = (ChainState::Unended, None);
            }
            FoundOfFamily {
                family,
                ingress,
                egress,
                is_whole: host.is_whole(family),
            }
        };
        Self {
            families: Family::BOTH.map(of_family),
            guard,
        }
    }

    /// The rules as they are to stand. `None`: none have come yet.
    pub(super) fn push(
        &self,
        vm: &VmName,
        log: Option<TenantsLog<'_>>,
        shared: Option<&VmName>,
        doubts: &mut Vec<Doubt>,
    ) -> Option<Push> {
        if log.is_none() {
            doubts.push(Doubt::NoLog { vm: vm.clone() });
        }
        if let Some(other) = shared {
            let (vm, other) = (vm.clone(), other.clone());
            doubts.push(Doubt::Shared { vm, other });
            return Some(Push::provisional(closed()));
        }
        let logged = log.and_then(|log| log.push);
        if self.is_unpushed() {
            // Either it was begun anew, or its rules were lost.
            let _ = logged?;
            doubts.push(Doubt::NotPushed { vm: vm.clone() });
            return Some(Push::provisional(closed()));
        }
        let before = doubts.len();
        let records = self.records(vm, doubts);
        let is_complete = doubts.len() == before;
        let rules = Rules::new(records);
        // What is kept is read again later: it must be what a push can say.
        if Rules::parse(rules.text()).as_ref() != Ok(&rules) {
            doubts.push(Doubt::TooManyRules { vm: vm.clone() });
            return Some(Push::provisional(closed()));
        }
        match logged {
            Some((signature, sequence)) if is_complete => Some(Push {
                signature: signature.clone(),
                sequence: *sequence,
                rules,
            }),
            Some(_) => Some(Push::provisional(rules)),
            None => {
                if log.is_some() {
                    doubts.push(Doubt::NotLogged { vm: vm.clone() });
                }
                Some(Push::provisional(rules))
            }
        }
    }

    /// As a VM is before its first push: ingress is ended and empty, and egress hasn't begun.
    fn is_unpushed(&self) -> bool {
        self.families.iter().all(|found| {
            let is_ended = found.ingress.state == ChainState::Closed;
            let is_begun =
                !found.ingress.rules.is_empty() || found.egress.state != ChainState::Empty;
            found.is_whole && is_ended && !is_begun
        })
    }

    fn records(&self, vm: &VmName, doubts: &mut Vec<Doubt>) -> Vec<RuleRecord> {
        let mut records = Vec::new();
        for direction in Direction::BOTH {
            let mut joined = Joined::new(direction);
            for found in &self.families {
                doubts.extend(found.doubt(direction, vm));
                let reading = found.reading(direction);
                joined.begin_family();
                for (service, prefix) in &reading.rules {
                    joined.add(*service, Remote::Prefix(*prefix));
                }
                let is_open = reading.state == ChainState::Open && found.is_whole;
                let is_restricted = direction == Direction::Egress && !is_open;
                if is_restricted && reading.rules.is_empty() {
                    joined.add(Service::All, nobody(found.family));
                }
            }
            records.extend(joined.records);
        }
        records
    }

    pub(super) fn versions(&self) -> BTreeSet<Version> {
        let mut versions: BTreeSet<Version> = self.guard.into_iter().collect();
        for manner in self.manners() {
            match manner {
                Manner::Tracked => versions.insert(Version::Before),
                Manner::Explicit if self.guard == Some(Version::Main) => false,
                Manner::Explicit => versions.insert(Version::After),
            };
        }
        versions
    }

    pub(super) fn is_mixed(&self) -> bool {
        let mut manners = self.manners();
        manners.extend(self.guard.map(Version::manner));
        manners.len() > 1
    }

    fn manners(&self) -> BTreeSet<Manner> {
        let both = |found: &FoundOfFamily<'_>| [found.ingress.manner, found.egress.manner];
        self.families.iter().flat_map(both).flatten().collect()
    }
}

impl FoundOfFamily<'_> {
    fn reading(&self, direction: Direction) -> &Reading<'_> {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// `None`: the direction is read, and whole.
    fn doubt(&self, direction: Direction, vm: &VmName) -> Option<Doubt> {
        let (vm, family) = (vm.clone(), self.family);
        match self.reading(direction).state {
            ChainState::Closed | ChainState::Open if self.is_whole => None,
            ChainState::Unreadable(rule) => Some(Doubt::Unreadable {
                vm,
                family,
                direction,
                rule: rule.to_owned(),
            }),
            ChainState::Missing
            | ChainState::Empty
            | ChainState::Unended
            | ChainState::Closed
            | ChainState::Open => Some(Doubt::Incomplete {
                vm,
                family,
                direction,
            }),
        }
    }
}

impl Version {
    /// How its chains of rules are written.
    fn manner(self) -> Manner {
        match self {
            Version::Before => Manner::Tracked,
            Version::After | Version::Main => Manner::Explicit,
        }
    }
}

/// Which version has made a VM's guard; `None` where it isn't there.
fn guard_version(host: &Host<'_>, chain: &str) -> Option<Version> {
    let guard = host.chain(Family::V4, &names::default_chain(chain))?;
    let first = guard.first()?;
    // Until 4.22, state comes before anything else, of whichever NIC.
    if first.value("--state").is_some() && first.value("--physdev-in").is_none() {
        return Some(Version::Before);
    }
    let of_vm = guard
        .iter()
        .find(|rule| rule.value("--physdev-in").is_some())?;
    let is_bridged = |clause: &Clause<'_>| clause.option() == "--physdev-is-bridged";
    Some(match of_vm.matches.iter().any(is_bridged) {
        true => Version::After,
        false => Version::Main,
    })
}

/// Rules of one direction, of which those that differ in the prefix alone are one record. Rules of the
/// second family join those of the first: a record has both.
struct Joined {
    direction: Direction,
    records: Vec<RuleRecord>,
    /// The record that the family's last rule is in.
    last: Option<usize>,
}

impl Joined {
    fn new(direction: Direction) -> Self {
        Self {
            direction,
            records: Vec::new(),
            last: None,
        }
    }

    fn begin_family(&mut self) {
        self.last = None;
    }

    fn add(&mut self, service: Service, remote: Remote) {
        let from = self.last.unwrap_or_default();
        let mut rest = self.records.iter().enumerate().skip(from);
        let same = rest.find(|(_, record)| record.service == service);
        let at = match (same, self.last) {
            (Some((at, _)), _) => at,
            (None, Some(last)) => last + 1,
            (None, None) => self.records.len(),
        };
        if same.is_some() {
            self.records[at].remotes.push(remote);
        } else {
            let record = RuleRecord {
                direction: self.direction,
                service,
                remotes: vec![remote],
            };
            self.records.insert(at, record);
        }
        self.last = Some(at);
    }
}

/// Rules that admit nobody, in either direction.
fn closed() -> Rules {
    let record = RuleRecord {
        direction: Direction::Egress,
        service: Service::All,
        remotes: Family::BOTH.map(nobody).into(),
    };
    Rules::new(vec![record])
}

/// Whom no packet reaches: an egress record of it restricts its family, and permits nothing.
fn nobody(family: Family) -> Remote {
    match family {
        Family::V4 => Remote::NoAddress,
        Family::V6 => Remote::Prefix(Prefix::host(Ipv6Addr::UNSPECIFIED.into())),
    }
}
