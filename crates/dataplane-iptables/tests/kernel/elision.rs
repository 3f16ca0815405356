//! What needs no tracking isn't tracked, and never at the price of a verdict.

use crate::bed::Bed;
use crate::sharing::three;
use crate::with_each_backend;
use conformance::lab::Asked;
use model::{Family, MacAddr};
use portcullis_dataplane_iptables::Backend;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

with_each_backend!(
    a_flood_of_strangers_leaves_no_entries_at_an_open_vm,
    what_is_between_no_ports_is_not_tracked,
    an_open_service_is_not_tracked_and_the_rest_is,
    each_family_for_itself,
    two_bridges_with_the_same_address,
    a_new_owner_of_the_address_is_tracked,
    narrowing_cuts_what_was_open,
    narrowing_keeps_what_was_open,
    widening_forgets_what_was_tracked,
    never_when_told_not_to,
);

fn policy(settings: &str, open_rules: &str) -> String {
    format!(
        "
version: 1
settings: {{ {settings} }}
networks: {{ lan: {{ subnets: [10.0.0.0/24, 'fd00::/64'] }} }}
groups:
  open: {{ rules: [{open_rules}] }}
ports:
  open: {{ device: open, mac: 52:54:00:00:00:01, addresses: [10.0.0.1, 'fd00::1'], groups: open }}
"
    )
}

const ALL: &str = "{ name: in, from: any }, { name: out, to: any }";

fn a_flood_of_strangers_leaves_no_entries_at_an_open_vm(backend: Backend) {
    let mut bed = three(backend);
    bed.apply(&policy("", ALL));
    flood(&bed);
    assert_eq!(bed.entries(), []);
    assert!(bed.answers("open", "out", Family::V4, Asked::Tcp(80)));
    assert_eq!(bed.entries(), []);
    // The same flood at a VM that needs it, so that the test can fail.
    bed.apply(&policy("", "{ name: in, from: any }"));
    flood(&bed);
    assert_eq!(bed.entries().len(), FLOOD);
}

const FLOOD: usize = 2_000;

/// Datagrams from as many sources.
fn flood(bed: &Bed) {
    let [from, to] = [9, 1].map(|last| MacAddr([0x52, 0x54, 0, 0, 0, last]));
    let socket = bed.vm("out").open_packets().expect("a socket");
    let arrivals = bed.vm("open").open_packets().expect("a socket");
    let is_ours = |frame: &[u8]| frame.get(36..38) == Some(&[0, 9]);
    for number in 0..FLOOD as u32 {
        let source = Ipv4Addr::from(0x0b00_0000 + number);
        let datagram = wire::build::ip(source.into(), Ipv4Addr::new(10, 0, 0, 1).into());
        let frame = datagram.udp(1_000, 9).macs(from, to).bytes();
        socket.send(&frame).expect("sent");
        let arrived = arrivals.wait_for(Duration::from_secs(5), is_ours);
        arrived.expect("a socket").expect("it is permitted");
    }
}

/// From one to another that are no ports, across the bridge of one.
fn what_is_between_no_ports_is_not_tracked(backend: Backend) {
    let mut bed = three(backend);
    bed.apply(&policy("", "{ name: in, from: any }"));
    for family in Family::BOTH {
        for asked in [Asked::Ping, Asked::Udp(53), Asked::Tcp(80)] {
            assert!(bed.answers("out", "shut", family, asked));
        }
    }
    assert_eq!(bed.entries(), []);
}

fn an_open_service_is_not_tracked_and_the_rest_is(backend: Backend) {
    let mut bed = three(backend);
    bed.apply(&policy(
        "",
        "{ name: out, to: any }, { name: http, from: any, protocol: tcp, ports: 80 }, \
         { name: errors, from: any, protocol: icmp }",
    ));
    for family in Family::BOTH {
        assert!(bed.answers("out", "open", family, Asked::Tcp(80)));
        assert_eq!(bed.entries(), [], "{family}");
        assert!(!bed.answers("out", "open", family, Asked::Tcp(81)));
        assert!(!bed.answers("out", "open", family, Asked::Udp(80)));
        // Its own connections: their replies need an entry.
        assert!(bed.answers("open", "out", family, Asked::Tcp(80)));
        assert!(!bed.entries().is_empty(), "{family}");
        bed.with(|plane| plane.forget_state()).expect("entries go");
    }
}

fn each_family_for_itself(backend: Backend) {
    let mut bed = three(backend);
    bed.apply(&policy(
        "",
        "{ name: in, from: 0.0.0.0/0 }, { name: out, to: 0.0.0.0/0 }, \
         { name: in6, from: '::/0', protocol: tcp, ports: 80 }",
    ));
    assert!(bed.answers("out", "open", Family::V4, Asked::Tcp(80)));
    assert_eq!(bed.entries(), []);
    assert!(bed.answers("out", "open", Family::V6, Asked::Tcp(80)));
    assert!(!bed.answers("open", "out", Family::V6, Asked::Tcp(80)));
    assert!(!bed.entries().is_empty());
}

/// On one of them whoever has the address is open, on the other not.
fn two_bridges_with_the_same_address(backend: Backend) {
    let mut bed = three(backend);
    bed.add_bridge("br1");
    bed.add_vm("twin", 3, &["10.0.0.1"], "br1");
    bed.add_vm("other", 8, &["10.0.0.9"], "br1");
    let both = policy("", ALL)
        .replace("groups:\n  open", "groups:\n  shut: { rules: [{ name: ssh, to: any, protocol: tcp, ports: 22 }] }\n  open")
        .replace("networks: {", "networks: { else: { subnets: [10.0.0.0/24], scope: else },")
        + "  twin: { network: else, device: twin, mac: 52:54:00:00:00:03, addresses: 10.0.0.1, groups: shut }\n";
    bed.apply(&both.replace("open: { device", "open: { network: lan, device"));
    assert!(bed.answers("out", "open", Family::V4, Asked::Tcp(80)));
    assert_eq!(bed.entries(), []);
    assert!(!bed.answers("other", "twin", Family::V4, Asked::Tcp(80)));
    assert!(bed.answers("twin", "other", Family::V4, Asked::Tcp(22)));
    assert!(!bed.entries().is_empty(), "its replies need it");
    assert!(bed.answers("open", "out", Family::V4, Asked::Tcp(22)));
}

/// After an open VM is gone, its address may be another's.
fn a_new_owner_of_the_address_is_tracked(backend: Backend) {
    let mut bed = three(backend);
    bed.apply(&policy("", ALL));
    assert!(bed.answers("out", "open", Family::V4, Asked::Tcp(80)));
    bed.remove_vm("open");
    bed.apply("version: 1\n");
    bed.add_vm("open", 1, &["10.0.0.1", "fd00::1"], "br0");
    bed.apply(&policy(
        "",
        "{ name: out, to: any, protocol: tcp, ports: 22 }",
    ));
    assert!(!bed.answers("out", "open", Family::V4, Asked::Tcp(80)));
    assert!(bed.answers("open", "out", Family::V4, Asked::Tcp(22)));
    assert!(!bed.entries().is_empty());
}

struct Connection(TcpStream);

impl Connection {
    fn open(bed: &Bed, from: &str, to: &str) -> Self {
        let to: SocketAddr = to.parse().expect("an address");
        let stream = bed.vm(from).tcp_connect(to, Duration::from_secs(2));
        Self(stream.expect("permitted"))
    }

    fn echoes(&mut self) -> bool {
        let wait = Some(Duration::from_millis(400));
        self.0.set_read_timeout(wait).expect("a timeout");
        self.0.write_all(b"x").expect("the socket takes it");
        self.0.read_exact(&mut [0]).is_ok()
    }
}

const HTTP_ONLY: &str = "{ name: http, from: any, protocol: tcp, ports: 80 }";

fn narrowing_cuts_what_was_open(backend: Backend) {
    let mut bed = three(backend);
    bed.apply(&policy("narrowing: cut", ALL));
    let _serving = bed.vm("open").serve_tcp(80).expect("a free port");
    let mut connection = Connection::open(&bed, "out", "10.0.0.1:80");
    assert!(connection.echoes());
    bed.apply(&policy("narrowing: cut", HTTP_ONLY));
    assert!(!connection.echoes());
    let mut fresh = Connection::open(&bed, "out", "10.0.0.1:80");
    assert!(fresh.echoes());
}

fn narrowing_keeps_what_was_open(backend: Backend) {
    let mut bed = three(backend);
    bed.apply(&policy("narrowing: keep", ALL));
    let _http = bed.vm("open").serve_tcp(80).expect("a free port");
    let _ssh = bed.vm("open").serve_tcp(22).expect("a free port");
    let mut http = Connection::open(&bed, "out", "10.0.0.1:80");
    let mut ssh = Connection::open(&bed, "out", "10.0.0.1:22");
    assert!(http.echoes() && ssh.echoes());
    assert_eq!(bed.entries(), []);
    bed.apply(&policy("narrowing: keep", HTTP_ONLY));
    assert!(http.echoes(), "a rule still permits what starts it");
    assert!(!ssh.echoes(), "no rule does");
}

fn widening_forgets_what_was_tracked(backend: Backend) {
    let mut bed = three(backend);
    bed.apply(&policy("", HTTP_ONLY));
    let _serving = bed.vm("open").serve_tcp(80).expect("a free port");
    let mut connection = Connection::open(&bed, "out", "10.0.0.1:80");
    assert!(connection.echoes());
    assert_eq!(bed.entries().len(), 1);
    bed.apply(&policy("", ALL));
    assert_eq!(bed.entries(), []);
    assert!(connection.echoes());
    assert_eq!(bed.entries(), []);
}

fn never_when_told_not_to(backend: Backend) {
    let mut bed = three(backend);
    bed.apply(&policy("elision: off", ALL));
    assert!(bed.answers("out", "open", Family::V4, Asked::Tcp(80)));
    assert_eq!(bed.entries().len(), 1);
}
