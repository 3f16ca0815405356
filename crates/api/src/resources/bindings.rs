//! A port's bindings, one for each host.

use super::not_in_table;
use super::ports::{PROFILE, VNIC_TYPES, asked_profile, profile_of};
use crate::attribute::{NAME, Shape, shown};
use crate::body::{Body, Expected};
use crate::fault::Fault;
use control::{AskedOnHost, OnHost};
use serde_json::{Map, Value, json};

pub(crate) static EXPECTED: Expected = Expected {
    one: "binding",
    many: "bindings",
    attributes: &[
        shown("host", NAME, "").required(),
        shown(
            "status",
            Shape::OneOf(&["ACTIVE", "INACTIVE"]),
            "INACTIVE: the port is on its way to that host, and its policy is there",
        ),
        shown("profile", PROFILE, "As `binding:profile` of the port")
            .given()
            .changed(),
        shown("vnic_type", Shape::OneOf(VNIC_TYPES), "")
            .given()
            .changed(),
        shown("vif_type", NAME, ""),
        shown("vif_details", Shape::Anything, ""),
    ],
};

pub(crate) fn shown_as(on: OnHost<'_>, shows: impl Fn(&str) -> bool) -> Value {
    let attributes = EXPECTED.attributes.iter().filter(|a| shows(a.name));
    let read = attributes.map(|a| (a.name.to_owned(), read(on, a.name)));
    Value::Object(Map::from_iter(read))
}

pub(crate) fn read(on: OnHost<'_>, name: &str) -> Value {
    match name {
        "host" => on.host().into(),
        "status" => match on {
            OnHost::Active(_) => "ACTIVE".into(),
            OnHost::Inactive { .. } => "INACTIVE".into(),
        },
        "profile" => Value::Object(match on {
            OnHost::Active(binding) => profile_of(&binding.profile, binding.device.as_ref()),
            OnHost::Inactive { to, from } => {
                let profile = to.profile.as_ref().unwrap_or(&from.profile);
                profile_of(profile, to.device.as_ref())
            }
        }),
        "vnic_type" => match on {
            OnHost::Active(binding) | OnHost::Inactive { from: binding, .. } => {
                binding.vnic_type.as_str().into()
            }
        },
        "vif_type" => "tap".into(),
        "vif_details" => json!({"port_filter": true}),
        _ => not_in_table(name),
    }
}

/// `migrating_to` in a profile says no more than the binding itself.
pub(crate) fn asked(body: &Body) -> Result<AskedOnHost, Fault> {
    let profile = asked_profile(body, "profile")?;
    let (device, profile) = match profile {
        Some(profile) => (Some(profile.device), Some(profile.kept)),
        None => (None, None),
    };
    Ok(AskedOnHost {
        device,
        profile,
        vnic_type: body.one_of("vnic_type", VNIC_TYPES).map(str::to_owned),
    })
}
