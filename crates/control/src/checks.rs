//! What texts of requests mean, and what a patch says of what every object has.
//!
//! Knows nothing of: any one kind of object.

use crate::ids::Moment;
use crate::objects::Described;
use crate::refused::Refused;
use arcstr::ArcStr;
use model::FrozenSet;
use model::{MacAddr, ProjectId};
use std::net::IpAddr;

/// In characters.
const MOST_TEXT: usize = 255;

pub(crate) fn checked_text(field: &'static str, text: &str) -> Result<ArcStr, Refused> {
    match text.chars().count() {
        0..=MOST_TEXT => Ok(text.into()),
        _ => {
            let why = format!("'{text}' exceeds maximum length of {MOST_TEXT}");
            Err(Refused::input(field, why))
        }
    }
}

pub(crate) fn described(
    now: &Moment,
    name: ArcStr,
    description: &str,
) -> Result<Described, Refused> {
    Ok(Described {
        name,
        description: checked_text("description", description)?,
        tags: FrozenSet::new(),
        created_at: now.at,
        updated_at: now.at,
    })
}

/// For what only some may say: `create_port` and `binding:host_id`.
pub(crate) fn allow(allowed: bool, action: &str, attribute: &str) -> Result<(), Refused> {
    match allowed {
        true => Ok(()),
        false => Err(Refused::not_authorized(&format!("{action}:{attribute}"))),
    }
}

/// Who sees an object may not always change it.
pub(crate) fn owned(who: &crate::Caller, project: &ProjectId, action: &str) -> Result<(), Refused> {
    who.must_write(action)?;
    match who.owns(project) {
        true => Ok(()),
        false => Err(Refused::not_authorized(action)),
    }
}

pub(crate) fn describe(
    said: &mut Described,
    name: &Option<String>,
    description: &Option<String>,
    now: &Moment,
) -> Result<(), Refused> {
    if let Some(name) = name {
        said.name = checked_text("name", name)?;
    }
    if let Some(description) = description {
        said.description = checked_text("description", description)?;
    }
    said.updated_at = now.at;
    Ok(())
}

/// IPv4 inside IPv6 would be a second spelling of an address.
pub(crate) fn address(field: &'static str, text: &str) -> Result<IpAddr, Refused> {
    let address = text.parse().ok();
    let plain = address.filter(|address| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_none(),
    });
    plain.ok_or_else(|| Refused::input(field, format!("'{text}' is not a valid IP address")))
}

/// Of one device.
pub(crate) fn mac(field: &'static str, text: &str) -> Result<MacAddr, Refused> {
    let mac = text.parse::<MacAddr>().ok();
    let usable = mac.filter(|mac| !mac.is_group() && *mac != MacAddr::ZERO);
    usable.ok_or_else(|| Refused::input(field, format!("'{text}' is not a valid MAC address")))
}
