//! The Open vSwitch data plane: security groups as OpenFlow, on hosts whose VMs hang on an OVS bridge.

mod books;
mod cookie;
mod counts;
mod draft;
mod elide;
mod flow_set;
mod flows;
mod limits;
mod names;
mod numbers;
mod place;
mod plan;
mod plane;
mod ranges;
mod records;
mod registers;
mod render;
mod secure;
mod seen;
mod switch;
mod tables;
mod timeouts;
mod trace;

pub use limits::MOST_RECEIVERS;
pub use plane::{CAPABILITIES, OvsConfig, OvsPlane};
pub use render::Forwarding;
pub use tables::Table;
