//! What must hold whatever bytes come in: nothing panics, nothing outside the frame is shown, and a
//! frame says the same when padding is put behind it.

use model::Family;
use portcullis_wire::{Body, Fragment, Frame, L4, Packet, parse, parse_quoted};
use std::net::IpAddr;

pub(crate) fn check(bytes: &[u8]) {
    match parse(bytes) {
        Err(_) => assert!(bytes.len() < 14, "an Ethernet header suffices"),
        Ok(frame) => check_frame(&frame, bytes),
    }
    for (family, header) in [(Family::V4, 20), (Family::V6, 40)] {
        let quoted = parse_quoted(bytes, family);
        if let Some(packet) = quoted {
            assert!(bytes.len() >= header);
            check_packet(&packet, bytes);
        }
    }
    let _ = portcullis_wire::nd::listener_group(bytes);
    for icmp_type in 133..=137 {
        let _ = portcullis_wire::nd::message(icmp_type, bytes);
    }
}

fn check_frame(frame: &Frame<'_>, bytes: &[u8]) {
    assert_eq!(frame.dst.0, bytes[..6]);
    assert_eq!(frame.src.0, bytes[6..12]);
    match &frame.body {
        Body::Ip(Ok(packet)) => {
            check_packet(packet, bytes);
            check_padding(packet, bytes);
        }
        Body::Arp(arp) => assert_eq!(arp.is_some(), bytes.len() >= 14 + 28),
        Body::Ip(Err(_)) | Body::Tagged | Body::Other => {}
    }
}

fn check_packet(packet: &Packet<'_>, bytes: &[u8]) {
    let (outer, inner) = (bytes.as_ptr_range(), packet.payload.as_ptr_range());
    assert!(
        packet.payload.is_empty() || outer.start <= inner.start && inner.end <= outer.end,
        "the payload is a part of the frame"
    );
    assert_eq!(packet.src.is_ipv4(), packet.dst.is_ipv4());
    match packet.fragment {
        Fragment::Whole => {}
        Fragment::First { end, .. } => assert!(end <= 65_535),
        Fragment::Later { offset, .. } => {
            assert!(offset >= 8 && offset % 8 == 0);
            assert_eq!(packet.l4, L4::Absent);
        }
    }
    match packet.l4 {
        L4::Icmp { .. } => {
            let own = if matches!(packet.src, IpAddr::V4(_)) {
                1
            } else {
                58
            };
            assert_eq!(packet.protocol, own, "ICMP is of its own family");
        }
        L4::Tcp { .. } => assert_eq!(packet.protocol, 6),
        L4::Ported { .. } => assert!([17, 33, 132, 136].contains(&packet.protocol)),
        L4::Opaque => {}
        L4::Absent => assert!(matches!(packet.fragment, Fragment::Later { .. })),
    }
}

/// Unless its length field says that it ends with the frame.
fn check_padding(packet: &Packet<'_>, bytes: &[u8]) {
    let at = if packet.src.is_ipv4() { 16 } else { 18 };
    let said = usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let headers = if packet.src.is_ipv4() { 14 } else { 14 + 40 };
    if said == 0 || bytes.len() < headers + said {
        return;
    }
    let mut padded = bytes.to_vec();
    padded.extend([0xa5; 7]);
    let again = parse(&padded).expect("it is longer than before");
    assert_eq!(
        again.body,
        Body::Ip(Ok(packet.clone())),
        "padding changes nothing"
    );
}
