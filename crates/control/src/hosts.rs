//! Hosts: what an operator, or a host's agent when it comes, tells of a machine that runs VMs.
//!
//! Place on the line: request -> **use case** -> store commit.
//! A host that only bindings of ports name has no record, and is one as well.
//! Knows nothing of: agents, and how they prove which host they are.

use crate::caller::Caller;
use crate::checks;
use crate::control::{Control, Decided};
use crate::draft::Draft;
use crate::ids::Moment;
use crate::objects::Host;
use crate::refused::{Failed, Refused};
use crate::state::State;
use model::HostId;

impl Control {
    /// For admins, and for the server itself when an agent comes.
    pub async fn put_host(&self, who: &Caller, host: Host) -> Result<(), Failed> {
        self.carry_out(|state, now| put(state, now, who, &host))
            .await
    }

    /// With what it has told. Ports that are bound to it stay so.
    pub async fn delete_host(&self, who: &Caller, id: &str) -> Result<(), Failed> {
        self.carry_out(|state, now| delete(state, now, who, id))
            .await
    }
}

/// What is already so writes nothing: agents come again and again.
pub(crate) fn put(
    state: &State,
    now: &Moment,
    who: &Caller,
    host: &Host,
) -> Result<Decided<()>, Refused> {
    for_admins(who, "put_host")?;
    host_id(host.id.as_str())?;
    if let Some(address) = host.tunnel_address {
        checks::address("tunnel_address", &address.to_string())?;
    }
    let mut draft = Draft::new(state, now);
    match state.hosts.get(&host.id) {
        Some(seen) if **seen == *host => {}
        Some(seen) => draft.replace(seen, host),
        None => draft.create_named(host),
    }
    draft.decided(())
}

pub(crate) fn delete(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
) -> Result<Decided<()>, Refused> {
    for_admins(who, "delete_host")?;
    let (seen, told) = (state.hosts.get(id), state.told.get(id));
    if seen.is_none() && told.is_none() {
        return Err(Refused::HostNotFound(id.to_owned()));
    }
    let mut draft = Draft::new(state, now);
    if let Some(seen) = seen {
        draft.delete(seen);
    }
    if let Some(told) = told {
        draft.delete(told);
    }
    draft.decided(())
}

fn for_admins(who: &Caller, action: &str) -> Result<(), Refused> {
    match who.is_admin() {
        true => Ok(()),
        false => Err(Refused::not_authorized(action)),
    }
}

/// As the host says its name: of DNS, perhaps in full.
pub(crate) fn host_id(text: &str) -> Result<HostId, Refused> {
    let fits = (1..=255).contains(&text.len());
    let mut bytes = text.bytes();
    match fits && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        true => Ok(HostId::from(text)),
        false => Err(Refused::input(
            "binding:host_id",
            format!("'{text}' is no name of a host"),
        )),
    }
}

#[cfg(test)]
mod tests;
