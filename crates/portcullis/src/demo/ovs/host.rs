//! A host: its switch, and `portcullis run` as its operator starts it.
//!
//! Place on the line: policy file -> **agent** -> plane.
//! Knows nothing of: the machines and what they send.

use super::super::enforcement::{is_enforced, with_last_words};
use super::super::wait_until;
use super::cast::HostName;
use super::remains::Remains;
use crate::failure::Failure;
use agent::Instance;
use conformance::lab::{Lab, OpenVswitch};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// The bridge that the plane drives whole.
pub(crate) const BRIDGE: &str = "br-int";
/// From a save to its enforcement on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Host {
    name: HostName,
    /// Before the lab: its daemons are in the lab's namespace.
    pub(crate) switch: OpenVswitch,
    pub(crate) lab: Lab,
    remains: Remains,
    instance: Instance,
    directory: PathBuf,
    policy: PathBuf,
    program: PathBuf,
}

impl Host {
    pub(crate) fn new(name: HostName, remains: &Remains, policy: PathBuf) -> Result<Self, Failure> {
        let program = std::env::current_exe()
            .map_err(|e| Failure::System(format!("demo: finding this program: {e}")))?;
        let directory = remains.directory().join(name.name());
        fs::create_dir(&directory)
            .map_err(|e| Failure::System(format!("demo: making {}: {e}", directory.display())))?;
        let lab = Lab::new(name.name())?;
        let switch = OpenVswitch::start_in(directory.join("ovs"), lab.host())?;
        switch.add_bridge(BRIDGE, true)?;
        Ok(Self {
            name,
            switch,
            lab,
            remains: remains.clone(),
            instance: remains.instance(name)?,
            directory,
            policy,
            program,
        })
    }

    pub(crate) fn start_agent(&self) -> Result<(), Failure> {
        let path = self.log_path();
        let log = File::options().append(true).create(true).open(&path);
        let log =
            log.map_err(|e| Failure::System(format!("demo: opening {}: {e}", path.display())))?;
        let mut command = self.command(&["run"]);
        command
            .arg("--policy")
            .arg(&self.policy)
            .args(["--host", self.name.name()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for the demo, which ends its agents itself.
            .process_group(0);
        self.remains.start(self.name, self.lab.host(), command)
    }

    pub(crate) fn kill_agent(&self) -> Result<(), Failure> {
        self.remains.kill_agent(self.name)
    }

    /// Until the agent says that this very text is in force at every port.
    pub(crate) fn wait_enforced(&self, policy: &str) -> Result<(), Failure> {
        let what = format!("the policy to be enforced on {}", self.name.name());
        let waited = wait_until(&what, PATIENCE, || {
            if let Some(status) = self.remains.agent_ended(self.name) {
                return Err(Failure::System(format!("the agent has ended: {status}")));
            }
            is_enforced(&self.instance, policy).map(|is| is.then_some(()))
        });
        waited.map_err(|failure| with_last_words(&failure, &self.log_path()))
    }

    /// A command of an operator on this host.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<Output, Failure> {
        let mut command = self.command(words);
        let output = self.lab.host().run(|| command.output());
        output.map_err(|e| Failure::System(format!("demo: portcullis {}: {e}", words.join(" "))))
    }

    /// The flows of the bridge without what moves.
    pub(crate) fn flows(&self) -> Result<BTreeSet<String>, Failure> {
        let told = self
            .switch
            .ofctl(&format!("--no-stats dump-flows {BRIDGE}"))?;
        let lines = told.lines().filter(|line| line.contains("actions="));
        Ok(lines.map(|line| line.trim().to_owned()).collect())
    }

    fn command(&self, words: &[&str]) -> Command {
        let path = |name: &str| self.directory.join(name);
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .env("PORTCULLIS_PLANE", "ovs")
            .env("PORTCULLIS_OVS_RUN_DIR", self.switch.run_dir())
            .env("PORTCULLIS_INSTANCE", self.instance.name())
            .env("PORTCULLIS_RUN_DIR", path("run"))
            .env("PORTCULLIS_STATE_DIR", path("state"));
        command
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("agent.log")
    }
}
