use super::*;
use crate::groups::NewGroup;
use crate::objects::{Device, Resource, Shared};
use crate::sharing::NewShare;
use crate::testing::new_group;
use crate::trial::{Site, admin, at, check_refused, member, new_port, one, reader, refusal};
use model::{FrozenSet, MacAddr};
use std::net::IpAddr;

mod changes;
mod races;
mod trusted;

/// A network of `red` with `10.0.0.0/29`: ports can have `.2` to `.6`.
async fn red() -> (Site, NetworkId, String) {
    let site = Site::new().await;
    let network = site.network(&member("red"), false).await;
    let subnet = site.subnet(&member("red"), &network, "10.0.0.0/29").await;
    (site, network, subnet)
}

fn stored(site: &Site, id: &PortId) -> Port {
    Port::clone(&site.control.state().ports[id])
}

fn addresses(port: &Port) -> Vec<String> {
    Vec::from_iter(port.fixed.addresses().iter().map(IpAddr::to_string))
}

fn pair(address: &str, mac: Option<&str>) -> AskedPair {
    AskedPair {
        address: address.to_owned(),
        mac: mac.map(str::to_owned),
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    Vec::from_iter(texts.iter().map(|text| text.to_string()))
}

const A_MAC: &str = "fa:16:3e:00:00:01";

#[tokio::test]
async fn a_port_has_what_its_network_and_project_give_it() {
    let (site, network, subnet) = red().await;
    let port = stored(&site, &site.port(&member("red"), &network).await);
    assert_eq!(port.mac.0[..3], [0xfa, 0x16, 0x3e]);
    assert_eq!(port.fixed.subnets(), [subnet]);
    let default = site.control.state().projects["red"].default_group.clone();
    assert_eq!(port.groups, [default].into());
    assert!(port.port_security);
    site.subnet(&member("red"), &network, "2001:db8::/64").await;
    let both = stored(&site, &site.port(&member("red"), &network).await);
    let families = both.fixed.addresses().iter().map(IpAddr::is_ipv6);
    assert_eq!(Vec::from_iter(families), [false, true]);
    site.inventory_followed();
}

#[tokio::test]
async fn no_default_group_where_groups_are_not() {
    let (site, network, _) = red().await;
    let red = member("red");
    type With = fn(&mut NewPort);
    let cases: [(&str, With); 3] = [
        ("none asked", |new| new.groups = Some(Vec::new())),
        ("a service", |new| {
            new.device_owner = "network:dhcp".to_owned()
        }),
        ("no port security", |new| new.port_security = Some(false)),
    ];
    for (what, with) in cases {
        let id = site.port_with(&red, &network, with).await.expect(what);
        assert_eq!(stored(&site, &id).groups, FrozenSet::new(), "{what}");
    }
}

#[tokio::test]
async fn a_pool_gives_each_address_once_and_then_no_more() {
    let (site, network, _) = red().await;
    let red = member("red");
    let mut seen = BTreeSet::new();
    let mut ports = Vec::new();
    for _ in 0..5 {
        let id = site.port(&red, &network).await;
        seen.extend(addresses(&stored(&site, &id)));
        ports.push(id);
    }
    let all = (2..=6).map(|last| format!("10.0.0.{last}")).collect();
    assert_eq!(seen, all);
    let more = site.port_with(&red, &network, |_| {}).await;
    check_refused("the sixth", more, "IpAddressGenerationFailure");
    let gone = site
        .control
        .delete_port(&red, ports[2].as_str(), None)
        .await;
    gone.expect("it may go");
    site.port(&red, &network).await;
}

#[tokio::test]
async fn what_a_new_port_cant_have() {
    let (site, network, subnet) = red().await;
    let red = member("red");
    let blue = site.network(&member("blue"), false).await;
    let foreign_subnet = site.subnet(&member("blue"), &blue, "10.0.0.0/29").await;
    let foreign_group = a_group(&site, "blue").await.to_string();
    site.port_with(&red, &network, |new| {
        new.mac = Some(A_MAC.to_owned());
        new.fixed = Some(vec![at("10.0.0.2")]);
    })
    .await
    .expect("the first");
    type With<'a> = Box<dyn Fn(&mut NewPort) + 'a>;
    fn fixed<'a>(address: &'a str) -> With<'a> {
        Box::new(move |new| new.fixed = Some(vec![at(address)]))
    }
    fn pairs<'a>(pairs: &'a [(&'a str, Option<&'a str>)]) -> With<'a> {
        Box::new(move |new| {
            new.pairs = pairs.iter().map(|(a, mac)| pair(a, *mac)).collect();
        })
    }
    let eleven = Vec::from_iter((1..=11).map(|n| format!("10.9.0.{n}")));
    let cases: Vec<(&str, With, &str)> = vec![
        (
            "foreign network",
            Box::new(|new| new.network = blue.to_string()),
            "NetworkNotFound",
        ),
        (
            "no network",
            Box::new(|new| new.network = "../x".to_owned()),
            "NetworkNotFound",
        ),
        (
            "foreign project",
            Box::new(|new| new.project = Some("blue".into())),
            "ForeignProject",
        ),
        (
            "foreign group",
            Box::new(|new| new.groups = Some(vec![foreign_group.clone()])),
            "SecurityGroupNotFound",
        ),
        (
            "no group",
            Box::new(|new| new.groups = Some(texts(&["x/y"]))),
            "SecurityGroupNotFound",
        ),
        (
            "too many groups",
            Box::new(|new| new.groups = Some(vec!["g".to_owned(); 101])),
            "TooMany",
        ),
        (
            "long name",
            Box::new(|new| new.name = "x".repeat(256)),
            "InvalidInput",
        ),
        (
            "long owner",
            Box::new(|new| new.device_owner = "x".repeat(256)),
            "InvalidInput",
        ),
        (
            "no MAC",
            Box::new(|new| new.mac = Some("fa:16:3e".to_owned())),
            "InvalidInput",
        ),
        (
            "a group's MAC",
            Box::new(|new| new.mac = Some("01:00:5e:00:00:01".to_owned())),
            "InvalidInput",
        ),
        (
            "MAC zero",
            Box::new(|new| new.mac = Some("00:00:00:00:00:00".to_owned())),
            "InvalidInput",
        ),
        (
            "taken MAC",
            Box::new(|new| new.mac = Some("FA-16-3E-00-00-01".to_owned())),
            "MacAddressInUse",
        ),
        ("no address", fixed("10.0.0"), "InvalidInput"),
        ("mapped address", fixed("::ffff:10.0.0.3"), "InvalidInput"),
        (
            "taken address",
            fixed("10.0.0.2"),
            "IpAddressAlreadyAllocated",
        ),
        ("elsewhere", fixed("10.1.0.2"), "InvalidIpForNetwork"),
        ("network's address", fixed("10.0.0.0"), "InvalidIpForSubnet"),
        ("broadcast address", fixed("10.0.0.7"), "InvalidIpForSubnet"),
        (
            "address twice",
            Box::new(|new| new.fixed = Some(vec![at("10.0.0.3"); 2])),
            "InvalidInput",
        ),
        (
            "nothing said",
            Box::new(|new| new.fixed = Some(vec![AskedAddress::default()])),
            "InvalidInput",
        ),
        (
            "foreign subnet",
            Box::new(|new| {
                new.fixed = Some(vec![AskedAddress {
                    subnet: Some(foreign_subnet.clone()),
                    address: None,
                }]);
            }),
            "SubnetNotFound",
        ),
        (
            "not the subnet's",
            Box::new(|new| {
                new.fixed = Some(vec![AskedAddress {
                    subnet: Some(subnet.clone()),
                    ..at("10.1.0.2")
                }]);
            }),
            "InvalidIpForSubnet",
        ),
        (
            "groups, unsecured",
            Box::new(|new| {
                new.port_security = Some(false);
                new.groups = Some(vec![
                    site.control.state().projects["red"]
                        .default_group
                        .to_string(),
                ]);
            }),
            "PortSecurityAndIpRequired",
        ),
        (
            "pairs, unsecured",
            Box::new(|new| {
                new.port_security = Some(false);
                new.pairs = vec![pair("10.9.0.1", None)];
            }),
            "AddressPairAndPortSecurityRequired",
        ),
        (
            "eleven pairs",
            Box::new(|new| new.pairs = eleven.iter().map(|a| pair(a, None)).collect()),
            "AddressPairsExhausted",
        ),
        (
            "pair twice",
            pairs(&[("10.9.0.1", None), ("10.9.0.1/32", None)]),
            "DuplicateAddressPair",
        ),
        (
            "one pair in two spellings",
            pairs(&[("10.9.0.1/24", None), ("10.9.0.0/24", None)]),
            "DuplicateAddressPair",
        ),
        ("no pair", pairs(&[("ten", None)]), "InvalidInput"),
        (
            "mapped pair",
            pairs(&[("::ffff:10.9.0.1", None)]),
            "InvalidInput",
        ),
        (
            "pair with a group's MAC",
            pairs(&[("10.9.0.1", Some("ff:ff:ff:ff:ff:ff"))]),
            "InvalidInput",
        ),
        (
            "binding",
            Box::new(|new| new.binding.host = Some("h1".to_owned())),
            "NotAuthorized",
        ),
        (
            "unbinding",
            Box::new(|new| new.binding.host = Some(String::new())),
            "NotAuthorized",
        ),
        (
            "device",
            Box::new(|new| new.binding.device = Some(Device::Mac)),
            "NotAuthorized",
        ),
        (
            "profile",
            Box::new(|new| new.binding.profile = Some(BTreeMap::new())),
            "NotAuthorized",
        ),
    ];
    let before = site.control.state().ports.len();
    for (what, with, expected) in cases {
        let refused = site.port_with(&red, &network, with).await;
        check_refused(what, refused, expected);
    }
    let reading = site.port_with(&reader("red"), &network, |_| {}).await;
    check_refused("reader", reading, "NotAuthorized");
    check_refused(
        "none",
        site.control.create_ports(&red, Vec::new()).await,
        "InvalidInput",
    );
    let many = vec![new_port(&network); 101];
    check_refused(
        "101",
        site.control.create_ports(&red, many).await,
        "TooMany",
    );
    assert_eq!(site.control.state().ports.len(), before);
}

#[tokio::test]
async fn many_at_once_are_all_or_none() {
    let (site, network, _) = red().await;
    let red = member("red");
    let six = site
        .control
        .create_ports(&red, vec![new_port(&network); 6])
        .await;
    check_refused("six of five", six, "IpAddressGenerationFailure");
    assert!(site.control.state().ports.is_empty());
    let five = site
        .control
        .create_ports(&red, vec![new_port(&network); 5])
        .await;
    assert_eq!(five.expect("five of five").len(), 5);
    let macs = site.control.state();
    let macs = macs.ports.values().map(|port| port.mac);
    assert_eq!(macs.collect::<BTreeSet<_>>().len(), 5);
}

#[tokio::test]
async fn a_port_may_be_without_addresses() {
    let (site, network, _) = red().await;
    let red = member("red");
    let none = site.port_with(&red, &network, |new| new.fixed = Some(Vec::new()));
    let none = stored(&site, &none.await.expect("a port"));
    let bare = site.network(&red, false).await;
    let bare = stored(&site, &site.port(&red, &bare).await);
    for port in [none, bare] {
        assert!(port.fixed.addresses().is_empty());
        assert_eq!(port.groups.len(), 1);
    }
}

#[tokio::test]
async fn addresses_of_two_networks_dont_meet() {
    let (site, network, _) = red().await;
    let blue = site.network(&member("blue"), false).await;
    site.subnet(&member("blue"), &blue, "10.0.0.0/29").await;
    for (who, network) in [("red", &network), ("blue", &blue)] {
        let same = site.port_with(&member(who), network, |new| {
            new.mac = Some(A_MAC.to_owned());
            new.fixed = Some(vec![at("10.0.0.2")]);
        });
        same.await.expect("only in its network");
    }
}

#[tokio::test]
async fn a_hundred_groups_fit() {
    let (site, network, _) = red().await;
    let red = member("red");
    let groups = some_groups(&site, 100).await;
    let id = site.port_with(&red, &network, |new| new.groups = Some(groups.clone()));
    let id = id.await.expect("a port");
    assert_eq!(stored(&site, &id).groups.len(), 100);
    let patch = PortPatch {
        groups: Some(groups),
        ..Default::default()
    };
    let same = site
        .control
        .update_port(&red, id.as_str(), patch, None)
        .await;
    same.expect("it is in them");
}

/// Of `red`.
async fn some_groups(site: &Site, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(a_group(site, "red").await.to_string());
    }
    ids
}

async fn a_group(site: &Site, project: &str) -> GroupId {
    let who = member(project);
    let made = site.control.create_groups(&who, vec![new_group("g")]).await;
    one(made.expect("a group"))
}

#[tokio::test]
async fn groups_that_track_and_those_that_dont_go_together() {
    // All planes can do both at one port, so Neutron's SecurityGroupConflict is not imitated.
    let (site, network, _) = red().await;
    let stateful = a_group(&site, "red").await;
    let stateless = NewGroup {
        stateful: false,
        ..new_group("g")
    };
    let stateless = site
        .control
        .create_groups(&member("red"), vec![stateless])
        .await;
    let stateless = one(stateless.expect("a group"));
    let both = vec![stateful.to_string(), stateless.to_string()];
    let port = site.port_with(&member("red"), &network, |new| new.groups = Some(both));
    port.await.expect("both");
}

#[tokio::test]
async fn a_project_has_so_many_ports_as_its_quota_says() {
    let (site, network, _) = red().await;
    let red = member("red");
    let three = [(Resource::Port, 3)].into();
    site.control
        .set_quota(&admin(), "red", three, crate::Check::Forced)
        .await
        .expect("a quota");
    site.port(&red, &network).await;
    let create = |count| {
        site.control
            .create_ports(&red, vec![new_port(&network); count])
    };
    check_refused("three more", create(3).await, "OverQuota");
    check_refused("two more", create(2).await, "done");
    check_refused("one more", create(1).await, "OverQuota");
}

#[tokio::test]
async fn what_is_shared_with_a_project_its_ports_may_use() {
    let (site, network, _) = red().await;
    let blue = member("blue");
    let own = site.network(&blue, false).await;
    let group = a_group(&site, "red").await;
    let with_group = || {
        let groups = Some(vec![group.to_string()]);
        site.port_with(&blue, &own, |new| new.groups = groups)
    };
    let in_network = || site.port_with(&blue, &network, |_| {});
    check_refused("a group", with_group().await, "SecurityGroupNotFound");
    check_refused("a network", in_network().await, "NetworkNotFound");
    let mut shares = Vec::new();
    for object in [
        Shared::Group(group.clone()),
        Shared::Network(network.clone()),
    ] {
        let new = NewShare {
            object,
            target: Some("blue".to_owned()),
            project: None,
        };
        shares.push(
            site.control
                .create_share(&member("red"), new)
                .await
                .expect("a share"),
        );
    }
    let ports = [
        with_group().await.expect("a shared group"),
        in_network().await.expect("a shared network"),
    ];
    for share in &shares {
        let gone = site.control.delete_share(&member("red"), share).await;
        check_refused("in use", gone, "SharePolicyInUse");
    }
    for port in &ports {
        site.control
            .delete_port(&blue, port.as_str(), None)
            .await
            .expect("it may go");
    }
    for share in &shares {
        let gone = site.control.delete_share(&member("red"), share).await;
        check_refused("not in use", gone, "done");
    }
    check_refused("a group", with_group().await, "SecurityGroupNotFound");
    check_refused("a network", in_network().await, "NetworkNotFound");
}
