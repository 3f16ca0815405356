//! Inventories in words, one line per object, in any order:
//!
//! ```text
//! host h1
//! network net blue 10.0.0.0/24,2001:db8::/64 dhcp=10.0.0.2 routers=fe80::1 eui64
//! port vm net h1 02:00:00:00:00:01 10.0.0.5 in=web,db pairs=10.0.0.100/32@02:00:00:00:00:99 off router dhcp-server device=tap0
//! group web stateless tag=7
//! rule web/ssh ingress IPv4 tcp:22-22 any
//! addresses office 192.0.2.0/24
//! ```
//! `-` stands for no host and for an empty list.

#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod random;

use model::*;
use std::collections::BTreeSet;
use std::str::FromStr;

pub(crate) fn inventory<'a>(lines: impl IntoIterator<Item = &'a str>) -> Inventory {
    let mut inventory = Inventory::default();
    let mut rules = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] => {}
            ["host", id] => put_host(&mut inventory, id),
            ["network", id, scope, subnets, ref more @ ..] => {
                put_network(&mut inventory, id, scope, subnets, more);
            }
            ["port", id, network, host, mac, addresses, ref more @ ..] => {
                put_port(&mut inventory, [id, network, host, mac, addresses], more);
            }
            ["group", id, ref more @ ..] => put_group(&mut inventory, id, more),
            ["rule", name, direction, family, l4, peer] => {
                rules.push((name, rule(name, [direction, family, l4, peer])));
            }
            ["addresses", id, prefixes] => {
                let group = AddressGroup {
                    id: id.into(),
                    prefixes: list(prefixes),
                };
                inventory.address_groups.insert(id.into(), group);
            }
            _ => panic!("what is {line:?}?"),
        }
    }
    for (name, rule) in rules {
        let (group, _) = name.split_once('/').expect("GROUP/RULE");
        if let Some(group) = inventory.groups.get_mut(group) {
            group.rules.insert(rule.id.clone(), rule);
        }
    }
    inventory
}

fn put_host(inventory: &mut Inventory, id: &str) {
    let host = Host {
        id: id.into(),
        tunnel_address: None,
        peer_trust: PeerTrust::Address,
        settings: Settings::default(),
    };
    inventory.hosts.insert(id.into(), host);
}

fn put_network(inventory: &mut Inventory, id: &str, scope: &str, subnets: &str, more: &[&str]) {
    let network = Network {
        id: id.into(),
        scope: scope.into(),
        vni: None,
        mtu: None,
        subnets: list(subnets),
        dhcp_servers: option(more, "dhcp"),
        routers: option(more, "routers"),
        eui64_only: more.contains(&"eui64"),
    };
    inventory.networks.insert(id.into(), network);
}

fn put_port(inventory: &mut Inventory, words: [&str; 5], more: &[&str]) {
    let [id, network, host, mac, addresses] = words;
    let groups: BTreeSet<String> = option(more, "in");
    let pairs: BTreeSet<String> = option(more, "pairs");
    let devices: BTreeSet<String> = option(more, "device");
    let device = devices.into_iter().next();
    let port = Port {
        id: id.into(),
        network: network.into(),
        host: (host != "-").then(|| host.into()),
        device: DeviceMatch::Name(device.unwrap_or(format!("tap-{id}"))),
        moving: more.iter().find_map(|word| moving(word)),
        mac: parsed(mac),
        fixed_addresses: list(addresses).into(),
        address_pairs: pairs.iter().map(|text| pair(text)).collect(),
        groups: groups.iter().map(|g| g.as_str().into()).collect(),
        port_security: !more.contains(&"off"),
        dhcp_server: more.contains(&"dhcp-server"),
        router: more.contains(&"router"),
    };
    inventory.ports.insert(id.into(), port);
}

/// `to=HOST:DEVICE`.
fn moving(word: &str) -> Option<Box<Moving>> {
    let (to, device) = word.strip_prefix("to=")?.split_once(':')?;
    Some(Box::new(Moving {
        to: to.into(),
        device: DeviceMatch::Name(device.to_owned()),
    }))
}

fn pair(text: &str) -> AddressPair {
    match text.split_once('@') {
        None => AddressPair {
            prefix: parsed(text),
            mac: None,
        },
        Some((prefix, mac)) => AddressPair {
            prefix: parsed(prefix),
            mac: Some(parsed(mac)),
        },
    }
}

fn put_group(inventory: &mut Inventory, id: &str, more: &[&str]) {
    let tag: BTreeSet<u16> = option(more, "tag");
    let group = SecurityGroup {
        id: id.into(),
        project: None,
        name: id.to_owned(),
        stateful: !more.contains(&"stateless"),
        tag: tag.first().copied(),
        rules: Default::default(),
    };
    inventory.groups.insert(id.into(), group);
}

pub(crate) fn rule(name: &str, words: [&str; 4]) -> Rule {
    let [direction, family, l4, peer] = words;
    let (_, id) = name.split_once('/').expect("GROUP/RULE");
    Rule {
        id: id.into(),
        direction: match direction {
            "ingress" => Direction::Ingress,
            "egress" => Direction::Egress,
            other => panic!("no direction: {other}"),
        },
        family: match family {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            other => panic!("no family: {other}"),
        },
        l4: l4_match(l4),
        peer: match peer.split_once(':') {
            None if peer == "any" => Peer::Any,
            Some(("group", id)) => Peer::Group(id.into()),
            Some(("addresses", id)) => Peer::AddressGroup(id.into()),
            Some(_) | None => Peer::Prefix(parsed(peer)),
        },
    }
}

fn l4_match(text: &str) -> L4Match {
    let (protocol, rest) = text.split_once(':').unwrap_or((text, ""));
    let protocol = match protocol {
        "any" => return L4Match::Any,
        "icmp" => {
            let kind = (!rest.is_empty()).then(|| {
                let (icmp_type, code) = rest.split_once('/').unwrap_or((rest, ""));
                IcmpKind {
                    icmp_type: parsed(icmp_type),
                    code: (!code.is_empty()).then(|| parsed(code)),
                }
            });
            return L4Match::Icmp { kind };
        }
        "tcp" => PortedProtocol::Tcp,
        "udp" => PortedProtocol::Udp,
        "sctp" => PortedProtocol::Sctp,
        number => {
            let number = PortlessProtocol::new(parsed(number));
            return L4Match::Other(number.expect("a protocol without a variant"));
        }
    };
    let (first, last) = rest.split_once('-').unwrap_or((rest, rest));
    let dst = match rest {
        "" => L4PortRange::ALL,
        _ => L4PortRange::new(parsed(first), parsed(last)).expect("a range"),
    };
    L4Match::Ported { protocol, dst }
}

fn option<T: FromStr + Ord>(words: &[&str], name: &str) -> BTreeSet<T> {
    let given = words.iter().filter_map(|word| word.split_once('='));
    let named = given.filter(|(given, _)| *given == name);
    named.flat_map(|(_, text)| list::<T>(text)).collect()
}

fn list<T: FromStr + Ord>(text: &str) -> BTreeSet<T> {
    let items = text.split(',').filter(|item| *item != "-");
    items.map(|item| parsed(item)).collect()
}

pub(crate) fn parsed<T: FromStr>(text: &str) -> T {
    match text.parse() {
        Ok(value) => value,
        Err(_) => panic!("can't read {text:?} as {}", std::any::type_name::<T>()),
    }
}
