//! How much a project may have, and has.
//!
//! Quotas are exact near the limit: while fewer than [`EXACT_BELOW`] are left, a creation asks that nobody has
//! created another one since, and says that it has. Farther away creations don't hinder each other, and say nothing:
//! so many are not decided on while somebody else's copy comes from there to the limit.
//! Knows nothing of: what a creation writes beside its count.

use crate::caller::Caller;
use crate::control::{Control, Decided};
use crate::depend;
use crate::ids::{self, Moment};
use crate::objects::{Addresses, Group, GroupRule, Network, Port, Quota, Resource, Share, Subnet};
use crate::records::{self, Kept, QuotaOf};
use crate::refused::{Failed, Refused};
use crate::state::State;
use model::ProjectId;
use std::collections::BTreeMap;
use store::{Condition, Transaction};

/// Whether a limit may be less than what a project has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    Usage,
    Forced,
}

/// What counts for its project.
pub(crate) trait Counted {
    const RESOURCE: Resource;
    fn project(&self) -> &ProjectId;
}

macro_rules! counted {
    ($($object:ident)+) => {$(
        impl Counted for $object {
            const RESOURCE: Resource = counted!(@ $object);
            fn project(&self) -> &ProjectId { &self.project }
        }
    )+};
    (@ Group) => { Resource::SecurityGroup };
    (@ GroupRule) => { Resource::SecurityGroupRule };
    (@ Addresses) => { Resource::AddressGroup };
    (@ Network) => { Resource::Network };
    (@ Subnet) => { Resource::Subnet };
    (@ Port) => { Resource::Port };
    (@ Share) => { Resource::RbacPolicy };
}
counted! { Group GroupRule Addresses Network Subnet Port Share }

const EXACT_BELOW: u64 = 1000;
/// No bound.
const UNLIMITED: i64 = -1;

impl Resource {
    /// Where neither the project nor the server says otherwise; as Neutron's.
    fn usual(self) -> i64 {
        match self {
            Resource::SecurityGroup | Resource::AddressGroup | Resource::RbacPolicy => 10,
            Resource::SecurityGroupRule | Resource::Network | Resource::Subnet => 100,
            Resource::Port => 500,
        }
    }
}

impl State {
    pub fn limit(&self, project: &ProjectId, resource: Resource) -> i64 {
        let own = self.quota(project.as_str());
        let own = own.and_then(|quota| quota.limits.get(&resource).copied());
        own.unwrap_or_else(|| self.default_limit(resource))
    }

    pub fn limits(&self, project: &ProjectId) -> BTreeMap<Resource, i64> {
        let limits = Resource::ALL.map(|resource| (resource, self.limit(project, resource)));
        limits.into()
    }

    /// Those of a project that has no quota of its own.
    pub fn default_limits(&self) -> BTreeMap<Resource, i64> {
        let limits = Resource::ALL.map(|resource| (resource, self.default_limit(resource)));
        limits.into()
    }

    fn default_limit(&self, resource: Resource) -> i64 {
        let limit = self.defaults.limits.get(&resource).copied();
        limit.unwrap_or_else(|| resource.usual())
    }

    pub fn used(&self, project: &ProjectId) -> BTreeMap<Resource, u64> {
        let used = Resource::ALL.map(|resource| (resource, self.count(project, resource)));
        used.into()
    }

    fn count(&self, project: &ProjectId, resource: Resource) -> u64 {
        let counts = self.index.counts.get(project);
        counts
            .and_then(|counts| counts.get(&resource).copied())
            .unwrap_or_default()
    }
}

/// For a creation of so many: refused if they are too many, and counted near the limit.
pub(crate) fn admit(
    transaction: Transaction,
    state: &State,
    now: &Moment,
    project: &ProjectId,
    (resource, more): (Resource, usize),
) -> Result<Transaction, Refused> {
    let Ok(limit) = u64::try_from(state.limit(project, resource)) else {
        return Ok(transaction);
    };
    let used = state.count(project, resource);
    if used + more as u64 > limit {
        return Err(Refused::over(resource));
    }
    if limit - used >= EXACT_BELOW {
        return Ok(transaction);
    }
    let counted = count(transaction, now, project, resource);
    let mark = records::count_mark(resource, project);
    Ok(depend::unmarked(counted, state, mark))
}

/// For what is created whatever the quota: others near the limit decide anew.
pub(crate) fn count(
    transaction: Transaction,
    now: &Moment,
    project: &ProjectId,
    resource: Resource,
) -> Transaction {
    depend::write_mark(transaction, records::count_mark(resource, project), now)
}

pub(crate) fn set(
    state: &State,
    who: &Caller,
    project: &str,
    limits: &BTreeMap<Resource, i64>,
    check: Check,
) -> Result<Decided<()>, Refused> {
    if !who.is_admin() {
        return Err(Refused::not_authorized("update_quota"));
    }
    if !ids::is_id(project) {
        return Err(Refused::bad_project(project));
    }
    if let Some(limit) = limits.values().find(|limit| **limit < UNLIMITED) {
        let why = format!("{limit} is less than -1, which is no limit");
        return Err(Refused::input("quota", why));
    }
    if check == Check::Usage {
        not_below_usage(state, &ProjectId::from(project), limits)?;
    }
    let mut quota = QuotaOf {
        project: project.to_owned(),
        quota: state.quota(project).cloned().unwrap_or_default(),
    };
    quota.quota.limits.extend(limits);
    let transaction = match state.quota_record(project) {
        Some(stored) => depend::unchanged(Transaction::new(), stored),
        None => Transaction::new().when(Condition::Absent(quota.key())),
    };
    Ok(Decided {
        transaction: transaction.put(quota.key(), quota.value()),
        answer: (),
    })
}

fn not_below_usage(
    state: &State,
    project: &ProjectId,
    limits: &BTreeMap<Resource, i64>,
) -> Result<(), Refused> {
    for (resource, limit) in limits {
        let used = state.count(project, *resource);
        if u64::try_from(*limit).is_ok_and(|limit| limit < used) {
            return Err(Refused::QuotaBelowUsage {
                resource: *resource,
                limit: *limit,
                used,
            });
        }
    }
    Ok(())
}

pub(crate) fn delete(state: &State, who: &Caller, project: &str) -> Result<Decided<()>, Refused> {
    if !who.is_admin() {
        return Err(Refused::not_authorized("delete_quota"));
    }
    let missing = || Refused::QuotaNotFound(project.to_owned());
    let stored = state.quota_record(project).ok_or_else(missing)?;
    let transaction = depend::unchanged(Transaction::new(), stored).delete(stored.key());
    Ok(Decided {
        transaction,
        answer: (),
    })
}

impl Control {
    /// Limits that aren't given stay.
    pub async fn set_quota(
        &self,
        who: &Caller,
        project: &str,
        limits: BTreeMap<Resource, i64>,
        check: Check,
    ) -> Result<(), Failed> {
        self.carry_out(|state, _| set(state, who, project, &limits, check))
            .await
    }

    /// The project has the defaults again.
    pub async fn delete_quota(&self, who: &Caller, project: &str) -> Result<(), Failed> {
        self.carry_out(|state, _| delete(state, who, project)).await
    }
}

impl Quota {
    pub fn of(limits: impl IntoIterator<Item = (Resource, i64)>) -> Self {
        let limits = limits.into_iter().collect();
        Self { limits }
    }
}

#[cfg(test)]
mod tests;
