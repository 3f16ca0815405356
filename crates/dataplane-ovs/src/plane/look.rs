//! What can be said of what is in force by a process that didn't put it there.
//!
//! Numbers come of names, and the switch's database has the rest: so the policy leads to the same flows again,
//! and who has compared them knows what each is for.

use super::{Enforced, OvsConfig, OvsPlane, failed, strict};
use crate::books::Books;
use crate::cookie::Cookie;
use crate::flow_set::FlowSet;
use crate::names::Names;
use crate::place;
use crate::plan::Plan;
use crate::tables::Table;
use dataplane::{ApplyError, Device, DevicesInForce, Target};
use model::PortId;
use openflow::{Field, Flow};
use ovsdb::Bridge;
use policy::HostView;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::UNIX_EPOCH;

/// What a flow of the first table says of the device that it is about.
pub(super) enum Said {
    OfPort(u16),
    Closed,
}

impl OvsPlane {
    /// To look at what is in force, while another process may go on changing it.
    pub fn open_existing(config: OvsConfig) -> io::Result<Self> {
        let mut plane = Self::open(config)?;
        plane.only_looks = true;
        match plane.is_there()? {
            true => Ok(plane),
            false => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "nothing is enforced here: no bridge of Open vSwitch has flows of ours",
            )),
        }
    }

    /// Whether anything of ours is on any bridge, be it the rest of a start that failed.
    pub fn is_there(&mut self) -> io::Result<bool> {
        for bridge in self.bridges()? {
            if Books::are_on(&bridge) || !self.switch(&bridge.name)?.told()?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The devices of ports, and the closed ones, as the switch has them.
    pub fn find_devices(&mut self) -> io::Result<DevicesInForce> {
        let bridges = self.bridges()?;
        self.devices_on(&bridges)
    }

    /// Says which policy was in force when flows were last written, so that they have names. `false`: it is
    /// another one, or somebody has changed something; to an agent that goes on then nothing is known, and to
    /// who only looks it is drift.
    pub fn recognize(&mut self, view: &HostView) -> io::Result<bool> {
        let bridges = self.bridges()?;
        let found = self.devices_on(&bridges)?;
        let target = strict(&Target {
            view: view.clone(),
            devices: found.of_ports,
            closed: found.closed,
            ..Target::default()
        });
        let books = Books::read(&bridges);
        let known = Enforced {
            names: Names::of(&target.view),
            // A hold that is over is written down until the flows know.
            placement: place::place(&target, &bridges, &books, UNIX_EPOCH),
            open: BTreeSet::new(),
            target,
        };
        let plans = self.plans(&known, &bridges)?;
        let recognized = plans.values().all(Plan::is_empty);
        if recognized || self.only_looks {
            self.books = Some(books);
            self.in_force = Some(known);
        }
        Ok(recognized)
    }

    /// Reads all flows back; each that is not as it should be.
    pub fn verify(&mut self) -> Result<Vec<String>, ApplyError> {
        let Some(known) = self.in_force.take() else {
            return Ok(Vec::new());
        };
        let plans = self
            .bridges()
            .and_then(|bridges| self.plans(&known, &bridges));
        self.in_force = Some(known);
        let plans = plans.map_err(failed("comparing flows"));
        let plans = plans.inspect_err(|_| self.disconnect())?;
        let differences = plans.iter().flat_map(|(bridge, plan)| {
            plan.changes()
                .map(move |change| format!("bridge {bridge} would need: {change}"))
        });
        Ok(differences.collect())
    }

    /// What would have to be done, by bridge.
    fn plans(
        &mut self,
        known: &Enforced,
        bridges: &[Bridge],
    ) -> io::Result<BTreeMap<String, Plan>> {
        let mut plans = BTreeMap::new();
        for bridge in bridges {
            let switch = self.switch(&bridge.name)?;
            let wanted = match known.placement.boards.get(&bridge.name) {
                Some(board) => switch.render(&known.target.view, board, &known.names),
                None => FlowSet::default(),
            };
            switch.forget();
            plans.insert(bridge.name.clone(), switch.plan(&wanted)?);
        }
        Ok(plans)
    }

    pub(super) fn devices_on(&mut self, bridges: &[Bridge]) -> io::Result<DevicesInForce> {
        let books = Books::read(bridges);
        let by_number: BTreeMap<u16, &PortId> =
            books.zones.iter().map(|(id, zone)| (*zone, id)).collect();
        let mut found = DevicesInForce::default();
        for bridge in bridges {
            let devices = devices(bridge);
            for flow in self.switch(&bridge.name)?.read()?.iter() {
                let Some((of_port, said)) = said(flow) else {
                    continue;
                };
                let Some(device) = devices.get(&of_port).cloned() else {
                    continue;
                };
                match said {
                    Said::Closed => {
                        found.closed.insert(device);
                    }
                    Said::OfPort(number) => {
                        if let Some(id) = by_number.get(&number) {
                            found.of_ports.insert((*id).clone(), device);
                        }
                    }
                }
            }
        }
        Ok(found)
    }
}

fn devices(bridge: &Bridge) -> BTreeMap<u16, Device> {
    let interfaces = bridge.ports.iter().flat_map(|port| &port.interfaces);
    let devices = interfaces.filter_map(|interface| {
        let device = Device {
            name: interface.name.clone(),
            ifindex: interface.ifindex.unwrap_or(0),
        };
        Some((u16::try_from(interface.ofport?).ok()?, device))
    });
    devices.collect()
}

/// `None`: it is about no device.
pub(super) fn said(flow: &Flow) -> Option<(u16, Said)> {
    if flow.table != Table::Classify.number() {
        return None;
    }
    let of_port = flow.matching.get(Field::InPort)?.value.u128()?;
    let said = match Cookie::from_number(flow.cookie)? {
        Cookie::Port(number) => Said::OfPort(number),
        Cookie::Shared if flow.goto == Some(Table::Drop.number()) => Said::Closed,
        // From outside, into a network.
        Cookie::Shared | Cookie::Rule(_) | Cookie::Count | Cookie::Learned => return None,
    };
    Some((u16::try_from(of_port).ok()?, said))
}
