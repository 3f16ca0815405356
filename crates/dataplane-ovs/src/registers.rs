//! What a packet carries from table to table.
//!
//! ```text
//! metadata   the segment: who hears whom's broadcasts
//! reg0       31..16 network          15..0 the port at whose gate it is: its number, and its zone
//! reg1       flags, below
//! reg2       the rule that permits it
//! reg3       the profile: the list of groups whose rules are asked
//! reg4       31..16 OpenFlow port that it goes to      15..0 address scope
//! reg5       a group of the destination (its own number at the to-port gate, else its tag)
//! reg6       a group of the source (its own number at the from-port gate, else its tag)
//! reg7       an IPv4 address that is asked about; the host that has a MAC; at last the reason of a drop
//! xxreg2     an IPv6 address or, in the 48 bits of xreg4, a MAC that is asked about; the tags of the other side
//! xxreg3     the tags of the source, as they go into a tunnel or come out of one
//! ```
//! A list of tags is eight of 16 bits, the first in the lowest; 0 is none. [`WIDE`] in the first place says
//! that the 32 bits behind it are the number of a longer list.

use openflow::{Bits, Field};

pub(crate) const SEGMENT: Field = Field::Metadata;
pub(crate) const GATE: Field = Field::Reg(0);
pub(crate) const FLAGS: Field = Field::Reg(1);
pub(crate) const RULE: Field = Field::Reg(2);
pub(crate) const PROFILE: Field = Field::Reg(3);
pub(crate) const PLACE: Field = Field::Reg(4);
pub(crate) const TO_GROUP: Field = Field::Reg(5);
pub(crate) const FROM_GROUP: Field = Field::Reg(6);
pub(crate) const ASKED4: Field = Field::Reg(7);
pub(crate) const REASON: Field = Field::Reg(7);
pub(crate) const REMOTE: Field = Field::Reg(7);
pub(crate) const ASKED6: Field = Field::XxReg(2);
pub(crate) const ASKED_MAC: Bits = Bits::new(Field::XReg(4), 0, 48);
pub(crate) const TAGS: Field = Field::XxReg(2);
pub(crate) const SOURCE_TAGS: Field = Field::XxReg(3);

/// The port's number, which is its conntrack zone.
pub(crate) const PORT: Part = Part::new(GATE, 0);
pub(crate) const NETWORK: Part = Part::new(GATE, 16);
pub(crate) const SCOPE: Part = Part::new(PLACE, 0);
pub(crate) const OUT_PORT: Part = Part::new(PLACE, 16);

/// Stands in the first place of a list of tags that is too long to stand there itself.
pub(crate) const WIDE: u16 = 0xffff;
pub(crate) const TAGS_IN_PLACE: usize = 8;

/// 16 bits of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) field: Field,
    pub(crate) start: u16,
}

impl Part {
    const fn new(field: Field, start: u16) -> Self {
        Self { field, start }
    }

    pub(crate) fn bits(self) -> Bits {
        Bits::new(self.field, self.start, 16)
    }

    pub(crate) fn value(self, value: u16) -> u128 {
        u128::from(value) << self.start
    }

    pub(crate) fn mask(self) -> u128 {
        0xffff << self.start
    }
}

/// Bits of reg1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flag(u32);

impl Flag {
    /// At the to-port gate; at the from-port gate.
    pub(crate) const TO_PORT: Flag = Flag(1 << 0);
    pub(crate) const FROM_PORT: Flag = Flag(1 << 19);
    /// A rule permits it, or the first packet of its flow; one of a stateful group does; its flow is live.
    pub(crate) const PERMITTED: Flag = Flag(1 << 1);
    pub(crate) const STATEFUL: Flag = Flag(1 << 2);
    pub(crate) const LIVE: Flag = Flag(1 << 3);
    /// For many receivers: starts no flow.
    pub(crate) const MANY: Flag = Flag(1 << 4);
    /// No state is kept for its flow.
    pub(crate) const ELIDED: Flag = Flag(1 << 5);
    /// The rules are asked about the first packet of its flow, by what the tracker says of that.
    pub(crate) const ABOUT_FIRST: Flag = Flag(1 << 6);
    /// The rules are asked for what comes to the port.
    pub(crate) const TOWARDS: Flag = Flag(1 << 7);
    /// The address that was asked about is the port's own; the MAC is.
    pub(crate) const OWN: Flag = Flag(1 << 8);
    pub(crate) const OWN_MAC: Flag = Flag(1 << 20);
    /// The MAC that is asked about was in an address.
    pub(crate) const DERIVED: Flag = Flag(1 << 21);
    /// What is asked about is an IPv6 address.
    pub(crate) const SIX: Flag = Flag(1 << 9);
    /// The tags of the source came with it.
    pub(crate) const TAGGED: Flag = Flag(1 << 10);
    /// Of the port: may send router advertisements; may answer DHCP; TCP flows start by SYN only.
    pub(crate) const ROUTER: Flag = Flag(1 << 11);
    pub(crate) const DHCP_SERVER: Flag = Flag(1 << 12);
    pub(crate) const HELD: Flag = Flag(1 << 13);

    /// The host of the source has asked the receiver's rules, and they permit it.
    pub(crate) const INSPECTED: Flag = Flag(1 << 14);
    /// To or from a host that knows members by their addresses.
    pub(crate) const PLAIN: Flag = Flag(1 << 15);
    /// By what this host's tracker says: a packet of a flow that the port began, or a reply.
    pub(crate) const FORTH: Flag = Flag(1 << 16);
    pub(crate) const BACK: Flag = Flag(1 << 17);
    /// The rules are asked whether the port may begin what this packet then answers; they say that it may.
    pub(crate) const REVERSED: Flag = Flag(1 << 22);
    pub(crate) const MAY_ANSWER: Flag = Flag(1 << 23);
    /// Of the port: its rules say of each flow who began it.
    pub(crate) const KEEPS_STATE: Flag = Flag(1 << 18);

    pub(crate) fn place(self) -> u16 {
        self.0.trailing_zeros() as u16
    }

    pub(crate) fn bit(self) -> u128 {
        u128::from(self.0)
    }
}
