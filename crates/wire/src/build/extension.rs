//! IPv6 extension headers.

use super::bytes::Put;

/// An IPv6 extension header. The next-header byte is filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Options, padded with PadN to a multiple of 8 bytes.
    HopByHop(Vec<u8>),
    Destination(Vec<u8>),
    Routing {
        kind: u8,
        segments_left: u8,
        data: Vec<u8>,
    },
    Fragment {
        id: u32,
        offset: u32,
        more: bool,
    },
    /// AH with this integrity value.
    Authentication(Vec<u8>),
    /// Any header as it is, except for its first byte.
    Raw {
        kind: u8,
        bytes: Vec<u8>,
    },
}

impl Extension {
    pub(super) fn kind(&self) -> u8 {
        match self {
            Extension::HopByHop(_) => 0,
            Extension::Routing { .. } => 43,
            Extension::Fragment { .. } => 44,
            Extension::Authentication(_) => 51,
            Extension::Destination(_) => 60,
            Extension::Raw { kind, .. } => *kind,
        }
    }

    pub(super) fn write(&self, next: u8, out: &mut Vec<u8>) {
        match self {
            Extension::HopByHop(options) | Extension::Destination(options) => {
                let length = (2 + options.len()).next_multiple_of(8);
                out.put(&[next, (length / 8 - 1) as u8]);
                out.put(options);
                match length - 2 - options.len() {
                    0 => {}
                    1 => out.put(&[0]),
                    n => {
                        out.put(&[1, (n - 2) as u8]);
                        out.put(&vec![0; n - 2]);
                    }
                }
            }
            Extension::Routing {
                kind,
                segments_left,
                data,
            } => {
                let length = (4 + data.len()).next_multiple_of(8);
                out.put(&[next, (length / 8 - 1) as u8, *kind, *segments_left]);
                out.put(data);
                out.put(&vec![0; length - 4 - data.len()]);
            }
            Extension::Fragment { id, offset, more } => {
                out.put(&[next, 0]);
                out.put16(((offset / 8) << 3) as u16 | u16::from(*more));
                out.put32(*id);
            }
            Extension::Authentication(icv) => {
                let length = (12 + icv.len()).next_multiple_of(8);
                out.put(&[next, (length / 4 - 2) as u8, 0, 0]);
                out.put32(1);
                out.put32(1);
                out.put(icv);
                out.put(&vec![0; length - 12 - icv.len()]);
            }
            Extension::Raw { bytes, .. } => {
                let start = out.len();
                out.put(bytes);
                if let Some(first) = out.get_mut(start) {
                    *first = next;
                }
            }
        }
    }
}
