//! The change-over from CloudStack's script, under running VMs.
//!
//! ```text
//! read      what the script has built, as if all its commands had come to us
//! carry     connections that the kernel tracks go on with us
//! enforce   ours stands in front of the script's: packets that it has judged are not asked for more
//! carry     those that began meanwhile
//! remove    what the script has built judges nothing any more, and goes
//! ```
//! At no moment is a VM open, or cut off: up to `enforce` the script's rules judge, from then on ours. A process
//! that dies on the way leaves `<run_dir>/<instance>/adopting`, and the next call goes on from there.

use super::host::{CloudHost, links};
use super::original::Found;
use crate::failure::Failure;
use agent::Link;
use cloudstack::log_files::LogLine;
use cloudstack::original::{self, Recovered};
use cloudstack::{State, files, removal};
use std::collections::BTreeMap;

/// What was taken over.
pub(crate) struct Adopted {
    pub(crate) state: State,
    /// One line each.
    pub(crate) doubts: Vec<String>,
    pub(crate) connections: u64,
}

/// What the script has built, as our state; `None`: nothing.
pub(crate) fn recover(host: &CloudHost) -> Result<Option<(Found, Recovered)>, Failure> {
    let Some(found) = Found::read()? else {
        return Ok(None);
    };
    let recovered = original::recover(&found.dumps(), &logs(host)?, &devices(&links()?));
    Ok(Some((found, recovered)))
}

/// `None`: the script has built nothing here.
pub(crate) fn adopt(host: &CloudHost) -> Result<Option<Adopted>, Failure> {
    let Some((found, recovered)) = recover(host)? else {
        return Ok(None);
    };
    let version = recovered.version();
    let state = recovered.state;
    // Before there are rules of ours that look like the script's.
    let removal = removal::removal(&found.dumps());
    host.mark_adoption(Some(Adoption::Enforcing))?;
    host.mark_script_version(version)?;
    let links = links()?;
    let target = host.target(&state, &links);
    let mut plane = host.plane(&State::default())?;
    let mut connections = plane.take_over(&target)?;
    let report = host.enforce_target(&mut *plane, target, &links)?;
    connections += plane.take_over(&host.target(&state, &links))?;
    host.save(&state)?;
    host.write_logs(&state, state.vms.keys())?;
    host.mark_adoption(Some(Adoption::Removing))?;
    found.remove(&removal)?;
    host.mark_adoption(None)?;
    let doubts = recovered.doubts.iter().chain(&removal.doubts);
    let refused = report.refused.iter();
    let refused = refused.map(|(port, why)| format!("NIC {port}: {why}"));
    Ok(Some(Adopted {
        doubts: doubts.map(ToString::to_string).chain(refused).collect(),
        state,
        connections,
    }))
}

/// What a process was at that died in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adoption {
    /// The script's rules are all there still: it begins anew.
    Enforcing,
    /// Ours are in force.
    Removing,
}

/// The rest of what the script has built goes, if a process died over it.
pub(crate) fn finish(host: &CloudHost) -> Result<(), Failure> {
    if host.adoption() == Some(Adoption::Removing) {
        remove_scripts()?;
        host.mark_adoption(None)?;
    }
    Ok(())
}

/// Ours are in force.
pub(super) fn remove_scripts() -> Result<(), Failure> {
    for found in Found::each() {
        let found = found?;
        found.remove(&removal::removal(&found.dumps()))?;
    }
    Ok(())
}

fn logs(host: &CloudHost) -> Result<Vec<LogLine>, Failure> {
    let logs = files::read_logs(&host.config.logs).map_err(Failure::system)?;
    // What isn't a line says nothing.
    Ok(logs.into_values().filter_map(Result::ok).collect())
}

pub(super) fn devices(links: &BTreeMap<u32, Link>) -> Vec<original::Link> {
    let bridge = |link: &Link| Some(links.get(&link.master?)?.name.clone());
    let of = |link: &Link| original::Link {
        device: link.name.clone(),
        bridge: bridge(link),
        mac: link.mac,
    };
    links.values().map(of).collect()
}
