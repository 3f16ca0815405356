//! The eBPF data plane.

pub mod layout;
