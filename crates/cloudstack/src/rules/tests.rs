use super::*;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A good text, and its canonical form.
fn check(text: &str, canonical: &str) {
    let rules = Rules::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(rules.text(), text);
    assert_eq!(
        Rules::new(rules.records().to_vec()).text(),
        canonical,
        "{text}"
    );
}

fn check_bad(text: &str, number: usize, problem: RuleProblem) {
    match Rules::parse(text) {
        Err(RulesError::Record {
            number: seen_number,
            problem: seen,
            ..
        }) => assert_eq!((seen_number, seen), (number, problem), "{text}"),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn what_the_server_sends_reads_back() {
    for text in [
        "",
        "I:tcp;22;22;0.0.0.0/0,::/0,NEXT;I:icmp;8;0;10.0.0.0/8,NEXT;E:all;0;0;0.0.0.0/0,NEXT;",
        "I:udp;0;0;10.0.0.0/8,NEXT;",
        "I:tcp;1;65535;192.0.2.1/32,NEXT;",
        "I:tcp;0;1023;192.0.2.1/32,NEXT;",
        "E:icmp;-1;-1;::/0,NEXT;",
        "E:icmp;3;-1;0.0.0.0/0,NEXT;",
        "I:47;0;0;10.0.0.0/8,fd00::/8,NEXT;",
        "I:0;0;0;10.0.0.0/8,NEXT;",
        "I:255;0;0;10.0.0.0/8,NEXT;",
        "E:all;0;0;null/32,NEXT;",
        "I:all;0;0;10.0.0.0/8,10.0.0.0/8,NEXT;I:all;0;0;10.0.0.0/8,NEXT;",
    ] {
        check(text, text);
    }
}

#[test]
fn one_meaning_has_one_form() {
    check("I:tcp;0;65535;0.0.0.0/0,NEXT;", "I:tcp;0;0;0.0.0.0/0,NEXT;");
    check("I:6;0;0;0.0.0.0/0,NEXT;", "I:tcp;0;0;0.0.0.0/0,NEXT;");
    check("I:17;0;0;0.0.0.0/0,NEXT;", "I:udp;0;0;0.0.0.0/0,NEXT;");
    check("I:1;0;0;0.0.0.0/0,NEXT;", "I:icmp;-1;-1;0.0.0.0/0,NEXT;");
    check("I:TCP;22;22;0.0.0.0/0,NEXT;", "I:tcp;22;22;0.0.0.0/0,NEXT;");
    check(
        "I:All;0;0;2001:DB8::1/32,NEXT;",
        "I:all;0;0;2001:db8::/32,NEXT;",
    );
    check("I:all;0;0;10.1.2.3/8,NEXT;", "I:all;0;0;10.0.0.0/8,NEXT;");
    check("I:all;0;0;10.1.2.3,NEXT;", "I:all;0;0;10.1.2.3/32,NEXT;");
    check("I:all;0;0;10.0.0.0/8NEXT;", "I:all;0;0;10.0.0.0/8,NEXT;");
}

#[test]
fn a_malformed_record_refuses_the_push() {
    use RuleProblem as P;
    let q = |text: &str| format!("`{text}`");
    check_bad("x", 1, P::NotEnded);
    check_bad("I:tcp;22;22;0.0.0.0/0,", 1, P::NotEnded);
    check_bad("I:tcp;22;22;0.0.0.0/0,NEXT", 1, P::NotEnded);
    check_bad("I:tcp;22;22;0.0.0.0/0,NEXT;\n", 2, P::NotEnded);
    check_bad(
        "I:all;0;0;0.0.0.0/0,NEXT;E:tcp;22;22;0.0.0.0/0,",
        2,
        P::NotEnded,
    );
    check_bad("NEXT;", 1, P::Shape);
    check_bad("I:tcp;22;0.0.0.0/0,NEXT;", 1, P::Shape);
    check_bad("I;22;22;0.0.0.0/0,NEXT;", 1, P::Shape);
    check_bad("i:tcp;22;22;0.0.0.0/0,NEXT;", 1, P::Direction(q("i")));
    check_bad("X:tcp;22;22;0.0.0.0/0,NEXT;", 1, P::Direction(q("X")));
    for protocol in [
        "",
        "sctp",
        "256",
        "-1",
        "06",
        "017",
        "٦",
        "tcp ",
        "t\u{131}p",
    ] {
        let text = format!("I:{protocol};0;0;0.0.0.0/0,NEXT;");
        check_bad(&text, 1, P::Protocol(quoted(protocol)));
    }
    for port in ["", "x", "-1", "65536", "022", "+22", "22 ", "٢٢"] {
        let text = format!("I:tcp;{port};22;0.0.0.0/0,NEXT;");
        check_bad(&text, 1, P::Port(quoted(port)));
    }
    check_bad("I:udp;2;1;0.0.0.0/0,NEXT;", 1, P::PortsReversed);
    check_bad("I:udp;1;0;0.0.0.0/0,NEXT;", 1, P::PortsReversed);
    check_bad("I:icmp;256;0;0.0.0.0/0,NEXT;", 1, P::Icmp(q("256")));
    check_bad("I:icmp;8;-2;0.0.0.0/0,NEXT;", 1, P::Icmp(q("-2")));
    check_bad("I:icmp;-1;5;0.0.0.0/0,NEXT;", 1, P::CodeWithoutType);
    check_bad("I:all;0;22;0.0.0.0/0,NEXT;", 1, P::PortsOfNone);
    check_bad("I:47;5;5;0.0.0.0/0,NEXT;", 1, P::PortsOfNone);
    check_bad("I:6;22;22;0.0.0.0/0,NEXT;", 1, P::PortsOfNone);
    check_bad("E:all;0;0;NEXT;", 1, P::NoPrefixes);
    check_bad("E:all;0;0;,NEXT;", 1, P::NoPrefixes);
    for prefix in [
        "",
        "bad",
        "10.0.0.0/33",
        "10.0.0.0/08",
        "null",
        "NULL/32",
        " ::/0",
    ] {
        let text = format!("E:all;0;0;10.0.0.0/8,{prefix},NEXT;");
        check_bad(&text, 1, P::Prefix(quoted(prefix)));
    }
    check_bad(
        "I:all;0;0;10.0.0.0/8;x,NEXT;",
        1,
        P::Prefix(q("10.0.0.0/8;x")),
    );
}

#[test]
fn an_error_says_which_record_and_why_in_one_line() {
    let error =
        Rules::parse("I:all;0;0;0.0.0.0/0,NEXT;I:tcp;x\n;22;0.0.0.0/0,NEXT;").expect_err("bad");
    assert_eq!(
        error.to_string(),
        "record 2 of the rules, `I:tcp;x\\u{a};22;0.0.0.0/0,`: `x\\u{a}` is no port: 0 to 65535"
    );
    let error = Rules::parse(&"x".repeat(MAX_BYTES + 1)).expect_err("too long");
    assert_eq!(
        error.to_string(),
        "the rules have 131073 bytes; at most 131072 are read"
    );
}

#[test]
fn a_record_is_of_the_families_of_its_prefixes() {
    let of = |text: &str| {
        let rules = Rules::parse(text).expect("good");
        Family::BOTH.map(|family| rules.records()[0].is_of(family))
    };
    assert_eq!(of("E:all;0;0;10.0.0.0/8,NEXT;"), [true, false]);
    assert_eq!(of("E:all;0;0;::/0,NEXT;"), [false, true]);
    assert_eq!(of("E:all;0;0;10.0.0.0/8,::/0,NEXT;"), [true, true]);
    assert_eq!(of("E:all;0;0;null/32,NEXT;"), [true, false]);
}

fn any_remote() -> impl Strategy<Value = Remote> {
    prop_oneof![
        1 => Just(Remote::NoAddress),
        4 => (any::<u32>(), 0u8..=32).prop_map(|(a, length)| {
            Remote::Prefix(Prefix::containing(IpAddr::V4(Ipv4Addr::from(a)), length))
        }),
        4 => (any::<u128>(), 0u8..=128).prop_map(|(a, length)| {
            Remote::Prefix(Prefix::containing(IpAddr::V6(Ipv6Addr::from(a)), length))
        }),
    ]
}

fn any_service() -> impl Strategy<Value = Service> {
    let transport = prop_oneof![Just(Transport::Tcp), Just(Transport::Udp)];
    // `0;0` is any port, so there is no text for port 0 alone.
    let ports = (any::<u16>(), 1u16..)
        .prop_map(|(a, b)| L4PortRange::new(a.min(b), a.max(b)).expect("in order"));
    let kind = (any::<u8>(), any::<Option<u8>>())
        .prop_map(|(icmp_type, code)| IcmpKind { icmp_type, code });
    prop_oneof![
        Just(Service::All),
        (transport, ports).prop_map(|(transport, ports)| Service::Ports { transport, ports }),
        proptest::option::of(kind).prop_map(Service::Icmp),
        any::<u8>()
            .prop_filter("read as others", |n| !matches!(n, 1 | 6 | 17))
            .prop_map(Service::Protocol),
    ]
}

prop_compose! {
    /// Any record that a text can say.
    pub(crate) fn any_record()(
        egress in any::<bool>(),
        service in any_service(),
        remotes in proptest::collection::vec(any_remote(), 1..5),
    ) -> RuleRecord {
        let direction = if egress { Direction::Egress } else { Direction::Ingress };
        RuleRecord { direction, service, remotes }
    }
}

proptest! {
    #[test]
    fn records_survive_their_text(records in proptest::collection::vec(any_record(), 0..8)) {
        let rules = Rules::new(records);
        prop_assert_eq!(Rules::parse(rules.text()), Ok(rules.clone()), "{}", rules.text());
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
        let _ = Rules::parse(&text);
    }

    /// Near misses: the pieces of real texts, cut and joined anywhere.
    #[test]
    fn a_text_that_is_read_has_one_form(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("I:"), Just("E:"), Just("tcp"), Just("icmp"), Just("all"), Just("47"), Just(";"),
                Just("0"), Just("22"), Just("-1"), Just("0.0.0.0/0"), Just("10.1.2.3/8"), Just("::/0"),
                Just(","), Just("NEXT;"), Just("null/32"),
                Just("I:tcp;22;22;"), Just("E:all;0;0;"), Just("0.0.0.0/0,NEXT;"),
            ],
            0..12,
        )
    ) {
        if let Ok(rules) = Rules::parse(&pieces.concat()) {
            prop_assert!(rules.records().iter().all(|record| !record.remotes.is_empty()));
            let one_form = Rules::new(rules.records().to_vec());
            prop_assert_eq!(one_form.records(), rules.records());
            prop_assert_eq!(Rules::parse(one_form.text()), Ok(one_form));
        }
    }
}
