//! What can't be given back as the script would have it, and what is true instead.

use crate::original::Doubt;
use crate::words::quoted;
use crate::{DeviceName, VmName};

/// One thing that isn't built as it is meant, or that the script won't be able to go on with. In one
/// line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum BuildDoubt {
    /// About what is on the host already.
    #[error("{0}")]
    Found(Doubt),
    /// A name that isn't like those of CloudStack's VMs, or isn't once it is cut.
    #[error("VM {vm}: the script has no chains for a VM of this name: its NICs are closed")]
    StrangeName {
        /// Which.
        vm: VmName,
    },
    /// A name that is cut to that of something else.
    #[error(
        "VM {vm}: the script's {} is something else's, too: its NICs are closed",
        quoted(name)
    )]
    SameName {
        /// Which.
        vm: VmName,
        /// What two things would be called.
        name: String,
    },
    /// A name of 30 characters or more: with the `-6` behind it none for a set.
    #[error("VM {vm}: its name is too long for the script's sets: its NICs are closed")]
    NoSet {
        /// Which.
        vm: VmName,
    },
    /// Something else has its set's name.
    #[error("VM {vm}: there is a set {set} of another kind: its NICs are closed")]
    OtherSet {
        /// Which.
        vm: VmName,
        /// The set.
        set: String,
    },
    /// A name that is cut for chains: the script looks for the whole one when it is told of ingress rules.
    #[error(
        "VM {vm}: its name is too long for the script to push ingress rules: they are built, and the \
         next push of any will fail"
    )]
    LongName {
        /// Which.
        vm: VmName,
    },
    /// ebtables on nf_tables makes its chains, and then can't lead to them.
    #[error(
        "VM {vm}: its name is too long for this ebtables: as with the script itself, not all of its MACs \
         and its ARP are checked"
    )]
    LongChains {
        /// Which.
        vm: VmName,
    },
    /// The script gives up on such a bridge.
    #[error(
        "bridge {bridge} has no uplink: the script can't program it, and everything on it is dropped"
    )]
    NoUplink {
        /// Which.
        bridge: DeviceName,
    },
    /// A name that, in names of chains, reads as another bridge's.
    #[error(
        "bridge {bridge}: the script has no chains for a bridge of this name: everything on it is dropped"
    )]
    StrangeBridge {
        /// Which.
        bridge: DeviceName,
    },
    /// Since 4.23, what a VM may send is accepted for good: nobody asks the rules of a VM beside it.
    #[error(
        "bridge {bridge}: this version of the script lets what a VM may send pass to the other VMs on the \
         bridge of this host, whatever their ingress rules say"
    )]
    SendersAlone {
        /// On which there are several.
        bridge: DeviceName,
    },
    /// Since 4.23, a VM with a record for everything and everybody isn't tracked, nor is anybody's packet to it.
    #[error(
        "{vms} VMs have a rule for everything: this version of the script tracks no connection of theirs, so \
         what only answers them passes no other VM's rules"
    )]
    Untracked {
        /// How many, of either family.
        vms: usize,
    },
    /// A version that knows of bridged networks alone.
    #[error(
        "VM {vm}: this version of the script can't route the network of device {vif}: the NIC is closed"
    )]
    Routed {
        /// Whose.
        vm: VmName,
        /// Its device.
        vif: DeviceName,
    },
    /// The one chain of egress rules serves both kinds of NICs.
    #[error(
        "VM {vm} has bridged and routed NICs: the script permits what it sends for one kind alone, and \
         the bridged ones send nothing new"
    )]
    BothWays {
        /// Which.
        vm: VmName,
    },
    /// A NIC that versions before direct routing fail on.
    #[error(
        "VM {vm}: its device {vif} has no IPv4 address: it is built, and this version of the script \
         can't program it again"
    )]
    NoIpv4 {
        /// Whose.
        vm: VmName,
        /// Its device.
        vif: DeviceName,
    },
    /// A record of rules that the script takes otherwise than it is meant.
    #[error("VM {vm}: the script {misread} in its record {record}")]
    Record {
        /// Whose.
        vm: VmName,
        /// In its one form.
        record: String,
        /// How, and what is built.
        misread: Misread,
    },
}

/// How the script takes a record, and what stands until it is told the next time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Misread {
    /// Any code of a type.
    #[error("fails on an ICMP type without a code; it is built")]
    AnyCode,
    /// In IPv4, iptables' own word for all of ICMP.
    #[error("takes ICMP type 255 for every type; nothing is built for it")]
    EveryType,
    /// Number 0.
    #[error("takes protocol 0 for every protocol; nothing is built for it")]
    EveryProtocol,
    /// An egress record of nobody: the family's only one.
    #[error("sees no addresses and would open the egress; it is built closed")]
    Nobody,
}
