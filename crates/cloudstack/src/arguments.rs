//! The command line: `COMMAND [options]`, as the agent gives it to its script.
//!
//! Every option may come with every command, as `--option value` or `--option=value`; a value that
//! begins with `-` only in the second form. What a command doesn't use is read by nobody.
//! Knows nothing of: what any command does.

use crate::rules::{Rules, RulesError};
use crate::words::{self, quoted};
use crate::{DeviceName, NameError, Signature, VmName, addresses};
use model::MacAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One call of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// At the agent's start: can this host have security groups?
    CanBridgeFirewall,
    /// A NIC is there (VM start, reboot, NIC plug), or, with `check`, should be.
    DefaultRules(DefaultRules),
    /// The rules of a VM, all of them.
    AddRules(AddRules),
    /// The VM stops, or has left for another host.
    DestroyVm {
        /// Which.
        vm: VmName,
    },
    /// One NIC of a VM that goes on.
    UnplugNic {
        /// Whose.
        vm: VmName,
        /// Which; its device's name as the agent gives it may be another NIC's, and isn't asked for.
        mac: MacAddr,
    },
    /// A system VM is there: everything passes, on every bridge but one.
    SystemVmRules {
        /// Which.
        vm: VmName,
        /// The link-local bridge, which is left alone.
        local_bridge: DeviceName,
    },
    /// Secondary addresses of a NIC, added or removed while the VM runs.
    SecondaryAddresses {
        /// Whose.
        vm: VmName,
        /// The NIC.
        mac: MacAddr,
        /// May be empty.
        addresses: BTreeSet<IpAddr>,
        /// Added or removed.
        action: AddressAction,
    },
    /// Which rules are in force? The agent reads the answer from standard output.
    RuleLogs,
    /// Forget the VMs that are gone.
    CleanupRules,
    /// No caller is left; does nothing.
    PostDefaultRules,
    /// Are this VM's rules as they should be?
    Verify(Verify),
}

/// A NIC that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRules {
    /// Whose.
    pub vm: VmName,
    /// CloudStack's number of the VM.
    pub vm_id: u64,
    /// The NIC.
    pub nic: NicArguments,
    /// The VM begins anew with this one.
    pub first: bool,
    /// Only if the NIC isn't known yet.
    pub check: bool,
}

/// A VM's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddRules {
    /// Whose.
    pub vm: VmName,
    /// CloudStack's number of the VM.
    pub vm_id: u64,
    /// For a VM that isn't known. Its device and bridge are those of the VM's first interface, whichever
    /// NIC the MAC and the addresses belong to.
    pub nic: NicArguments,
    /// Names this set of rules.
    pub signature: Signature,
    /// Counts the VM's sets of rules.
    pub sequence: u64,
    /// All of them; perhaps none.
    pub rules: Rules,
}

/// What options say of a NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicArguments {
    /// Of the guest's side.
    pub mac: MacAddr,
    /// Its device on this host.
    pub vif: DeviceName,
    /// The bridge that the device is on.
    pub bridge: DeviceName,
    /// Primary address; networks without IPv4 give none.
    pub ipv4: Option<Ipv4Addr>,
    /// Primary address.
    pub ipv6: Option<Ipv6Addr>,
    /// Of both families.
    pub secondary: BTreeSet<IpAddr>,
    /// The host routes the NIC's network instead of bridging it.
    pub direct_routed: bool,
}

/// What becomes of secondary addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressAction {
    /// `-A`
    Add,
    /// `-D`
    Remove,
}

/// A NIC to look at; what isn't given is to be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verify {
    /// Whose.
    pub vm: VmName,
    /// Primary address.
    pub ipv4: Ipv4Addr,
    /// The NIC.
    pub mac: MacAddr,
    /// CloudStack's number of the VM.
    pub vm_id: Option<u64>,
    /// Primary address.
    pub ipv6: Option<Ipv6Addr>,
    /// Its device.
    pub vif: Option<DeviceName>,
    /// The device's bridge.
    pub bridge: Option<DeviceName>,
    /// Of both families.
    pub secondary: BTreeSet<IpAddr>,
}

/// Why a command line is refused. In one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// There is none.
    #[error("no command is given: one of {known}", known = COMMANDS.join(", "))]
    NoCommand,
    /// Quoted.
    #[error("{0} is no command: one of {known}", known = COMMANDS.join(", "))]
    UnknownCommand(String),
    /// Quoted.
    #[error("there is no option {0}")]
    UnknownOption(String),
    /// A second word that is no option's value; quoted.
    #[error("{0} is neither the command nor the value of an option")]
    Stray(String),
    /// The line ends, or what follows begins with `-`.
    #[error("{0} needs a value; one that begins with `-` is given as {0}=VALUE")]
    NoValue(&'static str),
    /// A flag with `=`.
    #[error("{0} takes no value")]
    UnwantedValue(&'static str),
    /// Which of the two counts would be a guess.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// An option that the command needs isn't there, or is empty.
    #[error("{command} needs {option}")]
    Missing {
        /// The command.
        command: &'static str,
        /// What it needs.
        option: &'static str,
    },
    /// A value that can't be right; quoted, with what it is not.
    #[error("{option}: {value} is no {wanted}")]
    Value {
        /// Whose value.
        option: &'static str,
        /// The value.
        value: String,
        /// What would be one.
        wanted: &'static str,
    },
    /// A name, a signature.
    #[error("{option}: {error}")]
    Name {
        /// Whose value.
        option: &'static str,
        /// What is wrong.
        error: NameError,
    },
    /// The rules.
    #[error("--rules: {0}")]
    Rules(RulesError),
    /// The secondary addresses.
    #[error("--nicsecips: {0}")]
    Addresses(addresses::AddressError),
}

const COMMANDS: [&str; 10] = [
    "can_bridge_firewall",
    "default_network_rules",
    "add_network_rules",
    "destroy_network_rules_for_vm",
    "default_network_rules_systemvm",
    "network_rules_vmSecondaryIp",
    "get_rule_logs_for_vms",
    "cleanup_rules",
    "post_default_network_rules",
    "verify_network_rules",
];

const VALUED: [&str; 17] = [
    "--vmname",
    "--vmip",
    "--vmip6",
    "--vmid",
    "--vmmac",
    "--vif",
    "--sig",
    "--seq",
    "--rules",
    "--brname",
    "--localbrname",
    "--dhcpSvr",
    "--hostIp",
    "--hostMacAddr",
    "--nicsecips",
    "--action",
    "--privnic",
];

const FLAGS: [&str; 3] = ["--isFirstNic", "--check", "--directrouted"];

/// Reads a command line, without the program's name.
pub fn parse<S: AsRef<str>>(arguments: &[S]) -> Result<Command, ArgumentError> {
    let given = Given::read(arguments)?;
    // What no caller has asked for in this line can't be wrong.
    match given.command {
        "can_bridge_firewall" => Ok(Command::CanBridgeFirewall),
        "default_network_rules" => Ok(Command::DefaultRules(DefaultRules {
            vm: given.vm()?,
            vm_id: given.needed_number("--vmid")?,
            nic: given.nic()?,
            first: given.flag("--isFirstNic"),
            check: given.flag("--check"),
        })),
        "add_network_rules" => Ok(Command::AddRules(AddRules {
            vm: given.vm()?,
            vm_id: given.needed_number("--vmid")?,
            nic: given.nic()?,
            signature: given.name("--sig", Signature::new)?,
            sequence: given.needed_number("--seq")?,
            rules: Rules::parse(given.value("--rules").unwrap_or_default())
                .map_err(ArgumentError::Rules)?,
        })),
        // A stop names the VM alone; a NIC is named by address and MAC, or by its MAC alone where its
        // network has no IPv4.
        "destroy_network_rules_for_vm" if given.has("--vmip") || given.has("--vmmac") => {
            Ok(Command::UnplugNic {
                vm: given.vm()?,
                mac: given.mac()?,
            })
        }
        "destroy_network_rules_for_vm" => Ok(Command::DestroyVm { vm: given.vm()? }),
        "default_network_rules_systemvm" => Ok(Command::SystemVmRules {
            vm: given.vm()?,
            local_bridge: given.name("--localbrname", DeviceName::new)?,
        }),
        "network_rules_vmSecondaryIp" => Ok(Command::SecondaryAddresses {
            vm: given.vm()?,
            mac: given.mac()?,
            addresses: given.secondary()?,
            action: given.action()?,
        }),
        "get_rule_logs_for_vms" => Ok(Command::RuleLogs),
        "cleanup_rules" => Ok(Command::CleanupRules),
        "post_default_network_rules" => Ok(Command::PostDefaultRules),
        "verify_network_rules" => Ok(Command::Verify(Verify {
            vm: given.vm()?,
            ipv4: given.ipv4()?.ok_or_else(|| given.missing("--vmip"))?,
            mac: given.mac()?,
            vm_id: given.number("--vmid")?,
            ipv6: given.ipv6()?,
            vif: given.optional_name("--vif")?,
            bridge: given.optional_name("--brname")?,
            secondary: given.secondary()?,
        })),
        other => unreachable!("{other} is in the list of commands and not here"),
    }
}

/// The line taken apart, its values unread.
struct Given<'a> {
    command: &'static str,
    values: BTreeMap<&'static str, &'a str>,
    flags: BTreeSet<&'static str>,
}

impl<'a> Given<'a> {
    fn read<S: AsRef<str>>(arguments: &'a [S]) -> Result<Self, ArgumentError> {
        let mut command = None;
        let mut values = BTreeMap::new();
        let mut flags = BTreeSet::new();
        let mut rest = arguments.iter().map(AsRef::as_ref);
        while let Some(argument) = rest.next() {
            if !argument.starts_with('-') {
                if command.is_some() {
                    return Err(ArgumentError::Stray(quoted(argument)));
                }
                command = Some(argument);
                continue;
            }
            let (option, joined) = match argument.split_once('=') {
                Some((option, value)) => (option, Some(value)),
                None => (argument, None),
            };
            let known = |names: &[&'static str]| names.iter().copied().find(|n| *n == option);
            let twice = if let Some(flag) = known(&FLAGS) {
                if joined.is_some() {
                    return Err(ArgumentError::UnwantedValue(flag));
                }
                (!flags.insert(flag)).then_some(flag)
            } else if let Some(option) = known(&VALUED) {
                let apart = || rest.next().filter(|value| !value.starts_with('-'));
                let value = joined.or_else(apart);
                let value = value.ok_or(ArgumentError::NoValue(option))?;
                values.insert(option, value).map(|_| option)
            } else {
                return Err(ArgumentError::UnknownOption(quoted(option)));
            };
            if let Some(option) = twice {
                return Err(ArgumentError::Twice(option));
            }
        }
        let word: &str = command.ok_or(ArgumentError::NoCommand)?;
        let command = COMMANDS.into_iter().find(|known| *known == word);
        Ok(Self {
            command: command.ok_or_else(|| ArgumentError::UnknownCommand(quoted(word)))?,
            values,
            flags,
        })
    }

    fn flag(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }

    /// The agent gives some options empty rather than leaving them out.
    fn value(&self, option: &str) -> Option<&'a str> {
        self.values
            .get(option)
            .copied()
            .filter(|value| !value.is_empty())
    }

    fn has(&self, option: &str) -> bool {
        self.value(option).is_some()
    }

    fn missing(&self, option: &'static str) -> ArgumentError {
        let command = self.command;
        ArgumentError::Missing { command, option }
    }

    fn needed(&self, option: &'static str) -> Result<&'a str, ArgumentError> {
        self.value(option).ok_or_else(|| self.missing(option))
    }

    /// What `read` makes of the value, if there is one.
    fn optional<T>(
        &self,
        option: &'static str,
        wanted: &'static str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ArgumentError> {
        let Some(value) = self.value(option) else {
            return Ok(None);
        };
        read(value).map(Some).ok_or_else(|| ArgumentError::Value {
            option,
            value: quoted(value),
            wanted,
        })
    }

    fn name<T>(
        &self,
        option: &'static str,
        new: impl Fn(&str) -> Result<T, NameError>,
    ) -> Result<T, ArgumentError> {
        new(self.needed(option)?).map_err(|error| ArgumentError::Name { option, error })
    }

    fn optional_name(&self, option: &'static str) -> Result<Option<DeviceName>, ArgumentError> {
        match self.has(option) {
            true => self.name(option, DeviceName::new).map(Some),
            false => Ok(None),
        }
    }

    fn vm(&self) -> Result<VmName, ArgumentError> {
        self.name("--vmname", VmName::new)
    }

    fn number(&self, option: &'static str) -> Result<Option<u64>, ArgumentError> {
        self.optional(option, "number", words::number)
    }

    fn needed_number(&self, option: &'static str) -> Result<u64, ArgumentError> {
        self.number(option)?.ok_or_else(|| self.missing(option))
    }

    fn mac(&self) -> Result<MacAddr, ArgumentError> {
        let option = "--vmmac";
        let mac = self.optional(
            option,
            "MAC of a NIC, such as 02:00:4c:5f:00:01",
            words::mac,
        )?;
        mac.ok_or_else(|| self.missing(option))
    }

    fn ipv4(&self) -> Result<Option<Ipv4Addr>, ArgumentError> {
        self.optional(
            "--vmip",
            "IPv4 address of a VM",
            |text| match words::address(text) {
                Some(IpAddr::V4(address)) => Some(address),
                Some(IpAddr::V6(_)) | None => None,
            },
        )
    }

    fn ipv6(&self) -> Result<Option<Ipv6Addr>, ArgumentError> {
        self.optional(
            "--vmip6",
            "IPv6 address of a VM",
            |text| match words::address(text) {
                Some(IpAddr::V6(address)) => Some(address),
                Some(IpAddr::V4(_)) | None => None,
            },
        )
    }

    fn secondary(&self) -> Result<BTreeSet<IpAddr>, ArgumentError> {
        addresses::parse(self.value("--nicsecips").unwrap_or_default())
            .map_err(ArgumentError::Addresses)
    }

    fn action(&self) -> Result<AddressAction, ArgumentError> {
        let option = "--action";
        let action = self.optional(option, "action: -A or -D", |text| match text {
            "-A" => Some(AddressAction::Add),
            "-D" => Some(AddressAction::Remove),
            _ => None,
        })?;
        action.ok_or_else(|| self.missing(option))
    }

    fn nic(&self) -> Result<NicArguments, ArgumentError> {
        Ok(NicArguments {
            mac: self.mac()?,
            vif: self.name("--vif", DeviceName::new)?,
            bridge: self.name("--brname", DeviceName::new)?,
            ipv4: self.ipv4()?,
            ipv6: self.ipv6()?,
            secondary: self.secondary()?,
            direct_routed: self.flag("--directrouted"),
        })
    }
}

#[cfg(test)]
mod tests;
