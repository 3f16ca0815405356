//! On which host a port is, and on which it is about to be: admins say.
//!
//! ```text
//!              moving_to: H                       host: H
//! on a host ----------------> on its way to H ----------------> on H, from there
//!     ^                              |
//!     +------------------------------+  another host, or no moving_to any more
//! ```
//! Knows nothing of: whether there is such a host, or a device.

use crate::caller::Caller;
use crate::checks;
use crate::checks::checked_text;
use crate::hosts;
use crate::ids::Moment;
use crate::objects::{Binding, Destination, Device, Move, Port, Unbound};
use crate::refused::Refused;
use arcstr::ArcStr;
use model::HostId;
use std::collections::BTreeMap;

/// `None`: as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedBinding {
    /// Empty: none.
    pub host: Option<String>,
    pub device: Option<Device>,
    /// With what isn't said of the device there.
    pub profile: Option<BTreeMap<String, String>>,
    pub vnic_type: Option<String>,
    /// The host that its VM is being migrated to, live. Empty, or where it is: none.
    pub moving_to: Option<String>,
}

/// What is known before.
#[derive(Clone, Copy, Default)]
pub(super) struct Before<'a> {
    binding: Option<&'a Binding>,
    unbound: Option<&'a Unbound>,
}

impl<'a> Before<'a> {
    pub(super) fn of(port: &'a Port) -> Self {
        Self {
            binding: port.binding.as_deref(),
            unbound: port.unbound.as_deref(),
        }
    }

    fn profile(&self) -> BTreeMap<String, String> {
        let bound = self.binding.map(|binding| &binding.profile);
        let profile = bound.or(self.unbound.map(|unbound| &unbound.profile));
        profile.cloned().unwrap_or_default()
    }

    fn vnic_type(&self) -> ArcStr {
        let bound = self.binding.map(|binding| &binding.vnic_type);
        let vnic_type = bound.or(self.unbound.map(|unbound| &unbound.vnic_type));
        vnic_type.map_or(USUAL_VNIC, ArcStr::clone)
    }
}

pub(crate) const USUAL_VNIC: ArcStr = arcstr::literal!("normal");
/// As the kernel's, with room for a pattern.
const MOST_DEVICE_NAME: usize = 15;
const MOST_PROFILE: usize = 32;

impl AskedBinding {
    /// `action`: `create_port`.
    pub(super) fn of(
        &self,
        known: Before<'_>,
        who: &Caller,
        action: &str,
        now: &Moment,
    ) -> Result<Option<Binding>, Refused> {
        self.allowed(who, action)?;
        let before = known.binding;
        let host = match (self.host.as_deref(), before) {
            (Some(""), _) => return Ok(None),
            (Some(host), _) => hosts::host_id(host)?,
            (None, Some(before)) => before.host.clone(),
            (None, None) => return self.without_host(),
        };
        let moves = before.is_none_or(|before| before.host != host);
        let moving = self.moving(before, &host, now)?;
        let arrived = before.and_then(Binding::destination);
        let arrived = arrived.filter(|to| to.host == host).cloned();
        let device = match &self.device {
            Some(device) => Some(checked(device)?.clone()),
            // One host's device says nothing about another's.
            None if moves => arrived.as_ref().and_then(|to| to.device.clone()),
            None => before.and_then(|before| before.device.clone()),
        };
        let profile = match &self.profile {
            Some(profile) => checked_profile(profile)?.clone(),
            None => arrived
                .and_then(|to| to.profile)
                .unwrap_or_else(|| known.profile()),
        };
        Ok(Some(Binding {
            host,
            device,
            profile,
            vnic_type: self.vnic_type(known)?,
            moving,
        }))
    }

    /// `None` if there is a binding, or nothing unusual to say.
    pub(super) fn unbound(
        &self,
        known: Before<'_>,
        binding: Option<&Binding>,
    ) -> Result<Option<Box<Unbound>>, Refused> {
        if binding.is_some() {
            return Ok(None);
        }
        let unbound = Unbound {
            profile: match &self.profile {
                Some(profile) => checked_profile(profile)?.clone(),
                None => known.profile(),
            },
            vnic_type: self.vnic_type(known)?,
        };
        let usual = unbound.profile.is_empty() && unbound.vnic_type == USUAL_VNIC;
        Ok((!usual).then(|| Box::new(unbound)))
    }

    fn vnic_type(&self, known: Before<'_>) -> Result<ArcStr, Refused> {
        match &self.vnic_type {
            Some(vnic_type) => checked_text("binding:vnic_type", vnic_type),
            None => Ok(known.vnic_type()),
        }
    }

    fn moving(
        &self,
        before: Option<&Binding>,
        host: &HostId,
        now: &Moment,
    ) -> Result<Option<Box<Move>>, Refused> {
        let kept = before.and_then(|before| moved(before, host, now));
        let known = kept.as_deref();
        match self.moving_to.as_deref() {
            None => Ok(kept),
            Some(to) if to.is_empty() || to == host.as_str() => match known {
                Some(Move::From { .. }) => Ok(kept),
                Some(Move::To(_)) | None => Ok(None),
            },
            Some(to) => match known {
                Some(Move::To(known)) if known.host.as_str() == to => Ok(kept),
                Some(_) | None => {
                    let device = before.and_then(|before| before.device.as_ref());
                    let device = self.device.as_ref().or(device);
                    let to = destination(hosts::host_id(to)?, device, now);
                    Ok(Some(Box::new(Move::To(to))))
                }
            },
        }
    }

    fn allowed(&self, who: &Caller, action: &str) -> Result<(), Refused> {
        let allow =
            |asked: bool, attribute| checks::allow(!asked || who.is_admin(), action, attribute);
        allow(self.host.is_some(), "binding:host_id")?;
        allow(
            self.profile.is_some() || self.device.is_some() || self.moving_to.is_some(),
            "binding:profile",
        )
    }

    fn without_host(&self) -> Result<Option<Binding>, Refused> {
        let device = self.device.as_ref();
        let device = device.is_some_and(|device| *device != Device::Mac);
        let moving = self.moving_to.as_ref().is_some_and(|to| !to.is_empty());
        match device || moving {
            true => Err(Refused::input(
                "binding:profile",
                "the port has no binding:host_id",
            )),
            false => Ok(None),
        }
    }
}

/// What becomes of a move when the port is on this host.
pub(crate) fn moved(before: &Binding, host: &HostId, now: &Moment) -> Option<Box<Move>> {
    if before.host == *host {
        return before.moving.clone();
    }
    let to = before.destination().filter(|to| to.host == *host)?;
    Some(Box::new(Move::From {
        host: before.host.clone(),
        at: now.at,
        since: to.since,
    }))
}

/// Of a move that begins. `device`: where it is so far.
pub(super) fn destination(host: HostId, device: Option<&Device>, now: &Moment) -> Destination {
    Destination {
        host,
        device: device.filter(|device| is_anywhere(device)).cloned(),
        profile: None,
        since: now.at,
    }
}

/// A switch's id for a port's interface is the same on every host; names of devices aren't.
fn is_anywhere(device: &Device) -> bool {
    match device {
        Device::InterfaceId(_) => true,
        Device::Name(_) | Device::Mac | Device::Pattern(_) => false,
    }
}

pub(super) fn checked(device: &Device) -> Result<&Device, Refused> {
    let fine = match device {
        Device::Mac => true,
        Device::Name(name) => is_device_name(name) && !name.contains('*'),
        Device::Pattern(pattern) => is_device_name(pattern),
        Device::InterfaceId(id) => (1..=255).contains(&id.len()) && is_plain(id),
    };
    match fine {
        true => Ok(device),
        false => Err(Refused::input(
            "binding:profile",
            "it names no possible device",
        )),
    }
}

fn is_device_name(name: &str) -> bool {
    (1..=MOST_DEVICE_NAME).contains(&name.len())
        && is_plain(name)
        && !name.contains(['/', ':'])
        && !matches!(name, "." | "..")
}

fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\'))
}

pub(super) fn checked_profile(
    profile: &BTreeMap<String, String>,
) -> Result<&BTreeMap<String, String>, Refused> {
    if profile.len() > MOST_PROFILE {
        let why = format!("at most {MOST_PROFILE} entries are possible");
        return Err(Refused::input("binding:profile", why));
    }
    for (key, value) in profile {
        checked_text("binding:profile", key)?;
        checked_text("binding:profile", value)?;
    }
    Ok(profile)
}
