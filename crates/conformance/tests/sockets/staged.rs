//! A host with three VMs, two of them under a policy. Needs root.

#[path = "../common/leftovers.rs"]
mod leftovers;

use dataplane::{DataPlane, Device, Target};
use dataplane_ebpf::{EbpfConfig, EbpfPlane};
pub(crate) use leftovers::instance;
use model::{MacAddr, PortId};
use portcullis_conformance::lab::{Attach, EchoServer, Lab, Vm};
use portcullis_conformance::scenario::here;
use std::net::IpAddr;
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
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// So long an answer is awaited that must not come.
pub(crate) const NEVER: Duration = Duration::from_millis(250);

pub(crate) struct Stage {
    pub(crate) web: Vm,
    pub(crate) app: Vm,
    pub(crate) outsider: Vm,
    _servers: Vec<EchoServer>,
    pub(crate) plane: EbpfPlane,
}

/// How packets get from VM to VM.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    attach: Attach<'static>,
    direct: bool,
}

/// Runs a check on a host of this kind, in its namespace.
pub(crate) fn staged(name: &str, way: Way, check: impl FnOnce(&mut Stage) + Send) {
    let Way { attach, direct } = way;
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
        let config = EbpfConfig {
            direct,
            ..EbpfConfig::small(instance(name))
        };
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
        check(&mut Stage {
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

pub(crate) const BRIDGED: Way = Way {
    attach: Attach::Bridge("br0"),
    direct: false,
};
pub(crate) const DIRECT: Way = Way {
    direct: true,
    ..BRIDGED
};
pub(crate) const ROUTED: Way = Way {
    attach: Attach::Routed(&[
        IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 0, 1)),
        IpAddr::V6(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
    ]),
    // Of no effect: what a router passes on is not what the VM has sent.
    direct: true,
};
