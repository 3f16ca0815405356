//! What the guard looks at: ARP, neighbour discovery, multicast membership, DHCP and what isn't IP,
//! right and forged, in both directions.

use super::dice::Dice;
use super::inventory::{address_of, parse_address};
use super::scene::{GATEWAY, Local, Scene, next_to};
use model::{Direction, Family, MacAddr};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::build::{self, Builder, Ip};

const OTHER_MACS: [MacAddr; 5] = [
    GATEWAY,
    MacAddr([0x02, 0xaa, 0, 0, 0, 1]),
    MacAddr([0x52, 0x54, 0, 0, 0, 1]),
    MacAddr::BROADCAST,
    MacAddr::ZERO,
];

pub(super) fn infrastructure(
    dice: &mut Dice,
    scene: &Scene,
    port: &Local,
    direction: Direction,
) -> Vec<u8> {
    let mut maker = Maker {
        dice,
        scene,
        port,
        direction,
    };
    match maker.dice.below(16) {
        0..=2 => maker.arp(),
        3 => maker.rarp(),
        4..=8 => maker.neighbour_discovery(),
        9..=10 => maker.listener(),
        11 => maker.igmp(),
        12..=14 => maker.dhcp(),
        _ => maker.other(),
    }
}

struct Maker<'a> {
    dice: &'a mut Dice,
    scene: &'a Scene,
    port: &'a Local,
    direction: Direction,
}

impl Maker<'_> {
    fn arp(&mut self) -> Vec<u8> {
        let (mac, sender) = self.speaker(Family::V4);
        let target = self.spoken_of(Family::V4);
        let (sender, target) = (as_v4(sender), as_v4(target));
        let unspecified = Ipv4Addr::UNSPECIFIED;
        let mut message = match self.dice.below(4) {
            0 => build::arp_request((mac, sender), target),
            1 => build::arp_reply((mac, sender), (GATEWAY, target)),
            // A probe, and an announcement.
            2 => build::arp_request(
                (mac, unspecified),
                if self.lie(30) { target } else { sender },
            ),
            _ => build::arp_request((mac, sender), sender),
        };
        if self.lie(10) {
            message = message.sender_mac(*self.dice.pick(&OTHER_MACS));
        }
        if self.lie(10) {
            message = message.src_mac(*self.dice.pick(&OTHER_MACS));
        }
        if self.lie(7) {
            message = message.opcode(*self.dice.pick(&[0, 3, 8, 257]));
        }
        if self.lie(7) {
            let headers = [
                (6, 0x0800, 6, 4),
                (1, 0x86dd, 6, 4),
                (1, 0x0800, 8, 4),
                (1, 0x0800, 6, 16),
            ];
            message = message.arp_header(*self.dice.pick(&headers));
        }
        if self.lie(5) {
            message = message.cut(14 + self.dice.below(28));
        }
        message
            .pad_to(if self.dice.chance(50) { 60 } else { 0 })
            .bytes()
    }

    fn rarp(&mut self) -> Vec<u8> {
        let mut message = build::rarp(self.port.mac);
        if self.lie(25) {
            message = message.sender_mac(*self.dice.pick(&OTHER_MACS));
        }
        if self.lie(15) {
            message = message.target_mac(*self.dice.pick(&OTHER_MACS));
        }
        if self.lie(15) {
            message = message.opcode(*self.dice.pick(&[1, 2, 4]));
        }
        if self.lie(10) {
            message = message.cut(14 + self.dice.below(28));
        }
        if self.lie(10) {
            let nobody = Ipv4Addr::UNSPECIFIED;
            let somebody = as_v4(self.spoken_of(Family::V4));
            let mac = self.port.mac;
            let ends = *self.dice.pick(&[(somebody, nobody), (nobody, somebody)]);
            message = build::arp(3, (mac, ends.0), (mac, ends.1)).ethertype(0x8035);
        }
        message.bytes()
    }

    fn neighbour_discovery(&mut self) -> Vec<u8> {
        let (mac, mut src) = self.speaker(Family::V6);
        let target = as_v6(self.spoken_of(Family::V6));
        let kind = self.dice.below(8);
        if self.dice.chance(if kind < 3 { 30 } else { 5 }) {
            src = Ipv6Addr::UNSPECIFIED.into();
        }
        if kind == 6 && self.dice.chance(70) {
            src = self.link_local();
        }
        let all_nodes = parse_address("ff02::1");
        let to_own = match self.direction {
            Direction::Ingress => self.port.any_own(self.dice, Family::V6),
            Direction::Egress => None,
        };
        let dst = to_own.filter(|_| self.dice.chance(60));
        let dst = dst.map_or(all_nodes, |own| own.address);
        let packet = build::ip(src, dst).macs(mac, self.destination_mac());
        let (mut message, option) = match kind {
            0..=2 => (
                packet.neighbour_solicitation(target),
                build::SOURCE_LINK_LAYER,
            ),
            3..=4 => (
                packet.neighbour_advertisement(target),
                build::TARGET_LINK_LAYER,
            ),
            5 => (packet.router_solicitation(), build::SOURCE_LINK_LAYER),
            6 => (packet.router_advertisement(), build::SOURCE_LINK_LAYER),
            _ => (packet.redirect(target, target), build::TARGET_LINK_LAYER),
        };
        if self.dice.chance(60) {
            message = message.nd_link_layer(option, mac);
        }
        if self.lie(8) {
            message = message.nd_link_layer(option, *self.dice.pick(&OTHER_MACS));
        }
        if self.lie(10) {
            message = match self.dice.below(6) {
                0 => message.nd_option(14, &[9; 6]),
                1 => message.nd_option(option, &[0; 14]),
                2 => message.append(&[1, 0, 0, 0, 0, 0, 0, 0]),
                3 => message.append(&[1]),
                4 => message.append(&[14, 4, 0, 0, 0, 0, 0, 0]),
                _ => (0..64 + self.dice.below(2)).fold(message, |m, _| m.nd_option(14, &[0; 6])),
            };
        }
        if self.lie(8) {
            message = message.hops(*self.dice.pick(&[254, 1, 64, 0]));
        }
        if self.lie(8) {
            message = message.icmp_code(1);
        }
        self.finish(message)
    }

    fn listener(&mut self) -> Vec<u8> {
        let (mac, mut src) = self.speaker(Family::V6);
        if self.dice.chance(50) {
            src = self.link_local();
        }
        if self.dice.chance(15) {
            src = Ipv6Addr::UNSPECIFIED.into();
        }
        let groups = ["ff02::5", "ff05::5", "ff02::fb", "ff0e::1", "fd00::5"];
        let group = as_v6(address_of(self.dice, &groups));
        let dst = if self.dice.chance(75) {
            group
        } else {
            as_v6(address_of(self.dice, &["ff02::16", "ff02::1", "ff05::16"]))
        };
        let packet = build::ip(src, dst.into()).src_mac(mac);
        let kind = self.dice.below(8);
        // A hop-by-hop header stands before the message, as its place is first.
        let packet = if self.dice.chance(70) {
            packet.router_alert()
        } else {
            packet
        };
        let mut message = match kind {
            0..=1 => packet.mld(130, group),
            2..=3 => packet.mld(131, group),
            4 => packet.mld(132, group),
            5..=6 => packet.mld_v2_report(group),
            _ => packet.mld(143, group),
        };
        if self.lie(12) {
            message = message.hops(*self.dice.pick(&[0, 2, 64, 255]));
        }
        if self.lie(8) {
            message = message.icmp_code(1);
        }
        self.finish(message)
    }

    fn igmp(&mut self) -> Vec<u8> {
        let (mac, mut src) = self.speaker(Family::V4);
        if self.dice.chance(15) {
            src = Ipv4Addr::UNSPECIFIED.into();
        }
        let groups = ["224.0.0.1", "224.0.0.251", "239.1.1.1", "10.0.0.3"];
        let group = as_v4(address_of(self.dice, &groups));
        let kind = *self
            .dice
            .pick(&[0x11, 0x12, 0x16, 0x17, 0x22, 0x11, 0x16, 0x13, 0]);
        let packet = build::ip(src, group.into()).src_mac(mac);
        let packet = if self.dice.chance(60) {
            packet.router_alert()
        } else {
            packet
        };
        let mut message = match kind {
            0x22 => packet.igmp_v3_report(group),
            _ => packet.igmp_message(kind, group),
        };
        if self.lie(12) {
            message = message.hops(*self.dice.pick(&[0, 2, 64]));
        }
        if self.lie(5) {
            message = message.payload(&[]).protocol(2, &[]);
        }
        self.finish(message)
    }

    fn dhcp(&mut self) -> Vec<u8> {
        let family = *self.dice.pick(&Family::BOTH);
        let (mac, mut src) = self.speaker(family);
        let as_server = self.dice.chance(match self.direction {
            Direction::Egress => 35,
            Direction::Ingress => 65,
        });
        let network = self.port.network.as_ref();
        let servers = network.into_iter().flat_map(|n| &n.dhcp_servers);
        let servers: Vec<IpAddr> = servers
            .filter(|s| Family::of(**s) == family)
            .copied()
            .collect();
        let server = self.dice.pick_if_any(&servers).copied();
        let server = server.filter(|_| self.dice.chance(60));
        let all = match family {
            Family::V4 => "255.255.255.255",
            Family::V6 => *self.dice.pick(&["ff02::1:2", "ff05::1:3", "ff02::1:3"]),
        };
        let other = self.scene.any_address(self.dice, family);
        let of_link = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => self.link_local(),
        };
        if !as_server && self.dice.chance(65) {
            src = of_link;
        }
        if as_server && self.direction == Direction::Ingress {
            let in_place = if self.dice.chance(50) { other } else { of_link };
            src = server.unwrap_or(in_place);
        }
        let dst = match self.dice.below(5) {
            0..=1 => parse_address(all),
            2 => server.unwrap_or(other),
            3 => match self.direction {
                Direction::Ingress => {
                    let own = self.port.any_own(self.dice, family);
                    own.map_or(other, |own| own.address)
                }
                Direction::Egress => other,
            },
            _ => other,
        };
        let packet = build::ip(src, dst).src_mac(mac);
        let packet = match dst {
            IpAddr::V4(a) if a.is_broadcast() || a.is_multicast() => packet,
            IpAddr::V6(a) if a.is_multicast() => packet,
            _ => packet.dst_mac(self.destination_mac()),
        };
        let message = if as_server {
            packet.dhcp_server(self.port.mac)
        } else {
            packet.dhcp_client(self.port.mac)
        };
        self.finish(message)
    }

    fn other(&mut self) -> Vec<u8> {
        let types = [
            0x88cc, 0x8899, 0x0600, 0x05dc, 0x0026, 0x9000, 0x8100, 0x88a8, 0x9100, 0x8035,
        ];
        let mut message = build::ethernet(*self.dice.pick(&types), &[0x5a; 46])
            .macs(self.port.mac, MacAddr::BROADCAST);
        if self.lie(30) {
            message = message.src_mac(*self.dice.pick(&OTHER_MACS));
        }
        if self.lie(15) {
            message = message.cut(self.dice.below(20));
        }
        message.bytes()
    }

    /// With what every IP message may be wrong.
    fn finish(&mut self, mut message: Builder<Ip>) -> Vec<u8> {
        if self.lie(6) {
            message = message.src_mac(*self.dice.pick(&OTHER_MACS));
        }
        if self.lie(5) {
            message = match self.dice.below(3) {
                // Atomic, which is whole; then a first, and a later one.
                0 => message.fragment(77, 0, false),
                1 => message.fragment(77, 0, true),
                _ => message.fragment(77, 1_024, false),
            };
        }
        if self.lie(3) {
            message = message.tag(0x8100, 0);
        }
        let mut bytes = message.bytes();
        if self.lie(6) {
            bytes.truncate(self.dice.below(bytes.len()));
        }
        if self.lie(4) {
            let at = self.dice.below(bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << self.dice.below(8);
            }
        }
        bytes
    }

    /// A MAC and an address that go together, mostly: of the port for what it sends, of others for
    /// what it receives.
    fn speaker(&mut self, family: Family) -> (MacAddr, IpAddr) {
        match self.direction {
            Direction::Egress => {
                let own = self.port.any_own(self.dice, family);
                let address = match own {
                    Some(own) if !self.dice.chance(12) => own.address,
                    Some(own) if self.dice.chance(40) => next_to(self.dice, own.address),
                    Some(_) | None => self.scene.any_address(self.dice, family),
                };
                let mac = own.filter(|_| self.dice.chance(80)).map(|own| own.mac);
                (mac.unwrap_or(self.port.mac), address)
            }
            Direction::Ingress => {
                let routers = self.port.network.iter().flat_map(|n| &n.routers);
                let routers = routers.filter(|r| Family::of(**r) == family);
                let routers: Vec<IpAddr> = routers.copied().collect();
                let router = self.dice.pick_if_any(&routers).copied();
                let router = router.filter(|_| self.dice.chance(40));
                let other = self.scene.any_address(self.dice, family);
                (GATEWAY, router.unwrap_or(other))
            }
        }
    }

    fn spoken_of(&mut self, family: Family) -> IpAddr {
        let own = self.port.any_own(self.dice, family);
        match own {
            Some(own) if self.dice.chance(60) => own.address,
            Some(_) | None => self.scene.any_address(self.dice, family),
        }
    }

    fn link_local(&mut self) -> IpAddr {
        match self.dice.below(5) {
            0..=2 => self.port.mac.eui64_link_local().into(),
            3 => parse_address("fe80::1"),
            _ => address_of(self.dice, &["fe80::53", "fe80::5", "fe80::77", "febf::1"]),
        }
    }

    fn destination_mac(&mut self) -> MacAddr {
        match self.direction {
            Direction::Egress => GATEWAY,
            Direction::Ingress => self.port.mac,
        }
    }

    fn lie(&mut self, percent: usize) -> bool {
        self.dice.chance(percent)
    }
}

fn as_v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(a) => a,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(a) => a,
        IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
    }
}
