//! Ports: the network cards of VMs.

use super::{
    CREATED_AT, DESCRIPTION, ID, NAMED, PROJECT, REVISION, TAGS, TENANT, UPDATED_AT, not_in_table,
    said, texts,
};
use crate::PortStatus;
use crate::attribute::{Attribute, ID_OR_NULL, NAME, Shape, TEXT_OR_NULL, shown};
use crate::body::Body;
use crate::fault::Fault;
use crate::kinds::{Change, Table, View};
use control::objects::{Binding, Device, FixedAddress, Pair, Port};
use control::told::{Lack, Told};
use control::{AskedAddress, AskedBinding, AskedPair, Control, NewPort, PortPatch, Stored};
use model::Revision;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(crate) static TABLE: Table = Table {
    path: "ports",
    one: "port",
    many: "ports",
    says: "Ports: the network cards of VMs",
    attributes: &[
        ID,
        NAMED,
        DESCRIPTION,
        PROJECT,
        TENANT,
        shown("network_id", Shape::Id, "").required(),
        shown("admin_state_up", Shape::Flag, "").given().changed(),
        shown(
            "status",
            Shape::OneOf(&["ACTIVE", "DOWN", "ERROR"]),
            "ACTIVE: its policy is enforced",
        ),
        shown("mac_address", MAC, "").given().changed(),
        shown("fixed_ips", Shape::List(&Shape::Record(FIXED)), "")
            .given()
            .changed()
            .unfiltered(),
        shown("device_id", NAME, "").given().changed(),
        shown("device_owner", NAME, "").given().changed(),
        shown(
            "security_groups",
            Shape::OrNull(&Shape::List(&Shape::Id)),
            "The default group by itself",
        )
        .given()
        .changed(),
        shown(
            "allowed_address_pairs",
            Shape::OrNull(&Shape::List(&Shape::Record(PAIR))),
            "",
        )
        .given()
        .changed()
        .unfiltered(),
        shown("port_security_enabled", Shape::Flag, "")
            .given()
            .changed(),
        shown("binding:host_id", TEXT_OR_NULL, "null: on none")
            .given()
            .changed()
            .for_admins(),
        shown("binding:profile", PROFILE, PROFILE_SAYS)
            .given()
            .changed()
            .for_admins(),
        shown("binding:vnic_type", Shape::OneOf(VNIC_TYPES), "")
            .given()
            .changed(),
        shown("binding:vif_type", NAME, "").for_admins(),
        shown("binding:vif_details", Shape::Anything, "").for_admins(),
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

const MAC: Shape = Shape::OrNull(&Shape::Mac);
pub(super) const VNIC_TYPES: &[&str] = &[
    "normal",
    "direct",
    "macvtap",
    "baremetal",
    "direct-physical",
    "virtio-forwarder",
    "smart-nic",
    "vdpa",
    "remote-managed",
    "accelerator-direct",
    "accelerator-direct-physical",
];

const FIXED: &[Attribute] = &[
    shown("subnet_id", ID_OR_NULL, "").given(),
    shown("ip_address", TEXT_OR_NULL, "").given(),
];
const PAIR: &[Attribute] = &[
    shown("ip_address", NAME, "An address or a prefix").required(),
    shown("mac_address", TEXT_OR_NULL, "The port's own by itself").given(),
];
pub(super) const PROFILE: Shape = Shape::OrNull(&Shape::Anything);
const PROFILE_SAYS: &str = "`device`, `device_pattern` or `interface_id` says how the VM's device is found on its \
    host; by the port's MAC or id otherwise. `migrating_to` names the host that a live migration takes it to: the \
    port's policy is there from then on; `binding:host_id` says when it is there";

/// In a profile; as Nova says it.
const MIGRATING_TO: &str = "migrating_to";

pub(crate) fn read(port: &Stored<Port>, view: &View<'_>, name: &str) -> Value {
    match name {
        "id" => port.id.as_str().into(),
        "project_id" | "tenant_id" => port.project.as_str().into(),
        "network_id" => port.network.as_str().into(),
        "admin_state_up" => port.admin_up.into(),
        "status" => match status(view, port) {
            PortStatus::Down => "DOWN".into(),
            PortStatus::Active => "ACTIVE".into(),
            PortStatus::Error => "ERROR".into(),
        },
        "mac_address" => port.mac.to_string().into(),
        "fixed_ips" => port.fixed.iter().map(fixed).collect(),
        "device_id" => port.device_id.to_string().into(),
        "device_owner" => port.device_owner.as_str().into(),
        "security_groups" => texts(&port.groups),
        "allowed_address_pairs" => port.pairs.iter().map(pair).collect(),
        "port_security_enabled" => port.port_security.into(),
        _ => bound(port, name)
            .or_else(|| said_or_revision(port, name))
            .unwrap_or_else(|| not_in_table(name)),
    }
}

fn said_or_revision(port: &Stored<Port>, name: &str) -> Option<Value> {
    match name {
        "revision_number" => Some(port.modified.into()),
        _ => said(&port.said, name),
    }
}

fn fixed(fixed: FixedAddress) -> Value {
    json!({"subnet_id": fixed.subnet, "ip_address": fixed.address})
}

/// A whole address is shown without its length, as it was asked for.
fn pair(pair: &Pair) -> Value {
    let address = match pair.prefix.as_host() {
        Some(address) => address.to_string(),
        None => pair.prefix.to_string(),
    };
    json!({"ip_address": address, "mac_address": pair.mac.to_string()})
}

fn bound(port: &Port, name: &str) -> Option<Value> {
    let (binding, unbound) = (port.binding.as_deref(), port.unbound.as_deref());
    Some(match name {
        "binding:host_id" => binding.map_or("", |b| b.host.as_str()).into(),
        "binding:profile" => match (binding, unbound) {
            (Some(binding), _) => profile(binding),
            (None, Some(unbound)) => Value::Object(profile_of(&unbound.profile, None)),
            (None, None) => json!({}),
        },
        "binding:vnic_type" => {
            let bound = binding.map(|binding| &binding.vnic_type);
            let vnic_type = bound.or(unbound.map(|unbound| &unbound.vnic_type));
            vnic_type.map_or("normal", |vnic_type| vnic_type).into()
        }
        "binding:vif_type" => if binding.is_some() { "tap" } else { "unbound" }.into(),
        "binding:vif_details" => match binding {
            Some(_) => json!({"port_filter": true}),
            None => json!({}),
        },
        _ => return None,
    })
}

fn status(view: &View<'_>, port: &Stored<Port>) -> PortStatus {
    let Some(binding) = &port.binding else {
        return PortStatus::Down;
    };
    let written = Revision {
        epoch: view.state.revision.epoch,
        commit: port.modified,
    };
    let here = view.enforcement.port(&binding.host, &port.id, written);
    here.unwrap_or_else(|| match view.state.told_by(&binding.host) {
        Some(told) => told_of(told, port),
        None => PortStatus::Down,
    })
}

/// By its host, to whichever server. It stays so when the host is no longer heard of: what is enforced does as well.
fn told_of(told: &Told, port: &Stored<Port>) -> PortStatus {
    match told.not_enforced.get(&port.id).map(|not| not.lack) {
        Some(Lack::Refused) => PortStatus::Error,
        None if port.modified <= told.enforced => PortStatus::Active,
        None | Some(Lack::Absent | Lack::Pending) => PortStatus::Down,
    }
}

fn profile(binding: &Binding) -> Value {
    let mut profile = profile_of(&binding.profile, binding.device.as_ref());
    if let Some(to) = binding.destination() {
        profile.insert(MIGRATING_TO.into(), to.host.as_str().into());
    }
    Value::Object(profile)
}

/// Values that are no text are kept as JSON.
pub(super) fn profile_of(
    kept: &BTreeMap<String, String>,
    device: Option<&Device>,
) -> Map<String, Value> {
    let kept = kept.iter().map(|(name, value)| {
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.as_str().into());
        (name.clone(), value)
    });
    let mut profile: Map<String, Value> = kept.collect();
    let device = match device {
        Some(Device::Name(name)) => Some(("device", name)),
        Some(Device::Pattern(pattern)) => Some(("device_pattern", pattern)),
        Some(Device::InterfaceId(id)) => Some(("interface_id", id)),
        Some(Device::Mac) | None => None,
    };
    if let Some((name, value)) = device {
        profile.insert(name.into(), value.as_str().into());
    }
    profile
}

pub(crate) async fn create(
    control: &Control,
    change: Change<'_>,
    bodies: Vec<Body>,
) -> Result<Vec<String>, Fault> {
    let new = bodies.iter().map(|body| {
        Ok(NewPort {
            project: body.project(),
            network: body.text_or_empty("network_id"),
            name: body.text_or_empty("name"),
            description: body.text_or_empty("description"),
            mac: body.text("mac_address"),
            fixed: addresses(body),
            pairs: pairs(body).unwrap_or_default(),
            groups: body.texts("security_groups"),
            port_security: body.flag("port_security_enabled"),
            admin_up: body.flag("admin_state_up").unwrap_or(true),
            device_id: body.text_or_empty("device_id"),
            device_owner: body.text_or_empty("device_owner"),
            binding: binding(body)?,
        })
    });
    let new = new.collect::<Result<_, Fault>>()?;
    let ids = control.create_ports(change.who, new).await?;
    Ok(ids.iter().map(ToString::to_string).collect())
}

pub(crate) async fn update(
    control: &Control,
    change: Change<'_>,
    id: &str,
    body: Body,
) -> Result<(), Fault> {
    let patch = PortPatch {
        name: body.text("name"),
        description: body.text("description"),
        mac: body.text("mac_address"),
        fixed: addresses(&body),
        pairs: none_for_null(&body, "allowed_address_pairs", pairs(&body)),
        groups: none_for_null(&body, "security_groups", body.texts("security_groups")),
        port_security: body.flag("port_security_enabled"),
        admin_up: body.flag("admin_state_up"),
        device_id: body.text("device_id"),
        device_owner: body.text("device_owner"),
        binding: binding(&body)?,
    };
    let Change { who, if_revision } = change;
    Ok(control.update_port(who, id, patch, if_revision).await?)
}

/// In a change, null is the empty list; left out it is as before.
fn none_for_null<T>(body: &Body, name: &str, list: Option<Vec<T>>) -> Option<Vec<T>> {
    list.or_else(|| body.has(name).then(Vec::new))
}

fn addresses(body: &Body) -> Option<Vec<AskedAddress>> {
    let records = body.records("fixed_ips")?;
    let asked = records.iter().map(|fixed| AskedAddress {
        subnet: fixed.text("subnet_id"),
        address: fixed.text("ip_address"),
    });
    Some(asked.collect())
}

fn pairs(body: &Body) -> Option<Vec<AskedPair>> {
    let records = body.records("allowed_address_pairs")?;
    let asked = records.iter().map(|pair| AskedPair {
        address: pair.text_or_empty("ip_address"),
        mac: pair.text("mac_address"),
    });
    Some(asked.collect())
}

fn binding(body: &Body) -> Result<AskedBinding, Fault> {
    let profile = asked_profile(body, "binding:profile")?;
    let (device, kept, moving_to) = match profile {
        Some(AskedProfile {
            device,
            kept,
            moving_to,
        }) => (Some(device), Some(kept), Some(moving_to)),
        None => (None, None, None),
    };
    Ok(AskedBinding {
        // Nova says null of a port that it lets go of.
        host: body
            .has("binding:host_id")
            .then(|| body.text_or_empty("binding:host_id")),
        device,
        profile: kept,
        vnic_type: body
            .one_of("binding:vnic_type", VNIC_TYPES)
            .map(str::to_owned),
        moving_to,
    })
}

/// Given whole: without a device it is found as usual, and who leaves out where it moves to ends the move.
pub(super) struct AskedProfile {
    pub(super) device: Device,
    pub(super) kept: BTreeMap<String, String>,
    pub(super) moving_to: String,
}

pub(super) fn asked_profile(body: &Body, named: &str) -> Result<Option<AskedProfile>, Fault> {
    if !body.has(named) {
        return Ok(None);
    }
    let mut profile = AskedProfile {
        device: Device::Mac,
        kept: BTreeMap::new(),
        moving_to: String::new(),
    };
    let asked = body.raw(named).and_then(Value::as_object);
    for (name, value) in asked.into_iter().flatten() {
        if name == MIGRATING_TO {
            profile.moving_to = in_profile(name, value)?;
            continue;
        }
        match how_found(name, value)? {
            Some(found) => profile.device = found,
            None => drop(profile.kept.insert(name.clone(), value.to_string())),
        }
    }
    Ok(Some(profile))
}

fn how_found(name: &str, value: &Value) -> Result<Option<Device>, Fault> {
    let device: fn(String) -> Device = match name {
        "device" => Device::Name,
        "device_pattern" => Device::Pattern,
        "interface_id" => Device::InterfaceId,
        _ => return Ok(None),
    };
    Ok(Some(device(in_profile(name, value)?)))
}

fn in_profile(name: &str, value: &Value) -> Result<String, Fault> {
    let text = value.as_str().map(str::to_owned);
    text.ok_or_else(|| Fault::input("binding:profile", format!("{name} is no text")))
}
