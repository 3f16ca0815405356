//! From an inventory to what one host enforces, and questions about policies.
//!
//! Place on the line: inventory -> **compile** -> view. Pure and total: a bad object costs only
//! itself and leaves a finding.
//! Knows nothing of: any data plane, packets in bytes, connections, devices.

mod compile;
mod compiler;
mod differing;
mod dump;
mod elision;
mod finding;
mod overlay;
mod prefix_set;
mod reach;
mod shared_set;
mod view;

pub use compile::compile;
pub use compiler::Compiler;
pub use differing::{differing, touched_groups};
pub use elision::{ElisionChange, becomes_elidable, elidable, permitting, stops_being_elidable};
pub use finding::Finding;
pub use overlay::{
    OPTION_BYTES, OPTION_CLASS, OPTION_TYPE, OverlayNetwork, OverlayView, PeerHost, RemotePort,
    SHORT,
};
pub use prefix_set::{contains, covers};
pub use reach::{
    AddressSet, By, Changes, L4Part, L4Set, Party, Question, Reach, Who, changes, reach,
};
pub use shared_set::SharedSet;
pub use view::{GroupView, HostView, NetworkView, OwnAddress, PeerView, PortView, RuleView};
