//! A group's rules: lists multiplied out, families told apart, ids given.
//!
//! A model rule has one remote, one protocol, one range and one family; a rule of the file may have
//! several of each. What could never match is refused rather than left out in silence.

use crate::draft::{GroupDraft, Remote, RuleDraft};
use crate::error::{ErrorKind, Log, Place, Stop, quoted};
use crate::positions::RulePosition;
use crate::protocols::{Layer4, Protocol};
use crate::resolve::{GroupNames, note, unknown};
use crate::{MAX_RULES, MAX_RULES_OF_ONE};
use model::{Direction, Family, GroupId, L4PortRange, Peer, Prefix, Rule, RuleId, SecurityGroup};
use std::collections::HashMap;
use std::fmt::Write as _;

pub(crate) fn build_group<'a>(
    id: &GroupId,
    draft: GroupDraft<'a>,
    names: &GroupNames,
    rules_left: &mut usize,
    log: &mut Log<'a>,
) -> Result<(SecurityGroup, Vec<RulePosition>), Stop> {
    let mut rules = Vec::with_capacity(draft.rules.len() * 2);
    let mut named: HashMap<&str, Place> = HashMap::new();
    for (i, rule) in draft.rules.iter().enumerate() {
        if let Some(name) = &rule.name
            && let Some(first) = named.insert(&name.value, name.at)
        {
            let what = format!("the group has another rule named {}", quoted(&name.value));
            let advice = format!("it is in line {}; rename one of them", first.line());
            note(log, name.at, ErrorKind::DuplicateName, what, advice)?;
            continue;
        }
        if let Some(expansion) = Expansion::new(rule, i + 1, names, log)? {
            if expansion.len() > MAX_RULES_OF_ONE || expansion.len() > *rules_left {
                let (what, bound) = match expansion.len() {
                    n if n > MAX_RULES_OF_ONE => ("this rule's lists multiply", MAX_RULES_OF_ONE),
                    _ => ("with this rule, the file's lists multiply", MAX_RULES),
                };
                let what = format!("{what} to more than {bound} rules");
                let advice = "put the addresses into an address group, join ranges of ports";
                note(log, rule.at, ErrorKind::TooManyRules, what, advice)?;
                continue;
            }
            *rules_left -= expansion.len();
            expansion.rules(&mut rules);
        }
    }
    let positions = draft.rules.iter().map(|rule| RulePosition {
        name: rule.name.as_ref().map(|name| (*name.value).into()),
        position: rule.at.position,
    });
    let group = SecurityGroup {
        id: id.clone(),
        project: None,
        name: id.as_str().to_owned(),
        stateful: !draft.stateless,
        tag: draft.tag.map(|(tag, _)| tag),
        rules: rules.into_iter().map(|r: Rule| (r.id.clone(), r)).collect(),
    };
    Ok((group, positions.collect()))
}

/// A rule of the file, checked, before it is multiplied out: remotes x protocols x ports x families.
struct Expansion<'r> {
    /// The rule's name, or its number in the group.
    base: String,
    direction: Direction,
    /// With the one family of a prefix.
    remotes: Vec<(Peer, Option<Family>)>,
    protocols: Vec<(Protocol, &'r str)>,
    ports: Vec<L4PortRange>,
    families: &'static [Family],
}

impl<'r> Expansion<'r> {
    /// `None` when the rule is broken, which is noted.
    fn new<'a>(
        rule: &'r RuleDraft<'a>,
        number: usize,
        names: &GroupNames,
        log: &mut Log<'a>,
    ) -> Result<Option<Self>, Stop> {
        let mut remotes = Vec::with_capacity(rule.remotes.len());
        let mut clean = !rule.broken;
        for remote in &rule.remotes {
            match remote {
                Remote::Any => remotes.push((Peer::Any, None)),
                Remote::Prefix(prefix, at) => {
                    remotes.push((Peer::Prefix(*prefix), Some(prefix.family())));
                    clean &= fits_family(rule, *prefix, *at, log)?;
                }
                Remote::Name(name) => match names.peer(&name.value) {
                    Some(peer) => remotes.push((peer, None)),
                    None => {
                        clean = false;
                        let what = ("group or address group", "groups");
                        let known = names.sorted(true);
                        let known = known.iter().copied();
                        unknown(log, name, ErrorKind::UnknownGroup, what, known)?;
                    }
                },
            }
        }
        let (true, Some(direction)) = (clean, rule.direction) else {
            return Ok(None);
        };
        if !ports_fit(rule, log)? {
            return Ok(None);
        }
        let families: &[Family] = match rule.family {
            None => &Family::BOTH,
            Some((Family::V4, _)) => &[Family::V4],
            Some((Family::V6, _)) => &[Family::V6],
        };
        let all_v6 = remotes
            .iter()
            .all(|(_, family)| *family == Some(Family::V6));
        let numbers_of = match rule.family {
            Some((family, _)) => family,
            None if all_v6 => Family::V6,
            None => Family::V4,
        };
        let mut protocols: Vec<(Protocol, &str)> = Vec::with_capacity(rule.protocols.len().max(1));
        for (protocol, text) in &rule.protocols {
            let mut protocol = *protocol;
            if protocol.one_family {
                match numbers_of {
                    Family::V4 => protocol.v6 = None,
                    Family::V6 => protocol.v4 = None,
                }
            }
            let usable = families.iter().any(|f| {
                protocol.in_family(*f).is_some()
                    && remotes.iter().any(|(_, r)| r.is_none_or(|r| r == *f))
            });
            if !usable {
                let what = format!(
                    "{} means nothing in this rule's family",
                    quoted(&text.value)
                );
                let advice = wrong_family_advice(&protocol);
                note(log, text.at, ErrorKind::WrongFamily, what, advice)?;
                return Ok(None);
            }
            protocols.push((protocol, &text.value));
        }
        if protocols.is_empty() {
            protocols.push((Protocol::ANY, "any"));
        }
        for remote in &rule.remotes {
            let Remote::Prefix(prefix, at) = remote else {
                continue;
            };
            let family = prefix.family();
            if protocols.iter().all(|(p, _)| p.in_family(family).is_none()) {
                let what = format!("`{prefix}` can't be joined with this rule's protocol");
                let advice = format!("the protocol is not one of {family}");
                note(log, *at, ErrorKind::WrongFamily, what, advice)?;
                return Ok(None);
            }
        }
        let mut ports: Vec<L4PortRange> = rule.ports.iter().map(|(range, _)| *range).collect();
        if ports.is_empty() {
            ports.push(L4PortRange::ALL);
        }
        Ok(Some(Self {
            base: match &rule.name {
                Some(name) => name.value.to_string(),
                None => number.to_string(),
            },
            direction,
            remotes,
            protocols,
            ports,
            families,
        }))
    }

    /// How many rules at most.
    fn len(&self) -> usize {
        [self.protocols.len(), self.ports.len(), self.families.len()]
            .into_iter()
            .fold(self.remotes.len(), usize::saturating_mul)
    }

    /// Ids name the choice made in each list of several: `3`, `3.v4`, `https.web.tcp.443.v6`.
    fn rules(&self, rules: &mut Vec<Rule>) {
        let mut id = self.base.clone();
        for (peer, only) in &self.remotes {
            let mark = id.len();
            if self.remotes.len() > 1 {
                let _ = write!(id, ".{}", Named(peer));
            }
            for (protocol, name) in &self.protocols {
                let mark = id.len();
                if self.protocols.len() > 1 {
                    id.push('.');
                    id.extend(name.chars().map(id_char));
                }
                for range in &self.ports {
                    let mark = id.len();
                    if self.ports.len() > 1 {
                        let _ = match (range.first(), range.last()) {
                            (first, last) if first == last => write!(id, ".{first}"),
                            (first, last) => write!(id, ".{first}-{last}"),
                        };
                    }
                    self.in_families(*only, protocol, &mut id, |id, family, layer4| {
                        rules.push(Rule {
                            id: RuleId::new(id),
                            direction: self.direction,
                            family,
                            l4: layer4.with_ports(*range),
                            peer: peer.clone(),
                        });
                    });
                    id.truncate(mark);
                }
                id.truncate(mark);
            }
            id.truncate(mark);
        }
    }

    fn in_families(
        &self,
        only: Option<Family>,
        protocol: &Protocol,
        id: &mut String,
        mut each: impl FnMut(&str, Family, Layer4),
    ) {
        // A rule that says its family has no more to tell apart; nor has a prefix.
        let suffixed = self.families.len() > 1 && only.is_none();
        for family in self.families {
            let Some(layer4) = protocol.in_family(*family) else {
                continue;
            };
            if only.is_some_and(|only| only != *family) {
                continue;
            }
            let mark = id.len();
            if suffixed {
                id.push_str(match family {
                    Family::V4 => ".v4",
                    Family::V6 => ".v6",
                });
            }
            each(id, *family, layer4);
            id.truncate(mark);
        }
    }
}

/// The remote as the file calls it.
struct Named<'p>(&'p Peer);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Peer::Any => f.write_str("any"),
            Peer::Prefix(prefix) => write!(f, "{prefix}"),
            Peer::Group(id) => write!(f, "{id}"),
            Peer::AddressGroup(id) => write!(f, "{id}"),
        }
    }
}

/// `icmp 3/4` in an id is `icmp-3-4`.
fn id_char(c: char) -> char {
    match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9') => c,
        _ => '-',
    }
}

impl Protocol {
    fn in_family(&self, family: Family) -> Option<Layer4> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

fn fits_family<'a>(
    rule: &RuleDraft<'a>,
    prefix: Prefix,
    at: Place,
    log: &mut Log<'a>,
) -> Result<bool, Stop> {
    match rule.family {
        Some((family, _)) if family != prefix.family() => {
            let what = format!(
                "`{prefix}` is {}, and the rule is for {family}",
                prefix.family()
            );
            let advice = "remove `family`: a prefix says it";
            note(log, at, ErrorKind::WrongFamily, what, advice)?;
            Ok(false)
        }
        Some(_) | None => Ok(true),
    }
}

fn ports_fit<'a>(rule: &RuleDraft<'a>, log: &mut Log<'a>) -> Result<bool, Stop> {
    let Some((_, at)) = rule.ports.first() else {
        return Ok(true);
    };
    let without = rule.protocols.iter().find(|(p, _)| !p.has_ports());
    let (what, advice) = match without {
        None if !rule.protocols.is_empty() => return Ok(true),
        None => (
            "the rule has ports and no protocol".to_owned(),
            "add `protocol: tcp`, `udp`, or both: `[tcp, udp]`".to_owned(),
        ),
        Some((_, text)) => (
            format!("{} has no ports", quoted(&text.value)),
            "tcp, udp, sctp, dccp and udplite have; write two rules, or remove `ports`".to_owned(),
        ),
    };
    note(log, *at, ErrorKind::PortsWithoutProtocol, what, advice)?;
    Ok(false)
}

fn wrong_family_advice(protocol: &Protocol) -> &'static str {
    match (protocol.v4, protocol.v6) {
        (Some(Layer4::Icmp(_)), None) => {
            "it is of IPv4; `protocol: icmp` or a type's name means both families, `icmpv6 1/4` is a type of IPv6"
        }
        (Some(_), None) => {
            "it is of IPv4: in IPv6 it is an extension header, which rules look behind and can't name"
        }
        (None, Some(_)) => "it is of IPv6; `protocol: icmp` or a type's name means both families",
        (Some(_), Some(_)) | (None, None) => "check `family` and the addresses",
    }
}
