//! Conntrack entries and requests about them as netlink attributes. Pure.
//!
//! ```text
//! TUPLE_ORIG, TUPLE_REPLY = { IP = { V4_SRC, V4_DST | V6_SRC, V6_DST },
//!                             PROTO = { NUM, SRC_PORT, DST_PORT | ICMP_ID, _TYPE, _CODE | ICMPV6_... },
//!                             ZONE }                 the zone, if it is of this direction alone
//! STATUS, TIMEOUT, MARK, ID 4, ZONE 2
//! PROTOINFO = { TCP = { STATE, WSCALE_..., FLAGS_... } | SCTP = { STATE, VTAG_... } }
//! ```

use super::entry::{Entry, Sctp, State, Status, Tcp, TcpOptions};
use super::tuple::{Side, Tuple, TupleL4};
use super::{Change, Filter};
use crate::codec::{
    AF_UNSPEC, Attributes, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Requests, attributes,
    family_number, family_of, find, u8_value, u16_value, u32_value,
};
use model::Family;
use std::net::IpAddr;

const NFNL_SUBSYS_CTNETLINK: u16 = 1 << 8;
const CT_NEW: u16 = NFNL_SUBSYS_CTNETLINK;
const CT_GET: u16 = NFNL_SUBSYS_CTNETLINK | 1;
const CT_DELETE: u16 = NFNL_SUBSYS_CTNETLINK | 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
const CTA_MARK: u16 = 8;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_MARK_MASK: u16 = 21;

const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;

const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;

const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// The identifier; type and code follow it.
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMPV6_ID: u16 = 7;

const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_SCTP: u16 = 3;

const TCP_STATE: u16 = 1;
const TCP_WSCALE_ORIGINAL: u16 = 2;
const TCP_WSCALE_REPLY: u16 = 3;
const TCP_FLAGS_ORIGINAL: u16 = 4;
const TCP_FLAGS_REPLY: u16 = 5;

const SCTP_STATE: u16 = 1;
const SCTP_VTAG_ORIGINAL: u16 = 2;
const SCTP_VTAG_REPLY: u16 = 3;

/// `None`: not what the kernel's headers promise.
pub(super) fn entry(family: u8, bytes: &[u8]) -> Option<Entry> {
    let family = family_of(family)?;
    let original = SidedTuple::read(family, find(bytes, CTA_TUPLE_ORIG)?)?;
    let reply = SidedTuple::read(family, find(bytes, CTA_TUPLE_REPLY)?)?;
    let mut entry = Entry {
        protocol: original.protocol,
        original: original.tuple,
        reply: reply.tuple,
        zone: 0,
        zone_only: None,
        mark: 0,
        status: Status(0),
        timeout_s: 0,
        state: State::Stateless,
        id: None,
    };
    for (side, zone) in [(Side::Original, original.zone), (Side::Reply, reply.zone)] {
        if let Some(zone) = zone {
            entry.zone = zone;
            entry.zone_only = Some(side);
        }
    }
    for (kind, value) in attributes(bytes) {
        match kind {
            CTA_STATUS => entry.status = Status(u32_value(value)?),
            CTA_TIMEOUT => entry.timeout_s = u32_value(value)?,
            CTA_MARK => entry.mark = u32_value(value)?,
            CTA_ID => entry.id = Some(u32_value(value)?),
            CTA_ZONE => entry.zone = u16_value(value)?,
            CTA_PROTOINFO => entry.state = state(value)?,
            _ => {}
        }
    }
    Some(entry)
}

struct SidedTuple {
    protocol: u8,
    tuple: Tuple,
    zone: Option<u16>,
}

impl SidedTuple {
    fn read(family: Family, bytes: &[u8]) -> Option<Self> {
        let ip = find(bytes, CTA_TUPLE_IP)?;
        let proto = find(bytes, CTA_TUPLE_PROTO)?;
        let (src, dst) = match family {
            Family::V4 => (v4(find(ip, CTA_IP_V4_SRC)?)?, v4(find(ip, CTA_IP_V4_DST)?)?),
            Family::V6 => (v6(find(ip, CTA_IP_V6_SRC)?)?, v6(find(ip, CTA_IP_V6_DST)?)?),
        };
        let zone = match find(bytes, CTA_TUPLE_ZONE) {
            Some(zone) => Some(u16_value(zone)?),
            None => None,
        };
        Some(Self {
            protocol: u8_value(find(proto, CTA_PROTO_NUM)?)?,
            tuple: Tuple {
                src,
                dst,
                l4: l4(family, proto)?,
            },
            zone,
        })
    }
}

fn l4(family: Family, proto: &[u8]) -> Option<TupleL4> {
    let id_kind = icmp_id(family);
    if let Some(src) = find(proto, CTA_PROTO_SRC_PORT) {
        return Some(TupleL4::Ports {
            src: u16_value(src)?,
            dst: u16_value(find(proto, CTA_PROTO_DST_PORT)?)?,
        });
    }
    if let Some(id) = find(proto, id_kind) {
        return Some(TupleL4::Icmp {
            id: u16_value(id)?,
            icmp_type: u8_value(find(proto, id_kind + 1)?)?,
            code: u8_value(find(proto, id_kind + 2)?)?,
        });
    }
    Some(TupleL4::Nothing)
}

fn icmp_id(family: Family) -> u16 {
    match family {
        Family::V4 => CTA_PROTO_ICMP_ID,
        Family::V6 => CTA_PROTO_ICMPV6_ID,
    }
}

fn v4(value: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(value).ok().map(IpAddr::from)
}

fn v6(value: &[u8]) -> Option<IpAddr> {
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}

fn state(bytes: &[u8]) -> Option<State> {
    if let Some(tcp) = find(bytes, CTA_PROTOINFO_TCP) {
        let byte = |kind| match find(tcp, kind) {
            // Not said of an entry that is about to go.
            None => Some(0),
            Some(value) => u8_value(value),
        };
        return Some(State::Tcp(Tcp {
            state: u8_value(find(tcp, TCP_STATE)?)?,
            original: TcpOptions {
                window_scale: byte(TCP_WSCALE_ORIGINAL)?,
                flags: byte(TCP_FLAGS_ORIGINAL)?,
            },
            reply: TcpOptions {
                window_scale: byte(TCP_WSCALE_REPLY)?,
                flags: byte(TCP_FLAGS_REPLY)?,
            },
        }));
    }
    if let Some(sctp) = find(bytes, CTA_PROTOINFO_SCTP) {
        return Some(State::Sctp(Sctp {
            state: u8_value(find(sctp, SCTP_STATE)?)?,
            original_tag: u32_value(find(sctp, SCTP_VTAG_ORIGINAL)?)?,
            reply_tag: u32_value(find(sctp, SCTP_VTAG_REPLY)?)?,
        }));
    }
    Some(State::Stateless)
}

pub(super) fn listing(filter: &Filter) -> Requests {
    let family = filter.family.map_or(AF_UNSPEC, family_number);
    Requests::one(CT_GET, NLM_F_DUMP, family, |body| {
        if let Some(zone) = filter.zone {
            body.put(CTA_ZONE, &zone.to_be_bytes());
        }
        if let Some(mark) = filter.mark {
            // The kernel compares all of the value with what the mask leaves.
            body.put(CTA_MARK, &(mark.value & mark.mask).to_be_bytes());
            body.put(CTA_MARK_MASK, &mark.mask.to_be_bytes());
        }
    })
}

pub(super) fn change(requests: &mut Requests, change: &Change) {
    let (Change::Create(of)
    | Change::Delete(of)
    | Change::Timeout { of, .. }
    | Change::Mark { of, .. }) = change;
    let (command, flags) = match change {
        Change::Create(_) => (CT_NEW, NLM_F_CREATE | NLM_F_EXCL),
        Change::Delete(_) => (CT_DELETE, 0),
        Change::Timeout { .. } | Change::Mark { .. } => (CT_NEW, 0),
    };
    requests.push(command, flags, family_number(of.family()), |body| {
        put_tuple(body, of, Side::Original);
        if of.zone_only.is_none() {
            body.put(CTA_ZONE, &of.zone.to_be_bytes());
        }
        match change {
            Change::Create(_) => put_entry(body, of),
            Change::Delete(_) => {
                if let Some(id) = of.id {
                    body.put(CTA_ID, &id.to_be_bytes());
                }
            }
            Change::Timeout { seconds, .. } => body.put(CTA_TIMEOUT, &seconds.to_be_bytes()),
            Change::Mark { mark, .. } => {
                // The kernel flips the value's bits in what the mask leaves.
                body.put(CTA_MARK, &(mark.value & mark.mask).to_be_bytes());
                body.put(CTA_MARK_MASK, &mark.mask.to_be_bytes());
            }
        }
    });
}

fn put_tuple(body: &mut Attributes, entry: &Entry, side: Side) {
    let (kind, tuple) = match side {
        Side::Original => (CTA_TUPLE_ORIG, &entry.original),
        Side::Reply => (CTA_TUPLE_REPLY, &entry.reply),
    };
    body.nest(kind, |body| {
        body.nest(CTA_TUPLE_IP, |body| match (tuple.src, tuple.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                body.put(CTA_IP_V4_SRC, &src.octets());
                body.put(CTA_IP_V4_DST, &dst.octets());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                body.put(CTA_IP_V6_SRC, &src.octets());
                body.put(CTA_IP_V6_DST, &dst.octets());
            }
            // Nobody's tuple. The kernel refuses it for lack of addresses.
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {}
        });
        body.nest(CTA_TUPLE_PROTO, |body| {
            body.put(CTA_PROTO_NUM, &[entry.protocol]);
            match tuple.l4 {
                TupleL4::Ports { src, dst } => {
                    body.put(CTA_PROTO_SRC_PORT, &src.to_be_bytes());
                    body.put(CTA_PROTO_DST_PORT, &dst.to_be_bytes());
                }
                TupleL4::Icmp {
                    icmp_type,
                    code,
                    id,
                } => {
                    let id_kind = icmp_id(entry.family());
                    body.put(id_kind, &id.to_be_bytes());
                    body.put(id_kind + 1, &[icmp_type]);
                    body.put(id_kind + 2, &[code]);
                }
                TupleL4::Nothing => {}
            }
        });
        if entry.zone_only == Some(side) {
            body.put(CTA_TUPLE_ZONE, &entry.zone.to_be_bytes());
        }
    });
}

/// What a new entry needs besides its original tuple and its zone.
fn put_entry(body: &mut Attributes, entry: &Entry) {
    put_tuple(body, entry, Side::Reply);
    body.put(CTA_TIMEOUT, &entry.timeout_s.to_be_bytes());
    body.put(CTA_MARK, &entry.mark.to_be_bytes());
    // The other bits are the kernel's own matter; it refuses an entry that isn't confirmed.
    let history = entry.status.0 & (Status::SEEN_REPLY.0 | Status::ASSURED.0);
    body.put(CTA_STATUS, &(history | Status::CONFIRMED.0).to_be_bytes());
    match entry.state {
        State::Tcp(Tcp {
            state,
            original,
            reply,
        }) => body.nest(CTA_PROTOINFO, |body| {
            body.nest(CTA_PROTOINFO_TCP, |body| {
                body.put(TCP_STATE, &[state]);
                body.put(TCP_WSCALE_ORIGINAL, &[original.window_scale]);
                body.put(TCP_WSCALE_REPLY, &[reply.window_scale]);
                body.put(TCP_FLAGS_ORIGINAL, &tcp_flags(original));
                body.put(TCP_FLAGS_REPLY, &tcp_flags(reply));
            });
        }),
        State::Sctp(Sctp {
            state,
            original_tag,
            reply_tag,
        }) => body.nest(CTA_PROTOINFO, |body| {
            body.nest(CTA_PROTOINFO_SCTP, |body| {
                body.put(SCTP_STATE, &[state]);
                body.put(SCTP_VTAG_ORIGINAL, &original_tag.to_be_bytes());
                body.put(SCTP_VTAG_REPLY, &reply_tag.to_be_bytes());
            });
        }),
        State::Stateless => {}
    }
}

/// The flags, and which of them are meant.
fn tcp_flags(options: TcpOptions) -> [u8; 2] {
    let mask = TcpOptions::TRANSFERABLE;
    [options.flags & mask, mask]
}

#[cfg(test)]
mod tests;
