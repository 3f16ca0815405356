use super::*;
use crate::testing::{Servers, admin, member, new_group, refusal};

fn new() -> NewTemplateRule {
    NewTemplateRule {
        description: String::new(),
        direction: Direction::Ingress,
        family: None,
        protocol: None,
        range_min: None,
        range_max: None,
        remote_prefix: None,
        remote_group: None,
        remote_addresses: None,
        in_default_groups: false,
        in_other_groups: true,
    }
}

fn ported(l4_port: i64) -> NewTemplateRule {
    NewTemplateRule {
        protocol: Some("tcp".to_owned()),
        range_min: Some(AskedNumber::Number(l4_port)),
        range_max: Some(AskedNumber::Number(l4_port)),
        ..new()
    }
}

#[tokio::test]
async fn a_store_gets_the_built_in_template_once() {
    let servers = Servers::open().await;
    let one = &servers.one;
    assert_eq!(one.state().template.len(), 4);
    let ids: Vec<RuleId> = one.state().template.keys().cloned().collect();
    for id in &ids {
        let deleted = one.delete_template_rule(&admin(), id.as_str()).await;
        deleted.expect("an admin may");
    }
    let third = Control::open(servers.store.clone(), Vec::new()).await;
    assert!(third.expect("it opens").state().template.is_empty());
    let who = member("p");
    let made = one.create_groups(&who, vec![new_group("g")]).await;
    let made = made.expect("a group").remove(0);
    assert_eq!(one.state().rules_of(&made).count(), 0);
}

#[tokio::test]
async fn new_groups_follow_the_template_and_old_ones_stay() {
    let servers = Servers::open().await;
    let (one, who) = (&servers.one, member("p"));
    let groups = || one.create_groups(&who, vec![new_group("g")]);
    let old = groups().await.expect("a group").remove(0);
    let template = vec![
        NewTemplateRule {
            description: "ssh".to_owned(),
            remote_group: Some(PARENT.to_owned()),
            ..ported(22)
        },
        ported(80),
    ];
    let made = one.create_template_rules(&admin(), template).await;
    let made = made.expect("an admin may");
    assert_eq!(made.len(), 2);
    let new = groups().await.expect("a group").remove(0);
    {
        let state = one.state();
        assert_eq!(state.rules_of(&old).count(), 2);
        let ssh = |rule: &&crate::Stored<GroupRule>| rule.asks.range_min == Some(22);
        let ssh = state.rules_of(&new).find(ssh).expect("from the template");
        assert_eq!(ssh.asks.peer, AskedPeer::Group(new.clone()));
        assert_eq!(ssh.said.description, "ssh");
        assert_eq!(state.rules_of(&new).count(), 4);
    }
    // It has its key as any other.
    let again = crate::rules::NewRule {
        remote_group: Some(new.to_string()),
        ..crate::testing::tcp_rule(&new, 22)
    };
    let again = refusal(one.create_rules(&who, vec![again]).await);
    assert!(matches!(again, Refused::RuleExists(_)));
}

#[tokio::test]
async fn what_the_template_cant_have_is_refused() {
    let servers = Servers::open().await;
    let one = &servers.one;
    let check = async |new: Vec<NewTemplateRule>, expected: Refused| {
        let made = one.create_template_rules(&admin(), new).await;
        assert_eq!(refusal(made), expected);
    };
    let made = one.create_template_rules(&admin(), vec![ported(22)]).await;
    let id = made.expect("an admin may").remove(0);
    let exists = Refused::DefaultRuleExists(id.to_string());
    check(vec![ported(22)], exists.clone()).await;
    let in_both = NewTemplateRule {
        in_default_groups: true,
        ..ported(22)
    };
    check(vec![in_both], exists).await;
    let twice = vec![ported(23), ported(23)];
    check(twice, Refused::DuplicateDefaultRuleInPost).await;
    let other = NewTemplateRule {
        remote_group: Some("other".to_owned()),
        ..new()
    };
    let why = "in the template only PARENT is possible, the group itself";
    check(vec![other], Refused::input("remote_group_id", why)).await;
    let addresses = NewTemplateRule {
        remote_addresses: Some("a".to_owned()),
        ..new()
    };
    let why = "in the template none is possible";
    check(
        vec![addresses],
        Refused::input("remote_address_group_id", why),
    )
    .await;
    let both = NewTemplateRule {
        remote_group: Some(PARENT.to_owned()),
        remote_prefix: Some("10.0.0.0/8".to_owned()),
        ..new()
    };
    check(vec![both], Refused::MultipleRemoteEntities).await;
    let port = Refused::InvalidPortValue("0".to_owned());
    check(vec![ported(0)], port).await;
    let many = (100..150).map(ported).collect();
    let why = "the template has 50 rules at most".to_owned();
    check(many, Refused::TooMany(why)).await;
    let only_default = NewTemplateRule {
        in_default_groups: true,
        in_other_groups: false,
        ..ported(22)
    };
    let made = one
        .create_template_rules(&admin(), vec![only_default])
        .await;
    made.expect("no group would have both");
    let gone = one.delete_template_rule(&admin(), "gone").await;
    assert_eq!(
        refusal(gone),
        Refused::DefaultRuleNotFound("gone".to_owned())
    );
    let who = member("p");
    let made = one.create_template_rules(&who, vec![new()]).await;
    let may_not = Refused::not_authorized("create_default_security_group_rule");
    assert_eq!(refusal(made), may_not);
    let deleted = one.delete_template_rule(&who, id.as_str()).await;
    let may_not = Refused::not_authorized("delete_default_security_group_rule");
    assert_eq!(refusal(deleted), may_not);
}

/// The bound is such that a group with all of the template is a transaction.
#[tokio::test]
async fn a_group_from_the_longest_template_can_be_made() {
    let servers = Servers::open().await;
    let one = &servers.one;
    let in_both = |l4_port| NewTemplateRule {
        in_default_groups: true,
        ..ported(l4_port)
    };
    let template = (1..=46).map(in_both).collect();
    let made = one.create_template_rules(&admin(), template).await;
    made.expect("an admin may");
    assert_eq!(one.state().template.len(), MOST_RULES);
    let who = member("p");
    let made = one.create_groups(&who, vec![new_group("g")]).await;
    let made = made.expect("it fits").remove(0);
    assert_eq!(one.state().rules_of(&made).count(), 48);
    assert_eq!(
        one.state().used(&who.project)[&crate::objects::Resource::SecurityGroupRule],
        98
    );
}
