//! The tracker's entries as flows of ports.

use crate::records;
use model::{Direction, FlowKey, IcmpRequest, PortId};
use ovsdb::Control;
use ovsdb::conntrack::{Connection, connections, flush_connection};
use policy::HostView;
use std::io;

/// Ends the connections of a port that it keeps no state for any more.
pub(crate) fn forget_elidable(
    control: &mut Control,
    view: &HostView,
    port: &PortId,
    zone: u16,
) -> io::Result<()> {
    let Some(of_port) = view.ports.get(port) else {
        return Ok(());
    };
    let connections = connections(control, None, Some(zone)).map_err(io::Error::other)?;
    for connection in &connections {
        let ways = records::ways(of_port, connection).iter();
        let keys = ways.filter_map(|original| key(connection, *original));
        let mut elidable = keys.filter(|key| policy::elidable(view, port, key));
        if elidable.next().is_some() {
            flush_connection(control, None, connection).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// The flow that an entry is, if its first packet went this way. `None`: no flow comes of such an entry.
pub(crate) fn key(connection: &Connection, original: Direction) -> Option<FlowKey> {
    let tuple = &connection.orig;
    let protocol = protocol_number(&connection.protocol)?;
    let (local, remote) = match original {
        Direction::Egress => (tuple.src, tuple.dst),
        Direction::Ingress => (tuple.dst, tuple.src),
    };
    let icmp = tuple.icmp.map(|icmp| IcmpRequest {
        icmp_type: icmp.icmp_type,
        by_local: original == Direction::Egress,
    });
    let (local_l4, remote_l4) = match (tuple.icmp, original) {
        (Some(icmp), _) => (icmp.id, icmp.id),
        (None, Direction::Egress) => (tuple.sport, tuple.dport),
        (None, Direction::Ingress) => (tuple.dport, tuple.sport),
    };
    Some(FlowKey {
        local,
        remote,
        protocol,
        local_l4,
        remote_l4,
        icmp,
    })
}

pub(crate) fn protocol_number(name: &str) -> Option<u8> {
    let known = [
        ("tcp", 6),
        ("udp", 17),
        ("sctp", 132),
        ("icmp", 1),
        ("icmpv6", 58),
    ];
    let known = known.into_iter().find(|(known, _)| *known == name);
    known
        .map(|(_, number)| number)
        .or_else(|| name.parse().ok())
}
