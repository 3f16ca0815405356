//! What this demo has on the machine outside of its namespaces, and how it goes again.
//!
//! ```text
//! /run/portcullis-demo-N/demo/lock        held while the demo runs
//!                       /cluster          certificates, the server's store, its log
//!                       /host-a, /host-b  of a host: agent.log, and /run, /state of its agent
//! ```
//! The agents' instances are demo-N-a and demo-N-b. Server and agents end with the demo, however it ends;
//! eBPF's enforcement doesn't.

use super::super::remains::{
    failed, instance, kill, make_directory, processes_of, remove_directory, remove_enforcement,
    tell_left,
};
use super::host::HostName;
use crate::failure::Failure;
use crate::plane::{self, PlaneArgs};
use agent::{Instance, Lock};
use conformance::lab::{Namespace, spawn_daemon};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Clones are of the same demo.
#[derive(Clone)]
pub(crate) struct Remains(Arc<Mutex<State>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Process {
    Server,
    Agent(HostName),
}

struct State {
    name: String,
    directory: PathBuf,
    plane: PlaneArgs,
    /// Where the devices are.
    hosts: BTreeMap<HostName, Namespace>,
    processes: BTreeMap<Process, Option<Child>>,
    /// Nothing is there any more, nor will be.
    over: bool,
    _lock: Lock,
}

impl Remains {
    pub(crate) fn new(plane: PlaneArgs) -> Result<Self, Failure> {
        let (name, directory, lock) = make_directory()?;
        Ok(Self(Arc::new(Mutex::new(State {
            name,
            directory,
            plane,
            hosts: BTreeMap::new(),
            processes: BTreeMap::new(),
            over: false,
            _lock: lock,
        }))))
    }

    /// Begins the names of the agents' instances.
    pub(crate) fn name(&self) -> String {
        self.state().name.clone()
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.state().directory.clone()
    }

    pub(crate) fn plane(&self) -> PlaneArgs {
        self.state().plane
    }

    pub(crate) fn instance(&self, host: HostName) -> Result<Instance, Failure> {
        let state = self.state();
        instance_of(&state.name, &state.directory, host)
    }

    /// Enforcement will be there.
    pub(crate) fn add_host(&self, host: HostName, namespace: &Namespace) {
        self.state().hosts.insert(host, namespace.clone());
    }

    pub(crate) fn start(
        &self,
        process: Process,
        namespace: &Namespace,
        command: Command,
    ) -> Result<(), Failure> {
        let mut state = self.state();
        if state.over {
            return Err(Failure::System("the demo is over".to_owned()));
        }
        let child = spawn_daemon(command, namespace.clone());
        let child = child.map_err(failed(format!("starting {process:?}")))?;
        state.processes.insert(process, Some(child));
        Ok(())
    }

    /// By `kill -9`, to its process alone.
    pub(crate) fn kill(&self, process: Process) -> Result<(), Failure> {
        let mut state = self.state();
        let child = state.processes.entry(process).or_default();
        kill(child).map_err(failed(format!("killing {process:?}")))
    }

    pub(crate) fn ended(&self, process: Process) -> Option<ExitStatus> {
        let mut state = self.state();
        let child = state.processes.get_mut(&process)?.as_mut()?;
        child.try_wait().ok().flatten()
    }

    /// Removes everything. Once is enough; more often does no harm.
    pub(crate) fn clear(&self) -> Result<(), Failure> {
        self.state().clear()
    }

    /// As `clear`, for where no error can be returned.
    pub(crate) fn clear_or_tell(&self) {
        if let Err(failure) = self.clear() {
            tell_left(&failure);
        }
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
    pub(crate) fn left(&self) -> Result<String, Failure> {
        let state = self.state();
        let mut left = Vec::new();
        for (host, namespace) in &state.hosts {
            let instance = instance_of(&state.name, &state.directory, *host)?;
            if namespace.run(|| plane::is_there(state.plane, &instance))? {
                left.push(format!("enforcement on {}", host.name()));
            }
        }
        if state.directory.exists() {
            left.push("files".to_owned());
        }
        let processes = processes_of(&state.directory);
        if processes > 0 {
            left.push(format!("{processes} processes"));
        }
        Ok(match left.is_empty() {
            true => "nothing".to_owned(),
            false => left.join(", "),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Who panicked while holding it left it as good as it was.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What fails keeps nothing else from being removed.
    fn clear(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.over, true) {
            return Ok(());
        }
        let mut done = Ok(());
        for child in self.processes.values_mut() {
            done = done.and(kill(child).map_err(failed("killing a process")));
        }
        for (host, namespace) in &self.hosts {
            let removed = instance_of(&self.name, &self.directory, *host)
                .and_then(|instance| namespace.run(|| remove_enforcement(self.plane, &instance)));
            done = done.and(removed);
        }
        // Without it `--down` wouldn't find the rest.
        done.and_then(|()| remove_directory(&self.directory))
    }
}

/// The enforcement of a demo that was killed: its processes have ended with it.
pub(crate) fn take_down(name: &str, directory: &Path) -> Result<(), Failure> {
    for host in HostName::ALL {
        if host_directory(directory, host).exists() {
            remove_enforcement(PlaneArgs::ebpf(), &instance_of(name, directory, host)?)?;
        }
    }
    Ok(())
}

pub(super) fn host_directory(directory: &Path, host: HostName) -> PathBuf {
    directory.join(format!("host-{}", host.name()))
}

fn instance_of(name: &str, directory: &Path, host: HostName) -> Result<Instance, Failure> {
    let name = format!("{name}-{}", host.name());
    instance(&name, &host_directory(directory, host))
}
