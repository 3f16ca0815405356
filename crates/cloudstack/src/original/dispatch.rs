//! From a bridge's chains: which device's packets go to which VM's chain.

use super::dump::{Chains, Clause, Rule};
use super::names::{self, BridgePart, ROUTED};
use crate::DeviceName;
use std::collections::{BTreeMap, BTreeSet};

/// A device that a bridge's chains know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dispatch {
    /// The device.
    pub(super) vif: DeviceName,
    /// The chain of the VM's guard, or of a system VM.
    pub(super) chain: String,
    /// By the name of the chains that it is in.
    pub(super) bridge: DeviceName,
    /// Of its last rule there: a later one of the same bridge is newer.
    pub(super) place: usize,
    /// Its packets go to the chain.
    pub(super) from_vm: bool,
    /// Packets to it go to the chain.
    pub(super) to_vm: bool,
    /// The bridge's network is routed by the host.
    pub(super) is_routed: bool,
}

/// Every device in the chains of bridges, in the order of the bridges and of the rules.
pub(super) fn read(filter: &Chains<'_>) -> Vec<Dispatch> {
    let mut found: BTreeMap<(DeviceName, String), Dispatch> = BTreeMap::new();
    let mut by_address: BTreeSet<(DeviceName, String)> = BTreeSet::new();
    for (name, rules) in filter {
        let Some(chain) = names::bridge_chain(name) else {
            continue;
        };
        let option = match chain.part {
            BridgePart::Whole => continue,
            BridgePart::In => "--physdev-in",
            BridgePart::Out => "--physdev-out",
        };
        let bridge = DeviceName::new(chain.bridge).expect("a bridge's chain has a device's name");
        for (place, rule) in rules.iter().enumerate() {
            let Some(to) = rule.leads_to().filter(|to| is_vms(to)) else {
                continue;
            };
            if is_only(rule, "--match-set") && chain.part == BridgePart::Out {
                by_address.insert((bridge.clone(), to.to_owned()));
            }
            let vif = rule.value(option).filter(|_| is_only(rule, option));
            let Some(vif) = vif.and_then(|vif| DeviceName::new(vif).ok()) else {
                continue;
            };
            let key = (vif.clone(), to.to_owned());
            let dispatch = found.entry(key).or_insert_with(|| Dispatch {
                vif,
                chain: to.to_owned(),
                bridge: bridge.clone(),
                place,
                from_vm: false,
                to_vm: false,
                is_routed: is_routed(filter, &bridge),
            });
            match chain.part {
                BridgePart::In => {
                    dispatch.from_vm = true;
                    dispatch.place = place;
                }
                BridgePart::Out | BridgePart::Whole => dispatch.to_vm = true,
            }
        }
    }
    let mut found: Vec<Dispatch> = found.into_values().collect();
    for dispatch in &mut found {
        let key = (dispatch.bridge.clone(), dispatch.chain.clone());
        dispatch.to_vm |= by_address.contains(&key);
    }
    found.sort_by(|a, b| (&a.bridge, a.place).cmp(&(&b.bridge, b.place)));
    found
}

fn is_vms(chain: &str) -> bool {
    names::is_user_vm(chain) || names::is_system_vm(chain)
}

/// Beside the option nothing is asked that narrows it.
fn is_only(rule: &Rule<'_>, option: &str) -> bool {
    let is_plain = |clause: &Clause<'_>| {
        let is_option = clause.option() == option && !clause.negated;
        is_option || matches!(clause.option(), "-m" | "--physdev-is-bridged")
    };
    let has_option = rule.matches.iter().any(|clause| clause.option() == option);
    has_option && rule.matches.iter().all(is_plain)
}

fn is_routed(filter: &Chains<'_>, bridge: &DeviceName) -> bool {
    let rules = filter.get(&*format!("{ROUTED}-IN"));
    let rules = rules.map_or(&[][..], Vec::as_slice);
    rules
        .iter()
        .any(|rule| rule.value("-i") == Some(bridge.as_str()))
}
