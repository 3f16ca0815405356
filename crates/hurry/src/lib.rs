//! Asks the kernel not to be patient while a data plane is at work.
//!
//! Attaching a program to a device, and replacing what nftables holds, waits until each processor has let go
//! of what was there before (an RCU grace period, some 15 ms): half a minute for the devices of a thousand
//! VMs, and most of the time that a change of rules takes.
//!
//! The wish is the host's (`/sys/kernel/rcu_expedited`): it costs every processor an interrupt for each
//! wait, and is taken back at the end. A process killed in between leaves it; that harms nothing.
#![forbid(unsafe_code)]

use std::fs;

const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// The kernel hurries while this lives, if it didn't already.
pub struct Hurry(bool);

impl Hurry {
    /// Where the kernel has no such switch everything just takes longer.
    pub fn up() -> Self {
        let patient = || fs::read_to_string(SWITCH).is_ok_and(|now| now.trim() == "0");
        Self(patient() && fs::write(SWITCH, "1").is_ok())
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
