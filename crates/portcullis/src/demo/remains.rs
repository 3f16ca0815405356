//! What a demo has on the machine outside of its namespaces, and how it goes again.
//!
//! ```text
//! /run/portcullis-demo-N/demo/lock    held while the demo runs
//!                       /policy.yaml  the policy file
//!                       /agent.log    what `portcullis run` says
//!                       /run, /state  where the agent of instance demo-N keeps its things
//!                       /namespaces   names of those that were kept
//! ```
//! The namespaces themselves end with their last process and need nobody.
//! Whatever way the demo ends, [`Remains::clear`] comes by: at the end of the demo, when it fails or
//! panics (when `Enforcement` is dropped), and from the thread that takes the signals.

use super::wait_until;
use crate::control;
use crate::failure::Failure;
use crate::plane::{self, PlaneArgs};
use agent::{Instance, InstanceError, Lock};
use conformance::lab::Namespace;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const ROOT: &str = "/run";
const PREFIX: &str = "portcullis-";

/// Clones are of the same demo.
#[derive(Clone)]
pub(crate) struct Remains(Arc<Mutex<State>>);

struct State {
    instance: Instance,
    directory: PathBuf,
    plane: PlaneArgs,
    /// Where the devices are.
    host: Namespace,
    agent: Option<Child>,
    /// Nothing is there any more, or it is meant to stay.
    over: bool,
    _lock: Lock,
}

impl Remains {
    pub(crate) fn new(plane: PlaneArgs, host: &Namespace) -> Result<Self, Failure> {
        let (name, directory, lock) = make_directory()?;
        Ok(Self(Arc::new(Mutex::new(State {
            instance: instance(&name, &directory)?,
            directory,
            plane,
            host: host.clone(),
            agent: None,
            over: false,
            _lock: lock,
        }))))
    }

    pub(crate) fn instance(&self) -> Instance {
        self.state().instance.clone()
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.state().directory.clone()
    }

    /// Starts the agent on the demo's host.
    pub(crate) fn start(&self, mut command: Command) -> Result<(), Failure> {
        let mut state = self.state();
        if state.over {
            return Err(Failure::System("the demo is over".to_owned()));
        }
        let child = state.host.run(|| command.spawn());
        state.agent = Some(child.map_err(failed("starting the agent"))?);
        Ok(())
    }

    /// By `kill -9`, to its process alone.
    pub(crate) fn kill_agent(&self) -> Result<(), Failure> {
        kill(&mut self.state().agent).map_err(failed("killing the agent"))
    }

    pub(crate) fn agent_ended(&self) -> Option<ExitStatus> {
        let mut state = self.state();
        state.agent.as_mut()?.try_wait().ok().flatten()
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

    /// What of this demo is still on the machine, in words.
    pub(crate) fn left(&self) -> Result<String, Failure> {
        let state = self.state();
        let mut left = Vec::new();
        let (plane, instance) = (state.plane, &state.instance);
        if state.host.run(|| plane::is_there(plane, instance))? {
            left.push("enforcement");
        }
        if state.directory.exists() {
            left.push("files");
        }
        Ok(match left.is_empty() {
            true => "nothing".to_owned(),
            false => left.join(", "),
        })
    }

    /// Removes everything and ends the process, with nothing begun anew in between.
    pub(crate) fn clear_and_exit(&self, code: i32) -> ! {
        let mut state = self.state();
        if let Err(failure) = state.clear() {
            tell_left(&failure);
        }
        std::process::exit(code)
    }

    /// Leaves everything as it is. The namespaces are named for [`take_down`].
    pub(crate) fn keep(&self, namespaces: &[String]) -> Result<(), Failure> {
        let mut state = self.state();
        fs::write(state.directory.join("namespaces"), namespaces.join("\n"))
            .map_err(failed("writing which namespaces are kept"))?;
        state.over = true;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Who panicked while holding it left it as good as it was.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn clear(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.over, true) {
            return Ok(());
        }
        let (plane, instance) = (self.plane, &self.instance);
        let killed = kill(&mut self.agent).map_err(failed("killing the agent"));
        let host = &self.host;
        let removed = host.run(|| remove_enforcement(plane, instance));
        killed?;
        removed?;
        remove_directory(&self.directory)
    }
}

pub(super) fn tell_left(failure: &Failure) {
    eprintln!(
        "portcullis: something of the demo is left: {}; `portcullis demo --down` may remove it",
        failure.text()
    );
}

/// Removes what demos left that run no more. Those that run are left alone.
///
/// Of the planes only eBPF's enforcement outlives the namespaces of a demo. iptables' is never looked for:
/// what there is in this namespace is the machine's own.
pub(crate) fn take_down() -> Result<(), Failure> {
    let mut found = 0;
    for (name, directory) in directories().map_err(failed("looking into /run"))? {
        found += 1;
        let _lock = match lock(&directory) {
            Ok(lock) => lock,
            Err(InstanceError::Running { pid, .. }) => {
                crate::output::say(&format!("{name} is running (pid {pid}); Ctrl-C ends it\n"));
                continue;
            }
            Err(error) => return Err(Failure::system(error)),
        };
        let instance = instance(&name, &directory)?;
        end_agent(&instance)?;
        super::ovs::end_agents(&name, &directory)?;
        super::cluster::take_down(&name, &directory)?;
        remove_enforcement(PlaneArgs::ebpf(), &instance)?;
        let kept = fs::read_to_string(directory.join("namespaces")).unwrap_or_default();
        for namespace in kept.lines() {
            remove_namespace(namespace)?;
        }
        remove_directory(&directory)?;
        crate::output::say(&format!("{name} is removed\n"));
    }
    if found == 0 {
        crate::output::say("no demo was kept\n");
    }
    Ok(())
}

/// Is there something that a demo left? Of one that runs this can't be said.
pub(crate) fn left_behind() -> Vec<String> {
    let directories = directories().unwrap_or_default();
    let left = directories
        .into_iter()
        .filter(|(_, path)| lock(path).is_ok());
    left.map(|(name, _)| name).collect()
}

/// The first free one of `demo-PID`, `demo-PID-1` ...: a killed demo may have had our number. It is
/// locked before it has its name, so that nobody takes it for one that was left.
pub(super) fn make_directory() -> Result<(String, PathBuf, Lock), Failure> {
    const TRIES: u32 = 100;
    let pid = std::process::id();
    let new = Path::new(ROOT).join(format!(".{PREFIX}demo-{pid}"));
    let mut builder = DirBuilder::new();
    let made = builder.mode(0o700).recursive(true).create(&new);
    made.map_err(failed(format!("making {}", new.display())))?;
    let lock = lock(&new).map_err(Failure::system)?;
    for attempt in 0..TRIES {
        let name = match attempt {
            0 => format!("demo-{pid}"),
            attempt => format!("demo-{pid}-{attempt}"),
        };
        let directory = Path::new(ROOT).join(format!("{PREFIX}{name}"));
        match fs::rename(&new, &directory) {
            Ok(()) => return Ok((name, directory, lock)),
            Err(e) => match e.kind() {
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {}
                _ => return Err(failed(format!("making {}", directory.display()))(e)),
            },
        }
    }
    Err(Failure::System(format!(
        "{TRIES} demos of process {pid} were left in {ROOT}; `portcullis demo --down` removes them"
    )))
}

/// The same kind of lock that keeps agents apart.
fn lock(directory: &Path) -> Result<Lock, InstanceError> {
    Instance::new("demo", directory, directory)?.lock()
}

fn directories() -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(ROOT)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_prefix(PREFIX)
            && name.starts_with("demo-")
        {
            found.push((name.to_owned(), entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

pub(super) fn instance(name: &str, directory: &Path) -> Result<Instance, Failure> {
    Instance::new(name, &directory.join("run"), &directory.join("state")).map_err(Failure::system)
}

/// Asks an agent that still runs to remove its enforcement and end, and waits until it has.
pub(super) fn end_agent(instance: &Instance) -> Result<(), Failure> {
    // One that could not answer may have ended all the same.
    if let Ok(None) = control::request(instance, "detach") {
        return Ok(());
    }
    let what = format!("the agent of {} to end", instance.name());
    wait_until(&what, Duration::from_secs(10), || Ok(instance.lock().ok())).map(drop)
}

pub(super) fn remove_enforcement(plane: PlaneArgs, instance: &Instance) -> Result<(), Failure> {
    if plane::remove(plane, instance)? {
        return Ok(());
    }
    // An agent that was killed while it loaded leaves a part, which only a whole start takes up.
    if plane::is_there(plane, instance)? {
        plane::open(plane, instance, super::enforcement::MAX_PORTS, false)?
            .as_plane()
            .detach()
            .map_err(Failure::system)?;
    }
    Ok(())
}

fn remove_namespace(name: &str) -> Result<(), Failure> {
    let done = Command::new("ip").args(["netns", "del", name]).output();
    let done = done.map_err(failed(format!("ip netns del {name}")))?;
    // A name that somebody removed before us is gone as well.
    match done.status.success() || !Path::new("/run/netns").join(name).exists() {
        true => Ok(()),
        false => Err(Failure::System(format!(
            "ip netns del {name}: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        ))),
    }
}

pub(super) fn remove_directory(directory: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(directory) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(failed(format!("removing {}", directory.display()))(e))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(super) fn kill(agent: &mut Option<Child>) -> io::Result<()> {
    let Some(mut child) = agent.take() else {
        return Ok(());
    };
    child.kill()?;
    child.wait().map(drop)
}

/// How many were told of the directory when they were started.
pub(super) fn processes_of(directory: &Path) -> usize {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let wanted = directory.as_os_str().as_bytes();
    let has = |text: Vec<u8>| text.windows(wanted.len()).any(|part| part == wanted);
    let of_it = entries.filter(|entry| {
        // Most have none, or end just now.
        let read = |file| fs::read(entry.path().join(file)).unwrap_or_default();
        ["cmdline", "environ"].map(read).into_iter().any(has)
    });
    of_it.count()
}

pub(super) fn failed(step: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    let step = step.into();
    move |error| Failure::System(format!("demo: {step}: {error}"))
}
