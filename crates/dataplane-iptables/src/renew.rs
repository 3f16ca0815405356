//! What gets a new number in a change, as it would let something pass in between that neither policy permits.
//!
//! Place on the line: views -> **renew** -> numbers -> inputs. Pure.
//!
//! While a change is made, a chain holds the old rules and the new ones, and a set the old members and the new
//! ones (`plan`). Of rules alone, or members, or ports, that permits no more than the two policies do. A rule
//! that goes for a member that comes is permitted by neither of them, nor is a rule that goes for a port that
//! comes to its profile. Where two changes meet so, the profile and the sets that it names get new numbers: so
//! the old and the new stand beside each other, and the one transaction of the link switches between them.
//! Source: docs/semantics.md "Truth under change".

use crate::books::{Books, MembersName, ProfileName};
use crate::render::profile_name;
use model::{NetworkId, PortId, Prefix};
use policy::{HostView, PortView, RuleView, SharedSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stale {
    profiles: BTreeSet<ProfileName>,
    members: BTreeSet<MembersName>,
}

#[derive(Clone, Copy, Debug)]
struct SetChange {
    loses: bool,
    gains: bool,
}

type Members = Arc<SharedSet<Prefix>>;

/// A rule, and whether its group is stateful.
type Rules<'a> = BTreeSet<(bool, &'a RuleView)>;

impl Stale {
    pub(crate) fn between(old: &HostView, new: &HostView) -> Self {
        let sets = changed_sets(old, new);
        let rules_change = old.groups != new.groups;
        let (left, joined) = moves(old, new);
        let ports_change = !left.is_empty() || !joined.is_empty();
        let kinds = [!sets.is_empty(), rules_change, ports_change];
        let mut stale = Self::default();
        if kinds.iter().filter(|kind| **kind).count() < 2 {
            return stale;
        }
        // What permits in other profiles is the same before and after, whichever ports have them.
        let touched = policy::touched_groups(old, new);
        let names = |view| -> BTreeSet<ProfileName> {
            let touched =
                profiles(view).filter(|of| of.port.groups.iter().any(|g| touched.contains(g)));
            touched.map(|profile| profile.name()).collect()
        };
        for name in names(old).intersection(&names(new)) {
            let change = ProfileChange {
                before: rules(old, name),
                after: rules(new, name),
                sets: &sets,
                name,
            };
            if change.mixes(left.contains(name), joined.contains(name)) {
                stale.profiles.insert(name.clone());
                let named = change.before.union(&change.after);
                let named = named.filter_map(|(_, rule)| MembersName::of(&name.scope, &rule.peer));
                stale
                    .members
                    .extend(named.filter(|set| sets.contains_key(set)));
            }
        }
        stale
    }

    pub(crate) fn all(books: &Books) -> Self {
        Self {
            profiles: books.profiles.all().map(|(name, _)| name.clone()).collect(),
            members: books.members.all().map(|(name, _)| name.clone()).collect(),
        }
    }

    /// Where there are not enough numbers left for all, each keeps its own.
    pub(crate) fn renew(&self, books: &mut Books) {
        if books.profiles.has_room_for(self.profiles.len()) {
            books.profiles.renew(&self.profiles);
            books.members.renew(&self.members);
        }
    }
}

struct ProfileChange<'a> {
    before: Rules<'a>,
    after: Rules<'a>,
    sets: &'a BTreeMap<MembersName, SetChange>,
    name: &'a ProfileName,
}

impl ProfileChange<'_> {
    /// Whether it would permit in between what neither policy does. `left`, `joined`: a port that changes had
    /// this profile, has it now.
    fn mixes(&self, left: bool, joined: bool) -> bool {
        let change = |(_, rule): &(bool, &RuleView)| {
            let set = MembersName::of(&self.name.scope, &rule.peer);
            set.and_then(|set| self.sets.get(&set))
        };
        let gains = |rule: &(bool, &RuleView)| change(rule).is_some_and(|set| set.gains);
        let loses = |rule: &(bool, &RuleView)| change(rule).is_some_and(|set| set.loses);
        let gone: Vec<_> = self.before.difference(&self.after).collect();
        let come: Vec<_> = self.after.difference(&self.before).collect();
        gone.iter().any(|rule| gains(rule))
            || come.iter().any(|rule| loses(rule))
            || (joined && (!gone.is_empty() || self.after.iter().any(loses)))
            || (left && (!come.is_empty() || self.before.iter().any(gains)))
    }
}

/// The profiles that ports which change had before, and have now.
fn moves(old: &HostView, new: &HostView) -> (BTreeSet<ProfileName>, BTreeSet<ProfileName>) {
    let networks = policy::differing(&old.networks, &new.networks);
    let networks: BTreeSet<&NetworkId> = networks.map(|(id, _, _)| id).collect();
    let moved = |of: &HostView, other: &HostView| {
        let stands = |profile: &OfPort<'_>| {
            other.ports.get(profile.id) == Some(profile.port)
                && !networks.contains(&profile.port.network)
        };
        let moved = profiles(of).filter(|profile| !stands(profile));
        moved.map(|profile| profile.name()).collect()
    };
    (moved(old, new), moved(new, old))
}

/// The profile of a guarded port.
struct OfPort<'a> {
    view: &'a HostView,
    id: &'a PortId,
    port: &'a Arc<PortView>,
}

impl OfPort<'_> {
    fn name(&self) -> ProfileName {
        profile_name(self.view, self.port)
    }
}

fn profiles(view: &HostView) -> impl Iterator<Item = OfPort<'_>> {
    let guarded = view.ports.iter().filter(|(_, port)| port.port_security);
    guarded.map(move |(id, port)| OfPort { view, id, port })
}

fn rules<'a>(view: &'a HostView, name: &ProfileName) -> Rules<'a> {
    let groups = name
        .groups
        .iter()
        .filter_map(|group| view.groups.get(group));
    groups
        .flat_map(|group| group.rules.values().map(|rule| (group.stateful, rule)))
        .collect()
}

fn changed_sets(old: &HostView, new: &HostView) -> BTreeMap<MembersName, SetChange> {
    let groups = policy::differing(&old.members, &new.members);
    let groups = groups.map(|((scope, group), before, after)| {
        let name = MembersName::Group(scope.clone(), group.clone());
        (name, SetChange::between(before, after))
    });
    let address_groups = policy::differing(&old.address_groups, &new.address_groups);
    let address_groups = address_groups.map(|(group, before, after)| {
        let name = MembersName::AddressGroup(group.clone());
        (name, SetChange::between(before, after))
    });
    let all = groups.chain(address_groups);
    all.filter(|(_, set)| set.loses || set.gains).collect()
}

impl SetChange {
    /// A set that is not there has no members.
    fn between(before: Option<&Members>, after: Option<&Members>) -> Self {
        let none = Members::default();
        let (before, after) = (before.unwrap_or(&none), after.unwrap_or(&none));
        Self {
            loses: before.difference(after).next().is_some(),
            gains: after.difference(before).next().is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::HostId;

    /// Port `a` is in these groups; `web`, where `b` is, has these rules; `plain`, where `c` is, names friends.
    fn view(groups: &str, rules: &str, friend: &str) -> HostView {
        let text = format!(
            "
version: 1
networks: {{ lan: {{ subnets: [10.0.0.0/24] }} }}
groups:
  web: {{ rules: [{rules}] }}
  plain: {{ rules: [{{ name: ping, from: friends, protocol: icmp }}] }}
  friends: {{}}
ports:
  a: {{ device: a, mac: 52:54:00:00:00:01, addresses: 10.0.0.1, groups: [{groups}] }}
  b: {{ device: b, mac: 52:54:00:00:00:02, addresses: 10.0.0.2, groups: [web] }}
  c: {{ device: d, mac: 52:54:00:00:00:04, addresses: 10.0.0.5, groups: [plain] }}
  friend: {{ device: c, mac: 52:54:00:00:00:03, addresses: {friend}, groups: [friends] }}
"
        );
        let host = HostId::new("here");
        let file = policyfile::parse(&text, "policy.yaml", &host).expect("it is right");
        policy::compile(&file.inventory, &file.host).0
    }

    #[test]
    fn what_meets_in_a_profile_gets_new_numbers_and_nothing_else_does() {
        let (any, friends) = (
            "{ name: any, from: any, protocol: tcp }",
            "{ name: friends, from: friends, protocol: tcp }",
        );
        let both = format!("{any}, {friends}");
        let (three, four) = ("10.0.0.3", "10.0.0.4");
        type Case<'a> = (&'a str, &'a str, &'a str);
        let cases: [(Case<'_>, Case<'_>, &[&str], usize); 10] = [
            // One kind of change.
            (("web", any, three), ("web", &both, three), &[], 0),
            (("web", friends, three), ("web", friends, four), &[], 0),
            (("web", any, three), ("plain", any, three), &[], 0),
            // A rule comes for a member that goes, and the other way about.
            (("web", any, three), ("web", &both, four), &["web"], 1),
            (("web", &both, three), ("web", any, four), &["web"], 1),
            // A rule that goes doesn't name the group that changes.
            (("web", &both, three), ("web", friends, four), &[], 0),
            // A port joins what loses a rule, and leaves what gains one.
            (("plain", &both, three), ("web", any, three), &["web"], 0),
            (("web", any, three), ("plain", &both, three), &["web"], 0),
            (("plain", any, three), ("web", &both, three), &[], 0),
            // A port joins what a member leaves, and leaves what another joins.
            (
                ("plain", friends, three),
                ("web", friends, four),
                &["plain", "web"],
                1,
            ),
        ];
        for ((groups, rules, friend), after, profiles, sets) in cases {
            let (old, new) = (view(groups, rules, friend), view(after.0, after.1, after.2));
            let stale = Stale::between(&old, &new);
            let names = stale.profiles.iter().map(|name| name.groups[0].as_str());
            assert_eq!(names.collect::<Vec<_>>(), profiles);
            assert_eq!(stale.members.len(), sets);
        }
    }
}
