//! A commit that grows while there is room in it.
//!
//! ```text
//! unit, unit, unit, ... | full: the next commit
//! ```
//! Invariants: a unit is in it whole or not at all; of what one unit gives up and another takes, in whichever order,
//! the taking stays.
//! Knows nothing of: what a unit is good for.

use super::kinds::Declarable;
use crate::depend;
use crate::ids::Moment;
use crate::quotas;
use crate::records::{self, Kept};
use crate::state::{State, Stored};
use crate::wire_tags;
use model::GroupId;
use store::{Condition, Key, Transaction, Write};

#[derive(Clone)]
pub(super) struct Batch<'a> {
    state: &'a State,
    now: &'a Moment,
    /// Writes.
    room: usize,
    first: usize,
    transaction: Transaction,
}

/// A unit found no room.
#[derive(Debug)]
pub(super) struct Full;

impl<'a> Batch<'a> {
    /// `begun`: what it has, whatever comes.
    pub(super) fn new(state: &'a State, now: &'a Moment, room: usize, begun: Transaction) -> Self {
        Self {
            state,
            now,
            room,
            first: begun.writes().len(),
            transaction: begun,
        }
    }

    /// No unit is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.transaction.writes().len() == self.first
    }

    pub(super) fn transaction(self) -> Transaction {
        self.transaction
    }

    pub(super) fn unit(&mut self, unit: impl FnOnce(&mut Self)) -> Result<(), Full> {
        let mut grown = self.clone();
        unit(&mut grown);
        if grown.transaction.writes().len() > self.room {
            return Err(Full);
        }
        grown.transaction = depend::fits(grown.transaction, self.state).map_err(|_| Full)?;
        *self = grown;
        Ok(())
    }

    pub(super) fn put<T: Declarable>(&mut self, before: Option<&Stored<T>>, after: &T) {
        match before {
            Some(before) => self.unchanged(before),
            None => {
                self.when(Condition::Absent(after.key()));
                self.count(after);
            }
        }
        self.write(after.key(), after.value());
    }

    pub(super) fn count<T: Declarable>(&mut self, object: &T) {
        let now = self.now;
        if let Some((project, resource)) = object.counted() {
            self.with(|transaction| quotas::count(transaction, now, project, resource));
        }
    }

    /// Nothing depends on it, and nobody comes to.
    pub(super) fn remove<T: Kept>(&mut self, object: &Stored<T>) {
        let mark = records::mark(T::KIND, &object.path());
        self.unchanged(object);
        self.unmarked(mark.clone());
        self.delete(object.key());
        self.delete(mark);
    }

    pub(super) fn unchanged<T: Kept>(&mut self, object: &Stored<T>) {
        self.when(Condition::Unchanged {
            key: object.key(),
            modified: object.modified,
        });
    }

    /// It is there, and who wants to delete it learns of us.
    pub(super) fn depend<T: Kept>(&mut self, on: &Stored<T>) {
        self.same(on);
        self.mark(records::mark(T::KIND, &on.path()));
    }

    pub(super) fn same<T: Kept>(&mut self, object: &Stored<T>) {
        self.when(Condition::SameIncarnation {
            key: object.key(),
            created: object.created,
        });
    }

    pub(super) fn mark(&mut self, mark: Key) {
        let at = self.now.at.to_string();
        self.write(mark, at.into_bytes());
    }

    /// Nobody has written the mark since.
    pub(super) fn unmarked(&mut self, mark: Key) {
        let seen = self.state.marked(&mark);
        self.when(match seen {
            Some(seen) => Condition::Unchanged {
                key: mark,
                modified: seen.modified,
            },
            None => Condition::Absent(mark),
        });
    }

    /// Who has it gives it up in this same commit: that port is as it was seen, then.
    pub(super) fn take(&mut self, name: Key, holder: &str) {
        if !self.state.is_held(&name) {
            self.when(Condition::Absent(name.clone()));
        }
        self.write(name, holder.as_bytes());
    }

    pub(super) fn write(&mut self, key: Key, value: impl Into<store::Value>) {
        self.with(|transaction| transaction.put(key, value));
    }

    /// Unless it was written here.
    pub(super) fn delete(&mut self, key: Key) {
        match self.transaction.writes().get(&key) {
            Some(Write::Put(_)) => {}
            Some(Write::Delete) | None => self.with(|transaction| transaction.delete(key)),
        }
    }

    pub(super) fn wire_tag(&mut self, group: &GroupId) -> Option<u16> {
        let transaction = std::mem::take(&mut self.transaction);
        let (transaction, tag) = wire_tags::allocate(transaction, self.state, self.now, group);
        self.transaction = transaction;
        tag
    }

    pub(super) fn release_wire_tag(&mut self, tag: u16) {
        let now = self.now;
        self.with(|transaction| wire_tags::release(transaction, now, tag));
    }

    pub(super) fn when(&mut self, condition: Condition) {
        if !self.transaction.conditions().contains(&condition) {
            self.with(|transaction| transaction.when(condition));
        }
    }

    fn with(&mut self, step: impl FnOnce(Transaction) -> Transaction) {
        self.transaction = step(std::mem::take(&mut self.transaction));
    }
}
