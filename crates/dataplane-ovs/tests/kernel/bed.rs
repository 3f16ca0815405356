//! A host out of network namespaces: a switch with bridges, VMs on them, and the plane.

use conformance::lab::{Asked, Attach, Lab, Offload, OpenVswitch, PacketSocket, Vm};
use dataplane::{ApplyError, ApplyReport, DataPlane, Device, Drift, Target};
use model::{Family, HostId, MacAddr};
use portcullis_dataplane_ovs::{OvsConfig, OvsPlane};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// A permitted answer comes at once; how long nothing has to come of what is dropped.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

/// Of our flows: `portcullis` in hexadecimal begins so.
pub(crate) const OURS: &str = "0x706f72";

pub(crate) struct Bed {
    // Before the lab: its daemons are in the lab's namespace.
    pub(crate) switch: OpenVswitch,
    pub(crate) lab: Lab,
    vms: BTreeMap<String, Vm>,
    /// As policies call it.
    pub(crate) host: HostId,
    plane: Option<OvsPlane>,
}

impl Bed {
    /// Bridges by name, and whether they are secure.
    pub(crate) fn new(bridges: &[(&str, bool)]) -> Self {
        let lab = Lab::new("ovs").expect("root");
        let switch = OpenVswitch::start_with_clock(lab.host()).expect("Open vSwitch is installed");
        for (bridge, secure) in bridges {
            switch.add_bridge(bridge, *secure).expect("a bridge");
        }
        let mut bed = Self {
            switch,
            lab,
            vms: BTreeMap::new(),
            host: HostId::new("here"),
            plane: None,
        };
        bed.reopen();
        bed
    }

    /// The plane as another process finds it.
    pub(crate) fn reopen(&mut self) {
        let config = OvsConfig {
            instance: "test".to_owned(),
            run_dir: self.switch.run_dir().to_owned(),
        };
        let plane = self.lab.host().run(|| OvsPlane::open(config));
        self.plane = Some(plane.unwrap_or_else(|error| panic!("{error}")));
    }

    /// On a bridge; its MAC ends with this byte.
    pub(crate) fn add_vm(&mut self, name: &str, last: u8, addresses: &[&str], bridge: &str) {
        let with_length = |text: &&str| -> (IpAddr, u8) {
            let address: IpAddr = text.parse().expect("an address");
            (address, if address.is_ipv4() { 24 } else { 64 })
        };
        let addresses: Vec<(IpAddr, u8)> = addresses.iter().map(with_length).collect();
        let vm = self
            .lab
            .add_vm(name, mac(last), &addresses, Attach::Nothing);
        let vm = vm.unwrap_or_else(|error| panic!("{error}"));
        vm.offload(Offload::TxChecksum, false).expect("set");
        self.vms.insert(name.to_owned(), vm);
        self.plug(name, bridge);
    }

    pub(crate) fn plug(&self, name: &str, bridge: &str) {
        let plugged = self.switch.add_port(bridge, self.device(name), &[]);
        plugged.unwrap_or_else(|error| panic!("{error}"));
    }

    pub(crate) fn unplug(&self, name: &str) {
        self.vsctl(&format!("del-port {}", self.device(name)));
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.vms.contains_key(name)
    }

    pub(crate) fn vm(&self, name: &str) -> &Vm {
        &self.vms[name]
    }

    pub(crate) fn device(&self, name: &str) -> &str {
        self.vms[name].device()
    }

    pub(crate) fn of_port(&self, name: &str) -> String {
        let told = self.vsctl(&format!("get interface {} ofport", self.device(name)));
        told.trim().to_owned()
    }

    pub(crate) fn packets(&self, name: &str) -> PacketSocket {
        self.vm(name).open_packets().expect("a socket")
    }

    pub(crate) fn vsctl(&self, arguments: &str) -> String {
        let said = self.switch.vsctl(arguments);
        said.unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn ofctl(&self, arguments: &str) -> String {
        let said = self.switch.ofctl(arguments);
        said.unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn appctl(&self, arguments: &str) -> String {
        let said = self.switch.appctl(arguments);
        said.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The flows of a bridge without what moves; ours, or those of others.
    pub(crate) fn flows(&self, bridge: &str, ours: bool) -> BTreeSet<String> {
        let told = self.ofctl(&format!("--no-stats dump-flows {bridge}"));
        let lines = told
            .lines()
            .map(str::trim)
            .filter(|line| line.contains("actions="));
        let lines = lines.filter(|line| line.contains(OURS) == ours);
        lines.map(str::to_owned).collect()
    }

    pub(crate) fn with<T: Send>(&mut self, ask: impl FnOnce(&mut OvsPlane) -> T + Send) -> T {
        let plane = self.plane.as_mut().expect("it is open");
        self.lab.host().run(|| ask(plane))
    }

    pub(crate) fn try_apply(&mut self, policy: &str) -> Result<ApplyReport, ApplyError> {
        let target = self.target(policy);
        self.with(|plane| plane.apply(&target))
    }

    /// Ports are on the VMs of their names; other VMs are somebody out there.
    pub(crate) fn apply(&mut self, policy: &str) -> ApplyReport {
        let report = self.try_apply(policy);
        let report = report.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(report.refused, BTreeMap::new());
        assert_eq!(report.remarks, [""; 0]);
        report
    }

    pub(crate) fn audit(&mut self) -> Vec<Drift> {
        self.with(DataPlane::audit)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn target(&self, policy: &str) -> Target {
        let file = policyfile::parse(policy, "policy.yaml", &self.host);
        let file = file.unwrap_or_else(|errors| panic!("{errors:?}"));
        let (view, _) = policy::compile(&file.inventory, &file.host);
        let mut target = Target {
            view,
            ..Target::default()
        };
        for name in self.vms.keys() {
            if target.view.ports.contains_key(name.as_str()) {
                let device = self.host_device(name);
                target.devices.insert(name.as_str().into(), device);
            }
        }
        target
    }

    pub(crate) fn host_device(&self, name: &str) -> Device {
        let name = self.device(name).to_owned();
        let ifindex = self.lab.host().ifindex(&name).expect("a device");
        Device { name, ifindex }
    }

    /// Whether one VM is answered by another.
    pub(crate) fn answers(&self, from: &str, to: &str, family: Family, asked: Asked) -> bool {
        let answered = self
            .vm(from)
            .is_answered(self.vm(to), family, asked, SILENCE);
        answered.unwrap_or_else(|error| panic!("{from} asks {to} {asked:?} by {family}: {error}"))
    }

    /// Lines of `dpctl/dump-conntrack` that say this.
    pub(crate) fn connections(&self, saying: &str) -> Vec<String> {
        let told = self.appctl("dpctl/dump-conntrack");
        let lines = told.lines().filter(|line| line.contains(saying));
        lines.map(str::to_owned).collect()
    }

    /// The conntrack zone of a port, as the switch's database has it.
    pub(crate) fn zone(&self, bridge: &str, port: &str) -> Option<u16> {
        let told = self.vsctl(&format!("get bridge {bridge} external_ids"));
        let pairs = told.trim().trim_matches(['{', '}']).split(", ");
        let mut pairs = pairs.filter_map(|pair| pair.split_once('='));
        let key = format!("portcullis-zone-{port}");
        let found = pairs.find(|(k, _)| k.trim_matches('"') == key)?;
        found.1.trim_matches('"').parse().ok()
    }
}

pub(crate) fn mac(last: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, last])
}

/// From one VM to another, by the last bytes of their addresses, which are those of their MACs.
pub(crate) fn datagram(from: u8, to: u8, source: u16, destination: u16) -> Vec<u8> {
    let [src, dst] = [from, to].map(|last| Ipv4Addr::new(10, 0, 0, last).into());
    let datagram = wire::build::ip(src, dst).udp(source, destination);
    datagram.macs(mac(from), mac(to)).bytes()
}

/// Whether two frames are of the same datagram, whatever tags they have.
pub(crate) fn is_same(sent: &[u8], seen: &[u8]) -> bool {
    let untagged = |frame: &[u8]| match frame.get(12..14) {
        Some([0x81, 0]) => [&frame[..12], &frame[16..]].concat(),
        _ => frame.to_vec(),
    };
    untagged(sent) == untagged(seen)
}
