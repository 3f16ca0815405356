//! That flooded frames don't leave by a port. OpenFlow 1.0 is the only version that can say it, so this has
//! connections of its own, and the little of 1.0 that it takes.
//! Knows nothing of: flows, what a port is for.
//!
//! ```text
//! port       number 2 | MAC 6 | name 16 | config 4 | state 4 | features 16
//! port mod   number 2 | MAC 6 | config 4 | mask 4 | features 4 | padding 4
//! ```
//! Source: the OpenFlow 1.0 specification; the list of ports in parts is Open vSwitch's extension of it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use crate::codec::message::{ERROR, HELLO, read_error, read_hello};
use crate::codec::{Read, Reader, message};
use crate::connection::{Answer, Connection};
use crate::{ANSWER_TIMEOUT, OfError};

const VERSION_1_0: u8 = 0x01;

const PORT_MOD: u8 = 15;
const STATS_REQUEST: u8 = 16;
const STATS_REPLY: u8 = 17;
const BARRIER_REQUEST: u8 = 18;
const BARRIER_REPLY: u8 = 19;

const STATS_PORTS: u16 = 13;
const MORE: u16 = 1;

const NO_FLOOD: u32 = 1 << 4;

/// What a connection asks counts on from here.
const XID: u32 = 2;

/// A port by its number in OpenFlow 1.0, and its MAC as a check.
pub type FloodPort = (u16, [u8; 6]);

/// Flooded frames don't go out at these (`on`), or do. One that is refused keeps no other from it.
pub fn set_no_flood(socket: &Path, ports: &[FloodPort], on: bool) -> io::Result<()> {
    let mut connection = connect(socket)?;
    let mut request = Vec::new();
    for ((port, mac), xid) in ports.iter().zip(XID..) {
        message(&mut request, VERSION_1_0, PORT_MOD, xid, |out| {
            out.extend(port.to_be_bytes());
            out.extend(mac);
            out.extend((u32::from(on) * NO_FLOOD).to_be_bytes());
            out.extend(NO_FLOOD.to_be_bytes());
            out.extend([0; 8]);
        });
    }
    message(&mut request, VERSION_1_0, BARRIER_REQUEST, XID - 1, |_| ());
    let mut refused: Option<(u32, OfError)> = None;
    connection.exchange(&request, |header, body| match header.kind {
        BARRIER_REPLY => Ok(Answer::Complete),
        ERROR => {
            refused = Some((header.xid, read_error(body)?));
            Ok(Answer::ToCome)
        }
        _unasked => Ok(Answer::ToCome),
    })?;
    refused.map_or(Ok(()), |(xid, error)| {
        let port = ports
            .get(xid.wrapping_sub(XID) as usize)
            .map(|(port, _)| port);
        let what = format!(
            "no-flood of port {}: OpenFlow 1.0 error {}, {}",
            port.map_or_else(|| "?".to_owned(), u16::to_string),
            error.kind,
            error.code
        );
        Err(io::Error::other(what))
    })
}

/// The numbers of the ports where they don't.
pub fn no_flood_ports(socket: &Path) -> io::Result<BTreeSet<u16>> {
    let mut connection = connect(socket)?;
    let mut request = Vec::new();
    message(&mut request, VERSION_1_0, STATS_REQUEST, XID, |out| {
        out.extend(STATS_PORTS.to_be_bytes());
        out.extend([0; 2]);
    });
    let mut ports = BTreeSet::new();
    connection.exchange(&request, |header, body| match header.kind {
        STATS_REPLY if read_part(body, &mut ports)? => Ok(Answer::ToCome),
        STATS_REPLY => Ok(Answer::Complete),
        ERROR => Err(io::Error::other(
            "the switch doesn't tell its ports in OpenFlow 1.0",
        )),
        _unasked => Ok(Answer::ToCome),
    })?;
    Ok(ports)
}

/// Whether more parts follow.
fn read_part(body: &[u8], ports: &mut BTreeSet<u16>) -> Read<bool> {
    let mut from = Reader::new(body, "ports in OpenFlow 1.0");
    if from.u16()? != STATS_PORTS {
        return Err(from.bad());
    }
    let more = from.u16()? & MORE != 0;
    while !from.is_empty() {
        let number = from.u16()?;
        from.skip(22)?;
        let config = from.u32()?;
        from.skip(20)?;
        if config & NO_FLOOD != 0 {
            ports.insert(number);
        }
    }
    Ok(more)
}

fn connect(socket: &Path) -> io::Result<Connection> {
    let mut connection = Connection::open(socket, ANSWER_TIMEOUT)?;
    let mut hello = Vec::new();
    message(&mut hello, VERSION_1_0, HELLO, XID - 1, |_| ());
    connection.exchange(&hello, |header, body| {
        if header.kind != HELLO {
            return Ok(Answer::ToCome);
        }
        if read_hello(header, body)? & 1 << VERSION_1_0 == 0 {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "OpenFlow 1.0 is needed for no-flood, the switch doesn't offer it",
            ));
        }
        Ok(Answer::Complete)
    })?;
    Ok(connection)
}
