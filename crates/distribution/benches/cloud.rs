//! What a cloud costs: 10,000 hosts, a million ports, a group of 100,000 members.
//!
//! `cargo bench -p portcullis-distribution` (needs some 4 GB)

use distribution::Distribution;
use model::*;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Instant;

const HOSTS: usize = 10_000;
const PORTS: usize = 1_000_000;
const GROUPS: usize = 20_000;
const LARGE: usize = 100_000;

fn main() {
    let resident = resident_mb();
    let start = Instant::now();
    let inventory = inventory();
    println!(
        "inventory:  {:?}, {} MB",
        start.elapsed(),
        resident_mb() - resident
    );
    let (resident, start) = (resident_mb(), Instant::now());
    let mut distribution = Distribution::default();
    distribution.replace(inventory);
    println!(
        "index:      {:?}, {} MB",
        start.elapsed(),
        resident_mb() - resident
    );
    let (resident, start) = (resident_mb(), Instant::now());
    let mut objects = 0;
    for host in 0..HOSTS {
        objects += distribution.subscribe(&host_id(host)).ports.len();
    }
    let (spent, size) = (start.elapsed() / HOSTS as u32, resident_mb() - resident);
    println!(
        "interests:  {spent:?} each, {size} MB; {} ports in a part",
        objects / HOSTS
    );
    let (start, mut messages) = (Instant::now(), 0);
    for number in 0..1_000 {
        let mut change = InventoryChange::default();
        let port = port(PORTS + number, &[group_id(number % GROUPS)]);
        change.ports.insert(port.id.clone(), Some(port));
        messages += distribution.change(change).len();
    }
    println!(
        "one member: {:?}, {} messages",
        start.elapsed() / 1_000,
        messages / 1_000
    );
    let (start, mut messages) = (Instant::now(), 0);
    for number in 0..10 {
        let mut change = InventoryChange::default();
        let port = port(PORTS + number, &[GroupId::new("large")]);
        change.ports.insert(port.id.clone(), Some(port));
        messages += distribution.change(change).len();
    }
    println!(
        "one of the large group: {:?}, {} messages",
        start.elapsed() / 10,
        messages / 10
    );
}

/// Each port is in one group of its own kind, whose rule names that group and the next; a tenth are in the large one
/// too, which a rule of one group in ten names.
fn inventory() -> Inventory {
    let mut made = Inventory::default();
    let network = Network {
        id: "net".into(),
        scope: "scope".into(),
        vni: None,
        mtu: None,
        subnets: BTreeSet::new(),
        dhcp_servers: BTreeSet::new(),
        routers: BTreeSet::new(),
        eui64_only: true,
    };
    made.networks.insert(network.id.clone(), network);
    for number in 0..GROUPS {
        let mut named = vec![group_id(number), group_id((number + 1) % GROUPS)];
        if number % 100 == 0 {
            named.push("large".into());
        }
        let group = group(group_id(number), named);
        made.groups.insert(group.id.clone(), group);
    }
    let large = group("large".into(), vec![]);
    made.groups.insert(large.id.clone(), large);
    for number in 0..PORTS {
        let own = group_id(number % GROUPS);
        let port = match number < LARGE {
            true => port(number, &[own, "large".into()]),
            false => port(number, &[own]),
        };
        made.ports.insert(port.id.clone(), port);
    }
    made
}

fn host_id(number: usize) -> HostId {
    HostId::new(format!("host-{number}"))
}

fn group_id(number: usize) -> GroupId {
    GroupId::new(format!("group-{number:030}"))
}

fn group(id: GroupId, named: Vec<GroupId>) -> SecurityGroup {
    let rules = named.into_iter().enumerate().map(|(number, named)| {
        let id = RuleId::new(format!("rule-{number:031}"));
        let rule = Rule {
            id: id.clone(),
            direction: Direction::Ingress,
            family: Family::V4,
            l4: L4Match::Any,
            peer: Peer::Group(named),
        };
        (id, rule)
    });
    SecurityGroup {
        id,
        project: None,
        name: String::new(),
        stateful: true,
        tag: None,
        rules: rules.collect(),
    }
}

fn port(number: usize, groups: &[GroupId]) -> Port {
    Port {
        id: PortId::new(format!("port-{number:031}")),
        network: "net".into(),
        host: Some(host_id(number % HOSTS)),
        device: DeviceMatch::Mac,
        moving: None,
        mac: MacAddr([
            2,
            0,
            0,
            (number >> 16) as u8,
            (number >> 8) as u8,
            number as u8,
        ]),
        fixed_addresses: [Ipv4Addr::from(0x0a00_0000 + number as u32).into()].into(),
        address_pairs: FrozenSet::new(),
        groups: groups.iter().cloned().collect(),
        port_security: true,
        dhcp_server: false,
        router: false,
    }
}

/// Of this process, as the kernel counts.
fn resident_mb() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0u64) * 4_096 / 1_000_000
}
