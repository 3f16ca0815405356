//! What a policy file says is made so: all of a policy at once, rather than object by object.
//!
//! Place on the line: request -> **use case -> store commit**.
//!
//! ```text
//! inventory --plan--> what differs --fits--> one commit
//!                          `------ doesn't --> narrow, narrow, ... widen, widen, ...
//! ```
//! Invariants: objects of a label have the tag `portcullis:LABEL`, and only those are changed or removed. Between the
//! commits of one declaration, nothing passes that neither the old nor the new policy lets pass: first what the new
//! one doesn't have goes, and nothing comes before that is all gone. Each commit is planned on what is there then, so
//! whoever declares the same again goes on where somebody stopped. Of two that meet, the one that began last goes on.
//! Knows nothing of: YAML, and where in a file something stands.

mod batch;
mod kinds;
mod moves;
mod plan;
mod records;
mod steps;
mod turn;

use crate::caller::Caller;
use crate::control::Control;
use crate::refused::{Failed, Refused};
use crate::{ids, sweep};
use model::{GroupId, Inventory, ProjectId, Revision};
use plan::Plan;
use turn::Turn;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its revision and its groups' tags don't matter.
    pub inventory: Inventory,
    /// Whose all of it is.
    pub project: ProjectId,
    pub label: String,
    /// What has the label and isn't declared goes. Without it, only what is part of something that is declared does:
    /// rules of its groups, subnets of its networks.
    pub prune: bool,
    /// Nothing is changed, only told.
    pub dry_run: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    pub outcomes: Vec<Outcome>,
    /// What is there since.
    pub revision: Revision,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome {
    pub kind: Kind,
    pub id: String,
    pub what: What,
}

/// In the order in which they name each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Host,
    AddressGroup,
    Network,
    Subnet,
    Group,
    Rule,
    Port,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Created,
    Updated,
    Unchanged,
    Removed,
    /// A rule that isn't kept, as this one of the group says the same.
    Repeats(String),
}

const MOST_LABEL: usize = 63;
/// A declaration whose changes others undo all the time ends.
const MOST_COMMITS: usize = 1_000_000;

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Host => "host",
            Kind::AddressGroup => "address-group",
            Kind::Network => "network",
            Kind::Subnet => "subnet",
            Kind::Group => "group",
            Kind::Rule => "rule",
            Kind::Port => "port",
        }
    }
}

impl Control {
    /// For admins; quotas bound tenants, and are no matter here.
    pub async fn declare(&self, who: &Caller, declared: Declared) -> Result<Declaration, Failed> {
        check(who, &declared)?;
        if declared.dry_run {
            return self.foreseen(&declared);
        }
        self.sweep_before(&declared).await?;
        let mut outcomes = None;
        let mut turn = Turn::new(&declared.label);
        for _ in 0..MOST_COMMITS {
            let step = self
                .carry_out(|state, now| {
                    let mut plan = Plan::of(state, now, &declared)?;
                    plan.turn = turn.of(state)?;
                    steps::next(&plan)
                })
                .await?;
            turn.begun = true;
            let outcomes = outcomes.get_or_insert(step.outcomes);
            if step.last {
                return Ok(Declaration {
                    outcomes: std::mem::take(outcomes),
                    revision: self.state().revision,
                });
            }
        }
        Err(Failed::Busy)
    }

    fn foreseen(&self, declared: &Declared) -> Result<Declaration, Failed> {
        let state = self.state();
        let now = ids::Moment::now();
        Ok(Declaration {
            outcomes: Plan::of(&state, &now, declared)?.outcomes,
            revision: state.revision,
        })
    }

    /// What a group of the same name has left, when it was deleted, isn't to be seen again.
    async fn sweep_before(&self, declared: &Declared) -> Result<(), Failed> {
        let gone = sweep::gone(&self.state());
        let again = |group: &&GroupId| declared.inventory.groups.contains_key(*group);
        for group in gone.iter().filter(again) {
            self.sweep(group).await?;
        }
        Ok(())
    }
}

fn check(who: &Caller, declared: &Declared) -> Result<(), Refused> {
    if !who.is_admin() {
        return Err(Refused::not_authorized("declare"));
    }
    let label = &declared.label;
    if label.len() > MOST_LABEL || !ids::is_id(label) {
        let why = format!(
            "'{label}' is none: it has 1 to {MOST_LABEL} letters, digits, '-', '_' and '.'"
        );
        return Err(Refused::input("label", why));
    }
    match ids::is_id(declared.project.as_str()) {
        true => Ok(()),
        false => Err(Refused::bad_project(declared.project.as_str())),
    }
}

fn tag_of(label: &str) -> String {
    format!("{TAG}{label}")
}

const TAG: &str = "portcullis:";

#[cfg(test)]
mod tests;
