//! `portcullis bench`: what enforcement costs, in rounds that alternate between ways of filtering.
//!
//! UDP frames enter at the host's side of the sender's device and are counted where the receiver's
//! device takes them: what is measured is the host's way of a packet, not a sender's or a receiver's
//! stack. TCP is between whole VMs. What rounds don't show is where a run's programs and tables happen to
//! lie in memory.
//!
//! ```text
//! experiments -> rounds -> bed    packets by ways of filtering, whichever plane
//! stages, loading                 eBPF: a verdict; big policies
//! changes, watching, flood        iptables: applies on small and large hosts; audits; many connections
//! switched_changes, _watching     Open vSwitch: the same of a host with a bridge of it
//! ```

mod bed;
mod busy;
mod changes;
mod crowd;
mod experiments;
mod figures;
mod flood;
mod loading;
mod own_plane;
mod policies;
mod rounds;
mod stages;
mod switched;
mod switched_changes;
mod switched_watching;
mod traffic;
mod viewer;
mod watching;

use crate::failure::Failure;
use crate::plane::{PlaneArgs, PlaneName};
use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use viewer::Viewer;

/// Measure what enforcement costs on this machine, beside no filter and iptables
///
/// Builds virtual machines out of network namespaces on a bridge; needs root, and Linux 5.18. Takes
/// some minutes with the default rounds. UDP packets are made in the kernel and enter at the host's side
/// of the sender's device, so that the host's way of a packet is what is measured. With the iptables and the ovs
/// plane changes are timed too, on hosts with few and with many VMs, and the watch over the rules. With the ovs
/// plane each way has an Open vSwitch of its own, with the userspace datapath. A way of
/// filtering that doesn't let a permitted packet through, or lets a forbidden one through, is not measured:
/// the command fails.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    plane: PlaneArgs,

    /// How often each way is measured; the interval needs at least 6
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// How long each measurement lasts
    #[arg(long, default_value_t = 200, value_name = "MS", value_parser = clap::value_parser!(u64).range(20..=10_000))]
    millis: u64,

    /// For the iptables and the ovs plane: VMs on the hosts where changes are timed (ovs: at most 247)
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_value = "1,101,1000", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    vms: Vec<u32>,

    /// Only experiments whose name contains this (packets by ways of filtering: UDP, TCP, rules, members); also changes, watching, flood, stages, loading
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,

    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Figures of the kernel's datapath would be others.
const OVS_DATAPATH: &str =
    "Measured with the userspace datapath of ovs-vswitchd (netdev), not the kernel's.";

impl BenchArgs {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| name.contains(text))
    }
}

pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let viewer = Viewer::new()?;
    measure_all(args, &viewer).map_err(|error| match viewer.is_interrupted() {
        false => Failure::System(format!("{error:#}")),
        true => Failure::No("Interrupted; what the bench built is removed.".to_owned()),
    })
}

fn measure_all(args: &BenchArgs, viewer: &Viewer) -> anyhow::Result<()> {
    let mut report = Vec::new();
    match args.plane.plane {
        PlaneName::Ebpf => {
            packets(experiments::of_ebpf(), args, viewer, &mut report)?;
            if args.wants("stages") {
                report.push(stages::measure(args.plane, viewer)?);
            }
            if args.wants("loading") {
                report.push(loading::measure(viewer)?);
            }
        }
        PlaneName::Iptables => {
            packets(experiments::of_iptables(), args, viewer, &mut report)?;
            if args.wants("flood") {
                report.push(flood::measure(args.plane, viewer)?);
            }
            if args.wants("changes") {
                report.extend(changes::measure(args, viewer)?);
            }
            if args.wants("watching") {
                report.push(watching::measure(args, viewer)?);
            }
        }
        PlaneName::Ovs => {
            println!("{OVS_DATAPATH}");
            packets(experiments::of_ovs(), args, viewer, &mut report)?;
            if args.wants("changes") {
                report.extend(switched_changes::measure(args, viewer)?);
            }
            if args.wants("watching") {
                report.push(switched_watching::measure(args, viewer)?);
            }
        }
    }
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&Value::from(report))?;
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
        println!("The figures are in {} as JSON.", file.display());
    }
    Ok(())
}

/// Side by side, so that rounds can alternate between them.
fn packets(
    mut experiments: Vec<experiments::Experiment>,
    args: &BenchArgs,
    viewer: &Viewer,
    report: &mut Vec<Value>,
) -> anyhow::Result<()> {
    experiments.retain(|experiment| args.wants(experiment.name));
    let mut beds = rounds::build_beds(args.plane, &experiments, viewer)?;
    for experiment in &experiments {
        let lines = rounds::measure(experiment, &mut beds, args, viewer)?;
        viewer.show(experiment.name, &rounds::table(experiment, &lines));
        report.push(json!({
            "experiment": experiment.name,
            "unit": experiment.unit,
            "rounds": args.rounds,
            "lines": lines.iter().map(rounds::Line::json).collect::<Vec<_>>(),
        }));
    }
    Ok(())
}
