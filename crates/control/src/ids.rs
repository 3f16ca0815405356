//! Names for new objects, and the time that they get: what a decision needs and mustn't ask the world for.

use crate::objects::Seconds;
use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

thread_local! {
    static TOLD: Cell<Option<Told>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Told {
    seed: u64,
    at: Seconds,
}

/// From now on this thread's decisions are made at this time, and their new names come of the seed: the same each
/// time. For simulations; nobody else may tell names beforehand.
pub fn tell(seed: u64, at: Seconds) {
    TOLD.set(Some(Told { seed, at }));
}

/// When a decision is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub at: Seconds,
}

impl Moment {
    pub(crate) fn now() -> Self {
        if let Some(Told { at, .. }) = TOLD.get() {
            return Self { at };
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            at: since.map_or(0, |since| since.as_secs()),
        }
    }
}

/// A name that nobody has had.
pub fn new_id() -> String {
    let Some(Told { seed, at }) = TOLD.get() else {
        return Uuid::new_v4().to_string();
    };
    // SplitMix64, twice.
    let state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let halves = [state, state.wrapping_add(0x9e37_79b9_7f4a_7c15)].map(mixed);
    tell(halves[1], at);
    let bits = (u128::from(halves[0]) << 64) | u128::from(halves[1]);
    let random = uuid::Builder::from_random_bytes(bits.to_be_bytes());
    random.into_uuid().to_string()
}

fn mixed(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
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
