//! Whether the rules of nftables changed.
//!
//! Place on the line: read back, as the question whether to read back at all.
//!
//! The kernel numbers the rulesets of a namespace: each transaction of anybody that changes something,
//! by `nft`, `iptables-nft` or `ebtables-nft`, makes the next one. Traffic that adds to sets, and
//! elements that expire, don't. After a number, "nothing changed" is certain only if it is the same *and*
//! the namespace is: each counts on its own.
//!
//! Source: linux/netfilter/nf_tables.h.

use crate::Error;
use crate::codec::{AF_UNSPEC, Requests, find, u32_value};
use crate::socket::Socket;

/// The number of the ruleset in force.
pub fn nft() -> Result<u32, Error> {
    let question = Requests::one(NFT_MSG_GETGEN, 0, AF_UNSPEC, |_| {});
    Socket::open()
        .and_then(|mut socket| {
            socket.ask(question, |_, answer| u32_value(find(answer, NFTA_GEN_ID)?))
        })
        .map_err(|e| Error::new("asking for the generation of the nftables ruleset", e))
}

const NFT_MSG_GETGEN: u16 = 10 << 8 | 16;
const NFTA_GEN_ID: u16 = 1;
