use super::*;
use crate::testing::{Servers, admin, member, new_group, new_rule, port, reader, refusal};

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[tokio::test]
async fn tags_are_set_added_removed_and_cleared() {
    let servers = Servers::open().await;
    let (one, who) = (&servers.one, member("p"));
    let group = one.create_groups(&who, vec![new_group("g")]).await;
    let group = group.expect("a group").remove(0);
    let rule = one.create_rules(&who, vec![new_rule(&group)]).await;
    let rule = rule.expect("a rule").remove(0);
    servers.put(&port("x", &who.project, &[])).await;
    let of = |object: Tagged<'_>| {
        let state = one.state();
        let said = match object {
            Tagged::Group(id) => state.groups[id].said.clone(),
            Tagged::Rule(_) => state.rule(&rule).expect("there").said.clone(),
            Tagged::Port(id) => state.ports[id].said.clone(),
            other => panic!("{other:?}"),
        };
        Vec::from_iter(said.tags.iter().map(ToString::to_string))
    };
    let all = [
        Tagged::Group(group.as_str()),
        Tagged::Rule(rule.as_str()),
        Tagged::Port("x"),
    ];
    for object in all {
        let set = one.set_tags(&who, object, &words(&["b", "a"])).await;
        set.expect("fine");
        assert_eq!(of(object), ["a", "b"]);
        for _ in 0..2 {
            one.add_tag(&who, object, "ö/,").await.expect("fine");
        }
        one.remove_tag(&who, object, "a")
            .await
            .expect("it is there");
        assert_eq!(of(object), ["b", "ö/,"]);
        let missing = one.remove_tag(&who, object, "a").await;
        let tag = "a".to_owned();
        assert_eq!(refusal(missing), Refused::TagNotFound { tag });
        one.clear_tags(&admin(), object).await.expect("fine");
        assert!(of(object).is_empty());
        let other = one.add_tag(&member("q"), object, "a").await;
        assert!(refusal(other).to_string().contains("not"));
        let reader = one.add_tag(&reader("p"), object, "a").await;
        assert!(matches!(refusal(reader), Refused::NotAuthorized { .. }));
        assert!(of(object).is_empty());
    }
}

#[tokio::test]
async fn what_cant_be_a_tag_is_refused() {
    let servers = Servers::open().await;
    let (one, who) = (&servers.one, member("p"));
    let group = one.create_groups(&who, vec![new_group("g")]).await;
    let group = group.expect("a group").remove(0);
    let object = Tagged::Group(group.as_str());
    let check = async |tags: Vec<String>, why: &str| {
        let set = one.set_tags(&who, object, &tags).await;
        assert_eq!(refusal(set), Refused::input("tags", why));
    };
    check(words(&["a", "a"]), "Duplicate items in the list: 'a'").await;
    check(words(&[""]), "a tag is not empty").await;
    let long = "x".repeat(256);
    let why = format!("'{long}' exceeds maximum length of 255");
    check(vec![long], &why).await;
    let many = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    let why = "The number of tags exceed the per-resource limit of 50";
    check(many(51), why).await;
    one.set_tags(&who, object, &many(50))
        .await
        .expect("as many may be");
    let more = one.add_tag(&who, object, "more").await;
    assert_eq!(refusal(more), Refused::input("tags", why));
    let check = async |object: Tagged<'_>, expected: Refused| {
        assert_eq!(refusal(one.clear_tags(&who, object).await), expected);
    };
    let x = || "x".to_owned();
    check(Tagged::Group("x"), Refused::SecurityGroupNotFound(x())).await;
    check(Tagged::Rule("x"), Refused::SecurityGroupRuleNotFound(x())).await;
    check(Tagged::Addresses("x"), Refused::AddressGroupNotFound(x())).await;
    check(Tagged::Network("x"), Refused::NetworkNotFound(x())).await;
    check(Tagged::Subnet("x"), Refused::SubnetNotFound(x())).await;
    check(Tagged::Port("x"), Refused::PortNotFound(x())).await;
}
