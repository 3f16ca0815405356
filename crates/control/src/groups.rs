//! Use cases of security groups.
//!
//! Place on the line: request -> **use case** -> store commit.
//! Invariants: a new group has the template's rules; a project has one default group, and no other group bears
//! that name; a group goes with its rules and with those that name it.
//! Knows nothing of: what rules may say (rules.rs), ports but for which groups they are in.

use crate::caller::Caller;
use crate::checks::{checked_text, described};
use crate::control::{Control, Decided};
use crate::depend;
use crate::ids::{self, Moment};
use crate::objects::{Group, Project, Resource, Shared};
use crate::quotas;
use crate::records::{self, Kept};
use crate::refused::{Failed, Refused};
use crate::rules;
use crate::sharing;
use crate::state::{State, Stored};
use crate::sweep;
use crate::template;
use crate::wire_tags;
use arcstr::ArcStr;
use model::{GroupId, ProjectId};
use std::collections::BTreeMap;
use store::{Condition, Transaction};
use tracing::warn;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGroup {
    /// `None`: the caller's.
    pub project: Option<ProjectId>,
    pub name: String,
    pub description: String,
    pub stateful: bool,
}

/// `None`: stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupPatch {
    pub name: Option<String>,
    pub description: Option<String>,
    pub stateful: Option<bool>,
}

const DEFAULT: &str = "default";

pub(crate) fn create(
    state: &State,
    now: &Moment,
    who: &Caller,
    new: &[NewGroup],
    id: &mut dyn FnMut() -> String,
) -> Result<Decided<Vec<GroupId>>, Refused> {
    who.must_write("create_security_group")?;
    depend::bulk("security_groups", new)?;
    let mut made = Making::default();
    for new in new {
        let group = Group {
            id: GroupId::new(id()),
            project: who.project_for(new.project.as_ref())?,
            said: described(now, checked_name(&new.name)?, &new.description)?,
            stateful: new.stateful,
            default: false,
            wire_tag: None,
        };
        made.add(state, now, group, id);
    }
    let mut transaction = made.transaction;
    for (project, groups) in &made.projects {
        let quotas = [
            (Resource::SecurityGroup, groups.groups),
            (Resource::SecurityGroupRule, groups.rules),
        ];
        for quota in quotas {
            transaction = quotas::admit(transaction, state, now, project, quota)?;
        }
    }
    Ok(Decided {
        transaction: depend::fits(transaction, state)?,
        answer: made.groups,
    })
}

/// Groups that are to be, in one transaction.
#[derive(Default)]
struct Making {
    transaction: Transaction,
    groups: Vec<GroupId>,
    projects: BTreeMap<ProjectId, Made>,
}

#[derive(Default)]
struct Made {
    groups: usize,
    rules: usize,
}

impl Making {
    fn add(
        &mut self,
        state: &State,
        now: &Moment,
        mut group: Group,
        id: &mut dyn FnMut() -> String,
    ) {
        let transaction = std::mem::take(&mut self.transaction);
        let (mut transaction, tag) = wire_tags::allocate(transaction, state, now, &group.id);
        group.wire_tag = tag;
        transaction = transaction
            .when(Condition::Absent(group.key()))
            .put(group.key(), group.value());
        let made = self.projects.entry(group.project.clone()).or_default();
        made.groups += 1;
        for rule in template::rules_for(state, now, &group, id) {
            transaction = rules::put(transaction, &rule);
            made.rules += 1;
        }
        self.groups.push(group.id);
        self.transaction = transaction;
    }
}

/// The project's default group, or how to make it.
pub(crate) fn default(
    state: &State,
    now: &Moment,
    who: &Caller,
    project: &ProjectId,
    id: &mut dyn FnMut() -> String,
) -> Result<Decided<GroupId>, Refused> {
    let project = who.project_for(Some(project))?;
    let known = state.projects.get(&project);
    if let Some(known) = known
        && (state.groups.contains_key(&known.default_group)
            || state.is_unreadable(Group::KIND, known.default_group.as_str()))
    {
        return Ok(Decided {
            transaction: Transaction::new(),
            answer: known.default_group.clone(),
        });
    }
    let group = Group {
        id: GroupId::new(id()),
        project: project.clone(),
        said: described(now, DEFAULT.into(), "Default security group")?,
        stateful: true,
        default: true,
        wire_tag: None,
    };
    let record = Project {
        id: project.clone(),
        default_group: group.id.clone(),
    };
    let mut made = Making::default();
    made.add(state, now, group, id);
    let once = match known {
        Some(known) => depend::unchanged(made.transaction, known),
        None => made.transaction.when(Condition::Absent(record.key())),
    };
    // Whatever the quota: without it the project can't have a port.
    let counted = [Resource::SecurityGroup, Resource::SecurityGroupRule]
        .into_iter()
        .fold(once, |transaction, resource| {
            quotas::count(transaction, now, &project, resource)
        });
    Ok(Decided {
        transaction: counted.put(record.key(), record.value()),
        answer: record.default_group,
    })
}

pub(crate) fn update(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    patch: &GroupPatch,
    if_revision: Option<u64>,
) -> Result<Decided<()>, Refused> {
    let stored = state.group_to_change(who, id, "update_security_group")?;
    depend::revision_is(if_revision, state.group_revision(stored))?;
    let mut group = Group::clone(stored);
    if let Some(name) = &patch.name {
        let name = checked_name(name)?;
        if group.default {
            return Err(Refused::CannotUpdateDefault);
        }
        group.said.name = name;
    }
    if let Some(description) = &patch.description {
        group.said.description = checked_text("description", description)?;
    }
    let mut transaction = depend::unchanged(Transaction::new(), stored);
    if let Some(stateful) = patch.stateful
        && stateful != group.stateful
    {
        refuse_if_in_use(state, stored)?;
        group.stateful = stateful;
        transaction = depend::unmarked(transaction, state, records::mark(Group::KIND, id));
    }
    if if_revision.is_some() {
        transaction = depend::unmarked(transaction, state, records::rules_mark(id));
    }
    if group == **stored {
        return Ok(Decided::nothing());
    }
    group.said.updated_at = now.at;
    Ok(Decided {
        transaction: transaction.put(group.key(), group.value()),
        answer: (),
    })
}

/// As much of it as one transaction holds, the group itself first; the rest is not seen any more, and swept.
pub(crate) fn delete(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    if_revision: Option<u64>,
) -> Result<Decided<GroupId>, Refused> {
    let group = state.group_to_change(who, id, "delete_security_group")?;
    depend::revision_is(if_revision, state.group_revision(group))?;
    refuse_if_in_use(state, group)?;
    if group.default && !who.is_admin() {
        return Err(Refused::CannotRemoveDefault);
    }
    let mut transaction = depend::delete(Transaction::new(), state, group);
    let rules = records::rules_mark(id);
    transaction = depend::unmarked(transaction, state, rules.clone()).delete(rules);
    if let Some(tag) = group.wire_tag {
        transaction = wire_tags::release(transaction, now, tag);
    }
    if let Some(project) = state.projects.get(&group.project)
        && project.default_group == group.id
    {
        transaction = depend::unchanged(transaction, project).delete(project.key());
    }
    let (transaction, _) = sweep::take(transaction, state, now, &group.id);
    Ok(Decided {
        transaction,
        answer: group.id.clone(),
    })
}

fn refuse_if_in_use(state: &State, group: &Group) -> Result<(), Refused> {
    match state.index.ports_in_group.contains_key(&group.id) {
        true => Err(Refused::SecurityGroupInUse {
            group: group.id.to_string(),
        }),
        false => Ok(()),
    }
}

impl State {
    pub fn may_see_group(&self, who: &Caller, group: &Group) -> bool {
        who.owns(&group.project) || self.is_shared_with(who, &Shared::Group(group.id.clone()))
    }

    /// What isn't seen isn't there.
    pub fn group_for(&self, who: &Caller, id: &str) -> Result<&Stored<Group>, Refused> {
        let group = self.groups.get(id);
        group
            .filter(|group| self.may_see_group(who, group))
            .ok_or_else(|| Refused::SecurityGroupNotFound(id.to_owned()))
    }

    /// To use it one needs to see it only.
    pub(crate) fn group_to_change(
        &self,
        who: &Caller,
        id: &str,
        action: &str,
    ) -> Result<&Stored<Group>, Refused> {
        let group = self.group_for(who, id)?;
        who.must_write(action)?;
        match who.owns(&group.project) {
            true => Ok(group),
            false => Err(Refused::not_authorized(action)),
        }
    }
}

/// For a port in the group, or a rule that names it: the group, and that it may be used, can't go unnoticed.
pub(crate) fn rely(
    transaction: Transaction,
    state: &State,
    now: &Moment,
    who: &Caller,
    group: &Stored<Group>,
) -> Transaction {
    let shared = Shared::Group(group.id.clone());
    let transaction = depend::on(transaction, group, now);
    sharing::rely(transaction, state, who, &group.project, &shared)
}

fn checked_name(name: &str) -> Result<ArcStr, Refused> {
    if name.to_lowercase() == DEFAULT {
        return Err(Refused::DefaultAlreadyExists);
    }
    checked_text("name", name)
}

impl Control {
    /// All of them or none, in order. Their projects have default groups then.
    pub async fn create_groups(
        &self,
        who: &Caller,
        new: Vec<NewGroup>,
    ) -> Result<Vec<GroupId>, Failed> {
        who.must_write("create_security_group")?;
        for new in &new {
            let project = who.project_for(new.project.as_ref())?;
            self.default_group(who, &project).await?;
        }
        self.carry_out(|state, now| create(state, now, who, &new, &mut ids::new_id))
            .await
    }

    pub async fn update_group(
        &self,
        who: &Caller,
        id: &str,
        patch: GroupPatch,
        if_revision: Option<u64>,
    ) -> Result<(), Failed> {
        self.carry_out(|state, now| update(state, now, who, id, &patch, if_revision))
            .await
    }

    pub async fn delete_group(
        &self,
        who: &Caller,
        id: &str,
        if_revision: Option<u64>,
    ) -> Result<(), Failed> {
        let gone = self
            .carry_out(|state, now| delete(state, now, who, id, if_revision))
            .await?;
        if let Err(error) = self.sweep(&gone).await {
            warn!(group = %gone, %error, "rules of a deleted group are left, unseen, for the next start");
        }
        Ok(())
    }

    /// Makes it if the project has none.
    pub async fn default_group(
        &self,
        who: &Caller,
        project: &ProjectId,
    ) -> Result<GroupId, Failed> {
        self.carry_out(|state, now| default(state, now, who, project, &mut ids::new_id))
            .await
    }
}

#[cfg(test)]
mod tests;
