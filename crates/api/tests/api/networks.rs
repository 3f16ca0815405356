//! Networks and subnets: what ports need of them.

use crate::bed::Bed;
use serde_json::{Value, json};

#[tokio::test]
async fn networks_are_made_shown_changed_and_deleted() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let made = alice
        .post("networks", json!({"network": {"name": "n", "mtu": 1400}}))
        .await
        .done(201);
    let made = &made.body["network"];
    assert_eq!(
        (&made["status"], &made["admin_state_up"]),
        (&json!("ACTIVE"), &json!(true))
    );
    assert_eq!(
        (&made["mtu"], &made["port_security_enabled"]),
        (&json!(1400), &json!(true))
    );
    assert_eq!(
        (&made["shared"], &made["subnets"]),
        (&json!(false), &json!([]))
    );
    assert!(made.get("provider:network_type").is_none(), "for admins");
    let path = format!("networks/{}", made["id"].as_str().expect("it has an id"));
    let put = alice
        .put(
            &path,
            json!({"network": {"name": "m", "admin_state_up": false}}),
        )
        .await
        .done(200);
    assert_eq!(
        (&put.body["network"]["name"], &put.body["network"]["mtu"]),
        (&json!("m"), &json!(1400))
    );
    let shared = alice.put(&path, json!({"network": {"shared": true}})).await;
    shared.refused(403, "PolicyNotAuthorized");
    bed.member("bob")
        .get(&path)
        .await
        .refused(404, "NetworkNotFound");
    bed.admin()
        .put(&path, json!({"network": {"shared": true}}))
        .await
        .done(200);
    bed.member("bob").get(&path).await.done(200);
    alice.delete(&path).await.done(204);
    alice.get(&path).await.refused(404, "NetworkNotFound");
}

#[tokio::test]
async fn a_segment_is_for_admins() {
    let bed = Bed::new().await;
    let network =
        json!({"network": {"provider:network_type": "geneve", "provider:segmentation_id": 7}});
    bed.member("alice")
        .post("networks", network.clone())
        .await
        .refused(403, "PolicyNotAuthorized");
    let made = bed.admin().post("networks", network).await.done(201);
    assert_eq!(made.body["network"]["provider:network_type"], "geneve");
    assert_eq!(made.body["network"]["provider:segmentation_id"], 7);
    assert_eq!(
        made.body["network"]["provider:physical_network"],
        Value::Null
    );
    let untyped = bed
        .admin()
        .post(
            "networks",
            json!({"network": {"provider:segmentation_id": 7}}),
        )
        .await;
    untyped.refused(400, "HTTPBadRequest: network_type required");
    for mtu in [json!(67), json!(65_536), json!("x")] {
        let refused = bed
            .admin()
            .post("networks", json!({"network": { "mtu": mtu }}))
            .await;
        refused.refused(400, "HTTPBadRequest: Invalid input for mtu");
    }
}

#[tokio::test]
async fn subnets_have_gateways_and_pools() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let network = alice.make("networks", "network", json!({})).await;
    let post = async |attributes: Value| {
        let mut subnet = json!({"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24"});
        for (name, value) in attributes.as_object().into_iter().flatten() {
            subnet[name] = value.clone();
        }
        alice.post("subnets", json!({ "subnet": subnet })).await
    };
    let made = post(json!({"dns_nameservers": ["9.9.9.9"]}))
        .await
        .done(201);
    let subnet = &made.body["subnet"];
    assert_eq!(subnet["gateway_ip"], "10.0.0.1");
    assert_eq!(
        subnet["allocation_pools"],
        json!([{"start": "10.0.0.2", "end": "10.0.0.254"}])
    );
    assert_eq!(subnet["enable_dhcp"], true);
    assert_eq!(subnet["dns_nameservers"], json!(["9.9.9.9"]));
    let id = subnet["id"].as_str().expect("it has an id").to_owned();
    let shown = alice.get(&format!("networks/{network}")).await.done(200);
    assert_eq!(shown.body["network"]["subnets"], json!([id]));
    let none = json!({"cidr": "10.0.1.0/24", "gateway_ip": null, "enable_dhcp": false});
    let none = post(none).await.done(201);
    assert_eq!(none.body["subnet"]["gateway_ip"], Value::Null);
    let pools = json!([{"start": "10.0.2.10", "end": "10.0.2.20"}]);
    let pooled = post(json!({"cidr": "10.0.2.0/24", "allocation_pools": pools}))
        .await
        .done(201);
    assert_eq!(pooled.body["subnet"]["allocation_pools"], pools);
    let six = post(json!({"cidr": "fd00::/64", "ip_version": 6}))
        .await
        .done(201);
    assert_eq!(six.body["subnet"]["ip_version"], 6);
    for (attributes, status) in [
        (json!({"cidr": "10.0.0.0/25"}), 400),
        (json!({"cidr": "10.0.9.0"}), 400),
        (json!({"cidr": "net"}), 400),
        (json!({"cidr": "10.0.9.0/24", "ip_version": 6}), 400),
        (json!({"cidr": "10.0.9.0/24", "ip_version": 5}), 400),
        (json!({"cidr": "10.0.9.0/24", "gateway_ip": "x"}), 400),
        (
            json!({"cidr": "10.0.9.0/24", "allocation_pools": [{"start": "10.0.9.1"}]}),
            400,
        ),
        (
            json!({"cidr": "10.0.9.0/24", "allocation_pools": [{"start": "10.0.8.1", "end": "10.0.9.9"}]}),
            400,
        ),
        (json!({"cidr": "10.0.9.0/24", "network_id": "nothing"}), 404),
    ] {
        let refused = post(attributes.clone()).await;
        assert_eq!(
            refused.status.as_u16(),
            status,
            "{attributes}: {}",
            refused.body
        );
    }
    let put = json!({"subnet": {"name": "s", "gateway_ip": null}});
    let put = alice.put(&format!("subnets/{id}"), put).await.done(200);
    assert_eq!(put.body["subnet"]["gateway_ip"], Value::Null);
    alice.delete(&format!("subnets/{id}")).await.done(204);
    alice
        .get(&format!("subnets/{id}"))
        .await
        .refused(404, "SubnetNotFound");
}

#[tokio::test]
async fn what_has_ports_stays() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let network = alice.network("10.0.0.0/24").await;
    let subnet = alice.listed("subnets", "id").await.remove(0);
    let port = alice
        .make("ports", "port", json!({"network_id": network}))
        .await;
    alice
        .delete(&format!("networks/{network}"))
        .await
        .refused(409, "NetworkInUse");
    alice
        .delete(&format!("subnets/{subnet}"))
        .await
        .refused(409, "SubnetInUse");
    alice.delete(&format!("ports/{port}")).await.done(204);
    alice.delete(&format!("subnets/{subnet}")).await.done(204);
    alice.delete(&format!("networks/{network}")).await.done(204);
}

#[tokio::test]
async fn hosts_are_agents_for_admins() {
    let bed = Bed::new().await;
    let admin = bed.admin();
    let put = json!({"agent": {"configurations": {"tunneling_ip": "192.0.2.1", "tagged": true}}});
    let made = admin.put("agents/alive", put).await.done(200);
    assert_eq!(
        (&made.body["agent"]["host"], &made.body["agent"]["alive"]),
        (&json!("alive"), &json!(true))
    );
    admin
        .put("agents/dead", json!({"agent": {}}))
        .await
        .done(200);
    assert_eq!(admin.listed("agents?alive=false", "host").await, ["dead"]);
    let shown = admin.get("agents/alive").await.done(200);
    let configurations = json!({"tunneling_ip": "192.0.2.1", "tagged": true});
    assert_eq!(shown.body["agent"]["configurations"], configurations);
    for wrong in [
        json!({"tunneling_ip": "x"}),
        json!({"tagged": "x"}),
        json!({"colour": 1}),
    ] {
        let put = json!({"agent": { "configurations": wrong }});
        admin
            .put("agents/alive", put)
            .await
            .refused(400, "HTTPBadRequest");
    }
    let alice = bed.member("alice");
    assert_eq!(alice.listed("agents", "host").await, Vec::<String>::new());
    alice
        .get("agents/alive")
        .await
        .refused(404, "AgentNotFound");
    let put = alice.put("agents/mine", json!({"agent": {}})).await;
    put.refused(403, "PolicyNotAuthorized");
    admin.delete("agents/alive").await.done(204);
    admin
        .get("agents/alive")
        .await
        .refused(404, "AgentNotFound");
}
