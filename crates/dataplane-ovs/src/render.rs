//! What a bridge has to hold: a view and who hangs on the bridge, as flows.
//!
//! Place on the line: view -> **render** -> plan -> execute. Pure.
//! ```text
//! classify.rs   what comes in: of whom, and for whom
//! frame.rs      the guard's first step, for both gates
//! inlets.rs     the same of ports that have VLANs of their own
//! from_port.rs  the guard of what a port sends
//! to_port.rs    the guard of what a port receives
//! own.rs        whose addresses are whose, for both
//! track.rs      what is tracked, and what passes: both gates alike
//! rules.rs      the rules, and how groups are walked through
//! identity.rs   who asks of which groups an address is, and members.rs, who is in which
//! forward.rs    from one gate to the other
//! tunnel.rs     from one host to the other, and ahead.rs, what is asked before that
//! ```
//! Knows nothing of: what the switch holds now, sockets.

mod ahead;
mod classify;
mod forward;
mod frame;
mod from_port;
mod identity;
pub(crate) mod inlets;
mod members;
mod own;
pub(crate) mod rules;
mod to_port;
mod track;
pub(crate) mod tunnel;

use crate::draft::Draft;
use crate::flow_set::FlowSet;
use crate::names::Names;
use crate::registers;
use crate::tables::Table;
use inlets::Inlet;
use members::Members;
use model::{Direction, Inspection, NetworkId, PortId, Prefix, ScopeId};
use openflow::Flow;
use policy::{HostView, NetworkView, OverlayView, PortView};
use rules::Rules;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What hangs on a bridge, and how it forwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switchboard {
    pub(crate) forwarding: Forwarding,
    pub(crate) ports: BTreeMap<PortId, Attached>,
    /// They pass nothing.
    pub(crate) closed: BTreeSet<u16>,
    /// Other ports of the bridge that are in a network, for a bridge that we drive whole.
    pub(crate) outside: BTreeMap<NetworkId, BTreeSet<u16>>,
    /// To other hosts, from a bridge that we drive whole.
    pub(crate) tunnel: Option<tunnel::TunnelPort>,
    /// Whose membership has ended where a flow may still know it: these are told by their address.
    pub(crate) lost: BTreeSet<(ScopeId, Prefix)>,
    /// The same, for a bridge that forwards by itself: those that aren't [`Inlet::PLAIN`].
    pub(crate) inlets: BTreeMap<u16, Inlet>,
    /// What nobody has a word about goes as the bridge forwards, by a flow of ours.
    pub(crate) floor: bool,
}

/// Who decides where a frame goes that no port of ours gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// The bridge, as a learning switch does.
    #[default]
    Normal,
    /// We do.
    Whole,
}

/// A port of the view on the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) view: Arc<PortView>,
    pub(crate) of_port: u16,
    /// Its number, and its zone.
    pub(crate) number: u16,
    /// The VLAN that the bridge has it in.
    pub(crate) vlan: Option<u16>,
    /// TCP flows start by SYN only.
    pub(crate) held: bool,
}

/// Everything that the renderers look at.
pub(crate) struct Scene<'a> {
    pub(crate) view: &'a HostView,
    pub(crate) board: &'a Switchboard,
    pub(crate) names: &'a Names,
    members: Arc<Members>,
    flows: Vec<Flow>,
}

/// Of the last rendering of a bridge, what may be the same in the next one: the tables that grow with policy.
#[derive(Debug, Default)]
pub(crate) struct Known {
    members: Option<Arc<Members>>,
    rules: Option<Rules>,
}

pub(crate) fn render(
    view: &HostView,
    board: &Switchboard,
    names: &Names,
    known: &mut Known,
) -> FlowSet {
    let mut scene = Scene {
        view,
        board,
        names,
        members: Members::of(view, board, names, known.members.take()),
        flows: Vec::new(),
    };
    classify::render(&mut scene);
    frame::render(&mut scene);
    from_port::render(&mut scene);
    to_port::render(&mut scene);
    own::render(&mut scene);
    track::render(&mut scene);
    rules::render(&mut scene);
    identity::render(&mut scene);
    forward::render(&mut scene);
    tunnel::render(&mut scene);
    ahead::render(&mut scene);
    scene.flows.push(nudge());
    let rules = Rules::of(&scene, known.rules.take());
    let mut flows = FlowSet::of(scene.flows);
    flows.put(Table::Identity.number(), Arc::clone(&scene.members.table));
    flows.put(Table::Rules.number(), Arc::clone(&rules.table));
    *known = Known {
        members: Some(scene.members),
        rules: Some(rules),
    };
    flows
}

/// A flow that no packet meets. To write it again makes the switch look through its decisions.
pub(crate) fn nudge() -> Flow {
    let nowhere = Draft::new(Table::Drop, 1).on(registers::REASON, u32::from(u8::MAX));
    nowhere.flow()
}

impl<'a> Scene<'a> {
    /// Of two that ask the same the first stays.
    pub(crate) fn add(&mut self, draft: Draft) {
        self.flows.push(draft.flow());
    }

    /// Ports whose packets are judged.
    pub(crate) fn guarded(&self) -> impl Iterator<Item = (&'a PortId, &'a Attached)> + use<'a> {
        let ports = self.board.ports.iter();
        ports.filter(|(_, port)| port.view.port_security)
    }

    /// The networks of the bridge's ports.
    pub(crate) fn networks(&self) -> BTreeMap<&'a NetworkId, &'a NetworkView> {
        let ports = self.board.ports.values().map(|port| &port.view.network);
        let networks = ports.filter_map(|id| self.view.networks.get_key_value(id));
        networks.collect()
    }

    pub(crate) fn scope(&self, port: &Attached) -> &'a ScopeId {
        let network = self.view.networks.get(&port.view.network);
        &network.expect("a view has the networks of its ports").scope
    }

    pub(crate) fn overlay(&self) -> Option<&'a OverlayView> {
        self.view.overlay.as_deref()
    }

    /// Tags alone say who in this scope is in which group.
    pub(crate) fn is_tagged(&self, scope: &ScopeId) -> bool {
        let overlay = self.overlay().filter(|_| self.board.tunnel.is_some());
        overlay.is_some_and(|overlay| overlay.is_tagged(self.view, scope))
    }

    /// The rules of receivers on other hosts are asked here.
    pub(crate) fn inspects_ahead(&self) -> bool {
        let overlay = self.overlay().filter(|_| self.board.tunnel.is_some());
        overlay.is_some_and(|overlay| overlay.inspection != Inspection::Destination)
    }

    pub(crate) fn network_number(&self, network: &NetworkId) -> u16 {
        self.names.networks[network] as u16
    }

    /// What a frame must have in common with a port to reach it.
    pub(crate) fn segment(&self, port: &Attached) -> Segment {
        match self.board.forwarding {
            Forwarding::Normal => Segment::of_vlan(port.vlan.unwrap_or(0)),
            Forwarding::Whole => Segment(self.names.networks[&port.view.network]),
        }
    }
}

/// By its number in the metadata. On a bridge that forwards by itself: a VLAN, with bit 12 set, or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Segment(pub(crate) u32);

impl Segment {
    /// 0: untagged.
    fn of_vlan(vlan: u16) -> Self {
        Self(if vlan == 0 {
            0
        } else {
            0x1000 | u32::from(vlan)
        })
    }

    fn vlan(self) -> u16 {
        (self.0 & 0xfff) as u16
    }
}

/// At which gate, seen from the port.
pub(crate) fn is_ingress(direction: Direction) -> bool {
    direction == Direction::Ingress
}

#[cfg(test)]
mod tests;
