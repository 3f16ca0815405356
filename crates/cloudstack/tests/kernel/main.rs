//! The script's objects in a kernel's own tables, by both back ends of iptables; needs root.

#[path = "../built/mod.rs"]
mod built;
mod host;
mod release;
mod removal;
