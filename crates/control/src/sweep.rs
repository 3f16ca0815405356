//! What a deletion couldn't take with it: not seen any more, and taken away piece by piece.
//!
//! Place on the line: use case -> **store commit**.
//! Invariants: only what is certain to be gone is swept. A group whose record can't be read is there.
//! Knows nothing of: who deleted it, and why it was allowed.

use crate::control::{Control, Decided};
use crate::depend;
use crate::ids::Moment;
use crate::objects::{Group, GroupRule, Shared};
use crate::records::{self, Kept};
use crate::refused::Failed;
use crate::rules;
use crate::sharing;
use crate::state::{State, Stored};
use model::GroupId;
use std::collections::BTreeSet;
use store::{Condition, MOST_CONDITIONS, MOST_WRITES, Transaction};
use tracing::info;

/// Groups that are gone, and have left something.
pub(crate) fn gone(state: &State) -> BTreeSet<GroupId> {
    let shared = state.index.shares_of.keys();
    let shared = shared.filter_map(|object| match object {
        Shared::Group(id) => Some(id),
        Shared::Addresses(_) | Shared::Network(_) => None,
    });
    let named = state.rules.keys();
    named
        .chain(state.index.rules_naming_group.keys())
        .chain(shared)
        .filter(|id| {
            !state.groups.contains_key(*id) && !state.is_unreadable(Group::KIND, id.as_str())
        })
        .cloned()
        .collect()
}

/// Deletes what is of the group or names it, as much as there is room for; and whether that was all.
pub(crate) fn take(
    mut transaction: Transaction,
    state: &State,
    now: &Moment,
    group: &GroupId,
) -> (Transaction, bool) {
    let own = state.rules.get(group).into_iter().flatten();
    for (_, rule) in own {
        if !has_room(&transaction) {
            return (transaction, false);
        }
        transaction = rules::remove(transaction, rule);
    }
    for rule in naming(state, group) {
        if !has_room(&transaction) {
            return (transaction, false);
        }
        transaction = take_from_other(transaction, state, now, rule);
    }
    for share in state.shares_of(&Shared::Group(group.clone())) {
        if !has_room(&transaction) {
            return (transaction, false);
        }
        transaction = sharing::remove(transaction, share);
    }
    (transaction, true)
}

/// Rules of other groups.
fn naming<'a>(state: &'a State, group: &'a GroupId) -> impl Iterator<Item = &'a Stored<GroupRule>> {
    let names = state.index.rules_naming_group.get(group);
    names
        .into_iter()
        .flatten()
        .filter(move |name| name.group != *group)
        .filter_map(|name| state.rules.get(&name.group)?.get(&name.rule))
}

/// The other group's revision grows, if it is there.
fn take_from_other(
    transaction: Transaction,
    state: &State,
    now: &Moment,
    rule: &GroupRule,
) -> Transaction {
    let transaction = rules::remove(transaction, rule);
    let Some(group) = state.groups.get(&rule.group) else {
        return transaction;
    };
    let mark = records::rules_mark(group.id.as_str());
    match transaction.writes().contains_key(&mark) {
        true => transaction,
        false => depend::write_mark(depend::same(transaction, group), mark, now),
    }
}

/// For one more of them: a rule, its lock and a mark.
fn has_room(transaction: &Transaction) -> bool {
    transaction.writes().len() + 3 <= MOST_WRITES
        && transaction.conditions().len() < MOST_CONDITIONS
}

impl Control {
    /// What a group that is gone has left.
    pub(crate) async fn sweep(&self, group: &GroupId) -> Result<(), Failed> {
        loop {
            let all = self
                .carry_out(|state, now| {
                    // A policy's group may come again under its name: what is in it then stays.
                    let key = records::key(Group::KIND, group.as_str());
                    let absent = Transaction::new().when(Condition::Absent(key));
                    if state.groups.contains_key(group) {
                        return Ok(Decided {
                            transaction: Transaction::new(),
                            answer: true,
                        });
                    }
                    let (transaction, all) = take(absent, state, now, group);
                    Ok(Decided {
                        transaction,
                        answer: all,
                    })
                })
                .await?;
            if all {
                return Ok(());
            }
        }
    }

    pub(crate) async fn sweep_all(&self) -> Result<(), Failed> {
        let gone = gone(&self.state());
        for group in &gone {
            self.sweep(group).await?;
        }
        if !gone.is_empty() {
            info!(groups = gone.len(), "what deleted groups had left is gone");
        }
        Ok(())
    }
}
