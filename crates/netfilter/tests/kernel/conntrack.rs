//! Conntrack entries; the `conntrack` tool is the second opinion.

mod midstream;
mod zones;

use crate::support::{alone, tool};
use portcullis_netfilter::conntrack::{
    self, Change, Entry, Filter, Masked, Outcome, Sctp, State, Status, Tcp, TcpOptions, Tuple,
    TupleL4,
};
use std::net::IpAddr;
use std::time::{Duration, Instant};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Half of an hour to live: none is gone, or shows 0 s, before a test ends.
fn entry(protocol: u8, src: &str, dst: &str, l4: TupleL4) -> Entry {
    let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let original = Tuple {
        src: address(src),
        dst: address(dst),
        l4,
    };
    Entry {
        protocol,
        original,
        reply: original.reversed().expect("it has an answer"),
        zone: 0,
        zone_only: None,
        mark: 0,
        status: Status::CONFIRMED,
        timeout_s: 1800,
        state: State::Stateless,
        id: None,
    }
}

fn udp(src: &str, dst: &str) -> Entry {
    entry(UDP, src, dst, TupleL4::Ports { src: 1000, dst: 53 })
}

fn established(src: &str, dst: &str) -> Entry {
    let options = TcpOptions {
        window_scale: 7,
        flags: TcpOptions::WINDOW_SCALE | TcpOptions::SACK_PERMITTED,
    };
    Entry {
        status: Status::CONFIRMED
            .with(Status::SEEN_REPLY)
            .with(Status::ASSURED),
        state: State::Tcp(Tcp {
            state: Tcp::ESTABLISHED,
            original: options,
            reply: TcpOptions {
                window_scale: 9,
                ..options
            },
        }),
        ..entry(TCP, src, dst, TupleL4::Ports { src: 1000, dst: 80 })
    }
}

fn icmp(src: &str, dst: &str) -> Entry {
    let (protocol, icmp_type) = match src.contains(':') {
        true => (58, 128),
        false => (1, 8),
    };
    let l4 = TupleL4::Icmp {
        icmp_type,
        code: 0,
        id: 77,
    };
    entry(protocol, src, dst, l4)
}

fn listed(filter: &Filter) -> Vec<Entry> {
    let mut entries = Vec::new();
    conntrack::dump(filter, |entry| entries.push(entry)).unwrap();
    entries
}

fn all() -> Vec<Entry> {
    listed(&Filter::default())
}

/// As listed but for what changes with time and place.
fn timeless(mut entry: Entry, timeout_s: u32) -> Entry {
    assert!(entry.timeout_s.abs_diff(timeout_s) <= 5, "{entry:?}");
    entry.timeout_s = timeout_s;
    entry.id = None;
    entry
}

/// What was made is listed, looks to the tool as it should, can be updated, and goes.
fn check(made: Entry, looks: &'static str) {
    alone(move || {
        assert_eq!(conntrack::create(&made).unwrap(), Outcome::Done);
        assert_eq!(conntrack::create(&made).unwrap(), Outcome::Exists);
        let [seen] = all()[..] else {
            panic!("one entry: {:?}", all())
        };
        assert_eq!(timeless(seen, made.timeout_s), made);
        assert_eq!(conntrack::count().unwrap(), 1);
        let family = if made.original.src.is_ipv4() {
            "ipv4"
        } else {
            "ipv6"
        };
        let told = tool(&format!("conntrack -L -o extended -f {family}"));
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(looks), "{told}");

        assert_eq!(conntrack::set_timeout(&seen, 600).unwrap(), Outcome::Done);
        let mark = Masked {
            value: 0xabcd,
            mask: 0xff,
        };
        assert_eq!(conntrack::set_mark(&seen, mark).unwrap(), Outcome::Done);
        let updated = Entry {
            timeout_s: 600,
            mark: made.mark & !0xff | 0xcd,
            ..made
        };
        assert_eq!(timeless(all()[0], 600), updated);

        assert_eq!(conntrack::delete(&seen).unwrap(), Outcome::Done);
        assert_eq!(all(), []);
        assert_eq!(conntrack::delete(&seen).unwrap(), Outcome::Gone);
        assert_eq!(conntrack::set_timeout(&seen, 600).unwrap(), Outcome::Gone);
        assert_eq!(conntrack::set_mark(&seen, mark).unwrap(), Outcome::Gone);
    });
}

#[test]
fn udp_entries() {
    check(
        udp("10.0.0.1", "10.0.0.2"),
        "ipv4 2 udp 17 1799 src=10.0.0.1 dst=10.0.0.2 sport=1000 dport=53 [UNREPLIED] \
         src=10.0.0.2 dst=10.0.0.1 sport=53 dport=1000 mark=0",
    );
    let both_ways = Entry {
        status: Status::CONFIRMED.with(Status::SEEN_REPLY),
        ..udp("fd00::1", "fd00::2")
    };
    check(
        both_ways,
        "ipv6 10 udp 17 1799 src=fd00::1 dst=fd00::2 sport=1000 dport=53 \
         src=fd00::2 dst=fd00::1 sport=53 dport=1000 mark=0",
    );
}

#[test]
fn tcp_entries() {
    check(
        established("10.0.0.1", "10.0.0.2"),
        "ipv4 2 tcp 6 1799 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1000 dport=80 \
         src=10.0.0.2 dst=10.0.0.1 sport=80 dport=1000 [ASSURED]",
    );
    check(
        established("fd00::1", "fd00::2"),
        "ipv6 10 tcp 6 1799 ESTABLISHED src=fd00::1 dst=fd00::2 sport=1000 dport=80 \
         src=fd00::2 dst=fd00::1 sport=80 dport=1000 [ASSURED]",
    );
}

#[test]
fn icmp_entries() {
    check(
        icmp("10.0.0.1", "10.0.0.2"),
        "icmp 1 1799 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=77 [UNREPLIED] \
         src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=77",
    );
    check(
        icmp("fd00::1", "fd00::2"),
        "icmpv6 58 1799 src=fd00::1 dst=fd00::2 type=128 code=0 id=77 [UNREPLIED] \
         src=fd00::2 dst=fd00::1 type=129 code=0 id=77",
    );
}

#[test]
fn entries_of_rarer_protocols() {
    let ports = TupleL4::Ports { src: 1000, dst: 80 };
    let sctp = Entry {
        state: State::Sctp(Sctp {
            state: 4,
            original_tag: 0x01020304,
            reply_tag: 0x05060708,
        }),
        ..entry(132, "10.0.0.1", "10.0.0.2", ports)
    };
    check(
        sctp,
        "sctp 132 1799 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1000",
    );
    check(
        entry(136, "10.0.0.1", "10.0.0.2", ports),
        "udplite 136 1799 src=10.0.0.1 dst=10.0.0.2 sport=1000 dport=80",
    );
    check(
        entry(47, "10.0.0.1", "10.0.0.2", ports),
        "gre 47 1799 src=10.0.0.1 dst=10.0.0.2 srckey=0x3e8 dstkey=0x50",
    );
    check(
        entry(50, "10.0.0.1", "10.0.0.2", TupleL4::Nothing),
        "unknown 50 1799 src=10.0.0.1 dst=10.0.0.2 [UNREPLIED] src=10.0.0.2",
    );
}

#[test]
fn zones_and_marks() {
    let marked = Entry {
        zone: 40_000,
        mark: 0xdead_beef,
        ..udp("10.0.0.1", "10.0.0.2")
    };
    check(marked, "mark=3735928559 zone=40000");
}

#[test]
fn a_filter_admits_by_zone_mark_and_family() {
    alone(|| {
        let mut made = Vec::new();
        for zone in [0, 1, 0x0101] {
            for mark in [0, 0x10, 0x11] {
                for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
                    let mut entry = Entry {
                        zone,
                        mark,
                        ..udp(src, dst)
                    };
                    // One entry for each mark.
                    let l4 = TupleL4::Ports {
                        src: mark as u16,
                        dst: 53,
                    };
                    entry.original.l4 = l4;
                    entry.reply = entry.original.reversed().unwrap();
                    assert_eq!(conntrack::create(&entry).unwrap(), Outcome::Done);
                    made.push(entry);
                }
            }
        }
        let mut filters = vec![Filter::default()];
        for zone in [0, 1, 2, 0x0101] {
            filters.push(Filter {
                zone: Some(zone),
                ..Filter::default()
            });
        }
        for (value, mask) in [
            (0, 0),
            (0, !0),
            (0x10, !0),
            (0x10, 0xf0),
            (0xff11, 0x1),
            (7, 7),
        ] {
            let mark = Some(Masked { value, mask });
            filters.push(Filter {
                mark,
                ..Filter::default()
            });
            filters.push(Filter {
                mark,
                zone: Some(1),
                ..Filter::default()
            });
        }
        for family in model::Family::BOTH {
            filters.push(Filter {
                family: Some(family),
                ..Filter::default()
            });
        }
        for filter in filters {
            let mut seen: Vec<_> = listed(&filter).iter().map(|e| timeless(*e, 1800)).collect();
            let mut expected = made.clone();
            expected.retain(|entry| filter.admits(entry));
            seen.sort_by_key(|e| (e.zone, e.mark, e.original));
            expected.sort_by_key(|e| (e.zone, e.mark, e.original));
            assert_eq!(seen, expected, "{filter:?}");
        }
    });
}

#[test]
fn an_entry_of_another_id_is_not_deleted() {
    alone(|| {
        conntrack::create(&udp("10.0.0.1", "10.0.0.2")).unwrap();
        let seen = all()[0];
        let id = seen.id.expect("the kernel tells it");
        let other = Entry {
            id: Some(id ^ 1),
            ..seen
        };
        assert_eq!(conntrack::delete(&other).unwrap(), Outcome::Gone);
        assert_eq!(all().len(), 1);
        assert_eq!(
            conntrack::delete(&Entry { id: None, ..seen }).unwrap(),
            Outcome::Done
        );
    });
}

#[test]
fn a_refusal_says_what_was_tried_and_leaves_the_others_alone() {
    alone(|| {
        let good = udp("10.0.0.1", "10.0.0.2");
        let mut mixed = udp("10.0.0.3", "10.0.0.4");
        mixed.original.dst = "fd00::1".parse().unwrap();
        let translated = Entry {
            status: Status::CONFIRMED.with(Status::SOURCE_TRANSLATED),
            ..udp("10.0.0.5", "10.0.0.6")
        };
        let changes = [
            Change::Delete(&good),
            Change::Create(&mixed),
            Change::Create(&translated),
            Change::Create(&good),
            Change::Create(&good),
        ];
        let expected = [
            Outcome::Gone,
            Outcome::Refused {
                errno: libc::EINVAL,
            },
            Outcome::Refused {
                errno: libc::EOPNOTSUPP,
            },
            Outcome::Done,
            Outcome::Exists,
        ];
        assert_eq!(conntrack::change(&changes).unwrap(), expected);
        assert_eq!(all().len(), 1);
        assert_eq!(conntrack::change(&[]).unwrap(), []);

        let error = conntrack::create(&mixed).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EINVAL));
        let tried =
            "creating the conntrack entry 10.0.0.3:1000 -> [fd00::1]:53 protocol 17 zone 0: ";
        assert!(error.to_string().starts_with(tried), "{error}");
    });
}

#[test]
fn without_the_right_to_it_nothing_is_changed_and_nobody_waits() {
    alone(|| {
        let made: Vec<_> = many(10).collect();
        create_all(&made);
        // SAFETY: takes no pointers; it takes the rights of just this thread.
        let dropped = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
        assert_eq!(dropped, 0);
        let changes: Vec<_> = made.iter().map(Change::Delete).collect();
        let error = conntrack::change(&changes).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EPERM));
        let error = conntrack::dump(&Filter::default(), |_| {}).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EPERM));
    });
}

#[test]
fn ten_thousand_come_and_go() {
    alone(|| {
        let made: Vec<_> = many(10_000).collect();
        let others = Entry {
            zone: 9,
            ..udp("10.0.0.1", "10.0.0.2")
        };
        conntrack::create(&others).unwrap();
        create_all(&made);
        assert_eq!(conntrack::count().unwrap(), 10_001);
        let seen = listed(&Filter {
            zone: Some(7),
            ..Filter::default()
        });
        assert_eq!(seen.len(), 10_000);

        let changes: Vec<_> = seen.iter().map(Change::Delete).collect();
        let start = Instant::now();
        let outcomes = conntrack::change(&changes).unwrap();
        let took = start.elapsed();
        assert_eq!(outcomes, vec![Outcome::Done; 10_000]);
        assert!(
            took < Duration::from_secs(2),
            "far from the 20 ms or so that it takes: {took:?}"
        );
        assert_eq!(timeless(all()[0], 1800), others);
        let outcomes = conntrack::change(&changes).unwrap();
        assert_eq!(outcomes, vec![Outcome::Gone; 10_000]);
    });
}

#[test]
fn a_namespace_sees_its_own_entries_only() {
    alone(|| {
        conntrack::create(&udp("10.0.0.1", "10.0.0.2")).unwrap();
        alone(|| {
            assert_eq!(all(), []);
            assert_eq!(conntrack::count().unwrap(), 0);
        });
        assert_eq!(all().len(), 1);
    });
}

fn many(count: u32) -> impl Iterator<Item = Entry> {
    (0..count).map(|n| {
        let mut entry = established("10.0.0.1", "10.0.0.2");
        entry.zone = 7;
        entry.original.src = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        entry.reply = entry.original.reversed().expect("it has an answer");
        entry
    })
}

fn create_all(entries: &[Entry]) {
    let changes: Vec<_> = entries.iter().map(Change::Create).collect();
    let outcomes = conntrack::change(&changes).unwrap();
    assert_eq!(outcomes, vec![Outcome::Done; entries.len()]);
}
