//! A VM goes on at another host, with a connection open.
//!
//! ```text
//! host a: br0 ---- br0 of the outer network ---- br0 :host b
//!          |                  |                   |
//!         app, then           server              app
//! ```
//! The server talks and the VM listens, so that a reply is all that there is to let in. A hypervisor's
//! announcement tells the bridges where the VM is now.

use super::staged::{NEVER, SOON, instance};
use dataplane::{DataPlane, Device, PortFlows, Target};
use dataplane_ebpf::{EbpfConfig, EbpfPlane};
use model::{MacAddr, PortId};
use policy::HostView;
use portcullis_conformance::lab::{Attach, Lab, Vm};
use portcullis_conformance::scenario::here;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};
use wire::words::Words;

const POLICY: &str = r#"
version: 1
networks:
  lan: { subnets: [10.0.0.0/24, "fd00::/64"] }
groups:
  out: { rules: [{ to: any }] }
ports:
  app: { mac: 52:54:00:00:00:02, addresses: [10.0.0.2, "fd00::2"], groups: out }
"#;

struct Host {
    lab: Lab,
    plane: EbpfPlane,
}

impl Host {
    fn new(name: &str, outer: &Lab) -> Self {
        let lab = Lab::new(name).expect("root");
        lab.add_bridge("br0").expect("a bridge");
        outer.connect("br0", &lab, "br0").expect("a cable");
        let config = EbpfConfig::small(instance(name));
        let plane = lab.host().run(|| EbpfPlane::open(config));
        let plane = plane.unwrap_or_else(|error| panic!("{error}"));
        Self { lab, plane }
    }

    fn with<T: Send>(&mut self, ask: impl FnOnce(&mut EbpfPlane) -> T + Send) -> T {
        let Self { lab, plane } = self;
        lab.host().run(|| ask(plane))
    }

    /// The port's policy is in force, on its device if there is one.
    fn enforce(&mut self, vm: Option<&Vm>) {
        let device = vm.map(|vm| {
            let device = Device {
                name: vm.device().to_owned(),
                ifindex: self.lab.host().ifindex(vm.device()).expect("a device"),
            };
            (port(), device)
        });
        let policy = policyfile::parse(POLICY, "policy", &here()).expect("a good policy");
        self.apply(Target {
            view: policy::compile(&policy.inventory, &here()).0,
            devices: device.into_iter().collect(),
            ..Target::default()
        });
    }

    fn apply(&mut self, target: Target) {
        let report = self.with(|plane| plane.apply(&target)).expect("it applies");
        assert_eq!(report.refused, [].into());
    }

    fn export(&mut self) -> Vec<u8> {
        let flows = self.with(|plane| plane.export_flows(&port()));
        flows.expect("the port is here").to_bytes()
    }

    fn import(&mut self, bytes: &[u8]) {
        let flows = PortFlows::from_bytes(bytes).expect("what was written");
        let imported = self.with(|plane| plane.import_flows(&port(), &flows));
        let imported = imported.expect("the port is here");
        assert_eq!((imported.taken, imported.left_out), (1, [].into()));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = self.with(|plane| plane.detach()) {
            eprintln!("the plane of this test is left behind: {error}");
        }
    }
}

fn port() -> PortId {
    PortId::from("app")
}

/// An open connection, of which the VM's end is at host b by now; what host a knew of it.
struct Moved {
    old: Host,
    new: Host,
    app: Vm,
    app_end: TcpStream,
    server_end: TcpStream,
    bytes: Vec<u8>,
    _outer: Lab,
}

fn migrated(name: &str, family: usize) -> Moved {
    let mut outer = Lab::new("outer").expect("root");
    outer.add_bridge("br0").expect("a bridge");
    let [mut old, mut new] = ["a", "b"].map(|host| Host::new(&format!("{name}{host}"), &outer));
    let on = Attach::Bridge("br0");
    let vm = |lab: &mut Lab, name: &str, last: u8| {
        let v6 = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)]);
        let addresses = [(IpAddr::from([10, 0, 0, last]), 24), (v6, 64)];
        let mac = MacAddr([0x52, 0x54, 0, 0, 0, last]);
        lab.add_vm(name, mac, &addresses, on).expect("a VM")
    };
    let server = vm(&mut outer, "server", 3);
    let app = vm(&mut old.lab, "app", 2);
    old.enforce(Some(&app));
    let listener = server.tcp_listen(80).expect("a server");
    let to = (server.addresses()[family], 80).into();
    let mut app_end = app.tcp_connect(to, SOON).expect("a connection");
    let (mut server_end, _) = listener.accept().expect("a connection");
    check_passes(&mut server_end, &mut app_end);
    check_passes(&mut app_end, &mut server_end);
    // The policy is there before the VM is.
    new.enforce(None);
    let bytes = old.export();
    let app = new.lab.take_over(&app, &mut old.lab, on).expect("a device");
    new.enforce(Some(&app));
    Moved {
        old,
        new,
        app,
        app_end,
        server_end,
        bytes,
        _outer: outer,
    }
}

impl Moved {
    fn announce(&self) {
        let words: Words = "rarp".parse().expect("words");
        let frame = words.frame(self.app.mac(), MacAddr([0xff; 6]));
        let announcer = self.app.open_packets().expect("a socket");
        announcer.send(&frame).expect("it is sent");
    }
}

fn check_passes(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"portcullis").expect("it is open");
    to.set_read_timeout(Some(SOON)).expect("a socket");
    let mut seen = [0; 10];
    to.read_exact(&mut seen).expect("it arrives");
    assert_eq!(&seen, b"portcullis");
}

fn check_goes_on(family: usize) {
    let mut moved = migrated("goeson", family);
    moved.new.import(&moved.bytes);
    moved.announce();
    check_passes(&mut moved.server_end, &mut moved.app_end);
    check_passes(&mut moved.app_end, &mut moved.server_end);
    // The old host is done with the port, and with all.
    moved.old.apply(Target {
        view: HostView::default(),
        ..Target::default()
    });
    moved.old.with(|plane| {
        plane.sweep().expect("swept");
        plane.detach().expect("detached");
    });
    check_passes(&mut moved.server_end, &mut moved.app_end);
}

#[test]
fn an_open_connection_goes_on_at_another_host() {
    check_goes_on(0);
    check_goes_on(1);
}

#[test]
fn without_its_flow_a_connection_waits_until_it_is_brought() {
    let mut moved = migrated("waits", 0);
    moved.announce();
    moved
        .server_end
        .write_all(b"portcullis")
        .expect("it is open");
    let mut seen = [0; 10];
    moved
        .app_end
        .set_read_timeout(Some(NEVER))
        .expect("a socket");
    let nothing = moved
        .app_end
        .read_exact(&mut seen)
        .expect_err("no rule permits it");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    // The server tries again.
    moved.new.import(&moved.bytes);
    moved
        .app_end
        .set_read_timeout(Some(SOON))
        .expect("a socket");
    moved.app_end.read_exact(&mut seen).expect("it arrives");
    assert_eq!(&seen, b"portcullis");
}
