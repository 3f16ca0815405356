//! What it costs to notice that somebody else changed what is ours, and what it takes to put it right.
//!
//! An idle audit is one that finds nothing; dear questions are asked in some of them only (as often as they
//! cost little), so audits are made at the agent's pace for a while, and the processor's time of all counts.

use super::BenchArgs;
use super::busy;
use super::crowd::{self, Crowd};
use super::figures::Median;
use super::own_plane::OwnPlane;
use super::viewer::{self, Viewer};
use anyhow::{Context, ensure};
use dataplane::Target;
use dataplane_iptables::Backend;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the processor was busy with audits, in ms.
struct Idle {
    /// The first after a change.
    first: f64,
    mean: f64,
    most: f64,
    /// The part of one processor.
    share: f64,
}

/// From a foreign change on, in ms.
struct Repair {
    /// Until the audit has told it; it was called right then.
    noticed: Median,
    repaired: Median,
    programs: u64,
    /// All sets were emptied, right after an audit; others followed at the agent's pace.
    sets_noticed: f64,
    /// And just one.
    set_noticed: f64,
}

pub(super) fn measure(args: &BenchArgs, viewer: &Viewer) -> anyhow::Result<Value> {
    let mut table = viewer::table([
        "",
        "first audit, CPU ms",
        "idle audit, CPU ms",
        "at most",
        "share of a CPU",
        "all flushed: noticed ms",
        "repaired ms (programs)",
        "sets emptied: noticed ms",
        "one of them",
    ]);
    let mut report = Vec::new();
    // Of the hosts that changes are timed on, the smallest and the largest.
    let sizes: BTreeSet<u32> = args.vms.iter().copied().collect();
    let ends: BTreeSet<&u32> = sizes.first().into_iter().chain(sizes.last()).collect();
    for size in ends {
        viewer.step(format_args!("building a host of {size} VMs"))?;
        let mut host = Crowd::build(args.plane, *size)?;
        let target = host.target(&crowd::inventory(*size));
        host.apply(&target)?;
        let idle = idle(&mut host, args.rounds * 2, viewer)?;
        let repair = repair(&mut host, &target, args.rounds.min(5), viewer)?;
        table.add_row(cells(*size, &idle, &repair));
        report.push(json!({
            "vms": size,
            "first_audit_cpu_ms": idle.first,
            "idle_audit_cpu_ms": idle.mean,
            "most_audit_cpu_ms": idle.most,
            "cpu_share": idle.share,
            "flushed_noticed_ms": repair.noticed.json(),
            "flushed_repaired_ms": repair.repaired.json(),
            "repair_programs": repair.programs,
            "sets_noticed_ms": repair.sets_noticed,
            "set_noticed_ms": repair.set_noticed,
        }));
    }
    let title = "Watching (the next audit begins at most 0.5 s after a change)";
    viewer.show(title, &table);
    Ok(json!({ "experiment": "watching", "lines": report }))
}

fn cells(size: u32, idle: &Idle, repair: &Repair) -> [String; 9] {
    [
        format!("{size} VMs"),
        format!("{:.2}", idle.first),
        format!("{:.2}", idle.mean),
        format!("{:.2}", idle.most),
        format!("{:.2} %", idle.share * 100.0),
        format!("{:.0}", repair.noticed.median),
        format!("{:.0} ({})", repair.repaired.median, repair.programs),
        format!("{:.0}", repair.sets_noticed),
        format!("{:.0}", repair.set_noticed),
    ]
}

fn idle(host: &mut Crowd, audits: u32, viewer: &Viewer) -> anyhow::Result<Idle> {
    let (first, _) = audit(host)?;
    let mut all = Vec::new();
    let began = Instant::now();
    for i in 1..=audits {
        let vms = host.size;
        viewer.step(format_args!(
            "watching {vms} VMs: idle audit {i} of {audits}"
        ))?;
        let (busy, programs) = audit(host)?;
        ensure!(programs == 0, "an idle audit starts {programs} programs");
        all.push(busy);
        wait_until(began + pace(host)? * i);
    }
    let busy: Duration = all.iter().sum();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(Idle {
        first: ms(first),
        mean: ms(busy / audits),
        most: ms(all.into_iter().max().expect("there were some")),
        share: busy.as_secs_f64() / began.elapsed().as_secs_f64(),
    })
}

/// Nothing is found. The processor's time for it, and programs that were started.
fn audit(host: &mut Crowd) -> anyhow::Result<(Duration, u64)> {
    host.run(|plane| {
        let programs = plane.as_iptables()?.programs_started();
        let before = busy::of_this_thread();
        let drift = plane.plane().audit()?;
        let busy = busy::of_this_thread() - before;
        ensure!(drift.is_empty(), "nobody changed anything: {drift:?}");
        Ok((busy, plane.as_iptables()?.programs_started() - programs))
    })
}

fn pace(host: &mut Crowd) -> anyhow::Result<Duration> {
    host.run(|plane| Ok(plane.plane().audit_every()))
}

fn wait_until(then: Instant) {
    std::thread::sleep(then.saturating_duration_since(Instant::now()));
}

fn repair(
    host: &mut Crowd,
    target: &Target,
    rounds: u32,
    viewer: &Viewer,
) -> anyhow::Result<Repair> {
    let (mut noticed, mut repaired) = (Vec::new(), Vec::new());
    let mut programs = 0;
    for round in 1..=rounds {
        let vms = host.size;
        viewer.step(format_args!(
            "watching {vms} VMs: repair {round} of {rounds}"
        ))?;
        noticed.push(host.run(|plane| {
            flush(plane)?;
            let began = Instant::now();
            let drift = plane.plane().audit()?;
            ensure!(!drift.is_empty(), "what was flushed is not missed");
            Ok(began.elapsed().as_secs_f64() * 1e3)
        })?);
        let took = host.apply(target)?;
        repaired.push(took.time.as_secs_f64() * 1e3);
        programs = took.programs;
        host.verify()?;
        audit(host)?;
    }
    let sets_noticed = empty(&["ipset", "flush"], host, viewer)?;
    host.apply(target)?;
    Ok(Repair {
        noticed: Median::of(&noticed),
        repaired: Median::of(&repaired),
        programs,
        sets_noticed,
        set_noticed: empty(&["ipset", "flush", "pc-to-4"], host, viewer)?,
    })
}

/// All that is in the host's netfilter is gone.
fn flush(plane: &mut OwnPlane) -> anyhow::Result<()> {
    run(&["nft", "flush", "ruleset"])?;
    if plane.as_iptables()?.backend() == Backend::Legacy {
        for program in ["iptables-legacy", "ip6tables-legacy"] {
            for table in ["raw", "mangle", "filter"] {
                run(&[program, "-t", table, "-F"])?;
                run(&[program, "-t", table, "-X"])?;
            }
        }
    }
    run(&["ipset", "destroy"])
}

const REST: Duration = Duration::from_secs(3);

/// By this command. How long it takes until it is noticed, in ms.
fn empty(command: &[&str], host: &mut Crowd, viewer: &Viewer) -> anyhow::Result<f64> {
    let pace = pace(host)?;
    audit(host)?;
    // Right after it has read all, the watch would wait before it does so again.
    std::thread::sleep(REST);
    audit(host)?;
    host.run(|_| run(command))?;
    let began = Instant::now();
    for i in 1.. {
        wait_until(began + pace * i);
        viewer.step(format_args!("watching {} VMs: emptied sets", host.size))?;
        let drift = host.run(|plane| Ok(plane.plane().audit()?))?;
        if !drift.is_empty() {
            break;
        }
        ensure!(i < 60, "what was emptied is not missed: {command:?}");
    }
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

fn run(command: &[&str]) -> anyhow::Result<()> {
    let ran = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .status();
    let status = ran.with_context(|| format!("starting {}", command[0]))?;
    ensure!(status.success(), "{}: {status}", command.join(" "));
    Ok(())
}
