//! What is built of a host: which bridges, VMs and NICs, and what must be closed instead.
//!
//! | of a VM or NIC | built |
//! | --- | --- |
//! | the script can have it | as it would |
//! | its bridge has no uplink | nothing, as the script would: the bridge as a whole passes nothing |
//! | the VM's names clash, or are none for a set; the version doesn't route | closed: a guard that drops |
//! | the VM's name is none for a chain | barred: dropped among the bridge's own rules |
//!
//! Whatever is left without a rule could send: what leaves by the uplink is accepted.

use super::super::dump::Set;
use super::super::host::Host;
use super::super::names::{self, BridgePart, ROUTED, UNTRACKED};
use super::super::{Doubt, Link, Version};
use super::{BuildDoubt, BuildFacts, Ebtables, link_layer};
use crate::{DeviceName, Nic, State, UserVm, Vm, VmKind, VmName};
use model::{Family, MacAddr};
use std::collections::{BTreeMap, BTreeSet};

/// What is built.
#[derive(Debug)]
pub(super) struct Plan<'s> {
    pub(super) version: Version,
    pub(super) ebtables: Ebtables,
    /// Rules of a later one are put above those of the ones before.
    pub(super) bridges: Vec<Bridge<'s>>,
    pub(super) vms: Vec<PlannedVm<'s>>,
    pub(super) system_vms: Vec<PlannedSystemVm<'s>>,
    /// NICs of VMs that the script has no names for.
    pub(super) barred: Vec<&'s Nic>,
    /// Families whose set of untracked addresses can be had.
    pub(super) untracking: Vec<Family>,
}

/// A bridge of a NIC.
#[derive(Debug)]
pub(super) struct Bridge<'s> {
    pub(super) name: &'s DeviceName,
    /// Some frames of it are bridged: to other ports, and to what leaves by the uplink.
    pub(super) is_bridged: bool,
    /// Without one, it is closed as a whole.
    pub(super) uplink: Option<DeviceName>,
    /// The host routes its network, or that of some NICs on it.
    pub(super) is_routed: bool,
}

/// A tenant's VM.
#[derive(Debug)]
pub(super) struct PlannedVm<'s> {
    pub(super) name: &'s VmName,
    pub(super) vm: &'s Vm,
    pub(super) user: &'s UserVm,
    pub(super) names: Names<'s>,
    /// The one that it is begun with first.
    pub(super) nics: Vec<PlannedNic<'s>>,
    /// Nothing of it is built but what drops.
    pub(super) is_closed: bool,
}

/// A system VM.
#[derive(Debug)]
pub(super) struct PlannedSystemVm<'s> {
    pub(super) name: &'s VmName,
    pub(super) vm: &'s Vm,
    pub(super) chain: &'s str,
    pub(super) nics: Vec<&'s Nic>,
}

/// A NIC of a tenant's VM.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlannedNic<'s> {
    pub(super) mac: MacAddr,
    pub(super) nic: &'s Nic,
    pub(super) way: Way,
}

/// How a NIC's packets are led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Bridged,
    Routed,
    /// To a guard that drops them.
    Closed,
}

/// What the script calls a VM's objects.
#[derive(Debug)]
pub(super) struct Names<'s> {
    /// Of ingress rules.
    pub(super) chain: &'s str,
    pub(super) egress: String,
    pub(super) guard: String,
    /// What those at the link layer begin with.
    link_layer: &'s str,
    set4: &'s str,
    set6: String,
}

/// What is asked for each VM.
struct Asked<'a> {
    uplinks: BTreeMap<&'a str, &'a str>,
    claims: Claims,
    host: &'a Host<'a>,
}

impl<'s> Plan<'s> {
    pub(super) fn new(
        state: &'s State,
        version: Version,
        facts: &BuildFacts<'_>,
        host: &Host<'_>,
        doubts: &mut Vec<BuildDoubt>,
    ) -> Self {
        let asked = Asked {
            uplinks: uplinks(state, facts.links),
            claims: claims(state),
            host,
        };
        let mut plan = Self {
            version,
            ebtables: facts.ebtables,
            bridges: Vec::new(),
            vms: Vec::new(),
            system_vms: Vec::new(),
            barred: Vec::new(),
            untracking: untracking(version, host, doubts),
        };
        for (name, vm) in &state.vms {
            let is_system = names::is_system_vm(names::vm_chain(name.as_str()));
            match (&vm.kind, Names::of(name)) {
                (VmKind::User(user), Some(names)) => {
                    plan.add_vm(name, vm, user, names, &asked, doubts);
                }
                (VmKind::System, _) if is_system => plan.add_system_vm(name, vm, &asked),
                (VmKind::User(_), None) | (VmKind::System, _) => {
                    doubts.push(BuildDoubt::StrangeName { vm: name.clone() });
                    plan.bar(vm, &asked);
                }
            }
        }
        let of_vm = |vm: &PlannedVm<'_>| vm.doubts(version, facts.ebtables);
        doubts.extend(plan.vms.iter().flat_map(of_vm));
        doubts.extend(plan.bridges.iter().filter_map(Bridge::doubt));
        doubts.extend(plan.senders_alone());
        plan.order_bridges();
        plan
    }

    fn add_vm(
        &mut self,
        name: &'s VmName,
        vm: &'s Vm,
        user: &'s UserVm,
        names: Names<'s>,
        asked: &Asked<'_>,
        doubts: &mut Vec<BuildDoubt>,
    ) {
        let problem = names.problem(name, &asked.claims, asked.host);
        let is_closed = problem.is_some();
        doubts.extend(problem);
        let nics = self.nics(name, vm, is_closed, &asked.uplinks, doubts);
        // One without NICs has all its chains, for those to come.
        if nics.is_empty() && !vm.nics.is_empty() {
            return;
        }
        self.vms.push(PlannedVm {
            name,
            vm,
            user,
            names,
            nics,
            is_closed,
        });
    }

    fn add_system_vm(&mut self, name: &'s VmName, vm: &'s Vm, asked: &Asked<'_>) {
        let nics = in_order(vm).into_iter().map(|(_, nic)| nic);
        let nics = nics.filter(|nic| self.is_passed(nic, Way::Bridged, &asked.uplinks));
        let nics = nics.collect();
        self.system_vms.push(PlannedSystemVm {
            name,
            vm,
            chain: names::vm_chain(name.as_str()),
            nics,
        });
    }

    /// One that the script has no names for.
    fn bar(&mut self, vm: &'s Vm, asked: &Asked<'_>) {
        let nics = vm.nics.values();
        let nics = nics.filter(|nic| self.is_passed(nic, Way::Closed, &asked.uplinks));
        let nics: Vec<&Nic> = nics.collect();
        self.barred.extend(nics);
    }

    /// Those that are dispatched.
    fn nics(
        &mut self,
        name: &VmName,
        vm: &'s Vm,
        is_closed: bool,
        uplinks: &BTreeMap<&str, &str>,
        doubts: &mut Vec<BuildDoubt>,
    ) -> Vec<PlannedNic<'s>> {
        let mut nics = Vec::new();
        for (mac, nic) in in_order(vm) {
            let way = match (nic.direct_routed, self.version) {
                _ if is_closed => Way::Closed,
                (false, _) => Way::Bridged,
                (true, Version::Main) => Way::Routed,
                (true, Version::Before | Version::After) => {
                    doubts.push(BuildDoubt::Routed {
                        vm: name.clone(),
                        vif: nic.vif.clone(),
                    });
                    Way::Closed
                }
            };
            if self.is_passed(nic, way, uplinks) {
                nics.push(PlannedNic { mac, nic, way });
            }
        }
        nics
    }

    /// Whether the NIC's bridge lets anything pass; it is one of the bridges from now on.
    fn is_passed(&mut self, nic: &'s Nic, way: Way, uplinks: &BTreeMap<&str, &str>) -> bool {
        let known = self
            .bridges
            .iter()
            .position(|bridge| *bridge.name == nic.bridge);
        let at = known.unwrap_or_else(|| {
            self.bridges.push(Bridge::new(&nic.bridge, uplinks));
            self.bridges.len() - 1
        });
        let bridge = &mut self.bridges[at];
        if way == Way::Routed && bridge.has_chains() {
            bridge.is_routed = true;
            return true;
        }
        bridge.is_bridged = true;
        bridge.uplink.is_some()
    }

    fn senders_alone(&self) -> impl Iterator<Item = BuildDoubt> {
        let is_on = |vm: &&PlannedVm<'_>, bridge: &DeviceName| {
            let mut nics = vm.nics.iter();
            nics.any(|nic| nic.way == Way::Bridged && nic.nic.bridge == *bridge)
        };
        let bridges = self.bridges.iter().map(|bridge| bridge.name);
        let shared = bridges.filter(move |bridge| {
            let vms = self.vms.iter().filter(|vm| is_on(vm, bridge));
            self.version != Version::Before && vms.count() > 1
        });
        shared.map(|bridge| BuildDoubt::SendersAlone {
            bridge: bridge.clone(),
        })
    }

    /// The script looks a bridge's chain up by the bridge's name as a word in FORWARD, from the top: one
    /// whose name is a word in another's must come first there, or it gets the other's chains.
    fn order_bridges(&mut self) {
        let names: Vec<&str> = self
            .bridges
            .iter()
            .map(|bridge| bridge.name.as_str())
            .collect();
        let is_in = |name: &str| names.iter().filter(|other| is_word_in(name, other)).count();
        self.bridges
            .sort_by_cached_key(|bridge| is_in(bridge.name.as_str()));
    }
}

impl<'s> Bridge<'s> {
    fn new(name: &'s DeviceName, uplinks: &BTreeMap<&str, &str>) -> Self {
        let mut bridge = Self {
            name,
            is_bridged: false,
            uplink: None,
            is_routed: false,
        };
        if bridge.has_chains() {
            let uplink = uplinks.get(name.as_str());
            bridge.uplink = uplink.and_then(|uplink| DeviceName::new(uplink).ok());
        }
        bridge
    }

    /// Its chains are nobody else's.
    fn has_chains(&self) -> bool {
        let chain = format!("BF-{}", self.name);
        let part = names::bridge_chain(&chain).map(|chain| chain.part);
        part == Some(BridgePart::Whole) && chain != ROUTED
    }

    fn doubt(&self) -> Option<BuildDoubt> {
        let bridge = self.name.clone();
        match (self.has_chains(), &self.uplink) {
            (false, _) => Some(BuildDoubt::StrangeBridge { bridge }),
            (true, None) if self.is_bridged => Some(BuildDoubt::NoUplink { bridge }),
            (true, _) => None,
        }
    }
}

impl<'s> Names<'s> {
    /// `None`: some of them the script wouldn't know for its own.
    pub(super) fn of(vm: &'s VmName) -> Option<Self> {
        let chain = names::vm_chain(vm.as_str());
        let set4 = names::set(vm.as_str());
        let names = Self {
            chain,
            egress: names::egress_chain(chain),
            guard: names::default_chain(chain),
            link_layer: names::link_layer_chain(chain),
            set4,
            set6: format!("{set4}-6"),
        };
        let chains = [vm.as_str(), chain, &names.guard, names.link_layer];
        let is_good = chains.into_iter().all(names::is_user_vm);
        is_good.then_some(names)
    }

    /// `part`: such as `in-src`.
    pub(super) fn link_layer_chain(&self, part: &str) -> String {
        format!("{}-{part}", self.link_layer)
    }

    pub(super) fn set(&self, family: Family) -> &str {
        match family {
            Family::V4 => self.set4,
            Family::V6 => &self.set6,
        }
    }

    fn all(&self) -> [(Kind, &str); 6] {
        [
            (Kind::Chain, self.chain),
            (Kind::Chain, &self.egress),
            (Kind::Chain, &self.guard),
            (Kind::LinkLayer, self.link_layer),
            (Kind::Set, self.set4),
            (Kind::Set, &self.set6),
        ]
    }

    /// Why the VM can't have them.
    fn problem(&self, vm: &VmName, claims: &Claims, host: &Host<'_>) -> Option<BuildDoubt> {
        const LONGEST_SET: usize = 31;
        let vm = vm.clone();
        let is_claimed_twice =
            |(kind, name): &(Kind, &str)| claims[&(*kind, (*name).to_owned())] > 1;
        if let Some((_, name)) = self.all().into_iter().find(is_claimed_twice) {
            let name = name.to_owned();
            return Some(BuildDoubt::SameName { vm, name });
        }
        if self.set6.len() > LONGEST_SET {
            return Some(BuildDoubt::NoSet { vm });
        }
        let other = |(set, kind, family): (&str, &str, &str)| {
            let is_other = |found: &Set<'_>| !found.is(kind, family);
            host.sets
                .get(set)
                .is_some_and(is_other)
                .then(|| set.to_owned())
        };
        let sets = [
            (self.set4, "hash:ip", "inet"),
            (&*self.set6, "hash:net", "inet6"),
        ];
        let set = sets.into_iter().find_map(other)?;
        Some(BuildDoubt::OtherSet { vm, set })
    }
}

impl PlannedVm<'_> {
    /// Its egress rules mark what they permit, for what else judges it.
    pub(super) fn is_routed(&self) -> bool {
        self.nics.iter().any(|nic| nic.way == Way::Routed)
    }

    /// Those that it can use.
    pub(super) fn open_nics(&self) -> impl DoubleEndedIterator<Item = &PlannedNic<'_>> {
        self.nics.iter().filter(|nic| nic.way != Way::Closed)
    }

    fn doubts(&self, version: Version, ebtables: Ebtables) -> Vec<BuildDoubt> {
        let vm = || self.name.clone();
        let is_bridged = |nic: &PlannedNic<'_>| nic.way == Way::Bridged;
        let mut doubts = Vec::new();
        if !self.is_closed && self.name.as_str() != self.names.chain {
            doubts.push(BuildDoubt::LongName { vm: vm() });
        }
        if !self.is_closed && link_layer::leads(self, ebtables) != [true; 2] {
            doubts.push(BuildDoubt::LongChains { vm: vm() });
        }
        if self.is_routed() && self.nics.iter().any(is_bridged) {
            doubts.push(BuildDoubt::BothWays { vm: vm() });
        }
        if version != Version::Main {
            let nics = self.open_nics().filter(|nic| nic.nic.ipv4.is_none());
            doubts.extend(nics.map(|nic| BuildDoubt::NoIpv4 {
                vm: vm(),
                vif: nic.nic.vif.clone(),
            }));
        }
        doubts
    }
}

/// Names of one kind are apart from those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Chain,
    LinkLayer,
    Set,
}

/// How many things a name is for.
type Claims = BTreeMap<(Kind, String), usize>;

fn claims(state: &State) -> Claims {
    let mut claims = Claims::new();
    let users = state.vms.iter().filter(|(_, vm)| vm.kind != VmKind::System);
    for names in users.filter_map(|(name, _)| Names::of(name)) {
        for (kind, name) in names.all() {
            *claims.entry((kind, name.to_owned())).or_default() += 1;
        }
    }
    claims
}

/// The agent tells of the first NIC first, and libvirt counts the devices as they come.
fn in_order(vm: &Vm) -> Vec<(MacAddr, &Nic)> {
    let mut nics: Vec<(MacAddr, &Nic)> = vm.nics.iter().map(|(mac, nic)| (*mac, nic)).collect();
    nics.sort_by_key(|(_, nic)| (!nic.first, nic.vif.as_str().len(), nic.vif.as_str()));
    nics
}

/// What the script would take for each bridge's uplink; but never a VM's device, whatever its name.
fn uplinks<'l>(state: &State, links: &'l [Link]) -> BTreeMap<&'l str, &'l str> {
    let nics = state.vms.values().flat_map(|vm| vm.nics.values());
    let vifs: BTreeSet<&str> = nics.map(|nic| nic.vif.as_str()).collect();
    let mut uplinks = BTreeMap::new();
    for link in links {
        let (device, _) = link.device.split_once('@').unwrap_or((&link.device, ""));
        let is_vms = device.starts_with("vnet") || vifs.contains(device);
        if let (false, Some(bridge)) = (is_vms, &link.bridge) {
            uplinks.entry(bridge.as_str()).or_insert(device);
        }
    }
    uplinks
}

/// The families whose set there can be.
fn untracking(version: Version, host: &Host<'_>, doubts: &mut Vec<BuildDoubt>) -> Vec<Family> {
    if version == Version::Before {
        return Vec::new();
    }
    let mut families = Vec::new();
    for (family, set, kind) in [
        (Family::V4, UNTRACKED[0], "inet"),
        (Family::V6, UNTRACKED[1], "inet6"),
    ] {
        let found = host.sets.get(set);
        if found.is_none_or(|found| found.is("hash:ip", kind)) {
            families.push(family);
        } else {
            let set = set.to_owned();
            doubts.push(BuildDoubt::Found(Doubt::OtherSet { set }));
        }
    }
    families
}

/// As `grep -w` finds it: no letter, digit or `_` is beside it.
fn is_word_in(word: &str, text: &str) -> bool {
    let is_wordy = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_alone = |(at, _): (usize, &str)| {
        let (before, rest) = text.split_at(at);
        !before.ends_with(is_wordy) && !rest[word.len()..].starts_with(is_wordy)
    };
    word != text && text.match_indices(word).any(is_alone)
}
