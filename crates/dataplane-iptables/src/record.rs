//! What a process leaves for the next one: which number stands for what, and what is in force.
//!
//! ```text
//! iptables.json   all of it; there while nobody is at work
//! iptables.busy   the same, of before the change that somebody is at work on, or died over
//! ```
//! It holds as long as the network namespace and the machine run. Of another build of the program only the
//! numbers are used: what it left may look otherwise. Lost, all is written anew once.
//! Knows nothing of: what the kernel holds now.

mod file;

use crate::books::Books;
use crate::stamps::Stamps;
use dataplane::{Bridge, Device, Target};
use file::{Enforced, Known, Written};
use model::PortId;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) books: Books,
    /// `None`: not known.
    pub(crate) in_force: Option<InForce>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InForce {
    /// The view's digest.
    pub(crate) view: u64,
    pub(crate) devices: BTreeMap<PortId, Device>,
    pub(crate) closed: BTreeSet<Device>,
    pub(crate) bridges: BTreeMap<Device, Bridge>,
    /// `None`: somebody else changed something meanwhile.
    pub(crate) stamps: Option<Stamps>,
}

/// Without a directory nothing is kept.
#[derive(Clone, Debug)]
pub(crate) struct RecordFile(Option<Paths>);

#[derive(Clone, Debug)]
struct Paths {
    path: PathBuf,
    busy: PathBuf,
}

impl RecordFile {
    pub(crate) fn in_directory(directory: Option<&Path>) -> Self {
        Self(directory.map(|directory| Paths {
            path: directory.join("iptables.json"),
            busy: directory.join("iptables.busy"),
        }))
    }

    /// What can't be read is as if it weren't there.
    pub(crate) fn load(&self) -> Record {
        let read = |path: &Path| {
            let text = fs::read_to_string(path).ok()?;
            let known: Known<'_> = serde_json::from_str(&text).ok()?;
            (known.place == place()).then_some(())?;
            let enforced = || serde_json::from_str::<Enforced<'_>>(&text).ok()?.in_force();
            Some(Record {
                in_force: (known.build == build()).then(enforced).flatten(),
                books: known.books(),
            })
        };
        let Some(Paths { path, busy }) = &self.0 else {
            return Record::default();
        };
        let busy = || {
            let record = read(busy)?;
            Some(Record {
                in_force: None,
                ..record
            })
        };
        read(path).or_else(busy).unwrap_or_default()
    }

    /// From now on what is in force is not known.
    pub(crate) fn begin(&self) -> io::Result<()> {
        let Some(Paths { path, busy }) = &self.0 else {
            return Ok(());
        };
        match fs::rename(path, busy) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The target, whose view has this digest, is in force.
    pub(crate) fn end(
        &self,
        books: &Books,
        target: (&Target, u64),
        stamps: Option<&Stamps>,
    ) -> io::Result<()> {
        let Some(Paths { path, .. }) = &self.0 else {
            return Ok(());
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let new = path.with_extension("new");
        let written = Written::of((place(), build()), books, target, stamps);
        fs::write(&new, serde_json::to_string(&written)?)?;
        fs::rename(&new, path)
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        let Some(Paths { path, busy }) = &self.0 else {
            return Ok(());
        };
        for path in [path, busy] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// This network namespace of this run of the machine.
fn place() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/thread-self/ns/net").unwrap_or_default();
    format!("{} {}", boot.trim(), namespace.display())
}

/// The file that this program is in.
fn build() -> String {
    use std::os::unix::fs::MetadataExt;
    let file = fs::metadata("/proc/self/exe");
    let of = |data: fs::Metadata| format!("{} {} {}", data.len(), data.mtime(), data.mtime_nsec());
    file.map(of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::books::{MembersName, ProfileName};
    use policy::HostView;
    use serde_json::{Value, json};

    fn books() -> Books {
        let mut books = Books::default();
        books.bridges.give(&7);
        books.bridges.give(&8);
        books.networks.give(&"lan".into());
        books.profiles.give(&ProfileName {
            scope: "scope".into(),
            groups: vec!["a".into(), "b \"".into()],
        });
        books
            .members
            .give(&MembersName::Group("scope".into(), "a".into()));
        books.members.give(&MembersName::AddressGroup("a".into()));
        books
    }

    fn target() -> Target {
        let device = |ifindex, name: &str| Device {
            name: name.to_owned(),
            ifindex,
        };
        let bridge = Bridge {
            macs: BTreeSet::from(["02:00:00:00:00:01".parse().expect("a MAC")]),
            members: BTreeSet::from([device(11, "tap 1"), device(12, "eth0")]),
        };
        Target {
            view: HostView::default(),
            devices: BTreeMap::from([("web".into(), device(11, "tap 1"))]),
            closed: BTreeSet::from([device(13, "old")]),
            bridges: BTreeMap::from([(device(7, "br0"), bridge)]),
        }
    }

    fn record() -> Record {
        let target = target();
        Record {
            books: books(),
            in_force: Some(InForce {
                view: target.view.digest(),
                devices: target.devices,
                closed: target.closed,
                bridges: target.bridges,
                stamps: None,
            }),
        }
    }

    fn end(file: &RecordFile) {
        let target = target();
        let of = (&target, target.view.digest());
        file.end(&books(), of, None).expect("there is room");
    }

    #[test]
    fn a_record_comes_back_whole() {
        let root = tempfile::tempdir().expect("a directory");
        let file = RecordFile::in_directory(Some(&root.path().join("deep")));
        assert_eq!(file.load(), Record::default());
        end(&file);
        assert_eq!(file.load(), record());
        file.remove().expect("it is there");
        file.remove().expect("twice does no harm");
        assert_eq!(file.load(), Record::default());
    }

    /// O2: a process that was killed at work leaves the numbers, and no claim about what is in force.
    #[test]
    fn at_work_only_the_numbers_are_known() {
        let root = tempfile::tempdir().expect("a directory");
        let file = RecordFile::in_directory(Some(root.path()));
        file.begin().expect("nothing is there yet");
        end(&file);
        file.begin().expect("it is there");
        let expected = Record {
            in_force: None,
            ..record()
        };
        assert_eq!(file.load(), expected);
    }

    #[test]
    fn what_another_build_or_another_place_left_is_not_taken_for_ours() {
        let root = tempfile::tempdir().expect("a directory");
        let file = RecordFile::in_directory(Some(root.path()));
        let path = root.path().join("iptables.json");
        let with = |key: &str| {
            end(&file);
            let text = fs::read(&path).expect("it is there");
            let mut value: Value = serde_json::from_slice(&text).expect("it is JSON");
            value[key] = json!("another");
            fs::write(&path, value.to_string()).expect("there is room");
            file.load()
        };
        assert_eq!(with("place"), Record::default());
        let numbers = Record {
            in_force: None,
            ..record()
        };
        assert_eq!(with("build"), numbers);
    }

    #[test]
    fn a_damaged_file_is_as_none() {
        let root = tempfile::tempdir().expect("a directory");
        let file = RecordFile::in_directory(Some(root.path()));
        let path = root.path().join("iptables.json");
        end(&file);
        let text = fs::read(&path).expect("it is there");
        for cut in (0..text.len()).step_by(7) {
            fs::write(&path, &text[..cut]).expect("there is room");
            assert_eq!(file.load(), Record::default(), "cut at {cut}");
        }
    }
}
