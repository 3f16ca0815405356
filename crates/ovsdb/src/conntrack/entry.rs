//! One line of `dpctl/dump-conntrack`.
//!
//! ```text
//! tcp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=44098,dport=80),reply=(src=10.0.0.2,...),id=0,zone=5,
//!   status=0,timeout=19,mark=1,labels=0x2,protoinfo=(state_orig=FIN_WAIT_2,state_reply=...,...)
//! ```
//! Zero is left out: zone, mark, labels. The kernel's datapath has one state for both directions, and
//! counters in each tuple. What we have no use for is passed over.

use super::tuple::{Icmp, Tuple};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`; the number of one that has no name here.
    pub protocol: String,
    pub zone: u16,
    pub orig: Tuple,
    pub reply: Tuple,
    /// TCP's, of the original direction where each has its own.
    pub state: Option<String>,
    pub state_reply: Option<String>,
    pub timeout_seconds: Option<u32>,
    pub mark: u32,
    pub labels: u128,
}

type Fields<'a> = BTreeMap<&'a str, &'a str>;

impl Connection {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (protocol, rest) = line.trim().split_once(',')?;
        let fields = fields(rest)?;
        let states = fields.get("protoinfo").and_then(|text| inner(text));
        let states = states.unwrap_or_default();
        let state = states.get("state").or(states.get("state_orig"));
        Some(Self {
            protocol: protocol.to_owned(),
            zone: number(&fields, "zone")?.unwrap_or(0),
            orig: tuple(fields.get("orig")?)?,
            reply: tuple(fields.get("reply")?)?,
            state: state.map(|state| (*state).to_owned()),
            state_reply: states.get("state_reply").map(|state| (*state).to_owned()),
            timeout_seconds: number(&fields, "timeout")?,
            mark: number(&fields, "mark")?.unwrap_or(0),
            labels: labels(&fields)?,
        })
    }
}

fn tuple(text: &str) -> Option<Tuple> {
    let fields = inner(text)?;
    let icmp = match number(&fields, "type")? {
        Some(icmp_type) => Some(Icmp {
            id: number(&fields, "id")?.unwrap_or(0),
            icmp_type,
            code: number(&fields, "code")?.unwrap_or(0),
        }),
        None => None,
    };
    Some(Tuple {
        src: fields.get("src")?.parse().ok()?,
        dst: fields.get("dst")?.parse().ok()?,
        sport: number(&fields, "sport")?.unwrap_or(0),
        dport: number(&fields, "dport")?.unwrap_or(0),
        icmp,
    })
}

/// The number of that name, if there is one; `None` if what is there is no such number.
fn number<T: std::str::FromStr>(fields: &Fields<'_>, key: &str) -> Option<Option<T>> {
    match fields.get(key) {
        Some(text) => text.parse().ok().map(Some),
        None => Some(None),
    }
}

fn labels(fields: &Fields<'_>) -> Option<u128> {
    match fields.get("labels") {
        Some(text) => u128::from_str_radix(text.strip_prefix("0x")?, 16).ok(),
        None => Some(0),
    }
}

/// The fields between parentheses.
fn inner(text: &str) -> Option<Fields<'_>> {
    fields(text.strip_prefix('(')?.strip_suffix(')')?)
}

/// `key=value` with commas between; a value may have more of them in parentheses. `None` if those don't match:
/// the line was cut.
fn fields(text: &str) -> Option<Fields<'_>> {
    let mut fields = Fields::new();
    let (mut depth, mut begin) = (0usize, 0);
    for (place, byte) in text.bytes().chain([b',']).enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => {
                let (key, value) = text[begin..place].split_once('=')?;
                fields.insert(key, value);
                begin = place + 1;
            }
            _ => {}
        }
    }
    (depth == 0).then_some(fields)
}

#[cfg(test)]
mod tests;
