//! A port's flows as bytes, for another host, and back.
//!
//! ```text
//! "pcflows" version:1 | hold:8 | count:4 | flow ... | checksum:8
//! flow    marks:2 | protocol:1 | ICMP request:1 | local | remote | local l4:2 | remote l4:2 | turn:2 | idle:8
//! ```
//! Big-endian; addresses are of 4 or 16 bytes; times are nanoseconds, a hold of all ones is none. Flows are in
//! the order of their keys. There is one way to write a thing: whatever reads is what would be written, and
//! all else is refused. The checksum is against accidents; who may send such a thing is not settled here.

use super::{MovedFlow, PortFlows};
use model::{Direction, FlowKey, FlowState, IcmpRequest, PortedProtocol};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use wire::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP};

/// More than any budget allows a port in good sense, and half-open ones.
pub const MAX_FLOWS: usize = 1 << 20;

const MAGIC: &[u8; 7] = b"pcflows";
const VERSION: u8 = 1;
const NO_HOLD: u64 = u64::MAX;
/// Of a flow between IPv4 addresses.
const SHORTEST_FLOW: usize = 26;

/// Marks of a flow; its state is in bits 8 and 9.
const V6: u16 = 1;
const EGRESS: u16 = 2;
const REPLIED: u16 = 4;
const FIN_LOCAL: u16 = 8;
const FIN_REMOTE: u16 = 16;
const HALF_OPEN: u16 = 32;
const ICMP: u16 = 64;
const ASKED_BY_LOCAL: u16 = 128;
const STATE: u32 = 8;
const MARKS: u16 = 0x3ff;

/// Why bytes are no flows of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFlows {
    /// They don't begin as such bytes do.
    Foreign,
    Version(u8),
    /// They end too early, or go on behind their end.
    Length,
    Checksum,
    /// More than [`MAX_FLOWS`].
    TooMany(u32),
    /// Counted from 0: no plane says such a thing of a flow.
    Flow(usize, &'static str),
}

impl fmt::Display for BadFlows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadFlows::Foreign => f.write_str("these are not the flows of a port"),
            BadFlows::Version(version) => write!(
                f,
                "flows in version {version} of their encoding; {VERSION} is known"
            ),
            BadFlows::Length => f.write_str("the flows are not whole"),
            BadFlows::Checksum => f.write_str("the flows were damaged on their way"),
            BadFlows::TooMany(count) => {
                write!(f, "{count} flows of one port; up to {MAX_FLOWS} are taken")
            }
            BadFlows::Flow(number, what) => write!(f, "flow {number}: {what}"),
        }
    }
}

impl std::error::Error for BadFlows {}

impl PortFlows {
    /// The first [`MAX_FLOWS`] of them, if there are more.
    pub fn to_bytes(&self) -> Vec<u8> {
        let count = self.flows.len().min(MAX_FLOWS);
        let mut bytes = Vec::with_capacity(28 + count * 50);
        bytes.extend(MAGIC);
        bytes.push(VERSION);
        let hold = self.hold.map(|hold| nanoseconds(hold).min(NO_HOLD - 1));
        bytes.extend(hold.unwrap_or(NO_HOLD).to_be_bytes());
        bytes.extend((count as u32).to_be_bytes());
        for (key, flow) in self.flows.iter().take(count) {
            write_flow(&mut bytes, key, flow);
        }
        bytes.extend(checksum(&bytes).to_be_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadFlows> {
        let mut whole = Reader(bytes);
        if whole.take().ok() != Some(*MAGIC) {
            return Err(BadFlows::Foreign);
        }
        match whole.byte()? {
            VERSION => {}
            other => return Err(BadFlows::Version(other)),
        }
        let (told, sum) = whole.0.split_last_chunk().ok_or(BadFlows::Length)?;
        if checksum(&bytes[..bytes.len() - sum.len()]) != u64::from_be_bytes(*sum) {
            return Err(BadFlows::Checksum);
        }
        let mut rest = Reader(told);
        let hold = rest.u64()?;
        let count = u32::from_be_bytes(rest.take()?);
        if count as usize > MAX_FLOWS {
            return Err(BadFlows::TooMany(count));
        }
        // Before anything is made of them.
        if rest.0.len() / SHORTEST_FLOW < count as usize {
            return Err(BadFlows::Length);
        }
        let mut flows = BTreeMap::new();
        for number in 0..count as usize {
            let bad = |what| BadFlows::Flow(number, what);
            let (key, flow) = read_flow(&mut rest, bad)?;
            check(&key, &flow).map_err(bad)?;
            if flows.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(bad("it is out of order"));
            }
            flows.insert(key, flow);
        }
        if !rest.0.is_empty() {
            return Err(BadFlows::Length);
        }
        Ok(Self {
            flows,
            hold: (hold != NO_HOLD).then_some(Duration::from_nanos(hold)),
        })
    }
}

fn write_flow(bytes: &mut Vec<u8>, key: &FlowKey, flow: &MovedFlow) {
    let state: u16 = match flow.state {
        FlowState::Opening => 0,
        FlowState::Established => 1,
        FlowState::Closing => 2,
        FlowState::Reset => 3,
    };
    let marks = [
        (V6, key.local.is_ipv6()),
        (EGRESS, flow.original == Direction::Egress),
        (REPLIED, flow.replied),
        (FIN_LOCAL, flow.fin_local),
        (FIN_REMOTE, flow.fin_remote),
        (HALF_OPEN, flow.turn.is_some()),
        (ICMP, key.icmp.is_some()),
        (ASKED_BY_LOCAL, key.icmp.is_some_and(|icmp| icmp.by_local)),
    ];
    let set = marks.iter().filter(|(_, is)| *is).map(|(mark, _)| mark);
    let marks = set.fold(state << STATE, |all, mark| all | mark);
    bytes.extend(marks.to_be_bytes());
    bytes.push(key.protocol);
    bytes.push(key.icmp.map_or(0, |icmp| icmp.icmp_type));
    for address in [key.local, key.remote] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    for number in [key.local_l4, key.remote_l4, flow.turn.unwrap_or(0)] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(nanoseconds(flow.idle).to_be_bytes());
}

fn read_flow(
    from: &mut Reader<'_>,
    bad: impl Fn(&'static str) -> BadFlows,
) -> Result<(FlowKey, MovedFlow), BadFlows> {
    let marks = from.u16()?;
    if marks & !MARKS != 0 {
        return Err(bad("it has unknown marks"));
    }
    let is = |mark| marks & mark != 0;
    let (protocol, icmp_type) = (from.byte()?, from.byte()?);
    let (local, remote) = match is(V6) {
        true => (from.take::<16>()?.into(), from.take::<16>()?.into()),
        false => (from.take::<4>()?.into(), from.take::<4>()?.into()),
    };
    let (local_l4, remote_l4, turn) = (from.u16()?, from.u16()?, from.u16()?);
    let request = IcmpRequest {
        icmp_type,
        by_local: is(ASKED_BY_LOCAL),
    };
    if !is(ICMP) && (icmp_type != 0 || request.by_local) {
        return Err(bad("it is asked for, and no ICMP"));
    }
    if !is(HALF_OPEN) && turn != 0 {
        return Err(bad("it has a turn, and no place"));
    }
    let key = FlowKey {
        protocol,
        local,
        remote,
        local_l4,
        remote_l4,
        icmp: is(ICMP).then_some(request),
    };
    let flow = MovedFlow {
        original: match is(EGRESS) {
            true => Direction::Egress,
            false => Direction::Ingress,
        },
        state: match marks >> STATE {
            0 => FlowState::Opening,
            1 => FlowState::Established,
            2 => FlowState::Closing,
            _ => FlowState::Reset,
        },
        replied: is(REPLIED),
        fin_local: is(FIN_LOCAL),
        fin_remote: is(FIN_REMOTE),
        turn: is(HALF_OPEN).then_some(turn),
        idle: Duration::from_nanos(from.u64()?),
    };
    Ok((key, flow))
}

/// A flow that some packet could belong to, in a state that packets could have brought it to.
fn check(key: &FlowKey, flow: &MovedFlow) -> Result<(), &'static str> {
    let own_icmp = match key.local {
        IpAddr::V4(_) => PROTOCOL_ICMP,
        IpAddr::V6(_) => PROTOCOL_ICMPV6,
    };
    let ported = PortedProtocol::from_number(key.protocol).is_some();
    let l4_fits = match key.icmp {
        Some(request) => {
            let types: &[u8] = match key.local {
                IpAddr::V4(_) => &[8, 13],
                IpAddr::V6(_) => &[128],
            };
            key.protocol == own_icmp
                && types.contains(&request.icmp_type)
                && key.local_l4 == key.remote_l4
        }
        None => key.protocol != own_icmp && (ported || (key.local_l4, key.remote_l4) == (0, 0)),
    };
    if !l4_fits {
        return Err("no packet is of such a flow");
    }
    let ends = matches!(flow.state, FlowState::Closing | FlowState::Reset);
    if key.protocol != PROTOCOL_TCP && (ends || flow.fin_local || flow.fin_remote) {
        return Err("only TCP ends");
    }
    if flow.state == FlowState::Established && flow.turn.is_some() {
        return Err("it is established and half-open");
    }
    Ok(())
}

/// Half a millennium is as good as more.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// FNV-1a.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadFlows> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(BadFlows::Length)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn byte(&mut self) -> Result<u8, BadFlows> {
        self.take().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, BadFlows> {
        self.take().map(u16::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, BadFlows> {
        self.take().map(u64::from_be_bytes)
    }
}
