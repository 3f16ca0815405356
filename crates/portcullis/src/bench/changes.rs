//! What a change costs on hosts with few and with many VMs: the time from the call of `apply` to its
//! return, and how many programs it starts.
//!
//! The hosts stand side by side, and each change is made on one after the other. In a first round, which is
//! not measured, all of what is in the kernel is compared with what should be, after each change.

use super::BenchArgs;
use super::crowd::{self, Crowd, Took};
use super::figures::Median;
use super::viewer::{self, Viewer};
use anyhow::Context;
use comfy_table::Table;
use dataplane::Target;
use model::Inventory;
use serde_json::{Value, json};
use std::iter;

/// From one policy to the next. What has no name leads back, and is not told.
struct Change {
    name: Option<&'static str>,
    make: fn(&mut Inventory, size: u32),
}

const CHANGES: [Change; 10] = [
    told("a VM joins, with the default rules", crowd::join),
    told("it is removed", |_, _| {}),
    told("a rule for one VM", |i, _| crowd::permit(i, 1)),
    BACK,
    told("a rule of another kind", |i, _| crowd::permit_range(i)),
    BACK,
    told("50 rules for one VM", |i, _| crowd::permit(i, 50)),
    BACK,
    told("a member of a group, elsewhere", |i, _| {
        crowd::add_member(i)
    }),
    BACK,
];

const fn told(name: &'static str, make: fn(&mut Inventory, u32)) -> Change {
    let name = Some(name);
    Change { name, make }
}

/// To the policy that all of them begin with.
const BACK: Change = Change {
    name: None,
    make: |_, _| {},
};

/// What the rounds gave for one change on one host.
#[derive(Clone, Default)]
struct Samples {
    ms: Vec<f64>,
    programs: Vec<f64>,
}

impl Samples {
    fn add(&mut self, took: Took) {
        self.ms.push(took.time.as_secs_f64() * 1e3);
        self.programs.push(took.programs as f64);
    }

    fn cell(&self) -> String {
        let programs = Median::of(&self.programs).median;
        format!("{:.1} ({programs:.0})", Median::of(&self.ms).median)
    }

    fn json(&self, size: u32) -> Value {
        json!({
            "vms": size,
            "ms": Median::of(&self.ms).json(),
            "programs": Median::of(&self.programs).median,
        })
    }
}

pub(super) fn measure(args: &BenchArgs, viewer: &Viewer) -> anyhow::Result<Vec<Value>> {
    let mut hosts = Vec::new();
    for size in &args.vms {
        viewer.step(format_args!("building a host of {size} VMs"))?;
        hosts.push(Crowd::build(args.plane, *size)?);
    }
    let at_once = all_at_once(&mut hosts, args, viewer)?;
    Ok(vec![at_once, one_by_one(&mut hosts, args, viewer)?])
}

/// Each host's VMs come all at once.
fn all_at_once(hosts: &mut [Crowd], args: &BenchArgs, viewer: &Viewer) -> anyhow::Result<Value> {
    let ways = ["nothing was in force (rebuilt)", "no VM was there"];
    let mut samples = vec![[Samples::default(), Samples::default()]; hosts.len()];
    let rounds = args.rounds.min(5);
    for round in 1..=rounds {
        for (host, samples) in hosts.iter_mut().zip(&mut samples) {
            viewer.step(format_args!("all VMs at once: round {round} of {rounds}"))?;
            let target = host.target(&crowd::inventory(host.size));
            let empty = host.target(&crowd::inventory(0));
            host.run(|plane| Ok(plane.plane().detach()?))?;
            samples[0].add(host.apply(&target)?);
            host.verify()?;
            host.apply(&empty)?;
            samples[1].add(host.apply(&target)?);
            host.verify()?;
        }
    }
    let mut table = table(hosts, &[]);
    let mut lines = Vec::new();
    for (w, way) in ways.iter().enumerate() {
        let cells = samples.iter().map(|of_host| of_host[w].cell());
        table.add_row(iter::once((*way).to_owned()).chain(cells));
        let hosts = hosts.iter().zip(&samples);
        let hosts: Vec<Value> = hosts.map(|(h, s)| s[w].json(h.size)).collect();
        lines.push(json!({ "before": way, "hosts": hosts }));
    }
    viewer.show("All VMs at once, ms (programs started)", &table);
    Ok(json!({ "experiment": "changes, all at once", "lines": lines }))
}

fn one_by_one(hosts: &mut [Crowd], args: &BenchArgs, viewer: &Viewer) -> anyhow::Result<Value> {
    let targets: Vec<Vec<Target>> = hosts.iter().map(targets).collect();
    let mut samples = vec![vec![Samples::default(); hosts.len()]; CHANGES.len()];
    for round in 0..=args.rounds {
        for (c, change) in CHANGES.iter().enumerate() {
            for (h, host) in hosts.iter_mut().enumerate() {
                let name = change.name.unwrap_or("back");
                viewer.step(format_args!("{name}: round {round} of {}", args.rounds))?;
                let took = host.apply(&targets[h][c]).context(name)?;
                match round {
                    0 => host.verify().context(name)?,
                    _ => samples[c][h].add(took),
                }
            }
        }
    }
    let mut table = table(hosts, &["last / first", "95 % interval"]);
    let mut lines = Vec::new();
    let named = CHANGES.iter().zip(&samples);
    for (name, samples) in named.filter_map(|(change, s)| Some((change.name?, s))) {
        let ratio = ratio(samples);
        let cells = samples.iter().map(Samples::cell);
        let more = [
            format!("{:.2}", ratio.median),
            format!("{:.2} to {:.2}", ratio.low, ratio.high),
        ];
        table.add_row(iter::once(name.to_owned()).chain(cells).chain(more));
        let hosts = hosts.iter().zip(samples);
        let hosts: Vec<Value> = hosts.map(|(h, s)| s.json(h.size)).collect();
        lines.push(json!({ "change": name, "hosts": hosts, "last_to_first": ratio.json() }));
    }
    viewer.show("Changes, ms (programs started)", &table);
    Ok(json!({ "experiment": "changes, one by one", "rounds": args.rounds, "lines": lines }))
}

fn targets(host: &Crowd) -> Vec<Target> {
    let begin = crowd::inventory(host.size);
    let changed = CHANGES.iter().map(|change| {
        let mut inventory = begin.clone();
        (change.make)(&mut inventory, host.size);
        host.target(&inventory)
    });
    changed.collect()
}

/// The largest host's time by the smallest's, round by round.
fn ratio(samples: &[Samples]) -> Median {
    let (first, last) = (&samples[0].ms, &samples[samples.len() - 1].ms);
    let ratios = last.iter().zip(first).map(|(last, first)| last / first);
    Median::of(&ratios.collect::<Vec<_>>())
}

fn table(hosts: &[Crowd], more: &[&str]) -> Table {
    let sizes = hosts.iter().map(|host| format!("{} VMs", host.size));
    let more = more.iter().map(|title| (*title).to_owned());
    let header: Vec<String> = iter::once(String::new()).chain(sizes).chain(more).collect();
    viewer::table(header)
}
