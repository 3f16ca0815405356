//! A port's fixed addresses, and the subnets that they are in.
//!
//! Place on the line: use case -> **store commit -> watch** -> inventory.
//! Shape: a million ports have one or two. The addresses are those that hosts are told of, in memory once, and ports
//! whose addresses are in the same subnets can have the list of these together (once.rs).
//! Invariants: ordered by address, none twice; each has a subnet. A record has a list of [`FixedAddress`].
//! Knows nothing of: which subnets there are.

use crate::objects::FixedAddress;
use arcstr::ArcStr;
use model::FrozenSet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<FixedAddress>", into = "Vec<FixedAddress>")]
pub struct FixedAddresses {
    addresses: FrozenSet<IpAddr>,
    /// Of the addresses one after the other.
    subnets: Arc<Vec<ArcStr>>,
}

impl FixedAddresses {
    pub fn iter(&self) -> impl Iterator<Item = FixedAddress> {
        let both = self.addresses.iter().zip(&*self.subnets);
        both.map(|(address, subnet)| FixedAddress {
            subnet: subnet.clone(),
            address: *address,
        })
    }

    pub fn addresses(&self) -> &FrozenSet<IpAddr> {
        &self.addresses
    }

    pub(crate) fn subnets(&self) -> &[ArcStr] {
        &self.subnets
    }

    pub(crate) fn contains(&self, fixed: &FixedAddress) -> bool {
        self.iter().any(|known| known == *fixed)
    }

    /// Whether the other's subnets are the same; then they are in memory once.
    pub(crate) fn share_subnets(&mut self, other: &Self) -> bool {
        let same = self.subnets == other.subnets;
        if same {
            self.subnets = Arc::clone(&other.subnets);
        }
        same
    }
}

impl FromIterator<FixedAddress> for FixedAddresses {
    fn from_iter<I: IntoIterator<Item = FixedAddress>>(fixed: I) -> Self {
        let fixed = fixed.into_iter();
        let subnets = BTreeMap::from_iter(fixed.map(|fixed| (fixed.address, fixed.subnet)));
        Self {
            addresses: subnets.keys().copied().collect(),
            subnets: Arc::new(subnets.into_values().collect()),
        }
    }
}

impl From<Vec<FixedAddress>> for FixedAddresses {
    fn from(fixed: Vec<FixedAddress>) -> Self {
        fixed.into_iter().collect()
    }
}

impl From<FixedAddresses> for Vec<FixedAddress> {
    fn from(fixed: FixedAddresses) -> Self {
        fixed.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(subnet: &str, address: &str) -> FixedAddress {
        FixedAddress {
            subnet: subnet.into(),
            address: address.parse().expect("an address"),
        }
    }

    #[test]
    fn each_address_keeps_its_subnet() {
        let given = [
            fixed("b", "2001:db8::1"),
            fixed("a", "10.0.0.2"),
            fixed("c", "10.0.0.10"),
        ];
        let addresses = FixedAddresses::from_iter(given.clone());
        let [six, two, ten] = given;
        assert!(addresses.iter().eq([two, ten.clone(), six]));
        assert!(addresses.contains(&ten) && !addresses.contains(&fixed("a", "10.0.0.10")));
    }

    #[test]
    fn only_the_same_subnets_are_shared() {
        let known = FixedAddresses::from_iter([fixed("a", "10.0.0.2")]);
        let mut like = FixedAddresses::from_iter([fixed("a", "10.0.0.3")]);
        let mut other = FixedAddresses::from_iter([fixed("b", "10.0.0.4")]);
        assert!(like.share_subnets(&known) && Arc::ptr_eq(&like.subnets, &known.subnets));
        assert!(!other.share_subnets(&known));
        assert!(like.iter().eq([fixed("a", "10.0.0.3")]));
        assert!(other.iter().eq([fixed("b", "10.0.0.4")]));
    }
}
