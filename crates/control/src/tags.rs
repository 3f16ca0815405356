//! Tags: words that people hang on objects, to find them by.
//!
//! Place on the line: request -> **use case** -> store commit.
//! Knows nothing of: what else may be changed of an object.

use crate::caller::Caller;
use crate::checks::checked_text;
use crate::control::{Control, Decided};
use crate::depend;
use crate::ids::Moment;
use crate::objects::{Addresses, Described, Group, GroupRule, Network, Port, Subnet};
use crate::quotas::Counted;
use crate::records::Kept;
use crate::refused::{Failed, Refused};
use crate::state::{State, Stored};
use arcstr::ArcStr;
use model::FrozenSet;
use store::Transaction;

/// What has tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tagged<'a> {
    Group(&'a str),
    Rule(&'a str),
    Addresses(&'a str),
    Network(&'a str),
    Subnet(&'a str),
    Port(&'a str),
}

/// What is done to them.
pub(crate) enum Retag<'a> {
    Set(&'a [String]),
    Add(&'a str),
    Remove(&'a str),
    Clear,
}

const MOST_TAGS: usize = 50;

pub(crate) fn retag(
    state: &State,
    now: &Moment,
    who: &Caller,
    object: Tagged<'_>,
    retag: &Retag<'_>,
) -> Result<Decided<()>, Refused> {
    let transaction = match object {
        Tagged::Group(id) => {
            let group = state.group_to_change(who, id, "update_security_groups_tags")?;
            write(now, group, retag)
        }
        Tagged::Rule(id) => {
            let rule = state.rule_to_change(who, id, "update_security_group_rules_tags")?;
            write(now, rule.1, retag)
        }
        Tagged::Addresses(id) => {
            let addresses = state.addresses.get(id);
            let addresses = owned(who, addresses, || {
                Refused::AddressGroupNotFound(id.to_owned())
            });
            write(now, addresses?, retag)
        }
        Tagged::Network(id) => {
            let network = state.networks.get(id);
            let network = owned(who, network, || Refused::NetworkNotFound(id.to_owned()));
            write(now, network?, retag)
        }
        Tagged::Subnet(id) => {
            let subnet = state.subnets.get(id);
            let subnet = owned(who, subnet, || Refused::SubnetNotFound(id.to_owned()));
            write(now, subnet?, retag)
        }
        Tagged::Port(id) => {
            let port = state.ports.get(id);
            let port = owned(who, port, || Refused::PortNotFound(id.to_owned()));
            write(now, port?, retag)
        }
    };
    Ok(Decided {
        transaction: transaction?,
        answer: (),
    })
}

fn owned<'a, T: Counted>(
    who: &Caller,
    object: Option<&'a Stored<T>>,
    missing: impl FnOnce() -> Refused,
) -> Result<&'a Stored<T>, Refused> {
    let object = object.filter(|object| who.owns(object.project()));
    let object = object.ok_or_else(missing)?;
    who.must_write("update_tags")?;
    Ok(object)
}

fn write<T: Said>(
    now: &Moment,
    stored: &Stored<T>,
    retag: &Retag<'_>,
) -> Result<Transaction, Refused> {
    let mut object = T::clone(stored);
    let said = object.said_mut();
    said.tags = retagged(&said.tags, retag)?;
    said.updated_at = now.at;
    Ok(depend::unchanged(Transaction::new(), stored).put(object.key(), object.value()))
}

fn retagged(tags: &FrozenSet<ArcStr>, retag: &Retag<'_>) -> Result<FrozenSet<ArcStr>, Refused> {
    let mut tags = match retag {
        Retag::Set(_) | Retag::Clear => FrozenSet::new(),
        Retag::Add(_) | Retag::Remove(_) => tags.clone(),
    };
    match retag {
        Retag::Set(new) => {
            for tag in *new {
                if !tags.insert(checked(tag)?) {
                    let why = format!("Duplicate items in the list: '{tag}'");
                    return Err(Refused::input("tags", why));
                }
            }
        }
        Retag::Add(tag) => {
            tags.insert(checked(tag)?);
        }
        Retag::Remove(tag) => {
            if !tags.remove(*tag) {
                let tag = (*tag).to_owned();
                return Err(Refused::TagNotFound { tag });
            }
        }
        Retag::Clear => {}
    }
    if tags.len() > MOST_TAGS {
        let why = format!("The number of tags exceed the per-resource limit of {MOST_TAGS}");
        return Err(Refused::input("tags", why));
    }
    Ok(tags)
}

fn checked(tag: &str) -> Result<ArcStr, Refused> {
    match tag.is_empty() {
        true => Err(Refused::input("tags", "a tag is not empty")),
        false => checked_text("tags", tag),
    }
}

/// An object that people see.
pub(crate) trait Said: Kept + Clone {
    fn said(&self) -> &Described;
    fn said_mut(&mut self) -> &mut Described;
}

macro_rules! said {
    ($($object:ident)+) => {$(
        impl Said for $object {
            fn said(&self) -> &Described { &self.said }
            fn said_mut(&mut self) -> &mut Described { &mut self.said }
        }
    )+};
}
said! { Group GroupRule Addresses Network Subnet Port }

/// But for when it was changed last.
pub(crate) fn is_as_before<T: Said + PartialEq>(seen: &T, object: &T) -> bool {
    let mut same = object.clone();
    same.said_mut().updated_at = seen.said().updated_at;
    same == *seen
}

impl Control {
    pub async fn set_tags(
        &self,
        who: &Caller,
        object: Tagged<'_>,
        tags: &[String],
    ) -> Result<(), Failed> {
        self.retag(who, object, Retag::Set(tags)).await
    }

    /// One that is there already is fine.
    pub async fn add_tag(&self, who: &Caller, object: Tagged<'_>, tag: &str) -> Result<(), Failed> {
        self.retag(who, object, Retag::Add(tag)).await
    }

    pub async fn remove_tag(
        &self,
        who: &Caller,
        object: Tagged<'_>,
        tag: &str,
    ) -> Result<(), Failed> {
        self.retag(who, object, Retag::Remove(tag)).await
    }

    pub async fn clear_tags(&self, who: &Caller, object: Tagged<'_>) -> Result<(), Failed> {
        self.retag(who, object, Retag::Clear).await
    }

    async fn retag(&self, who: &Caller, object: Tagged<'_>, how: Retag<'_>) -> Result<(), Failed> {
        self.carry_out(|state, now| retag(state, now, who, object, &how))
            .await
    }
}

#[cfg(test)]
mod tests;
