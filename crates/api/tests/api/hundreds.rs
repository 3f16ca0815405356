//! A hundred objects in one request, of each kind, on each store; and one more.

use crate::bed::{Bed, Plan};
use crate::client::Client;
use crate::etcd::Server;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

#[tokio::test]
async fn a_hundred_in_memory() {
    check_all(&Bed::new().await).await;
}

#[tokio::test]
async fn a_hundred_in_a_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let bed = Plan::embedded(&directory.path().join("store"));
    check_all(&bed.start().await).await;
}

#[tokio::test]
async fn a_hundred_in_etcd() {
    let server = Server::start();
    let plan = Plan {
        store: Arc::new(server.connect().await),
        ..Plan::default()
    };
    check_all(&plan.start().await).await;
}

async fn check_all(bed: &Bed) {
    let alice = bed.member("alice");
    let networks = networks_and_subnets(&alice).await;
    let groups = groups_and_rules(&alice).await;
    ports(&alice, &networks[0], &groups).await;
    addresses(&alice).await;
}

/// So many of each kind. One more is refused, and then none of them is made.
async fn hundred(
    client: &Client,
    path: &str,
    plural: &str,
    new: impl Fn(usize) -> Value,
) -> Vec<Value> {
    let before = client.listed(path, "id").await.len();
    let many = |count| json!({ plural: Vec::from_iter((0..count).map(&new)) });
    let refused = client.post(path, many(101)).await;
    refused.refused(
        413,
        "HTTPRequestEntityTooLarge: 101 objects; at most 100 are possible",
    );
    assert_eq!(client.listed(path, "id").await.len(), before);
    let made = client.post(path, many(100)).await.done(201);
    let made = made.body[plural].as_array().expect("a list").clone();
    assert_eq!(made.len(), 100);
    let ids = BTreeSet::from_iter(made.iter().map(id));
    assert_eq!(ids.len(), 100);
    let listed = BTreeSet::from_iter(client.listed(path, "id").await);
    assert!(ids.is_subset(&listed), "{path}");
    made
}

fn id(object: &Value) -> String {
    object["id"].as_str().expect("it has an id").to_owned()
}

/// The networks' ids. The first has a subnet of each IP version, and a hundred more.
async fn networks_and_subnets(client: &Client) -> Vec<String> {
    let made = hundred(
        client,
        "networks",
        "networks",
        |n| json!({"name": format!("n{n}")}),
    );
    let networks = Vec::from_iter(made.await.iter().map(id));
    let subnet = |network: &str, version: u8, cidr: String| json!({"network_id": network, "ip_version": version, "cidr": cidr});
    hundred(client, "subnets", "subnets", |n| {
        subnet(&networks[n % 100], 4, "10.0.0.0/16".to_owned())
    })
    .await;
    let both = subnet(&networks[0], 6, "2001:db8::/64".to_owned());
    client.make("subnets", "subnet", both).await;
    hundred(client, "subnets", "subnets", |n| {
        subnet(&networks[0], 4, format!("10.1.{n}.0/24"))
    })
    .await;
    networks
}

/// The groups' ids.
async fn groups_and_rules(client: &Client) -> Vec<String> {
    const RULES: &str = "security-group-rules";
    let made = hundred(
        client,
        "security-groups",
        "security_groups",
        |n| json!({"name": format!("g{n}")}),
    );
    let made = made.await;
    for group in &made {
        let rules = group["security_group_rules"].as_array();
        assert_eq!(rules.map(Vec::len), Some(2));
    }
    let groups = Vec::from_iter(made.iter().map(id));
    let rule = |n: usize| {
        json!({
            "security_group_id": groups[0], "direction": "ingress", "protocol": "tcp",
            "port_range_min": n + 1, "port_range_max": n + 1,
        })
    };
    let made = hundred(client, RULES, "security_group_rules", rule).await;
    let numbers = Vec::from_iter(made.iter().map(|rule| rule["port_range_min"].clone()));
    assert_eq!(numbers, Vec::from_iter((1..=100).map(Value::from)));
    hundred(client, RULES, "security_group_rules", |n| {
        let mut rule = rule(n);
        rule["remote_group_id"] = json!(groups[n % 100]);
        rule
    })
    .await;
    groups
}

async fn ports(client: &Client, network: &str, groups: &[String]) {
    let made = hundred(client, "ports", "ports", |n| {
        let mac = format!("fa:16:3e:00:00:{n:02x}");
        let two = [format!("10.0.0.{}", n + 2), format!("2001:db8::{}", n + 2)];
        let two = two.map(|address| json!({ "ip_address": address }));
        json!({"network_id": network, "mac_address": mac, "fixed_ips": two})
    });
    for (n, port) in made.await.iter().enumerate() {
        assert_eq!(port["mac_address"], format!("fa:16:3e:00:00:{n:02x}"));
        let addresses = [0, 1].map(|of| port["fixed_ips"][of]["ip_address"].clone());
        let two = [format!("10.0.0.{}", n + 2), format!("2001:db8::{}", n + 2)];
        assert_eq!(addresses, two.map(Value::from));
    }
    // Nothing is said of them; and each in another group.
    let made = hundred(
        client,
        "ports",
        "ports",
        |n| json!({"network_id": network, "security_groups": [groups[n % 100]]}),
    );
    let mut names = BTreeSet::new();
    for port in made.await {
        let addresses = port["fixed_ips"].as_array().expect("a list").iter();
        let addresses = addresses.map(|fixed| fixed["ip_address"].to_string());
        names.extend(addresses.chain([port["mac_address"].to_string()]));
    }
    assert_eq!(names.len(), 300);
}

/// As groups, and in one.
async fn addresses(client: &Client) {
    const PATH: &str = "address-groups";
    let address = |n: usize| format!("192.0.2.{n}/32");
    let made = hundred(
        client,
        PATH,
        "address_groups",
        |n| json!({"name": format!("a{n}"), "addresses": [address(n)]}),
    );
    let group = id(&made.await[0]);
    let more = json!({"addresses": Vec::from_iter((100..200).map(address))});
    let at = format!("{PATH}/{group}/add_addresses");
    let grown = client.put(&at, more).await.done(200);
    let grown = grown.body["address_group"]["addresses"].as_array();
    assert_eq!(grown.map(Vec::len), Some(101));
}
