//! What becomes of a port that is there.

use super::*;
use crate::objects::{Binding, Move};
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
        ["10.0.0.2", "10.0.0.3"],
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
        Some(Arc::new(Binding {
            host: HostId::from(host),
            device,
            profile: BTreeMap::new(),
            vnic_type: "normal".into(),
            moving: None,
        }))
    };
    type Expected = Result<Option<Arc<Binding>>, &'static str>;
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

/// In words: where it is, by which device, and what is said of a move.
fn place(port: &Port) -> String {
    let binding = port.binding.as_ref().expect("it is bound");
    let device = |device: &Option<Device>| match device {
        Some(Device::Name(name)) => format!(" by {name}"),
        Some(Device::InterfaceId(id)) => format!(" by id {id}"),
        Some(Device::Mac | Device::Pattern(_)) | None => String::new(),
    };
    let moving = match binding.moving.as_deref() {
        Some(Move::To(to)) => format!(" to {}{}", to.host, device(&to.device)),
        Some(Move::From { host, .. }) => format!(" from {host}"),
        None => String::new(),
    };
    format!("{}{}{moving}", binding.host, device(&binding.device))
}

#[tokio::test]
async fn an_admin_moves_a_port() {
    let (site, network, _) = red().await;
    let id = site.port(&member("red"), &network).await;
    let name = Some(Device::Name("tap1".to_owned()));
    let switched = Some(Device::InterfaceId("i".to_owned()));
    let who = admin();
    let host = |host: &str| Some(host.to_owned());
    let to = host;
    type Step = (Option<String>, Option<Device>, Option<String>, &'static str);
    let steps: Vec<Step> = vec![
        (host("h1"), name.clone(), None, "h1 by tap1"),
        (None, None, to("h1"), "h1 by tap1"),
        (None, None, to("h2"), "h1 by tap1 to h2"),
        (None, None, None, "h1 by tap1 to h2"),
        (host("h1"), None, None, "h1 by tap1 to h2"),
        // Its end, by saying so or by going elsewhere.
        (None, None, to(""), "h1 by tap1"),
        (None, None, to("h3"), "h1 by tap1 to h3"),
        (None, None, to("h2"), "h1 by tap1 to h2"),
        (host("h3"), None, None, "h3"),
        (None, None, to("h2"), "h3 to h2"),
        // It is there, and goes back.
        (host("h2"), name, None, "h2 by tap1 from h3"),
        (None, None, to(""), "h2 by tap1 from h3"),
        (None, None, to("h2"), "h2 by tap1 from h3"),
        (None, switched, to("h3"), "h2 by id i to h3 by id i"),
        (host("h3"), None, to("h3"), "h3 by id i from h2"),
        (host("h2"), None, to("h3"), "h2 to h3 by id i"),
    ];
    for (host, device, moving_to, expected) in steps {
        let binding = AskedBinding {
            host,
            device,
            moving_to,
            ..Default::default()
        };
        let patch = PortPatch {
            binding,
            ..Default::default()
        };
        let asked = format!("{patch:?}");
        let updated = site.control.update_port(&who, id.as_str(), patch, None);
        updated.await.expect("an admin may");
        assert_eq!(place(&stored(&site, &id)), expected, "{asked}");
        site.inventory_followed();
    }
    let hosts = &site.control.state().index.ports_on_host;
    let on = |host: &str| hosts.get(host).is_some_and(|ports| ports.contains(&id));
    assert_eq!(["h1", "h2", "h3"].map(on), [false, true, true]);
}

/// C2: nobody but an admin has a host enforce, or be told of, a port.
#[tokio::test]
async fn who_is_no_admin_moves_nothing() {
    let (site, network, _) = red().await;
    let (red, who) = (member("red"), admin());
    let id = site.port(&red, &network).await;
    let moving_to = |to: &str| AskedBinding {
        moving_to: Some(to.to_owned()),
        ..Default::default()
    };
    let asked = |to: &str| PortPatch {
        binding: moving_to(to),
        ..Default::default()
    };
    let unbound = site
        .control
        .update_port(&who, id.as_str(), asked("h2"), None);
    check_refused("no host", unbound.await, "InvalidInput");
    for to in ["", "h2"] {
        let updated = site.control.update_port(&red, id.as_str(), asked(to), None);
        check_refused(to, updated.await, "NotAuthorized");
        let new = site.port_with(&red, &network, |new| new.binding = moving_to(to));
        check_refused(to, new.await, "NotAuthorized");
    }
    let bound = PortPatch {
        binding: AskedBinding {
            host: Some("h1".to_owned()),
            ..moving_to("h/2")
        },
        ..Default::default()
    };
    let bad = site.control.update_port(&who, id.as_str(), bound, None);
    check_refused("no name of a host", bad.await, "InvalidInput");
}
