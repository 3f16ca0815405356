//! Messages that keep a network working: neighbour discovery, multicast membership, DHCP.

use super::bytes::Put;
use super::{Builder, Extension, Ip};
use model::MacAddr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Neighbour discovery options of a link-layer address.
pub const SOURCE_LINK_LAYER: u8 = 1;
pub const TARGET_LINK_LAYER: u8 = 2;

impl Builder<Ip> {
    /// A neighbour solicitation, with hop limit 255 and no options yet; so are the four below.
    pub fn neighbour_solicitation(self, target: Ipv6Addr) -> Self {
        self.nd(135, [0; 4], &target.octets())
    }

    /// Solicited and overriding.
    pub fn neighbour_advertisement(self, target: Ipv6Addr) -> Self {
        self.nd(136, [0x60, 0, 0, 0], &target.octets())
    }

    pub fn router_solicitation(self) -> Self {
        self.nd(133, [0; 4], &[])
    }

    /// Hop limit 64, a lifetime of 30 minutes, timers unspecified.
    pub fn router_advertisement(self) -> Self {
        self.nd(134, [64, 0, 7, 8], &[0; 8])
    }

    /// Says that `destination` is better reached by way of `target`.
    pub fn redirect(self, target: Ipv6Addr, destination: Ipv6Addr) -> Self {
        let both = [target.octets(), destination.octets()].concat();
        self.nd(137, [0; 4], &both)
    }

    fn nd(self, icmp_type: u8, rest: [u8; 4], body: &[u8]) -> Self {
        self.hops(255).icmp(icmp_type, 0, rest).payload(body)
    }

    /// Adds a neighbour discovery option; zeros fill it up to a multiple of 8 bytes.
    pub fn nd_option(mut self, kind: u8, body: &[u8]) -> Self {
        let length = (2 + body.len()).next_multiple_of(8);
        let payload = &mut self.content.payload;
        let end = payload.len() + length;
        payload.put(&[kind, (length / 8) as u8]);
        payload.put(body);
        payload.resize(end, 0);
        self
    }

    /// Adds a link-layer address option: [`SOURCE_LINK_LAYER`] or [`TARGET_LINK_LAYER`].
    pub fn nd_link_layer(self, kind: u8, mac: MacAddr) -> Self {
        self.nd_option(kind, &mac.0)
    }

    /// Adds bytes as they are, such as an option whose length is wrong.
    pub fn append(mut self, bytes: &[u8]) -> Self {
        self.content.payload.put(bytes);
        self
    }

    /// A membership message of the first version: query (130), report (131) or done (132).
    pub fn mld(self, icmp_type: u8, group: Ipv6Addr) -> Self {
        self.hops(1)
            .icmp(icmp_type, 0, [0; 4])
            .payload(&group.octets())
    }

    /// A report of the second version: joins one group, from any source.
    pub fn mld_v2_report(self, group: Ipv6Addr) -> Self {
        let record = [&[4, 0, 0, 0][..], &group.octets()].concat();
        self.hops(1).icmp(143, 0, [0, 0, 0, 1]).payload(&record)
    }

    /// The router-alert option that membership messages carry, in either family.
    pub fn router_alert(self) -> Self {
        match self.content.src {
            IpAddr::V4(_) => self.options(&[148, 4, 0, 0]),
            IpAddr::V6(_) => self.extension(Extension::HopByHop(vec![5, 2, 0, 0])),
        }
    }

    /// An IGMP message of 8 bytes: query 0x11, reports 0x12 and 0x16, leave 0x17.
    pub fn igmp_message(self, igmp_type: u8, group: Ipv4Addr) -> Self {
        self.hops(1).igmp(igmp_type).payload(&group.octets())
    }

    /// An IGMPv3 report: joins one group.
    pub fn igmp_v3_report(self, group: Ipv4Addr) -> Self {
        let record = [&[0, 0, 0, 1, 4, 0, 0, 0][..], &group.octets()].concat();
        self.hops(1).igmp(0x22).payload(&record)
    }

    /// A DHCP message of a client (from 68 to 67, or 546 to 547): discover or solicit.
    pub fn dhcp_client(self, client: MacAddr) -> Self {
        match self.content.src {
            IpAddr::V4(_) => self.udp(68, 67).payload(&bootp(1, 1, client)),
            IpAddr::V6(_) => self.udp(546, 547).payload(&dhcp_v6(1, client)),
        }
    }

    /// A DHCP message of a server (from 67 to 68, or 547 to 546): offer or advertise.
    pub fn dhcp_server(self, client: MacAddr) -> Self {
        match self.content.src {
            IpAddr::V4(_) => self.udp(67, 68).payload(&bootp(2, 2, client)),
            IpAddr::V6(_) => self.udp(547, 546).payload(&dhcp_v6(2, client)),
        }
    }
}

fn bootp(operation: u8, message_type: u8, client: MacAddr) -> Vec<u8> {
    let mut out = vec![operation, 1, 6, 0];
    out.put32(0x5043_0001);
    out.resize(28, 0);
    out.put(&client.0);
    out.resize(236, 0);
    out.put(&[99, 130, 83, 99, 53, 1, message_type, 255]);
    out
}

fn dhcp_v6(message_type: u8, client: MacAddr) -> Vec<u8> {
    let mut out = vec![message_type, 0x50, 0x43, 1];
    // The client's identifier: a DUID of its link-layer address.
    out.put16(1);
    out.put16(10);
    out.put16(3);
    out.put16(1);
    out.put(&client.0);
    out
}
