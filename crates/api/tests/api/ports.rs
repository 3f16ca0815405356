//! Ports.

use crate::bed::{Bed, Plan};
use crate::client::{Answer, Client};
use control::Kept;
use control::told::{Connection, Lack, NotEnforced, Running, Told};
use model::{HostId, PortId};
use serde_json::{Value, json};
use std::sync::Arc;
use store::memory::Memory;
use store::{Store, Transaction};

async fn post(client: &Client, network: &str, attributes: Value) -> Answer {
    let mut port = json!({ "network_id": network });
    for (name, value) in attributes.as_object().into_iter().flatten() {
        port[name] = value.clone();
    }
    client.post("ports", json!({ "port": port })).await
}

async fn put(client: &Client, port: &Answer, attributes: Value) -> Answer {
    let id = port.body["port"]["id"].as_str().expect("it has an id");
    client
        .put(&format!("ports/{id}"), json!({ "port": attributes }))
        .await
}

#[tokio::test]
async fn a_port_gets_an_address_a_mac_and_the_default_group() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let network = alice.network("10.0.0.0/24").await;
    let made = post(&alice, &network, json!({"name": "p", "device_id": "vm1"}))
        .await
        .done(201);
    let port = &made.body["port"];
    let address = port["fixed_ips"][0]["ip_address"]
        .as_str()
        .unwrap_or_default();
    assert!(address.starts_with("10.0.0."), "{address}");
    assert_eq!(port["mac_address"].as_str().map(str::len), Some(17));
    assert_eq!(port["status"], "DOWN", "on no host");
    assert_eq!(
        (&port["port_security_enabled"], &port["admin_state_up"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(port["allowed_address_pairs"], json!([]));
    assert_eq!(port["device_id"], "vm1");
    assert!(port.get("binding:host_id").is_none(), "for admins");
    let default = alice.listed("security-groups?name=default", "id").await;
    assert_eq!(port["security_groups"], json!(default));
    let none = post(&alice, &network, json!({"security_groups": []}))
        .await
        .done(201);
    assert_eq!(none.body["port"]["security_groups"], json!([]));
    let dhcp = post(&alice, &network, json!({"device_owner": "network:dhcp"}))
        .await
        .done(201);
    assert_eq!(dhcp.body["port"]["security_groups"], json!([]));
    let open = post(&alice, &network, json!({"port_security_enabled": false}))
        .await
        .done(201);
    assert_eq!(open.body["port"]["security_groups"], json!([]));
    post(&alice, &network, json!({"security_groups": ["x"]}))
        .await
        .refused(404, "SecurityGroupNotFound");
    post(&alice, "nothing", json!({}))
        .await
        .refused(404, "NetworkNotFound");
    alice
        .post("ports", json!({"port": {}}))
        .await
        .refused(400, "HTTPBadRequest: 'network_id'");
}

/// Neutron refuses it; our planes do both.
#[tokio::test]
async fn groups_of_both_states_go_together() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let network = alice.network("10.0.0.0/24").await;
    let stateful = alice.group("a").await;
    let stateless = json!({"stateful": false});
    let stateless = alice
        .make("security-groups", "security_group", stateless)
        .await;
    let both = json!({"security_groups": [stateful, stateless]});
    post(&alice, &network, both).await.done(201);
}

#[tokio::test]
async fn port_security_goes_with_groups_and_pairs() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let network = alice.network("10.0.0.0/24").await;
    let group = alice.group("a").await;
    let off = json!({"port_security_enabled": false, "security_groups": [group]});
    let refused = post(&alice, &network, off).await;
    refused.refused(400, "PortSecurityAndIPRequiredForSecurityGroups");
    let pair = json!([{"ip_address": "10.0.0.99"}]);
    let off = json!({"port_security_enabled": false, "allowed_address_pairs": pair});
    let refused = post(&alice, &network, off).await;
    refused.refused(409, "AddressPairAndPortSecurityRequired");
    let port = post(&alice, &network, json!({"security_groups": [group]}))
        .await
        .done(201);
    let refused = put(&alice, &port, json!({"port_security_enabled": false})).await;
    refused.refused(409, "PortSecurityPortHasSecurityGroup");
    let both = json!({"port_security_enabled": false, "security_groups": []});
    put(&alice, &port, both).await.done(200);
}

#[tokio::test]
async fn address_pairs_are_few_and_different() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let network = alice.network("10.0.0.0/24").await;
    let pairs = |pairs: Value| json!({ "allowed_address_pairs": pairs });
    let made = post(
        &alice,
        &network,
        pairs(json!([{"ip_address": "10.0.0.99"}, {"ip_address": "10.1.0.0/16"}])),
    );
    let made = made.await.done(201);
    let port = &made.body["port"];
    let mut addresses: Vec<_> = (0..2)
        .map(|at| port["allowed_address_pairs"][at]["ip_address"].clone())
        .collect();
    addresses.sort_by_key(Value::to_string);
    assert_eq!(addresses, ["10.0.0.99", "10.1.0.0/16"]);
    assert_eq!(
        port["allowed_address_pairs"][0]["mac_address"],
        port["mac_address"]
    );
    let many: Vec<_> = (0..11)
        .map(|n| json!({"ip_address": format!("10.2.0.{n}")}))
        .collect();
    let many = post(&alice, &network, pairs(json!(many))).await;
    many.refused(400, "AllowedAddressPairExhausted");
    let twice = json!([{"ip_address": "10.0.0.9"}, {"ip_address": "10.0.0.9/32"}]);
    post(&alice, &network, pairs(twice))
        .await
        .refused(400, "DuplicateAddressPairInRequest");
    for wrong in [
        json!([{"ip_address": "x"}]),
        json!([{}]),
        json!([{"ip_address": "10.0.0.9", "mac_address": "x"}]),
        json!([{"ip_address": "10.0.0.9", "colour": "red"}]),
        json!({"ip_address": "10.0.0.9"}),
    ] {
        post(&alice, &network, pairs(wrong))
            .await
            .refused(400, "HTTPBadRequest");
    }
}

#[tokio::test]
async fn addresses_are_had_once() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let network = alice.network("10.0.0.0/24").await;
    let fixed = |address: &str| json!({"fixed_ips": [{ "ip_address": address }]});
    post(&alice, &network, fixed("10.0.0.50")).await.done(201);
    post(&alice, &network, fixed("10.0.0.50"))
        .await
        .refused(409, "IpAddressAlreadyAllocated");
    post(&alice, &network, fixed("10.9.0.1"))
        .await
        .refused(400, "InvalidIpForNetwork");
    post(&alice, &network, fixed("x"))
        .await
        .refused(400, "HTTPBadRequest");
    let mac = json!({"mac_address": "02:00:00:00:00:01"});
    post(&alice, &network, mac.clone()).await.done(201);
    post(&alice, &network, mac)
        .await
        .refused(409, "MacAddressInUse");
    for wrong in ["x", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"] {
        let refused = post(&alice, &network, json!({ "mac_address": wrong })).await;
        refused.refused(400, "HTTPBadRequest");
    }
    let small = alice.network("10.1.0.0/30").await;
    post(&alice, &small, json!({})).await.done(201);
    post(&alice, &small, json!({}))
        .await
        .refused(409, "IpAddressGenerationFailure");
    let found = alice
        .listed("ports?fixed_ips=ip_address%3D10.0.0.50", "id")
        .await;
    assert_eq!(found.len(), 1);
}

/// By the host to another server, which has written it into the store.
#[tokio::test]
async fn a_status_that_another_server_was_told_is_shown() {
    let store = Arc::new(Memory::new());
    let plan = Plan {
        store: store.clone(),
        ..Plan::default()
    };
    let bed = plan.start().await;
    let admin = bed.admin();
    let network = admin.network("10.0.0.0/24").await;
    let bound = json!({"binding:host_id": "elsewhere"});
    let port = post(&admin, &network, bound).await.done(201);
    let port = &port.body["port"];
    let id = port["id"].as_str().expect("it has one");
    let written = port["revision_number"].as_u64().expect("it has one");
    let tell = async |epoch, enforced, lack: Option<Lack>| {
        let not_enforced = lack.map(|lack| {
            let why = "so".to_owned();
            (PortId::from(id), NotEnforced { lack, why })
        });
        let told = Told {
            host: HostId::from("elsewhere"),
            connection: Connection::default(),
            server: Some("s".to_owned()),
            software: "test".to_owned(),
            epoch,
            enforced,
            not_enforced: not_enforced.into_iter().collect(),
        };
        let transaction = Transaction::new().put(told.key(), told.value());
        store.commit(transaction).await.expect("memory answers")
    };
    for (epoch, enforced, lack, expected) in [
        (1, written - 1, None, "DOWN"),
        (1, written, None, "ACTIVE"),
        (1, written, Some(Lack::Absent), "DOWN"),
        (1, written, Some(Lack::Pending), "DOWN"),
        (1, written, Some(Lack::Refused), "ERROR"),
        // From before the store was restored.
        (0, written, None, "DOWN"),
        (1, written, None, "ACTIVE"),
    ] {
        tell(epoch, enforced, lack).await;
        // What is made after it is seen after it.
        admin.network("10.1.0.0/24").await;
        let shown = admin.get(&format!("ports/{id}")).await.done(200);
        let status = &shown.body["port"]["status"];
        assert_eq!(status, expected, "{epoch} {enforced} {lack:?}");
    }
    let alive = async || {
        let hosts = admin.get("/portcullis/v1/hosts").await.done(200);
        hosts.body["hosts"][0]["connected"].clone()
    };
    assert_eq!(alive().await, false, "its server isn't there");
    let (run, name) = ("s".to_owned(), "rack1:9696".to_owned());
    let running = Running { run, name };
    let there = Transaction::new().put(running.key(), running.value());
    store.commit(there).await.expect("memory answers");
    admin.network("10.1.0.0/24").await;
    assert_eq!(alive().await, true);
}

#[tokio::test]
async fn a_binding_is_for_admins() {
    let bed = Bed::new().await;
    let (alice, admin) = (bed.member("alice"), bed.admin());
    let network = alice.network("10.0.0.0/24").await;
    let bound = json!({"binding:host_id": "host1", "binding:profile": {"device": "tap1", "os": {"a": [1]}}});
    post(&alice, &network, bound.clone())
        .await
        .refused(403, "PolicyNotAuthorized: binding:");
    let port = post(&alice, &network, json!({})).await.done(201);
    put(&alice, &port, json!({"binding:host_id": "host1"}))
        .await
        .refused(403, "PolicyNotAuthorized");
    let put_by_admin = put(&admin, &port, bound).await.done(200);
    let port = &put_by_admin.body["port"];
    assert_eq!(port["binding:host_id"], "host1");
    assert_eq!(port["status"], "ACTIVE", "its host says so");
    assert_eq!(
        port["binding:profile"],
        json!({"device": "tap1", "os": {"a": [1]}})
    );
    assert_eq!(port["binding:vif_type"], "tap");
    assert_eq!(port["binding:vif_details"], json!({"port_filter": true}));
    assert_eq!(port["binding:vnic_type"], "normal");
    assert_eq!(
        admin
            .listed("ports?binding:host_id=host1", "id")
            .await
            .len(),
        1
    );
    let plain = put(&admin, &put_by_admin, json!({"binding:profile": {}}))
        .await
        .done(200);
    assert_eq!(plain.body["port"]["binding:profile"], json!({}));
    let off = put(&admin, &plain, json!({"binding:host_id": ""}))
        .await
        .done(200);
    assert_eq!(off.body["port"]["binding:vif_type"], "unbound");
    let wrong = json!({"binding:host_id": "h", "binding:profile": {"device": 1}});
    put(&admin, &plain, wrong)
        .await
        .refused(400, "HTTPBadRequest: binding:profile");
}

/// As Nova does it.
#[tokio::test]
async fn a_profile_says_that_a_port_is_being_moved() {
    let bed = Bed::new().await;
    let (alice, admin) = (bed.member("alice"), bed.admin());
    let network = alice.network("10.0.0.0/24").await;
    let port = post(&alice, &network, json!({})).await.done(201);
    let profile = |profile: Value| json!({ "binding:profile": profile });
    put(&alice, &port, profile(json!({"migrating_to": "host2"})))
        .await
        .refused(403, "PolicyNotAuthorized");
    put(&admin, &port, profile(json!({"migrating_to": "host2"})))
        .await
        .refused(400, "HTTPBadRequest: binding:profile");
    put(&admin, &port, json!({"binding:host_id": "host1"}))
        .await
        .done(200);
    let moving = json!({"device": "tap1", "migrating_to": "host2"});
    let asked = put(&admin, &port, profile(moving.clone())).await.done(200);
    assert_eq!(asked.body["port"]["binding:profile"], moving);
    assert_eq!(asked.body["port"]["binding:host_id"], "host1");
    for wrong in [json!(1), json!("host/2")] {
        put(&admin, &port, profile(json!({ "migrating_to": wrong })))
            .await
            .refused(400, "HTTPBadRequest: binding:");
    }
    let ended = put(&admin, &port, profile(json!({"device": "tap1"})))
        .await
        .done(200);
    assert_eq!(
        ended.body["port"]["binding:profile"],
        json!({"device": "tap1"})
    );
    put(&admin, &port, profile(moving)).await.done(200);
    let there = put(&admin, &port, json!({"binding:host_id": "host2"}))
        .await
        .done(200);
    assert_eq!(there.body["port"]["binding:host_id"], "host2");
    assert_eq!(there.body["port"]["binding:profile"], json!({}));
}

/// CVE-2015-5240, CVE-2026-50266.
#[tokio::test]
async fn who_doesnt_own_the_network_gets_no_trust() {
    let bed = Bed::new().await;
    let (owner, alice) = (bed.admin(), bed.member("alice"));
    let network = owner.network("10.0.0.0/24").await;
    owner
        .put(
            &format!("networks/{network}"),
            json!({"network": {"shared": true}}),
        )
        .await
        .done(200);
    let port = post(&alice, &network, json!({})).await.done(201);
    for trust in [
        json!({"device_owner": "network:dhcp"}),
        json!({"device_owner": "network:router_interface"}),
        json!({"port_security_enabled": false, "security_groups": []}),
        json!({"allowed_address_pairs": [{"ip_address": "10.0.0.1"}]}),
        json!({"mac_address": "02:00:00:00:00:01"}),
        json!({"fixed_ips": [{"ip_address": "10.0.0.77"}]}),
    ] {
        post(&alice, &network, trust.clone())
            .await
            .refused(403, "PolicyNotAuthorized");
        put(&alice, &port, trust)
            .await
            .refused(403, "PolicyNotAuthorized");
    }
    let refusals = bed.audit.all();
    let refusals = refusals
        .iter()
        .filter(|line| line["refusal"] == "PolicyNotAuthorized");
    assert_eq!(refusals.count(), 12, "and each is in the audit log");
}

#[tokio::test]
async fn ports_are_listed_changed_and_deleted() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let network = alice.network("10.0.0.0/24").await;
    let group = alice.group("g").await;
    let many = json!({"ports": [
        {"network_id": network, "name": "a", "security_groups": [group]},
        {"network_id": network, "name": "b", "device_id": "vm"},
    ]});
    alice.post("ports", many).await.done(201);
    assert_eq!(alice.listed("ports?device_id=vm", "name").await, ["b"]);
    assert_eq!(
        alice
            .listed(&format!("ports?security_groups={group}"), "name")
            .await,
        ["a"]
    );
    assert_eq!(
        alice
            .listed(&format!("ports?network_id={network}"), "name")
            .await
            .len(),
        2
    );
    assert_eq!(
        bed.member("bob").listed("ports", "name").await,
        Vec::<String>::new()
    );
    let id = alice.listed("ports?name=a", "id").await.remove(0);
    let path = format!("ports/{id}");
    let body = json!({"port": {"name": "c", "security_groups": []}});
    let changed = alice.put(&path, body).await.done(200);
    assert_eq!(
        (
            &changed.body["port"]["name"],
            &changed.body["port"]["security_groups"]
        ),
        (&json!("c"), &json!([]))
    );
    bed.member("bob")
        .delete(&path)
        .await
        .refused(404, "PortNotFound");
    alice.delete(&path).await.done(204);
    alice.get(&path).await.refused(404, "PortNotFound");
}

/// Nova at a detach: null is "on no host".
#[tokio::test]
async fn a_port_is_let_go_of_by_null() {
    let bed = Bed::new().await;
    let admin = bed.admin();
    let network = admin.network("10.0.0.0/24").await;
    let bound =
        json!({"binding:host_id": "h1", "device_id": "vm1", "device_owner": "compute:nova"});
    let port = post(&admin, &network, bound).await.done(201);
    let unbound = json!({
        "device_id": "", "device_owner": "", "binding:host_id": null, "binding:profile": {},
    });
    let shown = put(&admin, &port, unbound).await.done(200);
    let shown = &shown.body["port"];
    assert_eq!(shown["binding:host_id"], "");
    assert_eq!(shown["binding:vif_type"], "unbound");
    assert_eq!(shown["device_id"], "");
    let none = post(&admin, &network, json!({"binding:host_id": null}));
    assert_eq!(none.await.done(201).body["port"]["binding:host_id"], "");
}

/// Who makes a port for a machine that is placed later says what kind of NIC it is to have.
#[tokio::test]
async fn what_is_said_of_a_binding_waits_for_a_host() {
    let bed = Bed::new().await;
    let (alice, admin) = (bed.member("alice"), bed.admin());
    let network = alice.network("10.0.0.0/24").await;
    let direct = json!({"binding:vnic_type": "direct"});
    let port = post(&alice, &network, direct).await.done(201);
    assert_eq!(port.body["port"]["binding:vnic_type"], "direct");
    let profile = json!({"binding:profile": {"pci": "0000:05"}});
    let port = put(&admin, &port, profile.clone()).await.done(200);
    let check = |port: &Answer, host: &str| {
        let port = &port.body["port"];
        assert_eq!(port["binding:host_id"], host);
        assert_eq!(port["binding:vnic_type"], "direct");
        assert_eq!(port["binding:profile"], profile["binding:profile"]);
    };
    check(&port, "");
    let bound = put(&admin, &port, json!({"binding:host_id": "h1"}));
    check(&bound.await.done(200), "h1");
    let unbound = put(&admin, &port, json!({"binding:host_id": null}));
    check(&unbound.await.done(200), "");
    let usual = json!({"binding:vnic_type": "normal", "binding:profile": {}});
    let usual = put(&admin, &port, usual).await.done(200);
    assert_eq!(usual.body["port"]["binding:vnic_type"], "normal");
    assert_eq!(usual.body["port"]["binding:profile"], json!({}));
    let device = json!({"binding:profile": {"device": "tap1"}});
    put(&admin, &port, device)
        .await
        .refused(400, "HTTPBadRequest: no binding:host_id");
}

#[tokio::test]
async fn null_is_by_itself_at_first_and_nothing_later() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let network = alice.network("10.0.0.0/24").await;
    let nulls =
        json!({"security_groups": null, "allowed_address_pairs": null, "mac_address": null});
    let port = post(&alice, &network, nulls).await.done(201);
    let default = alice.listed("security-groups?name=default", "id").await;
    assert_eq!(port.body["port"]["security_groups"], json!(default));
    let pair = json!({"allowed_address_pairs": [{"ip_address": "10.9.0.5/24"}]});
    let paired = put(&alice, &port, pair).await.done(200);
    let shown = &paired.body["port"]["allowed_address_pairs"][0];
    assert_eq!(shown["ip_address"], "10.9.0.0/24");
    let nulls = json!({"security_groups": null, "allowed_address_pairs": null});
    let none = put(&alice, &port, nulls).await.done(200);
    assert_eq!(none.body["port"]["security_groups"], json!([]));
    assert_eq!(none.body["port"]["allowed_address_pairs"], json!([]));
}

#[tokio::test]
async fn a_service_s_port_has_no_security_by_itself() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let network = alice.network("10.0.0.0/24").await;
    for (asked, expected) in [
        (json!({"device_owner": "network:dhcp"}), false),
        (
            json!({"device_owner": "network:dhcp", "port_security_enabled": true}),
            true,
        ),
        (json!({"device_owner": "compute:nova"}), true),
    ] {
        let port = post(&alice, &network, asked).await.done(201);
        assert_eq!(port.body["port"]["port_security_enabled"], expected);
    }
}

#[tokio::test]
async fn what_is_said_again_is_no_change() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let network = alice.network("10.0.0.0/24").await;
    let port = post(&alice, &network, json!({"name": "p"})).await.done(201);
    let first = port.body["port"]["revision_number"].clone();
    let same = json!({
        "name": "p",
        "security_groups": port.body["port"]["security_groups"],
        "fixed_ips": port.body["port"]["fixed_ips"],
    });
    for asked in [same, json!({})] {
        let again = put(&alice, &port, asked).await.done(200);
        assert_eq!(again.body["port"]["revision_number"], first);
    }
    let other = put(&alice, &port, json!({"name": "q"})).await.done(200);
    assert_ne!(other.body["port"]["revision_number"], first);
}

#[tokio::test]
async fn a_list_is_filtered_however_a_mac_is_written() {
    let bed = Bed::new().await;
    let admin = bed.admin();
    let network = admin.network("10.0.0.0/24").await;
    let mac = json!({"mac_address": "FA:16:3E:00:01:01"});
    post(&admin, &network, mac).await.done(201);
    for written in [
        "fa:16:3e:00:01:01",
        "FA:16:3E:00:01:01",
        "fa-16-3e-00-01-01",
    ] {
        let path = format!("ports?mac_address={written}");
        assert_eq!(admin.listed(&path, "id").await.len(), 1, "{written}");
    }
    let odd = json!({"binding:host_id": "h1", "binding:vnic_type": "odd"});
    post(&admin, &network, odd)
        .await
        .refused(400, "HTTPBadRequest: is not in");
}
