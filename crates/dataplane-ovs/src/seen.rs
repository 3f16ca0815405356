//! What the tracker would say of a packet, by the entries that it has in the port's zone.
//!
//! As ovs-vswitchd's own tracker does, with TCP's sequence numbers not looked at: lib/conntrack.c and its like,
//! Open vSwitch 3.1. Knows nothing of: flows of OpenFlow, who the port is.

use crate::flows::protocol_number;
use model::Family;
use ovsdb::conntrack::{Connection, Icmp, Tuple};
use wire::{L4, Packet, TcpFlags};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) state: State,
    reply: bool,
    /// Protocol and tuple of the first packet of the flow, for which this one may be taken itself.
    first: Option<(u8, Tuple)>,
    mark: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    New,
    Established,
    Related,
    Invalid,
}

/// Of a whole packet.
pub(crate) fn seen(packet: &Packet<'_>, connections: &[Connection]) -> Seen {
    let invalid = Seen {
        state: State::Invalid,
        reply: false,
        first: None,
        mark: 0,
    };
    let family = Family::of(packet.src);
    let (named, about) = match packet.l4 {
        L4::Icmp { icmp_type, .. } if is_error(family, icmp_type) => {
            let quoted = packet.payload.get(8..).unwrap_or_default();
            match wire::parse_quoted(quoted, family) {
                Some(quoted) => (tuple(&quoted), State::Related),
                None => return invalid,
            }
        }
        L4::Icmp { icmp_type, .. } if !is_asked_or_answered(family, icmp_type) => return invalid,
        L4::Tcp { .. } | L4::Ported { .. } | L4::Icmp { .. } | L4::Opaque | L4::Absent => {
            (tuple(packet), State::Established)
        }
    };
    let found = connections.iter().find_map(|connection| {
        let (protocol, tuple) = named;
        let same = protocol_number(&connection.protocol) == Some(protocol);
        match tuple {
            _ if !same => None,
            tuple if tuple == connection.orig => Some((connection, false)),
            tuple if tuple == connection.reply => Some((connection, true)),
            _ => None,
        }
    });
    match (found, about) {
        (Some((connection, reply)), State::Related) => Seen {
            state: State::Related,
            // An error about a packet goes against it.
            reply: !reply,
            first: Some((named.0, connection.orig)),
            mark: connection.mark,
        },
        (Some((connection, reply)), _) if !begins_anew(packet, connection) => Seen {
            state: match packet.l4 {
                L4::Tcp { flags, .. } if contradicts_itself(flags) => return invalid,
                _ => State::Established,
            },
            reply,
            first: Some((named.0, connection.orig)),
            mark: connection.mark,
        },
        (None, State::Related) => invalid,
        (Some(_) | None, _) => match may_begin(packet, family) {
            true => Seen {
                state: State::New,
                reply: false,
                first: Some(named),
                mark: 0,
            },
            false => invalid,
        },
    }
}

impl Seen {
    /// As fields of a flow. They stand in front of what they depend on, which the switch doesn't mind.
    pub(crate) fn fields(&self) -> String {
        let state = match self.state {
            State::New => "new|trk",
            State::Established => "est|trk",
            State::Related => "rel|trk",
            State::Invalid => "inv|trk",
        };
        let reply = if self.reply { "|rpl" } else { "" };
        let mut fields = format!("ct_state={state}{reply}");
        if let Some((protocol, first)) = &self.first {
            let family = if first.src.is_ipv4() { "nw" } else { "ipv6" };
            let (src, dst) = (first.src, first.dst);
            let [from, to] = match first.icmp {
                Some(icmp) => [icmp.icmp_type.into(), icmp.code.into()],
                None => [first.sport, first.dport],
            };
            fields += &format!(
                ",ct_{family}_src={src},ct_{family}_dst={dst},ct_nw_proto={protocol},ct_tp_src={from},ct_tp_dst={to}"
            );
        }
        if self.mark != 0 {
            fields += &format!(",ct_mark={}", self.mark);
        }
        fields
    }
}

fn tuple(packet: &Packet<'_>) -> (u8, Tuple) {
    let (sport, dport, icmp) = match packet.l4 {
        L4::Tcp { src, dst, .. } => (src, dst, None),
        // The tracker knows no ports of UDP-Lite and DCCP.
        L4::Ported { src, dst } if matches!(packet.protocol, 17 | 132) => (src, dst, None),
        L4::Icmp {
            icmp_type,
            code,
            identifier,
        } => {
            let icmp = Icmp {
                id: identifier,
                icmp_type,
                code,
            };
            (0, 0, Some(icmp))
        }
        L4::Ported { .. } | L4::Opaque | L4::Absent => (0, 0, None),
    };
    let tuple = Tuple {
        src: packet.src,
        dst: packet.dst,
        sport,
        dport,
        icmp,
    };
    (packet.protocol, tuple)
}

fn is_error(family: Family, icmp_type: u8) -> bool {
    match family {
        Family::V4 => matches!(icmp_type, 3 | 4 | 5 | 11 | 12),
        Family::V6 => matches!(icmp_type, 1..=4),
    }
}

fn is_asked_or_answered(family: Family, icmp_type: u8) -> bool {
    match family {
        Family::V4 => matches!(icmp_type, 0 | 8 | 13..=16),
        Family::V6 => matches!(icmp_type, 128 | 129),
    }
}

/// A SYN, once both ends have said that they are done.
fn begins_anew(packet: &Packet<'_>, connection: &Connection) -> bool {
    let done =
        |state: &Option<String>| matches!(state.as_deref(), Some("FIN_WAIT_2" | "TIME_WAIT"));
    match packet.l4 {
        L4::Tcp { flags, .. } => {
            flags.has(TcpFlags::SYN)
                && !flags.has(TcpFlags::ACK)
                && done(&connection.state)
                && done(&connection.state_reply)
        }
        L4::Ported { .. } | L4::Icmp { .. } | L4::Opaque | L4::Absent => false,
    }
}

fn may_begin(packet: &Packet<'_>, family: Family) -> bool {
    match packet.l4 {
        L4::Tcp { flags, .. } => {
            let answers = flags.has(TcpFlags::SYN) && flags.has(TcpFlags::ACK);
            !answers && !contradicts_itself(flags)
        }
        L4::Icmp { icmp_type, .. } => match family {
            Family::V4 => matches!(icmp_type, 8 | 13 | 15),
            Family::V6 => icmp_type == 128,
        },
        L4::Ported { .. } | L4::Opaque | L4::Absent => true,
    }
}

fn contradicts_itself(flags: TcpFlags) -> bool {
    const PSH: u8 = 0x08;
    const URG: u8 = 0x20;
    let begins = match flags.has(TcpFlags::SYN) {
        true => flags.has(TcpFlags::RST | TcpFlags::FIN),
        false => !flags.has(TcpFlags::ACK | TcpFlags::RST),
    };
    begins || !flags.has(TcpFlags::ACK) && flags.has(TcpFlags::FIN | PSH | URG)
}

#[cfg(test)]
mod tests;
