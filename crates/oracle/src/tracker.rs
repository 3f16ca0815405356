//! Entries of a kernel's own tracker, for a plane that has no flows of its own (capability `own-flows`).
//!
//! The tracker sees every packet of a tuple that the guard passes on, also one that is dropped behind it; it
//! knows no rules. What it calls invalid belongs to no entry. An entry counts as a flow at this port once a
//! packet that may start one passed by a rule (`started`).
//! Source: docs/semantics.md "Capabilities"; the table of TCP states is that of Linux's nf_conntrack.

use crate::connections::Flow;
use model::{Direction, FlowKey, FlowState, Timeouts};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;
use wire::{PROTOCOL_TCP, PROTOCOL_UDP, TcpFlags};

#[derive(Clone, Debug, Default)]
pub(crate) struct Tracker {
    entries: HashMap<FlowKey, Entry>,
    /// Flows that a fragment belongs to, and since when: the tracker sees whole datagrams, when they are.
    unsure: HashMap<FlowKey, Duration>,
    /// Local and remote addresses between which there was a packet that can be read in more than one way.
    unsure_ends: HashMap<(IpAddr, IpAddr), Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The direction of its first packet, at this port.
    pub(crate) original: Direction,
    pub(crate) started: bool,
    replied: bool,
    tcp: Tcp,
    seen: Duration,
}

/// What the tracker makes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The first of an entry, which is there once the packet has passed.
    First,
    /// Of an entry, in its original direction or against it.
    Original(Entry),
    Reply(Entry),
    /// Of no entry, and none comes of it.
    Invalid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tcp {
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

impl Tracker {
    pub(crate) fn entry(&self, key: &FlowKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The packet passes the tracker: an entry of its tuple moves, whatever becomes of the packet.
    pub(crate) fn see(
        &mut self,
        key: &FlowKey,
        flags: Option<TcpFlags>,
        direction: Direction,
        now: Duration,
    ) -> Seen {
        let kind = match flags {
            Some(flags) if !is_orderly(flags) => return Seen::Invalid,
            Some(flags) => Kind::of(flags),
            None => Kind::None,
        };
        let asks = key
            .icmp
            .is_none_or(|request| request.by_local == (direction == Direction::Egress));
        let Some(entry) = self.entries.get_mut(key) else {
            let first = match flags {
                Some(_) => matches!(kind, Kind::Syn | Kind::Ack),
                None => asks,
            };
            return if first { Seen::First } else { Seen::Invalid };
        };
        let original = entry.original == direction;
        if flags.is_some() {
            match entry.tcp.next(original, kind) {
                Next::Invalid => return Seen::Invalid,
                Next::Ignored => entry.tcp.last = (original, kind),
                Next::Anew => {
                    self.entries.remove(key);
                    return Seen::First;
                }
                Next::State(state) => {
                    entry.tcp.closed_by_fin |=
                        state == State::FinWait && entry.tcp.state != State::FinWait;
                    entry.tcp.state = state;
                    entry.tcp.last = (original, kind);
                    entry.seen = now;
                }
            }
        } else {
            entry.seen = now;
        }
        let refused = kind == Kind::Rst && !entry.replied;
        entry.replied |= !original;
        let seen = *entry;
        if refused {
            self.entries.remove(key);
        }
        match original {
            true => Seen::Original(seen),
            false => Seen::Reply(seen),
        }
    }

    /// A first packet has passed.
    pub(crate) fn confirm(
        &mut self,
        key: &FlowKey,
        flags: Option<TcpFlags>,
        direction: Direction,
        now: Duration,
    ) {
        let kind = flags.map_or(Kind::None, Kind::of);
        let state = match kind {
            Kind::Syn => State::SynSent,
            Kind::SynAck | Kind::Fin | Kind::Ack | Kind::Rst | Kind::None => State::Established,
        };
        let tcp = Tcp {
            state,
            closed_by_fin: false,
            last: (true, kind),
        };
        let entry = Entry {
            original: direction,
            started: false,
            replied: false,
            tcp,
            seen: now,
        };
        self.entries.insert(*key, entry);
    }

    /// An entry that is a flow at this port, as far as a flow says what it is. An answered TCP connection that is
    /// opening may have been opened from both ends at once; closed by FIN, it may still lack the last ACK.
    pub(crate) fn put(&mut self, key: FlowKey, flow: &Flow) {
        let state = match flow.state {
            FlowState::Opening if !flow.replied => State::SynSent,
            FlowState::Opening => State::SynReceived,
            FlowState::Established => State::Established,
            FlowState::Closing => State::TimeWait,
            FlowState::Reset => State::Close,
        };
        let tcp = Tcp {
            state,
            closed_by_fin: flow.state == FlowState::Closing,
            last: (true, Kind::None),
        };
        let entry = Entry {
            original: flow.original,
            started: true,
            replied: flow.replied,
            tcp,
            seen: flow.seen,
        };
        self.entries.insert(key, entry);
    }

    /// From now on its replies may be live.
    pub(crate) fn start(&mut self, key: &FlowKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.started = true;
        }
    }

    /// A fragment of the flow passed, or didn't: whether it moves an entry, nobody knows before the
    /// datagram is whole.
    pub(crate) fn doubt(&mut self, key: &FlowKey, now: Duration) {
        self.unsure.insert(*key, now);
    }

    /// So it is of every flow between these two.
    pub(crate) fn doubt_all(&mut self, local: IpAddr, remote: IpAddr, now: Duration) {
        self.unsure_ends.insert((local, remote), now);
    }

    pub(crate) fn expire(&mut self, now: Duration, timeouts: &Timeouts) {
        let t = timeouts;
        let longest_of_all = [
            t.tcp_established_s,
            t.udp_replied_s,
            t.icmp_s,
            t.other_s,
            t.tcp_opening_s,
        ];
        let longest_of_all = longest_of_all.into_iter().max().unwrap_or_default();
        let doubt = Duration::from_secs(longest_of_all.into()) + GRACE;
        self.unsure.retain(|_, since| *since + doubt >= now);
        self.unsure_ends.retain(|_, since| *since + doubt >= now);
        self.entries
            .retain(|key, entry| entry.seen + longest(key, entry, timeouts) >= now);
    }

    pub(crate) fn next_expiry(&self, timeouts: &Timeouts) -> Option<Duration> {
        let expiries = self.entries.iter();
        expiries
            .map(|(key, entry)| entry.seen + longest(key, entry, timeouts))
            .min()
    }

    /// The entry may be there, or may be gone.
    pub(crate) fn is_doubtful(&self, key: &FlowKey, now: Duration, timeouts: &Timeouts) -> bool {
        let ends = (key.local, key.remote);
        self.unsure.contains_key(key)
            || self.unsure_ends.contains_key(&ends)
            || self.is_fading(key, now, timeouts)
    }

    fn is_fading(&self, key: &FlowKey, now: Duration, timeouts: &Timeouts) -> bool {
        let entry = self.entries.get(key);
        entry.is_some_and(|entry| now > entry.seen + shortest(key, entry, timeouts) * 9 / 10)
    }

    pub(crate) fn is_any_fading(&self, now: Duration, timeouts: &Timeouts) -> bool {
        let mut entries = self.entries.keys();
        entries.any(|key| self.is_fading(key, now, timeouts))
    }

    pub(crate) fn remove_where(&mut self, condition: impl Fn(&FlowKey) -> bool) {
        self.entries.retain(|key, _| !condition(key));
        self.unsure.retain(|key, _| !condition(key));
    }
}

/// The tracker may keep an entry longer than its timeout says.
const GRACE: Duration = Duration::from_secs(30);
/// Of TCP data that is not acknowledged, or repeated.
const UNACKNOWLEDGED: u32 = 300;

/// Idle for so long, an entry may be gone.
fn shortest(key: &FlowKey, entry: &Entry, t: &Timeouts) -> Duration {
    let seconds = match key.protocol {
        PROTOCOL_TCP => match entry.tcp.state {
            _ if entry.tcp.last.1 == Kind::Rst => t.tcp_reset_s,
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
    Duration::from_secs(seconds.into())
}

/// Idle for longer, it is gone.
fn longest(key: &FlowKey, entry: &Entry, t: &Timeouts) -> Duration {
    let seconds = match key.protocol {
        PROTOCOL_TCP => match entry.tcp.state {
            State::Established | State::FinWait | State::CloseWait => {
                t.tcp_established_s.max(UNACKNOWLEDGED)
            }
            State::SynSent
            | State::SynReceived
            | State::SynSent2
            | State::LastAck
            | State::TimeWait
            | State::Close => return shortest(key, entry, t) + GRACE,
        },
        PROTOCOL_UDP if entry.replied => t.udp_s.max(t.udp_replied_s),
        _ => return shortest(key, entry, t) + GRACE,
    };
    Duration::from_secs(seconds.into()) + GRACE
}

enum Next {
    Invalid,
    Ignored,
    /// Another connection begins with this packet.
    Anew,
    State(State),
}

impl Tcp {
    fn next(&self, original: bool, kind: Kind) -> Next {
        let table = if original { ORIGINAL } else { REPLY };
        let row = table.iter().find(|(k, _)| *k == kind).map(|(_, row)| *row);
        let row = row.expect("the table has a row for each kind");
        let state = match row.as_bytes()[self.state as usize] {
            b'-' => return Next::Invalid,
            b'.' => return Next::Ignored,
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
                Next::Ignored
            };
        }
        Next::State(state)
    }
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
fn is_orderly(flags: TcpFlags) -> bool {
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
