//! What is to change in one go, and what must hold for it.
//!
//! Place on the line: use case -> **transaction** -> store commit.
//! Knows nothing of: how a back end judges and writes.

use crate::{Key, KeyPrefix, TooLarge};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// All of it is done, in one commit, if all conditions hold at that moment; else nothing is.
///
/// Shape: one write per key. What changes nothing (no writes, or only deletions of what isn't there) makes
/// no commit, and is answered with the newest revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    conditions: Vec<Condition>,
    writes: BTreeMap<Key, Write>,
}

/// What must hold. The numbers are those of commits, as a record or a listing had them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Absent(Key),
    /// It is there, and nobody has written it since.
    Unchanged {
        key: Key,
        modified: u64,
    },
    /// It is there, and was not deleted and made again since. Its value may be another.
    SameIncarnation {
        key: Key,
        created: u64,
    },
    /// Each record under the prefix was last written at `after` or before. Deletions are not seen by
    /// this: whoever minds them has them write something as well.
    NothingNewUnder {
        prefix: KeyPrefix,
        after: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Put(Value),
    Delete,
}

/// Cheap to clone.
pub type Value = Arc<[u8]>;

/// An etcd transaction has 128 operations, and what it has of conditions it hasn't for writes. With one more that
/// is that back end's own, this leaves it room for [`MOST_WRITES`].
pub const MOST_CONDITIONS: usize = 111;
/// A hundred objects in one go, with what is written beside each.
pub const MOST_WRITES: usize = 1536;
pub const MOST_VALUE_BYTES: usize = 128 * 1024;
/// Keys and values. etcd takes requests of 1.5 MiB.
pub const MOST_TRANSACTION_BYTES: usize = 1024 * 1024;

impl Transaction {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn when(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    pub fn put(mut self, key: Key, value: impl Into<Value>) -> Self {
        self.writes.insert(key, Write::Put(value.into()));
        self
    }

    pub fn delete(mut self, key: Key) -> Self {
        self.writes.insert(key, Write::Delete);
        self
    }

    /// Others in place of its conditions.
    pub fn only_when(mut self, conditions: Vec<Condition>) -> Self {
        self.conditions = conditions;
        self
    }

    /// Takes away what was announced, unless somebody else has the key by now.
    pub(crate) fn withdraw(key: &Key, modified: u64) -> Self {
        let key = key.clone();
        let ours = Condition::Unchanged {
            key: key.clone(),
            modified,
        };
        Self::new().when(ours).delete(key)
    }

    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    pub fn writes(&self) -> &BTreeMap<Key, Write> {
        &self.writes
    }

    /// The bounds are the same on every back end, so that what is tried on one works on the others.
    pub fn check_size(&self) -> Result<(), TooLarge> {
        if self.conditions.len() > MOST_CONDITIONS {
            return Err(TooLarge::Conditions(self.conditions.len()));
        }
        if self.writes.len() > MOST_WRITES {
            return Err(TooLarge::Writes(self.writes.len()));
        }
        for (key, write) in &self.writes {
            if write.bytes() > MOST_VALUE_BYTES {
                let (key, bytes) = (key.clone(), write.bytes());
                return Err(TooLarge::Value { key, bytes });
            }
        }
        let bytes = self.bytes();
        if bytes > MOST_TRANSACTION_BYTES {
            return Err(TooLarge::Bytes(bytes));
        }
        Ok(())
    }

    /// Of keys and values, those of the conditions as well.
    pub(crate) fn bytes(&self) -> usize {
        let conditions = self.conditions.iter().map(Condition::bytes);
        let writes = self.writes.iter();
        let writes = writes.map(|(key, write)| key.as_str().len() + write.bytes());
        conditions.chain(writes).sum()
    }
}

impl Condition {
    fn bytes(&self) -> usize {
        match self {
            Self::Absent(key) | Self::Unchanged { key, .. } | Self::SameIncarnation { key, .. } => {
                key.as_str().len()
            }
            Self::NothingNewUnder { prefix, .. } => prefix.as_str().len(),
        }
    }
}

impl Write {
    fn bytes(&self) -> usize {
        match self {
            Self::Put(value) => value.len(),
            Self::Delete => 0,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(key) => write!(f, "{key} is there"),
            Self::Unchanged { key, modified } => {
                write!(f, "{key} is not as it was written by commit {modified}")
            }
            Self::SameIncarnation { key, created } => {
                write!(f, "{key} is not the one that commit {created} made")
            }
            Self::NothingNewUnder { prefix, after } => {
                write!(f, "something under {prefix} is newer than commit {after}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        Key::new(&format!("k/{n:04}")).expect("a key")
    }

    fn puts(count: usize, bytes: usize) -> Transaction {
        (0..count).fold(Transaction::new(), |t, n| t.put(key(n), vec![0; bytes]))
    }

    fn conditions(count: usize) -> Transaction {
        (0..count).fold(Transaction::new(), |t, n| t.when(Condition::Absent(key(n))))
    }

    fn check(transaction: &Transaction, expected: Result<(), TooLarge>) {
        assert_eq!(transaction.check_size(), expected);
    }

    #[test]
    fn the_bounds_are_what_they_say() {
        check(&puts(1536, 1), Ok(()));
        check(&puts(1537, 1), Err(TooLarge::Writes(1537)));
        check(&conditions(111), Ok(()));
        check(&conditions(112), Err(TooLarge::Conditions(112)));
        check(&puts(1, MOST_VALUE_BYTES), Ok(()));
        let bytes = MOST_VALUE_BYTES + 1;
        check(&puts(1, bytes), Err(TooLarge::Value { key: key(0), bytes }));
        // Keys of six bytes.
        check(&puts(1024, 1024 - 6), Ok(()));
        check(&puts(1024, 1024), Err(TooLarge::Bytes(1024 * 1030)));
    }
}
