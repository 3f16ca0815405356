//! What the kernel holds now, for one packet to be tried on in another network namespace.
//!
//! Place on the line: beside it: kernel -> **snapshot** -> another kernel state without traffic -> outcome.
//! All of it was read back: what should be in the kernel plays no part. Trying a packet counts and remembers,
//! and does so there.
//!
//! Not in it: rules of others, which have their own say on a host; counts; datagrams that wait for their
//! fragments; and of the tracker what the packet can't belong to.
//! Knows nothing of: how the other namespace comes to be, and how the packet is sent there.

mod outcome;
mod question;

use crate::books::Books;
use crate::flows::Locals;
use crate::found::Found;
use crate::found::elements;
use crate::found::link::{self, Link};
use crate::plan::{self, Step, Work};
use crate::skeleton;
use crate::stamps::Stamps;
use crate::sysctl;
use crate::tools::Tools;
use dataplane::{Bridge, Device, Target};
use model::{Direction, MacAddr, PortId, Settings};
use netfilter::conntrack::{self, Change, Entry, Filter};
use question::Question;
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::io;

/// What a packet at a port meets.
pub struct Snapshot<'a> {
    question: Question<'a>,
    target: &'a Target,
    device: &'a Device,
    bridge_device: &'a Device,
    bridge: &'a Bridge,
    locals: Locals,
    tools: &'a Tools,
    table: &'a str,
    loaded: Loaded,
    /// Of the tracker, between the packet's addresses.
    entries: Vec<Entry>,
}

/// What is loaded, whatever the packet.
struct Loaded {
    sysctls: Vec<(&'static str, String)>,
    /// As `ipset restore` takes them.
    sets: String,
    /// By the back ends of iptables that have something of ours.
    chains: Vec<(Tools, Found)>,
    /// The table of link.nft without elements, as nft takes it; empty: there is none.
    rules: String,
    link: Link,
}

/// Why there is no snapshot.
#[derive(Debug)]
pub enum SnapshotError {
    /// It isn't known what is in force.
    Unknown,
    /// Nothing is enforced for the port, as it has no device.
    NoDevice,
    /// Nothing is enforced on its device, as this is on no bridge that can be told.
    NoBridge {
        device: String,
    },
    /// Rules were changed each time while they were read.
    Restless,
    Reading(io::Error),
}

/// How often it is read before somebody changes rules too often.
const READINGS: u32 = 5;

impl<'a> Snapshot<'a> {
    /// Of the namespace of the calling thread.
    pub(crate) fn read(
        tools: &'a Tools,
        table: &'a str,
        target: &'a Target,
        books: &Books,
        (port, direction, frame): (&'a PortId, Direction, &'a [u8]),
    ) -> Result<Self, SnapshotError> {
        let device = target.devices.get(port);
        let device = device.filter(|device| link::name(device.ifindex).is_some());
        let device = device.ok_or(SnapshotError::NoDevice)?;
        let mut bridges = target.bridges.iter();
        let bridge = bridges.find(|(_, bridge)| bridge.members.contains(device));
        let (bridge_device, bridge) = bridge.ok_or_else(|| SnapshotError::NoBridge {
            device: device.name.clone(),
        })?;
        let question = Question::new(port, direction, frame);
        Ok(Self {
            loaded: Loaded::read_at_rest(tools, table, &target.view.settings)?,
            entries: entries(&question).map_err(SnapshotError::Reading)?,
            question,
            target,
            device,
            bridge_device,
            bridge,
            locals: Locals::of(target, &books.bridges),
            tools,
            table,
        })
    }

    /// The port's device. Rules know it by its index.
    pub fn device(&self) -> &Device {
        self.device
    }

    /// The bridge that it is on.
    pub fn bridge(&self) -> &Device {
        self.bridge_device
    }

    /// The port sends it to one of the host's own MACs, so the bridge takes it for itself.
    fn is_for_host(&self) -> bool {
        let to = self.question.destination();
        let egress = self.question.direction == Direction::Egress;
        egress && to.is_some_and(|to| self.bridge.macs.contains(&to))
    }

    /// The MAC that the bridge needs, for it to pass the frame on or not.
    pub fn bridge_mac(&self) -> MacAddr {
        const NOBODYS: [MacAddr; 2] = [
            MacAddr([2, 0, 0, 0, 0, 0xfe]),
            MacAddr([2, 0, 0, 0, 0, 0xff]),
        ];
        match self.question.destination() {
            Some(to) if self.is_for_host() => to,
            to => NOBODYS[usize::from(to == Some(NOBODYS[0]))],
        }
    }

    /// An index that nothing loaded knows, for a device that is no port's.
    pub fn other_ifindex(&self) -> u32 {
        let keys = self
            .loaded
            .link
            .elements
            .values()
            .flat_map(|set| set.keys());
        let numbers = keys.filter_map(|key| key.split(' ').next()?.parse().ok());
        numbers.fold(self.bridge_device.ifindex, u32::max) + 1
    }

    /// Loads it into the namespace of the calling thread, where nothing is loaded yet. The device of
    /// [`Snapshot::other_ifindex`] counts as one of the bridge.
    pub fn load(&self) -> io::Result<()> {
        sysctl::copy(&self.loaded.sysctls)?;
        let sets = Step::new(Work::Ipset(self.loaded.sets.clone()), 1);
        execute(self.tools, sets.into_iter().collect())?;
        for (tools, found) in &self.loaded.chains {
            execute(tools, plan::chains_copy(found))?;
        }
        let link = Step::new(Work::Nft(self.link()), 1);
        execute(self.tools, link.into_iter().collect())?;
        track(&self.entries)
    }

    /// What nft gets: rules, and what their sets hold but for counts. To hold a device for a while or for
    /// good is the same here.
    fn link(&self) -> String {
        let mut script = self.loaded.rules.clone();
        let Link {
            elements: sets,
            by_device,
            ..
        } = &self.loaded.link;
        let counting: BTreeSet<String> = skeleton::counting_sets().collect();
        let device = self.device.ifindex.to_string();
        for (set, elements) in sets.iter().filter(|(set, _)| !counting.contains(*set)) {
            // No other device will be there, and they are the most.
            let own =
                |key: &str| !by_device.contains(set) || key.split(' ').next() == Some(&device);
            let elements = elements.iter().filter(|(key, _)| own(key));
            let elements = elements.map(|(key, leads_to)| element(key, leads_to.as_deref()));
            let elements: Vec<String> = elements.collect();
            self.add(&mut script, set, &elements.join(", "));
        }
        let bridges = sets.get("bridge_of");
        if let Some(number) = bridges.and_then(|bridges| bridges.get(&device)) {
            let other = self.other_ifindex().to_string();
            self.add(
                &mut script,
                "bridge_of",
                &element(&other, number.as_deref()),
            );
            self.add(&mut script, "members", &other);
        }
        script
    }

    fn add(&self, script: &mut String, set: &str, elements: &str) {
        if !elements.is_empty() {
            let table = self.table;
            let _ = writeln!(script, "add element bridge {table} {set} {{ {elements} }}");
        }
    }
}

impl Loaded {
    /// All of it as it is at one moment.
    fn read_at_rest(
        tools: &Tools,
        table: &str,
        settings: &Settings,
    ) -> Result<Self, SnapshotError> {
        let stamps = || Stamps::read(tools.backend).map_err(SnapshotError::Reading);
        for _ in 0..READINGS {
            let before = stamps()?;
            let loaded = Self::read(tools, table, settings).map_err(SnapshotError::Reading)?;
            if stamps()? == before {
                return Ok(loaded);
            }
        }
        Err(SnapshotError::Restless)
    }

    fn read(tools: &Tools, table: &str, settings: &Settings) -> io::Result<Self> {
        let mut chains = Vec::new();
        // Whatever the host's default is now: packets meet the rules of both.
        for tools in [tools.clone()].into_iter().chain(tools.other()?) {
            let found = Found::read_chains(&tools)?;
            if found.has_chains() {
                chains.push((tools, found));
            }
        }
        let link = Link::read(tools, table)?;
        let rules = match &link {
            // What nft prints of our rules and sets it reads as the same: snapshot/tests.rs.
            Some(_) => tools.nft(&["-s", "-t", "list", "table", "bridge", table])?,
            None => String::new(),
        };
        Ok(Self {
            sysctls: sysctl::read(settings),
            sets: elements::ours_uncounted(&tools.ipset(&["save"])?),
            chains,
            rules,
            link: link.unwrap_or_default(),
        })
    }
}

/// Those that the packet, or one that it quotes, may belong to.
fn entries(question: &Question<'_>) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    if conntrack::count().map_err(io::Error::other)? > 0 {
        let listed = conntrack::dump(&Filter::default(), |entry| {
            if question.may_be_of(&entry) {
                entries.push(entry);
            }
        });
        listed.map_err(io::Error::other)?;
    }
    Ok(entries)
}

fn track(entries: &[Entry]) -> io::Result<()> {
    // One that ends within this second is still there.
    let lasting: Vec<Entry> = entries
        .iter()
        .map(|entry| Entry {
            timeout_s: entry.timeout_s.max(1),
            ..*entry
        })
        .collect();
    let changes: Vec<Change<'_>> = lasting.iter().map(Change::Create).collect();
    let outcomes = conntrack::change(&changes).map_err(io::Error::other)?;
    for (entry, outcome) in lasting.iter().zip(outcomes) {
        match outcome {
            // An entry may be told twice.
            conntrack::Outcome::Done | conntrack::Outcome::Exists => {}
            conntrack::Outcome::Gone | conntrack::Outcome::Refused { .. } => {
                let text = format!("the tracked connection {entry} can't be copied");
                return Err(io::Error::other(text));
            }
        }
    }
    Ok(())
}

fn execute(tools: &Tools, steps: Vec<Step>) -> io::Result<()> {
    let executed = tools.execute_patiently(&steps);
    executed
        .map(drop)
        .map_err(|broken| io::Error::other(broken.error))
}

fn element(key: &str, leads_to: Option<&str>) -> String {
    match leads_to {
        Some(value) => format!("{key} : {value}"),
        None => key.to_owned(),
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::Unknown => write!(f, "it isn't known what is in force"),
            SnapshotError::NoDevice => write!(f, "the port has no device"),
            SnapshotError::NoBridge { device } => write!(
                f,
                "device {device} is on no bridge that can be told, so nothing is enforced on it"
            ),
            SnapshotError::Restless => write!(
                f,
                "somebody changes the host's rules all the time; ask again"
            ),
            SnapshotError::Reading(error) => write!(f, "reading what is loaded: {error}"),
        }
    }
}

impl std::error::Error for SnapshotError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SnapshotError::Reading(error) => Some(error),
            SnapshotError::Unknown
            | SnapshotError::NoDevice
            | SnapshotError::NoBridge { .. }
            | SnapshotError::Restless => None,
        }
    }
}

#[cfg(test)]
mod tests;
