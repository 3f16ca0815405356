//! What rules cover of the transport: the part of a class that is not the remote's address.

use crate::view::RuleView;
use model::{Direction, Family, L4Match, PortedProtocol};

/// Which flows a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kinds {
    Tcp,
    /// TCP flows, where ICMP errors decide with them.
    TcpAndErrors,
    All,
}

impl Kinds {
    pub(super) fn with_errors(self, errors_decide: bool) -> Self {
        match self {
            Kinds::Tcp if errors_decide => Kinds::TcpAndErrors,
            Kinds::Tcp | Kinds::TcpAndErrors | Kinds::All => self,
        }
    }

    /// Whether a rule can matter to the question.
    pub(super) fn asks_for(self, rule: &RuleView) -> bool {
        let tcp = match rule.l4 {
            L4Match::Any => true,
            L4Match::Ported { protocol, .. } => protocol == PortedProtocol::Tcp,
            L4Match::Icmp { .. } | L4Match::Other(_) => false,
        };
        match self {
            Kinds::Tcp => tcp,
            Kinds::TcpAndErrors => {
                let types = error_types(rule.family);
                tcp || types.iter().any(|icmp_type| covers_error(rule, *icmp_type))
            }
            Kinds::All => true,
        }
    }

    fn ported(self) -> &'static [PortedProtocol] {
        match self {
            Kinds::Tcp | Kinds::TcpAndErrors => &[PortedProtocol::Tcp],
            Kinds::All => &PortedProtocol::ALL,
        }
    }
}

/// ICMP, by the number that it has in this family.
pub(crate) fn icmp_number(family: Family) -> u8 {
    match family {
        Family::V4 => 1,
        Family::V6 => 58,
    }
}

/// The types of errors about flows.
pub(super) fn error_types(family: Family) -> &'static [u8] {
    match family {
        Family::V4 => &[3, 11, 12],
        Family::V6 => &[1, 2, 3, 4],
    }
}

/// Whether a rule covers this type with every code.
pub(super) fn covers_error(rule: &RuleView, icmp_type: u8) -> bool {
    match rule.l4 {
        L4Match::Any | L4Match::Icmp { kind: None } => true,
        L4Match::Icmp { kind: Some(kind) } => kind.icmp_type == icmp_type && kind.code.is_none(),
        L4Match::Ported { .. } | L4Match::Other(_) => false,
    }
}

/// Requests that start flows, with their replies.
fn icmp_requests(family: Family) -> &'static [(u8, u8)] {
    match family {
        Family::V4 => &[(8, 0), (13, 14)],
        Family::V6 => &[(128, 129)],
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Coverage {
    /// In the order of `PortedProtocol::ALL`: disjoint ranges in order, none next to another.
    ports: [Vec<(u16, u16)>; 5],
    /// A bit for each protocol that has neither ports nor identifiers.
    portless: [u64; 4],
    /// A bit for each request, in the order of `icmp_requests`.
    requests: u8,
    replies: u8,
    /// A bit for each error type that is covered with every code.
    errors: u8,
}

impl Coverage {
    /// The rules are of one family.
    pub(super) fn of_rules(rules: &[&RuleView]) -> Self {
        let mut coverage = Self::default();
        for rule in rules {
            coverage.add(rule);
        }
        coverage.ports.iter_mut().for_each(merge);
        coverage
    }

    fn add(&mut self, rule: &RuleView) {
        match rule.l4 {
            L4Match::Any => {
                for ranges in &mut self.ports {
                    ranges.push((0, u16::MAX));
                }
                self.portless = [u64::MAX; 4];
                for protocol in PortedProtocol::ALL {
                    self.set_portless(protocol.number(), false);
                }
                self.set_portless(icmp_number(rule.family), false);
            }
            L4Match::Ported { protocol, dst } => {
                self.ports[index(protocol)].push((dst.first(), dst.last()));
            }
            L4Match::Other(protocol) => self.set_portless(protocol.number(), true),
            L4Match::Icmp { .. } => {}
        }
        let passes = |icmp_type| match rule.l4 {
            L4Match::Any | L4Match::Icmp { kind: None } => true,
            L4Match::Icmp { kind: Some(kind) } => {
                kind.icmp_type == icmp_type && kind.code.is_none_or(|code| code == 0)
            }
            L4Match::Ported { .. } | L4Match::Other(_) => false,
        };
        for (bit, (request, reply)) in icmp_requests(rule.family).iter().enumerate() {
            self.requests |= u8::from(passes(*request)) << bit;
            self.replies |= u8::from(passes(*reply)) << bit;
        }
        for (bit, icmp_type) in error_types(rule.family).iter().enumerate() {
            self.errors |= u8::from(covers_error(rule, *icmp_type)) << bit;
        }
    }

    fn set_portless(&mut self, protocol: u8, covered: bool) {
        let (word, bit) = (usize::from(protocol / 64), 1 << (protocol % 64));
        match covered {
            true => self.portless[word] |= bit,
            false => self.portless[word] &= !bit,
        }
    }

    pub(super) fn union<'a>(parts: impl IntoIterator<Item = &'a Coverage>) -> Self {
        let mut whole = Self::default();
        for part in parts {
            for (ranges, more) in whole.ports.iter_mut().zip(&part.ports) {
                ranges.extend(more);
            }
            for (word, more) in whole.portless.iter_mut().zip(part.portless) {
                *word |= more;
            }
            whole.requests |= part.requests;
            whole.replies |= part.replies;
            whole.errors |= part.errors;
        }
        whole.ports.iter_mut().for_each(merge);
        whole
    }

    pub(super) fn has_all_errors(&self, family: Family) -> bool {
        u32::from(self.errors).count_ones() as usize == error_types(family).len()
    }
}

/// Both directions of one class, in the order of `Direction::BOTH`.
pub(super) type BothWays = [Coverage; 2];

const _: () = assert!(matches!(
    Direction::BOTH,
    [Direction::Ingress, Direction::Egress]
));

/// Whether a flow of these kinds is covered both ways by `this` and not by `other`.
pub(super) fn some_only_in(this: &BothWays, other: &BothWays, kinds: Kinds) -> bool {
    let [this_in, this_out] = this;
    let [other_in, other_out] = other;
    let ported = kinds.ported().iter().map(|p| index(*p)).any(|i| {
        let some = !this_in.ports[i].is_empty() && !this_out.ports[i].is_empty();
        // A product of two sets that aren't empty lies in another iff each of its factors does.
        let covered = lies_in(&this_in.ports[i], &other_in.ports[i])
            && lies_in(&this_out.ports[i], &other_out.ports[i]);
        some && !covered
    });
    match kinds {
        Kinds::Tcp | Kinds::TcpAndErrors => ported,
        Kinds::All => {
            let portless = |[a, b]: &BothWays, word: usize| a.portless[word] & b.portless[word];
            let icmp = |[ingress, egress]: &BothWays| {
                let by_local = egress.requests & ingress.replies;
                let by_remote = ingress.requests & egress.replies;
                [by_local, by_remote]
            };
            let asked = icmp(this).into_iter().zip(icmp(other));
            ported
                || (0..4).any(|word| portless(this, word) & !portless(other, word) != 0)
                || asked.into_iter().any(|(this, other)| this & !other != 0)
        }
    }
}

fn index(protocol: PortedProtocol) -> usize {
    match protocol {
        PortedProtocol::Tcp => 0,
        PortedProtocol::Udp => 1,
        PortedProtocol::Dccp => 2,
        PortedProtocol::Sctp => 3,
        PortedProtocol::UdpLite => 4,
    }
}

fn merge(ranges: &mut Vec<(u16, u16)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|(first, last), (_, end)| {
        let joins = u32::from(*first) <= u32::from(*end) + 1;
        if joins {
            *end = (*end).max(*last);
        }
        joins
    });
}

/// Both are merged.
fn lies_in(inner: &[(u16, u16)], outer: &[(u16, u16)]) -> bool {
    let mut outer = outer.iter().peekable();
    inner.iter().all(|(first, last)| {
        while outer.next_if(|(_, end)| end < last).is_some() {}
        outer.peek().is_some_and(|(start, _)| start <= first)
    })
}
