//! `portcullis bench`, as small as it gets: what it measures is what it says, and nothing of it is left. What
//! the figures are says nothing here. Needs root.

mod support;

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

/// A bench of so many rounds on hosts of that many VMs, of these experiments alone.
fn start(plane: &[&str], rounds: u32, vms: &str, only: &[&str], json: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command
        .args(["bench", "--plane"])
        .args(plane)
        .args(["--rounds", &rounds.to_string(), "--millis", "20"])
        .args(["--vms", vms, "--json", json])
        .args(only.iter().flat_map(|name| ["--only", name]))
        .stdout(Stdio::piped());
    command.spawn().expect("the binary is there")
}

/// Directories that the process made.
fn left_of(bench: &Child) -> Vec<String> {
    let mark = format!("pc-bench-{}-", bench.id());
    let names = fs::read_dir("/run").expect("it is there").flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&mark)).collect()
}

const NOTHING: [String; 0] = [];

fn lines<'a>(report: &'a Value, experiment: &str) -> &'a [Value] {
    let mut all = report.as_array().into_iter().flatten();
    let found = all.find(|e| e["experiment"] == experiment);
    found
        .and_then(|e| e["lines"].as_array())
        .unwrap_or_else(|| panic!("no {experiment:?} in {report}"))
}

/// One round on hosts of 1 and of 3 VMs, to its end: what it prints, and its figures.
fn report(plane: &[&str], only: &[&str]) -> (String, Value) {
    let directory = tempfile::tempdir().expect("a directory");
    let json = directory.path().join("figures.json");
    let path = json.to_str().expect("it is text");
    let mut bench = start(plane, 1, "1,3", only, path);
    let mut text = String::new();
    let stdout = bench.stdout.as_mut().expect("it is piped");
    stdout.read_to_string(&mut text).expect("it prints text");
    assert!(bench.wait().expect("it ends").success(), "{text}");
    assert_eq!(left_of(&bench), NOTHING);
    assert!(!text.contains('\x1b'), "{text}");
    let report = fs::read_to_string(&json).expect("it was written");
    (text, serde_json::from_str(&report).expect("it is JSON"))
}

/// How many flows the tracker had.
fn entries(report: &Value, experiment: &str, key: &str, name: &str) -> Option<u64> {
    let line = lines(report, experiment).iter().find(|l| l[key] == name);
    let line = line.unwrap_or_else(|| panic!("no {name:?} in {report}"));
    line["flow_entries"].as_u64()
}

fn check(backend: &str) {
    let only = ["UDP, 1 flow", "flood", "changes", "watching"];
    let (_, report) = report(&["iptables", "--iptables", backend], &only);
    let entries = |experiment, key, name| entries(&report, experiment, key, name);
    assert_eq!(entries("UDP, 1 flow", "filter", "no filter"), None);
    assert_eq!(entries("UDP, 1 flow", "filter", "untracked"), Some(0));
    assert_eq!(entries("UDP, 1 flow", "filter", "tracked"), Some(1));
    let outside = |name| entries("flood", "flows", name);
    assert_eq!(outside("from outside, all in, all out"), Some(0));
    assert_eq!(outside("from outside, tracked"), Some(100_000));
    let changes = lines(&report, "changes, one by one");
    for change in changes {
        let hosts = change["hosts"].as_array().expect("a list");
        let sizes: Vec<&Value> = hosts.iter().map(|host| &host["vms"]).collect();
        assert_eq!(sizes, [1, 3]);
        // Elements of sets are written without one; chains of two families are not.
        let least = match change["change"].as_str() {
            Some(name) if name.contains("joins") => 2.0,
            _ => 0.0,
        };
        for host in hosts {
            let programs = host["programs"].as_f64().expect("a number");
            assert!((least..=8.0).contains(&programs), "{change}");
        }
    }
    assert_eq!(lines(&report, "changes, all at once").len(), 2);
    assert_eq!(lines(&report, "watching").len(), 2);
}

#[test]
fn figures_of_iptables_by_nft() {
    check("nft");
}

#[test]
fn figures_of_iptables_by_legacy() {
    check("legacy");
}

#[test]
fn figures_of_ovs() {
    let (text, report) = report(&["ovs"], &["UDP, 1 flow", "changes", "watching"]);
    assert!(text.contains("userspace datapath"), "{text}");
    let entries = |name| entries(&report, "UDP, 1 flow", "filter", name);
    assert_eq!(entries("no filter"), None);
    assert_eq!(entries("untracked"), Some(0));
    assert_eq!(entries("tracked"), Some(2), "one at each gate");
    let flows = |name: &str| -> Vec<&Value> {
        let lines = lines(&report, "changes").iter();
        let lines = lines.filter(|line| line["change"] == name);
        lines.map(|line| &line["flows"]).collect()
    };
    assert_eq!(flows("a restart, nothing changed"), [0, 0]);
    assert_eq!(flows("a rule is added"), [2, 2]);
    assert_eq!(
        flows("a member for a group of 10"),
        flows("a member for a group of 10,000")
    );
    assert_eq!(lines(&report, "watching").len(), 2);
}

#[test]
fn an_interrupted_bench_leaves_nothing() {
    let mut bench = start(
        &["iptables", "--iptables", "nft"],
        1000,
        "1,20",
        &["changes"],
        "/dev/null",
    );
    let mut reader = BufReader::new(bench.stdout.take().expect("it is piped"));
    let mut line = String::new();
    while !line.starts_with("All VMs at once") {
        line.clear();
        let read = reader.read_line(&mut line).expect("it prints text");
        assert_ne!(read, 0, "it ends before it was interrupted");
    }
    // It is at what comes next.
    assert_ne!(left_of(&bench), NOTHING);
    support::interrupt(&bench);
    assert_eq!(bench.wait().expect("it ends").code(), Some(1));
    assert_eq!(left_of(&bench), NOTHING);
}
