//! What a change of a cluster's policy costs, from the request to the host that enforces it:
//! `cargo bench -p portcullis --bench cluster`, as root.
//!
//! A server with its store in a file, and one host with the eBPF plane and 50 ports. Their group's rules name a group
//! whose members are elsewhere; one port more joins it and leaves it, again and again. When the host enforces it, its
//! agent's log says; nothing asks it meanwhile.

use conformance::lab::{Lab, Namespace};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const BIN: &str = env!("CARGO_BIN_EXE_portcullis");
const PORTS: usize = 50;
/// Members, and rules that name their group.
const SIZES: [(usize, usize); 2] = [(1_000, 100), (10_000, 1_000)];
const CHANGES: usize = 100;
/// For the CPU, of which the kernel counts hundredths of a second.
const MANY_CHANGES: usize = 400;
/// In one request.
const BULK: usize = 30;
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two changes, so that each is applied by itself.
const PAUSE: Duration = Duration::from_millis(20);

fn main() {
    println!(
        "members  rules   until enforced, ms: median  90 %   CPU of a change, ms: server  agent"
    );
    for (members, rules) in SIZES {
        let mut site = Site::build(members, rules);
        let mut waits = site.waits();
        waits.sort_by(f64::total_cmp);
        let [server, agent] = site.cpu_of_a_change();
        let (median, most) = (waits[waits.len() / 2], waits[waits.len() * 9 / 10]);
        println!("{members:7}  {rules:5}   {median:26.2}  {most:4.2}   {server:27.2}  {agent:5.2}");
    }
}

struct Site {
    api: Api,
    /// A port elsewhere, and the group that it joins.
    port: String,
    group: String,
    server: Process,
    agent: Process,
    directory: TempDir,
    instance: String,
    lab: Lab,
}

/// Ends with the bench.
struct Process(Child);

impl Site {
    fn build(members: usize, rules: usize) -> Self {
        let lab = Lab::new("bcl").expect("a lab; it needs root");
        add_devices(&lab);
        let directory = tempfile::tempdir().expect("a directory");
        for words in ["init", "server 127.0.0.1", "host h"] {
            let mut ca = command(directory.path(), "ca");
            let made = ca.args(words.split(' ')).stdout(Stdio::null()).status();
            assert!(made.expect("the binary runs").success(), "ca {words}");
        }
        let mut server = command(directory.path(), "server");
        server.args(["--store", "file:store", "--listen-agents", "127.0.0.1:9697"]);
        let server = Process::start(&lab, server, directory.path(), "server.log");
        let mut api = Api::connect(lab.host());
        let (port, group) = make_policy(&mut api, members, rules);
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
        let mut site = Self {
            api,
            port,
            group,
            server,
            agent,
            directory,
            instance,
            lab,
        };
        let (commit, _) = site.change(0);
        wait_until("the host enforces", || site.applied(commit).is_some());
        site
    }

    /// Joins or leaves; the commit, and when it was asked for.
    fn change(&mut self, number: usize) -> (u64, f64) {
        let groups = match number % 2 {
            0 => vec![&self.group],
            _ => vec![],
        };
        let asked_s = second_of_day();
        let body = json!({ "port": { "security_groups": groups } });
        let path = format!("/v2.0/ports/{}", self.port);
        let changed = self.api.ask("PUT", &path, &body);
        let commit = changed["port"]["revision_number"].as_u64();
        (commit.expect("a port has one"), asked_s)
    }

    /// From the request until the host enforces it, in milliseconds.
    fn waits(&mut self) -> Vec<f64> {
        let asked = (1..=CHANGES).map(|number| {
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

    /// When the agent's log says that it applied the commit.
    fn applied(&self, commit: u64) -> Option<f64> {
        let log = File::open(self.directory.path().join("agent.log")).expect("a log");
        let ends = format!(".{commit} ");
        let mut lines = BufReader::new(log).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("policy applied") && line.contains(&ends))?;
        let (_, time) = line.split_once('T')?;
        let mut parts = time.split('Z').next()?.split(':');
        let mut part = || parts.next()?.parse::<f64>().ok();
        Some(part()? * 3600.0 + part()? * 60.0 + part()?)
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
        let _ = self.agent.0.kill();
        let _ = self.agent.0.wait();
        let mut detach = command(self.directory.path(), "detach");
        detach.args(["--instance", &self.instance]);
        let detached = self.lab.host().run(move || detach.output());
        assert!(detached.expect("the binary runs").status.success());
    }
}

impl Process {
    fn start(lab: &Lab, mut command: Command, directory: &Path, log: &str) -> Self {
        let log = File::create(directory.join(log)).expect("a file");
        command.stdout(Stdio::null()).stderr(log);
        Self(
            lab.host()
                .run(move || command.spawn())
                .expect("the binary runs"),
        )
    }

    fn cpu_ms(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it runs");
        let (_, fields) = stat.rsplit_once(") ").expect("a name is in brackets");
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks = fields[11..13]
            .iter()
            .map(|ticks| ticks.parse::<f64>().expect("a number"));
        // Hundredths of a second, wherever Linux runs (`getconf CLK_TCK`).
        ticks.sum::<f64>() * 10.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One connection, as a client that goes on asking has it.
struct Api(BufReader<TcpStream>);

impl Api {
    fn connect(host: &Namespace) -> Self {
        let mut connected = None;
        wait_until("the server answers", || {
            connected = host.run(|| TcpStream::connect("127.0.0.1:9696")).ok();
            connected.is_some()
        });
        let stream = connected.expect("it was waited for");
        stream.set_nodelay(true).expect("it is set");
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:9696\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let stream = self.0.get_mut();
        stream.write_all(request.as_bytes()).expect("it is taken");
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("an answer");
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_ascii_lowercase()),
            }
        }
        let mut lengths = head
            .iter()
            .filter_map(|line| line.strip_prefix("content-length: "));
        let length = lengths
            .next()
            .map_or(0, |length| length.parse().expect("a number"));
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).expect("the whole answer");
        let said = String::from_utf8_lossy(&answer).into_owned();
        assert!(head[0].contains(" 20"), "{method} {path}: {said}");
        serde_json::from_str(&said).unwrap_or_default()
    }

    fn make(&mut self, kind: &str, object: Value) -> String {
        let path = format!("/v2.0/{}s", kind.replace('_', "-"));
        let made = self.ask("POST", &path, &json!({ kind: object }));
        let id = made[kind]["id"].as_str();
        id.expect("an object has one").to_owned()
    }
}

/// A port that is in no group, and the group that rules name.
fn make_policy(api: &mut Api, members: usize, rules: usize) -> (String, String) {
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
    let port = |host: &str, groups: &[&String]| json!({ "network_id": network, "binding:host_id": host, "security_groups": groups });
    for number in 0..PORTS {
        let mut local = port("h", &[&local]);
        local["binding:profile"] = json!({ "device": device(number) });
        api.make("port", local);
    }
    for begin in (0..members).step_by(BULK) {
        let bulk = (begin..members).take(BULK);
        let ports: Vec<Value> = bulk.map(|_| port("elsewhere", &[&remote])).collect();
        api.ask("POST", "/v2.0/ports", &json!({ "ports": ports }));
    }
    (api.make("port", port("elsewhere", &[])), remote)
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

/// Of ours, with files and directories of its own.
fn command(directory: &Path, name: &str) -> Command {
    let mut command = Command::new(BIN);
    command
        .arg(name)
        .current_dir(directory)
        .env("PORTCULLIS_RUN_DIR", directory.join("run"))
        .env("PORTCULLIS_STATE_DIR", directory.join("state"));
    command
}

/// As the log has it, in UTC.
fn second_of_day() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("it is after 1970").as_secs_f64() % 86_400.0
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        sleep(Duration::from_millis(5));
    }
}
