//! Very many connections of one VM: how many of them the kernel keeps state of.

use super::bed::{Bed, Filter};
use super::policies::{Policy, Server};
use super::viewer::{self, Viewer};
use crate::plane::PlaneArgs;
use anyhow::ensure;
use serde_json::{Value, json};

const FLOWS: u32 = 100_000;

const CASES: [(&str, Filter); 5] = [
    (
        "from a VM of this host, tracked",
        Filter::Ours(Policy::Tracked),
    ),
    (
        "from a VM of this host, all in, all out",
        Filter::Ours(Policy::Open),
    ),
    (
        "from outside, tracked",
        Filter::Ours(Policy::Outside(Server::Tracked)),
    ),
    (
        "from outside, all in, all out",
        Filter::Ours(Policy::Outside(Server::Open)),
    ),
    ("iptables, conntrack, 10 rules", Filter::ByHand(10)),
];

pub(super) fn measure(plane: PlaneArgs, viewer: &Viewer) -> anyhow::Result<Value> {
    let mut table = viewer::table(["", "arrived", "flow entries"]);
    let mut report = Vec::new();
    for (name, filter) in CASES {
        viewer.step(format_args!("flood: {name}"))?;
        let flood = Bed::build(plane, "flood", filter)?.open_flows(FLOWS)?;
        ensure!(
            flood.arrived > u64::from(FLOWS) * 99 / 100,
            "{name}: {} of {FLOWS} packets arrive, so that is not what would be measured",
            flood.arrived
        );
        table.add_row([
            name.to_owned(),
            flood.arrived.to_string(),
            flood.entries.to_string(),
        ]);
        report.push(json!({
            "flows": name,
            "arrived": flood.arrived,
            "flow_entries": flood.entries,
        }));
    }
    viewer.show(&format!("{FLOWS} UDP flows to one VM"), &table);
    Ok(json!({ "experiment": "flood", "flows": FLOWS, "lines": report }))
}
