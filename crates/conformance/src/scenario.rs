//! Scenarios as data: a policy, packets in words, and what becomes of each.
//!
//! ```yaml
//! base: |                      # put before every policy of the file, in the policy file's syntax
//!   version: 1
//!   networks: { lan: { subnets: [10.0.0.0/24] } }
//! policies:                    # by name; `main` is the one that scenarios begin with
//!   main: |
//!     groups: ...
//! scenarios:
//!   - name: a source MAC that is not the port's is dropped
//!     says: Guard 3            # the place in docs/semantics.md
//!     threat: G1               # optional
//!     begin: main              # optional: another policy to begin with
//!     steps: |
//!       from a: tcp 10.0.0.10:40000 -> 10.0.0.11:443                 => pass rule
//!       to b: tcp 10.0.0.10:40000 -> 10.0.0.11:443 src-mac 02:...    => drop no-rule
//! ```
//! Each line of `steps` is one step ([`Step`]); what follows a `#` is a comment:
//!
//! ```text
//! from PORT: PACKET => OUTCOME   a packet that the port's VM sends (egress)
//! to PORT: PACKET => OUTCOME     one that it would receive (ingress)
//! repeat N from PORT: ...        N times; `{n}` in the packet counts from 0
//! wait 31s                       time goes by; `ms` too
//! migrate PORT                   its VM goes on at another host of the same policy, and its flows go along
//! policy NAME                    another policy of the file is in force
//! join PORT GROUP, leave PORT GROUP, remove GROUP/RULE, forget GROUP, unplug PORT
//! family GROUP/RULE ipv4|ipv6    the rule is of this family, whatever its remote or protocol is of
//! set elision on|strict|off, set narrowing cut|keep
//! ```
//! An outcome is `pass`, perhaps with `rule [GROUP/RULE]`, `live [GROUP/RULE]`, `elided-error`,
//! `fragment`, `infrastructure` or `unguarded`; or `drop`, perhaps with the reason.
//! A packet's MACs are those of the ports whose addresses it has; others are of an outsider.
//!
//! Place on the line: all of it. Knows nothing of: who judges ([`Subject`]).

mod parse;
mod run;
mod two_hosts;
mod wire_plane;

pub use parse::{BadScenario, load, parse};
pub use run::{Failure, Ran, Seen, Subject, run};
pub use two_hosts::{Plane, TwoHosts};
pub use wire_plane::{DeviceKind, RealPlane, WireJudge, WirePlane, unshown};

use model::{
    Direction, Elision, Family, GroupId, Inventory, Narrowing, PassReason, PortId, RuleRef,
};
use model::{DropReason, HostId, MacAddr, Verdict};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use wire::words::Words;

/// The host whose ports are asked in every scenario.
pub fn here() -> HostId {
    HostId::from("here")
}

/// The source and destination of what no port of the scenario sends or has the address of.
pub const OUTSIDER: MacAddr = MacAddr([0x52, 0x54, 0, 0xff, 0xff, 0xff]);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub file: Arc<str>,
    pub name: String,
    pub says: String,
    pub threat: Option<String>,
    pub policies: Arc<BTreeMap<String, Inventory>>,
    pub begin: String,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// In the file, from 1.
    pub line: usize,
    pub text: String,
    pub action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Packet {
        port: PortId,
        direction: Direction,
        /// One for each time.
        packets: Vec<Words>,
        outcome: Outcome,
    },
    Wait(Duration),
    Migrate(PortId),
    Change(Change),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Policy(String),
    Join(PortId, GroupId),
    Leave(PortId, GroupId),
    RemoveRule(RuleRef),
    /// May break the rule: no policy file says such a thing, but an inventory can.
    Family(RuleRef, Family),
    /// The group is gone, and what names it names nothing.
    Forget(GroupId),
    Unplug(PortId),
    Elision(Elision),
    Narrowing(Narrowing),
}

impl Scenario {
    /// How many it shows.
    pub fn packets(&self) -> usize {
        let steps = self.steps.iter();
        let packets = steps.map(|step| match &step.action {
            Action::Packet { packets, .. } => packets.len(),
            Action::Wait(_) | Action::Migrate(_) | Action::Change(_) => 0,
        });
        packets.sum()
    }
}

/// What is expected of a verdict; what isn't said may be anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Pass(Option<Why>),
    Drop(Option<DropReason>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    Rule(Option<RuleRef>),
    Live(Option<RuleRef>),
    ElidedError,
    Fragment,
    Infrastructure,
    Unguarded,
}

impl Outcome {
    pub fn passes(&self) -> bool {
        match self {
            Outcome::Pass(_) => true,
            Outcome::Drop(_) => false,
        }
    }

    pub fn allows(&self, verdict: &Verdict) -> bool {
        match (self, verdict) {
            (Outcome::Pass(None), Verdict::Pass(_)) | (Outcome::Drop(None), Verdict::Drop(_)) => {
                true
            }
            (Outcome::Pass(Some(why)), Verdict::Pass(reason)) => why.allows(reason),
            (Outcome::Drop(Some(expected)), Verdict::Drop(reason)) => expected == reason,
            (Outcome::Pass(_), Verdict::Drop(_)) | (Outcome::Drop(_), Verdict::Pass(_)) => false,
        }
    }
}

impl Why {
    fn allows(&self, reason: &PassReason) -> bool {
        let named = |expected: &Option<RuleRef>, seen: &RuleRef| {
            expected.as_ref().is_none_or(|expected| expected == seen)
        };
        match (self, reason) {
            (Why::Rule(expected), PassReason::Rule(seen)) => named(expected, seen),
            (Why::Live(expected), PassReason::Live(seen)) => named(expected, seen),
            (Why::ElidedError, PassReason::ElidedError)
            | (Why::Fragment, PassReason::Fragment)
            | (Why::Infrastructure, PassReason::Infrastructure)
            | (Why::Unguarded, PassReason::Unguarded) => true,
            (
                Why::Rule(_)
                | Why::Live(_)
                | Why::ElidedError
                | Why::Fragment
                | Why::Infrastructure
                | Why::Unguarded,
                _,
            ) => false,
        }
    }
}

#[cfg(test)]
mod tests;
