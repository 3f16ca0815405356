//! What this demo has on the machine outside of its namespaces, and how it goes again.
//!
//! ```text
//! /run/portcullis-demo-N/demo/lock    held while the demo runs
//!                       /policy.yaml  the policy file of both hosts
//!                       /a, /b        of a host: agent.log, and /run, /state of its agent
//!                       /a/ovs        what its switch keeps, with its sockets
//! ```
//! Enforcement is in the switches, and these end with the demo, as the namespaces do.

use super::super::remains::{
    end_agent, failed, instance, kill, make_directory, processes_of, remove_directory, tell_left,
};
use super::cast::HostName;
use crate::failure::Failure;
use agent::{Instance, Lock};
use conformance::lab::Namespace;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Clones are of the same demo.
#[derive(Clone)]
pub(crate) struct Remains(Arc<Mutex<State>>);

/// Removes everything however the demo ends: who waits for signals has a clone until the process is gone.
pub(crate) struct Clearing(pub(crate) Remains);

struct State {
    name: String,
    directory: PathBuf,
    agents: BTreeMap<HostName, Option<Child>>,
    /// Nothing is there any more, nor will be.
    over: bool,
    _lock: Lock,
}

impl Remains {
    pub(crate) fn new() -> Result<Self, Failure> {
        let (name, directory, lock) = make_directory()?;
        Ok(Self(Arc::new(Mutex::new(State {
            name,
            directory,
            agents: BTreeMap::new(),
            over: false,
            _lock: lock,
        }))))
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.state().directory.clone()
    }

    pub(crate) fn instance(&self, host: HostName) -> Result<Instance, Failure> {
        let state = self.state();
        instance(&state.name, &state.directory.join(host.name()))
    }

    /// Starts the agent of a host.
    pub(crate) fn start(
        &self,
        host: HostName,
        namespace: &Namespace,
        mut command: Command,
    ) -> Result<(), Failure> {
        let mut state = self.state();
        if state.over {
            return Err(Failure::System("the demo is over".to_owned()));
        }
        let child = namespace.run(|| command.spawn());
        let child = child.map_err(failed("starting an agent"))?;
        state.agents.insert(host, Some(child));
        Ok(())
    }

    /// By `kill -9`, to its process alone.
    pub(crate) fn kill_agent(&self, host: HostName) -> Result<(), Failure> {
        let mut state = self.state();
        let agent = state.agents.entry(host).or_default();
        kill(agent).map_err(failed("killing an agent"))
    }

    pub(crate) fn agent_ended(&self, host: HostName) -> Option<ExitStatus> {
        let mut state = self.state();
        let agent = state.agents.get_mut(&host)?.as_mut()?;
        agent.try_wait().ok().flatten()
    }

    /// Removes everything. Once is enough; more often does no harm.
    pub(crate) fn clear(&self) -> Result<(), Failure> {
        self.state().clear()
    }

    /// Removes everything and ends the process, with nothing begun anew in between.
    pub(crate) fn clear_and_exit(&self, code: i32) -> ! {
        let mut state = self.state();
        if let Err(failure) = state.clear() {
            tell_left(&failure);
        }
        std::process::exit(code)
    }

    /// What of this demo is still on the machine, in words.
    pub(crate) fn left(&self) -> String {
        let state = self.state();
        let mut left = Vec::new();
        if state.directory.exists() {
            left.push("files".to_owned());
        }
        let processes = processes_of(&state.directory);
        if processes > 0 {
            left.push(format!("{processes} processes"));
        }
        match left.is_empty() {
            true => "nothing".to_owned(),
            false => left.join(", "),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Who panicked while holding it left it as good as it was.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn clear(&mut self) -> Result<(), Failure> {
        /// A switch that just starts may put one more file into its directory.
        const TRIES: usize = 10;
        if std::mem::replace(&mut self.over, true) {
            return Ok(());
        }
        for agent in self.agents.values_mut() {
            kill(agent).map_err(failed("killing an agent"))?;
        }
        for _ in 1..TRIES {
            if remove_directory(&self.directory).is_ok() && !self.directory.exists() {
                return Ok(());
            }
        }
        remove_directory(&self.directory)
    }
}

impl Drop for Clearing {
    fn drop(&mut self) {
        if let Err(failure) = self.0.clear() {
            tell_left(&failure);
        }
    }
}

/// Of a demo that was killed, and whose switches have ended therefore.
pub(crate) fn end_agents(name: &str, directory: &Path) -> Result<(), Failure> {
    for host in HostName::ALL {
        let directory = directory.join(host.name());
        if directory.exists() {
            end_agent(&instance(name, &directory)?)?;
        }
    }
    Ok(())
}
