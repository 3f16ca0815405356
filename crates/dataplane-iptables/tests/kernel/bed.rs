//! A host out of network namespaces: bridges, VMs on them, and the plane.

use conformance::lab::{Asked, Attach, BRIDGE_MAC, Lab, Vm};
use dataplane::{ApplyReport, Bridge, DataPlane, Device, Target};
use model::{Family, HostId, MacAddr};
use netfilter::conntrack::{Entry, Filter, dump};
use portcullis_dataplane_iptables::{Backend, IptablesConfig, IptablesPlane};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// A permitted answer comes at once; how long nothing has to come of what is dropped.
const SILENCE: Duration = Duration::from_millis(300);

pub(crate) struct Bed {
    pub(crate) lab: Lab,
    vms: BTreeMap<String, (Vm, String)>,
    bridges: Vec<String>,
    plane: Option<IptablesPlane>,
    backend: Backend,
    pub(crate) directory: TempDir,
}

impl Bed {
    pub(crate) fn new(backend: Backend) -> Self {
        let lab = Lab::new("iptables").expect("root");
        let mut bed = Self {
            lab,
            vms: BTreeMap::new(),
            bridges: Vec::new(),
            plane: None,
            backend,
            directory: tempfile::tempdir().expect("there is room"),
        };
        bed.reopen();
        bed
    }

    /// The plane as another process finds it.
    pub(crate) fn reopen(&mut self) {
        let config = IptablesConfig {
            instance: "test".to_owned(),
            directory: Some(self.directory.path().to_owned()),
            backend: Some(self.backend),
        };
        let plane = self.lab.host().run(|| IptablesPlane::open(config));
        self.plane = Some(plane.unwrap_or_else(|error| panic!("{error}")));
    }

    pub(crate) fn become_backend(&mut self, backend: Backend) {
        self.backend = backend;
    }

    pub(crate) fn add_bridge(&mut self, name: &str) {
        self.lab.add_bridge(name).expect("a bridge");
        self.bridges.push(name.to_owned());
    }

    /// On a bridge; its MAC ends with this byte.
    pub(crate) fn add_vm(&mut self, name: &str, last: u8, addresses: &[&str], bridge: &str) {
        let mac = MacAddr([0x52, 0x54, 0, 0, 0, last]);
        let with_length = |text: &&str| -> (IpAddr, u8) {
            let address: IpAddr = text.parse().expect("an address");
            (address, if address.is_ipv4() { 24 } else { 64 })
        };
        let addresses: Vec<(IpAddr, u8)> = addresses.iter().map(with_length).collect();
        let vm = self
            .lab
            .add_vm(name, mac, &addresses, Attach::Bridge(bridge));
        let vm = vm.unwrap_or_else(|error| panic!("{error}"));
        self.vms.insert(name.to_owned(), (vm, bridge.to_owned()));
    }

    pub(crate) fn remove_vm(&mut self, name: &str) {
        let (vm, _) = self.vms.remove(name).expect("it is there");
        self.lab.remove_vm(&vm).expect("it is there");
    }

    pub(crate) fn vm(&self, name: &str) -> &Vm {
        &self.vms[name].0
    }

    pub(crate) fn with<T: Send>(&mut self, ask: impl FnOnce(&mut IptablesPlane) -> T + Send) -> T {
        let plane = self.plane.as_mut().expect("it is open");
        self.lab.host().run(|| ask(plane))
    }

    /// Ports are on the VMs of their names; other VMs are somebody out there.
    pub(crate) fn apply(&mut self, policy: &str) -> ApplyReport {
        let target = self.target(policy);
        let report = self.with(|plane| plane.apply(&target));
        let report = report.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(report.refused, BTreeMap::new());
        assert_eq!(report.remarks, [""; 0]);
        report
    }

    pub(crate) fn target(&self, policy: &str) -> Target {
        let host = HostId::new("here");
        let file = policyfile::parse(policy, "policy.yaml", &host);
        let file = file.unwrap_or_else(|errors| panic!("{errors:?}"));
        let (view, _) = policy::compile(&file.inventory, &file.host);
        let mut target = Target {
            view,
            ..Target::default()
        };
        for bridge in &self.bridges {
            let members = self.vms.values().filter(|(_, on)| on == bridge);
            let bridge_on_host = Bridge {
                macs: [BRIDGE_MAC].into(),
                members: members.map(|(vm, _)| self.device(vm.device())).collect(),
            };
            target.bridges.insert(self.device(bridge), bridge_on_host);
        }
        for (name, (vm, _)) in &self.vms {
            if target.view.ports.contains_key(name.as_str()) {
                let device = self.device(vm.device());
                target.devices.insert(name.as_str().into(), device);
            }
        }
        target
    }

    pub(crate) fn device(&self, name: &str) -> Device {
        Device {
            name: name.to_owned(),
            ifindex: self.lab.host().ifindex(name).expect("a device"),
        }
    }

    /// Runs a command on the host; it has to succeed.
    pub(crate) fn run(&self, command: &str) -> String {
        let mut words = command.split(' ');
        let program = words.next().expect("a program");
        let output = self
            .lab
            .host()
            .run(|| Command::new(program).args(words).output())
            .unwrap_or_else(|error| panic!("{command}: {error}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// All rules, without counters and what else moves.
    pub(crate) fn iptables_save(&self) -> String {
        unmoved(&self.run(&format!("iptables-{}-save", self.backend.name())))
    }

    pub(crate) fn ip6tables_save(&self) -> String {
        unmoved(&self.run(&format!("ip6tables-{}-save", self.backend.name())))
    }

    /// All that the host's tracker holds.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lab.host().run(|| {
            let mut entries = Vec::new();
            dump(&Filter::default(), |entry| entries.push(entry)).expect("netlink answers");
            entries
        })
    }

    /// Whether one VM is answered by another.
    pub(crate) fn answers(&self, from: &str, to: &str, family: Family, asked: Asked) -> bool {
        let answered = self
            .vm(from)
            .is_answered(self.vm(to), family, asked, SILENCE);
        answered.unwrap_or_else(|error| panic!("{from} asks {to} {asked:?} by {family}: {error}"))
    }
}

fn unmoved(saved: &str) -> String {
    let lines = saved.lines().filter(|line| !line.starts_with('#'));
    let counted = |line: &str| match line.split_once(" [") {
        Some((chain, _)) if line.starts_with(':') => chain.to_owned(),
        _ => line.to_owned(),
    };
    lines.map(counted).collect::<Vec<_>>().join("\n")
}
