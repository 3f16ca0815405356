//! Two decisions on the same copy: whether the second one may still be committed after the first.

use super::UNLIMITED;
use crate::ids::Moment;
use crate::objects::{Quota, Resource, Shared};
use crate::rules::NewRule;
use crate::sharing::NewShare;
use crate::state::State;
use crate::template::NewTemplateRule;
use crate::testing::{Servers, admin, member, new_group, new_rule, tcp_rule};
use crate::{groups, quotas, rules, sharing, template, wire_tags};
use model::{Direction, GroupId, RuleId};
use store::{CommitError, Store, Transaction};

/// What there is before.
struct Known {
    state: State,
    group: GroupId,
    other: GroupId,
    /// Of `group`.
    rule: RuleId,
    share: String,
    /// Two ids whose wire tags are the same.
    colliding: [String; 2],
}

type Decision = fn(&Known) -> Transaction;

const NOW: Moment = Moment { at: 1 };

/// `other` has a rule that names `group`.
async fn known(servers: &Servers) -> Known {
    let (one, who) = (&servers.one, member("p"));
    let made = one
        .create_groups(&who, vec![new_group("g"), new_group("h")])
        .await;
    let [group, other] = &made.expect("groups")[..] else {
        panic!("two")
    };
    let naming = NewRule {
        remote_group: Some(group.to_string()),
        ..new_rule(other)
    };
    let rule = one.create_rules(&who, vec![new_rule(group)]).await;
    one.create_rules(&who, vec![naming]).await.expect("a rule");
    let share = one.create_share(&who, share_with("q", group)).await;
    Known {
        state: servers.listed().await,
        group: group.clone(),
        other: other.clone(),
        rule: rule.expect("a rule").remove(0),
        share: share.expect("a share"),
        colliding: colliding(),
    }
}

fn colliding() -> [String; 2] {
    let tag = |id: &str| {
        let state = State::default();
        wire_tags::allocate(Transaction::new(), &state, &NOW, &GroupId::from(id)).1
    };
    let mut seen = std::collections::BTreeMap::new();
    for id in (0..).map(|n: u32| n.to_string()) {
        if let Some(before) = seen.insert(tag(&id), id.clone()) {
            return [before, id];
        }
    }
    unreachable!("there are fewer tags than numbers")
}

fn share_with(target: &str, group: &GroupId) -> NewShare {
    NewShare {
        object: Shared::Group(group.clone()),
        target: Some(target.to_owned()),
        project: None,
    }
}

async fn check(what: &str, first: Decision, second: Decision, meet: bool) {
    check_with(&UNLIMITED, what, first, second, meet).await;
}

async fn check_with(
    limits: &[(Resource, i64)],
    what: &str,
    first: Decision,
    second: Decision,
    meet: bool,
) {
    let servers = Servers::with(Quota::of(limits.iter().copied())).await;
    let known = known(&servers).await;
    let (first, second) = (first(&known), second(&known));
    servers.store.commit(first).await.expect("it is the first");
    let outcome = servers.store.commit(second).await;
    match meet {
        true => assert!(matches!(outcome, Err(CommitError::Conflict(_))), "{what}"),
        false => assert!(outcome.is_ok(), "{what}: {outcome:?}"),
    }
}

fn make_rule(known: &Known, new: NewRule, id: &str) -> Transaction {
    let mut id = || id.to_owned();
    let made = rules::create(&known.state, &NOW, &member("p"), &[new], &mut id);
    made.expect("it is new").transaction
}

fn add_rule(known: &Known) -> Transaction {
    make_rule(known, tcp_rule(&known.group, 1), "a")
}

fn add_same_rule(known: &Known) -> Transaction {
    let same = NewRule {
        protocol: Some("6".to_owned()),
        ..tcp_rule(&known.group, 1)
    };
    make_rule(known, same, "b")
}

fn add_another_rule(known: &Known) -> Transaction {
    make_rule(known, tcp_rule(&known.group, 2), "c")
}

fn name_group(known: &Known) -> Transaction {
    let naming = NewRule {
        remote_group: Some(known.group.to_string()),
        ..tcp_rule(&known.other, 2)
    };
    make_rule(known, naming, "d")
}

fn delete_rule(known: &Known) -> Transaction {
    let deleted = rules::delete(&known.state, &NOW, &member("p"), known.rule.as_str(), None);
    deleted.expect("it is there").transaction
}

fn update_rule(known: &Known) -> Transaction {
    let (who, id) = (member("p"), known.rule.as_str());
    let updated = rules::update(&known.state, &NOW, &who, id, "new", None);
    updated.expect("it is there").transaction
}

fn delete(known: &Known, group: &GroupId, if_revision: bool) -> Transaction {
    let revision = known.state.group_revision(&known.state.groups[group]);
    let (who, revision) = (member("p"), if_revision.then_some(revision));
    let deleted = groups::delete(&known.state, &NOW, &who, group.as_str(), revision);
    deleted.expect("it is there").transaction
}

fn delete_group(known: &Known) -> Transaction {
    delete(known, &known.group, false)
}

fn delete_group_as_seen(known: &Known) -> Transaction {
    delete(known, &known.group, true)
}

fn delete_other(known: &Known) -> Transaction {
    delete(known, &known.other, false)
}

fn update(known: &Known, patch: groups::GroupPatch, if_revision: bool) -> Transaction {
    let revision = known
        .state
        .group_revision(&known.state.groups[&known.group]);
    let revision = if_revision.then_some(revision);
    let (who, id) = (member("p"), known.group.as_str());
    let updated = groups::update(&known.state, &NOW, &who, id, &patch, revision);
    updated.expect("it is there").transaction
}

fn another_description() -> groups::GroupPatch {
    groups::GroupPatch {
        description: Some("another".to_owned()),
        ..Default::default()
    }
}

fn update_group(known: &Known) -> Transaction {
    update(known, another_description(), false)
}

fn update_group_as_seen(known: &Known) -> Transaction {
    update(known, another_description(), true)
}

fn make_group(known: &Known, ids: &[&str]) -> Transaction {
    let mut ids = ids.iter().map(|id| (*id).to_owned());
    let mut id = || ids.next().expect("one group, two rules");
    let new = [new_group("g")];
    let made = groups::create(&known.state, &NOW, &member("p"), &new, &mut id);
    made.expect("there is room").transaction
}

fn add_group(known: &Known) -> Transaction {
    make_group(known, &["x", "x1", "x2"])
}

fn add_another_group(known: &Known) -> Transaction {
    make_group(known, &["y", "y1", "y2"])
}

fn add_colliding(known: &Known) -> Transaction {
    make_group(known, &[&known.colliding[0], "z1", "z2"])
}

fn add_other_colliding(known: &Known) -> Transaction {
    make_group(known, &[&known.colliding[1], "z3", "z4"])
}

fn make_default(known: &Known, id: &'static str) -> Transaction {
    let mut ids = (0..).map(|n| format!("{id}{n}"));
    let mut id = || ids.next().expect("there is no end");
    let who = member("q");
    let made = groups::default(&known.state, &NOW, &who, &who.project, &mut id);
    made.expect("it may").transaction
}

fn add_default(known: &Known) -> Transaction {
    make_default(known, "e")
}

fn add_default_again(known: &Known) -> Transaction {
    make_default(known, "f")
}

fn share(known: &Known, target: &str, id: &str) -> Transaction {
    let new = share_with(target, &known.group);
    let made = sharing::create(&known.state, &NOW, &member("p"), &new, id);
    made.expect("it is new").transaction
}

fn add_share(known: &Known) -> Transaction {
    share(known, "r", "s")
}

fn add_same_share(known: &Known) -> Transaction {
    share(known, "r", "t")
}

fn move_share(known: &Known) -> Transaction {
    let target = Some("r".to_owned());
    let moved = sharing::update(&known.state, &member("p"), &known.share, &target);
    moved.expect("nobody uses it").transaction
}

fn delete_share(known: &Known) -> Transaction {
    let deleted = sharing::delete(&known.state, &member("p"), &known.share);
    deleted.expect("nobody uses it").transaction
}

fn use_share(known: &Known) -> Transaction {
    let (who, group) = (member("q"), &known.state.groups[&known.group]);
    groups::rely(Transaction::new(), &known.state, &NOW, &who, group)
}

fn set_quota(known: &Known) -> Transaction {
    let limits = [(Resource::Port, 1)].into();
    let set = quotas::set(&known.state, &admin(), "p", &limits, crate::Check::Forced);
    set.expect("an admin may").transaction
}

fn add_template_rule(known: &Known) -> Transaction {
    let new = NewTemplateRule {
        description: String::new(),
        direction: Direction::Ingress,
        family: None,
        protocol: None,
        range_min: None,
        range_max: None,
        remote_prefix: None,
        remote_group: None,
        remote_addresses: None,
        in_default_groups: true,
        in_other_groups: true,
    };
    let mut id = || "t".to_owned();
    let made = template::create(&known.state, &NOW, &admin(), &[new], &mut id);
    made.expect("it is new").transaction
}

#[tokio::test]
async fn rules_that_are_equal_meet_and_others_dont() {
    check("twice", add_rule, add_same_rule, true).await;
    check("two", add_rule, add_another_rule, false).await;
    check("naming", add_rule, name_group, false).await;
    check("gone twice", delete_rule, delete_rule, true).await;
    check("gone", delete_rule, update_rule, true).await;
    check("changed", update_rule, delete_rule, true).await;
    check("changed twice", update_rule, update_rule, true).await;
}

#[tokio::test]
async fn a_groups_end_meets_what_needs_it() {
    check("rule", delete_group, add_rule, true).await;
    check("rule first", add_rule, delete_group, true).await;
    check("remote", delete_group, name_group, true).await;
    check("remote first", name_group, delete_group, true).await;
    check("rule's end", delete_group, delete_rule, true).await;
    // Too strict, as all that happens to its rules writes one mark: it is decided anew.
    check("rule's end first", delete_rule, delete_group, true).await;
    check("rule's change", delete_group, update_rule, true).await;
    check("share", delete_group, add_share, true).await;
    check("share first", add_share, delete_group, true).await;
    check("use", delete_group, use_share, true).await;
    check("use first", use_share, delete_group, true).await;
    check("change", delete_group, update_group, true).await;
    check("change first", update_group, delete_group, true).await;
    // Its rule that names the group goes with either.
    check("other first", delete_other, delete_group, true).await;
    check("other", delete_group, delete_other, true).await;
}

#[tokio::test]
async fn if_match_holds_until_the_commit() {
    check("changed", update_group, update_group_as_seen, true).await;
    check("rule", add_rule, update_group_as_seen, true).await;
    check("rule's end", delete_rule, update_group_as_seen, true).await;
    check("rule's change", update_rule, delete_group_as_seen, true).await;
    check("rule, not asked", add_rule, update_group, false).await;
    check("other's rule", name_group, update_group_as_seen, false).await;
}

#[tokio::test]
async fn what_is_there_once_is_made_once() {
    check("default group", add_default, add_default_again, true).await;
    check("groups near the quota", add_group, add_another_group, true).await;
    let far = [
        (Resource::SecurityGroup, 5000),
        (Resource::SecurityGroupRule, 5000),
    ];
    check_with(&far, "groups", add_group, add_another_group, false).await;
    check_with(&far, "wire tag", add_colliding, add_other_colliding, true).await;
    let near = [(Resource::SecurityGroupRule, 500)];
    check_with(&near, "rules", add_rule, add_another_rule, true).await;
    check("share", add_share, add_same_share, true).await;
    check("moved share", add_share, move_share, true).await;
    check("share's end", use_share, delete_share, true).await;
    check("share's end first", delete_share, use_share, true).await;
    check("share's move", use_share, move_share, true).await;
    check("share's move first", move_share, use_share, true).await;
    check("quota", set_quota, set_quota, true).await;
    check("template", add_template_rule, add_template_rule, true).await;
}
