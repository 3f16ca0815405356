//! What becomes of a port that is there.

use super::*;
use crate::objects::Binding;
use model::HostId;

#[tokio::test]
async fn an_update_moves_what_the_port_holds() {
    let (site, network, subnet) = red().await;
    let red = member("red");
    let id = site.port_with(&red, &network, |new| {
        new.mac = Some(A_MAC.to_owned());
        new.fixed = Some(vec![at("10.0.0.2")]);
        new.pairs = vec![pair("10.9.0.0/24", None)];
    });
    let id = id.await.expect("a port");
    let mac = "fa:16:3e:00:00:02";
    let any = AskedAddress {
        subnet: Some(subnet),
        address: None,
    };
    let patch = PortPatch {
        mac: Some(mac.to_owned()),
        fixed: Some(vec![any, at("10.0.0.3")]),
        ..Default::default()
    };
    let updated = site
        .control
        .update_port(&red, id.as_str(), patch, None)
        .await;
    updated.expect("all is free");
    let port = stored(&site, &id);
    assert_eq!(
        addresses(&port),
        ["10.0.0.3", "10.0.0.2"],
        "what it had is kept"
    );
    assert_eq!(
        port.pairs[0].mac.to_string(),
        mac,
        "the port's own goes on to be"
    );
    let patch = PortPatch {
        fixed: Some(vec![at("10.0.0.3")]),
        ..Default::default()
    };
    let updated = site
        .control
        .update_port(&red, id.as_str(), patch, None)
        .await;
    updated.expect("it had that");
    let second = site.port_with(&red, &network, |new| {
        new.mac = Some(A_MAC.to_owned());
        new.fixed = Some(vec![at("10.0.0.2")]);
    });
    second.await.expect("both are free again");
    for (what, patch, expected) in [
        (
            "MAC",
            PortPatch {
                mac: Some(A_MAC.to_owned()),
                ..Default::default()
            },
            "MacAddressInUse",
        ),
        (
            "address",
            PortPatch {
                fixed: Some(vec![at("10.0.0.2")]),
                ..Default::default()
            },
            "IpAddressAlreadyAllocated",
        ),
    ] {
        let taken = site
            .control
            .update_port(&red, id.as_str(), patch, None)
            .await;
        check_refused(what, taken, expected);
    }
    site.control
        .delete_port(&red, id.as_str(), None)
        .await
        .expect("it may go");
    site.port_with(&red, &network, |new| {
        new.mac = Some(mac.to_owned());
        new.fixed = Some(vec![at("10.0.0.3")]);
    })
    .await
    .expect("what a port had is free when it is gone");
    site.inventory_followed();
}

#[tokio::test]
async fn port_security_comes_and_goes() {
    let (site, network, _) = red().await;
    let red = member("red");
    let secured = site.port(&red, &network).await;
    let open = site.port_with(&red, &network, |new| new.port_security = Some(false));
    let open = open.await.expect("the network is theirs");
    let group = stored(&site, &secured)
        .groups
        .first()
        .expect("a default group")
        .to_string();
    let off = PortPatch {
        port_security: Some(false),
        ..Default::default()
    };
    let pairs = Some(vec![pair("10.9.0.1", None)]);
    let steps: Vec<(&str, &PortId, PortPatch, &str)> = vec![
        (
            "off with groups",
            &secured,
            off.clone(),
            "PortHasSecurityGroup",
        ),
        (
            "off, and groups said",
            &secured,
            PortPatch {
                groups: Some(vec![group.clone()]),
                ..off.clone()
            },
            "PortSecurityAndIpRequired",
        ),
        (
            "off, and no groups",
            &secured,
            PortPatch {
                groups: Some(Vec::new()),
                ..off.clone()
            },
            "done",
        ),
        (
            "groups while off",
            &secured,
            PortPatch {
                groups: Some(vec![group.clone()]),
                ..Default::default()
            },
            "PortSecurityAndIpRequired",
        ),
        (
            "pairs while off",
            &open,
            PortPatch {
                pairs: pairs.clone(),
                ..Default::default()
            },
            "AddressPairAndPortSecurityRequired",
        ),
        (
            "on with pairs",
            &open,
            PortPatch {
                port_security: Some(true),
                pairs,
                ..Default::default()
            },
            "done",
        ),
        (
            "off with pairs",
            &open,
            off.clone(),
            "AddressPairAndPortSecurityRequired",
        ),
        (
            "off without pairs",
            &open,
            PortPatch {
                pairs: Some(Vec::new()),
                ..off
            },
            "done",
        ),
        (
            "on with groups",
            &secured,
            PortPatch {
                port_security: Some(true),
                groups: Some(vec![group]),
                ..Default::default()
            },
            "done",
        ),
    ];
    for (what, id, patch, expected) in steps {
        let updated = site
            .control
            .update_port(&red, id.as_str(), patch, None)
            .await;
        check_refused(what, updated, expected);
    }
}

#[tokio::test]
async fn an_admin_binds_a_port_to_a_device() {
    let (site, network, _) = red().await;
    let id = site.port(&member("red"), &network).await;
    let bind = |host: Option<&str>, device: Option<Device>| PortPatch {
        binding: AskedBinding {
            host: host.map(str::to_owned),
            device,
            ..Default::default()
        },
        ..Default::default()
    };
    let name = |name: &str| Some(Device::Name(name.to_owned()));
    let bound = |host: &str, device: Option<Device>| {
        Some(Binding {
            host: HostId::from(host),
            device,
            profile: BTreeMap::new(),
            vnic_type: "normal".to_owned(),
        })
    };
    type Expected = Result<Option<Binding>, &'static str>;
    let steps: Vec<(PortPatch, Expected)> = vec![
        (bind(None, name("tap1")), Err("InvalidInput")),
        (bind(Some("h/1"), None), Err("InvalidInput")),
        (bind(Some("h1"), name("no device")), Err("InvalidInput")),
        (bind(Some("h1"), name("tap*")), Err("InvalidInput")),
        (
            bind(Some("h1"), name("a-name-of-16-chr")),
            Err("InvalidInput"),
        ),
        (
            bind(Some("h1"), Some(Device::InterfaceId("a\"b".to_owned()))),
            Err("InvalidInput"),
        ),
        (
            bind(Some("h1"), name("tap1")),
            Ok(bound("h1", name("tap1"))),
        ),
        (bind(None, None), Ok(bound("h1", name("tap1")))),
        (bind(Some("h2"), None), Ok(bound("h2", None))),
        (bind(Some(""), None), Ok(None)),
    ];
    for (patch, expected) in steps {
        let what = format!("{patch:?}");
        let updated = site
            .control
            .update_port(&admin(), id.as_str(), patch, None)
            .await;
        check_refused(&what, updated, expected.as_ref().err().unwrap_or(&"done"));
        if let Ok(expected) = expected {
            assert_eq!(stored(&site, &id).binding, expected, "{what}");
        }
    }
    site.inventory_followed();
}

#[tokio::test]
async fn who_may_change_a_port() {
    let (site, _, _) = red().await;
    let shared = site.network(&admin(), true).await;
    site.subnet(&admin(), &shared, "10.1.0.0/24").await;
    let id = site.port(&member("red"), &shared).await;
    let name = || PortPatch {
        name: Some("x".to_owned()),
        ..Default::default()
    };
    for (who, update, delete) in [
        (member("blue"), "PortNotFound", "PortNotFound"),
        (reader("red"), "NotAuthorized", "NotAuthorized"),
        (member("red"), "done", "done"),
    ] {
        let what = format!("{who:?}");
        let updated = site
            .control
            .update_port(&who, id.as_str(), name(), None)
            .await;
        check_refused(&what, updated, update);
        let deleted = site.control.delete_port(&who, id.as_str(), None).await;
        check_refused(&what, deleted, delete);
    }
    let owned = site.network(&member("red"), false).await;
    let guest = site.port_with(&admin(), &owned, |new| new.project = Some("blue".into()));
    let guest = guest.await.expect("an admin may");
    let updated = site
        .control
        .update_port(&member("red"), guest.as_str(), name(), None)
        .await;
    check_refused(
        "a guest's, by the network's owner",
        updated,
        "NotAuthorized",
    );
    let deleted = site
        .control
        .delete_port(&member("red"), guest.as_str(), None)
        .await;
    check_refused("a guest's goes", deleted, "done");
}

#[tokio::test]
async fn a_revision_that_is_over_is_refused() {
    let (site, network, _) = red().await;
    let red = member("red");
    let id = site.port(&red, &network).await;
    let name = || PortPatch {
        name: Some("x".to_owned()),
        ..Default::default()
    };
    let first = site.control.state().ports[&id].modified;
    let update = |revision| {
        site.control
            .update_port(&red, id.as_str(), name(), Some(revision))
    };
    check_refused("now", update(first).await, "done");
    check_refused("over", update(first).await, "RevisionConstraint");
    let gone = site
        .control
        .delete_port(&red, id.as_str(), Some(first))
        .await;
    check_refused("over", gone, "RevisionConstraint");
}
