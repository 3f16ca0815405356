//! What only libvirt knows: which VMs run, and the interfaces of those that nobody described.
//!
//! By `virsh`, which has stayed the same for long. A libvirt that doesn't answer is not waited for.

use crate::failure::Failure;
use cloudstack::change::Interface;
use cloudstack::{DeviceName, VmName};
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Libvirt<'a> {
    virsh: &'a Path,
}

/// After this long it won't.
const PATIENCE: Duration = Duration::from_secs(20);

impl<'a> Libvirt<'a> {
    pub(crate) fn by(virsh: &'a Path) -> Self {
        Self { virsh }
    }

    /// Names of the domains that run or are paused.
    pub(crate) fn domains(&self) -> Result<BTreeSet<String>, Failure> {
        let listed = self.ask(&["list", "--name"])?;
        let names = listed
            .lines()
            .map(str::trim)
            .filter(|name| !name.is_empty());
        Ok(names.map(str::to_owned).collect())
    }

    /// Its number, if it runs.
    pub(crate) fn domain(&self, vm: &VmName) -> Option<u32> {
        self.ask(&["domid", vm.as_str()]).ok()?.trim().parse().ok()
    }

    /// Those with a device on a bridge of this host.
    pub(crate) fn interfaces(&self, vm: &VmName) -> Result<Vec<Interface>, Failure> {
        let listed = self.ask(&["domiflist", vm.as_str()])?;
        Ok(listed.lines().filter_map(interface).collect())
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, Failure> {
        let asked = format!("asking libvirt (virsh {})", arguments.join(" "));
        let failed = |what: String| Failure::System(format!("{asked}: {what}"));
        let mut command = Command::new(self.virsh);
        command.args(["--quiet"]).args(arguments);
        let answer = run(command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => failed(format!("{} is not installed", self.virsh.display())),
            _ => failed(error.to_string()),
        })?;
        answer.map_err(|said| {
            failed(
                said.lines()
                    .next()
                    .unwrap_or("it gives no reason")
                    .to_owned(),
            )
        })
    }
}

/// What it prints, or what it says if it fails.
fn run(mut command: Command) -> io::Result<Result<String, String>> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env("LC_ALL", "C")
        .spawn()?;
    let mut out = child.stdout.take().expect("it is piped");
    let mut err = child.stderr.take().expect("it is piped");
    // Each pipe has its reader, so that none fills up.
    let said = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).map(|_| text)
    });
    let printed = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + PATIENCE;
    while !(said.is_finished() && printed.is_finished()) {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    let status = child.wait()?;
    let text = |reader: std::thread::JoinHandle<io::Result<String>>| {
        reader.join().expect("a reader has nothing to panic about")
    };
    let (printed, said) = (text(printed)?, text(said)?);
    Ok(match status.success() {
        true => Ok(printed),
        false => Err(said),
    })
}

/// `vnet3   bridge   cloudbr0   virtio   02:00:4c:5f:00:01`
fn interface(line: &str) -> Option<Interface> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [vif, "bridge", bridge, _, mac] = words[..] else {
        return None;
    };
    Some(Interface {
        vif: DeviceName::new(vif).ok()?,
        bridge: DeviceName::new(bridge).ok()?,
        mac: mac.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn check(line: &str, expected: Option<(&str, &str)>) {
        let found = interface(line);
        let found = found.as_ref().map(|i| (i.vif.as_str(), i.bridge.as_str()));
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn interfaces_are_read_whatever_the_columns_look_like() {
        let on_bridge = Some(("vnet3", "cloudbr0"));
        check(
            " vnet3   bridge   cloudbr0   virtio   02:00:4c:5f:00:01",
            on_bridge,
        );
        check(
            "vnet3\tbridge\tcloudbr0\tvirtio\t02:00:4c:5f:00:01",
            on_bridge,
        );
        check(" Interface   Type     Source     Model    MAC", None);
        check("-------------------------------------------", None);
        check(" -   network   default   virtio   02:00:4c:5f:00:01", None);
        check(" -   bridge   cloudbr0   virtio   02:00:4c:5f:00:01", None);
        check(" vnet3   bridge   cloudbr0   virtio   none", None);
    }

    #[test]
    fn a_virsh_that_fails_or_is_absent_is_told_of() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("virsh");
        let says = |libvirt: Libvirt<'_>| libvirt.domains().expect_err("it fails").text();
        assert!(says(Libvirt::by(&path)).ends_with("is not installed"));
        std::fs::write(
            &path,
            "#!/bin/sh\necho 'error: failed to connect' >&2\nexit 1\n",
        )
        .expect("room");
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, executable).expect("it is ours");
        assert!(
            says(Libvirt::by(&path)).ends_with("(virsh list --name): error: failed to connect")
        );
    }
}
