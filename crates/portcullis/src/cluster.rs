//! The cluster's server, put together: a store, the use cases, the API, the watch service.
//!
//! ```text
//! clients --> api --> control --> store --watch--> control's copy --> feed --> watchers --> agents
//!                                 ^                                                 |
//!                                 +------ what the other servers have to know <-----+
//! ```
//! Knows nothing of: command lines.

mod carry;
pub(crate) mod certificates;
mod enforced;
mod feed;
mod follow;
pub(crate) mod identity;
mod serve;
pub(crate) mod store_choice;
mod told;

pub(crate) use carry::{carrier, depart};
pub(crate) use follow::{Following, follow, report};
pub(crate) use serve::{AgentsTls, Serving, Stop, serve};
