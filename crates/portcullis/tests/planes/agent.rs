//! The binary as the agent of a host, with files and directories of its own.

use conformance::lab::Namespace;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) const BIN: &str = env!("CARGO_BIN_EXE_portcullis");
/// For what must come; a test that passes hardly waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Agent {
    host: Namespace,
    root: tempfile::TempDir,
    settings: Vec<(&'static str, Box<OsStr>)>,
    running: Option<Child>,
}

impl Agent {
    /// Not running yet. `settings`: of its environment.
    pub(crate) fn new(host: &Namespace, settings: &[(&'static str, &OsStr)]) -> Self {
        Self {
            host: host.clone(),
            root: tempfile::tempdir().expect("a directory"),
            settings: settings.iter().map(|(k, v)| (*k, (*v).into())).collect(),
            running: None,
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn policy(&self) -> PathBuf {
        self.directory().join("policy.yaml")
    }

    pub(crate) fn write(&self, policy: &str) {
        fs::write(self.policy(), policy).expect("it can be written");
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BIN);
        command
            .args(arguments)
            .env("PORTCULLIS_RUN_DIR", self.root.path().join("run"))
            .env("PORTCULLIS_STATE_DIR", self.root.path().join("state"))
            .envs(self.settings.iter().map(|(key, value)| (key, value)));
        command
    }

    pub(crate) fn portcullis(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        self.host
            .run(move || command.output().expect("the binary runs"))
    }

    /// Runs it until it has applied a policy.
    pub(crate) fn start(&mut self, options: &[&str]) {
        let policy = self.policy();
        let policy = policy.to_str().expect("it is text");
        self.launch(&["run", "--policy", policy], options);
    }

    /// The same of any command that runs the agent.
    pub(crate) fn launch(&mut self, command: &[&str], options: &[&str]) {
        let mut run = self.command(command);
        run.args(options);
        run.stdout(Stdio::null()).stderr(Stdio::piped());
        let run = self.host.run(move || run.spawn());
        self.running = Some(run.expect("the binary runs"));
        self.wait_for_another(&Value::Null);
    }

    /// As `kill -9` does; what it logged.
    pub(crate) fn kill(&mut self) -> String {
        let running = self.running.as_mut().expect("it runs");
        running.kill().expect("it can be killed");
        self.end()
    }

    /// Once it has ended; what it logged.
    pub(crate) fn end(&mut self) -> String {
        let running = self.running.take().expect("it was running");
        let output = running.wait_with_output().expect("it ends");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub(crate) fn status(&self) -> Value {
        let status = self.portcullis(&["status", "-o", "json"]);
        serde_json::from_slice(&status.stdout).unwrap_or_default()
    }

    pub(crate) fn applied(&self) -> Value {
        self.status()["agent"]["policy"]["applied"].clone()
    }

    /// Until it has applied another policy than it had before.
    pub(crate) fn wait_for_another(&self, before: &Value) {
        wait_until("a policy is applied", || {
            let applied = self.applied();
            !applied.is_null() && applied != *before
        });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.kill();
            let _ = running.wait();
        }
    }
}

pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
    }
}
