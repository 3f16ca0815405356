//! Networks: as much of them as ports need.

use super::{
    CREATED_AT, DESCRIPTION, ID, NAMED, PROJECT, REVISION, TAGS, TENANT, UPDATED_AT, is_shared,
    not_in_table, said, text_or_null, texts,
};
use crate::attribute::{Shape, TEXT_OR_NULL, shown};
use crate::body::Body;
use crate::fault::Fault;
use crate::kinds::{Change, Table, View};
use control::objects::{Network, Segment, Shared};
use control::{Control, NetworkPatch, NewNetwork, Stored};
use serde_json::Value;

pub(crate) static TABLE: Table = Table {
    path: "networks",
    one: "network",
    many: "networks",
    says: "Networks: where ports are",
    attributes: &[
        ID,
        NAMED,
        DESCRIPTION,
        PROJECT,
        TENANT,
        shown("admin_state_up", Shape::Flag, "").given().changed(),
        shown("status", Shape::OneOf(&["ACTIVE"]), ""),
        shown("shared", Shape::Flag, "All projects may have ports in it")
            .given()
            .changed(),
        shown("router:external", Shape::Flag, "There are no routers"),
        shown("subnets", Shape::List(&Shape::Id), ""),
        shown("mtu", MTU, "").given().changed(),
        shown(
            "port_security_enabled",
            Shape::Flag,
            "What ports get that don't say",
        )
        .given()
        .changed(),
        shown("provider:network_type", TEXT_OR_NULL, "")
            .given()
            .for_admins(),
        shown("provider:physical_network", TEXT_OR_NULL, "")
            .given()
            .for_admins(),
        shown("provider:segmentation_id", SEGMENT, "")
            .given()
            .for_admins(),
        shown(
            "portcullis:address_scope",
            TEXT_OR_NULL,
            "Where addresses are unique; the project by itself",
        )
        .given()
        .for_admins(),
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

const MTU: Shape = Shape::OrNull(&Shape::Whole {
    least: 68,
    most: 65_535,
});
const SEGMENT: Shape = Shape::OrNull(&Shape::Whole {
    least: 0,
    most: 0xFF_FFFF,
});

pub(crate) fn read(network: &Stored<Network>, view: &View<'_>, name: &str) -> Value {
    let segment = network.segment.as_ref();
    match name {
        "id" => network.id.as_str().into(),
        "project_id" | "tenant_id" => network.project.as_str().into(),
        "admin_state_up" => network.admin_up.into(),
        "status" => "ACTIVE".into(),
        "shared" => {
            (network.shared || is_shared(view, &Shared::Network(network.id.clone()))).into()
        }
        "router:external" => false.into(),
        "subnets" => texts(view.state.subnets_in(&network.id).map(|subnet| &subnet.id)),
        "mtu" => network.mtu.into(),
        "port_security_enabled" => network.port_security.into(),
        "provider:network_type" => text_or_null(segment.map(|s| &s.kind)),
        "provider:physical_network" => {
            text_or_null(segment.and_then(|s| s.physical_network.as_ref()))
        }
        "provider:segmentation_id" => segment.and_then(|s| s.number).into(),
        "portcullis:address_scope" => network.scope.as_str().into(),
        "revision_number" => network.modified.into(),
        _ => said(&network.said, name).unwrap_or_else(|| not_in_table(name)),
    }
}

pub(crate) async fn create(
    control: &Control,
    change: Change<'_>,
    bodies: Vec<Body>,
) -> Result<Vec<String>, Fault> {
    let new = bodies.iter().map(|body| {
        Ok(NewNetwork {
            project: body.project(),
            name: body.text_or_empty("name"),
            description: body.text_or_empty("description"),
            admin_up: body.flag("admin_state_up").unwrap_or(true),
            shared: body.flag("shared").unwrap_or(false),
            port_security: body.flag("port_security_enabled").unwrap_or(true),
            scope: body.text("portcullis:address_scope"),
            mtu: body.whole("mtu").and_then(|mtu| mtu.try_into().ok()),
            segment: segment(body)?,
        })
    });
    let new = new.collect::<Result<_, Fault>>()?;
    let ids = control.create_networks(change.who, new).await?;
    Ok(ids.iter().map(ToString::to_string).collect())
}

fn segment(body: &Body) -> Result<Option<Segment>, Fault> {
    let physical_network = body.text("provider:physical_network");
    let number = body.whole("provider:segmentation_id");
    let number = number.and_then(|number| number.try_into().ok());
    match body.text("provider:network_type") {
        Some(kind) => Ok(Some(Segment {
            kind,
            physical_network,
            number,
        })),
        None if physical_network.is_some() || number.is_some() => Err(Fault::bad(
            "Invalid input for operation: network_type required.",
        )),
        None => Ok(None),
    }
}

pub(crate) async fn update(
    control: &Control,
    change: Change<'_>,
    id: &str,
    body: Body,
) -> Result<(), Fault> {
    let patch = NetworkPatch {
        name: body.text("name"),
        description: body.text("description"),
        admin_up: body.flag("admin_state_up"),
        shared: body.flag("shared"),
        port_security: body.flag("port_security_enabled"),
        mtu: body.whole("mtu").and_then(|mtu| mtu.try_into().ok()),
    };
    let Change { who, if_revision } = change;
    Ok(control.update_network(who, id, patch, if_revision).await?)
}
