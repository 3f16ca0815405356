//! Sub-resources with a shape of their own.

use crate::bed::{Bed, Plan};
use control::objects::Quota;
use serde_json::{Value, json};

#[tokio::test]
async fn objects_have_tags() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let network = alice.network("10.0.0.0/24").await;
    let paths = [
        format!("security-groups/{}", alice.group("g").await),
        format!(
            "ports/{}",
            alice
                .make("ports", "port", json!({"network_id": network}))
                .await
        ),
        format!(
            "address-groups/{}",
            alice
                .make("address-groups", "address_group", json!({}))
                .await
        ),
        format!("subnets/{}", alice.listed("subnets", "id").await[0]),
        format!("networks/{network}"),
    ];
    for path in paths {
        let tags = format!("{path}/tags");
        assert_eq!(alice.get(&tags).await.done(200).body, json!({"tags": []}));
        let set = alice
            .put(&tags, json!({"tags": ["b", "a"]}))
            .await
            .done(200);
        assert_eq!(set.body, json!({"tags": ["a", "b"]}));
        alice
            .put(&format!("{tags}/c%20d"), Value::Null)
            .await
            .done(201);
        alice.get(&format!("{tags}/c%20d")).await.done(204);
        alice
            .get(&format!("{tags}/x"))
            .await
            .refused(404, "TagNotFound: Tag x could not be found");
        alice.delete(&format!("{tags}/a")).await.done(204);
        alice
            .delete(&format!("{tags}/a"))
            .await
            .refused(404, "TagNotFound");
        let shown = alice.get(&path).await.done(200);
        let (_, object) = shown
            .body
            .as_object()
            .and_then(|o| o.iter().next())
            .expect("an object");
        assert_eq!(object["tags"], json!(["b", "c d"]));
        alice.delete(&tags).await.done(204);
        assert_eq!(alice.get(&tags).await.done(200).body, json!({"tags": []}));
        for wrong in [
            json!({"tags": "a"}),
            json!({"tags": [1]}),
            json!({"tags": ["a", "a"]}),
            json!({}),
            json!([]),
        ] {
            alice.put(&tags, wrong).await.refused(400, "HTTPBadRequest");
        }
        let long = "x".repeat(256);
        alice
            .put(&format!("{tags}/{long}"), Value::Null)
            .await
            .refused(400, "HTTPBadRequest");
        let bob = bed.member("bob");
        assert_eq!(bob.get(&tags).await.status, 404);
        assert_eq!(bob.put(&tags, json!({"tags": ["x"]})).await.status, 404);
    }
    // Neutron answers 500.
    alice
        .get("security-groups/x/tags")
        .await
        .refused(404, "SecurityGroupNotFound");
    alice
        .put("security-groups/x/tags", json!({"tags": []}))
        .await
        .refused(404, "SecurityGroupNotFound");
    alice
        .get("rbac-policies/x/tags")
        .await
        .refused(404, "HTTPNotFound");
}

#[tokio::test]
async fn quotas_bound_what_a_project_has() {
    let plan = Plan {
        quota: Quota::default(),
        ..Plan::default()
    };
    let bed = plan.start().await;
    let (alice, admin) = (bed.member("alice"), bed.admin());
    let usual = json!({
        "security_group": 10, "security_group_rule": 100, "address_group": 10, "network": 100, "subnet": 100,
        "port": 500, "rbac_policy": 10,
    });
    assert_eq!(
        alice.get("quotas/alice").await.done(200).body["quota"],
        usual
    );
    assert_eq!(
        alice.get("quotas/alice/default").await.done(200).body["quota"],
        usual
    );
    let mine = alice
        .put("quotas/alice", json!({"quota": {"security_group": 100}}))
        .await;
    mine.refused(403, "PolicyNotAuthorized");
    let set = admin
        .put("quotas/alice", json!({"quota": {"security_group": 2}}))
        .await
        .done(200);
    assert_eq!(set.body["quota"]["security_group"], 2);
    alice.group("one").await;
    let over = alice
        .post("security-groups", json!({"security_group": {}}))
        .await;
    over.refused(
        409,
        "OverQuota: Quota exceeded for resources: ['security_group']",
    );
    let details = alice.get("quotas/alice/details.json").await.done(200);
    let groups = json!({"limit": 2, "used": 2, "reserved": 0});
    assert_eq!(details.body["quota"]["security_group"], groups);
    assert_eq!(admin.listed("quotas", "project_id").await, ["alice"]);
    admin.delete("quotas/alice").await.done(204);
    admin
        .delete("quotas/alice")
        .await
        .refused(404, "TenantQuotaNotFound");
    assert_eq!(
        alice.get("quotas/alice").await.done(200).body["quota"],
        usual
    );
    alice
        .get("quotas/bob")
        .await
        .refused(404, "TenantQuotaNotFound");
    alice
        .get("quotas")
        .await
        .refused(403, "PolicyNotAuthorized");
    let checked = json!({"quota": {"port": 7, "check_limit": true}});
    admin.put("quotas/bob", checked).await.done(200);
    alice
        .get("quotas/bob/details")
        .await
        .refused(404, "TenantQuotaNotFound");
    for wrong in [
        json!({"port": -2}),
        json!({"port": "x"}),
        json!({"router": 1}),
    ] {
        admin
            .put("quotas/bob", json!({ "quota": wrong }))
            .await
            .refused(400, "HTTPBadRequest");
    }
}

#[tokio::test]
async fn every_resource_has_a_quota() {
    let bed = Bed::new().await;
    let (alice, admin) = (bed.member("alice"), bed.admin());
    let network = alice.network("10.0.0.0/24").await;
    let group = alice.group("g").await;
    let share = json!({
        "object_type": "security_group", "object_id": group, "action": "access_as_shared", "target_tenant": "bob",
    });
    let none: serde_json::Map<String, Value> =
        admin.get("quotas/alice").await.done(200).body["quota"]
            .as_object()
            .expect("it is an object")
            .keys()
            .map(|name| (name.clone(), 0.into()))
            .collect();
    admin
        .put("quotas/alice", json!({ "quota": none }))
        .await
        .refused(
            400,
            "HTTPBadRequest: must be greater than or equal to already used",
        );
    let mut forced = none;
    forced.insert("force".into(), true.into());
    admin
        .put("quotas/alice", json!({ "quota": forced }))
        .await
        .done(200);
    let subnet = json!({"network_id": network, "ip_version": 4, "cidr": "10.1.0.0/24"});
    for (path, one, body) in [
        ("security-groups", "security_group", json!({})),
        (
            "security-group-rules",
            "security_group_rule",
            json!({"security_group_id": group, "direction": "ingress"}),
        ),
        ("address-groups", "address_group", json!({})),
        ("networks", "network", json!({})),
        ("subnets", "subnet", subnet),
        ("ports", "port", json!({"network_id": network})),
        ("rbac-policies", "rbac_policy", share),
    ] {
        let over = alice.post(path, json!({ one: body })).await;
        over.refused(409, &format!("OverQuota: ['{one}']"));
    }
}
