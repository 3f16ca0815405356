//! Real sockets through the eBPF plane: under a bridge, when routed, and straight from port to port, and
//! when a VM goes on at another host.
//! Needs root.

mod direct;
mod migration;
mod staged;

use portcullis_conformance::lab::{Offload, Vm};
use staged::{BRIDGED, DIRECT, NEVER, ROUTED, SOON, Stage, staged};
use std::io::{Read, Write};
use std::net::{IpAddr, UdpSocket};

fn check_who_reaches_whom(stage: &Stage) {
    let Stage {
        web, app, outsider, ..
    } = stage;
    for i in 0..2 {
        let [to_web, to_app, out] = [web, app, outsider].map(|vm| vm.addresses()[i]);
        for (from, to, l4_port, passes) in [
            (outsider, to_web, 80, true),
            (outsider, to_web, 81, false),
            (app, to_web, 80, true),
            (app, to_web, 81, false),
            (app, out, 81, true),
            (web, out, 80, false),
            (outsider, to_app, 80, false),
        ] {
            let time = if passes { SOON } else { NEVER };
            let seen = from.tcp_echo((to, l4_port).into(), time);
            assert_eq!(seen, passes, "TCP {} -> {to}:{l4_port}", from.name());
        }
        for (from, to, passes) in [(app, out, true), (outsider, to_web, false)] {
            let time = if passes { SOON } else { NEVER };
            let seen = from.udp_echo((to, 53).into(), time).expect("a socket");
            assert_eq!(seen, passes, "UDP {} -> {to}", from.name());
        }
        for (from, to, passes) in [
            (outsider, to_web, true),
            (app, out, true),
            (outsider, to_app, false),
        ] {
            let time = if passes { SOON } else { NEVER };
            let seen = from.ping(to, time).expect("a socket").is_some();
            assert_eq!(seen, passes, "ping {} -> {to}", from.name());
        }
    }
}

/// Sends so many bytes to an echo server and reads them back.
fn check_bulk(from: &Vm, to: IpAddr, bytes: usize) {
    let mut stream = from
        .tcp_connect((to, 80).into(), SOON)
        .expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a socket");
    let mut back = stream.try_clone().expect("a socket");
    let writer = std::thread::spawn(move || {
        let block = vec![7u8; 1 << 16];
        for _ in 0..bytes >> 16 {
            stream
                .write_all(&block)
                .expect("it is read at the other end");
        }
    });
    let mut block = vec![0; 1 << 16];
    for _ in 0..bytes >> 16 {
        back.read_exact(&mut block).expect("all of it comes back");
    }
    writer.join().expect("it doesn't panic");
}

fn check_offloads(stage: &Stage) {
    for on in [true, false] {
        for vm in [&stage.web, &stage.app] {
            for offload in [Offload::TxChecksum, Offload::Tso, Offload::Gso] {
                vm.offload(offload, on).expect("it can be set");
            }
        }
        for to in stage.web.addresses() {
            check_bulk(&stage.app, *to, 4 << 20);
        }
    }
}

#[test]
fn under_a_bridge_sockets_reach_what_rules_permit() {
    staged("bridged", BRIDGED, |stage| check_who_reaches_whom(stage));
}

#[test]
fn straight_from_port_to_port_sockets_reach_what_rules_permit() {
    staged("direct", DIRECT, |stage| check_who_reaches_whom(stage));
}

#[test]
fn when_routed_sockets_reach_what_rules_permit() {
    staged("routed", ROUTED, |stage| check_who_reaches_whom(stage));
}

#[test]
fn large_packets_of_offloads_are_judged_as_small_ones_are() {
    staged("offload", BRIDGED, |stage| check_offloads(stage));
    staged("offdirect", DIRECT, |stage| check_offloads(stage));
}

#[test]
fn datagrams_in_fragments_come_back_whole() {
    staged("fragments", BRIDGED, |stage| {
        for to in stage.outsider.addresses() {
            let any: IpAddr = match to {
                IpAddr::V4(_) => [0; 4].into(),
                IpAddr::V6(_) => [0u16; 8].into(),
            };
            let socket = stage
                .app
                .run(|| UdpSocket::bind((any, 0)))
                .expect("a socket");
            socket.set_read_timeout(Some(SOON)).expect("a socket");
            let sent: Vec<u8> = (0..20_000u32).map(|i| i as u8).collect();
            socket.send_to(&sent, (*to, 53)).expect("it is sent");
            let mut seen = vec![0; 1 << 16];
            let (length, _) = socket.recv_from(&mut seen).expect("it comes back");
            assert_eq!(seen[..length], sent);
        }
    });
}
