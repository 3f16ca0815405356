//! A cluster of two kinds: a host with a bridge of Open vSwitch, and one with a Linux bridge and eBPF. Both read
//! one policy file, and know each other's VMs by their addresses.
//!
//! ```text
//! flat      pc-ovs, which forwards by itself --- pc-up <== veth ==> pc-up --- pc-br
//! tunnel    pc-ovs, driven whole --- Geneve --- br-phy <== veth ==> br-phy --- Geneve --- pc-tun --- pc-br
//! ```
//! What builds tunnels at the other host is somebody else's: it knows no option of ours.

use crate::agent::{Agent, PATIENCE, wait_until};
use crate::machines::{add, port};
use crate::ovs::{BRIDGE, SHORT, settings};
use conformance::lab::{Asked, Attach, CableEnd, Lab, Offload, OpenVswitch, Vm, cable};
use model::Family;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Name, last byte of its addresses, host, groups.
const VMS: [(&str, u8, Place, &str); 6] = [
    ("server-a", 1, Place::Switch, "servers"),
    ("client-a", 2, Place::Switch, "clients"),
    ("other-a", 3, Place::Switch, "others"),
    ("server-b", 4, Place::Kernel, "servers"),
    ("client-b", 5, Place::Kernel, "clients"),
    ("other-b", 6, Place::Kernel, "others"),
];

const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
const LINUX_BRIDGE: &str = "pc-br";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Switch,
    Kernel,
}

struct Cluster {
    vms: BTreeMap<&'static str, Vm>,
    /// Of the host with the switch, and of the one with eBPF.
    agents: [Agent; 2],
    _switches: Vec<OpenVswitch>,
    _labs: [Lab; 2],
}

impl Cluster {
    fn flat() -> Self {
        let (labs, switch) = hosts(false);
        let there = labs[1].host().path();
        let [here, far] = [&labs[0], &labs[1]].map(Lab::host);
        here.ip(&format!(
            "link add pc-up type veth peer name pc-up netns {there}\nlink set pc-up up"
        ))
        .expect("a cable");
        far.ip(&format!("link set pc-up master {LINUX_BRIDGE} up"))
            .expect("it is on the bridge");
        switch.add_port(BRIDGE, "pc-up", &[]).expect("it takes it");
        Self::of(labs, vec![switch])
    }

    fn tunnelled() -> Self {
        let (labs, switch) = hosts(true);
        let theirs = OpenVswitch::start(labs[1].host()).expect("Open vSwitch");
        let [near, far] = [(&labs[0], &switch), (&labs[1], &theirs)];
        let [near, far] = [(near, ADDRESSES[0]), (far, ADDRESSES[1])].map(|(end, address)| {
            let (lab, switch) = end;
            CableEnd {
                lab,
                switch,
                address,
            }
        });
        cable(near, far).expect("a cable");
        let link = format!(
            "link add pc-in master {LINUX_BRIDGE} type veth peer name pc-out\n\
             link set pc-in up\nlink set pc-out up"
        );
        labs[1].host().ip(&link).expect("a link");
        theirs.add_bridge("pc-tun", false).expect("a bridge");
        theirs
            .add_port("pc-tun", "pc-out", &[])
            .expect("it takes it");
        let [to, from] = ADDRESSES;
        let tunnel = format!(
            "add-port pc-tun pc-gnv -- set interface pc-gnv type=geneve options:key=100 \
             options:remote_ip={to} options:local_ip={from}"
        );
        theirs.vsctl(&tunnel).expect("a tunnel");
        Self::of(labs, vec![switch, theirs])
    }

    fn of(mut labs: [Lab; 2], switches: Vec<OpenVswitch>) -> Self {
        let vms = VMS.map(|(name, last, place, _)| (name, vm(&mut labs, name, last, place)));
        let vms = BTreeMap::from(vms);
        for (name, _, place, _) in VMS {
            if place == Place::Switch {
                let added = switches[0].add_port(BRIDGE, vms[name].device(), &[]);
                added.expect("the bridge takes it");
            }
        }
        static CLUSTERS: AtomicU32 = AtomicU32::new(0);
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let instance = format!("pc-mixed-{}-{number}", std::process::id());
        let ebpf: [(&'static str, &OsStr); 2] = [
            ("PORTCULLIS_INSTANCE", instance.as_ref()),
            ("PORTCULLIS_PLANE", "ebpf".as_ref()),
        ];
        let agents = [
            Agent::new(labs[0].host(), &settings(&switches[0])),
            Agent::new(labs[1].host(), &ebpf),
        ];
        let mut cluster = Self {
            vms,
            agents,
            _switches: switches,
            _labs: labs,
        };
        cluster.write(&[]);
        cluster.agents[0].start(&["--host", "a"]);
        cluster.agents[1].start(&["--host", "b", "--max-ports", "16"]);
        cluster
    }

    /// One policy for both; some VMs are in other groups than at first.
    fn write(&self, moved: &[(&str, &str)]) {
        let ports = VMS.iter().map(|(name, _, place, groups)| {
            let vm = &self.vms[name];
            let host = if *place == Place::Switch { "a" } else { "b" };
            let moved = moved.iter().find(|(moved, _)| moved == name);
            let groups = moved.map_or(*groups, |(_, groups)| groups);
            port(name, vm, &format!("host: {host}, groups: {groups}"))
        });
        let [a, b] = ADDRESSES;
        let text = format!(
            "version: 1
hosts: {{ a: {{ tunnel-address: {a} }}, b: {{ tunnel-address: {b} }} }}
networks: {{ lan: {{ subnets: [10.9.0.0/24, 'fd00:9::/64'], vni: 100 }} }}
groups:
  servers:
    rules:
      - {{ name: web, from: clients, protocol: tcp, ports: 80 }}
      - {{ name: dns, from: clients, protocol: udp, ports: 53 }}
  clients: {{ rules: [{{ to: any }}] }}
  others: {{ rules: [{{ to: any }}] }}
ports:
{}",
            ports.collect::<String>()
        );
        for agent in &self.agents {
            agent.write(&text);
        }
    }

    /// Both have it in force.
    fn change(&self, moved: &[(&str, &str)]) {
        let before = self.agents.each_ref().map(Agent::applied);
        self.write(moved);
        for (agent, before) in self.agents.iter().zip(before) {
            agent.wait_for_another(&before);
        }
    }

    fn answers(&self, from: &str, to: &str, family: Family, asked: Asked) -> bool {
        let answered = self.vms[from].is_answered(&self.vms[to], family, asked, SHORT);
        answered.unwrap_or_else(|error| panic!("{from} asks {to} {asked:?} by {family}: {error}"))
    }

    /// Packets are lost while switches and kernels ask who has an address.
    fn answers_at_last(&self, from: &str, to: &str, family: Family, asked: Asked) -> bool {
        (0..20).any(|_| self.answers(from, to, family, asked))
    }

    /// How many packets no rule let through at this VM's port.
    fn dropped(&self, name: &str) -> u64 {
        let of = VMS.iter().find(|(vm, ..)| *vm == name).expect("a VM");
        let agent = &self.agents[usize::from(of.2 == Place::Kernel)];
        let status = agent.status();
        let ports = status["ports"].as_array().expect("a list");
        let port = ports.iter().find(|port| port["port"] == name);
        let drops = &port.expect("its port")["drops"]["no-rule"]["packets"];
        drops.as_u64().unwrap_or(0)
    }

    /// No answer is no proof: what is asked must have come to the port, and no further.
    fn check_refused(&self, from: &str, to: &str, family: Family, asked: Asked) {
        let before = self.dropped(to);
        wait_until("it is dropped", || {
            let answered = self.answers(from, to, family, asked);
            assert!(!answered, "{from} {to} {family} {asked:?}");
            self.dropped(to) > before
        });
    }

    fn check(&self) {
        for server in ["server-a", "server-b"] {
            for family in Family::BOTH {
                for client in ["client-a", "client-b"] {
                    for asked in [Asked::Tcp(80), Asked::Udp(53)] {
                        let answered = self.answers_at_last(client, server, family, asked);
                        assert!(answered, "{client} {server} {family} {asked:?}");
                    }
                    for asked in [Asked::Tcp(81), Asked::Udp(54)] {
                        self.check_refused(client, server, family, asked);
                    }
                }
                for other in ["other-a", "other-b"] {
                    for asked in [Asked::Tcp(80), Asked::Udp(53)] {
                        self.check_refused(other, server, family, asked);
                    }
                }
            }
        }
        for agent in &self.agents {
            let status = agent.status();
            let ports = status["ports"].as_array().expect("a list");
            assert_eq!(ports.len(), 3, "{status:#}");
            let states = ports.iter().map(|port| &port["state"]);
            assert!(
                states.clone().all(|state| state == "enforced"),
                "{status:#}"
            );
        }
    }

    /// What is open ends when its client leaves the group, and goes on when it comes back.
    fn check_revocation(&self, client: &str, server: &str) {
        for family in Family::BOTH {
            let at = self.vms[server].address(family).expect("it has one");
            let _tcp = self.vms[server].serve_tcp(80).expect("a server");
            let _udp = self.vms[server].serve_udp(53).expect("a server");
            let datagrams = self.vms[client].udp(0).expect("a socket");
            datagrams.connect((at, 53)).expect("it is local");
            let mut asks = (0..20).map(|_| is_answered(&datagrams, 1));
            assert!(asks.any(|answered| answered), "{client} {server}");
            let stream = self.vms[client].tcp_connect(SocketAddr::new(at, 80), PATIENCE);
            let mut stream = stream.expect("80 is open");
            assert!(echoes(&mut stream, 1, PATIENCE), "{client} {server}");
            self.change(&[(client, "others")]);
            let before = self.dropped(server);
            wait_until("it is dropped", || {
                assert!(!is_answered(&datagrams, 2), "{client} {server}");
                self.dropped(server) > before
            });
            let before = self.dropped(server);
            assert!(!echoes(&mut stream, 2, SHORT), "{client} {server}");
            // The kernel sends it again.
            wait_until("it is dropped", || self.dropped(server) > before);
            self.change(&[]);
            assert!(hears(&mut stream, 2, PATIENCE), "{client} {server}");
            let mut asks = (0..20).map(|_| is_answered(&datagrams, 3));
            assert!(asks.any(|answered| answered), "{client} {server}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Pins outlive namespaces.
        let output = self.agents[1].portcullis(&["detach"]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// Of a bridge of Open vSwitch, and of one of Linux.
fn hosts(secure: bool) -> ([Lab; 2], OpenVswitch) {
    let labs = ["mixa", "mixb"].map(|name| Lab::new(name).expect("a lab; it needs root"));
    let switch = OpenVswitch::start(labs[0].host()).expect("Open vSwitch");
    switch.add_bridge(BRIDGE, secure).expect("a bridge");
    labs[1].add_bridge(LINUX_BRIDGE).expect("a bridge");
    (labs, switch)
}

fn vm(labs: &mut [Lab; 2], name: &str, last: u8, place: Place) -> Vm {
    let (lab, attach) = match place {
        Place::Switch => (&mut labs[0], Attach::Nothing),
        Place::Kernel => (&mut labs[1], Attach::Bridge(LINUX_BRIDGE)),
    };
    let vm = add(lab, name, last, attach);
    vm.offload(Offload::TxChecksum, false).expect("it is set");
    vm
}

fn echoes(stream: &mut TcpStream, byte: u8, timeout: Duration) -> bool {
    stream.write_all(&[byte]).expect("there is room for it");
    hears(stream, byte, timeout)
}

/// What comes late for another byte is no answer.
fn is_answered(socket: &UdpSocket, byte: u8) -> bool {
    socket.set_read_timeout(Some(SHORT)).expect("it is set");
    socket.send(&[byte]).expect("there is room for it");
    let mut heard = [0];
    while socket.recv(&mut heard).is_ok() {
        if heard == [byte] {
            return true;
        }
    }
    false
}

fn hears(stream: &mut TcpStream, byte: u8, timeout: Duration) -> bool {
    stream.set_read_timeout(Some(timeout)).expect("it is set");
    let mut heard = [0];
    stream.read_exact(&mut heard).is_ok() && heard == [byte]
}

#[test]
fn a_switch_and_ebpf_on_one_segment_understand_each_other() {
    let cluster = Cluster::flat();
    cluster.check();
    cluster.check_revocation("client-b", "server-a");
    cluster.check_revocation("client-a", "server-b");
}

#[test]
fn a_switch_understands_ebpf_behind_somebody_elses_tunnel() {
    let cluster = Cluster::tunnelled();
    cluster.check();
    cluster.check_revocation("client-b", "server-a");
    cluster.check_revocation("client-a", "server-b");
}
