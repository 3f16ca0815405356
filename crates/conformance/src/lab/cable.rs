//! A cable between two hosts of a lab that run Open vSwitch, for tunnels from one to the other.
//!
//! ```text
//! host a                                            host b
//!   br-phy --- pc1x3-phy  <======= veth =======>  pc1x4-phy --- br-phy
//!   (a's address)                                               (b's address)
//! ```
//! The datapath of ovs-vswitchd builds tunnels by itself: it finds the way by the addresses that its bridges' own
//! ports have. Knows nothing of: who tunnels what.

use super::{Lab, LabError, OpenVswitch};
use std::net::Ipv4Addr;

/// A host, its switch, and its address on the cable, which is a /24.
#[derive(Clone, Copy)]
pub struct CableEnd<'a> {
    pub lab: &'a Lab,
    pub switch: &'a OpenVswitch,
    pub address: Ipv4Addr,
}

/// Of each host, with its address.
pub const CABLE_BRIDGE: &str = "br-phy";

/// Room for a frame of 1500 bytes with all headers of a tunnel.
const MTU: u16 = 1600;

pub fn cable(a: CableEnd<'_>, b: CableEnd<'_>) -> Result<(), LabError> {
    let [near, far] = [&a, &b].map(|end| end.lab.device_name("phy"));
    let there = b.lab.host().path();
    a.lab.host().ip(&format!(
        "link add {near} mtu {MTU} type veth peer name {far} mtu {MTU} netns {there}"
    ))?;
    for (end, device) in [(a, near), (b, far)] {
        let host = end.lab.host();
        host.ip(&format!("link set {device} up"))?;
        end.switch.add_bridge(CABLE_BRIDGE, false)?;
        end.switch.add_port(CABLE_BRIDGE, &device, &[])?;
        let address = end.address;
        host.ip(&format!(
            "addr add {address}/24 dev {CABLE_BRIDGE}\nlink set {CABLE_BRIDGE} up"
        ))?;
    }
    Ok(())
}
