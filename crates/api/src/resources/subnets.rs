//! Subnets: where ports' addresses come from.

use super::{
    CREATED_AT, DESCRIPTION, ID, NAMED, PROJECT, REVISION, TAGS, TENANT, UPDATED_AT, not_in_table,
    said, text_or_null, texts, with_length,
};
use crate::attribute::{Attribute, NAME, Shape, TEXT_OR_NULL, shown};
use crate::body::Body;
use crate::fault::Fault;
use crate::kinds::{Change, Table};
use control::objects::Subnet;
use control::{AskedGateway, Control, NewSubnet, Stored, SubnetPatch};
use model::Family;
use serde_json::{Value, json};
use std::net::IpAddr;

pub(crate) static TABLE: Table = Table {
    path: "subnets",
    one: "subnet",
    many: "subnets",
    says: "Subnets: the addresses of a network",
    attributes: &[
        ID,
        NAMED,
        DESCRIPTION,
        PROJECT,
        TENANT,
        shown("network_id", Shape::Id, "").required(),
        shown("ip_version", Shape::Whole { least: 4, most: 6 }, "").required(),
        shown("cidr", NAME, "").required(),
        shown(
            "gateway_ip",
            TEXT_OR_NULL,
            "null: none; the first address by itself",
        )
        .given()
        .changed(),
        shown("enable_dhcp", Shape::Flag, "").given().changed(),
        shown("allocation_pools", Shape::List(&Shape::Record(POOL)), "")
            .given()
            .changed()
            .unfiltered(),
        shown("dns_nameservers", Shape::List(&NAME), "")
            .given()
            .changed(),
        shown("host_routes", Shape::List(&Shape::Record(ROUTE)), "")
            .given()
            .changed()
            .unfiltered(),
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

const POOL: &[Attribute] = &[
    shown("start", NAME, "").required(),
    shown("end", NAME, "Included").required(),
];
const ROUTE: &[Attribute] = &[
    shown("destination", NAME, "").required(),
    shown("nexthop", NAME, "").required(),
];

pub(crate) fn read(subnet: &Stored<Subnet>, name: &str) -> Value {
    match name {
        "id" => subnet.id.as_str().into(),
        "project_id" | "tenant_id" => subnet.project.as_str().into(),
        "network_id" => subnet.network.as_str().into(),
        "ip_version" => match subnet.prefix.family() {
            Family::V4 => 4.into(),
            Family::V6 => 6.into(),
        },
        "cidr" => with_length(&subnet.prefix).into(),
        "gateway_ip" => text_or_null(subnet.gateway),
        "enable_dhcp" => subnet.dhcp.into(),
        "allocation_pools" => {
            let pool = |(start, end): &(IpAddr, IpAddr)| json!({"start": start, "end": end});
            subnet.pools.iter().map(pool).collect()
        }
        "dns_nameservers" => texts(&subnet.dns_servers),
        "host_routes" => {
            let route = |(to, via): &(String, IpAddr)| json!({"destination": to, "nexthop": via});
            subnet.host_routes.iter().map(route).collect()
        }
        "revision_number" => subnet.modified.into(),
        _ => said(&subnet.said, name).unwrap_or_else(|| not_in_table(name)),
    }
}

pub(crate) async fn create(
    control: &Control,
    change: Change<'_>,
    bodies: Vec<Body>,
) -> Result<Vec<String>, Fault> {
    let new = bodies.iter().map(|body| {
        Ok(NewSubnet {
            project: body.project(),
            network: body.text_or_empty("network_id"),
            name: body.text_or_empty("name"),
            description: body.text_or_empty("description"),
            prefix: body.text_or_empty("cidr"),
            family: Some(version(body)?),
            gateway: gateway(body).unwrap_or_default(),
            dhcp: body.flag("enable_dhcp").unwrap_or(true),
            pools: twos(body, "allocation_pools", ["start", "end"]),
            dns_servers: body.texts("dns_nameservers").unwrap_or_default(),
            host_routes: routes(body).unwrap_or_default(),
        })
    });
    let new = new.collect::<Result<_, Fault>>()?;
    let ids = control.create_subnets(change.who, new).await?;
    Ok(ids.iter().map(ToString::to_string).collect())
}

pub(crate) async fn update(
    control: &Control,
    change: Change<'_>,
    id: &str,
    body: Body,
) -> Result<(), Fault> {
    let patch = SubnetPatch {
        name: body.text("name"),
        description: body.text("description"),
        gateway: gateway(&body),
        dhcp: body.flag("enable_dhcp"),
        pools: twos(&body, "allocation_pools", ["start", "end"]),
        dns_servers: body.texts("dns_nameservers"),
        host_routes: routes(&body),
    };
    let Change { who, if_revision } = change;
    Ok(control.update_subnet(who, id, patch, if_revision).await?)
}

fn version(body: &Body) -> Result<Family, Fault> {
    match body.whole("ip_version") {
        Some(4) => Ok(Family::V4),
        Some(6) => Ok(Family::V6),
        _ => Err(Fault::input("ip_version", "it is not in [4, 6]")),
    }
}

fn gateway(body: &Body) -> Option<AskedGateway> {
    body.has("gateway_ip")
        .then(|| match body.text("gateway_ip") {
            Some(address) => AskedGateway::Address(address),
            None => AskedGateway::None,
        })
}

fn routes(body: &Body) -> Option<Vec<(String, String)>> {
    twos(body, "host_routes", ["destination", "nexthop"])
}

fn twos(body: &Body, list: &str, fields: [&str; 2]) -> Option<Vec<(String, String)>> {
    let two = |two: &Body| (two.text_or_empty(fields[0]), two.text_or_empty(fields[1]));
    Some(body.records(list)?.iter().map(two).collect())
}
