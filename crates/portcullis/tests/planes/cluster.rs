//! A cluster: a server, and two hosts whose agents follow it; policy comes by the API.
//!
//! ```text
//! server, agent a, pc-br --- pc-up <== veth ==> pc-up --- pc-br, agent b       VMs on both bridges
//!              198.51.100.1 --- pc-mgmt <== veth ==> pc-mgmt --- 198.51.100.2
//! ```

use crate::agent::{Agent, BIN, PATIENCE, wait_until};
use crate::machines::add;
use crate::ovs::SHORT;
use crate::server::{Server, make_certificates};
use conformance::lab::{Attach, EchoServer, Lab, Offload, Vm};
use model::Family;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Name, last byte of its addresses, host, group.
const VMS: [(&str, u8, usize, &str); 4] = [
    ("server", 1, 0, "servers"),
    ("near", 2, 0, "clients"),
    ("far", 3, 1, "clients"),
    ("other", 4, 1, "others"),
];
const HOSTS: [&str; 2] = ["a", "b"];
const BRIDGE: &str = "pc-br";
/// Of which the second one is seldom there.
const SERVERS: &str = "198.51.100.1:9697,198.51.100.1:9699";

struct Cluster {
    vms: BTreeMap<&'static str, Vm>,
    _echo: [EchoServer; 2],
    agents: [Agent; 2],
    server: Server,
    groups: BTreeMap<&'static str, String>,
    ports: BTreeMap<&'static str, String>,
    directory: tempfile::TempDir,
    labs: [Lab; 2],
}

impl Cluster {
    fn new() -> Self {
        Self::on(hosts(), "file:store")
    }

    fn on(mut labs: [Lab; 2], store: &str) -> Self {
        let vms = VMS.map(|(name, last, host, _)| {
            let vm = add(&mut labs[host], name, last, Attach::Bridge(BRIDGE));
            vm.offload(Offload::TxChecksum, false).expect("it is set");
            (name, vm)
        });
        let vms = BTreeMap::from(vms);
        let echo = [80, 81].map(|port| vms["server"].serve_tcp(port).expect("a server"));
        let directory = tempfile::tempdir().expect("a directory");
        make_certificates(directory.path(), &["198.51.100.1"], &HOSTS);
        let server = Server::start(labs[0].host(), directory.path(), store, 9696);
        let mut cluster = Self {
            agents: HOSTS.map(|host| agent(&labs[usize::from(host == "b")], host)),
            vms,
            _echo: echo,
            server,
            groups: BTreeMap::new(),
            ports: BTreeMap::new(),
            directory,
            labs,
        };
        cluster.make_policy();
        for (agent, host) in cluster.agents.iter_mut().zip(HOSTS) {
            follow(agent, host, cluster.directory.path());
        }
        cluster
    }

    fn make_policy(&mut self) {
        for name in ["servers", "clients", "others"] {
            let made = self.create("security_group", json!({ "name": name }));
            self.groups.insert(name, id(&made));
        }
        let [servers, clients] = ["servers", "clients"].map(|name| self.groups[name].clone());
        for family in ["IPv4", "IPv6"] {
            self.create(
                "security_group_rule",
                json!({
                    "security_group_id": servers, "direction": "ingress", "ethertype": family,
                    "protocol": "tcp", "port_range_min": 80, "port_range_max": 80,
                    "remote_group_id": clients,
                }),
            );
        }
        let network = id(&self.create("network", json!({ "name": "lan" })));
        for (version, cidr) in [(4, "10.9.0.0/24"), (6, "fd00:9::/64")] {
            self.create(
                "subnet",
                json!({ "network_id": network, "ip_version": version, "cidr": cidr, "gateway_ip": null }),
            );
        }
        for (name, _, host, group) in VMS {
            let vm = &self.vms[name];
            let addresses = vm.addresses().iter();
            let made = self.create(
                "port",
                json!({
                    "network_id": network, "name": name, "mac_address": vm.mac().to_string(),
                    "fixed_ips": addresses.map(|a| json!({ "ip_address": a })).collect::<Vec<_>>(),
                    "security_groups": [self.groups[group]],
                    "binding:host_id": HOSTS[host], "binding:profile": { "device": vm.device() },
                }),
            );
            self.ports.insert(name, id(&made));
        }
    }

    fn create(&self, kind: &str, object: Value) -> Value {
        let path = format!("/v2.0/{}s", kind.replace('_', "-"));
        let answer = self
            .server
            .ask("POST", &path, Some(json!({ kind: object })));
        answer[kind].clone()
    }

    /// Its host has told that it is enforced as it is now.
    fn wait_until_active(&self, name: &str) {
        let path = format!("/v2.0/ports/{}", self.ports[name]);
        wait_until("the port is active", || {
            self.server.ask("GET", &path, None)["port"]["status"] == "ACTIVE"
        });
    }

    /// Asked at that server.
    fn status_at(&self, server: &Server, name: &str) -> Value {
        let path = format!("/v2.0/ports/{}", self.ports[name]);
        server.ask("GET", &path, None)["port"]["status"].clone()
    }

    fn wait_for_status_at(&self, server: &Server, name: &str, expected: &str) {
        wait_until(&format!("{name} is {expected}"), || {
            self.status_at(server, name) == expected
        });
    }

    fn join(&self, name: &str, group: &str) {
        let path = format!("/v2.0/ports/{}", self.ports[name]);
        let groups = json!({ "port": { "security_groups": [self.groups[group]] } });
        self.server.ask("PUT", &path, Some(groups));
    }

    fn bind(&self, name: &str, binding: Value) {
        let path = format!("/v2.0/ports/{}", self.ports[name]);
        self.server
            .ask("PUT", &path, Some(json!({ "port": binding })));
    }

    /// Its device is at another host from now on.
    fn plug(&self, name: &str, from: usize, to: usize) {
        let device = self.vms[name].device();
        let there = self.labs[to].host().path();
        let [from, to] = [from, to].map(|host| self.labs[host].host());
        from.ip(&format!("link set {device} netns {there}"))
            .expect("it is there");
        to.ip(&format!("link set {device} master {BRIDGE} up"))
            .expect("it is there");
    }

    fn answers(&self, from: &str, l4_port: u16, family: Family) -> bool {
        let at = self.vms["server"].address(family).expect("it has one");
        let at = SocketAddr::new(at, l4_port);
        self.vms[from].tcp_connect(at, SHORT).is_ok()
    }

    fn check(&self, from: &str, expected: bool) {
        for family in Family::BOTH {
            wait_until("it is as expected", || {
                self.answers(from, 80, family) == expected
            });
            assert!(!self.answers(from, 81, family), "{from} {family}");
        }
    }

    fn connect(&self, from: &str) -> TcpStream {
        let at = self.vms["server"].address(Family::V4).expect("it has one");
        let stream = self.vms[from].tcp_connect(SocketAddr::new(at, 80), PATIENCE);
        stream.expect("80 is open")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Pins outlive namespaces.
        for agent in &self.agents {
            let output = agent.portcullis(&["detach"]);
            if !output.status.success() && !std::thread::panicking() {
                panic!("{}", String::from_utf8_lossy(&output.stderr));
            }
        }
    }
}

/// On one segment, and reachable for each other by a network that no VM is in.
fn hosts() -> [Lab; 2] {
    let labs = ["clua", "club"].map(|name| Lab::new(name).expect("a lab; it needs root"));
    let there = labs[1].host().path();
    for (lab, address) in labs.iter().zip(["198.51.100.1", "198.51.100.2"]) {
        lab.add_bridge(BRIDGE).expect("a bridge");
        if address.ends_with(".1") {
            let cables = format!(
                "link add pc-up type veth peer name pc-up netns {there}\n\
                 link add pc-mgmt type veth peer name pc-mgmt netns {there}"
            );
            lab.host().ip(&cables).expect("cables");
        }
        let links = format!(
            "link set pc-up master {BRIDGE} up\naddr add {address}/24 dev pc-mgmt\nlink set pc-mgmt up"
        );
        lab.host().ip(&links).expect("links");
    }
    labs
}

fn agent(lab: &Lab, host: &str) -> Agent {
    static CLUSTERS: AtomicU32 = AtomicU32::new(0);
    let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    let instance = format!("pc-clu-{host}-{}-{number}", std::process::id());
    let settings: [(&'static str, &OsStr); 2] = [
        ("PORTCULLIS_INSTANCE", instance.as_ref()),
        ("PORTCULLIS_PLANE", "ebpf".as_ref()),
    ];
    Agent::new(lab.host(), &settings)
}

fn follow(agent: &mut Agent, host: &str, certificates: &Path) {
    follow_at(agent, SERVERS, host, certificates);
}

fn follow_at(agent: &mut Agent, servers: &str, host: &str, certificates: &Path) {
    let file = |name: &str| certificates.join(name).display().to_string();
    let (ca, cert, key) = (
        file("ca.pem"),
        file(&format!("{host}.pem")),
        file(&format!("{host}.key")),
    );
    agent.launch(
        &["agent", "--server", servers, "--host", host],
        &[
            "--ca",
            &ca,
            "--cert",
            &cert,
            "--key",
            &key,
            "--max-ports",
            "16",
        ],
    );
}

fn id(object: &Value) -> String {
    object["id"]
        .as_str()
        .expect("an object has an id")
        .to_owned()
}

fn echoes(stream: &mut TcpStream, byte: u8) -> bool {
    stream.write_all(&[byte]).expect("there is room for it");
    hears(stream, byte)
}

fn hears(stream: &mut TcpStream, byte: u8) -> bool {
    let mut heard = [0];
    stream.read_exact(&mut heard).is_ok() && heard == [byte]
}

#[test]
fn hosts_enforce_what_the_api_was_told() {
    let mut cluster = Cluster::new();
    for (name, ..) in VMS {
        cluster.wait_until_active(name);
    }
    cluster.check("near", true);
    cluster.check("far", true);
    cluster.check("other", false);

    // Joining and leaving, from the other host.
    cluster.join("other", "clients");
    cluster.check("other", true);
    let mut open = cluster.connect("other");
    assert!(echoes(&mut open, 1));
    cluster.join("other", "others");
    cluster.check("other", false);
    open.set_read_timeout(Some(SHORT)).expect("it is set");
    assert!(!echoes(&mut open, 2));
    cluster.join("other", "clients");
    open.set_read_timeout(Some(PATIENCE)).expect("it is set");
    assert!(hears(&mut open, 2));

    // O5: without a server nothing changes, also for an agent that starts.
    cluster.server.kill();
    assert!(echoes(&mut open, 3));
    cluster.check("near", true);
    cluster.agents[1].kill();
    assert!(echoes(&mut open, 4));
    follow(&mut cluster.agents[1], "b", cluster.directory.path());
    let source = cluster.agents[1].status()["agent"]["policy"]["source"].clone();
    assert_eq!(source, "cache");
    assert!(echoes(&mut open, 5));

    // What was committed is there again, and goes on from there.
    cluster.server.restart();
    wait_until("the server is followed", || {
        cluster.agents[1].status()["agent"]["policy"]["source"] == "server"
    });
    cluster.join("far", "others");
    cluster.wait_until_active("far");
    cluster.check("far", false);
    assert!(echoes(&mut open, 6));
}

/// An etcd of the test's own, in a host's namespace, with its data in a directory.
struct Etcd(Child);

impl Etcd {
    fn start(lab: &Lab, data: &Path) -> Self {
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(data);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let spawned = lab.host().run(move || command.spawn());
        let etcd = Self(spawned.expect("etcd is there: Debian's etcd-server"));
        wait_until("etcd answers", || {
            let connect = || TcpStream::connect("127.0.0.1:2379");
            lab.host().run(connect).is_ok()
        });
        etcd
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn servers_on_one_etcd_stand_in_for_each_other() {
    let labs = hosts();
    let data = tempfile::tempdir().expect("a directory");
    let _etcd = Etcd::start(&labs[0], data.path());
    let store = "etcd:http://127.0.0.1:2379/pc-test";
    let mut cluster = Cluster::on(labs, store);
    let host = cluster.labs[0].host();
    let other = Server::start(host, cluster.directory.path(), store, 9698);
    cluster.wait_until_active("far");
    cluster.check("far", true);

    // What one was told the other has; agents go over to it.
    cluster.join("far", "others");
    cluster.check("far", false);
    cluster.server.kill();
    cluster.check("near", true);
    cluster.server = other;
    cluster.wait_until_active("far");
    cluster.check("far", false);
    cluster.join("far", "clients");
    cluster.check("far", true);
}

/// As that server lists it.
fn host_at(server: &Server, host: &str) -> Value {
    let listed = server.ask("GET", "/portcullis/v1/hosts", None);
    let hosts = listed["hosts"].as_array().cloned().unwrap_or_default();
    let found = hosts.into_iter().find(|listed| listed["id"] == host);
    found.expect("it is listed")
}

/// It has told that server itself how far it is.
fn reports_to(server: &Server, host: &str) -> bool {
    !host_at(server, host)["applied"].is_null()
}

#[test]
fn every_server_says_what_hosts_enforce() {
    let labs = hosts();
    let data = tempfile::tempdir().expect("a directory");
    let _etcd = Etcd::start(&labs[0], data.path());
    let store = "etcd:http://127.0.0.1:2379/pc-test";
    let mut cluster = Cluster::on(labs, store);
    let host = cluster.labs[0].host();
    let mut other = Server::start(host, cluster.directory.path(), store, 9698);

    // Both hosts follow the first server; the other one is asked.
    for (name, ..) in VMS {
        cluster.wait_for_status_at(&other, name, "ACTIVE");
    }
    cluster.join("far", "others");
    cluster.wait_for_status_at(&other, "far", "ACTIVE");
    cluster.check("far", false);
    let listed = host_at(&other, "b");
    assert_eq!(listed["connected"], true, "{listed}");
    assert!(listed["applied"].is_null(), "{listed}");
    let absent = json!({ "port": { "binding:profile": { "device": "pc-none" } } });
    let present =
        json!({ "port": { "binding:profile": { "device": cluster.vms["far"].device() } } });
    let path = format!("/v2.0/ports/{}", cluster.ports["far"]);
    for (profile, expected) in [(absent, "DOWN"), (present, "ACTIVE")] {
        other.ask("PUT", &path, Some(profile));
        cluster.wait_for_status_at(&other, "far", expected);
        cluster.wait_for_status_at(&cluster.server, "far", expected);
    }

    // O5: what is enforced is, whichever server is there.
    cluster.server.kill();
    wait_until("the hosts have gone over", || {
        assert_eq!(cluster.status_at(&other, "far"), "ACTIVE");
        HOSTS.iter().all(|host| reports_to(&other, host))
    });
    cluster.server.restart();
    for (name, ..) in VMS {
        assert_eq!(cluster.status_at(&cluster.server, name), "ACTIVE");
    }

    // The same of one that has fallen silent; when it comes to itself it is in nobody's way.
    other.pause();
    wait_until("the hosts have gone over", || {
        HOSTS.iter().all(|host| reports_to(&cluster.server, host))
    });
    cluster.join("far", "clients");
    cluster.wait_until_active("far");
    other.resume();
    cluster.wait_for_status_at(&other, "far", "ACTIVE");
    wait_until("it knows that they are gone", || {
        HOSTS.iter().all(|host| !reports_to(&other, host))
    });
    cluster.check("far", true);
    other.kill();
}

#[test]
fn c9_two_agents_with_one_name_at_two_servers_do_not_both_follow() {
    let labs = hosts();
    let data = tempfile::tempdir().expect("a directory");
    let _etcd = Etcd::start(&labs[0], data.path());
    let store = "etcd:http://127.0.0.1:2379/pc-test";
    let mut cluster = Cluster::on(labs, store);
    let directory = cluster.directory.path().to_owned();
    let other = Server::start(cluster.labs[0].host(), &directory, store, 9698);
    cluster.wait_for_status_at(&other, "far", "ACTIVE");

    // On the wrong host, so that what it says of the port is another thing: it is the later one, and is heard.
    let mut second = agent(&cluster.labs[0], "b");
    follow_at(&mut second, "198.51.100.1:9699", "b", &directory);
    wait_until("the earlier one is fenced", || {
        let status = cluster.agents[1].status();
        let errors = status["agent"]["policy"]["errors"].to_string();
        errors.contains("Two agents have this host's name")
    });
    for server in [&cluster.server, &other] {
        cluster.wait_for_status_at(server, "far", "DOWN");
    }
    cluster.check("far", true);

    // Once that one is gone, the right one can be started again.
    second.kill();
    assert!(second.portcullis(&["detach"]).status.success());
    cluster.agents[1].kill();
    follow(&mut cluster.agents[1], "b", &directory);
    for server in [&cluster.server, &other] {
        cluster.wait_for_status_at(server, "far", "ACTIVE");
    }
}

#[test]
fn one_host_can_be_all_of_a_cluster() {
    let mut lab = Lab::new("allin").expect("a lab; it needs root");
    lab.add_bridge(BRIDGE).expect("a bridge");
    let web = add(&mut lab, "w", 1, Attach::Bridge(BRIDGE));
    let client = add(&mut lab, "c", 2, Attach::Bridge(BRIDGE));
    let _echo = [80, 81].map(|port| web.serve_tcp(port).expect("a server"));
    let directory = tempfile::tempdir().expect("a directory");
    let instance = format!("pc-allin-{}", std::process::id());
    let more = ["--all-in-one", "--host", "a", "--instance", &instance];
    let more = [&more[..], &["--max-ports", "16"]].concat();
    let server = Server::start_with(lab.host(), directory.path(), "file:store", 9696, &more);
    let policy = format!(
        "{{ version: 1, hosts: {{ a: {{}} }}, networks: {{ lan: {{ subnets: 10.9.0.0/24 }} }}, \
         groups: {{ g: {{ rules: [{{ from: any, protocol: tcp, ports: 80 }}] }} }}, \
         ports: {{ web: {{ host: a, mac: '{}', addresses: 10.9.0.1, groups: g, device: {} }} }} }}",
        web.mac(),
        web.device()
    );
    let file = directory.path().join("policy.yaml");
    std::fs::write(&file, policy).expect("it can be written");
    let portcullis = |arguments: &[&str]| {
        let mut command = Command::new(BIN);
        command
            .args(arguments)
            .env("PORTCULLIS_RUN_DIR", directory.path().join("run"))
            .env("PORTCULLIS_STATE_DIR", directory.path().join("state"))
            .env("PORTCULLIS_INSTANCE", &instance);
        let output = lab.host().run(move || command.output());
        let output = output.expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
    };
    portcullis(&["apply", "-f", file.to_str().expect("it is text")]);
    wait_until("the port is active", || {
        server.ask("GET", "/v2.0/ports/web", None)["port"]["status"] == "ACTIVE"
    });
    let connects = |port: u16| {
        let at = SocketAddr::new(web.addresses()[0], port);
        client.tcp_connect(at, SHORT).is_ok()
    };
    wait_until("80 is open", || connects(80));
    assert!(!connects(81));
    drop(server);
    assert!(connects(80));
    assert!(!connects(81));
    portcullis(&["detach"]);
}

#[test]
fn all_of_a_cluster_ends_with_its_enforcement() {
    let lab = Lab::new("allend").expect("a lab; it needs root");
    let instance = format!("pc-allend-{}", std::process::id());
    let settings = [("PORTCULLIS_INSTANCE", OsStr::new(&instance))];
    let mut all = Agent::new(lab.host(), &settings);
    let store = format!("file:{}", all.directory().join("store").display());
    let server = ["server", "--all-in-one", "--store", &store];
    all.launch(&server, &["--host", "a", "--max-ports", "16"]);
    assert!(all.portcullis(&["detach"]).status.success());
    let said = all.end();
    assert!(said.contains("enforcement is removed"), "{said}");
    assert!(!said.contains("what is enforced stays"), "{said}");
}

#[test]
fn o11_a_connection_goes_along_with_its_port() {
    goes_along(
        |cluster, profile| {
            let mut migrating = profile;
            migrating["migrating_to"] = "b".into();
            cluster.bind("near", json!({ "binding:profile": migrating }));
        },
        |cluster| cluster.bind("near", json!({ "binding:host_id": "b" })),
    );
}

/// As newer Novas say it.
#[test]
fn o11_a_connection_goes_along_with_a_binding() {
    let path = |cluster: &Cluster, rest: &str| {
        let port = &cluster.ports["near"];
        format!("/v2.0/ports/{port}/bindings{rest}")
    };
    goes_along(
        |cluster, profile| {
            let binding = json!({ "binding": { "host": "b", "profile": profile } });
            let all = path(cluster, "");
            let made = cluster.server.ask("POST", &all, Some(binding));
            assert_eq!(made["binding"]["status"], "INACTIVE");
        },
        |cluster| {
            let activate = path(cluster, "/b/activate");
            let there = cluster.server.ask("PUT", &activate, None);
            assert_eq!(there["binding"]["status"], "ACTIVE");
        },
    );
}

/// What nothing but its flow lets in comes in at the host that the port was moved to, and doesn't without the flow.
/// `begin`: the move, with what is said of the device; `end`: the VM runs there.
fn goes_along(begin: impl Fn(&Cluster, Value), end: impl Fn(&Cluster)) {
    const L4_PORT: u16 = 82;
    let cluster = Cluster::new();
    cluster.create(
        "security_group_rule",
        json!({
            "security_group_id": cluster.groups["servers"], "direction": "ingress",
            "protocol": "tcp", "port_range_min": L4_PORT, "port_range_max": L4_PORT,
        }),
    );
    for (name, ..) in VMS {
        cluster.wait_until_active(name);
    }
    let server = &cluster.vms["server"];
    let listen = || TcpListener::bind(("0.0.0.0", L4_PORT));
    let listener = server.run(listen).expect("nobody else is there");
    let at = SocketAddr::new(server.address(Family::V4).expect("it has one"), L4_PORT);
    let mut near = cluster.vms["near"]
        .tcp_connect(at, PATIENCE)
        .expect("it is open");
    let (mut served, _) = listener.accept().expect("it has connected");
    near.set_read_timeout(Some(PATIENCE)).expect("it is set");
    served.write_all(&[1]).expect("there is room for it");
    assert!(hears(&mut near, 1));

    // The policy goes ahead: it is there before the device is.
    let before = cluster.agents[1].applied();
    let device = cluster.vms["near"].device();
    begin(&cluster, json!({ "device": device }));
    cluster.agents[1].wait_for_another(&before);
    cluster.plug("near", 0, 1);
    let before = cluster.agents[0].applied();
    end(&cluster);
    cluster.wait_until_active("near");
    cluster.agents[0].wait_for_another(&before);
    served.write_all(&[2]).expect("there is room for it");
    assert!(hears(&mut near, 2), "its flow is at the new host");
    let open = cluster.vms["near"].run(listen).expect("nobody is there");
    let closed = open.local_addr().expect("it is bound").port();
    let near_at = cluster.vms["near"].address(Family::V4).expect("it has one");
    let to_near = cluster.vms["far"].tcp_connect(SocketAddr::new(near_at, closed), SHORT);
    assert!(to_near.is_err(), "nothing else is");

    // Back without a word before: what comes is nobody's, until the VM says something itself.
    let profile = json!({ "device": device });
    let binding = json!({ "binding:host_id": "a", "binding:profile": profile });
    cluster.bind("near", binding);
    cluster.plug("near", 1, 0);
    cluster.wait_until_active("near");
    served.write_all(&[3]).expect("there is room for it");
    near.set_read_timeout(Some(SHORT)).expect("it is set");
    assert!(!hears(&mut near, 3), "no rule lets it in");
    near.write_all(&[4]).expect("there is room for it");
    near.set_read_timeout(Some(PATIENCE)).expect("it is set");
    assert!(hears(&mut near, 3), "it is picked up in mid-stream");
    assert!(hears(&mut served, 4));
}
