//! What each bridge has of its own, and the ways from FORWARD to it.
//!
//! ```text
//! FORWARD --> BF-BR --+--> BF-BR-IN ----> a VM's guard, by the device that it came from
//!  |                  +--> BF-BR-OUT ---> a VM's guard, by the device that it goes to
//!  |                  +--> what leaves by the uplink is accepted, the rest dropped
//!  |
//!  +----> BF-L3 ------+--> BF-L3-IN, by bridge --> BF-BR-IN     what the VM's rules permit is marked
//!  routed, not        +--> BF-L3-OUT, by bridge -> BF-BR-OUT    what is for a VM is judged for good
//!  bridged            +--> what is marked is accepted
//! ```
//! BF-BR of a bridge without uplink is empty: FORWARD drops all that comes back from it.

use super::super::Version;
use super::super::names::{APPROVED, ROUTED};
use super::plan::{Bridge, Plan};
use super::tables::Table;
use crate::DeviceName;

/// The same in both families.
pub(super) fn add(filter: &mut Table, plan: &Plan<'_>) {
    for bridge in &plan.bridges {
        for part in ["", "-IN", "-OUT"] {
            filter.chain(&format!("BF-{}{part}", bridge.name));
        }
        if bridge.is_bridged {
            add_bridged(filter, plan.version, bridge);
        }
    }
    let routed = plan.bridges.iter().filter(|bridge| bridge.is_routed);
    let routed: Vec<&DeviceName> = routed.map(|bridge| bridge.name).collect();
    if !routed.is_empty() {
        add_routing(filter, &routed);
    }
}

fn add_bridged(filter: &mut Table, version: Version, bridge: &Bridge<'_>) {
    let name = bridge.name;
    for drop in ["-i", "-o"] {
        filter.hook(format!("-I FORWARD {drop} {name} -j DROP"));
    }
    for jump in ["-i", "-o"] {
        filter.hook(format!(
            "-I FORWARD {jump} {name} -m physdev --physdev-is-bridged -j BF-{name}"
        ));
    }
    let Some(uplink) = &bridge.uplink else {
        return;
    };
    let rules = filter.chain(&format!("BF-{name}"));
    if version == Version::Before {
        rules.push("-m state --state RELATED,ESTABLISHED -j ACCEPT".to_owned());
    }
    rules.extend([
        format!("-m physdev --physdev-is-in --physdev-is-bridged -j BF-{name}-IN"),
        format!("-m physdev --physdev-is-out --physdev-is-bridged -j BF-{name}-OUT"),
        format!("-m physdev --physdev-out {uplink} --physdev-is-bridged -j ACCEPT"),
    ]);
}

/// It comes before all bridges that are bridged.
fn add_routing(filter: &mut Table, bridges: &[&DeviceName]) {
    filter.hook(format!("-I FORWARD -j {ROUTED}"));
    let [comes, goes] = ["IN", "OUT"].map(|part| format!("{ROUTED}-{part}"));
    filter.chain(ROUTED).extend([
        "-j MARK --set-xmark 0x0/0x40000000".to_owned(),
        format!("-j {comes}"),
        format!("-j {goes}"),
        format!("-m mark --mark {APPROVED} -j ACCEPT"),
    ]);
    // All jumps, the newest bridge's first, then all drops.
    for bridge in bridges.iter().rev() {
        filter.append(&comes, format!("-i {bridge} -j BF-{bridge}-IN"));
        filter.append(&goes, format!("-o {bridge} -j BF-{bridge}-OUT"));
    }
    for bridge in bridges {
        let unmarked = format!("-m mark ! --mark {APPROVED}");
        filter.append(&comes, format!("-i {bridge} {unmarked} -j DROP"));
        filter.append(&goes, format!("-o {bridge} -j DROP"));
    }
}
