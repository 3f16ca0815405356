//! TCP and timeouts of Linux's nf_conntrack. It looks at sequence numbers too, unless told to be liberal.

use super::{Life, Next};
use crate::connections::Flow;
use model::{FlowKey, FlowState, Timeouts};
use wire::{PROTOCOL_TCP, PROTOCOL_UDP, TcpFlags};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tcp {
    state: State,
    /// Closed by FIN, at first.
    closed_by_fin: bool,
    /// Of the last packet: whether it was in the original direction, and what it was.
    last: (bool, Kind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    SynSent,
    SynReceived,
    Established,
    FinWait,
    CloseWait,
    LastAck,
    TimeWait,
    Close,
    SynSent2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
    None,
}

/// By state, in the order of the enum: the next state, `-` for invalid, `.` for let through and ignored.
///
/// ```text
/// s SynSent  r SynReceived  e Established  f FinWait  w CloseWait  l LastAck  t TimeWait  c Close  2 SynSent2
/// ```
const ORIGINAL: [(Kind, &str); 6] = [
    (Kind::Syn, "s.....ss2"),
    (Kind::SynAck, "-.......r"),
    (Kind::Fin, "-ffllltc-"),
    (Kind::Ack, "-eewwttc-"),
    (Kind::Rst, "ccccccccc"),
    (Kind::None, "---------"),
];
const REPLY: [(Kind, &str); 6] = [
    (Kind::Syn, "2-----s-2"),
    (Kind::SynAck, "r.......r"),
    (Kind::Fin, "-ffllltc-"),
    (Kind::Ack, ".rewwttc."),
    (Kind::Rst, "ccccccccc"),
    (Kind::None, "---------"),
];

/// Can an entry come of a packet of no entry? Its flags are orderly.
pub(super) fn is_first(flags: TcpFlags) -> bool {
    matches!(Kind::of(flags), Kind::Syn | Kind::Ack)
}

impl Tcp {
    pub(super) fn begun_by(flags: Option<TcpFlags>) -> Self {
        let kind = flags.map_or(Kind::None, Kind::of);
        let state = match kind {
            Kind::Syn => State::SynSent,
            Kind::SynAck | Kind::Fin | Kind::Ack | Kind::Rst | Kind::None => State::Established,
        };
        Self {
            state,
            closed_by_fin: false,
            last: (true, kind),
        }
    }

    /// An answered connection that is opening may have been opened from both ends at once; closed by FIN, it
    /// may still lack the last ACK.
    pub(super) fn of(flow: &Flow) -> Self {
        let state = match flow.state {
            FlowState::Opening if !flow.replied => State::SynSent,
            FlowState::Opening => State::SynReceived,
            FlowState::Established => State::Established,
            FlowState::Closing => State::TimeWait,
            FlowState::Reset => State::Close,
        };
        Self {
            state,
            closed_by_fin: flow.state == FlowState::Closing,
            last: (true, Kind::None),
        }
    }

    pub(super) fn next(&mut self, original: bool, flags: TcpFlags, replied: bool) -> Next {
        let kind = Kind::of(flags);
        let table = if original { ORIGINAL } else { REPLY };
        let row = table.iter().find(|(k, _)| *k == kind).map(|(_, row)| *row);
        let row = row.expect("the table has a row for each kind");
        let state = match row.as_bytes()[self.state as usize] {
            b'-' => return Next::Invalid,
            b'.' => return self.ignore(original, kind),
            b's' => State::SynSent,
            b'r' => State::SynReceived,
            b'e' => State::Established,
            b'f' => State::FinWait,
            b'w' => State::CloseWait,
            b'l' => State::LastAck,
            b't' => State::TimeWait,
            b'c' => State::Close,
            _ => State::SynSent2,
        };
        let over = matches!(self.state, State::TimeWait | State::Close);
        if state == State::SynSent && over {
            let by_its_end = self.last == (original, Kind::Rst);
            return if self.closed_by_fin || by_its_end {
                Next::Anew
            } else {
                self.ignore(original, kind)
            };
        }
        self.closed_by_fin |= state == State::FinWait && self.state != State::FinWait;
        self.state = state;
        self.last = (original, kind);
        match kind {
            Kind::Rst if !replied => Next::Refused,
            Kind::Syn | Kind::SynAck | Kind::Fin | Kind::Ack | Kind::Rst | Kind::None => {
                Next::Moves
            }
        }
    }

    fn ignore(&mut self, original: bool, kind: Kind) -> Next {
        self.last = (original, kind);
        Next::Ignored
    }
}

/// Of TCP data that is not acknowledged, or repeated.
const UNACKNOWLEDGED: u32 = 300;

pub(super) fn life(key: &FlowKey, tcp: &Tcp, replied: bool, t: &Timeouts) -> Life {
    let established = matches!(
        tcp.state,
        State::Established | State::FinWait | State::CloseWait
    );
    let sure = match key.protocol {
        PROTOCOL_TCP => match tcp.state {
            _ if tcp.last.1 == Kind::Rst => t.tcp_reset_s,
            State::SynSent | State::SynReceived | State::SynSent2 => t.tcp_opening_s,
            State::Established | State::FinWait | State::CloseWait => {
                t.tcp_established_s.min(UNACKNOWLEDGED)
            }
            State::LastAck | State::TimeWait => t.tcp_closing_s,
            State::Close => t.tcp_reset_s,
        },
        PROTOCOL_UDP => t.udp_s.min(t.udp_replied_s),
        _ if key.icmp.is_some() => t.icmp_s,
        _ => t.other_s,
    };
    let most = match key.protocol {
        PROTOCOL_TCP if established => t.tcp_established_s.max(UNACKNOWLEDGED),
        PROTOCOL_UDP if replied => t.udp_s.max(t.udp_replied_s),
        _ => sure,
    };
    Life { sure, most }
}

impl Kind {
    fn of(flags: TcpFlags) -> Self {
        let has = |flag| flags.has(flag);
        match () {
            () if has(TcpFlags::RST) => Kind::Rst,
            () if has(TcpFlags::SYN) && has(TcpFlags::ACK) => Kind::SynAck,
            () if has(TcpFlags::SYN) => Kind::Syn,
            () if has(TcpFlags::FIN) => Kind::Fin,
            () if has(TcpFlags::ACK) => Kind::Ack,
            () => Kind::None,
        }
    }
}

/// Flags that go together; PSH, ECE and CWR go with all.
pub(super) fn is_orderly(flags: TcpFlags) -> bool {
    const URG: u8 = 0x20;
    let asked = TcpFlags::SYN | TcpFlags::ACK | TcpFlags::FIN | TcpFlags::RST;
    let set = flags.0 & asked;
    let known = [
        TcpFlags::SYN,
        TcpFlags::SYN | TcpFlags::ACK,
        TcpFlags::RST,
        TcpFlags::RST | TcpFlags::ACK,
        TcpFlags::FIN | TcpFlags::ACK,
        TcpFlags::ACK,
    ];
    let urgent = flags.0 & URG != 0;
    let with_urgent = [TcpFlags::SYN, TcpFlags::FIN | TcpFlags::ACK, TcpFlags::ACK];
    known.contains(&set) && (!urgent || with_urgent.contains(&set))
}
