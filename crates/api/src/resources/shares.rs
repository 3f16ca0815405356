//! RBAC policies: which other projects see and use an object.

use super::{ID, PROJECT, TENANT, not_in_table};
use crate::attribute::{NAME, Shape, shown};
use crate::body::Body;
use crate::fault::Fault;
use crate::kinds::{Change, Table};
use control::objects::{Share, Shared};
use control::{Control, NewShare, Stored};
use serde_json::Value;

pub(crate) static TABLE: Table = Table {
    path: "rbac-policies",
    one: "rbac_policy",
    many: "rbac_policies",
    says: "RBAC policies: groups, address groups and networks that are shared",
    attributes: &[
        ID,
        PROJECT,
        TENANT,
        shown("object_type", Shape::OneOf(TYPES), "").required(),
        shown("object_id", Shape::Id, "").required(),
        shown("action", Shape::OneOf(&["access_as_shared"]), "").required(),
        shown("target_tenant", NAME, "A project, or * for all")
            .required()
            .changed(),
    ],
    create: true,
    update: true,
    delete: true,
    tags: false,
};

const TYPES: &[&str] = &["security_group", "address_group", "network"];
const ALL: &str = "*";

pub(crate) fn read(share: &Stored<Share>, name: &str) -> Value {
    let (kind, id) = match &share.object.object {
        Shared::Group(id) => ("security_group", id.as_str()),
        Shared::Addresses(id) => ("address_group", id.as_str()),
        Shared::Network(id) => ("network", id.as_str()),
    };
    match name {
        "id" => share.id.as_str().into(),
        "project_id" | "tenant_id" => share.project.as_str().into(),
        "object_type" => kind.into(),
        "object_id" => id.into(),
        "action" => "access_as_shared".into(),
        "target_tenant" => share.target.as_deref().unwrap_or(ALL).into(),
        _ => not_in_table(name),
    }
}

pub(crate) async fn create(
    control: &Control,
    change: Change<'_>,
    bodies: Vec<Body>,
) -> Result<Vec<String>, Fault> {
    let [body] = bodies.as_slice() else {
        return Err(Fault::bad(
            "Bulk creation of rbac_policies is not supported",
        ));
    };
    let id = body.text_or_empty("object_id");
    let new = NewShare {
        object: match body.one_of("object_type", TYPES) {
            Some("address_group") => Shared::Addresses(id.as_str().into()),
            Some("network") => Shared::Network(id.as_str().into()),
            _ => Shared::Group(id.as_str().into()),
        },
        target: target(body),
        project: body.project(),
    };
    Ok(vec![control.create_share(change.who, new).await?])
}

pub(crate) async fn update(
    control: &Control,
    change: Change<'_>,
    id: &str,
    body: Body,
) -> Result<(), Fault> {
    if !body.has("target_tenant") {
        return Ok(());
    }
    Ok(control.update_share(change.who, id, target(&body)).await?)
}

/// `None`: all projects.
fn target(body: &Body) -> Option<String> {
    body.text("target_tenant").filter(|target| target != ALL)
}
