//! Messages other than what is in a flow.

use super::action::{read_instructions, write_instructions};
use super::oxm::{read_match, write_match};
use super::{HEADER, NICIRA, Read, Reader, VERSION, message};
use crate::{Change, Filter, Flow, FlowStats, Match, OfError, PortDesc, TlvMapping};

pub(crate) const HELLO: u8 = 0;
pub(crate) const ERROR: u8 = 1;
pub(crate) const ECHO_REQUEST: u8 = 2;
pub(crate) const ECHO_REPLY: u8 = 3;
pub(crate) const EXPERIMENTER: u8 = 4;
pub(crate) const FEATURES_REQUEST: u8 = 5;
pub(crate) const FEATURES_REPLY: u8 = 6;
const FLOW_MOD: u8 = 14;
pub(crate) const MULTIPART_REQUEST: u8 = 18;
pub(crate) const MULTIPART_REPLY: u8 = 19;
pub(crate) const BARRIER_REQUEST: u8 = 20;
pub(crate) const BARRIER_REPLY: u8 = 21;
pub(crate) const BUNDLE_CONTROL: u8 = 33;
const BUNDLE_ADD: u8 = 34;

pub(crate) const MULTIPART_FLOW: u16 = 1;
pub(crate) const MULTIPART_PORTS: u16 = 13;
const MORE: u16 = 1;

const FLOW_ADD: u8 = 0;
const FLOW_DELETE: u8 = 3;
const FLOW_DELETE_STRICT: u8 = 4;

const ALL_TABLES: u8 = 0xff;
const ANY: [u8; 4] = [0xff; 4];

const ATOMIC_AND_ORDERED: u16 = 3;

const TLV_TABLE_MOD: u32 = 24;
pub(crate) const TLV_TABLE_REQUEST: u32 = 25;
const TLV_TABLE_REPLY: u32 = 26;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u8,
    pub(crate) kind: u8,
    /// With the header.
    pub(crate) length: u16,
    pub(crate) xid: u32,
}

/// A step of a bundle, as it is asked for. The answer's is one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BundleStep {
    Open = 0,
    Commit = 4,
    Discard = 6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlvStep {
    Add = 0,
    Delete = 1,
}

/// Says just 1.4, also to switches that would go higher.
pub(crate) fn write_hello(out: &mut Vec<u8>, xid: u32) {
    message(out, VERSION, HELLO, xid, |out| {
        out.extend([0, 1, 0, 8, 0, 0, 0, 1 << VERSION])
    });
}

pub(crate) fn write_bundle_step(out: &mut Vec<u8>, xid: u32, bundle: u32, step: BundleStep) {
    message(out, VERSION, BUNDLE_CONTROL, xid, |out| {
        out.extend(bundle.to_be_bytes());
        out.extend((step as u16).to_be_bytes());
        out.extend(ATOMIC_AND_ORDERED.to_be_bytes());
    });
}

pub(crate) fn write_bundled(out: &mut Vec<u8>, xid: u32, bundle: u32, change: &Change) {
    message(out, VERSION, BUNDLE_ADD, xid, |out| {
        out.extend(bundle.to_be_bytes());
        out.extend([0; 2]);
        out.extend(ATOMIC_AND_ORDERED.to_be_bytes());
        write_change(out, xid, change);
    });
}

fn write_change(out: &mut Vec<u8>, xid: u32, change: &Change) {
    message(out, VERSION, FLOW_MOD, xid, |out| match change {
        Change::Add(flow) => {
            write_flow_mod(out, FLOW_ADD, (flow.cookie, 0), flow);
            write_instructions(out, flow);
        }
        Change::Delete {
            table,
            priority,
            matching,
        } => {
            let flow = Flow {
                table: *table,
                priority: *priority,
                matching: matching.clone(),
                ..Flow::default()
            };
            write_flow_mod(out, FLOW_DELETE_STRICT, (0, 0), &flow);
        }
        Change::DeleteAll {
            cookie,
            mask,
            table,
        } => {
            let flow = Flow {
                table: table.unwrap_or(ALL_TABLES),
                ..Flow::default()
            };
            write_flow_mod(out, FLOW_DELETE, (*cookie, *mask), &flow);
        }
    });
}

fn write_flow_mod(out: &mut Vec<u8>, command: u8, cookie: (u64, u64), flow: &Flow) {
    out.extend(cookie.0.to_be_bytes());
    out.extend(cookie.1.to_be_bytes());
    out.extend([flow.table, command]);
    out.extend(flow.idle_timeout_s.to_be_bytes());
    out.extend(flow.hard_timeout_s.to_be_bytes());
    out.extend(flow.priority.to_be_bytes());
    // No buffered packet, any port and any group.
    out.extend([ANY, ANY, ANY].as_flattened());
    // Flags and importance.
    out.extend([0; 4]);
    write_match(out, &flow.matching);
}

pub(crate) fn write_flow_request(out: &mut Vec<u8>, xid: u32, filter: &Filter) {
    write_multipart(out, xid, MULTIPART_FLOW, |out| {
        out.extend([filter.table.unwrap_or(ALL_TABLES), 0, 0, 0]);
        out.extend([ANY, ANY, [0; 4]].as_flattened());
        out.extend(filter.cookie.to_be_bytes());
        out.extend(filter.cookie_mask.to_be_bytes());
        write_match(out, &Match::new());
    });
}

pub(crate) fn write_multipart(
    out: &mut Vec<u8>,
    xid: u32,
    kind: u16,
    body: impl FnOnce(&mut Vec<u8>),
) {
    message(out, VERSION, MULTIPART_REQUEST, xid, |out| {
        out.extend(kind.to_be_bytes());
        out.extend([0; 6]);
        body(out);
    });
}

pub(crate) fn write_experimenter(
    out: &mut Vec<u8>,
    xid: u32,
    subtype: u32,
    body: impl FnOnce(&mut Vec<u8>),
) {
    message(out, VERSION, EXPERIMENTER, xid, |out| {
        out.extend(NICIRA.to_be_bytes());
        out.extend(subtype.to_be_bytes());
        body(out);
    });
}

pub(crate) fn write_tlv_mod(out: &mut Vec<u8>, xid: u32, step: TlvStep, mappings: &[TlvMapping]) {
    write_experimenter(out, xid, TLV_TABLE_MOD, |out| {
        out.extend((step as u16).to_be_bytes());
        out.extend([0; 6]);
        for mapping in mappings {
            out.extend(mapping.class.to_be_bytes());
            out.extend([mapping.kind, mapping.bytes]);
            out.extend(mapping.index.to_be_bytes());
            out.extend([0; 2]);
        }
    });
}

pub(crate) fn read_header(bytes: [u8; HEADER]) -> Read<Header> {
    let mut from = Reader::new(&bytes, "header");
    let header = Header {
        version: from.u8()?,
        kind: from.u8()?,
        length: from.u16()?,
        xid: from.u32()?,
    };
    if usize::from(header.length) < HEADER {
        return Err(from.bad());
    }
    Ok(header)
}

/// The versions a switch offers: by its bitmap, or all up to the one in its header.
pub(crate) fn read_hello(header: Header, body: &[u8]) -> Read<u32> {
    let mut from = Reader::new(body, "hello");
    while !from.is_empty() {
        let (kind, length) = (from.u16()?, usize::from(from.u16()?));
        let mut element = from.part(length.checked_sub(4).ok_or(from.bad())?, "hello")?;
        let padding = length.next_multiple_of(8) - length;
        from.skip(padding.min(from.rest().len()))?;
        if kind == 1 {
            return element.u32();
        }
    }
    Ok(((1_u64 << (u32::from(header.version) + 1).min(32)) - 1) as u32)
}

pub(crate) fn read_error(body: &[u8]) -> Read<OfError> {
    let mut from = Reader::new(body, "error");
    let (kind, code) = (from.u16()?, from.u16()?);
    let experimenter = if kind == 0xffff { from.u32()? } else { 0 };
    Ok(OfError {
        kind,
        code,
        experimenter,
    })
}

pub(crate) fn read_datapath_id(body: &[u8]) -> Read<u64> {
    Reader::new(body, "features").u64()
}

/// What it is a part of, and whether more follow.
pub(crate) fn read_multipart(body: &[u8], kind: u16) -> Read<(Reader<'_>, bool)> {
    let mut from = Reader::new(body, "multipart");
    if from.u16()? != kind {
        return Err(from.bad());
    }
    let more = from.u16()? & MORE != 0;
    from.skip(4)?;
    Ok((from, more))
}

pub(crate) fn read_flows(mut from: Reader, flows: &mut Vec<FlowStats>) -> Read<()> {
    while !from.is_empty() {
        let length = usize::from(from.u16()?);
        let flow = from.part(length.checked_sub(2).ok_or(from.bad())?, "flow")?;
        flows.push(read_flow(flow)?);
    }
    Ok(())
}

fn read_flow(mut from: Reader) -> Read<FlowStats> {
    let table = from.u8()?;
    from.skip(1)?;
    let duration_s = from.u32()?;
    from.skip(4)?;
    let (priority, idle_timeout_s, hard_timeout_s) = (from.u16()?, from.u16()?, from.u16()?);
    // Flags, importance, padding.
    from.skip(6)?;
    let (cookie, packets, bytes) = (from.u64()?, from.u64()?, from.u64()?);
    let matching = read_match(&mut from)?;
    let (actions, goto) = read_instructions(from)?;
    Ok(FlowStats {
        flow: Flow {
            table,
            priority,
            cookie,
            matching,
            actions,
            goto,
            idle_timeout_s,
            hard_timeout_s,
        },
        packets,
        bytes,
        duration_s,
    })
}

pub(crate) fn read_ports(mut from: Reader, ports: &mut Vec<PortDesc>) -> Read<()> {
    const LINK_DOWN: u32 = 1;
    while !from.is_empty() {
        let number = from.u32()?;
        let length = usize::from(from.u16()?);
        let mut port = from.part(length.checked_sub(6).ok_or(from.bad())?, "port")?;
        port.skip(2)?;
        let mac = port.array()?;
        port.skip(2)?;
        let name = text(port.take(16)?);
        port.skip(4)?;
        let link_down = port.u32()? & LINK_DOWN != 0;
        ports.push(PortDesc {
            number,
            name,
            mac,
            link_down,
        });
    }
    Ok(())
}

/// Up to its first 0.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

pub(crate) fn read_tlv_map(body: &[u8]) -> Read<Vec<TlvMapping>> {
    let mut from = Reader::new(body, "TLV map");
    if (from.u32()?, from.u32()?) != (NICIRA, TLV_TABLE_REPLY) {
        return Err(from.bad());
    }
    // How many there may be.
    from.skip(16)?;
    let mut mappings = Vec::new();
    while !from.is_empty() {
        mappings.push(TlvMapping {
            class: from.u16()?,
            kind: from.u8()?,
            bytes: from.u8()?,
            index: from.u16()?,
        });
        from.skip(2)?;
    }
    Ok(mappings)
}
