//! What an Open vSwitch instance is asked and told beside OpenFlow: its database, and the control sockets
//! of its daemons. Both speak JSON over unix sockets.
//!
//! Place on the line: a plane's **read back** and **execute**, and its watch for drift.
//!
//! Everything blocks, and waits for at most [`SILENCE`] without a byte from the other end. What that end
//! sends is never trusted to make sense: it leads to an error, not to a panic.
//! Knows nothing of: OpenFlow, policy, planes, which bridges, ports or connections are ours.
//!
//! Why no crate of others for it. Looked at in November 2026: `ovsdb` 0.0.6 and `ovsdb-client` 0.0.1 are
//! beginnings, and want tokio; neither knows the control sockets.
//!
//! Source: RFC 7047; ovs-vswitchd.conf.db(5), ovs-vswitchd(8), ovs-dpctl(8). Tried with Open vSwitch 3.1.

#![forbid(unsafe_code)]

pub mod change;
pub mod conntrack;
mod control;
mod database;
mod rows;
mod stream;
mod value;
mod watch;
pub mod zones;

pub use control::{Control, ControlError, vswitchd_socket};
pub use database::{Database, DatabaseError};
pub use rows::{Bridge, Interface, SwitchPort};
pub use stream::SILENCE;
pub use watch::Watch;
