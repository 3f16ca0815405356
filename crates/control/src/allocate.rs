//! MACs and addresses for ports: which one a port gets that doesn't say.
//!
//! Place on the line: request -> **use case** -> store commit.
//! Where a port begins to look comes from its id. So servers that give away addresses at the same time seldom look at
//! the same one; when they do, the record `held/NETWORK/ADDRESS` can be made once.
//! Knows nothing of: what a port asks for.

use crate::draft::Draft;
use crate::ids::spread;
use crate::objects::{Network, Subnet};
use crate::records;
use crate::subnets::{from_number, number};
use model::{Family, MacAddr, NetworkId, PortId};
use std::net::IpAddr;
use store::Key;

/// In a pool with more addresses, a free one is near.
const MOST_PROBES: u128 = 1 << 20;

/// Of the range that OpenStack's MACs are in: `fa:16:3e`, locally administered.
const MAC_RANGE: [u8; 3] = [0xfa, 0x16, 0x3e];

pub(crate) fn mac_key(network: &NetworkId, mac: MacAddr) -> Key {
    records::held(network.as_str(), &mac.to_string())
}

pub(crate) fn address_key(network: &NetworkId, address: IpAddr) -> Key {
    records::held(network.as_str(), &address.to_string())
}

/// `None`: none is free.
pub(crate) fn free_mac(draft: &Draft, network: &Network, port: &PortId) -> Option<MacAddr> {
    let begin = spread(port.as_str(), "mac");
    let mut probes = (0..1u64 << 24).map(|step| mac(begin.wrapping_add(step)));
    probes.find(|mac| !draft.is_held(&mac_key(&network.id, *mac)))
}

fn mac(number: u64) -> MacAddr {
    let [a, b, c] = MAC_RANGE;
    let [.., d, e, f] = number.to_be_bytes();
    MacAddr([a, b, c, d, e, f])
}

/// `None`: none is free. `taken`: by what isn't written down yet.
pub(crate) fn free_address(
    draft: &Draft,
    subnet: &Subnet,
    port: &PortId,
    taken: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let pools = Pools::of(subnet);
    let begin = u128::from(spread(port.as_str(), &subnet.id)) % pools.size.max(1);
    let probes = 0..pools.size.min(MOST_PROBES);
    probes
        .map(|step| pools.address((begin + step) % pools.size))
        .find(|address| !taken(*address) && !draft.is_held(&address_key(&subnet.network, *address)))
}

/// The addresses of a subnet's pools, in a row.
struct Pools<'a> {
    family: Family,
    pools: &'a [(IpAddr, IpAddr)],
    size: u128,
}

impl<'a> Pools<'a> {
    fn of(subnet: &'a Subnet) -> Self {
        let sizes = subnet.pools.iter().map(size);
        Self {
            family: subnet.prefix.family(),
            pools: &subnet.pools,
            size: sizes.fold(0, u128::saturating_add),
        }
    }

    fn address(&self, mut index: u128) -> IpAddr {
        for pool in self.pools {
            let size = size(pool);
            if index < size {
                return from_number(self.family, number(pool.0) + index);
            }
            index -= size;
        }
        unreachable!("an index is below the size of all pools")
    }
}

fn size((first, last): &(IpAddr, IpAddr)) -> u128 {
    (number(*last) - number(*first)).saturating_add(1)
}
