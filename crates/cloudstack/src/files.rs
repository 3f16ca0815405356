//! The files: the state, and the script's own that others read. All I/O of this crate.
//!
//! Each file is replaced as a whole: it is written beside its place, flushed, and renamed, so that who
//! reads it sees the old one or the new one. Two writers at once are the caller's to prevent.

use crate::log_files::{LogError, LogLine};
use crate::original::build::IpFile;
use crate::state::StateError;
use crate::{State, VmName};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What went wrong with which file. The file is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The state is there and can't be used. It isn't taken for an empty one, which would open or cut off
    /// every VM.
    #[error("the state of VMs {path} is damaged and not used: {error}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: StateError,
    },
    /// The world refused.
    #[error("{step} {path}: {source}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Reads the state. `None`: there is no such file, so nothing has been said to this host yet.
pub fn load(path: &Path) -> Result<Option<State>, FileError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("reading", path, source)),
    };
    let text = str::from_utf8(&bytes).map_err(|error| {
        let source = io::Error::new(io::ErrorKind::InvalidData, error);
        failed("reading", path, source)
    })?;
    let damaged = |error| FileError::Damaged {
        path: path.to_owned(),
        error,
    };
    State::from_json(text).map(Some).map_err(damaged)
}

/// Writes the state. It is on disk when this returns.
pub fn save(path: &Path, state: &State) -> Result<(), FileError> {
    replace(path, &state.to_json(), Durability::Disk)
}

/// Writes the line of a VM into `NAME.log`.
pub fn write_log(directory: &Path, line: &LogLine) -> Result<(), FileError> {
    replace(
        &log_path(directory, &line.vm),
        &format!("{line}\n"),
        Durability::Memory,
    )
}

/// Puts the script's files of a whole host in place of all that are there.
pub fn replace_all(
    directory: &Path,
    logs: &[LogLine],
    ip_files: &[IpFile],
) -> Result<(), FileError> {
    let mut kept = BTreeSet::new();
    for line in logs {
        write_log(directory, line)?;
        kept.insert(log_path(directory, &line.vm));
    }
    for file in ip_files {
        let path = directory.join(format!("{}.ip", file.vm));
        replace(&path, &format!("{}\n", file.line), Durability::Memory)?;
        kept.insert(path);
    }
    for path in scripts_files(directory)? {
        if !kept.contains(&path) {
            fs::remove_file(&path).map_err(|source| failed("removing", &path, source))?;
        }
    }
    Ok(())
}

/// Those that are named as a VM's.
fn scripts_files(directory: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed("reading", directory, source)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|source| failed("reading", directory, source))?
            .path();
        let is_kind = path.extension().is_some_and(|e| e == "log" || e == "ip");
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if is_kind && stem.is_some_and(|stem| VmName::new(stem).is_ok()) {
            files.push(path);
        }
    }
    Ok(files)
}

/// Removes a VM's `NAME.log`; there need not be one.
pub fn remove_log(directory: &Path, vm: &VmName) -> Result<(), FileError> {
    let path = log_path(directory, vm);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| failed("removing", &path, source)),
    }
}

/// Reads every `NAME.log` that is a VM's, by the VM's name. What one says under another's name, or as no
/// line, is an error of that one alone. No such directory: there are none.
pub fn read_logs(
    directory: &Path,
) -> Result<BTreeMap<VmName, Result<LogLine, LogError>>, FileError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(failed("reading", directory, source)),
    };
    let mut logs = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(|source| failed("reading", directory, source))?;
        let file = entry.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".log"));
        let Some(vm) = name.and_then(|name| VmName::new(name).ok()) else {
            continue;
        };
        let path = entry.path();
        let bytes = fs::read(&path).map_err(|source| failed("reading", &path, source))?;
        let text = String::from_utf8_lossy(&bytes);
        // The script reads the first line only.
        let line = LogLine::parse(text.lines().next().unwrap_or_default());
        let line = line.and_then(|line| line.named(&vm));
        logs.insert(vm, line);
    }
    Ok(logs)
}

/// A VM's name is no path: see [`VmName`].
fn log_path(directory: &Path, vm: &VmName) -> PathBuf {
    directory.join(format!("{vm}.log"))
}

/// What survives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// A crash of the host, too.
    Disk,
    /// A crash of this process. The script's files needn't outlive its VMs.
    Memory,
}

fn replace(path: &Path, text: &str, durability: Durability) -> Result<(), FileError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let written = fs::create_dir_all(directory).and_then(|()| {
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        if durability == Durability::Disk {
            file.sync_all()?;
        }
        fs::rename(&new, path)?;
        match durability {
            Durability::Disk => File::open(directory)?.sync_all(),
            Durability::Memory => Ok(()),
        }
    });
    written.map_err(|source| {
        // A half-written one would only take room.
        let _ = fs::remove_file(&new);
        failed("writing", path, source)
    })
}

fn failed(step: &'static str, path: &Path, source: io::Error) -> FileError {
    FileError::Io {
        step,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> LogLine {
        LogLine::parse(text).expect(text)
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a directory");
        let name = |e: io::Result<fs::DirEntry>| e.expect("an entry").file_name();
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        let text = |n: std::ffi::OsString| n.into_string().expect("UTF-8");
        names.into_iter().map(text).collect()
    }

    #[test]
    fn a_state_is_saved_and_loaded() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("deep/down/vms.json");
        assert_eq!(load(&path).expect("nothing yet"), None);
        save(&path, &State::default()).expect("written");
        assert_eq!(load(&path).expect("good"), Some(State::default()));
        assert_eq!(names(path.parent().expect("deep")), ["vms.json"]);
    }

    #[test]
    fn a_damaged_state_is_an_error_and_no_empty_state() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("vms.json");
        for bytes in [&b""[..], b"{", b"{\"version\":1", b"\xff\xfe", b"\0\0\0\0"] {
            fs::write(&path, bytes).expect("written");
            let error = load(&path).expect_err("damaged");
            let said = error.to_string();
            assert!(said.contains("vms.json"), "{said}");
            assert!(!said.contains('\n'), "{said}");
            assert_eq!(fs::read(&path).expect("still there"), bytes);
        }
        let error = load(directory.path()).expect_err("a directory is no file");
        assert!(matches!(error, FileError::Io { .. }));
    }

    #[test]
    fn a_state_that_cannot_be_written_leaves_the_old_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("vms.json");
        save(&path, &State::default()).expect("written");
        fs::create_dir(directory.path().join("vms.json.new")).expect("in the way");
        assert!(save(&path, &State::default()).is_err());
        assert_eq!(load(&path).expect("good"), Some(State::default()));
    }

    #[test]
    fn logs_are_written_read_and_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let cloud = directory.path().join("cloud");
        assert_eq!(read_logs(&cloud).expect("none").len(), 0);
        let first = line("i-2-10-VM,10,10.1.1.10,3,9a03,7");
        let second = line("r-4-VM,-1,_ignore_,4,_initial_,-1");
        write_log(&cloud, &first).expect("written");
        write_log(&cloud, &second).expect("written");
        assert_eq!(names(&cloud), ["i-2-10-VM.log", "r-4-VM.log"]);
        let text = fs::read_to_string(cloud.join("i-2-10-VM.log")).expect("there");
        assert_eq!(text, "i-2-10-VM,10,10.1.1.10,3,9a03,7\n");
        let logs = read_logs(&cloud).expect("read");
        let expected = [first.clone(), second.clone()].map(|l| (l.vm.clone(), Ok(l)));
        assert_eq!(logs, BTreeMap::from(expected));
        remove_log(&cloud, &first.vm).expect("removed");
        remove_log(&cloud, &first.vm).expect("already gone");
        assert_eq!(names(&cloud), ["r-4-VM.log"]);
    }

    #[test]
    fn all_of_a_host_s_files_are_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["i-2-10-VM.log", "i-2-9-VM.log", "i-2-9-VM.ip", "a b.log"] {
            fs::write(directory.path().join(name), "old\n").expect("written");
        }
        let first = line("i-2-10-VM,10,10.1.1.10,3,9a03,7");
        let addresses = IpFile {
            vm: first.vm.clone(),
            line: "i-2-10-VM,0;,10".to_owned(),
        };
        replace_all(directory.path(), &[first], &[addresses]).expect("written");
        assert_eq!(
            names(directory.path()),
            ["a b.log", "i-2-10-VM.ip", "i-2-10-VM.log"]
        );
        let read = |name| fs::read_to_string(directory.path().join(name)).expect("there");
        assert_eq!(read("i-2-10-VM.log"), "i-2-10-VM,10,10.1.1.10,3,9a03,7\n");
        assert_eq!(read("i-2-10-VM.ip"), "i-2-10-VM,0;,10\n");
        replace_all(&directory.path().join("none"), &[], &[]).expect("nothing to do");
    }

    #[test]
    fn strange_logs_harm_nobody_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            fs::write(directory.path().join(name), text).expect("written");
        };
        write("i-2-10-VM.log", "i-2-10-VM,10,10.1.1.10,3,9a03,7\nmore\n");
        write("i-2-11-VM.log", "");
        write("i-2-12-VM.log", "i-2-10-VM,10,10.1.1.10,3,9a03,7\n");
        write("i-2-10-VM.ip", "i-2-10-VM,0;,10\n");
        write("..log", "x");
        write("a b.log", "x");
        let logs = read_logs(directory.path()).expect("read");
        let good: Vec<(&str, bool)> = logs.iter().map(|(n, l)| (n.as_str(), l.is_ok())).collect();
        assert_eq!(
            good,
            [
                ("i-2-10-VM", true),
                ("i-2-11-VM", false),
                ("i-2-12-VM", false)
            ]
        );
    }
}
