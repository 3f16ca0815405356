//! What the tracker knows of ports.

use super::{Enforced, OvsPlane, datapath_type};
use crate::books::Books;
use crate::records;
use dataplane::{Counters, FlowRecord};
use model::{FlowState, PortId};
use ovsdb::conntrack::{self, Connection};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

impl OvsPlane {
    /// The flows that ports have, or one port has.
    pub fn flows(&mut self, of: Option<&PortId>) -> io::Result<Vec<FlowRecord>> {
        let Some(known) = self.in_force.take() else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the policy in force is not known, and without it not whose end of a connection is whose",
            ));
        };
        let records = self.records(&known, of);
        self.in_force = Some(known);
        records
    }

    pub(super) fn count_flows(&mut self, known: &Enforced, into: &mut Counters) -> io::Result<()> {
        for record in self.records(known, None)? {
            let port = into.ports.entry(record.port).or_default();
            match record.state {
                FlowState::Opening => port.half_open += 1,
                FlowState::Established | FlowState::Closing | FlowState::Reset => port.flows += 1,
            }
        }
        Ok(())
    }

    fn records(&mut self, known: &Enforced, of: Option<&PortId>) -> io::Result<Vec<FlowRecord>> {
        let boards = known.placement.boards.values();
        let ports = boards.flat_map(|board| &board.ports);
        let ports = ports.filter(|(id, _)| of.is_none_or(|of| of == *id));
        let by_zone: BTreeMap<u16, &PortId> = ports.map(|(id, port)| (port.number, id)).collect();
        let zone = match (of, by_zone.keys().next()) {
            (_, None) => return Ok(Vec::new()),
            (Some(_), Some(zone)) => Some(*zone),
            (None, Some(_)) => None,
        };
        let connections = self.connections(zone)?;
        let records = connections.iter().filter_map(|connection| {
            let port = by_zone.get(&connection.zone)?;
            records::record(&known.target.view, port, connection)
        });
        Ok(records.collect())
    }

    /// Of all datapaths on which there is something of ours.
    pub(super) fn connections(&mut self, zone: Option<u16>) -> io::Result<Vec<Connection>> {
        let bridges = self.bridges()?;
        let datapaths: BTreeSet<&str> = bridges
            .iter()
            .filter(|b| Books::are_on(b))
            .map(datapath_type)
            .collect();
        let mut all = Vec::new();
        for datapath in datapaths {
            let name = format!("{datapath}@ovs-{datapath}");
            let control = self.control()?;
            match conntrack::connections(control, Some(&name), zone) {
                Ok(connections) => all.extend(connections),
                Err(error) => {
                    self.control = None;
                    return Err(io::Error::other(error));
                }
            }
        }
        Ok(all)
    }
}
