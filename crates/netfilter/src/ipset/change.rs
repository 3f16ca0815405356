//! Sets made, filled and removed, many at once.
//!
//! Place on the line: execute. It is no transaction: after an error some of it may be done.
//!
//! Sets are made by the least revision of their type that has all that is used here, so that the `ipset` of a
//! host, which may be older than its kernel, can list them. One that is there already is fine if it is the
//! same; so is an element that is there when it comes, or isn't when it goes.
//!
//! Source: linux/netfilter/ipset/ip_set.h; net/netfilter/ipset/ip_set_core.c, ip_set_hash_*.c.

use super::{
    IPSET_ATTR_DATA, IPSET_ATTR_FAMILY, IPSET_ATTR_PROTOCOL, IPSET_ATTR_SETNAME,
    IPSET_ATTR_TYPENAME, PROTOCOL,
};
use crate::Error;
use crate::codec::{
    AF_UNSPEC, Attributes, NLA_F_NET_BYTEORDER, NLM_F_CREATE, Requests, family_number,
};
use crate::socket::{REQUESTS_AT_ONCE, Socket};
use model::{Family, Prefix};
use std::fmt;
use std::io;
use std::net::IpAddr;

/// What a set's elements consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ip,
    Net,
    NetPort,
    IpPort,
    NetIface,
}

/// What each element carries besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    Nothing,
    CountersAndComment,
    Mark,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    pub net: Prefix,
    pub behind: Behind,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behind {
    Nothing,
    /// A port, 0 where the protocol has none.
    Service {
        protocol: u8,
        l4_port: u16,
    },
    Device(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Nothing,
    /// At most 255 bytes.
    Comment(String),
    /// What packets that meet it get as their mark.
    Mark(u32),
}

/// In ipset's words, but for protocols, which it names.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.net)?;
        match &self.behind {
            Behind::Nothing => Ok(()),
            Behind::Service { protocol, l4_port } => write!(f, ",{protocol}:{l4_port}"),
            Behind::Device(name) => write!(f, ",{name}"),
        }
    }
}

/// In ipset's words.
impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Said::Nothing => Ok(()),
            Said::Comment(text) => write!(f, "comment \"{text}\""),
            Said::Mark(mark) => write!(f, "skbmark {mark:#x}"),
        }
    }
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ip => "hash:ip",
            Kind::Net => "hash:net",
            Kind::NetPort => "hash:net,port",
            Kind::IpPort => "hash:ip,port",
            Kind::NetIface => "hash:net,iface",
        }
    }

    /// The first that knows marks, which came last.
    fn revision(self) -> u8 {
        match self {
            Kind::Ip => 4,
            Kind::Net => 6,
            Kind::NetPort => 7,
            Kind::IpPort => 5,
            Kind::NetIface => 6,
        }
    }
}

impl Carries {
    fn flags(self) -> u32 {
        match self {
            Carries::Nothing => 0,
            Carries::CountersAndComment => IPSET_FLAG_WITH_COUNTERS | IPSET_FLAG_WITH_COMMENT,
            Carries::Mark => IPSET_FLAG_WITH_SKBINFO,
        }
    }
}

/// In the order in which they are asked for.
#[derive(Debug, Default)]
pub struct Changes {
    requests: Vec<Requests>,
    /// What each request was for.
    tried: Vec<String>,
}

impl Changes {
    /// Of at most `most` elements; it takes the least room, and grows by itself.
    pub fn create(&mut self, name: &str, kind: Kind, family: Family, carries: Carries, most: u32) {
        let tried = format!("making the address set {name}");
        self.push(IPSET_CMD_CREATE, NLM_F_CREATE, tried, |body| {
            body.put_text(IPSET_ATTR_SETNAME, name);
            body.put_text(IPSET_ATTR_TYPENAME, kind.name());
            body.put(IPSET_ATTR_REVISION, &[kind.revision()]);
            body.put(IPSET_ATTR_FAMILY, &[family_number(family)]);
            body.nest(IPSET_ATTR_DATA, |data| {
                put_u32(data, IPSET_ATTR_HASHSIZE, LEAST_BUCKETS);
                put_u32(data, IPSET_ATTR_MAXELEM, most);
                put_u32(data, IPSET_ATTR_CADT_FLAGS, carries.flags());
            });
        });
    }

    pub fn flush(&mut self, name: &str) {
        let tried = format!("emptying the address set {name}");
        self.push(IPSET_CMD_FLUSH, 0, tried, |body| {
            body.put_text(IPSET_ATTR_SETNAME, name);
        });
    }

    /// Of one that is there, what is said of it changes.
    pub fn add(&mut self, name: &str, elements: &[(Element, Said)]) {
        for some in elements.chunks(AT_ONCE) {
            let tried = format!("adding to the address set {name}");
            self.push(IPSET_CMD_ADD, 0, tried, |body| {
                let elements = some.iter().map(|(element, said)| (element, Some(said)));
                put_elements(body, name, elements);
            });
        }
    }

    pub fn delete(&mut self, name: &str, elements: &[Element]) {
        for some in elements.chunks(AT_ONCE) {
            let tried = format!("deleting from the address set {name}");
            self.push(IPSET_CMD_DEL, 0, tried, |body| {
                put_elements(body, name, some.iter().map(|element| (element, None)));
            });
        }
    }

    pub fn swap(&mut self, one: &str, other: &str) {
        let tried = format!("swapping the address sets {one} and {other}");
        self.push(IPSET_CMD_SWAP, 0, tried, |body| {
            body.put_text(IPSET_ATTR_SETNAME, one);
            body.put_text(IPSET_ATTR_SETNAME2, other);
        });
    }

    /// Not of one that rules refer to, which is an error of the kind `ResourceBusy`.
    pub fn destroy(&mut self, name: &str) {
        let tried = format!("removing the address set {name}");
        self.push(IPSET_CMD_DESTROY, 0, tried, |body| {
            body.put_text(IPSET_ATTR_SETNAME, name);
        });
    }

    /// Stops, about, where something is refused.
    pub fn execute(self) -> Result<(), Error> {
        if self.tried.is_empty() {
            return Ok(());
        }
        let opening = |error| Error::new("changing address sets", error);
        let mut socket = Socket::open().map_err(opening)?;
        let mut tried = self.tried.into_iter();
        for requests in self.requests {
            let errnos = socket.execute(requests).map_err(opening)?;
            for (errno, tried) in errnos.into_iter().zip(&mut tried) {
                if errno != 0 {
                    return Err(refused(tried, errno));
                }
            }
        }
        Ok(())
    }

    fn push(
        &mut self,
        command: u16,
        flags: u16,
        tried: String,
        body: impl FnOnce(&mut Attributes),
    ) {
        self.tried.push(tried);
        let requests = match self.requests.last_mut() {
            Some(last) if last.len() < REQUESTS_AT_ONCE => last,
            _ => self.requests.push_mut(Requests::default()),
        };
        requests.push(command, flags, AF_UNSPEC, |all| {
            all.put(IPSET_ATTR_PROTOCOL, &[PROTOCOL]);
            body(all);
        });
    }
}

/// Ipset has error numbers of its own.
fn refused(tried: String, errno: i32) -> Error {
    let why = match errno {
        IPSET_ERR_BUSY => {
            return Error::new(tried, io::Error::new(io::ErrorKind::ResourceBusy, IN_USE));
        }
        IPSET_ERR_TYPE_MISMATCH => "they are of different types",
        IPSET_ERR_EXIST_SETNAME2 => "there is no second one",
        IPSET_ERR_FIND_TYPE => "the kernel doesn't know its type, or an older one",
        IPSET_ERR_HASH_FULL => "it is full",
        IPSET_ERR_PRIVATE.. => {
            let why = format!("the kernel refuses it by ipset's number {errno}");
            return Error::new(tried, io::Error::other(why));
        }
        errno => return Error::answered(tried, errno),
    };
    Error::new(tried, io::Error::other(why))
}

fn put_elements<'a>(
    body: &mut Attributes,
    name: &str,
    elements: impl Iterator<Item = (&'a Element, Option<&'a Said>)>,
) {
    body.put_text(IPSET_ATTR_SETNAME, name);
    // The kernel wants to know where to tell which line it refuses.
    put_u32(body, IPSET_ATTR_LINENO, 0);
    body.nest(IPSET_ATTR_ADT, |list| {
        for (element, said) in elements {
            list.nest(IPSET_ATTR_DATA, |data| put_element(data, element, said));
        }
    });
}

fn put_element(data: &mut Attributes, element: &Element, said: Option<&Said>) {
    data.nest(IPSET_ATTR_IP, |address| match element.net.network() {
        IpAddr::V4(four) => {
            address.put(IPSET_ATTR_IPADDR_IPV4 | NLA_F_NET_BYTEORDER, &four.octets())
        }
        IpAddr::V6(six) => address.put(IPSET_ATTR_IPADDR_IPV6 | NLA_F_NET_BYTEORDER, &six.octets()),
    });
    if element.net.as_host().is_none() {
        data.put(IPSET_ATTR_CIDR, &[element.net.length()]);
    }
    match &element.behind {
        Behind::Nothing => {}
        Behind::Service { protocol, l4_port } => {
            data.put(
                IPSET_ATTR_PORT | NLA_F_NET_BYTEORDER,
                &l4_port.to_be_bytes(),
            );
            data.put(IPSET_ATTR_PROTO, &[*protocol]);
        }
        Behind::Device(name) => data.put_text(IPSET_ATTR_IFACE, name),
    }
    match said {
        None | Some(Said::Nothing) => {}
        Some(Said::Comment(text)) => data.put_text(IPSET_ATTR_COMMENT, text),
        Some(Said::Mark(mark)) => {
            // With the bits of it that are written: all.
            let mark = u64::from(*mark) << 32 | u64::from(u32::MAX);
            data.put(
                IPSET_ATTR_SKBMARK | NLA_F_NET_BYTEORDER,
                &mark.to_be_bytes(),
            );
        }
    }
}

fn put_u32(body: &mut Attributes, kind: u16, value: u32) {
    body.put(kind | NLA_F_NET_BYTEORDER, &value.to_be_bytes());
}

/// Their attributes are inside of one, which can't be longer than 64 KiB.
const AT_ONCE: usize = 128;

const IN_USE: &str = "it is in use";

const LEAST_BUCKETS: u32 = 64;

const IPSET_CMD_CREATE: u16 = 6 << 8 | 2;
const IPSET_CMD_DESTROY: u16 = 6 << 8 | 3;
const IPSET_CMD_FLUSH: u16 = 6 << 8 | 4;
const IPSET_CMD_SWAP: u16 = 6 << 8 | 6;
const IPSET_CMD_ADD: u16 = 6 << 8 | 9;
const IPSET_CMD_DEL: u16 = 6 << 8 | 10;

const IPSET_ATTR_SETNAME2: u16 = 3;
const IPSET_ATTR_REVISION: u16 = 4;
const IPSET_ATTR_ADT: u16 = 8;
const IPSET_ATTR_LINENO: u16 = 9;

/// In DATA.
const IPSET_ATTR_IP: u16 = 1;
const IPSET_ATTR_CIDR: u16 = 3;
const IPSET_ATTR_PORT: u16 = 4;
const IPSET_ATTR_PROTO: u16 = 7;
const IPSET_ATTR_CADT_FLAGS: u16 = 8;
const IPSET_ATTR_HASHSIZE: u16 = 18;
const IPSET_ATTR_MAXELEM: u16 = 19;
const IPSET_ATTR_IFACE: u16 = 23;
const IPSET_ATTR_COMMENT: u16 = 26;
const IPSET_ATTR_SKBMARK: u16 = 27;

const IPSET_ATTR_IPADDR_IPV4: u16 = 1;
const IPSET_ATTR_IPADDR_IPV6: u16 = 2;

const IPSET_FLAG_WITH_COUNTERS: u32 = 1 << 3;
const IPSET_FLAG_WITH_COMMENT: u32 = 1 << 4;
const IPSET_FLAG_WITH_SKBINFO: u32 = 1 << 6;

/// From here on they are ipset's.
const IPSET_ERR_PRIVATE: i32 = 4096;
const IPSET_ERR_FIND_TYPE: i32 = 4098;
const IPSET_ERR_BUSY: i32 = 4100;
const IPSET_ERR_EXIST_SETNAME2: i32 = 4101;
const IPSET_ERR_TYPE_MISMATCH: i32 = 4102;
const IPSET_ERR_HASH_FULL: i32 = 4352;
