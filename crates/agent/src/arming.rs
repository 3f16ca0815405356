//! How long devices are up before they are armed: measured per device, reported by percentile.
//!
//! Place on the line: beside the target; nothing decides by it.
//! Knows nothing of: clocks; it is told the times.

use std::collections::BTreeMap;
use std::time::Duration;

/// Devices that were seen coming, and the samples of those that are up and armed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arming {
    /// By ifindex; forgotten once sampled, or with the device. Bounded by the kernel's devices.
    coming: BTreeMap<u32, Coming>,
    samples: Vec<Duration>,
    next: usize,
    total: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Coming {
    up: Option<Duration>,
    armed: Option<Duration>,
}

/// Of the newest [`Arming::KEPT`] devices; zero for those that were armed before they came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArmingTimes {
    /// Since the agent's start.
    pub devices: u64,
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

impl Arming {
    const KEPT: usize = 1_024;

    /// A device that was not there before. Those found at the start aren't told: when they came up
    /// is not known.
    pub(crate) fn appeared(&mut self, ifindex: u32) {
        self.coming.entry(ifindex).or_default();
    }

    pub(crate) fn up(&mut self, ifindex: u32, now: Duration) {
        if let Some(coming) = self.coming.get_mut(&ifindex) {
            coming.up.get_or_insert(now);
            self.sample(ifindex);
        }
    }

    /// Down again before it was armed: the clock starts anew when it comes up.
    pub(crate) fn down(&mut self, ifindex: u32) {
        if let Some(coming) = self.coming.get_mut(&ifindex) {
            coming.up = None;
        }
    }

    pub(crate) fn armed(&mut self, ifindex: u32, now: Duration) {
        if let Some(coming) = self.coming.get_mut(&ifindex) {
            coming.armed.get_or_insert(now);
            self.sample(ifindex);
        }
    }

    pub(crate) fn gone(&mut self, ifindex: u32) {
        self.coming.remove(&ifindex);
    }

    pub(crate) fn times(&self) -> ArmingTimes {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
            sorted.get(rank).copied().unwrap_or_default()
        };
        ArmingTimes {
            devices: self.total,
            p50: at(50),
            p99: at(99),
            max: at(100),
        }
    }

    fn sample(&mut self, ifindex: u32) {
        let Some(Coming {
            up: Some(up),
            armed: Some(armed),
        }) = self.coming.get(&ifindex).copied()
        else {
            return;
        };
        self.coming.remove(&ifindex);
        let took = armed.saturating_sub(up);
        self.total += 1;
        if self.samples.len() < Self::KEPT {
            self.samples.push(took);
        } else {
            self.samples[self.next] = took;
            self.next = (self.next + 1) % Self::KEPT;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn percentiles_are_by_nearest_rank_and_old_samples_go() {
        let mut arming = Arming::default();
        for device in 1..=100 {
            arming.appeared(device);
            arming.up(device, Duration::ZERO);
            arming.armed(device, device * MS);
        }
        let expected = ArmingTimes {
            devices: 100,
            p50: 50 * MS,
            p99: 99 * MS,
            max: 100 * MS,
        };
        assert_eq!(arming.times(), expected);
        for device in 1..=1_024 {
            arming.appeared(device);
            arming.armed(device, MS);
            arming.up(device, 2 * MS);
        }
        assert_eq!(arming.times().max, Duration::ZERO, "armed before up");
        assert_eq!(arming.times().devices, 1_124);
    }

    #[test]
    fn a_device_that_went_down_again_is_measured_from_its_last_start() {
        let mut arming = Arming::default();
        arming.appeared(7);
        arming.up(7, MS);
        arming.down(7);
        arming.up(7, 5 * MS);
        arming.armed(7, 8 * MS);
        assert_eq!(arming.times().max, 3 * MS);
    }
}
