//! Lists: filters, fields, order, pages. What any list does is tried on one kind; query.rs has the details.

use crate::bed::{Bed, Plan};
use api::Limits;
use serde_json::json;

#[tokio::test]
async fn lists_are_filtered_by_every_key_in_use() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let (a, b) = (alice.group("a").await, alice.group("b").await);
    let rule = json!({"security_group_id": a, "direction": "ingress", "protocol": "tcp", "description": "x"});
    let rule = alice
        .make("security-group-rules", "security_group_rule", rule)
        .await;
    alice
        .put(&format!("security-groups/{b}/tags/red"), json!(null))
        .await
        .done(201);
    for (path, expected) in [
        (format!("security-groups?id={a}"), vec![&a]),
        ("security-groups?name=a".into(), vec![&a]),
        (format!("security-groups?id={a}&name=b"), vec![]),
        ("security-groups?tags=red".into(), vec![&b]),
        (
            "security-groups?name=b&project_id=alice&shared=false".into(),
            vec![&b],
        ),
        ("security-groups?project_id=bob".into(), vec![]),
        (
            format!("security-group-rules?security_group_id={a}&protocol=tcp"),
            vec![&rule],
        ),
        (
            format!("security-group-rules?security_group_id={a}&direction=ingress"),
            vec![&rule],
        ),
        ("security-group-rules?description=x".into(), vec![&rule]),
        (
            format!("security-group-rules.json?security_group_id={b}&protocol=tcp"),
            vec![],
        ),
    ] {
        assert_eq!(
            alice.listed(&path, "id").await,
            Vec::from_iter(expected.into_iter().cloned()),
            "{path}"
        );
    }
    let unknown = alice.get("security-groups?colour=red").await;
    unknown.refused(
        400,
        "HTTPBadRequest: ['colour'] is invalid attribute for filtering",
    );
    alice
        .get("security-groups?security_group_rules=x")
        .await
        .refused(400, "HTTPBadRequest");
}

#[tokio::test]
async fn only_wanted_fields_are_shown() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let id = alice.group("a").await;
    let list = alice
        .get("security-groups?name=a&fields=id&fields=name&fields=nonsense")
        .await
        .done(200);
    assert_eq!(
        list.body,
        json!({"security_groups": [{"id": id, "name": "a"}]})
    );
    let one = alice
        .get(&format!("security-groups/{id}?fields=name"))
        .await
        .done(200);
    assert_eq!(one.body, json!({"security_group": {"name": "a"}}));
}

#[tokio::test]
async fn pages_lead_to_each_other() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    for name in ["e", "c", "a", "d", "b"] {
        alice.group(name).await;
    }
    let mut path =
        "/v2.0/security-groups?limit=2&sort_key=name&sort_dir=asc&fields=name&fields=id".to_owned();
    let (mut seen, mut back) = (Vec::new(), String::new());
    loop {
        let page = alice.get(&path).await.done(200);
        let groups = page.body["security_groups"]
            .as_array()
            .expect("it is a list");
        seen.extend(
            groups
                .iter()
                .map(|group| group["name"].as_str().unwrap_or_default().to_owned()),
        );
        let links = page.body["security_groups_links"]
            .as_array()
            .expect("there are links");
        let link = |rel: &str| links.iter().find(|link| link["rel"] == rel);
        let below = |link: &serde_json::Value| {
            let href = link["href"].as_str().expect("it is text");
            let base = format!("http://{}", bed.address);
            href.strip_prefix(&base)
                .expect("it is absolute, and leads here")
                .to_owned()
        };
        back = link("previous").map_or(back, below);
        match link("next") {
            Some(next) => path = below(next),
            None => break,
        }
    }
    // With the default group.
    assert_eq!(seen, ["a", "b", "c", "d", "default", "e"]);
    assert_eq!(
        alice.listed(&back, "name").await,
        ["default", "e"],
        "{back}"
    );
}

#[tokio::test]
async fn a_list_has_a_longest_page() {
    let limits = Limits {
        page: 3,
        ..Limits::default()
    };
    let plan = Plan {
        limits,
        ..Plan::default()
    };
    let bed = plan.start().await;
    let alice = bed.member("alice");
    for _ in 0..4 {
        alice.group("g").await;
    }
    for path in ["security-groups", "security-groups?limit=1000"] {
        let page = alice.get(path).await.done(200);
        assert_eq!(
            page.body["security_groups"].as_array().map(Vec::len),
            Some(3)
        );
        assert_eq!(page.body["security_groups_links"][0]["rel"], "next");
    }
}

#[tokio::test]
async fn members_see_their_own_and_admins_all() {
    let bed = Bed::new().await;
    bed.member("alice").group("hers").await;
    bed.member("bob").group("his").await;
    let names = |of: Vec<String>| {
        of.into_iter()
            .filter(|name| name != "default")
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(bed.member("alice").listed("security-groups", "name").await),
        ["hers"]
    );
    let foreign = bed
        .member("alice")
        .listed("security-groups?project_id=bob", "name")
        .await;
    assert_eq!(foreign, Vec::<String>::new());
    let mut all = names(bed.admin().listed("security-groups", "name").await);
    all.sort();
    assert_eq!(all, ["hers", "his"]);
}
