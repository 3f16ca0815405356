use super::*;
use crate::rules::NewRule;
use crate::testing::{Servers, admin, member, new_group, new_rule, port, reader, refusal};
use model::GroupId;

async fn group(servers: &Servers, who: &Caller) -> GroupId {
    let made = servers.one.create_groups(who, vec![new_group("g")]).await;
    made.expect("a group").remove(0)
}

fn share(group: &GroupId, target: Option<&str>) -> NewShare {
    NewShare {
        object: Shared::Group(group.clone()),
        target: target.map(str::to_owned),
        project: None,
    }
}

fn naming(group: &GroupId, remote: &GroupId) -> NewRule {
    NewRule {
        remote_group: Some(remote.to_string()),
        ..new_rule(group)
    }
}

#[tokio::test]
async fn who_a_group_is_shared_with_sees_and_uses_it_and_changes_nothing() {
    let servers = Servers::open().await;
    let (one, owner, user) = (&servers.one, member("p"), member("q"));
    let (shared, own) = (group(&servers, &owner).await, group(&servers, &user).await);
    let missing = Refused::SecurityGroupNotFound(shared.to_string());
    let use_it = || one.create_rules(&user, vec![naming(&own, &shared)]);
    assert_eq!(refusal(use_it().await), missing);
    let id = one.create_share(&owner, share(&shared, Some("q"))).await;
    let id = id.expect("it is the owner's");
    let rule = use_it().await.expect("it is shared").remove(0);
    {
        let state = one.state();
        let object = Shared::Group(shared.clone());
        assert!(state.is_shared_with(&user, &object));
        assert!(!state.is_shared_with(&member("r"), &object));
        assert!(state.group_for(&user, shared.as_str()).is_ok());
        assert!(state.group_for(&member("r"), shared.as_str()).is_err());
        let rules = state.rules_of(&shared);
        assert!(
            rules
                .into_iter()
                .all(|rule| state.may_see_rule(&user, rule))
        );
        assert!(state.share_for(&owner, &id).is_ok());
        assert!(state.share_for(&user, &id).is_err());
    }
    let changed = one.create_rules(&user, vec![new_rule(&shared)]).await;
    let may_not = Refused::not_authorized("create_security_group_rule");
    assert_eq!(refusal(changed), may_not);
    let deleted = one.delete_group(&user, shared.as_str(), None).await;
    let may_not = Refused::not_authorized("delete_security_group");
    assert_eq!(refusal(deleted), may_not);

    let in_use = Refused::SharePolicyInUse(shared.to_string());
    assert_eq!(refusal(one.delete_share(&owner, &id).await), in_use);
    let other = one.update_share(&owner, &id, Some("r".to_owned())).await;
    assert_eq!(refusal(other), in_use);
    // Everybody are these, too.
    one.update_share(&admin(), &id, None)
        .await
        .expect("an admin may");
    assert!(one.state().group_for(&member("r"), shared.as_str()).is_ok());
    one.update_share(&owner, &id, Some("q".to_owned()))
        .await
        .expect("it suffices");
    one.delete_rule(&user, rule.as_str(), None)
        .await
        .expect("it is there");
    servers
        .put(&port("x", &user.project, std::slice::from_ref(&shared)))
        .await;
    assert_eq!(refusal(one.delete_share(&owner, &id).await), in_use);
    let all = one.create_share(&admin(), share(&shared, None)).await;
    all.expect("an admin may");
    one.delete_share(&owner, &id)
        .await
        .expect("another one suffices");
    servers.put(&port("x", &user.project, &[])).await;
    assert!(one.state().group_for(&user, shared.as_str()).is_ok());
    // With the group its shares go.
    one.delete_group(&owner, shared.as_str(), None)
        .await
        .expect("nobody uses it");
    let left = servers.listed().await;
    assert!(left.shares.is_empty() && left.index.shares_of.is_empty());
}

#[tokio::test]
async fn c2_nobody_shares_what_isnt_theirs_nor_with_everybody() {
    let servers = Servers::open().await;
    let (one, owner) = (&servers.one, member("p"));
    let id = group(&servers, &owner).await;
    let before = servers.listed().await.revision;
    let missing = Refused::SecurityGroupNotFound(id.to_string());
    let check = async |who: Caller, new: NewShare, expected: Refused| {
        assert_eq!(refusal(one.create_share(&who, new).await), expected);
    };
    check(member("q"), share(&id, Some("q")), missing).await;
    let may_not = Refused::not_authorized("create_rbac_policy:target_tenant");
    check(owner.clone(), share(&id, None), may_not).await;
    let may_not = Refused::not_authorized("create_rbac_policy");
    check(reader("p"), share(&id, Some("q")), may_not).await;
    let why = "'*' is no project's id";
    let star = Refused::input("target_tenant", why);
    check(owner.clone(), share(&id, Some("*")), star).await;
    let foreign = NewShare {
        project: Some(ProjectId::from("q")),
        ..share(&id, Some("q"))
    };
    check(owner.clone(), foreign, Refused::ForeignProject).await;
    let nothing = share(&GroupId::from("nothing"), Some("q"));
    let missing = Refused::SecurityGroupNotFound("nothing".to_owned());
    check(admin(), nothing, missing).await;
    assert_eq!(servers.listed().await.revision, before);

    let made = one
        .create_share(&owner, share(&id, Some("q")))
        .await
        .expect("theirs");
    check(
        owner.clone(),
        share(&id, Some("q")),
        Refused::DuplicateSharePolicy,
    )
    .await;
    let other = one
        .create_share(&owner, share(&id, Some("r")))
        .await
        .expect("theirs");
    let same = one.update_share(&owner, &other, Some("q".to_owned())).await;
    assert_eq!(refusal(same), Refused::DuplicateSharePolicy);
    let everybody = one.update_share(&owner, &made, None).await;
    let may_not = Refused::not_authorized("update_rbac_policy:target_tenant");
    assert_eq!(refusal(everybody), may_not);
    let missing = Refused::SharePolicyNotFound(made.clone());
    let foreign = one
        .update_share(&member("q"), &made, Some("z".to_owned()))
        .await;
    assert_eq!(refusal(foreign), missing);
    assert_eq!(
        refusal(one.delete_share(&member("q"), &made).await),
        missing
    );
    one.delete_share(&owner, &made).await.expect("theirs");
    one.create_share(&owner, share(&id, Some("q")))
        .await
        .expect("it is free again");
}
