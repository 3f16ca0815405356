//! What is not as it was left.

use super::modes::flooded_by_gates;
use super::{Enforced, OvsPlane, failed};
use crate::place;
use crate::render::Switchboard;
use crate::secure;
use dataplane::{ApplyError, Drift};
use std::collections::BTreeSet;

impl OvsPlane {
    pub(super) fn differences(&mut self, known: &Enforced) -> Result<Vec<Drift>, ApplyError> {
        self.drop_lost_connections();
        let bridges = self
            .bridges()
            .map_err(failed("asking Open vSwitch for its bridges"))?;
        let books = self.books.clone().unwrap_or_default();
        let placement = place::place(&known.target, &bridges, &books, self.now());
        let mut drift = Vec::new();
        let changed = |what: String| Drift::Changed { what };
        let names = known.placement.boards.keys();
        let names: BTreeSet<&String> = names.chain(placement.boards.keys()).collect();
        for name in names {
            let board = known.placement.boards.get(name);
            let bridge = bridges.iter().find(|bridge| bridge.name == *name);
            let (Some(board), Some(bridge)) = (board, bridge) else {
                drift.push(changed(format!("what hangs on bridge {name}")));
                continue;
            };
            if placement.boards.get(name) != Some(board) {
                drift.push(changed(format!("what hangs on bridge {name}")));
            } else if secure::is_open(bridge, board.forwarding) && !known.open.contains(name) {
                drift.push(changed(format!("the fail_mode of bridge {name}")));
            } else if let Some(what) = self.difference(known, name, board)? {
                drift.push(changed(what));
            }
        }
        if placement.refused != known.placement.refused {
            drift.push(changed("which devices can be guarded".to_owned()));
        }
        Ok(drift)
    }

    fn difference(
        &mut self,
        known: &Enforced,
        bridge: &str,
        board: &Switchboard,
    ) -> Result<Option<String>, ApplyError> {
        let found = self.switch(bridge).and_then(|switch| {
            let guarded = flooded_by_gates(board);
            let is_flooded = !guarded.is_empty()
                && !guarded.is_subset(&openflow::no_flood_ports(switch.socket())?);
            Ok((
                switch.drift(&known.target.view, board, &known.names)?,
                is_flooded,
            ))
        });
        let found = found.map_err(failed(&format!("reading the flows of bridge {bridge}")))?;
        Ok(match found {
            (0, false) => None,
            (0, true) => Some(format!("floods reach guarded ports of bridge {bridge}")),
            (flows, _) => Some(format!("{flows} flows of bridge {bridge}")),
        })
    }
}
