//! The kernel's netfilter, asked and told without starting programs: conntrack entries, elements of nftables'
//! sets, ipsets, whether somebody changed the rules.
//!
//! Place on the line: a plane's **read back** and **execute**, and the agent's watch for drift.
//!
//! Everything acts in the network namespace of the calling thread, and opens its own socket there: no
//! function here keeps anything. Nothing waits: the kernel answers netlink requests within `send`,
//! so an answer that isn't there by then never comes, and is an error. Wants CAP_NET_ADMIN.
//! Knows nothing of: policy, planes, which entries, sets or rules are ours.
//!
//! Why no crate of others for it. Looked at in November 2026: `netlink-packet-netfilter` 0.4 knows
//! neither zones nor ICMP; `netlink-bindings` 0.3 and `conntrack` 0.1 only list; `nlink` 0.33 does
//! most of it, on tokio, but not the TCP options and SCTP tags that an entry is re-created with, nor
//! many changes in one message, nor ipsets. Of nftables' sets, `rustables` 0.8 writes neither the end of a
//! range nor where a map leads; `ipset` 0.8 is a wrapper of a C library, a set at a time. What is needed fits
//! in a few hundred lines.

mod codec;
pub mod conntrack;
pub mod elements;
mod error;
pub mod generation;
pub mod ipset;
pub mod legacy;
mod socket;
mod sockopt;
pub mod sysctl;

pub use error::Error;
