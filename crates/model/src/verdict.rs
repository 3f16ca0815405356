//! What is said about a packet: pass or drop, and why.

use crate::{GroupId, RuleId};
use std::fmt;

/// The stops of a packet, the same in the oracle and in every data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    Hook,
    Parse,
    Guard,
    Conntrack,
    Identity,
    Policy,
    Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass(PassReason),
    Drop(DropReason),
}

impl Verdict {
    pub fn passes(&self) -> bool {
        matches!(self, Verdict::Pass(_))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassReason {
    /// A rule permits it; of several, the least (group, rule).
    Rule(RuleRef),
    /// A reply, or an ICMP error about a tracked flow, whose first packet this rule permits now.
    Live(RuleRef),
    /// An ICMP error about a flow that needs no tracking.
    ElidedError,
    /// A later fragment of a datagram whose first fragment passed.
    Fragment,
    /// ARP, neighbour discovery, DHCP, multicast membership: what a network needs to work.
    Infrastructure,
    /// The port has port security off.
    Unguarded,
}

/// A rule, by group and id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleRef {
    pub group: GroupId,
    pub rule: RuleId,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.rule)
    }
}

macro_rules! drop_reasons {
    ($($number:literal $variant:ident $name:literal $doc:literal,)+) => {
        /// Why a packet was dropped. Numbers and names are stable: counters, events and documents
        /// use them (docs/drop-reasons.md).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason { $(#[doc = $doc] $variant = $number,)+ }

        impl DropReason {
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            pub fn number(self) -> u8 {
                self as u8
            }

            pub fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(DropReason::$variant),)+ _ => None }
            }

            pub fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }

            /// One sentence for people.
            pub fn meaning(self) -> &'static str {
                match self { $(DropReason::$variant => $doc,)+ }
            }
        }
    };
}

drop_reasons! {
    1 NotReady "not-ready" "The device is ours and no policy for it is known yet.",
    2 VlanTag "vlan-tag" "The frame carries an 802.1Q or 802.1ad tag.",
    3 Ethertype "ethertype" "The frame is neither IPv4, IPv6, ARP, RARP nor of a listed ethertype.",
    4 BadHeader "bad-header" "A header is cut short, contradicts itself, routes by source, or stands behind too many others.",
    5 SpoofedMac "spoofed-mac" "The source MAC is not one of the port's.",
    6 SpoofedArp "spoofed-arp" "An ARP or RARP message speaks for an address or MAC that is not the port's.",
    7 SpoofedNd "spoofed-nd" "A neighbour discovery message speaks for an address or MAC that is not the port's.",
    8 RogueRa "rogue-ra" "A router advertisement or redirect from a port that is no router.",
    9 RogueQuery "rogue-query" "A multicast membership query from a port.",
    10 RogueDhcp "rogue-dhcp" "A DHCP server's message from a port that is no DHCP server.",
    11 SpoofedIp "spoofed-ip" "The source address is not the port's, or not with this MAC.",
    12 ForeignDestination "foreign-destination" "The destination address is not the port's.",
    13 Martian "martian" "The source address is one that no packet on the wire may have.",
    14 NoRule "no-rule" "No rule permits it, and it belongs to no live flow.",
    15 FlowBudget "flow-budget" "It needs a flow, and the port's or the host's budget of flows is spent.",
    16 BadFragment "bad-fragment" "A first fragment without its whole headers, or a later one that overlaps them.",
    17 OrphanFragment "orphan-fragment" "A later fragment of a datagram whose first fragment was not passed.",
    18 ErrorRate "error-rate" "More ICMP errors about untracked flows than the port may see in a second.",
    19 UnknownTunnel "unknown-tunnel" "It came through a tunnel from an unknown host, for an unknown network, or without the groups of its source.",
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_to_their_reason() {
        for reason in DropReason::ALL {
            assert_eq!(DropReason::from_number(reason.number()), Some(*reason));
        }
        assert_eq!(DropReason::from_number(0), None);
    }
}
