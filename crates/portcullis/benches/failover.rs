//! How long a change waits when the server that hosts follow is lost: `cargo bench -p portcullis --bench failover`, as
//! root.
//!
//! ```text
//! server 9696 --+                    +-- 4 agents, each with a port of the eBPF plane
//!               +-- etcd             |   first these follow one server, and after each loss the other
//! server 9698 --+                    |
//! ```
//! The server that all follow is killed, or made silent (SIGSTOP: its connections stay open), and at once a change is
//! asked for at the other one. When the last of the hosts enforces it, the agents' logs say. Then the lost one comes
//! back, and after some seconds the other one is lost.

mod support;

use conformance::lab::Lab;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;
use support::{Api, Log, Process, ca, command, second_of_day, wait_until};
use tempfile::TempDir;

const HOSTS: usize = 4;
/// The API's of each server; that for agents is the next one.
const SERVERS: [u16; 2] = [9696, 9698];
const ROUNDS: usize = 20;

#[derive(Clone, Copy)]
enum Loss {
    Kill,
    Silence,
}

fn main() {
    println!("a server is   until the last of {HOSTS} hosts enforces a change, ms: median  worst");
    for (what, loss) in [("killed", Loss::Kill), ("silent", Loss::Silence)] {
        let mut site = Site::build();
        let mut waits = Vec::from_iter((0..ROUNDS).map(|round| site.lose(round, loss)));
        waits.sort_by(f64::total_cmp);
        let (median, worst) = (waits[ROUNDS / 2], waits[ROUNDS - 1]);
        println!("{what:11}   {median:56.0}  {worst:5.0}");
    }
}

struct Site {
    servers: [Process; 2],
    /// Which of them all hosts follow.
    followed: usize,
    agents: Vec<Process>,
    guest: String,
    group: String,
    directory: TempDir,
    _etcd: Process,
    lab: Lab,
}

impl Site {
    fn build() -> Self {
        let lab = Lab::new("bfo").expect("a lab; it needs root");
        lab.add_bridge("pc-br").expect("a bridge");
        let directory = tempfile::tempdir().expect("a directory");
        let etcd = start_etcd(&lab, directory.path());
        for words in ["init", "server 127.0.0.1"] {
            ca(directory.path(), words);
        }
        let servers = SERVERS.map(|port| start_server(&lab, directory.path(), port));
        let mut api = Api::connect_at(lab.host(), SERVERS[0]);
        let (guest, group) = make_policy(&mut api);
        let hosts = 0..HOSTS;
        let agents = hosts.map(|number| start_agent(&lab, directory.path(), number));
        let site = Self {
            servers,
            followed: 0,
            agents: agents.collect(),
            guest,
            group,
            directory,
            _etcd: etcd,
            lab,
        };
        site.wait_until_followed();
        site
    }

    /// By all hosts: it knows how far each is.
    fn wait_until_followed(&self) {
        let mut api = Api::connect_at(self.lab.host(), SERVERS[self.followed]);
        wait_until("all hosts follow", || {
            let listed = api.ask("GET", "/portcullis/v1/hosts", &Value::Null);
            let hosts = listed["hosts"].as_array().cloned().unwrap_or_default();
            let here = hosts.iter().filter(|host| !host["applied"].is_null());
            here.count() == HOSTS
        });
    }

    /// From the loss until all enforce what was asked for then, in milliseconds.
    fn lose(&mut self, round: usize, loss: Loss) -> f64 {
        // What has lasted shorter is no connection to an agent; and wherever the signs of life are.
        sleep(Duration::from_millis(1500 + 370 * (round as u64 % 5)));
        let (lost, other) = (self.followed, 1 - self.followed);
        let mut api = Api::connect_at(self.lab.host(), SERVERS[other]);
        let began = second_of_day();
        match loss {
            Loss::Kill => self.servers[lost].kill(),
            Loss::Silence => self.signal(lost, Signal::STOP),
        }
        let groups = match round % 2 {
            0 => vec![&self.group],
            _ => vec![],
        };
        let body = json!({ "port": { "security_groups": groups } });
        let changed = api.ask("PUT", &format!("/v2.0/ports/{}", self.guest), &body);
        let commit = changed["port"]["revision_number"].as_u64();
        let commit = commit.expect("a port has one");
        let logs = (0..HOSTS).map(|number| Log(self.directory.path().join(log(number))));
        let enforced = logs.map(|log| {
            wait_until("the host enforces", || log.applied(commit).is_some());
            log.applied(commit).expect("it was waited for")
        });
        let last = enforced.fold(0.0, f64::max);
        match loss {
            Loss::Kill => {
                let path = self.directory.path();
                self.servers[lost] = start_server(&self.lab, path, SERVERS[lost]);
            }
            Loss::Silence => self.signal(lost, Signal::CONT),
        }
        self.followed = other;
        self.wait_until_followed();
        (last - began) * 1e3
    }

    fn signal(&self, server: usize, signal: Signal) {
        let id = self.servers[server].0.id();
        let id = Pid::from_raw(id as i32).expect("a process");
        kill_process(id, signal).expect("it is ours");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Pins outlive namespaces.
        for (number, agent) in self.agents.iter_mut().enumerate() {
            agent.kill();
            let mut detach = command(self.directory.path(), "detach");
            detach.args(["--instance", &instance(number)]);
            let detached = self.lab.host().run(move || detach.output());
            assert!(detached.expect("the binary runs").status.success());
        }
    }
}

fn start_etcd(lab: &Lab, directory: &Path) -> Process {
    let mut etcd = Command::new("etcd");
    etcd.arg("--data-dir").arg(directory.join("etcd"));
    let etcd = Process::start(lab, etcd, directory, "etcd.log");
    wait_until("etcd answers", || {
        let connect = || TcpStream::connect("127.0.0.1:2379");
        lab.host().run(connect).is_ok()
    });
    etcd
}

/// Once it answers.
fn start_server(lab: &Lab, directory: &Path, port: u16) -> Process {
    let mut server = command(directory, "server");
    server.args(["--store", "etcd:http://127.0.0.1:2379/pc-bench"]);
    server.args(["--listen", &format!("127.0.0.1:{port}")]);
    server.args(["--listen-agents", &format!("127.0.0.1:{}", port + 1)]);
    let log = format!("server-{port}.log");
    let server = Process::start(lab, server, directory, &log);
    Api::connect_at(lab.host(), port);
    server
}

fn start_agent(lab: &Lab, directory: &Path, number: usize) -> Process {
    let (device, host) = (device(number), host(number));
    let link = format!("link add {device} master pc-br type veth peer name pc-vm{number}");
    lab.host().ip(&link).expect("a device");
    let up = format!("link set {device} up");
    lab.host().ip(&up).expect("a device");
    ca(directory, &format!("host {host}"));
    let servers = SERVERS.map(|port| format!("127.0.0.1:{}", port + 1));
    let mut agent = command(directory, "agent");
    agent.args(["--server", &servers.join(","), "--host", &host]);
    agent.args(["--instance", &instance(number), "--max-ports", "16"]);
    Process::start(lab, agent, directory, &log(number))
}

/// A port on each host, of a group whose rule names another one; and a port elsewhere that joins that, and leaves it.
fn make_policy(api: &mut Api) -> (String, String) {
    let [local, group] =
        ["local", "named"].map(|name| api.make("security_group", json!({ "name": name })));
    let rule = json!({
        "security_group_id": local, "remote_group_id": group, "direction": "ingress",
        "protocol": "tcp", "port_range_min": 80, "port_range_max": 80,
    });
    api.make("security_group_rule", rule);
    let network = api.make("network", json!({ "name": "n" }));
    let subnet = json!({ "network_id": network, "ip_version": 4, "cidr": "10.0.0.0/16" });
    api.make("subnet", subnet);
    for number in 0..HOSTS {
        let port = json!({
            "network_id": network, "security_groups": [local], "binding:host_id": host(number),
            "binding:profile": { "device": device(number) },
        });
        api.make("port", port);
    }
    let guest = json!({
        "network_id": network, "security_groups": [], "binding:host_id": "elsewhere",
    });
    (api.make("port", guest), group)
}

fn device(number: usize) -> String {
    format!("pc-tap{number}")
}

fn host(number: usize) -> String {
    format!("h{number}")
}

fn log(number: usize) -> String {
    format!("agent-{number}.log")
}

fn instance(number: usize) -> String {
    format!("pc-bfo-{number}-{}", std::process::id())
}
