//! Address groups.

use super::{
    CREATED_AT, DESCRIPTION, ID, NAMED, PROJECT, REVISION, TAGS, TENANT, UPDATED_AT, is_shared,
    not_in_table, said, texts, with_length,
};
use crate::attribute::{Attribute, NAME, Shape, shown};
use crate::body::{self, Body};
use crate::fault::Fault;
use crate::kinds::{Change, Table, View};
use control::objects::{Addresses, Shared};
use control::{AddressesPatch, Control, NewAddresses, Stored};
use serde_json::Value;

pub(crate) static TABLE: Table = Table {
    path: "address-groups",
    one: "address_group",
    many: "address_groups",
    says: "Address groups: prefixes that rules name together",
    attributes: &[
        ID,
        NAMED,
        DESCRIPTION,
        PROJECT,
        TENANT,
        ADDRESSES,
        shown(
            "shared",
            Shape::Flag,
            "With other projects, by an RBAC policy",
        ),
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

const ADDRESSES: Attribute = shown(
    "addresses",
    Shape::List(&NAME),
    "With their lengths: 10.0.0.0/24",
)
.given();

/// Adding and removing have an address of their own, and a body without a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Add,
    Remove,
}

impl Action {
    pub(crate) const ALL: [Action; 2] = [Action::Add, Action::Remove];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Action::Add => "add_addresses",
            Action::Remove => "remove_addresses",
        }
    }
}

pub(crate) fn read(addresses: &Stored<Addresses>, view: &View<'_>, name: &str) -> Value {
    match name {
        "id" => addresses.id.as_str().into(),
        "project_id" | "tenant_id" => addresses.project.as_str().into(),
        "addresses" => texts(addresses.prefixes.iter().map(with_length)),
        "shared" => is_shared(view, &Shared::Addresses(addresses.id.clone())).into(),
        "revision_number" => addresses.modified.into(),
        _ => said(&addresses.said, name).unwrap_or_else(|| not_in_table(name)),
    }
}

pub(crate) async fn create(
    control: &Control,
    change: Change<'_>,
    bodies: Vec<Body>,
) -> Result<Vec<String>, Fault> {
    let new = bodies.iter().map(|body| NewAddresses {
        project: body.project(),
        name: body.text_or_empty("name"),
        description: body.text_or_empty("description"),
        prefixes: body.texts("addresses").unwrap_or_default(),
    });
    let ids = control.create_addresses(change.who, new.collect()).await?;
    Ok(ids.iter().map(ToString::to_string).collect())
}

pub(crate) async fn update(
    control: &Control,
    change: Change<'_>,
    id: &str,
    body: Body,
) -> Result<(), Fault> {
    let patch = AddressesPatch {
        name: body.text("name"),
        description: body.text("description"),
    };
    let Change { who, if_revision } = change;
    Ok(control
        .update_addresses(who, id, patch, if_revision)
        .await?)
}

pub(crate) async fn act(
    control: &Control,
    change: Change<'_>,
    id: &str,
    (action, bytes): (Action, &[u8]),
) -> Result<(), Fault> {
    let addresses = body::bare(bytes, &ADDRESSES)?;
    match action {
        Action::Add => control.add_addresses(change.who, id, addresses).await?,
        Action::Remove => control.remove_addresses(change.who, id, addresses).await?,
    }
    Ok(())
}
