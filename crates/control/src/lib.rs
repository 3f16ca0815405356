//! What users may do with groups, rules, ports and the rest: the use cases of the cluster's server.
//!
//! Place on the line: request -> **use case -> store commit -> watch** -> inventory.
//!
//! ```text
//! request --> decide (pure, on a copy of the store) --> transaction under conditions --> store
//! ```
//! Knows nothing of: how requests come in and answers go out, hosts' connections, planes.

#![forbid(unsafe_code)]

mod addresses;
mod allocate;
pub mod caller;
mod checks;
mod control;
mod copies;
mod declared;
mod depend;
mod device_id;
mod draft;
mod fixed;
mod groups;
mod hosts;
pub mod ids;
mod inventory;
mod moves;
mod networks;
pub mod objects;
mod once;
mod ports;
mod protocols;
mod quotas;
#[cfg(test)]
mod races;
mod records;
mod refused;
mod rules;
mod settings;
mod sharing;
mod state;
mod subnets;
mod sweep;
mod tags;
mod taken;

mod template;
#[cfg(test)]
mod testing;
mod text;
pub mod told;
#[cfg(test)]
mod trial;
mod wire_tags;

pub use addresses::{AddressesPatch, NewAddresses};
pub use caller::{Caller, Role};
pub use control::{Control, Decided, Observer};
pub use copies::{Copied, Copies, CopyError};
pub use declared::{Declaration, Declared, Kind, Outcome, What};
pub use groups::{GroupPatch, NewGroup};
pub use inventory::{inventory_change, inventory_of};
pub use moves::{Arrived, Departed, MOST_PART_BYTES, MOST_PARTS};
pub use networks::{NetworkPatch, NewNetwork};
pub use ports::{AskedAddress, AskedBinding, AskedOnHost, AskedPair, NewPort, OnHost, PortPatch};
pub use quotas::Check;
pub use records::Kept;
pub use refused::{Failed, OpenError, Refused};
pub use rules::{AskedNumber, NewRule};
pub use sharing::NewShare;
pub use state::{Changed, Differs, Index, Mark, State, Stored, Table};
pub use subnets::{AskedGateway, NewSubnet, SubnetPatch};
pub use tags::Tagged;
pub use template::{NewTemplateRule, PARENT};
