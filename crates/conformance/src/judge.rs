//! The one shape in which everything that judges packets is asked.
//!
//! Place on the line: around all of it, hook to verdict. The oracle, a plane in memory and a loaded
//! program answer the same questions, so that scenarios and the selftest can compare them.
//! Knows nothing of: what is asked, and who is right.

use model::{Direction, Inventory, PortId, Verdict};
use std::time::Duration;

/// Anything that judges packets at the ports of one host.
///
/// It begins with no policy and no state, at a moment of its own; only `advance` moves its time.
pub trait Judge {
    fn name(&self) -> &str;

    /// Back to no policy and no state, and to a whole second of its time.
    fn reset(&mut self);

    /// The policy from now on.
    fn apply(&mut self, inventory: &Inventory);

    fn advance(&mut self, by: Duration);

    /// The verdict on a packet that was there: it moves state.
    fn judge(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> Answer;

    /// How the last answer came about, for people: a line per stage or step. Empty if not known.
    fn last_trace(&self) -> Vec<String> {
        Vec::new()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub verdict: Verdict,
    /// The contract leaves the verdict open here (such as around a timeout): another answer is no
    /// mistake.
    pub open: bool,
}

impl From<Verdict> for Answer {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            open: false,
        }
    }
}
