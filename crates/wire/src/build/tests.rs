use super::checksum::{Sum, crc32c};
use super::*;
use crate::TcpFlags;

const A: &str = "10.0.0.5";
const B: &str = "10.0.0.9";
const A6: &str = "fd00::5";
const B6: &str = "fd00::9";

fn packet(src: &str, dst: &str) -> Builder<Ip> {
    ip(
        src.parse().expect("an address"),
        dst.parse().expect("an address"),
    )
}

/// The frame as hexadecimal text, without the Ethernet header.
fn check(built: Builder<Ip>, expected: &str) {
    let seen: String = built.packet().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(seen, expected.replace([' ', '\n'], ""));
}

/// Summed with its pseudo-header and its own checksum, a right message gives 0.
fn check_sum(built: Builder<Ip>) {
    let content = &built.content;
    let transport = content.transport_bytes();
    let plain = content.protocol() == 1 || content.protocol() == 2;
    let pseudo = Sum::default().address(content.src).address(content.dst);
    let pseudo = pseudo
        .word(transport.len() as u32)
        .word(u32::from(content.protocol()));
    let start = if plain { Sum::default() } else { pseudo };
    assert_eq!(start.bytes(&transport).complement(), 0, "{built:?}");
}

#[test]
fn a_known_datagram_comes_out_byte_by_byte() {
    check(
        packet(A, B)
            .identification(0x1234)
            .udp(53, 5353)
            .payload(b"hi"),
        "4500001e 12340000 4011548e 0a000005 0a000009 0035 14e9 000a 6e45 6869",
    );
}

#[test]
fn checksums_are_right() {
    for (a, b) in [(A, B), (A6, B6)] {
        for payload in [&b""[..], b"odd", b"even"] {
            check_sum(packet(a, b).tcp(1, 2, TcpFlags::SYN).payload(payload));
            check_sum(packet(a, b).udp(1, 2).payload(payload));
            check_sum(packet(a, b).udp_lite(1, 2).payload(payload));
            check_sum(packet(a, b).dccp(1, 2).payload(payload));
            check_sum(packet(a, b).echo_request(7).payload(payload));
        }
    }
    check_sum(packet(A, "224.0.0.1").igmp_message(0x11, Ipv4Addr::UNSPECIFIED));
    assert_eq!(
        Sum::default()
            .bytes(&packet(A, B).packet()[..20])
            .complement(),
        0
    );
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn extension_headers_form_a_chain() {
    let built = packet(A6, B6)
        .extension(Extension::HopByHop(vec![5, 2, 0, 0]))
        .extension(Extension::Routing {
            kind: 4,
            segments_left: 1,
            data: vec![],
        })
        .fragment(0x64, 0, true)
        .extension(Extension::Destination(vec![]))
        .extension(Extension::Authentication(vec![0; 12]))
        .protocol(59, b"x");
    check(
        built,
        "60000000 0039 00 40 fd000000000000000000000000000005 fd000000000000000000000000000009
         2b00 0502 0000 0100  2c00 0401 00000000  3c00 0001 00000064  3300 0104 00000000
         3b04 0000 00000001 00000001 000000000000000000000000 78",
    );
}

#[test]
fn fragments_cover_the_datagram() {
    for (a, b, header) in [(A, B, 20), (A6, B6, 48)] {
        let whole = packet(a, b).udp(1, 2).payload(&[7; 100]);
        let parts: Vec<Vec<u8>> = whole.fragments(9, 43).iter().map(|f| f.packet()).collect();
        assert_eq!(parts.len(), 3);
        let joined: Vec<u8> = parts.iter().flat_map(|p| p[header..].to_vec()).collect();
        assert_eq!(joined, whole.content.transport_bytes());
    }
}

#[test]
fn multicast_and_broadcast_find_their_mac() {
    let mac = |b: Builder<Ip>| MacAddr(b.bytes()[..6].try_into().expect("six bytes")).to_string();
    assert_eq!(mac(packet(A, "255.255.255.255")), "ff:ff:ff:ff:ff:ff");
    assert_eq!(mac(packet(A, "224.129.2.3")), "01:00:5e:01:02:03");
    assert_eq!(mac(packet(A6, "ff02::1:ff00:9")), "33:33:ff:00:00:09");
    assert_eq!(mac(packet(A, B)), "00:00:00:00:00:00");
}

#[test]
fn nothing_is_too_odd_to_build() {
    let odd = packet(A, B6)
        .options(&[0x44; 77])
        .header_words(255)
        .version(255)
        .fragment(u32::MAX, u32::MAX, true)
        .tcp(0, 0, 0xff)
        .tcp_details(0, 0, 0, &[1; 99])
        .payload(&vec![0; 70_000])
        .tag(0x8100, 0xffff)
        .pad_to(80_000);
    assert_eq!(odd.bytes().len(), 80_000);
    assert_eq!(odd.cut(3).bytes().len(), 3);
    assert_eq!(
        packet(A6, B)
            .extension(Extension::Raw {
                kind: 0,
                bytes: vec![]
            })
            .packet()
            .len(),
        40
    );
}
