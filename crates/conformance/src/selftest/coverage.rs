//! What a run has met: a suite that meets nothing finds nothing.

use crate::generate::Sent;
use crate::judge::Answer;
use model::{Direction, DropReason, PassReason, PortId, Verdict};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Counts of what the oracle answered.
#[derive(Debug, Default)]
pub struct Coverage {
    passes: [u64; PASSES.len()],
    drops: HashMap<DropReason, u64>,
    pub live: u64,
    /// Passes by live that no rule permits; known of a judge that explains itself as the oracle does.
    pub live_only: u64,
    /// ICMP errors among the passes by live.
    pub live_errors: u64,
    /// A packet that passed by live, and is denied after a change of policy.
    pub revocations: u64,
    /// A packet that was denied, and passes after a change of policy.
    pub permissions: u64,
    /// Of the trace: how a packet fared last.
    seen: HashMap<(PortId, Direction, u64), Fate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Live,
    Passed,
    Denied,
}

const PASSES: [&str; 6] = [
    "rule",
    "live",
    "elided-error",
    "fragment",
    "infrastructure",
    "unguarded",
];

impl Coverage {
    pub fn passes(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        PASSES.into_iter().zip(self.passes)
    }

    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        let all = DropReason::ALL.iter();
        all.map(|reason| (*reason, self.drops.get(reason).copied().unwrap_or(0)))
    }

    pub(super) fn next_trace(&mut self) {
        self.seen.clear();
    }

    /// `steps` of a judge that explains itself.
    pub(super) fn count(&mut self, sent: &Sent, answer: &Answer, steps: &[String]) {
        let fate = match &answer.verdict {
            Verdict::Drop(reason) => {
                *self.drops.entry(*reason).or_default() += 1;
                Fate::Denied
            }
            Verdict::Pass(reason) => {
                self.passes[index(reason)] += 1;
                match reason {
                    PassReason::Live(_) => Fate::Live,
                    PassReason::Rule(_)
                    | PassReason::ElidedError
                    | PassReason::Fragment
                    | PassReason::Infrastructure
                    | PassReason::Unguarded => Fate::Passed,
                }
            }
        };
        if fate == Fate::Live {
            self.live += 1;
            self.live_only += u64::from(steps.iter().any(|s| s.ends_with("static: no rule")));
            self.live_errors += u64::from(is_icmp_error(&sent.frame));
        }
        let mut hasher = DefaultHasher::new();
        sent.frame.hash(&mut hasher);
        let key = (sent.port.clone(), sent.direction, hasher.finish());
        match (self.seen.insert(key, fate), fate) {
            (Some(Fate::Live), Fate::Denied) => self.revocations += 1,
            (Some(Fate::Denied), Fate::Live | Fate::Passed) => self.permissions += 1,
            (Some(_) | None, _) => {}
        }
    }
}

fn index(reason: &PassReason) -> usize {
    match reason {
        PassReason::Rule(_) => 0,
        PassReason::Live(_) => 1,
        PassReason::ElidedError => 2,
        PassReason::Fragment => 3,
        PassReason::Infrastructure => 4,
        PassReason::Unguarded => 5,
    }
}

/// Good enough for counting: not behind options and extension headers.
fn is_icmp_error(frame: &[u8]) -> bool {
    match (frame.get(12..14), frame.get(23), frame.get(20)) {
        (Some([0x08, 0x00]), Some(1), _) => matches!(frame.get(34), Some(3 | 11 | 12)),
        (Some([0x86, 0xdd]), _, Some(58)) => matches!(frame.get(54), Some(1..=4)),
        _ => false,
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in self.passes() {
            writeln!(f, "pass {name:<20} {count:>9}")?;
        }
        for (reason, count) in self.drops() {
            writeln!(f, "drop {:<20} {count:>9}", reason.name())?;
        }
        if self.live_only > 0 {
            writeln!(f, "live alone                {:>9}", self.live_only)?;
        }
        writeln!(f, "live errors               {:>9}", self.live_errors)?;
        writeln!(f, "revocations               {:>9}", self.revocations)?;
        write!(f, "permissions               {:>9}", self.permissions)
    }
}
