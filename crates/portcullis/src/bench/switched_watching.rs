//! What it costs to notice on a bridge of Open vSwitch that somebody else changed what is ours: audits that find
//! nothing, at the agent's pace, by the processor's time of all three that are in it.

use super::BenchArgs;
use super::switched::{self, Busy, Switched};
use super::viewer::{self, Viewer};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub(super) fn measure(args: &BenchArgs, viewer: &Viewer) -> anyhow::Result<Value> {
    let mut table = viewer::table([
        "",
        "audit: plane, CPU ms",
        "ovs-vswitchd",
        "ovsdb-server",
        "at most",
        "share of a CPU, all",
        "without audits",
    ]);
    let mut report = Vec::new();
    for size in switched::sizes(args) {
        viewer.step(format_args!("building a host of {size} VMs"))?;
        let mut host = Switched::build(size)?;
        let target = host.target(&host.inventory());
        host.apply(&target, None)?;
        let idle = idle(&mut host, args.rounds * 2, viewer)?;
        table.add_row(idle.cells(size));
        report.push(idle.json(size));
    }
    viewer.show("Watching", &table);
    Ok(json!({ "experiment": "watching", "lines": report }))
}

struct Idle {
    mean: Busy,
    /// Of one audit, all three.
    most: Duration,
    /// The part of one processor, all three; the rest of the second counts, too.
    share: f64,
    /// The same of the switch alone, when nobody asks.
    share_alone: f64,
}

fn idle(host: &mut Switched, audits: u32, viewer: &Viewer) -> anyhow::Result<Idle> {
    let vms = host.size;
    host.audit()?;
    let pace = host.run(|plane| Ok(plane.plane().audit_every()))?;
    let (began, before) = (Instant::now(), host.busy_elsewhere()?);
    let mut all = Vec::new();
    for i in 1..=audits {
        viewer.step(format_args!("watching {vms} VMs: audit {i} of {audits}"))?;
        all.push(host.audit()?);
        wait_until(began + pace * i);
    }
    let sum = |part: fn(&Busy) -> Duration| all.iter().map(part).sum::<Duration>();
    let ours = sum(|busy| busy.plane);
    let share = |busy: Duration, since: Instant| busy.as_secs_f64() / since.elapsed().as_secs_f64();
    let then = host.busy_elsewhere()?;
    let with = share(ours + between(before, then), began);
    let (alone, before) = (Instant::now(), then);
    viewer.step(format_args!("watching {vms} VMs: nobody asks"))?;
    wait_until(alone + pace * audits.min(10));
    let without = share(between(before, host.busy_elsewhere()?), alone);
    let most = all.iter().map(total).max();
    Ok(Idle {
        mean: Busy {
            plane: ours / audits,
            vswitchd: sum(|busy| busy.vswitchd) / audits,
            database: sum(|busy| busy.database) / audits,
        },
        most: most.unwrap_or_default(),
        share: with,
        share_alone: without,
    })
}

impl Idle {
    fn cells(&self, size: u32) -> [String; 7] {
        let Busy {
            plane,
            vswitchd,
            database,
        } = self.mean;
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        let [plane, vswitchd, database, most] =
            [plane, vswitchd, database, self.most].map(|time| format!("{:.2}", ms(time)));
        [
            format!("{size} VMs"),
            plane,
            vswitchd,
            database,
            most,
            percent(self.share),
            percent(self.share_alone),
        ]
    }

    fn json(&self, size: u32) -> Value {
        json!({
            "vms": size,
            "plane_cpu_ms": ms(self.mean.plane),
            "vswitchd_cpu_ms": ms(self.mean.vswitchd),
            "database_cpu_ms": ms(self.mean.database),
            "most_cpu_ms": ms(self.most),
            "cpu_share": self.share,
            "cpu_share_alone": self.share_alone,
        })
    }
}

fn total(busy: &Busy) -> Duration {
    busy.plane + busy.vswitchd + busy.database
}

/// Of those that run on.
fn between(before: Busy, then: Busy) -> Duration {
    (then.vswitchd - before.vswitchd) + (then.database - before.database)
}

fn wait_until(then: Instant) {
    std::thread::sleep(then.saturating_duration_since(Instant::now()));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
