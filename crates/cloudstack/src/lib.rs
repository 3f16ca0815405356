//! What CloudStack's KVM agent says to a host about security groups: one process for each operation,
//! with the command line, the formats and the files of its script `security_group.py`.
//!
//! Place on the line: command line -> **command** -> **state** -> **inventory** -> compile.
//!
//! ```text
//! arguments::parse -> Command --+
//!                               +--> change::apply -> State -> inventory::inventory -> model::Inventory
//! files::load ---------> State -+                       +----> log_files (what the agent asks back)
//! original::recover ---> State -+                       +----> policy_file
//! ```
//! A host that the script itself has programmed is read by `original`; `removal` takes the script's
//! objects away.
//!
//! Pure but for `files`. Whatever is read here is parsed once into types that can't be wrong: text of a
//! tenant never becomes a path, an option of a command, or a line of its own.
//! Knows nothing of: how anything is enforced, which plane does, where files lie, how libvirt is asked.

#![forbid(unsafe_code)]

pub mod addresses;
pub mod arguments;
pub mod change;
pub mod files;
pub mod inventory;
pub mod log_files;
mod names;
pub mod original;
pub mod policy_file;
pub mod removal;
pub mod rules;
mod state;
mod words;

#[cfg(test)]
#[path = "../tests/built/mod.rs"]
mod built;

pub use names::{DeviceName, NameError, Signature, VmName};
pub use state::{Nic, Push, State, StateError, UserVm, Vm, VmKind};
