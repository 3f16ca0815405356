//! What each command makes of the state.
//!
//! Place on the line: command -> **change** -> state -> inventory. What may happen to a tenant's VM:
//!
//! ```text
//!              DefaultRules(first)                  AddRules
//!  unknown ------------------------> no rules yet ------------> rules in force
//!     |                                   ^                        |       ^
//!     |                                   +-- DefaultRules(first) -+       |
//!     +-------------------------------- AddRules --------------------------+
//! ```
//! `DestroyVm` and `CleanupRules` lead back to the beginning from everywhere. The NICs of a known VM
//! come and change by `DefaultRules`, go by `UnplugNic`, and have their addresses by
//! `SecondaryAddresses`; that moves no rules.
//!
//! Doing a command twice is doing it once. A device belongs to the NIC that claimed it last: names of
//! devices are used again as soon as they are free, and the command about the former owner may have
//! been lost.
//! Knows nothing of: what is enforced; whether a state came to be in force. The caller keeps the old
//! state until the new one is.

use crate::arguments::{AddRules, AddressAction, Command, DefaultRules, NicArguments};
use crate::{DeviceName, Nic, Push, State, UserVm, Vm, VmKind, VmName};
use model::MacAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What the caller found on the host, for this one command.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// libvirt's number of the command's VM; `None`: not asked, or it doesn't run.
    pub domain: Option<u32>,
    /// The interfaces of the command's VM as libvirt lists them. Empty: not asked.
    pub interfaces: Vec<Interface>,
    /// Names of all domains that run or are paused; `None`: not asked, or libvirt didn't answer.
    pub domains: Option<BTreeSet<String>>,
}

/// A VM's interface, as libvirt lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its device on this host.
    pub vif: DeviceName,
    /// The bridge that the device is on.
    pub bridge: DeviceName,
    /// Of the guest's side.
    pub mac: MacAddr,
}

/// What a command came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The VMs of which the state now says something else, or nothing any more. Empty: nothing changed.
    pub touched: BTreeSet<VmName>,
    /// What an operator should know.
    pub notes: Vec<Note>,
}

/// Something that was not as the command said. One line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// The agent counts interfaces, and is wrong once one has been unplugged.
    #[error("NIC {mac} of VM {vm} is at {found}, not at {given} as the agent says")]
    OtherInterface {
        /// Whose.
        vm: VmName,
        /// Which.
        mac: MacAddr,
        /// As the command says.
        given: DeviceName,
        /// As libvirt says.
        found: DeviceName,
    },
    /// A device that was another NIC's: that one is gone.
    #[error("device {vif} was that of NIC {mac} of VM {vm}, which is forgotten")]
    TakenOver {
        /// The device.
        vif: DeviceName,
        /// The former NIC's VM.
        vm: VmName,
        /// The former NIC.
        mac: MacAddr,
    },
    /// A VM that no longer runs here.
    #[error("VM {vm} is gone and forgotten")]
    Gone {
        /// Which.
        vm: VmName,
    },
}

/// Why a command can't be done. The state is as before. In one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// An address for a NIC that nobody has announced.
    #[error("VM {vm} has no NIC {mac} here")]
    NoSuchNic {
        /// Whose.
        vm: VmName,
        /// Which.
        mac: MacAddr,
    },
    /// A system VM's NICs are known from libvirt alone.
    #[error("VM {vm} has no interfaces that libvirt knows of")]
    NoInterfaces {
        /// Which.
        vm: VmName,
    },
    /// Who is gone can't be told, so nobody is.
    #[error("libvirt didn't say which VMs are on this host")]
    DomainsUnknown,
}

/// Does one command.
///
/// Errors: nothing has been changed.
pub fn apply(state: &mut State, command: &Command, facts: &Facts) -> Result<Outcome, ChangeError> {
    let mut change = Change {
        state,
        facts,
        outcome: Outcome::default(),
    };
    match command {
        Command::DefaultRules(rules) => change.default_rules(rules),
        Command::AddRules(rules) => change.add_rules(rules),
        Command::DestroyVm { vm } => change.forget(vm),
        Command::UnplugNic { vm, mac } => change.unplug(vm, *mac),
        Command::SystemVmRules { vm, local_bridge } => change.system_vm(vm, local_bridge)?,
        Command::SecondaryAddresses {
            vm,
            mac,
            addresses,
            action,
        } => change.secondary_addresses(vm, *mac, addresses, *action)?,
        Command::CleanupRules => change.clean_up()?,
        // At the agent's start libvirt may not be up yet, and the agent takes an error for "never".
        Command::CanBridgeFirewall => change.clean_up().unwrap_or_default(),
        Command::RuleLogs | Command::PostDefaultRules | Command::Verify(_) => {}
    }
    Ok(change.outcome)
}

struct Change<'a> {
    state: &'a mut State,
    facts: &'a Facts,
    outcome: Outcome,
}

impl Change<'_> {
    fn default_rules(&mut self, rules: &DefaultRules) {
        let nic = self.locate(&rules.vm, &rules.nic, rules.first);
        if rules.check && self.is_programmed(&rules.vm, rules.nic.mac, &nic) {
            return;
        }
        let known = self.state.vms.get(&rules.vm);
        let vm = match known {
            // A later NIC joins what is known, rules and all.
            Some(Vm {
                kind: VmKind::User(user),
                domain,
                nics,
            }) if !rules.first => {
                let mut nics = nics.clone();
                nics.insert(rules.nic.mac, nic);
                let user = UserVm {
                    id: rules.vm_id,
                    ..user.clone()
                };
                Vm {
                    kind: VmKind::User(user),
                    domain: self.facts.domain.or(*domain),
                    nics,
                }
            }
            Some(_) | None => Vm {
                kind: VmKind::User(UserVm {
                    id: rules.vm_id,
                    address: rules.nic.ipv4.filter(|_| rules.first),
                    push: None,
                }),
                domain: self.facts.domain,
                nics: BTreeMap::from([(rules.nic.mac, nic)]),
            },
        };
        self.put(&rules.vm, vm);
    }

    /// The NICs of a known VM stay: the command's device and bridge are those of the VM's first
    /// interface, and its addresses may be older than the last secondary one.
    fn add_rules(&mut self, rules: &AddRules) {
        let known = self.state.vms.get(&rules.vm);
        let (nics, domain) = match known {
            Some(Vm {
                kind: VmKind::User(_),
                domain,
                nics,
            }) => (nics.clone(), self.facts.domain.or(*domain)),
            Some(_) | None => {
                let nic = self.locate(&rules.vm, &rules.nic, true);
                (BTreeMap::from([(rules.nic.mac, nic)]), self.facts.domain)
            }
        };
        let user = UserVm {
            id: rules.vm_id,
            address: rules.nic.ipv4,
            push: Some(Push {
                signature: rules.signature.clone(),
                sequence: rules.sequence,
                rules: rules.rules.clone(),
            }),
        };
        let kind = VmKind::User(user);
        self.put(&rules.vm, Vm { kind, domain, nics });
    }

    /// Known by its MAC: the agent takes the device from the wrong place in the list of interfaces once
    /// an earlier one has been unplugged. A VM goes on without NICs.
    fn unplug(&mut self, name: &VmName, mac: MacAddr) {
        let removed = self
            .state
            .vms
            .get_mut(name)
            .and_then(|vm| vm.nics.remove(&mac));
        if removed.is_some() {
            self.outcome.touched.insert(name.clone());
        }
    }

    fn system_vm(&mut self, name: &VmName, local_bridge: &DeviceName) -> Result<(), ChangeError> {
        if self.facts.interfaces.is_empty() {
            return Err(ChangeError::NoInterfaces { vm: name.clone() });
        }
        let interfaces = self.facts.interfaces.iter();
        let nics = interfaces
            .filter(|interface| interface.bridge != *local_bridge)
            .map(|interface| {
                let nic = Nic {
                    vif: interface.vif.clone(),
                    bridge: interface.bridge.clone(),
                    ipv4: None,
                    ipv6: None,
                    secondary: BTreeSet::new(),
                    first: false,
                    direct_routed: false,
                };
                (interface.mac, nic)
            })
            .collect();
        let vm = Vm {
            kind: VmKind::System,
            domain: self.facts.domain,
            nics,
        };
        self.put(name, vm);
        Ok(())
    }

    /// Adding what is there and removing what is not are no errors. A primary address is never a
    /// secondary one.
    fn secondary_addresses(
        &mut self,
        name: &VmName,
        mac: MacAddr,
        addresses: &BTreeSet<IpAddr>,
        action: AddressAction,
    ) -> Result<(), ChangeError> {
        let vm = self.state.vms.get_mut(name);
        let Some(nic) = vm.and_then(|vm| vm.nics.get_mut(&mac)) else {
            return match action {
                AddressAction::Remove => Ok(()),
                AddressAction::Add => Err(ChangeError::NoSuchNic {
                    vm: name.clone(),
                    mac,
                }),
            };
        };
        let mut changed = false;
        for address in addresses {
            changed |= match action {
                AddressAction::Add if nic.addresses().any(|a| a == *address) => false,
                AddressAction::Add => nic.secondary.insert(*address),
                AddressAction::Remove => nic.secondary.remove(address),
            };
        }
        if changed {
            self.outcome.touched.insert(name.clone());
        }
        Ok(())
    }

    fn clean_up(&mut self) -> Result<(), ChangeError> {
        let Some(domains) = &self.facts.domains else {
            return Err(ChangeError::DomainsUnknown);
        };
        let names = self.state.vms.keys();
        let gone: Vec<VmName> = names
            .filter(|name| !domains.contains(name.as_str()))
            .cloned()
            .collect();
        for vm in gone {
            self.forget(&vm);
            self.outcome.notes.push(Note::Gone { vm });
        }
        Ok(())
    }

    fn forget(&mut self, name: &VmName) {
        if self.state.vms.remove(name).is_some() {
            self.outcome.touched.insert(name.clone());
        }
    }

    /// The NIC that the command describes, where libvirt says it is.
    fn locate(&mut self, vm: &VmName, given: &NicArguments, first: bool) -> Nic {
        let interfaces = self.facts.interfaces.iter();
        let found = interfaces
            .filter(|interface| interface.mac == given.mac)
            .map(|interface| (&interface.vif, &interface.bridge))
            .next();
        let (vif, bridge) = found.unwrap_or((&given.vif, &given.bridge));
        if *vif != given.vif {
            self.outcome.notes.push(Note::OtherInterface {
                vm: vm.clone(),
                mac: given.mac,
                given: given.vif.clone(),
                found: vif.clone(),
            });
        }
        let primary = [given.ipv4.map(IpAddr::V4), given.ipv6.map(IpAddr::V6)];
        let secondary = given.secondary.iter().copied();
        Nic {
            vif: vif.clone(),
            bridge: bridge.clone(),
            ipv4: given.ipv4,
            ipv6: given.ipv6,
            secondary: secondary
                .filter(|address| !primary.contains(&Some(*address)))
                .collect(),
            first,
            direct_routed: given.direct_routed,
        }
    }

    /// By the NIC's place alone. Its addresses may be newer here than in the command, which was made
    /// before the rules were sent.
    fn is_programmed(&self, name: &VmName, mac: MacAddr, nic: &Nic) -> bool {
        match self.state.vms.get(name) {
            Some(vm) if vm.kind != VmKind::System => vm
                .nics
                .get(&mac)
                .is_some_and(|known| (&known.vif, &known.bridge) == (&nic.vif, &nic.bridge)),
            Some(_) | None => false,
        }
    }

    /// Puts a VM in its place, and takes its devices from who had them.
    fn put(&mut self, name: &VmName, mut vm: Vm) {
        self.take_over(name, &mut vm);
        if self.state.vms.get(name) != Some(&vm) {
            self.outcome.touched.insert(name.clone());
            self.state.vms.insert(name.clone(), vm);
        }
    }

    fn take_over(&mut self, name: &VmName, vm: &mut Vm) {
        // Of the VM's own NICs the newer one stays; two of libvirt's list never have one device.
        let old = self.state.vms.get(name).map(|old| &old.nics);
        let is_old = |mac: &MacAddr, nic: &Nic| old.and_then(|nics| nics.get(mac)) == Some(nic);
        let newer = vm.nics.iter().filter(|(mac, nic)| !is_old(mac, nic));
        let newer: BTreeMap<DeviceName, MacAddr> =
            newer.map(|(mac, nic)| (nic.vif.clone(), *mac)).collect();
        if newer.is_empty() {
            return;
        }
        let mut former = Vec::new();
        let mut keep = |of: &VmName, mac: &MacAddr, nic: &Nic, same_vm: bool| {
            let stays = match newer.get(&nic.vif) {
                Some(newer) => same_vm && newer == mac,
                None => true,
            };
            if !stays {
                former.push(Note::TakenOver {
                    vif: nic.vif.clone(),
                    vm: of.clone(),
                    mac: *mac,
                });
            }
            stays
        };
        vm.nics.retain(|mac, nic| keep(name, mac, nic, true));
        for (other, vm) in self
            .state
            .vms
            .iter_mut()
            .filter(|(other, _)| *other != name)
        {
            let before = vm.nics.len();
            vm.nics.retain(|mac, nic| keep(other, mac, nic, false));
            if vm.nics.len() != before {
                self.outcome.touched.insert(other.clone());
            }
        }
        self.outcome.notes.append(&mut former);
    }
}

#[cfg(test)]
mod tests;
