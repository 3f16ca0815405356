use super::*;
use crate::trial::{Site, admin, check_refused, member, new_subnet, reader};
use store::{KeyPrefix, Store};

const TUNNEL: u32 = 5001;

fn tunnel(number: u32) -> Option<Segment> {
    Some(Segment {
        kind: "geneve".to_owned(),
        physical_network: None,
        number: Some(number),
    })
}

#[tokio::test]
async fn what_a_new_network_may_say() {
    let site = Site::new().await;
    type With = fn(&mut NewNetwork);
    let cases: [(&str, Caller, With, &str); 13] = [
        ("plain", member("red"), |_| {}, "done"),
        ("reader", reader("red"), |_| {}, "NotAuthorized"),
        (
            "shared",
            member("red"),
            |n| n.shared = true,
            "NotAuthorized",
        ),
        ("shared by an admin", admin(), |n| n.shared = true, "done"),
        (
            "segment",
            member("red"),
            |n| n.segment = tunnel(TUNNEL),
            "NotAuthorized",
        ),
        (
            "segment by an admin",
            admin(),
            |n| n.segment = tunnel(TUNNEL),
            "done",
        ),
        (
            "segment too large",
            admin(),
            |n| n.segment = tunnel(1 << 24),
            "InvalidInput",
        ),
        (
            "scope",
            member("red"),
            |n| n.scope = Some("blue".to_owned()),
            "NotAuthorized",
        ),
        (
            "foreign project",
            member("red"),
            |n| n.project = Some("blue".into()),
            "ForeignProject",
        ),
        (
            "for another project",
            admin(),
            |n| n.project = Some("blue".into()),
            "done",
        ),
        (
            "long name",
            member("red"),
            |n| n.name = "ü".repeat(256),
            "InvalidInput",
        ),
        (
            "longest name",
            member("red"),
            |n| n.name = "ü".repeat(255),
            "done",
        ),
        (
            "small MTU",
            member("red"),
            |n| n.mtu = Some(67),
            "InvalidInput",
        ),
    ];
    for (what, who, with, expected) in cases {
        let mut new = NewNetwork::default();
        with(&mut new);
        let made = site.control.create_networks(&who, vec![new]).await;
        check_refused(what, made, expected);
    }
    site.inventory_followed();
}

#[tokio::test]
async fn addresses_are_unique_in_a_project_unless_an_admin_says_where() {
    let site = Site::new().await;
    let usual = site.network(&member("red"), false).await;
    let wide = NewNetwork {
        scope: Some("wide".to_owned()),
        ..Default::default()
    };
    let wide = site.control.create_networks(&admin(), vec![wide]).await;
    let state = site.control.state();
    assert_eq!(state.networks[&usual].scope.as_str(), "red");
    let wide = &wide.expect("an admin may")[0];
    assert_eq!(state.networks[wide].scope.as_str(), "wide");
}

#[tokio::test]
async fn who_may_see_and_change_a_network() {
    let site = Site::new().await;
    let own = site.network(&member("red"), false).await;
    let shared = site.network(&admin(), true).await;
    let patch = |with: fn(&mut NetworkPatch)| {
        let mut patch = NetworkPatch::default();
        with(&mut patch);
        patch
    };
    let name = patch(|p| p.name = Some("x".to_owned()));
    let share = patch(|p| p.shared = Some(true));
    for (what, who, id, patch, expected) in [
        ("own", member("red"), &own, &name, "done"),
        ("foreign", member("blue"), &own, &name, "NetworkNotFound"),
        ("read", reader("red"), &own, &name, "NotAuthorized"),
        ("shared", member("red"), &shared, &name, "NotAuthorized"),
        ("share own", member("red"), &own, &share, "NotAuthorized"),
        ("share", admin(), &own, &share, "done"),
        ("share again", member("red"), &own, &share, "done"),
    ] {
        let updated = site
            .control
            .update_network(&who, id.as_str(), patch.clone(), None);
        check_refused(what, updated.await, expected);
    }
    let gone = site
        .control
        .delete_network(&member("blue"), shared.as_str(), None)
        .await;
    check_refused("shared", gone, "NotAuthorized");
    let over = site
        .control
        .update_network(&member("red"), own.as_str(), name, Some(1))
        .await;
    check_refused("revision", over, "RevisionConstraint");
}

#[tokio::test]
async fn a_network_that_others_are_in_stays_shared() {
    let site = Site::new().await;
    let network = site.network(&admin(), true).await;
    let unshare = || {
        let patch = NetworkPatch {
            shared: Some(false),
            ..Default::default()
        };
        let (site, network) = (&site, &network);
        async move {
            site.control
                .update_network(&admin(), network.as_str(), patch, None)
                .await
        }
    };
    site.port(&admin(), &network).await;
    let port = site.port(&member("red"), &network).await;
    check_refused("a guest", unshare().await, "NetworkSharedByOthers");
    site.control
        .delete_port(&member("red"), port.as_str(), None)
        .await
        .expect("it may go");
    check_refused("no guest", unshare().await, "done");
    let late = site.port_with(&member("red"), &network, |_| {}).await;
    check_refused("a guest who is late", late, "NetworkNotFound");
}

#[tokio::test]
async fn a_network_goes_with_its_subnets_and_not_while_ports_are_in_it() {
    let site = Site::new().await;
    let red = member("red");
    let network = site.network(&red, false).await;
    let prefixes = (0..50).map(|n| format!("10.0.{n}.0/24"));
    let subnets = Vec::from_iter(prefixes.map(|prefix| new_subnet(&network, &prefix)));
    site.control
        .create_subnets(&red, subnets)
        .await
        .expect("so many fit");
    let port = site.port(&red, &network).await;
    let delete = || site.control.delete_network(&red, network.as_str(), None);
    check_refused("a port", delete().await, "NetworkInUse");
    site.control
        .delete_port(&red, port.as_str(), None)
        .await
        .expect("it may go");
    site.subnet(&red, &network, "10.1.0.0/24").await;
    check_refused("more than fit", delete().await, "NetworkInUse");
    let one = site
        .control
        .state()
        .subnets
        .keys()
        .next()
        .cloned()
        .expect("a subnet");
    site.control
        .delete_subnet(&red, &one, None)
        .await
        .expect("it may go");
    check_refused("no ports", delete().await, "done");
    check_refused("gone", delete().await, "NetworkNotFound");
    let left = site
        .store
        .list(&KeyPrefix::all())
        .await
        .expect("a listing")
        .records;
    let left = left.iter().map(|record| record.key.as_str());
    let left = Vec::from_iter(left.filter(|key| {
        key.contains(network.as_str())
            || key.starts_with("subnet/")
            || key.starts_with("mark/subnet/")
    }));
    assert_eq!(left, Vec::<&str>::new());
    site.inventory_followed();
}
