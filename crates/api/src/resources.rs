//! One module for each kind of object: its table, how an attribute is read, how bodies become use cases.
//!
//! Knows nothing of: requests and answers; what is refused.

pub(crate) mod addresses;
pub(crate) mod bindings;
pub(crate) mod groups;
pub(crate) mod hosts;
pub(crate) mod networks;
pub(crate) mod ports;
pub(crate) mod quotas;
pub(crate) mod rules;
pub(crate) mod shares;
pub(crate) mod subnets;
pub(crate) mod tags;
pub(crate) mod template;

use crate::attribute::{Attribute, NAME, Shape, shown};
use crate::kinds::View;
use crate::times;
use control::objects::{Described, Shared};
use model::Prefix;
use serde_json::Value;

// What many tables have.
const ID: Attribute = shown("id", Shape::Id, "");
const NAMED: Attribute = shown("name", NAME, "").given().changed();
const DESCRIPTION: Attribute = shown("description", NAME, "").given().changed();
const PROJECT: Attribute = shown("project_id", NAME, "Whose it is").given();
const TENANT: Attribute = shown("tenant_id", NAME, "The same as project_id").given();
const TAGS: Attribute = shown("tags", Shape::List(&NAME), "Set by the sub-resource `tags`");
const CREATED_AT: Attribute = shown("created_at", Shape::Time, "");
const UPDATED_AT: Attribute = shown("updated_at", Shape::Time, "");
const REVISION: Attribute = shown(
    "revision_number",
    Shape::Whole {
        least: 0,
        most: i64::MAX,
    },
    "Grows with each change; for If-Match",
);

/// What is described alike in all kinds of objects.
fn said(said: &Described, name: &str) -> Option<Value> {
    Some(match name {
        "name" => said.name.as_str().into(),
        "description" => said.description.as_str().into(),
        "tags" => texts(&said.tags),
        "created_at" => times::written(said.created_at).into(),
        "updated_at" => times::written(said.updated_at).into(),
        _ => return None,
    })
}

fn texts<T: ToString>(texts: impl IntoIterator<Item = T>) -> Value {
    let texts = texts
        .into_iter()
        .map(|text| Value::String(text.to_string()));
    Value::Array(texts.collect())
}

fn text_or_null<T: ToString>(text: Option<T>) -> Value {
    text.map_or(Value::Null, |text| text.to_string().into())
}

/// Also where it holds one address only.
fn with_length(prefix: &Prefix) -> String {
    format!("{}/{}", prefix.network(), prefix.length())
}

/// With all, or with the caller's project.
fn is_shared(view: &View<'_>, object: &Shared) -> bool {
    let mut shares = view.state.shares_of(object);
    let own = view.who.project.as_str();
    shares.any(|share| share.target.as_deref().is_none_or(|target| target == own))
}

/// A table and what reads it disagree: a test has tried all.
fn not_in_table(name: &str) -> Value {
    unreachable!("{name} is in no table")
}
