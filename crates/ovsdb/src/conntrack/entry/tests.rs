//! Lines of a real ovs-vswitchd (3.1, its own datapath), and of the kernel's datapath.

use super::*;

const UDP: &str = "udp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=4301,dport=53),\
    reply=(src=10.0.0.2,dst=10.0.0.1,sport=53,dport=4301),id=0,zone=5,status=0,timeout=100,mark=1";

const TCP: &str = "tcp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=41922,dport=80),\
    reply=(src=10.0.0.2,dst=10.0.0.1,sport=80,dport=41922),id=0,zone=5,status=0,timeout=30,\
    labels=0x1f,protoinfo=(state_orig=FIN_WAIT_2,state_reply=ESTABLISHED,wscale_orig=10,\
    wscale_reply=10,flags_orig=WINDOW_SCALE,flags_reply=WINDOW_SCALE)";

const ICMP: &str = "icmpv6,orig=(src=fd00::1,dst=fd00::2,id=7,type=128,code=0),\
    reply=(src=fd00::2,dst=fd00::1,id=7,type=129,code=0),id=0,status=0,timeout=30";

const KERNEL: &str = "tcp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=1,dport=80,packets=3,bytes=180),\
    reply=(src=10.0.0.2,dst=10.0.0.1,sport=80,dport=1,packets=2,bytes=112),id=2949372160,zone=9,\
    status=SEEN_REPLY|ASSURED|CONFIRMED,timeout=86399,protoinfo=(state=ESTABLISHED,\
    wscale_orig=7,wscale_reply=7,flags_orig=WINDOW_SCALE|SACK_PERM,flags_reply=WINDOW_SCALE)";

fn parsed(line: &str) -> Connection {
    Connection::parse(line).unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn lines_are_read() {
    let udp = parsed(UDP);
    assert_eq!((&*udp.protocol, udp.zone, udp.mark), ("udp", 5, 1));
    assert_eq!((udp.orig.sport, udp.orig.dport), (4301, 53));
    assert_eq!(udp.reply.src.to_string(), "10.0.0.2");
    assert_eq!((udp.timeout_seconds, udp.state), (Some(100), None));

    let tcp = parsed(TCP);
    assert_eq!(tcp.state.as_deref(), Some("FIN_WAIT_2"));
    assert_eq!(tcp.state_reply.as_deref(), Some("ESTABLISHED"));
    assert_eq!((tcp.mark, tcp.labels), (0, 0x1f));

    let icmp = parsed(ICMP);
    let of_type = |icmp_type| Icmp {
        id: 7,
        icmp_type,
        code: 0,
    };
    assert_eq!((icmp.zone, icmp.orig.icmp), (0, Some(of_type(128))));
    assert_eq!(icmp.reply.icmp, Some(of_type(129)));

    let kernel = parsed(KERNEL);
    assert_eq!(kernel.state.as_deref(), Some("ESTABLISHED"));
    assert_eq!((kernel.state_reply, kernel.zone), (None, 9));
}

#[test]
fn a_cut_line_is_whole_or_nothing() {
    for line in [UDP, TCP, ICMP, KERNEL] {
        let whole = parsed(line);
        for (cut, _) in line.char_indices() {
            // Only behind both tuples is there something that could have been the whole line.
            let read = Connection::parse(&line[..cut]);
            assert!(read.is_none_or(|c| c.orig == whole.orig && c.reply == whole.reply));
        }
    }
}

#[test]
fn garbled_lines_are_not_read() {
    let lines = [
        "",
        "udp",
        "udp,",
        "udp,orig=,reply=",
        "udp,)(",
        "udp,orig=((src=10.0.0.1)),reply=()",
        "udp,orig=(src=é,dst=10.0.0.2),reply=(src=10.0.0.2,dst=10.0.0.1)",
    ];
    for line in lines {
        assert_eq!(Connection::parse(line), None, "{line}");
    }
    for (part, other) in [
        ("zone=5", "zone=65536"),
        ("mark=1", "mark=x"),
        ("53", "65536"),
    ] {
        let line = UDP.replace(part, other);
        assert_eq!(Connection::parse(&line), None, "{line}");
    }
}

#[test]
fn a_tuple_is_named_completely() {
    let named = |line: &str| {
        let connection = parsed(line);
        connection.orig.to_argument(&connection.protocol)
    };
    assert_eq!(
        named(UDP).as_deref(),
        Some("ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2,ct_nw_proto=17,ct_tp_src=4301,ct_tp_dst=53")
    );
    let icmp = ICMP
        .replace("icmpv6", "icmp")
        .replace("fd00:", "10.0.0")
        .replace(":", ".");
    let echo = icmp.replace("type=128", "type=8");
    assert_eq!(
        named(&echo).as_deref(),
        Some(
            "ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2,ct_nw_proto=1,\
             icmp_id=7,icmp_type=8,icmp_code=0"
        )
    );
}

/// Each would be taken for more than it is, or do harm.
#[test]
fn what_cannot_be_named_alone_is_not_named() {
    let other = UDP.replace("udp", "gre");
    let number_0 = UDP.replace("sport=4301", "sport=0");
    let no_answer = ICMP.replace("icmpv6", "icmp");
    for line in [ICMP, &other, &number_0, &no_answer] {
        let connection = parsed(line);
        assert_eq!(
            connection.orig.to_argument(&connection.protocol),
            None,
            "{line}"
        );
    }
}
