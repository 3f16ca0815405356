use super::*;
use crate::{Arp, Body, Fragment, L4, Packet, TcpFlags, parse};

const SRC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
const DST: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);

fn frame(text: &str) -> Vec<u8> {
    match text.parse::<Words>() {
        Ok(words) => words.frame(SRC, DST),
        Err(error) => panic!("{text}: {error}"),
    }
}

/// The words become a packet that the parser reads, and that is described by these words.
fn check(text: &str, expected: &str) {
    assert_eq!(describe(&frame(text)), expected, "{text}");
}

fn check_packet(text: &str, fact: impl Fn(&Packet<'_>) -> bool) {
    let frame = frame(text);
    let parsed = parse(&frame).expect("long enough");
    match parsed.body {
        Body::Ip(Ok(packet)) => assert!(fact(&packet), "{text}: {packet:?}"),
        other => panic!("{text}: {other:?}"),
    }
}

fn check_arp(text: &str, fact: impl Fn(&Arp) -> bool) {
    let frame = frame(text);
    match parse(&frame).expect("long enough").body {
        Body::Arp(Some(arp)) => assert!(fact(&arp), "{text}: {arp:?}"),
        other => panic!("{text}: {other:?}"),
    }
}

fn check_error(text: &str, word: Option<&str>, expected: &str) {
    let error = text.parse::<Words>().expect_err(text);
    assert_eq!(error.word.as_deref(), word, "{text}: {error}");
    assert!(error.expected.contains(expected), "{text}: {error}");
}

#[test]
fn plain_packets() {
    for text in [
        "tcp 10.0.0.5:40000 -> 10.0.0.9:443 [syn]",
        "tcp 10.0.0.5:40000 -> 10.0.0.9:443 [fin|ack]",
        "tcp [fd00::5]:40000 -> [fd00::9]:443 [none]",
        "udp [fd00::1]:53 -> [fd00::2]:5353",
        "sctp 10.0.0.5:1 -> 10.0.0.9:2",
        "dccp 10.0.0.5:1 -> 10.0.0.9:2",
        "udplite 10.0.0.5:1 -> 10.0.0.9:2",
        "protocol 47 10.0.0.5 -> 10.0.0.9",
        "arp who-has 10.0.0.9 tell 10.0.0.5",
        "arp reply 10.0.0.5 to 10.0.0.9",
        "udp 10.0.0.5:1 -> 10.0.0.9:2 frag 7@0+",
    ] {
        check(text, text);
    }
    check(
        "tcp 10.0.0.5:1 -> 10.0.0.9:2",
        "tcp 10.0.0.5:1 -> 10.0.0.9:2 [syn]",
    );
    check(
        "icmp 10.0.0.5 -> 10.0.0.9 echo-request id 7",
        "icmp 10.0.0.5 -> 10.0.0.9 type 8 code 0 id 7",
    );
    check(
        "icmp fd00::5 -> fd00::9 echo-reply id 7",
        "icmp fd00::5 -> fd00::9 type 129 code 0 id 7",
    );
    check(
        "icmp fd00::5 -> fd00::9 type 200 code 3",
        "icmp fd00::5 -> fd00::9 type 200 code 3 id 0",
    );
    check(
        "udp 10.0.0.5 -> 10.0.0.9 frag 7@1480 len 8",
        "protocol 17 10.0.0.5 -> 10.0.0.9 frag 7@1480",
    );
}

#[test]
fn errors_quote_a_packet() {
    let quoted = "udp 10.0.0.9:2 -> 10.0.0.5:1";
    let text = format!("icmp 10.0.0.5 -> 10.0.0.9 port-unreachable about ({quoted} len 3)");
    check_packet(&text, |p| {
        let inner = p.payload.get(8..).unwrap_or_default();
        let ethernet = [&[0; 12][..], &[8, 0], inner].concat();
        describe(&ethernet) == quoted && inner.len() == 31
    });
}

#[test]
fn infrastructure() {
    check_arp(
        "arp who-has 10.0.0.9 tell 10.0.0.5 sender-mac 52:54:00:00:00:07",
        |a| a.sender_mac.0[5] == 7 && a.opcode == 1 && a.header == (1, 0x0800, 6, 4),
    );
    check_arp("arp reply 10.0.0.5 to 10.0.0.9", |a| {
        (a.sender_mac, a.target_mac, a.opcode) == (SRC, DST, 2)
    });
    check_arp("rarp src-mac 52:54:00:00:00:09", |a| {
        a.opcode == 3 && a.sender_mac.0[5] == 9 && a.target_mac.0[5] == 9
    });
    check_packet("ns fd00::1 -> ff02::1:ff00:2 target fd00::2", |p| {
        p.hops == 255 && p.payload.len() == 32 && p.payload[24..] == [1, 1, 0x52, 0x54, 0, 0, 0, 1]
    });
    check_packet("ns :: -> ff02::1:ff00:2 target fd00::2", |p| {
        p.payload.len() == 24
    });
    check_packet(
        "mld report2 fe80::1 -> ff02::16 router-alert group ff02::5",
        |p| p.hops == 1 && p.protocol == 58 && p.payload[0] == 143,
    );
    check_packet("igmp report 10.0.0.5 -> 224.0.0.251", |p| {
        p.hops == 1 && p.payload == [0x16, 0, 9, 4, 224, 0, 0, 251]
    });
    check_packet("dhcp client 0.0.0.0 -> 255.255.255.255", |p| {
        p.l4 == L4::Ported { src: 68, dst: 67 }
    });
    check_packet("dhcp server fe80::1 -> fe80::2", |p| {
        p.l4 == L4::Ported { src: 547, dst: 546 }
    });
}

#[test]
fn extras_change_the_bytes() {
    let whole =
        frame("udp 10.0.0.5:1 -> 10.0.0.9:2 src-mac 02:00:00:00:00:01 vlan 5 len 4 tail 2 pad 60");
    assert_eq!(whole[6..18], [2, 0, 0, 0, 0, 1, 0x81, 0, 0, 5, 8, 0]);
    assert_eq!(
        (whole.len(), whole[50], whole[51], whole[52]),
        (60, 0xee, 0xee, 0)
    );
    assert_eq!(frame("frame data 0102").len(), 2);
    assert_eq!(
        frame("frame data ffffffffffff0200000000010800450000").len(),
        17
    );
    check_packet(
        "tcp [fd00::5]:1 -> [fd00::9]:2 hop-by-hop dest-options frag 9@0",
        |p| {
            p.fragment == Fragment::Whole
                && p.l4
                    == L4::Tcp {
                        src: 1,
                        dst: 2,
                        flags: TcpFlags(TcpFlags::SYN),
                    }
        },
    );
    assert!(matches!(
        parse(&frame(
            "udp 10.0.0.5:1 -> 10.0.0.9:2 options 830704ffffffff"
        ))
        .expect("long enough")
        .body,
        Body::Ip(Err(_))
    ));
}

#[test]
fn mistakes_are_named() {
    check_error("", None, "tcp, udp");
    check_error("tcpp 1", Some("tcpp"), "tcp, udp");
    check_error(
        "tcp 10.0.0.5 -> 10.0.0.9:443",
        Some("10.0.0.5"),
        "ADDRESS:PORT",
    );
    check_error(
        "tcp 10.0.0.5:1 -> 10.0.0.9",
        Some("10.0.0.9"),
        "ADDRESS:PORT",
    );
    check_error(
        "tcp 10.0.0.5:70000 -> 10.0.0.9:1",
        Some("10.0.0.5:70000"),
        "ADDRESS:PORT",
    );
    check_error("tcp 10.0.0.5:1 10.0.0.9:443", Some("10.0.0.9:443"), "`->`");
    check_error(
        "udp 10.0.0.5:1 -> [fd00::1]:2",
        Some("[fd00::1]:2"),
        "an IPv4 address",
    );
    check_error(
        "tcp 10.0.0.5:1 -> 10.0.0.9:443 [sin]",
        Some("[sin]"),
        "flags",
    );
    check_error("icmp 10.0.0.5 -> 10.0.0.9", None, "echo-request");
    check_error(
        "icmp 10.0.0.5 -> 10.0.0.9 packet-too-big",
        Some("packet-too-big"),
        "fragmentation-needed",
    );
    check_error(
        "udp 10.0.0.5:1 -> 10.0.0.9:2 frag 7",
        Some("7"),
        "ID@OFFSET",
    );
    check_error(
        "udp 10.0.0.5:1 -> 10.0.0.9:2 frag 7@4+",
        Some("7@4+"),
        "multiple of 8",
    );
    check_error("udp 10.0.0.5:1 -> 10.0.0.9:2 src-mac x", Some("x"), "a MAC");
    check_error(
        "udp 10.0.0.5:1 -> 10.0.0.9:2 soon",
        Some("soon"),
        "one of src-mac",
    );
    check_error(
        "udp 10.0.0.5:1 -> 10.0.0.9:2 target fd00::1",
        Some("target"),
        "only ns",
    );
    check_error(
        "icmp 10.0.0.5 -> 10.0.0.9 destination-unreachable about (udp 10.0.0.5:1 -> 10.0.0.9:2",
        None,
        "`)`",
    );
    check_error(
        "udp 10.0.0.5:1 -> 10.0.0.9:2 )",
        Some(")"),
        "one of src-mac",
    );
    check_error("ethertype 0x12345", Some("0x12345"), "an ethertype");
    check_error("frame data 012", Some("012"), "pairs");
}

#[test]
fn no_words_are_too_odd() {
    let words: Vec<&str> =
        "tcp udp icmp arp rarp ns na redirect mld igmp dhcp protocol ethertype frame \
        query report3 client who-has tell reply to 47 0 255 65535 70000 10.0.0.5:1 10.0.0.9 -> \
        [fd00::1]:2 fd00::2 fd00::3 echo-request port-unreachable about ( ) [syn|ack] [] [ frag \
        7@0+ 7@65528 7@9 @+ len data options 00 0 routing ah dest-options hop-by-hop extension \
        long-options src-mac 52:54:00:00:00:01 target group cut pad tail vlan version ip-length \
        header-words next-header nd-options lladdr none é :: : ]:1"
            .split_whitespace()
            .collect();
    let mut state = 1u64;
    let mut dice = |sides: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % sides
    };
    let mut made = 0;
    for _ in 0..100_000 {
        let text: Vec<&str> = (0..dice(14)).map(|_| words[dice(words.len())]).collect();
        if let Ok(words) = text.join(" ").parse::<Words>() {
            describe(&words.frame(SRC, DST));
            made += 1;
        }
    }
    assert!(made > 100, "{made}");
}
