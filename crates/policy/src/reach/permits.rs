//! What the rules of one end permit in one direction: of each kind of flow, with which addresses of the other side.

use super::ranges::Ranges;
use std::collections::BTreeMap;

/// What is permitted with some addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Permitted {
    pub(super) l4: Ranges,
    pub(super) addresses: Ranges,
}

/// Kinds of flows that don't overlap, each with other addresses than the next; in the order of the addresses. Equal
/// permissions have one form, whatever the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Permits(Vec<Permitted>);

impl Permits {
    /// Of rules, by whom they are for. Cost: the sizes of these sets, for each combination of them that some kind of
    /// flow is permitted to.
    pub(super) fn of(rules: &BTreeMap<&Ranges, Ranges>) -> Self {
        let (peers, l4): (Vec<&Ranges>, Vec<Ranges>) =
            rules.iter().map(|(peer, l4)| (*peer, l4.clone())).unzip();
        let mut kinds = BTreeMap::new();
        for (stretch, permitting) in Ranges::stretches(&l4) {
            let same: &mut Vec<_> = kinds.entry(permitting).or_default();
            same.push(stretch);
        }
        let unions = kinds.into_iter().map(|(permitting, l4)| Permitted {
            l4: l4.into_iter().collect(),
            addresses: Ranges::union(permitting.into_iter().map(|peer| peers[peer])),
        });
        unions.collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Permitted> {
        self.0.iter()
    }

    /// Where the other side has these addresses alone.
    pub(super) fn with(&self, addresses: &Ranges) -> Self {
        let with = self.0.iter().map(|permitted| Permitted {
            l4: permitted.l4.clone(),
            addresses: permitted.addresses.intersection(addresses),
        });
        with.collect()
    }
}

/// The kinds of flows don't overlap.
impl FromIterator<Permitted> for Permits {
    fn from_iter<I: IntoIterator<Item = Permitted>>(parts: I) -> Self {
        let mut by_addresses: BTreeMap<Ranges, Vec<Ranges>> = BTreeMap::new();
        for part in parts {
            if !part.addresses.is_empty() && !part.l4.is_empty() {
                by_addresses
                    .entry(part.addresses)
                    .or_default()
                    .push(part.l4);
            }
        }
        let merged = by_addresses.into_iter().map(|(addresses, l4)| Permitted {
            l4: Ranges::union(&l4),
            addresses,
        });
        Self(merged.collect())
    }
}
