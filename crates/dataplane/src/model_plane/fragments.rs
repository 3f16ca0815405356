//! Which datagrams' first fragments passed a port.
//!
//! Place on the line: parse -> guard -> **fragments**, for later fragments; and behind the verdict,
//! for first ones. Apart from flows and elision.

use model::{Direction, DropReason};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;
use wire::{Fragment, Packet};

/// A port remembers this many first fragments that passed last.
const REMEMBERED: usize = 64;
const LIFETIME: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Fragments {
    /// The oldest first. A datagram may be here twice; the newer one counts.
    passed: VecDeque<First>,
}

struct First {
    /// `None`: forgotten, since another first fragment of its name was dropped.
    datagram: Option<Datagram>,
    end: u32,
    at: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Datagram {
    direction: Direction,
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    /// IPv4 only.
    protocol: Option<u8>,
}

impl Datagram {
    fn of(packet: &Packet<'_>, direction: Direction, id: u32) -> Self {
        Self {
            direction,
            src: packet.src,
            dst: packet.dst,
            id,
            protocol: packet.src.is_ipv4().then_some(packet.protocol),
        }
    }
}

impl Fragments {
    /// `None` unless it is a later fragment.
    pub(super) fn judge(
        &self,
        packet: &Packet<'_>,
        direction: Direction,
        now: Duration,
    ) -> Option<Result<(), DropReason>> {
        let Fragment::Later { id, offset } = packet.fragment else {
            return None;
        };
        let datagram = Some(Datagram::of(packet, direction, id));
        let first = self.passed.iter().rev().find(|f| f.datagram == datagram);
        let first = first.filter(|f| now.saturating_sub(f.at) <= LIFETIME);
        Some(match first {
            None => Err(DropReason::OrphanFragment),
            Some(first) if offset < first.end => Err(DropReason::BadFragment),
            Some(_) => Ok(()),
        })
    }

    pub(super) fn passed(&mut self, packet: &Packet<'_>, direction: Direction, now: Duration) {
        let Fragment::First { id, end } = packet.fragment else {
            return;
        };
        self.passed.push_back(First {
            datagram: Some(Datagram::of(packet, direction, id)),
            end,
            at: now,
        });
        if self.passed.len() > REMEMBERED {
            self.passed.pop_front();
        }
    }

    pub(super) fn dropped(&mut self, packet: &Packet<'_>, direction: Direction) {
        let Fragment::First { id, .. } = packet.fragment else {
            return;
        };
        let datagram = Some(Datagram::of(packet, direction, id));
        let same = self.passed.iter_mut().filter(|f| f.datagram == datagram);
        same.for_each(|first| first.datagram = None);
    }
}
