//! A frame to words, for reports: enough to recognize the packet, not to rebuild it.

use crate::{Body, Fragment, L4, Packet, TcpFlags, parse};
use std::net::IpAddr;

/// One line about a frame, such as `tcp 10.0.0.5:40000 -> 10.0.0.9:443 [syn]`.
pub fn describe(frame: &[u8]) -> String {
    let Ok(parsed) = parse(frame) else {
        return format!("a frame of {} bytes", frame.len());
    };
    match parsed.body {
        Body::Ip(Ok(packet)) => describe_packet(&packet),
        Body::Ip(Err(bad)) => format!("an IP packet that can't be judged ({bad:?})"),
        Body::Arp(Some(arp)) if arp.opcode == 1 => {
            format!("arp who-has {} tell {}", arp.target_ip, arp.sender_ip)
        }
        Body::Arp(Some(arp)) if arp.opcode == 2 => {
            format!("arp reply {} to {}", arp.sender_ip, arp.target_ip)
        }
        Body::Arp(Some(arp)) => format!("arp or rarp, opcode {}", arp.opcode),
        Body::Arp(None) => "arp, cut short".to_owned(),
        Body::Tagged => format!("a tagged frame ({:#06x})", parsed.ethertype),
        Body::Other => format!("ethertype {:#06x}", parsed.ethertype),
    }
}

fn describe_packet(packet: &Packet<'_>) -> String {
    let (src, dst) = (packet.src, packet.dst);
    let ported = |name: &str, a: u16, b: u16| {
        let [src, dst] = [(src, a), (dst, b)].map(|(address, port)| match address {
            IpAddr::V4(a) => format!("{a}:{port}"),
            IpAddr::V6(a) => format!("[{a}]:{port}"),
        });
        format!("{name} {src} -> {dst}")
    };
    let mut text = match packet.l4 {
        L4::Tcp { src, dst, flags } => format!("{} {}", ported("tcp", src, dst), names(flags)),
        L4::Ported { src, dst } => {
            let name = match packet.protocol {
                17 => "udp",
                33 => "dccp",
                132 => "sctp",
                _ => "udplite",
            };
            ported(name, src, dst)
        }
        L4::Icmp {
            icmp_type,
            code,
            identifier,
        } => format!("icmp {src} -> {dst} type {icmp_type} code {code} id {identifier}"),
        L4::Opaque | L4::Absent => format!("protocol {} {src} -> {dst}", packet.protocol),
    };
    match packet.fragment {
        Fragment::Whole => {}
        Fragment::First { id, .. } => text += &format!(" frag {id}@0+"),
        Fragment::Later { id, offset } => text += &format!(" frag {id}@{offset}"),
    }
    text
}

fn names(flags: TcpFlags) -> String {
    let all = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];
    let set: Vec<&str> = (0..8)
        .filter(|bit| flags.has(1 << bit))
        .map(|bit| all[bit as usize])
        .collect();
    match set.is_empty() {
        true => "[none]".to_owned(),
        false => format!("[{}]", set.join("|")),
    }
}
