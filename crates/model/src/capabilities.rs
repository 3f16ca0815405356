//! What a data plane may lack; the oracle's answer depends on it.

/// What a plane can do on this kernel (docs/semantics.md, Capabilities).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    pub flows: Flows,
    pub quote_match: bool,
    pub fragment_verdict: bool,
    pub per_end_start: bool,
    pub nd_options: NdOptions,
    pub igmp_types: bool,
    pub link_local_list: bool,
    pub whole_headers: bool,
    pub lenient_ip: bool,
    pub ipv4_options: bool,
    pub extension_chain: bool,
    pub udplite_ports: bool,
    pub dccp_ports: bool,
}

/// Who keeps the flows, and so says what a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flows {
    /// The plane itself, each port's own.
    Own,
    /// Linux's nf_conntrack, one table for the host.
    Netfilter,
    /// The connection tracker of Open vSwitch's userspace datapath, a zone for each port.
    Userspace,
}

/// What a plane sees of the options of neighbour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdOptions {
    /// All of them.
    Walked,
    /// At most three, of 8 bytes each.
    Few,
    /// Fields that a switch has read before: the target, and the link-layer address that fits the message.
    Fields,
}

impl Capabilities {
    pub const ALL: Capabilities = Capabilities {
        flows: Flows::Own,
        quote_match: true,
        fragment_verdict: true,
        per_end_start: true,
        nd_options: NdOptions::Walked,
        igmp_types: true,
        link_local_list: true,
        whole_headers: true,
        lenient_ip: true,
        ipv4_options: true,
        extension_chain: true,
        udplite_ports: true,
        dccp_ports: true,
    };

    pub fn own_flows(&self) -> bool {
        self.flows == Flows::Own
    }
}
