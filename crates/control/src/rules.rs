//! Use cases of rules: what may be asked, and in which one form it is kept.
//!
//! Place on the line: request -> **use case** -> store commit.
//! Invariants: of what rules can say there is one form; no two rules of a group say the same; what no plane can do
//! is refused.
//!
//! ```text
//! held/rule/GROUP/DIRECTION/FAMILY/PROTOCOL/RANGE/PEER -> rule      the canonical content, in words
//! ```
//! Two requests for the same content want the same key; others don't meet.
//! Knows nothing of: JSON, ports.

use crate::caller::Caller;
use crate::checks;
use crate::control::{Control, Decided};
use crate::depend;
use crate::groups;
use crate::ids::{self, Moment};
use crate::objects::{AskedPeer, Asks, Group, GroupRule, Resource, Shared};
use crate::protocols;
use crate::quotas;
use crate::records::{self, Kept};
use crate::refused::{Failed, Refused};
use crate::sharing;
use crate::state::{State, Stored};
use arcstr::ArcStr;
use model::{Direction, Family, GroupId, L4Match, Prefix, ProjectId, RuleId};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use store::{Condition, Key, Transaction};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRule {
    /// `None`: the caller's.
    pub project: Option<ProjectId>,
    pub group: String,
    pub description: String,
    pub direction: Direction,
    /// `None`: IPv4.
    pub family: Option<Family>,
    /// A name in any case, a number, or `any`; as it was written.
    pub protocol: Option<String>,
    pub range_min: Option<AskedNumber>,
    pub range_max: Option<AskedNumber>,
    pub remote_prefix: Option<String>,
    pub remote_group: Option<String>,
    pub remote_addresses: Option<String>,
}

/// A number as it was written, for the error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskedNumber {
    Number(i64),
    Text(String),
}

/// What a rule asks, but for groups that it names.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) direction: Direction,
    pub(crate) family: Option<Family>,
    pub(crate) protocol: Option<&'a str>,
    pub(crate) range: [Option<&'a AskedNumber>; 2],
    pub(crate) prefix: Option<&'a str>,
}

pub(crate) fn create(
    state: &State,
    now: &Moment,
    who: &Caller,
    new: &[NewRule],
    id: &mut dyn FnMut() -> String,
) -> Result<Decided<Vec<RuleId>>, Refused> {
    const ACTION: &str = "create_security_group_rule";
    who.must_write(ACTION)?;
    depend::bulk("security_group_rules", new)?;
    let (group, project) = of_one_group(who, new)?;
    let asked: Vec<Asks> = new
        .iter()
        .map(|new| asks(state, who, new))
        .collect::<Result<_, _>>()?;
    let group = state.group_to_change(who, group, ACTION)?;
    let transaction = of_group(Transaction::new(), now, group);
    let mut transaction = rely_on_remotes(transaction, state, now, who, &asked);
    refuse_repeats(state, group, &asked)?;
    let mut rules = Vec::with_capacity(new.len());
    for (new, asks) in new.iter().zip(asked) {
        let rule = GroupRule {
            id: RuleId::new(id()),
            group: group.id.clone(),
            project: project.clone(),
            said: checks::described(now, ArcStr::new(), &new.description)?,
            asks,
        };
        let lock = Condition::Absent(lock(&rule.group, &rule.asks));
        transaction = put(transaction.when(lock), &rule);
        rules.push(rule.id);
    }
    let count = (Resource::SecurityGroupRule, rules.len());
    let transaction = quotas::admit(transaction, state, now, &project, count)?;
    Ok(Decided {
        transaction: depend::fits(transaction, state)?,
        answer: rules,
    })
}

fn of_one_group<'a>(who: &Caller, new: &'a [NewRule]) -> Result<(&'a str, ProjectId), Refused> {
    let [first, ..] = new else {
        return Err(Refused::input("security_group_rules", "there is none"));
    };
    let project = who.project_for(first.project.as_ref())?;
    for new in new {
        if new.group != first.group {
            return Err(Refused::NotSingleGroupRules);
        }
        if who.project_for(new.project.as_ref())? != project {
            return Err(Refused::RulesNotSingleProject);
        }
    }
    Ok((&first.group, project))
}

/// Each group or address group that rules name, once.
fn rely_on_remotes(
    mut transaction: Transaction,
    state: &State,
    now: &Moment,
    who: &Caller,
    asked: &[Asks],
) -> Transaction {
    let peers: BTreeSet<&AskedPeer> = asked.iter().map(|asks| &asks.peer).collect();
    for peer in peers {
        match peer {
            AskedPeer::Anyone | AskedPeer::Prefix { .. } => {}
            AskedPeer::Group(id) => {
                let group = state.groups.get(id).expect("it was looked up");
                transaction = groups::rely(transaction, state, now, who, group);
            }
            AskedPeer::Addresses(id) => {
                let addresses = state.addresses.get(id).expect("it was looked up");
                let shared = Shared::Addresses(id.clone());
                transaction = depend::on(transaction, addresses, now);
                let owner = &addresses.project;
                transaction = sharing::rely(transaction, state, who, owner, &shared);
            }
        }
    }
    transaction
}

fn refuse_repeats(state: &State, group: &Group, asked: &[Asks]) -> Result<(), Refused> {
    let mut locks = BTreeSet::new();
    for asks in asked {
        let lock = lock(&group.id, asks);
        if locks.contains(&lock) {
            return Err(Refused::DuplicateRuleInPost);
        }
        locks.insert(lock);
    }
    match locks.iter().find_map(|lock| state.holder(lock)) {
        Some(rule) => Err(Refused::RuleExists(rule.object.to_string())),
        None => Ok(()),
    }
}

pub(crate) fn update(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    description: &str,
    if_revision: Option<u64>,
) -> Result<Decided<()>, Refused> {
    let (group, stored) = state.rule_to_change(who, id, "update_security_group_rule")?;
    depend::revision_is(if_revision, stored.modified)?;
    let mut rule = GroupRule::clone(stored);
    rule.said.description = checks::checked_text("description", description)?;
    if rule == **stored {
        return Ok(Decided::nothing());
    }
    rule.said.updated_at = now.at;
    let transaction = depend::unchanged(Transaction::new(), stored);
    Ok(Decided {
        transaction: of_group(transaction, now, group).put(rule.key(), rule.value()),
        answer: (),
    })
}

pub(crate) fn delete(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    if_revision: Option<u64>,
) -> Result<Decided<()>, Refused> {
    let (group, rule) = state.rule_to_change(who, id, "delete_security_group_rule")?;
    depend::revision_is(if_revision, rule.modified)?;
    let transaction = depend::unchanged(Transaction::new(), rule);
    Ok(Decided {
        transaction: remove(of_group(transaction, now, group), rule),
        answer: (),
    })
}

/// The group is there, and who wants to delete it learns of us.
fn of_group(transaction: Transaction, now: &Moment, group: &Stored<Group>) -> Transaction {
    let mark = records::rules_mark(group.id.as_str());
    depend::write_mark(depend::same(transaction, group), mark, now)
}

/// With its lock.
pub(crate) fn put(transaction: Transaction, rule: &GroupRule) -> Transaction {
    let lock = lock(&rule.group, &rule.asks);
    transaction
        .put(rule.key(), rule.value())
        .put(lock, rule.id.as_str().as_bytes())
}

/// With its lock.
pub(crate) fn remove(transaction: Transaction, rule: &GroupRule) -> Transaction {
    transaction
        .delete(rule.key())
        .delete(lock(&rule.group, &rule.asks))
}

impl State {
    /// Who sees a group sees its rules.
    pub fn may_see_rule(&self, who: &Caller, rule: &GroupRule) -> bool {
        let group = self.groups.get(&rule.group);
        group.is_some_and(|group| self.may_see_group(who, group))
    }

    /// What isn't seen isn't there.
    pub fn rule_for(&self, who: &Caller, id: &str) -> Result<&Stored<GroupRule>, Refused> {
        let rule = self.rule(&RuleId::from(id));
        rule.filter(|rule| self.may_see_rule(who, rule))
            .ok_or_else(|| Refused::SecurityGroupRuleNotFound(id.to_owned()))
    }

    /// A group's owner changes its rules, whoever made them.
    pub(crate) fn rule_to_change(
        &self,
        who: &Caller,
        id: &str,
        action: &str,
    ) -> Result<(&Stored<Group>, &Stored<GroupRule>), Refused> {
        let rule = self.rule_for(who, id)?;
        let group = self.group_to_change(who, rule.group.as_str(), action)?;
        Ok((group, rule))
    }
}

fn asks(state: &State, who: &Caller, new: &NewRule) -> Result<Asks, Refused> {
    let asked = Asked {
        direction: new.direction,
        family: new.family,
        protocol: new.protocol.as_deref(),
        range: [new.range_min.as_ref(), new.range_max.as_ref()],
        prefix: new.remote_prefix.as_deref(),
    };
    let mut asks = canonical(asked)?;
    let remotes = [&new.remote_prefix, &new.remote_group, &new.remote_addresses];
    if remotes.iter().filter(|remote| remote.is_some()).count() > 1 {
        return Err(Refused::MultipleRemoteEntities);
    }
    if let Some(id) = &new.remote_group {
        asks.peer = AskedPeer::Group(state.group_for(who, id)?.id.clone());
    }
    if let Some(id) = &new.remote_addresses {
        let addresses = state.addresses.get(id.as_str()).filter(|addresses| {
            let shared = Shared::Addresses(addresses.id.clone());
            who.owns(&addresses.project) || state.is_shared_with(who, &shared)
        });
        let missing = || Refused::AddressGroupNotFound(id.clone());
        asks.peer = AskedPeer::Addresses(addresses.ok_or_else(missing)?.id.clone());
    }
    Ok(asks)
}

/// The one form of it, or what is wrong with it. The peer is anyone or a prefix.
pub(crate) fn canonical(asked: Asked<'_>) -> Result<Asks, Refused> {
    let protocol = asked.protocol.map(protocol).transpose()?.flatten();
    let [range_min, range_max] = asked.range;
    let mut asks = Asks {
        direction: asked.direction,
        family: asked.family.unwrap_or(Family::V4),
        protocol,
        range_min: range_min.map(AskedNumber::checked).transpose()?,
        range_max: range_max.map(AskedNumber::checked).transpose()?,
        peer: AskedPeer::Anyone,
    };
    asks.protocol = asks.protocol.map(|p| in_family(asks.family, p));
    check_range(&mut asks)?;
    if let Some(written) = asked.prefix {
        asks.peer = prefix(asks.family, written)?;
    }
    check_family(&asks)?;
    assert!(asks.l4().is_some(), "what was checked has a meaning");
    Ok(asks)
}

/// `None`: any. Names in lower case, numbers without leading zeros.
fn protocol(written: &str) -> Result<Option<String>, Refused> {
    let name = written.to_ascii_lowercase();
    if name == "any" {
        return Ok(None);
    }
    let Some(number) = protocols::number(&name) else {
        return Err(Refused::InvalidProtocol {
            protocol: written.to_owned(),
            values: protocols::names().collect::<Vec<_>>().join(", "),
        });
    };
    let digits = name.bytes().all(|b| b.is_ascii_digit());
    Ok(Some(if digits { number.to_string() } else { name }))
}

/// IPv6 has an ICMP of its own.
fn in_family(family: Family, protocol: String) -> String {
    match (family, protocol.as_str()) {
        (Family::V6, "icmp" | "icmpv6") => "ipv6-icmp".to_owned(),
        (Family::V6, "1") => "58".to_owned(),
        (Family::V4 | Family::V6, _) => protocol,
    }
}

/// All ports are none, whatever the protocol: clients say them where they mean no range.
fn check_range(asks: &mut Asks) -> Result<(), Refused> {
    const ALL_PORTS: (Option<u16>, Option<u16>) = (Some(1), Some(u16::MAX));
    if (asks.range_min, asks.range_max) == ALL_PORTS {
        (asks.range_min, asks.range_max) = (None, None);
    }
    let range = (asks.range_min, asks.range_max);
    if range == (None, None) {
        return Ok(());
    }
    let Some(protocol) = &asks.protocol else {
        return Err(Refused::ProtocolRequiredWithPorts);
    };
    let number = protocols::number(protocol).expect("it was checked");
    if matches!(number, 1 | 58) {
        return check_icmp(range);
    }
    if model::PortedProtocol::from_number(number).is_none() {
        return Err(Refused::InvalidProtocolForPort { protocol: number });
    }
    match range {
        (Some(0), _) | (_, Some(0)) => Err(Refused::InvalidPortValue("0".to_owned())),
        (Some(min), Some(max)) if min <= max => Ok(()),
        _ => Err(Refused::InvalidPortRange),
    }
}

fn check_icmp((icmp_type, code): (Option<u16>, Option<u16>)) -> Result<(), Refused> {
    let fields = [
        ("type", "port_range_min", icmp_type),
        ("code", "port_range_max", code),
    ];
    for (field, attribute, value) in fields {
        if let Some(value) = value.filter(|value| *value > 255) {
            return Err(Refused::InvalidIcmpValue {
                field,
                attribute,
                value,
            });
        }
    }
    match (icmp_type, code) {
        (None, Some(code)) => Err(Refused::MissingIcmpType { code }),
        _ => Ok(()),
    }
}

/// Host bits stay in what is shown. An IPv4 address in IPv6's clothes has another form already.
fn prefix(family: Family, written: &str) -> Result<AskedPeer, Refused> {
    let invalid = || Refused::InvalidCidr(written.to_owned());
    let (address, length) = match written.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (written, None),
    };
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let width = Family::of(address).width();
    let length = match length {
        Some(length) => decimal(length).and_then(|length| u8::try_from(length).ok()),
        None => Some(width),
    };
    let length = length.filter(|length| *length <= width && !mapped);
    let length = length.ok_or_else(invalid)?;
    if Family::of(address) != family {
        return Err(Refused::RuleParameterConflict {
            family,
            cidr: format!("{address}/{length}"),
        });
    }
    Ok(AskedPeer::Prefix {
        written: format!("{address}/{length}"),
        prefix: Prefix::containing(address, length),
    })
}

/// What is only in the other family; and in IPv6, headers on the way to a packet's protocol, which no plane
/// matches.
fn check_family(asks: &Asks) -> Result<(), Refused> {
    let Some(protocol) = &asks.protocol else {
        return Ok(());
    };
    let number = protocols::number(protocol).expect("it was checked");
    let other = match asks.family {
        Family::V4 => matches!(number, 41 | 43 | 44 | 58 | 59 | 60),
        Family::V6 => matches!(number, 0 | 43 | 44 | 51 | 60),
    };
    match other {
        true => Err(Refused::EthertypeConflictWithProtocol {
            family: asks.family,
            protocol: protocol.clone(),
        }),
        false => Ok(()),
    }
}

/// Equal for rules that mean the same, and only for them.
pub(crate) fn lock(group: &GroupId, asks: &Asks) -> Key {
    records::held("rule", &format!("{group}/{}", content(asks)))
}

pub(crate) fn content(asks: &Asks) -> String {
    let (protocol, range) = match asks.l4().expect("the store has no others") {
        L4Match::Any => ("any".to_owned(), "any".to_owned()),
        L4Match::Ported { protocol, dst } => (
            protocol.number().to_string(),
            format!("{}-{}", dst.first(), dst.last()),
        ),
        L4Match::Icmp { kind } => {
            let range = kind.map(|kind| match kind.code {
                Some(code) => format!("{}.{code}", kind.icmp_type),
                None => kind.icmp_type.to_string(),
            });
            ("icmp".to_owned(), range.unwrap_or_else(|| "any".to_owned()))
        }
        L4Match::Other(protocol) => (protocol.number().to_string(), "any".to_owned()),
    };
    let peer = match &asks.peer {
        AskedPeer::Prefix { prefix, .. } if prefix.length() > 0 => format!("prefix/{prefix}"),
        AskedPeer::Anyone | AskedPeer::Prefix { .. } => "any".to_owned(),
        AskedPeer::Group(id) => format!("group/{id}"),
        AskedPeer::Addresses(id) => format!("addresses/{id}"),
    };
    let Asks {
        direction, family, ..
    } = asks;
    format!("{direction}/{family}/{protocol}/{range}/{peer}")
}

impl AskedNumber {
    fn checked(&self) -> Result<u16, Refused> {
        let number = match self {
            AskedNumber::Number(number) => u16::try_from(*number).ok(),
            AskedNumber::Text(text) => decimal(text),
        };
        number.ok_or_else(|| Refused::InvalidPortValue(self.to_string()))
    }
}

/// ASCII digits only.
fn decimal(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for AskedNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskedNumber::Number(number) => write!(f, "{number}"),
            AskedNumber::Text(text) => f.pad(text),
        }
    }
}

impl Control {
    /// All of them or none, in order; of one group.
    pub async fn create_rules(
        &self,
        who: &Caller,
        new: Vec<NewRule>,
    ) -> Result<Vec<RuleId>, Failed> {
        self.carry_out(|state, now| create(state, now, who, &new, &mut ids::new_id))
            .await
    }

    pub async fn update_rule(
        &self,
        who: &Caller,
        id: &str,
        description: &str,
        if_revision: Option<u64>,
    ) -> Result<(), Failed> {
        self.carry_out(|state, now| update(state, now, who, id, description, if_revision))
            .await
    }

    pub async fn delete_rule(
        &self,
        who: &Caller,
        id: &str,
        if_revision: Option<u64>,
    ) -> Result<(), Failed> {
        self.carry_out(|state, now| delete(state, now, who, id, if_revision))
            .await
    }
}

#[cfg(test)]
mod tests;
