//! The binary as the server of a cluster, in a host's namespace, with certificates of its own making.

use crate::agent::{BIN, wait_until};
use conformance::lab::Namespace;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub(crate) struct Server {
    host: Namespace,
    directory: PathBuf,
    api: SocketAddr,
    arguments: Vec<String>,
    running: Option<Child>,
}

/// In the directory: ca.pem, server.pem for these names, and HOST.pem for each host, with their keys.
pub(crate) fn make_certificates(directory: &Path, names: &[&str], hosts: &[&str]) {
    let ca = |arguments: &[&str]| {
        let mut command = Command::new(BIN);
        command.arg("ca").args(arguments).current_dir(directory);
        let output = command.output().expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
    };
    ca(&["init"]);
    ca(&[&["server"], names].concat());
    for host in hosts {
        ca(&["host", host]);
    }
}

impl Server {
    /// In the directory, with the certificates that are there; the API's port, and the next one for agents.
    pub(crate) fn start(host: &Namespace, directory: &Path, store: &str, port: u16) -> Self {
        let agents = format!("0.0.0.0:{}", port + 1);
        Self::start_with(host, directory, store, port, &["--listen-agents", &agents])
    }

    pub(crate) fn start_with(
        host: &Namespace,
        directory: &Path,
        store: &str,
        port: u16,
        more: &[&str],
    ) -> Self {
        let api = SocketAddr::from(([127, 0, 0, 1], port));
        let listen = api.to_string();
        let arguments = [&["--store", store, "--listen", &listen], more].concat();
        let mut server = Self {
            host: host.clone(),
            directory: directory.to_owned(),
            api,
            arguments: arguments.into_iter().map(str::to_owned).collect(),
            running: None,
        };
        server.restart();
        server
    }

    pub(crate) fn restart(&mut self) {
        let mut command = Command::new(BIN);
        command
            .arg("server")
            .args(&self.arguments)
            .current_dir(&self.directory)
            .env("PORTCULLIS_RUN_DIR", self.directory.join("run"))
            .env("PORTCULLIS_STATE_DIR", self.directory.join("state"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let spawned = self.host.run(move || command.spawn());
        self.running = Some(spawned.expect("the binary runs"));
        let api = self.api;
        wait_until("the server answers", || {
            self.host.run(move || TcpStream::connect(api)).is_ok()
        });
    }

    /// As `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let mut running = self.running.take().expect("it runs");
        running.kill().expect("it can be killed");
        running.wait().expect("it is ours");
    }

    /// It is there, and says nothing, until [`Self::resume`].
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let running = self.running.as_ref().expect("it runs");
        let pid = running.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.expect("kill is there").success());
    }

    /// What was made or changed, or is there.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.exchange(method, path, body);
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {answer}"
        );
        answer
    }

    /// Status and body.
    pub(crate) fn exchange(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let body = body.map_or_else(String::new, |body| body.to_string());
        let api = self.api;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {api}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.host.run(move || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(api)?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        let answer = answer.expect("the server answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        (status.expect("an answer has a status"), body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.kill();
        }
    }
}
