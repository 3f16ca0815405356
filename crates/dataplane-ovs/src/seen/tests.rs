use super::*;
use std::net::IpAddr;
use wire::Body;
use wire::words::Words;

fn connection(protocol: &str, first: [(&str, u16); 2], states: Option<[&str; 2]>) -> Connection {
    let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let [(src, sport), (dst, dport)] = first;
    let orig = Tuple {
        src: address(src),
        dst: address(dst),
        sport,
        dport,
        icmp: None,
    };
    let reply = Tuple {
        src: orig.dst,
        dst: orig.src,
        sport: dport,
        dport: sport,
        icmp: None,
    };
    Connection {
        protocol: protocol.to_owned(),
        zone: 7,
        orig,
        reply,
        state: states.map(|s| s[0].to_owned()),
        state_reply: states.map(|s| s[1].to_owned()),
        timeout_seconds: Some(1),
        mark: 0,
        labels: 0,
    }
}

fn check(words: &str, connections: &[Connection], expected: &str) {
    let words: Words = words.parse().expect("words for a packet");
    let frame = words.frame(model::MacAddr([2; 6]), model::MacAddr([4; 6]));
    let Body::Ip(Ok(packet)) = wire::parse(&frame).expect("a frame").body else {
        panic!("no packet");
    };
    let fields = seen(&packet, connections).fields();
    let state = fields.split(',').next();
    assert_eq!(
        state,
        Some(format!("ct_state={expected}").as_str()),
        "{words:?}"
    );
}

#[test]
fn what_is_known_is_established_either_way() {
    let open = [
        connection(
            "tcp",
            [("10.0.0.2", 9), ("10.0.0.1", 80)],
            Some(["ESTABLISHED"; 2]),
        ),
        connection("udp", [("10.0.0.1", 5), ("10.0.0.2", 53)], None),
    ];
    check("tcp 10.0.0.2:9 -> 10.0.0.1:80 [ack]", &open, "est|trk");
    check("tcp 10.0.0.1:80 -> 10.0.0.2:9 [ack]", &open, "est|trk|rpl");
    check("tcp 10.0.0.1:80 -> 10.0.0.2:9 [syn]", &open, "est|trk|rpl");
    check("tcp 10.0.0.1:80 -> 10.0.0.2:9 [syn,fin]", &open, "inv|trk");
    check("tcp 10.0.0.1:80 -> 10.0.0.2:8 [ack]", &open, "new|trk");
    check("udp 10.0.0.2:53 -> 10.0.0.1:5", &open, "est|trk|rpl");
    let about = "about (tcp 10.0.0.2:9 -> 10.0.0.1:80)";
    check(
        &format!("icmp 10.0.0.1 -> 10.0.0.2 port-unreachable {about}"),
        &open,
        "rel|trk|rpl",
    );
    let about = "about (tcp 10.0.0.2:9 -> 10.0.0.1:81)";
    check(
        &format!("icmp 10.0.0.1 -> 10.0.0.2 port-unreachable {about}"),
        &open,
        "inv|trk",
    );
}

#[test]
fn what_is_not_known_may_begin_or_is_invalid() {
    for (words, expected) in [
        ("tcp 10.0.0.2:9 -> 10.0.0.1:80 [syn]", "new|trk"),
        ("tcp 10.0.0.2:9 -> 10.0.0.1:80 [syn,ack]", "inv|trk"),
        ("tcp 10.0.0.2:9 -> 10.0.0.1:80 [fin]", "inv|trk"),
        ("tcp 10.0.0.2:9 -> 10.0.0.1:80 [rst]", "new|trk"),
        ("icmp 10.0.0.2 -> 10.0.0.1 echo-request id 7", "new|trk"),
        ("icmp 10.0.0.2 -> 10.0.0.1 echo-reply id 7", "inv|trk"),
        ("icmp fd00::2 -> fd00::1 echo-request id 7", "new|trk"),
        ("protocol 47 10.0.0.2 -> 10.0.0.1", "new|trk"),
        ("udplite 10.0.0.2:1 -> 10.0.0.1:2", "new|trk"),
    ] {
        check(words, &[], expected);
    }
}

#[test]
fn a_syn_begins_anew_once_both_ends_are_done() {
    let with = |states| {
        [connection(
            "tcp",
            [("10.0.0.2", 9), ("10.0.0.1", 80)],
            Some(states),
        )]
    };
    let syn = "tcp 10.0.0.2:9 -> 10.0.0.1:80 [syn]";
    check(syn, &with(["FIN_WAIT_2", "FIN_WAIT_2"]), "new|trk");
    check(syn, &with(["TIME_WAIT", "TIME_WAIT"]), "new|trk");
    check(syn, &with(["FIN_WAIT_2", "ESTABLISHED"]), "est|trk");
}

#[test]
fn the_first_packet_goes_with_it() {
    let open = connection("tcp", [("fd00::2", 9), ("fd00::1", 80)], None);
    let seen = Seen {
        state: State::Established,
        reply: true,
        first: Some((6, open.orig)),
        mark: 1,
    };
    let fields = "ct_state=est|trk|rpl,ct_ipv6_src=fd00::2,ct_ipv6_dst=fd00::1,ct_nw_proto=6,ct_tp_src=9,ct_tp_dst=80,ct_mark=1";
    assert_eq!(seen.fields(), fields);
}
