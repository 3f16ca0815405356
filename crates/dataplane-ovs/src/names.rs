//! The numbers of what a view names.
//!
//! Place on the line: view -> **numbers** -> render.

use crate::numbers::number;
use model::{GroupId, NetworkId, RuleRef, ScopeId};
use policy::{HostView, PeerView};
use std::collections::{BTreeMap, BTreeSet};

/// Of a group list: the order in which a port has them.
pub(crate) type Profile = Vec<GroupId>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) networks: BTreeMap<NetworkId, u32>,
    pub(crate) scopes: BTreeMap<ScopeId, u32>,
    pub(crate) profiles: BTreeMap<Profile, u32>,
    /// Of groups whose rules are asked.
    pub(crate) groups: BTreeMap<GroupId, u32>,
    /// Of groups that are asked for.
    pub(crate) tags: BTreeMap<GroupId, u16>,
    pub(crate) rules: BTreeMap<RuleRef, u32>,
}

impl Names {
    pub(crate) fn of(view: &HostView) -> Self {
        let none = BTreeSet::new();
        let networks = view.networks.keys().cloned();
        let scopes = view.networks.values().map(|n| n.scope.clone());
        let overlay = view.overlay.as_deref();
        let ahead = overlay
            .into_iter()
            .flat_map(|overlay| overlay.remote_ports.values());
        let profiles = view.ports.values().map(|port| port.groups.clone());
        let profiles = profiles.chain(ahead.map(|port| port.groups.clone()));
        let groups = view.groups.keys().cloned();
        let rules = view.groups.iter().flat_map(|(group, content)| {
            content.rules.keys().map(|rule| RuleRef {
                group: group.clone(),
                rule: rule.clone(),
            })
        });
        Self {
            networks: number(networks, ToString::to_string, 16, &none),
            scopes: number(scopes, ToString::to_string, 16, &none),
            profiles: number(profiles, profile_text, 32, &none),
            groups: number(groups, ToString::to_string, 32, &none),
            tags: tags(view),
            rules: number(rules, ToString::to_string, 32, &none),
        }
    }
}

fn profile_text(profile: &Profile) -> String {
    let groups: Vec<&str> = profile.iter().map(|group| group.as_str()).collect();
    groups.join("\n")
}

/// A group that rules name has its tag; one without a tag gets a number that no tag in sight has.
fn tags(view: &HostView) -> BTreeMap<GroupId, u16> {
    let rules = view.groups.values().flat_map(|group| group.rules.values());
    let named: BTreeSet<&GroupId> = rules
        .filter_map(|rule| match &rule.peer {
            PeerView::Group(group) => Some(group),
            PeerView::Any | PeerView::Prefix(_) | PeerView::AddressGroup(_) => None,
        })
        .collect();
    let known = view
        .groups
        .iter()
        .filter_map(|(id, group)| Some((id, group.tag?)));
    let in_sight = view.overlay.iter().flat_map(|overlay| &overlay.tags);
    let in_sight = in_sight.map(|(id, tag)| (id, *tag));
    let known: BTreeMap<&GroupId, u16> = known.chain(in_sight).collect();
    let taken = known.values().map(|tag| u32::from(*tag)).collect();
    let untagged = named.iter().filter(|group| !known.contains_key(**group));
    let given = number(
        untagged.map(|g| (*g).clone()),
        ToString::to_string,
        16,
        &taken,
    );
    let given = given
        .into_iter()
        .map(|(group, number)| (group, number as u16));
    let known = known.into_iter().map(|(group, tag)| (group.clone(), tag));
    known.chain(given).collect()
}
