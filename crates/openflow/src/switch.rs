//! One standing connection to a switch, and what is asked over it.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::codec::message::{
    BARRIER_REPLY, BARRIER_REQUEST, BundleStep, ECHO_REPLY, ECHO_REQUEST, ERROR, EXPERIMENTER,
    FEATURES_REPLY, FEATURES_REQUEST, HELLO, MULTIPART_FLOW, MULTIPART_PORTS, MULTIPART_REPLY,
    TLV_TABLE_REQUEST, TlvStep, read_datapath_id, read_error, read_flows, read_hello,
    read_multipart, read_ports, read_tlv_map, write_bundle_step, write_bundled, write_experimenter,
    write_flow_request, write_hello, write_multipart, write_tlv_mod,
};
use crate::codec::{Read, Reader, VERSION, message};
use crate::connection::{Answer, Connection};
use crate::{Change, Filter, FlowStats, OfError, PortDesc, Refused, TlvMapping};

/// Blocking. After an error of the connection (not a refusal) all else fails, too: connect again.
///
/// After a minute of silence Open vSwitch asks whether we live, and only a call here answers: without one it
/// hangs up another minute later. So `echo` at least once a minute.
#[derive(Debug)]
pub struct Switch {
    pub(crate) connection: Connection,
    datapath_id: u64,
    next_xid: u32,
    next_bundle: u32,
}

/// How long the switch may say nothing.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

impl Switch {
    /// To the socket that Open vSwitch calls `<bridge>.mgmt`.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let mut switch = Self {
            connection: Connection::open(socket, ANSWER_TIMEOUT)?,
            datapath_id: 0,
            next_xid: 1,
            next_bundle: 1,
        };
        switch.greet()?;
        let request = |out: &mut _, xid| message(out, VERSION, FEATURES_REQUEST, xid, |_| ());
        switch.datapath_id = switch.ask(FEATURES_REPLY, request, read_datapath_id)?;
        Ok(switch)
    }

    pub fn datapath_id(&self) -> u64 {
        self.datapath_id
    }

    /// One bundle: all or nothing, in this order.
    pub fn change(&mut self, changes: &[Change]) -> Result<(), Refused> {
        if changes.is_empty() {
            return Ok(());
        }
        let bundle = self.next_bundle;
        self.next_bundle = bundle.wrapping_add(1);
        let count = u32::try_from(changes.len()).expect("changes have less than 2^32 places");
        let first = self.xids(count + 3);
        let (filled, end) = (first + count + 1, first + count + 2);

        let mut request = Vec::new();
        write_bundle_step(&mut request, first, bundle, BundleStep::Open);
        for (xid, change) in (first + 1..).zip(changes) {
            write_bundled(&mut request, xid, bundle, change);
        }
        message(&mut request, VERSION, BARRIER_REQUEST, filled, |_| ());
        let refused = self.first_refusal(&request, first, filled)?;

        // A commit would make all changes but the refused ones.
        let step = match refused {
            Some(_) => BundleStep::Discard,
            None => BundleStep::Commit,
        };
        request.clear();
        write_bundle_step(&mut request, end, bundle, step);
        let failed = self.first_refusal(&request, first, end)?;
        match refused.or(failed) {
            Some((place, error)) => Err(refusal(changes, place, error)),
            None => Ok(()),
        }
    }

    pub fn flows(&mut self, filter: &Filter) -> io::Result<Vec<FlowStats>> {
        let request = |out: &mut _, xid| write_flow_request(out, xid, filter);
        self.collect(MULTIPART_FLOW, request, read_flows)
    }

    /// What was asked before is done when this returns.
    pub fn barrier(&mut self) -> io::Result<()> {
        let request = |out: &mut _, xid| message(out, VERSION, BARRIER_REQUEST, xid, |_| ());
        self.ask(BARRIER_REPLY, request, |_| Ok(()))
    }

    /// Without those that Open vSwitch holds in reserve, with the bridge's own.
    pub fn ports(&mut self) -> io::Result<Vec<PortDesc>> {
        let request = |out: &mut _, xid| write_multipart(out, xid, MULTIPART_PORTS, |_| ());
        self.collect(MULTIPART_PORTS, request, read_ports)
    }

    pub fn tlv_map(&mut self) -> io::Result<Vec<TlvMapping>> {
        let request = |out: &mut _, xid| write_experimenter(out, xid, TLV_TABLE_REQUEST, |_| ());
        self.ask(EXPERIMENTER, request, read_tlv_map)
    }

    /// All of them, or an error (`OfError` inside) and none.
    pub fn add_tlv(&mut self, mappings: &[TlvMapping]) -> io::Result<()> {
        self.change_tlv(TlvStep::Add, mappings)
    }

    /// The switch refuses to take away what flows use (NXTTMFC_INVALID_TLV_DEL), and for a moment what deleted
    /// flows did.
    pub fn delete_tlv(&mut self, mappings: &[TlvMapping]) -> io::Result<()> {
        self.change_tlv(TlvStep::Delete, mappings)
    }

    /// Whether the connection still lives.
    pub fn echo(&mut self) -> io::Result<()> {
        let request = |out: &mut _, xid| message(out, VERSION, ECHO_REQUEST, xid, |_| ());
        self.ask(ECHO_REPLY, request, |_| Ok(()))
    }

    fn greet(&mut self) -> io::Result<()> {
        let mut request = Vec::new();
        write_hello(&mut request, self.xids(1));
        self.connection.exchange(&request, |header, body| {
            if header.kind != HELLO {
                return Ok(Answer::ToCome);
            }
            let offered = read_hello(header, body)?;
            if offered & 1 << VERSION == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!(
                        "OpenFlow 1.4 is needed, the switch offers {}",
                        versions(offered)
                    ),
                ));
            }
            Ok(Answer::Complete)
        })
    }

    fn change_tlv(&mut self, step: TlvStep, mappings: &[TlvMapping]) -> io::Result<()> {
        let first = self.xids(2);
        let mut request = Vec::new();
        write_tlv_mod(&mut request, first, step, mappings);
        message(&mut request, VERSION, BARRIER_REQUEST, first + 1, |_| ());
        match self.first_refusal(&request, first, first + 1)? {
            Some((_, error)) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// One request that is answered by one message of this kind.
    fn ask<T>(
        &mut self,
        kind: u8,
        write: impl FnOnce(&mut Vec<u8>, u32),
        read: impl Fn(&[u8]) -> Read<T>,
    ) -> io::Result<T> {
        let xid = self.xids(1);
        let mut request = Vec::new();
        write(&mut request, xid);
        let mut answer = None;
        self.connection.exchange(&request, |header, body| {
            if header.xid != xid {
                return Ok(Answer::ToCome);
            }
            if header.kind == kind {
                answer = Some(Ok(read(body)?));
            } else if header.kind == ERROR {
                answer = Some(Err(read_error(body)?));
            }
            Ok(complete_if(answer.is_some()))
        })?;
        Ok(answer.expect("an exchange ends with its answer")?)
    }

    /// One request that is answered by a list in parts.
    fn collect<T>(
        &mut self,
        kind: u16,
        write: impl FnOnce(&mut Vec<u8>, u32),
        read: impl Fn(Reader, &mut Vec<T>) -> Read<()>,
    ) -> io::Result<Vec<T>> {
        let xid = self.xids(1);
        let mut request = Vec::new();
        write(&mut request, xid);
        let mut list = Vec::new();
        let mut refused = None;
        self.connection.exchange(&request, |header, body| {
            if header.xid != xid {
                return Ok(Answer::ToCome);
            }
            if header.kind == ERROR {
                refused = Some(read_error(body)?);
                return Ok(Answer::Complete);
            }
            if header.kind != MULTIPART_REPLY {
                return Ok(Answer::ToCome);
            }
            let (part, more) = read_multipart(body, kind)?;
            read(part, &mut list)?;
            Ok(complete_if(!more))
        })?;
        refused.map_or(Ok(list), |error| Err(error.into()))
    }

    /// Sends messages, of which the last one is answered in any case and the others only if they are
    /// refused. Gives the place of the first refused one, by the distance of its xid from `first`.
    fn first_refusal(
        &mut self,
        request: &[u8],
        first: u32,
        last: u32,
    ) -> io::Result<Option<(usize, OfError)>> {
        let mut refused = None;
        self.connection.exchange(request, |header, body| {
            if !(first..=last).contains(&header.xid) {
                return Ok(Answer::ToCome);
            }
            if header.kind == ERROR && refused.is_none() {
                refused = Some(((header.xid - first) as usize, read_error(body)?));
            }
            Ok(complete_if(header.xid == last))
        })?;
        Ok(refused)
    }

    /// The first of so many in a row.
    pub(crate) fn xids(&mut self, count: u32) -> u32 {
        let first = match self.next_xid.checked_add(count) {
            Some(_) => self.next_xid,
            None => 1,
        };
        self.next_xid = first + count;
        first
    }
}

fn complete_if(complete: bool) -> Answer {
    if complete {
        Answer::Complete
    } else {
        Answer::ToCome
    }
}

/// The first place is that of the bundle's opening, then the changes come.
fn refusal(changes: &[Change], place: usize, error: OfError) -> Refused {
    let index = place.checked_sub(1);
    match index.and_then(|index| Some((index, changes.get(index)?))) {
        Some((index, change)) => Refused::Change {
            index,
            change: change.to_string(),
            error,
        },
        None => Refused::Bundle { error },
    }
}

/// The version byte is one more than what comes after the dot.
fn versions(offered: u32) -> String {
    let names: Vec<_> = (1..32)
        .filter(|version| offered & 1 << version != 0)
        .map(|version| format!("1.{}", version - 1))
        .collect();
    names.join(", ")
}
