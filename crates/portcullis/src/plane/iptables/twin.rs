//! A twin of the host's kernel: a network namespace of its own, loaded with what is loaded on the host, through
//! which one packet is sent.
//!
//! ```text
//! the VM's end  ==tap==  device of the port --- bridge --- all the rest of it  ==tap==  its end
//!       what the VM sends ->      (judged here)
//!                                 (and here)               <- what it would receive
//! ```
//! Of a tap, since its end's write returns when the kernel is done with the frame: nothing is waited for.
//! What the VM would receive comes from another device of the bridge, not from the host itself.
//! Names and numbers are the host's as far as rules can ask for them, and that is: all but the bridge's number.

use crate::failure::Failure;
use crate::plane::asking;
use conformance::lab::{LabError, Namespace, Tap};
use conformance::scenario::unshown;
use dataplane::Outcome;
use dataplane_iptables::{IptablesPlane, Snapshot, SnapshotError};
use model::{Direction, PortId};
use std::io;
use std::time::Duration;

/// The largest that taps take: what is too long for a device is none of the plane's business.
const MTU: u16 = 65_521;

/// `Err` inside: it can't be asked that, and why.
pub(super) fn ask(
    plane: &IptablesPlane,
    port: &PortId,
    direction: Direction,
    frame: &[u8],
) -> Result<Result<Outcome, String>, Failure> {
    if let Some(why) = unshown(frame) {
        return Ok(Err(format!("not asked: {why}")));
    }
    let snapshot = match plane.snapshot(port, direction, frame) {
        Ok(snapshot) => snapshot,
        Err(SnapshotError::Reading(error)) => {
            return Err(asking("reading what is loaded")(error));
        }
        Err(why) => return Ok(Err(format!("not asked: {why}"))),
    };
    let tried = try_out(&snapshot, direction, frame);
    let outcome = tried.map_err(asking("trying the packet on a copy of what is loaded"))?;
    Ok(outcome.ok_or_else(|| {
        "it keeps a fragment until its datagram is whole, and judges that".to_owned()
    }))
}

fn try_out(
    snapshot: &Snapshot<'_>,
    direction: Direction,
    frame: &[u8],
) -> io::Result<Option<Outcome>> {
    let twin = Namespace::new().map_err(io::Error::other)?;
    let [vm, rest] = build(&twin, snapshot).map_err(io::Error::other)?;
    twin.run(|| {
        snapshot.load()?;
        let (sender, receiver) = match direction {
            Direction::Egress => (&vm, &rest),
            Direction::Ingress => (&rest, &vm),
        };
        sender.send(frame).map_err(io::Error::other)?;
        let arrived = receiver.receive(Duration::ZERO).map_err(io::Error::other)?;
        snapshot.outcome(arrived.is_some())
    })
}

/// The ends of the port's device, and of the device that stands for the rest of the bridge.
fn build(twin: &Namespace, snapshot: &Snapshot<'_>) -> Result<[Tap; 2], LabError> {
    // No kernel of the twin says anything by itself.
    twin.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
    let (port, bridge) = (snapshot.device(), &snapshot.bridge().name);
    let other = match port.name.as_str() {
        "pc-rest" => "pc-other",
        _ => "pc-rest",
    };
    let devices = [
        (port.name.as_str(), port.ifindex),
        (other, snapshot.other_ifindex()),
    ];
    let [vm, rest] = devices.map(|(name, index)| twin.run(|| Tap::open_numbered(name, index)));
    let ends = [vm?, rest?];
    let mut lines = format!(
        "link add {bridge} address {} type bridge forward_delay 0 mcast_snooping 0\n\
         link set {bridge} up\n",
        snapshot.bridge_mac()
    );
    for end in &ends {
        let device = end.device();
        // A bridge that learns would keep to itself what seems to come from where it is.
        lines += &format!(
            "link set {device} master {bridge}\n\
             link set {device} type bridge_slave learning off\n\
             link set {device} mtu {MTU} up\n"
        );
    }
    twin.ip(&lines)?;
    for end in &ends {
        twin.settle(end.device())?;
    }
    Ok(ends)
}

#[cfg(test)]
mod tests;
