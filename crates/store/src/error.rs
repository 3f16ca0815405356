//! The world refusing. Each variant is something else that the caller can do.
//!
//! Knows nothing of: who is told, and in which words.

use crate::Key;
use crate::transaction::{
    Condition, MOST_CONDITIONS, MOST_TRANSACTION_BYTES, MOST_VALUE_BYTES, MOST_WRITES,
};

/// Why there is no revision for a transaction. But for `Unknown`, nothing of it has happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Read again, decide again. The condition is the first that doesn't hold, where the back end can
    /// tell.
    #[error("somebody else was faster: {}", shown(.0))]
    Conflict(Option<Condition>),
    /// Never possible like that.
    #[error("the transaction is too large: {0}")]
    TooLarge(#[from] TooLarge),
    /// Try again later.
    #[error("the store can't be reached, nothing was changed: {0}")]
    Unavailable(String),
    /// Whole or absent, or still to come: only reading tells. Trying again blindly might do it twice.
    #[error("it isn't known whether the change was made: {0}")]
    Unknown(String),
    /// Reads go on. Somebody has to make room.
    #[error("the store is full, nothing was changed: {0}")]
    Full(String),
    /// Somebody has to look at the store.
    #[error("the store is broken, nothing was changed: {0}")]
    Broken(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    #[error("{0} conditions, at most {MOST_CONDITIONS} are possible")]
    Conditions(usize),
    #[error("{0} writes, at most {MOST_WRITES} are possible")]
    Writes(usize),
    #[error("a value of {bytes} bytes for {key}, at most {MOST_VALUE_BYTES} are possible")]
    Value { key: Key, bytes: usize },
    #[error("{0} bytes in all, at most {MOST_TRANSACTION_BYTES} are possible")]
    Bytes(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Try again later.
    #[error("the store can't be reached: {0}")]
    Unavailable(String),
    /// Somebody has to look at the store.
    #[error("the store is broken: {0}")]
    Broken(String),
}

/// Why a watch says nothing more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// What comes next is forgotten, or this is another epoch: list again, and watch from there. Delete
    /// nothing before.
    #[error("the changes since then are not kept any more")]
    Compacted,
    /// Watch again, from what was seen last.
    #[error("the watch was lost: {0}")]
    Lost(String),
    /// Somebody has to look at the store.
    #[error("the store is broken: {0}")]
    Broken(String),
}

fn shown(condition: &Option<Condition>) -> String {
    match condition {
        Some(condition) => condition.to_string(),
        None => "a condition doesn't hold".to_owned(),
    }
}
