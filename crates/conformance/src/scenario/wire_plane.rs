//! Scenarios on the wire: exact frames through a real plane, on real devices.
//!
//! ```text
//! VM of port a  ==veth==  device of a --- bridge of a --- outside of a  ==veth==  an outsider's VM
//!            what a sends ->   (the plane judges here)   -> arrives, or not
//!         arrives, or not <-   (and here)                <- what a would receive
//! ```
//! Each port has a bridge of its own, so that a packet meets just the hook that is asked. The VMs'
//! kernels have no addresses and answer nothing: the scenario alone says what is sent.
//! Knows nothing of: which plane it is.

use super::here;
use super::run::{Seen, Subject};
use crate::START;
use crate::lab::{Arrival, Attach, FrameEnd, Lab, LabError, probe};
use dataplane::{DataPlane, Device, Target};
use model::{Direction, Inventory, MacAddr, PortId};
use policy::HostView;
use std::collections::BTreeMap;
use std::time::Duration;

/// A plane of this kernel, and what tests need of it beyond its trade.
pub trait RealPlane {
    fn name(&self) -> &str;

    fn plane(&mut self) -> &mut dyn DataPlane;

    /// Forgets flows and whatever else packets have left.
    fn forget(&mut self);

    /// Its clock stands at this time until the next call.
    fn set_clock(&mut self, now: Duration);
}

/// A real plane with a lab around it.
pub struct WirePlane {
    plane: Box<dyn RealPlane>,
    kind: DeviceKind,
    lab: Lab,
    rigs: BTreeMap<PortId, Rig>,
    /// The MACs of the ports as they are now.
    macs: BTreeMap<PortId, MacAddr>,
    now: Duration,
}

/// What the devices of ports are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    Veth,
    Tap,
}

struct Rig {
    device: Device,
    inside: Box<dyn FrameEnd>,
    outside: Box<dyn FrameEnd>,
}

/// On a VM that nobody addresses, any MAC does; those of the packets are in the packets.
const SILENT: MacAddr = MacAddr([0x52, 0x54, 0, 0xee, 0, 1]);
const SILENT_OUTSIDE: MacAddr = MacAddr([0x52, 0x54, 0, 0xee, 0, 2]);

impl WirePlane {
    /// Makes a lab and, in its host namespace, the plane; `work` runs there too. A plane need not be
    /// able to move between threads.
    pub fn run<T: Send>(
        kind: DeviceKind,
        make: impl FnOnce() -> Box<dyn RealPlane> + Send,
        work: impl FnOnce(&mut WirePlane) -> T + Send,
    ) -> Result<T, LabError> {
        let lab = Lab::new("scenarios")?;
        let host = lab.host().clone();
        Ok(host.run(move || {
            let mut wire = WirePlane {
                plane: make(),
                kind,
                lab,
                rigs: BTreeMap::new(),
                macs: BTreeMap::new(),
                now: START,
            };
            work(&mut wire)
        }))
    }

    fn rig(&mut self, port: &PortId) -> Result<(), LabError> {
        if self.rigs.contains_key(port) {
            return Ok(());
        }
        let bridge = format!("br{}", self.rigs.len());
        self.lab.add_bridge(&bridge)?;
        let attach = Attach::Bridge(&bridge);
        let (device, inside): (String, Box<dyn FrameEnd>) = match self.kind {
            DeviceKind::Veth => {
                let vm = self.lab.add_vm(port.as_str(), SILENT, &[], attach)?;
                (vm.device().to_owned(), Box::new(vm.open_packets()?))
            }
            DeviceKind::Tap => {
                let tap = self.lab.add_tap(port.as_str(), Some(&bridge))?;
                (tap.device().to_owned(), Box::new(tap))
            }
        };
        let name = format!("o{}", self.rigs.len());
        let outside = self.lab.add_vm(&name, SILENT_OUTSIDE, &[], attach)?;
        // A bridge that learns would keep to itself what seems to come from where it is.
        let host = self.lab.host();
        for device in [&device, outside.device()] {
            host.ip(&format!("link set {device} type bridge_slave learning off"))?;
        }
        let rig = Rig {
            device: Device {
                ifindex: host.ifindex(&device)?,
                name: device,
            },
            inside,
            outside: Box::new(outside.open_packets()?),
        };
        self.rigs.insert(port.clone(), rig);
        Ok(())
    }

    /// On the ports' devices; those of ports that the view doesn't have are closed.
    fn enforce(&mut self, view: HostView) {
        let rigs = self.rigs.iter();
        let devices = rigs.map(|(port, rig)| (port.clone(), rig.device.clone()));
        let (known, gone): (Vec<_>, Vec<_>) =
            devices.partition(|(port, _)| view.ports.contains_key(port));
        let target = Target {
            devices: known.into_iter().collect(),
            view,
            closed: gone.into_iter().map(|(_, device)| device).collect(),
        };
        let report = match self.plane.plane().apply(&target) {
            Ok(report) => report,
            Err(error) => panic!("{} refuses the policy: {error}", self.plane.name()),
        };
        assert_eq!(report.refused, BTreeMap::new(), "ports that are refused");
    }
}

/// Also after a failure nothing stays behind.
impl Drop for WirePlane {
    fn drop(&mut self) {
        if let Err(error) = self.plane.plane().detach() {
            eprintln!("{} is left behind: {error}", self.plane.name());
        }
    }
}

impl Subject for WirePlane {
    fn name(&self) -> String {
        format!("{} on the wire", self.plane.name())
    }

    fn reset(&mut self) {
        self.enforce(HostView::default());
        self.plane.forget();
        self.macs.clear();
        self.now = START;
        self.plane.set_clock(self.now);
    }

    fn apply(&mut self, inventory: &Inventory) {
        let (view, _) = policy::compile(inventory, &here());
        let ports = inventory.ports.values();
        self.macs = ports.map(|port| (port.id.clone(), port.mac)).collect();
        for port in view.ports.keys() {
            self.rig(port).expect("the lab has room for another port");
        }
        self.enforce(view);
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        self.plane.set_clock(self.now);
    }

    fn send(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> Seen {
        if let Some(why) = unshown(frame) {
            return Seen::Unshown(why);
        }
        let (Some(rig), Some(mac)) = (self.rigs.get(port), self.macs.get(port)) else {
            return Seen::Unshown("a closed device passes no marker either");
        };
        let (sender, receiver) = match direction {
            Direction::Egress => (&rig.inside, &rig.outside),
            Direction::Ingress => (&rig.outside, &rig.inside),
        };
        match probe(&**sender, &**receiver, &[frame.to_vec()], *mac) {
            Ok(arrivals) => Seen::Arrived(arrivals == [Arrival::Arrived]),
            Err(error) => panic!("port {port}: {error}"),
        }
    }

    fn trace(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What a packet socket doesn't send, or a bridge never passes on.
fn unshown(frame: &[u8]) -> Option<&'static str> {
    let (Some(dst), Some(src)) = (frame.get(..6), frame.get(6..12)) else {
        return Some("the kernel sends no frame without an Ethernet header");
    };
    if frame.len() < 14 {
        return Some("the kernel sends no frame without an Ethernet header");
    }
    if src[0] & 1 == 1 || src == [0; 6] {
        return Some("a bridge passes on nothing from a group's MAC, or from none");
    }
    if dst[..5] == [1, 0x80, 0xc2, 0, 0] {
        return Some("a bridge keeps such frames to itself");
    }
    None
}
