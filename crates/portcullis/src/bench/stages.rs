//! What one verdict costs, by where it ends: the loaded program run again and again on one packet, with
//! nothing of the way to it.

use super::bed::{Bed, Filter, unasked};
use super::policies::{ADDRESS_A, ADDRESS_B, L4_PORT, MAC_A, MAC_B, Policy, source};
use super::viewer::{self, Viewer};
use crate::plane::PlaneArgs;
use anyhow::bail;
use model::Direction;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use wire::build;

const REPEAT: u32 = 200_000;
const SAMPLES: usize = 7;

struct Case {
    name: &'static str,
    policy: Policy,
    port: &'static str,
    direction: Direction,
    frame: Vec<u8>,
    passes: bool,
}

pub(super) fn measure(plane: PlaneArgs, viewer: &Viewer) -> anyhow::Result<Value> {
    let mut table = viewer::table(["where the verdict falls", "ns", "least", "most"]);
    let mut report = Vec::new();
    for case in cases() {
        viewer.step(format_args!("stages: {}", case.name))?;
        let mut samples = time(plane, &case)?;
        samples.sort_by(f64::total_cmp);
        let (least, most) = (samples[0], samples[SAMPLES - 1]);
        let median = samples[SAMPLES / 2];
        table.add_row([
            case.name.to_owned(),
            format!("{median:.0}"),
            format!("{least:.0}"),
            format!("{most:.0}"),
        ]);
        report.push(json!({ "stage": case.name, "ns": median, "least": least, "most": most }));
    }
    viewer.show("One verdict (the program alone, caches warm)", &table);
    Ok(json!({ "experiment": "stages", "lines": report }))
}

fn cases() -> Vec<Case> {
    let from_a = |src: Ipv4Addr| {
        build::ip(src.into(), ADDRESS_B.into())
            .udp(40_000, L4_PORT)
            .macs(MAC_A, MAC_B)
            .bytes()
    };
    let own = from_a(ADDRESS_A);
    let case = |name, policy, port, direction, frame: &[u8], passes| Case {
        name,
        policy,
        port,
        direction,
        frame: frame.to_vec(),
        passes,
    };
    use Direction::{Egress, Ingress};
    let prefixes = Policy::Prefixes(1_000);
    let members = Policy::Members(1_000);
    let tagged = build::ethernet(0x0806, &[]).tag(0x8100, 1).bytes();
    let forged = from_a(Ipv4Addr::new(10, 9, 9, 9));
    vec![
        case(
            "parse: a VLAN tag",
            Policy::Open,
            "a",
            Egress,
            &tagged,
            false,
        ),
        case(
            "guard: a forged source",
            Policy::Open,
            "a",
            Egress,
            &forged,
            false,
        ),
        case(
            "conntrack: a tracked flow",
            Policy::Tracked,
            "a",
            Egress,
            &own,
            true,
        ),
        case(
            "policy: all in, all out",
            Policy::Open,
            "a",
            Egress,
            &own,
            true,
        ),
        case(
            "policy: a prefix rule, untracked",
            prefixes,
            "b",
            Ingress,
            &from_a(source(prefixes, 7)),
            true,
        ),
        case(
            "policy: a member, untracked",
            members,
            "b",
            Ingress,
            &from_a(source(members, 7)),
            true,
        ),
        case(
            "policy: no rule",
            Policy::Tracked,
            "a",
            Ingress,
            &unasked(),
            false,
        ),
    ]
}

/// Nanoseconds per verdict, several times.
fn time(plane: PlaneArgs, case: &Case) -> anyhow::Result<Vec<f64>> {
    let mut bed = Bed::build(plane, "stages", Filter::Ours(case.policy))?;
    let verdict = bed.verdict(case.port, case.direction, &case.frame)?;
    if verdict.passes() != case.passes {
        bail!(
            "{}: the verdict is {verdict:?}, so that is not what would be measured",
            case.name
        );
    }
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let took = bed.time_hook(case.port, case.direction, &case.frame, REPEAT)?;
        samples.push(took.as_nanos() as f64);
    }
    Ok(samples)
}
