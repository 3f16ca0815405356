//! The agent as a process on the planes that others' programs enforce for: iptables and Open vSwitch, and the
//! latter beside eBPF; and agents that follow a server. VMs are namespaces, the agent is the binary itself in the host's namespace. Needs root,
//! both back ends of iptables, and Open vSwitch.
//!
//! Nothing waits for a time: each step asks until it is as it must be, or a packet is answered.

mod agent;
mod cluster;
mod explaining;
mod iptables;
mod machines;
mod mixed;
mod ovs;
mod server;
