//! What the agent has told this host about its VMs, so far.
//!
//! Place on the line: command -> **state** -> inventory -> compile.
//! Invariants: a device belongs to one NIC. What a command changes is in `change`, alone.
//! Knows nothing of: what is enforced at the moment.

mod json;

pub use json::StateError;

use crate::rules::Rules;
use crate::{DeviceName, Signature, VmName};
use model::MacAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The VMs of one host.
///
/// Shape: about 1,000 VMs on a busy host, each with a NIC or two and some ten rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// By name.
    pub vms: BTreeMap<VmName, Vm>,
}

/// One VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// A tenant's, or CloudStack's own.
    pub kind: VmKind,
    /// libvirt's number of the running domain, as far as known; it is in the files that the agent asks
    /// back, and nothing depends on it.
    pub domain: Option<u32>,
    /// By the guest's MAC, which a NIC keeps when it is plugged anew; devices are named anew each time.
    pub nics: BTreeMap<MacAddr, Nic>,
}

/// Whose VM it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmKind {
    /// A tenant's: guarded, and judged by its rules.
    User(UserVm),
    /// A router, a console proxy, a storage VM: everything passes.
    System,
}

/// What is known of a tenant's VM beside its NICs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserVm {
    /// CloudStack's number of it.
    pub id: u64,
    /// Which primary address the last command about the VM as a whole gave; the agent asks it back.
    pub address: Option<Ipv4Addr>,
    /// `None`: the VM is there, and no rules have come yet.
    pub push: Option<Push>,
}

/// The rules of a VM as they came last: one set, for all its NICs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Names the set.
    pub signature: Signature,
    /// Counts the VM's sets; the server pushes anew where ours isn't its own.
    pub sequence: u64,
    /// As they came; perhaps none.
    pub rules: Rules,
}

/// Signature of rules that are in force and weren't told; the server's own word for "none have come".
pub(crate) const INITIAL: &str = "_initial_";

/// One NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its device on this host.
    pub vif: DeviceName,
    /// The bridge that the device is on.
    pub bridge: DeviceName,
    /// Primary address.
    pub ipv4: Option<Ipv4Addr>,
    /// Primary address.
    pub ipv6: Option<Ipv6Addr>,
    /// Of both families.
    pub secondary: BTreeSet<IpAddr>,
    /// The agent called it the VM's first.
    pub first: bool,
    /// The host routes the NIC's network instead of bridging it.
    pub direct_routed: bool,
}

impl State {
    /// Reads what [`State::to_json`] wrote.
    pub fn from_json(text: &str) -> Result<Self, StateError> {
        json::read(text)
    }

    /// One line of JSON, the same for the same state.
    pub fn to_json(&self) -> String {
        json::write(self)
    }
}

impl Push {
    /// Rules that stand until the server sends its own: they were found, not told, so it is told that
    /// none have come, and pushes.
    pub fn provisional(rules: Rules) -> Self {
        Self {
            signature: Signature::new(INITIAL).expect("letters and `_`"),
            sequence: 0,
            rules,
        }
    }

    /// Whether the server has yet to send them.
    pub fn is_provisional(&self) -> bool {
        self.signature.as_str() == INITIAL
    }
}

impl Nic {
    /// Every address that the NIC may use, its link-local one apart.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let ipv4 = self.ipv4.map(IpAddr::V4);
        let ipv6 = self.ipv6.map(IpAddr::V6);
        let primary = ipv4.into_iter().chain(ipv6);
        primary.chain(self.secondary.iter().copied())
    }
}
