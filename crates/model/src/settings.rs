//! What a host's operator may choose. Every plane installs these; none has its own.

use std::collections::BTreeSet;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    pub elision: Elision,
    pub narrowing: Narrowing,
    pub timeouts: Timeouts,
    pub budgets: Budgets,
    pub inspection: Inspection,
    /// Ethertypes that pass besides IPv4, IPv6, ARP and RARP, in host order.
    pub ethertypes: BTreeSet<u16>,
}

/// Which flows are kept no state for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Elision {
    /// All elidable ones; ICMP errors about them are judged by the packet that they quote.
    #[default]
    On,
    /// Those whose ICMP errors the rules permit anyway.
    Strict,
    /// None.
    Off,
}

/// Where the policy of a packet's receiver on another host is asked, by planes that build tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Inspection {
    /// At the receiver's host, which learns the sender's groups.
    #[default]
    Destination,
    /// At the sender's host, as far as it can know the answer.
    Source,
    /// At both: what the receiver's host would drop isn't sent.
    Both,
}

/// What becomes of open TCP flows that had no state when their class starts to need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Narrowing {
    /// For the established timeout, TCP flows of that port start by SYN only.
    #[default]
    Cut,
    /// The next packet that passes by a rule picks them up.
    Keep,
}

/// Idle times after which a flow is gone, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timeouts {
    pub tcp_opening_s: u32,
    pub tcp_established_s: u32,
    pub tcp_closing_s: u32,
    pub tcp_reset_s: u32,
    pub udp_s: u32,
    /// Once both directions were seen.
    pub udp_replied_s: u32,
    pub icmp_s: u32,
    pub other_s: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_opening_s: 30,
            tcp_established_s: 86_400,
            tcp_closing_s: 120,
            tcp_reset_s: 10,
            udp_s: 30,
            udp_replied_s: 180,
            icmp_s: 30,
            other_s: 600,
        }
    }
}

/// Bounds on the state that guests can make a host keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budgets {
    /// Confirmed flows per port.
    pub flows_per_port: u32,
    /// Half-open flows per port; at the bound the oldest pays. At most 4,096.
    pub half_open_per_port: u32,
    /// Flows on the host.
    pub flows_per_host: u32,
    /// Of the host's flows, those that no other port can take from a port.
    pub reserve_per_port: u32,
    /// ICMP errors about untracked flows, per port and direction in one second.
    pub elided_errors_per_s: u32,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            flows_per_port: 65_536,
            half_open_per_port: 4_096,
            flows_per_host: 4 << 20,
            reserve_per_port: 1_024,
            elided_errors_per_s: 1_000,
        }
    }
}
