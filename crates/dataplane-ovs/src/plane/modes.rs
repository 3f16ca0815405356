//! How a bridge forwards while ports of ours are on it, and afterwards.

use super::{OvsPlane, failed};
use crate::cookie::{Cookie, OURS_MASK};
use crate::place;
use crate::render::{Forwarding, Switchboard};
use crate::secure;
use dataplane::ApplyError;
use ovsdb::Bridge;
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

/// How long ovs-vswitchd may take to act on its database.
const MODE_PATIENCE: Duration = Duration::from_secs(5);

impl OvsPlane {
    /// Whether it is so now: what the switch would forget must be such that it can be told again.
    pub(super) fn make_secure(&mut self, bridge: &Bridge) -> Result<bool, ApplyError> {
        let step = format!("making bridge {} secure", bridge.name);
        let others = self.others(&bridge.name).map_err(failed(&step))?;
        if others.iter().any(secure::refers) {
            return Ok(false);
        }
        self.change_mode(bridge, &secure::secure(bridge), &others)
            .map_err(failed(&step))?;
        Ok(true)
    }

    /// Changes how a bridge forwards without controllers; what others have told it stays.
    fn change_mode(
        &mut self,
        bridge: &Bridge,
        operations: &[serde_json::Value],
        others: &[openflow::Flow],
    ) -> io::Result<()> {
        let done = self
            .database()?
            .transact_and_follow(operations, MODE_PATIENCE);
        done.map_err(|error| {
            self.database = None;
            io::Error::other(error)
        })?;
        let left = self.others(&bridge.name)?;
        let lost = others.iter().filter(|flow| !left.contains(flow));
        let lost: Vec<openflow::Change> = lost.cloned().map(openflow::Change::Add).collect();
        self.switch(&bridge.name)?.change(&lost)
    }

    fn others(&mut self, bridge: &str) -> io::Result<Vec<openflow::Flow>> {
        Ok(secure::others(self.switch(bridge)?.told_of_all()?))
    }

    /// A bridge that forwards by itself floods; ports of ours get their copies by their gates.
    pub(super) fn mind_floods(
        &mut self,
        bridge: &Bridge,
        board: &Switchboard,
        had: &Switchboard,
    ) -> io::Result<()> {
        let guarded = flooded_by_gates(board);
        let guarded_before = flooded_by_gates(had);
        if guarded.is_empty() && guarded_before.is_empty() {
            return Ok(());
        }
        let known = openflow::no_flood_ports(self.switch(&bridge.name)?.socket())?;
        let missing = guarded.difference(&known).copied().collect();
        let freed = guarded_before.difference(&guarded);
        let freed = freed.filter(|port| known.contains(port)).copied().collect();
        self.set_no_flood(&bridge.name, &freed, false)?;
        if self.set_no_flood(&bridge.name, &missing, true)? {
            // What it has learned so far would lead past a gate.
            let flushed = self.control()?.call("fdb/flush", &[&bridge.name]);
            flushed.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Whether there was something to do.
    fn set_no_flood(&mut self, bridge: &str, ports: &BTreeSet<u16>, on: bool) -> io::Result<bool> {
        if ports.is_empty() {
            return Ok(false);
        }
        let switch = self.switch(bridge)?;
        let known = switch.ports()?.into_iter();
        let known = known.filter_map(|port| Some((u16::try_from(port.number).ok()?, port.mac)));
        let there: Vec<_> = known.filter(|(number, _)| ports.contains(number)).collect();
        openflow::set_no_flood(switch.socket(), &there, on)?;
        Ok(true)
    }

    /// All of ours goes, all else is as it was before us.
    pub(super) fn detach_bridge(&mut self, bridge: &Bridge) -> io::Result<()> {
        let switch = self.switch(&bridge.name)?;
        let told = switch.told_of_all()?;
        let guarded = told
            .iter()
            .filter_map(|told| secure::guarded_port(&told.flow));
        let guarded: BTreeSet<u16> = guarded.collect();
        let no_flood = match place::forwarding(bridge) {
            Forwarding::Normal if !guarded.is_empty() => openflow::no_flood_ports(switch.socket())?,
            Forwarding::Normal | Forwarding::Whole => BTreeSet::new(),
        };
        let freed = guarded.intersection(&no_flood).copied().collect();
        let others = secure::others(told);
        match secure::is_secured(bridge) {
            true => self.change_mode(bridge, &secure::release(bridge), &others)?,
            false => self.transact(secure::release(bridge))?,
        }
        self.switch(&bridge.name)?
            .change(&[openflow::Change::DeleteAll {
                cookie: Cookie::OURS,
                mask: OURS_MASK,
                table: None,
            }])?;
        self.set_no_flood(&bridge.name, &freed, false).map(drop)
    }
}

/// The ports of a bridge that forwards by itself whose floods come by their gates.
pub(super) fn flooded_by_gates(board: &Switchboard) -> BTreeSet<u16> {
    let guarded = board.ports.values().filter(|port| port.view.port_security);
    match board.forwarding {
        Forwarding::Normal => guarded.map(|port| port.of_port).collect(),
        Forwarding::Whole => BTreeSet::new(),
    }
}

pub(super) fn stays_open(bridge: &str) -> String {
    format!(
        "bridge {bridge} stays as it is: to make it secure would lose groups or meters that others' flows refer \
         to; if ovs-vswitchd restarts, its ports are open until the flows are back"
    )
}
