//! In which order rules get other ids, while each goes on to be said by some rule.
//!
//! A rule that is put in before others moves all of their numbers. If that is more than one commit holds, a number is
//! given to what is to have it only when what it stood for has another.
//! Knows nothing of: what rules say.

use model::RuleId;
use std::collections::{BTreeMap, HashMap};

/// An id, and what is said under it from now on; `None`: it goes.
pub(super) type Move = (RuleId, Option<String>);

/// `before` says nothing that isn't said `after`. What is said in a ring has a moment in which it isn't said.
pub(super) fn moves(
    before: &BTreeMap<RuleId, String>,
    after: &BTreeMap<RuleId, String>,
) -> Vec<Move> {
    let mut now = before.clone();
    let mut said: HashMap<&str, usize> = HashMap::new();
    for content in before.values() {
        *said.entry(content).or_default() += 1;
    }
    let differs = after
        .iter()
        .filter(|(id, says)| before.get(*id) != Some(says));
    let mut left: Vec<(&RuleId, &String)> = differs.collect();
    let mut moves = Vec::new();
    while !left.is_empty() {
        let many = left.len();
        // Numbers move up or down: one direction or the other gets through at once.
        left.reverse();
        left.retain(|(id, says)| {
            let old = now.get(*id).map(String::as_str);
            let free = old.is_none_or(|old| said[old] > 1);
            if free {
                place(&mut now, &mut said, id, says);
                moves.push(((*id).clone(), Some((*says).clone())));
            }
            !free
        });
        if left.len() == many {
            let (id, says) = left.pop().expect("the loop goes on while there is one");
            place(&mut now, &mut said, id, says);
            moves.push((id.clone(), Some(says.clone())));
        }
    }
    let gone = before.keys().filter(|id| !after.contains_key(*id));
    moves.extend(gone.map(|id| (id.clone(), None)));
    moves
}

fn place<'a>(
    now: &mut BTreeMap<RuleId, String>,
    said: &mut HashMap<&'a str, usize>,
    id: &RuleId,
    says: &'a str,
) {
    if let Some(old) = now.insert(id.clone(), says.to_owned())
        && let Some(count) = said.get_mut(old.as_str())
    {
        *count -= 1;
    }
    *said.entry(says).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(said: &[(&str, &str)]) -> BTreeMap<RuleId, String> {
        let said = said.iter();
        said.map(|(id, says)| (RuleId::from(*id), (*says).to_owned()))
            .collect()
    }

    /// `lost`: how many are unsaid at some moment.
    fn check(before: &[(&str, &str)], after: &[(&str, &str)], lost: usize) {
        let (before, after) = (rules(before), rules(after));
        let mut now = before.clone();
        let mut most = 0;
        for (id, says) in moves(&before, &after) {
            match says {
                Some(says) => now.insert(id, says),
                None => now.remove(&id),
            };
            let said = |content: &&String| now.values().any(|now| now == *content);
            most = most.max(before.values().filter(|c| !said(c)).count());
        }
        assert_eq!(now, after);
        assert_eq!(most, lost, "{before:?} {after:?}");
    }

    #[test]
    fn what_is_said_goes_on_to_be() {
        check(&[], &[("1", "a")], 0);
        check(
            &[("1", "a"), ("2", "b")],
            &[("1", "x"), ("2", "a"), ("3", "b")],
            0,
        );
        check(&[("2", "b"), ("3", "c")], &[("1", "b"), ("2", "c")], 0);
        check(&[("1", "a"), ("9", "a")], &[("1", "a")], 0);
        check(&[("1", "a"), ("2", "b")], &[("1", "b"), ("2", "a")], 1);
        let ring = [("1", "b"), ("2", "c"), ("3", "a"), ("4", "x"), ("5", "d")];
        check(&[("1", "a"), ("2", "b"), ("3", "c"), ("4", "d")], &ring, 1);
    }
}
