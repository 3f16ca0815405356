//! The command line: exit codes, and what is said. Nothing here needs a privilege, and nothing is
//! enforced.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BIN: &str = env!("CARGO_BIN_EXE_portcullis");

const POLICY: &str = "\
version: 1
networks:
  lan: { subnets: [10.9.0.0/24] }
groups:
  web:
    rules:
      - { name: https, from: any, protocol: tcp, ports: 443 }
ports:
  vm1: { device: pc-none, mac: 52:54:00:00:00:01, addresses: [10.9.0.1], groups: [web] }
";

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("it can be written");
        path
    }

    fn run(&self, arguments: &[&str]) -> Output {
        command(self.0.path(), arguments)
            .output()
            .expect("the binary runs")
    }
}

fn command(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BIN);
    command
        .args(arguments)
        .env("PORTCULLIS_RUN_DIR", root.join("run"))
        .env("PORTCULLIS_STATE_DIR", root.join("state"))
        .env("PORTCULLIS_INSTANCE", "pc-cli-none");
    command
}

/// The exit code, and texts that stdout and stderr together must hold.
fn check(output: &Output, code: i32, says: &[&str]) {
    let all = text(output);
    assert_eq!(output.status.code(), Some(code), "{all}");
    for text in says {
        assert!(all.contains(text), "{text:?} is not in:\n{all}");
    }
}

fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    format!("{out}{err}")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("it is text")
}

#[test]
fn a_valid_policy_is_summed_up() {
    let dir = Dir::new();
    let file = dir.file("policy.yaml", POLICY);
    let summary = "valid; 1 groups with 2 rules, 1 ports, 1 of them";
    check(&dir.run(&["check", path(&file)]), 0, &[summary]);
    let wide = dir.run(&["check", path(&file), "-o", "wide"]);
    check(&wide, 0, &[summary, "pc-none", "10.9.0.1"]);
    let json = dir.run(&["check", path(&file), "-o", "json"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).expect("it is JSON");
    assert_eq!(value["valid"], true);
    assert_eq!(value["ports"][0]["port"], "vm1");
    check(
        &dir.run(&["check", path(&file), "-o", "yaml"]),
        0,
        &["valid: true\n", "port: vm1\n"],
    );
}

#[test]
fn an_invalid_policy_is_refused_with_its_place() {
    let dir = Dir::new();
    let bad = POLICY.replace("ports: 443", "ports: 99999");
    let file = dir.file("policy.yaml", &bad);
    let place = format!("{}:7:", path(&file));
    check(&dir.run(&["check", path(&file)]), 3, &[&place, "99999"]);
    for command in ["run", "check"] {
        let arguments: Vec<&str> = match command {
            "run" => vec!["run", "--policy", path(&file)],
            _ => vec!["check", path(&file)],
        };
        check(&dir.run(&arguments), 3, &[&place]);
    }
    let run = dir.run(&["run", "--policy", path(&file)]);
    check(&run, 3, &["nothing was changed"]);
    assert!(!Path::new("/sys/fs/bpf/portcullis/pc-cli-none").exists());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let dir = Dir::new();
    let missing = dir.0.path().join("missing.yaml");
    for arguments in [
        vec!["check", path(&missing)],
        vec!["run", "--policy", path(&missing)],
        vec![
            "explain",
            "--port",
            "vm1",
            "--egress",
            "rarp",
            "--policy",
            path(&missing),
        ],
    ] {
        let output = dir.run(&arguments);
        check(&output, 4, &["can't read", "missing.yaml", "No such file"]);
    }
}

#[test]
fn a_command_line_without_sense_is_told_what_is_missing() {
    let dir = Dir::new();
    check(&dir.run(&[]), 2, &["Usage: portcullis"]);
    check(&dir.run(&["flap"]), 2, &["unrecognized subcommand 'flap'"]);
    check(&dir.run(&["run"]), 2, &["--policy <FILE>"]);
    check(
        &dir.run(&["run", "--policy", "x", "--confirm", "0"]),
        2,
        &["1..=86400"],
    );
    check(
        &dir.run(&["status", "--instance", "../etc"]),
        2,
        &["\"../etc\" can't name an instance"],
    );
    check(&dir.run(&["explain", "--port", "vm1"]), 2, &["--ingress"]);
    check(
        &dir.run(&["run", "--policy", "x", "--inspection", "nowhere"]),
        2,
        &["destination, source, both"],
    );
    check(
        &dir.run(&["selftest", "--plane", "ebpf", "--hosts", "2"]),
        2,
        &["--plane ovs"],
    );
}

#[test]
fn where_nothing_is_enforced_that_is_said() {
    let dir = Dir::new();
    check(&dir.run(&["status"]), 4, &["nothing is enforced here"]);
    check(&dir.run(&["flows"]), 4, &["nothing is enforced here"]);
    check(&dir.run(&["confirm"]), 4, &["there is nothing to confirm"]);
    check(&dir.run(&["detach"]), 0, &["nothing was enforced here"]);
}

#[test]
fn without_privilege_run_says_what_is_needed() {
    let dir = Dir::new();
    let file = dir.file("policy.yaml", POLICY);
    // Where an unprivileged user may write; what the kernel refuses comes after that.
    let root = dir.0.path();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(root, open).expect("it is ours");
    let copy = root.join("portcullis");
    fs::copy(BIN, &copy).expect("it can be copied");
    let mut run = Command::new(&copy);
    run.args(["run", "--policy", path(&file)])
        .env("PORTCULLIS_RUN_DIR", root.join("run"))
        .env("PORTCULLIS_STATE_DIR", root.join("state"))
        .env("PORTCULLIS_INSTANCE", "pc-cli-none")
        .uid(65_534)
        .gid(65_534);
    let output = run.output().expect("the tests run as root");
    check(&output, 4, &["CAP_BPF"]);
}

#[test]
fn explain_answers_by_the_model_about_a_given_policy() {
    let dir = Dir::new();
    let file = dir.file("policy.yaml", POLICY);
    let explain = |way: &str, packet: &str| {
        dir.run(&[
            "explain",
            "--port",
            "vm1",
            way,
            packet,
            "--policy",
            path(&file),
        ])
    };
    check(
        &explain("--ingress", "tcp 10.9.0.5:40000 -> 10.9.0.1:443"),
        0,
        &[
            "model       pass (rule web/https.v4)",
            "not asked",
            "policy ",
        ],
    );
    check(
        &explain("--ingress", "tcp 10.9.0.5:40000 -> 10.9.0.1:80"),
        0,
        &["model       drop (no-rule)"],
    );
    check(
        &explain("--egress", "tcp 10.9.0.66:40000 -> 10.9.0.1:80"),
        0,
        &["model       drop (spoofed-ip)"],
    );
    check(
        &explain("--ingress", "tcp somewhere"),
        2,
        &["in the packet \"tcp somewhere\"", "`somewhere`: expected"],
    );
    let other = dir.run(&[
        "explain",
        "--port",
        "vm9",
        "--egress",
        "rarp",
        "--policy",
        path(&file),
    ]);
    check(&other, 2, &["no port vm9 on host", "there are: vm1"]);
    let json = dir.run(&[
        "explain",
        "--port",
        "vm1",
        "--egress",
        "rarp",
        "--policy",
        path(&file),
        "-o",
        "json",
    ]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).expect("it is JSON");
    assert_eq!(value["model"]["reason"], "infrastructure");
    assert_eq!(value["plane"], serde_json::Value::Null);
    assert_eq!(value["differ"], false);
}

const TIERS: &str = "\
version: 1
networks:
  lan: { subnets: [10.9.0.0/24] }
address-groups:
  office: [192.0.2.0/24]
groups:
  web:
    rules:
      - { name: https, from: any, protocol: tcp, ports: 443 }
      - { name: to-db, to: db, protocol: tcp, ports: 5432 }
  db:
    rules:
      - { name: from-web, from: web, protocol: tcp, ports: 5432 }
      - { name: ping, from: office, protocol: icmp echo-request }
ports:
  web1: { mac: 52:54:00:00:00:01, addresses: [10.9.0.1], groups: [web] }
  web2: { mac: 52:54:00:00:00:02, addresses: [10.9.0.2, fd00:9::2], groups: [web] }
  store: { mac: 52:54:00:00:00:03, addresses: [10.9.0.3], groups: [db] }
";

/// What is printed line by line, with single blanks.
fn lines(output: &Output) -> Vec<String> {
    let out = String::from_utf8_lossy(&output.stdout);
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    out.lines().map(line).collect()
}

#[test]
fn reach_says_who_can_reach_whom() {
    let dir = Dir::new();
    let file = dir.file("policy.yaml", TIERS);
    let reach = |arguments: &[&str]| {
        let mut all = vec!["reach", "--policy", path(&file)];
        all.extend(arguments);
        dir.run(&all)
    };
    let header = "FROM TO FLOWS FAMILY LEAVES BY ENTERS BY";
    let from_web = "web1, web2 store tcp 5432 IPv4 web/to-db.v4 db/from-web.v4";
    let answers = |arguments: &[&str], expected: &[&str]| {
        let output = reach(arguments);
        check(&output, 0, &[]);
        assert_eq!(lines(&output), expected, "{arguments:?}");
    };
    answers(&["--to", "store", "tcp", "5432"], &[header, from_web]);
    answers(&["--to", "db", "tcp 5432"], &[header, from_web]);
    answers(
        &["--to", "store"],
        &[
            header,
            from_web,
            "outside: 192.0.2.0/24 store icmp echo-request IPv4 - db/ping.v4",
        ],
    );
    answers(&["--from", "web", "--to", "10.9.0.3"], &[header, from_web]);
    answers(
        &["--to", "web2"],
        &[header, "outside web2 tcp 443 both - web/https.v4+v6"],
    );
    answers(
        &["--from", "office", "--to", "web", "udp"],
        &["no such flow is permitted"],
    );
    let json = reach(&["--from", "web1", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).expect("it is JSON");
    let row = &value["reach"][0];
    assert_eq!(row["from"]["ports"], serde_json::json!(["web1"]));
    assert_eq!(row["to"]["ports"], serde_json::json!(["store"]));
    assert_eq!(
        row["parts"],
        serde_json::json!([{ "protocol": 6, "ports": [5432, 5432] }])
    );
    assert_eq!(
        row["enters_by"]["rules"],
        serde_json::json!(["db/from-web.v4"])
    );
}

#[test]
fn reach_helps_with_a_question_that_makes_no_sense() {
    let dir = Dir::new();
    let file = dir.file("policy.yaml", TIERS);
    let refuses = |arguments: &[&str], says: &[&str]| {
        let mut all = vec!["reach", "--policy", path(&file)];
        all.extend(arguments);
        check(&dir.run(&all), 2, says);
    };
    refuses(&[], &["--from <WHO>"]);
    refuses(
        &["--to", "wbe1"],
        &["no port or group wbe1", "did you mean `web1`?"],
    );
    refuses(&["--to", "10.9.0.7/24"], &["10.9.0.0/24"]);
    refuses(&["--to", "db", "tcp/5432"], &["`tcp 5432`"]);
    refuses(&["--to", "db", "tpc"], &["did you mean `tcp`?"]);
}

#[test]
fn diff_says_what_opens_and_closes() {
    let dir = Dir::new();
    let old = dir.file("old.yaml", TIERS);
    let diff = |name: &str, text: &str, arguments: &[&str]| {
        let new = dir.file(name, text);
        let mut all = vec!["diff", path(&old), path(&new)];
        all.extend(arguments);
        dir.run(&all)
    };
    let halves = TIERS.replace("from: any", "from: [0.0.0.0/1, 128.0.0.0/1, \"::/0\"]");
    check(
        &diff("same.yaml", &halves, &[]),
        0,
        &["no flow opens or closes"],
    );

    let wider = TIERS
        .replace(
            "{ name: to-db, to: db, protocol: tcp, ports: 5432 }",
            "{ name: out, to: any }",
        )
        .replace("from: office", "from: web");
    let output = diff("wider.yaml", &wider, &[]);
    check(&output, 1, &[]);
    assert_eq!(
        lines(&output),
        [
            "CHANGE FROM TO FLOWS FAMILY LEAVES BY ENTERS BY",
            "opens web1, web2 store icmp echo-request IPv4 web/out.v4 db/ping.v4",
            "opens web2 web1 tcp 443 IPv4 web/out.v4 web/https.v4",
            "opens web1 web2 tcp 443 IPv4 web/out.v4 web/https.v4",
            "opens web1, web2 outside any IPv4 web/out.v4 -",
            "opens web2 outside any IPv6 web/out.v6 -",
            "closes outside: 192.0.2.0/24 store icmp echo-request IPv4 - db/ping.v4",
        ]
    );
    let json = diff("wider.yaml", &wider, &["-o", "json"]);
    check(&json, 1, &[]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).expect("it is JSON");
    assert_eq!(
        value["closed"][0]["from"]["outside"],
        serde_json::json!(["192.0.2.0/24"])
    );
}

#[test]
fn diff_ends_as_diff_does_where_a_file_is_no_policy() {
    let dir = Dir::new();
    let good = dir.file("good.yaml", TIERS);
    let bad = dir.file("bad.yaml", &TIERS.replace("ports: 443", "ports: 99999"));
    let place = format!("{}:9:", path(&bad));
    check(
        &dir.run(&["diff", path(&good), path(&bad)]),
        2,
        &[&place, "99999"],
    );
    check(&dir.run(&["diff", path(&bad), path(&good)]), 2, &[&place]);
    let missing = dir.run(&["diff", path(&good), "missing.yaml"]);
    check(&missing, 2, &["can't read", "missing.yaml"]);
    check(&dir.run(&["diff", path(&good)]), 2, &["<NEW>"]);
    let doubtful = dir.file(
        "doubtful.yaml",
        &TIERS.replace("groups: [db] }", "groups: [db], port-security: off }"),
    );
    check(
        &dir.run(&["diff", path(&doubtful), path(&doubtful)]),
        0,
        &["warning: ", "doubtful.yaml:"],
    );
}

#[test]
fn texts_for_machines_are_what_machines_read() {
    let dir = Dir::new();
    let schema = dir.run(&["schema"]);
    let value: serde_json::Value = serde_json::from_slice(&schema.stdout).expect("it is JSON");
    assert!(value["properties"]["ports"].is_object());
    for shell in ["bash", "zsh", "fish"] {
        check(
            &dir.run(&["completions", shell]),
            0,
            &["explain", "guard-bridge"],
        );
    }
    check(&dir.run(&["man"]), 0, &[".TH portcullis 1"]);
    check(
        &dir.run(&["man", "run"]),
        0,
        &[".TH portcullis-run 1", "guard"],
    );
    check(&dir.run(&["man", "flap"]), 2, &["no command \"flap\""]);
}

#[test]
fn help_teaches_by_examples() {
    let dir = Dir::new();
    check(&dir.run(&["--help"]), 0, &["Examples:", "Exit codes:"]);
    for command in [
        "run", "check", "status", "flows", "explain", "reach", "diff", "confirm", "detach", "sim",
    ] {
        check(&dir.run(&[command, "--help"]), 0, &["Example"]);
    }
}

#[test]
fn a_simulated_cluster_is_summed_up() {
    let dir = Dir::new();
    let words = "sim --hosts 5 --ports 60 --changes 80 --seed 3";
    let output = dir.run(&words.split(' ').collect::<Vec<_>>());
    check(
        &output,
        0,
        &["member, the largest group", "seed 3", "violations 0"],
    );
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let dir = Dir::new();
    let mut child = command(dir.0.path(), &["completions", "bash"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    check(&output, 0, &[]);
    assert_eq!(text(&output), "");
}
