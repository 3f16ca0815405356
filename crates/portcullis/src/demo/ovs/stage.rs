//! The two hosts with a cable between them, and the machines on them, all serving.
//!
//! Knows nothing of: who may reach whom.

use super::super::report::Report;
use super::cast::{HostName, Machine};
use super::host::{BRIDGE, Host};
use super::remains::Remains;
use super::traffic;
use crate::failure::Failure;
use crate::output::{Columns, Tone};
use conformance::lab::{Attach, CableEnd, Offload, PacketSocket, Vm, cable};
use model::Family;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(crate) struct Stage {
    a: Host,
    b: Host,
    vms: BTreeMap<Machine, Vm>,
    policy: PathBuf,
}

impl Stage {
    pub(crate) fn build(remains: &Remains) -> Result<Self, Failure> {
        let policy = remains.directory().join("policy.yaml");
        let host = |name| Host::new(name, remains, policy.clone());
        let (a, b) = (host(HostName::A)?, host(HostName::B)?);
        let mut stage = Self {
            a,
            b,
            vms: BTreeMap::new(),
            policy,
        };
        let end = |host: HostName| CableEnd {
            lab: &stage.host(host).lab,
            switch: &stage.host(host).switch,
            address: host.address(),
        };
        cable(end(HostName::A), end(HostName::B))?;
        for machine in Machine::all() {
            stage.add(machine)?;
        }
        Ok(stage)
    }

    fn add(&mut self, machine: Machine) -> Result<(), Failure> {
        let addresses = [
            (machine.address(Family::V4), 16),
            (machine.address(Family::V6), 64),
        ];
        let host = self.host_mut(machine.host());
        // Short enough to be whole in a device's name.
        let [.., tenant, number] = machine.mac().0;
        let name = format!("vm{tenant}{number}");
        let vm = host
            .lab
            .add_vm(&name, machine.mac(), &addresses, Attach::Nothing)?;
        // The switch computes no checksums.
        vm.offload(Offload::TxChecksum, false)?;
        let port = machine.port();
        let id = match machine.is_protected() {
            true => ("iface-id", port.as_str()),
            false => ("portcullis-network", machine.tenant.name()),
        };
        host.switch.add_port(BRIDGE, vm.device(), &[id])?;
        traffic::serve(&vm, machine)?;
        self.vms.insert(machine, vm);
        Ok(())
    }

    pub(crate) fn hosts(&self) -> [&Host; 2] {
        [&self.a, &self.b]
    }

    pub(crate) fn host(&self, name: HostName) -> &Host {
        match name {
            HostName::A => &self.a,
            HostName::B => &self.b,
        }
    }

    pub(crate) fn host_mut(&mut self, name: HostName) -> &mut Host {
        match name {
            HostName::A => &mut self.a,
            HostName::B => &mut self.b,
        }
    }

    pub(crate) fn vm(&self, machine: Machine) -> &Vm {
        self.vms.get(&machine).expect("every machine is built")
    }

    /// Sees what comes out of the cable at a host, from now on.
    pub(crate) fn tap_cable(&self, at: HostName) -> Result<PacketSocket, Failure> {
        let host = self.host(at);
        let ports = host.switch.vsctl("list-ports br-phy")?;
        let device = ports.trim().to_owned();
        Ok(host.lab.host().run(|| PacketSocket::open(&device))?)
    }

    /// As editors save: a new file in the old one's place.
    pub(crate) fn save(&self, policy: &str) -> Result<(), Failure> {
        let new = self.policy.with_extension("new");
        fs::write(&new, policy)
            .and_then(|()| fs::rename(&new, &self.policy))
            .map_err(|e| Failure::System(format!("demo: writing {}: {e}", self.policy.display())))
    }

    pub(crate) fn wait_enforced(&self, policy: &str) -> Result<(), Failure> {
        let mut hosts = self.hosts().into_iter();
        hosts.try_for_each(|host| host.wait_enforced(policy))
    }

    /// Saves the policy, and waits until both hosts enforce it; how long that took.
    pub(crate) fn edit(&self, policy: &str) -> Result<Duration, Failure> {
        let saved = Instant::now();
        self.save(policy)?;
        self.wait_enforced(policy)?;
        Ok(saved.elapsed())
    }

    pub(crate) fn show(&self, report: &Report) -> Result<(), Failure> {
        let mut columns = Columns::new(&["MACHINE", "HOST", "DEVICE", "IPV4", "IPV6", ""]);
        for machine in Machine::all() {
            let note = match machine.is_protected() {
                true => "",
                false => "in red's network, in no policy",
            };
            let cells = [
                machine.to_string(),
                machine.host().name().to_owned(),
                self.vm(machine).device().to_owned(),
                machine.v4().to_string(),
                machine.v6().to_string(),
                note.to_owned(),
            ];
            columns.row(cells.map(|cell| (cell, Tone::Plain)));
        }
        report.table(&columns)
    }
}
