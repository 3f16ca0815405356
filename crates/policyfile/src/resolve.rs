//! Looks up the names, expands the rules, checks what no object can see of itself, and builds the
//! inventory.
//!
//! Place on the line: text -> reader -> draft -> **resolve** -> inventory.
//! Knows nothing of: YAML.

use crate::MAX_RULES;
use crate::draft::{Draft, HostDraft};
use crate::error::{Complaint, ErrorKind, Log, Place, Stop, quoted};
use crate::expand::build_group;
use crate::nearest::suggestion;
use crate::ports::PortBuilder;
use crate::positions::Positions;
use crate::reader::Text;
use model::{
    AddressGroup, AddressGroupId, GroupId, Host, HostId, Inventory, Network, NetworkId, Peer,
    ScopeId, Settings,
};
use std::collections::{BTreeMap, HashMap};

/// The host of ports that are members only.
pub(crate) const NO_HOST: &str = "none";
const DEFAULT_SCOPE: &str = "default";

/// For whom a file is read.
#[derive(Clone, Copy)]
pub(crate) struct Here<'h> {
    pub(crate) host: &'h HostId,
    /// Where the file has hosts.
    pub(crate) is_one_of_them: bool,
}

/// On [`Stop`] the log is full.
pub(crate) fn resolve<'a>(
    draft: Draft<'a>,
    here: Here<'_>,
    log: &mut Log<'a>,
) -> Result<(Inventory, Positions), Stop> {
    let mut positions = Positions::default();
    let mut inventory = Inventory {
        hosts: hosts(&draft, here, log, &mut positions)?,
        ..Inventory::default()
    };
    for (name, n) in draft.networks {
        let id = NetworkId::new(&*name.value);
        positions.networks.insert(id.clone(), name.at.position);
        let scope = n.scope.as_ref().map_or(DEFAULT_SCOPE, |s| &s.value);
        let network = Network {
            id: id.clone(),
            scope: ScopeId::new(scope),
            vni: n.vni,
            mtu: n.mtu,
            subnets: n.subnets,
            dhcp_servers: n.dhcp_servers,
            routers: n.routers,
            eui64_only: n.eui64_only,
        };
        inventory.networks.insert(id, network);
    }
    let names = GroupNames::new(&draft.groups, &draft.address_groups, log)?;
    for (name, prefixes) in draft.address_groups {
        let id = AddressGroupId::new(&*name.value);
        positions
            .address_groups
            .insert(id.clone(), name.at.position);
        let group = AddressGroup {
            id: id.clone(),
            prefixes,
        };
        inventory.address_groups.insert(id, group);
    }
    let mut tags: HashMap<u16, Place> = HashMap::new();
    let mut rules_left = MAX_RULES;
    for (name, group) in draft.groups {
        let id = names.groups[&*name.value].clone();
        positions.groups.insert(id.clone(), name.at.position);
        if let Some((tag, at)) = group.tag
            && let Some(first) = tags.insert(tag, at)
        {
            let what = format!("the tag {tag} is taken");
            let advice = format!("line {} has it; tags are unique", first.line());
            note(log, at, ErrorKind::DuplicateTag, what, advice)?;
        }
        let (group, rules) = build_group(&id, group, &names, &mut rules_left, log)?;
        positions.rules.insert(id.clone(), rules);
        inventory.groups.insert(id, group);
    }
    let count = draft.ports.len();
    let mut builder = PortBuilder::new(&inventory, draft.has_hosts, here.host, &names, count);
    let mut ports = Vec::with_capacity(count);
    for (name, port) in draft.ports {
        let at = name.at.position;
        ports.extend(builder.build(name, port, log)?.map(|port| (port, at)));
    }
    // Sorted once, both maps are built without a search for each port.
    ports.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
    positions.ports = ports.iter().map(|(p, at)| (p.id.clone(), *at)).collect();
    inventory.ports = ports.into_iter().map(|(p, _)| (p.id.clone(), p)).collect();
    Ok((inventory, positions))
}

fn hosts<'a>(
    draft: &Draft<'a>,
    here: Here<'_>,
    log: &mut Log<'a>,
    positions: &mut Positions,
) -> Result<BTreeMap<HostId, Host>, Stop> {
    let mut common = Settings::default();
    draft.settings.apply(&mut common);
    let build = |id: HostId, draft: &HostDraft| {
        let mut settings = common.clone();
        draft.settings.apply(&mut settings);
        let host = Host {
            id: id.clone(),
            tunnel_address: draft.tunnel_address,
            peer_trust: draft.peer_trust,
            settings,
        };
        (id, host)
    };
    if !draft.has_hosts {
        return Ok([build(here.host.clone(), &HostDraft::default())].into());
    }
    let mut hosts = BTreeMap::new();
    for (name, host) in &draft.hosts {
        let id = HostId::new(&*name.value);
        positions.hosts.insert(id.clone(), name.at.position);
        hosts.extend([build(id, host)]);
    }
    if here.is_one_of_them && !hosts.contains_key(here.host) {
        let what = format!(
            "this host, {}, is not among the file's hosts",
            quoted(here.host.as_str())
        );
        let advice = suggestion(
            here.host.as_str(),
            "hosts",
            hosts.keys().map(HostId::as_str),
        );
        log.note(None, Complaint::new(ErrorKind::UnknownHost, what, advice))?;
    }
    Ok(hosts)
}

/// Groups and address groups share one name space: a rule's remote can be either.
pub(crate) struct GroupNames {
    pub(crate) groups: HashMap<String, GroupId>,
    pub(crate) address_groups: HashMap<String, AddressGroupId>,
}

impl GroupNames {
    fn new<'a, G, A>(
        groups: &[(Text<'a>, G)],
        address_groups: &[(Text<'a>, A)],
        log: &mut Log<'a>,
    ) -> Result<Self, Stop> {
        let names = Self {
            groups: groups
                .iter()
                .map(|(n, _)| (n.value.to_string(), GroupId::new(&*n.value)))
                .collect(),
            address_groups: address_groups
                .iter()
                .map(|(n, _)| (n.value.to_string(), AddressGroupId::new(&*n.value)))
                .collect(),
        };
        for (name, _) in address_groups {
            if names.groups.contains_key(&*name.value) {
                let what = format!("{} is also the name of a group", quoted(&name.value));
                let advice = "rules name both alike: rename one of them";
                note(log, name.at, ErrorKind::DuplicateName, what, advice)?;
            }
        }
        Ok(names)
    }

    pub(crate) fn peer(&self, name: &str) -> Option<Peer> {
        let group = self.groups.get(name).cloned().map(Peer::Group);
        let address_group = || self.address_groups.get(name).cloned();
        group.or_else(|| address_group().map(Peer::AddressGroup))
    }

    /// Sorted, so that messages are the same from run to run.
    pub(crate) fn sorted(&self, and_address_groups: bool) -> Vec<&str> {
        let more = self.address_groups.keys().filter(|_| and_address_groups);
        let mut names: Vec<&str> = self.groups.keys().chain(more).map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

/// Says that a name is unknown, and which one was probably meant.
pub(crate) fn unknown<'n>(
    log: &mut Log<'_>,
    name: &Text<'_>,
    kind: ErrorKind,
    (what, several): (&str, &str),
    known: impl Iterator<Item = &'n str> + Clone,
) -> Result<(), Stop> {
    let what = format!("there is no {what} {}", quoted(&name.value));
    let advice = suggestion(&name.value, several, known);
    note(log, name.at, kind, what, advice)
}

pub(crate) fn note(
    log: &mut Log<'_>,
    at: Place,
    kind: ErrorKind,
    what: impl Into<String>,
    advice: impl Into<String>,
) -> Result<(), Stop> {
    log.note(Some(at), Complaint::new(kind, what, advice))
}
