//! Subnets: the prefixes of a network, and which of their addresses ports get.
//!
//! Place on the line: request -> **use case** -> store commit.
//! Invariant: the subnets of one network don't overlap. Whoever adds one says so in a mark, and nobody else has in
//! the meantime.
//! Knows nothing of: routing.

use crate::caller::Caller;
use crate::checks;
use crate::checks::{checked_text, described};
use crate::control::{Control, Decided};
use crate::depend;
use crate::draft::Draft;
use crate::ids::{Moment, new_id};
use crate::objects::{Network, Subnet};
use crate::records::{self, Kept};
use crate::refused::{Failed, Refused};
use crate::state::{State, Stored};
use model::{Family, NetworkId, Prefix, ProjectId};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewSubnet {
    pub project: Option<ProjectId>,
    pub network: String,
    pub name: String,
    pub description: String,
    pub prefix: String,
    /// If the request says: must be the prefix's.
    pub family: Option<Family>,
    pub gateway: AskedGateway,
    pub dhcp: bool,
    /// `None`: all addresses that ports can have, but for the gateway's.
    pub pools: Option<Vec<(String, String)>>,
    pub dns_servers: Vec<String>,
    /// Destination and next hop.
    pub host_routes: Vec<(String, String)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AskedGateway {
    /// The first address.
    #[default]
    Usual,
    None,
    Address(String),
}

/// `None`: as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubnetPatch {
    pub name: Option<String>,
    pub description: Option<String>,
    pub gateway: Option<AskedGateway>,
    pub dhcp: Option<bool>,
    pub pools: Option<Vec<(String, String)>>,
    pub dns_servers: Option<Vec<String>>,
    pub host_routes: Option<Vec<(String, String)>>,
}

impl Control {
    pub async fn create_subnets(
        &self,
        who: &Caller,
        asked: Vec<NewSubnet>,
    ) -> Result<Vec<String>, Failed> {
        let new = Vec::from_iter(asked.into_iter().map(|new| (new_id(), new)));
        self.carry_out(|state, now| create(state, now, who, &new))
            .await?;
        Ok(new.into_iter().map(|(id, _)| id).collect())
    }

    pub async fn update_subnet(
        &self,
        who: &Caller,
        id: &str,
        patch: SubnetPatch,
        if_revision: Option<u64>,
    ) -> Result<(), Failed> {
        self.carry_out(|state, now| update(state, now, who, id, &patch, if_revision))
            .await
    }

    pub async fn delete_subnet(
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
    /// With its network.
    pub fn may_see_subnet(&self, who: &Caller, subnet: &Subnet) -> bool {
        let network = self.networks.get(&subnet.network);
        who.owns(&subnet.project)
            || network.is_some_and(|network| self.may_see_network(who, network))
    }

    /// In the order of their ids.
    pub fn subnets_in(&self, network: &NetworkId) -> impl Iterator<Item = &Stored<Subnet>> {
        let ids = self.index.subnets_of_network.get(network);
        ids.into_iter()
            .flatten()
            .filter_map(|id| self.subnets.get(id))
    }

    fn own_subnet(
        &self,
        who: &Caller,
        id: &str,
        action: &'static str,
    ) -> Result<&Stored<Subnet>, Refused> {
        let subnet = self.subnets.get(id);
        let seen = subnet.filter(|subnet| self.may_see_subnet(who, subnet));
        let seen = seen.ok_or_else(|| Refused::SubnetNotFound(id.to_owned()))?;
        checks::owned(who, &seen.project, action).map(|()| seen)
    }
}

pub(crate) fn create(
    state: &State,
    now: &Moment,
    who: &Caller,
    new: &[(String, NewSubnet)],
) -> Result<Decided<()>, Refused> {
    who.must_write("create_subnet")?;
    depend::bulk("subnets", new)?;
    let mut draft = Draft::new(state, now);
    let mut made: Vec<Subnet> = Vec::new();
    for (id, new) in new {
        let network = state.seen_network(who, &new.network)?;
        checks::owned(who, &network.project, "create_subnet")?;
        let subnet = subnet(now, who, id, &network.id, new)?;
        let others = state.subnets_in(&network.id).map(|stored| &**stored);
        not_overlapping(&subnet, others.chain(&made))?;
        alone_in(&mut draft, state, network);
        draft.create(&subnet);
        made.push(subnet);
    }
    draft.decided(())
}

/// Nobody adds another one, and the network stays. The mark goes with the network: where there is one, its being
/// unchanged says both.
fn alone_in(draft: &mut Draft, state: &State, network: &Stored<Network>) {
    let mark = records::subnets_mark(network.id.as_str());
    match state.marked(&mark) {
        Some(_) => draft.mark(records::mark(Network::KIND, network.id.as_str())),
        None => draft.depend(network),
    }
    draft.unmarked(mark.clone());
    draft.mark(mark);
}

fn not_overlapping<'a>(
    subnet: &Subnet,
    mut others: impl Iterator<Item = &'a Subnet>,
) -> Result<(), Refused> {
    let overlaps = |other: &&Subnet| {
        other.network == subnet.network
            && (other.prefix.covers(&subnet.prefix) || subnet.prefix.covers(&other.prefix))
    };
    match others.find(overlaps) {
        Some(other) => Err(Refused::SubnetOverlaps {
            cidr: subnet.prefix.to_string(),
            other: other.prefix.to_string(),
        }),
        None => Ok(()),
    }
}

fn subnet(
    now: &Moment,
    who: &Caller,
    id: &str,
    network: &NetworkId,
    new: &NewSubnet,
) -> Result<Subnet, Refused> {
    let prefix = prefix(&new.prefix)?;
    if new.family.is_some_and(|family| family != prefix.family()) {
        let why = format!("'{}' is no prefix of the IP version", new.prefix);
        return Err(Refused::input("cidr", why));
    }
    let gateway = gateway(&new.gateway, prefix)?;
    let pools = match &new.pools {
        Some(asked) if !asked.is_empty() => pools(asked, prefix)?,
        _ => usual_pools(prefix, gateway),
    };
    outside_pools(gateway, &pools)?;
    Ok(Subnet {
        id: id.into(),
        project: who.project_for(new.project.as_ref())?,
        network: network.clone(),
        said: described(now, checked_text("name", &new.name)?, &new.description)?,
        prefix,
        gateway,
        dhcp: new.dhcp,
        pools,
        dns_servers: dns_servers(&new.dns_servers)?,
        host_routes: host_routes(&new.host_routes)?,
    })
}

/// As Neutron, it clears host bits: `10.0.0.5/24` is `10.0.0.0/24`.
fn prefix(text: &str) -> Result<Prefix, Refused> {
    let bad = || {
        Refused::input(
            "cidr",
            format!("'{text}' isn't a recognized IP subnet cidr"),
        )
    };
    let (address, length) = text.split_once('/').ok_or_else(bad)?;
    let address = checks::address("cidr", address)?;
    let digits = length.bytes().all(|b| b.is_ascii_digit());
    let length = length.parse().ok().filter(|_| digits).ok_or_else(bad)?;
    // All addresses of a family are no subnet: nothing would be outside.
    if length == 0 || length > Family::of(address).width() {
        return Err(bad());
    }
    let prefix = Prefix::containing(address, length);
    match NO_SUBNETS
        .iter()
        .any(|no| no.covers(&prefix) || prefix.covers(no))
    {
        true => Err(bad()),
        false => Ok(prefix),
    }
}

/// Addresses that mean the same on every link, or many receivers.
static NO_SUBNETS: LazyLock<[Prefix; 5]> = LazyLock::new(|| {
    [
        "127.0.0.0/8",
        "224.0.0.0/4",
        "::1/128",
        "fe80::/10",
        "ff00::/8",
    ]
    .map(|text| text.parse().expect("a prefix"))
});

fn gateway(asked: &AskedGateway, prefix: Prefix) -> Result<Option<IpAddr>, Refused> {
    match asked {
        AskedGateway::None => Ok(None),
        AskedGateway::Usual if prefix.family().width() - prefix.length() < 2 => Ok(None),
        AskedGateway::Usual => Ok(Some(from_number(
            prefix.family(),
            number(prefix.network()) + 1,
        ))),
        AskedGateway::Address(text) => {
            let gateway = checks::address("gateway_ip", text)?;
            // One outside of the subnet may be link-local, or on-link by a route.
            match Family::of(gateway) == prefix.family() {
                true => Ok(Some(gateway)),
                false => Err(Refused::input(
                    "gateway_ip",
                    format!("'{text}' is of another IP version than the subnet"),
                )),
            }
        }
    }
}

/// Addresses that ports can have: not IPv4's first and last of a subnet, nor IPv6's first, which any router answers.
pub(crate) fn usable(prefix: Prefix) -> (IpAddr, IpAddr) {
    let family = prefix.family();
    let (mut first, mut last) = (number(prefix.network()), number(prefix.last()));
    if family.width() - prefix.length() >= 2 {
        first += 1;
        last -= u128::from(family == Family::V4);
    }
    (from_number(family, first), from_number(family, last))
}

fn usual_pools(prefix: Prefix, gateway: Option<IpAddr>) -> Vec<(IpAddr, IpAddr)> {
    let (first, last) = usable(prefix);
    let whole = (number(first), number(last));
    let gateway = gateway.map(number);
    let parts = match gateway.filter(|g| (whole.0..=whole.1).contains(g)) {
        Some(gateway) => vec![
            (whole.0, gateway.saturating_sub(1)),
            (gateway.saturating_add(1), whole.1),
        ],
        None => vec![whole],
    };
    let parts = parts.into_iter().filter(|(first, last)| first <= last);
    let family = prefix.family();
    parts
        .map(|(first, last)| (from_number(family, first), from_number(family, last)))
        .collect()
}

const MOST_POOLS: usize = 100;

fn pools(asked: &[(String, String)], prefix: Prefix) -> Result<Vec<(IpAddr, IpAddr)>, Refused> {
    at_most(MOST_POOLS, "allocation_pools", asked.len())?;
    let mut pools = Vec::new();
    for (first, last) in asked {
        let pool = (
            checks::address("allocation_pools", first)?,
            checks::address("allocation_pools", last)?,
        );
        let shown = format!("{first}-{last}");
        if Family::of(pool.0) != Family::of(pool.1) || pool.0 > pool.1 {
            return Err(Refused::InvalidAllocationPool { pool: shown });
        }
        let usable = usable(prefix);
        if !prefix.contains(pool.0) || pool.0 < usable.0 || pool.1 > usable.1 {
            let cidr = prefix.to_string();
            return Err(Refused::OutOfBoundsAllocationPool { pool: shown, cidr });
        }
        pools.push(pool);
    }
    pools.sort();
    match pools.windows(2).find(|pair| pair[1].0 <= pair[0].1) {
        Some(pair) => Err(Refused::OverlappingAllocationPools {
            one: format!("{}-{}", pair[0].0, pair[0].1),
            other: format!("{}-{}", pair[1].0, pair[1].1),
        }),
        None => Ok(pools),
    }
}

fn outside_pools(gateway: Option<IpAddr>, pools: &[(IpAddr, IpAddr)]) -> Result<(), Refused> {
    let Some(gateway) = gateway else {
        return Ok(());
    };
    let mut pools = pools.iter();
    match pools.find(|(first, last)| (first..=last).contains(&&gateway)) {
        Some((first, last)) => Err(Refused::GatewayConflictsWithPool {
            pool: format!("{first}-{last}"),
            address: gateway.to_string(),
        }),
        None => Ok(()),
    }
}

/// As Neutron's.
const MOST_DNS_SERVERS: usize = 5;
const MOST_HOST_ROUTES: usize = 20;

fn dns_servers(asked: &[String]) -> Result<Vec<IpAddr>, Refused> {
    at_most(MOST_DNS_SERVERS, "dns_nameservers", asked.len())?;
    let asked = asked.iter();
    asked
        .map(|text| checks::address("dns_nameservers", text))
        .collect()
}

fn host_routes(asked: &[(String, String)]) -> Result<Vec<(String, IpAddr)>, Refused> {
    at_most(MOST_HOST_ROUTES, "host_routes", asked.len())?;
    let asked = asked.iter();
    asked
        .map(|(to, via)| {
            let destination = to.parse::<Prefix>().map_err(|_| {
                Refused::input("host_routes", format!("'{to}' is not a valid CIDR"))
            })?;
            let via = checks::address("host_routes", via)?;
            match Family::of(via) == destination.family() {
                true => Ok((to.clone(), via)),
                false => Err(Refused::input(
                    "host_routes",
                    format!("'{to}' is of another IP version than '{via}'"),
                )),
            }
        })
        .collect()
}

fn at_most(most: usize, field: &'static str, are: usize) -> Result<(), Refused> {
    match are <= most {
        true => Ok(()),
        false => Err(Refused::input(
            field,
            format!("at most {most} are possible"),
        )),
    }
}

pub(crate) fn update(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    patch: &SubnetPatch,
    if_revision: Option<u64>,
) -> Result<Decided<()>, Refused> {
    let seen = state.own_subnet(who, id, "update_subnet")?;
    depend::revision_is(if_revision, seen.modified)?;
    let mut draft = Draft::new(state, now);
    let mut subnet = Subnet::clone(seen);
    checks::describe(&mut subnet.said, &patch.name, &patch.description, now)?;
    if let Some(asked) = &patch.gateway {
        subnet.gateway = gateway(asked, subnet.prefix)?;
    }
    if let Some(asked) = &patch.pools {
        subnet.pools = pools(asked, subnet.prefix)?;
    }
    if patch.gateway.is_some() || patch.pools.is_some() {
        outside_pools(subnet.gateway, &subnet.pools)?;
    }
    subnet.dhcp = patch.dhcp.unwrap_or(subnet.dhcp);
    if let Some(asked) = &patch.dns_servers {
        subnet.dns_servers = dns_servers(asked)?;
    }
    if let Some(asked) = &patch.host_routes {
        subnet.host_routes = host_routes(asked)?;
    }
    draft.update(seen, &subnet);
    draft.decided(())
}

pub(crate) fn delete(
    state: &State,
    now: &Moment,
    who: &Caller,
    id: &str,
    if_revision: Option<u64>,
) -> Result<Decided<()>, Refused> {
    let seen = state.own_subnet(who, id, "delete_subnet")?;
    depend::revision_is(if_revision, seen.modified)?;
    let mut ports = state.ports_in(&seen.network);
    if ports.any(|port| port.fixed.subnets().iter().any(|of| of == id)) {
        return Err(Refused::SubnetInUse(id.to_owned()));
    }
    let mut draft = Draft::new(state, now);
    draft.delete(seen);
    draft.decided(())
}

pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

pub(crate) fn from_number(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => {
            let number = u32::try_from(number).expect("a number of this family's addresses");
            IpAddr::V4(Ipv4Addr::from(number))
        }
        Family::V6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

#[cfg(test)]
mod tests;
