//! What names one direction of a connection, also to `dpctl/flush-conntrack`.

use std::net::IpAddr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    pub src: IpAddr,
    pub dst: IpAddr,
    /// 0 if the protocol has none.
    pub sport: u16,
    pub dport: u16,
    pub icmp: Option<Icmp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Icmp {
    pub id: u16,
    pub icmp_type: u8,
    pub code: u8,
}

/// Those that can be named, as the dump calls them.
const PROTOCOLS: [(&str, u8); 6] = [
    ("icmp", 1),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", 33),
    ("sctp", 132),
    ("udplite", 136),
];

impl Tuple {
    /// All of it: with a part left out, others would be meant as well. `None`:
    /// - ICMPv6, and ICMP messages that have no answer. ovs-vswitchd 3.1 looks up what answers the type, among
    ///   those of IPv4, and if it finds none **it aborts**, and its own datapath and all connections with it.
    /// - A port number 0 or an ICMP id 0, which stand for any.
    /// - A protocol that we don't know.
    pub(super) fn to_argument(self, protocol: &str) -> Option<String> {
        let Self { src, dst, .. } = self;
        let (_, number) = PROTOCOLS.iter().find(|(name, _)| *name == protocol)?;
        let l4 = match self.icmp {
            Some(icmp) => icmp.to_argument()?,
            None if self.sport == 0 || self.dport == 0 => return None,
            None => format!("ct_tp_src={},ct_tp_dst={}", self.sport, self.dport),
        };
        let family = if src.is_ipv4() { "ct_nw" } else { "ct_ipv6" };
        Some(format!(
            "{family}_src={src},{family}_dst={dst},ct_nw_proto={number},{l4}"
        ))
    }
}

impl Icmp {
    fn to_argument(self) -> Option<String> {
        let Self {
            id,
            icmp_type,
            code,
        } = self;
        // Echo, timestamp, information.
        let answered = matches!(icmp_type, 0 | 8 | 13..=16);
        (answered && id != 0)
            .then(|| format!("icmp_id={id},icmp_type={icmp_type},icmp_code={code}"))
    }
}
