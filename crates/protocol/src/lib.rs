//! The watch protocol: how policy gets from a server to the hosts, and what hosts report.
//!
//! Place on the line: store commit -> **watch** -> inventory -> compile; and back: execute -> **report**.
//! Invariants: an agent replaces what it has only by something whole; its revision never goes back within an epoch;
//! a host is told its own part and no other's; what can't be read is left out on the closed side, and said.
//! Knows nothing of: stores, how policy is compiled or enforced, where certificates lie.

mod bytes;
pub mod ca;
mod carrier;
mod certificate;
mod client;
mod listener;
mod pause;
mod put;
mod read;
mod server;

/// Made from `proto/watch.proto`.
#[allow(clippy::all, unreachable_pub, missing_docs)]
pub mod messages {
    tonic::include_proto!("portcullis.watch.v1");
}

pub use bytes::{DecodeError, decode, digest, encode};
pub use carrier::{Arrived, Carrier, Departed, Departures};
pub use client::{Credentials, Event, FollowConfig, Followed, Timing, follow};
pub use listener::{Ended, Listener};
pub use read::{Kind, Refused};
pub use server::{
    Desk, Elsewhere, Feed, HostStatus, Lag, Limits, Line, Message, MessageKind, Moves, NotTaken,
    PortReport, PortState, Report, ServeError, Watchers, serve,
};

/// Versions of the protocol that this build speaks, both included.
pub const VERSIONS: std::ops::RangeInclusive<u32> = 1..=1;

/// One run of an agent: of two with one host name, the greater one is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// Milliseconds since 1970; not less than that of the run before, even if the clock went back.
    pub started_ms: u64,
    /// At random.
    pub number: u64,
}

/// Of a run of an agent to one server. Of two with one host name the greater is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    pub instance: Instance,
    /// Counts the connections of the run.
    pub turn: u64,
}

/// More than a group with its rules, or an address group, takes: no message is larger.
const LARGEST_MESSAGE: usize = 64 << 20;
