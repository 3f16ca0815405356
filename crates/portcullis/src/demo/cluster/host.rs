//! A host: its bridge, and `portcullis agent` as its operator starts it.
//!
//! Place on the line: server -> **agent** -> plane.
//! Knows nothing of: the policy, the machines and what they send.

use super::super::enforcement::{MAX_PORTS, with_last_words};
use super::super::wait_until;
use super::remains::{Process, Remains, host_directory};
use super::server::AGENTS;
use crate::control;
use crate::failure::Failure;
use agent::Instance;
use conformance::lab::Lab;
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

pub(crate) const BRIDGE: &str = "br0";
/// Until something is enforced, on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HostName {
    A,
    B,
}

pub(crate) struct Host {
    pub(crate) name: HostName,
    pub(crate) lab: Lab,
    remains: Remains,
    instance: Instance,
    directory: PathBuf,
}

impl Host {
    pub(crate) fn new(name: HostName, remains: &Remains) -> Result<Self, Failure> {
        let directory = host_directory(&remains.directory(), name);
        fs::create_dir(&directory)
            .map_err(|e| Failure::System(format!("demo: making {}: {e}", directory.display())))?;
        let lab = Lab::new(name.name())?;
        lab.add_bridge(BRIDGE)?;
        remains.add_host(name, lab.host());
        Ok(Self {
            name,
            lab,
            remains: remains.clone(),
            instance: remains.instance(name)?,
            directory,
        })
    }

    /// As one types it where the certificates are.
    pub(crate) fn words(&self) -> String {
        format!("agent --server {AGENTS} --host {}", self.name.name())
    }

    pub(crate) fn start_agent(&self) -> Result<(), Failure> {
        let path = self.log_path();
        let log = File::options().append(true).create(true).open(&path);
        let log =
            log.map_err(|e| Failure::System(format!("demo: opening {}: {e}", path.display())))?;
        let mut command = self.command(&self.words())?;
        command
            .args(["--max-ports", &MAX_PORTS.to_string()])
            .current_dir(self.remains.directory().join("cluster"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for the demo, which ends its agents itself.
            .process_group(0);
        let process = Process::Agent(self.name);
        self.remains.start(process, self.lab.host(), command)
    }

    pub(crate) fn kill_agent(&self) -> Result<(), Failure> {
        self.remains.kill(Process::Agent(self.name))
    }

    /// Until the agent says that it has applied a policy, at every port; whose policy that is.
    pub(crate) fn wait_enforced(&self) -> Result<String, Failure> {
        self.wait_until("to enforce", |status| {
            let policy = &status["agent"]["policy"];
            let ports = status["ports"].as_array().map_or(&[][..], Vec::as_slice);
            let all = ports.iter().all(|port| port["state"] == "enforced") && !ports.is_empty();
            (all && policy["applied"].is_string()).then(|| text(&policy["source"]))
        })
    }

    pub(crate) fn wait_until<T>(
        &self,
        what: &str,
        mut ready: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T, Failure> {
        let what = format!("the agent of {} {what}", self.name.name());
        let waited = wait_until(&what, PATIENCE, || {
            if let Some(status) = self.remains.ended(Process::Agent(self.name)) {
                return Err(Failure::System(format!("the agent has ended: {status}")));
            }
            // Not listening yet.
            let status = control::request(&self.instance, "status")?;
            Ok(status.as_ref().and_then(&mut ready))
        });
        waited.map_err(|failure| with_last_words(&failure, &self.log_path()))
    }

    /// Until what the server committed is in force.
    pub(crate) fn wait_for_commit(&self, commit: u64) -> Result<(), Failure> {
        self.wait_until("to apply a change", |status| {
            let applied = text(&status["agent"]["policy"]["applied"]);
            let (_, applied) = applied.split_once('.')?;
            (applied.parse::<u64>().ok()? >= commit).then_some(())
        })
    }

    /// Until the agent has written its policy to disk, as it does some seconds after a change.
    pub(crate) fn wait_cached(&self, since: SystemTime) -> Result<(), Failure> {
        let path = self.instance.cache_path();
        self.wait_until("to keep its policy", |_| {
            let written = fs::metadata(&path).and_then(|found| found.modified());
            written.is_ok_and(|at| at > since).then_some(())
        })
    }

    /// By the command: enforcement is removed, and the agent ends.
    pub(crate) fn detach(&self) -> Result<(), Failure> {
        let mut command = self.command("detach")?;
        let output = self.lab.host().run(|| command.output());
        let output =
            output.map_err(|e| Failure::System(format!("demo: portcullis detach: {e}")))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(Failure::System(format!(
                "demo: portcullis detach: {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            ))),
        }
    }

    fn command(&self, words: &str) -> Result<Command, Failure> {
        let mut command = this_program(words)?;
        let path = |name: &str| self.directory.join(name);
        command
            .envs(self.remains.plane().environment())
            .env("PORTCULLIS_INSTANCE", self.instance.name())
            .env("PORTCULLIS_RUN_DIR", path("run"))
            .env("PORTCULLIS_STATE_DIR", path("state"));
        Ok(command)
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("agent.log")
    }
}

impl HostName {
    pub(crate) const ALL: [HostName; 2] = [HostName::A, HostName::B];

    pub(crate) fn name(self) -> &'static str {
        match self {
            HostName::A => "a",
            HostName::B => "b",
        }
    }

    /// Where the hosts reach each other; no machine does.
    pub(crate) fn address(self) -> &'static str {
        match self {
            HostName::A => "198.51.100.1",
            HostName::B => "198.51.100.2",
        }
    }
}

/// With words apart by blanks.
pub(super) fn this_program(words: &str) -> Result<Command, Failure> {
    let program = std::env::current_exe()
        .map_err(|e| Failure::System(format!("demo: finding this program: {e}")))?;
    let mut command = Command::new(program);
    command.args(words.split(' '));
    Ok(command)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
