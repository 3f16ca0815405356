//! The flows that may begin between two ends, and those that may in one policy and not in another.
//!
//! A flow is a kind, a source and a destination address. The source's rules ask for kind and destination, the
//! destination's for kind and source: so of each kind there is a rectangle of them, or nothing.

use super::ends::End;
use super::permits::Permits;
use super::ranges::Ranges;
use model::{Direction, Family};
use std::collections::BTreeMap;

/// Of each of these kinds, from each source to each destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flows {
    pub(super) l4: Ranges,
    pub(super) sources: Ranges,
    pub(super) destinations: Ranges,
}

/// No two overlap, or have the same addresses on both sides.
pub(super) fn between(from: &End<'_>, to: &End<'_>, family: Family) -> Vec<Flows> {
    let leaving = from.permits(Direction::Egress, family);
    let leaving = leaving.with(to.asked(family));
    let entering = to.permits(Direction::Ingress, family);
    let entering = entering.with(from.asked(family));
    both(&leaving, &entering)
}

fn both(leaving: &Permits, entering: &Permits) -> Vec<Flows> {
    let mut flows = Vec::new();
    for out in leaving.iter() {
        for into in entering.iter() {
            flows.push(Flows {
                l4: out.l4.intersection(&into.l4),
                sources: into.addresses.clone(),
                destinations: out.addresses.clone(),
            });
        }
    }
    flows.retain(|flows| !flows.l4.is_empty());
    flows
}

/// What is in `these` and not in `those`, of each kind the sources with the same destinations together: so equal
/// differences have one form.
pub(super) fn only_in(these: &[Flows], those: &[Flows]) -> Vec<Flows> {
    let mut by_addresses: BTreeMap<(Ranges, Ranges), Vec<Ranges>> = BTreeMap::new();
    let mut put = |l4: &Ranges, (sources, destinations): (Ranges, Ranges)| {
        if !(l4.is_empty() || sources.is_empty() || destinations.is_empty()) {
            let same = by_addresses.entry((sources, destinations)).or_default();
            same.push(l4.clone());
        }
    };
    for flows in these {
        let mut rest = flows.l4.clone();
        for other in those {
            let shared = rest.intersection(&other.l4);
            rest = rest.without(&shared);
            rectangles(flows, other).for_each(|part| put(&shared, part));
        }
        put(&rest, (flows.sources.clone(), flows.destinations.clone()));
    }
    by_addresses
        .into_iter()
        .map(|((sources, destinations), l4)| Flows {
            l4: Ranges::union(&l4),
            sources,
            destinations,
        })
        .collect()
}

/// Sources that are new go to all destinations, the others to those that are new.
fn rectangles(these: &Flows, those: &Flows) -> impl Iterator<Item = (Ranges, Ranges)> {
    let destinations = these.destinations.without(&those.destinations);
    if destinations == these.destinations {
        return vec![(these.sources.clone(), destinations)].into_iter();
    }
    let sources = these.sources.without(&those.sources);
    let kept = these.sources.intersection(&those.sources);
    let parts = vec![(sources, these.destinations.clone()), (kept, destinations)];
    parts.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flows(l4: u128, sources: (u128, u128), destinations: (u128, u128)) -> Flows {
        Flows {
            l4: Ranges::one(l4, l4),
            sources: Ranges::one(sources.0, sources.1),
            destinations: Ranges::one(destinations.0, destinations.1),
        }
    }

    #[test]
    fn what_is_only_in_one_is_told_by_source() {
        let check = |these: &[Flows], those: &[Flows], expected: &[Flows]| {
            assert_eq!(only_in(these, those), expected);
        };
        let square = flows(7, (0, 9), (0, 9));
        let same = std::slice::from_ref(&square);
        check(same, same, &[]);
        check(same, &[], same);
        check(&[], same, &[]);
        check(same, &[flows(8, (0, 9), (0, 9))], same);
        // Nothing of it is in the other one, for one side's sake or the other's.
        check(same, &[flows(7, (10, 12), (0, 9))], same);
        check(same, &[flows(7, (0, 9), (10, 12))], same);
        check(
            same,
            &[flows(7, (5, 12), (5, 12))],
            &[flows(7, (0, 4), (0, 9)), flows(7, (5, 9), (0, 4))],
        );
    }
}
