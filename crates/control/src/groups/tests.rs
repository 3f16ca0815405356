use super::*;
use crate::objects::AskedPeer;
use crate::rules::AskedNumber;
use crate::template::NewTemplateRule;
use crate::testing::{
    Servers, admin, member, new_group, new_rule, port, reader, refusal, tcp_rule,
};
use model::{Direction, RuleId};
use std::collections::BTreeSet;
use store::{KeyPrefix, Store};

const MISSING: &str = "00000000-0000-4000-8000-000000000000";

async fn group(servers: &Servers, who: &Caller) -> GroupId {
    let made = servers.one.create_groups(who, vec![new_group("g")]).await;
    made.expect("a group").remove(0)
}

/// Direction, family, and whether the remote is the group itself.
fn rules(state: &State, group: &GroupId) -> Vec<String> {
    let rules = state.rules_of(group);
    let mut rules: Vec<String> = rules
        .map(|rule| {
            let own = rule.asks.peer == AskedPeer::Group(group.clone());
            assert!(own || rule.asks.peer == AskedPeer::Anyone);
            let (direction, family) = (rule.asks.direction, rule.asks.family);
            format!("{direction} {family}{}", if own { " own" } else { "" })
        })
        .collect();
    rules.sort();
    rules
}

#[tokio::test]
async fn a_new_group_lets_everything_out_and_a_default_one_its_members_in() {
    let servers = Servers::open().await;
    let who = member("p");
    let id = group(&servers, &who).await;
    let default = servers.one.default_group(&who, &who.project).await;
    let default = default.expect("there is one");
    let state = servers.one.state();
    assert_eq!(rules(&state, &id), ["egress IPv4", "egress IPv6"]);
    let four = [
        "egress IPv4",
        "egress IPv6",
        "ingress IPv4 own",
        "ingress IPv6 own",
    ];
    assert_eq!(rules(&state, &default), four);
    let group = &state.groups[&id];
    assert_eq!(group.said.name, "g");
    assert_eq!(group.project, who.project);
    assert!(group.stateful && !group.default);
    assert_eq!(state.group_revision(group), group.modified);
    let default = &state.groups[&default];
    assert_eq!(default.said.name, "default");
    assert!(default.stateful && default.default);
    let tags: BTreeSet<_> = state.groups.values().map(|group| group.wire_tag).collect();
    assert_eq!(tags.len(), 2);
    assert!(!tags.contains(&None) && !tags.contains(&Some(0)));
}

#[tokio::test]
async fn names_and_texts_are_checked() {
    let servers = Servers::open().await;
    let who = member("p");
    let id = group(&servers, &who).await;
    let before = servers.listed().await.revision;
    let one = &servers.one;
    let long = |what: &str| format!("'{what}' exceeds maximum length of 255");
    let check = async |new: NewGroup, expected: Refused| {
        let patch = GroupPatch {
            name: Some(new.name.clone()),
            description: Some(new.description.clone()),
            stateful: None,
        };
        if new.project.is_none() {
            let updated = one.update_group(&who, id.as_str(), patch, None).await;
            assert_eq!(refusal(updated), expected);
        }
        let made = one.create_groups(&who, vec![new_group("fine"), new]).await;
        assert_eq!(refusal(made), expected);
    };
    for name in ["default", "Default", "DEFAULT"] {
        check(new_group(name), Refused::DefaultAlreadyExists).await;
    }
    let name = "ä".repeat(256);
    check(new_group(&name), Refused::input("name", long(&name))).await;
    let described = NewGroup {
        description: name.clone(),
        ..new_group("")
    };
    check(described, Refused::input("description", long(&name))).await;
    let foreign = NewGroup {
        project: Some(ProjectId::from("q")),
        ..new_group("")
    };
    check(foreign, Refused::ForeignProject).await;
    let none = refusal(one.create_groups(&who, vec![]).await);
    assert_eq!(none, Refused::input("security_groups", "there is none"));
    let nowhere = NewGroup {
        project: Some(ProjectId::from("a/b")),
        ..new_group("")
    };
    let bad = refusal(one.create_groups(&admin(), vec![nowhere]).await);
    assert_eq!(bad, Refused::bad_project("a/b"));
    assert_eq!(servers.listed().await.revision, before);

    let (name, again) = ("ä".repeat(255), "ä".repeat(255));
    let fine = vec![new_group(""), new_group(&name), new_group(&again)];
    assert_eq!(one.create_groups(&who, fine).await.expect("fine").len(), 3);
}

fn in_new_groups(l4_port: i64) -> NewTemplateRule {
    let number = Some(AskedNumber::Number(l4_port));
    NewTemplateRule {
        description: String::new(),
        direction: Direction::Ingress,
        family: None,
        protocol: Some("tcp".to_owned()),
        range_min: number.clone(),
        range_max: number,
        remote_prefix: None,
        remote_group: None,
        remote_addresses: None,
        in_default_groups: false,
        in_other_groups: true,
    }
}

#[tokio::test]
async fn more_groups_than_a_transaction_holds_are_refused_whole() {
    let servers = Servers::open().await;
    let who = member("p");
    let none = [
        (Resource::SecurityGroup, -1),
        (Resource::SecurityGroupRule, -1),
    ]
    .into();
    let set = servers
        .one
        .set_quota(&admin(), "p", none, crate::Check::Forced)
        .await;
    set.expect("an admin may");
    let many = |count| servers.one.create_groups(&who, vec![new_group("g"); count]);
    assert_eq!(many(100).await.expect("they fit").len(), 100);
    let before = servers.listed().await.revision;
    let most = "101 objects; at most 100 are possible".to_owned();
    assert_eq!(refusal(many(101).await), Refused::TooMany(most));
    assert_eq!(servers.listed().await.revision, before);
    let twelve = Vec::from_iter((1..=12).map(in_new_groups));
    let longer = servers.one.create_template_rules(&admin(), twelve).await;
    longer.expect("an admin may");
    // Each group with its number, 14 rules with their locks; and the mark of the numbers.
    let most = "3001 writes, at most 1536 are possible".to_owned();
    assert_eq!(refusal(many(100).await), Refused::TooMany(most));
    assert_eq!(many(40).await.expect("they fit").len(), 40);
}

#[tokio::test]
async fn what_another_project_has_is_not_there() {
    let servers = Servers::open().await;
    let (one, owner) = (&servers.one, member("p"));
    let id = group(&servers, &owner).await;
    let rule = one.create_rules(&owner, vec![new_rule(&id)]).await;
    let rule = rule.expect("a rule").remove(0);
    let no_group = |id: &str| Refused::SecurityGroupNotFound(id.to_owned());
    let patch = GroupPatch::default;
    let check = async |who: Caller, id: &GroupId, rule: &RuleId, [group, of_rule]: [Refused; 2]| {
        let text = id.as_str();
        let updated = one.update_group(&who, text, patch(), None).await;
        assert_eq!(refusal(updated), group.clone());
        let deleted = one.delete_group(&who, text, None).await;
        let named = |refused: Refused, action: &str| match refused {
            Refused::NotAuthorized { .. } => Refused::not_authorized(action),
            other => other,
        };
        let expected = named(group.clone(), "delete_security_group");
        assert_eq!(refusal(deleted), expected);
        let made = one.create_rules(&who, vec![tcp_rule(id, 1)]).await;
        assert_eq!(refusal(made), named(group, "create_security_group_rule"));
        let deleted = one.delete_rule(&who, rule.as_str(), None).await;
        let expected = named(of_rule.clone(), "delete_security_group_rule");
        assert_eq!(refusal(deleted), expected);
        let updated = one.update_rule(&who, rule.as_str(), "", None).await;
        let expected = named(of_rule, "update_security_group_rule");
        assert_eq!(refusal(updated), expected);
    };
    let no_rule = Refused::SecurityGroupRuleNotFound(rule.to_string());
    check(member("q"), &id, &rule, [no_group(id.as_str()), no_rule]).await;
    for text in [
        MISSING,
        "not-an-id",
        "../group",
        "",
        "a/b",
        "\n",
        &"x".repeat(600),
    ] {
        let (id, rule) = (GroupId::from(text), RuleId::from(text));
        let no_rule = Refused::SecurityGroupRuleNotFound(text.to_owned());
        check(owner.clone(), &id, &rule, [no_group(text), no_rule]).await;
    }
    let may_not = Refused::not_authorized("update_security_group");
    check(reader("p"), &id, &rule, [may_not.clone(), may_not]).await;
    let may_not = Refused::not_authorized("create_security_group");
    let made = one.create_groups(&reader("p"), vec![new_group("g")]).await;
    assert_eq!(refusal(made), may_not);

    let state = one.state();
    assert!(state.group_for(&owner, id.as_str()).is_ok());
    assert!(state.group_for(&reader("p"), id.as_str()).is_ok());
    assert!(state.group_for(&admin(), id.as_str()).is_ok());
    assert!(state.rule_for(&admin(), rule.as_str()).is_ok());
    let foreign = state.group_for(&member("q"), id.as_str());
    assert_eq!(foreign.err(), Some(no_group(id.as_str())));
}

#[tokio::test]
async fn a_groups_revision_grows_with_its_rules_and_if_match_asks_for_it() {
    let servers = Servers::open().await;
    let (one, who) = (&servers.one, member("p"));
    let id = group(&servers, &who).await;
    let revision = || {
        let state = one.state();
        state.group_revision(&state.groups[&id])
    };
    let renamed = |name: &str| GroupPatch {
        name: Some(name.to_owned()),
        ..GroupPatch::default()
    };
    let mut seen = vec![revision()];
    let rule = one.create_rules(&who, vec![new_rule(&id)]).await;
    seen.push(revision());
    let rule = rule.expect("a rule").remove(0);
    let update = one.update_group(&who, id.as_str(), renamed("new"), Some(revision()));
    update.await.expect("the revision is that");
    seen.push(revision());
    let deleted = one.delete_rule(&who, rule.as_str(), None).await;
    deleted.expect("it is there");
    seen.push(revision());
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");

    let [wanted, current] = [seen[2], seen[3]];
    let stale = Refused::RevisionConstraint { wanted, current };
    let update = one.update_group(&who, id.as_str(), renamed("x"), Some(wanted));
    assert_eq!(refusal(update.await), stale);
    let delete = one.delete_group(&who, id.as_str(), Some(wanted)).await;
    assert_eq!(refusal(delete), stale);
    assert_eq!(one.state().groups[&id].said.name, "new");
    let delete = one.delete_group(&who, id.as_str(), Some(current)).await;
    delete.expect("the revision is that");
    assert!(!one.state().groups.contains_key(&id));
}

#[tokio::test]
async fn a_group_that_ports_are_in_stays() {
    let servers = Servers::open().await;
    let (one, who) = (&servers.one, member("p"));
    let id = group(&servers, &who).await;
    servers
        .put(&port("a", &who.project, std::slice::from_ref(&id)))
        .await;
    let in_use = Refused::SecurityGroupInUse {
        group: id.to_string(),
    };
    assert_eq!(in_use.to_string(), format!("Security Group {id} in use."));
    for who in [&who, &admin()] {
        let deleted = one.delete_group(who, id.as_str(), None).await;
        assert_eq!(refusal(deleted), in_use);
    }
    let stateful = |stateful| GroupPatch {
        stateful: Some(stateful),
        ..GroupPatch::default()
    };
    let update = one.update_group(&who, id.as_str(), stateful(false), None);
    assert_eq!(refusal(update.await), in_use);
    let update = one.update_group(&who, id.as_str(), stateful(true), None);
    update.await.expect("it is stateful already");
    servers.put(&port("a", &who.project, &[])).await;
    let update = one.update_group(&who, id.as_str(), stateful(false), None);
    update.await.expect("nothing is in it");
    assert!(!one.state().groups[&id].stateful);
    let deleted = one.delete_group(&who, id.as_str(), None).await;
    deleted.expect("nothing is in it");
}

#[tokio::test]
async fn the_default_group_is_there_for_good() {
    let servers = Servers::open().await;
    let (one, who) = (&servers.one, member("p"));
    let default = || one.default_group(&who, &who.project);
    let first = default().await.expect("made");
    assert_eq!(default().await.expect("known"), first);
    assert_eq!(one.state().groups.len(), 1);
    let rename = GroupPatch {
        name: Some("other".to_owned()),
        ..GroupPatch::default()
    };
    let update = one.update_group(&who, first.as_str(), rename.clone(), None);
    assert_eq!(refusal(update.await), Refused::CannotUpdateDefault);
    let update = one
        .update_group(&admin(), first.as_str(), rename, None)
        .await;
    assert_eq!(refusal(update), Refused::CannotUpdateDefault);
    let describe = GroupPatch {
        description: Some("ours".to_owned()),
        ..GroupPatch::default()
    };
    let update = one.update_group(&who, first.as_str(), describe, None);
    update.await.expect("that may be changed");
    let deleted = one.delete_group(&who, first.as_str(), None).await;
    assert_eq!(refusal(deleted), Refused::CannotRemoveDefault);
    let deleted = one.delete_group(&admin(), first.as_str(), None).await;
    deleted.expect("an admin may");
    assert_eq!(one.state().groups.len(), 0);
    let second = default().await.expect("made again");
    assert_ne!(second, first);
    assert_eq!(rules(&one.state(), &second).len(), 4);
    let foreign = one.default_group(&who, &ProjectId::from("q")).await;
    assert_eq!(refusal(foreign), Refused::ForeignProject);
    // A project's id comes from outside.
    let nobody = one.default_group(&admin(), &ProjectId::from("")).await;
    assert_eq!(refusal(nobody), Refused::bad_project(""));
}

/// More than one transaction holds: its own rules, and others that name it.
#[tokio::test]
async fn a_group_goes_with_all_its_rules_and_those_that_name_it() {
    let servers = Servers::open().await;
    let (one, who) = (&servers.one, member("p"));
    let most = [(Resource::SecurityGroupRule, -1)].into();
    one.set_quota(&admin(), "p", most, crate::Check::Forced)
        .await
        .expect("an admin may");
    let groups = vec![new_group("gone"), new_group("a"), new_group("b")];
    let groups = one.create_groups(&who, groups).await.expect("groups");
    let [gone, a, b] = &groups[..] else {
        panic!("three")
    };
    for first in [1, 51, 101] {
        let own = (first..first + 50).map(|n| tcp_rule(gone, n)).collect();
        one.create_rules(&who, own).await.expect("rules");
        for other in [a, b] {
            let naming = (first..first + 50).map(|n| crate::rules::NewRule {
                remote_group: Some(gone.to_string()),
                ..tcp_rule(other, n)
            });
            one.create_rules(&who, naming.collect())
                .await
                .expect("rules");
        }
    }
    let stays = one.create_rules(&who, vec![tcp_rule(a, 1)]).await;
    let stays = stays.expect("a rule").remove(0);
    let revisions = |state: &State| [a, b].map(|id| state.group_revision(&state.groups[id]));
    let before = revisions(&one.state());
    let deleted = one.delete_group(&who, gone.as_str(), None).await;
    deleted.expect("it is not in use");

    let state = servers.listed().await;
    assert!(!state.rules.contains_key(gone));
    assert!(!state.index.rules_naming_group.contains_key(gone));
    assert_eq!(state.rules_of(a).count(), 3);
    assert!(state.rule(&stays).is_some());
    assert_eq!(state.rules_of(b).count(), 2);
    let after = revisions(&state);
    assert!(after[0] > before[0] && after[1] > before[1]);
    assert!(sweep::gone(&state).is_empty());
    let listing = servers.store.list(&KeyPrefix::all()).await;
    let records = listing.expect("memory answers").records;
    let left: Vec<_> = records
        .iter()
        .filter(|record| record.key.as_str().contains(gone.as_str()))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// As a server leaves it that dies between a deletion's transactions.
#[tokio::test]
async fn what_a_deletion_left_is_not_seen_and_swept_by_the_next_server() {
    let servers = Servers::open().await;
    let (one, who) = (&servers.one, member("p"));
    let groups = one
        .create_groups(&who, vec![new_group("gone"), new_group("a")])
        .await;
    let groups = groups.expect("groups");
    let [gone, a] = &groups[..] else {
        panic!("two")
    };
    let naming = crate::rules::NewRule {
        remote_group: Some(gone.to_string()),
        ..new_rule(a)
    };
    let naming = one
        .create_rules(&who, vec![naming])
        .await
        .expect("a rule")
        .remove(0);
    let record = one.state().groups[gone].key();
    servers.write(Transaction::new().delete(record)).await;
    // C5: a rule whose remote has gone is no rule, and not one for everybody.
    assert!(one.state().rule(&naming).is_none());
    assert_eq!(one.state().rules_of(a).count(), 2);
    assert_eq!(one.state().rules_of(gone).count(), 0);
    let refused = refusal(one.delete_rule(&who, naming.as_str(), None).await);
    assert_eq!(
        refused,
        Refused::SecurityGroupRuleNotFound(naming.to_string())
    );

    let third = Control::open(servers.store.clone(), Vec::new()).await;
    let third = third.expect("memory answers");
    let state = third.state();
    assert!(!state.rules.contains_key(gone));
    assert!(!state.index.group_of_rule.contains_key(&naming));
    assert_eq!(state.rules_of(a).count(), 2);
}

#[tokio::test]
async fn a_group_that_cant_be_read_keeps_its_rules() {
    let servers = Servers::open().await;
    let who = member("p");
    let id = group(&servers, &who).await;
    let default = servers.one.default_group(&who, &who.project).await;
    let default = default.expect("made");
    for id in [&id, &default] {
        let key = records::key(Group::KIND, id.as_str());
        let newer = Transaction::new().put(key, b"\xffof a newer version".as_slice());
        servers.write(newer).await;
    }
    let third = Control::open(servers.store.clone(), Vec::new()).await;
    let third = third.expect("memory answers");
    assert_eq!(third.state().unreadable.len(), 2);
    assert_eq!(third.state().rules[&id].len(), 2);
    assert_eq!(third.state().rules_of(&id).count(), 0);
    let again = third.default_group(&who, &who.project).await;
    assert_eq!(again.expect("it is known"), default);
}

#[tokio::test]
async fn a_wire_tag_rests_a_day_and_is_given_again() {
    let now = |at| Moment { at };
    let id = GroupId::from("g");
    let tag_of = |state: &State, at| {
        let (_, tag) = wire_tags::allocate(Transaction::new(), state, &now(at), &id);
        tag.expect("some are free")
    };
    let servers = Servers::open().await;
    let free = tag_of(&servers.listed().await, 1000);
    servers
        .write(wire_tags::release(Transaction::new(), &now(1000), free))
        .await;
    let state = servers.listed().await;
    let next = free % u16::MAX + 1;
    for (at, expected) in [(1000, next), (0, next), (87_399, next), (87_400, free)] {
        assert_eq!(tag_of(&state, at), expected, "at {at}");
    }
}

#[tokio::test]
async fn all_wire_tags_are_given_and_then_none() {
    let servers = Servers::open().await;
    let store = &servers.store;
    let held = |tag: u16| records::held("tag", &tag.to_string());
    let tags: Vec<u16> = (1..=u16::MAX)
        .filter(|tag| ![1, 40_000].contains(tag))
        .collect();
    for some in tags.chunks(128) {
        let some = some
            .iter()
            .fold(Transaction::new(), |t, tag| t.put(held(*tag), *b"g"));
        store.commit(some).await.expect("no conditions");
    }
    let server = Control::open(store.clone(), Vec::new())
        .await
        .expect("it opens");
    let who = member("p");
    // The default group and two more.
    let groups = server
        .create_groups(&who, vec![new_group("a"), new_group("b")])
        .await;
    let groups = groups.expect("groups");
    let state = server.state();
    let tags: Vec<_> = state.groups.values().map(|group| group.wire_tag).collect();
    assert_eq!(tags.iter().flatten().count(), 2);
    let given: BTreeSet<_> = tags.iter().flatten().collect();
    assert_eq!(given, BTreeSet::from([&1, &40_000]));
    assert_eq!(rules(&state, &groups[1]).len(), 2);
    assert!(
        state
            .rules_of(&groups[1])
            .all(|rule| rule.asks.direction == Direction::Egress)
    );
}
