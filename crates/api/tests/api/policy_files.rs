//! Whole policies, and what becomes of them.

use crate::bed::Bed;
use crate::client::{Answer, Client};
use http::Method;
use serde_json::{Value, json};

const POLICY: &str = "
version: 1
networks: { lan: { subnets: 10.0.0.0/24 } }
groups: { web: { rules: [{ from: any, protocol: tcp, ports: 80, family: ipv4 }] } }
ports: { vm1: { device: tap1, mac: 52:54:00:00:00:01, addresses: 10.0.0.11, groups: web } }
";
const APPLY: &str = "/portcullis/v1/apply?label=l&host=h1";

async fn apply(client: &Client, query: &str, text: &str) -> Answer {
    let path = format!("{APPLY}{query}");
    client
        .send(Method::POST, &path, text.to_owned().into())
        .await
}

fn told(answer: &Answer) -> Vec<String> {
    let objects = answer.body["objects"].as_array().expect("a list");
    let said = |object: &Value, name: &str| object[name].as_str().unwrap_or_default().to_owned();
    objects
        .iter()
        .map(|o| format!("{} {} {}", said(o, "kind"), said(o, "id"), said(o, "what")))
        .collect()
}

#[tokio::test]
async fn a_policy_file_is_applied() {
    let bed = Bed::new().await;
    let admin = bed.admin();
    let all = |what: &str| {
        let objects = [
            "host h1",
            "network lan",
            "subnet lan-10.0.0.0-24",
            "group web",
        ];
        let objects = objects.into_iter().chain(["rule web.1", "port vm1"]);
        Vec::from_iter(objects.map(|object| format!("{object} {what}")))
    };
    let dry = apply(&admin, "&dry_run=true", POLICY).await.done(200);
    assert_eq!(told(&dry), all("created"));
    admin.get("ports/vm1").await.refused(404, "PortNotFound");
    assert_eq!(
        told(&apply(&admin, "", POLICY).await.done(200)),
        all("created")
    );
    assert_eq!(
        told(&apply(&admin, "", POLICY).await.done(200)),
        all("unchanged")
    );
    let shown = admin.get("ports/vm1").await.done(200);
    assert_eq!(shown.body["port"]["tags"], json!(["portcullis:l"]));

    let answer = admin.get("/portcullis/v1/inventory").await.done(200);
    let (inventory, refused) = protocol::decode(&answer.bytes).expect("an inventory");
    assert!(refused.is_empty());
    let ids = Vec::from_iter(inventory.ports.keys().map(|id| id.to_string()));
    assert_eq!(ids, ["vm1"]);
    let hosts = admin.get("/portcullis/v1/hosts").await.done(200);
    let host = &hosts.body["hosts"][0];
    assert_eq!(
        (&host["id"], &host["connected"], &host["ports"]),
        (&json!("h1"), &json!(false), &json!(1))
    );
    let status = admin.get("/portcullis/v1/status").await.done(200);
    assert_eq!(status.body["counts"]["rules"], json!(1));
    assert_eq!(status.body["revision"], hosts.body["revision"]);

    let gone = admin.delete("/portcullis/v1/apply?label=l").await.done(200);
    assert_eq!(told(&gone).len(), 6);
    admin
        .get("networks/lan")
        .await
        .refused(404, "NetworkNotFound");
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused_whole() {
    let bed = Bed::new().await;
    let admin = bed.admin();
    let broken = POLICY
        .replace("groups: web", "groups: wbe")
        .replace("ports: 80", "ports: 80000");
    let refused = apply(&admin, "", &broken)
        .await
        .refused(400, "InvalidPolicy");
    for text in ["policy:4:", "80000", "policy:5:", "wbe"] {
        assert!(refused.message().contains(text), "{}", refused.message());
    }
    for (path, why) in [
        ("/portcullis/v1/apply?host=h", "label"),
        ("/portcullis/v1/apply?label=l", "host"),
        ("/portcullis/v1/apply?label=a/b&host=h", "label"),
        ("/portcullis/v1/apply?label=l&prune=maybe&host=h", "prune"),
        ("/portcullis/v1/apply?label=l&purge=1&host=h", "purge"),
    ] {
        let answer = admin.send(Method::POST, path, POLICY.into()).await;
        let refused = answer.refused(400, "HTTPBadRequest");
        assert!(refused.message().contains(why), "{}", refused.message());
    }
    for name in ["inventory", "hosts", "status"] {
        let path = format!("/portcullis/v1/{name}");
        let answer = bed.member("alice").get(&path).await;
        answer.refused(403, "PolicyNotAuthorized");
    }
    let answer = apply(&bed.member("alice"), "", POLICY).await;
    answer.refused(403, "PolicyNotAuthorized");
    apply(&admin, "", POLICY).await.done(200);
    let other = "/portcullis/v1/apply?label=other&host=h1";
    let answer = admin.send(Method::POST, other, POLICY.into()).await;
    answer.refused(409, "NotOfLabel: group web");
}
