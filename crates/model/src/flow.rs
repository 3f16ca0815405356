//! A tracked flow's name and state.

use std::net::IpAddr;

/// Names a flow of one port, seen from the port: which end is local doesn't change with direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    pub protocol: u8,
    pub local: IpAddr,
    pub remote: IpAddr,
    /// Transport ports where the protocol has them; for ICMP the identifier (in both); else 0.
    pub local_l4: u16,
    pub remote_l4: u16,
    /// ICMP only: what was asked and by whom, so that the two ends can use one identifier at once.
    pub icmp: Option<IcmpRequest>,
}

/// The request that an ICMP flow consists of. The local end asked iff `by_local`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IcmpRequest {
    /// 8 or 13 (IPv4), 128 (IPv6).
    pub icmp_type: u8,
    pub by_local: bool,
}

/// How far a flow has come; decides its idle timeout and which budget it counts in.
///
/// ```text
/// TCP    SYN, or ACK in mid-stream -> Opening -> ACK after the other end was seen -> Established
///        any state -> RST -> Reset;   Established or Opening -> FIN from both ends -> Closing
///        Closing or Reset -> SYN that a rule permits -> Opening, in that SYN's direction
/// others first packet -> Opening -> first reply -> Established
/// ```
/// A flow is half-open until it is first established, and counts in that budget; then in the port's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlowState {
    Opening,
    Established,
    Closing,
    Reset,
}
