//! The operator's side: the policy file, `portcullis run`, and what it can be asked.
//!
//! Place on the line: policy file -> **agent** -> plane; everything here goes the operator's ways.
//! Knows nothing of: the machines and what they send.

use super::cast::Role;
use super::remains::Remains;
use super::wait_until;
use crate::control;
use crate::failure::Failure;
use crate::plane::{PlaneArgs, PlaneName};
use crate::policy_source::{InspectionArgs, look_named};
use agent::Instance;
use conformance::lab::Namespace;
use model::{DropReason, FlowKey, PortId};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Room for the demo's ports, and little more to load.
pub(crate) const MAX_PORTS: u32 = 16;

/// From a save to its enforcement on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Enforcement {
    remains: Remains,
    /// Where the devices are, and what iptables' programs change.
    host: Namespace,
    instance: Instance,
    directory: PathBuf,
    plane: PlaneArgs,
    program: PathBuf,
}

impl Enforcement {
    pub(crate) fn new(plane: PlaneArgs, host: &Namespace) -> Result<Self, Failure> {
        let program = std::env::current_exe()
            .map_err(|e| Failure::System(format!("demo: finding this program: {e}")))?;
        let remains = Remains::new(plane, host)?;
        Ok(Self {
            instance: remains.instance(),
            directory: remains.directory(),
            remains,
            host: host.clone(),
            plane,
            program,
        })
    }

    pub(crate) fn plane(&self) -> PlaneName {
        self.plane.plane
    }

    pub(crate) fn remains(&self) -> &Remains {
        &self.remains
    }

    pub(crate) fn policy_path(&self) -> PathBuf {
        self.directory.join("policy.yaml")
    }

    /// As editors save: a new file in the old one's place.
    pub(crate) fn save(&self, policy: &str) -> Result<(), Failure> {
        let (path, new) = (self.policy_path(), self.directory.join("policy.new"));
        fs::write(&new, policy)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|e| Failure::System(format!("demo: writing {}: {e}", path.display())))
    }

    /// Saves the policy, and waits until it is enforced; how long that took.
    pub(crate) fn edit(&self, policy: &str) -> Result<Duration, Failure> {
        let saved = Instant::now();
        self.save(policy)?;
        self.wait_enforced(policy)?;
        Ok(saved.elapsed())
    }

    pub(crate) fn start_agent(&self) -> Result<(), Failure> {
        let path = self.log_path();
        let log = File::options().append(true).create(true).open(&path);
        let log =
            log.map_err(|e| Failure::System(format!("demo: opening {}: {e}", path.display())))?;
        let mut command = self.command(&["run"]);
        command
            .arg("--policy")
            .arg(self.policy_path())
            .args(["--max-ports", &MAX_PORTS.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for the demo, which ends its agent itself.
            .process_group(0);
        self.remains.start(command)
    }

    /// By the command: enforcement is removed, and the agent ends.
    pub(crate) fn detach(&self) -> Result<(), Failure> {
        let output = self.ask(&["detach"])?;
        match output.status.success() {
            true => Ok(()),
            false => Err(Failure::System(format!(
                "demo: portcullis detach: {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            ))),
        }
    }

    pub(crate) fn kill_agent(&self) -> Result<(), Failure> {
        self.remains.kill_agent()
    }

    /// Until the agent says that this very text is in force at every port.
    pub(crate) fn wait_enforced(&self, policy: &str) -> Result<(), Failure> {
        let waited = wait_until("the policy to be enforced", PATIENCE, || {
            if let Some(status) = self.remains.agent_ended() {
                return Err(Failure::System(format!("the agent has ended: {status}")));
            }
            is_enforced(&self.instance, policy).map(|is| is.then_some(()))
        });
        waited.map_err(|failure| with_last_words(&failure, &self.log_path()))
    }

    /// What the agent answers to `portcullis status -o json`.
    pub(crate) fn status(&self) -> Result<Value, Failure> {
        status(&self.instance)
    }

    /// Packets that were dropped at the role's port, by reason.
    pub(crate) fn drops(&self, role: Role) -> Result<Vec<(DropReason, u64)>, Failure> {
        let status = self.status()?;
        let ports = status["ports"].as_array().map_or(&[][..], Vec::as_slice);
        let port = ports.iter().find(|port| port["port"] == role.name());
        let count = |reason: &DropReason| {
            let drops = port.map(|port| &port["drops"][reason.name()]["packets"]);
            (*reason, drops.and_then(Value::as_u64).unwrap_or(0))
        };
        Ok(DropReason::ALL.iter().map(count).collect())
    }

    pub(crate) fn dropped(&self, role: Role, reason: DropReason) -> Result<u64, Failure> {
        let drops = self.drops(role)?;
        let of_reason = drops.iter().filter(|(r, _)| *r == reason);
        Ok(of_reason.map(|(_, packets)| packets).sum())
    }

    /// The flow entries of the role's port, as they are in the kernel.
    pub(crate) fn flows(&self, role: Role) -> Result<BTreeSet<FlowKey>, Failure> {
        let port = PortId::new(role.name());
        let flows = self.host.run(|| {
            let mut plane = look_named(self.plane, &self.instance, InspectionArgs::default())?;
            plane.flows(Some(&port))
        })?;
        Ok(flows.into_iter().map(|flow| flow.key).collect())
    }

    /// A command of an operator on the demo's host.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<Output, Failure> {
        let mut command = self.command(words);
        let output = self.host.run(|| command.output());
        output.map_err(|e| Failure::System(format!("demo: portcullis {}: {e}", words.join(" "))))
    }

    /// This program as an operator would start it, asking about the demo's instance.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words);
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        command
    }

    /// With these set, every command is about the demo's instance.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.directory.join(name).display().to_string();
        let mut environment = self.plane.environment();
        environment.extend([
            ("PORTCULLIS_INSTANCE", self.instance.name().to_owned()),
            ("PORTCULLIS_RUN_DIR", path("run")),
            ("PORTCULLIS_STATE_DIR", path("state")),
        ]);
        environment
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }
}

impl Drop for Enforcement {
    /// However the demo ends, unless it is to be kept.
    fn drop(&mut self) {
        self.remains.clear_or_tell();
    }
}

/// Whether the agent says that this very text is in force at every port.
pub(super) fn is_enforced(instance: &Instance, policy: &str) -> Result<bool, Failure> {
    // Not listening yet.
    let Some(newest) = control::request(instance, "policy")? else {
        return Ok(false);
    };
    if newest["text"] != policy {
        return Ok(false);
    }
    let status = status(instance)?;
    let agent = &status["agent"];
    if let Some(error) = agent["apply_error"].as_str() {
        return Err(Failure::System(format!(
            "the policy isn't applied: {error}"
        )));
    }
    let ports = status["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let all = ports.iter().all(|port| port["state"] == "enforced");
    Ok(agent["policy"]["applied"] == newest["revision"] && all && !ports.is_empty())
}

fn status(instance: &Instance) -> Result<Value, Failure> {
    control::request(instance, "status")?.ok_or_else(|| {
        Failure::System(format!(
            "demo: no agent of instance {} answers",
            instance.name()
        ))
    })
}

/// What failed, and the end of the agent's log.
pub(super) fn with_last_words(failure: &Failure, log: &Path) -> Failure {
    let log = fs::read_to_string(log).unwrap_or_default();
    let last: Vec<&str> = log.lines().rev().take(10).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    let last = last.join("\n");
    Failure::System(format!("demo: {}; its last words:\n{last}", failure.text()))
}
