//! Whether somebody else may have changed what is ours: asked twice a second, for next to nothing.
//!
//! Place on the line: beside read back, as the question whether to read back at all.
//!
//! What costs little is asked each time; what takes longer the more there is (digests of iptables-legacy's
//! tables, the sizes of ipsets), as often as it stays below a small part of the time. Where others change
//! their own rules all the time, all of ours is read back again and again: that, too, has its share.

use crate::stamps::{self, Stamps};
use crate::tools::Backend;
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

/// The dear questions may take this part of the time.
const ASKING: u32 = 130;
/// Reading all back may take this part of it.
const READING: u32 = 10;

pub(crate) struct Watch {
    /// How many elements each set is to have; `None`: to be found out.
    sizes: Option<BTreeMap<String, u32>>,
    next_dear: Instant,
    next_reading: Instant,
}

impl Watch {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            sizes: None,
            next_dear: now,
            next_reading: now,
        }
    }

    /// Something else is in force.
    pub(crate) fn forget(&mut self) {
        self.sizes = None;
        self.next_reading = Instant::now();
    }

    pub(crate) fn is_suspicious(
        &mut self,
        stamps: &Stamps,
        backend: Backend,
        sizes: impl FnOnce() -> BTreeMap<String, u32>,
    ) -> io::Result<bool> {
        if !stamps.hold_cheaply()? {
            return Ok(true);
        }
        let began = Instant::now();
        if began < self.next_dear {
            return Ok(false);
        }
        let wanted = self.sizes.get_or_insert_with(sizes);
        let asked = Instant::now();
        let found = stamps::set_sizes()?;
        let is_so = |(name, size): (&String, &u32)| {
            let found = found.get(name);
            found.is_some_and(|found| found.is_none_or(|found| found == *size))
        };
        let same = wanted.iter().all(is_so) && *stamps == Stamps::read(backend)?;
        self.next_dear = began + asked.elapsed() * ASKING;
        Ok(!same)
    }

    pub(crate) fn may_read(&self) -> bool {
        Instant::now() >= self.next_reading
    }

    pub(crate) fn has_read(&mut self, took: Duration) {
        self.next_reading = Instant::now() + took * READING;
    }
}
