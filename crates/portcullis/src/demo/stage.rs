//! The host and its machines, all listening, and the enforcement on them.
//!
//! Knows nothing of: who may reach whom.

use super::cast::{Role, Service};
use super::enforcement::Enforcement;
use super::report::Report;
use crate::failure::Failure;
use crate::output::{Columns, Tone};
use conformance::lab::{Attach, Lab, Vm};
use model::Family;
use std::collections::BTreeMap;
use std::net::TcpListener;

const BRIDGE: &str = "br0";

pub(crate) struct Stage {
    /// Before the lab: enforcement is removed while the devices are there.
    pub(crate) enforcement: Enforcement,
    pub(crate) lab: Lab,
    vms: BTreeMap<Role, Vm>,
    listeners: BTreeMap<(Role, Service), TcpListener>,
}

impl Stage {
    /// Machines on a bridge that can reach each other at will: nothing is enforced yet.
    pub(crate) fn build(mut lab: Lab, enforcement: Enforcement) -> Result<Self, Failure> {
        lab.add_bridge(BRIDGE)?;
        let mut vms = BTreeMap::new();
        let mut listeners = BTreeMap::new();
        for role in Role::ALL {
            let addresses = [
                (role.address(Family::V4), 24),
                (role.address(Family::V6), 64),
            ];
            let vm = lab.add_vm(role.name(), role.mac(), &addresses, Attach::Bridge(BRIDGE))?;
            for service in Service::ALL {
                if let Some(port) = service.l4_port() {
                    listeners.insert((role, service), vm.tcp_listen(port)?);
                }
            }
            vms.insert(role, vm);
        }
        Ok(Self {
            enforcement,
            lab,
            vms,
            listeners,
        })
    }

    pub(crate) fn vm(&self, role: Role) -> &Vm {
        self.vms.get(&role).expect("every role has its machine")
    }

    pub(crate) fn listener(&self, role: Role, service: Service) -> &TcpListener {
        let listener = self.listeners.get(&(role, service));
        listener.expect("every machine listens for every service that has a port")
    }

    pub(crate) fn show(&self, report: &Report) -> Result<(), Failure> {
        let mut columns = Columns::new(&["MACHINE", "DEVICE", "IPV4", "IPV6", ""]);
        for role in Role::ALL {
            let note = match role.is_protected() {
                true => "",
                false => "in no policy",
            };
            let cells = [
                role.name().to_owned(),
                self.vm(role).device().to_owned(),
                role.v4().to_string(),
                role.v6().to_string(),
                note.to_owned(),
            ];
            columns.row(cells.map(|cell| (cell, Tone::Plain)));
        }
        report.table(&columns)
    }
}
