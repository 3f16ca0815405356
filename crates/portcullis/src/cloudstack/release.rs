//! The host given back to CloudStack's script, under running VMs: the other way of `adopt`.
//!
//! ```text
//! carry     the kernel's tracker knows our connections, as the script goes by it; revoked ones go
//! build     the script's objects, as it would have made them itself: ours stand in front and judge
//! carry     those that began meanwhile
//! switch    ours goes: from now on the script's judge
//! leave     the script's logs and sets as it has them; the state and all else of ours goes
//! ```
//! At no moment is a VM open, or cut off: up to `switch` ours judge (on a host of the eBPF plane both, from `build`
//! on), then the script's, which is all there. A process that dies on the way leaves
//! `<run_dir>/<instance>/releasing`: what it had built the next call takes away, and what it had switched the next
//! release ends.

use super::adopt::{devices, finish, remove_scripts};
use super::host::{CloudHost, links};
use super::libvirt::Libvirt;
use super::original::{self, Found};
use crate::failure::Failure;
use crate::plane::{self, LivePlane};
use agent::Guard;
use cloudstack::original::Version;
use cloudstack::original::build::{self, BuildFacts, Built};
use cloudstack::{State, VmName, files};
use dataplane::Target;
use std::collections::BTreeMap;
use std::fs;
use std::io;

/// What a host's giving back was at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// Ours are in force.
    Building,
    /// The script's are.
    Switched(Version),
    /// Nothing of ours is left.
    Left,
}

/// What was given back.
pub(crate) struct Released {
    pub(crate) state: State,
    pub(crate) version: Version,
    /// One line each.
    pub(crate) doubts: Vec<String>,
}

/// Says what is true from now on.
type Tell<'t> = &'t mut dyn FnMut(&str);

/// From the state that is in force.
pub(crate) fn release(
    host: &CloudHost,
    state: State,
    version: Version,
    tell: Tell<'_>,
) -> Result<Released, Failure> {
    finish(host)?;
    dataplane_iptables::load_bridge_netfilter().map_err(Failure::system)?;
    let links = links()?;
    let target = host.target(&state, &links);
    let mut plane = host.plane(&state)?;
    host.mark_leaving(Some(Leaving::Building))?;
    let built = match build(host, &state, version, &mut *plane, &target, tell) {
        Ok(built) => built,
        Err(failure) => return Err(put_back(host, &failure)),
    };
    host.mark_leaving(Some(Leaving::Switched(version)))?;
    switch(&mut *plane, &target, tell)?;
    leave(host, state, version, built, tell)
}

/// The rest of one whose process died after the switch.
pub(crate) fn end_release(
    host: &CloudHost,
    version: Version,
    tell: Tell<'_>,
) -> Result<Released, Failure> {
    let Some(state) = host.load()? else {
        host.forget()?;
        host.mark_leaving(Some(Leaving::Left))?;
        return Ok(Released {
            state: State::default(),
            version,
            doubts: Vec::new(),
        });
    };
    if plane::is_there(host.config.plane, &host.instance)? {
        let target = host.target(&state, &links()?);
        switch(&mut *host.plane(&state)?, &target, tell)?;
    } else {
        plane::remove(host.config.plane, &host.instance)?;
    }
    let built = scripts(host, &state, version)?.1;
    leave(host, state, version, built, tell)
}

/// What a process has built that died before the switch goes: ours are in force.
pub(super) fn undo(host: &CloudHost) -> Result<(), Failure> {
    if host.leaving() == Some(Leaving::Building) {
        remove_scripts()?;
        host.mark_leaving(None)?;
    }
    Ok(())
}

fn put_back(host: &CloudHost, failure: &Failure) -> Failure {
    let now = match undo(host) {
        Ok(()) => "what was built of the script's is taken away again",
        Err(_) => "some of the script's may be left, which the next call takes away",
    };
    Failure::System(format!("{}; ours is in force, and {now}", failure.text()))
}

/// The script's objects are all there when this returns, and ours judge.
fn build(
    host: &CloudHost,
    state: &State,
    version: Version,
    plane: &mut dyn LivePlane,
    target: &Target,
    tell: Tell<'_>,
) -> Result<Built, Failure> {
    let revoked = plane::forget_revoked(target)?;
    let given = plane.give_back(target)?;
    tell(&format!(
        "carried: {given} connections into the kernel's tracker, and {revoked} out of it that no rule permits any more"
    ));
    let (found, built) = scripts(host, state, version)?;
    found
        .build(&built)
        .map_err(|error| Failure::System(format!("building what the script has: {error}")))?;
    plane.give_back(target)?;
    ask_by_bridges().map_err(|error| {
        Failure::System(format!("setting net/bridge/bridge-nf-call-*: {error}"))
    })?;
    tell("built: the sets, rules and chains of the script; ours still judge");
    Ok(built)
}

fn switch(plane: &mut dyn LivePlane, target: &Target, tell: Tell<'_>) -> Result<(), Failure> {
    let late = plane.hand_over(target).map_err(|failure| {
        Failure::System(format!(
            "{}; the script's rules are there, ours may judge as well, and `portcullis cloudstack release` ends it",
            failure.text()
        ))
    })?;
    tell(&format!(
        "switched: the script's rules judge; {late} connections that had begun meanwhile are carried, too"
    ));
    Ok(())
}

/// Nothing of ours judges any more.
fn leave(
    host: &CloudHost,
    state: State,
    version: Version,
    built: Built,
    tell: Tell<'_>,
) -> Result<Released, Failure> {
    let left = |what: &str| {
        let what = what.to_owned();
        move |error: String| {
            Failure::System(format!(
                "{what}: {error}; the script's rules judge, and `portcullis cloudstack release` ends it"
            ))
        }
    };
    let guard = Guard::new(host.instance.name());
    guard
        .remove()
        .map_err(|error| left("removing the guard")(error.to_string()))?;
    original::run(&["ipset", "restore"], &built.untracked)
        .and_then(|_| original::destroy(&built.former_sets))
        .map_err(|error| left("making the sets as the script has them")(error.to_string()))?;
    files::replace_all(&host.config.logs, &built.logs, &built.ip_files)
        .map_err(|error| left("writing the script's logs")(error.to_string()))?;
    host.forget()?;
    host.mark_leaving(Some(Leaving::Left))?;
    tell("removed: all else of ours; the script's logs are written");
    Ok(Released {
        state,
        version,
        doubts: built.doubts.iter().map(ToString::to_string).collect(),
    })
}

/// What is on the host now, and what is to be.
fn scripts(host: &CloudHost, state: &State, version: Version) -> Result<(Found, Built), Failure> {
    let found = Found::read_now()?;
    let facts = BuildFacts {
        dumps: found.dumps(),
        links: &devices(&links()?),
        domains: &domains(host, state),
        ebtables: original::ebtables(),
        in_front: plane::COMMENT,
    };
    let built = build::build(state, version, &facts);
    Ok((found, built))
}

/// libvirt's numbers, as far as it answers.
fn domains(host: &CloudHost, state: &State) -> BTreeMap<VmName, u32> {
    let libvirt = Libvirt::by(&host.config.virsh);
    let Ok(running) = libvirt.domains() else {
        return BTreeMap::new();
    };
    let known = state.vms.keys().filter(|vm| running.contains(vm.as_str()));
    let numbered = known.filter_map(|vm| Some((vm.clone(), libvirt.domain(vm)?)));
    numbered.collect()
}

/// As the script sets them.
fn ask_by_bridges() -> io::Result<()> {
    for tool in ["arp", "ip", "ip6"] {
        fs::write(
            format!("/proc/sys/net/bridge/bridge-nf-call-{tool}tables"),
            "1",
        )?;
    }
    Ok(())
}
