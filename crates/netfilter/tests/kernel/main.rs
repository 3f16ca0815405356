//! Against the kernel, each test in a network namespace of its own. Needs root.

mod conntrack;
mod generation;
mod ipset;
mod support;
mod sysctl;
