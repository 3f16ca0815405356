//! `portcullis run` as an operator has it: a policy file, an agent, `status` to see what is in force.

use crate::Failure;
use crate::command::{output, run, words};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) struct Enforcement<'a> {
    portcullis: &'a Path,
    /// For the policy file and the log.
    directory: &'a Path,
    /// Straight from tap to tap; for the next agent.
    pub(crate) direct: bool,
    agent: Option<Agent>,
}

/// `portcullis run`, killed when dropped: its enforcement stays, as it should.
struct Agent {
    child: Child,
    log: PathBuf,
}

/// Of `portcullis status -o json`: which process says so, the newest revision, and the enforced one.
#[derive(Debug, Default, PartialEq, Eq)]
struct InForce {
    agent: String,
    read: String,
    applied: String,
}

/// A write of the policy to its enforcement, on a host that emulates two machines besides.
const ENFORCED: Duration = Duration::from_secs(20);

impl<'a> Enforcement<'a> {
    pub(crate) fn new(portcullis: &'a Path, directory: &'a Path, direct: bool) -> Self {
        Enforcement {
            portcullis,
            directory,
            direct,
            agent: None,
        }
    }

    /// Writes the policy file, starts the agent if there is none, and waits until it is enforced.
    pub(crate) fn enforce(&mut self, policy: &str) -> Result<(), Failure> {
        let before = self.in_force().unwrap_or_default();
        self.write(policy)?;
        if self.agent.is_none() {
            self.start_agent()?;
        }
        self.wait_enforced(&before)
    }

    pub(crate) fn write(&self, policy: &str) -> Result<(), Failure> {
        let path = self.directory.join("policy.yaml");
        let new = self.directory.join("policy.new");
        fs::write(&new, policy).map_err(|e| Failure::at(&new, e))?;
        fs::rename(&new, &path).map_err(|e| Failure::at(&path, e))
    }

    pub(crate) fn start_agent(&mut self) -> Result<(), Failure> {
        let log = self.directory.join("portcullis.log");
        let file = File::create(&log).map_err(|e| Failure::at(&log, e))?;
        let mut command = Command::new(self.portcullis);
        command
            .args(["run", "--policy"])
            .arg(self.directory.join("policy.yaml"))
            .args(self.direct.then_some("--direct"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        let child = command.spawn();
        let child = child.map_err(|e| Failure::new(format!("{}: {e}", words(&command))))?;
        self.agent = Some(Agent { child, log });
        Ok(())
    }

    /// `kill -9`.
    pub(crate) fn kill_agent(&mut self) {
        self.agent = None;
    }

    /// Until something else is in force than before, and it is the newest policy.
    fn wait_enforced(&mut self, before: &InForce) -> Result<(), Failure> {
        let end = Instant::now() + ENFORCED;
        loop {
            let now = self.in_force();
            if let Ok(now) = &now
                && now != before
                && now.read == now.applied
                && now.applied != "null"
            {
                return Ok(());
            }
            let agent = self.agent.as_mut().expect("it was started");
            let ended = agent.child.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() > end {
                let said = fs::read_to_string(&agent.log).unwrap_or_default();
                let state = ended.map_or("runs".to_owned(), |status| status.to_string());
                return Err(Failure::new(format!(
                    "the policy isn't enforced: {now:?}; the agent ({state}) said:\n{said}"
                )));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn in_force(&self) -> Result<InForce, Failure> {
        let text = output(Command::new(self.portcullis).args(["status", "-o", "json"]))?;
        let field = |name: &str| {
            let (_, rest) = text.split_once(&format!("\"{name}\":"))?;
            let end = rest.find([',', '}', '\n'])?;
            Some(rest[..end].trim().to_owned())
        };
        let fields = (field("pid"), field("read"), field("applied"));
        let (Some(agent), Some(read), Some(applied)) = fields else {
            return Err(Failure::new(format!("portcullis status says: {text}")));
        };
        Ok(InForce {
            agent,
            read,
            applied,
        })
    }

    pub(crate) fn detach(&mut self) -> Result<(), Failure> {
        self.kill_agent();
        run(Command::new(self.portcullis).arg("detach"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
