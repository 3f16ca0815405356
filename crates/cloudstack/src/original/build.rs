//! A host given back to the script: what it would have built itself for the VMs of our state, in the
//! version that the operator chooses, in one piece and without running it.
//!
//! Place on the line: state -> **build** -> texts for the tools.
//!
//! ```text
//! state, version --+
//! links -----------+--> plan --+--> bridges, guard, rules --> tables --+
//! dumps -----------+           +--> link_layer ------------------------+--> Built
//!      |                       +--> sets ------------------------------+
//!      +--> what is there and isn't built anew: it goes ---------------+
//! ```
//! What enforces until now stands in front (its rules in FORWARD are put there again) while the caller does
//! this, in this order:
//!
//! 1. `ipset`, then `iptables`, `ip6tables` and `ebtables`: each family of a table in one transaction.
//!    Bridged frames must come to iptables: `net.bridge.bridge-nf-call-iptables` and its likes are 1.
//! 2. `logs` and `ip_files`, in place of all that are there.
//! 3. What enforced goes.
//! 4. `untracked`, whose members its planes have a stricter view of; then `former_sets` are destroyed.
//!
//! Whatever of the script's is there already is made anew or goes, so this may be done again after any
//! failure. What the script can't have as it is meant is closed, and said.
//!
//! # Connections
//! The script goes by the kernel's own tracking, without a zone; in `Before` an entry is looked at before
//! any rule, later after them. For the caller, between 1 and 3:
//!
//! - It is rules about state that make the kernel track bridged frames, so 1 comes some time before 3.
//! - What was tracked elsewhere, in zones or in tables of ours, isn't known there. Each live flow is
//!   entered anew, without a zone and as established: of one that the VM began, no rule need admit what
//!   comes next from the other side. Windows aren't known, so `nf_conntrack_tcp_be_liberal` is 1.
//! - Live is what the rules admit now. Entries without a zone of other flows of these VMs go: a revoked
//!   flow must not come back by its entry.
//! - A flow whose address leaves `cs_notrack` is picked up by its next packet that a rule admits, with
//!   `nf_conntrack_tcp_loose` at 1; one whose address comes in needs nothing.
//!
//! Invariants: total; the texts depend on the state, the version and the facts alone, not on the way
//! there. No NIC of the state is left open: it has the script's guard, or is closed.
//! Knows nothing of: how the texts are loaded, what enforces until then, connections.

mod bridges;
mod doubt;
mod guard;
mod link_layer;
mod plan;
mod rules;
mod sets;
mod tables;

pub use doubt::{BuildDoubt, Misread};

use super::dump::Rule;
use super::host::Host;
use super::{Dump, Dumps, Link, Version};
use crate::log_files::LogLine;
use crate::removal::{Former, LinkLayer, Rebuilt};
use crate::{State, Vm, VmName, addresses};
use model::Family;
use plan::{Plan, PlannedNic, PlannedVm};
use std::collections::BTreeMap;
use tables::Table;

/// What the script would ask the host.
#[derive(Clone, Copy, Debug)]
pub struct BuildFacts<'a> {
    /// What is on the host now.
    pub dumps: Dumps<'a>,
    /// Its devices, in the kernel's order: the script takes the first one of a bridge for its uplink that
    /// isn't a VM's.
    pub links: &'a [Link],
    /// libvirt's numbers of the domains that run.
    pub domains: &'a BTreeMap<VmName, u32>,
    /// Its program of that name.
    pub ebtables: Ebtables,
    /// Rules of FORWARD with this comment are of what enforces until now: they stay in front.
    pub in_front: &'a str,
}

/// Which ebtables a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ebtables {
    /// On nf_tables: it takes a script.
    NfTables,
    /// The older one: it takes commands.
    Legacy,
}

/// What to load, in the order of the module's head, and what can't be given back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// For `ipset restore`.
    pub ipset: String,
    /// For `iptables-restore --noflush`.
    pub iptables: String,
    /// For `ip6tables-restore --noflush`.
    pub ip6tables: String,
    /// At the link layer.
    pub ebtables: LinkLayer,
    /// The lines of `NAME.log`, one for each VM that the script is to know.
    pub logs: Vec<LogLine>,
    /// The lines of `NAME.ip`.
    pub ip_files: Vec<IpFile>,
    /// For `ipset restore`: which addresses the script doesn't have tracked. It wants the sets made just
    /// as it makes them, so they are replaced.
    pub untracked: String,
    /// Sets of VMs that aren't there any more.
    pub former_sets: Vec<String>,
    /// Sorted, each once.
    pub doubts: Vec<BuildDoubt>,
}

/// `NAME.ip`: the secondary addresses that a VM's last NIC was begun with. Nobody reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpFile {
    /// Whose.
    pub vm: VmName,
    /// Without its end.
    pub line: String,
}

/// Builds all of a host. Total.
pub fn build(state: &State, version: Version, facts: &BuildFacts<'_>) -> Built {
    let host = Host::read(&facts.dumps);
    let mut doubts = Vec::new();
    let plan = Plan::new(state, version, facts, &host, &mut doubts);
    let mut filter = |family| {
        let mut filter = filter(&plan, family, &mut doubts);
        let forward = host.chain(family, "FORWARD").unwrap_or_default();
        keep_in_front(&mut filter, forward, facts.in_front);
        filter
    };
    let (four, six) = (filter(Family::V4), filter(Family::V6));
    let nat = link_layer::table(&plan);
    let rebuilt = rebuilt(&plan, &four, &six, &nat);
    let mut former = Former::new(&host, &rebuilt);
    let mut script = |dump, family, filter: &Table| {
        let filter = filter.script("filter", &former.take(dump, "filter"));
        let raw = raw(&plan, family).script("raw", &former.take(dump, "raw"));
        [former.script(dump), raw, filter].concat()
    };
    let iptables = script(Dump::Iptables, Family::V4, &four);
    let ip6tables = script(Dump::Ip6tables, Family::V6, &six);
    let found = host.link_layer.table("nat");
    let is_there = |chain: &str| found.is_some_and(|found| found.contains_key(chain));
    let ebtables = nat.steps(is_there, former.take(Dump::Ebtables, "nat"));
    doubts.extend(former.doubts.into_iter().map(BuildDoubt::Found));
    let vms = sets::untracked_vms(&plan);
    doubts.extend((vms > 0).then_some(BuildDoubt::Untracked { vms }));
    doubts.sort();
    doubts.dedup();
    let ip_file = |vm| ip_file(version, vm);
    Built {
        ipset: sets::script(&plan, &host),
        iptables,
        ip6tables,
        ebtables: LinkLayer::new(ebtables),
        logs: logs(&plan, facts.domains),
        ip_files: plan.vms.iter().filter_map(ip_file).collect(),
        untracked: sets::untracked(&plan),
        former_sets: former.sets,
        doubts,
    }
}

fn filter(plan: &Plan<'_>, family: Family, doubts: &mut Vec<BuildDoubt>) -> Table {
    let mut filter = Table::default();
    bridges::add(&mut filter, plan);
    for vm in &plan.vms {
        guard::add(&mut filter, family, plan.version, vm);
        rules::add(&mut filter, family, plan.version, vm, doubts);
    }
    if family == Family::V4 {
        for vm in &plan.system_vms {
            guard::add_system_vm(&mut filter, vm);
        }
    }
    for nic in &plan.barred {
        guard::bar(&mut filter, plan.version, nic);
    }
    filter
}

/// Behind all other steps, in the same transaction.
fn keep_in_front(filter: &mut Table, forward: &[Rule<'_>], comment: &str) {
    let is_in_front = |rule: &&Rule<'_>| rule.value("--comment") == Some(comment);
    for rule in forward.iter().filter(is_in_front).rev() {
        filter.hook(format!("-D FORWARD {}", rule.text));
        filter.hook(format!("-I FORWARD {}", rule.text));
    }
}

fn raw(plan: &Plan<'_>, family: Family) -> Table {
    let mut raw = Table::default();
    for (_, set, _) in sets::untracked_sets(plan).filter(|(of, ..)| *of == family) {
        for side in ["dst", "src"] {
            raw.hook(format!(
                "-A PREROUTING -m set --match-set {set} {side} -j NOTRACK"
            ));
        }
    }
    raw
}

fn rebuilt(plan: &Plan<'_>, four: &Table, six: &Table, nat: &Table) -> Rebuilt {
    let tables = [
        (Dump::Iptables, four),
        (Dump::Ip6tables, six),
        (Dump::Ebtables, nat),
    ];
    let chains = tables.into_iter().flat_map(|(dump, table)| {
        let chains = table.chains();
        chains.map(move |chain| (dump, chain.to_owned()))
    });
    Rebuilt {
        chains: chains.collect(),
        sets: sets::of_vms(plan).into_keys().collect(),
    }
}

/// Of a VM that isn't wholly built, the server is to send the rules again.
fn logs(plan: &Plan<'_>, domains: &BTreeMap<VmName, u32>) -> Vec<LogLine> {
    let of = |name: &VmName, vm: &Vm| LogLine {
        domain: domains.get(name).copied().or(vm.domain),
        ..LogLine::of(name, vm)
    };
    let of_user = |vm: &PlannedVm<'_>| {
        let line = of(vm.name, vm.vm);
        match vm.is_closed || vm.open_nics().count() < vm.vm.nics.len() {
            true => line.without_rules(),
            false => line,
        }
    };
    let users = plan.vms.iter().map(of_user);
    let system_vms = plan.system_vms.iter().map(|vm| of(vm.name, vm.vm));
    users.chain(system_vms).collect()
}

/// Each NIC overwrites it: up to 4.22 with its secondary addresses, since then if it has one of IPv4.
fn ip_file(version: Version, vm: &PlannedVm<'_>) -> Option<IpFile> {
    let is_written = |nic: &&PlannedNic<'_>| match version {
        Version::Before => !nic.nic.secondary.is_empty(),
        Version::After | Version::Main => nic.nic.addresses().any(|address| address.is_ipv4()),
    };
    let nic = vm.open_nics().rfind(is_written)?;
    let addresses = addresses::format(&nic.nic.secondary);
    Some(IpFile {
        vm: vm.name.clone(),
        line: format!("{},{addresses},{}", vm.name, vm.user.id),
    })
}

#[cfg(test)]
mod tests;
