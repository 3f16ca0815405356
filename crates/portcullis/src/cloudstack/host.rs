//! The host that calls work on: its state, and getting it enforced.
//!
//! ```text
//! <run_dir>/<instance>/vms.json     what the agent has told, so far: what is in force
//! <run_dir>/<instance>/adopting     a change-over from the script was begun and not ended
//! <run_dir>/<instance>/script       which version of the script has built what was taken over
//! <run_dir>/<instance>/releasing    the host is given back to the script, or was
//! <run_dir>/<instance>/guard        which devices may pass the bridge-level drop
//! <run_dir>/<instance>/devices      devices that are ours (agent)
//! <logs>/NAME.log                   the script's own line for each VM
//! ```
//! The state goes with a reboot, as VMs and enforcement do.

use super::adopt::Adoption;
use super::config::Config;
use super::release::Leaving;
use crate::failure::Failure;
use crate::plane::{self, LivePlane};
use crate::policy_source::this_host;
use agent::{Guard, GuardState, Instance, Link, devices};
use cloudstack::log_files::LogLine;
use cloudstack::original::Version;
use cloudstack::{State, VmName, files, inventory};
use dataplane::{ApplyReport, Device, Target};
use model::HostId;
use policy::HostView;
use rustix::fs::FlockOperation;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

const VMS: &str = "vms.json";
const GUARD: &str = "guard";

const SCRIPT: &str = "script";

const ADOPTING: &str = "adopting";
const ENFORCING: &str = "enforcing";
const REMOVING: &str = "removing";

const RELEASING: &str = "releasing";
const BUILDING: &str = "building";
const SWITCHED_TO: &str = "switched";
const GIVEN_BACK: &str = "left";

/// What whoever asks for something else is told meanwhile, and from then on.
const SWITCHED: &str = "this host is being given back to CloudStack's script, which judges already; \
    `portcullis cloudstack release` ends it; nothing was changed";
const LEFT: &str = "this host was given back to CloudStack's script: put the script back under this name, or take \
    the host over again (`portcullis cloudstack adopt`); nothing was changed";

/// Held by one process at a time.
pub(crate) struct CloudHost {
    pub(crate) config: Config,
    pub(crate) instance: Instance,
    id: HostId,
    #[expect(dead_code, reason = "held, not used")]
    lock: File,
}

impl CloudHost {
    /// Waits until nobody else is at work.
    pub(crate) fn enter(config: Config) -> Result<Self, Failure> {
        let lock = open_lock(&config.lock)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|error| {
            Failure::System(format!("locking {}: {error}", config.lock.display()))
        })?;
        Self::with_lock(config, lock)
    }

    /// `None`: somebody else is at work.
    pub(crate) fn try_enter(config: Config) -> Result<Option<Self>, Failure> {
        let lock = open_lock(&config.lock)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Self::with_lock(config, lock).map(Some),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(Failure::System(format!(
                "locking {}: {error}",
                config.lock.display()
            ))),
        }
    }

    fn with_lock(config: Config, lock: File) -> Result<Self, Failure> {
        let instance = Instance::new(&config.instance, &config.run_dir, &config.run_dir);
        let instance = instance.map_err(Failure::system)?;
        Ok(Self {
            id: this_host(None)?,
            config,
            instance,
            lock,
        })
    }

    /// `None`: nothing has been said to this host since it runs.
    pub(crate) fn state(&self) -> Result<Option<State>, Failure> {
        if self.is_half_adopted() {
            return Ok(None);
        }
        match self.leaving() {
            None | Some(Leaving::Building) => {}
            Some(Leaving::Switched(_)) => return Err(Failure::System(SWITCHED.to_owned())),
            Some(Leaving::Left) => return Err(Failure::System(LEFT.to_owned())),
        }
        let state = self.load()?;
        if state.is_none() && plane::is_there(self.config.plane, &self.instance)? {
            return Err(Failure::System(format!(
                "{} is gone while rules are in force, so what they are isn't known; \
                 `portcullis detach --instance {} --plane {}` opens all ports, and the server's next push \
                 closes them again",
                state_path(&self.instance).display(),
                self.instance.name(),
                self.config.plane.name()
            )));
        }
        Ok(state)
    }

    /// The state's file, whatever else is true of this host.
    pub(crate) fn load(&self) -> Result<Option<State>, Failure> {
        files::load(&state_path(&self.instance)).map_err(Failure::system)
    }

    pub(crate) fn save(&self, state: &State) -> Result<(), Failure> {
        files::save(&state_path(&self.instance), state).map_err(Failure::system)
    }

    pub(crate) fn adoption(&self) -> Option<Adoption> {
        match self.note(ADOPTING)?.as_str() {
            REMOVING => Some(Adoption::Removing),
            _ => Some(Adoption::Enforcing),
        }
    }

    /// A change-over to us was stopped before ours were wholly in force.
    pub(crate) fn is_half_adopted(&self) -> bool {
        self.adoption() == Some(Adoption::Enforcing)
    }

    /// `None`: it is over.
    pub(crate) fn mark_adoption(&self, at: Option<Adoption>) -> Result<(), Failure> {
        self.write_note(
            ADOPTING,
            at.map(|at| match at {
                Adoption::Enforcing => ENFORCING,
                Adoption::Removing => REMOVING,
            }),
        )
    }

    pub(crate) fn leaving(&self) -> Option<Leaving> {
        let note = self.note(RELEASING)?;
        Some(match note.split_once(' ') {
            Some((SWITCHED_TO, version)) => match Version::named(version) {
                Some(version) => Leaving::Switched(version),
                None => Leaving::Building,
            },
            _ if note == GIVEN_BACK => Leaving::Left,
            _ => Leaving::Building,
        })
    }

    /// `None`: the host is ours.
    pub(crate) fn mark_leaving(&self, at: Option<Leaving>) -> Result<(), Failure> {
        let note = at.map(|at| match at {
            Leaving::Building => BUILDING.to_owned(),
            Leaving::Switched(version) => format!("{SWITCHED_TO} {}", version.name()),
            Leaving::Left => GIVEN_BACK.to_owned(),
        });
        self.write_note(RELEASING, note.as_deref())
    }

    /// Which version of the script the host had; `None`: nothing was taken over, or it didn't show.
    pub(crate) fn script_version(&self) -> Option<Version> {
        Version::named(&self.note(SCRIPT)?)
    }

    pub(crate) fn mark_script_version(&self, version: Option<Version>) -> Result<(), Failure> {
        self.write_note(SCRIPT, version.map(Version::name))
    }

    /// What the state and the planes have beside them, after nothing of ours is in force.
    pub(crate) fn forget(&self) -> Result<(), Failure> {
        self.instance.forget().map_err(Failure::system)?;
        for name in [GUARD, SCRIPT, VMS] {
            self.write_note(name, None)?;
        }
        Ok(())
    }

    fn note(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.instance.run_dir().join(name)).ok()
    }

    /// Replaced as a whole. `None`: it goes.
    fn write_note(&self, name: &str, text: Option<&str>) -> Result<(), Failure> {
        let path = self.instance.run_dir().join(name);
        let written = match text {
            Some(text) => {
                let new = self.instance.run_dir().join(format!("{name}.new"));
                fs::create_dir_all(self.instance.run_dir())
                    .and_then(|()| fs::write(&new, text))
                    .and_then(|()| fs::rename(&new, &path))
            }
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            },
        };
        written.map_err(|error| Failure::System(format!("writing {}: {error}", path.display())))
    }

    /// The script's own files about these VMs.
    pub(crate) fn write_logs<'a>(
        &self,
        state: &State,
        vms: impl IntoIterator<Item = &'a VmName>,
    ) -> Result<(), Failure> {
        for name in vms {
            let written = match state.vms.get(name) {
                Some(vm) => files::write_log(&self.config.logs, &LogLine::of(name, vm)),
                None => files::remove_log(&self.config.logs, name),
            };
            written.map_err(Failure::system)?;
        }
        Ok(())
    }

    pub(crate) fn view(&self, state: &State) -> HostView {
        let host = self.config.host(&self.id);
        let inventory = inventory::inventory(state, host, &self.config.options);
        // What the compiler finds is of the server's making, and it isn't who asks here.
        policy::compile(&inventory, &self.id).0
    }

    /// The view of a state that comes after another one. VMs have nothing to do with each other, so those alone
    /// are looked at that differ.
    fn view_after(&self, old: &State, view_of_old: &HostView, new: &State) -> HostView {
        let mut parts = [State::default(), State::default()];
        for (name, before, after) in policy::differing(&old.vms, &new.vms) {
            for (part, vm) in parts.iter_mut().zip([before, after]) {
                part.vms.extend(vm.map(|vm| (name.clone(), vm.clone())));
            }
        }
        let [gone, come] = parts.map(|part| self.view(&part));
        let mut view = view_of_old.clone();
        view.exchange(&gone, come);
        view
    }

    /// The plane, with what is in force by the last call.
    pub(crate) fn plane(&self, state: &State) -> Result<Box<dyn LivePlane>, Failure> {
        self.plane_with(&self.view(state))
    }

    fn plane_with(&self, in_force: &HostView) -> Result<Box<dyn LivePlane>, Failure> {
        let config = &self.config;
        let mut plane = plane::open(config.plane, &self.instance, config.max_ports, false)?;
        if !plane.ports()?.is_empty() {
            plane.recognize(in_force)?;
        }
        Ok(plane)
    }

    /// From one state, of this view, to another. `Err`: the former is in force.
    pub(crate) fn enforce(
        &self,
        (old, view_of_old): (&State, &HostView),
        new: &State,
        links: &BTreeMap<u32, Link>,
    ) -> Result<ApplyReport, Failure> {
        let mut plane = self.plane_with(view_of_old)?;
        let view = self.view_after(old, view_of_old, new);
        let target = self.target_of(view, links);
        self.enforce_target(&mut *plane, target, links)
    }

    pub(crate) fn enforce_target(
        &self,
        plane: &mut dyn LivePlane,
        target: Target,
        links: &BTreeMap<u32, Link>,
    ) -> Result<ApplyReport, Failure> {
        let report = plane.apply(&target).map_err(Failure::system)?;
        self.open_guard(plane, &target, links)?;
        let ours = target.devices.values().chain(&target.closed);
        self.instance
            .remember_ours(&ours.cloned().collect())
            .map_err(Failure::system)?;
        Ok(report)
    }

    pub(crate) fn target(&self, state: &State, links: &BTreeMap<u32, Link>) -> Target {
        self.target_of(self.view(state), links)
    }

    fn target_of(&self, view: HostView, links: &BTreeMap<u32, Link>) -> Target {
        let matching = agent::match_devices(&view.ports, links);
        let given: BTreeSet<&Device> = matching.devices.values().collect();
        let mut closed = matching.contested;
        let there = |device: &Device| links.contains_key(&device.ifindex);
        closed.extend(self.instance.ours().into_iter().filter(there));
        closed.extend(self.unannounced(&view, links));
        closed.retain(|device| !given.contains(device));
        let bridges = agent::bridges_of(given.into_iter().chain(&closed), links);
        Target {
            view,
            devices: matching.devices,
            closed,
            bridges,
        }
    }

    /// Devices of VMs that are on a bridge with ports and of which nobody has told.
    fn unannounced<'a>(
        &'a self,
        view: &HostView,
        links: &'a BTreeMap<u32, Link>,
    ) -> impl Iterator<Item = Device> + 'a {
        let ports = view.ports.values();
        let bridges: BTreeSet<String> =
            ports.map(|port| port.network.as_str().to_owned()).collect();
        let is_bridge =
            move |index: u32| links.get(&index).is_some_and(|l| bridges.contains(&l.name));
        let named = links.values().filter(|link| self.is_guarded(&link.name));
        let on_bridge = named.filter(move |link| link.master.is_some_and(&is_bridge));
        on_bridge.map(Link::device)
    }

    fn is_guarded(&self, name: &str) -> bool {
        self.config
            .guard
            .iter()
            .any(|pattern| agent::fits(pattern, name))
    }

    /// After the plane: what it judges, and what is none of ours, may pass the drop at the bridge; a device that
    /// comes is closed until a call has told of it.
    fn open_guard(
        &self,
        plane: &mut dyn LivePlane,
        target: &Target,
        links: &BTreeMap<u32, Link>,
    ) -> Result<(), Failure> {
        let guard = Guard::new(self.instance.name());
        let closed: BTreeSet<u32> = target.closed.iter().map(|device| device.ifindex).collect();
        let named = links.values().filter(|link| self.is_guarded(&link.name));
        let state = GuardState {
            names: self.config.guard.clone(),
            armed: named
                .map(|link| link.ifindex)
                .filter(|ifindex| !closed.contains(ifindex))
                .collect(),
        };
        let known = self.known_guard();
        if known.as_ref() == Some(&state) {
            return Ok(());
        }
        plane.beside(&mut || {
            let set = match &known {
                _ if state.names.is_empty() => guard.remove(),
                Some(known) => guard.change(known, &state),
                None => guard.set(&state),
            };
            set.map_err(Failure::system)
        })?;
        let path = self.guard_path();
        fs::write(&path, guard_text(&state))
            .map_err(|error| Failure::System(format!("writing {}: {error}", path.display())))
    }

    /// Whether what was last written is there still.
    pub(crate) fn guard_is_in_place(&self) -> Result<bool, Failure> {
        match self.known_guard() {
            Some(state) if !state.names.is_empty() => {
                let guard = Guard::new(self.instance.name());
                guard.is_in_place(&state).map_err(Failure::system)
            }
            Some(_) | None => Ok(true),
        }
    }

    /// Whoever changed it is not believed to have left it as it was.
    pub(crate) fn forget_guard(&self) {
        drop(fs::remove_file(self.guard_path()));
    }

    fn guard_path(&self) -> PathBuf {
        self.instance.run_dir().join(GUARD)
    }

    fn known_guard(&self) -> Option<GuardState> {
        parse_guard(&fs::read_to_string(self.guard_path()).ok()?)
    }
}

pub(crate) fn state_path(instance: &Instance) -> PathBuf {
    instance.run_dir().join(VMS)
}

pub(crate) fn links() -> Result<BTreeMap<u32, Link>, Failure> {
    let links = devices::list().map_err(Failure::system)?;
    Ok(links.into_iter().map(|link| (link.ifindex, link)).collect())
}

fn open_lock(path: &Path) -> Result<File, Failure> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let opened = fs::create_dir_all(directory).and_then(|()| {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).open(path)
    });
    opened.map_err(|error| Failure::System(format!("opening {}: {error}", path.display())))
}

/// A line of names, and one of devices' indices.
fn guard_text(state: &GuardState) -> String {
    let names: Vec<&str> = state.names.iter().map(String::as_str).collect();
    let armed: Vec<String> = state.armed.iter().map(ToString::to_string).collect();
    format!("{}\n{}\n", names.join(" "), armed.join(" "))
}

fn parse_guard(text: &str) -> Option<GuardState> {
    let (names, armed) = text.strip_suffix('\n')?.split_once('\n')?;
    let armed: Result<_, _> = armed.split_whitespace().map(str::parse).collect();
    Some(GuardState {
        names: names.split_whitespace().map(str::to_owned).collect(),
        armed: armed.ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloudstack::change::{self, Facts};

    /// VMs of two bridges that come, change and go.
    const COMMANDS: [&str; 14] = [
        "default_network_rules --vmname i-2-1-VM --vmid 1 --vmip 10.0.0.1 --vmmac 02:00:00:00:00:01 --vif vnet1 \
         --brname br0 --nicsecips 0; --isFirstNic",
        "default_network_rules --vmname i-2-2-VM --vmid 2 --vmip 10.0.0.2 --vmmac 02:00:00:00:00:02 --vif vnet2 \
         --brname br1 --nicsecips 10.0.0.9; --isFirstNic",
        "add_network_rules --vmname i-2-1-VM --vmid 1 --vmip 10.0.0.1 --vmmac 02:00:00:00:00:01 --vif vnet1 \
         --brname br0 --nicsecips 0; --sig a --seq 1 --rules=I:tcp;22;22;0.0.0.0/0,NEXT;",
        "default_network_rules --vmname i-2-2-VM --vmid 2 --vmip 10.0.0.3 --vmmac 02:00:00:00:00:03 --vif vnet3 \
         --brname br0 --nicsecips 0;",
        "add_network_rules --vmname i-2-2-VM --vmid 2 --vmip 10.0.0.2 --vmmac 02:00:00:00:00:02 --vif vnet2 \
         --brname br1 --nicsecips 0; --sig b --seq 1 --rules=E:udp;53;53;8.8.8.8/32,::/0,NEXT;",
        "network_rules_vmSecondaryIp --vmname i-2-1-VM --vmmac 02:00:00:00:00:01 --nicsecips 10.0.0.7; \
         --action=-A",
        "default_network_rules --vmname i-2-4-VM --vmid 4 --vmip 10.0.0.1 --vmmac 02:00:00:00:00:04 --vif vnet1 \
         --brname br1 --nicsecips 0; --isFirstNic",
        "destroy_network_rules_for_vm --vmname i-2-2-VM --vif vnet3",
        "add_network_rules --vmname i-2-4-VM --vmid 4 --vmip 10.0.0.1 --vmmac 02:00:00:00:00:04 --vif vnet1 \
         --brname br1 --nicsecips 0; --sig c --seq 2 --rules=I:all;0;0;0.0.0.0/0,NEXT;",
        "destroy_network_rules_for_vm --vmname i-2-2-VM --vif vnet2",
        "destroy_network_rules_for_vm --vmname i-2-4-VM --vif vnet1",
        "destroy_network_rules_for_vm --vmname i-2-1-VM --vif vnet1",
        "default_network_rules --vmname i-2-5-VM --vmid 5 --vmip 10.0.0.5 --vmmac 02:00:00:00:00:05 --vif vnet5 \
         --brname br1 --nicsecips 0; --isFirstNic",
        "destroy_network_rules_for_vm --vmname i-2-5-VM --vif vnet5",
    ];

    #[test]
    fn a_view_is_the_same_whichever_state_came_before() {
        let directory = tempfile::tempdir().expect("there is room");
        let host = CloudHost::enter(Config {
            run_dir: directory.path().join("run"),
            lock: directory.path().join("lock"),
            ..Config::default()
        });
        let host = host.unwrap_or_else(|failure| panic!("{}", failure.text()));
        let mut states = vec![State::default()];
        for command in COMMANDS {
            let mut state = states[states.len() - 1].clone();
            let words: Vec<&str> = command.split_whitespace().collect();
            let command = cloudstack::arguments::parse(&words).expect("a command");
            change::apply(&mut state, &command, &Facts::default()).expect("it fits");
            states.push(state);
        }
        for old in &states {
            let view_of_old = host.view(old);
            for new in &states {
                let view = host.view_after(old, &view_of_old, new);
                assert_eq!(view, host.view(new));
            }
        }
        let most_vms = states.iter().map(|state| state.vms.len()).max();
        assert_eq!(most_vms, Some(3));
    }

    #[test]
    fn a_guard_comes_back_from_its_file() {
        for (names, armed) in [(vec![], vec![]), (vec!["tap1", "vnet*"], vec![4, 19])] {
            let state = GuardState {
                names: names.into_iter().map(str::to_owned).collect(),
                armed: armed.into_iter().collect(),
            };
            assert_eq!(parse_guard(&guard_text(&state)), Some(state));
        }
        assert_eq!(parse_guard("vnet*\n4 five\n"), None);
        assert_eq!(parse_guard(""), None);
    }
}
