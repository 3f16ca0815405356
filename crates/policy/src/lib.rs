//! From an inventory to what one host enforces, and questions about policies.
//!
//! Place on the line: inventory -> **compile** -> view. Pure and total: a bad object costs only
//! itself and leaves a finding.
//! Knows nothing of: any data plane, packets in bytes, connections, devices.

mod view;

pub use view::{GroupView, HostView, NetworkView, OwnAddress, PeerView, PortView, RuleView};
