//! What is counted and measured.

use std::collections::BTreeMap;
use std::fmt;

/// Changes that cost alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    MemberOfSmall,
    Member,
    MemberOfMiddle,
    MemberOfLargest,
    Rule,
    Port,
    Move,
    Group,
    Addresses,
    Settings,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::MemberOfSmall => "member, group of up to 16",
            Self::Member => "member, larger group",
            Self::MemberOfMiddle => "member, the middle group",
            Self::MemberOfLargest => "member, the largest group",
            Self::Rule => "rule",
            Self::Port => "port made or gone",
            Self::Move => "port to another host",
            Self::Group => "group made or gone",
            Self::Addresses => "address group",
            Self::Settings => "settings of a host",
        })
    }
}

#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub hosts: usize,
    pub ports: usize,
    pub groups: usize,
    /// Members of the largest group, of the middle one, and hosts where a rule names them.
    pub largest: usize,
    pub middle: usize,
    pub watching: usize,
    pub servers: usize,
    /// Hosts that had an agent and a plane, and how many had at the same time; the others' messages are made and counted.
    pub agents: usize,
    pub agents_at_once: usize,
    /// Of those that had one, where a rule names the largest group.
    pub largest_agents: usize,
    pub steps: u64,
    pub changes: u64,
    /// Changes that the use cases refused, or whose answer was lost.
    pub refused: u64,
    pub unanswered: u64,
    pub rows: BTreeMap<Class, Row>,
    /// Messages to hosts that a change is nothing to: how far the store is.
    pub progress: u64,
    pub parts: u64,
    pub part_bytes: u64,
    pub faults: BTreeMap<&'static str, u64>,
    /// Comparisons of what a host enforces with what was committed.
    pub checks: u64,
    /// Of these, where a rule names the largest group.
    pub largest_checks: u64,
    /// Of all hosts with agents, when nothing was under way any more; and how many others' parts then.
    pub quiet_checks: u64,
    pub sampled: u64,
    /// Compared with what all of the inventory compiles to, not just what the ledger finds for the host.
    pub whole_checks: u64,
    /// Agents that began with a policy from their cache that was older than what was enforced.
    pub from_older_cache: u64,
}

/// Of one class; one number for each change, or for each message. Objects are counted, so they are the same however
/// busy the machine is.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub changes: u64,
    /// Hosts that were told, objects that the servers looked at to find whom to tell what, and the time of the one that
    /// was asked: of changes without a fault at the servers or the store.
    pub told: Spread,
    pub objects: Spread,
    pub server_us: Spread,
    pub message_bytes: Spread,
    /// Of one agent, for one message.
    pub agent_us: Spread,
    /// Until all that were told and have an agent enforce it.
    pub steps: Spread,
}

impl Row {
    /// Objects that were looked at for each host that was told something.
    pub fn objects_a_host(&self) -> Option<u64> {
        self.objects.sum().checked_div(self.told.sum())
    }
}

#[derive(Clone, Debug, Default)]
pub struct Spread(Vec<u64>);

impl Spread {
    pub(crate) fn add(&mut self, number: u64) {
        self.0.push(number);
    }

    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The number that so many of a hundred are not above.
    pub fn percent(&self, percent: usize) -> Option<u64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        sorted.get(last * percent / 100).copied()
    }

    pub fn median(&self) -> Option<u64> {
        self.percent(50)
    }
}
