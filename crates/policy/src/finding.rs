//! What is wrong in a policy, and what it means all the same.
//!
//! Place on the line: inventory -> **compile** -> view and findings. Compiling succeeds whatever is
//! found; each finding has a meaning on the closed side, and its text says which.
//! Knows nothing of: files and their positions, languages, who asked.

use model::{
    AddressGroupId, Family, GroupId, HostId, MacAddr, NetworkId, PortId, Prefix, RuleRef, ScopeId,
};
use std::fmt;
use std::net::IpAddr;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    HostMissing {
        host: HostId,
    },
    PortHostMissing {
        port: PortId,
        host: HostId,
    },
    PortNetworkMissing {
        port: PortId,
        network: NetworkId,
    },
    PortGroupMissing {
        port: PortId,
        group: GroupId,
    },
    PortTooManyGroups {
        port: PortId,
        groups: usize,
    },
    UnguardedInGroups {
        port: PortId,
    },
    WidePair {
        port: PortId,
        prefix: Prefix,
    },
    DuplicateMac {
        network: NetworkId,
        mac: MacAddr,
        ports: [PortId; 2],
    },
    DuplicateAddress {
        scope: ScopeId,
        address: IpAddr,
        ports: [PortId; 2],
    },
    DuplicateDevice {
        host: HostId,
        device: String,
        ports: [PortId; 2],
    },
    RuleGroupMissing {
        rule: RuleRef,
        group: GroupId,
    },
    RuleAddressGroupMissing {
        rule: RuleRef,
        address_group: AddressGroupId,
    },
    RulePrefixFamily {
        rule: RuleRef,
        family: Family,
        prefix: Prefix,
    },
    RuleExtensionHeader {
        rule: RuleRef,
        protocol: u8,
    },
}

impl Finding {
    /// Stable, for scripts and documents.
    pub fn code(&self) -> &'static str {
        match self {
            Finding::HostMissing { .. } => "host-missing",
            Finding::PortHostMissing { .. } => "port-host-missing",
            Finding::PortNetworkMissing { .. } => "port-network-missing",
            Finding::PortGroupMissing { .. } => "port-group-missing",
            Finding::PortTooManyGroups { .. } => "port-too-many-groups",
            Finding::UnguardedInGroups { .. } => "unguarded-in-groups",
            Finding::WidePair { .. } => "wide-pair",
            Finding::DuplicateMac { .. } => "duplicate-mac",
            Finding::DuplicateAddress { .. } => "duplicate-address",
            Finding::DuplicateDevice { .. } => "duplicate-device",
            Finding::RuleGroupMissing { .. } => "rule-group-missing",
            Finding::RuleAddressGroupMissing { .. } => "rule-address-group-missing",
            Finding::RulePrefixFamily { .. } => "rule-prefix-family",
            Finding::RuleExtensionHeader { .. } => "rule-extension-header",
        }
    }

    /// Whether something that was asked for is not in force. The others are in force as written,
    /// and only look like a slip.
    pub fn is_broken(&self) -> bool {
        match self {
            Finding::HostMissing { .. }
            | Finding::PortHostMissing { .. }
            | Finding::PortNetworkMissing { .. }
            | Finding::PortGroupMissing { .. }
            | Finding::PortTooManyGroups { .. }
            | Finding::RuleGroupMissing { .. }
            | Finding::RuleAddressGroupMissing { .. }
            | Finding::RulePrefixFamily { .. }
            | Finding::RuleExtensionHeader { .. }
            | Finding::DuplicateMac { .. }
            | Finding::DuplicateAddress { .. }
            | Finding::DuplicateDevice { .. } => true,
            Finding::UnguardedInGroups { .. } | Finding::WidePair { .. } => false,
        }
    }
}

/// One sentence: what was found, and what is true now.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::HostMissing { host } => write!(
                f,
                "host {host} is not known: its ports are enforced with default settings"
            ),
            Finding::PortHostMissing { port, host } => write!(
                f,
                "port {port} is on host {host}, which is not known: it is enforced on that host \
                 with default settings"
            ),
            Finding::PortNetworkMissing { port, network } => write!(
                f,
                "port {port} is on network {network}, which does not exist: it passes nothing and is a \
                 member of no group"
            ),
            Finding::PortGroupMissing { port, group } => write!(
                f,
                "port {port} is in group {group}, which does not exist: the other groups' rules \
                 alone apply to it"
            ),
            Finding::PortTooManyGroups { port, groups } => write!(
                f,
                "port {port} is in {groups} groups, {} at most are possible: it is treated as in \
                 none and passes infrastructure traffic only",
                model::Port::MAX_GROUPS
            ),
            Finding::UnguardedInGroups { port } => write!(
                f,
                "port {port} has groups and its port security is off: it passes everything and is \
                 a member of none of them"
            ),
            Finding::WidePair { port, prefix } => write!(
                f,
                "port {port} may use {prefix}, which is too wide for a group: rules that name the \
                 port's groups do not match these addresses"
            ),
            Finding::DuplicateMac {
                network,
                mac,
                ports: [first, second],
            } => write!(
                f,
                "ports {first} and {second} of network {network} both have MAC {mac}: each is \
                 enforced by itself, and either can speak for the other"
            ),
            Finding::DuplicateAddress {
                scope,
                address,
                ports: [first, second],
            } => write!(
                f,
                "ports {first} and {second} of scope {scope} both have address {address}: it is a \
                 member of the groups of both"
            ),
            Finding::DuplicateDevice {
                host,
                device,
                ports: [first, second],
            } => write!(
                f,
                "ports {first} and {second} of host {host} both name device {device}: it can serve \
                 one of them only"
            ),
            Finding::RuleGroupMissing { rule, group } => write!(
                f,
                "rule {rule} names group {group}, which does not exist: it matches nobody"
            ),
            Finding::RuleAddressGroupMissing {
                rule,
                address_group,
            } => write!(
                f,
                "rule {rule} names address group {address_group}, which does not exist: it matches \
                 nobody"
            ),
            Finding::RulePrefixFamily {
                rule,
                family,
                prefix,
            } => write!(
                f,
                "rule {rule} is for {family} and its remote {prefix} is not: it matches nobody"
            ),
            Finding::RuleExtensionHeader { rule, protocol } => write!(
                f,
                "rule {rule} names protocol {protocol}, which is an extension header in IPv6: it \
                 matches nobody"
            ),
        }
    }
}
