//! RBAC policies, and who sees what without them.

use crate::bed::Bed;
use serde_json::json;

const PATH: &str = "rbac-policies";

#[tokio::test]
async fn a_policy_lets_another_project_see_and_use() {
    let bed = Bed::new().await;
    let (alice, bob) = (bed.member("alice"), bed.member("bob"));
    let group = alice.group("web").await;
    let at = format!("security-groups/{group}");
    bob.get(&at).await.refused(404, "SecurityGroupNotFound");
    let policy = json!({
        "object_type": "security_group", "object_id": group, "action": "access_as_shared", "target_tenant": "bob",
    });
    let id = alice.make(PATH, "rbac_policy", policy.clone()).await;
    let twice = alice.post(PATH, json!({ "rbac_policy": policy })).await;
    twice.refused(409, "DuplicateRbacPolicy");
    let seen = bob.get(&at).await.done(200);
    assert_eq!(seen.body["security_group"]["shared"], true);
    assert_eq!(
        bob.listed("security-groups?shared=true", "name").await,
        ["web"]
    );
    let own = bob.group("own").await;
    let rule = json!({"security_group_id": own, "direction": "ingress", "remote_group_id": group});
    bob.make("security-group-rules", "security_group_rule", rule)
        .await;
    let changed = bob
        .put(&at, json!({"security_group": {"name": "mine"}}))
        .await;
    assert!(
        [403, 404].contains(&changed.status.as_u16()),
        "{}",
        changed.body
    );
    bob.get(&format!("{PATH}/{id}"))
        .await
        .refused(404, "RbacPolicyNotFound");
    let shown = alice.get(&format!("{PATH}/{id}")).await.done(200);
    assert_eq!(shown.body["rbac_policy"]["target_tenant"], "bob");
    assert_eq!(
        alice
            .listed(&format!("{PATH}?object_id={group}"), "id")
            .await,
        std::slice::from_ref(&id)
    );
    let path = format!("{PATH}/{id}");
    alice.delete(&path).await.refused(409, "RbacPolicyInUse");
    let rules = bob
        .listed(
            &format!("security-group-rules?remote_group_id={group}"),
            "id",
        )
        .await;
    bob.delete(&format!("security-group-rules/{}", rules[0]))
        .await
        .done(204);
    alice.delete(&path).await.done(204);
    bob.get(&at).await.refused(404, "SecurityGroupNotFound");
}

#[tokio::test]
async fn policies_are_of_what_there_is() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let group = alice.group("web").await;
    let theirs = bed.member("bob").group("theirs").await;
    let policy = |kind: &str, id: &str, action: &str| {
        let policy = json!({"object_type": kind, "object_id": id, "action": action, "target_tenant": "carol"});
        json!({ "rbac_policy": policy })
    };
    let share = "access_as_shared";
    alice
        .post(PATH, policy("router", &group, share))
        .await
        .refused(400, "HTTPBadRequest: object_type");
    alice
        .post(PATH, policy("security_group", &group, "own"))
        .await
        .refused(400, "HTTPBadRequest: action");
    for id in [theirs.as_str(), "nothing"] {
        let refused = alice.post(PATH, policy("security_group", id, share)).await;
        assert_eq!(refused.status, 404, "{}", refused.body);
        let refused = alice.post(PATH, policy("address_group", id, share)).await;
        assert_eq!(refused.status, 404, "{}", refused.body);
    }
    let missing = alice.post(PATH, json!({"rbac_policy": {}})).await;
    missing.refused(400, "HTTPBadRequest: Required attribute");
    let made = alice
        .post(PATH, policy("security_group", &group, share))
        .await
        .done(201);
    let path = format!(
        "{PATH}/{}",
        made.body["rbac_policy"]["id"]
            .as_str()
            .expect("it has an id")
    );
    let put = alice
        .put(&path, json!({"rbac_policy": {"target_tenant": "dave"}}))
        .await
        .done(200);
    assert_eq!(put.body["rbac_policy"]["target_tenant"], "dave");
    bed.member("dave")
        .get(&format!("security-groups/{group}"))
        .await
        .done(200);
    bed.member("carol")
        .get(&format!("security-groups/{group}"))
        .await
        .refused(404, "SecurityGroupNotFound");
}

#[tokio::test]
async fn projects_are_apart() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let objects = [
        ("security-groups", "security_group", json!({})),
        ("address-groups", "address_group", json!({})),
        ("networks", "network", json!({})),
    ];
    for (path, one, body) in objects {
        let mut foreign = body.clone();
        foreign["project_id"] = "bob".into();
        let refused = alice.post(path, json!({ one: foreign })).await;
        refused.refused(400, "HTTPBadRequest: requires admin privileges");
        let mut foreign = body.clone();
        foreign["tenant_id"] = "bob".into();
        let made = bed
            .admin()
            .post(path, json!({ one: foreign }))
            .await
            .done(201);
        assert_eq!(made.body[one]["project_id"], "bob");
        let id = made.body[one]["id"].as_str().expect("it has an id");
        assert_eq!(alice.get(&format!("{path}/{id}")).await.status, 404);
        assert_eq!(
            alice
                .put(&format!("{path}/{id}"), json!({one: {"name": "x"}}))
                .await
                .status,
            404
        );
        assert_eq!(alice.delete(&format!("{path}/{id}")).await.status, 404);
        bed.member("bob")
            .get(&format!("{path}/{id}"))
            .await
            .done(200);
        let reader = bed.reader("bob");
        reader.get(&format!("{path}/{id}")).await.done(200);
        reader
            .post(path, json!({ one: body }))
            .await
            .refused(403, "PolicyNotAuthorized");
        let put = reader
            .put(&format!("{path}/{id}"), json!({one: {"name": "x"}}))
            .await;
        put.refused(403, "PolicyNotAuthorized");
        reader
            .delete(&format!("{path}/{id}"))
            .await
            .refused(403, "PolicyNotAuthorized");
    }
}
