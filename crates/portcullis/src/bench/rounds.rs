//! Rounds that alternate between ways of filtering, and the table that comes of them.
//!
//! Absolute figures of a machine drift within a minute; the ratio to "no filter" in the same round does
//! not. So each round measures every way once, and the medians of the rounds' ratios are reported.

use super::BenchArgs;
use super::bed::{Bed, Filter};
use super::experiments::{Experiment, TRACKED, Way};
use super::figures::Median;
use super::viewer::{self, Viewer};
use crate::plane::PlaneArgs;
use anyhow::Context;
use comfy_table::Table;
use serde_json::{Value, json};
use std::time::Duration;

/// One for each way that some experiment goes.
pub(super) fn build_beds(
    plane: PlaneArgs,
    experiments: &[Experiment],
    viewer: &Viewer,
) -> anyhow::Result<Vec<(Way, Bed)>> {
    let mut beds: Vec<(Way, Bed)> = Vec::new();
    for (way, _) in experiments.iter().flat_map(|e| &e.traffic) {
        viewer.step(format_args!("building: {}", way.name))?;
        if !beds.iter().any(|(built, _)| built == way) {
            let name = format!("b{}", beds.len());
            let bed = Bed::build(plane, &name, way.filter).context(way.name)?;
            beds.push((*way, bed));
        }
    }
    Ok(beds)
}

pub(super) struct Line {
    name: &'static str,
    per_second: Median,
    ratio: Median,
    /// Compared with the first line, in nanoseconds for each of what is counted.
    added_ns: Median,
    /// Compared with what is tracked, and with iptables by hand, where the experiment has them.
    times_tracked: Option<Median>,
    times_iptables: Option<Median>,
    /// The share of the packets that did not arrive.
    lost: f64,
    flow_entries: Option<u64>,
}

impl Line {
    pub(super) fn json(&self) -> Value {
        json!({
            "filter": self.name,
            "per_second": self.per_second.json(),
            "ratio": self.ratio.json(),
            "added_ns": self.added_ns.json(),
            "times_tracked": self.times_tracked.as_ref().map(Median::json),
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

pub(super) fn measure(
    experiment: &Experiment,
    beds: &mut [(Way, Bed)],
    args: &BenchArgs,
    viewer: &Viewer,
) -> anyhow::Result<Vec<Line>> {
    let time = Duration::from_millis(args.millis);
    let mut samples = vec![Samples::default(); experiment.traffic.len()];
    for round in 0..args.rounds {
        // The order turns, so that no way is always the one behind the same other.
        for step in 0..experiment.traffic.len() {
            viewer.step(format_args!(
                "{}: round {} of {}",
                experiment.name,
                round + 1,
                args.rounds
            ))?;
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

/// Round by round with the first line, and with others.
fn compare(experiment: &Experiment, samples: &[Samples]) -> Vec<Line> {
    let first = &samples[0].per_second;
    let ways = || experiment.traffic.iter().map(|(way, _)| *way);
    let of = |wanted: fn(Way) -> bool| {
        let line = ways().position(wanted)?;
        Some(&samples[line].per_second)
    };
    let tracked = of(|way| way == TRACKED);
    let iptables = of(|way| matches!(way.filter, Filter::ByHand(_)));
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
            times_tracked: tracked.map(|other| with(other, |own, other| own / other)),
            times_iptables: iptables.map(|other| with(other, |own, other| own / other)),
            lost: own.lost as f64 / (own.arrived + own.lost).max(1) as f64,
            flow_entries: own.flow_entries,
        }
    };
    ways().zip(samples).map(line).collect()
}

pub(super) fn table(experiment: &Experiment, lines: &[Line]) -> Table {
    let mut table = viewer::table([
        "",
        experiment.unit,
        "ratio",
        "95 % interval",
        "added ns",
        "x tracked",
        "x iptables",
        "lost",
        "flow entries",
    ]);
    let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| String::from("-"));
    let times = |times: &Option<Median>| or_dash(times.map(|t| format!("{:.2}", t.median)));
    for line in lines {
        table.add_row([
            line.name.to_owned(),
            format!("{:.0}", line.per_second.median),
            format!("{:.3}", line.ratio.median),
            format!("{:.3} to {:.3}", line.ratio.low, line.ratio.high),
            format!("{:.0}", line.added_ns.median),
            times(&line.times_tracked),
            times(&line.times_iptables),
            or_dash((line.lost > 0.0).then(|| format!("{:.2} %", line.lost * 100.0))),
            or_dash(line.flow_entries.map(|entries| entries.to_string())),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::bed::Traffic;
    use super::super::experiments::{BY_HAND, NO_FILTER};
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
        let ways = [NO_FILTER, TRACKED, BY_HAND];
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
