//! Our tables, in the order in which a packet meets them.
//!
//! ```text
//! 0 Classify        shared with whoever else owns the bridge: what a port of ours sends, what is for one
//! 200 HandOver      from another pipeline of the bridge, to the gate of a port that this has chosen
//! from-port gate    FromFrame FromMac FromArp FromClaim FromIp4 FromIp6 FromNd FromNdTarget
//!                   OutMany OutIdentity OutElide OutState OutVerdict Sent
//! between them      Tunnel TunnelNetwork Destination Learned Ahead AheadVerdict Send Enter
//! to-port gate      ToFrame ToAddress ToSource ToInfrastructure
//!                   InIdentity InElide InState InVerdict Deliver
//! asked by both     Own Identity Walk Remotes Rules
//! at last           Drop
//! ```
//! Those of the gates go in one direction, from lower numbers to higher ones; those that are asked come back.

/// A table by its name; its number is its place in the list, behind [`FIRST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Classify,
    HandOver,
    FromFrame,
    FromMac,
    FromArp,
    FromClaim,
    FromIp4,
    FromIp6,
    FromNd,
    FromNdTarget,
    OutMany,
    OutIdentity,
    OutElide,
    OutState,
    OutVerdict,
    Sent,
    Tunnel,
    TunnelNetwork,
    Destination,
    Learned,
    Ahead,
    AheadVerdict,
    Send,
    Enter,
    ToFrame,
    ToAddress,
    ToSource,
    ToInfrastructure,
    InIdentity,
    InElide,
    InState,
    InVerdict,
    Deliver,
    Own,
    Identity,
    Walk,
    Remotes,
    Rules,
    Drop,
}

/// The first table that is ours alone.
pub(crate) const FIRST: u8 = 200;

impl Table {
    pub const ALL: [Table; 39] = [
        Table::Classify,
        Table::HandOver,
        Table::FromFrame,
        Table::FromMac,
        Table::FromArp,
        Table::FromClaim,
        Table::FromIp4,
        Table::FromIp6,
        Table::FromNd,
        Table::FromNdTarget,
        Table::OutMany,
        Table::OutIdentity,
        Table::OutElide,
        Table::OutState,
        Table::OutVerdict,
        Table::Sent,
        Table::Tunnel,
        Table::TunnelNetwork,
        Table::Destination,
        Table::Learned,
        Table::Ahead,
        Table::AheadVerdict,
        Table::Send,
        Table::Enter,
        Table::ToFrame,
        Table::ToAddress,
        Table::ToSource,
        Table::ToInfrastructure,
        Table::InIdentity,
        Table::InElide,
        Table::InState,
        Table::InVerdict,
        Table::Deliver,
        Table::Own,
        Table::Identity,
        Table::Walk,
        Table::Remotes,
        Table::Rules,
        Table::Drop,
    ];

    pub fn number(self) -> u8 {
        match self {
            Table::Classify => 0,
            other => FIRST + other as u8 - 1,
        }
    }

    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.number() == number)
    }
}
