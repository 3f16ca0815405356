//! The store: what users have asked for, kept as records that change in transactions.
//!
//! Place on the line: use case -> **store commit -> watch** -> inventory.
//!
//! ```text
//! Transaction --commit--> its Revision --watch--> every watcher: whole, in order, once
//!                              |
//!              list, get: one consistent state, with the Revision it is of
//! ```
//! A back end is whatever passes [`suite`]: [`memory`] is the reference, and for tests; [`embedded`] is one
//! file, for one process. Others have their own crate.
//!
//! Knows nothing of: what a record says, the use cases, who watches.

#![forbid(unsafe_code)]

pub mod embedded;
mod error;
mod follow;
mod key;
pub mod memory;
pub mod record;
mod seam;
pub mod suite;
mod transaction;

pub use error::{CommitError, ReadError, TooLarge, WatchEnd};
pub use key::{Key, KeyError, KeyPrefix};
pub use seam::{Change, Event, Listing, Presence, Reader, Record, Store, Watch};
pub use transaction::{
    Condition, MOST_CONDITIONS, MOST_TRANSACTION_BYTES, MOST_VALUE_BYTES, MOST_WRITES, Transaction,
    Value, Write,
};
