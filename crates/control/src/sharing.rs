//! Who else may see and use a group, an address group or a network.
//!
//! Place on the line: request -> **use case** -> store commit.
//! Invariants: only who owns an object shares it, and only an admin with everybody; what another project uses by a
//! share, the share stays for.
//! Knows nothing of: what using an object is, but for who names it.

use crate::caller::Caller;
use crate::control::{Control, Decided};
use crate::depend;
use crate::ids::{self, Moment};
use crate::objects::{Addresses, Group, Network, Resource, Share, Shared};
use crate::quotas;
use crate::records::{self, Kept};
use crate::refused::{Failed, Refused};
use crate::state::{State, Stored};
use model::ProjectId;
use std::collections::BTreeSet;
use store::{Condition, Key, Transaction};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewShare {
    pub object: Shared,
    /// `None`: all projects.
    pub target: Option<String>,
    /// `None`: the caller's.
    pub project: Option<ProjectId>,
}

/// As the API writes "all projects".
const ALL: &str = "*";

impl State {
    pub fn shares_of(&self, object: &Shared) -> impl Iterator<Item = &Stored<Share>> {
        let ids = self.index.shares_of.get(object);
        let ids = ids.into_iter().flatten();
        ids.filter_map(|id| self.shares.get(id))
    }

    /// By a share, whoever owns it.
    pub fn is_shared_with(&self, who: &Caller, object: &Shared) -> bool {
        self.share_with(&who.project, object).is_some()
    }

    pub(crate) fn share_with(
        &self,
        project: &ProjectId,
        object: &Shared,
    ) -> Option<&Stored<Share>> {
        let mut shares = self.shares_of(object);
        shares.find(|share| match &share.target {
            Some(target) => target == project.as_str(),
            None => true,
        })
    }

    /// One whose object has gone isn't there.
    pub fn may_see_share(&self, who: &Caller, share: &Share) -> bool {
        who.owns(&share.project) && self.object(&share.object).is_some()
    }

    /// What isn't seen isn't there.
    pub fn share_for(&self, who: &Caller, id: &str) -> Result<&Stored<Share>, Refused> {
        let share = self.shares.get(id);
        share
            .filter(|share| self.may_see_share(who, share))
            .ok_or_else(|| Refused::SharePolicyNotFound(id.to_owned()))
    }

    fn object(&self, object: &Shared) -> Option<Object<'_>> {
        Some(match object {
            Shared::Group(id) => Object::Group(self.groups.get(id)?),
            Shared::Addresses(id) => Object::Addresses(self.addresses.get(id)?),
            Shared::Network(id) => Object::Network(self.networks.get(id)?),
        })
    }

    /// Projects other than the owner that use it.
    fn users(&self, object: &Shared, owner: &ProjectId) -> BTreeSet<ProjectId> {
        let (ports, rules) = match object {
            Shared::Group(id) => (
                self.index.ports_in_group.get(id),
                self.index.rules_naming_group.get(id),
            ),
            Shared::Addresses(id) => (None, self.index.rules_naming_addresses.get(id)),
            Shared::Network(id) => (self.index.ports_in_network.get(id), None),
        };
        let ports = ports.into_iter().flatten();
        let ports = ports.filter_map(|id| Some(&self.ports.get(id)?.project));
        let rules = rules.into_iter().flatten();
        let rules = rules.filter_map(|name| Some(&self.groups.get(&name.group)?.project));
        let users = ports.chain(rules).filter(|project| *project != owner);
        users.cloned().collect()
    }
}

/// What is shared, as it is stored.
enum Object<'a> {
    Group(&'a Stored<Group>),
    Addresses(&'a Stored<Addresses>),
    Network(&'a Stored<Network>),
}

impl Object<'_> {
    fn owner(&self) -> &ProjectId {
        match self {
            Object::Group(group) => &group.project,
            Object::Addresses(addresses) => &addresses.project,
            Object::Network(network) => &network.project,
        }
    }

    fn depend(&self, transaction: Transaction, now: &Moment) -> Transaction {
        match self {
            Object::Group(group) => depend::on(transaction, group, now),
            Object::Addresses(addresses) => depend::on(transaction, addresses, now),
            Object::Network(network) => depend::on(transaction, network, now),
        }
    }
}

/// For those who use an object that another project owns: the share by which they may stays while they decide.
pub(crate) fn rely(
    transaction: Transaction,
    state: &State,
    who: &Caller,
    owner: &ProjectId,
    object: &Shared,
) -> Transaction {
    if who.owns(owner) {
        return transaction;
    }
    match state.share_with(&who.project, object) {
        Some(share) => depend::unchanged(transaction, share),
        None => transaction,
    }
}

pub(crate) fn create(
    state: &State,
    now: &Moment,
    who: &Caller,
    new: &NewShare,
    id: &str,
) -> Result<Decided<()>, Refused> {
    who.must_write("create_rbac_policy")?;
    let object = state
        .object(&new.object)
        .filter(|object| who.owns(object.owner()))
        .ok_or_else(|| not_found(&new.object))?;
    let share = Share {
        id: id.to_owned(),
        project: who.project_for(new.project.as_ref())?,
        object: new.object.clone(),
        target: checked_target(who, &new.target, "create_rbac_policy:target_tenant")?,
        created_at: now.at,
    };
    let transaction = once(Transaction::new(), state, &share)?;
    let transaction = object.depend(transaction, now);
    let one = (Resource::RbacPolicy, 1);
    let transaction = quotas::admit(transaction, state, now, &share.project, one)?;
    Ok(Decided {
        transaction: transaction.put(share.key(), share.value()),
        answer: (),
    })
}

pub(crate) fn update(
    state: &State,
    who: &Caller,
    id: &str,
    target: &Option<String>,
) -> Result<Decided<()>, Refused> {
    let stored = state.share_for(who, id)?;
    who.must_write("update_rbac_policy")?;
    let share = Share {
        target: checked_target(who, target, "update_rbac_policy:target_tenant")?,
        ..Share::clone(stored)
    };
    if share.target == stored.target {
        return Ok(Decided {
            transaction: Transaction::new(),
            answer: (),
        });
    }
    let transaction = withdraw(state, stored, share.target.as_ref())?;
    let transaction = once(transaction.delete(lock(stored)), state, &share)?;
    Ok(Decided {
        transaction: transaction.put(share.key(), share.value()),
        answer: (),
    })
}

pub(crate) fn delete(state: &State, who: &Caller, id: &str) -> Result<Decided<()>, Refused> {
    let share = state.share_for(who, id)?;
    who.must_write("delete_rbac_policy")?;
    let nobody = String::new();
    let transaction = withdraw(state, share, Some(&nobody))?;
    Ok(Decided {
        transaction: remove(transaction, share),
        answer: (),
    })
}

/// What must hold for the share to go, or to become one with `instead`.
fn withdraw(
    state: &State,
    share: &Stored<Share>,
    instead: Option<&String>,
) -> Result<Transaction, Refused> {
    let shared = &share.object.object;
    let id = shared.path();
    if let Some(object) = state.object(shared) {
        let others = state.shares_of(shared);
        let others: Vec<_> = others.filter(|other| other.id != share.id).collect();
        let allowed = |project: &ProjectId| {
            let others = others.iter().map(|other| other.target.as_ref());
            let mut targets = others.chain([instead]);
            targets.any(|target| target.is_none_or(|target| target == project.as_str()))
        };
        let users = state.users(shared, object.owner());
        if !users.iter().all(allowed) {
            return Err(Refused::SharePolicyInUse(id.to_owned()));
        }
    }
    // Who comes to use the object writes its mark.
    let mark = records::mark(shared.kind(), id);
    let transaction = depend::unchanged(Transaction::new(), share);
    Ok(depend::unmarked(transaction, state, mark))
}

/// With everybody, admins only.
fn checked_target(
    who: &Caller,
    target: &Option<String>,
    action: &str,
) -> Result<Option<String>, Refused> {
    match target {
        None if !who.is_admin() => Err(Refused::not_authorized(action)),
        Some(target) if !ids::is_id(target) => {
            let why = format!("'{target}' is no project's id");
            Err(Refused::input("target_tenant", why))
        }
        Some(_) | None => Ok(target.clone()),
    }
}

/// The same object is shared with the same target once.
fn once(transaction: Transaction, state: &State, share: &Share) -> Result<Transaction, Refused> {
    let lock = lock(share);
    match state.holder(&lock) {
        Some(_) => Err(Refused::DuplicateSharePolicy),
        None => Ok(transaction
            .when(Condition::Absent(lock.clone()))
            .put(lock, share.id.as_bytes())),
    }
}

pub(crate) fn lock(share: &Share) -> Key {
    let target = share.target.as_deref().unwrap_or(ALL);
    let (kind, id) = (share.object.kind(), share.object.path());
    records::held("share", &format!("{kind}/{id}/{target}"))
}

/// With its lock.
pub(crate) fn remove(transaction: Transaction, share: &Share) -> Transaction {
    transaction.delete(share.key()).delete(lock(share))
}

fn not_found(object: &Shared) -> Refused {
    let id = object.path().to_owned();
    match object {
        Shared::Group(_) => Refused::SecurityGroupNotFound(id),
        Shared::Addresses(_) => Refused::AddressGroupNotFound(id),
        Shared::Network(_) => Refused::NetworkNotFound(id),
    }
}

impl Shared {
    fn kind(&self) -> &'static str {
        match self {
            Shared::Group(_) => Group::KIND,
            Shared::Addresses(_) => Addresses::KIND,
            Shared::Network(_) => Network::KIND,
        }
    }

    fn path(&self) -> &str {
        match self {
            Shared::Group(id) => id.as_str(),
            Shared::Addresses(id) => id.as_str(),
            Shared::Network(id) => id.as_str(),
        }
    }
}

impl Control {
    /// Answers the share's id.
    pub async fn create_share(&self, who: &Caller, new: NewShare) -> Result<String, Failed> {
        let id = ids::new_id();
        self.carry_out(|state, now| create(state, now, who, &new, &id))
            .await?;
        Ok(id)
    }

    /// `None`: all projects.
    pub async fn update_share(
        &self,
        who: &Caller,
        id: &str,
        target: Option<String>,
    ) -> Result<(), Failed> {
        self.carry_out(|state, _| update(state, who, id, &target))
            .await
    }

    pub async fn delete_share(&self, who: &Caller, id: &str) -> Result<(), Failed> {
        self.carry_out(|state, _| delete(state, who, id)).await
    }
}

#[cfg(test)]
mod tests;
