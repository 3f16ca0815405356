//! An ovsdb-server and an ovs-vswitchd of a test's own, with one bridge. They are killed and their files
//! removed when it is dropped, also by a panic; if the test's thread ends in another way, the kernel kills
//! them.

use portcullis_ovsdb::{Control, Database, vswitchd_socket};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) const BRIDGE: &str = "br0";

pub(crate) const V4: &str = "eth_type=0x800,nw_src=10.0.0.1,nw_dst=10.0.0.2";

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Instance {
    directory: PathBuf,
    server: Child,
    switch: Child,
}

impl Instance {
    pub(crate) fn start() -> Self {
        static INSTANCES: AtomicU32 = AtomicU32::new(0);
        let number = INSTANCES.fetch_add(1, Ordering::Relaxed);
        let name = format!("pc-ovsdb-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).expect("a directory");
        let at = directory.display();
        let made = tool(
            &directory,
            &format!("ovsdb-tool create {at}/conf.db /usr/share/openvswitch/vswitch.ovsschema"),
        );
        assert_eq!(made, "");
        let server = daemon(
            &directory,
            &format!("ovsdb-server {at}/conf.db --remote=punix:{at}/db.sock"),
        );
        let switch = daemon(&directory, &format!("ovs-vswitchd unix:{at}/db.sock"));
        let instance = Self {
            directory,
            server,
            switch,
        };
        let answers =
            |socket: PathBuf| instance.eventually(|| UnixStream::connect(&socket).is_ok());
        assert!(answers(instance.database_socket()), "ovsdb-server answers");
        instance.vsctl("--no-wait init");
        instance.vsctl(&format!(
            "add-br {BRIDGE} -- set bridge {BRIDGE} datapath_type=netdev"
        ));
        instance
    }

    pub(crate) fn database_socket(&self) -> PathBuf {
        self.directory.join("db.sock")
    }

    pub(crate) fn database(&self) -> Database {
        Database::connect(&self.database_socket()).expect("ovsdb-server answers")
    }

    pub(crate) fn control(&self) -> Control {
        let socket = vswitchd_socket(&self.directory).expect("it is there");
        Control::connect(&socket).expect("ovs-vswitchd answers")
    }

    pub(crate) fn vsctl(&self, arguments: &str) -> String {
        tool(
            &self.directory,
            &format!("ovs-vsctl --timeout=20 {arguments}"),
        )
    }

    /// In the switch's network namespace.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let switch = self.switch.id();
        let line = format!("nsenter --net=/proc/{switch}/ns/net ip {arguments}");
        tool(&self.directory, &line)
    }

    /// A UDP packet to this port number, which is committed to the zone.
    pub(crate) fn send(&self, zone: u16, port: u16) {
        let flow = format!("{V4},nw_proto=17,udp_src=1000,udp_dst={port}");
        self.send_flow(zone, &flow);
    }

    pub(crate) fn send_flow(&self, zone: u16, flow: &str) {
        let line = format!("ovs-ofctl compose-packet {flow},nw_ttl=9");
        let composed = tool(&self.directory, &line);
        let packet: String = composed
            .lines()
            .flat_map(|line| line.split_whitespace().skip(1))
            .flat_map(|word| word.split('-'))
            .collect();
        self.send_packet(zone, &packet);
    }

    /// In hexadecimal digits.
    pub(crate) fn send_packet(&self, zone: u16, packet: &str) {
        let actions = format!("ct(commit,zone={zone}),output:local");
        let what = format!("in_port=controller,packet={packet},actions={actions}");
        tool(
            &self.directory,
            &format!("ovs-ofctl packet-out {BRIDGE} {what}"),
        );
    }

    pub(crate) fn kill_switch(&mut self) {
        end(&mut self.switch);
    }

    pub(crate) fn kill_server(&mut self) {
        end(&mut self.server);
    }

    pub(crate) fn eventually(&self, mut holds: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        end(&mut self.switch);
        end(&mut self.server);
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("{}: {error}", self.directory.display());
        }
    }
}

/// In a network namespace of its own: a bridge has a device there.
fn daemon(directory: &Path, line: &str) -> Child {
    let mut words = line.split_whitespace();
    let name = words.next().expect("a program");
    let file = |kind| format!("{}/{name}.{kind}", directory.display());
    command(directory, "unshare")
        .args(["--net", "setpriv", "--pdeathsig", "KILL", name])
        .args(words)
        .arg("--no-chdir")
        .arg(format!("--pidfile={}", file("pid")))
        .arg(format!("--unixctl={}", file("ctl")))
        .arg(format!("--log-file={}", file("log")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("{line}: {e}"))
}

fn tool(directory: &Path, line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = command(directory, words.next().expect("a program"))
        .args(words)
        .output()
        .unwrap_or_else(|e| panic!("{line}: {e}"));
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {complaints}");
    String::from_utf8(output.stdout).expect("text")
}

fn command(directory: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR"] {
        command.env(variable, directory);
    }
    command
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    child.wait().expect("it is our child");
}
