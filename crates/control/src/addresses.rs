//! Address groups: named sets of prefixes that rules can name as their remote.
//!
//! Place on the line: request -> **use case** -> store commit.
//! Knows nothing of: the rules themselves.

use crate::caller::Caller;
use crate::checks;
use crate::checks::{checked_text, described};
use crate::control::{Control, Decided};
use crate::depend;
use crate::draft::Draft;
use crate::ids::{Moment, new_id};
use crate::objects::{Addresses, Shared};
use crate::refused::{Failed, Refused};
use crate::state::{State, Stored};
use model::{AddressGroupId, Prefix, PrefixError, ProjectId};
use std::collections::BTreeSet;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewAddresses {
    pub project: Option<ProjectId>,
    pub name: String,
    pub description: String,
    /// Each with its length.
    pub prefixes: Vec<String>,
}

/// `None`: as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressesPatch {
    pub name: Option<String>,
    pub description: Option<String>,
}

impl Control {
    pub async fn create_addresses(
        &self,
        who: &Caller,
        asked: Vec<NewAddresses>,
    ) -> Result<Vec<AddressGroupId>, Failed> {
        let named = |new| (AddressGroupId::new(new_id()), new);
        let new = Vec::from_iter(asked.into_iter().map(named));
        self.carry_out(|state, now| create(state, now, who, &new))
            .await?;
        Ok(new.into_iter().map(|(id, _)| id).collect())
    }

    pub async fn update_addresses(
        &self,
        who: &Caller,
        id: &str,
        patch: AddressesPatch,
        if_revision: Option<u64>,
    ) -> Result<(), Failed> {
        self.carry_out(|state, now| update(state, now, who, id, &patch, if_revision))
            .await
    }

    pub async fn add_addresses(
        &self,
        who: &Caller,
        id: &str,
        prefixes: Vec<String>,
    ) -> Result<(), Failed> {
        self.carry_out(|state, now| add(state, now, who, id, &prefixes))
            .await
    }

    pub async fn remove_addresses(
        &self,
        who: &Caller,
        id: &str,
        prefixes: Vec<String>,
    ) -> Result<(), Failed> {
        self.carry_out(|state, now| remove(state, now, who, id, &prefixes))
            .await
    }

    pub async fn delete_addresses(
        &self,
        who: &Caller,
        id: &str,
        if_revision: Option<u64>,
    ) -> Result<(), Failed> {
        self.carry_out(|state, now| delete(state, now, who, id, if_revision))
            .await
    }
}

impl State {
    pub fn may_see_addresses(&self, who: &Caller, addresses: &Addresses) -> bool {
        who.owns(&addresses.project)
            || self.is_shared_with(who, &Shared::Addresses(addresses.id.clone()))
    }

    /// A foreign one isn't there.
    pub(crate) fn seen_addresses(
        &self,
        who: &Caller,
        id: &str,
    ) -> Result<&Stored<Addresses>, Refused> {
        let addresses = self.addresses.get(id);
        let seen = addresses.filter(|addresses| self.may_see_addresses(who, addresses));
        seen.ok_or_else(|| Refused::AddressGroupNotFound(id.to_owned()))
    }

    /// To change it.
    fn own_addresses(
        &self,
        who: &Caller,
        id: &str,
        action: &'static str,
    ) -> Result<&Stored<Addresses>, Refused> {
        let addresses = self.seen_addresses(who, id)?;
        checks::owned(who, &addresses.project, action).map(|()| addresses)
    }
}

pub(crate) fn create(
    state: &State,
    now: &Moment,
    who: &Caller,
    new: &[(AddressGroupId, NewAddresses)],
) -> Result<Decided<()>, Refused> {
    who.must_write("create_address_group")?;
    depend::bulk("address_groups", new)?;
    let mut draft = Draft::new(state, now);
    for (id, new) in new {
        draft.create(&Addresses {
            id: id.clone(),
            project: who.project_for(new.project.as_ref())?,
            said: described(now, checked_text("name", &new.name)?, &new.description)?,
            prefixes: bounded(prefixes(&new.prefixes)?)?,
        });
    }
    draft.decided(())
}

pub(crate) fn update(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    patch: &AddressesPatch,
    if_revision: Option<u64>,
) -> Result<Decided<()>, Refused> {
    let seen = state.own_addresses(who, id, "update_address_group")?;
    depend::revision_is(if_revision, seen.modified)?;
    let mut draft = Draft::new(state, now);
    let mut addresses = Addresses::clone(seen);
    checks::describe(&mut addresses.said, &patch.name, &patch.description, now)?;
    draft.update(seen, &addresses);
    draft.decided(())
}

pub(crate) fn add(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    asked: &[String],
) -> Result<Decided<()>, Refused> {
    let seen = state.own_addresses(who, id, "add_addresses")?;
    let asked = prefixes(asked)?;
    let there = Vec::from_iter(asked.intersection(&seen.prefixes));
    if !there.is_empty() {
        return Err(Refused::AddressesAlreadyExist(listed(&there)));
    }
    with(state, now, seen, &seen.prefixes | &asked)
}

pub(crate) fn remove(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    asked: &[String],
) -> Result<Decided<()>, Refused> {
    let seen = state.own_addresses(who, id, "remove_addresses")?;
    let asked = prefixes(asked)?;
    let missing = Vec::from_iter(asked.difference(&seen.prefixes));
    if !missing.is_empty() {
        return Err(Refused::AddressesNotFound(listed(&missing)));
    }
    with(state, now, seen, &seen.prefixes - &asked)
}

fn with(
    state: &State,
    now: &Moment,
    seen: &Stored<Addresses>,
    prefixes: BTreeSet<Prefix>,
) -> Result<Decided<()>, Refused> {
    let mut draft = Draft::new(state, now);
    let mut addresses = Addresses::clone(seen);
    addresses.prefixes = bounded(prefixes)?;
    addresses.said.updated_at = now.at;
    draft.update(seen, &addresses);
    draft.decided(())
}

pub(crate) fn delete(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    if_revision: Option<u64>,
) -> Result<Decided<()>, Refused> {
    let seen = state.own_addresses(who, id, "delete_address_group")?;
    depend::revision_is(if_revision, seen.modified)?;
    if state.index.rules_naming_addresses.contains_key(&seen.id) {
        return Err(Refused::AddressGroupInUse(id.to_owned()));
    }
    let mut draft = Draft::new(state, now);
    draft.delete(seen);
    draft.delete_shares(&Shared::Addresses(seen.id.clone()));
    draft.decided(())
}

/// What fits into a record.
const MOST_PREFIXES: usize = 2_000;

fn bounded(prefixes: BTreeSet<Prefix>) -> Result<BTreeSet<Prefix>, Refused> {
    match prefixes.len() {
        ..=MOST_PREFIXES => Ok(prefixes),
        more => Err(Refused::TooMany(format!(
            "{more} addresses in a group, at most {MOST_PREFIXES} are possible"
        ))),
    }
}

fn prefixes(asked: &[String]) -> Result<BTreeSet<Prefix>, Refused> {
    asked.iter().map(|text| prefix(text)).collect()
}

/// Its length has to be written; host bits are cleared.
fn prefix(text: &str) -> Result<Prefix, Refused> {
    let bad = |why: &str| Refused::input("addresses", format!("'{text}' {why}"));
    if !text.contains('/') {
        return Err(bad("is not a valid CIDR: it has no mask"));
    }
    let prefix = match text.parse() {
        Ok(prefix) | Err(PrefixError::HostBits { meant: prefix }) => prefix,
        Err(PrefixError::Syntax | PrefixError::TooLong { .. }) => {
            return Err(bad("is not a valid CIDR"));
        }
    };
    checks::address("addresses", &prefix.network().to_string()).map(|_| prefix)
}

fn listed(prefixes: &[&Prefix]) -> String {
    let shown = prefixes.iter().map(|prefix| match prefix.as_host() {
        Some(address) => format!("{address}/{}", prefix.length()),
        None => prefix.to_string(),
    });
    Vec::from_iter(shown).join(", ")
}

#[cfg(test)]
mod tests;
