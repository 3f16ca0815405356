//! The machines of the cast, all listening, on whichever hosts they are.
//!
//! Knows nothing of: who may reach whom.

use super::cast::{Role, Service};
use conformance::lab::{Attach, Lab, LabError, Vm};
use model::Family;
use std::collections::BTreeMap;
use std::net::TcpListener;

#[derive(Default)]
pub(crate) struct Machines {
    vms: BTreeMap<Role, Vm>,
    listeners: BTreeMap<(Role, Service), TcpListener>,
}

impl Machines {
    pub(crate) fn add(
        &mut self,
        role: Role,
        lab: &mut Lab,
        attach: Attach<'_>,
    ) -> Result<(), LabError> {
        let addresses = [
            (role.address(Family::V4), 24),
            (role.address(Family::V6), 64),
        ];
        let vm = lab.add_vm(role.name(), role.mac(), &addresses, attach)?;
        for service in Service::ALL {
            if let Some(port) = service.l4_port() {
                self.listeners.insert((role, service), vm.tcp_listen(port)?);
            }
        }
        self.vms.insert(role, vm);
        Ok(())
    }

    pub(crate) fn vm(&self, role: Role) -> &Vm {
        self.vms.get(&role).expect("every role has its machine")
    }

    pub(crate) fn listener(&self, role: Role, service: Service) -> &TcpListener {
        let listener = self.listeners.get(&(role, service));
        listener.expect("every machine listens for every service that has a port")
    }
}
