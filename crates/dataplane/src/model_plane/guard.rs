//! Anti-spoofing and the infrastructure protocols, at one port.
//!
//! Place on the line: hook -> parse -> **guard** -> conntrack.
//! Knows nothing of: rules, flows, other ports' packets. Keeps no state.
//! Source: docs/semantics.md "Guard".

use model::{Direction, DropReason, Family, MacAddr, PortId};
use policy::{HostView, NetworkView, PortView};
use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::nd::{
    self, LISTENER_DONE, LISTENER_QUERY, LISTENER_REPORT, LISTENER_REPORT_V2,
    NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, REDIRECT, ROUTER_ADVERTISEMENT,
    ROUTER_SOLICITATION,
};
use wire::{Arp, BadPacket, Body, Fragment, Frame, L4, PROTOCOL_IGMP, PROTOCOL_UDP, Packet};

/// What the guard says.
pub(super) enum Guarded<'a> {
    Drop(DropReason),
    /// The packet, if it is one, may be a first fragment to remember.
    Infrastructure(Option<Packet<'a>>),
    /// For the stages behind.
    Ordinary(Packet<'a>),
}

/// A port as its guard sees it.
pub(super) struct Guard {
    port: PortView,
    macs: BTreeSet<MacAddr>,
    derived_link_local: Ipv6Addr,
    network: NetworkView,
    broadcasts: HashSet<Ipv4Addr>,
    ethertypes: BTreeSet<u16>,
}

/// What one step of the guard decides; `None`: nothing, go on.
type Step = Option<Result<(), DropReason>>;

const PASS: Step = Some(Ok(()));

const fn drop(reason: DropReason) -> Step {
    Some(Err(reason))
}

impl Guard {
    /// `None` for a port that is not in the view.
    pub(super) fn new(view: &HostView, port: &PortId) -> Option<Self> {
        let port = view.ports.get(port)?;
        let network = view.networks.get(&port.network)?;
        let has_broadcast = |length| length <= 30;
        let subnets = network.subnets.iter();
        let broadcasts = subnets.filter_map(|s| match s.last() {
            IpAddr::V4(last) => has_broadcast(s.length()).then_some(last),
            IpAddr::V6(_) => None,
        });
        Some(Self {
            macs: port.macs(),
            derived_link_local: port.mac.eui64_link_local(),
            broadcasts: broadcasts.collect(),
            ethertypes: view.settings.ethertypes.clone(),
            network: network.clone(),
            port: PortView::clone(port),
        })
    }

    pub(super) fn judge<'a>(&self, direction: Direction, frame: Frame<'a>) -> Guarded<'a> {
        let bad = match &frame.body {
            Body::Tagged => Some(DropReason::VlanTag),
            Body::Other if !self.ethertypes.contains(&frame.ethertype) => {
                Some(DropReason::Ethertype)
            }
            Body::Ip(Err(BadPacket::Header)) => Some(DropReason::BadHeader),
            Body::Ip(Err(BadPacket::Fragment)) => Some(DropReason::BadFragment),
            Body::Other | Body::Arp(_) | Body::Ip(Ok(_)) => None,
        };
        if let Some(reason) = bad {
            return Guarded::Drop(reason);
        }
        if direction == Direction::Egress && !self.macs.contains(&frame.src) {
            return Guarded::Drop(DropReason::SpoofedMac);
        }
        match frame.body {
            Body::Tagged | Body::Ip(Err(_)) => unreachable!("dropped above"),
            Body::Other => Guarded::Infrastructure(None),
            Body::Arp(None) => Guarded::Drop(DropReason::BadHeader),
            Body::Arp(Some(arp)) => {
                let passes = match (direction, frame.ethertype) {
                    (Direction::Ingress, _) => true,
                    (Direction::Egress, wire::ETHERTYPE_RARP) => self.may_announce(&arp),
                    (Direction::Egress, _) => self.may_speak(&arp, frame.src),
                };
                match passes {
                    true => Guarded::Infrastructure(None),
                    false => Guarded::Drop(DropReason::SpoofedArp),
                }
            }
            Body::Ip(Ok(packet)) => {
                let step = match direction {
                    Direction::Egress => self.sent(&packet, frame.src),
                    Direction::Ingress => self.received(&packet),
                };
                match step {
                    None => Guarded::Ordinary(packet),
                    Some(Ok(())) => Guarded::Infrastructure(Some(packet)),
                    Some(Err(reason)) => Guarded::Drop(reason),
                }
            }
        }
    }

    /// Multicast and broadcast start no flow.
    pub(super) fn is_for_many(&self, destination: IpAddr) -> bool {
        destination.is_multicast() || self.is_broadcast(destination)
    }

    /// Whether a packet for this address is for the port.
    pub(super) fn receives(&self, address: IpAddr) -> bool {
        self.port
            .addresses
            .iter()
            .any(|a| a.prefix.contains(address))
            || self.is_free_link_local(address)
    }

    fn is_broadcast(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => a == Ipv4Addr::BROADCAST || self.broadcasts.contains(&a),
            IpAddr::V6(_) => false,
        }
    }

    /// A fixed address, or a pair's with its MAC.
    fn owns(&self, address: IpAddr, mac: MacAddr) -> bool {
        let mut own = self.port.addresses.iter();
        own.any(|a| a.prefix.contains(address) && a.mac.is_none_or(|m| m == mac))
    }

    /// Derived from the port's MAC, or one that nobody has to themselves.
    fn is_free_link_local(&self, address: IpAddr) -> bool {
        let IpAddr::V6(address) = address else {
            return false;
        };
        address == self.derived_link_local
            || (address.is_unicast_link_local()
                && !self.network.eui64_only
                && !self.network.reserved_link_local.contains(&address))
    }

    fn may_use(&self, address: IpAddr, mac: MacAddr) -> bool {
        self.owns(address, mac) || self.is_free_link_local(address)
    }

    fn may_use_link_local(&self, address: IpAddr, mac: MacAddr) -> bool {
        is_link_local(address) && self.may_use(address, mac)
    }

    fn may_speak(&self, arp: &Arp, mac: MacAddr) -> bool {
        let probes = arp.sender_ip.is_unspecified() && self.owns(arp.target_ip.into(), mac);
        arp.header == ARP_ETHERNET_IPV4
            && matches!(arp.opcode, 1 | 2)
            && arp.sender_mac == mac
            && (probes || self.owns(arp.sender_ip.into(), mac))
    }

    fn may_announce(&self, arp: &Arp) -> bool {
        const REQUEST_REVERSE: u16 = 3;
        arp.header == ARP_ETHERNET_IPV4
            && arp.opcode == REQUEST_REVERSE
            && self.macs.contains(&arp.sender_mac)
            && self.macs.contains(&arp.target_mac)
            && arp.sender_ip.is_unspecified()
            && arp.target_ip.is_unspecified()
    }

    fn sent(&self, packet: &Packet<'_>, mac: MacAddr) -> Step {
        self.neighbour_discovery_sent(packet, mac)
            .or_else(|| self.listener_sent(packet, mac))
            .or_else(|| self.igmp_sent(packet, mac))
            .or_else(|| self.dhcp_sent(packet, mac))
            .or_else(|| match self.may_use(packet.src, mac) {
                true => None,
                false => drop(DropReason::SpoofedIp),
            })
    }

    fn neighbour_discovery_sent(&self, packet: &Packet<'_>, mac: MacAddr) -> Step {
        let icmp_type = icmpv6_type(packet)?;
        let routers_only = matches!(icmp_type, ROUTER_ADVERTISEMENT | REDIRECT);
        if !(ROUTER_SOLICITATION..=REDIRECT).contains(&icmp_type) {
            return None;
        }
        if routers_only && !self.port.router {
            return drop(DropReason::RogueRa);
        }
        let own_target = |message: &nd::Message<'_>| {
            let target = message.target.map(IpAddr::V6);
            target.is_some_and(|target| self.may_use(target, mac))
        };
        let sound = is_plain_discovery(packet)
            && nd::message(icmp_type, packet.payload).is_some_and(|message| {
                let asks_for_itself = icmp_type == NEIGHBOUR_SOLICITATION
                    && packet.src.is_unspecified()
                    && own_target(&message);
                let source = asks_for_itself || self.may_use(packet.src, mac);
                let target = icmp_type != NEIGHBOUR_ADVERTISEMENT || own_target(&message);
                message.speaks_for(mac) && source && target
            });
        match sound {
            true => PASS,
            false => drop(DropReason::SpoofedNd),
        }
    }

    fn listener_sent(&self, packet: &Packet<'_>, mac: MacAddr) -> Step {
        let named = match icmpv6_type(packet)? {
            LISTENER_QUERY => return drop(DropReason::RogueQuery),
            LISTENER_REPORT | LISTENER_DONE => nd::listener_group(packet.payload),
            LISTENER_REPORT_V2 => None,
            _ => return None,
        };
        let IpAddr::V6(destination) = packet.dst else {
            return None;
        };
        let on_link = destination.segments()[0] == 0xff02;
        let the_group = destination.is_multicast() && named == Some(destination);
        let source = packet.src.is_unspecified() || self.may_use_link_local(packet.src, mac);
        let sound = packet.fragment == Fragment::Whole
            && packet.hops == 1
            && (on_link || the_group)
            && source;
        sound.then_some(Ok(()))
    }

    fn igmp_sent(&self, packet: &Packet<'_>, mac: MacAddr) -> Step {
        let report = match igmp_type(packet)? {
            IGMP_QUERY => return drop(DropReason::RogueQuery),
            0x12 | 0x16 | 0x17 | 0x22 => true,
            _ => false,
        };
        let source = packet.src.is_unspecified() || self.owns(packet.src, mac);
        let sound = report
            && packet.fragment == Fragment::Whole
            && packet.hops == 1
            && packet.dst.is_multicast()
            && source;
        sound.then_some(Ok(()))
    }

    fn dhcp_sent(&self, packet: &Packet<'_>, mac: MacAddr) -> Step {
        match dhcp(packet)? {
            Dhcp::FromServer if !self.port.dhcp_server => drop(DropReason::RogueDhcp),
            Dhcp::FromServer => self.may_use(packet.src, mac).then_some(Ok(())),
            Dhcp::FromClient => {
                let source = match packet.src {
                    IpAddr::V4(a) => a.is_unspecified() || self.owns(packet.src, mac),
                    IpAddr::V6(_) => self.may_use_link_local(packet.src, mac),
                };
                let everyone = match packet.dst {
                    IpAddr::V4(a) => a == Ipv4Addr::BROADCAST,
                    IpAddr::V6(a) => DHCPV6_SERVERS.contains(&a),
                };
                let sound = source && (everyone || self.may_serve_dhcp(packet.dst));
                sound.then_some(Ok(()))
            }
        }
    }

    /// A listed server or relay; where none of this family is listed, whoever is in the subnets.
    fn may_serve_dhcp(&self, address: IpAddr) -> bool {
        if self.lists_dhcp(Family::of(address)) {
            return self.network.dhcp_servers.contains(&address);
        }
        self.network.subnets.iter().any(|s| s.contains(address))
    }

    fn lists_dhcp(&self, family: Family) -> bool {
        let mut servers = self.network.dhcp_servers.iter();
        servers.any(|server| Family::of(*server) == family)
    }

    fn received(&self, packet: &Packet<'_>) -> Step {
        if !self.is_for_many(packet.dst) && !self.receives(packet.dst) {
            return drop(DropReason::ForeignDestination);
        }
        if self.is_martian(packet) {
            return drop(DropReason::Martian);
        }
        self.is_infrastructure_received(packet).then_some(Ok(()))
    }

    fn is_martian(&self, packet: &Packet<'_>) -> bool {
        match packet.src {
            IpAddr::V4(a) if a.is_unspecified() => {
                dhcp(packet) != Some(Dhcp::FromClient) && !is_igmp(packet)
            }
            IpAddr::V4(a) => a.is_multicast() || a.is_loopback() || self.is_broadcast(packet.src),
            IpAddr::V6(a) if a.is_unspecified() => !matches!(
                icmpv6_type(packet),
                Some(
                    NEIGHBOUR_SOLICITATION
                        | LISTENER_QUERY
                        | LISTENER_REPORT
                        | LISTENER_DONE
                        | LISTENER_REPORT_V2
                )
            ),
            IpAddr::V6(a) => a.is_multicast() || a.is_loopback(),
        }
    }

    fn is_infrastructure_received(&self, packet: &Packet<'_>) -> bool {
        let discovery = match icmpv6_type(packet) {
            Some(ROUTER_SOLICITATION | NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT) => {
                is_plain_discovery(packet)
            }
            Some(ROUTER_ADVERTISEMENT) => is_plain_discovery(packet) && is_link_local(packet.src),
            Some(LISTENER_QUERY) => {
                packet.fragment == Fragment::Whole && packet.hops == 1 && is_link_local(packet.src)
            }
            _ => false,
        };
        let served = match dhcp(packet) {
            None => false,
            Some(Dhcp::FromClient) => self.port.dhcp_server,
            Some(Dhcp::FromServer) => {
                let near = is_link_local(packet.src) && !self.lists_dhcp(Family::V6);
                near || self.may_serve_dhcp(packet.src)
            }
        };
        discovery || served || igmp_type(packet) == Some(IGMP_QUERY)
    }
}

const ARP_ETHERNET_IPV4: (u16, u16, u8, u8) = (1, 0x0800, 6, 4);
const IGMP_QUERY: u8 = 0x11;

/// All_DHCP_Relay_Agents_and_Servers and All_DHCP_Servers (RFC 8415, 7.1).
const DHCPV6_SERVERS: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2),
    Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dhcp {
    FromClient,
    FromServer,
}

fn dhcp(packet: &Packet<'_>) -> Option<Dhcp> {
    let L4::Ported { src, dst } = packet.l4 else {
        return None;
    };
    if packet.protocol != PROTOCOL_UDP {
        return None;
    }
    let (client, server) = match Family::of(packet.src) {
        Family::V4 => (68, 67),
        Family::V6 => (546, 547),
    };
    match (src, dst) {
        ports if ports == (client, server) => Some(Dhcp::FromClient),
        ports if ports == (server, client) => Some(Dhcp::FromServer),
        _ => None,
    }
}

/// `None` of a later fragment, too.
fn icmpv6_type(packet: &Packet<'_>) -> Option<u8> {
    match (packet.l4, packet.src) {
        (L4::Icmp { icmp_type, .. }, IpAddr::V6(_)) => Some(icmp_type),
        _ => None,
    }
}

/// What neighbour discovery never is without: hop limit 255, code 0, in one piece.
fn is_plain_discovery(packet: &Packet<'_>) -> bool {
    let code = match packet.l4 {
        L4::Icmp { code, .. } => code,
        L4::Tcp { .. } | L4::Ported { .. } | L4::Opaque | L4::Absent => return false,
    };
    packet.fragment == Fragment::Whole && packet.hops == 255 && code == 0
}

/// Not of a later fragment.
fn is_igmp(packet: &Packet<'_>) -> bool {
    packet.protocol == PROTOCOL_IGMP && packet.src.is_ipv4() && packet.l4 == L4::Opaque
}

fn igmp_type(packet: &Packet<'_>) -> Option<u8> {
    packet.payload.first().copied().filter(|_| is_igmp(packet))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}
