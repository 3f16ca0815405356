//! A hundred in one request, and one: whether the second decision may still be committed after the first. Of so many,
//! one condition stands for many that ask whether a name is free.

use super::check_sound;
use crate::groups;
use crate::ids::{Moment, new_id};
use crate::objects::{Quota, Resource};
use crate::rules::{self, NewRule};
use crate::state::State;
use crate::testing::{Servers, member, new_group, tcp_rule};
use crate::wire_tags;
use model::{GroupId, RuleId};
use std::collections::BTreeSet;
use store::{CommitError, Condition, Store, Transaction};

type Decision = fn(&Known) -> Transaction;

/// What there is before.
struct Known {
    state: State,
    /// The first has a rule of its own, and is to have a hundred more, some of which name the others.
    groups: Vec<GroupId>,
    rule: RuleId,
}

const NOW: Moment = Moment { at: 1 };
const FAR: [(Resource, i64); 2] = [
    (Resource::SecurityGroup, 5000),
    (Resource::SecurityGroupRule, 5000),
];

async fn known(servers: &Servers) -> Known {
    let (one, who) = (&servers.one, member("p"));
    let groups = one.create_groups(&who, vec![new_group("g"); 20]).await;
    let groups = groups.expect("there is room");
    let rule = one.create_rules(&who, vec![tcp_rule(&groups[0], 1000)]);
    Known {
        rule: rule.await.expect("it is new").remove(0),
        state: servers.listed().await,
        groups,
    }
}

/// `meet`: the second is decided anew.
async fn check(what: &str, first: Decision, second: Decision, meet: bool) {
    let servers = Servers::with(Quota::of(FAR)).await;
    let known = known(&servers).await;
    let (first, second) = (first(&known), second(&known));
    servers.store.commit(first).await.expect("it is the first");
    let outcome = servers.store.commit(second).await;
    match meet {
        true => assert!(matches!(outcome, Err(CommitError::Conflict(_))), "{what}"),
        false => assert!(outcome.is_ok(), "{what}: {outcome:?}"),
    }
    check_sound(&servers).await;
}

/// They ask for more names than there are conditions.
fn merged(transaction: Transaction) -> Transaction {
    let absent = |condition: &&Condition| match condition {
        Condition::Absent(key) => key.as_str().starts_with("held/"),
        _ => false,
    };
    let asked = transaction.conditions().iter().filter(absent).count();
    assert_eq!(asked, 0, "{:?}", transaction.conditions());
    transaction
}

fn make_rules(known: &Known, new: &[NewRule]) -> Transaction {
    let made = rules::create(&known.state, &NOW, &member("p"), new, &mut new_id);
    made.expect("they are new").transaction
}

/// From 1 to 100.
fn hundred_rules(known: &Known) -> Transaction {
    let rules = (1..=100).map(|n| NewRule {
        remote_group: known.groups[1..].get(n).map(|group| group.to_string()),
        ..tcp_rule(&known.groups[0], n as u16)
    });
    merged(make_rules(known, &Vec::from_iter(rules)))
}

/// Of which half are the same.
fn other_hundred_rules(known: &Known) -> Transaction {
    let rules = (51..=150).map(|n| NewRule {
        remote_group: known.groups[1..].get(n - 51).map(|group| group.to_string()),
        ..tcp_rule(&known.groups[0], n as u16)
    });
    merged(make_rules(known, &Vec::from_iter(rules)))
}

fn one_of_them(known: &Known) -> Transaction {
    make_rules(known, &[tcp_rule(&known.groups[0], 100)])
}

fn another_rule(known: &Known) -> Transaction {
    make_rules(known, &[tcp_rule(&known.groups[0], 200)])
}

fn rule_of_another_group(known: &Known) -> Transaction {
    make_rules(known, &[tcp_rule(&known.groups[5], 100)])
}

fn delete_rule(known: &Known) -> Transaction {
    let deleted = rules::delete(&known.state, &NOW, &member("p"), known.rule.as_str(), None);
    deleted.expect("it is there").transaction
}

fn delete(known: &Known, at: usize) -> Transaction {
    let id = known.groups[at].as_str();
    let deleted = groups::delete(&known.state, &NOW, &member("p"), id, None);
    deleted.expect("it is there").transaction
}

fn delete_group(known: &Known) -> Transaction {
    delete(known, 0)
}

fn delete_a_named_group(known: &Known) -> Transaction {
    delete(known, 7)
}

fn delete_unnamed_group(known: &Known) -> Transaction {
    delete(known, 1)
}

fn make_groups(known: &Known, names: &[String]) -> Transaction {
    let mut ids = names
        .iter()
        .flat_map(|name| ["", "-1", "-2"].map(|of| format!("{name}{of}")));
    let mut id = || ids.next().expect("a group and its two rules");
    let new = vec![new_group("g"); names.len()];
    let made = groups::create(&known.state, &NOW, &member("p"), &new, &mut id);
    made.expect("there is room").transaction
}

fn names_of_a_hundred() -> Vec<String> {
    Vec::from_iter((0..100).map(|n| format!("x{n}")))
}

fn hundred_groups(known: &Known) -> Transaction {
    merged(make_groups(known, &names_of_a_hundred()))
}

/// Whose number would be one of theirs.
fn group_with_a_number_of_theirs(known: &Known) -> Transaction {
    let theirs = BTreeSet::from_iter(names_of_a_hundred().iter().map(|name| tag_of(name)));
    let mut names = (0..).map(|n: u32| format!("y{n}"));
    let name = names.find(|name| theirs.contains(&tag_of(name)));
    make_groups(known, &[name.expect("numbers are few")])
}

/// Whose number isn't.
fn another_group(known: &Known) -> Transaction {
    let theirs = BTreeSet::from_iter(names_of_a_hundred().iter().map(|name| tag_of(name)));
    let mut names = (0..).map(|n: u32| format!("y{n}"));
    let name = names.find(|name| !theirs.contains(&tag_of(name)));
    make_groups(known, &[name.expect("numbers are many")])
}

fn tag_of(id: &str) -> u16 {
    let state = State::default();
    let tag = wire_tags::allocate(Transaction::new(), &state, &NOW, &GroupId::from(id)).1;
    tag.expect("all are free")
}

#[tokio::test]
async fn of_a_hundred_rules_none_is_made_twice() {
    let hundred = hundred_rules;
    check("one of them", hundred, one_of_them, true).await;
    check("one of them first", one_of_them, hundred, true).await;
    check("both a hundred", hundred, other_hundred_rules, true).await;
    check("both, otherwise", other_hundred_rules, hundred, true).await;
    check("another", hundred, another_rule, false).await;
    // Too strict, as all rules of the group have one mark: it is decided anew.
    check("another first", another_rule, hundred, true).await;
    check("a rule's end", hundred, delete_rule, false).await;
    check("a rule's end first", delete_rule, hundred, true).await;
    check("another group's", hundred, rule_of_another_group, false).await;
    check(
        "another group's first",
        rule_of_another_group,
        hundred,
        false,
    )
    .await;
}

#[tokio::test]
async fn what_a_hundred_rules_need_doesnt_go() {
    let hundred = hundred_rules;
    check("group", hundred, delete_group, true).await;
    check("group first", delete_group, hundred, true).await;
    check("named group", hundred, delete_a_named_group, true).await;
    check("named group first", delete_a_named_group, hundred, true).await;
    check("unnamed group", hundred, delete_unnamed_group, false).await;
    check("unnamed group first", delete_unnamed_group, hundred, false).await;
}

#[tokio::test]
async fn of_a_hundred_groups_none_has_anothers_number() {
    let (hundred, one) = (hundred_groups, group_with_a_number_of_theirs);
    check("a number", hundred, one, true).await;
    check("a number first", one, hundred, true).await;
    check("another", hundred, another_group, false).await;
    check("another first", another_group, hundred, true).await;
    check("a group's end", hundred, delete_unnamed_group, false).await;
    check("a group's end first", delete_unnamed_group, hundred, false).await;
}
