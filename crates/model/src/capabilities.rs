//! What a data plane may lack; the oracle's answer depends on it.

/// What a plane can do on this kernel (docs/semantics.md, Capabilities).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    pub own_flows: bool,
    pub quote_match: bool,
    pub fragment_verdict: bool,
    pub per_end_start: bool,
    pub nd_options: bool,
    pub lenient_ip: bool,
    pub ipv4_options: bool,
    pub extension_chain: bool,
    pub udplite_ports: bool,
    pub dccp_ports: bool,
}

impl Capabilities {
    pub const ALL: Capabilities = Capabilities {
        own_flows: true,
        quote_match: true,
        fragment_verdict: true,
        per_end_start: true,
        nd_options: true,
        lenient_ip: true,
        ipv4_options: true,
        extension_chain: true,
        udplite_ports: true,
        dccp_ports: true,
    };
}
