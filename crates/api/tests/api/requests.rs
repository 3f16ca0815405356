//! What holds for every request: forms, methods, bounds, the audit log, the document.

use crate::bed::{Bed, Plan};
use crate::client::Client;
use crate::schema::DOCUMENT;
use api::Limits;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn clients_begin_at_the_root() {
    let bed = Bed::new().await;
    let nobody = Client::new(bed.address);
    let root = nobody.get("/").await.done(200);
    let version = &root.body["versions"][0];
    assert_eq!(
        (&version["id"], &version["status"]),
        (&json!("v2.0"), &json!("CURRENT"))
    );
    let link = &version["links"][0];
    assert_eq!(
        *link,
        json!({"rel": "self", "href": format!("http://{}/v2.0/", bed.address)})
    );
    let resources = bed.reader("alice").get("/v2.0/").await.done(200);
    let collections = resources.body["resources"]
        .as_array()
        .expect("it is a list");
    assert!(
        collections
            .iter()
            .any(|one| one["collection"] == "security-groups")
    );
    bed.reader("alice").get("/v2.0").await.done(200);
}

#[tokio::test]
async fn extensions_are_what_is_served() {
    let bed = Bed::new().await;
    let alice = bed.reader("alice");
    let aliases = alice.listed("extensions", "alias").await;
    for alias in [
        "security-group",
        "stateful-security-group",
        "address-group",
        "port-security",
    ] {
        assert!(aliases.iter().any(|known| known == alias), "{alias}");
        let one = alice.get(&format!("extensions/{alias}")).await.done(200);
        assert_eq!(one.body["extension"]["alias"], alias);
    }
    for alias in ["router", "trunk", "x"] {
        assert!(!aliases.iter().any(|known| known == alias), "{alias}");
        alice
            .get(&format!("extensions/{alias}.json"))
            .await
            .refused(404, "HTTPNotFound");
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    for path in [
        "/nothing",
        "/v3/ports",
        "routers",
        "ports/a/b",
        "security-groups/a/rules",
    ] {
        alice.get(path).await.refused(404, "HTTPNotFound");
        alice
            .post(path, json!({}))
            .await
            .refused(404, "HTTPNotFound");
    }
    for (method, path, allow) in [
        (Method::HEAD, "security-groups", "GET, POST"),
        (Method::PATCH, "security-groups", "GET, POST"),
        (Method::PUT, "security-groups", "GET, POST"),
        (Method::POST, "security-groups/a", "GET, PUT, DELETE"),
        (Method::OPTIONS, "extensions", "GET"),
        (Method::PUT, "default-security-group-rules/a", "GET, DELETE"),
        (Method::POST, "agents", "GET"),
    ] {
        let answer = alice.ask(method.clone(), path, None).await.done(405);
        assert_eq!(answer.headers["allow"], allow, "{method} {path}");
    }
}

#[tokio::test]
async fn bodies_are_checked() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let send = async |text: &'static str| {
        alice
            .send(
                Method::POST,
                "security-groups",
                Bytes::from_static(text.as_bytes()),
            )
            .await
    };
    for text in [
        "",
        "{",
        "nul",
        "{\"security_group\": {\"name\": }}",
        "\u{0}",
    ] {
        send(text).await.refused(400, "MalformedRequestBody");
    }
    send("[]")
        .await
        .refused(400, "HTTPBadRequest: Resource body required");
    send("{}").await.refused(
        400,
        "HTTPBadRequest: Unable to find 'security_group' in request body",
    );
    send(r#"{"port": {}}"#)
        .await
        .refused(400, "HTTPBadRequest: Unable to find");
    send(r#"{"security_group": 1}"#)
        .await
        .refused(400, "HTTPBadRequest: Unable to find");
    let unknown = r#"{"security_group": {"colour": 1}}"#;
    send(unknown)
        .await
        .refused(400, "HTTPBadRequest: Unrecognized attribute(s) 'colour'");
    let read_only = r#"{"security_group": {"id": "x"}}"#;
    send(read_only)
        .await
        .refused(400, "HTTPBadRequest: Attribute 'id' not allowed in POST");
    let rule = alice
        .post("security-group-rules", json!({"security_group_rule": {}}))
        .await;
    rule.refused(
        400,
        "HTTPBadRequest: Required attribute 'security_group_id' not specified",
    );
    let deep = "[".repeat(100_000);
    let deep = alice
        .send(Method::POST, "security-groups", deep.into())
        .await;
    deep.refused(400, "MalformedRequestBody");
}

#[tokio::test]
async fn bodies_are_bounded() {
    let limits = Limits {
        body_bytes: 1000,
        ..Limits::default()
    };
    let plan = Plan {
        limits,
        ..Plan::default()
    };
    let bed = plan.start().await;
    let group = json!({"security_group": {"description": "x".repeat(2000)}});
    let large = bed.member("alice").post("security-groups", group).await;
    large.refused(413, "HTTPRequestEntityTooLarge");
}

#[tokio::test]
async fn changes_are_audited() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let made = alice
        .post("security-groups", json!({"security_group": {"name": "a"}}))
        .await
        .done(201);
    let id = made.body["security_group"]["id"].clone();
    let path = format!("security-groups/{}", id.as_str().expect("it is text"));
    alice
        .put(&path, json!({"security_group": {"name": "b"}}))
        .await
        .done(200);
    alice.get(&path).await.done(200);
    bed.reader("alice")
        .delete(&path)
        .await
        .refused(403, "PolicyNotAuthorized");
    alice.delete(&path).await.done(204);
    let lines = bed.audit.all();
    let said = |line: &Value| {
        let name = |object: &Value| object["name"].as_str().map(str::to_owned);
        (
            line["method"].as_str().unwrap_or_default().to_owned(),
            line["status"].as_u64(),
            name(&line["before"]),
            name(&line["after"]),
        )
    };
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(
        lines.iter().map(said).collect::<Vec<_>>(),
        [
            ("POST".to_owned(), Some(201), None, name("a")),
            ("PUT".to_owned(), Some(200), name("a"), name("b")),
            ("DELETE".to_owned(), Some(403), None, None),
            ("DELETE".to_owned(), Some(204), name("b"), None),
        ]
    );
    let first = &lines[0];
    assert_eq!(
        first["request"],
        made.headers["x-openstack-request-id"]
            .to_str()
            .expect("it is text")
    );
    assert_eq!(
        (&first["user"], &first["project"], &first["role"]),
        (&json!("somebody"), &json!("alice"), &json!("member"))
    );
    assert_eq!(
        (&first["kind"], &first["id"]),
        (&json!("security_group"), &id)
    );
    assert_eq!(lines[2]["refusal"], "PolicyNotAuthorized");
}

#[tokio::test]
async fn the_document_has_every_route_and_attribute() {
    let bed = Bed::new().await;
    let served = Client::new(bed.address)
        .get("/openapi.json")
        .await
        .done(200);
    assert_eq!(served.body, *DOCUMENT);
    assert_eq!(served.body["openapi"], "3.1.0");
    // Each answers as one who knows it: 405 to a method that it hasn't, and to none that it has.
    let admin = bed.admin();
    for (path, item) in DOCUMENT["paths"].as_object().expect("it is an object") {
        let path = path.replace("{id}", "nothing").replace("{tag}", "nothing");
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
            let answer = admin.ask(method.clone(), &path, Some(json!({}))).await;
            let there = item.get(method.as_str().to_ascii_lowercase()).is_some();
            assert_eq!(
                answer.status != 405,
                there,
                "{method} {path}: {}",
                answer.body
            );
        }
    }
    // What is shown is in the schema: the client has seen to that. What is in the schema is shown:
    let network = admin.network("10.0.0.0/24").await;
    let group = admin.group("g").await;
    admin
        .make("ports", "port", json!({"network_id": network}))
        .await;
    admin
        .make("address-groups", "address_group", json!({}))
        .await;
    let share = json!({
        "object_type": "network", "object_id": network, "action": "access_as_shared", "target_tenant": "*",
    });
    admin.make("rbac-policies", "rbac_policy", share).await;
    admin.put("agents/h", json!({"agent": {}})).await.done(200);
    let rules = format!("security-group-rules?security_group_id={group}");
    for (path, one) in [
        ("security-groups", "security_group"),
        (&rules, "security_group_rule"),
        (
            "default-security-group-rules",
            "default_security_group_rule",
        ),
        ("address-groups", "address_group"),
        ("networks", "network"),
        ("subnets", "subnet"),
        ("ports", "port"),
        ("rbac-policies", "rbac_policy"),
        ("agents", "agent"),
    ] {
        let list = admin.get(path).await.done(200);
        let (_, items) = list
            .body
            .as_object()
            .and_then(|o| o.iter().next())
            .expect("a list");
        let shown: Vec<_> = items[0].as_object().expect("there is one").keys().collect();
        let schema = &DOCUMENT["components"]["schemas"][one]["properties"];
        let said: Vec<_> = schema
            .as_object()
            .expect("it is an object")
            .keys()
            .collect();
        assert_eq!(shown, said, "{path}");
    }
}
