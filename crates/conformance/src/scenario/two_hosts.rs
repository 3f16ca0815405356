//! Two hosts with a cable between them, and a real plane on each: who gets what a VM sends?
//!
//! ```text
//! host here                                        host there
//!   p1 ==veth==  br-int                              br-int  ==veth== p2
//!   p3 ==veth==    |---- Geneve over br-phy <=cable=> br-phy ----|
//! ```
//! Both switches are driven whole. A port has a device on each host that it ever was on; where it is not, the
//! device is closed. The VMs' kernels have no addresses and answer nothing.
//! Knows nothing of: which plane it is; who is right.

use super::wire_plane::{RealPlane, is_drop_eligible, unshown};
use crate::generate::Sent;
use crate::lab::{
    Attach, CABLE_BRIDGE, CableEnd, Lab, LabError, OpenVswitch, PacketSocket, Receiver, cable,
    failed, is_through, probe_many,
};
use crate::selftest::Deliveries;
use crate::{START, generate};
use dataplane::{Device, Target};
use model::{HostId, Inventory, MacAddr, NetworkId, Port, PortId};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A plane that can be asked from any thread.
pub type Plane = Box<dyn RealPlane + Send>;

pub struct TwoHosts {
    ends: [End; 2],
    inventory: Arc<Inventory>,
    now: Duration,
    /// Nothing has gone from host to host since the last change, or long pause.
    to_settle: bool,
    trouble: Option<String>,
}

struct End {
    // Dropped in this order: each is in what follows.
    plane: Plane,
    switch: OpenVswitch,
    lab: Lab,
    host: HostId,
    /// The other host's end of the cable.
    other: Option<(Ipv4Addr, MacAddr)>,
    devices: BTreeMap<PortId, (Device, PacketSocket)>,
}

const BRIDGE: &str = "br-int";
/// On a VM that nobody addresses, any MAC does; those of the packets are in the packets.
const SILENT: MacAddr = MacAddr([0x52, 0x54, 0, 0xee, 0, 1]);
/// A packet of a new kind can be overtaken in each of the two switches.
const MARKERS: u32 = 3;
/// While a switch asks who has the other host's address, it drops what is for it.
const TRIES: u32 = 400;
const TRY: Duration = Duration::from_millis(50);

impl TwoHosts {
    /// `make` gets the switch's run directory, and is called in its host's namespace.
    pub fn new(make: impl Fn(&Path) -> io::Result<Plane> + Sync) -> Result<Self, LabError> {
        let [here, there] = generate::hosts();
        let mut ends = [End::new(here, &make)?, End::new(there, &make)?];
        let [near, far] = &ends;
        let [near, far] = [near, far].map(|end| CableEnd {
            lab: &end.lab,
            switch: &end.switch,
            address: generate::tunnel_address(&end.host),
        });
        let addresses = [near.address, far.address];
        cable(near, far)?;
        let macs = [ends[0].cable_mac()?, ends[1].cable_mac()?];
        ends[0].other = Some((addresses[1], macs[1]));
        ends[1].other = Some((addresses[0], macs[0]));
        Ok(Self {
            ends,
            inventory: Arc::default(),
            now: START,
            to_settle: true,
            trouble: None,
        })
    }

    fn end(&self, port: &Port) -> Option<&End> {
        let host = port.host.as_ref()?;
        self.ends.iter().find(|end| end.host == *host)
    }

    fn socket(&self, port: &Port) -> Option<&PacketSocket> {
        let (_, socket) = self.end(port)?.devices.get(&port.id)?;
        Some(socket)
    }

    fn others(&self, sender: &Port) -> impl Iterator<Item = &Port> {
        let network = sender.network.clone();
        let id = sender.id.clone();
        let ports = self.inventory.ports.values();
        ports.filter(move |port| port.network == network && port.id != id)
    }

    fn show(&mut self, sent: &Sent) -> Result<BTreeSet<PortId>, LabError> {
        if std::mem::take(&mut self.to_settle) {
            self.settle()?;
        }
        let sender = &self.inventory.ports[&sent.port];
        let from = self.socket(sender).expect("it can be shown");
        let addressed = |port: &Port| generate::is_addressed(port, &sent.frame);
        let others = self.others(sender);
        let others: Vec<(&Port, Receiver<'_>)> = others
            .filter_map(|port| {
                let receiver = Receiver {
                    name: port.id.as_str(),
                    end: self.socket(port)?,
                    addressed: addressed(port),
                };
                Some((port, receiver))
            })
            .collect();
        let (ports, receivers): (Vec<&Port>, Vec<Receiver<'_>>) = others.into_iter().unzip();
        let arrived = probe_many(MARKERS, from, &receivers, &sent.frame, sender.mac)?;
        let got = ports.iter().zip(arrived).filter(|(_, arrived)| *arrived);
        Ok(got.map(|(port, _)| port.id.clone()).collect())
    }

    /// Until what is sent arrives, in each network and from either host.
    fn settle(&self) -> Result<(), LabError> {
        let mut done: BTreeSet<(&NetworkId, &HostId)> = BTreeSet::new();
        for port in self.inventory.ports.values() {
            let (Some(from), Some(host)) = (self.socket(port), &port.host) else {
                continue;
            };
            let far = |other: &&Port| other.host.is_some() && other.host != port.host;
            let far = self.others(port).filter(far);
            let Some(to) = far.filter_map(|port| self.socket(port)).next() else {
                continue;
            };
            if !port.port_security || !done.insert((&port.network, host)) {
                continue;
            }
            let mut through = false;
            for _ in 0..TRIES {
                through = is_through(from, to, port.mac, TRY)?;
                if through {
                    break;
                }
            }
            if !through {
                let step = format!("from {} on {host} to the other host", port.id);
                return Err(failed(step)(io::ErrorKind::TimedOut.into()));
            }
        }
        Ok(())
    }

    /// On both at once.
    fn each(&mut self, work: impl Fn(&mut End) -> Result<(), String> + Sync) {
        let work = &work;
        let failed: Vec<String> = std::thread::scope(|scope| {
            let ends = self.ends.iter_mut();
            let threads: Vec<_> = ends.map(|end| scope.spawn(|| work(end))).collect();
            let done = threads.into_iter().map(|thread| thread.join());
            let done = done.map(|done| done.expect("it returns its errors"));
            done.filter_map(Result::err).collect()
        });
        for error in failed {
            // The first trouble counts.
            self.trouble.get_or_insert(error);
        }
        self.to_settle = true;
    }
}

impl End {
    fn new(
        host: HostId,
        make: &(impl Fn(&Path) -> io::Result<Plane> + Sync),
    ) -> Result<Self, LabError> {
        let lab = Lab::new(host.as_str())?;
        let switch = OpenVswitch::start_with_clock(lab.host())?;
        switch.add_bridge(BRIDGE, true)?;
        let plane = lab.host().run(|| make(switch.run_dir()));
        Ok(Self {
            plane: plane.map_err(failed("making the plane"))?,
            switch,
            lab,
            host,
            other: None,
            devices: BTreeMap::new(),
        })
    }

    /// Where the other host is expires after some minutes, whenever the switch comes to it; and while packets go there
    /// it doesn't ask again.
    fn know_the_other(&self) -> Result<(), LabError> {
        let Some((address, mac)) = self.other else {
            return Ok(());
        };
        self.switch
            .appctl(&format!("tnl/neigh/set {CABLE_BRIDGE} {address} {mac}"))?;
        // Twice, since it may be looking through its decisions just now; a new flow makes it.
        let nudge = "table=250,priority=0,actions=drop";
        for _ in 0..2 {
            self.switch
                .ofctl(&format!("add-flow {CABLE_BRIDGE} {nudge}"))?;
            self.switch.appctl("revalidator/wait")?;
        }
        Ok(())
    }

    fn cable_mac(&self) -> Result<MacAddr, LabError> {
        let told = self
            .switch
            .vsctl(&format!("get interface {CABLE_BRIDGE} mac_in_use"))?;
        let mac = told.trim().trim_matches('"').parse();
        mac.map_err(|_| {
            let step = format!("the MAC of {CABLE_BRIDGE} on {}: {told}", self.host);
            failed(step)(io::ErrorKind::InvalidData.into())
        })
    }

    fn ask<T: Send>(&mut self, ask: impl FnOnce(&mut Plane) -> T + Send) -> T {
        let plane = &mut self.plane;
        self.lab.host().run(|| ask(plane))
    }

    fn plug(&mut self, port: &PortId) -> Result<(), LabError> {
        if self.devices.contains_key(port) {
            return Ok(());
        }
        let vm = self
            .lab
            .add_vm(port.as_str(), SILENT, &[], Attach::Nothing)?;
        self.switch.add_port(BRIDGE, vm.device(), &[])?;
        let device = Device {
            name: vm.device().to_owned(),
            ifindex: self.lab.host().ifindex(vm.device())?,
        };
        self.devices
            .insert(port.clone(), (device, vm.open_packets()?));
        Ok(())
    }

    fn enforce(&mut self, inventory: &Inventory) -> Result<(), String> {
        let (view, _) = policy::compile(inventory, &self.host);
        for port in view.ports.keys() {
            self.plug(port).map_err(|error| error.to_string())?;
        }
        let devices = self.devices.iter();
        let devices = devices.map(|(port, (device, _))| (port.clone(), device.clone()));
        let (here, gone): (Vec<_>, Vec<_>) =
            devices.partition(|(port, _)| view.ports.contains_key(port));
        let target = Target {
            devices: here.into_iter().collect(),
            view,
            closed: gone.into_iter().map(|(_, device)| device).collect(),
            ..Target::default()
        };
        let host = self.host.clone();
        match self.ask(|plane| plane.plane().apply(&target)) {
            Ok(report) if report.refused.is_empty() => Ok(()),
            Ok(report) => Err(format!("{host} refuses ports: {:?}", report.refused)),
            Err(error) => Err(format!("{host} refuses the policy: {error}")),
        }
    }

    fn forget(&mut self) -> Result<(), String> {
        let forgotten = self.ask(|plane| plane.forget());
        forgotten.map_err(|error| format!("{} doesn't forget: {error}", self.host))
    }

    fn set_clock(&mut self, now: Duration) -> Result<(), String> {
        let set = self.ask(|plane| plane.set_clock(now));
        set.map_err(|error| format!("the clock of {} stands: {error}", self.host))
    }
}

/// Also after a failure nothing stays behind.
impl Drop for End {
    fn drop(&mut self) {
        if let Err(error) = self.ask(|plane| plane.plane().detach()) {
            eprintln!("on {} something is left behind: {error}", self.host);
        }
    }
}

impl Deliveries for TwoHosts {
    fn name(&self) -> &str {
        self.ends[0].plane.name()
    }

    fn reset(&mut self) {
        self.inventory = Arc::default();
        self.now = START;
        self.each(|end| {
            end.enforce(&Inventory::default())?;
            end.forget()?;
            end.set_clock(START)
        });
    }

    fn apply(&mut self, inventory: &Arc<Inventory>) {
        self.inventory = Arc::clone(inventory);
        self.each(|end| end.enforce(inventory));
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        let now = self.now;
        self.each(|end| {
            end.set_clock(now)?;
            end.know_the_other().map_err(|error| error.to_string())
        });
    }

    fn can_deliver(&self, sent: &Sent) -> bool {
        let Some(sender) = self.inventory.ports.get(&sent.port) else {
            return false;
        };
        let own = &sender.mac.0[..];
        let to_itself = sent.frame.get(..6) == Some(own);
        let shown = unshown(&sent.frame).is_none() && !is_drop_eligible(&sent.frame);
        shown && !to_itself && sender.port_security && self.socket(sender).is_some()
    }

    fn deliver(&mut self, sent: &Sent) -> BTreeSet<PortId> {
        let got = self.show(sent);
        got.unwrap_or_else(|error| {
            let text = format!("from {}: {error}", sent.port);
            self.trouble.get_or_insert(text);
            BTreeSet::new()
        })
    }

    fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}
