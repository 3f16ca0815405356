//! What goes wrong between calls, and in the middle of them.

use crate::bed::{Bed, On};
use crate::calls::with_vm;
use crate::on_each_plane;
use conformance::lab::Asked;
use model::Family;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

on_each_plane!(
    a_call_that_is_killed_leaves_the_old_rules_or_the_new_ones,
    a_watch_puts_right_what_others_break,
    a_failing_tool_fails_the_call_and_nothing_else,
);

const VM: &str = "i-2-10-VM";
const SSH: &str = "I:tcp;22;22;0.0.0.0/0,::/0,NEXT;";
const WEB: &str = "I:tcp;22;22;0.0.0.0/0,::/0,NEXT;I:tcp;80;81;10.1.0.0/16,fd00:1::/64,NEXT;\
                   E:udp;53;53;0.0.0.0/0,::/0,NEXT;";

/// O1: the process dies at any moment.
fn a_call_that_is_killed_leaves_the_old_rules_or_the_new_ones(on: On) {
    let bed = with_vm(on);
    bed.start(VM, "v1", SSH);
    for number in 0..24u64 {
        let rules = [WEB, SSH][(number % 2) as usize];
        let mut command = bed.push_command(VM, "v1", 10 + number, rules);
        command.stderr(Stdio::null());
        let child = bed.lab.host().run(move || command.spawn());
        let mut child = child.expect("the program starts");
        thread::sleep(Duration::from_millis(number * 2));
        // Its programs finish what they were given, or do nothing of it.
        child.kill().expect("it was started");
        child.wait().expect("it was started");
        assert!(
            bed.answers("out", "v1", Family::V4, Asked::Tcp(22)),
            "{number}"
        );
        assert!(
            !bed.answers("out", "v1", Family::V6, Asked::Tcp(23)),
            "{number}"
        );
    }
    bed.pushed(VM, "v1", 100, WEB);
    bed.check(&[
        ("out", "v1", Asked::Tcp(22), true),
        ("out", "v1", Asked::Tcp(80), true),
        ("out", "v1", Asked::Tcp(82), false),
        ("v1", "out", Asked::Udp(53), true),
        ("v1", "out", Asked::Tcp(80), false),
    ]);
    let line = format!("{VM},10,10.1.0.10,7,9a03,100\n");
    assert_eq!(bed.done(&["get_rule_logs_for_vms"]), line);
}

/// O8: somebody else's hand in our rules.
fn a_watch_puts_right_what_others_break(on: On) {
    let mut bed = with_vm(on);
    bed.start(VM, "v1", SSH);
    let watch = Watch::start(&bed);
    let breaks: &[&str] = match on {
        On::Nft => &[
            "iptables-nft -t mangle -F",
            "ipset flush",
            "nft flush ruleset",
            "sysctl -qw net.bridge.bridge-nf-call-ip6tables=0",
        ],
        On::Legacy => &["ip6tables-legacy -t mangle -F", "nft flush ruleset"],
        On::Ebpf => &["nft flush ruleset"],
    };
    for command in breaks {
        bed.run(command);
        let what = format!("{command} is put right");
        until(&what, || {
            Family::BOTH.iter().all(|family| {
                bed.answers("out", "v1", *family, Asked::Tcp(22))
                    && !bed.answers("out", "v1", *family, Asked::Tcp(23))
            })
        });
        until(&what, || {
            bed.done(&["get_rule_logs_for_vms"]).contains("9a03,1")
        });
    }
    // A call in between, and the device made anew under the same name: the VM was started again.
    bed.pushed(VM, "v1", 2, WEB);
    bed.unplug("v1");
    bed.plug("v1", "cloudbr0", 10, &["10.1.0.10", "fd00:1::10"]);
    until("the new device is armed", || {
        bed.answers("out", "v1", Family::V4, Asked::Tcp(80))
    });
    bed.check(&[
        ("out", "v1", Asked::Tcp(82), false),
        ("v1", "out", Asked::Tcp(80), false),
    ]);
    // Ending it changes no verdict.
    drop(watch);
    bed.check(&[
        ("out", "v1", Asked::Tcp(80), true),
        ("out", "v1", Asked::Tcp(82), false),
    ]);
}

struct Watch(Child);

impl Watch {
    fn start(bed: &Bed) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command
            .args(["cloudstack", "watch"])
            .env("PORTCULLIS_CLOUDSTACK_CONF", bed.config())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = bed.lab.host().run(move || command.spawn());
        Self(child.expect("the program starts"))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let pid = self.0.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(thread::panicking() || told.expect("a program").success());
        let ended = self.0.wait().expect("it was started");
        assert!(thread::panicking() || ended.success(), "{ended}");
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "never: {what}");
    }
}

/// O2: a tool fails half-way.
fn a_failing_tool_fails_the_call_and_nothing_else(on: On) {
    if on == On::Ebpf {
        // It has no tools.
        return;
    }
    let bed = with_vm(on);
    bed.start(VM, "v1", SSH);
    let tools = bed.root.path().join("tools");
    fs::create_dir(&tools).expect("there is room");
    // The plain names stand for the back end that they lead to, by its name.
    let broken = tools.join("broken-nft");
    fs::write(&broken, "#!/bin/sh\necho no >&2\nexit 1\n").expect("there is room");
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let [four, six] = match on {
        On::Nft | On::Ebpf => ["iptables-restore", "ip6tables-restore"],
        On::Legacy => ["iptables-legacy-restore", "ip6tables-legacy-restore"],
    };
    for tool in [four, six] {
        let path = tools.join(tool);
        symlink(&broken, &path).expect("there is room");
        let mut command = bed.push_command(VM, "v1", 5, WEB);
        let usual = std::env::var("PATH").expect("there is one");
        command.env("PATH", format!("{}:{usual}", tools.display()));
        let output = bed.run_call(command);
        fs::remove_file(&path).expect("it is there");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{tool}: {said}");
        assert_eq!(said.lines().count(), 1, "{tool}: {said}");
        bed.check(&[
            ("out", "v1", Asked::Tcp(22), true),
            ("out", "v1", Asked::Tcp(80), false),
            ("v1", "out", Asked::Tcp(80), true),
        ]);
        let line = format!("{VM},10,10.1.0.10,7,9a03,1\n");
        assert_eq!(bed.log_of(VM), Some(line), "{tool}");
    }
}
