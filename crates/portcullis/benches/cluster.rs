//! What a change of a cluster's policy costs, from the request to the host that enforces it:
//! `cargo bench -p portcullis --bench cluster`, as root.
//!
//! A server with its store in a file, and one host with the eBPF plane that gets 50 ports. Their group's rules name a
//! group whose members are elsewhere; one port more joins it and leaves it, again and again. When the host enforces it,
//! its agent's log says; nothing asks it meanwhile.

mod support;

use conformance::lab::Lab;
use serde_json::{Value, json};
use std::thread::sleep;
use std::time::{Duration, Instant};
use support::{Api, Log, Process, ca, command, second_of_day, start_server, wait_until};
use tempfile::TempDir;

const PORTS: usize = 50;
/// Members, and rules that name their group.
const SIZES: [(usize, usize); 2] = [(1_000, 100), (10_000, 1_000)];
const CHANGES: usize = 100;
/// For the CPU, of which the kernel counts hundredths of a second.
const MANY_CHANGES: usize = 400;
/// In one request.
const BULK: usize = 100;
/// Between two changes, so that each is applied by itself.
const PAUSE: Duration = Duration::from_millis(20);

fn main() {
    println!(
        "members  rules   until enforced, ms: 50 ports at once  a member: median  90 %   CPU of a member, ms: server  agent"
    );
    for (members, rules) in SIZES {
        let mut site = Site::build(members, rules);
        let filled = site.fill();
        let mut waits = site.waits();
        waits.sort_by(f64::total_cmp);
        let [server, agent] = site.cpu_of_a_change();
        let (median, most) = (waits[waits.len() / 2], waits[waits.len() * 9 / 10]);
        println!(
            "{members:7}  {rules:5}   {filled:35.1}  {median:16.2}  {most:4.2}   {server:27.2}  {agent:5.2}"
        );
    }
}

struct Site {
    api: Api,
    policy: Policy,
    server: Process,
    agent: Process,
    directory: TempDir,
    instance: String,
    lab: Lab,
}

impl Site {
    fn build(members: usize, rules: usize) -> Self {
        let lab = Lab::new("bcl").expect("a lab; it needs root");
        add_devices(&lab);
        let directory = tempfile::tempdir().expect("a directory");
        let server = start_server(&lab, directory.path());
        ca(directory.path(), "host h");
        let mut api = Api::connect(lab.host());
        let policy = make_policy(&mut api, members, rules);
        let instance = format!("pc-bcl-{}", std::process::id());
        let mut agent = command(directory.path(), "agent");
        agent.args([
            "--server",
            "127.0.0.1:9697",
            "--host",
            "h",
            "--max-ports",
            "64",
        ]);
        agent.args(["--instance", &instance]);
        let agent = Process::start(&lab, agent, directory.path(), "agent.log");
        let site = Self {
            api,
            policy,
            server,
            agent,
            directory,
            instance,
            lab,
        };
        wait_until("the host follows", || site.log().has("following"));
        site
    }

    /// The host gets its ports; from the request until it enforces them, in milliseconds.
    fn fill(&mut self) -> f64 {
        let ports = (0..PORTS).map(|number| {
            let mut port = self.policy.port("h", &[&self.policy.local]);
            port["binding:profile"] = json!({ "device": device(number) });
            port
        });
        let ports: Vec<Value> = ports.collect();
        let asked_s = second_of_day();
        let made = self
            .api
            .ask("POST", "/v2.0/ports", &json!({ "ports": ports }));
        let commit = made["ports"][0]["revision_number"].as_u64();
        let commit = commit.expect("a port has one");
        wait_until("the host enforces", || self.applied(commit).is_some());
        (self.applied(commit).expect("it was waited for") - asked_s) * 1e3
    }

    /// Joins or leaves; the commit, and when it was asked for.
    fn change(&mut self, number: usize) -> (u64, f64) {
        let groups = match number % 2 {
            0 => vec![&self.policy.remote],
            _ => vec![],
        };
        let asked_s = second_of_day();
        let body = json!({ "port": { "security_groups": groups } });
        let path = format!("/v2.0/ports/{}", self.policy.guest);
        let changed = self.api.ask("PUT", &path, &body);
        let commit = changed["port"]["revision_number"].as_u64();
        (commit.expect("a port has one"), asked_s)
    }

    /// From the request until the host enforces it, in milliseconds.
    fn waits(&mut self) -> Vec<f64> {
        let asked = (0..CHANGES).map(|number| {
            sleep(PAUSE);
            self.change(number)
        });
        let asked: Vec<(u64, f64)> = asked.collect();
        let last = asked.last().expect("there are some").0;
        wait_until("the host enforces", || self.applied(last).is_some());
        let waits = asked.iter().map(|(commit, asked_s)| {
            let applied_s = self.applied(*commit).expect("each by itself");
            (applied_s - asked_s) * 1e3
        });
        waits.collect()
    }

    fn log(&self) -> Log {
        Log(self.directory.path().join("agent.log"))
    }

    /// When the agent's log says that it applied the commit.
    fn applied(&self, commit: u64) -> Option<f64> {
        self.log().applied(commit)
    }

    /// In milliseconds; what they need without changes is taken off.
    fn cpu_of_a_change(&mut self) -> [f64; 2] {
        // What is written a few seconds after a change is over.
        sleep(Duration::from_secs(7));
        let (begin, before) = (Instant::now(), self.cpu_ms());
        for number in 0..MANY_CHANGES {
            self.change(number);
            sleep(Duration::from_millis(5));
        }
        let (lasted, after) = (begin.elapsed(), self.cpu_ms());
        sleep(lasted);
        let idle = self.cpu_ms();
        [0, 1].map(|of| (2.0 * after[of] - before[of] - idle[of]) / MANY_CHANGES as f64)
    }

    fn cpu_ms(&self) -> [f64; 2] {
        [&self.server, &self.agent].map(Process::cpu_ms)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Pins outlive namespaces.
        self.agent.kill();
        let mut detach = command(self.directory.path(), "detach");
        detach.args(["--instance", &self.instance]);
        let detached = self.lab.host().run(move || detach.output());
        assert!(detached.expect("the binary runs").status.success());
    }
}

/// Ids of what the bench goes on with.
struct Policy {
    network: String,
    /// Of the host's ports.
    local: String,
    /// That the rules of `local` name.
    remote: String,
    /// A port elsewhere that joins it, and leaves it.
    guest: String,
}

impl Policy {
    fn port(&self, host: &str, groups: &[&String]) -> Value {
        port(&self.network, host, groups)
    }
}

fn port(network: &str, host: &str, groups: &[&String]) -> Value {
    json!({ "network_id": network, "binding:host_id": host, "security_groups": groups })
}

fn make_policy(api: &mut Api, members: usize, rules: usize) -> Policy {
    let unbounded = json!({ "quota": { "security_group_rule": -1, "port": -1 } });
    api.ask("PUT", "/v2.0/quotas/admin", &unbounded);
    let [local, remote] =
        ["local", "remote"].map(|name| api.make("security_group", json!({ "name": name })));
    for l4_port in (1_000..).take(rules) {
        let rule = json!({
            "security_group_id": local, "remote_group_id": remote, "direction": "ingress",
            "protocol": "tcp", "port_range_min": l4_port, "port_range_max": l4_port,
        });
        api.make("security_group_rule", rule);
    }
    let network = api.make("network", json!({ "name": "n" }));
    let subnet = json!({ "network_id": network, "ip_version": 4, "cidr": "10.0.0.0/8" });
    api.make("subnet", subnet);
    for begin in (0..members).step_by(BULK) {
        let bulk = (begin..members).take(BULK);
        let ports: Vec<Value> = bulk
            .map(|_| port(&network, "elsewhere", &[&remote]))
            .collect();
        api.ask("POST", "/v2.0/ports", &json!({ "ports": ports }));
    }
    let guest = api.make("port", port(&network, "elsewhere", &[]));
    Policy {
        network,
        local,
        remote,
        guest,
    }
}

fn add_devices(lab: &Lab) {
    lab.add_bridge("pc-br").expect("a bridge");
    let links = (0..PORTS).map(|number| {
        let device = device(number);
        format!("link add {device} master pc-br type veth peer name pc-vm{number}\nlink set {device} up\n")
    });
    lab.host().ip(&links.collect::<String>()).expect("devices");
}

fn device(number: usize) -> String {
    format!("pc-tap{number}")
}
