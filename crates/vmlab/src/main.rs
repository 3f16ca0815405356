//! Security groups between real virtual machines: what pairs of virtual Ethernet devices don't show,
//! because a tap brings virtio headers, segments larger than the MTU and checksums not yet computed.
//!
//! Place on the line: none; it runs the `portcullis` command on the taps of emulated machines and
//! looks at what arrives. All of it happens in namespaces of its own, which end with it.
//! Knows nothing of: how policy is compiled or enforced; this project's crates.
//!
//! Usage: portcullis-vmlab PORTCULLIS CACHE

mod command;
mod image;
mod machine;

use command::run;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};

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

fn main() -> ExitCode {
    match lab() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("vmlab: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn lab() -> Result<(), Failure> {
    let cache = Path::new("target/vm");
    let kernel = image::Kernel::fetch(cache)?;
    let initrd = cache.join("initrd");
    image::write_initrd(&initrd, &kernel, &["virtio_mmio", "virtio_net"], None)?;
    run(Command::new("ip").args(["link", "add", "br0", "type", "bridge"]))?;
    run(Command::new("ip").args(["link", "set", "br0", "up"]))?;
    let mut machines = Vec::new();
    for n in ["1", "2"] {
        let tap = format!("tap{n}");
        run(Command::new("ip").args(["tuntap", "add", &tap, "mode", "tap", "vnet_hdr"]))?;
        run(Command::new("ip").args(["link", "set", &tap, "master", "br0", "up"]))?;
        let mac = format!("02:00:00:00:00:0{n}");
        machines.push(machine::Machine::start(&machine::Config {
            name: n,
            kernel: &kernel,
            initrd: &initrd,
            memory_mb: 128,
            card: Some(machine::Card {
                tap: &tap,
                mac: &mac,
                offloads: true,
            }),
        })?);
    }
    for (machine, n) in machines.iter_mut().zip(1..) {
        machine.wait_ready()?;
        println!(
            "{}",
            machine.must(&format!(
                "ip addr add 10.9.0.{n}/24 dev eth0; ip link set eth0 up; ip addr; uname -r"
            ))?
        );
    }
    println!("{}", machines[0].must("ping -c 3 -i 0.2 10.9.0.2")?);
    machines[1].must("(nc -l -p 80 | md5sum > /tmp/sum) & true")?;
    println!(
        "{}",
        machines[0].must("dd if=/dev/zero bs=1M count=16 2>/dev/null | nc 10.9.0.2 80")?
    );
    println!(
        "{}",
        machines[1].must("until grep -q - /tmp/sum; do usleep 10000; done; cat /tmp/sum")?
    );
    println!(
        "{}",
        command::output(Command::new("ip").args(["-s", "link", "show", "tap1"]))?
    );
    Ok(())
}
