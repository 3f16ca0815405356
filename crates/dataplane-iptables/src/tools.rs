//! Who writes to the kernel: each step is one call of a program, or of our own. Rules and the link take all of a
//! step or nothing; of a step about address sets a part may be done when it fails.
//!
//! Place on the line: steps -> **execute**.
//! Knows nothing of: what the scripts mean.

use crate::parts::Table;
use crate::plan::{Step, Work};
use crate::sets;
use dataplane::ApplyError;
use hurry::Hurry;
use model::Family;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which of the two implementations of iptables the host's rules are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Backend {
    Legacy,
    Nft,
}

impl Backend {
    pub fn name(self) -> &'static str {
        match self {
            Backend::Legacy => "legacy",
            Backend::Nft => "nft",
        }
    }

    fn other(self) -> Self {
        match self {
            Backend::Legacy => Backend::Nft,
            Backend::Nft => Backend::Legacy,
        }
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    pub(crate) backend: Backend,
    ipset: PathBuf,
    nft: PathBuf,
    /// By family.
    restore: [PathBuf; 2],
    save: [PathBuf; 2],
    /// How many of them were started.
    started: Arc<AtomicU64>,
}

/// Steps of which one failed.
#[derive(Debug)]
pub(crate) struct Broken {
    /// So many before it were carried out.
    pub(crate) done: usize,
    pub(crate) error: ApplyError,
}

impl From<Broken> for ApplyError {
    fn from(broken: Broken) -> Self {
        broken.error
    }
}

/// How long to wait for whoever else is changing iptables' tables.
const LOCK_S: &str = "60";

impl Tools {
    /// `wanted`: of the two back ends of iptables; `None`: that which `iptables` on this host stands for.
    pub(crate) fn find(wanted: Option<Backend>) -> io::Result<Self> {
        let plain = find("iptables-restore")?;
        let default = match plain.canonicalize()?.to_string_lossy().contains("nft") {
            true => Backend::Nft,
            false => Backend::Legacy,
        };
        let backend = wanted.unwrap_or(default);
        // A host may have just the one, under the plain name.
        let variant = |name: &str, verb: &str| match backend == default {
            true => find(&format!("{name}-{verb}")),
            false => find(&format!("{name}-{}-{verb}", backend.name())),
        };
        Ok(Self {
            backend,
            ipset: find("ipset")?,
            nft: find("nft")?,
            restore: [
                variant("iptables", "restore")?,
                variant("ip6tables", "restore")?,
            ],
            save: [variant("iptables", "save")?, variant("ip6tables", "save")?],
            started: Arc::default(),
        })
    }

    /// Those of the other back end, if they are here and may have something.
    pub(crate) fn other(&self) -> io::Result<Option<Self>> {
        let other = self.backend.other();
        let used = match other {
            Backend::Nft => true,
            // To list its tables would set them up.
            Backend::Legacy => {
                let tables = Family::BOTH.map(netfilter::legacy::tables);
                let [v4, v6] = tables.map(|tables| tables.map_err(io::Error::other));
                !(v4?.is_empty() && v6?.is_empty())
            }
        };
        match Self::find(Some(other)) {
            Ok(tools) => Ok(used.then_some(Self {
                started: Arc::clone(&self.started),
                ..tools
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs the steps in order, and fast.
    pub(crate) fn execute(&self, steps: &[Step]) -> Result<u64, Broken> {
        let _hurry = (!steps.is_empty()).then(Hurry::up);
        self.execute_patiently(steps)
    }

    /// Without a wish that is the whole host's. Those of the two families that stand together run at once.
    pub(crate) fn execute_patiently(&self, steps: &[Step]) -> Result<u64, Broken> {
        let mut writes = 0;
        let mut rest = steps;
        while let [first, behind @ ..] = rest {
            let pair = match (&first.work, behind.first().map(|second| &second.work)) {
                (Work::Iptables(Family::V4, _), Some(Work::Iptables(Family::V6, _))) => 2,
                _ => 1,
            };
            let (now, later) = rest.split_at(pair);
            let running: Vec<_> = now.iter().map(|step| self.start(step)).collect();
            // All of them end before any failure is told.
            let ended: Vec<_> = running
                .into_iter()
                .map(|begun| begun.and_then(|running| running.map_or(Ok(()), Running::end)))
                .collect();
            for (step, ended) in now.iter().zip(ended) {
                let done = steps.len() - rest.len();
                ended.map_err(|source| Broken {
                    done,
                    error: failed(step, source),
                })?;
                writes += step.writes;
            }
            rest = later;
        }
        Ok(writes)
    }

    /// Takes back, as far as it can be, what a change has done before it broke. `switched`: it got as far as the
    /// link.
    pub(crate) fn withdraw(&self, back: &[Step], switched: bool) {
        for step in back {
            let is_link = matches!(step.work, Work::Link(_));
            if is_link && !switched {
                continue;
            }
            let failed = self.execute(std::slice::from_ref(step)).is_err();
            if failed && is_link {
                // The link still leads to what would go next.
                return;
            }
        }
    }

    /// `None`: it is done.
    fn start(&self, step: &Step) -> io::Result<Option<Running>> {
        let nft: &[&str] = &["-f", "-"];
        let done = |()| None;
        match &step.work {
            Work::Sets(changes) => sets::make(changes).map(done).map_err(io::Error::other),
            Work::Link(change) => match change.is_for_kernel().map_err(io::Error::other)? {
                true => change.commit().map(done).map_err(io::Error::other),
                false => self.run(&self.nft, nft, &change.script()),
            },
            Work::Nft(script) => self.run(&self.nft, nft, script),
            Work::Ipset(script) => self.run(&self.ipset, &["restore"], script),
            Work::Iptables(family, script) => {
                let program = &self.restore[*family as usize];
                self.run(program, &["--noflush", "-w", LOCK_S], script)
            }
        }
    }

    fn run(&self, program: &Path, arguments: &[&str], script: &str) -> io::Result<Option<Running>> {
        self.started.fetch_add(1, Ordering::Relaxed);
        Running::start(program, arguments, script).map(Some)
    }

    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    pub(crate) fn save(&self, family: Family) -> io::Result<String> {
        self.read(&self.save[family as usize], &[])
    }

    /// With the counters of each rule.
    pub(crate) fn save_counted(&self, family: Family, table: Table) -> io::Result<String> {
        self.read(&self.save[family as usize], &["-c", "-t", table.name()])
    }

    pub(crate) fn nft(&self, arguments: &[&str]) -> io::Result<String> {
        self.read(&self.nft, arguments)
    }

    pub(crate) fn ipset(&self, arguments: &[&str]) -> io::Result<String> {
        self.read(&self.ipset, arguments)
    }

    fn read(&self, program: &Path, arguments: &[&str]) -> io::Result<String> {
        self.started.fetch_add(1, Ordering::Relaxed);
        let output = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(io::Error::other(said(&name(program), &output.stderr))),
        }
    }
}

struct Running {
    name: String,
    child: Child,
}

impl Running {
    fn start(program: &Path, arguments: &[&str], script: &str) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().expect("it is piped");
        // A program that ends early says why on its stderr.
        let _ = stdin.write_all(script.as_bytes());
        let name = name(program);
        Ok(Self { name, child })
    }

    fn end(self) -> io::Result<()> {
        let output = self.child.wait_with_output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(said(&self.name, &output.stderr))),
        }
    }
}

fn said(name: &str, stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("it gives no reason");
    match first.starts_with(name) {
        true => first.to_owned(),
        false => format!("{name}: {first}"),
    }
}

/// What it tried, in as few words as an operator needs.
fn failed(step: &Step, source: io::Error) -> ApplyError {
    let what = match step.work {
        Work::Ipset(_) | Work::Sets(_) => "changing address sets",
        Work::Nft(_) | Work::Link(_) => "changing the guard",
        Work::Iptables(Family::V4, _) => "changing the rules of IPv4",
        Work::Iptables(Family::V6, _) => "changing the rules of IPv6",
    };
    ApplyError {
        step: what.to_owned(),
        source,
    }
}

fn name(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// In the path, and where administrators' programs are: a service's path may leave these out.
fn find(program: &str) -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let places = std::env::split_paths(&path).chain(more);
    let found = places
        .map(|place| place.join(program))
        .find(|file| file.is_file());
    found.ok_or_else(|| {
        let text = format!("{program} is not installed");
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}
