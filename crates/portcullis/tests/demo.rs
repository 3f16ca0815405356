//! `portcullis demo` as a newcomer runs it. Needs root.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

struct Demo {
    child: Child,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    fn start_with(arguments: &[&str], environment: &[(&str, &Path)]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .arg("demo")
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn();
        Self {
            child: child.expect("the binary is there"),
        }
    }

    /// Reads until a line begins so; ends with what it printed otherwise.
    fn read_until(&mut self, beginning: &str) {
        let mut reader = BufReader::new(self.child.stdout.as_mut().expect("it is piped"));
        let mut all = String::new();
        while reader.read_line(&mut all).expect("it prints text") > 0 {
            if all.lines().last().is_some_and(|l| l.starts_with(beginning)) {
                return;
            }
        }
        panic!("no line begins with {beginning:?}:\n{all}");
    }

    /// Its instance, how it ended, and everything that it printed since.
    fn end(mut self) -> (String, ExitStatus, String) {
        let mut text = String::new();
        let stdout = self.child.stdout.as_mut().expect("it is piped");
        stdout.read_to_string(&mut text).expect("it prints text");
        let instance = format!("demo-{}", self.child.id());
        (instance, self.child.wait().expect("it ends"), text)
    }
}

/// The last line says of one number twice that all was as expected, and no escapes are in a pipe.
fn check_all_as_expected(status: ExitStatus, text: &str) {
    assert_eq!(status.code(), Some(0), "{text}");
    let last = text.lines().last().expect("it prints something");
    let count = last.strip_suffix(" verdicts as expected");
    let (good, all) = count
        .and_then(|count| count.split_once(" of "))
        .unwrap_or_else(|| panic!("the last line is {last:?}"));
    let all: u32 = all.parse().expect("a number");
    assert_eq!(good.parse(), Ok(all));
    assert!(all > 300, "{all}");
    assert!(!text.contains('\x1b'), "{text}");
}

/// What there still is of an instance, or of one whose name goes on from it: files, enforcement, processes.
fn left_of(instance: &str) -> Vec<String> {
    let is_of_it = |name: &str| {
        let rest = name.strip_prefix(instance);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let mut left = Vec::new();
    for (directory, prefix) in [("/run", "portcullis-"), ("/sys/fs/bpf/portcullis", "")] {
        // Without enforcement there is no second one.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.strip_prefix(prefix).is_some_and(is_of_it) {
                left.push(entry.path().display().to_string());
            }
        }
    }
    for entry in fs::read_dir("/proc").expect("it is mounted").flatten() {
        // Most are none of a process, or of one that ends just now.
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let mut variables = environment.split('\0');
        let instance = variables.find_map(|it| it.strip_prefix("PORTCULLIS_INSTANCE="));
        if instance.is_some_and(is_of_it) {
            left.push(entry.path().display().to_string());
        }
    }
    left
}

const NOTHING: [String; 0] = [];

const IPTABLES_NFT: [&str; 4] = ["--plane", "iptables", "--iptables", "nft"];
const IPTABLES_LEGACY: [&str; 4] = ["--plane", "iptables", "--iptables", "legacy"];

const OVS: [&str; 2] = ["--plane", "ovs"];

const CLUSTER: [&str; 1] = ["--cluster"];

fn check_nothing_is_left(arguments: &[&str]) {
    let (instance, status, text) = Demo::start(arguments).end();
    check_all_as_expected(status, &text);
    assert_eq!(left_of(&instance), NOTHING);
}

fn check_interrupted(arguments: &[&str]) {
    let mut demo = Demo::start(arguments);
    demo.read_until("3 ");
    support::interrupt(&demo.child);
    let (instance, status, _) = demo.end();
    assert_eq!(status.code(), Some(130));
    assert_eq!(left_of(&instance), NOTHING);
}

/// `lasting`: what there is of it on the machine outside of namespaces.
fn check_kept(arguments: &[&str], lasting: usize) {
    let (instance, status, text) = Demo::start(&[arguments, &["--keep"]].concat()).end();
    check_all_as_expected(status, &text);
    let namespaces: BTreeSet<&str> = text
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("--net="))
        .collect();
    let left = left_of(&instance);
    assert_eq!(left.len(), lasting, "{left:?}");
    assert!(namespaces.iter().all(|path| Path::new(path).exists()));

    // Whichever plane it was.
    check_taken_down(&instance);
    assert!(namespaces.len() > 6, "{namespaces:?}");
    assert!(!namespaces.iter().any(|path| Path::new(path).exists()));
}

/// As `kill -9` does: its processes end with it.
fn check_killed(arguments: &[&str]) {
    let mut demo = Demo::start(arguments);
    demo.read_until("3 ");
    demo.child.kill().expect("it runs");
    let (instance, ..) = demo.end();
    assert_ne!(left_of(&instance), NOTHING);
    check_taken_down(&instance);
}

fn check_taken_down(instance: &str) {
    let (_, status, text) = Demo::start(&["--down"]).end();
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(text.contains(&format!("{instance} is removed")), "{text}");
    assert_eq!(left_of(instance), NOTHING);
}

#[test]
fn all_verdicts_are_as_expected_and_nothing_is_left() {
    check_nothing_is_left(&[]);
}

#[test]
fn so_it_is_by_iptables() {
    check_nothing_is_left(&IPTABLES_NFT);
}

#[test]
fn so_it_is_between_two_hosts_with_open_vswitch() {
    check_nothing_is_left(&OVS);
}

#[test]
fn so_it_is_in_a_cluster() {
    check_nothing_is_left(&CLUSTER);
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    check_interrupted(&[]);
    check_interrupted(&OVS);
    check_interrupted(&CLUSTER);
    check_interrupted(&IPTABLES_LEGACY);
}

#[test]
fn a_demo_that_fails_leaves_nothing() {
    // As a client it says its version, and fails at whatever else it is asked.
    let client = [("PORTCULLIS_OPENSTACK", Path::new("/bin/ls"))];
    let demo = Demo::start_with(&CLUSTER, &client);
    let (instance, status, text) = demo.end();
    assert_eq!(status.code(), Some(4), "{text}");
    assert_eq!(left_of(&instance), NOTHING);
}

/// One after the other: either would take down the other's.
#[test]
fn what_a_demo_leaves_stays_until_it_is_taken_down() {
    check_killed(&CLUSTER);
    // Files, enforcement, the agent.
    check_kept(&[], 3);
    // Enforcement is in the host's namespace.
    check_kept(&IPTABLES_LEGACY, 2);
}
