//! Flows of ports that are being migrated, live: out before the old host forgets them, and in once the port's policy is
//! in force at the new one.
//!
//! Place on the line: target -> the plane; and between two hosts.
//!
//! ```text
//! a port here, on its way to another host; its device goes, or the port --> ExportFlows, then Apply
//! FlowsArrived --> waiting --(the port's policy is in force)--> ImportFlows
//!                     +--(a minute, or the port isn't this host's any more)--> dropped, and said
//! ```
//! Knows nothing of: what flows are, how they get from host to host.

use super::{Agent, Content, Effect};
use crate::report::Report;
use dataplane::{Device, PortFlows};
use model::{HostId, Inventory, InventoryChange, Port, PortId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Default)]
pub(super) struct Moves {
    /// Own ports that are on their way to other hosts, or have just got there.
    leaving: BTreeSet<PortId>,
    waiting: Vec<Arrival>,
}

struct Arrival {
    port: PortId,
    flows: PortFlows,
    since: Duration,
}

/// What an earlier host says is worth nothing later than this.
const WORTH: Duration = Duration::from_secs(60);
/// Of several ports; a server sends parts of bounded size.
const MOST_WAITING: usize = 1_024;

impl Moves {
    pub(super) fn replaced(&mut self, inventory: &Inventory, host: &HostId) {
        for port in inventory.ports.values() {
            self.look_at(port, host);
        }
    }

    pub(super) fn changed(&mut self, change: &InventoryChange, host: &HostId) {
        for port in change.ports.values().flatten() {
            self.look_at(port, host);
        }
    }

    /// One that is here no more goes on to be one that leaves, until that is applied.
    fn look_at(&mut self, port: &Port, host: &HostId) {
        if port.host.as_ref() != Some(host) {
            return;
        }
        match &port.moving {
            Some(moving) if moving.to != *host => self.leaving.insert(port.id.clone()),
            Some(_) | None => self.leaving.remove(&port.id),
        };
    }
}

impl Agent {
    pub(super) fn flows_arrived(
        &mut self,
        now: Duration,
        port: PortId,
        flows: PortFlows,
        effects: &mut Vec<Effect>,
    ) {
        if self.moves.waiting.len() == MOST_WAITING {
            return effects.push(Effect::Report(Report::FlowsDropped(port)));
        }
        let since = now;
        self.moves.waiting.push(Arrival { port, flows, since });
    }

    /// Before what makes the plane forget them.
    pub(super) fn export_flows(
        &mut self,
        devices: &BTreeMap<PortId, Device>,
        effects: &mut Vec<Effect>,
    ) {
        let had = |port: &&PortId| {
            let enforced = self.enforced.as_ref();
            enforced.is_some_and(|enforced| enforced.target.devices.contains_key(*port))
        };
        let going = self.moves.leaving.iter().filter(had);
        let going = going.filter(|port| !devices.contains_key(*port)).cloned();
        effects.extend(going.map(Effect::ExportFlows));
        let known = self.compiled.as_ref().map(|compiled| &compiled.view.ports);
        self.moves
            .leaving
            .retain(|port| known.is_some_and(|ports| ports.contains_key(port)));
    }

    /// Those whose port is under its policy now.
    pub(super) fn import_flows(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for arrival in std::mem::take(&mut self.moves.waiting) {
            let Arrival { port, flows, since } = arrival;
            let waited = now.saturating_sub(since);
            if waited > WORTH || !self.may_have(&port) {
                effects.push(Effect::Report(Report::FlowsDropped(port)));
            } else if self.is_in_force(&port) {
                let flows = flows.aged(waited);
                effects.push(Effect::ImportFlows { port, flows });
            } else {
                self.moves.waiting.push(Arrival { port, flows, since });
            }
        }
    }

    fn may_have(&self, port: &PortId) -> bool {
        match self.policy.as_ref().map(|policy| &policy.content) {
            Some(Content::Served(compiler)) => {
                let port = compiler.inventory().ports.get(port);
                port.is_some_and(|port| port.is_on(&self.config.host))
            }
            // It may come with the next part.
            Some(Content::Text(_)) | None => true,
        }
    }

    fn is_in_force(&self, port: &PortId) -> bool {
        let enforced = self.enforced.as_ref().filter(|_| self.applying.is_none());
        enforced.is_some_and(|enforced| {
            enforced.target.view.ports.contains_key(port) && !enforced.refused.contains_key(port)
        })
    }
}
