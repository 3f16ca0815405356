//! Tests of two servers that decide at once on one store: what each alone refuses they never do together.

mod bulks;
mod pairs;

use crate::caller::Caller;
use crate::control::Control;
use crate::groups::GroupPatch;
use crate::objects::{AskedPeer, Group, Quota, Resource, Shared};
use crate::records::{self, Kept};
use crate::refused::{Failed, Refused};
use crate::rules::{self, NewRule};
use crate::sharing::NewShare;
use crate::state::State;
use crate::tags::Tagged;
use crate::testing::{Dice, Servers, admin, member, new_group, new_rule, port, tcp_rule};
use model::{Family, GroupId, RuleId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Store, Transaction};
use tokio::task::JoinSet;

/// Each task by one of two servers; their outcomes in no order.
async fn at_once<T, F>(servers: &Arc<Servers>, count: usize, task: F) -> Vec<T>
where
    T: Send + 'static,
    F: AsyncTask<T>,
{
    let mut tasks = JoinSet::new();
    for n in 0..count {
        let (servers, task) = (servers.clone(), task.clone());
        tasks.spawn(async move {
            let server = [&servers.one, &servers.other][n % 2];
            task.run(server, n).await
        });
    }
    tasks.join_all().await
}

/// So that a task may borrow the server.
trait AsyncTask<T>: Clone + Send + 'static {
    fn run<'a>(&'a self, server: &'a Control, n: usize) -> impl Future<Output = T> + Send + 'a;
}

#[derive(Clone)]
struct MakeRule(GroupId, fn(&GroupId, usize) -> NewRule);

impl AsyncTask<Result<RuleId, Failed>> for MakeRule {
    async fn run(&self, server: &Control, n: usize) -> Result<RuleId, Failed> {
        let new = vec![(self.1)(&self.0, n)];
        let made = server.create_rules(&member("p"), new).await;
        made.map(|mut ids| ids.remove(0))
    }
}

#[derive(Clone)]
struct MakeDefault;

impl AsyncTask<GroupId> for MakeDefault {
    async fn run(&self, server: &Control, _: usize) -> GroupId {
        let who = member("p");
        let made = server.default_group(&who, &who.project).await;
        made.expect("it is made or known")
    }
}

#[derive(Clone)]
struct MakeGroup;

impl AsyncTask<Result<GroupId, Failed>> for MakeGroup {
    async fn run(&self, server: &Control, _: usize) -> Result<GroupId, Failed> {
        let made = server
            .create_groups(&member("p"), vec![new_group("g")])
            .await;
        made.map(|mut ids| ids.remove(0))
    }
}

/// The first deletes the group, the others add rules to it, or such as name it.
#[derive(Clone)]
struct DeleteWhileAdded {
    group: GroupId,
    other: GroupId,
}

impl AsyncTask<Result<(), Failed>> for DeleteWhileAdded {
    async fn run(&self, server: &Control, n: usize) -> Result<(), Failed> {
        let who = member("p");
        let l4_port = n as u16 + 1;
        let new = match n % 3 {
            _ if n == 5 => return server.delete_group(&who, self.group.as_str(), None).await,
            0 => tcp_rule(&self.group, l4_port),
            _ => NewRule {
                remote_group: Some(self.group.to_string()),
                ..tcp_rule(&self.other, l4_port)
            },
        };
        server.create_rules(&who, vec![new]).await.map(|_| ())
    }
}

async fn open(limits: &[(Resource, i64)]) -> Arc<Servers> {
    Arc::new(Servers::with(Quota::of(limits.iter().copied())).await)
}

async fn groups(servers: &Servers, count: usize) -> Vec<GroupId> {
    let new = vec![new_group("g"); count];
    let made = servers.one.create_groups(&member("p"), new).await;
    servers.settle().await;
    made.expect("there is room")
}

const MANY: usize = 24;
/// Near a limit the project's count keeps creations apart, and hides what else does.
const UNLIMITED: [(Resource, i64); 1] = [(Resource::SecurityGroupRule, -1)];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_rule_is_made_once() {
    for _ in 0..10 {
        let servers = open(&UNLIMITED).await;
        let group = groups(&servers, 1).await.remove(0);
        // Two spellings.
        let make = MakeRule(group.clone(), |group, n| NewRule {
            protocol: Some(["tcp", "6"][n / 2 % 2].to_owned()),
            ..new_rule(group)
        });
        let outcomes = at_once(&servers, MANY, make).await;
        let made: Vec<_> = outcomes.iter().filter_map(|o| o.as_ref().ok()).collect();
        assert_eq!(made.len(), 1);
        let exists = Refused::RuleExists(made[0].to_string());
        for outcome in &outcomes {
            let refused = match outcome {
                Ok(_) => continue,
                Err(Failed::Refused(refused)) => refused,
                Err(other) => panic!("{other}"),
            };
            assert_eq!(*refused, exists);
        }
        check_sound(&servers).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn different_rules_of_a_group_dont_hinder_each_other_for_good() {
    let servers = open(&UNLIMITED).await;
    let group = groups(&servers, 1).await.remove(0);
    let make = MakeRule(group.clone(), |group, n| tcp_rule(group, n as u16 + 1));
    for outcome in at_once(&servers, MANY, make).await {
        outcome.expect("there is room");
    }
    assert_eq!(servers.listed().await.rules_of(&group).count(), 2 + MANY);
    check_sound(&servers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_project_has_one_default_group() {
    for _ in 0..10 {
        let servers = open(&[]).await;
        let made: BTreeSet<_> = at_once(&servers, MANY, MakeDefault)
            .await
            .into_iter()
            .collect();
        assert_eq!(made.len(), 1);
        assert_eq!(servers.listed().await.groups.len(), 1);
        check_sound(&servers).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_quota_is_used_up_and_not_exceeded() {
    for limit in [5, 9] {
        let servers = open(&[(Resource::SecurityGroup, limit)]).await;
        let outcomes = at_once(&servers, MANY, MakeGroup).await;
        let made = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        // One is the default group.
        assert_eq!(made as i64, limit - 1);
        for outcome in outcomes {
            match outcome {
                Ok(_) => {}
                Err(Failed::Refused(refused)) => {
                    assert_eq!(refused, Refused::over(Resource::SecurityGroup));
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(servers.listed().await.groups.len() as i64, limit);
        check_sound(&servers).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_deleted_group_no_rule_is_left_that_came_at_once() {
    for _ in 0..10 {
        let servers = open(&UNLIMITED).await;
        let two = groups(&servers, 2).await;
        let task = DeleteWhileAdded {
            group: two[0].clone(),
            other: two[1].clone(),
        };
        for outcome in at_once(&servers, MANY, task).await {
            match outcome {
                Ok(()) => {}
                Err(Failed::Refused(Refused::SecurityGroupNotFound(id))) => {
                    assert_eq!(id, two[0].as_str());
                }
                Err(other) => panic!("{other}"),
            }
        }
        let state = servers.listed().await;
        assert!(!state.groups.contains_key(&two[0]));
        assert_eq!(state.rules_of(&two[0]).count(), 0);
        assert_eq!(state.rules_of(&two[1]).count(), 2);
        check_sound(&servers).await;
    }
}

/// A deletion that was decided before a port joined is decided anew: the port's mark says so.
#[tokio::test]
async fn a_port_that_joins_is_seen_by_who_deletes_its_group() {
    let servers = open(&[]).await;
    let group = groups(&servers, 1).await.remove(0);
    let who = member("p");
    let before = servers.listed().await;
    let now = crate::ids::Moment { at: 1 };
    let stale = crate::groups::delete(&before, &now, &who, group.as_str(), None);
    let stale = stale.expect("nothing is in it").transaction;
    let stateless = GroupPatch {
        stateful: Some(false),
        ..GroupPatch::default()
    };
    let patched = crate::groups::update(&before, &now, &who, group.as_str(), &stateless, None);
    let patched = patched.expect("nothing is in it").transaction;
    let joins = port("x", &who.project, std::slice::from_ref(&group));
    let transaction = Transaction::new().put(joins.key(), joins.value());
    let transaction = crate::groups::rely(transaction, &before, &now, &who, &before.groups[&group]);
    servers.write(transaction).await;
    for late in [stale, patched] {
        let outcome = servers.store.commit(late).await;
        assert!(
            matches!(outcome, Err(store::CommitError::Conflict(_))),
            "{outcome:?}"
        );
    }
    let deleted = servers.other.delete_group(&who, group.as_str(), None).await;
    assert!(matches!(
        deleted,
        Err(Failed::Refused(Refused::SecurityGroupInUse { .. }))
    ));
}

/// The share by which another project's port may be in a group stays until the port has decided.
#[tokio::test]
async fn a_share_doesnt_go_under_who_uses_it() {
    let servers = open(&[]).await;
    let group = groups(&servers, 1).await.remove(0);
    let (owner, user) = (member("p"), member("q"));
    let new = NewShare {
        object: Shared::Group(group.clone()),
        target: Some("q".to_owned()),
        project: None,
    };
    let share = servers.one.create_share(&owner, new).await.expect("theirs");
    let before = servers.listed().await;
    let now = crate::ids::Moment { at: 1 };
    let joins = || {
        let joins = port("x", &user.project, std::slice::from_ref(&group));
        let transaction = Transaction::new().put(joins.key(), joins.value());
        crate::groups::rely(transaction, &before, &now, &user, &before.groups[&group])
    };
    let withdrawn = crate::sharing::delete(&before, &owner, &share);
    let withdrawn = withdrawn.expect("nobody uses it").transaction;
    let late = async |transaction| {
        let outcome = servers.store.commit(transaction).await;
        assert!(
            matches!(outcome, Err(store::CommitError::Conflict(_))),
            "{outcome:?}"
        );
    };
    servers.write(joins()).await;
    late(withdrawn).await;
    servers.put(&port("x", &user.project, &[])).await;
    servers
        .other
        .delete_share(&owner, &share)
        .await
        .expect("nobody uses it any more");
    late(joins()).await;
}

/// C2: whatever a member asks for, nothing that is another's, or everybody's, changes.
#[tokio::test]
async fn c2_a_member_changes_nothing_that_isnt_theirs() {
    let servers = open(&[]).await;
    let (owner, mallory) = (member("p"), member("m"));
    let mut dice = Dice::new(2);
    let mut world = World::default();
    for _ in 0..60 {
        world.step(&servers.one, &owner, &mut dice).await;
    }
    servers.settle().await;
    let theirs = |state: &State| {
        let groups = state.groups.values();
        let groups = groups.filter(|group| group.project == owner.project);
        let groups: Vec<_> = groups
            .map(|group| (group.clone(), state.rules_of(&group.id).cloned().collect()))
            .collect::<Vec<(_, Vec<_>)>>();
        let quota = state.limits(&owner.project);
        let shares = state.shares.values().cloned();
        let shares = shares.filter(|share| share.project == owner.project);
        let shares: Vec<_> = shares.collect();
        (groups, quota, state.template.clone(), shares)
    };
    let before = theirs(&servers.one.state());
    assert!(before.0.len() > 3);
    for _ in 0..300 {
        world.step(&servers.other, &mallory, &mut dice).await;
        for id in world.groups.clone() {
            // What of theirs Mallory can make use of.
            assert!(
                servers
                    .other
                    .state()
                    .group_for(&mallory, id.as_str())
                    .is_err()
                    || { servers.other.state().groups[&id].project == mallory.project }
            );
        }
        let quota = servers.other.set_quota(
            &mallory,
            "m",
            [(Resource::Port, -1)].into(),
            crate::Check::Forced,
        );
        assert!(matches!(
            quota.await,
            Err(Failed::Refused(Refused::NotAuthorized { .. }))
        ));
    }
    servers.settle().await;
    assert!(
        theirs(&servers.one.state()) == before,
        "something has changed"
    );
}

/// What random use cases know of.
#[derive(Default)]
struct World {
    groups: Vec<GroupId>,
    rules: Vec<RuleId>,
    shares: Vec<String>,
    done: BTreeMap<&'static str, usize>,
    refused: usize,
}

impl World {
    async fn step(&mut self, server: &Control, who: &Caller, dice: &mut Dice) {
        let group = dice.one_of(&self.groups).cloned();
        let group = group.unwrap_or_else(|| GroupId::from("none"));
        let other = dice.one_of(&self.groups).cloned();
        let rule = dice.one_of(&self.rules).cloned();
        let rule = rule.unwrap_or_else(|| RuleId::from("none"));
        let share = dice.one_of(&self.shares).cloned().unwrap_or_default();
        let revision = (dice.below(4) == 0).then(|| {
            let state = server.state();
            let group = state.groups.get(&group);
            group.map_or(1, |group| state.group_revision(group))
        });
        let (what, outcome) = match dice.below(16) {
            0 | 1 => {
                let new = vec![new_group("g"); 1 + dice.below(2)];
                let made = server.create_groups(who, new).await;
                let made = made.map(|ids| self.groups.extend(ids));
                ("create groups", made)
            }
            2..=7 => {
                let new = NewRule {
                    remote_group: other
                        .filter(|_| dice.below(2) == 0)
                        .map(|id| id.to_string()),
                    family: Some(Family::BOTH[dice.below(2)]),
                    ..tcp_rule(&group, 1 + dice.below(3) as u16)
                };
                let made = server.create_rules(who, vec![new]).await;
                ("create rules", made.map(|ids| self.rules.extend(ids)))
            }
            8 | 9 => {
                let deleted = server.delete_rule(who, rule.as_str(), None).await;
                ("delete rule", deleted)
            }
            10 => {
                let updated = server.update_rule(who, rule.as_str(), "new", None);
                ("update rule", updated.await)
            }
            11 => {
                let deleted = server.delete_group(who, group.as_str(), revision).await;
                ("delete group", deleted)
            }
            12 => {
                let patch = GroupPatch {
                    name: Some("new".to_owned()),
                    stateful: Some(dice.below(2) == 0),
                    ..GroupPatch::default()
                };
                let updated = server.update_group(who, group.as_str(), patch, revision);
                ("update group", updated.await)
            }
            13 => {
                let new = NewShare {
                    object: Shared::Group(group),
                    target: Some(["a", "b"][dice.below(2)].to_owned()),
                    project: None,
                };
                let made = server.create_share(who, new).await;
                ("create share", made.map(|id| self.shares.push(id)))
            }
            14 => ("delete share", server.delete_share(who, &share).await),
            _ => {
                let tag = ["a", "b"][dice.below(2)];
                let object = Tagged::Group(group.as_str());
                ("add tag", server.add_tag(who, object, tag).await)
            }
        };
        match outcome {
            Ok(()) => *self.done.entry(what).or_default() += 1,
            Err(Failed::Refused(_)) => self.refused += 1,
            Err(other) => panic!("{what}: {other}"),
        }
    }
}

/// Use cases of three projects by two servers at once; then what holds always.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn random_use_cases_leave_a_sound_store() {
    for seed in 1..=6 {
        let servers = open(&[(Resource::SecurityGroup, 6), (Resource::RbacPolicy, 4)]).await;
        let mut tasks = JoinSet::new();
        for n in 0..4 {
            let servers = servers.clone();
            tasks.spawn(async move {
                let mut dice = Dice::new(seed * 10 + n);
                let mut world = World::default();
                // Two by two they are of one project.
                let who = member(["p", "q"][n as usize / 2]);
                let admin = admin();
                for _ in 0..150 {
                    let server = [&servers.one, &servers.other][dice.below(2)];
                    let who = if dice.below(10) == 0 { &admin } else { &who };
                    let known = server.state().groups.keys().cloned().collect();
                    world.groups = known;
                    world.step(server, who, &mut dice).await;
                }
                world
            });
        }
        let worlds = tasks.join_all().await;
        let kinds: BTreeSet<_> = worlds.iter().flat_map(|world| world.done.keys()).collect();
        assert_eq!(kinds.len(), 9, "seed {seed}: {kinds:?}");
        assert!(worlds.iter().any(|world| world.refused > 0));
        check_sound(&servers).await;
    }
}

/// What no order of commits may break.
async fn check_sound(servers: &Servers) {
    servers.settle().await;
    let listed = servers.listed().await;
    for server in [&servers.one, &servers.other] {
        // Its indices were kept step by step, these were made anew.
        assert!(*server.state() == listed, "a copy isn't what is stored");
    }
    assert_eq!(listed.unreadable, BTreeMap::new());
    assert!(crate::sweep::gone(&listed).is_empty());
    let all = |group: &GroupId| listed.rules[group].values();
    for group in listed.rules.keys() {
        assert!(listed.groups.contains_key(group), "{group}");
        assert_eq!(listed.rules_of(group).count(), all(group).count());
        let contents: Vec<_> = all(group).map(|rule| rules::content(&rule.asks)).collect();
        let different: BTreeSet<_> = contents.iter().collect();
        assert_eq!(different.len(), contents.len(), "{contents:?}");
        for rule in all(group) {
            if let AskedPeer::Group(remote) = &rule.asks.peer {
                assert!(listed.groups.contains_key(remote), "{remote}");
            }
        }
    }
    check_tags(&listed);
    check_keys(servers, &listed).await;
    check_quotas(&listed);
}

fn check_tags(listed: &State) {
    let tags = listed.groups.values().map(|group| group.wire_tag);
    let different: BTreeSet<_> = tags.clone().collect();
    assert_eq!(different.len(), tags.count());
    for group in listed.groups.values() {
        let tag = group.wire_tag.expect("there are enough").to_string();
        let holder = listed
            .holder(&records::held("tag", &tag))
            .expect("it is held");
        assert_eq!(*holder.object, group.id.as_str());
    }
}

/// Locks and marks are those of what is there.
async fn check_keys(servers: &Servers, listed: &State) {
    let records = servers.store.list(&store::KeyPrefix::all()).await;
    let records = records.expect("memory answers").records;
    let of_kind = |kind: &str| {
        let keys = records.iter().map(|record| record.key.as_str());
        let paths = keys.filter_map(|key| key.strip_prefix(kind));
        paths.map(str::to_owned).collect::<Vec<_>>()
    };
    let rules: usize = listed.rules.values().map(BTreeMap::len).sum();
    assert_eq!(of_kind("held/rule/").len(), rules);
    assert_eq!(of_kind("held/share/").len(), listed.shares.len());
    let group_marks = of_kind("mark/rules/");
    for group in group_marks.iter().chain(&of_kind("mark/group/")) {
        assert!(listed.groups.contains_key(group.as_str()), "{group}");
    }
    for project in listed.projects.values() {
        let default = &listed.groups[&project.default_group];
        assert!(default.default && default.project == project.id);
    }
    let defaults = listed.groups.values().filter(|group| group.default);
    assert_eq!(defaults.count(), listed.projects.len());
    assert_eq!(of_kind("group/").len(), listed.groups.len());
    let key = |group: &Group| group.key();
    assert!(
        listed
            .groups
            .values()
            .all(|group| { records.iter().any(|record| record.key == key(group)) })
    );
}

fn check_quotas(listed: &State) {
    for project in listed.index.counts.keys() {
        let limits = listed.limits(project);
        for (resource, used) in listed.used(project) {
            // A default group comes whatever the quota.
            let room = limits[&resource] as u64 + u64::from(resource == Resource::SecurityGroup);
            assert!(used <= room, "{project}: {used} of {resource:?}");
        }
    }
}
