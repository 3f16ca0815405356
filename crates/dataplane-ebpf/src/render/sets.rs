//! The rules of a list of groups, compiled for exact probes.
//!
//! Place on the line: group views -> **set** -> `sets`, `policy`, `ranges`. Ports with the same list
//! of groups share a set. Rules only allow, so that a set is the union of its groups' rules, and two
//! rules that cover one packet merge into the word of the lesser rank.
//! Knows nothing of: the set's number, addresses, ports.

use super::Named;
use crate::layout::{
    DIR_EGRESS, DIR_INGRESS, ERRORS_V4, ERRORS_V6, FAM_V4, FAM_V6, PEER_ANY, PROTOCOL_ANY, Range,
    SET_ALL_IS_LEAST, SET_ANY, SET_EXACT, SET_EXACT_ANY_PROTOCOL, SET_MAY_ELIDE, SET_PREFIX,
    SET_PREFIX_ANY_PROTOCOL, SetRecord, WORD_RANK, WORD_STATEFUL,
};
use crate::numbers::{PeerName, digest};
use model::{Direction, Family, GroupId, L4Match, L4PortRange, PortedProtocol, RuleRef};
use policy::{GroupView, PeerView, RuleView};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

const ICMPV4: u16 = 1;
const ICMPV6: u16 = 58;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CompiledSet {
    /// By rank.
    pub(crate) rules: Vec<RuleRef>,
    /// Sorted by key.
    pub(crate) entries: Vec<(EntryKey, Entry)>,
    pub(crate) ranges: Vec<Range>,
    /// Without the place of its rules' counters.
    pub(crate) record: SetRecord,
    /// The peers that entries name, by number.
    pub(crate) named: Named,
}

/// A policy key without its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EntryKey {
    pub(crate) peer: u32,
    pub(crate) protocol: u16,
    pub(crate) direction: u8,
    pub(crate) family: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) whole: u32,
    pub(crate) errors: u32,
    /// Where its ranges are in the set's, and how many.
    pub(crate) first_range: u32,
    pub(crate) ranges: u32,
}

/// L4 values from, to, and what permits them.
type Span = (u16, u16, u32);

#[derive(Default)]
struct Draft {
    whole: u32,
    errors: u32,
    spans: Vec<Span>,
}

/// `number_of` gives peers their numbers.
pub(crate) fn compile(
    groups: &[(&GroupId, &GroupView)],
    mut number_of: impl FnMut(&PeerName) -> u32,
) -> CompiledSet {
    let (mut rules, mut named) = (Vec::new(), Named::new());
    let mut drafts: BTreeMap<EntryKey, Draft> = BTreeMap::new();
    let mut record = SetRecord {
        least_exact: [[u32::MAX; 2]; 2],
        least_prefix: [[u32::MAX; 2]; 2],
        ..SetRecord::default()
    };
    let mut any_stateful = [[false; 2]; 2];
    let mut least = [[u32::MAX; 2]; 2];
    for (group_id, group) in groups {
        for (rule_id, rule) in &group.rules {
            let rank = rules.len() as u32 + 1;
            let word = rank | if group.stateful { WORD_STATEFUL } else { 0 };
            rules.push(RuleRef {
                group: (*group_id).clone(),
                rule: rule_id.clone(),
            });
            let (d, f) = (direction(rule.direction), family(rule.family));
            least[d][f] = least[d][f].min(rank);
            any_stateful[d][f] |= group.stateful;
            note_shortcuts(&mut record, rule, word);
            let peer = match peer_name(&rule.peer) {
                Some(name) => {
                    let number = number_of(&name);
                    named.entry(number).or_insert(name);
                    number
                }
                None if rule.l4 == L4Match::Any => continue,
                None => PEER_ANY,
            };
            let key = EntryKey {
                peer,
                protocol: protocol(rule),
                direction: d as u8,
                family: f as u8,
            };
            let draft = drafts.entry(key).or_default();
            draft.errors |= errors(rule);
            match span(&rule.l4) {
                Some((first, last)) => draft.spans.push((first, last, word)),
                None => draft.whole = merge(draft.whole, word),
            }
        }
    }
    let mut set = CompiledSet {
        rules,
        entries: Vec::with_capacity(drafts.len()),
        ranges: Vec::new(),
        record,
        named,
    };
    for (key, mut draft) in drafts {
        let first_range = set.ranges.len();
        flatten(draft.whole, &mut draft.spans, &mut set.ranges);
        let entry = Entry {
            whole: draft.whole,
            errors: draft.errors,
            first_range: first_range as u32,
            ranges: (set.ranges.len() - first_range) as u32,
        };
        set.entries.push((key, entry));
    }
    finish(&mut set, least, any_stateful);
    set
}

/// Of two rule words, the lesser rank; stateful if either is.
pub(crate) fn merge(a: u32, b: u32) -> u32 {
    if a == 0 || b == 0 {
        return a | b;
    }
    (a & WORD_RANK).min(b & WORD_RANK) | ((a | b) & WORD_STATEFUL)
}

impl CompiledSet {
    pub(crate) fn ranges_of(&self, entry: &Entry) -> &[Range] {
        &self.ranges[entry.first_range as usize..][..entry.ranges as usize]
    }

    fn entries_of(&self, peer: u32) -> &[(EntryKey, Entry)] {
        let from = self.entries.partition_point(|(key, _)| key.peer < peer);
        let to = self.entries.partition_point(|(key, _)| key.peer <= peer);
        &self.entries[from..to]
    }

    /// What the set permits a peer that is all of these at once. Empty if it names none of them.
    pub(crate) fn union_entries(
        &self,
        union: u32,
        parts: &[u32],
    ) -> Vec<(EntryKey, Entry, Vec<Range>)> {
        let mut drafts: BTreeMap<EntryKey, Draft> = BTreeMap::new();
        for (key, entry) in parts.iter().flat_map(|part| self.entries_of(*part)) {
            let key = EntryKey {
                peer: union,
                ..*key
            };
            let draft = drafts.entry(key).or_default();
            draft.whole = merge(draft.whole, entry.whole);
            draft.errors |= entry.errors;
            let spans = self
                .ranges_of(entry)
                .iter()
                .map(|r| (r.first, r.last, r.word));
            draft.spans.extend(spans);
        }
        let entries = drafts.into_iter().map(|(key, mut draft)| {
            let mut ranges = Vec::new();
            flatten(draft.whole, &mut draft.spans, &mut ranges);
            let entry = Entry {
                whole: draft.whole,
                errors: draft.errors,
                first_range: 0,
                ranges: ranges.len() as u32,
            };
            (key, entry, ranges)
        });
        entries.collect()
    }
}

pub(crate) fn direction(direction: Direction) -> usize {
    match direction {
        Direction::Ingress => DIR_INGRESS as usize,
        Direction::Egress => DIR_EGRESS as usize,
    }
}

pub(crate) fn family(family: Family) -> usize {
    match family {
        Family::V4 => FAM_V4 as usize,
        Family::V6 => FAM_V6 as usize,
    }
}

fn peer_name(peer: &PeerView) -> Option<PeerName> {
    match peer {
        PeerView::Any => None,
        PeerView::Prefix(prefix) => Some(PeerName::Prefix(*prefix)),
        PeerView::Group(id) => Some(PeerName::Group(id.clone())),
        PeerView::AddressGroup(id) => Some(PeerName::AddressGroup(id.clone())),
    }
}

fn protocol(rule: &RuleView) -> u16 {
    match rule.l4 {
        L4Match::Any => PROTOCOL_ANY as u16,
        L4Match::Ported { protocol, .. } => protocol.number().into(),
        L4Match::Icmp { .. } => match rule.family {
            Family::V4 => ICMPV4,
            Family::V6 => ICMPV6,
        },
        L4Match::Other(protocol) => protocol.number().into(),
    }
}

/// `None`: the whole protocol.
fn span(l4: &L4Match) -> Option<(u16, u16)> {
    match l4 {
        L4Match::Any | L4Match::Other(_) => None,
        L4Match::Ported { dst, .. } => {
            (*dst != L4PortRange::ALL).then(|| (dst.first(), dst.last()))
        }
        L4Match::Icmp { kind } => kind.map(|kind| {
            let first = u16::from(kind.icmp_type) << 8;
            match kind.code {
                Some(code) => (first | u16::from(code), first | u16::from(code)),
                None => (first, first | 0xff),
            }
        }),
    }
}

/// The ICMP error types that the rule permits with each code.
fn errors(rule: &RuleView) -> u32 {
    let (all, types): (u32, &[u8]) = match rule.family {
        Family::V4 => (ERRORS_V4, &[3, 11, 12]),
        Family::V6 => (ERRORS_V6, &[1, 2, 3, 4]),
    };
    match rule.l4 {
        L4Match::Any | L4Match::Icmp { kind: None } => all,
        L4Match::Icmp { kind: Some(kind) } => {
            let bit = types.iter().position(|t| *t == kind.icmp_type);
            bit.filter(|_| kind.code.is_none())
                .map_or(0, |bit| 1 << bit)
        }
        L4Match::Ported { .. } | L4Match::Other(_) => 0,
    }
}

/// What of a rule goes into the set's record.
fn note_shortcuts(record: &mut SetRecord, rule: &RuleView, word: u32) {
    let (d, f) = (direction(rule.direction), family(rule.family));
    let rank = word & WORD_RANK;
    let any_protocol = rule.l4 == L4Match::Any;
    let flags = &mut record.flags[d][f];
    let (by_exact, by_prefix) = match &rule.peer {
        PeerView::Any => (false, false),
        PeerView::Prefix(prefix) => (prefix.as_host().is_some(), prefix.as_host().is_none()),
        PeerView::Group(_) | PeerView::AddressGroup(_) => (true, true),
    };
    if by_exact {
        *flags |= SET_EXACT
            | if any_protocol {
                SET_EXACT_ANY_PROTOCOL
            } else {
                0
            };
        record.least_exact[d][f] = record.least_exact[d][f].min(rank);
    }
    if by_prefix {
        *flags |= SET_PREFIX
            | if any_protocol {
                SET_PREFIX_ANY_PROTOCOL
            } else {
                0
            };
        record.least_prefix[d][f] = record.least_prefix[d][f].min(rank);
    }
    if rule.peer == PeerView::Any {
        if any_protocol {
            record.all[d][f] = merge(record.all[d][f], word);
        } else {
            *flags |= SET_ANY;
        }
        let masks = match rule.direction {
            Direction::Ingress => &mut record.errors_in,
            Direction::Egress => &mut record.errors_out,
        };
        masks[f] |= errors(rule) as u8;
    }
    if rule.direction == Direction::Ingress {
        note_ingress_ports(&mut record.ingress_ports[f], &rule.l4);
    }
}

fn note_ingress_ports(maps: &mut [u64; 2], l4: &L4Match) {
    match l4 {
        L4Match::Any => *maps = [u64::MAX; 2],
        L4Match::Ported { protocol, dst } => {
            let map = match protocol {
                PortedProtocol::Tcp => &mut maps[0],
                PortedProtocol::Udp => &mut maps[1],
                PortedProtocol::Dccp | PortedProtocol::Sctp | PortedProtocol::UdpLite => return,
            };
            for block in dst.first() >> 10..=dst.last() >> 10 {
                *map |= 1 << block;
            }
        }
        L4Match::Icmp { .. } | L4Match::Other(_) => {}
    }
}

fn finish(set: &mut CompiledSet, least: [[u32; 2]; 2], any_stateful: [[bool; 2]; 2]) {
    let record = &mut set.record;
    for f in 0..2 {
        for d in 0..2 {
            let all = record.all[d][f];
            let stateful = all & WORD_STATEFUL != 0 || !any_stateful[d][f];
            if all != 0 && all & WORD_RANK == least[d][f] && stateful {
                record.flags[d][f] |= SET_ALL_IS_LEAST;
            }
        }
        if least.iter().all(|by_family| by_family[f] != u32::MAX) {
            record.flags[DIR_INGRESS as usize][f] |= SET_MAY_ELIDE;
        }
    }
    record.rules = set.rules.len() as u32;
    let content = (&set.rules, &set.entries, &set.ranges, &set.record);
    let mut digest = digest(&content);
    // 0 says that there is no set.
    digest[0] |= 1;
    set.record.digest = digest;
}

/// Disjoint, sorted ranges out of spans that may overlap, each with all that covers it and with
/// `whole`; none where that is `whole` itself.
fn flatten(whole: u32, spans: &mut [Span], ranges: &mut Vec<Range>) {
    if let [(first, last, word)] = spans {
        push(
            whole,
            ranges,
            ranges.len(),
            u32::from(*first),
            u32::from(*last),
            merge(whole, *word),
        );
        return;
    }
    spans.sort_unstable();
    let begin = ranges.len();
    let mut bounds: Vec<u32> = spans
        .iter()
        .flat_map(|(first, last, _)| [u32::from(*first), u32::from(*last) + 1])
        .collect();
    bounds.sort_unstable();
    bounds.dedup();
    let mut ends: BinaryHeap<Reverse<(u32, u32)>> = BinaryHeap::new();
    // What covers the place now: how often each rank, and how many stateful words.
    let mut ranks: BTreeMap<u32, u32> = BTreeMap::new();
    let mut stateful = 0u32;
    let mut coming = spans.iter().peekable();
    for pair in bounds.windows(2) {
        let [from, behind] = *pair else {
            continue;
        };
        while let Some(Reverse((end, word))) = ends.peek().copied() {
            if end > from {
                break;
            }
            ends.pop();
            let rank = word & WORD_RANK;
            let count = ranks.get_mut(&rank).expect("what ends has begun");
            *count -= 1;
            if *count == 0 {
                ranks.remove(&rank);
            }
            stateful -= word >> 31;
        }
        while let Some((_, last, word)) = coming.next_if(|(first, _, _)| u32::from(*first) == from)
        {
            ends.push(Reverse((u32::from(*last) + 1, *word)));
            *ranks.entry(word & WORD_RANK).or_default() += 1;
            stateful += word >> 31;
        }
        if let Some((rank, _)) = ranks.first_key_value() {
            let word = rank | if stateful > 0 { WORD_STATEFUL } else { 0 };
            push(whole, ranges, begin, from, behind - 1, merge(whole, word));
        }
    }
}

/// Appends a range, or lengthens the last one of this entry.
fn push(whole: u32, ranges: &mut Vec<Range>, begin: usize, first: u32, last: u32, word: u32) {
    if word == whole {
        return;
    }
    let (first, last) = (first as u16, last as u16);
    if let Some(before) = ranges[begin..].last_mut()
        && before.word == word
        && u32::from(before.last) + 1 == u32::from(first)
    {
        before.last = last;
        return;
    }
    ranges.push(Range { first, last, word });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(whole: u32, spans: &[Span], expected: &[Span]) {
        let mut ranges = Vec::new();
        flatten(whole, &mut spans.to_vec(), &mut ranges);
        let seen: Vec<Span> = ranges.iter().map(|r| (r.first, r.last, r.word)).collect();
        assert_eq!(seen, expected, "whole {whole:#x}, spans {spans:x?}");
    }

    #[test]
    fn overlapping_ranges_become_disjoint_ones_with_the_least_rule() {
        const S: u32 = WORD_STATEFUL;
        check(0, &[(80, 80, S | 1)], &[(80, 80, S | 1)]);
        let nested = [(0, 65_535, S | 3), (100, 200, S | 1), (150, 150, S | 2)];
        let split = [(0, 99, S | 3), (100, 200, S | 1), (201, 65_535, S | 3)];
        check(0, &nested, &split);
        check(0, &[(1, 5, 1), (6, 9, 1)], &[(1, 9, 1)]);
        check(0, &[(1, 5, 1), (7, 9, 1)], &[(1, 5, 1), (7, 9, 1)]);
        // A stateless rule of lesser rank is named, and a stateful one behind it still starts flows.
        check(
            0,
            &[(1, 9, 1), (5, 5, S | 2)],
            &[(1, 4, 1), (5, 5, S | 1), (6, 9, 1)],
        );
        // What the whole protocol's rule says anyway needs no range.
        check(S | 1, &[(1, 5, S | 2), (3, 9, 4)], &[]);
        check(1, &[(5, 9, S | 2)], &[(5, 9, S | 1)]);
    }
}
