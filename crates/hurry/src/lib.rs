//! Attaching to a device, and detaching, waits until each processor has let go of the old list of
//! programs (an RCU grace period): some 15 ms at either end of a device, half a minute for a thousand
//! devices. While devices are worked on the kernel is asked not to be so patient.
//!
//! The wish is the host's (`/sys/kernel/rcu_expedited`): it costs every processor an interrupt per
//! device, and is taken back at the end. A process killed in between leaves it; that harms nothing.

use std::fs;

const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// The kernel hurries while this lives, if it didn't already.
pub(crate) struct Hurry(bool);

impl Hurry {
    /// For work on so many devices. Where the kernel has no such switch everything just takes longer.
    pub(crate) fn for_devices(count: usize) -> Self {
        let patient = || fs::read_to_string(SWITCH).is_ok_and(|now| now.trim() == "0");
        Self(count > 0 && patient() && fs::write(SWITCH, "1").is_ok())
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        if self.0 {
            // Nothing depends on it.
            drop(fs::write(SWITCH, "0"));
        }
    }
}
