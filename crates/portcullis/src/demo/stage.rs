//! The host and its machines, all listening, and the enforcement on them.
//!
//! Knows nothing of: who may reach whom.

use super::cast::Role;
use super::enforcement::Enforcement;
use super::machines::Machines;
use super::report::Report;
use crate::failure::Failure;
use crate::output::{Columns, Tone};
use conformance::lab::{Attach, Lab};

const BRIDGE: &str = "br0";

pub(crate) struct Stage {
    /// Before the lab: enforcement is removed while the devices are there.
    pub(crate) enforcement: Enforcement,
    pub(crate) lab: Lab,
    pub(crate) machines: Machines,
}

impl Stage {
    /// Machines on a bridge that can reach each other at will: nothing is enforced yet.
    pub(crate) fn build(mut lab: Lab, enforcement: Enforcement) -> Result<Self, Failure> {
        lab.add_bridge(BRIDGE)?;
        let mut machines = Machines::default();
        for role in Role::ALL {
            machines.add(role, &mut lab, Attach::Bridge(BRIDGE))?;
        }
        Ok(Self {
            enforcement,
            lab,
            machines,
        })
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
                self.machines.vm(role).device().to_owned(),
                role.v4().to_string(),
                role.v6().to_string(),
                note.to_owned(),
            ];
            columns.row(cells.map(|cell| (cell, Tone::Plain)));
        }
        report.table(&columns)
    }
}
