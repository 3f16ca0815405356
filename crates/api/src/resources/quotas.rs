//! Quotas: the most that a project may have.

use crate::attribute::{Attribute, Shape, shown};
use crate::body::{Body, Expected};
use crate::fault::Fault;
use crate::kinds::Change;
use control::objects::Resource;
use control::{Check, Control, State};
use model::ProjectId;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(crate) const EXPECTED: Expected = Expected {
    one: "quota",
    many: "quotas",
    attributes: CHANGE,
};

/// What is shown of a project.
pub(crate) const LIMITS: &[Attribute] = CHANGE.split_at(2).1;

const CHANGE: &[Attribute] = &[
    shown(FORCE, Shape::Flag, "Also below what is used").changed(),
    shown("check_limit", Shape::Flag, "It is the default").changed(),
    limit("security_group"),
    limit("security_group_rule"),
    limit("address_group"),
    limit("network"),
    limit("subnet"),
    limit("port"),
    limit("rbac_policy"),
];

const FORCE: &str = "force";

const fn limit(name: &'static str) -> Attribute {
    let most = i32::MAX as i64;
    shown(name, Shape::Whole { least: -1, most }, "-1: no limit").changed()
}

pub(crate) fn shown_limits(limits: BTreeMap<Resource, i64>) -> Map<String, Value> {
    let limits = limits.into_iter();
    limits
        .map(|(resource, limit)| (resource.name().to_owned(), limit.into()))
        .collect()
}

/// Of all projects that have one of their own.
pub(crate) fn all(state: &State) -> Vec<Value> {
    let quotas = state.quotas().map(|(project, _)| {
        let mut quota = shown_limits(state.limits(&ProjectId::from(project)));
        quota.insert("project_id".into(), project.into());
        quota.insert("tenant_id".into(), project.into());
        Value::Object(quota)
    });
    quotas.collect()
}

pub(crate) fn details(state: &State, project: &ProjectId) -> Value {
    let used = state.used(project);
    let details = state.limits(project).into_iter().map(|(resource, limit)| {
        let used = used.get(&resource).copied().unwrap_or_default();
        let detail = json!({"limit": limit, "used": used, "reserved": 0});
        (resource.name().to_owned(), detail)
    });
    Value::Object(details.collect())
}

pub(crate) async fn update(
    control: &Control,
    change: Change<'_>,
    project: &str,
    body: Body,
) -> Result<(), Fault> {
    let check = match body.flag(FORCE) {
        Some(true) => Check::Forced,
        Some(false) | None => Check::Usage,
    };
    let given = Resource::ALL.into_iter();
    let given = given.filter_map(|resource| Some((resource, body.whole(resource.name())?)));
    Ok(control
        .set_quota(change.who, project, given.collect(), check)
        .await?)
}
