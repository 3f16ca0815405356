//! Connections that somebody else has let through so far, or will from now on: entries of the kernel's tracker
//! on the one side, flows of ours on the other.

use crate::plane::connections::{self, EVERYBODYS, Ends};
use dataplane::{DataPlane, FlowRecord, Target};
use dataplane_ebpf::EbpfPlane;
use model::{Direction, FlowState, MacAddr};
use netfilter::conntrack::{
    self, Change, Entry, Outcome, State, Status, Tcp, TcpOptions, Tuple, TupleL4,
};
use std::io;
use std::time::Duration;
use wire::build;

/// Who is on the other side doesn't matter to a flow.
const SOMEBODY: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 1]);

/// The programs are shown a packet of each connection, as if it went by just now, on ports that may have no device
/// yet; how many connections went on.
pub(super) fn take(plane: &mut EbpfPlane, target: &Target) -> io::Result<u64> {
    let there = plane.find_devices()?;
    let prepared = Target {
        view: target.view.clone(),
        devices: there.of_ports,
        closed: there.closed,
        ..Target::default()
    };
    plane.apply(&prepared).map_err(io::Error::other)?;
    let ends = Ends::of(&target.view);
    let mut taken = 0;
    for entry in connections::entries()? {
        for (id, port, direction) in ends.of_entry(&entry) {
            if let Some(frames) = frames(&entry, direction, port.mac) {
                for (direction, frame) in frames {
                    plane.judge(id, direction, &frame)?;
                }
                taken += 1;
            }
        }
    }
    Ok(taken)
}

/// The kernel's tracker knows of our live flows from now on; of how many that it didn't.
pub(super) fn give_back(plane: &mut EbpfPlane, target: &Target) -> io::Result<u64> {
    let mut flows = plane.flows(None)?;
    flows.retain(|flow| {
        policy::permitting(&target.view, &flow.port, flow.original, &flow.key).is_some()
    });
    let entries: Vec<Entry> = flows.iter().filter_map(entry).collect();
    let changes: Vec<Change<'_>> = entries.iter().map(Change::Create).collect();
    let outcomes = conntrack::change(&changes).map_err(io::Error::other)?;
    let done = outcomes.iter().filter(|outcome| **outcome == Outcome::Done);
    Ok(done.count() as u64)
}

/// A packet of the connection, and an answer if there has been one; with their directions at the port.
/// `None`: a connection that can't be picked up.
fn frames(entry: &Entry, original: Direction, mac: MacAddr) -> Option<Vec<(Direction, Vec<u8>)>> {
    let replied = entry.status.has(Status::SEEN_REPLY);
    let sides = [
        (entry.original, original),
        (entry.reply, original.opposite()),
    ];
    let frame = |(tuple, direction): (Tuple, Direction)| {
        let packet = build::ip(tuple.src, tuple.dst);
        let packet = match (tuple.l4, entry.protocol, entry.state) {
            (TupleL4::Ports { src, dst }, 6, State::Tcp(Tcp { state, .. })) => {
                (state == Tcp::ESTABLISHED).then(|| packet.tcp(src, dst, wire::TcpFlags::ACK))
            }
            (TupleL4::Ports { src, dst }, 17, _) => Some(packet.udp(src, dst)),
            (TupleL4::Icmp { icmp_type, id, .. }, _, _) => {
                Some(packet.icmp_query(icmp_type, id, 0))
            }
            _ => None,
        };
        let (src, dst) = match direction {
            Direction::Egress => (mac, SOMEBODY),
            Direction::Ingress => (SOMEBODY, mac),
        };
        Some((direction, packet?.macs(src, dst).bytes()))
    };
    let wanted = sides.into_iter().take(if replied { 2 } else { 1 });
    wanted.map(frame).collect()
}

/// `None`: what is over, or nearly.
fn entry(flow: &FlowRecord) -> Option<Entry> {
    let key = &flow.key;
    let outgoing = flow.original == Direction::Egress;
    let (src, dst) = match outgoing {
        true => (key.local, key.remote),
        false => (key.remote, key.local),
    };
    let l4 = match key.icmp {
        Some(request) => TupleL4::Icmp {
            icmp_type: request.icmp_type,
            code: 0,
            id: key.local_l4,
        },
        None if matches!(key.protocol, 6 | 17) => match outgoing {
            true => TupleL4::Ports {
                src: key.local_l4,
                dst: key.remote_l4,
            },
            false => TupleL4::Ports {
                src: key.remote_l4,
                dst: key.local_l4,
            },
        },
        None => return None,
    };
    let original = Tuple { src, dst, l4 };
    // Whose sequence numbers the kernel has not seen.
    let liberal = TcpOptions {
        flags: TcpOptions::BE_LIBERAL,
        ..TcpOptions::default()
    };
    let state = match (key.protocol, flow.state) {
        (6, FlowState::Established) => State::Tcp(Tcp {
            state: Tcp::ESTABLISHED,
            original: liberal,
            reply: liberal,
        }),
        (6, FlowState::Opening | FlowState::Closing | FlowState::Reset) => return None,
        _ => State::Stateless,
    };
    let replied = Status::SEEN_REPLY.with(Status::ASSURED);
    Some(Entry {
        protocol: key.protocol,
        original,
        reply: original.reversed()?,
        zone: EVERYBODYS,
        zone_only: None,
        mark: 0,
        status: if flow.replied { replied } else { Status(0) },
        timeout_s: LASTS.as_secs() as u32,
        state,
        id: None,
    })
}

/// The next packet sets the kernel's own timeout.
const LASTS: Duration = Duration::from_secs(300);
