//! What a packet's mark, and a connection's, say between one hook and the next.
//!
//! ```text
//! mark       31 JUDGED  30 INFRASTRUCTURE  29 ELIDABLE  28 MANY  27 HELD  26 OPEN_OUT  25 OPEN_IN
//!            24 GATE  23 PIECES  22 LIVE  21 FULL  20..12 bridge  11..0 profile
//! connmark   27 STARTED_OUT  26 STARTED_IN
//! ```
//! link.nft sets a mark where a packet comes in, gates.rules read it in the very next hook, and the last
//! hook of link.nft sets it to 0 again: the host's own tables see none of it. Of a connection's mark only
//! these two bits are ours.

/// A gate lets it pass.
pub(crate) const JUDGED: u32 = 1 << 31;
/// It passes the gate whatever the rules say, or there is none on its way: it needs no tracking.
pub(crate) const INFRASTRUCTURE: u32 = 1 << 30;
/// All ends on this host can do without tracking it.
pub(crate) const ELIDABLE: u32 = 1 << 29;
/// For many receivers: starts no flow.
pub(crate) const MANY: u32 = 1 << 28;
/// TCP flows of the port start by SYN only.
pub(crate) const HELD: u32 = 1 << 27;
/// The port's rules permit everything out, or in.
pub(crate) const OPEN_OUT: u32 = 1 << 26;
pub(crate) const OPEN_IN: u32 = 1 << 25;
/// Has to pass a gate, and has not yet.
pub(crate) const GATE: u32 = 1 << 24;
/// Arrived in fragments.
pub(crate) const PIECES: u32 = 1 << 23;
/// A reply of a flow that may be live: set and asked within one gate.
pub(crate) const LIVE: u32 = 1 << 22;
/// The port has as many flows as it may have.
pub(crate) const FULL: u32 = 1 << 21;

const BRIDGE_SHIFT: u32 = 12;
pub(crate) const BRIDGE_BITS: u32 = 9;
pub(crate) const BRIDGE: u32 = ((1 << BRIDGE_BITS) - 1) << BRIDGE_SHIFT;
pub(crate) const PROFILE_BITS: u32 = 12;
pub(crate) const PROFILE: u32 = (1 << PROFILE_BITS) - 1;

/// The flow may be live for the end that it went out from, or came in to.
pub(crate) const STARTED_OUT: u32 = 1 << 27;
pub(crate) const STARTED_IN: u32 = 1 << 26;

/// A bridge's number in its place.
pub(crate) fn bridge(number: u16) -> u32 {
    u32::from(number) << BRIDGE_SHIFT
}
