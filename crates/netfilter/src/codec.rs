//! Netlink messages of the netfilter family: bytes to messages and attributes, and back. Pure.
//!
//! Reading never panics and never goes beyond a length that was checked; what is cut short ends the
//! reading there. Whether something is missing is for the reader of the attributes to say.
//!
//! ```text
//! nlmsghdr   len 4 | type 2 | flags 2 | seq 4 | pid 4
//! nfgenmsg   family 1 | version 1 | resource id 2            type = subsystem << 8 | command
//! attributes len 2 | type 2 | value, padded to 4             values in network order, lengths in ours
//! ```
//! Source: linux/netlink.h, linux/netfilter/nfnetlink.h.

use model::Family;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
/// In an answer: what is listed changed meanwhile.
const NLM_F_DUMP_INTR: u16 = 0x10;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// In an attribute's type: its value is attributes; its value is in network order, which ipset wants
/// to be told.
const NLA_F_NESTED: u16 = 0x8000;
pub(crate) const NLA_F_NET_BYTEORDER: u16 = 0x4000;

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;

const NLMSG_HEADER: usize = 16;
const NFGEN_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;

pub(crate) const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
pub(crate) const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;

pub(crate) fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

pub(crate) fn family_of(number: u8) -> Option<Family> {
    match number {
        AF_INET => Some(Family::V4),
        AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

/// What the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) seq: u32,
    /// What was listed may lack something, or hold it twice.
    pub(crate) interrupted: bool,
    pub(crate) content: Content<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    /// An object: the family it says, and its attributes.
    Object { family: u8, attributes: &'a [u8] },
    /// The end of a list. 0, or the error number that it ended by.
    Done { errno: i32 },
    /// The answer to a request. 0, or an error number.
    Answer { errno: i32 },
    /// Too short to be any of these.
    Cut,
}

/// The messages of one datagram.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let header = rest.get(..NLMSG_HEADER)?;
        let length = u32_ne(header, 0)? as usize;
        let body = rest.get(NLMSG_HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            seq: u32_ne(header, 8)?,
            interrupted: u16_ne(header, 6)? & NLM_F_DUMP_INTR != 0,
            content: content(u16_ne(header, 4)?, body),
        })
    })
}

fn content(kind: u16, body: &[u8]) -> Content<'_> {
    match kind {
        NLMSG_DONE => Content::Done {
            // Kernels before 5.x say nothing there.
            errno: u32_ne(body, 0).map_or(0, errno),
        },
        NLMSG_ERROR => match u32_ne(body, 0) {
            Some(code) => Content::Answer { errno: errno(code) },
            None => Content::Cut,
        },
        _ => match (body.first(), body.get(NFGEN_HEADER..)) {
            (Some(&family), Some(attributes)) => Content::Object { family, attributes },
            _ => Content::Cut,
        },
    }
}

/// Netlink's codes are negated error numbers.
fn errno(code: u32) -> i32 {
    code.cast_signed().saturating_neg()
}

/// The attributes in a row of them: type without its flags, value.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_ne(rest, 0)?);
        let kind = u16_ne(rest, 2)? & !(NLA_F_NESTED | NLA_F_NET_BYTEORDER);
        let value = rest.get(ATTRIBUTE_HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of this type.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

pub(crate) fn u8_value(value: &[u8]) -> Option<u8> {
    value.first().copied()
}

pub(crate) fn u16_value(value: &[u8]) -> Option<u16> {
    value.first_chunk().copied().map(u16::from_be_bytes)
}

pub(crate) fn u32_value(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_be_bytes)
}

/// A string up to its first 0.
pub(crate) fn text_value(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn u16_ne(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?;
    bytes.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_ne(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?;
    bytes.first_chunk().copied().map(u32::from_ne_bytes)
}

/// Requests to send together. Their sequence numbers are their places, from 0.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    bytes: Vec<u8>,
    /// Where the last one begins.
    last_at: usize,
    count: usize,
}

impl Requests {
    pub(crate) fn one(
        command: u16,
        flags: u16,
        family: u8,
        body: impl FnOnce(&mut Attributes),
    ) -> Self {
        let mut requests = Self::default();
        requests.push(command, flags, family, body);
        requests
    }

    pub(crate) fn push(
        &mut self,
        command: u16,
        flags: u16,
        family: u8,
        body: impl FnOnce(&mut Attributes),
    ) {
        let seq = u32::try_from(self.count).expect("a batch is short");
        self.last_at = self.bytes.len();
        self.count += 1;
        header(&mut self.bytes, command, flags, seq);
        self.bytes.extend([family, 0, 0, 0]);
        body(&mut Attributes {
            bytes: &mut self.bytes,
        });
        let length = self.bytes.len() - self.last_at;
        let length = u32::try_from(length).expect("a request is short");
        self.bytes[self.last_at..][..4].copy_from_slice(&length.to_ne_bytes());
    }

    /// To be sent. The last one is answered in any case, the others only if they are refused.
    pub(crate) fn answered_at_the_end(mut self) -> Vec<u8> {
        let flags = &mut self.bytes[self.last_at + 6..][..2];
        let asked = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
        flags.copy_from_slice(&asked.to_ne_bytes());
        self.bytes
    }

    /// To be sent: all of them are done, or none. What is refused as a whole is answered as the first one.
    pub(crate) fn in_one_transaction(self, subsystem: u8) -> Vec<u8> {
        let end = |kind| {
            let mut bytes = Vec::new();
            header(&mut bytes, kind, 0, 0);
            bytes.extend([AF_UNSPEC, 0, 0, subsystem]);
            let length = u32::try_from(bytes.len()).expect("it is short");
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes
        };
        let mut bytes = end(NFNL_MSG_BATCH_BEGIN);
        bytes.extend(self.answered_at_the_end());
        bytes.extend(end(NFNL_MSG_BATCH_END));
        bytes
    }

    /// To be sent as they are.
    pub(crate) fn bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }
}

/// Its length is written when it is known.
fn header(bytes: &mut Vec<u8>, kind: u16, flags: u16, seq: u32) {
    bytes.extend([0; 4]);
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    bytes.extend(seq.to_ne_bytes());
    bytes.extend([0; 4]);
}

/// Where attributes are appended.
pub(crate) struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) {
        self.wrap(kind, |inside| inside.bytes.extend(value));
    }

    /// With the 0 that ends it.
    pub(crate) fn put_text(&mut self, kind: u16, text: &str) {
        self.wrap(kind, |inside| {
            inside.bytes.extend(text.as_bytes());
            inside.bytes.push(0);
        });
    }

    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Attributes)) {
        self.wrap(kind | NLA_F_NESTED, body);
    }

    fn wrap(&mut self, kind: u16, body: impl FnOnce(&mut Attributes)) {
        let at = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        body(self);
        let length = u16::try_from(self.bytes.len() - at).expect("an attribute is short");
        self.bytes[at..][..2].copy_from_slice(&length.to_ne_bytes());
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }
}

#[cfg(test)]
pub(crate) mod tests;
