//! Security groups.

use crate::bed::{Bed, Plan};
use serde_json::{Value, json};

const GROUPS: &str = "security-groups";

fn group(attributes: Value) -> Value {
    json!({ "security_group": attributes })
}

fn at(id: &str) -> String {
    format!("{GROUPS}/{id}")
}

#[tokio::test]
async fn a_new_group_has_two_rules_and_all_attributes() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let made = alice
        .post(GROUPS, group(json!({"name": "web", "description": "d"})))
        .await
        .done(201);
    let made = &made.body["security_group"];
    assert_eq!(made["name"], "web");
    assert_eq!(made["description"], "d");
    assert_eq!(made["stateful"], true);
    assert_eq!(made["shared"], false);
    assert_eq!(made["tags"], json!([]));
    assert_eq!(
        (&made["project_id"], &made["tenant_id"]),
        (&json!("alice"), &json!("alice"))
    );
    let time = made["created_at"].as_str().expect("it is text");
    assert!(
        time.len() == 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T',
        "{time}"
    );
    let rules = made["security_group_rules"]
        .as_array()
        .expect("it is a list");
    let said = |rule: &Value| {
        assert_eq!(rule["protocol"], Value::Null);
        assert_eq!(rule["security_group_id"], made["id"]);
        (rule["direction"].to_string(), rule["ethertype"].to_string())
    };
    let mut rules: Vec<_> = rules.iter().map(said).collect();
    rules.sort();
    let egress = |family: &str| ("\"egress\"".to_owned(), format!("\"{family}\""));
    assert_eq!(rules, [egress("IPv4"), egress("IPv6")]);
}

#[tokio::test]
async fn groups_are_shown_changed_and_deleted() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let id = alice.group("a").await;
    let shown = alice.get(&at(&id)).await.done(200);
    assert_eq!(shown.body["security_group"]["name"], "a");
    let changed = alice
        .put(&at(&id), group(json!({"name": "b", "stateful": false})))
        .await
        .done(200);
    assert_eq!(changed.body["security_group"]["name"], "b");
    assert_eq!(changed.body["security_group"]["stateful"], false);
    let gone = alice.delete(&at(&id)).await.done(204);
    assert_eq!(gone.body, Value::Null);
    alice
        .get(&at(&id))
        .await
        .refused(404, "SecurityGroupNotFound: does not exist");
    alice
        .delete(&at(&id))
        .await
        .refused(404, "SecurityGroupNotFound");
}

#[tokio::test]
async fn names_may_be_empty_and_repeat_but_not_default() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    alice
        .post(GROUPS, group(json!({"name": ""})))
        .await
        .done(201);
    alice.post(GROUPS, group(json!({}))).await.done(201);
    alice.group("same").await;
    alice.group("same").await;
    for name in ["default", "Default", "DEFAULT"] {
        let taken = alice.post(GROUPS, group(json!({ "name": name }))).await;
        taken.refused(409, "SecurityGroupDefaultAlreadyExists");
    }
    let long = "x".repeat(256);
    let refused = alice.post(GROUPS, group(json!({ "name": long }))).await;
    refused.refused(400, "HTTPBadRequest: Invalid input for name. Reason: ");
    alice
        .post(GROUPS, group(json!({"name": "ä".repeat(255)})))
        .await
        .done(201);
    for name in [json!(1), json!(null), json!(["a"]), json!({}), json!(true)] {
        let refused = alice.post(GROUPS, group(json!({ "name": name }))).await;
        refused.refused(400, "HTTPBadRequest: is not a valid string");
    }
}

#[tokio::test]
async fn the_default_group_is_there_from_the_first_look() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let list = alice.get(GROUPS).await.done(200);
    let groups = list.body["security_groups"]
        .as_array()
        .expect("it is a list");
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0]["name"], "default");
    let id = groups[0]["id"].as_str().expect("it has an id");
    let rules = groups[0]["security_group_rules"]
        .as_array()
        .expect("it is a list");
    assert_eq!(rules.len(), 4);
    let ingress: Vec<_> = rules
        .iter()
        .filter(|rule| rule["direction"] == "ingress")
        .collect();
    assert_eq!(ingress.len(), 2);
    assert!(ingress.iter().all(|rule| rule["remote_group_id"] == id));
    assert!(
        rules
            .iter()
            .all(|rule| rule["belongs_to_default_sg"] == true)
    );
    // A second look finds the same.
    assert_eq!(alice.listed(GROUPS, "id").await, [id]);
    let renamed = alice.put(&at(id), group(json!({"name": "x"}))).await;
    renamed.refused(409, "SecurityGroupCannotUpdateDefault");
    alice
        .put(&at(id), group(json!({"description": "mine"})))
        .await
        .done(200);
    alice
        .delete(&at(id))
        .await
        .refused(409, "SecurityGroupCannotRemoveDefault");
    bed.admin().delete(&at(id)).await.done(204);
    let again = alice.listed(GROUPS, "id").await;
    assert!(again.len() == 1 && again[0] != id, "it comes back");
}

#[tokio::test]
async fn a_group_or_a_port_makes_the_default_group_too() {
    let bed = Bed::new().await;
    bed.member("bob").group("web").await;
    let all = bed
        .admin()
        .listed(&format!("{GROUPS}?project_id=bob"), "name")
        .await;
    assert_eq!(all.len(), 2, "{all:?}");
    let carol = bed.member("carol");
    let network = carol.network("10.0.0.0/24").await;
    let port = carol
        .post("ports", json!({"port": {"network_id": network}}))
        .await
        .done(201);
    let of = port.body["port"]["security_groups"].clone();
    let group = carol.listed(GROUPS, "id").await;
    assert_eq!(of, json!(group));
}

#[tokio::test]
async fn what_is_missing_malformed_or_foreign_is_not_found_alike() {
    let bed = Bed::new().await;
    let foreign = bed.member("bob").group("web").await;
    let alice = bed.member("alice");
    let unknown = "00000000-0000-0000-0000-000000000000";
    for id in [
        unknown,
        "no-uuid",
        "%20",
        "%2e%2e%2fx",
        &"x".repeat(2000),
        &foreign,
    ] {
        alice
            .get(&at(id))
            .await
            .refused(404, "SecurityGroupNotFound");
        alice
            .put(&at(id), group(json!({"name": "x"})))
            .await
            .refused(404, "SecurityGroupNotFound");
        alice
            .delete(&at(id))
            .await
            .refused(404, "SecurityGroupNotFound");
    }
    let text = |answer: crate::client::Answer, id: &str| answer.message().replace(id, "ID");
    let (theirs, none) = (
        alice.get(&at(&foreign)).await,
        alice.get(&at(unknown)).await,
    );
    assert_eq!(text(theirs, &foreign), text(none, unknown));
    bed.admin().get(&at(&foreign)).await.done(200);
}

#[tokio::test]
async fn a_name_is_looked_up_by_id_first() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let id = alice.group("web").await;
    alice
        .get(&at("web"))
        .await
        .refused(404, "SecurityGroupNotFound");
    assert_eq!(
        alice.listed(&format!("{GROUPS}?name=web"), "id").await,
        [id]
    );
}

#[tokio::test]
async fn a_group_in_use_stays_and_one_that_is_only_named_goes_with_the_rules() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let (used, named) = (alice.group("used").await, alice.group("named").await);
    let network = alice.network("10.0.0.0/24").await;
    let port = json!({"network_id": network, "security_groups": [used]});
    let port = alice.make("ports", "port", port).await;
    alice
        .delete(&at(&used))
        .await
        .refused(409, "SecurityGroupInUse");
    let stateless = alice
        .put(&at(&used), group(json!({"stateful": false})))
        .await;
    stateless.refused(409, "SecurityGroupInUse");
    let rule = json!({"security_group_id": used, "direction": "ingress", "remote_group_id": named});
    let rule = alice
        .make("security-group-rules", "security_group_rule", rule)
        .await;
    alice.delete(&at(&named)).await.done(204);
    alice
        .get(&format!("security-group-rules/{rule}"))
        .await
        .refused(404, "SecurityGroupRuleNotFound");
    alice.delete(&format!("ports/{port}")).await.done(204);
    alice.delete(&at(&used)).await.done(204);
}

#[tokio::test]
async fn a_revision_grows_with_the_rules_and_is_what_if_match_asks() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let id = alice.group("web").await;
    let revision = async || {
        let shown = alice.get(&at(&id)).await.done(200);
        shown.body["security_group"]["revision_number"]
            .as_u64()
            .expect("it is a number")
    };
    let first = revision().await;
    let rule = json!({"security_group_id": id, "direction": "ingress"});
    let rule = alice
        .make("security-group-rules", "security_group_rule", rule)
        .await;
    let second = revision().await;
    assert!(second > first);
    alice
        .delete(&format!("security-group-rules/{rule}"))
        .await
        .done(204);
    let third = revision().await;
    assert!(third > second);
    for said in [json!({"name": "web"}), json!({})] {
        alice.put(&at(&id), group(said)).await.done(200);
        assert_eq!(revision().await, third, "it is as before");
    }
    let when = |number: u64| {
        alice
            .clone()
            .with("if-match", &format!("revision_number={number}"))
    };
    let stale = when(second)
        .put(&at(&id), group(json!({"name": "x"})))
        .await;
    stale.refused(412, "RevisionNumberConstraintFailed");
    when(second)
        .delete(&at(&id))
        .await
        .refused(412, "RevisionNumberConstraintFailed");
    when(third)
        .put(&at(&id), group(json!({"name": "x"})))
        .await
        .done(200);
    assert!(revision().await > third);
    let bad = alice.clone().with("if-match", "x").delete(&at(&id)).await;
    bad.refused(400, "HTTPBadRequest: If-Match");
}

#[tokio::test]
async fn many_are_made_at_once_or_none() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let many = json!({"security_groups": [{"name": "a"}, {"name": "b"}]});
    let made = alice.post(GROUPS, many).await.done(201);
    let names = |made: &Value| {
        let made = made["security_groups"]
            .as_array()
            .expect("it is a list")
            .iter();
        Vec::from_iter(made.map(|group| group["name"].as_str().unwrap_or_default().to_owned()))
    };
    assert_eq!(names(&made.body), ["a", "b"]);
    let one_wrong = json!({"security_groups": [{"name": "c"}, {"name": "default"}]});
    alice
        .post(GROUPS, one_wrong)
        .await
        .refused(409, "SecurityGroupDefaultAlreadyExists");
    assert_eq!(
        alice.listed(&format!("{GROUPS}?name=c"), "id").await,
        Vec::<String>::new()
    );
    let too_many = vec![json!({}); 101];
    let too_many = alice
        .post(GROUPS, json!({ "security_groups": too_many }))
        .await;
    too_many.refused(413, "HTTPRequestEntityTooLarge");
}

#[tokio::test]
async fn the_template_makes_the_rules_of_new_groups() {
    const TEMPLATE: &str = "default-security-group-rules";
    let bed = Bed::new().await;
    let (admin, alice) = (bed.admin(), bed.member("alice"));
    let ssh = json!({
        "direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22,
        "used_in_default_sg": false, "used_in_non_default_sg": true,
    });
    let root = "default_security_group_rule";
    alice
        .post(TEMPLATE, json!({ root: ssh }))
        .await
        .refused(403, "PolicyNotAuthorized");
    let id = admin.make(TEMPLATE, root, ssh.clone()).await;
    admin
        .post(TEMPLATE, json!({ root: ssh }))
        .await
        .refused(409, "DefaultSecurityGroupRuleExists");
    let group = alice.post(GROUPS, group(json!({}))).await.done(201);
    let rules = group.body["security_group"]["security_group_rules"]
        .as_array()
        .expect("a list");
    assert_eq!(rules.len(), 3);
    assert!(rules.iter().any(|rule| rule["port_range_min"] == 22));
    let parent = json!({"direction": "ingress", "remote_group_id": "PARENT", "protocol": "udp"});
    let parent = admin
        .post(TEMPLATE, json!({ root: parent }))
        .await
        .done(201);
    assert_eq!(parent.body[root]["remote_group_id"], "PARENT");
    alice
        .delete(&format!("{TEMPLATE}/{id}"))
        .await
        .refused(403, "PolicyNotAuthorized");
    admin.delete(&format!("{TEMPLATE}/{id}")).await.done(204);
    let gone = admin.get(&format!("{TEMPLATE}/{id}")).await;
    gone.refused(404, "DefaultSecurityGroupRuleNotFound");
}

#[tokio::test]
async fn a_file_keeps_what_was_made() {
    let directory = tempfile::tempdir().expect("there is room");
    let file = directory.path().join("store");
    let bed = Plan::embedded(&file).start().await;
    let id = bed.member("alice").group("kept").await;
    bed.stop().await;
    let bed = Plan::embedded(&file).start().await;
    let shown = bed.member("alice").get(&at(&id)).await.done(200);
    assert_eq!(shown.body["security_group"]["name"], "kept");
}
