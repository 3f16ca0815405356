//! The chains of a VM's rules, read back into what was pushed.
//!
//! The script inserts each rule at the head, so a chain says them bottom-up; then it appends the end.
//!
//! ```text
//!                   up to 4.22                         since 4.23, direct routing
//! ingress rule      -s P ... [-m state --state NEW]    -s P ...
//!                   -j ACCEPT                          -j ACCEPT
//!         end       -j DROP                            -j RETURN
//! egress  rule      -d P ... -j RETURN                 -d P ... -j ACCEPT, or the mark
//!         end       -j DROP; without rules -j RETURN   -j RETURN; without rules -j ACCEPT, or the mark
//! ```
//! So a lone `-j RETURN` is an open egress, and one behind permitting rules is the end of a restricted
//! one. A chain is read or it isn't: one line that can't be told may stand for a denial.
//! Knows nothing of: whose chain it is; what becomes of a chain that can't be read.

use super::dump::{Clause, Rule};
use super::names::APPROVED;
use super::protocols;
use crate::rules::{Service, Transport};
use crate::words;
use model::{Direction, Family, IcmpKind, L4PortRange, Prefix};

/// Which of the script's ways a chain is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Manner {
    /// Up to CloudStack 4.22: connections are tracked, and a chain decides.
    Tracked,
    /// Since 4.23: a chain permits, or leaves it to what stands behind.
    Explicit,
}

/// What a chain of rules says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading<'a> {
    /// In the order in which they were pushed.
    pub(super) rules: Vec<(Service, Prefix)>,
    pub(super) state: ChainState<'a>,
    /// `None` where nothing in it tells.
    pub(super) manner: Option<Manner>,
}

/// How far a chain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChainState<'a> {
    /// It isn't there.
    Missing,
    /// There, and empty.
    Empty,
    /// Without its end; its rules are some of those that were meant.
    Unended,
    /// Ended: what isn't permitted is denied.
    Closed,
    /// Ended: everything is permitted. Egress only.
    Open,
    /// With a rule that can't be read. None is given.
    Unreadable(&'a str),
}

/// The rules of one direction and family. `chain`: its rules as the dump has them, if it is there.
///
/// Total: what can't be read is told.
pub(super) fn read<'a>(
    chain: Option<&[Rule<'a>]>,
    direction: Direction,
    family: Family,
) -> Reading<'a> {
    let Some(chain) = chain else {
        return Reading::of(ChainState::Missing);
    };
    if chain.is_empty() {
        return Reading::of(ChainState::Empty);
    }
    let (rules, state, manner) = match direction {
        Direction::Ingress => ingress_parts(chain),
        Direction::Egress => egress_parts(chain),
    };
    let mut reading = Reading::of(state);
    reading.manner = manner;
    for rule in rules.iter().rev() {
        let permits = match (direction, manner) {
            (Direction::Ingress, _) => rule.target == ["-j", "ACCEPT"],
            (Direction::Egress, Some(Manner::Tracked)) => rule.target == ["-j", "RETURN"],
            (Direction::Egress, Some(Manner::Explicit)) => approves(rule),
            (Direction::Egress, None) => false,
        };
        match permits.then(|| record(rule, direction, family)).flatten() {
            Some(record) => reading.rules.extend(record),
            None => return Reading::of(ChainState::Unreadable(rule.text)),
        }
    }
    reading
}

type Parts<'r, 'a> = (&'r [Rule<'a>], ChainState<'a>, Option<Manner>);

/// What stands behind the first end is never reached; a VM that a push has begun anew has two.
fn ingress_parts<'r, 'a>(chain: &'r [Rule<'a>]) -> Parts<'r, 'a> {
    let is_end = |rule: &Rule<'_>| is_bare(rule, "DROP") || is_bare(rule, "RETURN");
    let Some(end) = chain.iter().position(is_end) else {
        return (chain, ChainState::Unended, None);
    };
    let manner = match is_bare(&chain[end], "DROP") {
        true => Manner::Tracked,
        false => Manner::Explicit,
    };
    (&chain[..end], ChainState::Closed, Some(manner))
}

fn egress_parts<'r, 'a>(chain: &'r [Rule<'a>]) -> Parts<'r, 'a> {
    if let [only] = chain {
        if is_bare(only, "RETURN") {
            return (&[], ChainState::Open, Some(Manner::Tracked));
        }
        if only.matches.is_empty() && approves(only) {
            return (&[], ChainState::Open, Some(Manner::Explicit));
        }
    }
    let (last, rules) = chain.split_last().expect("it isn't empty");
    if is_bare(last, "DROP") {
        return (rules, ChainState::Closed, Some(Manner::Tracked));
    }
    let is_explicit = rules.iter().any(approves);
    if is_bare(last, "RETURN") && is_explicit {
        return (rules, ChainState::Closed, Some(Manner::Explicit));
    }
    let manner = match is_explicit || approves(last) {
        true => Manner::Explicit,
        false => Manner::Tracked,
    };
    (chain, ChainState::Unended, Some(manner))
}

fn is_bare(rule: &Rule<'_>, target: &str) -> bool {
    rule.matches.is_empty() && rule.target == ["-j", target]
}

/// Since 4.23: permits; under direct routing by a mark that is looked at later.
pub(super) fn approves(rule: &Rule<'_>) -> bool {
    rule.target == ["-j", "ACCEPT"] || rule.target == ["-j", "MARK", "--set-xmark", APPROVED]
}

impl Reading<'_> {
    fn of(state: ChainState<'_>) -> Reading<'_> {
        Reading {
            rules: Vec::new(),
            state,
            manner: None,
        }
    }
}

/// `None`: it can't be read. An empty one: what it permits can't be on the wire, such as ICMP in IPv6.
fn record(
    rule: &Rule<'_>,
    direction: Direction,
    family: Family,
) -> Option<Option<(Service, Prefix)>> {
    let mut parts = Parsed::default();
    for clause in &rule.matches {
        parts.add(clause, direction)?;
    }
    let remote = match parts.remote {
        Some(remote) => remote,
        None => Prefix::whole(family),
    };
    if remote.family() != family {
        return None;
    }
    let service = parts.service(family)?;
    Some(service.map(|service| (service, remote)))
}

/// What the clauses of a rule say, each at most once.
#[derive(Default)]
struct Parsed<'r> {
    remote: Option<Prefix>,
    protocol: Option<u8>,
    ports: Option<L4PortRange>,
    /// With the family that the option is of.
    icmp: Option<(Family, &'r str)>,
}

impl<'r> Parsed<'r> {
    fn add(&mut self, clause: &'r Clause<'_>, direction: Direction) -> Option<()> {
        let [_, value] = &clause.words[..] else {
            return None;
        };
        let once = match (clause.option(), direction) {
            _ if clause.negated => return None,
            ("-s", Direction::Ingress) | ("-d", Direction::Egress) => {
                self.remote.replace(words::prefix(value)?).is_none()
            }
            ("-p", _) => {
                let protocol = protocols::number(value)?;
                self.protocol.replace(protocol).is_none()
            }
            ("--dport", _) => self.ports.replace(ports(value)?).is_none(),
            ("--icmp-type", _) => self.icmp.replace((Family::V4, value)).is_none(),
            ("--icmpv6-type", _) => self.icmp.replace((Family::V6, value)).is_none(),
            // The rest is decided by what stands before the chain.
            ("--state" | "--ctstate", _) => value == "NEW",
            ("-m", _) => matches!(
                &**value,
                "tcp" | "udp" | "icmp" | "icmp6" | "state" | "conntrack"
            ),
            _ => false,
        };
        once.then_some(())
    }

    fn service(&self, family: Family) -> Option<Option<Service>> {
        let of_ports = |transport| Service::Ports {
            transport,
            ports: self.ports.unwrap_or(L4PortRange::ALL),
        };
        let service = match (self.protocol, family) {
            (Some(6), _) => of_ports(Transport::Tcp),
            (Some(17), _) => of_ports(Transport::Udp),
            _ if self.ports.is_some() => return None,
            (None | Some(0), _) => Service::All,
            (Some(1), Family::V4) | (Some(58), Family::V6) => match self.icmp {
                Some((of, kind)) if of == family => Service::Icmp(icmp(kind)?),
                Some(_) => return None,
                None => Service::Icmp(None),
            },
            (Some(1), Family::V6) if self.icmp.is_none() => return Some(None),
            (Some(number), _) => Service::Protocol(number),
        };
        let has_icmp = matches!(service, Service::Icmp(_));
        (self.icmp.is_none() || has_icmp).then_some(Some(service))
    }
}

/// `22`, `8000:8099`.
fn ports(text: &str) -> Option<L4PortRange> {
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    let port = |text| words::number(text).and_then(|n| u16::try_from(n).ok());
    L4PortRange::new(port(first)?, port(last)?)
}

/// `any`, `8`, `3/4`.
fn icmp(text: &str) -> Option<Option<IcmpKind>> {
    if text == "any" {
        return Some(None);
    }
    let byte = |text| words::number(text).and_then(|n| u8::try_from(n).ok());
    let (icmp_type, code) = match text.split_once('/') {
        Some((icmp_type, code)) => (icmp_type, Some(byte(code)?)),
        None => (text, None),
    };
    let icmp_type = byte(icmp_type)?;
    Some(Some(IcmpKind { icmp_type, code }))
}

#[cfg(test)]
mod tests;
