//! The agent of one host: from a policy and the devices that exist to what the data plane is told.
//!
//! Place on the line: inventory -> compile -> view -> **target** -> (the plane) -> report.
//!
//! ```text
//! policy file, or server --+                                   +--> plane
//! devices -----------------+--> Event --> Agent::step --> Effect --> guard, cache, timers, log
//! timers, asks ------------+        (pure, is told the time)   +--> exit
//! ```
//! Knows nothing of: how any plane works, the policy file's syntax, command lines, packets.

mod agent;
mod arming;
pub mod cache;
pub mod devices;
mod driver;
mod guard;
mod instance;
mod link;
mod matching;
mod pages;
mod report;
pub mod watch;

pub use agent::{Agent, Config, Effect, Encode, Event, Exit, GuardState, PolicyText, Timer};
pub use arming::ArmingTimes;
pub use devices::Link;
pub use driver::{
    Ask, Input, Mailbox, Outcome, Parse, PolicySource, Setup, SetupError, Status, cached_policy,
    drive,
};
pub use guard::{Guard, GuardError};
pub use instance::{Instance, InstanceError, Lock};
pub use matching::{DeviceFinding, Matching, bridges_of, fits, match_devices};
pub use report::{PortState, PortStatus, Progress, Report, Snapshot, Source};
