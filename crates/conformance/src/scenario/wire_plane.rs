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
use super::run::{Seen, Subject, arrival};
use crate::lab::{
    Arrival, Attach, BRIDGE_MAC, FrameEnd, Lab, LabError, OpenVswitch, failed, probe_by,
};
use crate::migration::{HoldsPlane, migrate};
use crate::{Answer, Judge, OracleJudge, START, generate};
use dataplane::{Bridge, Capabilities, DataPlane, Device, Target};
use model::{Direction, Inventory, MacAddr, NetworkId, PortId};
use policy::HostView;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

/// A plane of this kernel, and what tests need of it beyond its trade.
pub trait RealPlane {
    fn name(&self) -> &str;

    fn plane(&mut self) -> &mut dyn DataPlane;

    /// Forgets flows and whatever else packets have left.
    fn forget(&mut self) -> io::Result<()>;

    /// Its clock stands at this time until the next call.
    fn set_clock(&mut self, now: Duration) -> io::Result<()>;
}

/// A real plane with a lab around it.
pub struct WirePlane {
    plane: Box<dyn RealPlane>,
    kind: DeviceKind,
    /// The bridges are its, if there is one; else the kernel's.
    switch: Option<OpenVswitch>,
    lab: Lab,
    rigs: BTreeMap<PortId, Rig>,
    /// The MACs of the ports as they are now.
    macs: BTreeMap<PortId, MacAddr>,
    now: Duration,
    /// What the contract says of a plane that lacks something.
    lacking: Option<OracleJudge>,
    /// Why its answers mean nothing any more.
    trouble: Option<String>,
}

/// What the devices of ports are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    Veth,
    Tap,
}

struct Rig {
    device: Device,
    bridge: Device,
    /// Which one the outside is in, as far as a switch was told.
    network: Option<NetworkId>,
    other: Device,
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
        make: impl FnOnce() -> io::Result<Box<dyn RealPlane>> + Send,
        work: impl FnOnce(&mut WirePlane) -> T + Send,
    ) -> Result<T, LabError> {
        let lab = Lab::new("scenarios")?;
        Self::run_in(lab, kind, None, make, work)
    }

    /// The same on bridges of an Open vSwitch, whose clock can be moved; `make` gets its run directory.
    pub fn run_on_switch<T: Send>(
        kind: DeviceKind,
        make: impl FnOnce(&Path) -> io::Result<Box<dyn RealPlane>> + Send,
        work: impl FnOnce(&mut WirePlane) -> T + Send,
    ) -> Result<T, LabError> {
        let lab = Lab::new("scenarios")?;
        let switch = OpenVswitch::start_with_clock(lab.host())?;
        let run_dir = switch.run_dir().to_owned();
        Self::run_in(lab, kind, Some(switch), move || make(&run_dir), work)
    }

    fn run_in<T: Send>(
        lab: Lab,
        kind: DeviceKind,
        switch: Option<OpenVswitch>,
        make: impl FnOnce() -> io::Result<Box<dyn RealPlane>> + Send,
        work: impl FnOnce(&mut WirePlane) -> T + Send,
    ) -> Result<T, LabError> {
        let host = lab.host().clone();
        host.run(move || {
            let mut plane = make().map_err(failed("making the plane"))?;
            let lacking = lacking(plane.plane().capabilities());
            let mut wire = WirePlane {
                plane,
                kind,
                switch,
                lab,
                rigs: BTreeMap::new(),
                macs: BTreeMap::new(),
                now: START,
                lacking,
                trouble: None,
            };
            Ok(work(&mut wire))
        })
    }

    fn rig(&mut self, port: &PortId) -> Result<(), LabError> {
        if self.rigs.contains_key(port) {
            return Ok(());
        }
        let bridge = format!("br{}", self.rigs.len());
        let attach = match &self.switch {
            Some(switch) => {
                switch.add_bridge(&bridge, true)?;
                Attach::Nothing
            }
            None => {
                self.lab.add_bridge(&bridge)?;
                Attach::Bridge(&bridge)
            }
        };
        let (device, inside): (String, Box<dyn FrameEnd>) = match self.kind {
            DeviceKind::Veth => {
                let vm = self.lab.add_vm(port.as_str(), SILENT, &[], attach)?;
                (vm.device().to_owned(), Box::new(vm.open_packets()?))
            }
            DeviceKind::Tap => {
                let on = self.switch.is_none().then_some(bridge.as_str());
                let tap = self.lab.add_tap(port.as_str(), on)?;
                (tap.device().to_owned(), Box::new(tap))
            }
        };
        let name = format!("o{}", self.rigs.len());
        let outside = self.lab.add_vm(&name, SILENT_OUTSIDE, &[], attach)?;
        let host = self.lab.host();
        match &self.switch {
            Some(switch) => connect(switch, &bridge, &device, outside.device())?,
            // A bridge that learns would keep to itself what seems to come from where it is.
            None => {
                for device in [&device, outside.device()] {
                    host.ip(&format!("link set {device} type bridge_slave learning off"))?;
                }
            }
        }
        let named = |name: String| -> Result<Device, LabError> {
            let ifindex = host.ifindex(&name)?;
            Ok(Device { name, ifindex })
        };
        let rig = Rig {
            device: named(device)?,
            bridge: named(bridge)?,
            network: None,
            other: named(outside.device().to_owned())?,
            inside,
            outside: Box::new(outside.open_packets()?),
        };
        self.rigs.insert(port.clone(), rig);
        Ok(())
    }

    /// Why it can't be shown such a packet.
    fn unshown(&self, port: &PortId, direction: Direction, frame: &[u8]) -> Option<&'static str> {
        let known = self.rigs.contains_key(port) && self.macs.contains_key(port);
        if self.switch.is_some() && is_drop_eligible(frame) {
            return Some("a virtual switch takes that bit of a tag for its own");
        }
        let own = self.macs.get(port).map(|mac| &mac.0[..]);
        let to_itself = direction == Direction::Egress && own.is_some() && frame.get(..6) == own;
        if self.switch.is_some() && to_itself {
            return Some("a switch sends nothing back to where it came from");
        }
        unshown(frame).or((!known).then_some("a closed device passes no marker either"))
    }

    /// Whether it arrives. It can be shown.
    fn show(&self, port: &PortId, direction: Direction, frame: &[u8]) -> Result<bool, LabError> {
        let (rig, mac) = (&self.rigs[port], &self.macs[port]);
        let (sender, receiver) = match direction {
            Direction::Egress => (&rig.inside, &rig.outside),
            Direction::Ingress => (&rig.outside, &rig.inside),
        };
        let markers = if self.switch.is_some() { 2 } else { 1 };
        let frames = [frame.to_vec()];
        let arrivals = probe_by(markers, &**sender, &**receiver, &frames, *mac)?;
        Ok(arrivals == [Arrival::Arrived])
    }

    /// A switch that is driven whole has to know which network the outside is in.
    fn tell_networks(&mut self, view: &HostView) -> Result<(), LabError> {
        let Some(switch) = &self.switch else {
            return Ok(());
        };
        let mut told = Vec::new();
        for (port, rig) in &mut self.rigs {
            let network = view.ports.get(port).map(|port| port.network.clone());
            if let Some(network) = network.filter(|network| rig.network.as_ref() != Some(network)) {
                let device = &rig.other.name;
                told.push(format!(
                    "set interface {device} external_ids:portcullis-network={network}"
                ));
                rig.network = Some(network);
            }
        }
        match told.is_empty() {
            true => Ok(()),
            false => switch.vsctl(&told.join(" -- ")).map(drop),
        }
    }

    /// On the ports' devices; those of ports that the view doesn't have are closed.
    fn enforce(&mut self, view: HostView) {
        if let Err(error) = self.tell_networks(&view) {
            return self.fail(error.to_string());
        }
        let rigs = self.rigs.iter();
        let devices = rigs.map(|(port, rig)| (port.clone(), rig.device.clone()));
        let (known, gone): (Vec<_>, Vec<_>) =
            devices.partition(|(port, _)| view.ports.contains_key(port));
        let bridges = self.rigs.values().map(|rig| {
            let bridge = Bridge {
                macs: BTreeSet::from([BRIDGE_MAC]),
                members: BTreeSet::from([rig.device.clone(), rig.other.clone()]),
            };
            (rig.bridge.clone(), bridge)
        });
        let target = Target {
            devices: known.into_iter().collect(),
            view,
            closed: gone.into_iter().map(|(_, device)| device).collect(),
            bridges: bridges.collect(),
        };
        match self.plane.plane().apply(&target) {
            Ok(report) if report.refused.is_empty() => {}
            Ok(report) => self.fail(format!("ports are refused: {:?}", report.refused)),
            Err(error) => self.fail(format!("{} refuses the policy: {error}", self.plane.name())),
        }
    }

    fn begin_anew(&mut self) {
        self.enforce(HostView::default());
        self.macs.clear();
        self.now = START;
        let forgotten = self.plane.forget();
        if let Err(error) = forgotten.and_then(|()| self.plane.set_clock(self.now)) {
            self.fail(format!("{} doesn't forget: {error}", self.plane.name()));
        }
    }

    fn move_clock(&mut self, by: Duration) {
        self.now += by;
        if let Err(error) = self.plane.set_clock(self.now) {
            self.fail(format!(
                "the clock of {} stands: {error}",
                self.plane.name()
            ));
        }
    }

    /// The first trouble counts.
    fn fail(&mut self, text: String) {
        self.trouble.get_or_insert(text);
    }

    fn must_be_fine(&self) {
        if let Some(trouble) = &self.trouble {
            panic!("{trouble}");
        }
    }
}

/// The bit of a VLAN tag that says that there is one, inside of an Open vSwitch.
pub(super) fn is_drop_eligible(frame: &[u8]) -> bool {
    let tag = frame.get(12..15);
    tag.is_some_and(|tag| matches!(tag, [0x81, 0x00, c] | [0x88, 0xa8, c] if c & 0x10 != 0))
}

/// What is sent outside is for the port, whatever its address says: the bridge's pipeline hands it over to the
/// port's gate.
fn connect(
    switch: &OpenVswitch,
    bridge: &str,
    device: &str,
    outside: &str,
) -> Result<(), LabError> {
    let port = switch.add_port(bridge, device, &[])?;
    let from = switch.add_port(bridge, outside, &[])?;
    let hand_over = format!("load:{port}->NXM_NX_REG4[16..31],resubmit(,200)");
    let flow = format!("priority=65535,in_port={from},actions={hand_over}");
    switch.ofctl(&format!("add-flow {bridge} {flow}"))?;
    Ok(())
}

/// Also after a failure nothing stays behind.
impl Drop for WirePlane {
    fn drop(&mut self) {
        if let Err(error) = self.plane.plane().detach() {
            eprintln!("{} is left behind: {error}", self.plane.name());
        }
    }
}

impl HoldsPlane for WirePlane {
    fn plane(&mut self) -> &mut dyn DataPlane {
        self.plane.plane()
    }

    fn enforce(&mut self, view: HostView) {
        WirePlane::enforce(self, view);
    }
}

impl Subject for WirePlane {
    fn name(&self) -> String {
        format!("{} on the wire", self.plane.name())
    }

    fn reset(&mut self) {
        self.begin_anew();
        self.must_be_fine();
        if let Some(oracle) = &mut self.lacking {
            Judge::reset(oracle);
        }
    }

    fn apply(&mut self, inventory: &Inventory) {
        let (view, _) = policy::compile(inventory, &here());
        let ports = inventory.ports.values();
        self.macs = ports.map(|port| (port.id.clone(), port.mac)).collect();
        for port in view.ports.keys() {
            self.rig(port).expect("the lab has room for another port");
        }
        self.enforce(view);
        self.must_be_fine();
        if let Some(oracle) = &mut self.lacking {
            Judge::apply(oracle, inventory);
        }
    }

    fn advance(&mut self, by: Duration) {
        self.move_clock(by);
        self.must_be_fine();
        if let Some(oracle) = &mut self.lacking {
            Judge::advance(oracle, by);
        }
    }

    fn send(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> Seen {
        if let Some(why) = self.unshown(port, direction, frame) {
            return Seen::Unshown(why);
        }
        let arrived = match self.show(port, direction, frame) {
            Ok(arrived) => arrived,
            Err(error) => panic!("port {port}: {error}"),
        };
        match &mut self.lacking {
            None => Seen::Arrived(arrived),
            Some(oracle) => Seen::Lacking {
                arrived,
                expected: oracle.judge(port, direction, frame),
            },
        }
    }

    fn migrate(&mut self, port: &PortId, inventory: &Inventory) -> Result<(), &'static str> {
        let (view, _) = policy::compile(inventory, &here());
        migrate(self, port, view)?;
        self.must_be_fine();
        Ok(())
    }

    fn trace(&self) -> Vec<String> {
        let oracle = self.lacking.as_ref();
        oracle.map(Judge::last_trace).unwrap_or_default()
    }
}

/// The same for generated traces: what is known of a packet is whether it arrives.
pub struct WireJudge<'a>(pub &'a mut WirePlane);

impl Judge for WireJudge<'_> {
    fn name(&self) -> &str {
        self.0.plane.name()
    }

    fn reset(&mut self) {
        self.0.begin_anew();
    }

    fn apply(&mut self, inventory: &Inventory) {
        let wire = &mut *self.0;
        let (view, _) = policy::compile(inventory, &generate::host());
        let ports = inventory.ports.values();
        wire.macs = ports.map(|port| (port.id.clone(), port.mac)).collect();
        wire.macs.retain(|id, _| view.ports.contains_key(id));
        for port in view.ports.keys() {
            if let Err(error) = wire.rig(port) {
                return wire.fail(error.to_string());
            }
        }
        wire.enforce(view);
    }

    fn advance(&mut self, by: Duration) {
        self.0.move_clock(by);
    }

    fn judge(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> Answer {
        let arrived = self.0.show(port, direction, frame);
        let arrived = arrived.unwrap_or_else(|error| {
            self.0.fail(format!("port {port}: {error}"));
            false
        });
        arrival(arrived).into()
    }

    fn can_judge(&self, port: &PortId, direction: Direction, frame: &[u8]) -> bool {
        self.0.unshown(port, direction, frame).is_none()
    }

    fn knows_why(&self) -> bool {
        false
    }

    fn trouble(&self) -> Option<&str> {
        self.0.trouble.as_deref()
    }
}

/// Each port is on a bridge of its own, so that a flow never has another end on the host: it starts for each
/// end by itself.
fn lacking(capabilities: Capabilities) -> Option<OracleJudge> {
    let here_alone = Capabilities {
        per_end_start: true,
        ..capabilities
    };
    let lacks = here_alone != Capabilities::ALL;
    lacks.then(|| OracleJudge::new(here(), here_alone).explaining())
}

/// Why such a frame can't be shown to a plane on the wire, if it can't: a packet socket doesn't send it, or a
/// bridge never passes it on.
pub fn unshown(frame: &[u8]) -> Option<&'static str> {
    let (Some(dst), Some(src)) = (frame.get(..6), frame.get(6..12)) else {
        return Some("the kernel sends no frame without an Ethernet header");
    };
    if frame.len() < 14 {
        return Some("the kernel sends no frame without an Ethernet header");
    }
    if frame.len() < 20 && matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8]) {
        return Some("the kernel passes on no tag that is cut short");
    }
    if src[0] & 1 == 1 || src == [0; 6] {
        return Some("a bridge passes on nothing from a group's MAC, or from none");
    }
    if dst[..5] == [1, 0x80, 0xc2, 0, 0] {
        return Some("a bridge keeps such frames to itself");
    }
    None
}
