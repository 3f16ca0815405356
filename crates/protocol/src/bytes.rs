//! Inventories as bytes: for the agent's cache, to compare two of them from afar, and in pieces.

use crate::messages as m;
use crate::read::Refused;
use crate::{put, read};
use model::{Inventory, InventoryChange, Revision};
use prost::Message;
use sha2::{Digest, Sha256};

#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("these bytes are no inventory: {0}")]
    Damaged(#[from] prost::DecodeError),
    #[error("there is no revision in it")]
    Revision,
}

/// The same bytes for the same inventory, in one build of the program.
pub fn encode(inventory: &Inventory) -> Vec<u8> {
    let kept = m::Kept {
        revision: Some(put::revision(inventory.revision)),
        objects: Some(put::objects(whole(inventory.clone()))),
    };
    kept.encode_to_vec()
}

/// Not sealed: whether these are the bytes that were written is for whoever keeps them.
pub fn decode(bytes: &[u8]) -> Result<(Inventory, Vec<Refused>), DecodeError> {
    let kept = m::Kept::decode(bytes)?;
    let revision = read::revision(kept.revision).ok_or(DecodeError::Revision)?;
    let (change, refused) = read::change(kept.objects.unwrap_or_default());
    let mut inventory = Inventory::default();
    inventory.change(InventoryChange { revision, ..change });
    Ok((inventory, refused))
}

/// Of what is in it, apart from the revision.
pub fn digest(inventory: &Inventory) -> [u8; 32] {
    let mut unnumbered = inventory.clone();
    unnumbered.revision = Revision::default();
    Sha256::digest(encode(&unnumbered)).into()
}

/// Put into nothing, it is this inventory.
pub(crate) fn whole(inventory: Inventory) -> InventoryChange {
    distribution::difference(&Inventory::default(), inventory)
}

/// So much goes in one piece of a whole inventory, or a single object that is larger.
pub(crate) const CHUNK: usize = 64 << 10;

/// An inventory in pieces, each as `Objects` encoded. Groups come before their rules.
pub(crate) fn chunks(inventory: Inventory) -> Vec<Vec<u8>> {
    let mut chunks = Chunks::default();
    let one = m::Objects::default;
    for host in inventory.hosts.into_values() {
        let hosts = vec![put::host_of(host)];
        chunks.add(&m::Objects { hosts, ..one() });
    }
    for network in inventory.networks.into_values() {
        let networks = vec![put::network_of(network)];
        chunks.add(&m::Objects { networks, ..one() });
    }
    for port in inventory.ports.into_values() {
        let ports = vec![put::port_of(port)];
        chunks.add(&m::Objects { ports, ..one() });
    }
    for group in inventory.address_groups.into_values() {
        let address_groups = vec![put::address_group_of(group)];
        chunks.add(&m::Objects {
            address_groups,
            ..one()
        });
    }
    for mut group in inventory.groups.into_values() {
        let id = group.id.to_string();
        let rules = std::mem::take(&mut group.rules);
        let groups = vec![put::group_of(group)];
        chunks.add(&m::Objects { groups, ..one() });
        for rule in rules.into_values() {
            let rules = vec![m::RuleOf {
                group: id.clone(),
                rule: Some(put::rule_of(rule)),
            }];
            chunks.add(&m::Objects { rules, ..one() });
        }
    }
    chunks.0
}

#[derive(Default)]
struct Chunks(Vec<Vec<u8>>);

impl Chunks {
    /// Encodings side by side are the encoding of both.
    fn add(&mut self, single: &m::Objects) {
        let fits = |chunk: &&mut Vec<u8>| chunk.len() + single.encoded_len() <= CHUNK;
        match self.0.last_mut().filter(fits) {
            Some(chunk) => single.encode(chunk).expect("a vector has room"),
            None => self.0.push(single.encode_to_vec()),
        }
    }
}

#[cfg(test)]
mod tests;
