//! Which flows need no state, and whether a change of policy leaves some that now do.

use crate::rules::{Question, Remote, ResolvedRule, Rules};
use model::{Direction, Elision, Family, FlowKey, L4Match, L4PortRange, PortedProtocol, Prefix};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl Rules {
    /// Each packet of the flow passes by static in either direction, and its errors find their way.
    pub(crate) fn elide(&self, mode: Elision, key: &FlowKey) -> bool {
        let passes = |direction| {
            let question = Question::about_flow(key, direction);
            self.permits(&question).is_some()
        };
        let errors_pass = match mode {
            Elision::Off => return false,
            Elision::On => true,
            Elision::Strict => self.permits_errors(key.remote),
        };
        errors_pass && passes(Direction::Ingress) && passes(Direction::Egress)
    }

    /// Mode strict: every error type is permitted from any source, and to this address.
    fn permits_errors(&self, remote: IpAddr) -> bool {
        let family = Family::of(remote);
        let types: &[u8] = match family {
            Family::V4 => &[3, 11, 12],
            Family::V6 => &[1, 2, 3, 4],
        };
        types.iter().all(|icmp_type| {
            let covers =
                |rule: &&ResolvedRule| rule.family == family && rule.covers_all_of(*icmp_type);
            let mut rules = self.0.iter().filter(covers);
            rules
                .clone()
                .any(|r| r.direction == Direction::Ingress && r.remote == Remote::Any)
                && rules.any(|r| r.direction == Direction::Egress && r.remote.contains(remote))
        })
    }
}

impl ResolvedRule {
    fn covers_all_of(&self, icmp_type: u8) -> bool {
        match self.l4 {
            L4Match::Any | L4Match::Icmp { kind: None } => true,
            L4Match::Icmp { kind: Some(kind) } => {
                kind.icmp_type == icmp_type && kind.code.is_none()
            }
            L4Match::Ported { .. } | L4Match::Other(_) => false,
        }
    }

    fn tcp_ports(&self) -> Option<L4PortRange> {
        match self.l4 {
            L4Match::Any => Some(L4PortRange::ALL),
            L4Match::Ported {
                protocol: PortedProtocol::Tcp,
                dst,
            } => Some(dst),
            L4Match::Ported { .. } | L4Match::Icmp { .. } | L4Match::Other(_) => None,
        }
    }
}

/// Was some TCP flow elidable under `old` that is not under `new`?
///
/// Remote addresses between two neighbouring bounds of prefixes are all alike, so one of each such
/// class is tried. For one remote address the elidable flows are all pairs of a port in In and a
/// port in Out.
pub(crate) fn narrows(old: (&Rules, Elision), new: (&Rules, Elision)) -> bool {
    if old == new || old.1 == Elision::Off {
        return false;
    }
    Family::BOTH.into_iter().any(|family| {
        let mut classes = one_address_per_class(family, old.0, new.0).into_iter();
        classes.any(|remote| {
            let [old, new] = [old, new].map(|(rules, mode)| elidable_ports(rules, mode, remote));
            let was = !old.ingress.is_empty() && !old.egress.is_empty();
            was && !(is_covered(&old.ingress, &new.ingress) && is_covered(&old.egress, &new.egress))
        })
    })
}

/// In(r) and Out(r) of TCP; both empty where nothing is elided.
#[derive(Default)]
struct ElidablePorts {
    ingress: Vec<L4PortRange>,
    egress: Vec<L4PortRange>,
}

fn elidable_ports(rules: &Rules, mode: Elision, remote: IpAddr) -> ElidablePorts {
    let possible = match mode {
        Elision::Off => false,
        Elision::On => true,
        Elision::Strict => rules.permits_errors(remote),
    };
    if !possible {
        return ElidablePorts::default();
    }
    let ports = |direction| {
        let rules = rules.0.iter().filter(|r| {
            r.direction == direction && r.family == Family::of(remote) && r.remote.contains(remote)
        });
        rules.filter_map(ResolvedRule::tcp_ports).collect()
    };
    ElidablePorts {
        ingress: ports(Direction::Ingress),
        egress: ports(Direction::Egress),
    }
}

/// Is each port of `ranges` in some range of `by`? Ports between two bounds are all alike.
fn is_covered(ranges: &[L4PortRange], by: &[L4PortRange]) -> bool {
    let contains = |ranges: &[L4PortRange], port| ranges.iter().any(|r| r.contains(port));
    let firsts = ranges.iter().map(|r| r.first());
    let behind = by.iter().filter_map(|r| r.last().checked_add(1));
    let mut ports = firsts.chain(behind);
    ports.all(|port| !contains(ranges, port) || contains(by, port))
}

fn one_address_per_class(family: Family, old: &Rules, new: &Rules) -> BTreeSet<IpAddr> {
    let mut firsts = BTreeSet::from([Prefix::whole(family).network()]);
    let mut bound = |prefix: &Prefix| {
        if prefix.family() == family {
            firsts.insert(prefix.network());
            firsts.extend(next_address(prefix.last()));
        }
    };
    for rule in old.0.iter().chain(&new.0) {
        match &rule.remote {
            Remote::Any => {}
            Remote::Prefix(prefix) => bound(prefix),
            Remote::Group(_, set) | Remote::AddressGroup(_, set) => {
                set.prefixes.iter().for_each(&mut bound);
                set.hosts
                    .iter()
                    .map(|a| Prefix::host(*a))
                    .for_each(|p| bound(&p));
            }
        }
    }
    firsts
}

fn next_address(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(a) => u32::from(a)
            .checked_add(1)
            .map(|n| Ipv4Addr::from(n).into()),
        IpAddr::V6(a) => u128::from(a)
            .checked_add(1)
            .map(|n| Ipv6Addr::from(n).into()),
    }
}
