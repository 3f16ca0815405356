//! Which MAC, fixed addresses and address pairs a port gets for what was asked.
//!
//! Knows nothing of: who asks, and whether he may.

use crate::allocate::{self, address_key, mac_key};
use crate::checks;
use crate::draft::Draft;
use crate::objects::{FixedAddress, FixedAddresses, Network, Pair, Port, Subnet};
use crate::records::{Kept, mark};
use crate::refused::Refused;
use crate::state::{State, Stored};
use crate::subnets::usable;
use model::{Family, MacAddr, PortId, Prefix, PrefixError};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// One of them at least: any address of a subnet, or a certain one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedAddress {
    pub subnet: Option<String>,
    pub address: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedPair {
    /// Or a prefix.
    pub address: String,
    /// `None`: the port's own.
    pub mac: Option<String>,
}

/// Fixed addresses of one port.
const MOST_FIXED: usize = 16;
/// As Neutron's.
const MOST_PAIRS: usize = 10;

pub(super) struct Addressing<'a, 'd> {
    pub(super) draft: &'a mut Draft<'d>,
    pub(super) state: &'a State,
    pub(super) network: &'a Network,
    pub(super) port: &'a PortId,
}

impl Addressing<'_, '_> {
    pub(super) fn mac(&self, asked: Option<&str>) -> Result<MacAddr, Refused> {
        let in_use = |mac: String| Refused::MacAddressInUse {
            network: self.network.id.to_string(),
            mac,
        };
        let Some(text) = asked else {
            let free = allocate::free_mac(self.draft, self.network, self.port);
            return free.ok_or_else(|| in_use("any".to_owned()));
        };
        let mac = checks::mac("mac_address", text)?;
        match self.draft.is_held(&mac_key(&self.network.id, mac)) {
            true => Err(in_use(mac.to_string())),
            false => Ok(mac),
        }
    }

    /// One of each IP version that there are subnets of.
    pub(super) fn usual(&self) -> Result<FixedAddresses, Refused> {
        let mut fixed = Vec::new();
        for family in Family::BOTH {
            let subnets = self.state.subnets_in(&self.network.id);
            let subnets = Vec::from_iter(subnets.filter(|s| s.prefix.family() == family));
            if subnets.is_empty() {
                continue;
            }
            let free = subnets.iter().find_map(|subnet| self.free_in(subnet));
            fixed.push(free.ok_or_else(|| self.exhausted())?);
        }
        Ok(fixed.into())
    }

    /// What the port has `before` it keeps, where that is what is asked.
    pub(super) fn asked(
        &self,
        asked: &[AskedAddress],
        before: &FixedAddresses,
    ) -> Result<FixedAddresses, Refused> {
        if asked.len() > MOST_FIXED {
            let why = format!("at most {MOST_FIXED} are possible");
            return Err(Refused::input("fixed_ips", why));
        }
        // Those that are said first: what is to be found must be another.
        let certain = asked.iter().filter(|asked| asked.address.is_some());
        let mut fixed = Vec::new();
        for asked in certain {
            let found = self.certain(asked, before)?;
            if fixed.contains(&found) {
                let why = format!("{} is given twice", found.address);
                return Err(Refused::input("fixed_ips", why));
            }
            fixed.push(found);
        }
        for asked in asked.iter().filter(|asked| asked.address.is_none()) {
            let id = asked.subnet.as_deref();
            let id = id.ok_or_else(|| {
                Refused::input("fixed_ips", "neither subnet_id nor ip_address is given")
            })?;
            let subnet = self.subnet(id)?;
            fixed.push(self.some_of(subnet, before, &fixed)?);
        }
        Ok(fixed.into())
    }

    fn certain(
        &self,
        asked: &AskedAddress,
        before: &FixedAddresses,
    ) -> Result<FixedAddress, Refused> {
        let text = asked.address.as_deref().unwrap_or_default();
        let address = checks::address("fixed_ips", text)?;
        let subnet = match &asked.subnet {
            Some(id) => self.subnet(id)?,
            None => {
                let mut subnets = self.state.subnets_in(&self.network.id);
                let subnet = subnets.find(|subnet| subnet.prefix.contains(address));
                subnet.ok_or_else(|| Refused::InvalidIpForNetwork(text.to_owned()))?
            }
        };
        let (first, last) = usable(subnet.prefix);
        if !subnet.prefix.contains(address) || address < first || last < address {
            return Err(Refused::InvalidIpForSubnet {
                address: text.to_owned(),
                subnet: subnet.id.to_string(),
            });
        }
        let fixed = FixedAddress {
            subnet: subnet.id.clone(),
            address,
        };
        let held = self.draft.is_held(&address_key(&self.network.id, address));
        if held && !before.contains(&fixed) {
            return Err(Refused::IpAddressAlreadyAllocated {
                address: address.to_string(),
                subnet: subnet.id.to_string(),
            });
        }
        Ok(fixed)
    }

    fn some_of(
        &self,
        subnet: &Subnet,
        before: &FixedAddresses,
        others: &[FixedAddress],
    ) -> Result<FixedAddress, Refused> {
        let mut kept = before.iter();
        let kept = kept.find(|fixed| fixed.subnet == subnet.id && !others.contains(fixed));
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let taken = |address| others.iter().any(|other| other.address == address);
        let free = allocate::free_address(self.draft, subnet, self.port, taken);
        let address = free.ok_or_else(|| self.exhausted())?;
        Ok(FixedAddress {
            subnet: subnet.id.clone(),
            address,
        })
    }

    fn free_in(&self, subnet: &Subnet) -> Option<FixedAddress> {
        let address = allocate::free_address(self.draft, subnet, self.port, |_| false)?;
        Some(FixedAddress {
            subnet: subnet.id.clone(),
            address,
        })
    }

    fn exhausted(&self) -> Refused {
        Refused::IpAddressGenerationFailure(self.network.id.to_string())
    }

    /// Of this network.
    fn subnet(&self, id: &str) -> Result<&Stored<Subnet>, Refused> {
        let subnet = self.state.subnets.get(id);
        let ours = subnet.filter(|subnet| subnet.network == self.network.id);
        ours.ok_or_else(|| Refused::SubnetNotFound(id.to_owned()))
    }

    /// For a port that is new.
    pub(super) fn take(&mut self, mac: MacAddr, fixed: &FixedAddresses) {
        self.take_mac(mac);
        for fixed in fixed.iter() {
            self.take_address(&fixed);
        }
    }

    fn take_mac(&mut self, mac: MacAddr) {
        let network = &self.network.id;
        self.draft.hold(mac_key(network, mac), self.port.as_str());
        self.draft.mark(mark(Network::KIND, network.as_str()));
    }

    fn take_address(&mut self, fixed: &FixedAddress) {
        let key = address_key(&self.network.id, fixed.address);
        self.draft.hold(key, self.port.as_str());
        self.draft
            .mark(mark(Network::KIND, self.network.id.as_str()));
        if let Some(subnet) = self.state.subnets.get(&fixed.subnet) {
            self.draft.depend(subnet);
        }
    }

    /// Frees what the port has no more, takes what it hadn't.
    pub(super) fn change(&mut self, before: &Port, after: &Port) {
        let network = &self.network.id;
        if before.mac != after.mac {
            self.draft.free(mac_key(network, before.mac));
            self.take_mac(after.mac);
        }
        for gone in before.fixed.iter().filter(|f| !after.fixed.contains(f)) {
            self.draft.free(address_key(network, gone.address));
        }
        for new in after.fixed.iter().filter(|f| !before.fixed.contains(f)) {
            self.take_address(&new);
        }
    }
}

pub(super) fn pairs(asked: &[AskedPair], own: MacAddr) -> Result<Box<[Pair]>, Refused> {
    if asked.len() > MOST_PAIRS {
        return Err(Refused::AddressPairsExhausted);
    }
    let mut seen = BTreeSet::new();
    let mut pairs = Vec::new();
    for asked in asked {
        let pair = pair(asked, own)?;
        if !seen.insert(pair.clone()) {
            return Err(Refused::DuplicateAddressPair {
                mac: pair.mac.to_string(),
                prefix: pair.prefix.to_string(),
            });
        }
        pairs.push(pair);
    }
    Ok(pairs.into())
}

/// Host bits are cleared: `10.0.0.5/24` is `10.0.0.0/24`.
fn pair(asked: &AskedPair, own: MacAddr) -> Result<Pair, Refused> {
    let text = &asked.address;
    let bad = |why: String| Refused::input("allowed_address_pairs", why);
    let prefix = match text.parse::<Prefix>() {
        Ok(prefix) | Err(PrefixError::HostBits { meant: prefix }) => prefix,
        Err(PrefixError::Syntax | PrefixError::TooLong { .. }) => {
            return Err(bad(format!("'{text}' is not a valid IP address or CIDR")));
        }
    };
    if prefix.length() > 0 {
        ordinary(prefix.network(), text)?;
    }
    let mac = asked.mac.as_deref();
    let mac = mac.map(|mac| checks::mac("allowed_address_pairs", mac));
    Ok(Pair {
        prefix,
        mac: mac.transpose()?.unwrap_or(own),
    })
}

fn ordinary(address: IpAddr, text: &str) -> Result<(), Refused> {
    checks::address("allowed_address_pairs", &address.to_string()).map_err(|_| {
        let why = format!("'{text}' is IPv4 inside IPv6");
        Refused::input("allowed_address_pairs", why)
    })?;
    Ok(())
}
