//! Security groups.

use super::{
    CREATED_AT, DESCRIPTION, ID, NAMED, PROJECT, REVISION, TAGS, TENANT, UPDATED_AT, is_shared,
    not_in_table, rules, said,
};
use crate::attribute::{Shape, shown};
use crate::body::Body;
use crate::fault::Fault;
use crate::kinds::{Change, Item, Table, View};
use crate::times;
use control::objects::{Group, Shared};
use control::{Control, GroupPatch, NewGroup, Stored};
use serde_json::Value;

pub(crate) static TABLE: Table = Table {
    path: "security-groups",
    one: "security_group",
    many: "security_groups",
    says: "Security groups: rules, and the ports that they are for",
    attributes: &[
        ID,
        NAMED,
        DESCRIPTION,
        PROJECT,
        TENANT,
        shown(
            "stateful",
            Shape::Flag,
            "Replies to what a rule permits are permitted",
        )
        .given()
        .changed(),
        shown(
            "shared",
            Shape::Flag,
            "With other projects, by an RBAC policy",
        ),
        shown("security_group_rules", RULES, "").unfiltered(),
        TAGS,
        CREATED_AT,
        UPDATED_AT,
        REVISION,
    ],
    create: true,
    update: true,
    delete: true,
    tags: true,
};

const RULES: Shape = Shape::List(&Shape::Record(rules::ATTRIBUTES));

pub(crate) fn read(group: &Stored<Group>, view: &View<'_>, name: &str) -> Value {
    match name {
        "id" => group.id.as_str().into(),
        "project_id" | "tenant_id" => group.project.as_str().into(),
        "stateful" => group.stateful.into(),
        "shared" => is_shared(view, &Shared::Group(group.id.clone())).into(),
        "security_group_rules" => {
            let rules = view.state.rules_of(&group.id).map(Item::Rule);
            rules.map(|rule| view.shown(rule, |_| true)).collect()
        }
        // A change of a rule is one of its group.
        "updated_at" => times::written(view.state.group_updated_at(group)).into(),
        "revision_number" => view.state.group_revision(group).into(),
        _ => said(&group.said, name).unwrap_or_else(|| not_in_table(name)),
    }
}

pub(crate) async fn create(
    control: &Control,
    change: Change<'_>,
    bodies: Vec<Body>,
) -> Result<Vec<String>, Fault> {
    let new = bodies.iter().map(|body| NewGroup {
        project: body.project(),
        name: body.text_or_empty("name"),
        description: body.text_or_empty("description"),
        stateful: body.flag("stateful").unwrap_or(true),
    });
    let ids = control.create_groups(change.who, new.collect()).await?;
    Ok(ids.iter().map(ToString::to_string).collect())
}

pub(crate) async fn update(
    control: &Control,
    change: Change<'_>,
    id: &str,
    body: Body,
) -> Result<(), Fault> {
    let patch = GroupPatch {
        name: body.text("name"),
        description: body.text("description"),
        stateful: body.flag("stateful"),
    };
    let Change { who, if_revision } = change;
    Ok(control.update_group(who, id, patch, if_revision).await?)
}
