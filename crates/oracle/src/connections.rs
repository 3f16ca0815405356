//! What one port remembers of the packets that it passed: flows, the places of half-open ones,
//! datagrams whose first fragment passed, ICMP errors counted, and the hold after a narrowing.
//!
//! Nothing in here is judged: lib.rs decides, and tells what happened.

use crate::limit;
use crate::tracker::Tracker;
use model::{Direction, FlowKey, FlowState, Flows, IcmpRequest, Timeouts};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;
use wire::{Fragment, L4, PROTOCOL_TCP, PROTOCOL_UDP, Packet, TcpFlags};

#[derive(Clone, Debug)]
pub(crate) struct Connections {
    flows: HashMap<FlowKey, Flow>,
    /// Who holds which place for half-open flows.
    places: HashMap<u32, FlowKey>,
    /// Where the search for the next free place begins.
    next_place: u32,
    /// The newest last. A place whose datagram was denied afterwards stays taken.
    datagrams: VecDeque<Option<Datagram>>,
    /// By direction: a second of the clock, and the errors about elided flows that passed in it.
    errors: [(u64, u32); 2],
    held_since: Option<Duration>,
    /// In place of flows, of a plane that has none of its own.
    pub(crate) tracker: Tracker,
    /// Flows that a plane may still take for live, and until when.
    fading: HashMap<FlowKey, Duration>,
    /// Nothing expires before this.
    pub(crate) next_expiry: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The direction of its first packet.
    pub original: Direction,
    pub state: FlowState,
    /// The place that it holds while half-open: until it is first established.
    pub place: Option<u32>,
    /// The other end was seen.
    pub replied: bool,
    /// A FIN was seen in the original direction, and against it.
    pub fin: [bool; 2],
    pub seen: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Datagram {
    name: DatagramName,
    end: u32,
    seen: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DatagramName {
    direction: Direction,
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    /// IPv4 only.
    protocol: Option<u8>,
}

/// What is remembered of a later fragment's datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaterFragment {
    Orphan,
    Overlaps,
    Fits,
}

/// In search of a free place.
const PLACES_LOOKED_AT: u32 = 32;
const DATAGRAMS: usize = 64;
const DATAGRAM_TIMEOUT: Duration = Duration::from_secs(30);
/// How long after its timeout a plane may still take something for live.
const GRACE: Duration = Duration::from_secs(30);

/// The flow that a packet belongs to: its own direction or the reversed one, whichever came first.
/// `None`: ICMP that is neither a request nor a reply.
pub(crate) fn flow_key(packet: &Packet<'_>, direction: Direction) -> Option<FlowKey> {
    let (local, remote) = by_end(direction, packet.src, packet.dst);
    let ((local_l4, remote_l4), icmp) = match packet.l4 {
        L4::Tcp { src, dst, .. } | L4::Ported { src, dst } => (by_end(direction, src, dst), None),
        L4::Opaque => ((0, 0), None),
        L4::Absent => return None,
        L4::Icmp {
            icmp_type,
            code,
            identifier,
        } => {
            let (request, asks) = match (icmp_type, packet.src) {
                (8 | 13, IpAddr::V4(_)) | (128, IpAddr::V6(_)) => (icmp_type, true),
                (0, IpAddr::V4(_)) => (8, false),
                (14, IpAddr::V4(_)) => (13, false),
                (129, IpAddr::V6(_)) => (128, false),
                _ => return None,
            };
            let by_local = asks == (direction == Direction::Egress);
            let request = IcmpRequest {
                icmp_type: request,
                by_local,
            };
            let request = (code == 0).then_some(request)?;
            ((identifier, identifier), Some(request))
        }
    };
    Some(FlowKey {
        protocol: packet.protocol,
        local,
        remote,
        local_l4,
        remote_l4,
        icmp,
    })
}

fn by_end<T>(direction: Direction, src: T, dst: T) -> (T, T) {
    match direction {
        Direction::Ingress => (dst, src),
        Direction::Egress => (src, dst),
    }
}

pub(crate) fn flags(packet: &Packet<'_>) -> Option<TcpFlags> {
    match packet.l4 {
        L4::Tcp { flags, .. } => Some(flags),
        L4::Ported { .. } | L4::Icmp { .. } | L4::Opaque | L4::Absent => None,
    }
}

/// A SYN that can start or restart a flow.
pub(crate) fn is_syn(flags: TcpFlags) -> bool {
    flags.has(TcpFlags::SYN) && !flags.has(TcpFlags::ACK | TcpFlags::FIN | TcpFlags::RST)
}

/// A packet in mid-stream that can start a flow.
pub(crate) fn is_plain_ack(flags: TcpFlags) -> bool {
    flags.has(TcpFlags::ACK) && !flags.has(TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST)
}

pub(crate) fn timeout(key: &FlowKey, state: FlowState, timeouts: &Timeouts) -> Duration {
    let seconds = match (key.protocol, state) {
        (PROTOCOL_TCP, FlowState::Opening) => timeouts.tcp_opening_s,
        (PROTOCOL_TCP, FlowState::Established) => timeouts.tcp_established_s,
        (PROTOCOL_TCP, FlowState::Closing) => timeouts.tcp_closing_s,
        (PROTOCOL_TCP, FlowState::Reset) => timeouts.tcp_reset_s,
        (PROTOCOL_UDP, FlowState::Opening) => timeouts.udp_s,
        (PROTOCOL_UDP, _) => timeouts.udp_replied_s,
        _ if key.icmp.is_some() => timeouts.icmp_s,
        _ => timeouts.other_s,
    };
    Duration::from_secs(seconds.into())
}

impl Connections {
    /// Nothing is remembered yet.
    pub(crate) fn new(whose: Flows) -> Self {
        Self {
            flows: HashMap::new(),
            places: HashMap::new(),
            next_place: 0,
            datagrams: VecDeque::new(),
            errors: [(0, 0); 2],
            held_since: None,
            tracker: Tracker::new(whose),
            fading: HashMap::new(),
            next_expiry: Duration::ZERO,
        }
    }
}

/// Flows.
impl Connections {
    pub(crate) fn flow(&self, key: &FlowKey) -> Option<Flow> {
        self.flows.get(key).copied()
    }

    pub(crate) fn flows(&self) -> impl Iterator<Item = (&FlowKey, &Flow)> {
        self.flows.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Those that were ever established.
    pub(crate) fn established(&self) -> usize {
        self.flows.len() - self.places.len()
    }

    /// Starts the flow anew if it is there. `places` is above 0.
    pub(crate) fn start(
        &mut self,
        key: FlowKey,
        original: Direction,
        now: Duration,
        places: u32,
        timeouts: &Timeouts,
    ) {
        self.remove(&key);
        let all_taken = self.places.len() >= limit(places);
        let looked_at = if all_taken { 1 } else { PLACES_LOOKED_AT };
        let mut in_turn = (0..looked_at).map(|i| (self.next_place % places + i) % places);
        let last = (self.next_place % places + looked_at - 1) % places;
        let free = in_turn.find(|place| !self.places.contains_key(place));
        let place = free.unwrap_or(last);
        if let Some(pays) = self.places.remove(&place) {
            self.flows.remove(&pays);
        }
        self.next_place = (place + 1) % places;
        self.places.insert(place, key);
        let flow = Flow {
            original,
            state: FlowState::Opening,
            place: Some(place),
            replied: false,
            fin: [false; 2],
            seen: now,
        };
        self.put(key, flow, timeouts);
    }

    /// A packet that is the flow's own: in its original direction and permitted, or a live reply.
    /// `room`: the port's budget has room for one more established flow.
    pub(crate) fn keep_alive(
        &mut self,
        key: &FlowKey,
        flags: Option<TcpFlags>,
        direction: Direction,
        now: Duration,
        room: bool,
        timeouts: &Timeouts,
    ) {
        let mut flow = self.flows[key];
        let reply = direction != flow.original;
        flow.seen = now;
        flow.replied |= reply;
        let confirms = match flags {
            Some(f) => f.has(TcpFlags::ACK) && !f.has(TcpFlags::SYN) && flow.replied,
            None => reply,
        };
        if flags.is_some_and(|f| f.has(TcpFlags::RST)) {
            flow.state = FlowState::Reset;
        } else {
            if confirms && flow.state == FlowState::Opening && room {
                flow.state = FlowState::Established;
                if let Some(place) = flow.place.take() {
                    self.places.remove(&place);
                }
            }
            flow.fin[usize::from(reply)] |= flags.is_some_and(|f| f.has(TcpFlags::FIN));
            if flow.fin == [true; 2] && flow.state != FlowState::Reset {
                flow.state = FlowState::Closing;
            }
        }
        self.put(*key, flow, timeouts);
    }

    pub(crate) fn put(&mut self, key: FlowKey, flow: Flow, timeouts: &Timeouts) {
        let expiry = flow.seen + timeout(&key, flow.state, timeouts);
        self.next_expiry = self.next_expiry.min(expiry);
        if let Some(place) = flow.place {
            self.places.insert(place, key);
        }
        self.flows.insert(key, flow);
    }

    /// The tracker's entry, if there is one, may be the first to expire.
    pub(crate) fn note_entry(&mut self, key: &FlowKey, timeouts: &Timeouts) {
        if let Some(expiry) = self.tracker.expiry(key, timeouts) {
            self.next_expiry = self.next_expiry.min(expiry);
        }
    }

    fn remove(&mut self, key: &FlowKey) {
        if let Some(Flow {
            place: Some(place), ..
        }) = self.flows.remove(key)
        {
            self.places.remove(&place);
        }
    }

    pub(crate) fn remove_where(&mut self, condition: impl Fn(&FlowKey) -> bool) {
        self.flows.retain(|key, _| !condition(key));
        self.places.retain(|_, key| !condition(key));
        self.tracker.remove_where(condition);
    }

    /// Takes out what has expired.
    pub(crate) fn expire(&mut self, now: Duration, timeouts: &Timeouts) {
        let expiry = |key: &FlowKey, flow: &Flow| flow.seen + timeout(key, flow.state, timeouts);
        self.fading.retain(|_, until| *until >= now);
        self.flows.retain(|key, flow| {
            let stays = expiry(key, flow) >= now;
            if !stays {
                self.fading.insert(*key, expiry(key, flow) + GRACE);
                if let Some(place) = flow.place {
                    self.places.remove(&place);
                }
            }
            stays
        });
        self.tracker.expire(now, timeouts);
        let remaining = self.flows.iter().map(|(k, f)| expiry(k, f));
        let fading = self.fading.values().copied();
        let tracked = self.tracker.next_expiry(timeouts);
        self.next_expiry = remaining
            .chain(fading)
            .chain(tracked)
            .min()
            .unwrap_or(Duration::MAX);
    }
}

/// Datagrams in fragments.
impl Connections {
    pub(crate) fn remember(&mut self, name: DatagramName, end: u32, now: Duration) {
        if self.datagrams.len() == DATAGRAMS {
            self.datagrams.pop_front();
        }
        let datagram = Datagram {
            name,
            end,
            seen: now,
        };
        self.datagrams.push_back(Some(datagram));
    }

    pub(crate) fn forget(&mut self, name: &DatagramName) {
        for place in &mut self.datagrams {
            if place.as_ref().is_some_and(|d| d.name == *name) {
                *place = None;
            }
        }
    }

    fn datagram(&self, name: &DatagramName) -> Option<&Datagram> {
        let mut newest_first = self.datagrams.iter().rev().flatten();
        newest_first.find(|d| d.name == *name)
    }

    pub(crate) fn later_fragment(
        &self,
        name: &DatagramName,
        offset: u32,
        now: Duration,
    ) -> LaterFragment {
        match self.datagram(name) {
            Some(d) if d.seen + DATAGRAM_TIMEOUT < now => LaterFragment::Orphan,
            Some(d) if offset < d.end => LaterFragment::Overlaps,
            Some(_) => LaterFragment::Fits,
            None => LaterFragment::Orphan,
        }
    }
}

impl DatagramName {
    /// `None` of a whole packet.
    pub(crate) fn of(packet: &Packet<'_>, direction: Direction) -> Option<Self> {
        let id = match packet.fragment {
            Fragment::Whole => return None,
            Fragment::First { id, .. } | Fragment::Later { id, .. } => id,
        };
        Some(Self {
            direction,
            src: packet.src,
            dst: packet.dst,
            id,
            protocol: packet.src.is_ipv4().then_some(packet.protocol),
        })
    }
}

/// Errors about elided flows, and the hold.
impl Connections {
    /// One more error about an elided flow, counted if it passes. False: too many did in this second.
    pub(crate) fn count_error(&mut self, direction: Direction, now: Duration, limit: u32) -> bool {
        let (second, count) = &mut self.errors[direction as usize];
        if *second != now.as_secs() {
            (*second, *count) = (now.as_secs(), 0);
        }
        let passes = *count < limit;
        *count += u32::from(passes);
        passes
    }

    /// Flows of the port's own addresses and the hold go along to another host; what lasts for moments doesn't.
    pub(crate) fn keep_what_moves(&mut self, is_ports: impl Fn(IpAddr) -> bool) {
        self.remove_where(|key| !is_ports(key.local));
        self.datagrams.clear();
        self.errors = [(0, 0); 2];
    }

    pub(crate) fn hold(&mut self, now: Duration) {
        self.held_since = Some(now);
    }

    /// Do TCP flows start by SYN only?
    pub(crate) fn is_held(&self, now: Duration, timeouts: &Timeouts) -> bool {
        let hold = Duration::from_secs(timeouts.tcp_established_s.into());
        self.held_since.is_some_and(|since| now <= since + hold)
    }
}

/// Where the contract leaves a plane time: from 0.9 of a timeout to 30 s behind it.
impl Connections {
    pub(crate) fn is_doubtful_flow(
        &self,
        key: &FlowKey,
        now: Duration,
        timeouts: &Timeouts,
    ) -> bool {
        let flow = self.flows.get(key);
        flow.is_some_and(|f| is_doubtful(f.seen, timeout(key, f.state, timeouts), now))
            || self.fading.get(key).is_some_and(|until| now <= *until)
            || self.tracker.is_doubtful(key, now, timeouts)
    }

    pub(crate) fn is_doubtful_datagram(&self, name: &DatagramName, now: Duration) -> bool {
        let datagram = self.datagram(name);
        datagram.is_some_and(|d| is_doubtful(d.seen, DATAGRAM_TIMEOUT, now))
    }

    pub(crate) fn is_doubtful_hold(&self, now: Duration, timeouts: &Timeouts) -> bool {
        let hold = Duration::from_secs(timeouts.tcp_established_s.into());
        self.held_since
            .is_some_and(|since| is_doubtful(since, hold, now))
    }

    pub(crate) fn is_doubtful(&self, now: Duration, timeouts: &Timeouts) -> bool {
        let mut datagrams = self.datagrams.iter().flatten();
        let mut flows = self.flows.iter();
        self.is_doubtful_hold(now, timeouts)
            || self.tracker.is_any_fading(now, timeouts)
            || self.fading.values().any(|until| now <= *until)
            || flows.any(|(k, f)| is_doubtful(f.seen, timeout(k, f.state, timeouts), now))
            || datagrams.any(|d| is_doubtful(d.seen, DATAGRAM_TIMEOUT, now))
    }
}

fn is_doubtful(since: Duration, timeout: Duration, now: Duration) -> bool {
    now > since + timeout * 9 / 10 && now <= since + timeout + GRACE
}
