//! One emulated machine, told what to do over its serial console.
//!
//! Every wait has an end: a machine that doesn't answer in time is a failure that shows what it
//! printed. Dropping the value ends the machine.

use crate::Failure;
use crate::command::words;
use crate::image::Kernel;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

pub(crate) struct Machine {
    pub(crate) name: String,
    child: Child,
    console: ChildStdin,
    lines: Receiver<String>,
    /// What it printed since the last answer: shown when something fails.
    heard: Vec<String>,
}

pub(crate) struct Config<'a> {
    pub(crate) name: &'a str,
    pub(crate) kernel: &'a Kernel,
    pub(crate) initrd: &'a Path,
    pub(crate) memory_mb: u32,
    pub(crate) card: Option<Card<'a>>,
}

/// The machine's one network card, and the tap that is its other end.
pub(crate) struct Card<'a> {
    pub(crate) tap: &'a str,
    pub(crate) mac: &'a str,
    /// Checksums and segmentation left to the host.
    pub(crate) offloads: bool,
}

pub(crate) struct Answer {
    pub(crate) status: i32,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn succeeded(&self) -> bool {
        self.status == 0
    }
}

/// Emulation is slow, and the host may be busy.
const BOOT: Duration = Duration::from_secs(120);
const ANSWER: Duration = Duration::from_secs(60);

impl Machine {
    /// Starts it; `wait_ready` says when it is up.
    pub(crate) fn start(config: &Config<'_>) -> Result<Machine, Failure> {
        let mut command = emulator(config);
        let started = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn();
        let mut child =
            started.map_err(|error| Failure::new(format!("{}: {error}", words(&command))))?;
        let console = child.stdin.take().expect("it is piped");
        let output = child.stdout.take().expect("it is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Machine {
            name: config.name.to_owned(),
            child,
            console,
            lines,
            heard: Vec::new(),
        })
    }

    pub(crate) fn wait_ready(&mut self) -> Result<(), Failure> {
        self.hear("@@ready", BOOT).map(drop)
    }

    /// Runs a line of shell there.
    pub(crate) fn run(&mut self, line: &str) -> Result<Answer, Failure> {
        self.run_within(line, ANSWER)
    }

    pub(crate) fn run_within(&mut self, line: &str, limit: Duration) -> Result<Answer, Failure> {
        assert!(!line.contains('\n'), "the console takes one line");
        self.heard.clear();
        let written = writeln!(self.console, "{line}").and_then(|()| self.console.flush());
        written.map_err(|error| self.failure(format!("`{line}`: {error}")))?;
        let end = self
            .hear("@@status ", limit)
            .map_err(|failure| failure.during(line))?;
        let status = end.rsplit(' ').next().and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| self.failure(format!("`{line}` ended by {end:?}")))?;
        let text = self.heard.join("\n");
        Ok(Answer { status, text })
    }

    /// As `run`, for what must succeed.
    pub(crate) fn must(&mut self, line: &str) -> Result<String, Failure> {
        let answer = self.run(line)?;
        if answer.succeeded() {
            Ok(answer.text)
        } else {
            Err(self.failure(format!("`{line}` failed with status {}", answer.status)))
        }
    }

    /// The line that begins so; what comes before it is kept in `heard`.
    fn hear(&mut self, prefix: &str, limit: Duration) -> Result<String, Failure> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.starts_with(prefix) => return Ok(line),
                Ok(line) => self.heard.push(line),
                Err(error) => return Err(self.failure(format!("no {prefix:?}: {error}"))),
            }
        }
    }

    fn failure(&self, text: String) -> Failure {
        let heard = self.heard.join("\n    ");
        Failure::new(format!("machine {}: {text}\n    {heard}", self.name))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn emulator(config: &Config<'_>) -> Command {
    // Whatever ends this process ends the machine.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    command
        .args(["-machine", "microvm,accel=tcg", "-cpu", "max", "-smp", "1"])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args(["-serial", "stdio", "-m", &config.memory_mb.to_string()])
        .arg("-kernel")
        .arg(&config.kernel.image)
        .arg("-initrd")
        .arg(config.initrd)
        .arg("-append")
        .arg(format!(
            "console=ttyS0 quiet panic=-1 tsc_early_khz={}",
            clock_khz()
        ));
    if let Some(card) = &config.card {
        let offloads = if card.offloads { "on" } else { "off" };
        let mut device = format!("virtio-net-device,netdev=card,mac={}", card.mac);
        for feature in FEATURES {
            device += &format!(",{feature}={offloads}");
        }
        command
            .args([
                "-netdev",
                &format!("tap,id=card,ifname={},script=no,downscript=no", card.tap),
            ])
            .args(["-device", &device]);
    }
    command
}

/// The host's time-stamp counter, which an emulated one shows. A kernel that has to find out for itself
/// waits for ever when the host is busy at the wrong moment.
fn clock_khz() -> u64 {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("cpu MHz"));
    let mhz = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    // Whole and positive: a wrong guess makes its clock run fast or slow, no more.
    (mhz.unwrap_or(2_000.0) * 1_000.0) as u64
}

/// What the card may leave to the host, in both directions.
const FEATURES: [&str; 10] = [
    "csum",
    "guest_csum",
    "gso",
    "host_tso4",
    "host_tso6",
    "host_ecn",
    "guest_tso4",
    "guest_tso6",
    "guest_ecn",
    "mrg_rxbuf",
];
