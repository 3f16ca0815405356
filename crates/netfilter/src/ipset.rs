//! The ipsets of this namespace and how full they are, without their elements; and changes to them.
//!
//! Place on the line: read back, and execute. The elements are read where the set is to be changed.
//!
//! The kernel has no list by a name's beginning: all headers are fetched, one datagram each, and sorted
//! out here. For a hash it counts the elements at every asking (those not expired), which takes time
//! by its buckets; a set is made with 1,024 of them unless told otherwise.
//!
//! Source: linux/netfilter/ipset/ip_set.h; net/netfilter/ipset/ip_set_core.c, ip_set_hash_gen.h.

use crate::Error;
use crate::codec::{
    AF_UNSPEC, NLA_F_NET_BYTEORDER, NLM_F_DUMP, Requests, family_of, find, text_value, u8_value,
    u32_value,
};
use crate::socket::list;
use model::Family;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Header {
    pub name: String,
    /// `hash:ip` and the like.
    pub type_name: String,
    /// `None`: the set isn't about addresses (`bitmap:port`, `list:set`).
    pub family: Option<Family>,
    /// `None`: the kernel doesn't tell (before 4.9). In a bitmap with timeouts, expired ones count until
    /// the kernel comes to clear them.
    pub elements: Option<u32>,
    /// By rules, and by sets of sets.
    pub references: u32,
}

/// The sets whose names begin so, in the kernel's order.
pub fn headers(prefix: &str) -> Result<Vec<Header>, Error> {
    let mut headers = Vec::new();
    let listed = list(listing(None), |_, attributes| {
        let Some(header) = read_header(attributes) else {
            return false;
        };
        if header.name.starts_with(prefix) {
            headers.push(header);
        }
        true
    });
    match listed {
        Ok(()) => Ok(headers),
        Err(e) => Err(Error::new("listing the headers of ipsets", e)),
    }
}

mod change;

pub use change::{Behind, Carries, Changes, Element, Kind, Said};

/// One set, at about the cost of looking for its name. `None`: there is none.
pub fn header(name: &str) -> Result<Option<Header>, Error> {
    let mut found = None;
    let listed = list(listing(Some(name)), |_, attributes| {
        found = read_header(attributes);
        found.is_some()
    });
    match listed {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(Error::new(
            format!("asking for the header of the ipset {name}"),
            e,
        )),
        Ok(()) => Ok(found),
    }
}

const IPSET_CMD_LIST: u16 = 6 << 8 | 7;

/// Spoken by every kernel since 3.1; 7 differs in nothing that is used here.
const PROTOCOL: u8 = 6;
const IPSET_FLAG_LIST_HEADER: u32 = 1 << 2;

const IPSET_ATTR_PROTOCOL: u16 = 1;
const IPSET_ATTR_SETNAME: u16 = 2;
const IPSET_ATTR_TYPENAME: u16 = 3;
const IPSET_ATTR_FAMILY: u16 = 5;
const IPSET_ATTR_FLAGS: u16 = 6;
const IPSET_ATTR_DATA: u16 = 7;

/// In DATA.
const IPSET_ATTR_ELEMENTS: u16 = 24;
const IPSET_ATTR_REFERENCES: u16 = 25;

/// `None`: of all sets.
fn listing(name: Option<&str>) -> Requests {
    Requests::one(IPSET_CMD_LIST, NLM_F_DUMP, AF_UNSPEC, |body| {
        body.put(IPSET_ATTR_PROTOCOL, &[PROTOCOL]);
        if let Some(name) = name {
            body.put_text(IPSET_ATTR_SETNAME, name);
        }
        body.put(
            IPSET_ATTR_FLAGS | NLA_F_NET_BYTEORDER,
            &IPSET_FLAG_LIST_HEADER.to_be_bytes(),
        );
    })
}

fn read_header(bytes: &[u8]) -> Option<Header> {
    let data = find(bytes, IPSET_ATTR_DATA)?;
    let elements = match find(data, IPSET_ATTR_ELEMENTS) {
        Some(value) => Some(u32_value(value)?),
        None => None,
    };
    Some(Header {
        name: text_value(find(bytes, IPSET_ATTR_SETNAME)?),
        type_name: text_value(find(bytes, IPSET_ATTR_TYPENAME)?),
        family: family_of(u8_value(find(bytes, IPSET_ATTR_FAMILY)?)?),
        elements,
        references: u32_value(find(data, IPSET_ATTR_REFERENCES)?)?,
    })
}

#[cfg(test)]
mod tests;
