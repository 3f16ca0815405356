//! An Open vSwitch of the test's own: its database, its daemons, its network namespace, one bridge with two ports.
//! Gone with the value, also after a panic.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) struct Ovs {
    dir: PathBuf,
}

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

static STARTED: AtomicU32 = AtomicU32::new(0);

impl Ovs {
    pub(crate) fn start() -> Self {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("portcullis-openflow-{}-{number}", std::process::id());
        let ovs = Self {
            dir: std::env::temp_dir().join(name),
        };
        std::fs::create_dir(&ovs.dir).expect("a temporary directory");
        let database = ovs.path("conf.db");
        ovs.run("ovsdb-tool", &["create", &database, SCHEMA]);
        let remote = format!("--remote=punix:{}", ovs.path("db.sock"));
        ovs.start_daemon("ovsdb-server", &[&database, &remote]);
        let remote = format!("unix:{}", ovs.path("db.sock"));
        ovs.start_daemon("ovs-vswitchd", &[&remote]);
        ovs.vsctl(
            "add-br br0 -- set bridge br0 datapath_type=netdev protocols=OpenFlow10,OpenFlow14",
        );
        ovs.vsctl("add-port br0 p1 -- set interface p1 type=internal ofport_request=1");
        ovs.vsctl("add-port br0 p2 -- set interface p2 type=internal ofport_request=2");
        ovs
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("br0.mgmt")
    }

    pub(crate) fn vsctl(&self, words: &str) -> String {
        let database = format!("--db=unix:{}", self.path("db.sock"));
        let mut arguments = vec![database.as_str(), "--no-syslog"];
        arguments.extend(words.split(' '));
        self.run("ovs-vsctl", &arguments)
    }

    /// What ovs-ofctl says, in its OpenFlow 1.4.
    pub(crate) fn ofctl(&self, command: &str, arguments: &[&str]) -> String {
        let socket = self.path("br0.mgmt");
        let mut all = vec!["-O", "OpenFlow14", command, &socket];
        all.extend(arguments);
        self.run("ovs-ofctl", &all)
    }

    fn start_daemon(&self, program: &str, arguments: &[&str]) {
        let option = |name, end| format!("--{name}={}", self.path(&format!("{program}.{end}")));
        let (pidfile, control) = (option("pidfile", "pid"), option("unixctl", "ctl"));
        let log = option("log-file", "log");
        let mut all = vec!["-n", program];
        all.extend(arguments);
        all.extend([
            "--detach",
            "--no-chdir",
            "-vconsole:off",
            &pidfile,
            &control,
            &log,
        ]);
        self.run("unshare", &all);
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program)
            .args(arguments)
            .env("OVS_RUNDIR", &self.dir)
            .output()
            .unwrap_or_else(|error| {
                panic!("{program} (Open vSwitch has to be installed): {error}")
            });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let problem = text(&output.stderr);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {problem}"
        );
        text(&output.stdout)
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        for program in ["ovs-vswitchd", "ovsdb-server"] {
            stop(&self.dir.join(format!("{program}.pid")));
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// By its number, and waits until it is gone, so that its namespace is, too.
fn stop(pidfile: &Path) {
    let Ok(pid) = std::fs::read_to_string(pidfile) else {
        return;
    };
    let pid = pid.trim();
    let _ = Command::new("kill").arg(pid).status();
    let process = Path::new("/proc").join(pid);
    for _ in 0..100 {
        if !process.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let _ = Command::new("kill").args(["-9", pid]).status();
}
