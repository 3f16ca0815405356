//! The plane on a kernel that is older than this host's: in a machine with Debian's own, the verifier
//! there takes the object, hooks are by clsact, and the project's own tests of the plane pass.
//!
//! What is run is what this host's `cargo test` built, without its debug information.

use crate::Failure;
use crate::checks::Tally;
use crate::command::{output, run};
use crate::image::{Contents, Kernel, write_initrd};
use crate::machine::{Config, Machine};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Package, test program, and how it is called: emulation is slow.
const TESTS: [(&str, &str, &str); 3] = [
    (
        "portcullis-conformance",
        "scenarios_wire",
        "ONLY_ATTACH=Clsact NO_COLOR=1 scenarios_wire",
    ),
    ("portcullis-conformance", "sockets", "sockets direct::"),
    (
        "portcullis-dataplane-ebpf",
        "conformance",
        "CASES=2000 conformance",
    ),
];

const MODULES: [&str; 6] = [
    "veth",
    "bridge",
    "br_netfilter",
    "tun",
    "sch_ingress",
    "cls_bpf",
];

/// All there is to do takes minutes when emulated.
const LIMIT: Duration = Duration::from_secs(600);

/// Where cargo can reach what it needs.
pub(crate) fn build_tests() -> Result<(), Failure> {
    for (package, test, _) in TESTS {
        built(package, test)?;
    }
    Ok(())
}

pub(crate) fn check(
    portcullis: &Path,
    cache: &Path,
    kernel: &Kernel,
    tally: &mut Tally,
) -> Result<(), Failure> {
    println!("one machine that runs the plane itself");
    let mut programs = vec![program("ip")?];
    let mut lines = Vec::new();
    for (package, test, call) in TESTS {
        programs.push(stripped(&built(package, test)?, &cache.join(test))?);
        lines.push(call.to_owned());
    }
    programs.push(stripped(portcullis, &cache.join("portcullis"))?);
    lines.push("portcullis selftest --plane ebpf --cases 2000 --seed 1".to_owned());
    // Test programs look for these where they were built.
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let repository = repository
        .canonicalize()
        .map_err(|e| Failure::at(&repository, e))?;
    let directories = [
        repository.join("scenarios"),
        repository.join("crates/conformance"),
        repository.join("crates/dataplane-ebpf"),
    ];

    let initrd = cache.join("initrd-plane");
    let contents = Contents {
        modules: &MODULES,
        programs: &programs.iter().map(PathBuf::as_path).collect::<Vec<_>>(),
        directories: &directories.iter().map(PathBuf::as_path).collect::<Vec<_>>(),
    };
    write_initrd(&initrd, kernel, &contents)?;
    let mut machine = Machine::start(&Config {
        name: "host",
        kernel,
        initrd: &initrd,
        memory_mb: 2048,
        card: None,
    })?;
    machine.wait_ready()?;
    let release = machine.must("uname -r")?;
    for line in lines {
        let answer = machine.run_within(&line, LIMIT)?;
        let last = answer
            .text
            .lines()
            .rfind(|line| line.contains("test result") || line.ends_with("mismatches"));
        let what = format!("{line} on {release}");
        tally.row(&what, answer.succeeded(), last.unwrap_or_default());
        if !answer.succeeded() {
            println!("{}", answer.text);
        }
    }
    Ok(())
}

/// The test program that cargo has built, or builds now.
fn built(package: &str, test: &str) -> Result<PathBuf, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["test", "--quiet", "--no-run", "--message-format=json"])
        .args(["--package", package, "--test", test]);
    let messages = output(&mut command)?;
    let executable = messages.rsplit_once("\"executable\":\"");
    let path = executable.and_then(|(_, rest)| rest.split('"').next());
    path.map(PathBuf::from)
        .ok_or_else(|| Failure::new(format!("cargo names no program for the test {test}")))
}

fn stripped(program: &Path, to: &Path) -> Result<PathBuf, Failure> {
    run(Command::new("strip").arg("-o").arg(to).arg(program))?;
    Ok(to.to_owned())
}

fn program(name: &str) -> Result<PathBuf, Failure> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths)
        .map(|directory| directory.join(name))
        .find_map(|path| fs::canonicalize(path).ok())
        .ok_or_else(|| Failure::new(format!("no program {name} in the PATH")))
}
