//! Rules of security groups.

use super::{
    CREATED_AT, DESCRIPTION, ID, PROJECT, REVISION, TAGS, TENANT, UPDATED_AT, not_in_table, said,
    text_or_null, with_length,
};
use crate::attribute::{Attribute, ID_OR_NULL, Shape, TEXT_OR_NULL, shown};
use crate::body::Body;
use crate::fault::Fault;
use crate::kinds::{Change, Table, View};
use control::objects::{AskedPeer, Asks, GroupRule};
use control::{AskedNumber, Control, NewRule, State, Stored};
use model::{Direction, Family, GroupId};
use serde_json::Value;
use std::collections::BTreeSet;

pub(crate) static TABLE: Table = Table {
    path: "security-group-rules",
    one: "security_group_rule",
    many: "security_group_rules",
    says: "Rules: what the ports of a group may send and receive",
    attributes: ATTRIBUTES,
    create: true,
    update: true,
    delete: true,
    tags: true,
};

pub(super) const ATTRIBUTES: &[Attribute] = &[
    ID,
    PROJECT,
    TENANT,
    shown("security_group_id", Shape::Id, "").required(),
    DIRECTION.required(),
    ETHERTYPE.given(),
    PROTOCOL.given(),
    RANGE_MIN.given(),
    RANGE_MAX.given(),
    REMOTE_PREFIX.given(),
    shown(
        "normalized_cidr",
        TEXT_OR_NULL,
        "remote_ip_prefix without host bits",
    ),
    REMOTE_GROUP.given(),
    REMOTE_ADDRESSES.given(),
    DESCRIPTION,
    shown(
        "belongs_to_default_sg",
        Shape::Flag,
        "Its group is a project's default group",
    ),
    TAGS,
    CREATED_AT,
    UPDATED_AT,
    REVISION,
];

// What the rules of the template have, too.
pub(super) const DIRECTION: Attribute = shown(
    "direction",
    Shape::OneOf(DIRECTIONS),
    "ingress: towards the VM",
);
pub(super) const ETHERTYPE: Attribute = shown("ethertype", Shape::OneOf(ETHERTYPES), "");
pub(super) const PROTOCOL: Attribute =
    shown("protocol", PROTOCOLS, "A name, or 0 to 255; null: any");
pub(super) const RANGE_MIN: Attribute = shown("port_range_min", NUMBER, "For ICMP: the type");
pub(super) const RANGE_MAX: Attribute = shown("port_range_max", NUMBER, "For ICMP: the code");
pub(super) const REMOTE_PREFIX: Attribute = shown("remote_ip_prefix", TEXT_OR_NULL, "");
pub(super) const REMOTE_GROUP: Attribute = shown("remote_group_id", ID_OR_NULL, "");
pub(super) const REMOTE_ADDRESSES: Attribute = shown("remote_address_group_id", ID_OR_NULL, "");

const DIRECTIONS: &[&str] = &["ingress", "egress"];
const ETHERTYPES: &[&str] = &["IPv4", "IPv6"];
const NUMBER: Shape = Shape::OrNull(&Shape::NumberOrText);
const PROTOCOLS: Shape = Shape::OrNull(&Shape::Protocol);

pub(crate) fn read(rule: &Stored<GroupRule>, view: &View<'_>, name: &str) -> Value {
    match name {
        "id" => rule.id.as_str().into(),
        "project_id" | "tenant_id" => rule.project.as_str().into(),
        "security_group_id" => rule.group.as_str().into(),
        "normalized_cidr" => match &rule.asks.peer {
            AskedPeer::Prefix { prefix, .. } => with_length(prefix).into(),
            AskedPeer::Anyone | AskedPeer::Group(_) | AskedPeer::Addresses(_) => Value::Null,
        },
        "belongs_to_default_sg" => {
            let group = view.state.groups.get(&rule.group);
            group.is_some_and(|group| group.default).into()
        }
        "revision_number" => rule.modified.into(),
        _ => asked(&rule.asks, name)
            .or_else(|| said(&rule.said, name))
            .unwrap_or_else(|| not_in_table(name)),
    }
}

pub(super) fn asked(asks: &Asks, name: &str) -> Option<Value> {
    Some(match name {
        "direction" => asks.direction.to_string().into(),
        "ethertype" => asks.family.to_string().into(),
        "protocol" => text_or_null(asks.protocol.as_ref()),
        "port_range_min" => asks.range_min.into(),
        "port_range_max" => asks.range_max.into(),
        "remote_ip_prefix" => match &asks.peer {
            AskedPeer::Prefix { written, .. } => written.as_str().into(),
            AskedPeer::Anyone | AskedPeer::Group(_) | AskedPeer::Addresses(_) => Value::Null,
        },
        "remote_group_id" => match &asks.peer {
            AskedPeer::Group(id) => id.as_str().into(),
            AskedPeer::Anyone | AskedPeer::Prefix { .. } | AskedPeer::Addresses(_) => Value::Null,
        },
        "remote_address_group_id" => match &asks.peer {
            AskedPeer::Addresses(id) => id.as_str().into(),
            AskedPeer::Anyone | AskedPeer::Prefix { .. } | AskedPeer::Group(_) => Value::Null,
        },
        _ => return None,
    })
}

/// Of these groups, or of all; by id.
pub(crate) fn all<'a>(state: &'a State, groups: Option<&[String]>) -> Vec<&'a Stored<GroupRule>> {
    let mut rules: Vec<_> = match groups {
        Some(groups) => {
            let groups: BTreeSet<&String> = groups.iter().collect();
            let groups = groups
                .into_iter()
                .map(|group| GroupId::from(group.as_str()));
            groups
                .flat_map(|group| Vec::from_iter(state.rules_of(&group)))
                .collect()
        }
        None => state
            .groups
            .keys()
            .flat_map(|group| state.rules_of(group))
            .collect(),
    };
    rules.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    rules
}

pub(crate) async fn create(
    control: &Control,
    change: Change<'_>,
    bodies: Vec<Body>,
) -> Result<Vec<String>, Fault> {
    let new = bodies.iter().map(|body| NewRule {
        project: body.project(),
        group: body.text_or_empty("security_group_id"),
        description: body.text_or_empty("description"),
        direction: direction(body),
        family: family(body),
        protocol: body.written("protocol"),
        range_min: number(body, "port_range_min"),
        range_max: number(body, "port_range_max"),
        remote_prefix: remote_prefix(body),
        remote_group: body.text("remote_group_id"),
        remote_addresses: body.text("remote_address_group_id"),
    });
    let ids = control.create_rules(change.who, new.collect()).await?;
    Ok(ids.iter().map(ToString::to_string).collect())
}

pub(crate) async fn update(
    control: &Control,
    change: Change<'_>,
    id: &str,
    body: Body,
) -> Result<(), Fault> {
    let Change { who, if_revision } = change;
    let Some(description) = body.text("description") else {
        return Ok(());
    };
    Ok(control
        .update_rule(who, id, &description, if_revision)
        .await?)
}

/// It is required.
pub(super) fn direction(body: &Body) -> Direction {
    match body.one_of("direction", DIRECTIONS) {
        Some("egress") => Direction::Egress,
        _ => Direction::Ingress,
    }
}

pub(super) fn family(body: &Body) -> Option<Family> {
    body.one_of("ethertype", ETHERTYPES).map(|name| match name {
        "IPv6" => Family::V6,
        _ => Family::V4,
    })
}

/// Empty text is none.
pub(super) fn remote_prefix(body: &Body) -> Option<String> {
    let prefix = body.text("remote_ip_prefix");
    prefix.filter(|prefix| !prefix.is_empty())
}

pub(super) fn number(body: &Body, name: &str) -> Option<AskedNumber> {
    Some(match body.raw(name)?.as_i64() {
        Some(number) => AskedNumber::Number(number),
        None => AskedNumber::Text(body.written(name)?),
    })
}
