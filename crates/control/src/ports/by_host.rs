//! A port's bindings by host: where it is, and where a live migration takes it to. What `binding.rs` has as one, seen
//! as newer Novas do.
//!
//! ```text
//! create H                 activate H
//! ---------> H: inactive ------------> H: active, and no other
//!                 |
//!                 +------> none        delete H
//! ```
//! Invariants: one is active, and one more is possible. An inactive one is a move that has begun: the port's policy is
//! on that host, too. The old host's goes when the new one is activated, and nothing is left to be deleted.
//! Knows nothing of: whether there is such a host, or a device.

use super::binding::{self, AskedBinding};
use super::{PortPatch, update};
use crate::caller::Caller;
use crate::checks;
use crate::control::{Control, Decided};
use crate::draft::Draft;
use crate::hosts::host_id;
use crate::ids::Moment;
use crate::objects::{Binding, Destination, Device, Move, Port};
use crate::refused::{Failed, Refused};
use crate::state::{State, Stored};
use std::collections::BTreeMap;
use std::sync::Arc;

/// `None`: as it is, or as the active one has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedOnHost {
    pub device: Option<Device>,
    /// With what isn't said of the device there.
    pub profile: Option<BTreeMap<String, String>>,
    pub vnic_type: Option<String>,
}

/// One of a port's bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnHost<'a> {
    Active(&'a Binding),
    Inactive {
        to: &'a Destination,
        /// The active one.
        from: &'a Binding,
    },
}

impl Control {
    /// A port's first one is active.
    pub async fn create_binding(
        &self,
        who: &Caller,
        port: &str,
        host: &str,
        asked: AskedOnHost,
    ) -> Result<(), Failed> {
        self.carry_out(|state, now| create(state, now, who, port, host, &asked))
            .await
    }

    pub async fn update_binding(
        &self,
        who: &Caller,
        port: &str,
        host: &str,
        asked: AskedOnHost,
    ) -> Result<(), Failed> {
        self.carry_out(|state, now| change(state, now, who, port, host, &asked))
            .await
    }

    /// The port is on that host.
    pub async fn activate_binding(
        &self,
        who: &Caller,
        port: &str,
        host: &str,
    ) -> Result<(), Failed> {
        self.carry_out(|state, now| activate(state, now, who, port, host))
            .await
    }

    /// The active one with the other: the port is on no host.
    pub async fn delete_binding(&self, who: &Caller, port: &str, host: &str) -> Result<(), Failed> {
        self.carry_out(|state, now| delete(state, now, who, port, host))
            .await
    }
}

impl State {
    /// For admins. The active one comes first.
    pub fn bindings_of(&self, who: &Caller, port: &str) -> Result<Vec<OnHost<'_>>, Refused> {
        let port = self.rebound(who, port, "get_port_binding")?;
        Ok(port.bindings().collect())
    }

    pub fn binding_of(&self, who: &Caller, port: &str, host: &str) -> Result<OnHost<'_>, Refused> {
        self.rebound(who, port, "get_port_binding")?.on_host(host)
    }

    fn rebound(&self, who: &Caller, id: &str, action: &str) -> Result<&Stored<Port>, Refused> {
        let port = self.seen_port(who, id)?;
        match who.is_admin() {
            true => Ok(port),
            false => Err(Refused::not_authorized(action)),
        }
    }
}

impl Port {
    pub fn bindings(&self) -> impl Iterator<Item = OnHost<'_>> {
        let active = self.binding.as_deref();
        let inactive = active.and_then(|from| {
            let to = from.destination()?;
            Some(OnHost::Inactive { to, from })
        });
        active.map(OnHost::Active).into_iter().chain(inactive)
    }

    fn on_host(&self, host: &str) -> Result<OnHost<'_>, Refused> {
        let found = self.bindings().find(|on| on.host() == host);
        found.ok_or_else(|| Refused::PortBindingNotFound {
            port: self.id.to_string(),
            host: host.to_owned(),
        })
    }
}

impl OnHost<'_> {
    pub fn host(&self) -> &str {
        match self {
            OnHost::Active(binding) => binding.host.as_str(),
            OnHost::Inactive { to, .. } => to.host.as_str(),
        }
    }
}

impl AskedOnHost {
    fn of_port(&self, host: Option<&str>) -> PortPatch {
        PortPatch {
            binding: AskedBinding {
                host: host.map(str::to_owned),
                device: self.device.clone(),
                profile: self.profile.clone(),
                vnic_type: self.vnic_type.clone(),
                moving_to: None,
            },
            ..PortPatch::default()
        }
    }

    fn destination(&self, of: &Binding, to: Destination) -> Result<Destination, Refused> {
        if self
            .vnic_type
            .as_ref()
            .is_some_and(|vnic| *vnic != of.vnic_type)
        {
            let why = format!("it is '{}', and stays so on the way", of.vnic_type);
            return Err(Refused::input("vnic_type", why));
        }
        let device = self.device.as_ref().map(binding::checked).transpose()?;
        let profile = self.profile.as_ref();
        let profile = profile.map(binding::checked_profile).transpose()?;
        Ok(Destination {
            device: device.cloned().or(to.device),
            profile: profile.cloned().or(to.profile),
            ..to
        })
    }
}

fn create(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    host: &str,
    asked: &AskedOnHost,
) -> Result<Decided<()>, Refused> {
    let seen = state.rebound(who, id, "create_port_binding")?;
    let host = host_id(host)?;
    let Some(before) = &seen.binding else {
        let patch = asked.of_port(Some(host.as_str()));
        return update(state, now, who, id, &patch, None);
    };
    if let Some(there) = before.hosts().find(|there| **there == host) {
        return Err(Refused::PortBindingAlreadyExists {
            port: id.to_owned(),
            host: there.to_string(),
        });
    }
    if let Some(other) = before.destination() {
        return Err(Refused::PortBindingElsewhere {
            port: id.to_owned(),
            host: other.host.to_string(),
        });
    }
    let to = binding::destination(host, before.device.as_ref(), now);
    let to = asked.destination(before, to)?;
    moved(state, now, seen, Some(to))
}

fn change(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    host: &str,
    asked: &AskedOnHost,
) -> Result<Decided<()>, Refused> {
    let seen = state.rebound(who, id, "update_port_binding")?;
    match seen.on_host(host)? {
        OnHost::Active(_) => update(state, now, who, id, &asked.of_port(None), None),
        OnHost::Inactive { to, from } => {
            let to = asked.destination(from, to.clone())?;
            moved(state, now, seen, Some(to))
        }
    }
}

fn activate(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    host: &str,
) -> Result<Decided<()>, Refused> {
    let seen = state.rebound(who, id, "activate_port_binding")?;
    match seen.on_host(host)? {
        OnHost::Active(_) => Err(Refused::PortBindingAlreadyActive {
            port: id.to_owned(),
            host: host.to_owned(),
        }),
        OnHost::Inactive { .. } => {
            let patch = AskedOnHost::default().of_port(Some(host));
            update(state, now, who, id, &patch, None)
        }
    }
}

fn delete(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    host: &str,
) -> Result<Decided<()>, Refused> {
    let seen = state.rebound(who, id, "delete_port_binding")?;
    match seen.on_host(host)? {
        OnHost::Active(_) => {
            let patch = AskedOnHost::default().of_port(Some(""));
            update(state, now, who, id, &patch, None)
        }
        OnHost::Inactive { .. } => moved(state, now, seen, None),
    }
}

/// On its way there, or nowhere.
fn moved(
    state: &State,
    now: &Moment,
    seen: &Stored<Port>,
    to: Option<Destination>,
) -> Result<Decided<()>, Refused> {
    let mut port = Port::clone(seen);
    checks::describe(&mut port.said, &None, &None, now)?;
    if let Some(binding) = &mut port.binding {
        Arc::make_mut(binding).moving = to.map(|to| Box::new(Move::To(to)));
    }
    let mut draft = Draft::new(state, now);
    draft.update(seen, &port);
    draft.decided(())
}
