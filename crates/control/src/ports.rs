//! Ports: the virtual NICs of VMs, their addresses and their groups.
//!
//! Place on the line: request -> **use case** -> store commit.
//!
//! ```text
//! what is asked --> the port as it would be --> is it more than this caller may trust it with? --> transaction
//! ```
//! Invariants: no address and no MAC is twice in a network (`held/NETWORK/...` goes with its port, in one commit). Who
//! doesn't own a network can't get, by whatever requests, a port in it that is trusted more than a port is by default:
//! that is judged on the port as it would be, in one place ([`Trust`]).
//! Knows nothing of: how a host finds and guards the port's device.

mod addressing;
mod binding;
mod by_host;
mod trust;

pub use addressing::{AskedAddress, AskedPair};
pub use binding::AskedBinding;
use binding::Before;
pub(crate) use binding::{USUAL_VNIC, moved};
pub use by_host::{AskedOnHost, OnHost};

use crate::allocate;
use crate::caller::Caller;
use crate::checks;
use crate::checks::{checked_text, described};
use crate::control::{Control, Decided};
use crate::depend;
use crate::draft::Draft;
use crate::ids::{Moment, new_id};
use crate::objects::{DeviceId, FixedAddresses, Network, Pair, Port, Shared};
use crate::refused::{Failed, Refused};
use crate::state::{State, Stored};
use addressing::{Addressing, pairs};
use model::{FrozenSet, GroupId, NetworkId, PortId, ProjectId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use trust::Trust;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPort {
    pub project: Option<ProjectId>,
    pub network: String,
    pub name: String,
    pub description: String,
    /// `None`: one that is free.
    pub mac: Option<String>,
    /// `None`: one of each IP version that the network has subnets of.
    pub fixed: Option<Vec<AskedAddress>>,
    pub pairs: Vec<AskedPair>,
    /// `None`: the project's default group, where groups are possible.
    pub groups: Option<Vec<String>>,
    /// `None`: what the network says; off for a service.
    pub port_security: Option<bool>,
    pub admin_up: bool,
    pub device_id: String,
    pub device_owner: String,
    pub binding: AskedBinding,
}

/// `None`: as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortPatch {
    pub name: Option<String>,
    pub description: Option<String>,
    pub mac: Option<String>,
    pub fixed: Option<Vec<AskedAddress>>,
    pub pairs: Option<Vec<AskedPair>>,
    pub groups: Option<Vec<String>>,
    pub port_security: Option<bool>,
    pub admin_up: Option<bool>,
    pub device_id: Option<String>,
    pub device_owner: Option<String>,
    pub binding: AskedBinding,
}

/// More in one request would not fit into a transaction.
const MOST_GROUPS: usize = 100;

impl Default for NewPort {
    fn default() -> Self {
        Self {
            project: None,
            network: String::new(),
            name: String::new(),
            description: String::new(),
            mac: None,
            fixed: None,
            pairs: Vec::new(),
            groups: None,
            port_security: None,
            admin_up: true,
            device_id: String::new(),
            device_owner: String::new(),
            binding: AskedBinding::default(),
        }
    }
}

impl Control {
    pub async fn create_ports(
        &self,
        who: &Caller,
        asked: Vec<NewPort>,
    ) -> Result<Vec<PortId>, Failed> {
        let new = Vec::from_iter(asked.into_iter().map(|new| (PortId::new(new_id()), new)));
        let defaults = self.default_groups(who, &new).await?;
        self.carry_out(|state, now| create(state, now, who, &new, &defaults))
            .await?;
        Ok(new.into_iter().map(|(id, _)| id).collect())
    }

    pub async fn update_port(
        &self,
        who: &Caller,
        id: &str,
        patch: PortPatch,
        if_revision: Option<u64>,
    ) -> Result<(), Failed> {
        self.carry_out(|state, now| update(state, now, who, id, &patch, if_revision))
            .await
    }

    pub async fn delete_port(
        &self,
        who: &Caller,
        id: &str,
        if_revision: Option<u64>,
    ) -> Result<(), Failed> {
        self.carry_out(|state, now| delete(state, now, who, id, if_revision))
            .await
    }

    /// Those that the ports will join by default. A project has one from its first port on.
    async fn default_groups(
        &self,
        who: &Caller,
        new: &[(PortId, NewPort)],
    ) -> Result<BTreeMap<ProjectId, GroupId>, Failed> {
        who.must_write("create_port")?;
        let joining = new.iter().filter(|(_, new)| new.groups.is_none());
        let projects = joining.map(|(_, new)| who.project_for(new.project.as_ref()));
        let mut groups = BTreeMap::new();
        for project in projects.collect::<Result<BTreeSet<_>, _>>()? {
            let group = self.default_group(who, &project).await?;
            groups.insert(project, group);
        }
        Ok(groups)
    }
}

impl State {
    /// Its own project's, and that of the network that it is in.
    pub fn may_see_port(&self, who: &Caller, port: &Port) -> bool {
        let network = self.networks.get(&port.network);
        who.owns(&port.project) || network.is_some_and(|network| who.owns(&network.project))
    }

    /// In the order of their ids.
    pub fn ports_in(&self, network: &NetworkId) -> impl Iterator<Item = &Stored<Port>> {
        let ids = self.index.ports_in_network.get(network);
        ids.into_iter()
            .flatten()
            .filter_map(|id| self.ports.get(id))
    }

    /// A foreign one isn't there.
    fn seen_port(&self, who: &Caller, id: &str) -> Result<&Stored<Port>, Refused> {
        let port = self.ports.get(id);
        let seen = port.filter(|port| self.may_see_port(who, port));
        seen.ok_or_else(|| Refused::PortNotFound(id.to_owned()))
    }

    fn network_of(&self, port: &Port) -> Result<&Stored<Network>, Refused> {
        let network = self.networks.get(&port.network);
        network.ok_or_else(|| Refused::NetworkNotFound(port.network.to_string()))
    }
}

impl Port {
    /// It is no VM's: DHCP servers, routers and so on.
    pub fn is_service(&self) -> bool {
        is_service(&self.device_owner)
    }
}

/// However it is written: nobody is to find a spelling that one place takes for a service and another doesn't.
fn is_service(device_owner: &str) -> bool {
    let owner = device_owner.trim_start().to_ascii_lowercase();
    owner.starts_with("network:")
}

pub(crate) fn create(
    state: &State,
    now: &Moment,
    who: &Caller,
    new: &[(PortId, NewPort)],
    defaults: &BTreeMap<ProjectId, GroupId>,
) -> Result<Decided<()>, Refused> {
    who.must_write("create_port")?;
    depend::bulk("ports", new)?;
    let mut draft = Draft::new(state, now);
    for (id, new) in new {
        let network = state.seen_network(who, &new.network)?;
        depend_on_network(&mut draft, who, network);
        let port = port(&mut draft, state, now, who, id, network, new, defaults)?;
        draft.create(&port);
    }
    draft.decided(())
}

/// That a stranger may use it can be taken back, so that is to be as it was seen.
fn depend_on_network(draft: &mut Draft, who: &Caller, network: &Stored<Network>) {
    draft.depend(network);
    if who.owns(&network.project) {
        return;
    }
    match network.shared {
        true => draft.unchanged(network),
        false => draft.rely(who, &network.project, &Shared::Network(network.id.clone())),
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "what is asked, and all that it is judged by"
)]
fn port(
    draft: &mut Draft,
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &PortId,
    network: &Network,
    new: &NewPort,
    defaults: &BTreeMap<ProjectId, GroupId>,
) -> Result<Port, Refused> {
    let project = who.project_for(new.project.as_ref())?;
    let usual = network.port_security && !is_service(&new.device_owner);
    let port_security = new.port_security.unwrap_or(usual);
    let mut addressing = Addressing {
        draft,
        state,
        network,
        port: id,
    };
    let mac = addressing.mac(new.mac.as_deref())?;
    let fixed = match &new.fixed {
        Some(asked) => addressing.asked(asked, &FixedAddresses::default())?,
        None => addressing.usual()?,
    };
    addressing.take(mac, &fixed);
    let pairs = pairs(&new.pairs, mac)?;
    let groups = match &new.groups {
        Some(asked) => joined(draft, state, who, asked, &FrozenSet::new())?,
        None if port_security && !is_service(&new.device_owner) => {
            default_group(draft, state, &project, defaults)?
        }
        None => FrozenSet::new(),
    };
    if !port_security && !groups.is_empty() {
        return Err(Refused::PortSecurityAndIpRequired);
    }
    secured_pairs(port_security, &pairs)?;
    let asked = &new.binding;
    let binding = asked.of(Before::default(), who, "create_port", now)?;
    let unbound = asked.unbound(Before::default(), binding.as_ref())?;
    let port = Port {
        id: id.clone(),
        project,
        network: network.id.clone(),
        said: described(now, checked_text("name", &new.name)?, &new.description)?,
        mac,
        fixed,
        pairs,
        groups,
        port_security,
        admin_up: new.admin_up,
        device_id: device_id(&new.device_id)?,
        device_owner: checked_text("device_owner", &new.device_owner)?,
        binding: binding.map(Arc::new),
        unbound,
    };
    let trust = Trust {
        who,
        network,
        action: "create_port",
    };
    trust.at_first(&port, new)?;
    Ok(port)
}

fn default_group(
    draft: &mut Draft,
    state: &State,
    project: &ProjectId,
    defaults: &BTreeMap<ProjectId, GroupId>,
) -> Result<FrozenSet<GroupId>, Refused> {
    let id = defaults.get(project);
    let id = id.expect("each project that may need it was asked for");
    let group = state.groups.get(id);
    let group = group.ok_or_else(|| Refused::SecurityGroupNotFound(id.to_string()))?;
    draft.depend(group);
    Ok([id.clone()].into())
}

/// `before`: those that it is in already; they can't have gone.
fn joined(
    draft: &mut Draft,
    state: &State,
    who: &Caller,
    asked: &[String],
    before: &FrozenSet<GroupId>,
) -> Result<FrozenSet<GroupId>, Refused> {
    if asked.len() > MOST_GROUPS {
        return Err(Refused::TooMany(format!(
            "{} groups of a port, at most {MOST_GROUPS} are possible",
            asked.len()
        )));
    }
    let mut groups = BTreeSet::new();
    for id in asked {
        if let Some(id) = before.iter().find(|known| known.as_str() == id) {
            groups.insert(id.clone());
            continue;
        }
        let group = state.groups.get(id.as_str());
        let group = group.filter(|group| state.may_see_group(who, group));
        let group = group.ok_or_else(|| Refused::SecurityGroupNotFound(id.clone()))?;
        draft.depend(group);
        draft.rely(who, &group.project, &Shared::Group(group.id.clone()));
        groups.insert(group.id.clone());
    }
    Ok(groups.into())
}

fn device_id(asked: &str) -> Result<DeviceId, Refused> {
    checked_text("device_id", asked).map(|text| text.as_str().into())
}

fn secured_pairs(port_security: bool, pairs: &[Pair]) -> Result<(), Refused> {
    match port_security || pairs.is_empty() {
        true => Ok(()),
        false => Err(Refused::AddressPairAndPortSecurityRequired),
    }
}

pub(crate) fn update(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    patch: &PortPatch,
    if_revision: Option<u64>,
) -> Result<Decided<()>, Refused> {
    let seen = state.seen_port(who, id)?;
    checks::owned(who, &seen.project, "update_port")?;
    depend::revision_is(if_revision, seen.modified)?;
    let network = state.network_of(seen)?;
    let mut draft = Draft::new(state, now);
    let port = patched(&mut draft, state, now, who, network, seen, patch)?;
    let trust = Trust {
        who,
        network,
        action: "update_port",
    };
    trust.still(seen, &port, patch)?;
    draft.update(seen, &port);
    draft.decided(())
}

fn patched(
    draft: &mut Draft,
    state: &State,
    now: &Moment,
    who: &Caller,
    network: &Network,
    seen: &Port,
    patch: &PortPatch,
) -> Result<Port, Refused> {
    let mut port = seen.clone();
    checks::describe(&mut port.said, &patch.name, &patch.description, now)?;
    port.admin_up = patch.admin_up.unwrap_or(port.admin_up);
    if let Some(id) = &patch.device_id {
        port.device_id = device_id(id)?;
    }
    if let Some(owner) = &patch.device_owner {
        port.device_owner = checked_text("device_owner", owner)?;
    }
    let before = Before::of(seen);
    let binding = patch.binding.of(before, who, "update_port", now)?;
    port.unbound = patch.binding.unbound(before, binding.as_ref())?;
    port.binding = binding.map(Arc::new);
    readdress(
        &mut Addressing {
            draft,
            state,
            network,
            port: &seen.id,
        },
        &mut port,
        patch,
    )?;
    if let Some(asked) = &patch.pairs {
        port.pairs = pairs(asked, port.mac)?;
    }
    if let Some(asked) = &patch.groups {
        port.groups = joined(draft, state, who, asked, &seen.groups)?;
    }
    port.port_security = patch.port_security.unwrap_or(port.port_security);
    secured_pairs(port.port_security, &port.pairs)?;
    if !port.port_security && !port.groups.is_empty() {
        return Err(match patch.groups {
            Some(_) => Refused::PortSecurityAndIpRequired,
            None => Refused::PortHasSecurityGroup,
        });
    }
    Ok(port)
}

fn readdress(
    addressing: &mut Addressing,
    port: &mut Port,
    patch: &PortPatch,
) -> Result<(), Refused> {
    let before = port.clone();
    if let Some(asked) = &patch.mac
        && checks::mac("mac_address", asked)? != before.mac
    {
        port.mac = addressing.mac(Some(asked))?;
        // What was the port's own MAC goes on to be.
        for pair in port.pairs.iter_mut().filter(|pair| pair.mac == before.mac) {
            pair.mac = port.mac;
        }
    }
    if let Some(asked) = &patch.fixed {
        port.fixed = addressing.asked(asked, &before.fixed)?;
    }
    addressing.change(&before, port);
    Ok(())
}

pub(crate) fn delete(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    if_revision: Option<u64>,
) -> Result<Decided<()>, Refused> {
    let seen = state.seen_port(who, id)?;
    who.must_write("delete_port")?;
    depend::revision_is(if_revision, seen.modified)?;
    let mut draft = Draft::new(state, now);
    draft.delete(seen);
    draft.free(allocate::mac_key(&seen.network, seen.mac));
    for address in seen.fixed.addresses() {
        draft.free(allocate::address_key(&seen.network, *address));
    }
    draft.decided(())
}

#[cfg(test)]
mod tests;
