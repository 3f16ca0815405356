//! Ports' bindings by host, as newer Novas move ports with them.

use crate::bed::Bed;
use crate::client::{Answer, Client};
use serde_json::{Value, json};

struct Port {
    bed: Bed,
    id: String,
}

impl Port {
    /// Alice's; on no host.
    async fn new() -> Self {
        let bed = Bed::new().await;
        let alice = bed.member("alice");
        let network = alice.network("10.0.0.0/24").await;
        let new = json!({"network_id": network});
        let id = alice.make("ports", "port", new).await;
        Self { bed, id }
    }

    async fn on(host: &str, profile: Value) -> Self {
        let port = Self::new().await;
        let binding = json!({"binding:host_id": host, "binding:profile": profile});
        port.put(binding).await.done(200);
        port
    }

    fn path(&self, rest: &str) -> String {
        format!("ports/{}/bindings{rest}", self.id)
    }

    async fn put(&self, attributes: Value) -> Answer {
        let path = format!("ports/{}", self.id);
        let body = json!({ "port": attributes });
        self.bed.admin().put(&path, body).await
    }

    async fn create(&self, binding: Value) -> Answer {
        let body = json!({ "binding": binding });
        self.bed.admin().post(&self.path(""), body).await
    }

    async fn change(&self, host: &str, binding: Value) -> Answer {
        let path = self.path(&format!("/{host}"));
        let body = json!({ "binding": binding });
        self.bed.admin().put(&path, body).await
    }

    async fn activate(&self, host: &str) -> Answer {
        let path = self.path(&format!("/{host}/activate"));
        self.bed.admin().ask(http::Method::PUT, &path, None).await
    }

    async fn delete(&self, host: &str) -> Answer {
        self.bed
            .admin()
            .delete(&self.path(&format!("/{host}")))
            .await
    }

    /// Hosts, each with a status; and the port itself says the same.
    async fn check(&self, expected: &[(&str, &str)]) {
        let list = self.bed.admin().get(&self.path("")).await.done(200);
        let text = |on: &Value, name: &str| on[name].as_str().expect("it is text").to_owned();
        let bindings = list.body["bindings"].as_array().expect("it is a list");
        let got = bindings
            .iter()
            .map(|on| (text(on, "host"), text(on, "status")));
        let got = Vec::from_iter(got);
        let expected = expected
            .iter()
            .map(|(host, is)| (host.to_string(), is.to_string()));
        assert_eq!(got, Vec::from_iter(expected));
        let host = |status: &str| {
            let found = got.iter().find(|(_, is)| is == status);
            found.map_or(Value::Null, |(host, _)| host.as_str().into())
        };
        let port = self
            .bed
            .admin()
            .get(&format!("ports/{}", self.id))
            .await
            .done(200);
        let port = &port.body["port"];
        let at = Some(host("ACTIVE")).filter(|host| !host.is_null());
        assert_eq!(port["binding:host_id"], at.unwrap_or("".into()));
        assert_eq!(port["binding:profile"]["migrating_to"], host("INACTIVE"));
    }
}

#[tokio::test]
async fn a_port_is_moved_by_its_bindings() {
    let port = Port::on("h1", json!({"device": "tap1", "vlan": 7})).await;
    port.check(&[("h1", "ACTIVE")]).await;
    let made = port.create(json!({"host": "h2"})).await.done(201);
    let expected = json!({
        "host": "h2", "status": "INACTIVE", "profile": {"vlan": 7}, "vnic_type": "normal",
        "vif_type": "tap", "vif_details": {"port_filter": true},
    });
    assert_eq!(
        made.body["binding"], expected,
        "one host's device isn't another's"
    );
    port.check(&[("h1", "ACTIVE"), ("h2", "INACTIVE")]).await;
    let there = port.activate("h2").await.done(200);
    assert_eq!(there.body["binding"]["status"], "ACTIVE");
    assert_eq!(there.body["binding"]["profile"], json!({"vlan": 7}));
    port.check(&[("h2", "ACTIVE")]).await;
    port.delete("h1").await.refused(404, "PortBindingNotFound");

    // Back, with what is said of that host alone; and not at all.
    let profile = json!({"device": "tap2"});
    let back = json!({"host": "h1", "profile": profile, "vnic_type": "normal"});
    let back = port.create(back).await.done(201);
    assert_eq!(back.body["binding"]["profile"], profile);
    let profile = json!({"device_pattern": "tap*", "vlan": 8});
    let changed = port
        .change("h1", json!({"profile": profile}))
        .await
        .done(200);
    assert_eq!(changed.body["binding"]["profile"], profile);
    let active = port
        .change("h2", json!({"profile": {"vlan": 9}}))
        .await
        .done(200);
    assert_eq!(active.body["binding"]["profile"], json!({"vlan": 9}));
    port.delete("h1").await.done(204);
    port.check(&[("h2", "ACTIVE")]).await;
    port.activate("h1")
        .await
        .refused(404, "PortBindingNotFound");

    let there = port.create(json!({"host": "h3", "profile": profile})).await;
    there.done(201);
    let there = port.activate("h3").await.done(200);
    assert_eq!(there.body["binding"]["profile"], profile);

    // In the audit log it is the port that has changed.
    let lines = port.bed.audit.all();
    let last = lines.last().expect("all of these");
    let host = |when: &str| &last[when]["binding:host_id"];
    assert_eq!(
        (host("before"), host("after")),
        (&json!("h2"), &json!("h3")),
        "{last}"
    );
}

/// Nova says both.
#[tokio::test]
async fn a_profile_and_a_binding_say_one_move() {
    let port = Port::on("h1", json!({})).await;
    port.create(json!({"host": "h2"})).await.done(201);
    let migrating = json!({"binding:profile": {"migrating_to": "h2"}});
    port.put(migrating.clone()).await.done(200);
    port.check(&[("h1", "ACTIVE"), ("h2", "INACTIVE")]).await;
    port.activate("h2").await.done(200);
    port.put(json!({"binding:profile": {}})).await.done(200);
    port.check(&[("h2", "ACTIVE")]).await;

    let other = json!({"binding:profile": {"migrating_to": "h3"}});
    port.put(other).await.done(200);
    port.check(&[("h2", "ACTIVE"), ("h3", "INACTIVE")]).await;
    port.put(json!({"binding:profile": {}})).await.done(200);
    port.check(&[("h2", "ACTIVE")]).await;
    port.delete("h3").await.refused(404, "PortBindingNotFound");
}

#[tokio::test]
async fn the_first_binding_is_active_and_the_last_one_goes_with_the_other() {
    let port = Port::new().await;
    port.check(&[]).await;
    let first = json!({"host": "h1", "profile": {"device": "tap1"}});
    let first = port.create(first).await.done(201);
    assert_eq!(first.body["binding"]["status"], "ACTIVE");
    assert_eq!(first.body["binding"]["profile"], json!({"device": "tap1"}));
    port.create(json!({"host": "h2"})).await.done(201);
    port.delete("h1").await.done(204);
    port.check(&[]).await;
}

#[tokio::test]
async fn what_a_binding_cannot_be() {
    let port = Port::on("h1", json!({})).await;
    port.create(json!({"host": "h1"}))
        .await
        .refused(409, "PortBindingAlreadyExists");
    port.activate("h1")
        .await
        .refused(409, "PortBindingAlreadyActive");
    port.activate("h2")
        .await
        .refused(404, "PortBindingNotFound");
    port.create(json!({"host": "h2"})).await.done(201);
    port.create(json!({"host": "h2"}))
        .await
        .refused(409, "PortBindingAlreadyExists");
    port.create(json!({"host": "h3"}))
        .await
        .refused(409, "PortBindingElsewhere: h2");
    port.change("h3", json!({}))
        .await
        .refused(404, "PortBindingNotFound");
    port.delete("h2").await.done(204);
    for (binding, why) in [
        (json!({}), "host"),
        (json!({"host": ""}), "no name of a host"),
        (json!({"host": "h/2"}), "no name of a host"),
        (json!({"host": "h2", "status": "ACTIVE"}), "status"),
        (json!({"host": "h2", "vif_type": "ovs"}), "vif_type"),
        (json!({"host": "h2", "vnic_type": "direct"}), "vnic_type"),
        (json!({"host": "h2", "profile": []}), "profile"),
        (
            json!({"host": "h2", "profile": {"device": "a/b"}}),
            "device",
        ),
    ] {
        let refused = port.create(binding).await.refused(400, "HTTPBadRequest");
        assert!(refused.message().contains(why), "{}", refused.message());
    }
    port.change("h1", json!({"host": "h2"}))
        .await
        .refused(400, "HTTPBadRequest");
    port.check(&[("h1", "ACTIVE")]).await;
}

#[tokio::test]
async fn bindings_are_for_admins() {
    let port = Port::on("h1", json!({})).await;
    port.create(json!({"host": "h2"})).await.done(201);
    let body = || Some(json!({"binding": {"host": "h3"}}));
    let change = || Some(json!({"binding": {}}));
    let tries = |client: Client, status: u16, what: &'static str| {
        let all = port.path("");
        let (one, activate) = (port.path("/h2"), port.path("/h2/activate"));
        async move {
            use http::Method;
            for (method, path, body) in [
                (Method::GET, &all, None),
                (Method::GET, &one, None),
                (Method::POST, &all, body()),
                (Method::PUT, &one, change()),
                (Method::PUT, &activate, None),
                (Method::DELETE, &one, None),
            ] {
                client.ask(method, path, body).await.refused(status, what);
            }
        }
    };
    tries(port.bed.member("alice"), 403, "PolicyNotAuthorized").await;
    tries(port.bed.member("bob"), 404, "PortNotFound").await;
    port.check(&[("h1", "ACTIVE"), ("h2", "INACTIVE")]).await;
    let admin = port.bed.admin();
    let found = admin.get(&port.path("?status=INACTIVE&fields=host")).await;
    let expected = json!({"bindings": [{"host": "h2"}]});
    assert_eq!(found.done(200).body, expected);
    admin
        .get(&port.path("?colour=red"))
        .await
        .refused(400, "HTTPBadRequest");
    admin
        .get("ports/x/bindings")
        .await
        .refused(404, "PortNotFound");
}
