//! How long processors were busy with something.

use anyhow::Context;
use conformance::lab::OpenVswitch;
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::time::Duration;

/// With the calling thread, so far.
pub(super) fn of_this_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("no thread has a negative time")
}

/// With ovs-vswitchd, so far.
pub(super) fn of_vswitchd(switch: &OpenVswitch) -> anyhow::Result<Duration> {
    let process = switch.vswitchd_process();
    of_process(process.context("ovs-vswitchd was killed")?)
}

/// With ovsdb-server, so far.
pub(super) fn of_database(switch: &OpenVswitch) -> anyhow::Result<Duration> {
    let file = switch.run_dir().join("ovsdb-server.pid");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    of_process(text.trim().parse().context("the process of ovsdb-server")?)
}

/// All threads that it has.
fn of_process(process: u32) -> anyhow::Result<Duration> {
    let mut sum = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let file = task?.path().join("schedstat");
        let text =
            fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let busy = text.split_whitespace().next().unwrap_or_default();
        sum += Duration::from_nanos(busy.parse().context("a thread's time")?);
    }
    Ok(sum)
}
