//! `portcullis bench`: what enforcement costs, in rounds that alternate between ways of filtering.
//!
//! UDP frames enter at the host's side of the sender's device and are counted where the receiver's
//! device takes them: what is measured is the host's way of a packet, not a sender's or a receiver's
//! stack. TCP is between whole VMs.
//!
//! Absolute figures of a machine drift within a minute; the ratio to "no filter" in the same round does
//! not. So each round measures every way once, and the medians of the rounds' ratios are reported.

mod bed;
mod figures;
mod loading;
mod own_plane;
mod policies;
mod stages;
mod traffic;

use crate::failure::Failure;
use anyhow::{Context, ensure};
use bed::{Bed, Filter, Traffic};
use clap::Args;
use comfy_table::{Table, presets};
use figures::Median;
use policies::Policy;
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Measure what enforcement costs on this machine, beside no filter and iptables
///
/// Builds virtual machines out of network namespaces on a bridge; needs root, and Linux 5.18. Takes
/// about two minutes with the default rounds. UDP packets are made in the kernel and enter at the
/// host's side of the sender's device, so that the host's way of a packet is what is measured. A way of filtering that doesn't let a permitted packet through, or lets
/// a forbidden one through, is not measured: the command fails.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    /// How often each way is measured; the interval needs at least 6
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// How long each measurement lasts
    #[arg(long, default_value_t = 200, value_name = "MS", value_parser = clap::value_parser!(u64).range(20..=10_000))]
    millis: u64,

    /// Only experiments whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,

    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One table: ways of filtering under one kind of traffic, compared with the first of them.
struct Experiment {
    name: &'static str,
    unit: &'static str,
    traffic: Vec<(usize, Traffic)>,
}

const TRACKED: Filter = Filter::Ours(Policy::Tracked);
const OPEN: Filter = Filter::Ours(Policy::Open);

const FILTERS: [(&str, Filter); 9] = [
    ("no filter", Filter::Nothing),
    ("tracked", TRACKED),
    ("untracked", OPEN),
    ("iptables, conntrack, 10 rules", Filter::Iptables(10)),
    ("10 prefix rules", Filter::Ours(Policy::Prefixes(10))),
    ("1,000 prefix rules", Filter::Ours(Policy::Prefixes(1_000))),
    (
        "100,000 prefix rules",
        Filter::Ours(Policy::Prefixes(100_000)),
    ),
    ("group of 10", Filter::Ours(Policy::Members(10))),
    ("group of 10,000", Filter::Ours(Policy::Members(10_000))),
];

fn experiments() -> Vec<Experiment> {
    let same = |beds: &[usize], traffic| beds.iter().map(|bed| (*bed, traffic)).collect();
    let everywhere = [0, 1, 2, 3];
    let experiment = |name, unit, traffic| Experiment {
        name,
        unit,
        traffic,
    };
    vec![
        experiment(
            "UDP, 1 flow",
            "packets/s",
            same(&everywhere, Traffic::OneFlow),
        ),
        experiment(
            "UDP, 4,096 flows",
            "packets/s",
            same(&everywhere, Traffic::ManyFlows),
        ),
        experiment(
            "UDP, every packet a new flow",
            "packets/s",
            same(&everywhere, Traffic::NewFlows),
        ),
        experiment(
            "TCP connect, request, close",
            "per s",
            same(&everywhere, Traffic::TcpConnections),
        ),
        experiment("TCP bulk", "bytes/s", same(&everywhere, Traffic::TcpBulk)),
        experiment(
            "rules, one hit",
            "packets/s",
            same(&[4, 5, 6], Traffic::OneFlow),
        ),
        experiment(
            "rules, hits uniform over all",
            "packets/s",
            vec![
                (4, Traffic::Sources(10)),
                (5, Traffic::Sources(1_000)),
                (6, Traffic::Sources(100_000)),
            ],
        ),
        experiment(
            "members, one hit",
            "packets/s",
            same(&[7, 8], Traffic::OneFlow),
        ),
        experiment(
            "members, hits uniform over all",
            "packets/s",
            vec![(7, Traffic::Sources(10)), (8, Traffic::Sources(10_000))],
        ),
    ]
}

/// Set by Ctrl-C: what is being measured ends, and what was built for it is removed.
struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    fn watch() -> anyhow::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag))
                .context("watching for signals")?;
        }
        Ok(Self(flag))
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.0.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}

pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let interrupt = Interrupt::watch()?;
    measure_all(args, &interrupt).map_err(|error| match interrupt.check() {
        Ok(()) => Failure::System(format!("{error:#}")),
        Err(_) => Failure::No("Interrupted; what the bench built is removed.".to_owned()),
    })
}

fn measure_all(args: &BenchArgs, interrupt: &Interrupt) -> anyhow::Result<()> {
    let wanted = |name: &str| args.only.as_deref().is_none_or(|text| name.contains(text));
    let experiments: Vec<_> = experiments()
        .into_iter()
        .filter(|e| wanted(e.name))
        .collect();
    let mut beds = build_beds(&experiments, interrupt)?;
    let mut report = Vec::new();
    for experiment in &experiments {
        let lines = measure(experiment, &mut beds, args, interrupt)?;
        print_table(experiment, &lines);
        report.push(json!({
            "experiment": experiment.name,
            "unit": experiment.unit,
            "rounds": args.rounds,
            "lines": lines.iter().map(Line::json).collect::<Vec<_>>(),
        }));
    }
    drop(beds);
    if wanted("stages") {
        report.push(stages::measure(interrupt)?);
    }
    if wanted("loading") {
        report.push(loading::measure(interrupt)?);
    }
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&Value::from(report))?;
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
        println!("The figures are in {} as JSON.", file.display());
    }
    Ok(())
}

/// Those that some experiment uses; the others are `None`.
fn build_beds(
    experiments: &[Experiment],
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Option<Bed>>> {
    let used = |i| {
        experiments
            .iter()
            .flat_map(|e| &e.traffic)
            .any(|(bed, _)| *bed == i)
    };
    let mut beds = Vec::new();
    for (i, (name, filter)) in FILTERS.iter().enumerate() {
        interrupt.check()?;
        let build = || Bed::build(&format!("b{i}"), *filter).context(*name);
        beds.push(used(i).then(build).transpose()?);
    }
    Ok(beds)
}

struct Line {
    name: &'static str,
    per_second: Median,
    ratio: Median,
    /// Compared with the first line, in nanoseconds for each of what is counted.
    added_ns: Median,
    flow_entries: Option<u64>,
}

impl Line {
    fn json(&self) -> Value {
        json!({
            "filter": self.name,
            "per_second": self.per_second.json(),
            "ratio": self.ratio.json(),
            "added_ns": self.added_ns.json(),
            "flow_entries": self.flow_entries,
        })
    }
}

fn measure(
    experiment: &Experiment,
    beds: &mut [Option<Bed>],
    args: &BenchArgs,
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Line>> {
    let time = Duration::from_millis(args.millis);
    let mut samples = vec![Vec::new(); experiment.traffic.len()];
    let mut flow_entries = vec![None; experiment.traffic.len()];
    for round in 0..args.rounds {
        // The order turns, so that no way is always the one behind the same other.
        for step in 0..experiment.traffic.len() {
            interrupt.check()?;
            let line = (step + round as usize) % experiment.traffic.len();
            let (bed, traffic) = experiment.traffic[line];
            let bed = beds[bed].as_mut().expect("built, as an experiment uses it");
            let rate = bed
                .measure(traffic, time)
                .with_context(|| format!("{}, {:?}", experiment.name, bed.filter()))?;
            samples[line].push(rate.per_second());
            flow_entries[line] = bed.flow_entries()?;
            bed.forget_flows();
        }
    }
    let first = samples[0].clone();
    let compare = |own: &[f64], with: fn(f64, f64) -> f64| {
        let pairs = own.iter().zip(&first);
        Median::of(
            &pairs
                .map(|(own, first)| with(*own, *first))
                .collect::<Vec<_>>(),
        )
    };
    let lines = experiment.traffic.iter().zip(&samples).zip(flow_entries);
    Ok(lines
        .map(|(((bed, _), own), flow_entries)| Line {
            name: FILTERS[*bed].0,
            per_second: Median::of(own),
            ratio: compare(own, |own, first| own / first),
            added_ns: compare(own, |own, first| 1e9 / own - 1e9 / first),
            flow_entries,
        })
        .collect())
}

fn print_table(experiment: &Experiment, lines: &[Line]) {
    println!("\n{}", experiment.name);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "",
        experiment.unit,
        "ratio",
        "95 % interval",
        "added ns",
        "flow entries",
    ]);
    for line in lines {
        table.add_row([
            line.name.to_owned(),
            format!("{:.0}", line.per_second.median),
            format!("{:.3}", line.ratio.median),
            format!("{:.3} to {:.3}", line.ratio.low, line.ratio.high),
            format!("{:.0}", line.added_ns.median),
            line.flow_entries
                .map_or(String::from("-"), |n| n.to_string()),
        ]);
    }
    println!("{table}");
}
