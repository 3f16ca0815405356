//! `portcullis bench`: what enforcement costs, in rounds that alternate between ways of filtering.
//!
//! UDP frames enter at the host's side of the sender's device and are counted where the receiver's
//! device takes them: what is measured is the host's way of a packet, not a sender's or a receiver's
//! stack. TCP is between whole VMs.
//!
//! Absolute figures of a machine drift within a minute; the ratio to "no filter" in the same round does
//! not. So each round measures every way once, and the medians of the rounds' ratios are reported. What
//! rounds don't show is where a run's programs and tables happen to lie in memory.

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

/// A way of filtering, and what the tables call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    name: &'static str,
    filter: Filter,
}

const fn way(name: &'static str, filter: Filter) -> Way {
    Way { name, filter }
}

const NO_FILTER: Way = way("no filter", Filter::Nothing);
const TRACKED: Way = way("tracked", Filter::Ours(Policy::Tracked));
const UNTRACKED: Way = way("untracked", Filter::Ours(Policy::Open));
const TRACKED_DIRECT: Way = way("tracked, direct", Filter::Direct(Policy::Tracked));
const UNTRACKED_DIRECT: Way = way("untracked, direct", Filter::Direct(Policy::Open));
const IPTABLES: Way = way("iptables, conntrack, 10 rules", Filter::Iptables(10));
const PREFIXES_10: Way = way("10 prefix rules", Filter::Ours(Policy::Prefixes(10)));
const PREFIXES_1K: Way = way("1,000 prefix rules", Filter::Ours(Policy::Prefixes(1_000)));
const PREFIXES_100K: Way = way(
    "100,000 prefix rules",
    Filter::Ours(Policy::Prefixes(100_000)),
);
const MEMBERS_10: Way = way("group of 10", Filter::Ours(Policy::Members(10)));
const MEMBERS_10K: Way = way("group of 10,000", Filter::Ours(Policy::Members(10_000)));

/// One table: ways of filtering under one kind of traffic, compared with the first of them.
struct Experiment {
    name: &'static str,
    unit: &'static str,
    traffic: Vec<(Way, Traffic)>,
}

fn experiments() -> Vec<Experiment> {
    let same = |ways: &[Way], traffic| ways.iter().map(|way| (*way, traffic)).collect();
    let everywhere = [
        NO_FILTER,
        TRACKED,
        UNTRACKED,
        TRACKED_DIRECT,
        UNTRACKED_DIRECT,
        IPTABLES,
    ];
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
            same(&[PREFIXES_10, PREFIXES_1K, PREFIXES_100K], Traffic::OneFlow),
        ),
        experiment(
            "rules, hits uniform over all",
            "packets/s",
            vec![
                (PREFIXES_10, Traffic::Sources(10)),
                (PREFIXES_1K, Traffic::Sources(1_000)),
                (PREFIXES_100K, Traffic::Sources(100_000)),
            ],
        ),
        experiment(
            "members, one hit",
            "packets/s",
            same(&[MEMBERS_10, MEMBERS_10K], Traffic::OneFlow),
        ),
        experiment(
            "members, hits uniform over all",
            "packets/s",
            vec![
                (MEMBERS_10, Traffic::Sources(10)),
                (MEMBERS_10K, Traffic::Sources(10_000)),
            ],
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

/// One for each way that some experiment goes.
fn build_beds(
    experiments: &[Experiment],
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<(Way, Bed)>> {
    let mut beds: Vec<(Way, Bed)> = Vec::new();
    for (way, _) in experiments.iter().flat_map(|e| &e.traffic) {
        interrupt.check()?;
        if !beds.iter().any(|(built, _)| built == way) {
            let bed = Bed::build(&format!("b{}", beds.len()), way.filter).context(way.name)?;
            beds.push((*way, bed));
        }
    }
    Ok(beds)
}

struct Line {
    name: &'static str,
    per_second: Median,
    ratio: Median,
    /// Compared with the first line, in nanoseconds for each of what is counted.
    added_ns: Median,
    /// Compared with iptables, where the experiment has it.
    times_iptables: Option<Median>,
    /// The share of the packets that did not arrive.
    lost: f64,
    flow_entries: Option<u64>,
}

impl Line {
    fn json(&self) -> Value {
        json!({
            "filter": self.name,
            "per_second": self.per_second.json(),
            "ratio": self.ratio.json(),
            "added_ns": self.added_ns.json(),
            "times_iptables": self.times_iptables.as_ref().map(Median::json),
            "lost": self.lost,
            "flow_entries": self.flow_entries,
        })
    }
}

/// What the rounds gave for one line.
#[derive(Clone, Default)]
struct Samples {
    per_second: Vec<f64>,
    arrived: u64,
    lost: u64,
    flow_entries: Option<u64>,
}

fn measure(
    experiment: &Experiment,
    beds: &mut [(Way, Bed)],
    args: &BenchArgs,
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Line>> {
    let time = Duration::from_millis(args.millis);
    let mut samples = vec![Samples::default(); experiment.traffic.len()];
    for round in 0..args.rounds {
        // The order turns, so that no way is always the one behind the same other.
        for step in 0..experiment.traffic.len() {
            interrupt.check()?;
            let line = (step + round as usize) % experiment.traffic.len();
            let (way, traffic) = experiment.traffic[line];
            let (_, bed) = beds
                .iter_mut()
                .find(|(built, _)| *built == way)
                .expect("built, as an experiment goes this way");
            let measured = bed
                .measure(traffic, time)
                .with_context(|| format!("{}, {}", experiment.name, way.name))?;
            let line = &mut samples[line];
            line.per_second.push(measured.rate.per_second());
            line.arrived += measured.rate.count;
            line.lost += measured.lost;
            line.flow_entries = bed.flow_entries()?;
            bed.forget_flows();
        }
    }
    Ok(compare(experiment, &samples))
}

/// Round by round with the first line, and with iptables.
fn compare(experiment: &Experiment, samples: &[Samples]) -> Vec<Line> {
    let first = &samples[0].per_second;
    let ways = || experiment.traffic.iter().map(|(way, _)| *way);
    let iptables = ways()
        .position(|way| matches!(way.filter, Filter::Iptables(_)))
        .map(|line| &samples[line].per_second);
    let line = |(way, own): (Way, &Samples)| {
        let with = |other: &[f64], figure: fn(f64, f64) -> f64| {
            let rounds = own.per_second.iter().zip(other);
            Median::of(&rounds.map(|(a, b)| figure(*a, *b)).collect::<Vec<_>>())
        };
        Line {
            name: way.name,
            per_second: Median::of(&own.per_second),
            ratio: with(first, |own, first| own / first),
            added_ns: with(first, |own, first| 1e9 / own - 1e9 / first),
            times_iptables: iptables.map(|other| with(other, |own, other| own / other)),
            lost: own.lost as f64 / (own.arrived + own.lost).max(1) as f64,
            flow_entries: own.flow_entries,
        }
    };
    ways().zip(samples).map(line).collect()
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
        "x iptables",
        "lost",
        "flow entries",
    ]);
    let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| String::from("-"));
    for line in lines {
        let times_iptables = line.times_iptables.as_ref();
        table.add_row([
            line.name.to_owned(),
            format!("{:.0}", line.per_second.median),
            format!("{:.3}", line.ratio.median),
            format!("{:.3} to {:.3}", line.ratio.low, line.ratio.high),
            format!("{:.0}", line.added_ns.median),
            or_dash(times_iptables.map(|times| format!("{:.2}", times.median))),
            or_dash((line.lost > 0.0).then(|| format!("{:.2} %", line.lost * 100.0))),
            or_dash(line.flow_entries.map(|entries| entries.to_string())),
        ]);
    }
    println!("{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(per_second: [f64; 3], lost: u64) -> Samples {
        Samples {
            per_second: per_second.to_vec(),
            arrived: 100 - lost,
            lost,
            flow_entries: None,
        }
    }

    #[test]
    fn each_round_is_compared_with_itself() {
        let ways = [NO_FILTER, TRACKED, IPTABLES];
        let experiment = Experiment {
            name: "",
            unit: "",
            traffic: ways.map(|way| (way, Traffic::OneFlow)).to_vec(),
        };
        // A machine that gets faster by the round: the medians of the rates would say 2 / 3.
        let lines = compare(
            &experiment,
            &[
                samples([2e6, 3e6, 9e6], 0),
                samples([1e6, 2e6, 3e6], 25),
                samples([4e5, 1e6, 1e6], 0),
            ],
        );
        let medians = |line: &Line| {
            let times_iptables = line.times_iptables.expect("it is among them").median;
            (line.ratio.median, times_iptables, line.lost)
        };
        assert_eq!(medians(&lines[0]), (1.0, 5.0, 0.0));
        assert_eq!(medians(&lines[1]), (0.5, 2.5, 0.25));
        assert_eq!(lines[2].times_iptables.expect("itself").median, 1.0);
    }
}
