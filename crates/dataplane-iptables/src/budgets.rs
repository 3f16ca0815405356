//! How many flows a port may have: looked after about once a second.
//!
//! Place on the line: conntrack entries -> **elements** of the set `full`. A port in it starts no flow; it
//! gets out by itself, unless it is put in again.
//! A look takes as long as the tracker's table is large: none is taken while all entries together are fewer
//! than one port may have, and never for more than a small part of the time.

use crate::books::Books;
use crate::flows::{self, Locals};
use crate::link::ForATime;
use dataplane::Target;
use model::PortId;
use netfilter::conntrack;
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

/// A look may take this part of the time.
const SHARE: u32 = 50;
/// How much longer than until the next look a port stays full.
const LONGER: Duration = Duration::from_secs(2);

pub(crate) struct Budgets {
    next: Instant,
}

impl Budgets {
    pub(crate) fn new() -> Self {
        Self {
            next: Instant::now(),
        }
    }

    /// The devices of ports that have as many as they may.
    pub(crate) fn tend(&mut self, target: &Target, books: &Books) -> io::Result<Vec<ForATime>> {
        let most = target.view.settings.budgets.flows_per_port;
        let began = Instant::now();
        if began < self.next || conntrack::count().map_err(io::Error::other)? < most {
            return Ok(Vec::new());
        }
        let mut counts: BTreeMap<PortId, u32> = BTreeMap::new();
        for flow in flows::records(target, &Locals::of(target, &books.bridges), None)? {
            *counts.entry(flow.port).or_default() += 1;
        }
        let pause = began.elapsed() * SHARE;
        self.next = began + pause;
        let seconds = u32::try_from((pause + LONGER).as_secs()).unwrap_or(u32::MAX);
        let mut full = Vec::new();
        for (port, count) in counts {
            if let Some(device) = target.devices.get(&port).filter(|_| count >= most) {
                full.push(ForATime {
                    set: "full",
                    device: device.ifindex,
                    seconds,
                });
            }
        }
        Ok(full)
    }
}
