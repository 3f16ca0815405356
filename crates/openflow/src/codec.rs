//! OpenFlow's bytes: messages to types and back. Pure.
//!
//! ```text
//! message   version 1 | type 1 | length 2 | xid 4 | body               all numbers in network order
//! ```
//! Reading never panics, and never goes beyond a length that was checked; what is cut short or doesn't fit is an
//! error. Split by what is read: `oxm` fields and matches, `action` actions and instructions, `message` the rest.

use std::io;

pub(crate) mod action;
pub(crate) mod message;
pub(crate) mod oxm;

pub(crate) const VERSION: u8 = 0x05;
pub(crate) const HEADER: usize = 8;
/// Open vSwitch's extensions.
pub(crate) const NICIRA: u32 = 0x0000_2320;

/// What couldn't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

pub(crate) type Read<T> = Result<T, Malformed>;

impl From<Malformed> for io::Error {
    fn from(Malformed(what): Malformed) -> Self {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the switch sent what is not OpenFlow as we know it: {what}"),
        )
    }
}

/// Takes bytes from the front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// Of what it reads; names it in errors.
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(self.bad())?;
        self.rest = rest;
        Ok(taken)
    }

    /// The rest of it is about something else.
    pub(crate) fn part(&mut self, count: usize, what: &'static str) -> Read<Reader<'a>> {
        Ok(Reader::new(self.take(count)?, what))
    }

    pub(crate) fn skip(&mut self, count: usize) -> Read<()> {
        self.take(count).map(|_| ())
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.bad())
    }

    pub(crate) fn u8(&mut self) -> Read<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Read<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn bad(&self) -> Malformed {
        Malformed(self.what)
    }
}

/// A message whose length is written when its body is.
pub(crate) fn message(
    out: &mut Vec<u8>,
    version: u8,
    kind: u8,
    xid: u32,
    body: impl FnOnce(&mut Vec<u8>),
) {
    let at = out.len();
    out.extend([version, kind, 0, 0]);
    out.extend(xid.to_be_bytes());
    body(out);
    write_length(out, at);
}

/// Type and length, then the body, padded to 8 bytes, which count.
pub(crate) fn padded(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend(kind.to_be_bytes());
    out.extend([0; 2]);
    body(out);
    pad(out, at);
    write_length(out, at);
}

/// To a multiple of 8 bytes from `at`.
pub(crate) fn pad(out: &mut Vec<u8>, at: usize) {
    let length = (out.len() - at).next_multiple_of(8);
    out.resize(at + length, 0);
}

/// Of what began at `at`, in the two bytes after its type. More than they can say is a bug of the caller:
/// a flow has far fewer fields and actions.
pub(crate) fn write_length(out: &mut [u8], at: usize) {
    let length = u16::try_from(out.len() - at).expect("a flow fits in a message of 64 KiB");
    out[at + 2..at + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests;
