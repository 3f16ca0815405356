//! Threat C2 (CVE-2015-5240, CVE-2026-50266): who shares a network with others can't make his port one that may do more
//! there.

use super::*;
use crate::objects::Port;
use crate::trial::{Dice, chance, pick};

/// An admin's network that all may use, and a port of `red` in it.
async fn guest() -> (Site, NetworkId, PortId) {
    let site = Site::new().await;
    let network = site.network(&admin(), true).await;
    site.subnet(&admin(), &network, "10.0.0.0/24").await;
    let port = site.port_with(&member("red"), &network, |new| {
        new.groups = Some(Vec::new())
    });
    let port = port.await.expect("it is shared");
    (site, network, port)
}

/// An attribute, and how a request would have it.
type Wish = (&'static str, fn(&mut NewPort), fn(&mut PortPatch));

const WISHES: [Wish; 8] = [
    (
        "device_owner",
        |new| new.device_owner = "network:dhcp".to_owned(),
        |patch| patch.device_owner = Some("network:dhcp".to_owned()),
    ),
    (
        "device_owner",
        |new| new.device_owner = "network:router_interface".to_owned(),
        |patch| patch.device_owner = Some("network:router_interface".to_owned()),
    ),
    (
        "device_owner",
        |new| new.device_owner = "Network:DHCP".to_owned(),
        |patch| patch.device_owner = Some(" NETWORK:dhcp".to_owned()),
    ),
    (
        "port_security_enabled",
        |new| new.port_security = Some(false),
        |patch| patch.port_security = Some(false),
    ),
    (
        "allowed_address_pairs",
        |new| new.pairs = vec![pair("10.0.0.9", None)],
        |patch| patch.pairs = Some(vec![pair("0.0.0.0/0", None)]),
    ),
    (
        "mac_address",
        |new| new.mac = Some(A_MAC.to_owned()),
        |patch| patch.mac = Some(A_MAC.to_owned()),
    ),
    (
        "fixed_ips:ip_address",
        |new| new.fixed = Some(vec![at("10.0.0.1")]),
        |patch| patch.fixed = Some(vec![at("10.0.0.1")]),
    ),
    (
        "binding:host_id",
        |new| new.binding.host = Some("h".to_owned()),
        |patch| patch.binding.host = Some("h".to_owned()),
    ),
];

fn not_authorized(action: String) -> Refused {
    Refused::NotAuthorized { action }
}

#[tokio::test]
async fn c2_a_stranger_to_the_network_gets_no_standing() {
    for (attribute, with, by) in WISHES {
        let (site, network, id) = guest().await;
        let red = member("red");
        let made = site.port_with(&red, &network, |new| {
            new.groups = Some(Vec::new());
            with(new);
        });
        let expected = not_authorized(format!("create_port:{attribute}"));
        assert_eq!(refusal(made.await), Err(expected));
        let mut patch = PortPatch::default();
        by(&mut patch);
        let updated = site
            .control
            .update_port(&red, id.as_str(), patch, None)
            .await;
        let expected = not_authorized(format!("update_port:{attribute}"));
        assert_eq!(refusal(updated), Err(expected));
    }
}

#[tokio::test]
async fn c2_the_networks_owner_and_admins_may() {
    for (attribute, with, by) in WISHES {
        let (site, _, _) = guest().await;
        let owned = site.network(&member("red"), false).await;
        site.subnet(&member("red"), &owned, "10.0.0.0/24").await;
        for who in [admin(), member("red")] {
            if attribute.starts_with("binding") && !who.is_admin() {
                continue;
            }
            let with = |new: &mut NewPort| {
                new.groups = Some(Vec::new());
                with(new);
            };
            let made = site.port_with(&who, &owned, with).await.expect(attribute);
            site.control
                .delete_port(&who, made.as_str(), None)
                .await
                .expect("it may go");
            let plain = site.port_with(&who, &owned, |new| new.groups = Some(Vec::new()));
            let plain = plain.await.expect("a port");
            let mut patch = PortPatch::default();
            by(&mut patch);
            let updated = site
                .control
                .update_port(&who, plain.as_str(), patch, None)
                .await;
            updated.expect(attribute);
            site.control
                .delete_port(&who, plain.as_str(), None)
                .await
                .expect("it may go");
        }
    }
}

#[tokio::test]
async fn c2_what_is_trusted_already_may_be_said_again_and_given_up() {
    let (site, network, _) = guest().await;
    let red = member("red");
    let id = site.port_with(&admin(), &network, |new| {
        new.project = Some("red".into());
        new.groups = Some(Vec::new());
        new.pairs = vec![pair("10.9.0.1", None), pair("10.9.0.2", None)];
    });
    let id = id.await.expect("an admin may");
    let patch = |pairs: &[&str]| PortPatch {
        pairs: Some(pairs.iter().map(|a| pair(a, None)).collect()),
        ..Default::default()
    };
    for (pairs, expected) in [
        (&["10.9.0.2", "10.9.0.1"][..], "done"),
        (&["10.9.0.2"][..], "done"),
        (&["10.9.0.1"][..], "NotAuthorized"),
        (&[][..], "done"),
        (&["10.9.0.2"][..], "NotAuthorized"),
    ] {
        let updated = site
            .control
            .update_port(&red, id.as_str(), patch(pairs), None)
            .await;
        check_refused(&format!("{pairs:?}"), updated, expected);
    }
}

/// What a host would let a port do beyond what it was given.
fn is_plain(port: &Port, own: &BTreeSet<MacAddr>) -> bool {
    let placed = port.placed();
    let in_pool = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.octets()[3] >= 100,
        IpAddr::V6(_) => false,
    };
    placed.port_security
        && !placed.dhcp_server
        && !placed.router
        && !port.is_service()
        && placed.address_pairs.is_empty()
        && placed.host.is_none()
        && placed.fixed_addresses.iter().all(in_pool)
        && !own.contains(&placed.mac)
}

#[tokio::test]
async fn c2_no_sequence_of_requests_widens_trust() {
    for seed in 0..12 {
        let mut random = Dice::new(seed);
        let site = Site::new().await;
        let network = site.network(&admin(), true).await;
        let mut subnet = crate::trial::new_subnet(&network, "10.0.0.0/24");
        subnet.pools = Some(vec![("10.0.0.100".to_owned(), "10.0.0.200".to_owned())]);
        let subnet = one(site
            .control
            .create_subnets(&admin(), vec![subnet])
            .await
            .expect("a subnet"));
        // With one's own network beside it: what is possible there must not help here.
        let owned = site.network(&member("red"), false).await;
        site.subnet(&member("red"), &owned, "10.0.0.0/24").await;
        let networks = [network.clone(), owned];
        let mut ports = vec![site.port(&member("red"), &network).await];
        for step in 0..60 {
            let who = match chance(&mut random, 4) {
                true => member("blue"),
                false => member("red"),
            };
            let port = pick(&mut random, &ports).clone();
            let did = request(&mut random, &site, &who, &networks, &subnet, &port).await;
            ports.extend(did);
            let state = site.control.state();
            let macs = BTreeSet::from([A_MAC.parse().expect("a MAC")]);
            for port in state.ports_in(&network) {
                assert!(is_plain(port, &macs), "seed {seed}, step {step}: {port:?}");
            }
            assert_eq!(state.networks[&network].project, admin().project);
            assert!(state.networks[&network].port_security);
        }
        site.inventory_followed();
    }
}

/// Some of them are allowed, and none must matter.
async fn request(
    random: &mut Dice,
    site: &Site,
    who: &Caller,
    networks: &[NetworkId; 2],
    subnet: &str,
    port: &PortId,
) -> Option<PortId> {
    let control = &site.control;
    let (_, with, by) = pick(random, &WISHES);
    let wished = !chance(random, 3);
    match random.below(6) {
        0 => {
            let new = |new: &mut NewPort| {
                if wished {
                    with(new);
                }
            };
            let made = site.port_with(who, pick(random, networks), new).await;
            return made.ok();
        }
        1 | 2 => {
            let mut patch = PortPatch::default();
            if wished {
                by(&mut patch);
            }
            if chance(random, 2) {
                patch.groups = Some(Vec::new());
            }
            if chance(random, 3) {
                patch.device_owner = Some("compute:nova".to_owned());
            }
            if chance(random, 3) {
                let any = AskedAddress {
                    subnet: Some(subnet.to_owned()),
                    address: None,
                };
                patch.fixed = Some(vec![any; 1 + random.below(2)]);
            }
            let _ = control.update_port(who, port.as_str(), patch, None).await;
        }
        3 => {
            let patch = crate::NetworkPatch {
                port_security: Some(false),
                shared: chance(random, 2).then_some(false),
                ..Default::default()
            };
            let _ = control
                .update_network(who, pick(random, networks).as_str(), patch, None)
                .await;
        }
        4 => {
            let patch = crate::SubnetPatch {
                pools: Some(vec![("10.0.0.2".to_owned(), "10.0.0.9".to_owned())]),
                gateway: Some(crate::AskedGateway::Address("10.0.0.1".to_owned())),
                ..Default::default()
            };
            let _ = control.update_subnet(who, subnet, patch, None).await;
        }
        _ => {
            let new = crate::trial::new_subnet(&networks[0], "10.1.0.0/24");
            let _ = control.create_subnets(who, vec![new]).await;
        }
    }
    None
}
