//! A transaction that grows while it is being decided. Each condition is in it once, however many objects of a
//! request depend on the same one; and what it creates is counted at the end.
//!
//! Place on the line: **use case** -> store commit.
//! Knows nothing of: what is decided, and what the conditions are good for (see [`crate::depend`]).

use crate::caller::Caller;
use crate::control::Decided;
use crate::depend;
use crate::ids::Moment;
use crate::objects::{Resource, Shared};
use crate::quotas::{self, Counted};
use crate::records::Kept;
use crate::refused::Refused;
use crate::sharing;
use crate::state::{State, Stored};
use crate::tags::{Said, is_as_before};
use model::ProjectId;
use std::collections::{BTreeMap, BTreeSet};
use store::{Condition, Key, Transaction};

pub(crate) struct Draft<'a> {
    state: &'a State,
    now: &'a Moment,
    transaction: Transaction,
    depended: BTreeSet<Key>,
    unchanged: BTreeSet<Key>,
    unmarked: BTreeSet<Key>,
    created: BTreeMap<(ProjectId, Resource), usize>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(state: &'a State, now: &'a Moment) -> Self {
        Self {
            state,
            now,
            transaction: Transaction::new(),
            depended: BTreeSet::new(),
            unchanged: BTreeSet::new(),
            unmarked: BTreeSet::new(),
            created: BTreeMap::new(),
        }
    }

    /// Of an object whose id nobody has had.
    pub(crate) fn create<T: Kept + Counted>(&mut self, object: &T) {
        let counted = (object.project().clone(), T::RESOURCE);
        *self.created.entry(counted).or_default() += 1;
        self.with(|transaction| transaction.put(object.key(), object.value()));
    }

    /// Of an object with a name of its own that isn't there.
    pub(crate) fn create_named<T: Kept>(&mut self, object: &T) {
        self.with(|transaction| {
            let absent = Condition::Absent(object.key());
            transaction.when(absent).put(object.key(), object.value())
        });
    }

    /// Nothing, if nothing but the time of it is another: who says again what is so changes nothing.
    pub(crate) fn update<T: Said + PartialEq>(&mut self, seen: &Stored<T>, object: &T) {
        if is_as_before::<T>(seen, object) {
            return;
        }
        self.replace(seen, object);
    }

    pub(crate) fn replace<T: Kept>(&mut self, seen: &Stored<T>, object: &T) {
        self.unchanged(seen);
        self.with(|transaction| transaction.put(object.key(), object.value()));
    }

    pub(crate) fn unchanged<T: Kept>(&mut self, seen: &Stored<T>) {
        if self.unchanged.insert(seen.key()) {
            self.with(|transaction| depend::unchanged(transaction, seen));
        }
    }

    /// For what is to name the object.
    pub(crate) fn depend<T: Kept>(&mut self, on: &Stored<T>) {
        let now = self.now;
        if self.depended.insert(on.key()) {
            self.with(|transaction| depend::on(transaction, on, now));
        }
    }

    /// For who may use another project's object only by a share: that stays meanwhile.
    pub(crate) fn rely(&mut self, who: &Caller, owner: &ProjectId, object: &Shared) {
        if who.owns(owner) {
            return;
        }
        if let Some(share) = self.state.share_with(&who.project, object) {
            self.unchanged(share);
        }
    }

    /// The caller has seen that nothing depends on it.
    pub(crate) fn delete<T: Kept>(&mut self, seen: &Stored<T>) {
        let state = self.state;
        self.with(|transaction| depend::delete(transaction, state, seen));
    }

    /// With an object that it depends on: what would name it has to name that one, too.
    pub(crate) fn delete_along<T: Kept>(&mut self, seen: &Stored<T>) {
        let mark = crate::records::mark(T::KIND, &seen.path());
        self.with(|transaction| transaction.delete(seen.key()).delete(mark));
    }

    /// With the object that they share.
    pub(crate) fn delete_shares(&mut self, object: &Shared) {
        for share in self.state.shares_of(object) {
            self.with(|transaction| sharing::remove(transaction, share));
        }
    }

    /// Nobody has written the mark since.
    pub(crate) fn unmarked(&mut self, mark: Key) {
        let state = self.state;
        if self.unmarked.insert(mark.clone()) {
            self.with(|transaction| depend::unmarked(transaction, state, mark));
        }
    }

    pub(crate) fn mark(&mut self, mark: Key) {
        let now = self.now;
        self.with(|transaction| depend::write_mark(transaction, mark, now));
    }

    pub(crate) fn unmark(&mut self, mark: Key) {
        self.with(|transaction| transaction.delete(mark));
    }

    /// By another object, or by one that this transaction makes.
    pub(crate) fn is_held(&self, name: &Key) -> bool {
        self.state.is_held(name) || self.transaction.writes().contains_key(name)
    }

    /// What isn't held yet.
    pub(crate) fn hold(&mut self, name: Key, holder: &str) {
        self.with(|transaction| {
            let absent = Condition::Absent(name.clone());
            transaction.when(absent).put(name, holder.as_bytes())
        });
    }

    pub(crate) fn free(&mut self, name: Key) {
        self.with(|transaction| transaction.delete(name));
    }

    fn with(&mut self, step: impl FnOnce(Transaction) -> Transaction) {
        self.transaction = step(std::mem::take(&mut self.transaction));
    }

    pub(crate) fn decided<T>(mut self, answer: T) -> Result<Decided<T>, Refused> {
        for ((project, resource), count) in &self.created {
            let one = (*resource, *count);
            self.transaction = quotas::admit(self.transaction, self.state, self.now, project, one)?;
        }
        Ok(Decided {
            transaction: depend::fits(self.transaction, self.state)?,
            answer,
        })
    }
}
