//! OpenFlow 1.4 (version byte 0x05) to one switch over its unix socket: just the messages that the OVS data plane uses.
//!
//! Place on the line: that plane's **read back** and **execute**.
//!
//! A flow that was added is `==` to what is read back, whichever of the encodings the switch
//! prefers: types here are what is meant, and only `codec` knows the bytes. What the crate has no word for (other
//! people's flows) is kept as its bytes, so that reading never fails by it.
//! Knows nothing of: policy, planes, OVSDB, which flows are ours.
//!
//! Source: the OpenFlow 1.4 specification; ovs-fields(7) and ovs-actions(7) for Open vSwitch's extensions.

#![forbid(unsafe_code)]

mod action;
mod codec;
mod connection;
mod error;
mod field;
mod flood;
mod flow;
mod matching;
mod switch;
mod text;
mod value;
mod watch;

pub use action::{Action, Bits, Learn, Port, Source, Spec, Zone};
pub use error::{OfError, Refused};
pub use field::{Field, OtherField};
pub use flood::{FloodPort, no_flood_ports, set_no_flood};
pub use flow::{Change, Filter, Flow, FlowStats, PortDesc, TlvMapping};
pub use matching::{Masked, Match};
pub use switch::{ANSWER_TIMEOUT, Switch};
pub use value::Value;
pub use watch::FlowWatch;
