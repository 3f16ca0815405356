//! Our programs on devices: by tcx, or by clsact where the kernel has no tcx (before 6.6) or the
//! operator says so.
//!
//! Place on the line: the last part of execute; and audit. A device's ingress gets `from_port`, its
//! egress `to_port`, at the head. By tcx each hook is a pinned link, which survives us and ends with
//! its device; by clsact it is a filter of priority 1.
//! Devices are looked up in the network namespace of the calling thread.

use crate::error::OpenError;
use crate::object::{Attach, Hooks, Object, open_pin, pin};
use crate::table::{check, number};
use dataplane::Device;
use hurry::Hurry;
use libbpf_sys::{BPF_TC_EGRESS, BPF_TC_INGRESS, BPF_TCX_EGRESS, BPF_TCX_INGRESS};
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Tcx,
    Clsact,
}

/// The two ends of a device, as the host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Ingress,
    Egress,
}

const ENDS: [End; 2] = [End::Ingress, End::Egress];

/// What stands at a hook point of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Ours,
    /// A program of this name sees packets before ours.
    Behind(String),
    Nothing,
}

/// Of `lo`, in each network namespace.
const LOOPBACK: i32 = 1;
const PRIORITY: u32 = 1;
const HANDLE: u32 = 1;

impl Hook {
    pub(crate) fn choose(wanted: Attach) -> Result<Self, OpenError> {
        let has_tcx = match tcx_programs(LOOPBACK, End::Ingress) {
            Ok(_) => true,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => false,
            Err(error) => return Err(OpenError::io("asking for tcx programs of lo", error)),
        };
        match wanted {
            Attach::Auto if has_tcx => Ok(Hook::Tcx),
            Attach::Auto | Attach::Clsact => Ok(Hook::Clsact),
            Attach::Tcx if has_tcx => Ok(Hook::Tcx),
            Attach::Tcx => Err(OpenError::Unsupported {
                lacks: "tcx (6.6 has it; clsact needs less)".to_owned(),
                source: io::Error::from_raw_os_error(libc::EINVAL),
            }),
        }
    }

    /// Idempotent; takes the place of an older version of ours without a gap.
    pub(crate) fn attach(self, object: &Object, ifindex: u32) -> io::Result<()> {
        let hooks = hooks(object)?;
        for end in ENDS {
            match self {
                Hook::Tcx => attach_tcx(object, hooks, ifindex, end)?,
                Hook::Clsact => attach_clsact(hooks, ifindex, end)?,
            }
        }
        Ok(())
    }

    /// As `attach`, on a device that an earlier process attached to, perhaps the other way.
    pub(crate) fn take_over(self, object: &Object, ifindex: u32) -> io::Result<()> {
        self.attach(object, ifindex)?;
        match self {
            Hook::Tcx => detach_clsact(ifindex),
            Hook::Clsact => unlink(object, ifindex),
        }
    }

    /// A device that is gone has taken its hooks along.
    pub(crate) fn detach(self, object: &Object, ifindex: u32) -> io::Result<()> {
        unlink(object, ifindex)?;
        match detach_clsact(ifindex) {
            Err(error) if is_no_device(&error) => Ok(()),
            other => other,
        }
    }

    /// Of these devices and those with pinned links, the ones with our hooks at both ends. Pins of
    /// links whose device is gone are removed.
    pub(crate) fn attached(
        self,
        object: &Object,
        devices: &BTreeSet<u32>,
    ) -> io::Result<BTreeSet<u32>> {
        match self {
            Hook::Tcx => linked(object),
            Hook::Clsact => {
                let ours = |ifindex: &&u32| {
                    ENDS.iter()
                        .all(|end| matches!(our_filter(**ifindex, *end), Ok(Some(_))))
                };
                Ok(devices.iter().filter(ours).copied().collect())
            }
        }
    }

    /// The worse of a device's two ends.
    pub(crate) fn look(self, object: &Object, ifindex: u32) -> io::Result<Found> {
        let mut worst = Found::Ours;
        for end in ENDS {
            let found = match self {
                Hook::Tcx => look_tcx(object, ifindex, end),
                Hook::Clsact => look_clsact(ifindex, end),
            };
            match found {
                Ok(Found::Ours) => {}
                Ok(Found::Behind(name)) => worst = Found::Behind(name),
                Ok(Found::Nothing) => return Ok(Found::Nothing),
                Err(error) if is_no_device(&error) => return Ok(Found::Nothing),
                Err(error) => return Err(error),
            }
        }
        Ok(worst)
    }
}

/// Detaches what an instance with these pins has on devices of the calling thread's network
/// namespace, whichever version made it: nothing but links, filters and which maps they use is asked.
pub(crate) fn detach_all(instance: &Path) -> io::Result<()> {
    let links = match fs::read_dir(instance.join("links")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        entries => entries?.collect::<Result<_, _>>()?,
    };
    let devices = all_devices()?;
    let _hurry = (!devices.is_empty()).then(Hurry::up);
    for entry in links {
        end_link(&entry.path())?;
    }
    let config = match open_pin(&instance.join("maps/config")) {
        // The rest of a start that failed: it had no filters yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        config => map_id(&config?)?,
    };
    for ifindex in devices {
        match remove_filters_with(config, ifindex) {
            Err(error) if is_no_device(&error) => {}
            other => other?,
        }
    }
    Ok(())
}

/// The filters at our place whose program uses this map.
fn remove_filters_with(map: u32, ifindex: u32) -> io::Result<()> {
    for end in ENDS {
        if let Some(program) = our_filter(ifindex, end)?
            && maps_of(program)?.contains(&map)
        {
            remove_filter(ifindex, end)?;
        }
    }
    Ok(())
}

/// By its index; `None`: it is gone.
pub(crate) fn device(ifindex: u32) -> io::Result<Option<Device>> {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has room for the longest name and its zero.
    if unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr().cast()) }.is_null() {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENXIO | libc::ENODEV) => Ok(None),
            _ => Err(error),
        };
    }
    let name = CStr::from_bytes_until_nul(&name).expect("the kernel ends it with a zero");
    let name = name.to_string_lossy().into_owned();
    Ok(Some(Device { name, ifindex }))
}

fn hooks(object: &Object) -> io::Result<&Hooks> {
    let missing = || io::Error::other("this process only looks; it holds no programs to attach");
    object.hooks.as_ref().ok_or_else(missing)
}

impl End {
    fn program(self, hooks: &Hooks) -> &OwnedFd {
        match self {
            End::Ingress => &hooks.from_port,
            End::Egress => &hooks.to_port,
        }
    }

    fn program_name(self) -> &'static str {
        match self {
            End::Ingress => "from_port",
            End::Egress => "to_port",
        }
    }

    fn pin(self, object: &Object, ifindex: u32) -> PathBuf {
        let suffix = match self {
            End::Ingress => "in",
            End::Egress => "out",
        };
        object.links().join(format!("{ifindex}_{suffix}"))
    }

    fn tcx(self) -> libbpf_sys::bpf_attach_type {
        match self {
            End::Ingress => BPF_TCX_INGRESS,
            End::Egress => BPF_TCX_EGRESS,
        }
    }

    fn clsact(self) -> libbpf_sys::bpf_tc_attach_point {
        match self {
            End::Ingress => BPF_TC_INGRESS,
            End::Egress => BPF_TC_EGRESS,
        }
    }
}

fn attach_tcx(object: &Object, hooks: &Hooks, ifindex: u32, end: End) -> io::Result<()> {
    let path = end.pin(object, ifindex);
    let program = end.program(hooks);
    if path.try_exists()? {
        let link = open_pin(&path)?;
        let (linked, program_id) = link_info(&link)?;
        if linked == ifindex {
            if program_id != program_info(program)?.id {
                let options = std::ptr::null();
                // SAFETY: both descriptors are open; no options.
                check(unsafe {
                    libbpf_sys::bpf_link_update(link.as_raw_fd(), program.as_raw_fd(), options)
                })?;
            }
            return Ok(());
        }
        fs::remove_file(&path)?;
    }
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as u64,
        flags: libbpf_sys::BPF_F_BEFORE,
        ..Default::default()
    };
    // SAFETY: the options are as long as said; the answer is a new descriptor that nobody else owns.
    let link = unsafe {
        let link =
            libbpf_sys::bpf_link_create(program.as_raw_fd(), ifindex as i32, end.tcx(), &options);
        OwnedFd::from_raw_fd(number(link)?)
    };
    pin(link.as_raw_fd(), &path)
}

/// Ends the links at once; removing the last reference alone would end them some time later.
fn unlink(object: &Object, ifindex: u32) -> io::Result<()> {
    for end in ENDS {
        let path = end.pin(object, ifindex);
        if path.try_exists()? {
            end_link(&path)?;
        }
    }
    Ok(())
}

fn end_link(pin: &Path) -> io::Result<()> {
    let link = open_pin(pin)?;
    // SAFETY: the descriptor is open. A link whose device is gone is detached already.
    let _ = unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) };
    fs::remove_file(pin)
}

fn linked(object: &Object) -> io::Result<BTreeSet<u32>> {
    let mut devices = BTreeSet::new();
    let mut dead = Vec::new();
    for entry in fs::read_dir(object.links())? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let Some(ifindex) = name.split('_').next().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let mut alive = true;
        for end in ENDS {
            let path = end.pin(object, ifindex);
            alive &= path.try_exists()? && link_info(&open_pin(&path)?)?.0 == ifindex;
        }
        if alive {
            devices.insert(ifindex);
        } else {
            dead.push(ifindex);
        }
    }
    // A link without its other end is attached anew; one whose device is gone is of no use.
    for ifindex in dead {
        for end in ENDS {
            let path = end.pin(object, ifindex);
            if path.try_exists()? && link_info(&open_pin(&path)?)?.0 != ifindex {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(devices)
}

fn look_tcx(object: &Object, ifindex: u32, end: End) -> io::Result<Found> {
    let path = end.pin(object, ifindex);
    if !path.try_exists()? {
        return Ok(Found::Nothing);
    }
    let (linked, ours) = link_info(&open_pin(&path)?)?;
    let programs = tcx_programs(ifindex as i32, end)?;
    match programs.first() {
        _ if linked != ifindex || !programs.contains(&ours) => Ok(Found::Nothing),
        Some(first) if *first != ours => Ok(Found::Behind(name_of(*first))),
        _ => Ok(Found::Ours),
    }
}

fn tcx_programs(ifindex: i32, end: End) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; 64];
    let mut options = libbpf_sys::bpf_prog_query_opts {
        sz: size_of::<libbpf_sys::bpf_prog_query_opts>() as u64,
        prog_ids: ids.as_mut_ptr(),
        ..Default::default()
    };
    options.__bindgen_anon_1.count = ids.len() as u32;
    // SAFETY: room for `count` ids; the options are as long as said.
    check(unsafe { libbpf_sys::bpf_prog_query_opts(ifindex, end.tcx(), &mut options) })?;
    // SAFETY: both members of the union are this integer.
    ids.truncate(unsafe { options.__bindgen_anon_1.count } as usize);
    Ok(ids)
}

/// The ifindex that a tcx link is on (0: none any more), and its program's id.
fn link_info(link: &OwnedFd) -> io::Result<(u32, u32)> {
    let mut info = libbpf_sys::bpf_link_info::default();
    let mut length = size_of_val(&info) as u32;
    // SAFETY: `info` is as long as `length` says.
    check(unsafe {
        libbpf_sys::bpf_link_get_info_by_fd(link.as_raw_fd(), &mut info, &mut length)
    })?;
    // SAFETY: the pins in our directory are tcx links; all members are integers anyway.
    Ok((unsafe { info.__bindgen_anon_1.tcx.ifindex }, info.prog_id))
}

fn program_info(program: &OwnedFd) -> io::Result<libbpf_sys::bpf_prog_info> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut length = size_of_val(&info) as u32;
    // SAFETY: `info` is as long as `length` says, and asks for none of the arrays.
    check(unsafe {
        libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &mut info, &mut length)
    })?;
    Ok(info)
}

fn map_id(map: &OwnedFd) -> io::Result<u32> {
    let mut info = libbpf_sys::bpf_map_info::default();
    let mut length = size_of_val(&info) as u32;
    // SAFETY: `info` is as long as `length` says.
    check(unsafe { libbpf_sys::bpf_map_get_info_by_fd(map.as_raw_fd(), &mut info, &mut length) })?;
    Ok(info.id)
}

/// The ids of the maps that a program uses.
fn maps_of(program: u32) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; 64];
    let mut info = libbpf_sys::bpf_prog_info {
        nr_map_ids: ids.len() as u32,
        map_ids: ids.as_mut_ptr() as u64,
        ..Default::default()
    };
    let mut length = size_of_val(&info) as u32;
    let program = program_by_id(program)?;
    // SAFETY: `info` is as long as `length` says, and the ids have room for as many as it says.
    check(unsafe {
        libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &mut info, &mut length)
    })?;
    ids.truncate(info.nr_map_ids as usize);
    Ok(ids)
}

fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: the answer is a new descriptor that nobody else owns.
    unsafe { number(libbpf_sys::bpf_prog_get_fd_by_id(id)).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// Of the calling thread's network namespace.
fn all_devices() -> io::Result<Vec<u32>> {
    // SAFETY: the list ends with an index of 0, and is freed once.
    unsafe {
        let list = libc::if_nameindex();
        if list.is_null() {
            return Err(io::Error::last_os_error());
        }
        let mut devices = Vec::new();
        let mut entry = list;
        while (*entry).if_index != 0 {
            devices.push((*entry).if_index);
            entry = entry.add(1);
        }
        libc::if_freenameindex(list);
        Ok(devices)
    }
}

/// A program's name for people.
fn name_of(id: u32) -> String {
    let info = program_by_id(id).and_then(|program| program_info(&program));
    let name = info.map(|info| {
        // SAFETY: the kernel ends the name with a zero byte inside its 16.
        unsafe { CStr::from_ptr(info.name.as_ptr()) }
            .to_string_lossy()
            .into_owned()
    });
    match name {
        Ok(name) if !name.is_empty() => format!("{name} (program {id})"),
        _ => format!("program {id}"),
    }
}

fn tc_hook(ifindex: u32, point: libbpf_sys::bpf_tc_attach_point) -> libbpf_sys::bpf_tc_hook {
    libbpf_sys::bpf_tc_hook {
        sz: size_of::<libbpf_sys::bpf_tc_hook>() as u64,
        ifindex: ifindex as i32,
        attach_point: point,
        ..Default::default()
    }
}

fn tc_options() -> libbpf_sys::bpf_tc_opts {
    libbpf_sys::bpf_tc_opts {
        sz: size_of::<libbpf_sys::bpf_tc_opts>() as u64,
        handle: HANDLE,
        priority: PRIORITY,
        ..Default::default()
    }
}

fn attach_clsact(hooks: &Hooks, ifindex: u32, end: End) -> io::Result<()> {
    let mut both = tc_hook(ifindex, BPF_TC_INGRESS | BPF_TC_EGRESS);
    // SAFETY: the hook is as long as said.
    match check(unsafe { libbpf_sys::bpf_tc_hook_create(&mut both) }) {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
        _ => {}
    }
    let program = end.program(hooks);
    let wanted = program_info(program)?.id;
    let there = filter(ifindex, end)?;
    let flags = match there {
        Some(id) if id == wanted => return Ok(()),
        Some(_) if our_filter(ifindex, end)?.is_some() => libbpf_sys::BPF_TC_F_REPLACE,
        Some(id) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!(
                    "{} holds tc priority {PRIORITY}, handle {HANDLE}",
                    name_of(id)
                ),
            ));
        }
        None => 0,
    };
    let hook = tc_hook(ifindex, end.clsact());
    let mut options = libbpf_sys::bpf_tc_opts {
        prog_fd: program.as_raw_fd(),
        flags,
        ..tc_options()
    };
    // SAFETY: hook and options are as long as said, the program is open.
    check(unsafe { libbpf_sys::bpf_tc_attach(&hook, &mut options) })
}

/// Only what is ours; the qdisc stays, as others may use it.
fn detach_clsact(ifindex: u32) -> io::Result<()> {
    for end in ENDS {
        if our_filter(ifindex, end)?.is_some() {
            remove_filter(ifindex, end)?;
        }
    }
    Ok(())
}

fn remove_filter(ifindex: u32, end: End) -> io::Result<()> {
    let hook = tc_hook(ifindex, end.clsact());
    // SAFETY: hook and options are as long as said.
    check(unsafe { libbpf_sys::bpf_tc_detach(&hook, &tc_options()) })
}

/// The id of the program in our place.
fn filter(ifindex: u32, end: End) -> io::Result<Option<u32>> {
    let hook = tc_hook(ifindex, end.clsact());
    let mut options = tc_options();
    // SAFETY: hook and options are as long as said.
    match check(unsafe { libbpf_sys::bpf_tc_query(&hook, &mut options) }) {
        Ok(()) => Ok(Some(options.prog_id)),
        // No such filter; no qdisc to hold one.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn our_filter(ifindex: u32, end: End) -> io::Result<Option<u32>> {
    let id = filter(ifindex, end)?;
    let named = |id: &u32| name_of(*id).split(' ').next() == Some(end.program_name());
    Ok(id.filter(named))
}

fn look_clsact(ifindex: u32, end: End) -> io::Result<Found> {
    if our_filter(ifindex, end)?.is_none() {
        return Ok(Found::Nothing);
    }
    // tcx programs come before all filters; no priority comes before ours.
    match tcx_programs(ifindex as i32, end) {
        Ok(programs) => Ok(programs
            .first()
            .map_or(Found::Ours, |id| Found::Behind(name_of(*id)))),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Found::Ours),
        Err(error) => Err(error),
    }
}

pub(crate) fn is_no_device(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}
