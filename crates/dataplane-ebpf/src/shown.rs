//! Packets by hand, for tests and the selftest.

use crate::EbpfPlane;
use dataplane::ShownPackets;
use model::{Direction, PortId, Verdict};
use std::io;
use std::time::Duration;

impl ShownPackets for EbpfPlane {
    fn show(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> io::Result<Verdict> {
        self.judge(port, direction, frame)
    }

    fn set_time(&mut self, now: Duration) -> io::Result<()> {
        self.set_fixed_clock(now)?;
        // As an agent does: expired flows count in budgets until they are swept.
        self.sweep().map(|_| ())
    }

    fn forget_state(&mut self) -> io::Result<()> {
        EbpfPlane::forget_state(self)
    }
}
