//! Labs that are left behind on purpose, to look around in them.

use super::{Lab, LabError, Namespace, failed};
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::ptr;

/// Where `ip netns` looks for names.
const DIRECTORY: &str = "/run/netns";
const PREFIX: &str = "pc-";

/// A namespace that now has a name: `nsenter --net=PATH` enters it and leaves `/sys/fs/bpf` in sight,
/// which `ip netns exec` does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// `host`, or the VM's name.
    pub role: String,
    pub path: String,
}

impl Lab {
    /// Gives names to the namespaces, so that they outlive the process.
    pub fn keep(&self) -> Result<Vec<Kept>, LabError> {
        let vms = self.vms.iter().map(|vm| (vm.name.as_str(), &vm.namespace));
        [("host", self.host())]
            .into_iter()
            .chain(vms)
            .map(|(role, namespace)| keep(&self.prefix, role, namespace))
            .collect()
    }
}

/// What was kept by processes that are gone, or by this one.
pub fn kept() -> Vec<String> {
    let Ok(entries) = fs::read_dir(DIRECTORY) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(PREFIX)).collect();
    names.sort();
    names
}

/// Takes the names away again; the kernel removes what was in the namespaces. How many there were.
pub fn remove_kept() -> Result<usize, LabError> {
    let names = kept();
    for name in &names {
        let path = format!("{DIRECTORY}/{name}");
        let text = CString::new(path.as_str()).expect("a file name has no 0 inside");
        // SAFETY: a string that ends with 0.
        let gone = unsafe { libc::umount2(text.as_ptr(), libc::MNT_DETACH) };
        let error = io::Error::last_os_error();
        // A name that nothing is mounted on is left from a failed attempt; one that is gone, somebody else's work.
        if gone != 0 && !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) {
            return Err(failed(format!("unmounting {path}"))(error));
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(format!("removing {path}"))(error));
            }
            _ => {}
        }
    }
    Ok(names.len())
}

fn keep(unique: &str, role: &str, namespace: &Namespace) -> Result<Kept, LabError> {
    let path = format!(
        "{DIRECTORY}/{PREFIX}{}-{role}",
        unique.trim_end_matches('-')
    );
    let step = || failed(format!("naming a namespace {path}"));
    fs::create_dir_all(Path::new(DIRECTORY)).map_err(step())?;
    File::create(&path).map_err(step())?;
    let from = CString::new(namespace.path()).expect("a path of digits");
    let to = CString::new(path.as_str()).map_err(|error| step()(error.into()))?;
    // SAFETY: two strings that end with 0; a bind mount takes no other arguments.
    let mounted = unsafe {
        libc::mount(
            from.as_ptr(),
            to.as_ptr(),
            ptr::null(),
            libc::MS_BIND,
            ptr::null(),
        )
    };
    if mounted != 0 {
        let error = io::Error::last_os_error();
        let _ = fs::remove_file(&path);
        return Err(step()(error));
    }
    Ok(Kept {
        role: role.to_owned(),
        path,
    })
}
