use super::*;
use crate::testing::{Servers, admin, member, new_group, new_rule, reader, refusal, tcp_rule};

#[tokio::test]
async fn limits_are_the_projects_the_servers_or_the_usual() {
    let servers = Servers::with(Quota::of([(Resource::Port, 7), (Resource::Network, -1)])).await;
    let one = &servers.one;
    let check = |expected: &str| {
        let limits = one.state().limits(&ProjectId::from("p"));
        let limits = limits
            .iter()
            .map(|(of, limit)| format!("{} {limit}", of.name()));
        assert_eq!(limits.collect::<Vec<_>>().join(", "), expected);
    };
    let usual = "security_group 10, security_group_rule 100, address_group 10, network -1, \
                 subnet 100, port 7, rbac_policy 10";
    check(usual);
    let set = async |limits: &[(Resource, i64)]| {
        let limits = limits.iter().copied().collect();
        one.set_quota(&admin(), "p", limits, crate::Check::Forced)
            .await
            .expect("an admin may");
    };
    set(&[(Resource::Port, 3), (Resource::SecurityGroup, -1)]).await;
    set(&[(Resource::Port, 0)]).await;
    check(
        "security_group -1, security_group_rule 100, address_group 10, network -1, \
         subnet 100, port 0, rbac_policy 10",
    );
    assert_eq!(one.state().default_limits()[&Resource::Port], 7);
    one.delete_quota(&admin(), "p").await.expect("it is there");
    check(usual);
    let missing = Refused::QuotaNotFound("p".to_owned());
    assert_eq!(refusal(one.delete_quota(&admin(), "p").await), missing);
}

#[tokio::test]
async fn only_admins_set_quotas_and_only_such_as_can_be() {
    let servers = Servers::open().await;
    let check = async |who: Caller, project: &str, limit: i64, expected: Refused| {
        let limits = [(Resource::Port, limit)].into();
        let set = servers
            .one
            .set_quota(&who, project, limits, crate::Check::Forced)
            .await;
        assert_eq!(refusal(set), expected);
    };
    let may_not = Refused::not_authorized("update_quota");
    check(member("p"), "p", 5, may_not.clone()).await;
    check(reader("p"), "p", 5, may_not).await;
    let why = "-2 is less than -1, which is no limit";
    check(admin(), "p", -2, Refused::input("quota", why)).await;
    check(admin(), "a/b", 5, Refused::bad_project("a/b")).await;
    let deleted = servers.one.delete_quota(&member("p"), "p").await;
    assert_eq!(refusal(deleted), Refused::not_authorized("delete_quota"));
    assert_eq!(servers.listed().await.quotas().count(), 0);
}

#[tokio::test]
async fn what_is_over_the_quota_is_refused_and_what_goes_gives_room() {
    let quota = Quota::of([
        (Resource::SecurityGroup, 3),
        (Resource::SecurityGroupRule, 9),
    ]);
    let servers = Servers::with(quota).await;
    let (one, who) = (&servers.one, member("p"));
    let groups = |count| one.create_groups(&who, vec![new_group("g"); count]);
    let used = |resource| one.state().used(&who.project)[&resource];
    // The default one counts.
    let over = Refused::over(Resource::SecurityGroup);
    assert_eq!(refusal(groups(3).await), over);
    assert_eq!(used(Resource::SecurityGroup), 1);
    let made = groups(2).await.expect("there is room");
    assert_eq!(refusal(groups(1).await), over);
    assert_eq!(
        (
            used(Resource::SecurityGroup),
            used(Resource::SecurityGroupRule)
        ),
        (3, 8)
    );
    let over = Refused::over(Resource::SecurityGroupRule);
    let two = vec![tcp_rule(&made[0], 1), tcp_rule(&made[0], 2)];
    assert_eq!(refusal(one.create_rules(&who, two.clone()).await), over);
    let rule = one.create_rules(&who, vec![new_rule(&made[0])]).await;
    let rule = rule.expect("there is room").remove(0);
    one.delete_rule(&who, rule.as_str(), None)
        .await
        .expect("it is there");
    one.delete_group(&who, made[1].as_str(), None)
        .await
        .expect("nobody uses it");
    one.create_rules(&who, two).await.expect("there is room");
    assert_eq!(
        (
            used(Resource::SecurityGroup),
            used(Resource::SecurityGroupRule)
        ),
        (2, 8)
    );
    // Others are not concerned, and the default group comes whatever the quota.
    let other = member("q");
    let zero = [
        (Resource::SecurityGroup, 0),
        (Resource::SecurityGroupRule, 0),
    ]
    .into();
    one.set_quota(&admin(), "q", zero, crate::Check::Forced)
        .await
        .expect("an admin may");
    let default = one.default_group(&other, &other.project).await;
    default.expect("whatever the quota");
    assert_eq!(
        one.state().used(&other.project)[&Resource::SecurityGroupRule],
        4
    );
}

#[test]
fn far_from_the_limit_creations_dont_meet() {
    let (now, project) = (Moment { at: 1 }, ProjectId::from("p"));
    let asked_and_said = |limit| {
        let mut state = State::default();
        state.defaults = Quota::of([(Resource::Port, limit)]);
        let one = (Resource::Port, 1);
        let admitted = admit(Transaction::new(), &state, &now, &project, one);
        let admitted = admitted.expect("there is room");
        (admitted.conditions().len(), admitted.writes().len())
    };
    assert_eq!(asked_and_said(-1), (0, 0));
    assert_eq!(asked_and_said(1000), (0, 0));
    assert_eq!(asked_and_said(999), (1, 1));
    assert_eq!(asked_and_said(1), (1, 1));
}
