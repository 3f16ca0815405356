//! The two hosts with their cables, the server on one of them, and the machines on both.
//!
//! Knows nothing of: who may reach whom.

use super::super::cast::Role;
use super::super::machines::Machines;
use super::super::report::Report;
use super::host::{BRIDGE, Host, HostName};
use super::remains::Remains;
use super::server::Server;
use crate::failure::Failure;
use crate::output::{Columns, Tone};
use conformance::lab::Attach;

pub(crate) struct Stage {
    /// Before the hosts: enforcement is removed while the devices are there.
    _clearing: Clearing,
    pub(crate) server: Server,
    pub(crate) machines: Machines,
    a: Host,
    b: Host,
}

/// However the demo ends.
struct Clearing(Remains);

pub(crate) fn host_of(role: Role) -> HostName {
    match role {
        Role::Web1 | Role::App1 | Role::Db1 => HostName::A,
        Role::Web2 | Role::Admin | Role::Outsider => HostName::B,
    }
}

impl Stage {
    /// Machines that can reach each other at will: nothing is enforced yet.
    pub(crate) fn build(remains: &Remains) -> Result<Self, Failure> {
        let clearing = Clearing(remains.clone());
        let [a, b] = HostName::ALL.map(|name| Host::new(name, remains));
        let (a, b) = (a?, b?);
        connect(&a, &b)?;
        let mut stage = Self {
            _clearing: clearing,
            server: Server::new(a.lab.host(), remains)?,
            machines: Machines::default(),
            a,
            b,
        };
        for role in Role::ALL {
            let host = match host_of(role) {
                HostName::A => &mut stage.a,
                HostName::B => &mut stage.b,
            };
            stage
                .machines
                .add(role, &mut host.lab, Attach::Bridge(BRIDGE))?;
        }
        Ok(stage)
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

    pub(crate) fn show(&self, report: &Report) -> Result<(), Failure> {
        let mut columns = Columns::new(&["MACHINE", "HOST", "DEVICE", "IPV4", "IPV6", "GROUPS"]);
        for role in Role::ALL {
            let groups = match role.is_protected() {
                true => super::policy::groups_of(role).join(", "),
                false => "in no policy".to_owned(),
            };
            let cells = [
                role.name().to_owned(),
                host_of(role).name().to_owned(),
                self.machines.vm(role).device().to_owned(),
                role.v4().to_string(),
                role.v6().to_string(),
                groups,
            ];
            columns.row(cells.map(|cell| (cell, Tone::Plain)));
        }
        report.table(&columns)?;
        report.line("")
    }
}

/// On one segment; and by a network that no machine is in, for agents to reach the server.
fn connect(a: &Host, b: &Host) -> Result<(), Failure> {
    let there = b.lab.host().path();
    a.lab.host().ip(&format!(
        "link add uplink type veth peer name uplink netns {there}\n\
         link add mgmt type veth peer name mgmt netns {there}"
    ))?;
    for host in [a, b] {
        host.lab.host().ip(&format!(
            "link set uplink master {BRIDGE} up\n\
             addr add {}/24 dev mgmt\n\
             link set mgmt up",
            host.name.address()
        ))?;
    }
    for host in [a, b] {
        for device in ["uplink", "mgmt"] {
            host.lab.host().settle(device)?;
        }
    }
    Ok(())
}

impl Drop for Clearing {
    fn drop(&mut self) {
        self.0.clear_or_tell();
    }
}
