//! Address groups.

use crate::bed::Bed;
use serde_json::{Value, json};

const PATH: &str = "address-groups";

fn sorted(addresses: &Value) -> Vec<String> {
    let texts = addresses.as_array().into_iter().flatten();
    let mut texts: Vec<_> = texts
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect();
    texts.sort();
    texts
}

#[tokio::test]
async fn addresses_have_lengths_and_no_host_bits() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let new = json!({"address_group": {"name": "a", "addresses": ["10.0.0.5/24", "fd00::1/128"]}});
    let made = alice.post(PATH, new).await.done(201);
    assert_eq!(
        sorted(&made.body["address_group"]["addresses"]),
        ["10.0.0.0/24", "fd00::1/128"]
    );
    for wrong in [
        json!(["10.0.0.5"]),
        json!(["x/8"]),
        json!([1]),
        json!("10.0.0.0/8"),
    ] {
        let refused = alice
            .post(PATH, json!({"address_group": { "addresses": wrong }}))
            .await;
        assert_eq!(refused.status, 400, "{wrong}: {}", refused.body);
    }
    let path = format!(
        "{PATH}/{}",
        made.body["address_group"]["id"]
            .as_str()
            .expect("it has an id")
    );
    let put = alice
        .put(&path, json!({"address_group": {"name": "b"}}))
        .await
        .done(200);
    assert_eq!(put.body["address_group"]["name"], "b");
    let put = alice
        .put(&path, json!({"address_group": {"addresses": []}}))
        .await;
    put.refused(
        400,
        "HTTPBadRequest: Cannot update read-only attribute addresses",
    );
    alice.delete(&path).await.done(204);
    alice.get(&path).await.refused(404, "AddressGroupNotFound");
}

#[tokio::test]
async fn addresses_come_and_go_by_themselves() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let id = alice
        .make(PATH, "address_group", json!({"addresses": ["10.0.0.0/24"]}))
        .await;
    let add = format!("{PATH}/{id}/add_addresses");
    let remove = format!("{PATH}/{id}/remove_addresses");
    let body = |address: &str| json!({ "addresses": [address] });
    let added = alice.put(&add, body("10.0.1.7/24")).await.done(200);
    assert_eq!(
        sorted(&added.body["address_group"]["addresses"]),
        ["10.0.0.0/24", "10.0.1.0/24"]
    );
    alice
        .put(&add, body("10.0.1.0/24"))
        .await
        .refused(400, "AddressesAlreadyExist");
    let removed = alice.put(&remove, body("10.0.0.0/24")).await.done(200);
    assert_eq!(
        sorted(&removed.body["address_group"]["addresses"]),
        ["10.0.1.0/24"]
    );
    alice
        .put(&remove, body("10.0.0.0/24"))
        .await
        .refused(404, "AddressesNotFound");
    for wrong in [
        json!({}),
        json!({"addresses": "x"}),
        json!({"addresses": [], "x": 1}),
        json!([]),
    ] {
        alice.put(&add, wrong).await.refused(400, "HTTPBadRequest");
    }
    bed.member("bob")
        .put(&add, body("10.0.9.0/24"))
        .await
        .refused(404, "AddressGroupNotFound");
    alice
        .post(&add, json!({}))
        .await
        .refused(405, "HTTPMethodNotAllowed");
}

#[tokio::test]
async fn one_that_rules_name_stays() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let id = alice.make(PATH, "address_group", json!({})).await;
    let group = alice.group("g").await;
    let rule =
        json!({"security_group_id": group, "direction": "ingress", "remote_address_group_id": id});
    let rule = alice
        .make("security-group-rules", "security_group_rule", rule)
        .await;
    alice
        .delete(&format!("{PATH}/{id}"))
        .await
        .refused(409, "AddressGroupInUse");
    alice
        .delete(&format!("security-group-rules/{rule}"))
        .await
        .done(204);
    alice.delete(&format!("{PATH}/{id}")).await.done(204);
}
