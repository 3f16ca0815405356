//! What CloudStack's own script has built on this host, read and taken away by the tools that it uses.

use crate::failure::Failure;
use cloudstack::original::Dumps;
use cloudstack::original::build::{Built, Ebtables};
use cloudstack::removal::{LinkLayer, Removal};
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// The texts of this host, and the tools that they are from.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    iptables: String,
    ip6tables: String,
    ipset: String,
    ebtables: String,
    /// In front of `-save` and `-restore`.
    tools: [&'static str; 2],
}

/// Which implementation of iptables the script's rules are in: first the one that it would use now.
const TOOLS: [[&str; 2]; 3] = [
    ["iptables", "ip6tables"],
    ["iptables-nft", "ip6tables-nft"],
    ["iptables-legacy", "ip6tables-legacy"],
];

impl Found {
    /// `None`: the script has built nothing here.
    pub(crate) fn read() -> Result<Option<Self>, Failure> {
        // The chain of a bridge is made before anything of a VM.
        let is_built = |found: &Self| {
            let mut texts = [&found.iptables, &found.ip6tables].into_iter();
            texts.any(|text| text.contains("\n:BF-"))
        };
        let mut each = Self::each();
        let built = |read: &Result<Self, Failure>| read.as_ref().map_or(true, is_built);
        each.find(built).transpose()
    }

    /// By each implementation of iptables that this host has; read when it is asked for, as two names may stand for
    /// the same.
    pub(crate) fn each() -> impl Iterator<Item = Result<Self, Failure>> {
        TOOLS
            .into_iter()
            .filter_map(|tools| Self::by(tools).transpose())
    }

    /// `None`: this host hasn't got them.
    fn by(tools: [&'static str; 2]) -> Result<Option<Self>, Failure> {
        let [iptables, ip6tables] = tools.map(|tool| run(&[&format!("{tool}-save")], ""));
        let (Ok(iptables), Ok(ip6tables)) = (iptables, ip6tables) else {
            return Ok(None);
        };
        Ok(Some(Self {
            iptables,
            ip6tables,
            ipset: run(&["ipset", "save"], "").map_err(reading)?,
            ebtables: link_layer()?,
            tools,
        }))
    }

    pub(crate) fn dumps(&self) -> Dumps<'_> {
        Dumps {
            iptables: &self.iptables,
            ip6tables: &self.ip6tables,
            ipset: &self.ipset,
            ebtables: &self.ebtables,
        }
    }

    /// By the tools that the script would use now.
    pub(crate) fn read_now() -> Result<Self, Failure> {
        Self::by(TOOLS[0])?.ok_or_else(|| Failure::System("iptables is not installed".to_owned()))
    }

    /// Takes away what was found. The script's rules judge nothing any more when this is called.
    pub(crate) fn remove(&self, removal: &Removal) -> Result<(), Failure> {
        self.load([&removal.iptables, &removal.ip6tables], &removal.ebtables)
            .and_then(|()| destroy(&removal.sets))
            .map_err(removing)
    }

    /// All that the script is to have, while something else judges.
    pub(crate) fn build(&self, built: &Built) -> io::Result<()> {
        run(&["ipset", "restore"], &built.ipset)?;
        self.load([&built.iptables, &built.ip6tables], &built.ebtables)
    }

    /// Beside what is there; each family of a table in one transaction.
    fn load(&self, scripts: [&String; 2], link_layer: &LinkLayer) -> io::Result<()> {
        for (tool, script) in self.tools.iter().zip(scripts) {
            if !script.is_empty() {
                let restore = format!("{tool}-restore");
                run(&[&restore, "--noflush", "-w", "60"], script)?;
            }
        }
        let script = link_layer.script();
        if !script.is_empty() && run(&["ebtables-restore", "--noflush"], &script).is_err() {
            // An older one can't add to what is there.
            for arguments in link_layer.commands() {
                let mut words = vec!["ebtables"];
                words.extend(arguments);
                run(&words, "")?;
            }
        }
        Ok(())
    }
}

/// Sets that no rule asks any more.
pub(crate) fn destroy(sets: &[String]) -> io::Result<()> {
    let script: String = sets.iter().map(|set| format!("destroy {set}\n")).collect();
    run(&["ipset", "restore"], &script).map(drop)
}

pub(crate) fn ebtables() -> Ebtables {
    match run(&["ebtables", "--version"], "") {
        Ok(version) if !version.contains("nf_tables") => Ebtables::Legacy,
        _ => Ebtables::NfTables,
    }
}

/// A host without ebtables has nothing there.
fn link_layer() -> Result<String, Failure> {
    match run(&["ebtables-save"], "") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(reading),
    }
}

fn reading(error: io::Error) -> Failure {
    Failure::System(format!(
        "reading what the script has built: {error}; nothing was changed"
    ))
}

fn removing(error: io::Error) -> Failure {
    Failure::System(format!(
        "taking away what the script has built: {error}; ours is in force, and some of the script's may be left"
    ))
}

/// What it prints.
pub(super) fn run(words: &[&str], input: &str) -> io::Result<String> {
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().expect("it is piped");
    let text = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A program that ends early says why on its stderr.
        let _ = stdin.write_all(text.as_bytes());
    });
    let output = child.wait_with_output()?;
    writer.join().expect("a writer has nothing to panic about");
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().find(|line| !line.trim().is_empty());
    let first = first.unwrap_or("it gives no reason").trim();
    Err(io::Error::other(format!("{}: {first}", words[0])))
}
