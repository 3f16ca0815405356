//! Elements of nftables' sets and maps in the bridge family, written many at once, or asked for one.
//!
//! Place on the line: execute. What they mean, and that the sets are there, is the caller's business.
//!
//! Why not `nft`: a process takes longer than the kernel's own work on a hundred elements, and before it
//! reads the index of a device it lists all devices of the host.
//!
//! ```text
//! key    a field, or several one behind the other, each padded to 4 bytes
//! last   of a set of ranges (which has several fields): the key with the end of each range
//! value  of a map whose values are marks
//! ```
//! Source: linux/netfilter/nf_tables.h; net/netfilter/nf_tables_api.c.

use crate::Error;
use crate::codec::{AF_BRIDGE, Attributes, NLM_F_CREATE, Requests};
use crate::socket::Socket;
use libc::ENOENT;
use std::time::Duration;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    pub key: Vec<u8>,
    pub last: Option<Vec<u8>>,
    pub value: Option<u32>,
    pub timeout: Option<Duration>,
}

/// Changes that are made at once, in the order in which they were asked for, or not at all.
#[derive(Debug)]
pub struct Transaction {
    table: String,
    requests: Requests,
    /// What each request changes.
    sets: Vec<String>,
}

impl Transaction {
    /// Of sets of this table.
    pub fn in_bridge_table(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            requests: Requests::default(),
            sets: Vec::new(),
        }
    }

    /// Those that are there already stay as they are. A map's may not lead elsewhere.
    pub fn add(&mut self, set: &str, elements: &[Element]) {
        self.push(NFT_MSG_NEWSETELEM, NLM_F_CREATE, set, elements);
    }

    /// All of them have to be there.
    pub fn delete(&mut self, set: &str, elements: &[Element]) {
        self.push(NFT_MSG_DELSETELEM, 0, set, elements);
    }

    /// After an error nothing has changed.
    pub fn commit(self) -> Result<(), Error> {
        let Self {
            table,
            requests,
            sets,
        } = self;
        if sets.is_empty() {
            return Ok(());
        }
        let tried = |place: usize| match sets.get(place) {
            Some(set) => format!("changing the set {set} of the bridge table {table}"),
            None => format!("changing the bridge table {table}"),
        };
        let mut socket = Socket::open().map_err(|e| Error::new(tried(usize::MAX), e))?;
        let done = socket.execute_as_one(requests, NFNL_SUBSYS_NFTABLES);
        done.map_err(|(place, error)| Error::new(tried(place), error))
    }

    fn push(&mut self, command: u16, flags: u16, set: &str, elements: &[Element]) {
        for some in elements.chunks(AT_ONCE) {
            self.sets.push(set.to_owned());
            self.requests.push(command, flags, AF_BRIDGE, |body| {
                put_list(body, &self.table, set, some);
            });
        }
    }
}

/// Whether a set of a table of the bridge family has this element; a set of ranges, one that this is in.
pub fn is_there(table: &str, set: &str, element: &Element) -> Result<bool, Error> {
    let question = Requests::one(NFT_MSG_GETSETELEM, 0, AF_BRIDGE, |body| {
        put_list(body, table, set, std::slice::from_ref(element));
    });
    let asked = Socket::open().and_then(|mut socket| socket.ask(question, |_, _| Some(())));
    match asked {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(ENOENT) => Ok(false),
        Err(error) => Err(Error::new(
            format!("asking the set {set} of the bridge table {table}"),
            error,
        )),
    }
}

fn put_list(body: &mut Attributes, table: &str, set: &str, elements: &[Element]) {
    body.put_text(NFTA_SET_ELEM_LIST_TABLE, table);
    body.put_text(NFTA_SET_ELEM_LIST_SET, set);
    body.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
        for element in elements {
            list.nest(NFTA_LIST_ELEM, |body| put(body, element));
        }
    });
}

fn put(body: &mut Attributes, element: &Element) {
    body.nest(NFTA_SET_ELEM_KEY, |data| {
        data.put(NFTA_DATA_VALUE, &element.key)
    });
    if let Some(last) = &element.last {
        body.nest(NFTA_SET_ELEM_KEY_END, |data| {
            data.put(NFTA_DATA_VALUE, last)
        });
    }
    if let Some(value) = element.value {
        // Marks are in the machine's order.
        body.nest(NFTA_SET_ELEM_DATA, |data| {
            data.put(NFTA_DATA_VALUE, &value.to_ne_bytes())
        });
    }
    if let Some(timeout) = element.timeout {
        let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        body.put(NFTA_SET_ELEM_TIMEOUT, &milliseconds.to_be_bytes());
    }
}

/// Their attributes are inside of one, which can't be longer than 64 KiB.
const AT_ONCE: usize = 256;

const NFNL_SUBSYS_NFTABLES: u8 = 10;
const NFT_MSG_NEWSETELEM: u16 = 10 << 8 | 12;
const NFT_MSG_GETSETELEM: u16 = 10 << 8 | 13;
const NFT_MSG_DELSETELEM: u16 = 10 << 8 | 14;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
const NFTA_SET_ELEM_KEY_END: u16 = 10;
const NFTA_DATA_VALUE: u16 = 1;
