//! The agent and the eBPF plane on real packets: VMs are namespaces on a bridge, the agent is the
//! binary itself in the host's namespace.
//!
//! Nothing waits for a time: each step asks until it is as it must be, or a packet is answered.

use conformance::lab::{Attach, EchoServer, Lab, Vm};
use model::MacAddr;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const BIN: &str = env!("CARGO_BIN_EXE_portcullis");
/// For what must come; a test that passes hardly waits.
const PATIENCE: Duration = Duration::from_secs(60);
/// For what must not come: a SYN that is answered is answered at once.
const SHORT: Duration = Duration::from_millis(300);

struct Bed {
    lab: Lab,
    root: tempfile::TempDir,
    instance: String,
    web: Vm,
    client: Vm,
    _servers: [EchoServer; 2],
}

struct Running(Option<Child>);

impl Bed {
    /// A web server with something on 80 and on 81, and a client that is no port.
    fn new() -> Self {
        static BEDS: AtomicU32 = AtomicU32::new(0);
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        let mut lab = Lab::new("live").expect("a lab; it needs root");
        lab.add_bridge("pc-br").expect("a bridge");
        let web = add(&mut lab, "w", 1);
        let client = add(&mut lab, "c", 2);
        let servers = [80, 81].map(|port| web.serve_tcp(port).expect("a server"));
        Self {
            lab,
            root: tempfile::tempdir().expect("a directory"),
            instance: format!("pc-live-{}-{number}", std::process::id()),
            web,
            client,
            _servers: servers,
        }
    }

    fn policy(&self) -> PathBuf {
        self.root.path().join("policy.yaml")
    }

    fn write(&self, text: &str) {
        fs::write(self.policy(), text).expect("it can be written");
    }

    /// `web` on `device`, with one TCP port open to everybody.
    fn allow_on(&self, device: &str, l4_port: u16) {
        self.write(&format!(
            "version: 1\nnetworks: {{ lan: {{ subnets: [10.9.0.0/24] }} }}\n\
             groups:\n  g: {{ rules: [{{ name: open, from: any, protocol: tcp, ports: {l4_port} }}] }}\n\
             ports:\n  web: {{ device: {device}, mac: {}, addresses: [10.9.0.1], groups: [g] }}\n",
            self.web.mac()
        ));
    }

    fn allow(&self, l4_port: u16) {
        self.allow_on(self.web.device(), l4_port);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BIN);
        command
            .args(arguments)
            .env("PORTCULLIS_RUN_DIR", self.root.path().join("run"))
            .env("PORTCULLIS_STATE_DIR", self.root.path().join("state"))
            .env("PORTCULLIS_INSTANCE", &self.instance);
        command
    }

    fn portcullis(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        self.lab
            .host()
            .run(move || command.output().expect("the binary runs"))
    }

    fn spawn(&self, more: &[&str]) -> Running {
        let policy = self.policy();
        let mut arguments = vec!["run", "--max-ports", "16", "--policy"];
        arguments.push(policy.to_str().expect("it is text"));
        arguments.extend(more);
        let mut command = self.command(&arguments);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = self
            .lab
            .host()
            .run(move || command.spawn().expect("the binary runs"));
        Running(Some(child))
    }

    /// Runs the agent and waits until it has applied a policy.
    fn start(&self) -> Running {
        self.start_with(&[])
    }

    fn start_with(&self, more: &[&str]) -> Running {
        let running = self.spawn(more);
        self.status_until(|s| !s["agent"]["policy"]["applied"].is_null());
        running
    }

    fn status(&self) -> Option<Value> {
        let output = self.portcullis(&["status", "-o", "json"]);
        output
            .status
            .success()
            .then(|| serde_json::from_slice(&output.stdout).expect("it is JSON"))
    }

    fn status_until(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        let mut last = None;
        while began.elapsed() < PATIENCE {
            last = self.status();
            if let Some(status) = last.as_ref().filter(|s| wanted(s)) {
                return status.clone();
            }
        }
        panic!("the agent never came to be as wanted: {last:#?}");
    }

    /// Until the file's last edit is in force.
    fn edited(&self, edit: impl FnOnce()) {
        let before = self.status().expect("an agent runs")["agent"]["policy"]["applied"].clone();
        edit();
        self.status_until(|s| s["agent"]["policy"]["applied"] != before);
    }

    fn connect(&self, l4_port: u16, timeout: Duration) -> Option<TcpStream> {
        let to = SocketAddr::new(self.web.addresses()[0], l4_port);
        self.client.tcp_connect(to, timeout).ok()
    }

    /// Whether the client reaches 80, and 81.
    fn check(&self, expected: [bool; 2]) {
        for (l4_port, expected) in [80, 81].into_iter().zip(expected) {
            let timeout = if expected { PATIENCE } else { SHORT };
            let reached = self.connect(l4_port, timeout).is_some();
            assert_eq!(reached, expected, "port {l4_port} is reached");
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // Pins outlive namespaces.
        let output = self.portcullis(&["detach"]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

impl Running {
    fn signal(&self, signal: &str) {
        let child = self.0.as_ref().expect("it runs");
        // The shell's own: the program belongs to procps, which a small Debian lacks.
        let kill = format!("kill {signal} {}", child.id());
        let status = Command::new("sh").args(["-c", &kill]).status();
        assert!(status.expect("sh is there").success());
    }

    /// Exit code and log.
    fn end(mut self) -> (Option<i32>, String) {
        let child = self.0.take().expect("it runs");
        let output = child.wait_with_output().expect("it ends");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn add(lab: &mut Lab, name: &str, last: u8) -> Vm {
    let mac = MacAddr([0x52, 0x54, 0, 0, 9, last]);
    let address = [(IpAddr::from([10, 9, 0, last]), 24)];
    lab.add_vm(name, mac, &address, Attach::Bridge("pc-br"))
        .expect("a VM")
}

fn says(output: &Output, code: i32, text: &str) {
    let all = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{all}");
    assert!(all.contains(text), "{text:?} is not in:\n{all}");
}

fn echoes(stream: &mut TcpStream) -> bool {
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a time-out can be set");
    let mut answer = [0; 4];
    stream.write_all(b"ping").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && &answer == b"ping"
}

#[test]
fn edits_are_enforced_live_and_an_invalid_one_changes_nothing() {
    let bed = Bed::new();
    bed.check([true, true]); // Nothing is enforced yet.
    bed.allow(80);
    let agent = bed.start();
    bed.check([true, false]);
    bed.edited(|| bed.allow(81));
    bed.check([false, true]);

    bed.write("version: 1\nports: [\n");
    let status = bed.status_until(|s| s["agent"]["policy"]["errors"][0].is_string());
    assert_eq!(
        status["agent"]["policy"]["read"],
        status["agent"]["policy"]["applied"]
    );
    bed.check([false, true]);
    agent.signal("-TERM");
    let (code, log) = agent.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("enforcement stays"), "{log}");
    assert!(log.contains("policy file rejected"), "{log}");
    bed.check([false, true]); // And it does.
}

#[test]
fn a_killed_agent_leaves_enforcement_and_its_successor_cuts_nothing() {
    let bed = Bed::new();
    bed.allow(80);
    let agent = bed.start();
    let mut open = bed.connect(80, PATIENCE).expect("80 is open");
    assert!(echoes(&mut open));
    agent.signal("-KILL");
    agent.end();
    assert!(echoes(&mut open), "the connection goes on");
    bed.check([true, false]);
    let status = bed.status().expect("the kernel can be asked");
    assert_eq!(status["agent"], Value::Null);
    assert_eq!(status["ports"][0]["port"], "web");
    assert_eq!(status["ports"][0]["device"], bed.web.device());
    assert_eq!(status["drift"], serde_json::json!([]));

    let agent = bed.start();
    assert!(echoes(&mut open), "and goes on");
    bed.check([true, false]);
    // The last cut: its rule is gone.
    bed.edited(|| bed.allow(81));
    open.write_all(b"ping").expect("it goes out");
    open.set_read_timeout(Some(SHORT)).expect("it can be set");
    assert!(open.read(&mut [0; 4]).is_err(), "its rule is gone");
    drop(agent);
}

#[test]
fn which_way_packets_go_is_the_last_agents_choice() {
    let bed = Bed::new();
    bed.allow(80);
    let agent = bed.start_with(&["--direct"]);
    bed.check([true, false]);
    says(
        &bed.portcullis(&["status"]),
        0,
        "straight from port to port",
    );
    agent.signal("-KILL");
    agent.end();
    let direct = || bed.status().expect("the kernel can be asked")["plane"]["direct"].clone();
    assert_eq!(direct(), true);
    let agent = bed.start();
    assert_eq!(direct(), false);
    agent.signal("-KILL");
    agent.end();
    assert_eq!(direct(), false);
}

#[test]
fn a_broken_file_after_a_restart_leaves_the_cached_policy_in_force() {
    let bed = Bed::new();
    bed.allow(80);
    drop(bed.start());
    says(&bed.portcullis(&["detach"]), 0, "enforcement removed");
    bed.check([true, true]); // As after a reboot.
    bed.write("not a policy");
    let agent = bed.start();
    bed.check([true, false]);
    let status = bed.status().expect("an agent runs");
    assert_eq!(status["agent"]["policy"]["source"], "cache");
    says(&bed.portcullis(&["status"]), 0, "CACHED");
    drop(agent);
}

#[test]
fn devices_are_armed_as_they_come() {
    let mut bed = Bed::new();
    let late = format!(
        "{}late",
        bed.web.device().strip_suffix('w').expect("its name")
    );
    let late: String = late.chars().take(15).collect();
    bed.allow_on(&late, 80);
    let agent = bed.start();
    bed.check([true, true]); // No device of this name yet.
    let status = bed.status().expect("an agent runs");
    assert_eq!(status["ports"][0]["state"], "no-device");
    // The same VM under the name that the policy knows.
    let rename = |from: &str, to: &str| {
        let lines = format!("link set {from} down\nlink set {from} name {to}\nlink set {to} up");
        bed.lab.host().ip(&lines).expect("ip does it");
    };
    rename(bed.web.device(), &late);
    bed.status_until(|s| s["ports"][0]["device"] == late.as_str());
    assert!(bed.connect(80, PATIENCE).is_some());
    assert!(bed.connect(81, SHORT).is_none());
    // Ours, and under no port's name any more.
    rename(&late, "pc-other");
    bed.status_until(|s| s["closed"][0]["device"] == "pc-other");
    assert!(bed.connect(80, SHORT).is_none(), "it is closed");
    rename("pc-other", bed.web.device());
    let web = bed.web.clone();
    bed.lab.remove_vm(&web).expect("it is there");
    let status = bed.status_until(|s| s["closed"][0].is_null());
    assert_eq!(status["ports"][0]["state"], "no-device");
    drop(agent);
}

#[test]
fn link_up_to_armed_is_measured() {
    let mut bed = Bed::new();
    let stem = bed
        .web
        .device()
        .strip_suffix('w')
        .expect("its name")
        .to_owned();
    bed.allow_on(&format!("{stem}n"), 80);
    let agent = bed.start();
    for last in 0..20 {
        let vm = add(&mut bed.lab, "n", 100 + last);
        bed.status_until(|s| s["ports"][0]["state"] == "enforced");
        bed.lab.remove_vm(&vm).expect("it is there");
        bed.status_until(|s| s["ports"][0]["state"] == "no-device");
    }
    let status = bed.status().expect("an agent runs");
    let up = &status["agent"]["link_up_to_armed"];
    assert_eq!(up["devices"], 20, "{up}");
    eprintln!("link-up to armed: {up}");
    assert!(up["p99_ms"].is_number(), "{up}");
    drop(agent);
}

#[test]
fn a_first_enforcement_is_rolled_back_unless_confirmed() {
    let bed = Bed::new();
    bed.allow(80);
    let agent = bed.spawn(&["--confirm", "1"]);
    let (code, log) = agent.end();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("policy applied"), "{log}");
    assert!(log.contains("nobody confirmed"), "{log}");
    bed.check([true, true]); // It is open again.
    says(&bed.portcullis(&["status"]), 4, "nothing is enforced here");

    let agent = bed.start_with(&["--confirm", "60"]);
    bed.check([true, false]);
    says(&bed.portcullis(&["status"]), 0, "portcullis confirm");
    says(&bed.portcullis(&["confirm"]), 0, "confirmed");
    says(&bed.portcullis(&["confirm"]), 1, "nothing to confirm");
    drop(agent);
    let agent = bed.start_with(&["--confirm", "60"]);
    let status = bed.status().expect("an agent runs");
    assert_eq!(status["agent"]["confirm_left_s"], Value::Null);
    drop(agent);
}

#[test]
fn one_agent_per_instance_and_detach_ends_it() {
    let bed = Bed::new();
    bed.allow(80);
    let agent = bed.start();
    let (code, log) = bed.spawn(&[]).end();
    assert_eq!(code, Some(4), "{log}");
    assert!(log.contains("runs already"), "{log}");
    bed.check([true, false]);

    says(&bed.portcullis(&["detach"]), 0, "enforcement removed");
    let (code, log) = agent.end();
    assert_eq!(code, Some(0), "{log}");
    bed.check([true, true]);
    says(&bed.portcullis(&["detach"]), 0, "nothing was enforced here");
}

#[test]
fn flows_and_explanations_are_of_what_is_loaded() {
    let bed = Bed::new();
    bed.allow(80);
    let agent = bed.start();
    says(&bed.portcullis(&["flows"]), 0, "no tracked flows");
    let mut open = bed.connect(80, PATIENCE).expect("80 is open");
    assert!(echoes(&mut open));
    let from = open.local_addr().expect("it has one").port();
    for _agent_is_there in [true, false] {
        let flows = bed.portcullis(&["flows", "web", "-o", "json"]);
        let flows: Value = serde_json::from_slice(&flows.stdout).expect("it is JSON");
        assert_eq!(flows[0]["local"], "10.9.0.1:80", "{flows}");
        assert_eq!(flows[0]["remote"], format!("10.9.0.2:{from}"));
        assert_eq!(flows[0]["started"], "in");
        assert_eq!(flows[0]["state"], "established");
        assert_eq!(flows[0]["rule"], "g/open.v4");
    }
    says(
        &bed.portcullis(&["flows", "db"]),
        4,
        "port db is not enforced on this host",
    );

    let explain = |way: &str, packet: &str, reason: &str| {
        let output = bed.portcullis(&["explain", "--port", "web", way, packet, "-o", "json"]);
        let value: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        assert_eq!(output.status.code(), Some(0), "{value}");
        assert_eq!(value["model"]["reason"], reason, "{value}");
        assert_eq!(value["plane"]["reason"], reason, "{value}");
        assert_eq!(value["model"]["rule"], value["plane"]["rule"], "{value}");
    };
    let reply = format!("tcp 10.9.0.1:80 -> 10.9.0.2:{from} [ack]");
    explain("--egress", &reply, "live");
    explain("--egress", "tcp 10.9.0.1:80 -> 10.9.0.2:1 [ack]", "no-rule");
    explain("--ingress", "tcp 10.9.0.2:9 -> 10.9.0.1:80", "rule");
    explain("--ingress", "tcp 10.9.0.2:9 -> 10.9.0.1:81", "no-rule");
    explain("--egress", "udp 10.9.0.7:1 -> 10.9.0.2:2", "spoofed-ip");
    explain(
        "--egress",
        "arp who-has 10.9.0.2 tell 10.9.0.1",
        "infrastructure",
    );
    // What explain does is not seen in the counters.
    let status = bed.status().expect("an agent runs");
    assert_eq!(status["ports"][0]["drops"]["spoofed-ip"], Value::Null);
    drop(agent);
}

#[test]
fn dropped_packets_are_sampled_into_the_log() {
    let bed = Bed::new();
    bed.allow(80);
    let mut agent = bed.start_with(&["--log-level", "debug"]);
    assert!(bed.connect(81, SHORT).is_none());
    let child = agent.0.as_mut().expect("it runs");
    let log = BufReader::new(child.stderr.take().expect("it is piped"));
    let line = log
        .lines()
        .map_while(Result::ok)
        .find(|line| line.contains("packet dropped") && line.contains("no-rule"))
        .expect("a line about it");
    for part in ["web", "ingress", "-> 10.9.0.1:81"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

#[test]
fn a_guarded_device_is_never_open() {
    let mut bed = Bed::new();
    let stem = bed
        .web
        .device()
        .strip_suffix('w')
        .expect("its name")
        .to_owned();
    bed.allow_on(&format!("{stem}n"), 80);
    let agent = bed.start_with(&["--guard-bridge"]);
    agent.signal("-KILL");
    agent.end();
    // Nobody is there to arm it.
    let vm = add(&mut bed.lab, "n", 50);
    let ping = |timeout| {
        let answered = bed.client.ping(vm.addresses()[0], timeout);
        answered.expect("ping works").is_some()
    };
    assert!(!ping(SHORT));
    says(&bed.portcullis(&["detach"]), 0, "enforcement removed");
    assert!(ping(PATIENCE), "the guard goes with detach");
}

/// Agents are killed at every stage of their work, under open connections: none is cut, and nothing
/// that is closed opens. `make soak` makes it many.
#[test]
fn killed_agents_cut_no_connection_and_open_nothing() {
    let number = |name: &str, otherwise: usize| {
        let value = std::env::var(name).ok();
        value.map_or(otherwise, |v| v.parse().expect("a number"))
    };
    let kills = number("PORTCULLIS_TEST_KILLS", 8);
    let connections = number("PORTCULLIS_TEST_CONNECTIONS", 100);
    let stages = ["policy read", "policy compiled", "policy applied"];

    let bed = Bed::new();
    bed.allow(80);
    drop(bed.start());
    let mut open: Vec<TcpStream> = (0..connections)
        .map(|_| bed.connect(80, PATIENCE).expect("80 is open"))
        .collect();
    for kill in 0..kills {
        // Something to do for each agent: the same policy in other words, then a rule more or less.
        bed.allow(80);
        let mut text = fs::read_to_string(bed.policy()).expect("it is there");
        if kill % 2 == 0 {
            text = text.replace(
                "rules: [",
                "rules: [{ name: more, from: any, protocol: tcp, ports: 82 }, ",
            );
        }
        bed.write(&format!("{text}# {kill}\n"));
        let mut agent = bed.spawn(&[]);
        let child = agent.0.as_mut().expect("it runs");
        let log = BufReader::new(child.stderr.take().expect("it is piped"));
        let stage = stages[kill % stages.len()];
        let reached = log
            .lines()
            .any(|line| line.is_ok_and(|line| line.contains(stage)));
        assert!(reached, "the agent ended before {stage:?}");
        drop(agent);
        for stream in &mut open {
            assert!(echoes(stream), "kill {kill} cut a connection");
        }
        bed.check([true, false]);
    }
}
