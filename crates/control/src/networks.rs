//! Networks: what ports are in.
//!
//! Place on the line: request -> **use case** -> store commit.
//! Knows nothing of: how packets get from host to host.

use crate::caller::Caller;
use crate::checks;
use crate::checks::{checked_text, described};
use crate::control::{Control, Decided};
use crate::depend;
use crate::draft::Draft;
use crate::ids::{Moment, new_id};
use crate::objects::{Network, Segment, Shared};
use crate::records::{self, Kept};
use crate::refused::{Failed, Refused};
use crate::state::{State, Stored};
use model::{NetworkId, ProjectId, ScopeId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNetwork {
    pub project: Option<ProjectId>,
    pub name: String,
    pub description: String,
    pub admin_up: bool,
    /// `true` is for admins.
    pub shared: bool,
    pub port_security: bool,
    /// `None`: addresses are unique in the project. For admins.
    pub scope: Option<String>,
    pub mtu: Option<u16>,
    /// For admins.
    pub segment: Option<Segment>,
}

/// `None`: as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkPatch {
    pub name: Option<String>,
    pub description: Option<String>,
    pub admin_up: Option<bool>,
    pub shared: Option<bool>,
    pub port_security: Option<bool>,
    pub mtu: Option<u16>,
}

impl Default for NewNetwork {
    fn default() -> Self {
        Self {
            project: None,
            name: String::new(),
            description: String::new(),
            admin_up: true,
            shared: false,
            port_security: true,
            scope: None,
            mtu: None,
            segment: None,
        }
    }
}

impl Control {
    pub async fn create_networks(
        &self,
        who: &Caller,
        asked: Vec<NewNetwork>,
    ) -> Result<Vec<NetworkId>, Failed> {
        let new = Vec::from_iter(asked.into_iter().map(|new| (NetworkId::new(new_id()), new)));
        self.carry_out(|state, now| create(state, now, who, &new))
            .await?;
        Ok(new.into_iter().map(|(id, _)| id).collect())
    }

    pub async fn update_network(
        &self,
        who: &Caller,
        id: &str,
        patch: NetworkPatch,
        if_revision: Option<u64>,
    ) -> Result<(), Failed> {
        self.carry_out(|state, now| update(state, now, who, id, &patch, if_revision))
            .await
    }

    /// With its subnets.
    pub async fn delete_network(
        &self,
        who: &Caller,
        id: &str,
        if_revision: Option<u64>,
    ) -> Result<(), Failed> {
        self.carry_out(|state, now| delete(state, now, who, id, if_revision))
            .await
    }
}

impl State {
    pub fn may_see_network(&self, who: &Caller, network: &Network) -> bool {
        who.owns(&network.project)
            || network.shared
            || self.is_shared_with(who, &Shared::Network(network.id.clone()))
    }

    /// A foreign one isn't there.
    pub(crate) fn seen_network(&self, who: &Caller, id: &str) -> Result<&Stored<Network>, Refused> {
        let network = self.networks.get(id);
        let seen = network.filter(|network| self.may_see_network(who, network));
        seen.ok_or_else(|| Refused::NetworkNotFound(id.to_owned()))
    }

    /// To change it.
    fn own_network(
        &self,
        who: &Caller,
        id: &str,
        action: &'static str,
    ) -> Result<&Stored<Network>, Refused> {
        let network = self.seen_network(who, id)?;
        checks::owned(who, &network.project, action).map(|()| network)
    }
}

pub(crate) fn create(
    state: &State,
    now: &Moment,
    who: &Caller,
    new: &[(NetworkId, NewNetwork)],
) -> Result<Decided<()>, Refused> {
    who.must_write("create_network")?;
    depend::bulk("networks", new)?;
    let mut draft = Draft::new(state, now);
    for (id, new) in new {
        draft.create(&network(now, who, id, new)?);
        draft.mark(records::subnets_mark(id.as_str()));
    }
    draft.decided(())
}

fn network(
    now: &Moment,
    who: &Caller,
    id: &NetworkId,
    new: &NewNetwork,
) -> Result<Network, Refused> {
    let for_admins = |asked: bool, attribute| {
        checks::allow(!asked || who.is_admin(), "create_network", attribute)
    };
    for_admins(new.shared, "shared")?;
    for_admins(new.segment.is_some(), "provider:segmentation_id")?;
    for_admins(new.scope.is_some(), "scope")?;
    let project = who.project_for(new.project.as_ref())?;
    let scope = match &new.scope {
        Some(scope) => ScopeId::new(checked_text("scope", scope)?),
        None => ScopeId::from(project.as_str()),
    };
    Ok(Network {
        id: id.clone(),
        project,
        said: described(now, checked_text("name", &new.name)?, &new.description)?,
        admin_up: new.admin_up,
        shared: new.shared,
        port_security: new.port_security,
        scope,
        mtu: mtu(new.mtu)?,
        segment: new.segment.as_ref().map(segment).transpose()?,
        eui64_only: true,
        dhcp_servers: None,
        routers: None,
    })
}

/// Less is no IPv4.
fn mtu(asked: Option<u16>) -> Result<Option<u16>, Refused> {
    match asked {
        Some(..68) => Err(Refused::input("mtu", "it is less than 68")),
        other => Ok(other.filter(|mtu| *mtu > 0)),
    }
}

fn segment(asked: &Segment) -> Result<Segment, Refused> {
    checked_text("provider:network_type", &asked.kind)?;
    checked_text(
        "provider:physical_network",
        asked.physical_network.as_deref().unwrap_or_default(),
    )?;
    let most = match asked.kind.as_str() {
        "vlan" => 4094,
        _ => (1 << 24) - 1,
    };
    match asked.number {
        Some(number) if number > most => Err(Refused::input(
            "provider:segmentation_id",
            format!("{number} is more than {most}"),
        )),
        _ => Ok(asked.clone()),
    }
}

pub(crate) fn update(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    patch: &NetworkPatch,
    if_revision: Option<u64>,
) -> Result<Decided<()>, Refused> {
    let seen = state.own_network(who, id, "update_network")?;
    depend::revision_is(if_revision, seen.modified)?;
    let mut draft = Draft::new(state, now);
    let mut network = Network::clone(seen);
    checks::describe(&mut network.said, &patch.name, &patch.description, now)?;
    if let Some(shared) = patch.shared.filter(|shared| *shared != network.shared) {
        checks::allow(who.is_admin(), "update_network", "shared")?;
        if !shared {
            nobody_else_is_in(state, &network)?;
            // Nor comes in meanwhile.
            draft.unmarked(records::mark(Network::KIND, id));
        }
        network.shared = shared;
    }
    network.admin_up = patch.admin_up.unwrap_or(network.admin_up);
    network.port_security = patch.port_security.unwrap_or(network.port_security);
    network.mtu = mtu(patch.mtu)?.or(network.mtu);
    draft.update(seen, &network);
    draft.decided(())
}

fn nobody_else_is_in(state: &State, network: &Network) -> Result<(), Refused> {
    let mut ports = state.ports_in(&network.id);
    let foreign = ports.any(|port| port.project != network.project && !port.is_service());
    match foreign {
        true => Err(Refused::NetworkSharedByOthers(network.id.to_string())),
        false => Ok(()),
    }
}

/// More subnets than fit are to be deleted before.
const MOST_SUBNETS_ALONG: usize = 50;

pub(crate) fn delete(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    if_revision: Option<u64>,
) -> Result<Decided<()>, Refused> {
    let seen = state.own_network(who, id, "delete_network")?;
    depend::revision_is(if_revision, seen.modified)?;
    let subnets = Vec::from_iter(state.subnets_in(&seen.id));
    if state.ports_in(&seen.id).next().is_some() || subnets.len() > MOST_SUBNETS_ALONG {
        return Err(Refused::NetworkInUse(id.to_owned()));
    }
    let mut draft = Draft::new(state, now);
    draft.delete(seen);
    draft.unmark(records::subnets_mark(id));
    draft.delete_shares(&Shared::Network(seen.id.clone()));
    for subnet in subnets {
        draft.delete_along(subnet);
    }
    draft.decided(())
}

#[cfg(test)]
mod tests;
