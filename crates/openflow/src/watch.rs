//! Whether anybody has changed a flow, without reading all of them.
//!
//! ```text
//! request   monitor 4 | port 4 | group 4 | flags 2 | table 1 | command 1 | match
//! update    length 2 | event 2 | more, which nobody reads here
//! ```
//! Source: the OpenFlow 1.4 specification, flow monitoring. Open vSwitch has it since 2.16.

use std::io;
use std::path::Path;

use crate::codec::message::{ECHO_REQUEST, ERROR, MULTIPART_REPLY, read_error, write_multipart};
use crate::codec::oxm::write_match;
use crate::codec::{VERSION, message};
use crate::connection::Answer;
use crate::{Match, OfError, Switch};

const MULTIPART_MONITOR: u16 = 16;

const ANY: u32 = 0xffff_ffff;
const ALL_TABLES: u8 = 0xff;
const ADD: u8 = 0;
/// Flows that come, go and change.
const CHANGES: u16 = 2 | 4 | 8;

/// Behind the type and the flags of a part of a list.
const UPDATES_AT: usize = 8;

/// A connection of its own: the switch says on it what changes, whoever changes it, by `Switch` here too.
#[derive(Debug)]
pub struct FlowWatch {
    switch: Switch,
}

impl FlowWatch {
    /// What changes from now on. An error with `OfError` inside: the switch can't.
    pub fn begin(socket: &Path) -> io::Result<Self> {
        let mut watch = Self {
            switch: Switch::connect(socket)?,
        };
        watch.exchange(|out, xid| {
            write_multipart(out, xid, MULTIPART_MONITOR, |out| {
                out.extend([0; 4]);
                out.extend(ANY.to_be_bytes());
                out.extend(ANY.to_be_bytes());
                out.extend(CHANGES.to_be_bytes());
                out.extend([ALL_TABLES, ADD]);
                write_match(out, &Match::new());
            });
        })?;
        Ok(watch)
    }

    /// Whether something has since this was asked last. More often than once in two minutes, or the switch hangs up.
    pub fn changed(&mut self) -> io::Result<bool> {
        self.exchange(|out, xid| message(out, VERSION, ECHO_REQUEST, xid, |_| ()))
    }

    /// Whether updates came before the answer.
    fn exchange(&mut self, write: impl FnOnce(&mut Vec<u8>, u32)) -> io::Result<bool> {
        let xid = self.switch.xids(1);
        let mut request = Vec::new();
        write(&mut request, xid);
        let mut changed = false;
        let mut refused: Option<OfError> = None;
        self.switch.connection.exchange(&request, |header, body| {
            if header.kind == MULTIPART_REPLY && body.len() > UPDATES_AT {
                changed = true;
            }
            if header.xid != xid {
                return Ok(Answer::ToCome);
            }
            if header.kind == ERROR {
                refused = Some(read_error(body)?);
            }
            Ok(Answer::Complete)
        })?;
        refused.map_or(Ok(changed), |error| Err(error.into()))
    }
}
