//! The binary as the server of a cluster, in a host's namespace, with certificates of its own making.

use crate::agent::{BIN, wait_until};
use conformance::lab::Namespace;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub(crate) struct Server {
    host: Namespace,
    directory: PathBuf,
    running: Option<Child>,
}

const API: &str = "127.0.0.1:9696";

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
    /// With the certificates in the directory, and its store.
    pub(crate) fn start(host: &Namespace, directory: &Path) -> Self {
        let mut server = Self {
            host: host.clone(),
            directory: directory.to_owned(),
            running: None,
        };
        server.restart();
        server
    }

    pub(crate) fn restart(&mut self) {
        let mut command = Command::new(BIN);
        command
            .args(["server", "--store", "file:store", "--listen", API])
            .args(["--listen-agents", "0.0.0.0:9697", "--audit", "audit"])
            .current_dir(&self.directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let spawned = self.host.run(move || command.spawn());
        self.running = Some(spawned.expect("the binary runs"));
        wait_until("the server answers", || {
            self.host.run(|| TcpStream::connect(API)).is_ok()
        });
    }

    /// As `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let mut running = self.running.take().expect("it runs");
        running.kill().expect("it can be killed");
        running.wait().expect("it is ours");
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
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {API}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.host.run(move || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(API)?;
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
