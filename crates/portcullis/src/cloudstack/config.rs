//! How a CloudStack host is set up: one file of `key = value` lines, which need not be there.
//!
//! Nothing here is asked for by CloudStack; what is unusual about a host is said once, by its operator.

use crate::failure::Failure;
use crate::plane::PlaneArgs;
use agent::{Guard, GuardState};
use cloudstack::inventory::Options;
use model::{Host, HostId, PeerTrust, Settings};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) plane: PlaneArgs,
    /// By which name whoever looks at it asks for it.
    pub(crate) instance: String,
    pub(crate) max_ports: u32,
    pub(crate) options: Options,
    pub(crate) settings: Settings,
    /// Names of devices that pass nothing before a command has been told of them; a `*` may end them.
    pub(crate) guard: BTreeSet<String>,
    /// Where the state is, and what planes remember. Gone after a reboot, as the VMs are.
    pub(crate) run_dir: PathBuf,
    /// Where CloudStack's own script keeps a line for each VM.
    pub(crate) logs: PathBuf,
    /// The script's own lock: neither it nor two of us are ever at work at once.
    pub(crate) lock: PathBuf,
    /// What each call did; nothing where the directory isn't.
    pub(crate) log_file: PathBuf,
    pub(crate) virsh: PathBuf,
}

pub(crate) const PATH: &str = "/etc/portcullis/cloudstack.conf";

impl Default for Config {
    fn default() -> Self {
        Self {
            plane: PlaneArgs::iptables(),
            instance: "cloudstack".to_owned(),
            max_ports: 4_096,
            options: Options {
                dns: true,
                egress_before_rules: false,
            },
            settings: Settings::default(),
            guard: BTreeSet::from(["vnet*".to_owned()]),
            run_dir: PathBuf::from("/run/portcullis"),
            logs: PathBuf::from("/var/run/cloud"),
            lock: PathBuf::from("/var/lock/cloudstack_security_group.lock"),
            log_file: PathBuf::from("/var/log/cloudstack/agent/security_group.log"),
            virsh: PathBuf::from("virsh"),
        }
    }
}

impl Config {
    /// Of the file that the environment names, or the usual one.
    pub(crate) fn read_given() -> Result<Self, Failure> {
        let given = std::env::var_os("PORTCULLIS_CLOUDSTACK_CONF");
        Self::read(Path::new(&given.unwrap_or_else(|| PATH.into())))
    }

    /// A file that isn't there says nothing.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => {
                return Err(Failure::System(format!(
                    "reading {}: {error}; nothing was changed",
                    path.display()
                )));
            }
        };
        Self::parse(&text).map_err(|(line, what)| {
            Failure::System(format!(
                "{}:{line}: {what}; nothing was changed",
                path.display()
            ))
        })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut config = Self::default();
        let mut seen = BTreeSet::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |what: String| (number, what);
            let (key, value) = line
                .split_once('=')
                .ok_or_else(|| at(format!("`{line}` is no `key = value`")))?;
            let (key, value) = (key.trim(), value.trim());
            if !seen.insert(key) {
                return Err(at(format!("`{key}` is here twice")));
            }
            config.set(key, value).map_err(at)?;
        }
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let path = || match value.is_empty() {
            true => Err(format!("`{key}` is empty")),
            false => Ok(PathBuf::from(value)),
        };
        match key {
            "plane" => self.plane.set_plane(value)?,
            "iptables" => self.plane.set_backend(value)?,
            "instance" => self.instance = value.to_owned(),
            "max_ports" => {
                let number = value.parse().ok().filter(|n| (1..=65_535).contains(n));
                self.max_ports = number.ok_or_else(|| format!("`{value}` is none of 1..65535"))?;
            }
            "dns" => self.options.dns = yes(value)?,
            "egress_before_rules" => self.options.egress_before_rules = yes(value)?,
            "settings" => self.settings = settings(value)?,
            "guard" => {
                let names = value
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty());
                self.guard = names.map(str::to_owned).collect();
                let names = GuardState {
                    names: self.guard.clone(),
                    ..GuardState::default()
                };
                if let Some(name) = Guard::unguarded(&names).first() {
                    return Err(format!(
                        "`{name}` is no name of a device, nor the beginning of one with a `*` behind it"
                    ));
                }
            }
            "run_dir" => self.run_dir = path()?,
            "logs" => self.logs = path()?,
            "lock" => self.lock = path()?,
            "log_file" => self.log_file = path()?,
            "virsh" => self.virsh = path()?,
            _ => return Err(format!("`{key}` is no key; {KEYS}")),
        }
        Ok(())
    }

    pub(crate) fn host(&self, id: &HostId) -> Host {
        Host {
            id: id.clone(),
            tunnel_address: None,
            peer_trust: PeerTrust::default(),
            settings: self.settings.clone(),
        }
    }
}

const KEYS: &str = "there are plane, iptables, instance, max_ports, dns, egress_before_rules, settings, guard, \
                    run_dir, logs, lock, log_file, virsh";

fn yes(value: &str) -> Result<bool, String> {
    match value {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(format!("`{value}` is neither yes nor no")),
    }
}

/// As in a policy file, without the braces.
fn settings(value: &str) -> Result<Settings, String> {
    let text = format!("version: 1\nsettings: {{ {value} }}\n");
    let host = HostId::new("host");
    let file = policyfile::parse(&text, "settings", &host).map_err(|errors| {
        let first = errors.errors.first();
        first.map_or_else(String::new, |error| {
            format!("{} [{}]", error.what, error.kind)
        })
    })?;
    let host = file.inventory.hosts.get(&host);
    Ok(host.map(|host| host.settings.clone()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Elision, Narrowing};

    #[test]
    fn what_is_said_is_taken_and_the_rest_is_usual() {
        let text = "\
# Hosts in the second row.
plane = ebpf
dns = no
guard = vnet*, tap1

settings = elision: off, narrowing: keep, timeouts: { tcp-established: 3600 }
";
        let config = Config::parse(text).unwrap_or_else(|(line, what)| panic!("{line}: {what}"));
        assert_eq!(config.plane.name(), "ebpf");
        assert!(!config.options.dns);
        assert_eq!(
            config.guard,
            BTreeSet::from(["tap1".to_owned(), "vnet*".to_owned()])
        );
        assert_eq!(config.settings.elision, Elision::Off);
        assert_eq!(config.settings.narrowing, Narrowing::Keep);
        assert_eq!(config.settings.timeouts.tcp_established_s, 3_600);
        assert_eq!(config.logs, Config::default().logs);
        assert_eq!(Config::parse(""), Ok(Config::default()));
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_line() {
        let check = |text: &str, line: usize, says: &str| {
            let (at, what) = Config::parse(text).expect_err(text);
            assert_eq!(at, line, "{text}");
            assert!(what.contains(says), "{what}");
        };
        check("plane = ovs", 1, "ovs");
        check("\nplan = ebpf", 2, "no key");
        check("dns = maybe", 1, "neither");
        check("dns = yes\ndns = no", 2, "twice");
        check("plane", 1, "key = value");
        check("settings = elision: perhaps", 1, "perhaps");
        check("settings = }\nports: {", 1, "");
        check("lock =", 1, "empty");
        check("max_ports = 0", 1, "none of");
        check("guard = vnet*, *net", 1, "`*net`");
    }
}
