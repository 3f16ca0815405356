//! A description to a frame.

use super::{Extra, Kind, Words};
use crate::build::{
    self, Arp, Builder, Content, Ip, SOURCE_LINK_LAYER, TARGET_LINK_LAYER, ethernet,
};
use model::MacAddr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) fn frame(words: &Words, src_mac: MacAddr, dst_mac: MacAddr) -> Vec<u8> {
    let nobody = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let (src, dst) = words.ends.unwrap_or((nobody, nobody));
    match &words.kind {
        Kind::Arp {
            opcode,
            sender,
            target,
        } => {
            let built = match opcode {
                1 => build::arp_request((src_mac, *sender), *target),
                _ => build::arp_reply((src_mac, *sender), (dst_mac, *target)),
            };
            finish(words, arp_details(words, built).src_mac(src_mac))
        }
        Kind::Rarp => finish(
            words,
            arp_details(words, build::rarp(src_mac)).src_mac(src_mac),
        ),
        Kind::Ethertype(ethertype) => {
            let built = ethernet(*ethertype, &data(words)).macs(src_mac, dst_mac);
            finish(words, built)
        }
        Kind::Frame => {
            let mut bytes = data(words);
            let rest = bytes.split_off(bytes.len().min(14));
            let mut frame = finish(words, ethernet(0, &rest));
            frame.splice(..frame.len().min(14), bytes);
            frame
        }
        _ => {
            let group = is_group(dst);
            let mut built = ip_packet(words, build::ip(src, dst), src_mac).src_mac(src_mac);
            if !group {
                built = built.dst_mac(dst_mac);
            }
            finish(words, built)
        }
    }
}

fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_multicast() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_multicast(),
    }
}

fn ip_packet(words: &Words, mut built: Builder<Ip>, src_mac: MacAddr) -> Builder<Ip> {
    let mut code_given = None;
    let mut identifier = 0;
    let mut quoted = None;
    let mut later = false;
    for extra in &words.extras {
        match extra {
            Extra::Code(code) => code_given = Some(*code),
            Extra::Identifier(id) => identifier = *id,
            Extra::About(about) => quoted = Some(quote(about)),
            Extra::Fragment { offset, .. } => later |= *offset > 0,
            _ => {}
        }
    }
    let fill = quoted.unwrap_or_else(|| data(words));
    let protocol = protocol_number(words);
    built = match &words.kind {
        // Of a later fragment the datagram's middle is all there is.
        _ if later => built.protocol(protocol, &fill),
        Kind::Tcp { src, dst, flags } => built.tcp(*src, *dst, *flags).payload(&fill),
        Kind::Ported { src, dst, .. } => match protocol {
            33 => built.dccp(*src, *dst).payload(&fill),
            132 => built.sctp(*src, *dst).payload(&fill),
            136 => built.udp_lite(*src, *dst).payload(&fill),
            _ => built.udp(*src, *dst).payload(&fill),
        },
        Kind::Icmp { icmp_type, code } => {
            let code = code_given.unwrap_or(*code);
            let [a, b] = identifier.to_be_bytes();
            built.icmp(*icmp_type, code, [a, b, 0, 1]).payload(&fill)
        }
        Kind::Nd { icmp_type, target } => {
            nd(words, built, *icmp_type, *target, src_mac, code_given)
        }
        Kind::Mld { icmp_type } => match group(words) {
            IpAddr::V6(group) if *icmp_type == 143 => built.mld_v2_report(group),
            IpAddr::V6(group) => built.mld(*icmp_type, group),
            IpAddr::V4(_) => built.mld(*icmp_type, Ipv6Addr::UNSPECIFIED),
        },
        Kind::Igmp { igmp_type } => match group(words) {
            IpAddr::V4(group) if *igmp_type == 0x22 => built.igmp_v3_report(group),
            IpAddr::V4(group) => built.igmp_message(*igmp_type, group),
            IpAddr::V6(_) => built.igmp_message(*igmp_type, Ipv4Addr::UNSPECIFIED),
        },
        Kind::Dhcp { server: true } => built.dhcp_server(src_mac),
        Kind::Dhcp { server: false } => built.dhcp_client(src_mac),
        Kind::Protocol(_) | Kind::Arp { .. } | Kind::Rarp | Kind::Ethertype(_) | Kind::Frame => {
            built.protocol(protocol, &fill)
        }
    };
    for extra in &words.extras {
        built = match extra {
            Extra::Hops(hops) => built.hops(*hops),
            Extra::Fragment { id, offset, more } => built.fragment(*id, *offset, *more),
            Extra::Extension(extension) => built.extension(extension.clone()),
            Extra::RouterAlert => built.router_alert(),
            Extra::Options(options) => built.options(options),
            Extra::Version(version) => built.version(*version),
            Extra::HeaderWords(words) => built.header_words(*words),
            Extra::IpLength(length) => built.ip_length(*length),
            Extra::NextHeader(protocol) => built.next_header(*protocol),
            _ => built,
        };
    }
    built
}

fn protocol_number(words: &Words) -> u8 {
    let v4 = words.ends.is_none_or(|(src, _)| src.is_ipv4());
    match &words.kind {
        Kind::Tcp { .. } => 6,
        Kind::Ported { protocol, .. } | Kind::Protocol(protocol) => *protocol,
        Kind::Icmp { .. } if v4 => 1,
        Kind::Icmp { .. } | Kind::Nd { .. } | Kind::Mld { .. } => 58,
        Kind::Igmp { .. } => 2,
        Kind::Dhcp { .. } => 17,
        Kind::Arp { .. } | Kind::Rarp | Kind::Ethertype(_) | Kind::Frame => 255,
    }
}

fn nd(
    words: &Words,
    built: Builder<Ip>,
    icmp_type: u8,
    target: Ipv6Addr,
    src_mac: MacAddr,
    code: Option<u8>,
) -> Builder<Ip> {
    let find_destination = words.extras.iter().find_map(|extra| match extra {
        Extra::Destination(address) => Some(*address),
        _ => None,
    });
    let from_unspecified = words.ends.is_some_and(|(src, _)| src.is_unspecified());
    // As hosts do: a source that is no address yet gives no link-layer address.
    let mut link_layer = (!from_unspecified).then_some(src_mac);
    let mut options: Vec<&[u8]> = Vec::new();
    for extra in &words.extras {
        match extra {
            Extra::LinkLayer(given) => link_layer = *given,
            Extra::NdOption(bytes) => options.push(bytes),
            _ => {}
        }
    }
    let mut built = match icmp_type {
        133 => built.router_solicitation(),
        134 => built.router_advertisement(),
        135 => built.neighbour_solicitation(target),
        136 => built.neighbour_advertisement(target),
        _ => built.redirect(target, find_destination.unwrap_or(target)),
    };
    if let Some(code) = code {
        built = built.icmp_code(code);
    }
    if let Some(mac) = link_layer {
        let kind = match icmp_type {
            136 | 137 => TARGET_LINK_LAYER,
            _ => SOURCE_LINK_LAYER,
        };
        built = built.nd_link_layer(kind, mac);
    }
    options.into_iter().fold(built, Builder::append)
}

fn arp_details(words: &Words, mut built: Builder<Arp>) -> Builder<Arp> {
    for extra in &words.extras {
        built = match extra {
            Extra::SenderMac(mac) => built.sender_mac(*mac),
            Extra::TargetMac(mac) => built.target_mac(*mac),
            Extra::ArpHeader(header) => built.arp_header(*header),
            Extra::Opcode(opcode) => built.opcode(*opcode),
            _ => built,
        };
    }
    built
}

fn finish<C: Content>(words: &Words, mut built: Builder<C>) -> Vec<u8> {
    if let Some(mac) = words.dst_mac {
        built = built.dst_mac(mac);
    }
    for extra in &words.extras {
        built = match extra {
            Extra::Tag(protocol, control) => built.tag(*protocol, *control),
            Extra::Cut(length) => built.cut(*length),
            Extra::Pad(length) => built.pad_to(*length),
            Extra::Trailer(length) => built.trailer(&vec![0xee; *length]),
            _ => built,
        };
    }
    built.bytes()
}

/// An IP packet as an ICMP error quotes it.
fn quote(about: &Words) -> Vec<u8> {
    let frame = frame(about, MacAddr::ZERO, MacAddr::ZERO);
    frame.get(14..).unwrap_or(&[]).to_vec()
}

fn data(words: &Words) -> Vec<u8> {
    let given = words.extras.iter().find_map(|extra| match extra {
        Extra::Data(bytes) => Some(bytes.clone()),
        _ => None,
    });
    given.unwrap_or_default()
}

/// The group that a membership message is about: the destination, unless said otherwise.
fn group(words: &Words) -> IpAddr {
    let given = words.extras.iter().find_map(|extra| match extra {
        Extra::Group(group) => Some(*group),
        _ => None,
    });
    let destination = words.ends.map(|(_, dst)| dst);
    given
        .or(destination)
        .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}
