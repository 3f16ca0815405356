//! Our tables, in the order of their numbers.
//!
//! ```text
//! 0 Classify        shared with whoever else owns the bridge: what a port of ours sends, what is for one
//! 200 HandOver      from another pipeline of the bridge, to the gate of a port that this has chosen
//! from-port gate    Frame, FromMac FromArp FromClaim FromIp4 FromIp6 FromNd FromNdTarget OutMany OutIdentity,
//!                   Elide State Verdict Passed
//! between them      Tunnel Destination Learned Ahead AheadVerdict Send Enter
//! to-port gate      Frame, ToAddress ToSource ToInfrastructure InIdentity, Elide State Verdict Passed
//! asked by both     OwnMac Own Identity First Walk Remotes Rules
//! at last           Drop
//! ```
//! What is the same at both gates is in the same tables. Those that are asked come back.

/// A table by its name; its number is its place in the list, behind [`FIRST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Classify,
    HandOver,
    FromMac,
    FromArp,
    FromClaim,
    FromIp4,
    FromIp6,
    FromNd,
    FromNdTarget,
    OutMany,
    OutIdentity,
    Tunnel,
    Destination,
    Learned,
    Ahead,
    AheadVerdict,
    Send,
    Enter,
    ToAddress,
    ToSource,
    ToInfrastructure,
    InIdentity,
    Frame,
    Elide,
    State,
    Verdict,
    Passed,
    OwnMac,
    Own,
    Identity,
    First,
    Walk,
    Remotes,
    Rules,
    Drop,
}

/// The first table that is ours alone.
pub(crate) const FIRST: u8 = 200;

impl Table {
    pub const ALL: [Table; 35] = [
        Table::Classify,
        Table::HandOver,
        Table::FromMac,
        Table::FromArp,
        Table::FromClaim,
        Table::FromIp4,
        Table::FromIp6,
        Table::FromNd,
        Table::FromNdTarget,
        Table::OutMany,
        Table::OutIdentity,
        Table::Tunnel,
        Table::Destination,
        Table::Learned,
        Table::Ahead,
        Table::AheadVerdict,
        Table::Send,
        Table::Enter,
        Table::ToAddress,
        Table::ToSource,
        Table::ToInfrastructure,
        Table::InIdentity,
        Table::Frame,
        Table::Elide,
        Table::State,
        Table::Verdict,
        Table::Passed,
        Table::OwnMac,
        Table::Own,
        Table::Identity,
        Table::First,
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
