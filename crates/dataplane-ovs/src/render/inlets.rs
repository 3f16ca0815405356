//! Table 0 on a bridge that forwards by itself: ports of others that put frames into another VLAN than the tag that
//! these have. What comes in there is for our ports as the bridge would forward it, and not as its tag says.
//!
//! Source: ovs-vswitchd.conf.db(5), `vlan_mode`.

use super::classify::{BETWEEN, FOR_OURS, GROUP_BIT, mac_value};
use super::{Scene, Segment};
use crate::draft::Draft;
use crate::registers::{FLAGS, SEGMENT};
use crate::tables::Table;
use model::MacAddr;
use openflow::{Action, Field, Port};
use std::collections::{BTreeMap, BTreeSet};

/// Which VLAN a port of the bridge puts a frame into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inlet {
    /// Of untagged frames; 0 is none.
    pub(crate) untagged: u16,
    /// VLANs that come in tagged.
    pub(crate) tagged: Tagged,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tagged {
    None,
    All,
    These(BTreeSet<u16>),
}

impl Inlet {
    /// As the tag says.
    pub(crate) const PLAIN: Inlet = Inlet {
        untagged: 0,
        tagged: Tagged::All,
    };

    /// Where a frame with this tag (0: none) gets; `None`: nowhere.
    fn vlan(&self, tag: u16) -> Option<u16> {
        let is_in = match (&self.tagged, tag) {
            (_, 0) => return Some(self.untagged),
            (Tagged::None, _) => false,
            (Tagged::All, _) => true,
            (Tagged::These(vlans), _) => vlans.contains(&tag),
        };
        is_in.then_some(tag)
    }
}

pub(super) fn render(scene: &mut Scene<'_>, segments: &BTreeMap<Segment, BTreeSet<MacAddr>>) {
    let none = BTreeSet::new();
    let of_vlan = |vlan| segments.get(&Segment::of_vlan(vlan)).unwrap_or(&none);
    let tags: BTreeSet<u16> = segments.keys().map(|s| s.vlan()).chain([0]).collect();
    for (of_port, inlet) in &scene.board.inlets {
        for tag in &tags {
            let vlan = inlet.vlan(*tag);
            if vlan == Some(*tag) {
                continue;
            }
            let into = vlan.map(|vlan| (Segment::of_vlan(vlan), of_vlan(vlan)));
            let passed = into.map_or(&none, |(_, macs)| macs);
            let begin = |priority| {
                let draft = Draft::new(Table::Classify, priority).on(Field::InPort, *of_port);
                draft.on_masked(Field::VlanTci, Segment::of_vlan(*tag).0.into(), 0x1fff)
            };
            if let Some((segment, macs)) = into {
                for mac in macs {
                    let draft = begin(FOR_OURS + 10).on(Field::EthDst, mac_value(*mac));
                    let draft = draft.set(SEGMENT, segment.0).set(FLAGS, 0u32);
                    scene.add(draft.goto(Table::Destination));
                }
            }
            for mac in of_vlan(*tag).difference(passed) {
                let draft = begin(FOR_OURS + 10).on(Field::EthDst, mac_value(*mac));
                scene.add(draft.act(Action::Output(Port::Normal)));
            }
            let many = begin(BETWEEN + 10).on_masked(Field::EthDst, GROUP_BIT, GROUP_BIT);
            let many = match into {
                Some((segment, _)) => super::classify::to_receivers(scene, many, segment, false),
                None => many,
            };
            scene.add(many.act(Action::Output(Port::Normal)));
        }
    }
}

/// A tag of VLAN 0 is none for the bridge. The gate drops what has one.
pub(super) fn priority_tagged(
    scene: &mut Scene<'_>,
    segments: &BTreeMap<Segment, BTreeSet<MacAddr>>,
) {
    let begin =
        |priority| Draft::new(Table::Classify, priority).on_masked(Field::VlanTci, 0x1000, 0x1fff);
    let plain = segments.get(&Segment(0)).into_iter().flatten();
    for mac in plain {
        let draft = begin(FOR_OURS).on(Field::EthDst, mac_value(*mac));
        let draft = draft.set(SEGMENT, 0u32).set(FLAGS, 0u32);
        scene.add(draft.goto(Table::Destination));
    }
    for (of_port, inlet) in &scene.board.inlets {
        let segment = Segment::of_vlan(inlet.untagged);
        for mac in segments.get(&segment).into_iter().flatten() {
            let draft = begin(FOR_OURS + 10).on(Field::InPort, *of_port);
            let draft = draft.on(Field::EthDst, mac_value(*mac));
            let draft = draft.set(SEGMENT, segment.0).set(FLAGS, 0u32);
            scene.add(draft.goto(Table::Destination));
        }
    }
}
