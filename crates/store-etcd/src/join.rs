//! Several transactions as one that does for each of them what it would have done alone.
//!
//! Place on the line: transaction -> **store commit**.
//!
//! What one asks, no other writes; and what several write, they write alike. So in whatever order they had been done,
//! one by one, each would have been judged the same, and the same would be there afterwards. What they write alike is
//! written once, with the revision of all.
//!
//! Knows nothing of: who waits for them, what becomes of them.

use std::collections::{BTreeMap, BTreeSet};
use store::{Condition, Key, KeyPrefix, MOST_CONDITIONS, Transaction, Write};

pub(crate) struct Join {
    /// Each once.
    conditions: Vec<Condition>,
    /// What they are about.
    asked: BTreeSet<Key>,
    asked_under: BTreeSet<KeyPrefix>,
    writes: BTreeMap<Key, Write>,
    /// Of the writes.
    bytes: usize,
}

/// One transaction may be larger by itself: these are so that few never wait for many.
const MOST_WRITES_TOGETHER: usize = 112;
const MOST_BYTES_TOGETHER: usize = 256 * 1024;

impl Join {
    pub(crate) fn of(first: &Transaction) -> Self {
        let mut join = Self {
            conditions: Vec::new(),
            asked: BTreeSet::new(),
            asked_under: BTreeSet::new(),
            writes: BTreeMap::new(),
            bytes: 0,
        };
        join.add(first);
        join
    }

    /// Whether it was possible.
    pub(crate) fn take(&mut self, other: &Transaction) -> bool {
        let possible = self.has_room_for(other) && self.is_apart_from(other);
        if possible {
            self.add(other);
        }
        possible
    }

    pub(crate) fn transaction(self) -> Transaction {
        let all = Transaction::new().only_when(self.conditions);
        self.writes
            .into_iter()
            .fold(all, |all, (key, write)| match write {
                Write::Put(value) => all.put(key, value),
                Write::Delete => all.delete(key),
            })
    }

    fn has_room_for(&self, other: &Transaction) -> bool {
        self.conditions.len() + other.conditions().len() <= MOST_CONDITIONS
            && self.writes.len() + other.writes().len() <= MOST_WRITES_TOGETHER
            && self.bytes + bytes(other) <= MOST_BYTES_TOGETHER
    }

    fn is_apart_from(&self, other: &Transaction) -> bool {
        let writes_apart = other.writes().iter().all(|(key, write)| {
            let alike = self.writes.get(key).is_none_or(|ours| ours == write);
            alike && !self.asks(key)
        });
        writes_apart && !other.conditions().iter().any(|asked| self.is_asked(asked))
    }

    /// Whether what is there at the key matters to a condition.
    fn asks(&self, key: &Key) -> bool {
        let under = &self.asked_under;
        self.asked.contains(key) || under.iter().any(|prefix| prefix.contains(key))
    }

    /// Whether a write of ours matters to the condition.
    fn is_asked(&self, condition: &Condition) -> bool {
        match about(condition) {
            About::Key(key) => self.writes.contains_key(key),
            About::Prefix(prefix) => self.writes.keys().any(|key| prefix.contains(key)),
        }
    }

    fn add(&mut self, other: &Transaction) {
        for condition in other.conditions() {
            if self.conditions.contains(condition) {
                continue;
            }
            match about(condition) {
                About::Key(key) => self.asked.insert(key.clone()),
                About::Prefix(prefix) => self.asked_under.insert(prefix.clone()),
            };
            self.conditions.push(condition.clone());
        }
        self.bytes += bytes(other);
        let writes = other.writes().iter();
        self.writes
            .extend(writes.map(|(key, write)| (key.clone(), write.clone())));
    }
}

enum About<'a> {
    Key(&'a Key),
    Prefix(&'a KeyPrefix),
}

fn about(condition: &Condition) -> About<'_> {
    match condition {
        Condition::Absent(key)
        | Condition::Unchanged { key, .. }
        | Condition::SameIncarnation { key, .. } => About::Key(key),
        Condition::NothingNewUnder { prefix, .. } => About::Prefix(prefix),
    }
}

fn bytes(transaction: &Transaction) -> usize {
    let writes = transaction.writes().iter();
    let each = writes.map(|(key, write)| {
        key.as_str().len()
            + match write {
                Write::Put(value) => value.len(),
                Write::Delete => 0,
            }
    });
    each.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).expect("a key")
    }

    fn put(at: &str, value: &str) -> Transaction {
        Transaction::new().put(key(at), value.as_bytes())
    }

    fn absent(at: &str) -> Condition {
        Condition::Absent(key(at))
    }

    fn same(at: &str) -> Condition {
        let key = key(at);
        Condition::SameIncarnation { key, created: 7 }
    }

    fn none_newer(under: &str) -> Condition {
        let prefix = KeyPrefix::new(under).expect("a prefix");
        Condition::NothingNewUnder { prefix, after: 7 }
    }

    /// In both orders.
    fn check(a: &Transaction, b: &Transaction, expected: bool) {
        assert_eq!(Join::of(a).take(b), expected, "{a:?}\n{b:?}");
        assert_eq!(Join::of(b).take(a), expected, "{b:?}\n{a:?}");
    }

    #[test]
    fn those_that_have_nothing_to_do_with_each_other_are_joined() {
        let a = put("a", "1").when(absent("a")).when(same("group"));
        let b = put("b", "2").when(absent("b")).when(same("group"));
        check(&a, &b, true);
        let mut join = Join::of(&a);
        assert!(join.take(&b));
        let both = put("a", "1").put(key("b"), *b"2");
        let both = both.when(absent("a")).when(same("group")).when(absent("b"));
        assert_eq!(join.transaction(), both);
    }

    #[test]
    fn what_one_asks_no_other_writes() {
        check(&put("a", "1").when(absent("b")), &put("b", "2"), false);
        let gone = Transaction::new().delete(key("b"));
        check(&put("a", "1").when(same("b")), &gone, false);
        let under = put("a", "1").when(none_newer("k/"));
        check(&under, &put("k/1", "2"), false);
        check(&under, &put("l/1", "2"), true);
        // Each asks what it writes itself: so it does of the other's.
        let both = put("a", "1").when(absent("a"));
        check(&both, &both, false);
    }

    #[test]
    fn what_several_write_they_write_alike() {
        let mark = |value: &str| put("mark", value);
        check(&mark("1"), &mark("1"), true);
        check(&mark("1"), &mark("2"), false);
        let gone = Transaction::new().delete(key("mark"));
        check(&gone, &gone, true);
        check(&gone, &mark("1"), false);
    }

    #[test]
    fn those_who_came_first_have_their_say_in_who_comes_third() {
        let mut join = Join::of(&put("a", "1").when(same("x")));
        assert!(join.take(&put("b", "1").when(none_newer("k/"))));
        assert!(!join.take(&put("x", "1")));
        assert!(!join.take(&put("k/1", "1")));
        assert!(!join.take(&put("c", "1").when(absent("b"))));
        assert!(join.take(&put("c", "1")), "nothing was left by the refused");
    }

    #[test]
    fn the_bounds_are_what_they_say() {
        let puts = |from: usize, count: usize, bytes: usize| {
            (from..from + count).fold(Transaction::new(), |t, n| {
                t.put(key(&format!("k/{n:04}")), vec![b'x'; bytes])
            })
        };
        check(&puts(0, 100, 1), &puts(100, 12, 1), true);
        check(&puts(0, 100, 1), &puts(100, 13, 1), false);
        // Keys of six bytes.
        check(&puts(0, 1, 131_066), &puts(1, 1, 131_066), true);
        check(&puts(0, 1, 131_066), &puts(1, 1, 131_067), false);
        let asks = |from: usize, count: usize| {
            (from..from + count).fold(Transaction::new(), |t, n| t.when(absent(&format!("a/{n}"))))
        };
        check(&asks(0, 100), &asks(100, 11), true);
        check(&asks(0, 100), &asks(100, 12), false);
    }
}
