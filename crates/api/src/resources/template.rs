//! The rules that new groups begin with.

use super::{CREATED_AT, DESCRIPTION, ID, REVISION, UPDATED_AT, not_in_table, rules, said};
use crate::attribute::{Shape, shown};
use crate::body::Body;
use crate::fault::Fault;
use crate::kinds::{Change, Table};
use control::objects::TemplateRule;
use control::{Control, NewTemplateRule, PARENT, Stored};
use serde_json::Value;

pub(crate) static TABLE: Table = Table {
    path: "default-security-group-rules",
    one: "default_security_group_rule",
    many: "default_security_group_rules",
    says: "The template for new security groups; changed by admins",
    attributes: &[
        ID,
        rules::DIRECTION.required(),
        rules::ETHERTYPE.given(),
        rules::PROTOCOL.given(),
        rules::RANGE_MIN.given(),
        rules::RANGE_MAX.given(),
        rules::REMOTE_PREFIX.given(),
        rules::REMOTE_GROUP.given(),
        rules::REMOTE_ADDRESSES.given(),
        DESCRIPTION,
        shown(
            "used_in_default_sg",
            Shape::Flag,
            "New default groups get it",
        )
        .given(),
        shown(
            "used_in_non_default_sg",
            Shape::Flag,
            "Other new groups get it",
        )
        .given(),
        CREATED_AT,
        UPDATED_AT,
        REVISION,
    ],
    create: true,
    update: false,
    delete: true,
    tags: false,
};

pub(crate) fn read(rule: &Stored<TemplateRule>, name: &str) -> Value {
    match name {
        "id" => rule.id.as_str().into(),
        "remote_group_id" if rule.remote_is_own_group => PARENT.into(),
        "used_in_default_sg" => rule.in_default_groups.into(),
        "used_in_non_default_sg" => rule.in_other_groups.into(),
        "revision_number" => rule.modified.into(),
        _ => rules::asked(&rule.asks, name)
            .or_else(|| said(&rule.said, name))
            .unwrap_or_else(|| not_in_table(name)),
    }
}

pub(crate) async fn create(
    control: &Control,
    change: Change<'_>,
    bodies: Vec<Body>,
) -> Result<Vec<String>, Fault> {
    let new = bodies.iter().map(|body| NewTemplateRule {
        description: body.text_or_empty("description"),
        direction: rules::direction(body),
        family: rules::family(body),
        protocol: body.written("protocol"),
        range_min: rules::number(body, "port_range_min"),
        range_max: rules::number(body, "port_range_max"),
        remote_prefix: rules::remote_prefix(body),
        remote_group: body.text("remote_group_id"),
        remote_addresses: body.text("remote_address_group_id"),
        in_default_groups: body.flag("used_in_default_sg").unwrap_or(false),
        in_other_groups: body.flag("used_in_non_default_sg").unwrap_or(true),
    });
    let ids = control
        .create_template_rules(change.who, new.collect())
        .await?;
    Ok(ids.iter().map(ToString::to_string).collect())
}
