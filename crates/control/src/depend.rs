//! What stands in for locks: conditions on what a decision has seen, and marks for those who decide otherwise.
//!
//! ```text
//! port ---depends on--> group:  when the group is this one;  writes mark/group/G
//! who deletes the group:        when mark/group/G is as it was seen;  the mark goes with the group
//! ```
//! So those who depend don't hinder each other, and either the deletion or the dependence is decided anew. A group's
//! own rules do the same with the one mark that they write anyway, mark/rules/G.
//!
//! ```text
//! a port takes an address:      when held/N/ADDRESS is absent;  writes mark/network/N
//! a hundred ports take theirs:  when mark/network/N is as it was seen;  write it
//! ```

use crate::ids::Moment;
use crate::records::{self, Kept};
use crate::refused::Refused;
use crate::state::{State, Stored};
use std::collections::BTreeSet;
use store::{Condition, Key, MOST_CONDITIONS, Transaction};

/// The object is there, and who wants to delete it learns of us.
pub(crate) fn on<T: Kept>(transaction: Transaction, on: &Stored<T>, now: &Moment) -> Transaction {
    let mark = records::mark(T::KIND, &on.path());
    write_mark(same(transaction, on), mark, now)
}

/// The object is there still.
pub(crate) fn same<T: Kept>(transaction: Transaction, object: &Stored<T>) -> Transaction {
    transaction.when(Condition::SameIncarnation {
        key: object.key(),
        created: object.created,
    })
}

/// Nobody has written the object since.
pub(crate) fn unchanged<T: Kept>(transaction: Transaction, object: &Stored<T>) -> Transaction {
    transaction.when(Condition::Unchanged {
        key: object.key(),
        modified: object.modified,
    })
}

/// Nobody has written the mark since.
pub(crate) fn unmarked(transaction: Transaction, state: &State, mark: Key) -> Transaction {
    transaction.when(match state.marked(&mark) {
        Some(seen) => Condition::Unchanged {
            key: mark,
            modified: seen.modified,
        },
        None => Condition::Absent(mark),
    })
}

pub(crate) fn write_mark(transaction: Transaction, mark: Key, now: &Moment) -> Transaction {
    transaction.put(mark, now.at.to_string().into_bytes())
}

/// Deletes the object with its mark, if nobody came to depend on it.
pub(crate) fn delete<T: Kept>(
    transaction: Transaction,
    state: &State,
    object: &Stored<T>,
) -> Transaction {
    let mark = records::mark(T::KIND, &object.path());
    unmarked(unchanged(transaction, object), state, mark.clone())
        .delete(object.key())
        .delete(mark)
}

/// What `If-Match` asks, where it was asked.
pub(crate) fn revision_is(wanted: Option<u64>, current: u64) -> Result<(), Refused> {
    match wanted {
        Some(wanted) if wanted != current => Err(Refused::RevisionConstraint { wanted, current }),
        Some(_) | None => Ok(()),
    }
}

/// A bulk request that one transaction can't hold is refused whole.
pub(crate) fn fits(transaction: Transaction, state: &State) -> Result<Transaction, Refused> {
    let fewer = fewer_conditions(transaction, state);
    match fewer.check_size() {
        Ok(()) => Ok(fewer),
        Err(what) => Err(Refused::TooMany(what.to_string())),
    }
}

/// Where there are more than one transaction holds. That what was seen to be free is so still follows from the mark
/// that whoever takes such a thing writes: one condition for all of a network, or of a group. It is too strict,
/// as it minds others' names there; so a few are asked for by themselves.
fn fewer_conditions(transaction: Transaction, state: &State) -> Transaction {
    if transaction.conditions().len() <= MOST_CONDITIONS {
        return transaction;
    }
    let mut marks = BTreeSet::new();
    let mut others = Vec::new();
    for condition in transaction.conditions() {
        match mark_of(condition, state) {
            Some(mark) => {
                marks.insert(mark);
            }
            None => others.push(condition.clone()),
        }
    }
    let merged = marks
        .into_iter()
        .fold(Transaction::new(), |t, mark| unmarked(t, state, mark));
    for condition in merged.conditions() {
        if !others.contains(condition) {
            others.push(condition.clone());
        }
    }
    transaction.only_when(others)
}

/// Whose being unchanged says as much, or more.
fn mark_of(condition: &Condition, state: &State) -> Option<Key> {
    match condition {
        Condition::Absent(name) if !state.is_held(name) => records::taken_mark(name),
        // A number that was another group's, long ago.
        Condition::Unchanged { key, modified }
            if state.holder(key).is_some_and(|h| h.modified == *modified) =>
        {
            records::taken_mark(key)
        }
        Condition::Absent(_)
        | Condition::Unchanged { .. }
        | Condition::SameIncarnation { .. }
        | Condition::NothingNewUnder { .. } => None,
    }
}

/// The most objects of one bulk request.
const MOST_OBJECTS: usize = 100;

pub(crate) fn bulk<T>(field: &'static str, new: &[T]) -> Result<(), Refused> {
    match new.len() {
        0 => Err(Refused::input(field, "there is none")),
        1..=MOST_OBJECTS => Ok(()),
        count => Err(Refused::TooMany(format!(
            "{count} objects; at most {MOST_OBJECTS} are possible"
        ))),
    }
}
