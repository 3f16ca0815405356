//! Real sockets through the eBPF plane, under a bridge and when routed. Needs root.

#[path = "common/leftovers.rs"]
mod leftovers;

use dataplane::{DataPlane, Device, Target};
use dataplane_ebpf::{EbpfConfig, EbpfPlane};
use leftovers::instance;
use model::{MacAddr, PortId};
use portcullis_conformance::lab::{Attach, EchoServer, Lab, Offload, Vm};
use portcullis_conformance::scenario::here;
use std::io::{Read, Write};
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

const POLICY: &str = r#"
version: 1
networks:
  lan: { subnets: [10.0.0.0/24, "fd00::/64"], routers: ["fe80::1"] }
groups:
  web:
    rules:
      - { from: any, protocol: tcp, ports: 80 }
      - { from: any, protocol: icmp echo-request }
  app: { rules: [{ to: any }] }
ports:
  web: { mac: 52:54:00:00:00:01, addresses: [10.0.0.1, "fd00::1"], groups: web }
  app: { mac: 52:54:00:00:00:02, addresses: [10.0.0.2, "fd00::2"], groups: app }
"#;

/// What certainly arrives may take this long on a busy machine.
const SOON: Duration = Duration::from_secs(10);
/// So long an answer is awaited that must not come.
const NEVER: Duration = Duration::from_millis(250);

struct Stage {
    web: Vm,
    app: Vm,
    outsider: Vm,
    _servers: Vec<EchoServer>,
    plane: EbpfPlane,
}

/// Runs a check on a host of this kind, in its namespace.
fn staged(name: &str, attach: Attach<'static>, check: impl FnOnce(&Stage) + Send) {
    let mut lab = Lab::new(name).expect("root");
    if let Attach::Bridge(bridge) = attach {
        lab.add_bridge(bridge).expect("a bridge");
    }
    let [web, app, outsider] = [("web", 1), ("app", 2), ("outside", 3)].map(|(name, last)| {
        let v4 = IpAddr::from([10, 0, 0, last]);
        let v6 = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)]);
        let addresses = match attach {
            Attach::Routed(_) => [(v4, 32), (v6, 128)],
            Attach::Bridge(_) | Attach::Nothing => [(v4, 24), (v6, 64)],
        };
        let mac = MacAddr([0x52, 0x54, 0, 0, 0, last]);
        lab.add_vm(name, mac, &addresses, attach).expect("a VM")
    });
    let mut servers = Vec::new();
    for vm in [&web, &app, &outsider] {
        servers.extend([80, 81].map(|port| vm.serve_tcp(port).expect("a server")));
        servers.push(vm.serve_udp(53).expect("a server"));
    }
    let host = lab.host().clone();
    host.run(move || {
        let config = EbpfConfig::small(instance(name));
        let mut plane = EbpfPlane::open(config).unwrap_or_else(|error| panic!("{error}"));
        let devices = [&web, &app].map(|vm| {
            let device = Device {
                name: vm.device().to_owned(),
                ifindex: lab.host().ifindex(vm.device()).expect("it is there"),
            };
            (PortId::from(vm.name()), device)
        });
        let policy = policyfile::parse(POLICY, "policy", &here()).expect("a good policy");
        let target = Target {
            view: policy::compile(&policy.inventory, &here()).0,
            devices: devices.into(),
            ..Target::default()
        };
        plane.apply(&target).expect("it applies");
        check(&Stage {
            web,
            app,
            outsider,
            _servers: servers,
            plane,
        });
    });
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = self.plane.detach() {
            eprintln!("the plane of this test is left behind: {error}");
        }
    }
}

const BRIDGED: Attach<'static> = Attach::Bridge("br0");
const ROUTED: Attach<'static> = Attach::Routed(&[
    IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 0, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
]);

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

#[test]
fn under_a_bridge_sockets_reach_what_rules_permit() {
    staged("bridged", BRIDGED, check_who_reaches_whom);
}

#[test]
fn when_routed_sockets_reach_what_rules_permit() {
    staged("routed", ROUTED, check_who_reaches_whom);
}

#[test]
fn large_packets_of_offloads_are_judged_as_small_ones_are() {
    staged("offload", BRIDGED, |stage| {
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
    });
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
