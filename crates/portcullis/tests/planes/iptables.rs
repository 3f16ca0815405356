//! `explain --plane iptables`: what it says of the kernel is so, and asking leaves no trace. By both back ends.

use crate::agent::{Agent, wait_until};
use crate::explaining::{
    IN, OUT, Open, by_rules_and_guard, leaves_no_trace, untracked_and_unguarded,
};
use crate::machines::Machines;
use conformance::lab::{Attach, BRIDGE_MAC, Lab};
use netfilter::conntrack::{self, Filter};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

struct Bed {
    machines: Machines,
    agent: Agent,
    instance: String,
    backend: &'static str,
    lab: Lab,
}

impl Bed {
    fn new(backend: &'static str) -> Self {
        static BEDS: AtomicU32 = AtomicU32::new(0);
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        let instance = format!("pc-explain-{}-{number}", std::process::id());
        let mut lab = Lab::new("explain").expect("a lab; it needs root");
        lab.add_bridge("pc-br").expect("a bridge");
        let machines = Machines::new(&mut lab, Attach::Bridge("pc-br"));
        let settings: [(&'static str, &OsStr); 3] = [
            ("PORTCULLIS_INSTANCE", instance.as_ref()),
            ("PORTCULLIS_PLANE", "iptables".as_ref()),
            ("PORTCULLIS_IPTABLES", backend.as_ref()),
        ];
        let mut agent = Agent::new(lab.host(), &settings);
        agent.write(&machines.policy(80));
        agent.start(&[]);
        Self {
            machines,
            agent,
            instance,
            backend,
            lab,
        }
    }

    /// The host's own iptables, as somebody who changes what is ours.
    fn iptables(&self, arguments: &str) {
        let mut command = Command::new(format!("iptables-{}", self.backend));
        command.args(["-t", "mangle"]).args(arguments.split(' '));
        assert!(output(&self.lab, command).status.success(), "{arguments}");
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

fn by_flows(bed: &Bed) {
    let open = Open::both(&bed.machines);
    for open in &open {
        open.check(&bed.agent);
    }
    asking_changes_nothing(bed, &open);
    let before = bed.agent.applied();
    bed.agent.write(&bed.machines.policy(81));
    bed.agent.wait_for_another(&before);
    for open in &open {
        open.check_revoked(&bed.agent);
        // Whether its flow is live still, netfilter doesn't ask.
        let (_, value) = bed.agent.explain("web", OUT, &open.error);
        assert_eq!(value["plane"]["verdict"], "pass", "{value:#}");
        assert_eq!(value["differ"], false, "{value:#}");
    }
}

fn asking_changes_nothing(bed: &Bed, open: &[Open]) {
    let ask = || {
        for Open { reply, rule, .. } in open {
            bed.agent.check(("web", OUT, reply, "live", Some(rule)));
        }
        let rule = Some("g/open.v4");
        let asked = "tcp 10.9.0.2:9 -> 10.9.0.1:80";
        bed.agent.check(("web", IN, asked, "rule", rule));
        let asked = "udp 10.9.0.2:9 -> 10.9.0.1:80";
        bed.agent.check(("web", IN, asked, "no-rule", None));
        let asked = "udp 10.9.0.7:1 -> 10.9.0.2:2";
        bed.agent.check(("web", OUT, asked, "spoofed-ip", None));
    };
    leaves_no_trace(|| bed.traces(), ask);
}

fn what_has_no_answer(bed: &Bed) {
    let fragment = "udp 10.9.0.2:1 -> 10.9.0.1:2 frag 7@0+ len 64";
    let from_group = "udp 10.9.0.2:1 -> 10.9.0.1:2 src-mac 01:00:00:00:00:01";
    for (packet, why) in [
        (fragment, "keeps a fragment"),
        (from_group, "from a group's MAC"),
    ] {
        bed.agent.check_unasked(packet, why);
    }
}

/// With no agent there to put right what somebody changes.
fn of_the_kernel_itself(bed: &mut Bed) {
    bed.agent.kill();
    bed.iptables("-I pc-in -p udp -g pc-pass");
    bed.agent
        .check_differ("udp 10.9.0.2:9 -> 10.9.0.1:5", "no-rule", "rule");
    bed.iptables("-F");
    bed.agent
        .check_differ("tcp 10.9.0.2:9 -> 10.9.0.1:81", "rule", "not-ready");
}

/// An `ipset` that notes in which namespace it is to load something, and then does `before` it loads.
struct Stub {
    directory: PathBuf,
}

impl Stub {
    fn new(bed: &Bed, before: &str) -> Self {
        let directory = bed.agent.directory().join("stub");
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
        let explain = bed.agent.command(&["explain", "--port", "web", IN, packet]);
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

fn check(backend: &'static str) {
    let mut bed = Bed::new(backend);
    by_rules_and_guard(&bed.agent);
    untracked_and_unguarded(&bed.agent);
    // A rule that permits everything is in no chain.
    let host = format!("udp 10.9.0.3:1 -> 10.9.0.254:2 dst-mac {BRIDGE_MAC}");
    let rule = Some("all/out.v4");
    bed.agent.check(("open", OUT, &host, "rule", rule));
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
