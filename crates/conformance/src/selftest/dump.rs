//! A policy in lines that people can read, and the lines in which two differ.

use model::{
    Family, Host, HostId, Inventory, L4Match, Network, Peer, Port, PortedProtocol, Rule,
    SecurityGroup, Settings,
};
use std::fmt::Display;

pub(super) fn lines(made: &Inventory, host: &HostId) -> Vec<String> {
    let settings = made.hosts.get(host).map(|Host { settings, .. }| settings);
    let mut out: Vec<String> = settings.into_iter().flat_map(settings_lines).collect();
    out.extend(made.networks.values().map(network));
    out.extend(made.ports.values().map(|p| port(p, host)));
    for group in made.address_groups.values() {
        out.push(format!(
            "address group {}: {}",
            group.id,
            list(&group.prefixes)
        ));
    }
    for group in made.groups.values() {
        let SecurityGroup {
            id,
            stateful,
            rules,
            project: _,
            name: _,
            tag: _,
        } = group;
        let kind = if *stateful { "stateful" } else { "stateless" };
        out.push(format!("group {id}: {kind}"));
        out.extend(
            rules
                .values()
                .map(|r| format!("  rule {id}/{}: {}", r.id, rule(r))),
        );
    }
    out
}

/// What went (`-`) and what came (`+`).
pub(super) fn difference(before: &[String], after: &[String]) -> Vec<String> {
    let gone = before.iter().filter(|line| !after.contains(line));
    let come = after.iter().filter(|line| !before.contains(line));
    gone.map(|line| format!("- {line}"))
        .chain(come.map(|line| format!("+ {line}")))
        .collect()
}

fn settings_lines(settings: &Settings) -> [String; 3] {
    let Settings {
        elision,
        narrowing,
        inspection: _,
        timeouts,
        budgets,
        ethertypes,
    } = settings;
    [
        format!("elision {elision:?}, narrowing {narrowing:?}, ethertypes {ethertypes:x?}"),
        format!("{budgets:?}"),
        format!("{timeouts:?}"),
    ]
}

fn network(network: &Network) -> String {
    let Network {
        id,
        scope,
        subnets,
        dhcp_servers,
        routers,
        eui64_only,
        vni: _,
        mtu: _,
    } = network;
    let mut text = format!("network {id}: scope {scope}, subnets {}", list(subnets));
    if !dhcp_servers.is_empty() {
        text += &format!(", dhcp servers {}", list(dhcp_servers));
    }
    if !routers.is_empty() {
        text += &format!(", routers {}", list(routers));
    }
    if *eui64_only {
        text += ", link-local by EUI-64 only";
    }
    text
}

fn port(port: &Port, here: &HostId) -> String {
    let Port {
        id,
        network,
        host,
        mac,
        fixed_addresses,
        address_pairs,
        groups,
        port_security,
        dhcp_server,
        router,
        device: _,
        moving,
    } = port;
    let place = match (host, moving) {
        (Some(host), _) if host == here => "here",
        (_, Some(moving)) if moving.to == *here => "on its way here",
        (Some(_), _) => "elsewhere",
        (None, _) => "nowhere",
    };
    let mut text = format!(
        "port {id}: {place} in {network}, {mac}, {}",
        list(fixed_addresses)
    );
    for pair in address_pairs {
        text += &format!(", pair {}", pair.prefix);
        if let Some(mac) = pair.mac {
            text += &format!(" with {mac}");
        }
    }
    text += &format!(", groups {}", list(groups));
    for (flag, name) in [
        (!port_security, "PORT SECURITY OFF"),
        (*dhcp_server, "dhcp server"),
        (*router, "router"),
    ] {
        if flag {
            text += &format!(", {name}");
        }
    }
    text
}

fn rule(rule: &Rule) -> String {
    let Rule {
        id: _,
        direction,
        family,
        l4,
        peer,
    } = rule;
    let l4 = match l4 {
        L4Match::Any => "any".to_owned(),
        L4Match::Ported { protocol, dst } => {
            format!(
                "{} {}-{}",
                protocol_name(*protocol),
                dst.first(),
                dst.last()
            )
        }
        L4Match::Icmp { kind: None } => icmp(*family).to_owned(),
        L4Match::Icmp { kind: Some(kind) } => {
            let code = kind
                .code
                .map_or(String::new(), |code| format!(" code {code}"));
            format!("{} type {}{code}", icmp(*family), kind.icmp_type)
        }
        L4Match::Other(protocol) => format!("protocol {}", protocol.number()),
    };
    let peer = match peer {
        Peer::Any => "any".to_owned(),
        Peer::Prefix(prefix) => prefix.to_string(),
        Peer::Group(group) => format!("group {group}"),
        Peer::AddressGroup(group) => format!("address group {group}"),
    };
    format!("{direction} {family} {l4}, remote {peer}")
}

fn icmp(family: Family) -> &'static str {
    match family {
        Family::V4 => "icmp",
        Family::V6 => "icmpv6",
    }
}

fn protocol_name(protocol: PortedProtocol) -> &'static str {
    match protocol {
        PortedProtocol::Tcp => "tcp",
        PortedProtocol::Udp => "udp",
        PortedProtocol::Dccp => "dccp",
        PortedProtocol::Sctp => "sctp",
        PortedProtocol::UdpLite => "udplite",
    }
}

fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|i| i.to_string()).collect();
    match items.is_empty() {
        true => "none".to_owned(),
        false => items.join(" "),
    }
}
