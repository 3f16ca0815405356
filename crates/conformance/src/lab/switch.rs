//! An Open vSwitch on a lab's host, with the datapath that is ovs-vswitchd's own: no kernel module.
//!
//! The daemons are killed when their [`OpenVswitch`] is dropped, and by the kernel when the process dies
//! in whatever way. Their directory is removed on drop only; what a killed process left of it is a log and a
//! small database.
//!
//! What this datapath does otherwise than a bridge of the kernel:
//! - It opens devices by packet sockets, and computes no checksums: a VM's [`Offload::TxChecksum`] must be off,
//!   or its TCP and UDP packets arrive with a sum that the other end drops.
//! - Flows and connections live in ovs-vswitchd: killed, it forwards nothing, and knows nothing afterwards.
//!
//! Place on the line: around it. Knows nothing of: policies, planes, verdicts.
//!
//! [`Offload::TxChecksum`]: super::Offload::TxChecksum

use super::{LabError, Namespace, failed, spawn_daemon};
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The daemons answer well within this, or not at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// ovsdb-server and ovs-vswitchd of one lab host, in its namespace and a run directory of their own.
pub struct OpenVswitch {
    directory: PathBuf,
    host: Namespace,
    clock: bool,
    /// `None` after it was killed.
    database: Option<Child>,
    vswitchd: Option<Child>,
}

impl OpenVswitch {
    pub fn start(host: &Namespace) -> Result<Self, LabError> {
        Self::start_as(host, new_directory(), false)
    }

    /// In a directory of the caller's naming, which is made: what a killed process leaves is found there.
    pub fn start_in(directory: PathBuf, host: &Namespace) -> Result<Self, LabError> {
        Self::start_as(host, directory, false)
    }

    /// Its clock can be moved ([`OpenVswitch::warp`]).
    pub fn start_with_clock(host: &Namespace) -> Result<Self, LabError> {
        Self::start_as(host, new_directory(), true)
    }

    fn start_as(host: &Namespace, directory: PathBuf, clock: bool) -> Result<Self, LabError> {
        fs::create_dir(&directory).map_err(failed(format!("making {}", directory.display())))?;
        let mut switch = Self {
            directory,
            host: host.clone(),
            clock,
            database: None,
            vswitchd: None,
        };
        let file = switch.path("conf.db");
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        switch.tool("ovsdb-tool", &["create", &file, schema])?;
        switch.start_database()?;
        switch.vsctl("--no-wait init")?;
        switch.start_vswitchd()?;
        Ok(switch)
    }

    /// With `db.sock`, `<bridge>.mgmt`, `ovs-vswitchd.ctl`, `ovsdb-server.ctl`, their pidfiles and logs.
    pub fn run_dir(&self) -> &Path {
        &self.directory
    }

    pub fn database_socket(&self) -> PathBuf {
        self.directory.join("db.sock")
    }

    /// A bridge, which passes on as an ordinary switch does; if it is secure, nothing before it has flows.
    pub fn add_bridge(&self, name: &str, secure: bool) -> Result<(), LabError> {
        let mode = if secure { "secure" } else { "standalone" };
        let line =
            format!("add-br {name} -- set bridge {name} datapath_type=netdev fail_mode={mode}");
        self.vsctl(&line).map(|_| ())
    }

    /// Connects a device of the host; its number in OpenFlow. It passes packets from then on.
    pub fn add_port(
        &self,
        bridge: &str,
        device: &str,
        external_ids: &[(&str, &str)],
    ) -> Result<u32, LabError> {
        let ids = external_ids
            .iter()
            .map(|(key, value)| format!("external_ids:{key}={value:?}"));
        let ids: Vec<String> = ids.collect();
        let mut arguments = vec!["--timeout=20", "add-port", bridge, device];
        if !ids.is_empty() {
            arguments.extend(["--", "set", "interface", device]);
            arguments.extend(ids.iter().map(String::as_str));
        }
        self.tool("ovs-vsctl", &arguments)?;
        let number = self.vsctl(&format!("get interface {device} ofport"))?;
        number.trim().parse().map_err(|_| {
            let step = format!("connecting {device} to {bridge}: OpenFlow number {number}");
            failed(step)(io::ErrorKind::NotFound.into())
        })
    }

    /// `ovs-vsctl`, words apart by blanks: it waits until ovs-vswitchd has acted on it, but not for ever.
    pub fn vsctl(&self, arguments: &str) -> Result<String, LabError> {
        self.tool("ovs-vsctl", &words("--timeout=20", arguments))
    }

    pub fn ofctl(&self, arguments: &str) -> Result<String, LabError> {
        self.tool("ovs-ofctl", &words("--timeout=20", arguments))
    }

    /// To ovs-vswitchd.
    pub fn appctl(&self, arguments: &str) -> Result<String, LabError> {
        let target = format!("--target={}", self.path("ovs-vswitchd.ctl"));
        let arguments = words(&target, arguments);
        self.tool("ovs-appctl", &arguments)
    }

    /// Moves the clock of ovs-vswitchd on, at once; after that it goes on as ever. Connections that have
    /// expired by then are gone for the next packet. Flows of OpenFlow with timeouts expire as well.
    pub fn warp(&self, by: Duration) -> Result<(), LabError> {
        let line = format!("time/warp {}", by.as_millis());
        self.appctl(&line).map(|_| ())
    }

    /// The process id of ovs-vswitchd, if it wasn't killed.
    pub fn vswitchd_process(&self) -> Option<u32> {
        self.vswitchd.as_ref().map(Child::id)
    }

    /// As `kill -9` does.
    pub fn kill_vswitchd(&mut self) -> Result<(), LabError> {
        end(&mut self.vswitchd)
    }

    /// Returns when the bridges are there again, without flows of OpenFlow.
    pub fn start_vswitchd(&mut self) -> Result<(), LabError> {
        let database = format!("unix:{}", self.path("db.sock"));
        let mut arguments = vec![database];
        if self.clock {
            arguments.push("--enable-dummy".to_owned());
        }
        self.vswitchd = Some(self.daemon("ovs-vswitchd", &arguments)?);
        self.wait_for("ovs-vswitchd.ctl")?;
        self.wait_for_configuration()
    }

    /// As `kill -9` does. Without it the main thread of ovs-vswitchd, by which this datapath forwards, does
    /// nothing, also for OpenFlow; only its control socket is answered.
    pub fn kill_database(&mut self) -> Result<(), LabError> {
        end(&mut self.database)
    }

    /// Returns when ovs-vswitchd, if it runs, has found it.
    pub fn start_database(&mut self) -> Result<(), LabError> {
        let arguments = [
            self.path("conf.db"),
            format!("--remote=punix:{}", self.path("db.sock")),
        ];
        self.database = Some(self.daemon("ovsdb-server", &arguments)?);
        self.wait_for("db.sock")?;
        match self.vswitchd {
            Some(_) => self.wait_for_configuration(),
            None => Ok(()),
        }
    }

    /// Until ovs-vswitchd has acted on what the database says. An order that changes nothing wouldn't be
    /// waited for.
    fn wait_for_configuration(&self) -> Result<(), LabError> {
        static ORDERS: AtomicU32 = AtomicU32::new(0);
        let number = ORDERS.fetch_add(1, Ordering::Relaxed);
        let order = format!("set Open_vSwitch . external_ids:portcullis-lab-order={number}");
        self.vsctl(&order).map(|_| ())
    }

    fn daemon(&self, program: &str, arguments: &[String]) -> Result<Child, LabError> {
        let file = |kind: &str| self.path(&format!("{program}.{kind}"));
        // Left by one that was killed, it would be taken for that of the new one.
        let _ = fs::remove_file(file("ctl"));
        let mut command = self.command(program);
        command.args(arguments).args([
            "--no-chdir".to_owned(),
            format!("--pidfile={}", file("pid")),
            format!("--unixctl={}", file("ctl")),
            format!("--log-file={}", file("log")),
        ]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let started = spawn_daemon(command, self.host.clone());
        started.map_err(failed(format!("starting {program}")))
    }

    /// Until somebody listens at the socket.
    fn wait_for(&self, socket: &str) -> Result<(), LabError> {
        let socket = self.directory.join(socket);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(&socket) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    let step = format!("waiting for {}", socket.display());
                    return Err(failed(step)(error));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn tool(&self, program: &str, arguments: &[&str]) -> Result<String, LabError> {
        let step = || failed(format!("`{program} {}`", arguments.join(" ")));
        let Output {
            status,
            stdout,
            stderr,
        } = self
            .command(program)
            .args(arguments)
            .output()
            .map_err(step())?;
        match status.success() {
            true => Ok(String::from_utf8_lossy(&stdout).into_owned()),
            false => {
                let said = String::from_utf8_lossy(&stderr);
                Err(step()(io::Error::other(said.trim().to_owned())))
            }
        }
    }

    /// Of this instance, not of one that the machine may have.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, &self.directory);
        }
        command
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

impl Drop for OpenVswitch {
    fn drop(&mut self) {
        // There is nobody to tell if one of it fails.
        let _ = self.kill_vswitchd();
        let _ = self.kill_database();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn new_directory() -> PathBuf {
    static SWITCHES: AtomicU32 = AtomicU32::new(0);
    let number = SWITCHES.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("pc-{}-{number}", std::process::id()))
}

fn words<'a>(first: &'a str, rest: &'a str) -> Vec<&'a str> {
    [first].into_iter().chain(rest.split_whitespace()).collect()
}

fn end(child: &mut Option<Child>) -> Result<(), LabError> {
    let Some(mut child) = child.take() else {
        return Ok(());
    };
    let ended = child.kill().and_then(|()| child.wait().map(|_| ()));
    ended.map_err(failed(format!("killing process {}", child.id())))
}
