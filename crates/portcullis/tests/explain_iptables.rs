//! `explain --plane iptables`: what it says of the kernel is so, and asking leaves no trace. By both back ends,
//! with the agent as the binary itself in the host's namespace of a lab. Needs root.

use conformance::lab::{Attach, BRIDGE_MAC, EchoServer, Lab, Vm};
use model::MacAddr;
use netfilter::conntrack::{self, Filter};
use serde_json::{Value, json};
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const BIN: &str = env!("CARGO_BIN_EXE_portcullis");
/// For what must come; a test that passes hardly waits.
const PATIENCE: Duration = Duration::from_secs(60);

/// Port, direction, packet; reason, rule.
type Expected<'a> = (&'a str, &'a str, &'a str, &'a str, Option<&'a str>);

struct Bed {
    lab: Lab,
    root: tempfile::TempDir,
    instance: String,
    backend: &'static str,
    web: Vm,
    open: Vm,
    free: Vm,
    client: Vm,
    _server: EchoServer,
    agent: Option<Child>,
}

impl Bed {
    /// A web server that may just answer, a port whose rules permit everything, one without port security,
    /// and a client that is no port.
    fn new(backend: &'static str) -> Self {
        static BEDS: AtomicU32 = AtomicU32::new(0);
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        let mut lab = Lab::new("explain").expect("a lab; it needs root");
        lab.add_bridge("pc-br").expect("a bridge");
        let [web, open, free, client] =
            [("w", 1), ("o", 3), ("f", 4), ("c", 2)].map(|(name, last)| {
                let mac = MacAddr([0x52, 0x54, 0, 0, 9, last]);
                let v4 = IpAddr::from([10, 9, 0, last]);
                let v6 = IpAddr::from([0xfd00, 9, 0, 0, 0, 0, 0, last.into()]);
                let attach = Attach::Bridge("pc-br");
                lab.add_vm(name, mac, &[(v4, 24), (v6, 64)], attach)
                    .expect("a VM")
            });
        let mut bed = Self {
            _server: web.serve_tcp(80).expect("a server"),
            lab,
            root: tempfile::tempdir().expect("a directory"),
            instance: format!("pc-explain-{}-{number}", std::process::id()),
            backend,
            web,
            open,
            free,
            client,
            agent: None,
        };
        bed.allow(80);
        let policy = bed.root.path().join("policy.yaml");
        let mut run = bed.command(&["run", "--policy", policy.to_str().expect("it is text")]);
        run.stdout(Stdio::null()).stderr(Stdio::null());
        let run = bed.lab.host().run(move || run.spawn());
        bed.agent = Some(run.expect("the binary runs"));
        bed.wait_for_another(&Value::Null);
        bed
    }

    /// What `web` may be asked for.
    fn allow(&self, l4_port: u16) {
        let port = |name: &str, vm: &Vm, more: &str| {
            let (device, mac, addresses) = (vm.device(), vm.mac(), vm.addresses());
            let [v4, v6] = [addresses[0], addresses[1]];
            format!(
                "  {name}: {{ device: {device}, mac: '{mac}', addresses: [{v4}, '{v6}'], {more} }}\n"
            )
        };
        let text = format!(
            "version: 1\nnetworks: {{ lan: {{ subnets: [10.9.0.0/24, 'fd00:9::/64'] }} }}\n\
             groups:\n  g: {{ rules: [{{ name: open, from: any, protocol: tcp, ports: {l4_port} }}] }}\n  \
             all: {{ rules: [{{ name: in, from: any }}, {{ name: out, to: any }}] }}\n\
             ports:\n{}{}{}",
            port("web", &self.web, "groups: [g]"),
            port("open", &self.open, "groups: [all]"),
            port("free", &self.free, "port-security: off"),
        );
        fs::write(self.root.path().join("policy.yaml"), text).expect("it can be written");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BIN);
        command
            .args(arguments)
            .env("PORTCULLIS_RUN_DIR", self.root.path().join("run"))
            .env("PORTCULLIS_STATE_DIR", self.root.path().join("state"))
            .env("PORTCULLIS_INSTANCE", &self.instance)
            .env("PORTCULLIS_PLANE", "iptables")
            .env("PORTCULLIS_IPTABLES", self.backend);
        command
    }

    fn portcullis(&self, arguments: &[&str]) -> Output {
        output(&self.lab, self.command(arguments))
    }

    fn applied(&self) -> Value {
        let status = self.portcullis(&["status", "-o", "json"]);
        let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        status["agent"]["policy"]["applied"].clone()
    }

    fn wait_for_another(&self, before: &Value) {
        wait_until("a policy is applied", || self.applied() != *before);
    }

    fn explain(&self, port: &str, way: &str, packet: &str) -> (Option<i32>, Value) {
        let arguments = ["explain", "--port", port, way, packet, "-o", "json"];
        let output = self.portcullis(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
        (output.status.code(), value)
    }

    /// Model and data plane say so; `rule`: and both name it. What the data plane says.
    fn check(&self, (port, way, packet, reason, rule): Expected<'_>) -> Value {
        let (code, value) = self.explain(port, way, packet);
        assert_eq!(code, Some(0), "{value:#}");
        for who in ["model", "plane"] {
            assert_eq!(value[who]["reason"], reason, "{value:#}");
            assert_eq!(value[who]["rule"], json!(rule), "{value:#}");
        }
        assert_eq!(value["differ"], false, "{value:#}");
        value["plane"].clone()
    }

    /// The two say otherwise, and each what.
    fn check_differ(&self, packet: &str, model: &str, plane: &str) {
        let (code, value) = self.explain("web", "--ingress", packet);
        assert_eq!(code, Some(1), "{value:#}");
        assert_eq!(value["model"]["reason"], model, "{value:#}");
        assert_eq!(value["plane"]["reason"], plane, "{value:#}");
        assert_eq!(value["differ"], true, "{value:#}");
    }

    /// The host's own iptables, as somebody who changes what is ours.
    fn iptables(&self, arguments: &str) {
        let mut command = Command::new(format!("iptables-{}", self.backend));
        command.args(["-t", "mangle"]).args(arguments.split(' '));
        assert!(output(&self.lab, command).status.success(), "{arguments}");
    }

    fn end_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().expect("it runs");
            agent.wait().expect("it ends");
        }
    }

    /// All that is loaded, counted and remembered on the host.
    fn traces(&self) -> Vec<String> {
        let table = format!("portcullis.plane.{}", self.instance);
        let [v4, v6] =
            ["iptables", "ip6tables"].map(|name| format!("{name}-{}-save", self.backend));
        let programs: [&[&str]; 5] = [
            &["nft", "list", "table", "bridge", &table],
            &["ipset", "save"],
            &[&v4, "-c"],
            &[&v6, "-c"],
            &["ip", "-o", "link"],
        ];
        let mut traces = Vec::new();
        for words in programs {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]);
            let output = output(&self.lab, command);
            assert!(output.status.success(), "{words:?}");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            // Comments tell the time of day.
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            traces.extend(lines.map(str::to_owned));
        }
        traces.extend(self.lab.host().run(tracked));
        traces
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.end_agent();
    }
}

fn output(lab: &Lab, mut command: Command) -> Output {
    lab.host().run(move || command.output().expect("it runs"))
}

/// What the tracker knows in the namespace of the calling thread.
fn tracked() -> Vec<String> {
    let mut entries = Vec::new();
    let dumped = conntrack::dump(&Filter::default(), |mut entry| {
        entry.timeout_s = 0;
        entries.push(format!("{entry:?}"));
    });
    dumped.expect("the tracker can be asked");
    entries.sort();
    entries
}

const IN: &str = "--ingress";
const OUT: &str = "--egress";

fn by_rules_and_guard(bed: &Bed) {
    let spoofed = "udp 10.9.0.1:1 -> 10.9.0.2:2 src-mac 52:54:00:00:09:77";
    let open = [
        (
            "web",
            IN,
            "tcp 10.9.0.2:9 -> 10.9.0.1:80",
            "rule",
            Some("g/open.v4"),
        ),
        (
            "web",
            IN,
            "tcp [fd00:9::2]:9 -> [fd00:9::1]:80",
            "rule",
            Some("g/open.v6"),
        ),
    ];
    for expected in open {
        let plane = bed.check(expected);
        assert_eq!(plane["elidable"], false);
        assert_eq!(plane["flow_found"], false);
    }
    for (way, packet, reason) in [
        (IN, "tcp 10.9.0.2:9 -> 10.9.0.1:81", "no-rule"),
        (IN, "tcp [fd00:9::2]:9 -> [fd00:9::1]:81", "no-rule"),
        (OUT, "udp 10.9.0.1:1 -> 10.9.0.2:2", "no-rule"),
        (OUT, "udp [fd00:9::1]:1 -> [fd00:9::2]:2", "no-rule"),
        (OUT, spoofed, "spoofed-mac"),
        (OUT, "udp 10.9.0.7:1 -> 10.9.0.2:2", "spoofed-ip"),
        (OUT, "udp [fd00:9::7]:1 -> [fd00:9::2]:2", "spoofed-ip"),
        (OUT, "udp 10.9.0.1:1 -> 10.9.0.2:2 vlan 7", "vlan-tag"),
        (OUT, "dhcp server 10.9.0.1 -> 255.255.255.255", "rogue-dhcp"),
        (OUT, "ra fe80::5054:ff:fe00:901 -> ff02::1", "rogue-ra"),
        (OUT, "arp who-has 10.9.0.2 tell 10.9.0.1", "infrastructure"),
        (
            OUT,
            "ns fd00:9::1 -> ff02::1:ff00:2 target fd00:9::2",
            "infrastructure",
        ),
        (
            OUT,
            "dhcp client 0.0.0.0 -> 255.255.255.255",
            "infrastructure",
        ),
        (IN, "arp reply 10.9.0.2 to 10.9.0.1", "infrastructure"),
        (IN, "dhcp server 10.9.0.2 -> 10.9.0.1", "infrastructure"),
        (IN, "tcp 10.9.0.2:9 -> 10.9.0.9:80", "foreign-destination"),
        (
            IN,
            "tcp [fd00:9::2]:9 -> [fd00:9::9]:80",
            "foreign-destination",
        ),
        (IN, "udp 127.0.0.1:1 -> 10.9.0.1:2", "martian"),
    ] {
        bed.check(("web", way, packet, reason, None));
    }
}

/// A rule that permits everything is in no chain, and what it permits is not tracked.
fn untracked_and_unguarded(bed: &Bed) {
    for (way, packet, rule) in [
        (IN, "udp 10.9.0.2:1 -> 10.9.0.3:2", "all/in.v4"),
        (IN, "udp [fd00:9::2]:1 -> [fd00:9::3]:2", "all/in.v6"),
        (OUT, "udp 10.9.0.3:1 -> 10.9.0.2:2", "all/out.v4"),
        (OUT, "udp [fd00:9::3]:1 -> [fd00:9::2]:2", "all/out.v6"),
    ] {
        let plane = bed.check(("open", way, packet, "rule", Some(rule)));
        assert_eq!(plane["elidable"], true);
    }
    let host = format!("udp 10.9.0.3:1 -> 10.9.0.254:2 dst-mac {BRIDGE_MAC}");
    bed.check(("open", OUT, &host, "rule", Some("all/out.v4")));
    for (way, packet) in [
        (OUT, "udp 10.9.0.77:1 -> 10.9.0.2:2"),
        (OUT, "udp [fd00:9::77]:1 -> [fd00:9::2]:2"),
        (IN, "arp who-has 10.9.0.4 tell 10.9.0.2"),
    ] {
        bed.check(("free", way, packet, "unguarded", None));
    }
}

/// A connection from the client to the web server, and the words for packets of it.
struct Open {
    rule: &'static str,
    reply: String,
    request: String,
    error: String,
    _stream: TcpStream,
}

fn connect(bed: &Bed, rule: &'static str, server: IpAddr) -> Open {
    let stream = bed
        .client
        .tcp_connect(SocketAddr::new(server, 80), PATIENCE);
    let stream = stream.expect("80 is open");
    let client = stream.local_addr().expect("it has one");
    let web = stream.peer_addr().expect("it has one");
    let [from, to] = [web.ip(), client.ip()];
    Open {
        rule,
        reply: format!("tcp {web} -> {client} [ack]"),
        request: format!("tcp {client} -> {web} [ack]"),
        error: format!("icmp {from} -> {to} port-unreachable about (tcp {client} -> {web})"),
        _stream: stream,
    }
}

fn by_flows(bed: &Bed) {
    let addresses = bed.web.addresses();
    let open = [("g/open.v4", addresses[0]), ("g/open.v6", addresses[1])];
    let open = open.map(|(rule, server)| connect(bed, rule, server));
    for Open {
        rule,
        reply,
        request,
        error,
        ..
    } in &open
    {
        let plane = bed.check(("web", OUT, reply, "live", Some(rule)));
        assert_eq!(plane["flow_found"], true);
        assert_eq!(plane["flow_live"], true);
        bed.check(("web", OUT, error, "live", Some(rule)));
        bed.check(("web", IN, request, "rule", Some(rule)));
        let syn = reply.replace("[ack]", "[syn]");
        bed.check(("web", OUT, &syn, "no-rule", None));
    }
    let stray = "tcp 10.9.0.1:80 -> 10.9.0.2:1 [ack]";
    bed.check(("web", OUT, stray, "no-rule", None));
    leaves_no_trace(bed, &open);

    let before = bed.applied();
    bed.allow(81);
    bed.wait_for_another(&before);
    for Open { reply, error, .. } in &open {
        let plane = bed.check(("web", OUT, reply, "no-rule", None));
        assert_eq!(plane["flow_found"], true);
        assert_eq!(plane["flow_live"], false);
        // Whether its flow is live still, netfilter doesn't ask.
        let (_, value) = bed.explain("web", OUT, error);
        assert_eq!(value["plane"]["verdict"], "pass", "{value:#}");
        assert_eq!(value["differ"], false, "{value:#}");
    }
}

/// Verdicts of all kinds, and nothing on the host is otherwise. Machines may say something of their own accord
/// meanwhile, but not each time.
fn leaves_no_trace(bed: &Bed, open: &[Open]) {
    let ask_all = || {
        for Open { reply, rule, .. } in open {
            bed.check(("web", OUT, reply, "live", Some(rule)));
        }
        let asked = "tcp 10.9.0.2:9 -> 10.9.0.1:80";
        bed.check(("web", IN, asked, "rule", Some("g/open.v4")));
        let asked = "udp 10.9.0.2:9 -> 10.9.0.1:80";
        bed.check(("web", IN, asked, "no-rule", None));
        let asked = "udp 10.9.0.7:1 -> 10.9.0.2:2";
        bed.check(("web", OUT, asked, "spoofed-ip", None));
    };
    let untouched = (0..5).any(|_| {
        let before = bed.traces();
        ask_all();
        bed.traces() == before
    });
    assert!(untouched, "to ask changes something on the host");
}

fn what_has_no_answer(bed: &Bed) {
    let fragment = "udp 10.9.0.2:1 -> 10.9.0.1:2 frag 7@0+ len 64";
    let from_group = "udp 10.9.0.2:1 -> 10.9.0.1:2 src-mac 01:00:00:00:00:01";
    for (packet, why) in [
        (fragment, "keeps a fragment"),
        (from_group, "from a group's MAC"),
    ] {
        let (code, value) = bed.explain("web", IN, packet);
        assert_eq!(code, Some(0), "{value:#}");
        let said = value["plane_not_asked"].as_str().unwrap_or_default();
        assert!(said.contains(why), "{value:#}");
    }
}

/// With no agent there to put right what somebody changes.
fn of_the_kernel_itself(bed: &mut Bed) {
    bed.end_agent();
    bed.iptables("-I pc-in -p udp -g pc-pass");
    bed.check_differ("udp 10.9.0.2:9 -> 10.9.0.1:5", "no-rule", "rule");
    bed.iptables("-F");
    bed.check_differ("tcp 10.9.0.2:9 -> 10.9.0.1:81", "rule", "not-ready");
}

/// An `ipset` that notes in which namespace it is to load something, and then does `before` it loads.
struct Stub {
    directory: PathBuf,
}

impl Stub {
    fn new(bed: &Bed, before: &str) -> Self {
        let directory = bed.root.path().join("stub");
        fs::create_dir_all(&directory).expect("there is room");
        let stub = Self { directory };
        let text = format!(
            "#!/bin/sh\nif [ \"$1\" = restore ]; then\n  readlink /proc/self/ns/net > {noted}.new\n  \
             mv {noted}.new {noted}\n  {before}\nfi\nPATH=${{PATH#*:}}\nexec ipset \"$@\"\n",
            noted = stub.noted().display(),
        );
        let file = stub.directory.join("ipset");
        fs::write(&file, text).expect("there is room");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it is ours");
        stub
    }

    fn noted(&self) -> PathBuf {
        self.directory.join("twin")
    }

    /// `explain`, in a process group of its own as from a terminal.
    fn explain(&self, bed: &Bed) -> Child {
        let _ = fs::remove_file(self.noted());
        let packet = "tcp 10.9.0.2:9 -> 10.9.0.1:80";
        let explain = bed.command(&["explain", "--port", "web", IN, packet]);
        let path = std::env::var("PATH").expect("it is text");
        let mut command = Command::new("env");
        // Whoever runs tests in the background has them ignore it.
        command.arg("--default-signal=INT");
        command.arg(explain.get_program()).args(explain.get_args());
        let given = explain.get_envs();
        command.envs(given.filter_map(|(name, value)| Some((name, value?))));
        command
            .env("PATH", format!("{}:{path}", self.directory.display()))
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = bed.lab.host().run(move || command.spawn());
        child.expect("the binary runs")
    }

    /// The namespace, once something is to be loaded there.
    fn twin(&self) -> String {
        let mut noted = String::new();
        wait_until("something is loaded into a twin", || {
            noted = fs::read_to_string(self.noted()).unwrap_or_default();
            !noted.is_empty()
        });
        noted.trim().to_owned()
    }
}

/// However it ends, nobody holds the namespace any more, and so it is gone with all that was in it.
fn leaves_no_namespace(bed: &Bed) {
    for (before, code) in [(":", Some(0)), ("exit 1", Some(4))] {
        let stub = Stub::new(bed, before);
        let output = stub.explain(bed).wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), code, "{before}: {said}");
        let twin = stub.twin();
        wait_until("the twin is gone", || !is_held(&twin));
    }
    let stub = Stub::new(bed, "exec sleep 100");
    let explain = stub.explain(bed);
    let twin = stub.twin();
    assert!(is_held(&twin));
    let interrupt = format!("kill -INT -{}", explain.id());
    let sent = Command::new("sh").args(["-c", &interrupt]).status();
    assert!(sent.expect("sh is there").success());
    let output = explain.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), None, "it is ended by the signal");
    wait_until("the twin is gone", || !is_held(&twin));
}

/// Whether any process is in a namespace or has it open, or it has a name.
fn is_held(namespace: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc is there");
    let leads_there = |link: &Path| fs::read_link(link).is_ok_and(|to| to == Path::new(namespace));
    let processes = fs::read_dir("/proc").expect("proc is there");
    let mut processes = processes.flatten().map(|process| process.path());
    mounts.contains(namespace)
        || processes.any(|process| {
            let open = fs::read_dir(process.join("fd")).into_iter().flatten();
            let mut open = open.flatten().map(|link| link.path());
            leads_there(&process.join("ns/net")) || open.any(|link| leads_there(&link))
        })
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
    }
}

fn check(backend: &'static str) {
    let mut bed = Bed::new(backend);
    by_rules_and_guard(&bed);
    untracked_and_unguarded(&bed);
    leaves_no_namespace(&bed);
    by_flows(&bed);
    what_has_no_answer(&bed);
    of_the_kernel_itself(&mut bed);
}

#[test]
fn by_nft() {
    check("nft");
}

#[test]
fn by_legacy() {
    check("legacy");
}
