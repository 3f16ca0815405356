//! Whether somebody else may have changed what is ours: asked twice a second, for next to nothing.
//!
//! Place on the line: beside read back, as the question whether to read back at all.
//!
//! What costs little is asked each time; what takes longer the more there is (digests of iptables-legacy's
//! tables, the sizes of all ipsets), as often as it stays below a small part of the time. Where others change
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
            return self.are_sets_emptied();
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

    /// Whoever empties all sets at once empties any of them.
    fn are_sets_emptied(&self) -> io::Result<bool> {
        let mut sizes = self.sizes.iter().flatten();
        match sizes.find(|(_, size)| **size > 0) {
            Some((name, _)) => Ok(matches!(stamps::set_size(name)?, None | Some(Some(0)))),
            None => Ok(false),
        }
    }

    pub(crate) fn may_read(&self) -> bool {
        Instant::now() >= self.next_reading
    }

    pub(crate) fn has_read(&mut self, took: Duration) {
        self.next_reading = Instant::now() + took * READING;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conformance::lab::Lab;
    use model::Family;
    use netfilter::ipset::{Behind, Carries, Changes, Element, Kind, Said};

    #[test]
    fn sets_that_are_all_emptied_are_missed_between_the_dear_questions() {
        let lab = Lab::new("watch").expect("root");
        lab.host().run(|| {
            let net = "10.0.0.1".parse().expect("an address");
            let behind = Behind::Nothing;
            let mut changes = Changes::default();
            for name in ["pc-empty", "pc-full"] {
                changes.create(name, Kind::Ip, Family::V4, Carries::Nothing, 64);
            }
            changes.add("pc-full", &[(Element { net, behind }, Said::Nothing)]);
            changes.execute().expect("the kernel takes them");
            let stamps = Stamps::read(Backend::Nft).expect("the kernel tells");
            let sizes =
                [("pc-empty", 0), ("pc-full", 1)].map(|(name, size)| (name.to_owned(), size));
            let mut watch = Watch::new();
            let suspicious = |watch: &mut Watch| {
                let sizes = || BTreeMap::from(sizes.clone());
                let asked = watch.is_suspicious(&stamps, Backend::Nft, sizes);
                asked.expect("the kernel tells")
            };
            assert!(!suspicious(&mut watch));
            watch.next_dear = Instant::now() + Duration::from_secs(3_600);
            assert!(!suspicious(&mut watch));
            let mut changes = Changes::default();
            changes.flush("pc-full");
            changes.execute().expect("the kernel takes it");
            assert!(suspicious(&mut watch));
            let mut changes = Changes::default();
            changes.destroy("pc-full");
            changes.execute().expect("the kernel takes it");
            assert!(suspicious(&mut watch));
        });
    }
}
