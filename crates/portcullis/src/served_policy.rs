//! A policy from a server as bytes: for the agent's cache, and for commands that ask the agent for it.
//!
//! ```text
//! MARK | an inventory as the watch protocol encodes it
//! ```
//! No policy file begins with a NUL.

use model::Inventory;

const MARK: &[u8] = b"\0portcullis inventory\n";

pub(crate) fn is_one(bytes: &[u8]) -> bool {
    bytes.starts_with(MARK)
}

pub(crate) fn encode(inventory: &Inventory) -> Vec<u8> {
    [MARK, &protocol::encode(inventory)].concat()
}

/// `None`: it isn't one.
pub(crate) fn decode(bytes: &[u8]) -> Option<Result<Inventory, String>> {
    let encoded = bytes.strip_prefix(MARK)?;
    // What was left out when it came is not in it, so nothing is now.
    let decoded = protocol::decode(encoded).map(|(inventory, _)| inventory);
    Some(decoded.map_err(|error| error.to_string()))
}
