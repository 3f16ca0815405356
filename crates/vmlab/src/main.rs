//! Security groups between real virtual machines: what pairs of virtual Ethernet devices don't show,
//! because a tap brings virtio headers, segments larger than the MTU and checksums not yet computed.
//! Also the plane on a kernel that is older than this host's, Debian's own; and the agent killed again
//! and again under load, on this one.
//!
//! Place on the line: none; it runs the `portcullis` command on the taps of emulated machines, and
//! in one, and looks at what arrives. All of it happens in namespaces of its own, which end with it.
//! Knows nothing of: how policy is compiled or enforced; this project's crates.

mod checks;
mod command;
mod enforcement;
mod guest;
mod image;
mod lab;
mod machine;
mod older;
mod soak;

use checks::Tally;
use command::run;
use image::{Contents, Kernel, write_initrd};
use lab::Lab;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Why the lab itself could not go on. A wrong verdict is none.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Failure(text.into())
    }

    fn at(path: &Path, error: io::Error) -> Self {
        Failure(format!("{}: {error}", path.display()))
    }

    fn during(self, what: &str) -> Self {
        Failure(format!("`{what}`: {}", self.0))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const USAGE: &str = "usage: portcullis-vmlab machines|older|soak PORTCULLIS DIRECTORY";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["guest", ..] => guest::main(&arguments[1..]),
        ["inside", part, portcullis, cache] => {
            inside(part, Path::new(portcullis), Path::new(cache))
        }
        [part @ ("machines" | "older" | "soak"), portcullis, cache] => {
            outside(part, Path::new(portcullis), Path::new(cache))
        }
        _ => Err(Failure::new(USAGE)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("vmlab: {failure}");
            ExitCode::from(2)
        }
    }
}

/// What needs the host's network; then all the rest, without it.
fn outside(part: &str, portcullis: &Path, cache: &Path) -> Result<bool, Failure> {
    std::fs::create_dir_all(cache).map_err(|e| Failure::at(cache, e))?;
    if part != "soak" {
        Kernel::fetch(cache)?;
        older::build_tests()?;
    }
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--"])
        .arg(this_program()?)
        .args(["inside", part])
        .args([portcullis, cache])
        .status();
    let status = status.map_err(|error| Failure::new(format!("unshare: {error}")))?;
    Ok(status.success())
}

fn inside(part: &str, portcullis: &Path, cache: &Path) -> Result<bool, Failure> {
    let begin = Instant::now();
    // A plane that this host runs keeps its pins, its state and its agent to itself.
    for (kind, at) in [
        ("bpf", "/sys/fs/bpf"),
        ("tmpfs", "/run"),
        ("tmpfs", "/var/lib"),
    ] {
        run(Command::new("mount").args(["-t", kind, kind, at]))?;
    }
    lab::ip("link set lo up")?;
    let mut tally = Tally::default();
    match part {
        "soak" => soak::run(portcullis, cache, &mut tally)?,
        "older" => older::check(portcullis, cache, &Kernel::fetch(cache)?, &mut tally)?,
        _ => machines(portcullis, cache, &mut tally)?,
    }
    let Tally { right, all } = tally;
    let seconds = begin.elapsed().as_secs();
    println!("{right} of {all} as expected, in {seconds} s");
    Ok(right == all)
}

fn machines(portcullis: &Path, cache: &Path, tally: &mut Tally) -> Result<(), Failure> {
    let kernel = Kernel::fetch(cache)?;
    let initrd = cache.join("initrd");
    let program = this_program()?;
    let contents = Contents {
        modules: &["virtio_mmio", "virtio_net"],
        programs: &[&program],
        ..Contents::default()
    };
    write_initrd(&initrd, &kernel, &contents)?;
    for (offloads, direct) in [(true, false), (false, false), (true, true)] {
        let how = if offloads { "with" } else { "without" };
        let way = if direct { ", straight" } else { "" };
        println!("two machines on taps, {how} offloads{way}");
        let mut lab = Lab::start(&kernel, &initrd, portcullis, cache, offloads, direct)?;
        checks::run(&mut lab, offloads, direct, tally)?;
        lab.end()?;
    }
    older::check(portcullis, cache, &kernel, tally)
}

fn this_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::new(format!("this program's path: {error}")))
}
