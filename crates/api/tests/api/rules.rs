//! Rules of security groups.

use crate::bed::Bed;
use crate::client::{Answer, Client};
use serde_json::{Value, json};

const RULES: &str = "security-group-rules";
const ROOT: &str = "security_group_rule";

async fn post(client: &Client, group: &str, attributes: Value) -> Answer {
    let mut rule = json!({"security_group_id": group, "direction": "ingress"});
    for (name, value) in attributes.as_object().into_iter().flatten() {
        rule[name] = value.clone();
    }
    client.post(RULES, json!({ ROOT: rule })).await
}

/// What is asked, and what part of the answer.
async fn taken(rows: &[(Value, Value)]) {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    for (asked, expected) in rows {
        let group = alice.group("g").await;
        let answer = post(&alice, &group, asked.clone()).await.done(201);
        for (name, value) in expected.as_object().into_iter().flatten() {
            assert_eq!(answer.body[ROOT][name], *value, "{asked}: {name}");
        }
    }
}

async fn refused(rows: &[(Value, u16, &str)]) {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let group = alice.group("g").await;
    for (asked, status, what) in rows {
        post(&alice, &group, asked.clone())
            .await
            .refused(*status, what);
    }
    let rules = alice
        .listed(&format!("{RULES}?security_group_id={group}"), "id")
        .await;
    assert_eq!(rules.len(), 2, "nothing was made");
}

#[tokio::test]
async fn a_rule_has_defaults() {
    let nothing = json!({
        "ethertype": "IPv4", "protocol": null, "port_range_min": null, "port_range_max": null,
        "remote_ip_prefix": null, "normalized_cidr": null, "remote_group_id": null,
        "remote_address_group_id": null, "description": "", "project_id": "alice", "tenant_id": "alice",
        "belongs_to_default_sg": false,
    });
    taken(&[
        (json!({}), nothing),
        (json!({"protocol": "any"}), json!({"protocol": null})),
        (json!({"protocol": "TCP"}), json!({"protocol": "tcp"})),
        (json!({"protocol": 6}), json!({"protocol": "6"})),
        (json!({"protocol": "132"}), json!({"protocol": "132"})),
        (json!({"protocol": 0}), json!({"protocol": "0"})),
        (json!({"protocol": "vrrp"}), json!({"protocol": "vrrp"})),
        (json!({"ethertype": "ipv6"}), json!({"ethertype": "IPv6"})),
        (
            json!({"direction": "egress", "protocol": "tcp"}),
            json!({"direction": "egress"}),
        ),
    ])
    .await;
    refused(&[
        (
            json!({"protocol": "foo"}),
            400,
            "SecurityGroupRuleInvalidProtocol",
        ),
        (
            json!({"protocol": 256}),
            400,
            "SecurityGroupRuleInvalidProtocol",
        ),
        (
            json!({"protocol": -1}),
            400,
            "SecurityGroupRuleInvalidProtocol",
        ),
        // Neutron answers 500.
        (json!({"protocol": ["tcp"]}), 400, "HTTPBadRequest"),
        (json!({"protocol": {"a": 1}}), 400, "HTTPBadRequest"),
        (json!({"protocol": true}), 400, "HTTPBadRequest"),
        (
            json!({"direction": "up"}),
            400,
            "HTTPBadRequest: Invalid input for direction",
        ),
        (
            json!({"ethertype": "IPv5"}),
            400,
            "HTTPBadRequest: Invalid input for ethertype",
        ),
    ])
    .await;
}

#[tokio::test]
async fn icmp_has_types_and_codes() {
    taken(&[
        (
            json!({"protocol": "icmp", "ethertype": "IPv6"}),
            json!({"protocol": "ipv6-icmp"}),
        ),
        (
            json!({"protocol": "icmpv6", "ethertype": "IPv6"}),
            json!({"protocol": "ipv6-icmp"}),
        ),
        (
            json!({"protocol": "1", "ethertype": "IPv6"}),
            json!({"protocol": "58"}),
        ),
        (
            json!({"protocol": "icmp", "port_range_min": 0, "port_range_max": 0}),
            json!({"port_range_min": 0, "port_range_max": 0}),
        ),
        (
            json!({"protocol": "icmp", "port_range_min": 8}),
            json!({"port_range_min": 8, "port_range_max": null}),
        ),
        (
            json!({"protocol": "icmp", "port_range_min": "3"}),
            json!({"port_range_min": 3}),
        ),
    ])
    .await;
    let conflict = "SecurityGroupEthertypeConflictWithProtocol";
    refused(&[
        (json!({"protocol": "ipv6-icmp"}), 400, conflict),
        (json!({"protocol": "ipv6-frag"}), 400, conflict),
        (
            json!({"protocol": "icmp", "port_range_min": 256}),
            400,
            "SecurityGroupInvalidIcmpValue",
        ),
        (
            json!({"protocol": "icmp", "port_range_min": 3, "port_range_max": 256}),
            400,
            "SecurityGroupInvalidIcmpValue",
        ),
        (
            json!({"protocol": "icmp", "port_range_max": 3}),
            400,
            "SecurityGroupMissingIcmpType",
        ),
    ])
    .await;
}

#[tokio::test]
async fn some_protocols_have_ports() {
    let range = |protocol: &str, min: Value, max: Value| json!({"protocol": protocol, "port_range_min": min, "port_range_max": max});
    let is = |min: Value, max: Value| json!({"port_range_min": min, "port_range_max": max});
    let mut rows = Vec::new();
    for protocol in ["tcp", "udp", "sctp", "dccp", "udplite", "6", "17"] {
        rows.push((
            range(protocol, json!(80), json!(90)),
            is(json!(80), json!(90)),
        ));
    }
    rows.push((
        range("tcp", json!("22"), json!("22")),
        is(json!(22), json!(22)),
    ));
    rows.push((
        range("tcp", json!(1), json!(65535)),
        is(json!(null), json!(null)),
    ));
    let mut all = vec![json!({"port_range_min": 1, "port_range_max": 65535})];
    all.extend(["any", "gre", "icmp"].map(|name| range(name, json!(1), json!(65535))));
    rows.extend(
        all.into_iter()
            .map(|all| (all, is(json!(null), json!(null)))),
    );
    taken(&rows).await;
    let value = "SecurityGroupInvalidPortValue";
    let bad_range = "SecurityGroupInvalidPortRange";
    refused(&[
        (
            range("esp", json!(1), json!(2)),
            400,
            "SecurityGroupInvalidProtocolForPort",
        ),
        (
            range("47", json!(1), json!(2)),
            400,
            "SecurityGroupInvalidProtocolForPort",
        ),
        (range("tcp", json!(90), json!(80)), 400, bad_range),
        (
            json!({"protocol": "tcp", "port_range_min": 80}),
            400,
            bad_range,
        ),
        (
            json!({"protocol": "tcp", "port_range_max": 80}),
            400,
            bad_range,
        ),
        (range("tcp", json!(0), json!(80)), 400, value),
        (range("tcp", json!(-1), json!(80)), 400, value),
        (range("tcp", json!(80), json!(65536)), 400, value),
        (range("tcp", json!("ssh"), json!("ssh")), 400, value),
        (range("tcp", json!(1.5), json!(2)), 400, value),
        (range("tcp", json!([1]), json!(2)), 400, "HTTPBadRequest"),
        (
            json!({"port_range_min": 80, "port_range_max": 80}),
            400,
            "SecurityGroupProtocolRequiredWithPorts",
        ),
    ])
    .await;
}

#[tokio::test]
async fn prefixes_are_kept_as_written() {
    let v4 = |prefix: &str| json!({ "remote_ip_prefix": prefix });
    let v6 = |prefix: &str| json!({"remote_ip_prefix": prefix, "ethertype": "IPv6"});
    let both = |written: &str, normal: &str| json!({"remote_ip_prefix": written, "normalized_cidr": normal});
    taken(&[
        (v4("10.0.0.5"), both("10.0.0.5/32", "10.0.0.5/32")),
        (v4("10.0.0.5/24"), both("10.0.0.5/24", "10.0.0.0/24")),
        (v6("fd00::1"), both("fd00::1/128", "fd00::1/128")),
        (v6("fd00::1/64"), both("fd00::1/64", "fd00::/64")),
    ])
    .await;
    refused(&[
        (v4("10.0.0.300"), 400, "InvalidCIDR"),
        (v4("10.0.0.0/33"), 400, "InvalidCIDR"),
        (v4("web"), 400, "InvalidCIDR"),
        (v4("fd00::/64"), 400, "SecurityGroupRuleParameterConflict"),
        (v6("10.0.0.0/24"), 400, "SecurityGroupRuleParameterConflict"),
        (json!({"remote_ip_prefix": 10}), 400, "HTTPBadRequest"),
    ])
    .await;
}

#[tokio::test]
async fn one_remote_at_most_and_it_is_there() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let (group, other) = (alice.group("g").await, alice.group("o").await);
    let addresses = alice
        .make("address-groups", "address_group", json!({}))
        .await;
    let foreign = bed.member("bob").group("theirs").await;
    post(&alice, &group, json!({"remote_group_id": other}))
        .await
        .done(201);
    post(
        &alice,
        &group,
        json!({"remote_address_group_id": addresses}),
    )
    .await
    .done(201);
    let both = json!({"remote_group_id": other, "remote_ip_prefix": "10.0.0.0/8"});
    post(&alice, &group, both)
        .await
        .refused(400, "SecurityGroupMultipleRemoteEntites");
    for missing in ["nothing", &foreign] {
        let rule = post(&alice, &group, json!({ "remote_group_id": missing })).await;
        rule.refused(404, "SecurityGroupNotFound");
        let rule = post(
            &alice,
            &group,
            json!({ "remote_address_group_id": missing }),
        )
        .await;
        rule.refused(404, "AddressGroupNotFound");
    }
    post(&alice, "nothing", json!({}))
        .await
        .refused(404, "SecurityGroupNotFound");
    post(&alice, &foreign, json!({}))
        .await
        .refused(404, "SecurityGroupNotFound");
}

#[tokio::test]
async fn a_duplicate_names_the_old_rule() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let group = alice.group("g").await;
    let tcp = post(
        &alice,
        &group,
        json!({"protocol": "tcp", "description": "a"}),
    )
    .await
    .done(201);
    let old = tcp.body[ROOT]["id"]
        .as_str()
        .expect("it has an id")
        .to_owned();
    for same in [
        json!({"protocol": "tcp"}),
        json!({"protocol": "TCP", "description": "b"}),
        json!({"protocol": "6"}),
        json!({"protocol": 6, "remote_ip_prefix": "0.0.0.0/0"}),
        json!({"protocol": "tcp", "port_range_min": 1, "port_range_max": 65535}),
    ] {
        let again = post(&alice, &group, same).await;
        again.refused(409, &format!("SecurityGroupRuleExists: {old}"));
    }
    post(
        &alice,
        &group,
        json!({"protocol": "tcp", "ethertype": "IPv6"}),
    )
    .await
    .done(201);
    let all = json!({"protocol": "tcp", "ethertype": "IPv6", "remote_ip_prefix": "::/0"});
    post(&alice, &group, all)
        .await
        .refused(409, "SecurityGroupRuleExists");
}

#[tokio::test]
async fn many_rules_are_made_at_once_or_none() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let (group, other) = (alice.group("g").await, alice.group("o").await);
    let rule = |group: &str, port: u16| {
        json!({
            "security_group_id": group, "direction": "ingress", "protocol": "tcp",
            "port_range_min": port, "port_range_max": port,
        })
    };
    let many = |rules: &[Value]| json!({ "security_group_rules": rules });
    let made = alice
        .post(RULES, many(&[rule(&group, 2), rule(&group, 1)]))
        .await
        .done(201);
    let ports = made.body["security_group_rules"]
        .as_array()
        .expect("it is a list")
        .iter();
    assert_eq!(
        Vec::from_iter(ports.map(|rule| rule["port_range_min"].clone())),
        [2, 1]
    );
    let twice = alice
        .post(RULES, many(&[rule(&group, 3), rule(&group, 3)]))
        .await;
    twice.refused(409, "DuplicateSecurityGroupRuleInPost");
    let two = alice
        .post(RULES, many(&[rule(&group, 4), rule(&other, 4)]))
        .await;
    two.refused(400, "SecurityGroupNotSingleGroupRules");
    let known = alice
        .post(RULES, many(&[rule(&group, 5), rule(&group, 1)]))
        .await;
    known.refused(409, "SecurityGroupRuleExists");
    alice
        .post(RULES, many(&[]))
        .await
        .refused(400, "HTTPBadRequest");
    let rules = alice
        .listed(&format!("{RULES}?security_group_id={group}"), "id")
        .await;
    assert_eq!(rules.len(), 4, "nothing of the refused was made");
}

#[tokio::test]
async fn a_description_is_all_that_changes() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let group = alice.group("g").await;
    let rule = post(&alice, &group, json!({"protocol": "tcp"}))
        .await
        .done(201);
    let path = format!(
        "{RULES}/{}",
        rule.body[ROOT]["id"].as_str().expect("it has an id")
    );
    // Neutron answers 500.
    let put = alice
        .put(&path, json!({ ROOT: {"description": "d"} }))
        .await
        .done(200);
    assert_eq!(put.body[ROOT]["description"], "d");
    let put = alice.put(&path, json!({ ROOT: {"protocol": "udp"} })).await;
    put.refused(
        400,
        "HTTPBadRequest: Cannot update read-only attribute protocol",
    );
    alice.delete(&path).await.done(204);
    alice
        .delete(&path)
        .await
        .refused(404, "SecurityGroupRuleNotFound");
}

#[tokio::test]
async fn rules_are_seen_with_their_group_only() {
    let bed = Bed::new().await;
    let alice = bed.member("alice");
    let group = alice.group("g").await;
    let rule = post(&alice, &group, json!({})).await.done(201);
    let path = format!(
        "{RULES}/{}",
        rule.body[ROOT]["id"].as_str().expect("it has an id")
    );
    let bob = bed.member("bob");
    bob.get(&path)
        .await
        .refused(404, "SecurityGroupRuleNotFound");
    bob.delete(&path)
        .await
        .refused(404, "SecurityGroupRuleNotFound");
    let seen = bob
        .listed(&format!("{RULES}?security_group_id={group}"), "id")
        .await;
    assert_eq!(seen, Vec::<String>::new());
    bed.reader("alice").get(&path).await.done(200);
    bed.reader("alice")
        .delete(&path)
        .await
        .refused(403, "PolicyNotAuthorized");
}
