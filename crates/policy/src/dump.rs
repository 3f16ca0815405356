//! A view as text, for golden files and for people: one line per thing, in the order of ids.

use crate::view::{GroupView, HostView, NetworkView, PeerView, PortView, RuleView};
use model::{DeviceMatch, Direction, L4Match, PortedProtocol};
use std::collections::BTreeSet;
use std::fmt::{self, Display, Write};

impl HostView {
    /// Two views are equal iff their dumps are.
    pub fn dump(&self) -> String {
        let mut out = String::new();
        write(&mut out, self).expect("writing to a String doesn't fail");
        out
    }
}

fn write(out: &mut String, view: &HostView) -> fmt::Result {
    writeln!(out, "revision {}", view.revision)?;
    let s = &view.settings;
    writeln!(
        out,
        "settings elision={:?} narrowing={:?}",
        s.elision, s.narrowing
    )?;
    writeln!(out, "  {:?}", s.timeouts)?;
    writeln!(out, "  {:?}", s.budgets)?;
    if !s.ethertypes.is_empty() {
        let hex = s.ethertypes.iter().map(|e| format!("{e:#06x}"));
        writeln!(out, "  ethertypes{}", list(hex))?;
    }
    for (id, network) in &view.networks {
        network_lines(out, id, network)?;
    }
    for (id, port) in &view.ports {
        port_lines(out, id, port)?;
    }
    for (id, group) in &view.groups {
        group_lines(out, id, group)?;
    }
    for ((scope, group), members) in &view.members {
        writeln!(out, "members {group} in {scope}:{}", list(members.iter()))?;
    }
    for (id, prefixes) in &view.address_groups {
        writeln!(out, "address-group {id}:{}", list(prefixes.iter()))?;
    }
    if let Some(overlay) = &view.overlay {
        writeln!(out, "overlay {overlay:#?}")?;
    }
    Ok(())
}

fn network_lines(out: &mut String, id: &impl Display, network: &NetworkView) -> fmt::Result {
    let eui64 = flag(network.eui64_only, "eui64-only");
    writeln!(out, "network {id} scope={}{eui64}", network.scope)?;
    listed(out, "subnets", &network.subnets)?;
    listed(out, "dhcp-servers", &network.dhcp_servers)?;
    for address in network.reserved_link_local.iter() {
        writeln!(out, "  reserved {address}")?;
    }
    Ok(())
}

fn port_lines(out: &mut String, id: &impl Display, port: &PortView) -> fmt::Result {
    let device = match &port.device {
        DeviceMatch::Name(name) => format!("name:{name}"),
        DeviceMatch::Mac => "mac".to_owned(),
        DeviceMatch::Pattern(pattern) => format!("pattern:{pattern}"),
        DeviceMatch::InterfaceId(id) => format!("interface-id:{id}"),
    };
    let flags = [
        flag(!port.port_security, "port-security-off"),
        flag(port.dhcp_server, "dhcp-server"),
        flag(port.router, "router"),
    ];
    writeln!(
        out,
        "port {id} network={} device={device} mac={}{}",
        port.network,
        port.mac,
        flags.concat()
    )?;
    for own in &port.addresses {
        match own.mac {
            None => writeln!(out, "  address {}", own.prefix)?,
            Some(mac) => writeln!(out, "  address {} with {mac}", own.prefix)?,
        }
    }
    if !port.groups.is_empty() {
        writeln!(out, "  groups{}", list(port.groups.iter()))?;
    }
    Ok(())
}

fn group_lines(out: &mut String, id: &impl Display, group: &GroupView) -> fmt::Result {
    let state = if group.stateful {
        "stateful"
    } else {
        "stateless"
    };
    let tag = group.tag.map(|t| format!(" tag={t}")).unwrap_or_default();
    writeln!(out, "group {id} {state}{tag}")?;
    for (id, rule) in &group.rules {
        writeln!(out, "  rule {id}: {}", rule_text(rule))?;
    }
    Ok(())
}

fn rule_text(rule: &RuleView) -> String {
    let l4 = match rule.l4 {
        L4Match::Any => "any".to_owned(),
        L4Match::Ported { protocol, dst } => {
            let name = match protocol {
                PortedProtocol::Tcp => "tcp",
                PortedProtocol::Udp => "udp",
                PortedProtocol::Dccp => "dccp",
                PortedProtocol::Sctp => "sctp",
                PortedProtocol::UdpLite => "udplite",
            };
            format!("{name} {}-{}", dst.first(), dst.last())
        }
        L4Match::Icmp { kind: None } => "icmp".to_owned(),
        L4Match::Icmp { kind: Some(kind) } => match kind.code {
            None => format!("icmp {}", kind.icmp_type),
            Some(code) => format!("icmp {}/{code}", kind.icmp_type),
        },
        L4Match::Other(protocol) => format!("protocol {}", protocol.number()),
    };
    let peer = match &rule.peer {
        PeerView::Any => "any".to_owned(),
        PeerView::Prefix(prefix) => prefix.to_string(),
        PeerView::Group(group) => format!("group {group}"),
        PeerView::AddressGroup(group) => format!("address-group {group}"),
    };
    let side = match rule.direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    format!("{} {} {l4} {side} {peer}", rule.direction, rule.family)
}

fn listed<T: Display>(out: &mut String, name: &str, items: &BTreeSet<T>) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    writeln!(out, "  {name}{}", list(items.iter()))
}

/// Each item with a space before it.
fn list(items: impl Iterator<Item = impl Display>) -> String {
    items.fold(String::new(), |mut text, item| {
        text.push(' ');
        text.push_str(&item.to_string());
        text
    })
}

fn flag(set: bool, name: &str) -> String {
    if set {
        format!(" {name}")
    } else {
        String::new()
    }
}
