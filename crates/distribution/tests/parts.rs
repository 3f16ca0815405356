//! A host's part is what the host needs, whichever way it came.

mod support;

use distribution::{Distribution, difference, merge};
use model::{HostId, Inventory, InventoryChange};
use policy::{Finding, compile};
use std::collections::BTreeMap;
use support::{Dice, HOSTS, change, inventory};

const SEEDS: u64 = 400;

/// Hosts come and go; each change is followed by a look at all parts.
struct Cloud {
    whole: Inventory,
    distribution: Distribution,
    parts: BTreeMap<HostId, Inventory>,
}

impl Cloud {
    fn new(dice: &mut Dice) -> Self {
        let whole = inventory(dice);
        let mut distribution = Distribution::default();
        assert!(distribution.replace(whole.clone()).is_empty());
        let parts = HOSTS.map(HostId::from).into_iter();
        let parts = parts.map(|host| (host.clone(), distribution.subscribe(&host)));
        Self {
            parts: parts.collect(),
            whole,
            distribution,
        }
    }

    fn change(&mut self, dice: &mut Dice) {
        let change = change(dice, &self.whole);
        self.whole.change(change.clone());
        let messages = match dice.chance(10) {
            true => self.distribution.replace(self.whole.clone()),
            false => self.distribution.change(change),
        };
        for (host, message) in messages {
            assert!(!message.is_empty(), "{host} hears nothing new");
            assert_eq!(message.revision, self.whole.revision);
            let part = self.parts.get_mut(&host).expect("only who follows hears");
            let before = part.clone();
            part.change(message);
            assert_ne!(
                without_revision(before),
                without_revision(part.clone()),
                "{host}"
            );
        }
        let host = HostId::from(dice.pick(&HOSTS));
        if dice.chance(10) {
            self.distribution.unsubscribe(&host);
            self.parts.remove(&host);
        } else if dice.chance(20) {
            let part = self.distribution.subscribe(&host);
            self.parts.insert(host, part);
        }
    }

    fn check(&mut self, context: &str) {
        for (host, part) in &mut self.parts {
            part.revision = self.whole.revision;
            let mut anew = Distribution::default();
            anew.replace(self.whole.clone());
            assert_eq!(
                *part,
                anew.subscribe(host),
                "{context}, {host}: kept and made anew"
            );
            let (seen, findings) = compile(part, host);
            let (expected, known) = compile(&self.whole, host);
            assert_eq!(seen, expected, "{context}, {host}: the view");
            // What isn't told is no finding. Of three that are the same, the first two may be others here.
            let is_known = |finding: &Finding| {
                let same = |other: &Finding| match finding.code().starts_with("duplicate-") {
                    true => other.code() == finding.code(),
                    false => other == finding,
                };
                known.iter().any(same)
            };
            let made_up = findings.iter().find(|finding| !is_known(finding));
            assert_eq!(made_up, None, "{context}, {host}");
        }
    }
}

fn without_revision(mut part: Inventory) -> Inventory {
    part.revision = Default::default();
    part
}

#[test]
fn parts_kept_are_parts_made_anew_and_compile_to_the_same_view() {
    for seed in 0..SEEDS {
        let mut dice = Dice(seed);
        let mut cloud = Cloud::new(&mut dice);
        cloud.check(&format!("seed {seed} at first"));
        for step in 0..40 {
            cloud.change(&mut dice);
            cloud.check(&format!("seed {seed} step {step}"));
        }
    }
}

#[test]
fn a_merged_change_does_what_both_did() {
    let (mut merged, mut apart) = (0, 0);
    for seed in 0..4_000 {
        let mut dice = Dice(seed);
        let mut one_by_one = inventory(&mut dice);
        let mut at_once = one_by_one.clone();
        let mut first = InventoryChange::default();
        for _ in 0..6 {
            let mut next = change(&mut dice, &one_by_one);
            let known = |group: &_| one_by_one.groups.contains_key(group);
            next.rules.retain(|of, _| known(&of.group));
            one_by_one.change(next.clone());
            match merge(&mut first, next) {
                Ok(()) => merged += 1,
                Err(next) => {
                    apart += 1;
                    at_once.change(std::mem::replace(&mut first, *next));
                }
            }
        }
        at_once.change(first);
        assert_eq!(at_once, one_by_one, "seed {seed}");
    }
    assert!(merged > 10 * apart && apart > 0, "{merged} {apart}");
}

#[test]
fn a_difference_leads_from_one_to_the_other() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let (old, new) = (inventory(&mut dice), inventory(&mut dice));
        let mut changed = old.clone();
        changed.change(difference(&old, new.clone()));
        assert_eq!(changed, new, "seed {seed}");
        assert!(difference(&new, new.clone()).is_empty());
    }
}
