//! A host that the script itself has programmed, read back into our state.
//!
//! Place on the line: the host's dumps -> **original** -> state -> inventory -> compile.
//!
//! ```text
//! dump ----> host --+--> dispatch --> owners --> nics --+
//! (texts)           +--> chains ----> found (rules) ----+--> Recovered
//!                   +--> foreign --> doubts             |
//! log lines, links -------------------------------------+
//! ```
//! What a VM's rules are is what its chains say, whichever version of the script has written them; what
//! the log says of them is believed only where all chains are whole. What can't be read is closed and
//! said, and the server is asked for it: its own rules come at the next ping.
//! Invariants: total; whatever a VM's rules admit is in one of its chains; a chain that isn't whole
//! opens no egress.
//! Knows nothing of: how the texts are got; what is enforced. What is removed is in `removal`.

pub mod build;
mod chains;
mod dispatch;
mod doubt;
pub(crate) mod dump;
mod foreign;
mod found;
pub(crate) mod host;
pub(crate) mod names;
mod nics;
mod owners;
mod protocols;

pub use doubt::{Doubt, Dump};

use crate::log_files::{LogKind, LogLine};
use crate::{Nic, Push, Signature, State, UserVm, Vm, VmKind, VmName};
use found::FoundRules;
use host::{Beside, Host};
use model::{Family, MacAddr};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The texts of a host, of whichever back end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dumps<'a> {
    /// Of `iptables-save`, all tables.
    pub iptables: &'a str,
    /// Of `ip6tables-save`, all tables.
    pub ip6tables: &'a str,
    /// Of `ipset save`.
    pub ipset: &'a str,
    /// Of `ebtables-save`.
    pub ebtables: &'a str,
}

/// A network device of the host, as the kernel or libvirt lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub device: String,
    /// The bridge that it is on.
    pub bridge: Option<String>,
    /// The guest's, as libvirt tells it; or else the device's own, which libvirt makes of the guest's by
    /// writing `fe` into the first byte.
    pub mac: Option<MacAddr>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The VMs, as if all their commands had come to us.
    pub state: State,
    /// Which versions of the script have made the chains of a tenant's VM.
    pub versions: BTreeMap<VmName, BTreeSet<Version>>,
    /// What couldn't be told. Sorted, each once.
    pub doubts: Vec<Doubt>,
}

/// A version of the script, by what it leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Up to CloudStack 4.22: connection state comes first.
    Before,
    /// 4.23: explicit rules come first. What the later ones leave in a chain of rules is the same.
    After,
    /// After 4.23: with direct routing.
    Main,
}

impl Version {
    /// The oldest first.
    pub const ALL: [Version; 3] = [Version::Before, Version::After, Version::Main];

    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Version::Before => "before",
            Version::After => "after",
            Version::Main => "main",
        }
    }

    /// Which version has this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.name() == name)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::Before => "up to CloudStack 4.22",
            Version::After => "of CloudStack 4.23",
            Version::Main => "after CloudStack 4.23",
        })
    }
}

impl Recovered {
    /// The newest version that has made any of it: the one that the host had last.
    pub fn version(&self) -> Option<Version> {
        self.versions.values().flatten().max().copied()
    }
}

/// Reads a host. `links`: empty where nobody has asked.
///
/// Total: a text that is cut, or anybody else's, costs what it doesn't say, and no more.
pub fn recover(dumps: &Dumps<'_>, logs: &[LogLine], links: &[Link]) -> Recovered {
    let host = Host::read(dumps);
    let beside = Beside::new(logs, links);
    let mut doubts = host.doubts();
    let dispatched = host
        .filter(Family::V4)
        .map(dispatch::read)
        .unwrap_or_default();
    let owned = owners::devices(&host, &beside, &dispatched, &mut doubts);
    let vms = owners::tenants_vms(&host, &beside, &owned);
    foreign_rules(&host, &vms, &mut doubts);

    let mut recovered = Recovered::default();
    for (name, chain) in &vms {
        let mut other = vms.iter().filter(|(n, c)| *n != name && *c == chain);
        let evidence = nics::Evidence {
            vm: name,
            chain,
            host: &host,
            beside: &beside,
        };
        let dispatched = owned.get(name).map_or(&[][..], Vec::as_slice);
        let nics = nics::of_user_vm(&evidence, dispatched, &mut doubts);
        let log = tenants_log(&beside, name);
        let shared = other.next().map(|(other, _)| other);
        let found = FoundRules::read(&host, chain);
        let push = found.push(name, log, shared, &mut doubts);
        let versions = found.versions();
        if found.is_mixed() {
            doubts.push(Doubt::Mixed { vm: name.clone() });
        }
        let vm = user_vm(name, log, nics, push, &mut doubts);
        recovered.versions.insert(name.clone(), versions);
        recovered.state.vms.insert(name.clone(), vm);
    }
    for (name, dispatched) in &owned {
        if !names::is_system_vm(name.as_str()) {
            continue;
        }
        let nics = nics::of_system_vm(name, dispatched, &beside, &mut doubts);
        let vm = Vm {
            kind: VmKind::System,
            domain: beside.logs.get(name).and_then(|log| log.domain),
            nics,
        };
        recovered.state.vms.insert(name.clone(), vm);
    }
    for (name, vm) in &recovered.state.vms {
        if vm.nics.is_empty() {
            doubts.push(Doubt::NoNics { vm: name.clone() });
        }
    }
    let alone = |name: &&VmName| name.is_instance() && !vms.contains_key(*name);
    let alone = beside.logs.keys().copied().filter(alone);
    doubts.extend(alone.map(|vm| Doubt::LogAlone { vm: vm.clone() }));
    doubts.sort();
    doubts.dedup();
    recovered.doubts = doubts;
    recovered
}

fn foreign_rules(host: &Host<'_>, vms: &BTreeMap<VmName, String>, doubts: &mut Vec<Doubt>) {
    let guards: BTreeSet<String> = vms
        .values()
        .map(|chain| names::default_chain(chain))
        .collect();
    for (dump, family) in [(Dump::Iptables, Family::V4), (Dump::Ip6tables, Family::V6)] {
        if let Some(filter) = host.filter(family) {
            doubts.extend(foreign::rules(dump, filter, &guards));
        }
    }
}

/// The log of a tenant's VM, if it is one.
fn tenants_log<'a>(beside: &Beside<'a>, name: &VmName) -> Option<TenantsLog<'a>> {
    let log = beside.logs.get(name)?;
    match &log.kind {
        LogKind::User { id, push, .. } => Some(TenantsLog {
            line: log,
            id: *id,
            push: push.as_ref(),
        }),
        LogKind::System => None,
    }
}

#[derive(Clone, Copy)]
struct TenantsLog<'a> {
    line: &'a LogLine,
    id: u64,
    push: Option<&'a (Signature, u64)>,
}

fn user_vm(
    name: &VmName,
    log: Option<TenantsLog<'_>>,
    nics: BTreeMap<MacAddr, Nic>,
    push: Option<Push>,
    doubts: &mut Vec<Doubt>,
) -> Vm {
    let id = log.map(|log| log.id).or_else(|| names::number_in(name));
    if id.is_none() {
        doubts.push(Doubt::NoNumber { vm: name.clone() });
    }
    let address = match log {
        Some(log) => log.line.address(),
        None => nics.values().find(|nic| nic.first).and_then(|nic| nic.ipv4),
    };
    let user = UserVm {
        id: id.unwrap_or_default(),
        address,
        push,
    };
    Vm {
        kind: VmKind::User(user),
        domain: log.and_then(|log| log.line.domain),
        nics,
    }
}

#[cfg(test)]
mod tests;
