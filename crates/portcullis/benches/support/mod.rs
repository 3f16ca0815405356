//! A server of ours in a lab, and who asks it.

#![allow(dead_code, reason = "each bench uses a part")]

use conformance::lab::{Lab, Namespace};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const BIN: &str = env!("CARGO_BIN_EXE_portcullis");
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends with the bench.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn start(lab: &Lab, mut command: Command, directory: &Path, log: &str) -> Self {
        let log = File::create(directory.join(log)).expect("a file");
        command.stdout(Stdio::null()).stderr(log);
        Self(
            lab.host()
                .run(move || command.spawn())
                .expect("the binary runs"),
        )
    }

    /// As `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub(crate) fn cpu_ms(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it runs");
        let (_, fields) = stat.rsplit_once(") ").expect("a name is in brackets");
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks = fields[11..13]
            .iter()
            .map(|ticks| ticks.parse::<f64>().expect("a number"));
        // Hundredths of a second, wherever Linux runs (`getconf CLK_TCK`).
        ticks.sum::<f64>() * 10.0
    }

    /// A second long it needs next to nothing.
    pub(crate) fn wait_until_idle(&self) {
        wait_until("the server has nothing to do", || {
            let before = self.cpu_ms();
            sleep(Duration::from_secs(1));
            self.cpu_ms() - before < 50.0
        });
    }

    /// A line of what the kernel says of its memory, such as `VmRSS`.
    pub(crate) fn memory_mb(&self, line: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()));
        let status = status.expect("it runs");
        let mut lines = status.lines().filter_map(|line| line.split_once(':'));
        let (_, size) = lines.find(|(name, _)| *name == line).expect("it is there");
        let kib = size.trim().trim_end_matches(" kB");
        kib.parse::<f64>().expect("a number") * 1024.0 / 1e6
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What an agent says.
pub(crate) struct Log(pub(crate) PathBuf);

impl Log {
    fn lines(&self) -> impl Iterator<Item = String> {
        let log = File::open(&self.0).expect("a log");
        BufReader::new(log).lines().map_while(Result::ok)
    }

    pub(crate) fn has(&self, words: &str) -> bool {
        self.lines().any(|line| line.contains(words))
    }

    /// When it applied a policy with this commit in it; as [`second_of_day`].
    pub(crate) fn applied(&self, commit: u64) -> Option<f64> {
        let mut applied = self.lines().filter(|line| line.contains("policy applied"));
        let line = applied.find(|line| applied_commit(line).is_some_and(|at| at >= commit))?;
        let (_, time) = line.split_once('T')?;
        let mut parts = time.split('Z').next()?.split(':');
        let mut part = || parts.next()?.parse::<f64>().ok();
        Some(part()? * 3600.0 + part()? * 60.0 + part()?)
    }
}

/// `revision=EPOCH.COMMIT`
fn applied_commit(line: &str) -> Option<u64> {
    let (_, revision) = line.split_once("revision=")?;
    let (_, commit) = revision.split(' ').next()?.split_once('.')?;
    commit.parse().ok()
}

/// As a log has it, in UTC.
pub(crate) fn second_of_day() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("it is after 1970").as_secs_f64() % 86_400.0
}

/// One connection, as a client that goes on asking has it.
pub(crate) struct Api(BufReader<TcpStream>);

impl Api {
    pub(crate) fn connect(host: &Namespace) -> Self {
        Self::connect_at(host, 9696)
    }

    /// On the loopback.
    pub(crate) fn connect_at(host: &Namespace, port: u16) -> Self {
        let mut connected = None;
        wait_until("the server answers", || {
            connected = host
                .run(move || TcpStream::connect(("127.0.0.1", port)))
                .ok();
            connected.is_some()
        });
        let stream = connected.expect("it was waited for");
        stream.set_nodelay(true).expect("it is set");
        Self(BufReader::new(stream))
    }

    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &Value) -> Value {
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

    pub(crate) fn make(&mut self, kind: &str, object: Value) -> String {
        let path = format!("/v2.0/{}s", kind.replace('_', "-"));
        let made = self.ask("POST", &path, &json!({ kind: object }));
        let id = made[kind]["id"].as_str();
        id.expect("an object has one").to_owned()
    }
}

/// With its store in a file, and an authority for its agents beside it.
pub(crate) fn start_server(lab: &Lab, directory: &Path) -> Process {
    for words in ["init", "server 127.0.0.1"] {
        ca(directory, words);
    }
    let mut server = command(directory, "server");
    server.args(["--store", "file:store", "--listen-agents", "127.0.0.1:9697"]);
    Process::start(lab, server, directory, "server.log")
}

pub(crate) fn ca(directory: &Path, words: &str) {
    let mut ca = command(directory, "ca");
    let made = ca.args(words.split(' ')).stdout(Stdio::null()).status();
    assert!(made.expect("the binary runs").success(), "ca {words}");
}

/// Of ours, with files and directories of its own.
pub(crate) fn command(directory: &Path, name: &str) -> Command {
    let mut command = Command::new(BIN);
    command
        .arg(name)
        .current_dir(directory)
        .env("PORTCULLIS_RUN_DIR", directory.join("run"))
        .env("PORTCULLIS_STATE_DIR", directory.join("state"));
    command
}

pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        sleep(Duration::from_millis(5));
    }
}
