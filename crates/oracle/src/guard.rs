//! The stage guard: no port speaks for another, and what a network needs to work passes.
//!
//! The order of the checks is that of docs/semantics.md "Guard", to the letter.

use crate::rules::is_link_local;
use crate::{Notes, Open, unlike};
use model::{
    Capabilities, Direction, DropReason, FrozenSet, Inventory, MacAddr, NdOptions, Network, Port,
    Prefix,
};
use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use wire::{
    Arp, Body, ETHERTYPE_RARP, Fragment, Frame, L4, PROTOCOL_IGMP, PROTOCOL_UDP, Packet, nd,
};

/// What the guard knows of a port and its network.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    mac: MacAddr,
    fixed_addresses: FrozenSet<IpAddr>,
    /// With the MAC that they come with.
    pairs: Vec<(Prefix, MacAddr)>,
    dhcp_server: bool,
    router: bool,
    eui64_only: bool,
    /// Link-local addresses of the network's routers and ports, this one included.
    reserved: Arc<HashSet<Ipv6Addr>>,
    /// So is every other that a MAC derives, of a network's port or not.
    derived_reserved: bool,
    subnets: Vec<Prefix>,
    dhcp_servers: BTreeSet<IpAddr>,
}

/// Of what the guard doesn't drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guarded {
    Infrastructure,
    GoesOn,
}

use DropReason as Drop;
use Guarded::{GoesOn, Infrastructure};

impl Guard {
    pub(crate) fn new(
        port: &Port,
        network: &Network,
        reserved: Arc<HashSet<Ipv6Addr>>,
        can: Capabilities,
    ) -> Self {
        let pairs = port.address_pairs.iter();
        Self {
            mac: port.mac,
            fixed_addresses: port.fixed_addresses.clone(),
            pairs: pairs
                .map(|p| (p.prefix, p.mac.unwrap_or(port.mac)))
                .collect(),
            dhcp_server: port.dhcp_server,
            router: port.router,
            eui64_only: network.eui64_only,
            reserved,
            derived_reserved: !can.link_local_list,
            subnets: network.subnets.iter().copied().collect(),
            dhcp_servers: network.dhcp_servers.clone(),
        }
    }

    /// The caller has seen to frames that can't be parsed, tags, and ethertypes that aren't listed.
    pub(crate) fn check(
        &self,
        direction: Direction,
        frame: &Frame<'_>,
        can: Capabilities,
        notes: &mut Notes,
    ) -> Result<Guarded, Drop> {
        if direction == Direction::Egress && !self.has_mac(frame.src) {
            return Err(Drop::SpoofedMac);
        }
        match (&frame.body, direction) {
            (Body::Arp(None), _) => Err(Drop::BadHeader),
            (Body::Arp(Some(_)), Direction::Ingress) => Ok(Infrastructure),
            (Body::Arp(Some(arp)), Direction::Egress) => self.arp_from_port(frame, arp),
            (Body::Ip(Ok(packet)), Direction::Egress) => {
                self.ip_from_port(frame.src, packet, can, notes)
            }
            (Body::Ip(Ok(packet)), Direction::Ingress) => self.ip_to_port(packet, can),
            (Body::Tagged | Body::Other | Body::Ip(Err(_)), _) => Ok(Infrastructure),
        }
    }

    fn arp_from_port(&self, frame: &Frame<'_>, arp: &Arp) -> Result<Guarded, Drop> {
        let is_own = if frame.ethertype == ETHERTYPE_RARP {
            arp.opcode == 3
                && self.has_mac(arp.sender_mac)
                && self.has_mac(arp.target_mac)
                && arp.sender_ip.is_unspecified()
                && arp.target_ip.is_unspecified()
        } else {
            // A probe asks for the address that it wants to use.
            let claimed = match arp.sender_ip.is_unspecified() {
                true => arp.target_ip,
                false => arp.sender_ip,
            };
            matches!(arp.opcode, 1 | 2)
                && arp.sender_mac == frame.src
                && self.may_send_from(claimed.into(), frame.src)
        };
        match arp.header == (1, 0x0800, 6, 4) && is_own {
            true => Ok(Infrastructure),
            false => Err(Drop::SpoofedArp),
        }
    }

    fn ip_from_port(
        &self,
        mac: MacAddr,
        packet: &Packet<'_>,
        can: Capabilities,
        notes: &mut Notes,
    ) -> Result<Guarded, Drop> {
        let steps = [
            self.neighbour_discovery_from_port(mac, packet, can, notes)?,
            self.listener_from_port(mac, packet, can)?,
            self.igmp_from_port(mac, packet, can)?,
            self.dhcp_from_port(mac, packet)?,
        ];
        if steps.contains(&Infrastructure) {
            Ok(Infrastructure)
        } else if self.may_send_from(packet.src, mac) {
            Ok(GoesOn)
        } else {
            Err(Drop::SpoofedIp)
        }
    }

    fn neighbour_discovery_from_port(
        &self,
        mac: MacAddr,
        packet: &Packet<'_>,
        can: Capabilities,
        notes: &mut Notes,
    ) -> Result<Guarded, Drop> {
        let Some((icmp_type @ 133..=137, code)) = icmpv6(packet) else {
            return Ok(GoesOn);
        };
        let by_router = matches!(icmp_type, nd::ROUTER_ADVERTISEMENT | nd::REDIRECT);
        if by_router && !self.router {
            return Err(Drop::RogueRa);
        }
        if packet.fragment != Fragment::Whole || packet.hops != 255 || code != 0 {
            return Err(Drop::SpoofedNd);
        }
        let own = || {
            let message = nd::message(icmp_type, packet.payload);
            message.is_some_and(|message| {
                message.speaks_for(mac)
                    && self.is_own_nd(mac, packet.src, icmp_type, message.target)
            })
        };
        let passes = match can.nd_options {
            NdOptions::Walked => own(),
            NdOptions::Few | NdOptions::Fields if by_router => self.may_send_from(packet.src, mac),
            NdOptions::Few => has_few_options(icmp_type, packet.payload) && own(),
            NdOptions::Fields => {
                let seen = self.is_own_by_fields(mac, packet, icmp_type);
                if seen && !own() {
                    // What it is dropped for is not among the fields.
                    notes.leave(Open::Either);
                }
                seen && own()
            }
        };
        match passes {
            true => Ok(Infrastructure),
            false => Err(Drop::SpoofedNd),
        }
    }

    /// Do source and target of a neighbour discovery message belong to the port?
    fn is_own_nd(
        &self,
        mac: MacAddr,
        source: IpAddr,
        icmp_type: u8,
        target: Option<Ipv6Addr>,
    ) -> bool {
        let own_target = target.is_some_and(|t| self.may_send_from(t.into(), mac));
        let solicitation = icmp_type == nd::NEIGHBOUR_SOLICITATION;
        let own_source = self.may_send_from(source, mac)
            || (source.is_unspecified() && solicitation && own_target);
        own_source && (icmp_type != nd::NEIGHBOUR_ADVERTISEMENT || own_target)
    }

    /// The same, of what a switch sees of the message: of a solicitation or an advertisement the target and the
    /// link-layer option that fits it, of others neither.
    fn is_own_by_fields(&self, mac: MacAddr, packet: &Packet<'_>, icmp_type: u8) -> bool {
        let fitting = match icmp_type {
            nd::NEIGHBOUR_SOLICITATION => |fields: &unlike::NdFields| fields.source_mac,
            nd::NEIGHBOUR_ADVERTISEMENT => |fields: &unlike::NdFields| fields.target_mac,
            _ => return self.is_own_nd(mac, packet.src, icmp_type, None),
        };
        unlike::nd_fields(packet.payload).is_some_and(|fields| {
            fitting(&fields).is_none_or(|named| named == mac)
                && self.is_own_nd(mac, packet.src, icmp_type, Some(fields.target))
        })
    }

    fn listener_from_port(
        &self,
        mac: MacAddr,
        packet: &Packet<'_>,
        can: Capabilities,
    ) -> Result<Guarded, Drop> {
        let Some((icmp_type @ (130..=132 | 143), _)) = icmpv6(packet) else {
            return Ok(GoesOn);
        };
        if icmp_type == nd::LISTENER_QUERY {
            return Err(Drop::RogueQuery);
        }
        let IpAddr::V6(destination) = packet.dst else {
            return Ok(GoesOn);
        };
        let to_the_group = can.nd_options == NdOptions::Walked
            && icmp_type != nd::LISTENER_REPORT_V2
            && destination.is_multicast()
            && nd::listener_group(packet.payload) == Some(destination);
        let own_source = packet.src.is_unspecified()
            || (is_link_local(packet.src) && self.may_send_from(packet.src, mac));
        let passes = packet.fragment == Fragment::Whole
            && packet.hops == 1
            && (destination.segments()[0] == 0xff02 || to_the_group)
            && own_source;
        Ok(if passes { Infrastructure } else { GoesOn })
    }

    fn igmp_from_port(
        &self,
        mac: MacAddr,
        packet: &Packet<'_>,
        can: Capabilities,
    ) -> Result<Guarded, Drop> {
        if is_igmp_query(packet, can) {
            return Err(Drop::RogueQuery);
        }
        let answers = match can.igmp_types {
            true => matches!(igmp_type(packet), Some(0x12 | 0x16 | 0x17 | 0x22)),
            false => is_igmp(packet),
        };
        let passes = answers
            && packet.fragment == Fragment::Whole
            && packet.hops == 1
            && packet.dst.is_multicast()
            && (packet.src.is_unspecified() || self.may_send_from(packet.src, mac));
        Ok(if passes { Infrastructure } else { GoesOn })
    }

    fn dhcp_from_port(&self, mac: MacAddr, packet: &Packet<'_>) -> Result<Guarded, Drop> {
        let own = self.may_send_from(packet.src, mac);
        let passes = if is_dhcp_answer(packet) {
            if !self.dhcp_server {
                return Err(Drop::RogueDhcp);
            }
            own
        } else if is_dhcp_request(packet) {
            let (source, broadcast) = match packet.dst {
                IpAddr::V4(a) => (own || packet.src.is_unspecified(), a.is_broadcast()),
                IpAddr::V6(a) => (own && is_link_local(packet.src), is_dhcpv6_group(a)),
            };
            source && (broadcast || self.is_dhcp_server(packet.dst))
        } else {
            false
        };
        Ok(if passes { Infrastructure } else { GoesOn })
    }

    fn ip_to_port(&self, packet: &Packet<'_>, can: Capabilities) -> Result<Guarded, Drop> {
        let for_many = packet.dst.is_multicast() || self.is_broadcast(packet.dst);
        if !for_many && !self.receives_at(packet.dst) {
            return Err(Drop::ForeignDestination);
        }
        if self.is_martian(packet) {
            return Err(Drop::Martian);
        }
        let whole = packet.fragment == Fragment::Whole;
        let passes = match icmpv6(packet) {
            Some((icmp_type @ 133..=136, code)) => {
                let trusted = icmp_type != nd::ROUTER_ADVERTISEMENT || is_link_local(packet.src);
                whole && packet.hops == 255 && code == 0 && trusted
            }
            Some((nd::LISTENER_QUERY, _)) => whole && packet.hops == 1 && is_link_local(packet.src),
            Some(_) => false,
            None if is_dhcp_answer(packet) => {
                self.is_dhcp_server(packet.src)
                    || (is_link_local(packet.src) && !self.lists_dhcp_servers_like(packet.src))
            }
            None if is_dhcp_request(packet) => self.dhcp_server,
            None => is_igmp_query(packet, can),
        };
        Ok(if passes { Infrastructure } else { GoesOn })
    }

    fn is_martian(&self, packet: &Packet<'_>) -> bool {
        let explained = match packet.src {
            IpAddr::V4(_) => {
                let first = !matches!(packet.fragment, Fragment::Later { .. });
                first && (packet.protocol == PROTOCOL_IGMP || is_dhcp_request(packet))
            }
            IpAddr::V6(_) => matches!(icmpv6(packet), Some((130..=132 | 135 | 143, _))),
        };
        packet.src.is_multicast()
            || self.is_broadcast(packet.src)
            || packet.src.is_loopback()
            || (packet.src.is_unspecified() && !explained)
    }

    /// The port's MAC, or one of its pairs'.
    fn has_mac(&self, mac: MacAddr) -> bool {
        self.mac == mac || self.pairs.iter().any(|(_, m)| *m == mac)
    }

    fn may_send_from(&self, address: IpAddr, mac: MacAddr) -> bool {
        let in_pair = |(prefix, m): &(Prefix, MacAddr)| *m == mac && prefix.contains(address);
        self.fixed_addresses.contains(&address)
            || self.pairs.iter().any(in_pair)
            || self.is_allowed_link_local(address)
    }

    /// Is it an address of the port, as a destination?
    pub(crate) fn receives_at(&self, address: IpAddr) -> bool {
        self.fixed_addresses.contains(&address)
            || self
                .pairs
                .iter()
                .any(|(prefix, _)| prefix.contains(address))
            || self.is_allowed_link_local(address)
    }

    fn is_allowed_link_local(&self, address: IpAddr) -> bool {
        let IpAddr::V6(a) = address else {
            return false;
        };
        let reserved = self.reserved.contains(&a) || (self.derived_reserved && is_derived(a));
        a == self.mac.eui64_link_local()
            || (a.is_unicast_link_local() && !self.eui64_only && !reserved)
    }

    /// 255.255.255.255, or the last address of a subnet that has a broadcast address.
    pub(crate) fn is_broadcast(&self, address: IpAddr) -> bool {
        let IpAddr::V4(a) = address else {
            return false;
        };
        let mut subnets = self.subnets.iter().filter(|s| s.length() <= 30);
        a.is_broadcast() || subnets.any(|s| s.last() == address)
    }

    /// A listed server or relay, or, if none of the family is listed, an address of the network.
    fn is_dhcp_server(&self, address: IpAddr) -> bool {
        match self.lists_dhcp_servers_like(address) {
            true => self.dhcp_servers.contains(&address),
            false => self.subnets.iter().any(|s| s.contains(address)),
        }
    }

    fn lists_dhcp_servers_like(&self, address: IpAddr) -> bool {
        let mut servers = self.dhcp_servers.iter();
        servers.any(|s| s.is_ipv4() == address.is_ipv4())
    }
}

/// Link-local addresses that aren't anybody's in the network.
pub(crate) fn reserved_link_local(inventory: &Inventory, network: &Network) -> HashSet<Ipv6Addr> {
    let mut listed: Vec<IpAddr> = network.routers.iter().copied().collect();
    for port in inventory.ports.values().filter(|p| p.network == network.id) {
        let pairs = port.address_pairs.iter();
        listed.extend(&port.fixed_addresses);
        listed.extend(pairs.filter_map(|p| p.prefix.as_host()));
        listed.push(port.mac.eui64_link_local().into());
    }
    let link_local = listed.into_iter().filter(|a| is_link_local(*a));
    link_local
        .filter_map(|a| match a {
            IpAddr::V4(_) => None,
            IpAddr::V6(a) => Some(a),
        })
        .collect()
}

/// At most three, of 8 bytes each: what a plane can look at that can't walk them.
fn has_few_options(icmp_type: u8, payload: &[u8]) -> bool {
    let fixed = match icmp_type {
        nd::ROUTER_SOLICITATION => 8,
        _ => 24,
    };
    let mut options = payload.get(fixed..).unwrap_or_default().chunks(8);
    payload.len() >= fixed && options.len() <= 3 && options.all(|o| o.len() == 8 && o[1] == 1)
}

/// Type and code. `None` for later fragments.
fn icmpv6(packet: &Packet<'_>) -> Option<(u8, u8)> {
    match (packet.l4, packet.src) {
        (
            L4::Icmp {
                icmp_type, code, ..
            },
            IpAddr::V6(_),
        ) => Some((icmp_type, code)),
        _ => None,
    }
}

/// Has it the shape of what a MAC derives?
fn is_derived(address: Ipv6Addr) -> bool {
    address.octets()[11..13] == [0xff, 0xfe]
}

/// Who can't see the type knows a query by whom it asks: all systems.
fn is_igmp_query(packet: &Packet<'_>, can: Capabilities) -> bool {
    const ALL_SYSTEMS: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1));
    match can.igmp_types {
        true => igmp_type(packet) == Some(0x11),
        false => is_igmp(packet) && packet.dst == ALL_SYSTEMS,
    }
}

fn igmp_type(packet: &Packet<'_>) -> Option<u8> {
    packet.payload.first().copied().filter(|_| is_igmp(packet))
}

/// False for later fragments.
fn is_igmp(packet: &Packet<'_>) -> bool {
    packet.protocol == PROTOCOL_IGMP && packet.src.is_ipv4() && packet.l4 == L4::Opaque
}

fn is_dhcp_request(packet: &Packet<'_>) -> bool {
    is_udp(packet, (68, 67), (546, 547))
}

fn is_dhcp_answer(packet: &Packet<'_>) -> bool {
    is_udp(packet, (67, 68), (547, 546))
}

/// Source and destination port, by family.
fn is_udp(packet: &Packet<'_>, v4: (u16, u16), v6: (u16, u16)) -> bool {
    let (src, dst) = match packet.src {
        IpAddr::V4(_) => v4,
        IpAddr::V6(_) => v6,
    };
    packet.protocol == PROTOCOL_UDP && packet.l4 == L4::Ported { src, dst }
}

fn is_dhcpv6_group(address: Ipv6Addr) -> bool {
    const RELAYS_AND_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
    const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);
    address == RELAYS_AND_SERVERS || address == SERVERS
}

/// Multicast or broadcast: no flow comes of it.
pub(crate) fn is_for_many(guard: &Guard, frame: &Frame<'_>, packet: &Packet<'_>) -> bool {
    frame.dst.is_group() || packet.dst.is_multicast() || guard.is_broadcast(packet.dst)
}
