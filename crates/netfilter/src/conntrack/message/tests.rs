use super::*;
use crate::codec::tests::{bytes, damaged};
use crate::codec::{Content, messages};
use crate::conntrack::Masked;

/// As Linux 6.18 told it, behind the netlink and netfilter headers: an entry of TCP in zone 7.
const TCP: &str = "
    34 00 01 80 14 00 01 80 08 00 01 00 0a 00 00 01 08 00 02 00 0a 00 00 02
    1c 00 02 80 05 00 01 00 06 00 00 00 06 00 02 00 03 e8 00 00 06 00 03 00 00 50 00 00
    34 00 02 80 14 00 01 80 08 00 01 00 0a 00 00 02 08 00 02 00 0a 00 00 01
    1c 00 02 80 05 00 01 00 06 00 00 00 06 00 02 00 00 50 00 00 06 00 03 00 03 e8 00 00
    06 00 12 00 00 07 00 00 08 00 03 00 00 00 00 0e 08 00 08 00 00 00 00 06
    08 00 0c 00 19 f6 90 91 08 00 0b 00 00 00 00 01 08 00 07 00 00 00 07 07
    30 00 04 80 2c 00 01 80 05 00 01 00 03 00 00 00 05 00 02 00 07 00 00 00
    05 00 03 00 09 00 00 00 06 00 04 00 23 00 00 00 06 00 05 00 2a 00 00 00
    1c 00 18 80 08 00 01 00 00 00 00 00 08 00 02 00 00 00 00 00 08 00 03 00 00 00 00 00";

/// And one of ICMPv6, nothing special about it.
const ECHO: &str = "
    54 00 01 80 2c 00 01 80 14 00 03 00 fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01
    14 00 04 00 fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 02
    24 00 02 80 05 00 01 00 3a 00 00 00 06 00 07 00 00 4d 00 00 05 00 08 00 80 00 00 00
    05 00 09 00 00 00 00 00
    54 00 02 80 2c 00 01 80 14 00 03 00 fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 02
    14 00 04 00 fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01
    24 00 02 80 05 00 01 00 3a 00 00 00 06 00 07 00 00 4d 00 00 05 00 08 00 81 00 00 00
    05 00 09 00 00 00 00 00
    08 00 03 00 00 00 00 08 08 00 07 00 00 00 07 07";

fn tcp() -> Entry {
    Entry {
        protocol: 6,
        original: tuple(
            "10.0.0.1",
            "10.0.0.2",
            TupleL4::Ports { src: 1000, dst: 80 },
        ),
        reply: tuple(
            "10.0.0.2",
            "10.0.0.1",
            TupleL4::Ports { src: 80, dst: 1000 },
        ),
        zone: 7,
        zone_only: None,
        mark: 6,
        status: Status(0xe),
        timeout_s: 0x707,
        state: State::Tcp(Tcp {
            state: Tcp::ESTABLISHED,
            original: TcpOptions {
                window_scale: 7,
                flags: 0x23,
            },
            reply: TcpOptions {
                window_scale: 9,
                flags: 0x2a,
            },
        }),
        id: Some(0x19f6_9091),
    }
}

fn echo() -> Entry {
    let (code, id) = (0, 77);
    Entry {
        protocol: 58,
        original: tuple(
            "fd00::1",
            "fd00::2",
            TupleL4::Icmp {
                icmp_type: 128,
                code,
                id,
            },
        ),
        reply: tuple(
            "fd00::2",
            "fd00::1",
            TupleL4::Icmp {
                icmp_type: 129,
                code,
                id,
            },
        ),
        zone: 0,
        mark: 0,
        status: Status::CONFIRMED,
        state: State::Stateless,
        id: None,
        ..tcp()
    }
}

fn tuple(src: &str, dst: &str, l4: TupleL4) -> Tuple {
    let address = |text: &str| text.parse().expect("an address");
    Tuple {
        src: address(src),
        dst: address(dst),
        l4,
    }
}

/// The attributes of a request, and the family that it says.
fn asked(change_to: Change) -> (u8, Vec<u8>) {
    let mut requests = Requests::default();
    change(&mut requests, &change_to);
    let bytes = requests.bytes();
    let message = messages(&bytes).next().expect("one request");
    let Content::Object { family, attributes } = message.content else {
        panic!("{message:?}")
    };
    (family, attributes.to_vec())
}

#[test]
fn an_entry_is_read_past_what_is_not_known() {
    assert_eq!(entry(2, &bytes(TCP)), Some(tcp()));
    assert_eq!(entry(10, &bytes(ECHO)), Some(echo()));
}

#[test]
fn an_entry_of_another_family_than_it_says_is_refused() {
    for family in [0, 10, 7] {
        assert_eq!(entry(family, &bytes(TCP)), None, "{family}");
    }
    assert_eq!(entry(2, &bytes(ECHO)), None);
}

#[test]
fn a_damaged_entry_is_refused_or_another_one() {
    assert_eq!(entry(2, &[]), None);
    for whole in [TCP, ECHO] {
        for damaged in damaged(&bytes(whole)) {
            for family in [2, 10] {
                entry(family, &damaged);
            }
        }
    }
    // Both tuples there, what follows cut in the middle of an attribute: the rest isn't made up.
    let cut = &bytes(TCP)[..0x34 * 2];
    assert_eq!(entry(2, cut).map(|entry| entry.timeout_s), Some(0));
    assert_eq!(entry(2, &cut[..0x34]), None);
}

#[test]
fn what_is_created_is_what_was_listed() {
    for made in [tcp(), echo()] {
        let (family, attributes) = asked(Change::Create(&made));
        let mut expected = Entry { id: None, ..made };
        if let State::Tcp(tcp) = &mut expected.state {
            tcp.original.flags = 0x03;
            tcp.reply.flags = 0x0a;
        }
        assert_eq!(entry(family, &attributes), Some(expected));
    }
}

#[test]
fn a_zone_of_one_direction_is_told_in_that_tuple() {
    for side in [Side::Original, Side::Reply] {
        let made = Entry {
            zone_only: Some(side),
            id: None,
            ..echo()
        };
        let made = Entry { zone: 9, ..made };
        let (family, attributes) = asked(Change::Create(&made));
        assert_eq!(find(&attributes, CTA_ZONE), None);
        assert_eq!(entry(family, &attributes), Some(made));
    }
}

#[test]
fn only_history_of_the_status_is_asked_for() {
    let made = Entry {
        status: Status(0xffff_ffff),
        ..tcp()
    };
    let (_, attributes) = asked(Change::Create(&made));
    assert_eq!(find(&attributes, CTA_STATUS), Some(&[0, 0, 0, 0x0e][..]));
}

/// Without it the kernel would delete every entry there is.
#[test]
fn every_request_to_delete_has_a_tuple() {
    for listed in [tcp(), echo(), Entry { id: None, ..tcp() }] {
        let (family, attributes) = asked(Change::Delete(&listed));
        let told = find(&attributes, CTA_TUPLE_ORIG).expect("a tuple");
        let tuple = SidedTuple::read(listed.family(), told).expect("a whole one");
        assert_eq!(
            (family, tuple.tuple),
            (family_number(listed.family()), listed.original)
        );
        let id = listed.id.map(u32::to_be_bytes);
        assert_eq!(find(&attributes, CTA_ID), id.as_ref().map(|id| &id[..]));
    }
}

#[test]
fn bits_outside_of_the_mask_are_neither_set_nor_asked_for() {
    let mark = Masked {
        value: 0xffff_0012,
        mask: 0xff,
    };
    let (_, attributes) = asked(Change::Mark { of: &tcp(), mark });
    assert_eq!(find(&attributes, CTA_MARK), Some(&[0, 0, 0, 0x12][..]));
    let filter = Filter {
        mark: Some(mark),
        ..Filter::default()
    };
    let bytes = listing(&filter).bytes();
    let expected = [8, 0, 8, 0, 0, 0, 0, 0x12, 8, 0, 21, 0, 0, 0, 0, 0xff];
    assert_eq!(bytes[20..], expected);
}

#[test]
fn a_tuple_is_reversed_by_its_answer() {
    for entry in [tcp(), echo()] {
        assert_eq!(entry.original.reversed(), Some(entry.reply));
        assert_eq!(entry.reply.reversed(), Some(entry.original));
    }
    let (icmp_type, code, id) = (3, 1, 0);
    let unreachable = TupleL4::Icmp {
        icmp_type,
        code,
        id,
    };
    assert_eq!(tuple("10.0.0.1", "10.0.0.2", unreachable).reversed(), None);
    assert_eq!(
        tcp().to_string(),
        "10.0.0.1:1000 -> 10.0.0.2:80 protocol 6 zone 7"
    );
    let shown = "fd00::1 -> fd00::2 type 128 code 0 id 77 protocol 58 zone 0";
    assert_eq!(echo().to_string(), shown);
}
