//! The template: which rules a new group begins with.
//!
//! Place on the line: request -> **use case** -> store commit.
//! Invariants: every store has one, the built-in one to begin with; a group never gets the same rule twice from it,
//! and always fits a transaction with its rules. Its changes are decided one after the other.
//! Knows nothing of: groups that are there already; they stay as they are.

use crate::caller::Caller;
use crate::checks;
use crate::control::{Control, Decided};
use crate::depend;
use crate::ids::{self, Moment};
use crate::objects::{AskedPeer, Described, Group, GroupRule, TemplateRule};
use crate::records::{self, Kept};
use crate::refused::{Failed, Refused};
use crate::rules::{self, Asked, AskedNumber};
use crate::state::State;
use arcstr::ArcStr;
use model::{Direction, Family, RuleId};
use store::Transaction;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTemplateRule {
    pub description: String,
    pub direction: Direction,
    /// `None`: IPv4.
    pub family: Option<Family>,
    pub protocol: Option<String>,
    pub range_min: Option<AskedNumber>,
    pub range_max: Option<AskedNumber>,
    pub remote_prefix: Option<String>,
    /// `PARENT`: the group itself that the rule comes to be in. No other is possible.
    pub remote_group: Option<String>,
    /// None is possible: not every project could see it.
    pub remote_addresses: Option<String>,
    pub in_default_groups: bool,
    pub in_other_groups: bool,
}

/// As the API names the group itself.
pub const PARENT: &str = "PARENT";

/// A new group, each of its rules with its lock, and marks are one transaction.
const MOST_RULES: usize = 50;

/// What a new group begins with.
pub(crate) fn rules_for(
    state: &State,
    now: &Moment,
    group: &Group,
    id: &mut dyn FnMut() -> String,
) -> Vec<GroupRule> {
    let rules = state.template.values().filter(|rule| match group.default {
        true => rule.in_default_groups,
        false => rule.in_other_groups,
    });
    let rules = rules.map(|rule| {
        let mut asks = rule.asks.clone();
        if rule.remote_is_own_group {
            asks.peer = AskedPeer::Group(group.id.clone());
        }
        GroupRule {
            id: RuleId::new(id()),
            group: group.id.clone(),
            project: group.project.clone(),
            said: Described {
                description: rule.said.description.clone(),
                created_at: now.at,
                updated_at: now.at,
                ..Described::default()
            },
            asks,
        }
    });
    rules.collect()
}

/// All egress; and in default groups, what their members send each other. Written once: an admin may have
/// deleted it since.
pub(crate) fn built_in(state: &State, now: &Moment, id: &mut dyn FnMut() -> String) -> Decided<()> {
    let mark = records::template_mark();
    let mut transaction = Transaction::new();
    if state.marked(&mark).is_none() {
        transaction = depend::unmarked(transaction, state, mark.clone());
        transaction = depend::write_mark(transaction, mark, now);
        for direction in Direction::BOTH {
            for family in Family::BOTH {
                let rule = usual(now, direction, family, id());
                transaction = transaction.put(rule.key(), rule.value());
            }
        }
    }
    Decided {
        transaction,
        answer: (),
    }
}

fn usual(now: &Moment, direction: Direction, family: Family, id: String) -> TemplateRule {
    let asked = Asked {
        direction,
        family: Some(family),
        protocol: None,
        range: [None, None],
        prefix: None,
    };
    TemplateRule {
        id: RuleId::new(id),
        said: Described {
            created_at: now.at,
            updated_at: now.at,
            ..Described::default()
        },
        asks: rules::canonical(asked).expect("any packet can be asked for"),
        remote_is_own_group: direction == Direction::Ingress,
        in_default_groups: true,
        in_other_groups: direction == Direction::Egress,
    }
}

pub(crate) fn create(
    state: &State,
    now: &Moment,
    who: &Caller,
    new: &[NewTemplateRule],
    id: &mut dyn FnMut() -> String,
) -> Result<Decided<Vec<RuleId>>, Refused> {
    if !who.is_admin() {
        return Err(Refused::not_authorized(
            "create_default_security_group_rule",
        ));
    }
    depend::bulk("default_security_group_rules", new)?;
    if state.template.len() + new.len() > MOST_RULES {
        let why = format!("the template has {MOST_RULES} rules at most");
        return Err(Refused::TooMany(why));
    }
    let mut made: Vec<TemplateRule> = Vec::new();
    for new in new {
        let rule = checked(now, new, id())?;
        if made.iter().any(|other| repeats(other, &rule)) {
            return Err(Refused::DuplicateDefaultRuleInPost);
        }
        let mut known = state.template.values();
        if let Some(known) = known.find(|known| repeats(known, &rule)) {
            return Err(Refused::DefaultRuleExists(known.id.to_string()));
        }
        made.push(rule);
    }
    let mut transaction = one_at_a_time(state, now);
    for rule in &made {
        transaction = transaction.put(rule.key(), rule.value());
    }
    Ok(Decided {
        transaction,
        answer: made.into_iter().map(|rule| rule.id).collect(),
    })
}

pub(crate) fn delete(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
) -> Result<Decided<()>, Refused> {
    if !who.is_admin() {
        return Err(Refused::not_authorized(
            "delete_default_security_group_rule",
        ));
    }
    let missing = || Refused::DefaultRuleNotFound(id.to_owned());
    let rule = state.template.get(id).ok_or_else(missing)?;
    Ok(Decided {
        transaction: one_at_a_time(state, now).delete(rule.key()),
        answer: (),
    })
}

fn one_at_a_time(state: &State, now: &Moment) -> Transaction {
    let mark = records::template_mark();
    let transaction = depend::unmarked(Transaction::new(), state, mark.clone());
    depend::write_mark(transaction, mark, now)
}

fn checked(now: &Moment, new: &NewTemplateRule, id: String) -> Result<TemplateRule, Refused> {
    let asks = rules::canonical(Asked {
        direction: new.direction,
        family: new.family,
        protocol: new.protocol.as_deref(),
        range: [new.range_min.as_ref(), new.range_max.as_ref()],
        prefix: new.remote_prefix.as_deref(),
    })?;
    let remotes = [&new.remote_prefix, &new.remote_group, &new.remote_addresses];
    if remotes.iter().filter(|remote| remote.is_some()).count() > 1 {
        return Err(Refused::MultipleRemoteEntities);
    }
    if new
        .remote_group
        .as_ref()
        .is_some_and(|group| group != PARENT)
    {
        let why = "in the template only PARENT is possible, the group itself";
        return Err(Refused::input("remote_group_id", why));
    }
    if new.remote_addresses.is_some() {
        let why = "in the template none is possible";
        return Err(Refused::input("remote_address_group_id", why));
    }
    Ok(TemplateRule {
        id: RuleId::new(id),
        said: checks::described(now, ArcStr::new(), &new.description)?,
        asks,
        remote_is_own_group: new.remote_group.is_some(),
        in_default_groups: new.in_default_groups,
        in_other_groups: new.in_other_groups,
    })
}

/// Some group would have the same rule twice.
fn repeats(one: &TemplateRule, other: &TemplateRule) -> bool {
    let meet = (one.in_default_groups && other.in_default_groups)
        || (one.in_other_groups && other.in_other_groups);
    meet && one.remote_is_own_group == other.remote_is_own_group
        && rules::content(&one.asks) == rules::content(&other.asks)
}

impl Control {
    /// All of them or none, in order.
    pub async fn create_template_rules(
        &self,
        who: &Caller,
        new: Vec<NewTemplateRule>,
    ) -> Result<Vec<RuleId>, Failed> {
        self.carry_out(|state, now| create(state, now, who, &new, &mut ids::new_id))
            .await
    }

    pub async fn delete_template_rule(&self, who: &Caller, id: &str) -> Result<(), Failed> {
        self.carry_out(|state, now| delete(state, now, who, id))
            .await
    }
}

#[cfg(test)]
mod tests;
