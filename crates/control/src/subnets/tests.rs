use super::*;
use crate::trial::{Site, admin, at, check_refused, member, new_subnet, one, reader};

fn pool(first: &str, last: &str) -> (String, String) {
    (first.to_owned(), last.to_owned())
}

fn shown(subnet: &Subnet) -> (String, String, String) {
    let gateway = subnet.gateway.map_or("none".to_owned(), |g| g.to_string());
    let pools = subnet.pools.iter().map(|(a, b)| format!("{a}-{b}"));
    (
        subnet.prefix.network().to_string(),
        gateway,
        Vec::from_iter(pools).join(" "),
    )
}

#[tokio::test]
async fn what_a_subnet_has_that_says_no_more() {
    let site = Site::new().await;
    let red = member("red");
    for (prefix, network, gateway, pools) in [
        ("10.0.0.0/24", "10.0.0.0", "10.0.0.1", "10.0.0.2-10.0.0.254"),
        ("10.0.0.9/24", "10.0.0.0", "10.0.0.1", "10.0.0.2-10.0.0.254"),
        ("10.0.0.4/30", "10.0.0.4", "10.0.0.5", "10.0.0.6-10.0.0.6"),
        ("10.0.0.4/31", "10.0.0.4", "none", "10.0.0.4-10.0.0.5"),
        ("10.0.0.4/32", "10.0.0.4", "none", "10.0.0.4-10.0.0.4"),
        (
            "2001:db8::/64",
            "2001:db8::",
            "2001:db8::1",
            "2001:db8::2-2001:db8::ffff:ffff:ffff:ffff",
        ),
        (
            "2001:db8::/128",
            "2001:db8::",
            "none",
            "2001:db8::-2001:db8::",
        ),
    ] {
        let of = site.network(&red, false).await;
        let id = site.subnet(&red, &of, prefix).await;
        let state = site.control.state();
        let expected = (network.to_owned(), gateway.to_owned(), pools.to_owned());
        assert_eq!(shown(&state.subnets[id.as_str()]), expected, "{prefix}");
    }
}

#[tokio::test]
async fn pools_go_around_the_gateway() {
    let site = Site::new().await;
    let red = member("red");
    for (gateway, pools) in [
        (AskedGateway::None, "10.0.0.1-10.0.0.6"),
        (
            AskedGateway::Address("10.0.0.4".to_owned()),
            "10.0.0.1-10.0.0.3 10.0.0.5-10.0.0.6",
        ),
        (
            AskedGateway::Address("10.0.0.6".to_owned()),
            "10.0.0.1-10.0.0.5",
        ),
        (
            AskedGateway::Address("10.9.0.1".to_owned()),
            "10.0.0.1-10.0.0.6",
        ),
    ] {
        let network = site.network(&red, false).await;
        let mut new = new_subnet(&network, "10.0.0.0/29");
        new.gateway = gateway;
        let id = one(site
            .control
            .create_subnets(&red, vec![new])
            .await
            .expect("a subnet"));
        assert_eq!(shown(&site.control.state().subnets[id.as_str()]).2, pools);
    }
}

#[tokio::test]
async fn what_a_subnet_cant_be() {
    let site = Site::new().await;
    let red = member("red");
    let network = site.network(&red, false).await;
    let shared = site.network(&admin(), true).await;
    site.subnet(&red, &network, "10.9.0.0/24").await;
    type With<'a> = Box<dyn Fn(&mut NewSubnet) + 'a>;
    fn prefix<'a>(prefix: &'a str) -> With<'a> {
        Box::new(move |new| new.prefix = prefix.to_owned())
    }
    fn pools<'a>(pools: &'a [(&'a str, &'a str)]) -> With<'a> {
        Box::new(move |new| new.pools = Some(pools.iter().map(|(a, b)| pool(a, b)).collect()))
    }
    fn gateway<'a>(gateway: &'a str) -> With<'a> {
        Box::new(move |new| new.gateway = AskedGateway::Address(gateway.to_owned()))
    }
    let cases: Vec<(&str, With, &str)> = vec![
        ("no mask", prefix("10.0.0.0"), "InvalidInput"),
        ("odd mask", prefix("10.0.0.0/+8"), "InvalidInput"),
        ("long mask", prefix("10.0.0.0/33"), "InvalidInput"),
        ("everything", prefix("0.0.0.0/0"), "InvalidInput"),
        ("mapped", prefix("::ffff:10.0.0.0/120"), "InvalidInput"),
        ("multicast", prefix("224.0.0.0/24"), "InvalidInput"),
        ("multicast 6", prefix("ff02::/64"), "InvalidInput"),
        ("loopback", prefix("127.0.0.0/24"), "InvalidInput"),
        ("link-local", prefix("fe80::/64"), "InvalidInput"),
        ("around link-local", prefix("fe00::/8"), "InvalidInput"),
        ("same", prefix("10.9.0.0/24"), "SubnetOverlaps"),
        ("narrower", prefix("10.9.0.128/25"), "SubnetOverlaps"),
        ("wider", prefix("10.0.0.0/8"), "SubnetOverlaps"),
        (
            "family",
            Box::new(|new| new.family = Some(Family::V6)),
            "InvalidInput",
        ),
        (
            "no network",
            Box::new(|new| new.network = "x".to_owned()),
            "NetworkNotFound",
        ),
        (
            "another's",
            Box::new(|new| new.network = shared.to_string()),
            "NotAuthorized",
        ),
        ("gateway's family", gateway("2001:db8::1"), "InvalidInput"),
        ("gateway", gateway("here"), "InvalidInput"),
        (
            "backwards",
            pools(&[("10.0.0.9", "10.0.0.2")]),
            "InvalidAllocationPool",
        ),
        (
            "two families",
            pools(&[("10.0.0.9", "2001:db8::1")]),
            "InvalidAllocationPool",
        ),
        (
            "outside",
            pools(&[("10.0.0.9", "10.0.1.2")]),
            "OutOfBoundsAllocationPool",
        ),
        (
            "network's",
            pools(&[("10.0.0.0", "10.0.0.2")]),
            "OutOfBoundsAllocationPool",
        ),
        (
            "broadcast",
            pools(&[("10.0.0.9", "10.0.0.255")]),
            "OutOfBoundsAllocationPool",
        ),
        (
            "overlapping",
            pools(&[("10.0.0.9", "10.0.0.12"), ("10.0.0.12", "10.0.0.13")]),
            "OverlappingAllocationPools",
        ),
        (
            "with the gateway",
            pools(&[("10.0.0.1", "10.0.0.12")]),
            "GatewayConflictsWithPool",
        ),
        (
            "DNS",
            Box::new(|new| new.dns_servers = vec!["here".to_owned()]),
            "InvalidInput",
        ),
        (
            "route",
            Box::new(|new| new.host_routes = vec![pool("10.3.0.0/24", "2001:db8::1")]),
            "InvalidInput",
        ),
    ];
    for (what, with, expected) in cases {
        let mut new = new_subnet(&network, "10.0.0.0/24");
        with(&mut new);
        let made = site.control.create_subnets(&red, vec![new]).await;
        check_refused(what, made, expected);
    }
    let new = new_subnet(&network, "10.0.0.0/24");
    let made = site
        .control
        .create_subnets(&reader("red"), vec![new.clone()])
        .await;
    check_refused("reader", made, "NotAuthorized");
    let made = site
        .control
        .create_subnets(&red, vec![new.clone(), new])
        .await;
    check_refused("each other", made, "SubnetOverlaps");
    assert_eq!(site.control.state().subnets.len(), 1);
}

#[tokio::test]
async fn a_subnet_changes() {
    let site = Site::new().await;
    let red = member("red");
    let network = site.network(&red, false).await;
    let id = site.subnet(&red, &network, "10.0.0.0/24").await;
    let gateway = |text: &str| Some(AskedGateway::Address(text.to_owned()));
    let pools = |first, last| Some(vec![pool(first, last)]);
    let none = SubnetPatch::default;
    for (what, who, patch, expected) in [
        (
            "gateway in pool",
            &red,
            SubnetPatch {
                gateway: gateway("10.0.0.9"),
                ..none()
            },
            "GatewayConflictsWithPool",
        ),
        (
            "both",
            &red,
            SubnetPatch {
                gateway: gateway("10.0.0.9"),
                pools: pools("10.0.0.10", "10.0.0.20"),
                ..none()
            },
            "done",
        ),
        (
            "pool over gateway",
            &red,
            SubnetPatch {
                pools: pools("10.0.0.2", "10.0.0.20"),
                ..none()
            },
            "GatewayConflictsWithPool",
        ),
        (
            "no gateway",
            &red,
            SubnetPatch {
                gateway: Some(AskedGateway::None),
                ..none()
            },
            "done",
        ),
        (
            "foreign",
            &member("blue"),
            SubnetPatch {
                dhcp: Some(true),
                ..none()
            },
            "SubnetNotFound",
        ),
        (
            "reader",
            &reader("red"),
            SubnetPatch {
                dhcp: Some(true),
                ..none()
            },
            "NotAuthorized",
        ),
    ] {
        let updated = site.control.update_subnet(who, &id, patch, None).await;
        check_refused(what, updated, expected);
    }
    let subnet = shown(&site.control.state().subnets[id.as_str()]);
    assert_eq!(
        (subnet.1.as_str(), subnet.2.as_str()),
        ("none", "10.0.0.10-10.0.0.20")
    );
    site.inventory_followed();
}

#[tokio::test]
async fn a_subnet_stays_while_ports_have_its_addresses() {
    let site = Site::new().await;
    let red = member("red");
    let network = site.network(&red, false).await;
    let ids = ["10.0.0.0/24", "10.1.0.0/24"];
    let [first, second] = [
        site.subnet(&red, &network, ids[0]).await,
        site.subnet(&red, &network, ids[1]).await,
    ];
    let port = site.port_with(&red, &network, |new| new.fixed = Some(vec![at("10.1.0.5")]));
    let port = port.await.expect("a port");
    let delete = |id: &str| {
        let (id, red, site) = (id.to_owned(), &red, &site);
        async move { site.control.delete_subnet(red, &id, None).await }
    };
    check_refused("in use", delete(&second).await, "SubnetInUse");
    check_refused("not in use", delete(&first).await, "done");
    site.control
        .delete_port(&red, port.as_str(), None)
        .await
        .expect("it may go");
    check_refused("no more in use", delete(&second).await, "done");
    check_refused("gone", delete(&second).await, "SubnetNotFound");
    // Their prefixes are free again.
    site.subnet(&red, &network, "10.0.0.0/8").await;
    site.inventory_followed();
}
