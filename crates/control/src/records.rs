//! Where each kind of object is in the store, and how its bytes are read.
//!
//! ```text
//! group/G  rule/G/R  template/R  addresses/A  network/N  subnet/S  port/P  host/H     objects
//! project/J  quota/J  share/S
//! told/H  server/RUN                  what hosts have told, and the servers that are there (told.rs)
//! moved/P/PART, flows/P/PART          flows of a port that is being migrated (moves.rs)
//! held/NETWORK/ADDRESS, held/NETWORK/MAC -> the port that has it                        never twice
//! held/tag/NUMBER -> group           (wire_tags.rs)
//! held/rule/G/CONTENT -> rule         (rules.rs)
//! held/share/KIND/ID/TARGET -> share
//! mark/rules/G                        whoever adds or removes a rule of the group, or changes one
//! mark/subnets/N                      whoever makes the network, or adds a subnet to it
//! mark/count/RESOURCE/J               whoever creates one in the project
//! mark/template/all                   whoever changes the template
//! mark/tags/all                       whoever gives a group its number
//! mark/network/N                      whoever takes an address or a MAC in it, too
//! mark/KIND/ID     written by whoever comes to depend on an object; who deletes it asks that nobody has since
//! ```
//! Knows nothing of: what a use case decides.

use crate::objects::{
    Addresses, Departure, Group, GroupRule, Host, Network, Port, Project, Quota, Resource, Share,
    Subnet, TemplateRule,
};
use crate::taken::Name;
use crate::told::{Running, Told};
use model::ProjectId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use store::record::Encoding;
use store::{Key, Record, Value};

/// An object with a record of its own.
pub trait Kept: Serialize + DeserializeOwned {
    const KIND: &'static str;
    const ENCODING: Encoding;

    /// What is behind `KIND/` in its key.
    fn path(&self) -> String;

    /// Whether its fields go together. What doesn't is as unreadable as what has no such fields.
    fn is_sound(&self) -> bool {
        true
    }

    fn key(&self) -> Key {
        key(Self::KIND, &self.path())
    }

    fn value(&self) -> Value {
        let json = serde_json::to_vec(self).expect("maps have keys of text");
        Self::ENCODING.encode(&json).into()
    }
}

macro_rules! kept {
    ($($of:ident $kind:literal |$object:ident| $path:expr $(, if $sound:expr)?;)+) => {$(
        impl Kept for $of {
            const KIND: &'static str = $kind;
            const ENCODING: Encoding = Encoding::new($kind, &[]);

            fn path(&self) -> String {
                let $object = self;
                $path.to_string()
            }

            $(fn is_sound(&self) -> bool {
                let $object = self;
                $sound
            })?
        }
    )+};
}
kept! {
    Group "group" |group| group.id;
    GroupRule "rule" |rule| format!("{}/{}", rule.group, rule.id), if rule.asks.is_sound();
    TemplateRule "template" |rule| rule.id, if rule.asks.is_sound();
    Addresses "addresses" |addresses| addresses.id;
    Network "network" |network| network.id;
    Subnet "subnet" |subnet| subnet.id;
    Port "port" |port| port.id;
    Host "host" |host| host.id;
    Project "project" |project| project.id;
    Share "share" |share| share.id;
    Told "told" |told| told.host;
    Running "server" |server| server.run;
    Departure "moved" |departure| format!("{}/{}", departure.port, departure.part);
}

/// A project's quota says not whose it is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct QuotaOf {
    pub(crate) project: String,
    pub(crate) quota: Quota,
}
kept! { QuotaOf "quota" |quota| quota.project; }

/// Ids are ours or were checked (see [`crate::ids`]), so there is a key for each.
pub(crate) fn key(kind: &str, path: &str) -> Key {
    Key::new(&format!("{kind}/{path}")).expect("ids are short, and have no slash")
}

/// Written by whoever comes to depend on the object.
pub(crate) fn mark(kind: &str, id: &str) -> Key {
    key("mark", &format!("{kind}/{id}"))
}

/// Written with each change of a group's rules: the group's revision number shows it, and who wants to delete the
/// group learns of it.
pub(crate) fn rules_mark(group: &str) -> Key {
    mark("rules", group)
}

/// Written with each creation near the limit.
pub(crate) fn count_mark(resource: Resource, project: &ProjectId) -> Key {
    mark("count", &format!("{}/{project}", resource.name()))
}

/// Written with the network, and with each new subnet of it: two that are made at once might overlap.
pub(crate) fn subnets_mark(network: &str) -> Key {
    mark("subnets", network)
}

pub(crate) fn template_mark() -> Key {
    mark("template", "all")
}

/// Written with each number that a group gets.
pub(crate) fn tags_mark() -> Key {
    mark("tags", "all")
}

/// What is written with each name that is taken beside this one: in the network, in the group, of the numbers.
pub(crate) fn taken_mark(held: &Key) -> Option<Key> {
    let path = held.as_str().strip_prefix("held/")?;
    if let Some((network, _)) = of_port(held) {
        return Some(mark(Network::KIND, network));
    }
    match path.split_once('/')? {
        ("tag", _) => Some(tags_mark()),
        ("rule", rule) => Some(rules_mark(rule.split_once('/')?.0)),
        _ => None,
    }
}

/// The network, and the address or MAC in it.
pub(crate) fn of_port(held: &Key) -> Option<(&str, Name)> {
    let path = held.as_str().strip_prefix("held/")?;
    let (network, name) = path.split_once('/')?;
    Some((network, Name::read(name)?))
}

/// `what`: an address or a MAC in a network, or `tag` and a number.
pub(crate) fn held(whose: &str, what: &str) -> Key {
    key("held", &format!("{whose}/{what}"))
}

#[derive(Debug, thiserror::Error)]
#[error("the record {key} can't be read: {what}")]
pub(crate) struct Unreadable {
    pub(crate) key: Key,
    pub(crate) what: String,
}

pub(crate) fn read<T: Kept>(record: &Record) -> Result<T, Unreadable> {
    let unreadable = |what: String| Unreadable {
        key: record.key.clone(),
        what,
    };
    let json = T::ENCODING.decode(&record.value);
    let json = json.map_err(|e| unreadable(e.to_string()))?;
    let object: T = serde_json::from_slice(&json).map_err(|e| unreadable(e.to_string()))?;
    if record.key.as_str() != format!("{}/{}", T::KIND, object.path()) {
        return Err(unreadable("it says that it is another one".to_owned()));
    }
    match object.is_sound() {
        true => Ok(object),
        false => Err(unreadable("its fields don't go together".to_owned())),
    }
}

#[cfg(test)]
mod tests;
