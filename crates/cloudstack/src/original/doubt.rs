//! What couldn't be told of a host that the script has built, and what is true instead.

use crate::words::quoted;
use crate::{DeviceName, VmName};
use model::{Direction, Family, MacAddr};
use std::fmt;
use std::net::IpAddr;

/// Which of the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dump {
    /// Of `iptables-save`.
    Iptables,
    /// Of `ip6tables-save`.
    Ip6tables,
    /// Of `ebtables-save`.
    Ebtables,
}

/// One thing that couldn't be told, or is half-built. In one line; every text of somebody else's is
/// quoted in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Doubt {
    /// The text ends within a table: anything may be missing from it.
    #[error(
        "the text of {0} is cut off: no chain in it counts as whole, and nothing of it is removed"
    )]
    Cut(Dump),
    /// Rules that the tool can't show, made by another one.
    #[error(
        "{dump} can't show its table {}: what is in there is not known",
        quoted(table)
    )]
    Hidden {
        /// Which tool.
        dump: Dump,
        /// The table.
        table: String,
    },
    /// Neither a table, a chain nor a rule.
    #[error("{dump} has the line {}, which is none", quoted(line))]
    Line {
        /// Which tool.
        dump: Dump,
        /// The line.
        line: String,
    },
    /// No `NAME.log`, or none that is a tenant's.
    #[error("VM {vm} has no log: its rules stand as they are, and the server is asked for them")]
    NoLog {
        /// Which.
        vm: VmName,
    },
    /// A `NAME.log` of a tenant's VM that nothing else speaks of.
    #[error("VM {vm} has a log and nothing else: it is not known here")]
    LogAlone {
        /// Which.
        vm: VmName,
    },
    /// `NAME.log` says that rules are in force, and the chains are those of a VM before its first ones.
    #[error(
        "VM {vm} has a log of rules that aren't there: it is closed until the server sends them"
    )]
    NotPushed {
        /// Which.
        vm: VmName,
    },
    /// Rules are in force, and `NAME.log` knows of none.
    #[error(
        "VM {vm} has rules that its log doesn't know: they stand, and the server is asked for its own"
    )]
    NotLogged {
        /// Which.
        vm: VmName,
    },
    /// The name doesn't have it, nor is there a log.
    #[error("VM {vm}: CloudStack's number of it is not known; 0 stands for it")]
    NoNumber {
        /// Which.
        vm: VmName,
    },
    /// A chain of rules that isn't there, is empty, or has no end.
    #[error(
        "VM {vm}: the chain of its {family} {direction} rules is incomplete: what it permits stands, \
         the rest is closed, and the server is asked for them"
    )]
    Incomplete {
        /// Whose.
        vm: VmName,
        /// Of which addresses.
        family: Family,
        /// Seen from the VM.
        direction: Direction,
    },
    /// A rule that is none of the script's in a chain of rules.
    #[error(
        "VM {vm}: its {family} {direction} rules are closed until the server sends them: {} can't be read",
        quoted(rule)
    )]
    Unreadable {
        /// Whose.
        vm: VmName,
        /// Of which addresses.
        family: Family,
        /// Seen from the VM.
        direction: Direction,
        /// As printed.
        rule: String,
    },
    /// More rules than a push can have.
    #[error(
        "VM {vm} has more rules than can be pushed: it is closed until the server sends its own"
    )]
    TooManyRules {
        /// Which.
        vm: VmName,
    },
    /// Long names that the script cut to the same.
    #[error(
        "VM {vm} shares its chains with {other}: it is closed until the server sends its rules"
    )]
    Shared {
        /// Which.
        vm: VmName,
        /// Another of them.
        other: VmName,
    },
    /// Chains of which one was made up to CloudStack 4.22 and another since.
    #[error(
        "VM {vm}: two versions of the script have made its chains, and what they do together isn't \
         what its rules say; they are taken as they say"
    )]
    Mixed {
        /// Which.
        vm: VmName,
    },
    /// A NIC of which the bridge's chains or the guard have one part and not another.
    #[error("VM {vm}: the rules of its device {vif} are half-built; it is taken as a whole NIC")]
    HalfBuilt {
        /// Whose.
        vm: VmName,
        /// Its device.
        vif: DeviceName,
    },
    /// No rule, set or link tells it.
    #[error("VM {vm}: the MAC behind its device {vif} is not known: the NIC is left out")]
    NoMac {
        /// Whose.
        vm: VmName,
        /// Its device.
        vif: DeviceName,
    },
    /// Two NICs with one MAC.
    #[error("VM {vm}: its devices {vif} and {other} have one MAC: {other} is left out")]
    SameMac {
        /// Whose.
        vm: VmName,
        /// The one that stays.
        vif: DeviceName,
        /// The other.
        other: DeviceName,
    },
    /// The rules are about another NIC than the one that is there.
    #[error(
        "VM {vm}: the rules of its device {vif} are for {mac}, and the device is that of {found}"
    )]
    OtherMac {
        /// Whose.
        vm: VmName,
        /// Its device.
        vif: DeviceName,
        /// As the rules say.
        mac: MacAddr,
        /// As the host says.
        found: MacAddr,
    },
    /// The device is on another bridge than its rules are.
    #[error("VM {vm}: its device {vif} is on {found}, and its rules are among those of {said}")]
    OtherBridge {
        /// Whose.
        vm: VmName,
        /// Its device.
        vif: DeviceName,
        /// As the rules say.
        said: DeviceName,
        /// As the host says.
        found: DeviceName,
    },
    /// Rules about a device that isn't there.
    #[error("VM {vm}: its device {vif} is not on this host: the NIC is left out")]
    NoDevice {
        /// Whose.
        vm: VmName,
        /// The device.
        vif: DeviceName,
    },
    /// A device that two VMs' rules speak of.
    #[error("device {vif} is in the rules of VMs {vm} and {other}: it is taken for {vm}'s")]
    TwoOwners {
        /// The device.
        vif: DeviceName,
        /// Whose it is taken for.
        vm: VmName,
        /// The other.
        other: VmName,
    },
    /// A VM without a NIC here.
    #[error("VM {vm} has no NIC on this host")]
    NoNics {
        /// Which.
        vm: VmName,
    },
    /// An address that no rule gives to one NIC of several.
    #[error("VM {vm}: which NIC has {address} is not known: each may use it")]
    AnyNic {
        /// Whose.
        vm: VmName,
        /// The address.
        address: IpAddr,
    },
    /// An address of a NIC that the VM no longer has.
    #[error("VM {vm} has no NIC {mac} any more: its {address} is left out")]
    FormerAddress {
        /// Whose.
        vm: VmName,
        /// The NIC.
        mac: MacAddr,
        /// The address.
        address: IpAddr,
    },
    /// Traces of a NIC that the VM no longer has: IPv6 addresses aren't told by NIC.
    #[error("VM {vm} has no NIC {mac} any more: some of its IPv6 addresses may be that NIC's")]
    FormerNic {
        /// Whose.
        vm: VmName,
        /// The NIC.
        mac: MacAddr,
    },
    /// A member of a VM's set that isn't one address of a machine.
    #[error(
        "VM {vm}: {} is no address that it can have, and is left out",
        quoted(member)
    )]
    Member {
        /// Whose.
        vm: VmName,
        /// As printed.
        member: String,
    },
    /// A rule of somebody else's in a chain of the script's: it has no place in our state.
    #[error(
        "{dump}: chain {chain} has {}, which is not of the script's making; it is not taken over",
        quoted(rule)
    )]
    ForeignRule {
        /// Which tool.
        dump: Dump,
        /// The script's chain.
        chain: String,
        /// As printed.
        rule: String,
    },
    /// A rule of somebody else's that leads into a chain of the script's.
    #[error(
        "{dump}: chain {} has {}: it leads into {chain}, so both stay",
        quoted(from),
        quoted(rule)
    )]
    ForeignJump {
        /// Which tool.
        dump: Dump,
        /// The other's chain.
        from: String,
        /// As printed.
        rule: String,
        /// The script's chain.
        chain: String,
    },
    /// A set of the script's that something else uses.
    #[error("the set {set} is in use by {}: it stays", quoted(user))]
    SetInUse {
        /// Which.
        set: String,
        /// A rule, or another set.
        user: String,
    },
    /// A set that has the name of one of the script's, and isn't of its kind.
    #[error("the set {set} is not of the script's kind: it stays")]
    OtherSet {
        /// Which.
        set: String,
    },
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Dump::Iptables => "iptables",
            Dump::Ip6tables => "ip6tables",
            Dump::Ebtables => "ebtables",
        })
    }
}
