//! The nouns of Portcullis: what a policy is made of, and what is said about a packet.
//!
//! Place on the lines: everywhere. Every other crate speaks in these types.
//! Knows nothing of: I/O, clocks, randomness, async, any serialization. A type here checks its own
//! validity and no more; whether a group exists, or two ports share an address, is for `policy`.

mod address;
mod capabilities;
mod change;
mod flow;
mod frozen_set;
mod id;
mod inventory;
mod rule;
mod settings;
mod verdict;

pub use address::{Family, MacAddr, Prefix, PrefixError};
pub use capabilities::{Capabilities, Flows, NdOptions};
pub use change::InventoryChange;
pub use flow::{FlowKey, FlowState, IcmpRequest};
pub use frozen_set::FrozenSet;
pub use id::{
    AddressGroupId, GroupId, HostId, NetworkId, PortId, ProjectId, Revision, RuleId, ScopeId,
};
pub use inventory::{
    AddressGroup, AddressPair, DeviceMatch, Host, Inventory, Moving, Network, PeerTrust, Port,
    SecurityGroup,
};
pub use rule::{
    Direction, IcmpKind, L4Match, L4PortRange, Peer, PortedProtocol, PortlessProtocol, Rule,
};
pub use settings::{Budgets, Elision, Inspection, Narrowing, Settings, Timeouts};
pub use verdict::{DropReason, PassReason, RuleRef, Stage, Verdict};
