//! The plane: render, plan and execute in a row, and what one can ask of it.

mod write;

use crate::age;
use crate::books::Books;
use crate::budgets::Budgets;
use crate::compare::{Difference, Expected, Place};
use crate::counters;
use crate::flows::{self, Locals};
use crate::forget::Forget;
use crate::found::{Found, TABLE, Whole};
use crate::handover::{self, Giving};
use crate::link::LinkChange;
use crate::plan::{self, Step, Work};
use crate::record::{InForce, RecordFile};
use crate::render::profile::remark;
use crate::render::{self, Inputs};
use crate::skeleton::{self, Gates};
use crate::snapshot::{Snapshot, SnapshotError};
use crate::stamps::Stamps;
use crate::sysctl;
use crate::tools::{Backend, Tools};
use crate::watch::Watch;
use dataplane::{
    ApplyError, ApplyReport, Capabilities, Counters, DataPlane, Device, DevicesInForce, Drift,
    FlowRecord, Flows, NdOptions, Target,
};
use model::{Direction, Elision, PortId};
use policy::HostView;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IptablesConfig {
    pub instance: String,
    /// Where the plane keeps what the next process has to know; gone after a reboot, as enforcement is.
    /// `None`: there is no next process.
    pub directory: Option<PathBuf>,
    /// Which of the two implementations of iptables; `None`: the host's own.
    pub backend: Option<Backend>,
}

/// The iptables data plane of one instance, in the network namespace of the thread that calls.
///
/// Dropping it changes no verdict: rules and sets stay.
pub struct IptablesPlane {
    tools: Tools,
    gates: Gates,
    /// The name of the table of link.nft.
    table: String,
    file: RecordFile,
    books: Books,
    /// What an earlier process left in force, until its view is known.
    left: Option<InForce>,
    /// `None`: not known; the next apply writes all of it anew.
    in_force: Option<Enforced>,
    /// The kernel's state when it was as it should be. `None`: somebody may have changed it since.
    stamps: Option<Stamps>,
    watch: Watch,
    budgets: Budgets,
    /// For tests.
    clock: Duration,
}

/// A target that is in force, and what the kernel holds for it.
struct Enforced {
    target: Target,
    /// Of the view.
    digest: u64,
    inputs: Inputs,
}

/// What netfilter can do (docs/semantics.md, Capabilities).
pub const CAPABILITIES: Capabilities = Capabilities {
    flows: Flows::Netfilter,
    quote_match: false,
    fragment_verdict: false,
    per_end_start: false,
    nd_options: NdOptions::Few,
    igmp_types: true,
    link_local_list: true,
    whole_headers: true,
    lenient_ip: false,
    ipv4_options: false,
    extension_chain: false,
    udplite_ports: false,
    dccp_ports: false,
};

impl IptablesPlane {
    /// Finds the programs, and what an earlier process left; changes nothing.
    pub fn open(config: IptablesConfig) -> io::Result<Self> {
        let file = RecordFile::in_directory(config.directory.as_deref());
        let record = file.load();
        Ok(Self {
            tools: Tools::find(config.backend)?,
            gates: skeleton::gates(),
            table: format!("{TABLE}{}", config.instance),
            file,
            books: record.books,
            left: record.in_force,
            in_force: None,
            stamps: None,
            watch: Watch::new(),
            budgets: Budgets::new(),
            clock: Duration::ZERO,
        })
    }

    /// What another process enforces, to look at.
    pub fn open_existing(config: IptablesConfig) -> io::Result<Self> {
        if !Self::instances()?.contains(&config.instance) {
            let text = format!(
                "instance `{}` enforces nothing by iptables here",
                config.instance
            );
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        Self::open(config)
    }

    /// The names of instances whose enforcement is in place: one, at most, in a network namespace.
    pub fn instances() -> io::Result<Vec<String>> {
        let tables = crate::found::tables(&Tools::find(None)?)?;
        let names = tables.iter().filter_map(|table| table.strip_prefix(TABLE));
        Ok(names.map(str::to_owned).collect())
    }

    pub fn backend(&self) -> Backend {
        self.tools.backend
    }

    /// How many programs it has started: most of what a change costs.
    pub fn programs_started(&self) -> u64 {
        self.tools.started()
    }

    /// Says what view is in force: the last one that an earlier process applied. `false`: it is another one,
    /// or that isn't known.
    pub fn recognize(&mut self, view: &HostView) -> bool {
        let view = strict_view(view);
        let left = self.left.take_if(|left| left.view == view.digest());
        let Some(left) = left else {
            let known = self.in_force.as_ref();
            return known.is_some_and(|known| known.target.view == view);
        };
        let target = Target {
            view,
            devices: left.devices,
            closed: left.closed,
            bridges: left.bridges,
        };
        self.in_force = Some(Enforced {
            digest: left.view,
            inputs: render::inputs(&target, &mut self.books),
            target,
        });
        self.stamps = left.stamps;
        true
    }

    /// The ports that are under a policy and have a device.
    pub fn ports(&self) -> Vec<PortId> {
        let known = self.in_force.as_ref().map(|known| &known.target.devices);
        let known = known.or(self.left.as_ref().map(|left| &left.devices));
        known
            .into_iter()
            .flatten()
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// The devices of ports, and the closed ones; those that are gone are left out.
    pub fn find_devices(&self) -> DevicesInForce {
        let (devices, closed) = match (&self.in_force, &self.left) {
            (Some(Enforced { target, .. }), _) => (target.devices.clone(), target.closed.clone()),
            (None, Some(left)) => (left.devices.clone(), left.closed.clone()),
            (None, None) => Default::default(),
        };
        let is_there = |device: &Device| crate::found::link::name(device.ifindex).is_some();
        DevicesInForce {
            of_ports: devices.into_iter().filter(|(_, d)| is_there(d)).collect(),
            closed: closed.into_iter().filter(is_there).collect(),
            direct: false,
        }
    }

    /// Reads back all of it and says what is not as it should be; dearer than an audit, which reads only when
    /// something seems to have changed. Empty, too, where it isn't known what should be.
    pub fn verify(&mut self) -> Result<Vec<Difference>, ApplyError> {
        let Some(known) = self.in_force.take() else {
            return Ok(Vec::new());
        };
        let mut differences = settings_that_differ(&known.target);
        let read = self.differences(&known);
        self.in_force = Some(known);
        let read = read?;
        if !read.is_empty() {
            // Whoever applies next has to know.
            self.remember();
        }
        differences.extend(read);
        Ok(differences)
    }

    /// Before the first apply on a host where somebody else has judged these ports' packets so far: the
    /// connections that the kernel tracks for them go on. Again after it, for those that began meanwhile.
    pub fn take_over_connections(&mut self, target: &Target) -> io::Result<u64> {
        let target = strict(target);
        // Bridges have their numbers from now on.
        render::inputs(&target, &mut self.books);
        handover::take(&target, &self.books)
    }

    /// Before somebody else judges: the kernel tracks the connections of what is in force where nobody says a
    /// zone, too. Again whenever some may have begun.
    pub fn give_back_connections(&self, target: &Target) -> io::Result<u64> {
        Giving::new(target, &self.books).give()
    }

    /// Detaches, where somebody else judges from then on: the last connections go over with it.
    pub fn hand_over(&mut self, target: &Target) -> Result<u64, ApplyError> {
        let giving = Giving::new(target, &self.books);
        let give = || giving.give().map_err(failed("giving back connections"));
        let before = give()?;
        self.detach()?;
        let after = give()?;
        giving.forget().map_err(failed("ending connections"))?;
        Ok(before + after)
    }

    /// Lets a change to nftables be made that is ours and not the plane's: one transaction, or none if it fails.
    /// Where nobody else changes anything meanwhile, nothing need be read back because of it.
    pub fn beside<E>(&mut self, change: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let held = self.stamps.as_ref().is_some_and(Stamps::nft_holds);
        change()?;
        if held && self.stamps.as_mut().is_some_and(Stamps::pass_over_one) {
            self.remember();
        }
        Ok(())
    }

    /// All tracked flows, or one port's.
    pub fn flows(&self, of: Option<&PortId>) -> io::Result<Vec<FlowRecord>> {
        match &self.in_force {
            Some(Enforced { target, .. }) => {
                flows::records(target, &Locals::of(target, &self.books.bridges), of)
            }
            None => Ok(Vec::new()),
        }
    }

    /// What the kernel holds now, for a frame at this port to be tried on where nobody else's packets are.
    pub fn snapshot<'a>(
        &'a self,
        port: &'a PortId,
        direction: Direction,
        frame: &'a [u8],
    ) -> Result<Snapshot<'a>, SnapshotError> {
        let Enforced { target, .. } = self.in_force.as_ref().ok_or(SnapshotError::Unknown)?;
        let packet = (port, direction, frame);
        Snapshot::read(&self.tools, &self.table, target, &self.books, packet)
    }

    /// Reads all of it back. Empty: it is as it should be; then whoever changed something changed nothing of
    /// ours.
    fn differences(&mut self, known: &Enforced) -> Result<Vec<Difference>, ApplyError> {
        let stamps = self.read_stamps()?;
        let whole = Whole::read(&self.tools, &self.table);
        let whole = whole.map_err(failed("reading back what is in the kernel"))?;
        let expected = Expected::of(&known.inputs, &self.gates, &self.table);
        let differences = expected.differences(&whole, &self.table);
        self.stamps = differences.is_empty().then_some(stamps);
        Ok(differences)
    }

    /// Nobody else changed what is in force.
    fn is_untouched(&mut self, known: &Enforced) -> Result<bool, ApplyError> {
        let same = self.stamps.is_some() && self.stamps == Some(self.read_stamps()?);
        Ok(same || self.differences(known)?.is_empty())
    }

    fn found(&self) -> Result<Found, ApplyError> {
        Found::read(&self.tools, &self.table).map_err(failed("reading back what is in the kernel"))
    }

    fn read_stamps(&self) -> Result<Stamps, ApplyError> {
        Stamps::read(self.tools.backend).map_err(asking_for_changes())
    }
}

fn strict(target: &Target) -> Target {
    Target {
        view: strict_view(&target.view),
        devices: target.devices.clone(),
        closed: target.closed.clone(),
        bridges: target.bridges.clone(),
    }
}

/// What is asked for as `on` is enforced as `strict`: netfilter can't look into ICMP errors.
fn strict_view(view: &HostView) -> HostView {
    let mut view = view.clone();
    let mode = &mut view.settings.elision;
    *mode = match *mode {
        Elision::On | Elision::Strict => Elision::Strict,
        Elision::Off => Elision::Off,
    };
    view
}

impl DataPlane for IptablesPlane {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn apply(&mut self, target: &Target) -> Result<ApplyReport, ApplyError> {
        let began = Instant::now();
        let target = self.prepared(target);
        let set = set_kernel(&target)?;
        let bridges = self.books.bridges.clone();
        let mut remarks = Vec::new();
        let known = self.in_force.take();
        let old = match &known {
            Some(known) => self.is_untouched(known)?.then_some(known),
            None => None,
        };
        let (writes, inputs) = match self.write(old, &target, &mut remarks) {
            Ok(written) => written,
            Err(error) => {
                return Err(match known {
                    Some(known) => self.put_back(error, known),
                    None => error,
                });
            }
        };
        let nothing = Target::default();
        let before = old.map_or(&nothing, |old| &old.target);
        if let Some(forget) = Forget::between(before, &target, &bridges, &self.books.bridges) {
            forget
                .execute()
                .map_err(|error| failed("ending connections")(io::Error::other(error)))?;
        }
        let groups = policy::differing(&before.view.groups, &target.view.groups);
        let groups = groups.filter_map(|(id, _, group)| Some((id, group?)));
        remarks.extend(groups.filter_map(|(id, group)| remark(id, group)));
        let refused = inputs.refused.clone();
        let ports = target.view.ports.keys();
        let applied = ports.filter(|id| !refused.contains_key(*id));
        let (revision, applied) = (target.view.revision, applied.cloned().collect());
        let digest = match old {
            Some(old) => target.view.digest_after(&old.target.view, old.digest),
            None => target.view.digest(),
        };
        self.settle(Enforced {
            target,
            digest,
            inputs,
        });
        Ok(ApplyReport {
            revision,
            applied,
            refused,
            remarks,
            writes: writes + set,
            took: began.elapsed(),
        })
    }

    fn audit(&mut self) -> Result<Vec<Drift>, ApplyError> {
        let Some(known) = self.in_force.take() else {
            return Ok(Vec::new());
        };
        let looked = self.look(&known);
        self.in_force = Some(known);
        let changed = |Difference { what, .. }| Drift::Changed { what };
        looked.map(|differences| differences.into_iter().map(changed).collect())
    }

    /// A look costs little while nobody changes anything.
    fn audit_every(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn counters(&mut self) -> Result<Counters, ApplyError> {
        let reading = "reading counters";
        match (&self.in_force, &self.left) {
            (Some(Enforced { target, .. }), _) => {
                counters::read(&self.tools, &self.table, target, &self.books)
                    .map_err(failed(reading))
            }
            (None, Some(left)) => counters::of_devices(&self.tools, &self.table, &left.devices)
                .map_err(failed(reading)),
            (None, None) => Ok(Counters::default()),
        }
    }

    fn tend(&mut self) -> Result<(), ApplyError> {
        let Some(Enforced { target, .. }) = &self.in_force else {
            return Ok(());
        };
        let full = self.budgets.tend(target, &self.books);
        let full = LinkChange {
            for_a_time: full.map_err(failed("counting flows"))?,
            ..LinkChange::of(&self.table)
        };
        let Some(step) = Step::new(Work::Link(full), 1) else {
            return Ok(());
        };
        let before = self.stamps.take();
        self.execute(&[step], before)?;
        self.remember();
        Ok(())
    }

    fn detach(&mut self) -> Result<(), ApplyError> {
        self.file
            .begin()
            .map_err(failed("remembering that a change is made"))?;
        let found = self.found()?;
        self.tools.execute(&plan::removal(&found, &self.table))?;
        self.remove_other()?;
        // Others may have rules about the sets that are everybody's.
        let listed = self.tools.ipset(&["list", "-terse"]);
        let unused = crate::found::unused(&listed.map_err(failed("listing address sets"))?);
        self.tools.execute(&plan::sets_removal(&unused))?;
        self.file
            .remove()
            .map_err(failed("forgetting what was enforced"))?;
        self.in_force = None;
        self.left = None;
        self.books = Books::default();
        Ok(())
    }
}

impl IptablesPlane {
    /// What is not as it should be.
    fn look(&mut self, known: &Enforced) -> Result<Vec<Difference>, ApplyError> {
        let mut differences = settings_that_differ(&known.target);
        let suspicious = self.suspicious(known)?;
        if suspicious && self.watch.may_read() {
            let began = Instant::now();
            differences.extend(self.differences(known)?);
            self.watch.has_read(began.elapsed());
            self.remember();
        }
        Ok(differences)
    }

    /// Whether somebody else may have changed something of ours.
    fn suspicious(&mut self, known: &Enforced) -> Result<bool, ApplyError> {
        let Some(stamps) = &self.stamps else {
            return Ok(true);
        };
        let sizes = || Expected::of(&known.inputs, &self.gates, &self.table).sizes();
        self.watch
            .is_suspicious(stamps, self.tools.backend, sizes)
            .map_err(asking_for_changes())
    }
}

/// For tests.
impl IptablesPlane {
    /// What the kernel remembers becomes older by the time since the last call; of what is not a whole second
    /// the next call hears. A clock that goes back begins anew.
    pub fn set_clock(&mut self, now: Duration) -> io::Result<()> {
        let by = now
            .checked_sub(self.clock)
            .map(|by| Duration::from_secs(by.as_secs()));
        self.clock = by.map_or(now, |by| self.clock + by);
        match by.filter(|by| !by.is_zero()) {
            Some(by) => self.age(by),
            None => Ok(()),
        }
    }

    /// Removes all flows, and holds.
    pub fn forget_state(&mut self) -> io::Result<()> {
        self.age(Duration::MAX)
    }

    fn age(&mut self, by: Duration) -> io::Result<()> {
        age::age(&self.tools, &self.table, by)?;
        self.stamps = Some(Stamps::read(self.tools.backend)?);
        Ok(())
    }
}

fn settings_that_differ(target: &Target) -> Vec<Difference> {
    let differing = sysctl::differing(&target.view.settings).into_iter();
    let told = differing.map(|(name, value)| Difference {
        at: Place::Hooks,
        what: format!("net/{name} is not {value}"),
    });
    told.collect()
}

fn set_kernel(target: &Target) -> Result<u64, ApplyError> {
    sysctl::load_bridge_netfilter().map_err(failed("starting"))?;
    let differing = sysctl::differing(&target.view.settings);
    sysctl::write(&differing).map_err(|(step, source)| ApplyError { step, source })
}

fn asking_for_changes() -> impl FnOnce(io::Error) -> ApplyError {
    failed("asking whether rules were changed")
}

fn failed(step: &str) -> impl FnOnce(io::Error) -> ApplyError {
    let step = step.to_owned();
    move |source| ApplyError { step, source }
}
