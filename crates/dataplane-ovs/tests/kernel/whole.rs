//! A bridge that the plane drives whole: where frames go is decided by it alone.

use crate::bed::{Bed, SILENCE, datagram};
use conformance::lab::Asked;
use dataplane::DataPlane;
use model::{DropReason, Family, PortId};
use std::time::Instant;

const POLICY: &str = "
version: 1
networks:
  red: { subnets: [10.0.0.0/24, 'fd00::/64'], scope: red }
  blue: { subnets: [10.0.0.0/24, 'fd00::/64'], scope: blue }
groups:
  web:
    rules:
      - { name: http, from: friends, protocol: tcp, ports: 80 }
      - { name: dns, from: any, protocol: udp, ports: 53 }
      - { name: out, to: friends, protocol: icmp }
  friends: { rules: [{ name: ping, from: any, protocol: icmp }, { name: out, to: any }] }
ports:
  web: { network: red, device: web, mac: 52:54:00:00:00:01, addresses: [10.0.0.1, 'fd00::1'], groups: web }
  friend: { network: red, device: friend, mac: 52:54:00:00:00:02, addresses: [10.0.0.2, 'fd00::2'], groups: friends }
  web-b: { network: blue, device: web-b, mac: 52:54:00:00:00:03, addresses: [10.0.0.1, 'fd00::1'], groups: web }
  friend-b: { network: blue, device: friend-b, mac: 52:54:00:00:00:04, addresses: [10.0.0.2, 'fd00::2'], groups: friends }
";

fn two_networks() -> Bed {
    let mut bed = Bed::new(&[("br0", true)]);
    bed.add_vm("web", 1, &["10.0.0.1", "fd00::1"], "br0");
    bed.add_vm("friend", 2, &["10.0.0.2", "fd00::2"], "br0");
    bed.add_vm("web-b", 3, &["10.0.0.1", "fd00::1"], "br0");
    bed.add_vm("friend-b", 4, &["10.0.0.2", "fd00::2"], "br0");
    bed.add_vm("out", 9, &["10.0.0.9", "fd00::9"], "br0");
    bed
}

#[test]
fn two_networks_with_the_same_addresses_share_a_bridge() {
    let mut bed = two_networks();
    bed.apply(POLICY);
    for family in Family::BOTH {
        for (friend, web) in [("friend", "web"), ("friend-b", "web-b")] {
            let answers = |from, to, asked| bed.answers(from, to, family, asked);
            assert!(answers(friend, web, Asked::Tcp(80)), "{friend} {family}");
            assert!(answers(friend, web, Asked::Udp(53)), "{friend} {family}");
            assert!(!answers(friend, web, Asked::Tcp(81)), "{friend} {family}");
            assert!(!answers(friend, web, Asked::Ping), "{friend} {family}");
            assert!(answers(web, friend, Asked::Ping), "{friend} {family}");
            assert!(!answers(web, friend, Asked::Tcp(80)), "{friend} {family}");
        }
        // Somebody on the bridge who is in no network reaches nobody.
        assert!(!bed.answers("out", "web", family, Asked::Udp(53)));
    }
    assert_eq!(bed.audit(), []);
}

#[test]
fn each_packet_that_is_dropped_is_counted() {
    let mut bed = Bed::new(&[("br0", true)]);
    bed.add_vm("web", 1, &[], "br0");
    bed.add_vm("friend", 2, &[], "br0");
    bed.apply(POLICY);
    let denied = |bed: &mut Bed| {
        let counters = bed.with(DataPlane::counters).expect("counts");
        let drops = &counters.ports[&PortId::from("web")].drops;
        drops
            .get(&DropReason::NoRule)
            .map_or(0, |count| count.packets)
    };
    assert_eq!(denied(&mut bed), 0);
    let (friend, web) = (bed.packets("friend"), bed.packets("web"));
    for sent in 1..=3 {
        friend.send(&datagram(2, 1, 4000, 54)).expect("sent");
        let permitted = datagram(2, 1, 4000 + sent, 53);
        friend.send(&permitted).expect("sent");
        let arrived = web.wait_for(SILENCE * 10, |frame| frame == permitted);
        assert!(arrived.expect("a socket").is_some(), "what comes behind it");
    }
    // The switch adds up now and then.
    let began = Instant::now();
    while denied(&mut bed) < 3 && began.elapsed() < SILENCE * 20 {
        std::thread::sleep(SILENCE / 10);
    }
    assert_eq!(denied(&mut bed), 3);
}

/// One serves and the other doesn't: whoever asks meets only its own network's.
#[test]
fn a_frame_never_leaves_its_network() {
    let mut bed = two_networks();
    bed.apply(POLICY);
    for family in Family::BOTH {
        let to = bed.vm("web").address(family).expect("it has one");
        let _serving = bed.vm("web-b").serve_tcp(80).expect("a free port");
        let asks = |from: &str| {
            let soon = std::time::Duration::from_millis(300);
            bed.vm(from).tcp_connect((to, 80).into(), soon)
        };
        // Its own network's refuses, at which nobody listens.
        let refused = asks("friend").expect_err("nobody listens").kind();
        assert_eq!(refused, std::io::ErrorKind::ConnectionRefused, "{family}");
        asks("friend-b").expect("its own network's listens");
    }
}

#[test]
fn an_outside_port_is_in_the_network_that_it_says() {
    let mut bed = two_networks();
    let outside = format!(
        "set interface {} external_ids:portcullis-network=blue",
        bed.device("out")
    );
    bed.vsctl(&outside);
    bed.apply(POLICY);
    for family in Family::BOTH {
        let answers = |from, to, asked| bed.answers(from, to, family, asked);
        assert!(answers("out", "web-b", Asked::Udp(53)), "{family}");
        assert!(!answers("out", "web-b", Asked::Tcp(80)), "{family}");
        assert!(answers("friend-b", "out", Asked::Tcp(80)), "{family}");
        assert!(!answers("friend", "out", Asked::Tcp(80)), "{family}");
        assert!(!answers("web-b", "out", Asked::Tcp(80)), "{family}");
    }
    assert_eq!(bed.audit(), []);
}

#[test]
fn detaching_leaves_nothing() {
    let mut bed = two_networks();
    bed.ofctl("add-flow br0 table=7,priority=5,actions=drop");
    let before = state(&bed);
    bed.apply(POLICY);
    assert_ne!(state(&bed), before);
    assert!(bed.answers("friend", "web", Family::V4, Asked::Tcp(80)));
    bed.with(DataPlane::detach).expect("it is there");
    assert_eq!(state(&bed), before);
    assert_eq!(bed.connections("zone="), [""; 0]);
}

fn state(bed: &Bed) -> Vec<String> {
    let mut state = vec![
        bed.vsctl("get bridge br0 external_ids"),
        bed.vsctl("get bridge br0 fail_mode"),
        bed.vsctl("list CT_Timeout_Policy"),
    ];
    state.extend(bed.flows("br0", false));
    state.extend(bed.flows("br0", true));
    state
}

/// Nothing is enforced on it, so it need not be in order.
#[test]
fn a_bridge_that_speaks_otherwise_is_no_hindrance() {
    let mut bed = two_networks();
    bed.vsctl("add-br old -- set bridge old datapath_type=netdev protocols=OpenFlow10");
    bed.apply(POLICY);
    bed.reopen();
    assert_eq!(bed.apply(POLICY).writes, 0);
    assert_eq!(bed.audit(), []);
}
