//! What an entry that we made does to packets.

use super::{TCP, all, established, udp};
use crate::support::{alone, tool, tool_fed};
use portcullis_netfilter::conntrack::{self, Entry, Outcome, State, Status, Tcp};
use portcullis_netfilter::sysctl;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

const ACK: u8 = 0x10;
const RST: u8 = 0x04;

/// Counts what leaves by its connection state, in a zone, where only complete handshakes begin a
/// connection; on a device whose other end takes nothing.
fn watch() {
    tool("ip link add name sink0 type veth peer name away0");
    tool("ip link set sink0 up");
    tool("ip link set away0 up");
    tool("ip addr add 10.9.0.1/24 dev sink0");
    tool("ip addr add fd09::1/64 dev sink0 nodad");
    for client in ["10.9.0.2", "fd09::2"] {
        tool(&format!(
            "ip neigh add {client} lladdr 02:00:00:00:00:02 dev sink0"
        ));
    }
    sysctl::write("net/netfilter/nf_conntrack_tcp_loose", "0").unwrap();
    let rules = "table inet t {
        counter established { }
        counter new { }
        counter invalid { }
        chain zone { type filter hook output priority raw; ct zone set 7; }
        chain out {
            type filter hook output priority 0;
            meta l4proto != { tcp, udp } return;
            ct state established counter name established;
            ct state new counter name new;
            ct state invalid counter name invalid;
        }
    }";
    tool_fed("nft -f -", rules);
}

/// Packets counted as established, new and invalid.
fn counted() -> [u64; 3] {
    ["established", "new", "invalid"].map(|name| {
        let told = tool(&format!("nft list counter inet t {name}"));
        let mut words = told
            .split_whitespace()
            .skip_while(|word| *word != "packets");
        words.nth(1).expect("a number").parse().expect("a number")
    })
}

/// Sends what answers an entry's original direction, as its other end would.
fn send_reply(entry: &Entry, l4: &[u8]) {
    let (src, dst) = (entry.reply.src, entry.reply.dst);
    let mut packet = Vec::new();
    let family = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            packet.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, entry.protocol, 0, 0]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
            AddressFamily::INET
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            packet.extend([0x60, 0, 0, 0, 0, l4.len() as u8, entry.protocol, 64]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
            AddressFamily::INET6
        }
        _ => panic!("two families"),
    };
    packet.extend(l4);
    let socket = rustix::net::socket(family, SocketType::RAW, Some(ipproto::RAW)).unwrap();
    let to = SocketAddr::new(dst, 0);
    rustix::net::sendto(&socket, &packet, SendFlags::empty(), &to).unwrap();
}

/// From port 80 to port 1000.
fn segment(seq: u32, flags: u8) -> Vec<u8> {
    let mut bytes = vec![0, 80, 0x03, 0xe8];
    bytes.extend(seq.to_be_bytes());
    bytes.extend(0x7777_0000u32.to_be_bytes());
    bytes.extend([0x50, flags, 0x10, 0, 0, 0, 0, 0]);
    bytes
}

#[test]
fn a_reply_in_midstream_is_established_by_the_entry_alone() {
    for (client, server) in [("10.9.0.2", "10.9.0.1"), ("fd09::2", "fd09::1")] {
        alone(move || {
            watch();
            let entry = Entry {
                zone: 7,
                ..established(client, server)
            };
            send_reply(&entry, &segment(0x4000_0000, ACK));
            assert_eq!(counted(), [0, 0, 1]);
            conntrack::create(&Entry { zone: 8, ..entry }).unwrap();
            send_reply(&entry, &segment(0x4000_0000, ACK));
            assert_eq!(counted(), [0, 0, 2], "an entry of another zone");
            conntrack::create(&entry).unwrap();
            send_reply(&entry, &segment(0x4000_0000, ACK));
            send_reply(&entry, &segment(0x4000_0000, ACK));
            assert_eq!(counted(), [2, 0, 2]);
            let seen = all().into_iter().find(|seen| seen.zone == 7).unwrap();
            let State::Tcp(tcp) = seen.state else {
                panic!("{seen:?}")
            };
            assert_eq!(tcp.state, Tcp::ESTABLISHED);
            assert!(
                seen.timeout_s > 400_000,
                "a packet gives it its five days: {seen:?}"
            );
            assert_eq!(conntrack::delete(&seen).unwrap(), Outcome::Done);
            send_reply(&entry, &segment(0x4000_0000, ACK));
            assert_eq!(counted(), [2, 0, 3]);
        });
    }
}

/// The kernel compares a reset with the last acknowledgment, which it has been told to remember and
/// isn't told the number of.
#[test]
fn a_reset_counts_whatever_flags_the_listed_entry_had() {
    alone(|| {
        watch();
        let mut entry = Entry {
            zone: 7,
            ..established("10.9.0.2", "10.9.0.1")
        };
        let State::Tcp(tcp) = &mut entry.state else {
            unreachable!()
        };
        tcp.original.flags |= 0x70;
        tcp.reply.flags |= 0x70;
        conntrack::create(&entry).unwrap();
        send_reply(&entry, &segment(0xf000_0000, ACK));
        send_reply(&entry, &segment(0xf000_0000, RST));
        assert_eq!(counted(), [2, 0, 0]);
    });
}

#[test]
fn a_datagram_is_established_once_both_sides_were_seen() {
    for (client, server) in [("10.9.0.2", "10.9.0.1"), ("fd09::2", "fd09::1")] {
        alone(move || {
            watch();
            let entry = Entry {
                zone: 7,
                status: Status::SEEN_REPLY,
                ..udp(client, server)
            };
            let datagram = [0, 53, 0x03, 0xe8, 0, 8, 0, 0];
            conntrack::create(&entry).unwrap();
            send_reply(&entry, &datagram);
            assert_eq!(counted(), [1, 0, 0]);
            conntrack::delete(&entry).unwrap();
            send_reply(&entry, &datagram);
            assert_eq!(counted(), [1, 1, 0]);
        });
    }
}

#[test]
fn a_connection_goes_on_with_an_entry_made_from_the_list() {
    for address in ["127.0.0.1", "::1"] {
        alone(move || {
            watch();
            tool("nft add rule inet t out ct state invalid drop");
            let listener = TcpListener::bind((address, 0)).unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            let mut say = |text: &[u8; 4]| {
                let mut heard = [0; 4];
                client.write_all(text).unwrap();
                server.read_exact(&mut heard).unwrap();
                server.write_all(&heard).unwrap();
                client.read_exact(&mut heard).unwrap();
                assert_eq!(&heard, text);
            };
            say(b"once");
            let [before] = all()[..] else {
                panic!("{:?}", all())
            };
            assert_eq!(before.protocol, TCP);
            conntrack::delete(&before).unwrap();
            conntrack::create(&before).unwrap();
            say(b"more");
            let [after] = all()[..] else {
                panic!("{:?}", all())
            };
            assert_eq!((after.status, after.zone), (before.status, 7));
            assert_eq!(counted()[2], 0);
        });
    }
}
