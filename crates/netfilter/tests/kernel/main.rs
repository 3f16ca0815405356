//! Against the kernel, each test in a network namespace of its own. Needs root.

mod conntrack;
mod elements;
mod generation;
mod ipset;
mod legacy;
mod support;
mod sysctl;
