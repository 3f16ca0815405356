//! Which flows one inventory permits and another doesn't.
//!
//! Ports are the same by their ids; a port that only one of the two has is compared with nothing, and outside is what
//! is outside in both.
//! Cost: as reach, but of the pairs of ends only those of which at least one has other rules or addresses.

use super::classes::{Class, Likeness, Peers, classes};
use super::ends::{End, ends};
use super::flows::{between, only_in};
use super::{L4Set, Pair, Reach, together};
use model::{Direction, Family, Inventory, PortId, ScopeId};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// By rules of the new inventory.
    pub opened: Vec<Reach>,
    /// By rules of the old one.
    pub closed: Vec<Reach>,
}

pub fn changes(old: &Inventory, new: &Inventory) -> Changes {
    let any = Family::BOTH.map(L4Set::any);
    let (mut before, mut after) = (ends(old, &any), ends(new, &any));
    share_outside(&mut before, &mut after);
    let couples = couples(&before, &after);
    let sides = [&before, &after];
    let alike = |others: Direction| {
        let [old, new] = sides.map(|ends| Peers::of(ends, others));
        classes(
            couples.iter().map(|couple| (couple.port, couple)),
            |couple| {
                let before = couple.before.map(|end| Likeness::of(end, &old));
                let after = couple.after.map(|end| Likeness::of(end, &new));
                (before, after, couple.differs)
            },
        )
    };
    let (from, to) = (alike(Direction::Ingress), alike(Direction::Egress));
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    for from in &from {
        for to in to.iter().filter(|to| from.one.differs || to.one.differs) {
            let before = Meeting::of(from, to, |couple| couple.before);
            let after = Meeting::of(from, to, |couple| couple.after);
            for family in Family::BOTH {
                opened.extend(Meeting::only_in(&after, &before, family));
                closed.extend(Meeting::only_in(&before, &after, family));
            }
        }
    }
    Changes {
        opened: together(opened),
        closed: together(closed),
    }
}

/// An end in both inventories.
struct Couple<'a> {
    port: Option<&'a PortId>,
    before: Option<&'a End<'a>>,
    after: Option<&'a End<'a>>,
    /// It permits something else, has other addresses, or is in one inventory alone.
    differs: bool,
}

fn couples<'a>(before: &'a [End<'a>], after: &'a [End<'a>]) -> Vec<Couple<'a>> {
    let mut found: BTreeMap<Name<'a>, [Option<&'a End<'a>>; 2]> = BTreeMap::new();
    for (place, ends) in [before, after].into_iter().enumerate() {
        for end in ends {
            found.entry(name(end)).or_default()[place] = Some(end);
        }
    }
    let same_rules = RefCell::new(HashMap::new());
    let differ = |old: &End<'_>, new: &End<'_>| {
        let numbers = (old.profile.number, new.profile.number);
        let mut known = same_rules.borrow_mut();
        let same = known.entry(numbers);
        let same = *same.or_insert_with(|| old.profile.permits == new.profile.permits);
        let is_other = |family| old.own(family) != new.own(family);
        !same || old.scope != new.scope || Family::BOTH.into_iter().any(is_other)
    };
    let couples = found
        .into_iter()
        .map(|((port, _), [before, after])| Couple {
            port,
            before,
            after,
            differs: match (before, after) {
                (Some(before), Some(after)) => differ(before, after),
                (Some(_), None) | (None, Some(_)) | (None, None) => true,
            },
        });
    couples.collect()
}

/// Ports by their id, the outside by its scope.
type Name<'a> = (Option<&'a PortId>, Option<&'a ScopeId>);

fn name<'a>(end: &End<'a>) -> Name<'a> {
    let scope = end.port.is_none().then_some(end.scope);
    (end.port, scope)
}

fn share_outside(before: &mut [End<'_>], after: &mut [End<'_>]) {
    for old in before.iter_mut().filter(|end| end.port.is_none()) {
        let mut others = after.iter_mut().filter(|end| end.port.is_none());
        if let Some(new) = others.find(|new| new.scope == old.scope) {
            new.keep_shared(old);
            old.keep_shared(new);
        }
    }
}

/// Two classes in one of the inventories. `None`: one of them isn't in it, or they don't meet there.
struct Meeting<'a>(Option<Pair<'a>>);

impl<'a> Meeting<'a> {
    fn of(
        from: &Class<&'a Couple<'a>>,
        to: &Class<&'a Couple<'a>>,
        side: fn(&Couple<'a>) -> Option<&'a End<'a>>,
    ) -> Self {
        let ends = side(from.one).zip(side(to.one));
        let meeting = ends.filter(|(from, to)| from.may_meet(to));
        let pair = meeting.and_then(|(source, destination)| {
            Pair::of((source, &from.ports), (destination, &to.ports))
        });
        Self(pair)
    }

    fn only_in(these: &Self, those: &Self, family: Family) -> Vec<Reach> {
        let flows = |meeting: &Self| match &meeting.0 {
            Some(pair) => between(pair.from, pair.to, family),
            None => Vec::new(),
        };
        let only = only_in(&flows(these), &flows(those));
        these
            .0
            .iter()
            .flat_map(|pair| pair.told(family, &only))
            .collect()
    }
}
