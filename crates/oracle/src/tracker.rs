//! Entries of a connection tracker, for a plane that has no flows of its own (capability `own-flows`).
//!
//! The tracker sees every packet of a tuple that the guard passes on, also one that is dropped behind it; it
//! knows no rules. What it calls invalid belongs to no entry. An entry counts as a flow at this port once a
//! packet that may start one passed by a rule (`started`). What all trackers share is here: entries, doubt and
//! expiry. What each makes of a packet's bytes and of TCP, and how long it keeps what, is its own:
//!
//! ```text
//! netfilter.rs   Linux's nf_conntrack: an entry comes of each first packet that passes
//! userspace.rs   Open vSwitch's userspace datapath: an entry comes of what the plane commits
//! ```
//! Source: docs/semantics.md "Capabilities".

mod netfilter;
pub(crate) mod userspace;

use crate::connections::{Flow, flags};
use model::{Direction, FlowKey, Flows, Timeouts};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;
use wire::{Packet, TcpFlags};

#[derive(Clone, Debug)]
pub(crate) struct Tracker {
    whose: Flows,
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

/// The state of a TCP connection as its tracker has it. Other protocols leave it as it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tcp {
    Netfilter(netfilter::Tcp),
    Userspace(userspace::Tcp),
}

/// What the tracker makes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The first of an entry, which is there once the packet has passed.
    First,
    /// Of an entry, in its original direction or against it.
    Original(Entry),
    Reply(Entry),
    /// Of an entry, and an attempt at a connection: nobody's reply.
    Attempt,
    /// Of no entry, and none comes of it.
    Invalid,
}

/// What a TCP packet does to the entry that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Invalid,
    /// Let through, and nothing else.
    Ignored,
    /// Another connection begins with this packet.
    Anew,
    /// Its time begins again.
    Moves,
    /// So it does, but the packet counts as an attempt, whoever sends it.
    Attempt,
    /// Nobody answered but by refusing, or nobody will: it is over, and gone.
    Refused,
}

/// In seconds.
struct Life {
    /// Idle for longer, an entry may be gone.
    sure: u32,
    /// And with [`GRACE`], it is.
    most: u32,
}

impl Tracker {
    pub(crate) fn new(whose: Flows) -> Self {
        Self {
            whose,
            entries: HashMap::new(),
            unsure: HashMap::new(),
            unsure_ends: HashMap::new(),
        }
    }

    pub(crate) fn entry(&self, key: &FlowKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The packet passes the tracker: an entry of its tuple moves, whatever becomes of the packet.
    pub(crate) fn see(
        &mut self,
        key: &FlowKey,
        packet: &Packet<'_>,
        direction: Direction,
        now: Duration,
    ) -> Seen {
        if !self.reads(packet) {
            return Seen::Invalid;
        }
        let flags = flags(packet);
        let Some(entry) = self.entries.get_mut(key) else {
            return match self.is_first(key, flags, direction) {
                true => Seen::First,
                false => Seen::Invalid,
            };
        };
        let original = entry.original == direction;
        let next = match flags {
            Some(flags) => entry.tcp.next(original, flags, entry.replied),
            None => Next::Moves,
        };
        match next {
            Next::Invalid => return Seen::Invalid,
            Next::Anew => {
                self.entries.remove(key);
                return Seen::First;
            }
            Next::Attempt => {
                entry.seen = now;
                return Seen::Attempt;
            }
            Next::Ignored => {}
            Next::Moves | Next::Refused => entry.seen = now,
        }
        entry.replied |= !original;
        let seen = *entry;
        if next == Next::Refused {
            self.entries.remove(key);
        }
        match original {
            true => Seen::Original(seen),
            false => Seen::Reply(seen),
        }
    }

    fn reads(&self, packet: &Packet<'_>) -> bool {
        match self.whose {
            Flows::Own | Flows::Netfilter => flags(packet).is_none_or(netfilter::is_orderly),
            Flows::Userspace => userspace::reads(packet),
        }
    }

    fn is_first(&self, key: &FlowKey, flags: Option<TcpFlags>, direction: Direction) -> bool {
        let asks = key
            .icmp
            .is_none_or(|request| request.by_local == (direction == Direction::Egress));
        match (flags, self.whose) {
            (None, _) => asks,
            (Some(flags), Flows::Own | Flows::Netfilter) => netfilter::is_first(flags),
            (Some(flags), Flows::Userspace) => userspace::is_first(flags),
        }
    }

    /// A first packet has passed.
    pub(crate) fn confirm(
        &mut self,
        key: &FlowKey,
        packet: &Packet<'_>,
        direction: Direction,
        now: Duration,
    ) {
        let entry = Entry {
            original: direction,
            started: false,
            replied: false,
            tcp: match self.whose {
                Flows::Own | Flows::Netfilter => {
                    Tcp::Netfilter(netfilter::Tcp::begun_by(flags(packet)))
                }
                Flows::Userspace => Tcp::Userspace(userspace::Tcp::begun()),
            },
            seen: now,
        };
        self.entries.insert(*key, entry);
    }

    /// An entry that is a flow at this port, as far as a flow says what it is.
    pub(crate) fn put(&mut self, key: FlowKey, flow: &Flow) {
        let entry = Entry {
            original: flow.original,
            started: true,
            replied: flow.replied,
            tcp: match self.whose {
                Flows::Own | Flows::Netfilter => Tcp::Netfilter(netfilter::Tcp::of(flow)),
                Flows::Userspace => Tcp::Userspace(userspace::Tcp::of(flow)),
            },
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
            .retain(|key, entry| entry.gone_after(key, timeouts) >= now);
    }

    pub(crate) fn expiry(&self, key: &FlowKey, timeouts: &Timeouts) -> Option<Duration> {
        let entry = self.entries.get(key);
        entry.map(|entry| entry.gone_after(key, timeouts))
    }

    pub(crate) fn next_expiry(&self, timeouts: &Timeouts) -> Option<Duration> {
        let expiries = self.entries.iter();
        expiries
            .map(|(key, entry)| entry.gone_after(key, timeouts))
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
        entry.is_some_and(|entry| now > entry.sure_until(key, timeouts))
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

impl Entry {
    fn sure_until(&self, key: &FlowKey, timeouts: &Timeouts) -> Duration {
        let sure = self.life(key, timeouts).sure;
        self.seen + Duration::from_secs(sure.into()) * 9 / 10
    }

    fn gone_after(&self, key: &FlowKey, timeouts: &Timeouts) -> Duration {
        let most = self.life(key, timeouts).most;
        self.seen + Duration::from_secs(most.into()) + GRACE
    }

    fn life(&self, key: &FlowKey, timeouts: &Timeouts) -> Life {
        match &self.tcp {
            Tcp::Netfilter(tcp) => netfilter::life(key, tcp, self.replied, timeouts),
            Tcp::Userspace(tcp) => userspace::life(key, tcp, self.replied, timeouts),
        }
    }
}

impl Tcp {
    fn next(&mut self, original: bool, flags: TcpFlags, replied: bool) -> Next {
        match self {
            Tcp::Netfilter(tcp) => tcp.next(original, flags, replied),
            Tcp::Userspace(tcp) => tcp.next(original, flags),
        }
    }
}
