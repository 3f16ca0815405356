//! Names for new objects, and the time that they get: what a decision needs and mustn't ask the world for.

use crate::objects::Seconds;
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// When a decision is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub at: Seconds,
}

impl Moment {
    pub(crate) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            at: since.map_or(0, |since| since.as_secs()),
        }
    }
}

/// A name that nobody has had.
pub fn new_id() -> String {
    Uuid::new_v4().to_string()
}

/// A policy file's rule has its group's name in its id. Keys of the store have room for two ids and some words.
const MOST_ID_BYTES: usize = 200;

/// Whether text from outside may be an id: what else there is has no object.
pub fn is_id(text: &str) -> bool {
    (1..=MOST_ID_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Where to begin to look for what is free: FNV-1a, the same everywhere and always, and well spread by ids that are
/// random.
pub(crate) fn spread(id: &str, salt: &str) -> u64 {
    let bytes = id.bytes().chain(salt.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
