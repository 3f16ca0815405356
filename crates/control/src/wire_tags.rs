//! Groups' numbers on the wire: which is free, and when one is again.
//!
//! ```text
//! held/tag/N -> group's id | "freed SECONDS"
//! ```
//! A number that was a group's is nobody's for a day: by then no host knows it as that group's.

use crate::depend;
use crate::ids::{Moment, spread};
use crate::objects::Seconds;
use crate::records;
use crate::state::State;
use model::GroupId;
use store::{Condition, Key, Transaction};

const LAST: u16 = u16::MAX;
const REST: Seconds = 24 * 60 * 60;
/// No id has a space.
const FREED: &str = "freed ";

/// `None` once all are given away.
pub(crate) fn allocate(
    transaction: Transaction,
    state: &State,
    now: &Moment,
    group: &GroupId,
) -> (Transaction, Option<u16>) {
    let free = candidates(group).find_map(|tag| {
        let key = key(tag);
        let condition = free(state, now, &key)?;
        let ours = transaction.writes().contains_key(&key);
        (!ours).then_some((tag, key, condition))
    });
    match free {
        Some((tag, key, condition)) => {
            let value = group.as_str().as_bytes();
            let taken = transaction.when(condition).put(key, value);
            let taken = depend::write_mark(taken, records::tags_mark(), now);
            (taken, Some(tag))
        }
        None => (transaction, None),
    }
}

pub(crate) fn release(transaction: Transaction, now: &Moment, tag: u16) -> Transaction {
    transaction.put(key(tag), format!("{FREED}{}", now.at).into_bytes())
}

/// All of them. Where to begin differs, so that servers that create at once seldom meet.
fn candidates(group: &GroupId) -> impl Iterator<Item = u16> {
    let begin = (spread(group.as_str(), "") % u64::from(LAST)) as u16;
    (0..LAST).map(move |step| {
        let tag = (u32::from(begin) + u32::from(step)) % u32::from(LAST) + 1;
        tag as u16
    })
}

/// What must hold for it to be free still.
fn free(state: &State, now: &Moment, key: &Key) -> Option<Condition> {
    let Some(holder) = state.holder(key) else {
        return Some(Condition::Absent(key.clone()));
    };
    let freed: Seconds = holder.object.strip_prefix(FREED)?.parse().ok()?;
    (now.at.saturating_sub(freed) >= REST).then(|| Condition::Unchanged {
        key: key.clone(),
        modified: holder.modified,
    })
}

fn key(tag: u16) -> Key {
    records::held("tag", &tag.to_string())
}
