//! The iptables data plane: iptables, ip6tables and ipset, with nftables' bridge family for what they can't
//! see, on hosts whose VMs hang on a Linux bridge.
//!
//! ```text
//! view, devices, bridges -> render -> parts --+
//!                                             +-> plan -> steps -> tools
//! kernel -> found (only where it isn't known) +
//! ```
//! A packet's way, and the files that say what happens there:
//! ```text
//! bridge prerouting      link.nft     guard of what a port sends; the mark for the gate
//!   raw PREROUTING       gates.rules  what is tracked
//!   mangle PREROUTING    gates.rules  the gate out
//! bridge forward         link.nft     guard of what a port receives; the mark for the gate
//!   mangle FORWARD       gates.rules  the gate in
//! bridge postrouting     link.nft     what no gate has judged, or one has denied, is dropped
//! ```
//! Knows nothing of: inventories, policy files, how devices are found.

mod age;
mod books;
mod budgets;
mod compare;
mod counters;
mod element;
mod flows;
mod forget;
mod found;
mod handover;
mod link;
mod mark;
mod parts;
mod plan;
mod plane;
mod record;
mod render;
mod renew;
mod sets;
mod skeleton;
mod snapshot;
mod stamps;
mod sysctl;
mod tools;
mod watch;

pub use compare::{Difference, Place};
pub use found::COMMENT;
pub use plane::{CAPABILITIES, IptablesConfig, IptablesPlane};
pub use snapshot::{Snapshot, SnapshotError};
pub use sysctl::load_bridge_netfilter;
pub use tools::Backend;
