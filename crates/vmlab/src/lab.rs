//! Two machines on taps of one bridge, and `portcullis run` over the taps.
//!
//! Everything is in the network and mount namespaces that the program made for itself (`main`), so
//! names need not be unique, and nothing is left behind.

use crate::Failure;
use crate::command::{output, run, words};
use crate::image::Kernel;
use crate::machine::{Card, Config, Machine};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

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

pub(crate) struct Lab<'a> {
    pub(crate) client: Machine,
    pub(crate) server: Machine,
    portcullis: &'a Path,
    directory: &'a Path,
    agent: Option<Agent>,
}

/// `portcullis run`, killed when dropped: its enforcement stays, as it should.
struct Agent {
    child: Child,
    log: PathBuf,
}

/// Of `portcullis status -o json`: which process says so, the newest revision, and the enforced one.
#[derive(Debug, Default, PartialEq, Eq)]
struct InForce {
    agent: String,
    read: String,
    applied: String,
}

/// A write of the policy to its enforcement, on a host that emulates two machines besides.
const ENFORCED: Duration = Duration::from_secs(20);

impl<'a> Lab<'a> {
    /// `directory` is for what is written: policy, log.
    pub(crate) fn start(
        kernel: &Kernel,
        initrd: &Path,
        portcullis: &'a Path,
        directory: &'a Path,
        offloads: bool,
    ) -> Result<Self, Failure> {
        ip("link add br0 type bridge")?;
        ip("link set br0 up")?;
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
            portcullis,
            directory,
            agent: None,
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
        Ok(())
    }

    /// Writes the policy file, starts the agent if there is none, and waits until it is enforced.
    pub(crate) fn enforce(&mut self, policy: &str) -> Result<(), Failure> {
        let before = self.in_force().unwrap_or_default();
        let path = self.directory.join("policy.yaml");
        let new = self.directory.join("policy.new");
        fs::write(&new, policy).map_err(|e| Failure::at(&new, e))?;
        fs::rename(&new, &path).map_err(|e| Failure::at(&path, e))?;
        if self.agent.is_none() {
            self.start_agent()?;
        }
        self.wait_enforced(&before)
    }

    fn start_agent(&mut self) -> Result<(), Failure> {
        let log = self.directory.join("portcullis.log");
        let file = File::create(&log).map_err(|e| Failure::at(&log, e))?;
        let mut command = Command::new(self.portcullis);
        command
            .args(["run", "--policy"])
            .arg(self.directory.join("policy.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        let child = command.spawn();
        let child = child.map_err(|e| Failure::new(format!("{}: {e}", words(&command))))?;
        self.agent = Some(Agent { child, log });
        Ok(())
    }

    /// `kill -9`.
    pub(crate) fn kill_agent(&mut self) {
        self.agent = None;
    }

    /// Until something else is in force than before, and it is the newest policy.
    fn wait_enforced(&mut self, before: &InForce) -> Result<(), Failure> {
        let end = Instant::now() + ENFORCED;
        loop {
            let now = self.in_force();
            if let Ok(now) = &now
                && now != before
                && now.read == now.applied
                && now.applied != "null"
            {
                return Ok(());
            }
            let agent = self.agent.as_mut().expect("it was started");
            let ended = agent.child.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() > end {
                let said = fs::read_to_string(&agent.log).unwrap_or_default();
                let state = ended.map_or("runs".to_owned(), |status| status.to_string());
                return Err(Failure::new(format!(
                    "the policy isn't enforced: {now:?}; the agent ({state}) said:\n{said}"
                )));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn in_force(&self) -> Result<InForce, Failure> {
        let text = output(Command::new(self.portcullis).args(["status", "-o", "json"]))?;
        let field = |name: &str| {
            let (_, rest) = text.split_once(&format!("\"{name}\":"))?;
            let end = rest.find([',', '}', '\n'])?;
            Some(rest[..end].trim().to_owned())
        };
        let fields = (field("pid"), field("read"), field("applied"));
        let (Some(agent), Some(read), Some(applied)) = fields else {
            return Err(Failure::new(format!("portcullis status says: {text}")));
        };
        Ok(InForce {
            agent,
            read,
            applied,
        })
    }

    pub(crate) fn detach(&mut self) -> Result<(), Failure> {
        self.kill_agent();
        run(Command::new(self.portcullis).arg("detach"))
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

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
