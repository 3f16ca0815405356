//! The cluster's server on host a, its certificates, and requests to its API.
//!
//! Place on the line: **request** -> use case -> store commit.
//! Knows nothing of: what it is asked for.

use super::super::enforcement::with_last_words;
use super::super::report::Report;
use super::super::wait_until;
use super::client::Client;
use super::host::{HostName, PATIENCE, this_program};
use super::remains::{Process, Remains};
use crate::failure::Failure;
use conformance::lab::Namespace;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;

/// Where clients come, on host a; `client` says it in its own words.
pub(crate) const API: &str = "127.0.0.1:9696";
/// Where agents come.
pub(crate) const AGENTS: &str = "198.51.100.1:9697";

pub(crate) struct Server {
    host: Namespace,
    remains: Remains,
    directory: PathBuf,
    pub(crate) client: Option<Client>,
}

impl Server {
    pub(crate) fn new(host: &Namespace, remains: &Remains) -> Result<Self, Failure> {
        let directory = remains.directory().join("cluster");
        fs::create_dir(&directory)
            .map_err(|e| Failure::System(format!("demo: making {}: {e}", directory.display())))?;
        Ok(Self {
            host: host.clone(),
            remains: remains.clone(),
            directory,
            client: Client::find(host),
        })
    }

    pub(crate) fn make_certificates(&self, report: &Report) -> Result<(), Failure> {
        let server = HostName::A.address();
        let [a, b] = HostName::ALL.map(HostName::name);
        for words in [
            "ca init".to_owned(),
            format!("ca server {server}"),
            format!("ca host {a}"),
            format!("ca host {b}"),
        ] {
            report.line(format!("$ portcullis {words}"))?;
            let mut command = this_program(&words)?;
            let output = command.current_dir(&self.directory).output();
            let failed = |why: String| Failure::System(format!("demo: portcullis {words}: {why}"));
            let output = output.map_err(|e| failed(e.to_string()))?;
            if !output.status.success() {
                return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
            }
        }
        Ok(())
    }

    pub(crate) fn words(&self) -> String {
        format!("server --store file:store --listen {API} --listen-agents {AGENTS}")
    }

    /// Until it answers.
    pub(crate) fn start(&self) -> Result<(), Failure> {
        let path = self.directory.join("server.log");
        let log = File::options().append(true).create(true).open(&path);
        let log =
            log.map_err(|e| Failure::System(format!("demo: opening {}: {e}", path.display())))?;
        let mut command = this_program(&self.words())?;
        command
            .current_dir(&self.directory)
            // To be found by, as agents are; a server has no use for them.
            .env("PORTCULLIS_INSTANCE", self.remains.name())
            .env("PORTCULLIS_RUN_DIR", &self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0);
        self.remains.start(Process::Server, &self.host, command)?;
        let waited = wait_until("the server to answer", PATIENCE, || {
            if let Some(status) = self.remains.ended(Process::Server) {
                return Err(Failure::System(format!("the server has ended: {status}")));
            }
            Ok(self.is_there().then_some(()))
        });
        waited.map_err(|failure| with_last_words(&failure, &path))
    }

    pub(crate) fn kill(&self) -> Result<(), Failure> {
        self.remains.kill(Process::Server)
    }

    pub(crate) fn is_there(&self) -> bool {
        self.host.run(|| TcpStream::connect(API)).is_ok()
    }

    /// What was made or changed, or is there.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let failed = |why: String| Failure::System(format!("demo: {method} {path}: {why}"));
        let body = body.map_or_else(String::new, |body| body.to_string());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {API}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.host.run(|| -> io::Result<String> {
            let mut stream = TcpStream::connect(API)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        let answer = answer.map_err(|e| failed(e.to_string()))?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        match head.split(' ').nth(1) {
            Some(status) if status.starts_with('2') => {
                // There is none after a deletion.
                Ok(serde_json::from_str(body).unwrap_or_default())
            }
            Some(_) | None => Err(failed(answer)),
        }
    }
}
