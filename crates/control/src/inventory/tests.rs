use super::*;
use crate::objects::{
    AskedPeer, Asks, Binding, Described, Destination, FixedAddress, FixedAddresses, GroupRule,
    Host, Move, Network, Pair, Segment, Subnet,
};
use crate::records::{Kept, key};
use crate::trial::{Dice, chance, pick};
use model::{Direction, Family, MacAddr, PortId, ProjectId, RuleId, ScopeId};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use store::{Change, Record};

const IDS: [&str; 3] = ["a", "b", "c"];

#[test]
fn the_change_of_a_commit_leads_to_the_inventory_after_it() {
    for seed in 0..60 {
        let mut random = Dice::new(seed);
        let mut state = State::default();
        let mut inventory = inventory_of(&state);
        for commit in 1..120 {
            let count = 1 + random.below(3);
            let changes = Vec::from_iter((0..count).map(|_| change(&mut random, commit)));
            let keys = Vec::from_iter(changes.iter().map(|change| change.key().clone()));
            if keys
                .iter()
                .any(|key| keys.iter().filter(|k| *k == key).count() > 1)
            {
                continue;
            }
            let revision = Revision { epoch: 1, commit };
            let said = format!("seed {seed}, commit {commit}: {changes:?}");
            let changed = state.commit(revision, changes);
            inventory.change(inventory_change(&state, revision, &changed));
            assert_eq!(inventory, inventory_of(&state), "{said}");
        }
    }
}

/// Of any object, in any order: dangling ones, unreadable ones, ones that come again.
fn change(random: &mut Dice, commit: u64) -> Change {
    let (key, value) = match random.below(7) {
        0 => record(&group(random)),
        1 => record(&rule(random)),
        2 => record(&addresses(random)),
        3 => record(&network(random)),
        4 => record(&subnet(random)),
        5 => record(&port(random)),
        _ => record(&host(random)),
    };
    if chance(random, 4) {
        return Change::Delete(key);
    }
    let value = match chance(random, 12) {
        true => (*b"no record").into(),
        false => value,
    };
    Change::Put(Record {
        key,
        value,
        created: commit,
        modified: commit,
    })
}

fn record<T: Kept>(object: &T) -> (store::Key, store::Value) {
    (key(T::KIND, &object.path()), object.value())
}

fn said(random: &mut Dice) -> Described {
    Described {
        name: (*pick(random, &IDS)).into(),
        ..Default::default()
    }
}

fn project() -> ProjectId {
    ProjectId::from("p")
}

fn group(random: &mut Dice) -> Group {
    Group {
        id: GroupId::from(*pick(random, &IDS)),
        project: project(),
        said: said(random),
        stateful: chance(random, 2),
        default: false,
        wire_tag: chance(random, 2).then_some(7),
    }
}

fn rule(random: &mut Dice) -> GroupRule {
    GroupRule {
        // One rule has one group, always.
        id: RuleId::from(*pick(random, &IDS)),
        group: GroupId::from("a"),
        project: project(),
        said: said(random),
        asks: Asks {
            direction: Direction::Ingress,
            family: Family::V4,
            protocol: chance(random, 3).then(|| "tcp".to_owned()),
            range_min: None,
            // Not a rule that there can be, at times.
            range_max: chance(random, 8).then_some(1),
            peer: match random.below(3) {
                0 => AskedPeer::Anyone,
                1 => AskedPeer::Group(GroupId::from(*pick(random, &IDS))),
                _ => AskedPeer::Addresses(AddressGroupId::from(*pick(random, &IDS))),
            },
        },
    }
}

fn addresses(random: &mut Dice) -> Addresses {
    let prefix = pick(random, &["10.0.0.0/8", "10.1.0.0/16"]).parse();
    Addresses {
        id: AddressGroupId::from(*pick(random, &IDS)),
        project: project(),
        said: said(random),
        prefixes: [prefix.expect("a prefix")].into(),
    }
}

fn network(random: &mut Dice) -> Network {
    Network {
        id: NetworkId::from(*pick(random, &IDS)),
        project: project(),
        said: said(random),
        admin_up: true,
        shared: false,
        port_security: true,
        scope: ScopeId::from("s"),
        mtu: chance(random, 2).then_some(1442),
        segment: chance(random, 2).then(|| Segment {
            kind: pick(random, &["geneve", "vlan"]).to_string(),
            physical_network: None,
            number: Some(5),
        }),
        eui64_only: chance(random, 2),
        dhcp_servers: None,
        routers: chance(random, 4).then(|| [address(random)].into()),
    }
}

fn address(random: &mut Dice) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1 + random.below(5) as u8))
}

fn subnet(random: &mut Dice) -> Subnet {
    let prefix = pick(random, &["10.0.0.0/24", "10.0.1.0/24"]).parse();
    Subnet {
        id: (*pick(random, &IDS)).into(),
        project: project(),
        network: NetworkId::from(*pick(random, &IDS)),
        said: said(random),
        prefix: prefix.expect("a prefix"),
        gateway: chance(random, 2).then(|| address(random)),
        dhcp: true,
        pools: Vec::new(),
        dns_servers: Vec::new(),
        host_routes: Vec::new(),
    }
}

fn port(random: &mut Dice) -> Port {
    let own = MacAddr([2, 0, 0, 0, 0, 1]);
    let prefix = "10.9.0.0/16".parse();
    let pair = Pair {
        prefix: prefix.expect("a prefix"),
        mac: own,
    };
    let owners = ["", "compute:x", "network:dhcp", "network:router_interface"];
    Port {
        id: PortId::from(*pick(random, &IDS)),
        project: project(),
        network: NetworkId::from(*pick(random, &IDS)),
        said: said(random),
        mac: own,
        fixed: FixedAddresses::from_iter([FixedAddress {
            subnet: (*pick(random, &IDS)).into(),
            address: address(random),
        }]),
        pairs: chance(random, 2).then_some(pair).into_iter().collect(),
        groups: [GroupId::from(*pick(random, &IDS))].into(),
        port_security: !chance(random, 4),
        admin_up: true,
        device_id: Default::default(),
        device_owner: (*pick(random, &owners)).into(),
        unbound: None,
        binding: chance(random, 2).then(|| {
            Arc::new(Binding {
                host: HostId::from(*pick(random, &IDS)),
                device: None,
                profile: BTreeMap::new(),
                vnic_type: Default::default(),
                moving: match random.below(3) {
                    0 => Some(Box::new(Move::To(Destination {
                        host: HostId::from(*pick(random, &IDS)),
                        device: None,
                        profile: None,
                        since: 1,
                    }))),
                    1 => Some(Box::new(Move::From {
                        host: HostId::from(*pick(random, &IDS)),
                        at: 1,
                        since: 1,
                    })),
                    _ => None,
                },
            })
        }),
    }
}

fn host(random: &mut Dice) -> Host {
    Host {
        id: HostId::from(*pick(random, &IDS)),
        tunnel_address: chance(random, 2).then(|| address(random)),
        tagged: chance(random, 2),
        tags: Default::default(),
        settings: None,
    }
}

#[test]
fn services_and_gateways_are_known_by_their_addresses() {
    let mut random = Dice::new(1);
    let network = Network {
        id: NetworkId::from("a"),
        segment: Some(Segment {
            kind: "geneve".to_owned(),
            physical_network: None,
            number: Some(5),
        }),
        eui64_only: true,
        routers: None,
        ..network(&mut random)
    };
    let subnet = Subnet {
        network: network.id.clone(),
        gateway: Some([10, 0, 0, 1].into()),
        ..subnet(&mut random)
    };
    let service = |id: &str, owner: &str, address: u8| Port {
        id: PortId::from(id),
        network: network.id.clone(),
        device_owner: owner.into(),
        fixed: FixedAddresses::from_iter([FixedAddress {
            subnet: subnet.id.clone(),
            address: [10, 0, 0, address].into(),
        }]),
        ..port(&mut Dice::new(2))
    };
    let ports = [
        service("a", "network:dhcp", 2),
        service("b", "network:router_interface", 3),
        service("c", "compute:network:dhcp", 4),
    ];
    let mut changes = vec![record(&network), record(&subnet)];
    changes.extend(ports.iter().map(record));
    let changes = changes.into_iter().map(|(key, value)| {
        Change::Put(Record {
            key,
            value,
            created: 1,
            modified: 1,
        })
    });
    let mut state = State::default();
    state.commit(Revision::default(), changes.collect());
    let mut inventory = inventory_of(&state);
    let seen = inventory.networks.remove("a").expect("the network");
    let addresses = |last: &[u8]| last.iter().map(|l| [10, 0, 0, *l].into()).collect();
    assert_eq!(seen.dhcp_servers, addresses(&[2]));
    assert_eq!(seen.routers, addresses(&[1, 3]));
    assert_eq!((seen.vni, seen.eui64_only), (Some(5), true));
    let standing = |id: &str| {
        let port = &inventory.ports[id];
        (port.dhcp_server, port.router)
    };
    assert_eq!(standing("a"), (true, false));
    assert_eq!(standing("b"), (false, true));
    assert_eq!(standing("c"), (false, false));
}
