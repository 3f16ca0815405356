//! The kernel side as a whole: its maps and programs, loaded or found pinned.
//!
//! ```text
//! /sys/fs/bpf/portcullis/<instance>/maps/NAME         one per map
//!                                   programs/NAME     judge, sweep: for who looks in later
//!                                   links/IFINDEX.in  hooks, by device (tcx)
//! ```
//! A new process loads the programs anew upon the maps that it finds, after a look at the layout
//! version in `names`; that entry is written last, so what lacks it is the rest of a start that
//! failed, and enforces nothing.

use crate::attach;
use crate::error::OpenError;
use crate::layout::{
    Config, DeviceEntry, ExactKey, Flow, FragmentKey, HALF_OPEN_PLACES, HostState, LAYOUT_VERSION,
    MacKey, NetAddressKey, OwnKey, PORT_RECORDS, Path as Way, Peers, PolicyEntry, PolicyKey,
    PortRecord, PortState, PrefixKey, Range, ReservedKey, STATS_PER_PORT, SetRecord, Stat,
    SubnetKey,
};
use crate::layout::{FRAGMENT_PLACES, FragmentEntry};
use crate::table::{Name, Table, check, number};
use libbpf_rs::{MapCore, ObjectBuilder, PrintLevel};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/portcullis.bpf.o"));

const BPFFS: &str = "/sys/fs/bpf";

/// Key in `names` of the plane's own entry: layout version and counters.
pub(crate) const META: u64 = 0;

/// What an instance is called, and how much it can hold. Sizes count when the maps are made; an
/// instance that is there keeps its own.
#[derive(Clone, Debug)]
pub struct EbpfConfig {
    pub instance: String,
    pub max_ports: u32,
    pub max_sets: u32,
    pub max_flows: u32,
    /// Policy entries, and ranges in them.
    pub max_policy: u32,
    pub max_ranges: u32,
    /// Rules with a counter.
    pub max_rules: u32,
    /// Addresses, and prefixes, that rules name.
    pub max_members: u32,
    pub attach: Attach,
    /// What a port sends to another one of this host goes straight to its device, where the host's
    /// own forwarding was just seen to take it there. A bridge's filters don't see it.
    pub direct: bool,
}

/// How programs get onto devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// By tcx where the kernel has it.
    Auto,
    Tcx,
    Clsact,
}

impl Default for EbpfConfig {
    fn default() -> Self {
        Self {
            instance: "default".to_owned(),
            max_ports: 1024,
            max_sets: 4096,
            max_flows: 4 << 20,
            max_policy: 1 << 20,
            max_ranges: 1 << 20,
            max_rules: 1 << 18,
            max_members: 1 << 20,
            attach: Attach::Auto,
            direct: false,
        }
    }
}

impl EbpfConfig {
    /// A small instance of this name, for tests and trials.
    pub fn small(instance: impl Into<String>) -> Self {
        Self {
            instance: instance.into(),
            max_ports: 32,
            max_sets: 256,
            max_flows: 1 << 16,
            max_policy: 1 << 16,
            max_ranges: 1 << 16,
            max_rules: 1 << 12,
            max_members: 1 << 16,
            attach: Attach::Auto,
            direct: false,
        }
    }

    fn size(&self, map: &str) -> Option<u32> {
        // Flows name slots in 16 bits.
        let max_ports = self.max_ports.clamp(1, 0xffff);
        let places = |per_port: u32| max_ports * per_port;
        match map {
            "port_index" | "port_state" => Some(max_ports),
            "ports" => Some(places(PORT_RECORDS)),
            "port_stats" => Some(places(STATS_PER_PORT)),
            "half_open" => Some(places(HALF_OPEN_PLACES)),
            "fragments" | "fragment_places" => Some(places(FRAGMENT_PLACES)),
            "own" => Some(places(64).max(4096)),
            "sets" => Some(self.max_sets),
            "exact" | "prefixes" | "reserved" => Some(self.max_members),
            "policy" => Some(self.max_policy),
            "ranges" => Some(self.max_ranges),
            "rule_stats" => Some(self.max_rules),
            "flows" => Some(self.max_flows),
            "names" => Some(self.max_policy.max(self.max_members)),
            // The others keep the sizes that their declarations give.
            _ => None,
        }
    }
}

macro_rules! tables {
    ($($name:ident: $key:ty => $value:ty,)+) => {
        pub(crate) struct Tables { $(pub(crate) $name: Table<$key, $value>,)+ }

        impl Tables {
            fn collect(mut fd: impl FnMut(&'static str) -> io::Result<OwnedFd>) -> io::Result<Self> {
                Ok(Self { $($name: Table::new(fd(stringify!($name))?, stringify!($name))?,)+ })
            }
        }

        const TABLES: &[&str] = &[$(stringify!($name),)+];
    };
}

tables! {
    config: u32 => Config,
    devices: u32 => DeviceEntry,
    devices_more: u32 => u32,
    port_index: u32 => u32,
    ports: u32 => PortRecord,
    own: OwnKey => u8,
    macs: MacKey => u32,
    reserved: ReservedKey => u8,
    net_addresses: NetAddressKey => u8,
    subnets: SubnetKey => u8,
    sets: u32 => SetRecord,
    exact: ExactKey => Peers,
    prefixes: PrefixKey => Peers,
    policy: PolicyKey => PolicyEntry,
    ranges: u32 => Range,
    names: u64 => Name,
    rule_stats: u32 => Stat,
    port_stats: u32 => Stat,
    port_state: u32 => PortState,
    half_open: u32 => u64,
    host_state: u32 => HostState,
    flows: u64 => Flow,
    fragments: FragmentKey => FragmentEntry,
    fragment_places: u32 => FragmentKey,
    paths: u32 => Way,
}

/// Has neither keys nor values.
const EVENTS: &str = "events";
/// Holds the timer that sweeps when no agent does; it runs as long as the map is pinned.
const SWEEPERS: &str = "sweepers";

/// The programs that devices get; only a plane that may attach holds them.
pub(crate) struct Hooks {
    pub(crate) from_port: OwnedFd,
    pub(crate) to_port: OwnedFd,
}

pub(crate) struct Object {
    pub(crate) directory: PathBuf,
    pub(crate) tables: Tables,
    pub(crate) events: OwnedFd,
    sweepers: OwnedFd,
    pub(crate) judge: OwnedFd,
    pub(crate) sweep: OwnedFd,
    pub(crate) hooks: Option<Hooks>,
    /// Takes in flows of another host; held by whoever holds hooks.
    pub(crate) adopt: Option<OwnedFd>,
    /// Made by this call, rather than found.
    pub(crate) fresh: bool,
}

/// libbpf has one place to print to, per process.
static LOADING: Mutex<()> = Mutex::new(());
static LOG: Mutex<String> = Mutex::new(String::new());

impl Object {
    /// Loads the programs upon the instance's maps, made now if there are none.
    pub(crate) fn open(config: &EbpfConfig) -> Result<Self, OpenError> {
        let directory = directory(&config.instance)?;
        mount_bpffs()?;
        let found = match pinned_layout(&directory)? {
            Some(layout) if layout == LAYOUT_VERSION.to_string() => true,
            Some(found) => {
                return Err(OpenError::Layout {
                    path: directory,
                    found,
                    needed: LAYOUT_VERSION,
                });
            }
            None => {
                remove(&directory)?;
                false
            }
        };
        let object = load(config, &directory, found)?;
        if !found {
            pin_all(&object).inspect_err(|_| {
                let _ = remove(&directory);
            })?;
        } else {
            pin_programs(&object)?;
        }
        Ok(object)
    }

    /// What another process pinned, to look at and to ask; loads nothing.
    pub(crate) fn open_pinned(instance: &str) -> Result<Self, OpenError> {
        quiet();
        let directory = directory(instance)?;
        match pinned_layout(&directory)? {
            Some(layout) if layout == LAYOUT_VERSION.to_string() => {}
            Some(found) => {
                return Err(OpenError::Layout {
                    path: directory,
                    found,
                    needed: LAYOUT_VERSION,
                });
            }
            None => return Err(OpenError::NotRunning { path: directory }),
        }
        let open = |kind: &str, name: &str| open_pin(&directory.join(kind).join(name));
        let trouble =
            |error| OpenError::io(format!("opening pins in {}", directory.display()), error);
        Ok(Self {
            tables: Tables::collect(|name| open("maps", name)).map_err(trouble)?,
            events: open("maps", EVENTS).map_err(trouble)?,
            sweepers: open("maps", SWEEPERS).map_err(trouble)?,
            judge: open("programs", "judge").map_err(trouble)?,
            sweep: open("programs", "sweep").map_err(trouble)?,
            hooks: None,
            adopt: None,
            fresh: false,
            directory,
        })
    }

    pub(crate) fn links(&self) -> PathBuf {
        self.directory.join("links")
    }

    /// Removes the pins; what is not attached ends with them.
    pub(crate) fn unpin(&self) -> io::Result<()> {
        remove_tree(&self.directory)
    }
}

fn directory(instance: &str) -> Result<PathBuf, OpenError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if instance.is_empty() || instance.len() > 64 || !instance.chars().all(fits) {
        return Err(OpenError::BadInstance {
            instance: instance.to_owned(),
        });
    }
    Ok(Path::new(BPFFS).join("portcullis").join(instance))
}

/// Removes an instance's enforcement and pins, whichever version made them. `false`: there were none.
pub(crate) fn remove_any(instance: &str) -> Result<bool, OpenError> {
    quiet();
    let directory = directory(instance)?;
    let trouble = |error| OpenError::io(format!("removing {}", directory.display()), error);
    if !directory.try_exists().map_err(trouble)? {
        return Ok(false);
    }
    attach::detach_all(&directory).map_err(trouble)?;
    remove(&directory)?;
    Ok(true)
}

pub(crate) fn instances() -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(Path::new(BPFFS).join("portcullis")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

fn mount_bpffs() -> Result<(), OpenError> {
    const BPF_FS_MAGIC: libc::c_long = 0xcafe_4a11;
    let path = CString::new(BPFFS).expect("no zero byte");
    let tried = || format!("mounting the BPF file system at {BPFFS}");
    // SAFETY: statfs is integers only, and the path ends with a zero byte.
    let mut status: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    if unsafe { libc::statfs(path.as_ptr(), &mut status) } == 0
        && status.f_type as libc::c_long == BPF_FS_MAGIC
    {
        return Ok(());
    }
    fs::create_dir_all(BPFFS).map_err(|error| OpenError::io(tried(), error))?;
    let bpf = CString::new("bpf").expect("no zero byte");
    // SAFETY: strings end with zero bytes; no data.
    let answer = unsafe {
        libc::mount(
            bpf.as_ptr(),
            path.as_ptr(),
            bpf.as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    if answer != 0 {
        return Err(OpenError::io(tried(), io::Error::last_os_error()));
    }
    Ok(())
}

/// The layout of a complete set of pins.
fn pinned_layout(directory: &Path) -> Result<Option<String>, OpenError> {
    let path = directory.join("maps/names");
    let trouble = |error| OpenError::io(format!("opening {}", path.display()), error);
    if !path.try_exists().map_err(trouble)? {
        return Ok(None);
    }
    let names: Table<u64, Name> = match open_pin(&path).and_then(|fd| Table::new(fd, "names")) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Ok(Some(format!("unknown ({error})")));
        }
        Err(error) => return Err(trouble(error)),
    };
    let meta = names.get(&META).map_err(trouble)?;
    Ok(meta.map(|meta| {
        let first = meta.text().split_whitespace().next();
        first.unwrap_or_default().to_owned()
    }))
}

fn load(config: &EbpfConfig, directory: &Path, found: bool) -> Result<Object, OpenError> {
    let _one = LOADING
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    LOG.lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .clear();
    libbpf_rs::set_print(Some((PrintLevel::Warn, |_, text| {
        LOG.lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .push_str(&text);
    })));
    let loaded = build(config, directory, found);
    quiet();
    let log = std::mem::take(&mut *LOG.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    let object = loaded.map_err(|error| explain(error, log))?;
    let program = |name: &str| {
        let mut programs = object.progs_mut();
        let found = programs.find(|p| p.name() == name);
        let found = found.expect("the embedded object has this program");
        found.as_fd().try_clone_to_owned()
    };
    let map = |name: &str| {
        let found = object.maps().find(|m| m.name() == name);
        let found = found.expect("the embedded object has this map");
        found.as_fd().try_clone_to_owned()
    };
    let assemble = || {
        Ok(Object {
            directory: directory.to_owned(),
            tables: Tables::collect(map)?,
            events: map(EVENTS)?,
            sweepers: map(SWEEPERS)?,
            judge: program("judge")?,
            sweep: program("sweep")?,
            hooks: Some(Hooks {
                from_port: program("from_port")?,
                to_port: program("to_port")?,
            }),
            adopt: Some(program("adopt")?),
            fresh: !found,
        })
    };
    assemble().map_err(|error| OpenError::io("taking over the loaded maps", error))
}

/// What libbpf would print is in the errors that it returns.
fn quiet() {
    libbpf_rs::set_print(None);
}

fn build(
    config: &EbpfConfig,
    directory: &Path,
    found: bool,
) -> libbpf_rs::Result<libbpf_rs::Object> {
    let mut open = ObjectBuilder::default().open_memory(OBJECT)?;
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        let pin = directory.join("maps").join(&name);
        if found && pin.exists() {
            let fd = open_pin(&pin)?;
            map.reuse_fd(fd.as_fd())?;
        } else if let Some(size) = config.size(&name) {
            map.set_max_entries(size)?;
        }
    }
    open.load()
}

/// libbpf prints the verifier's words, and returns just a number.
fn explain(error: libbpf_rs::Error, log: String) -> OpenError {
    if log.contains("BEGIN PROG LOAD LOG") {
        let unknown = ["unknown func", "invalid func", "unknown opcode"];
        let line = log
            .lines()
            .find(|line| unknown.iter().any(|u| line.contains(u)));
        return match line {
            Some(line) => OpenError::Unsupported {
                lacks: format!("a helper of the programs ({})", line.trim()),
                source: io::Error::from_raw_os_error(libc::EOPNOTSUPP),
            },
            None => OpenError::Verifier { log },
        };
    }
    let kind = error.kind();
    let words = log.trim();
    let text = if words.is_empty() {
        error.to_string()
    } else {
        format!("{error} ({words})")
    };
    match kind {
        libbpf_rs::ErrorKind::PermissionDenied => OpenError::NoPrivilege {
            tried: "loading the programs".to_owned(),
            source: io::Error::new(io::ErrorKind::PermissionDenied, text),
        },
        libbpf_rs::ErrorKind::InvalidInput => OpenError::Unsupported {
            lacks: "a kind of map or program (5.15 has them all)".to_owned(),
            source: io::Error::new(io::ErrorKind::Unsupported, text),
        },
        _ => OpenError::Io {
            tried: "loading the programs".to_owned(),
            source: io::Error::other(text),
        },
    }
}

fn pin_all(object: &Object) -> Result<(), OpenError> {
    let maps = object.directory.join("maps");
    let trouble =
        |error| OpenError::io(format!("pinning in {}", object.directory.display()), error);
    fs::create_dir_all(&maps).map_err(trouble)?;
    fs::create_dir_all(object.links()).map_err(trouble)?;
    object.pin_tables(&maps).map_err(trouble)?;
    pin_programs(object)
}

fn pin_programs(object: &Object) -> Result<(), OpenError> {
    let programs = object.directory.join("programs");
    let trouble = |error| OpenError::io(format!("pinning in {}", programs.display()), error);
    fs::create_dir_all(&programs).map_err(trouble)?;
    for (name, fd) in [("judge", &object.judge), ("sweep", &object.sweep)] {
        let path = programs.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(trouble(error)),
            _ => pin(fd.as_raw_fd(), &path).map_err(trouble)?,
        }
    }
    Ok(())
}

impl Object {
    fn pin_tables(&self, maps: &Path) -> io::Result<()> {
        for (name, fd) in self.map_fds() {
            pin(fd, &maps.join(name))?;
        }
        Ok(())
    }

    fn map_fds(&self) -> Vec<(&'static str, i32)> {
        let t = &self.tables;
        macro_rules! fds {
            ($($name:ident)+) => { vec![$((t.$name.name(), t.$name.fd().as_raw_fd()),)+] };
        }
        let mut fds = fds!(config devices devices_more port_index ports own macs reserved
            net_addresses subnets sets exact prefixes policy ranges names rule_stats port_stats
            port_state half_open host_state flows fragments fragment_places paths);
        assert_eq!(fds.len(), TABLES.len(), "each map is pinned");
        fds.push((EVENTS, self.events.as_raw_fd()));
        fds.push((SWEEPERS, self.sweepers.as_raw_fd()));
        fds
    }
}

pub(crate) fn pin(fd: i32, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the path ends with a zero byte.
    check(unsafe { libbpf_sys::bpf_obj_pin(fd, path.as_ptr()) })
}

pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: the path ends with a zero byte; the answer is a new descriptor that nobody else owns.
    unsafe {
        Ok(OwnedFd::from_raw_fd(number(libbpf_sys::bpf_obj_get(
            path.as_ptr(),
        ))?))
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

fn remove(directory: &Path) -> Result<(), OpenError> {
    remove_tree(directory)
        .map_err(|error| OpenError::io(format!("removing {}", directory.display()), error))
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Removes an instance's pins, also after a failure.
    struct Pins(PathBuf);

    impl Drop for Pins {
        fn drop(&mut self) {
            let _ = remove_tree(&self.0);
        }
    }

    #[test]
    fn loads_and_is_found_again() {
        let config = EbpfConfig::small(format!("pc-load-{}", std::process::id()));
        let _pins = Pins(directory(&config.instance).expect("a good name"));
        let first = Object::open(&config).unwrap_or_else(|error| panic!("{error}"));
        assert!(first.fresh);
        let meta = Name::new(&format!("{LAYOUT_VERSION} 0"));
        first.tables.names.put(&META, &meta).expect("a write");
        let second = Object::open(&config).unwrap_or_else(|error| panic!("{error}"));
        assert!(!second.fresh, "a complete set of pins is taken over");
        let pinned = Object::open_pinned(&config.instance);
        let pinned = pinned.unwrap_or_else(|error| panic!("{error}"));
        assert!(pinned.hooks.is_none());
        meta_of_another_layout_is_refused(&config, &first);
        first.unpin().expect("pins can be removed");
        assert!(matches!(
            Object::open_pinned(&config.instance),
            Err(OpenError::NotRunning { .. })
        ));
    }

    fn meta_of_another_layout_is_refused(config: &EbpfConfig, object: &Object) {
        let other = Name::new("0 0");
        object.tables.names.put(&META, &other).expect("a write");
        let refused = Object::open(config).err();
        assert!(matches!(refused, Some(OpenError::Layout { .. })));
    }
}
