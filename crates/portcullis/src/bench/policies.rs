//! The policies that are measured: two ports of one host, `a` that sends and `b` that receives.

use model::{
    AddressPair, DeviceMatch, Direction, Family, FrozenSet, GroupId, Host, HostId, Inventory,
    L4Match, L4PortRange, MacAddr, Network, Peer, PeerTrust, Port, PortId, PortedProtocol, Prefix,
    Rule, RuleId, SecurityGroup, Settings,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

pub(super) const HOST: &str = "bench";
pub(super) const MAC_A: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xa]);
pub(super) const MAC_B: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xb]);
pub(super) const ADDRESS_A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(super) const ADDRESS_B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Sources beside its own that `a` may use: 10.64.0.0/10.
const POOL: u32 = 0x0a40_0000;
pub(super) const L4_PORT: u16 = 9;

/// What the policy is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// `a` may only send, `b` only receive: every flow needs state.
    Tracked,
    /// Both may do everything: nothing needs state.
    Open,
    /// `b` receives from this many prefixes of 4 addresses, by as many rules.
    Prefixes(u32),
    /// `b` receives from a group of this many members.
    Members(u32),
    /// `a` is no VM of this host.
    Outside(Server),
}

/// What a VM that serves the outside is permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// Everything in, nothing out: every flow needs state.
    Tracked,
    /// Everything: nothing needs state.
    Open,
}

/// The `i`th of the sources that [`Policy::Prefixes`] and [`Policy::Members`] permit.
pub(super) fn source(policy: Policy, i: u32) -> Ipv4Addr {
    match policy {
        Policy::Prefixes(_) => Ipv4Addr::from(POOL + i * 4 + 1),
        Policy::Members(_) => Ipv4Addr::from(POOL + i),
        Policy::Tracked | Policy::Open | Policy::Outside(_) => ADDRESS_A,
    }
}

/// The host, one network, and nobody.
pub(super) fn nobody(subnets: BTreeSet<Prefix>) -> Inventory {
    let mut inventory = Inventory::default();
    inventory.revision.commit = 1;
    let host = Host {
        id: HOST.into(),
        tunnel_address: None,
        peer_trust: PeerTrust::default(),
        settings: Settings::default(),
    };
    inventory.hosts.insert(host.id.clone(), host);
    let network = Network {
        id: "net".into(),
        scope: "scope".into(),
        vni: None,
        mtu: None,
        subnets,
        dhcp_servers: BTreeSet::new(),
        routers: BTreeSet::new(),
        eui64_only: false,
    };
    inventory.networks.insert(network.id.clone(), network);
    inventory
}

pub(super) fn inventory(policy: Policy, device_a: &str, device_b: &str) -> Inventory {
    let subnet = prefix(Ipv4Addr::new(10, 0, 0, 0), 8);
    let mut inventory = nobody(BTreeSet::from([subnet]));
    let egress = rule("out", Direction::Egress, L4Match::Any, Peer::Any);
    let ingress = rule("in", Direction::Ingress, L4Match::Any, Peer::Any);
    let (rules_a, rules_b) = match policy {
        Policy::Tracked => (vec![egress], vec![ingress]),
        Policy::Open => (vec![egress.clone(), ingress.clone()], vec![egress, ingress]),
        Policy::Outside(Server::Tracked) => (vec![], vec![ingress]),
        Policy::Outside(Server::Open) => (vec![], vec![egress, ingress]),
        Policy::Prefixes(count) => {
            let from = |i| prefix(Ipv4Addr::from(POOL + i * 4), 30);
            let permit = |i| {
                let l4 = udp(L4_PORT);
                rule(
                    &format!("r{i:06}"),
                    Direction::Ingress,
                    l4,
                    Peer::Prefix(from(i)),
                )
            };
            let rules = (0..count).map(permit).chain([egress.clone()]).collect();
            (vec![egress, ingress], rules)
        }
        Policy::Members(_) => {
            let peer = Peer::Group("members".into());
            let permit = rule("in", Direction::Ingress, udp(L4_PORT), peer);
            (vec![egress.clone(), ingress], vec![egress, permit])
        }
    };
    for (id, rules) in [("a", rules_a), ("b", rules_b), ("members", vec![])] {
        let group = group(id, rules);
        inventory.groups.insert(group.id.clone(), group);
    }
    let mut a = port("a", device_a, MAC_A, &[ADDRESS_A]);
    let pool = prefix(Ipv4Addr::from(POOL), 10);
    a.address_pairs.insert(AddressPair {
        prefix: pool,
        mac: None,
    });
    if let Policy::Outside(_) = policy {
        a.host = None;
    }
    let b = port("b", device_b, MAC_B, &[ADDRESS_B]);
    inventory.ports.extend([a, b].map(|p| (p.id.clone(), p)));
    if let Policy::Members(count) = policy {
        inventory
            .ports
            .extend((0..count).map(|i| member(i, source(policy, i))));
    }
    inventory
}

/// On no host: it counts as a member, and that is all.
pub(super) fn member(i: u32, address: Ipv4Addr) -> (PortId, Port) {
    let [_, _, b, c] = i.to_be_bytes();
    let mac = MacAddr([0x52, 0x54, 1, (i >> 16) as u8, b, c]);
    let mut member = port("members", "", mac, &[address]);
    member.id = PortId::new(format!("m{i:06}"));
    member.host = None;
    (member.id.clone(), member)
}

pub(super) fn group(id: &str, rules: Vec<Rule>) -> SecurityGroup {
    SecurityGroup {
        id: id.into(),
        project: None,
        name: id.to_owned(),
        stateful: true,
        tag: None,
        rules: rules.into_iter().map(|r| (r.id.clone(), r)).collect(),
    }
}

/// In the group of its name.
pub(super) fn port(name: &str, device: &str, mac: MacAddr, addresses: &[Ipv4Addr]) -> Port {
    Port {
        id: name.into(),
        network: "net".into(),
        host: Some(HostId::from(HOST)),
        device: DeviceMatch::Name(device.to_owned()),
        moving: None,
        mac,
        fixed_addresses: addresses.iter().map(|a| IpAddr::V4(*a)).collect(),
        address_pairs: FrozenSet::new(),
        groups: FrozenSet::from([GroupId::from(name)]),
        port_security: true,
        dhcp_server: false,
        router: false,
    }
}

pub(super) fn rule(id: &str, direction: Direction, l4: L4Match, peer: Peer) -> Rule {
    Rule {
        id: RuleId::from(id),
        direction,
        family: Family::V4,
        l4,
        peer,
    }
}

pub(super) fn udp(l4_port: u16) -> L4Match {
    L4Match::Ported {
        protocol: PortedProtocol::Udp,
        dst: L4PortRange::new(l4_port, l4_port).expect("first and last are the same"),
    }
}

fn prefix(network: Ipv4Addr, length: u8) -> Prefix {
    Prefix::containing(IpAddr::V4(network), length)
}
