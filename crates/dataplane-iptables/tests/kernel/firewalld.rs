//! firewalld on the host, with a bus of its own, by either of its back ends.

use crate::bed::Bed;
use crate::foreign::{POLICY, audited};
use crate::restart::verified;
use crate::sharing::three;
use portcullis_dataplane_iptables::Backend;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Whichever its own rules are in: it empties all of iptables' tables, whoever made what is in them.
fn what_it_takes_away_comes_back(backend: &str) {
    let mut bed = three(Backend::Nft);
    let firewalld = Firewalld::start(&bed, backend);
    bed.apply(POLICY);
    assert_eq!(audited(&mut bed), []);
    firewalld.reload(&bed);
    assert_ne!(audited(&mut bed), []);
    bed.apply(POLICY);
    assert_eq!(verified(&mut bed), []);
    assert_eq!(audited(&mut bed), []);
}

#[test]
fn by_nftables() {
    what_it_takes_away_comes_back("nftables");
}

#[test]
fn by_iptables() {
    what_it_takes_away_comes_back("iptables");
}

struct Firewalld {
    bus: String,
    children: Vec<Child>,
    directory: TempDir,
}

const BUS: &str = r#"<busconfig>
 <type>system</type><listen>unix:path=SOCKET</listen><auth>EXTERNAL</auth>
 <policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy>
</busconfig>"#;

impl Firewalld {
    fn start(bed: &Bed, backend: &str) -> Self {
        let directory = tempfile::tempdir().expect("there is room");
        let path = |name: &str| directory.path().join(name).display().to_string();
        let socket = path("bus");
        fs::write(path("bus.conf"), BUS.replace("SOCKET", &socket)).expect("there is room");
        fs::create_dir(path("etc")).expect("there is room");
        let settings = format!("DefaultZone=trusted\nFirewallBackend={backend}\n");
        fs::write(path("etc/firewalld.conf"), settings).expect("there is room");
        let mut firewalld = Self {
            bus: format!("unix:path={socket}"),
            children: Vec::new(),
            directory,
        };
        let config = format!("--config-file={}", firewalld.path("bus.conf"));
        firewalld.spawn(bed, &["dbus-daemon", "--nofork", "--nopidfile", &config]);
        wait_for("the bus", || Path::new(&socket).exists());
        let system = format!("--system-config={}", firewalld.path("etc"));
        let log = format!("--log-file={}", firewalld.path("log"));
        firewalld.spawn(bed, &["firewalld", "--nofork", "--nopid", &system, &log]);
        wait_for("firewalld", || firewalld.ask(bed, "--state"));
        firewalld
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn reload(&self, bed: &Bed) {
        assert!(self.ask(bed, "--reload"), "firewalld reloads");
    }

    fn ask(&self, bed: &Bed, word: &str) -> bool {
        let mut command = Command::new("firewall-cmd");
        command.arg(word).env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let status = bed.lab.host().run(move || command.status());
        status.expect("firewalld is installed").success()
    }

    fn spawn(&mut self, bed: &Bed, words: &[&str]) {
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = bed.lab.host().run(move || command.spawn());
        self.children.push(child.expect("it is installed"));
    }
}

impl Drop for Firewalld {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn wait_for(what: &str, there: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !there() {
        assert!(Instant::now() < deadline, "{what} doesn't come");
        std::thread::sleep(Duration::from_millis(20));
    }
}
