//! What a process leaves for the next one: which number stands for what, and what is in force.
//!
//! ```text
//! iptables.json   all of it; there while nobody is at work
//! iptables.busy   the same, of before the change that somebody is at work on, or died over
//! ```
//! It holds as long as the network namespace and the machine run. Of another build of the program only the
//! numbers are used: what it left may look otherwise. Lost, all is written anew once.
//! Knows nothing of: what the kernel holds now.

mod json;

use crate::books::{Books, MembersName, Pool, ProfileName};
use crate::stamps::Stamps;
use dataplane::{Bridge, Device, Target};
use json::Json;
use model::PortId;
use serde_json::Value;
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
            let value: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
            (value["place"] == place()).then_some(())?;
            let books = Books::from_json(&value["books"])?;
            let ours = value["build"] == build();
            let in_force = ours.then(|| in_force(&value["in_force"])).flatten();
            Some(Record { books, in_force })
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
        fs::write(&new, text(books, target, stamps))?;
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

fn text(books: &Books, target: (&Target, u64), stamps: Option<&Stamps>) -> String {
    let mut json = Json::default();
    json.object(&[
        ("place", &|json| json.text(&place())),
        ("build", &|json| json.text(&build())),
        ("books", &|json| write_books(json, books)),
        ("in_force", &|json| write_in_force(json, target, stamps)),
    ]);
    json.0
}

fn write_in_force(json: &mut Json, (target, view): (&Target, u64), stamps: Option<&Stamps>) {
    json.object(&[
        // As text: JSON's numbers are not exact.
        ("view", &|json| json.text(&view.to_string())),
        ("devices", &|json| {
            json.list(&target.devices, |json, (port, device)| {
                json.pair(
                    |json| json.text(port.as_str()),
                    |json| write_device(json, device),
                );
            });
        }),
        ("closed", &|json| json.list(&target.closed, write_device)),
        ("bridges", &|json| json.list(&target.bridges, write_bridge)),
        ("stamps", &|json| {
            json.plain(stamps.map_or(Value::Null, Stamps::to_json))
        }),
    ]);
}

fn write_bridge(json: &mut Json, (device, bridge): (&Device, &Bridge)) {
    json.object(&[
        ("device", &|json| write_device(json, device)),
        ("macs", &|json| {
            json.list(&bridge.macs, |json, mac| json.text(&mac.to_string()))
        }),
        ("members", &|json| json.list(&bridge.members, write_device)),
    ]);
}

fn write_device(json: &mut Json, device: &Device) {
    json.pair(
        |json| json.plain(device.ifindex),
        |json| json.text(&device.name),
    );
}

fn in_force(value: &Value) -> Option<InForce> {
    let devices = value["devices"].as_array()?.iter().map(|of| {
        let port = PortId::new(of[0].as_str()?);
        Some((port, device(&of[1])?))
    });
    let bridges = value["bridges"].as_array()?.iter().map(|of| {
        let macs = of["macs"].as_array()?.iter();
        let bridge = Bridge {
            macs: macs
                .map(|mac| mac.as_str()?.parse().ok())
                .collect::<Option<_>>()?,
            members: device_list(&of["members"])?,
        };
        Some((device(&of["device"])?, bridge))
    });
    Some(InForce {
        view: value["view"].as_str()?.parse().ok()?,
        devices: devices.collect::<Option<_>>()?,
        closed: device_list(&value["closed"])?,
        bridges: bridges.collect::<Option<_>>()?,
        stamps: Stamps::from_json(&value["stamps"]),
    })
}

fn device(value: &Value) -> Option<Device> {
    Some(Device {
        name: value[1].as_str()?.to_owned(),
        ifindex: u32::try_from(value[0].as_u64()?).ok()?,
    })
}

fn device_list(value: &Value) -> Option<BTreeSet<Device>> {
    let devices = value.as_array()?.iter();
    devices.map(device).collect::<Option<_>>()
}

fn write_books(json: &mut Json, books: &Books) {
    json.object(&[
        ("bridges", &|json| {
            write_pool(json, &books.bridges, |json, of| json.plain(of))
        }),
        ("networks", &|json| {
            write_pool(json, &books.networks, |json, of| json.text(of.as_str()))
        }),
        ("profiles", &|json| {
            write_pool(json, &books.profiles, write_profile)
        }),
        ("members", &|json| {
            write_pool(json, &books.members, write_members)
        }),
    ]);
}

fn write_profile(json: &mut Json, name: &ProfileName) {
    json.pair(
        |json| json.text(name.scope.as_str()),
        |json| json.list(&name.groups, |json, group| json.text(group.as_str())),
    );
}

fn write_members(json: &mut Json, name: &MembersName) {
    match name {
        MembersName::Group(scope, group) => json.pair(
            |json| json.text(scope.as_str()),
            |json| json.text(group.as_str()),
        ),
        MembersName::AddressGroup(group) => json.text(group.as_str()),
    }
}

fn write_pool<K: Ord + Clone>(json: &mut Json, pool: &Pool<K>, write: impl Fn(&mut Json, &K)) {
    json.object(&[
        ("last", &|json| json.plain(pool.last())),
        ("numbers", &|json| {
            json.list(pool.all(), |json, (key, number)| {
                json.pair(|json| json.plain(number), |json| write(json, key));
            });
        }),
    ]);
}

impl Books {
    fn from_json(value: &Value) -> Option<Self> {
        let mut books = Self::default();
        fill(&mut books.bridges, &value["bridges"], |of| {
            u32::try_from(of.as_u64()?).ok()
        })?;
        fill(&mut books.networks, &value["networks"], |of| {
            Some(of.as_str()?.into())
        })?;
        fill(&mut books.profiles, &value["profiles"], |of| {
            let groups = of[1].as_array()?.iter();
            Some(ProfileName {
                scope: of[0].as_str()?.into(),
                groups: groups
                    .map(|group| Some(group.as_str()?.into()))
                    .collect::<Option<_>>()?,
            })
        })?;
        fill(&mut books.members, &value["members"], |of| {
            Some(match of.as_str() {
                Some(group) => MembersName::AddressGroup(group.into()),
                None => MembersName::Group(of[0].as_str()?.into(), of[1].as_str()?.into()),
            })
        })?;
        Some(books)
    }
}

fn fill<K: Ord + Clone>(
    pool: &mut Pool<K>,
    value: &Value,
    key: impl Fn(&Value) -> Option<K>,
) -> Option<()> {
    let numbers = value["numbers"].as_array()?.iter();
    let numbers = numbers.map(|of| Some((key(&of[1])?, u16::try_from(of[0].as_u64()?).ok()?)));
    let last = u16::try_from(value["last"].as_u64()?).ok()?;
    pool.restore(numbers.collect::<Option<_>>()?, last);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::HostView;
    use serde_json::json;

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
