//! `portcullis sim`: does a cluster do what was committed, whatever happens, and what does a change cost?

use crate::failure::Failure;
use crate::output::{self, Columns, Tone};
use anyhow::Context;
use clap::Args;
use sim::{Config, Figures, Outcome, Progress, Row, Spread};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Simulate a whole cluster in one process, with faults, and see whether hosts enforce what was committed
///
/// The server's use cases, what hosts are told, and their agents are the real ones; the store and the data planes are
/// in memory, and there are no sockets. Random changes and faults come of the seed. After each step, each host where
/// something has happened is compared with what was committed. The exit code is 0 if all are as they must be.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis sim
  portcullis sim --seed 7 --changes 5000
  portcullis sim --hosts 10000 --ports 1000000 --changes 1000

A tenth of the ports is in the largest group, which rules name on a hundredth of the hosts.

Exit codes: 0 no violation, 1 a violation, or stopped before the end.")]
pub(crate) struct SimArgs {
    /// Hosts of the cluster
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    hosts: u32,

    /// Servers on one store; each has a copy of all there is. [default: 2, and 1 of more than 200,000 ports]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    servers: Option<u8>,

    /// Ports at the beginning
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(50..=2_000_000))]
    ports: u32,

    /// Changes, one after the other
    #[arg(long, value_name = "N", default_value_t = 500)]
    changes: u32,

    /// The same seed, the same changes and faults
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Nothing fails and nothing is lost
    #[arg(long)]
    no_faults: bool,

    /// Hosts get agents until their parts have so many ports (some 6 kB each), then take turns; of the others, messages are counted
    #[arg(long, value_name = "N", default_value_t = 250_000)]
    agent_ports: u32,
}

/// Between two lines that say how far it is.
const TELL: Duration = Duration::from_secs(10);

pub(crate) fn run(args: SimArgs) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("watching for signals")?;
    }
    let usual = Config::new(
        args.hosts as usize,
        args.ports as usize,
        args.changes as usize,
        args.seed,
    );
    let config = Config {
        servers: args.servers.map_or(usual.servers, usize::from),
        faults: !args.no_faults,
        most_agent_ports: args.agent_ports as usize,
        ..usual
    };
    let on_terminal = std::io::stderr().is_terminal();
    let mut told = Instant::now();
    let outcome = sim::run(&config, &mut |progress| {
        if on_terminal && told.elapsed() > TELL {
            told = Instant::now();
            let Progress { doing, done, of } = progress;
            eprintln!("{done} of {of} {doing}");
        }
        match stop.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    output::say(&text(&outcome, args.seed));
    match (outcome.violation, outcome.stopped) {
        (Some(_), _) => Err(Failure::No(String::new())),
        (None, true) => Err(Failure::No("stopped before the end".to_owned())),
        (None, false) => Ok(()),
    }
}

fn text(outcome: &Outcome, seed: u64) -> String {
    let Figures {
        hosts,
        ports,
        groups,
        largest,
        middle,
        watching,
        servers,
        agents,
        agents_at_once,
        largest_agents,
        steps,
        changes,
        refused,
        unanswered,
        progress,
        parts,
        part_bytes,
        checks,
        largest_checks,
        quiet_checks,
        sampled,
        whole_checks,
        from_older_cache,
        ..
    } = &outcome.figures;
    let faults = outcome.figures.faults.iter();
    let faults: String = faults
        .map(|(kind, count)| format!("  {kind}: {count}\n"))
        .collect();
    let faults = match faults.is_empty() {
        true => "  none\n".to_owned(),
        false => faults,
    };
    let violation = outcome.violation.as_ref();
    let violation = violation.map_or(String::new(), |violation| format!("{violation}\n"));
    format!(
        "{servers} servers, {hosts} hosts, {ports} ports, {groups} groups; the largest has {largest} members, the middle one {middle}, of interest to {watching} hosts each\n\
         {agents} hosts had an agent and a plane, {agents_at_once} of them at the same time, and {largest_agents} a rule that names the largest group; of the others, what they were sent was made and counted, and {sampled} times looked at\n\
         {changes} changes in {steps} steps of 0.1 s; {refused} refused, {unanswered} unanswered\n\n\
         {}\n\
         OBJECTS: what servers looked at to find whom to tell what, counted once for each host; A HOST: for each that was told something\n\
         To hosts that a change is nothing to: {progress} messages of how far the store is, none of what changed\n\
         Whole parts, in pieces: {parts} messages, {part_bytes} bytes\n\
         Faults, and what came of them:\n{faults}\
         Compared: {checks} times a host after a step, {largest_checks} times one with a rule that names the largest group; at rest {quiet_checks} hosts, {whole_checks} of them with all of the inventory compiled\n\
         Agents that began with a cache older than what was enforced: {from_older_cache}\n\
         {violation}seed {seed}, trace {:016x}, violations {}\n",
        table(&outcome.figures),
        outcome.trace,
        u8::from(outcome.violation.is_some()),
    )
}

fn table(figures: &Figures) -> String {
    let mut columns = Columns::new(&[
        "CHANGE",
        "COUNT",
        "HOSTS TOLD 50/90%",
        "OBJECTS 50/90%",
        "A HOST",
        "BYTES EACH",
        "SERVER us 50/90%",
        "AGENT us 50/90%",
        "STEPS 50/90%",
    ]);
    for (class, row) in &figures.rows {
        let Row {
            changes,
            told,
            objects,
            server_us,
            message_bytes,
            agent_us,
            steps,
        } = row;
        let cells = [
            class.to_string(),
            changes.to_string(),
            spread(told),
            spread(objects),
            number(row.objects_a_host()),
            number(message_bytes.median()),
            spread(server_us),
            spread(agent_us),
            spread(steps),
        ];
        columns.row(cells.map(|cell| (cell, Tone::Plain)));
    }
    columns.text()
}

fn spread(of: &Spread) -> String {
    format!("{} / {}", number(of.median()), number(of.percent(90)))
}

fn number(of: Option<u64>) -> String {
    of.map_or_else(|| "-".to_owned(), |number| number.to_string())
}
