//! Policy files on a cluster: a real server with a store of its own, driven by the commands. Nothing here needs a
//! privilege, and nothing is enforced.

mod backups;
mod mistakes;
mod starting;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

const BIN: &str = env!("CARGO_BIN_EXE_portcullis");

const POLICY: &str = "\
version: 1
networks:
  lan: { subnets: [10.9.0.0/24] }
groups:
  web:
    rules:
      - { name: https, from: any, protocol: tcp, ports: 443, family: ipv4 }
      - { to: db, protocol: tcp, ports: 5432, family: ipv4 }
  db:
    rules:
      - { from: web, protocol: tcp, ports: 5432, family: ipv4 }
ports:
  vm1: { device: pc-none1, mac: 52:54:00:00:00:01, addresses: [10.9.0.1], groups: [web] }
  vm2: { device: pc-none2, mac: 52:54:00:00:00:02, addresses: [10.9.0.2], groups: [db] }
";

struct Site {
    dir: tempfile::TempDir,
    url: String,
    server: Child,
    /// What it has logged until it served.
    began: String,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Site {
    fn new() -> Self {
        Self::with("", &[])
    }

    /// `tokens`: who is known, in a file beside the server.
    fn with(tokens: &str, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("tokens"), tokens).expect("it can be written");
        let (server, url, began) = serve(&dir, "file:store", arguments);
        Self {
            dir,
            url,
            server,
            began,
        }
    }

    /// With another store from now on.
    fn go_on_with(&mut self, store: &str) {
        self.stop();
        (self.server, self.url, self.began) = serve(&self.dir, store, &[]);
    }

    fn stop(&mut self) {
        self.server.kill().expect("it is ours");
        self.server.wait().expect("it is ours");
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join("site.yaml");
        fs::write(&path, text).expect("it can be written");
        path
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BIN);
        command.args(arguments).args(["--server", &self.url]);
        command.current_dir(self.dir.path());
        command.output().expect("the binary runs")
    }

    /// The exit code, and texts that stdout and stderr together must hold.
    fn check(&self, arguments: &[&str], code: i32, says: &[&str]) -> String {
        check(&self.run(arguments), code, says)
    }
}

/// The server, where it is, and what it has logged so far.
fn serve(dir: &tempfile::TempDir, store: &str, arguments: &[&str]) -> (Child, String, String) {
    let mut server = Command::new(BIN)
        .args(["server", "--listen", "127.0.0.1:0", "--log-format", "json"])
        .args(["--store", store])
        .args(arguments)
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let told = BufReader::new(server.stderr.take().expect("it is piped"));
    let mut lines = told.lines();
    let mut began = String::new();
    let serving = lines
        .by_ref()
        .map_while(Result::ok)
        .inspect(|line| began.push_str(line))
        .find(|line| line.contains("serving"))
        .expect("the server begins to serve");
    std::thread::spawn(move || lines.for_each(drop));
    let from = serving.find("127.0.0.1:").expect("where it listens");
    let address: String = serving[from..]
        .chars()
        .take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':'))
        .collect();
    (server, format!("http://{address}"), began)
}

fn check(output: &Output, code: i32, says: &[&str]) -> String {
    let mut all = String::from_utf8_lossy(&output.stdout).into_owned();
    all.push_str(&String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{all}");
    for text in says {
        assert!(all.contains(text), "{text:?} is not in:\n{all}");
    }
    all
}

fn apply<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["apply", "-f", "site.yaml", "--host", "h1"], more].concat()
}

#[test]
fn a_file_is_applied_changed_and_removed() {
    let site = Site::new();
    site.file(POLICY);
    let opens = ["diff", "-f", "site.yaml", "--host", "h1"];
    site.check(&opens, 1, &["opens", "tcp 443"]);
    let created = ["group/web created (dry run)", "port/vm1 created (dry run)"];
    site.check(&apply(&["--dry-run"]), 0, &created);
    site.check(&["get", "ports"], 0, &["no ports"]);
    let created = [
        "host/h1 created",
        "rule/web.https created",
        "subnet/lan-10.9.0.0-24 created",
    ];
    site.check(&apply(&[]), 0, &created);
    let again = site.check(&apply(&[]), 0, &["10 unchanged"]);
    assert!(
        !again.contains("updated") && !again.contains("created"),
        "{again}"
    );
    site.check(&opens, 0, &["no flow opens or closes"]);

    site.check(&["get", "groups"], 0, &["web", "db"]);
    site.check(&["get", "sg", "web", "-o", "yaml"], 0, &["portcullis:site"]);
    site.check(&["get", "rules"], 0, &["web.https", "443", "db.1"]);
    site.check(&["get", "port", "vm1"], 0, &["10.9.0.1", "h1", "lan"]);
    site.check(&["get", "hosts"], 0, &["h1", "no", "committed:"]);
    site.check(&["status"], 0, &["HOST", "h1"]);
    site.check(&["reach", "--to", "vm2"], 0, &["vm1", "tcp 5432"]);
    let packet = ["explain", "--port", "vm1", "--ingress"];
    let packet = [&packet[..], &["tcp 10.0.0.5:40000 -> 10.9.0.1:443"]].concat();
    site.check(&packet, 0, &["web.https"]);

    let less = POLICY
        .replace("ports: 443", "ports: 444")
        .replace("  vm2", "  vm3");
    site.file(
        &less
            .replace("00:02", "00:03")
            .replace("10.9.0.2", "10.9.0.3"),
    );
    site.check(&opens, 1, &["tcp 444", "closes", "tcp 443"]);
    site.check(
        &apply(&[]),
        0,
        &["rule/web.https updated", "port/vm3 created"],
    );
    site.check(&["get", "ports"], 0, &["vm2", "vm3"]);
    site.check(&apply(&["--prune"]), 0, &["port/vm2 removed"]);
    site.check(&["delete", "port", "vm3"], 0, &["port/vm3 removed"]);
    site.check(&["delete", "group", "web"], 1, &["in use"]);
    let removed = [
        "group/web removed",
        "network/lan removed",
        "host/h1 removed",
    ];
    site.check(&["delete", "-f", "site.yaml"], 0, &removed);
    site.check(&["get", "networks"], 0, &["no networks"]);
    site.check(&["delete", "--label", "site"], 0, &["nothing to do"]);
}

#[test]
fn what_goes_wrong_is_told() {
    let site = Site::new();
    site.file(POLICY);
    site.check(&["apply", "-f", "site.yaml", "--host", "h1"], 0, &[]);
    let other = [
        "apply",
        "-f",
        "site.yaml",
        "--host",
        "h1",
        "--label",
        "other",
    ];
    site.check(&other, 1, &["group web", "'other'"]);
    site.check(&["get", "port", "vm9"], 1, &["vm9"]);
    site.check(&["get", "pods"], 2, &["no kind of object is called pods"]);
    site.check(&["delete", "group"], 2, &["say which"]);
    site.file(&POLICY.replace("groups: [web]", "groups: [wbe]"));
    let broken = ["apply", "-f", "site.yaml", "--host", "h1"];
    site.check(&broken, 3, &["site.yaml:13:", "wbe", "did you mean `web`"]);

    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let free = nobody.local_addr().expect("it is bound").to_string();
    drop(nobody);
    let mut command = Command::new(BIN);
    command.args(["get", "ports", "--server", &format!("http://{free}")]);
    let output = command.output().expect("the binary runs");
    check(&output, 4, &["nobody listens at", &free]);
}

#[test]
fn who_isn_t_known_or_isn_t_admin_is_told_so() {
    let tokens = "token-of-an-admin p1 ann admin\ntoken-of-a-member p2 bob member\n";
    let site = Site::with(tokens, &["--identity", "token", "--tokens", "tokens"]);
    site.file(POLICY);
    let apply = apply(&["--token-file", "token"]);
    site.check(
        &["get", "ports"],
        4,
        &["wants to know who we are", "--token-file"],
    );
    site.check(&apply, 4, &["reading token"]);
    for (token, code, says) in [
        ("token-of-nobody-here", 4, "doesn't know our token"),
        ("token-of-a-member", 4, "doesn't allow it"),
        ("token-of-an-admin\n", 0, "port/vm1 created"),
    ] {
        fs::write(site.dir.path().join("token"), token).expect("it can be written");
        site.check(&apply, code, &[says]);
    }
}
