//! Two machines on taps of one bridge, and `portcullis run` over the taps.
//!
//! Everything is in the network and mount namespaces that the program made for itself (`main`), so
//! names need not be unique, and nothing is left behind.

use crate::Failure;
use crate::command::{output, run};
use crate::enforcement::Enforcement;
use crate::image::Kernel;
use crate::machine::{Card, Config, Machine};
use std::path::Path;
use std::process::Command;

/// A machine's place in the network.
pub(crate) struct Seat {
    pub(crate) name: &'static str,
    pub(crate) tap: &'static str,
    pub(crate) mac: &'static str,
    pub(crate) v4: &'static str,
    pub(crate) v6: &'static str,
}

pub(crate) const CLIENT: Seat = Seat {
    name: "client",
    tap: "tap-client",
    mac: "02:00:00:00:00:01",
    v4: "10.9.0.1",
    v6: "fd00::1",
};

pub(crate) const SERVER: Seat = Seat {
    name: "server",
    tap: "tap-server",
    mac: "02:00:00:00:00:02",
    v4: "10.9.0.2",
    v6: "fd00::2",
};

const COUNT_FORWARDED: &str = "add table bridge seen; \
     add chain bridge seen forward { type filter hook forward priority 0; }; \
     add rule bridge seen forward counter";

pub(crate) struct Lab<'a> {
    pub(crate) client: Machine,
    pub(crate) server: Machine,
    pub(crate) enforcement: Enforcement<'a>,
}

impl<'a> Lab<'a> {
    /// `directory` is for what is written: policy, log.
    pub(crate) fn start(
        kernel: &Kernel,
        initrd: &Path,
        portcullis: &'a Path,
        directory: &'a Path,
        offloads: bool,
        direct: bool,
    ) -> Result<Self, Failure> {
        ip("link add br0 type bridge")?;
        ip("link set br0 up")?;
        run(Command::new("nft").arg(COUNT_FORWARDED))?;
        let machine = |seat: &Seat| {
            ip(&format!("tuntap add {} mode tap vnet_hdr", seat.tap))?;
            ip(&format!("link set {} master br0 up", seat.tap))?;
            Machine::start(&Config {
                name: seat.name,
                kernel,
                initrd,
                memory_mb: 256,
                card: Some(Card {
                    tap: seat.tap,
                    mac: seat.mac,
                    offloads,
                }),
            })
        };
        let mut lab = Lab {
            client: machine(&CLIENT)?,
            server: machine(&SERVER)?,
            enforcement: Enforcement::new(portcullis, directory, direct),
        };
        settle(&mut lab.client, &CLIENT)?;
        settle(&mut lab.server, &SERVER)?;
        Ok(lab)
    }

    /// Ends the machines and takes the bridge down, for the next lab in the same namespaces.
    pub(crate) fn end(self) -> Result<(), Failure> {
        drop(self);
        for device in [CLIENT.tap, SERVER.tap, "br0"] {
            ip(&format!("link delete {device}"))?;
        }
        run(Command::new("nft").arg("delete table bridge seen"))
    }

    /// Frames that the bridge has forwarded.
    pub(crate) fn forwarded(&self) -> Result<u64, Failure> {
        let text = output(Command::new("nft").arg("list table bridge seen"))?;
        let count = text.split_once("packets ").and_then(|(_, rest)| {
            let number = rest.split_whitespace().next()?;
            number.parse().ok()
        });
        count.ok_or_else(|| Failure::new(format!("no counter in {text:?}")))
    }

    /// Packets and bytes that a tap has taken from its machine.
    pub(crate) fn sent(&self, seat: &Seat) -> Result<(u64, u64), Failure> {
        let text = output(Command::new("ip").args(["-s", "-o", "link", "show", seat.tap]))?;
        let mut numbers = text.split("RX:").nth(1).unwrap_or("").split_whitespace();
        let mut number = || numbers.by_ref().find_map(|word| word.parse::<u64>().ok());
        match (number(), number()) {
            (Some(bytes), Some(packets)) => Ok((packets, bytes)),
            _ => Err(Failure::new(format!(
                "no counters of {} in {text:?}",
                seat.tap
            ))),
        }
    }
}

/// Addresses that are usable at once, and a server on both machines.
fn settle(machine: &mut Machine, seat: &Seat) -> Result<(), Failure> {
    machine.wait_ready()?;
    let (v4, v6) = (seat.v4, seat.v6);
    for line in [
        "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad",
        &format!("ip addr add {v4}/24 dev eth0"),
        "ip link set eth0 up",
        &format!("ip -6 addr add {v6}/64 dev eth0"),
        "(portcullis-vmlab guest serve 80 81 > /tmp/serve 2>&1 &)",
        "until grep -q listening /tmp/serve; do usleep 10000; done",
    ] {
        machine.must(line)?;
    }
    Ok(())
}

pub(crate) fn ip(arguments: &str) -> Result<(), Failure> {
    run(Command::new("ip").args(arguments.split(' ')))
}
