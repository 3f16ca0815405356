//! An etcd of the test's own, on loopback, gone with the test.

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use store_etcd::{Config, Etcd};
use tempfile::TempDir;

pub(crate) struct Server {
    directory: TempDir,
    name: String,
    client_port: u16,
    peer_port: u16,
    /// All members, as etcd wants to be told.
    members: String,
    options: Vec<String>,
    process: Option<Child>,
}

/// Short, so that tests of silence are; longer than anything takes on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(4);

const STARTS_WITHIN: Duration = Duration::from_secs(30);

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(options: &[&str]) -> Self {
        Self::start_cluster(1, options).remove(0)
    }

    /// Each knows all.
    pub(crate) fn start_cluster(count: usize, options: &[&str]) -> Vec<Self> {
        loop {
            let mut servers: Vec<Self> = (0..count).map(|n| Self::new(n, options)).collect();
            let members: Vec<String> = servers.iter().map(Self::member).collect();
            for server in &mut servers {
                server.members = members.join(",");
                server.spawn();
            }
            // Between asking for free ports and taking them, another test may have been faster.
            if servers.iter_mut().all(Self::wait_until_it_serves) {
                return servers;
            }
        }
    }

    fn new(number: usize, options: &[&str]) -> Self {
        let (client_port, peer_port) = free_ports();
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            name: format!("member-{number}"),
            client_port,
            peer_port,
            members: String::new(),
            options: options.iter().map(|option| option.to_string()).collect(),
            process: None,
        }
    }

    fn member(&self) -> String {
        format!("{}={}", self.name, self.peer_url())
    }

    /// Where it was before, with what it had.
    pub(crate) fn restart(&mut self) {
        assert!(self.process.is_none(), "it was killed");
        loop {
            self.spawn();
            if self.wait_until_it_serves() {
                return;
            }
        }
    }

    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("it is ours");
        process.wait().expect("it is ours");
    }

    /// All its threads: on a busy machine some go on for a while after the signal was sent.
    pub(crate) fn pause(&self) {
        let id = self.signal(Signal::STOP);
        let stopped = waitpid(Some(id), WaitOptions::UNTRACED).expect("it is ours");
        assert!(stopped.is_some_and(|(_, status)| status.stopped()));
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            endpoints: vec![self.url()],
            timeout: TIMEOUT,
            sign_of_life: Duration::from_secs(1),
            ..Config::default()
        }
    }

    pub(crate) async fn connect(&self) -> Etcd {
        let connected = Etcd::connect(self.config()).await;
        connected.expect("it has said that it serves")
    }

    pub(crate) fn url(&self) -> String {
        let secured = self.options.iter().any(|option| option == "--cert-file");
        let scheme = if secured { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.client_port)
    }

    fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn spawn(&mut self) {
        let (client, peer) = (self.url(), self.peer_url());
        let mut command = Command::new("etcd");
        command.args(["--name", &self.name, "--initial-cluster", &self.members]);
        command
            .arg("--data-dir")
            .arg(self.directory.path().join("data"));
        command.args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ]);
        command.args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ]);
        // Ours ask for a sign of life more often than its default allows.
        command.args(["--grpc-keepalive-min-time", "500ms", "--logger", "zap"]);
        command.args(&self.options);
        let log = File::create(self.log()).expect("a file");
        let output = command.stdout(Stdio::null()).stderr(log);
        let process = output.spawn().expect("etcd is there: Debian's etcd-server");
        self.process = Some(process);
    }

    /// `false`: a port was taken, and there is no process.
    fn wait_until_it_serves(&mut self) -> bool {
        let begin = Instant::now();
        loop {
            let said = std::fs::read_to_string(self.log()).unwrap_or_default();
            if said.contains("serving client traffic") {
                return true;
            }
            let process = self.process.as_mut().expect("it was started");
            if process.try_wait().expect("it is ours").is_some() {
                let taken = said.contains("address already in use");
                assert!(taken, "etcd ended: {said}");
                self.process = None;
                return false;
            }
            let waited = begin.elapsed();
            assert!(waited < STARTS_WITHIN, "etcd doesn't serve: {said}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, signal: Signal) -> Pid {
        let process = self.process.as_ref().expect("it runs");
        let id = Pid::from_raw(process.id() as i32).expect("a process");
        kill_process(id, signal).expect("it is ours");
        id
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}

fn free_ports() -> (u16, u16) {
    let listen = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (one, other) = (listen(), listen());
    let port = |listener: TcpListener| listener.local_addr().expect("it is bound").port();
    (port(one), port(other))
}
