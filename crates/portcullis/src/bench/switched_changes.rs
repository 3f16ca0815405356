//! What a change costs on hosts with few and with many VMs on a bridge of Open vSwitch: until the switch has it
//! (its barrier is answered), until `apply` returns, and until the first packet comes that it permits.

use super::BenchArgs;
use super::crowd;
use super::figures::Median;
use super::policies::{rule, udp};
use super::switched::{self, BY_RULE, LARGE, SMALL, Switched, Took};
use super::viewer::{self, Viewer};
use anyhow::{Context, ensure};
use model::{Direction, Inventory, Peer};
use serde_json::{Value, json};

/// From one policy to the next. What has no name leads back, and is not told.
struct Change {
    name: Option<&'static str>,
    make: fn(&mut Inventory, size: u32),
    /// Of whom it lets in.
    opens: Option<u16>,
}

const CHANGES: [Change; 8] = [
    told("a rule is added", Some(BY_RULE), |i, _| {
        let permit = rule("more", Direction::Ingress, udp(BY_RULE), Peer::Any);
        let group = i.groups.get_mut("b").expect("b has a group");
        group.rules.insert(permit.id.clone(), permit);
    }),
    told("it is removed", None, |_, _| {}),
    told("a member for a group of 10", Some(SMALL.1), |i, _| {
        add_member(i, SMALL.0);
    }),
    BACK,
    told("a member for a group of 10,000", Some(LARGE.1), |i, _| {
        add_member(i, LARGE.0);
    }),
    BACK,
    told("a VM joins, with the default rules", None, crowd::join),
    told("it is removed", None, |_, _| {}),
];

const fn told(
    name: &'static str,
    opens: Option<u16>,
    make: fn(&mut Inventory, size: u32),
) -> Change {
    let name = Some(name);
    Change { name, make, opens }
}

/// To the policy that all of them begin with.
const BACK: Change = Change {
    name: None,
    make: |_, _| {},
    opens: None,
};

fn add_member(inventory: &mut Inventory, group: &str) {
    let a = inventory
        .ports
        .get_mut("a")
        .expect("it is in each inventory");
    a.groups.insert(group.into());
}

/// What the rounds gave for one change on one host.
#[derive(Default)]
struct Samples {
    ms: Vec<f64>,
    barrier_ms: Vec<f64>,
    first_packet_ms: Vec<f64>,
    flows: u64,
}

impl Samples {
    fn add(&mut self, took: &Took) {
        self.ms.push(ms(took.time));
        self.barrier_ms.push(ms(took.barrier));
        self.first_packet_ms.extend(took.first_packet.map(ms));
        self.flows = took.flows;
    }

    fn cells(&self, size: u32, name: &str) -> Vec<String> {
        let told = |samples: &Vec<f64>| match samples.is_empty() {
            true => "-".to_owned(),
            false => format!("{:.1}", Median::of(samples).median),
        };
        let mut cells = vec![
            format!("{size} VMs"),
            name.to_owned(),
            self.flows.to_string(),
        ];
        let figures = [&self.barrier_ms, &self.first_packet_ms, &self.ms];
        cells.extend(figures.into_iter().map(told));
        cells
    }

    fn json(&self, size: u32, name: &str) -> Value {
        let first = (!self.first_packet_ms.is_empty()).then(|| Median::of(&self.first_packet_ms));
        json!({
            "vms": size,
            "change": name,
            "flows": self.flows,
            "barrier_ms": Median::of(&self.barrier_ms).json(),
            "first_packet_ms": first.map(|first| first.json()),
            "ms": Median::of(&self.ms).json(),
        })
    }
}

pub(super) fn measure(args: &BenchArgs, viewer: &Viewer) -> anyhow::Result<Vec<Value>> {
    let mut table = viewer::table(["", "", "flows", "to barrier", "first packet", "apply"]);
    let mut lines = Vec::new();
    for size in switched::sizes(args) {
        viewer.step(format_args!("building a host of {size} VMs"))?;
        let mut host = Switched::build(size)?;
        let all = at_once(&mut host, args, viewer)?;
        for (name, samples) in all.into_iter().chain(one_by_one(&mut host, args, viewer)?) {
            table.add_row(samples.cells(size, name));
            lines.push(samples.json(size, name));
        }
    }
    viewer.show("Changes, ms", &table);
    Ok(vec![
        json!({ "experiment": "changes", "rounds": args.rounds, "lines": lines }),
    ])
}

type Lines = Vec<(&'static str, Samples)>;

/// All flows come, and then another process finds them.
fn at_once(host: &mut Switched, args: &BenchArgs, viewer: &Viewer) -> anyhow::Result<Lines> {
    let target = host.target(&host.inventory());
    let [mut empty, mut restart] = [Samples::default(), Samples::default()];
    let rounds = args.rounds.min(5);
    for round in 1..=rounds {
        viewer.step(format_args!("all flows at once: round {round} of {rounds}"))?;
        host.run(|plane| Ok(plane.plane().detach()?))?;
        empty.add(&host.apply(&target, None)?);
        host.reopen()?;
        let took = host.apply(&target, None)?;
        ensure!(took.flows == 0, "a restart writes {} flows", took.flows);
        restart.add(&took);
        host.verify()?;
    }
    Ok(vec![
        ("all flows from empty", empty),
        ("a restart, nothing changed", restart),
    ])
}

fn one_by_one(host: &mut Switched, args: &BenchArgs, viewer: &Viewer) -> anyhow::Result<Lines> {
    let begin = host.inventory();
    let mut lines: Lines = Vec::new();
    for change in &CHANGES {
        lines.push((change.name.unwrap_or_default(), Samples::default()));
    }
    let targets = CHANGES.iter().map(|change| {
        let mut inventory = begin.clone();
        (change.make)(&mut inventory, host.size);
        host.target(&inventory)
    });
    let targets: Vec<_> = targets.collect();
    // The first round is not measured.
    for round in 0..=args.rounds {
        for (c, change) in CHANGES.iter().enumerate() {
            let name = change.name.unwrap_or("back");
            viewer.step(format_args!("{name}: round {round} of {}", args.rounds))?;
            let took = host.apply(&targets[c], change.opens).context(name)?;
            match round {
                0 => host.verify().context(name)?,
                _ => lines[c].1.add(&took),
            }
        }
    }
    lines.retain(|(name, _)| !name.is_empty());
    Ok(lines)
}

fn ms(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
