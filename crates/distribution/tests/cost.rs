//! Who isn't concerned hears nothing, and costs nothing.

use distribution::{Distribution, Messages};
use model::*;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

const HOSTS: usize = 200;
const PORTS_PER_HOST: usize = 20;
const WEB_HOSTS: usize = 3;

/// A network with all hosts; all ports but the first of the first hosts are in `db`, which `web`'s rule names.
struct Cloud(Distribution);

impl Cloud {
    fn new() -> Self {
        let mut inventory = Inventory::default();
        let network = network();
        inventory.networks.insert(network.id.clone(), network);
        for group in ["web", "db", "lonely"] {
            inventory.groups.insert(group.into(), self::group(group));
        }
        let web = inventory.groups.get_mut("web").expect("it was just put");
        web.rules
            .insert("from-db".into(), rule("from-db", Peer::Group("db".into())));
        for host in 0..HOSTS {
            for port in 0..PORTS_PER_HOST {
                let is_web = port == 0 && host < WEB_HOSTS;
                let port = self::port(host, port, if is_web { &["web"] } else { &["db"] });
                inventory.ports.insert(port.id.clone(), port);
            }
        }
        let mut distribution = Distribution::default();
        distribution.replace(inventory);
        for host in 0..HOSTS {
            distribution.subscribe(&host_id(host));
        }
        Self(distribution)
    }

    /// Who hears, and how many objects of others may have been looked at for it.
    fn check(&mut self, change: InventoryChange, hears: &[usize], interests: usize) -> Messages {
        let before = self.0.work();
        let messages = self.0.change(change);
        let after = self.0.work();
        let seen: Vec<&HostId> = messages.keys().collect();
        let expected: BTreeSet<HostId> = hears.iter().map(|host| host_id(*host)).collect();
        assert_eq!(seen, expected.iter().collect::<Vec<_>>());
        assert_eq!(after.messages - before.messages, hears.len());
        assert_eq!(after.interests - before.interests, interests);
        messages
    }
}

fn host_id(number: usize) -> HostId {
    HostId::new(format!("host-{number}"))
}

fn network() -> Network {
    Network {
        id: "net".into(),
        scope: "blue".into(),
        vni: None,
        mtu: None,
        subnets: BTreeSet::new(),
        dhcp_servers: BTreeSet::new(),
        routers: BTreeSet::new(),
        eui64_only: true,
    }
}

fn group(id: &str) -> SecurityGroup {
    SecurityGroup {
        id: id.into(),
        project: None,
        name: id.to_owned(),
        stateful: true,
        tag: Some(7),
        rules: Default::default(),
    }
}

fn rule(id: &str, peer: Peer) -> Rule {
    Rule {
        id: id.into(),
        direction: Direction::Ingress,
        family: Family::V4,
        l4: L4Match::Any,
        peer,
    }
}

fn port(host: usize, number: usize, groups: &[&str]) -> Port {
    let address = Ipv4Addr::from(0x0a00_0000 + (host * PORTS_PER_HOST + number) as u32);
    Port {
        id: PortId::new(format!("port-{host}-{number}")),
        network: "net".into(),
        host: Some(host_id(host)),
        device: DeviceMatch::Mac,
        moving: None,
        mac: MacAddr([2, 0, 0, (host >> 8) as u8, host as u8, number as u8]),
        fixed_addresses: [address.into()].into(),
        address_pairs: FrozenSet::new(),
        groups: groups.iter().map(|group| GroupId::from(*group)).collect(),
        port_security: true,
        dhcp_server: false,
        router: false,
    }
}

fn put_port(port: Port) -> InventoryChange {
    InventoryChange {
        ports: [(port.id.clone(), Some(port))].into(),
        ..InventoryChange::default()
    }
}

fn put_rule(group: &str, rule: Rule) -> InventoryChange {
    let of = RuleRef {
        group: group.into(),
        rule: rule.id.clone(),
    };
    InventoryChange {
        rules: [(of, Some(rule))].into(),
        ..InventoryChange::default()
    }
}

#[test]
fn a_member_is_one_object_to_each_host_whose_rules_name_the_group() {
    let mut cloud = Cloud::new();
    let new = port(150, 99, &["db", "lonely"]);
    let messages = cloud.check(put_port(new.clone()), &[0, 1, 2, 150], 1);
    for host in 0..WEB_HOSTS {
        let message = &messages[&host_id(host)];
        assert_eq!(message.ports.len(), 1);
        let told = message.ports[&new.id].as_ref().expect("it came");
        let reduced = Port {
            host: None,
            mac: MacAddr::ZERO,
            groups: [GroupId::from("db")].into(),
            ..new.clone()
        };
        assert_eq!(*told, reduced);
        let rest = InventoryChange {
            ports: Default::default(),
            ..message.clone()
        };
        assert!(rest.is_empty());
    }
    // What isn't told of it is nobody's news but its host's.
    let mut other = new.clone();
    other.mac.0[5] = 200;
    cloud.check(put_port(other.clone()), &[150], 1);
    other.host = Some(host_id(151));
    cloud.check(put_port(other.clone()), &[150, 151], 2);
    cloud.check(put_port(other.clone()), &[], 0);
    other.groups.remove("db");
    cloud.check(put_port(other), &[0, 1, 2, 151], 1);
}

#[test]
fn a_rule_is_news_where_a_port_is_in_its_group() {
    let mut cloud = Cloud::new();
    cloud.check(put_rule("web", rule("any", Peer::Any)), &[0, 1, 2], 0);
    cloud.check(put_rule("lonely", rule("any", Peer::Any)), &[], 0);
    // The set of what is named is another: interests are looked at, and no member comes twice.
    let again = rule("again", Peer::Group("db".into()));
    let messages = cloud.check(put_rule("web", again), &[0, 1, 2], 3);
    assert!(messages.values().all(|message| message.ports.is_empty()));
}

#[test]
fn members_come_with_the_first_rule_that_names_them() {
    let mut cloud = Cloud::new();
    let join = port(0, 0, &["web", "lonely"]);
    cloud.check(put_port(join), &[0], 1);
    let messages = cloud.check(
        put_rule("lonely", rule("db", Peer::Group("web".into()))),
        &[0],
        1,
    );
    // Of the three members one is local.
    assert_eq!(messages[&host_id(0)].ports.len(), WEB_HOSTS - 1);
}

#[test]
fn work_is_by_who_is_concerned() {
    let mut cloud = Cloud::new();
    let before = cloud.0.work();
    for number in 100..200 {
        cloud.0.change(put_port(port(150, number, &["db"])));
    }
    let spent = cloud.0.work().objects - before.objects;
    // Each time the port, for its host and for those that name its group.
    assert_eq!(spent, 100 * (WEB_HOSTS + 1));
}

#[test]
fn many_groups_are_as_many_as_to_the_compiler() {
    let mut inventory = Inventory::default();
    let mut network = network();
    network.vni = Some(1);
    inventory.networks.insert(network.id.clone(), network);
    for host in ["host-0", "host-1"] {
        let host = Host {
            id: host.into(),
            tunnel_address: Some(Ipv4Addr::LOCALHOST.into()),
            peer_trust: PeerTrust::Tag,
            settings: Settings::default(),
        };
        inventory.hosts.insert(host.id.clone(), host);
    }
    let local = port(0, 0, &[]);
    inventory.ports.insert(local.id.clone(), local);
    for groups in [policy::SHORT, policy::SHORT + 1] {
        let ids: Vec<String> = (0..groups).map(|g| format!("g{g}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let remote = port(1, 0, &ids);
        inventory.ports.insert(remote.id.clone(), remote.clone());
        let mut distribution = Distribution::default();
        distribution.replace(inventory.clone());
        let part = distribution.subscribe(&host_id(0));
        let told = part.ports[&remote.id].groups.len();
        assert_eq!(told, if groups > policy::SHORT { groups } else { 0 });
    }
}

#[test]
fn a_part_costs_what_is_in_it() {
    let mut cloud = Cloud::new();
    let before = cloud.0.work().objects;
    let part = cloud.0.subscribe(&host_id(150));
    // Its ports, the host, which isn't known, their network and their group.
    assert_eq!(cloud.0.work().objects - before, PORTS_PER_HOST + 3);
    assert_eq!((part.ports.len(), part.groups.len()), (PORTS_PER_HOST, 1));
}

/// Of an address that two hosts have, each is told all groups; and that they exist, whoever else is in them.
#[test]
fn groups_of_a_shared_address_come_along() {
    let mut inventory = Inventory::default();
    let mut network = network();
    network.vni = Some(1);
    inventory.networks.insert(network.id.clone(), network);
    let host = Host {
        id: host_id(0),
        tunnel_address: Some(Ipv4Addr::LOCALHOST.into()),
        peer_trust: PeerTrust::Tag,
        settings: Settings::default(),
    };
    inventory.hosts.insert(host.id.clone(), host);
    let lonely = SecurityGroup {
        tag: None,
        ..group("lonely")
    };
    inventory.groups.insert(lonely.id.clone(), lonely);
    let own = port(0, 0, &[]);
    let mut same = Port {
        fixed_addresses: own.fixed_addresses.clone(),
        ..port(1, 0, &[])
    };
    for port in [own, same.clone(), port(1, 1, &["lonely"])] {
        inventory.ports.insert(port.id.clone(), port);
    }
    let mut distribution = Distribution::default();
    distribution.replace(inventory);
    let mut part = distribution.subscribe(&host_id(0));
    assert!(part.groups.is_empty());
    same.groups.insert("lonely".into());
    let mut messages = distribution.change(put_port(same));
    part.change(messages.remove(&host_id(0)).expect("it is news"));
    assert_eq!(part, distribution.subscribe(&host_id(0)));
    assert_eq!(part.groups.len(), 1);
}
