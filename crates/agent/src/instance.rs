//! Where one agent keeps what it has to remember, and the lock that keeps it alone.
//!
//! ```text
//! <run>/<instance>/lock           held by the agent (flock); its pid is in it
//! <run>/<instance>/control.sock   where the agent is asked
//! <run>/<instance>/devices        devices that are ours: "<ifindex> <name>" by line
//! <run>/<instance>/iptables.*     what the iptables plane has to know
//! <run>/<instance>/confirmed      a first enforcement was confirmed, or needed no confirming
//! <state>/<instance>/policy.yaml  the last good policy (cache.rs)
//! ```
//! The run directory is gone after a reboot, as enforcement is; so what it says is never stale.
//! Knows nothing of: policies, planes.

use dataplane::Device;
use rustix::fs::FlockOperation;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
pub struct Instance {
    name: String,
    run_dir: PathBuf,
    state_dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    #[error("{0:?} can't name an instance: use up to 32 letters, digits, - and _")]
    Name(String),
    #[error("an agent for instance {instance} runs already (pid {pid}); nothing was changed")]
    Running { instance: String, pid: String },
    #[error("{step} {path}: {source}")]
    Io {
        step: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// Held while the agent lives; the kernel lets go of it with the process, however that ends.
#[derive(Debug)]
pub struct Lock(File);

impl Drop for Lock {
    /// By itself it would last as long as a program that is just being started has the file open, too.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl Instance {
    pub const RUN_ROOT: &str = "/run/portcullis";
    pub const STATE_ROOT: &str = "/var/lib/portcullis";

    pub fn new(name: &str, run_root: &Path, state_root: &Path) -> Result<Self, InstanceError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
            return Err(InstanceError::Name(name.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            run_dir: run_root.join(name),
            state_dir: state_root.join(name),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gone after a reboot.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    pub fn socket_path(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }

    pub fn cache_path(&self) -> PathBuf {
        self.state_dir.join("policy.yaml")
    }

    /// Makes the run directory, and keeps every other agent of this instance out.
    pub fn lock(&self) -> Result<Lock, InstanceError> {
        fs::create_dir_all(&self.run_dir)
            .map_err(|source| failed("creating", &self.run_dir, source))?;
        let path = self.run_dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| failed("opening", &path, source))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                // The other agent's number is only for the message.
                let _ = file.read_to_string(&mut pid);
                return Err(InstanceError::Running {
                    instance: self.name.clone(),
                    pid: pid.trim().to_owned(),
                });
            }
            Err(e) => return Err(failed("locking", &path, e.into())),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|source| failed("writing", &path, source))?;
        Ok(Lock(file))
    }

    /// Devices that an agent attached to since the last reboot. None when that can't be read: then
    /// those without a port are found by the plane's own marks alone.
    pub fn ours(&self) -> BTreeSet<Device> {
        let text = fs::read_to_string(self.run_dir.join("devices")).unwrap_or_default();
        let device = |line: &str| {
            let (ifindex, name) = line.split_once(' ')?;
            Some(Device {
                name: name.to_owned(),
                ifindex: ifindex.parse().ok()?,
            })
        };
        text.lines().filter_map(device).collect()
    }

    pub fn remember_ours(&self, ours: &BTreeSet<Device>) -> Result<(), InstanceError> {
        let lines: String = ours
            .iter()
            .map(|d| format!("{} {}\n", d.ifindex, d.name))
            .collect();
        let path = self.run_dir.join("devices");
        if fs::read_to_string(&path).is_ok_and(|known| known == lines) {
            return Ok(());
        }
        // Replaced as a whole, so that a kill leaves the old list or the new.
        let new = self.run_dir.join("devices.new");
        fs::write(&new, lines)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|source| failed("writing", &path, source))
    }

    pub fn is_confirmed(&self) -> bool {
        self.run_dir.join("confirmed").exists()
    }

    pub fn mark_confirmed(&self) -> Result<(), InstanceError> {
        let path = self.run_dir.join("confirmed");
        File::create(&path)
            .map(drop)
            .map_err(|source| failed("writing", &path, source))
    }

    /// After enforcement is removed: the next one is a first one again.
    pub fn forget(&self) -> Result<(), InstanceError> {
        for name in ["devices", "confirmed"] {
            let path = self.run_dir.join(name);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("removing", &path, e));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

fn failed(step: &'static str, path: &Path, source: io::Error) -> InstanceError {
    InstanceError::Io {
        step,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(root: &Path) -> Instance {
        Instance::new("blue", root, root).expect("a name")
    }

    #[test]
    fn one_agent_per_instance() {
        let root = tempfile::tempdir().expect("a directory");
        let lock = instance(root.path()).lock().expect("the first gets it");
        let error = instance(root.path())
            .lock()
            .expect_err("the second doesn't");
        let pid = std::process::id();
        let expected =
            format!("an agent for instance blue runs already (pid {pid}); nothing was changed");
        assert_eq!(error.to_string(), expected);
        drop(lock);
        instance(root.path()).lock().expect("it is free again");
    }

    #[test]
    fn names_stay_inside_the_directory() {
        for bad in ["", ".", "..", "a/b", "a b", "é", &"x".repeat(33)] {
            let result = Instance::new(bad, Path::new("/run"), Path::new("/var"));
            assert!(matches!(result, Err(InstanceError::Name(_))), "{bad}");
        }
    }

    #[test]
    fn what_is_ours_is_found_again_until_it_is_forgotten() {
        let root = tempfile::tempdir().expect("a directory");
        let instance = instance(root.path());
        let _lock = instance.lock().expect("it is free");
        let device = |ifindex, name: &str| Device {
            name: name.to_owned(),
            ifindex,
        };
        let ours = BTreeSet::from([device(7, "tap7"), device(8, "tap 8")]);
        instance.remember_ours(&ours).expect("it can be written");
        instance.mark_confirmed().expect("it can be written");
        assert_eq!(instance.ours(), ours);
        assert!(instance.is_confirmed());
        instance.forget().expect("it can be removed");
        instance.forget().expect("twice does no harm");
        assert_eq!(instance.ours(), BTreeSet::new());
        assert!(!instance.is_confirmed());
    }
}
