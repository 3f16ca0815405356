//! The plane: place, render, plan and execute in a row, and what one can ask of it.

mod drift;
mod dry_run;
mod facts;
mod look;
mod modes;
mod tracked;
mod tracker;
mod tunnels;

use crate::books::Books;
use crate::counts;
use crate::flow_set::FlowSet;
use crate::names::Names;
use crate::place::{self, Placement};
use crate::render::{self, Switchboard, rules::remark};
use crate::secure;
use crate::switch::Held;
use dataplane::{ApplyError, ApplyReport, Capabilities, Counters, DataPlane, Drift, Target};
use facts::Facts;
use model::{Elision, Flows, NdOptions};
use modes::stays_open;
use ovsdb::{Bridge, Control, Database};
use policy::HostView;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use tracker::Moved;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OvsConfig {
    pub instance: String,
    /// Where the switch has its sockets.
    pub run_dir: PathBuf,
}

/// What Open vSwitch can do with the userspace datapath (docs/semantics.md, Capabilities).
pub const CAPABILITIES: Capabilities = Capabilities {
    flows: Flows::Userspace,
    quote_match: false,
    fragment_verdict: false,
    per_end_start: true,
    nd_options: NdOptions::Fields,
    igmp_types: false,
    link_local_list: false,
    whole_headers: false,
    lenient_ip: false,
    ipv4_options: false,
    extension_chain: false,
    udplite_ports: false,
    dccp_ports: false,
};

/// ovs-vswitchd looks whether it can answer when something wakes it; by itself it may sleep for half a second.
const ROUSE_EVERY: Duration = Duration::from_millis(1);

/// The Open vSwitch data plane of one instance.
///
/// Dropping it changes no verdict: flows stay.
pub struct OvsPlane {
    config: OvsConfig,
    /// `None`: not connected, or no more.
    database: Option<Database>,
    facts: Option<Facts>,
    control: Option<Control>,
    /// Of what an earlier process has left in the tracker.
    labels_are_known: bool,
    /// As far as the switch's process has been told how to track.
    tracker_is_set: bool,
    switches: BTreeMap<String, Held>,
    /// What an earlier process left; read at the first apply.
    books: Option<Books>,
    in_force: Option<Enforced>,
    /// For tests: how far its clock is ahead.
    ahead: Duration,
    /// Of the last apply: when it began, and how long it was until the switch had answered.
    began: Instant,
    answered_after: Duration,
    /// Another process may be at work: what this one compares with is what is written down.
    only_looks: bool,
}

struct Enforced {
    target: Target,
    placement: Placement,
    names: Names,
    /// Bridges that had to stay open: they would forward without our flows.
    open: BTreeSet<String>,
}

impl OvsPlane {
    /// Connects; changes nothing.
    pub fn open(config: OvsConfig) -> io::Result<Self> {
        let mut plane = Self {
            config,
            database: None,
            facts: None,
            control: None,
            labels_are_known: false,
            tracker_is_set: false,
            switches: BTreeMap::new(),
            books: None,
            in_force: None,
            ahead: Duration::ZERO,
            began: Instant::now(),
            answered_after: Duration::ZERO,
            only_looks: false,
        };
        plane.database()?;
        Ok(plane)
    }

    /// Of the last apply: how long it was until the switch had answered that it has the new flows. Then it forgets
    /// what it decided by others, and what nobody asks for any more goes.
    pub fn answered_after(&self) -> Duration {
        self.answered_after
    }

    /// For tests: its clock goes on from there, and the switch's.
    pub fn advance(&mut self, by: Duration) -> io::Result<()> {
        self.ahead += by;
        let warped = self
            .control()?
            .call("time/warp", &[&by.as_millis().to_string()]);
        warped.map_err(io::Error::other)?;
        self.tend().map_err(io::Error::other)
    }

    /// For tests: no connection is remembered, nor where a MAC was seen.
    pub fn forget_state(&mut self) -> io::Result<()> {
        for switch in self.switches.values_mut() {
            switch.forget_learned()?;
        }
        match self.control()?.call("dpctl/flush-conntrack", &[]) {
            // Before the first bridge.
            Err(error) if !error.to_string().contains("no datapaths exist") => {
                Err(io::Error::other(error))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// To who only looks, each hold that is written down holds still: the flows say so until an agent changes
    /// both.
    fn now(&self) -> SystemTime {
        match self.only_looks {
            true => SystemTime::UNIX_EPOCH,
            false => SystemTime::now() + self.ahead,
        }
    }

    fn database(&mut self) -> io::Result<&mut Database> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.connect_database(Database::connect)?,
        };
        Ok(self.database.insert(database))
    }

    fn connect_database<C>(&self, connect: fn(&Path) -> io::Result<C>) -> io::Result<C> {
        let socket = self.config.run_dir.join("db.sock");
        connect(&socket)
            .map_err(|error| at("connecting to Open vSwitch's database", &socket, error))
    }

    fn control(&mut self) -> io::Result<&mut Control> {
        let control = match self.control.take() {
            Some(control) => control,
            None => self.connect_control()?,
        };
        Ok(self.control.insert(control))
    }

    fn connect_control(&self) -> io::Result<Control> {
        let socket = ovsdb::vswitchd_socket(&self.config.run_dir)?;
        Control::connect(&socket)
    }

    fn switch(&mut self, bridge: &str) -> io::Result<&mut Held> {
        let held = match self.switches.remove(bridge) {
            Some(held) => held,
            None => Held::connect(&self.config.run_dir, bridge)?,
        };
        Ok(self.switches.entry(bridge.to_owned()).or_insert(held))
    }

    /// After a failure nothing that was known about the switch counts.
    fn disconnect(&mut self) {
        self.database = None;
        self.facts = None;
        self.control = None;
        self.tracker_is_set = false;
        self.switches.clear();
    }

    /// A switch drops connections on which nothing was said for long. What it holds is asked for anew.
    fn drop_lost_connections(&mut self) {
        let before = self.switches.len();
        self.switches.retain(|_, switch| switch.is_alive());
        if self.switches.len() < before {
            // It may be another process now.
            self.control = None;
            self.tracker_is_set = false;
        }
    }

    fn enforce(&mut self, target: &Target) -> Result<Applied, ApplyError> {
        self.drop_lost_connections();
        let bridges = self
            .bridges()
            .map_err(failed("asking Open vSwitch for its bridges"))?;
        let mut books = self.books.take().unwrap_or_else(|| Books::read(&bridges));
        let moved = self.account(target, &bridges, &mut books);
        let Moved { given, gone } =
            moved.map_err(failed("reading what an earlier process has left"))?;
        let names = Names::of(&target.view);
        let placement = place::place(target, &bridges, &books, self.now());
        let tunnels = self.prepare_tunnels(target, bridges, &placement, &mut books);
        let bridges = match tunnels {
            Ok(bridges) => bridges,
            Err(error) => {
                self.books = Some(books);
                return Err(error);
            }
        };
        let placement = place::place(target, &bridges, &books, self.now());
        let kept = self.keep_books(&bridges, &placement, &books);
        self.books = Some(books);
        kept?;
        let mut applied = Applied {
            placement,
            names,
            writes: 0,
            open: BTreeSet::new(),
        };
        self.prepare(target, &bridges, &applied.placement)?;
        // Whoever had the zone may have left before it could be emptied.
        self.empty(&given)?;
        self.write(target, &bridges, &mut applied)?;
        self.empty(&gone)?;
        self.forget_elidable(target)?;
        Ok(applied)
    }

    fn transact(&mut self, operations: Vec<serde_json::Value>) -> io::Result<()> {
        if operations.is_empty() {
            return Ok(());
        }
        let done = self.database()?.transact(&operations);
        done.map(|_| ()).map_err(|error| {
            self.database = None;
            io::Error::other(error)
        })
    }

    /// The flows of all bridges, also those that have no port any more. What fails at one costs the others nothing.
    fn write(
        &mut self,
        target: &Target,
        bridges: &[Bridge],
        applied: &mut Applied,
    ) -> Result<(), ApplyError> {
        let mut failure = None;
        for bridge in bridges {
            let had = self.in_force.as_ref().map(|known| &known.placement.boards);
            let had = had.map(|boards| boards.get(&bridge.name).cloned());
            let board = applied.placement.boards.get(&bridge.name).cloned();
            let done = match (board, had) {
                (None, Some(None)) => continue,
                (None, None) if self.switch(&bridge.name).is_err() => continue,
                (board, had) => {
                    let had = had.flatten().unwrap_or_default();
                    self.write_board(target, bridge, board.as_ref(), &had, applied)
                }
            };
            failure = failure.or(done.err());
        }
        let there: BTreeSet<&String> = bridges.iter().map(|bridge| &bridge.name).collect();
        self.switches.retain(|bridge, _| there.contains(bridge));
        failure.map_or(Ok(()), Err)
    }

    fn write_board(
        &mut self,
        target: &Target,
        bridge: &Bridge,
        board: Option<&Switchboard>,
        had: &Switchboard,
        applied: &mut Applied,
    ) -> Result<(), ApplyError> {
        if let Some(board) = board {
            self.forget_where(bridge, board, target)
                .map_err(failed("forgetting where MACs are"))?;
            if secure::is_open(bridge, board.forwarding) && !self.make_secure(bridge)? {
                applied.open.insert(bridge.name.clone());
            }
            // First: what the bridge forwards by itself must not lead past a gate.
            self.mind_floods(bridge, board, had)
                .map_err(failed("keeping floods from the ports"))?;
        }
        let step = format!("writing the flows of bridge {}", bridge.name);
        let switch = self.switch(&bridge.name).map_err(failed(&step))?;
        let wanted = match board {
            Some(board) => switch.render(&target.view, board, &applied.names),
            None => FlowSet::default(),
        };
        let written = self.write_bridge(&bridge.name, wanted);
        applied.writes += written.map_err(failed(&step))?;
        Ok(())
    }

    /// What was learned leads to hosts as they were then.
    fn forget_where(
        &mut self,
        bridge: &Bridge,
        board: &Switchboard,
        target: &Target,
    ) -> io::Result<()> {
        let peers = |view: &HostView| view.overlay.as_ref().map(|overlay| overlay.peers.clone());
        let before = self
            .in_force
            .as_ref()
            .map(|known| peers(&known.target.view));
        if board.tunnel.is_none() || before == Some(peers(&target.view)) {
            return Ok(());
        }
        self.switch(&bridge.name)?.forget_learned()
    }

    fn write_bridge(&mut self, bridge: &str, mut wanted: FlowSet) -> io::Result<u64> {
        let switch = self.switch(bridge)?;
        switch.vacate_taken(&mut wanted)?;
        let plan = switch.plan(&wanted)?;
        if plan.is_empty() {
            return Ok(0);
        }
        if !plan.prepare.is_empty() {
            switch.change(&plan.prepare)?;
            self.settle(bridge)?;
        }
        self.switch(bridge)?.change(&plan.switch)?;
        self.answered_after = self.began.elapsed();
        self.settle(bridge)?;
        self.switch(bridge)?.change(&plan.clear)?;
        self.switch(bridge)?.keep(wanted);
        Ok(plan.len())
    }

    /// Waits until the switch has forgotten decisions that it made by earlier flows: it looks through them after
    /// each change, but doesn't say when it is done. It may be doing so just now, so it is made to twice.
    fn settle(&mut self, bridge: &str) -> io::Result<()> {
        let mut control = match self.control.take() {
            Some(control) => control,
            None => self.connect_control()?,
        };
        let switch = self.switch(bridge)?;
        for _ in 0..2 {
            switch.change(&[openflow::Change::Add(render::nudge())])?;
            let waited =
                control.call_rousing("revalidator/wait", &[], ROUSE_EVERY, || switch.echo());
            waited.map_err(io::Error::other)?;
        }
        self.control = Some(control);
        Ok(())
    }
}

/// What an apply has come to.
struct Applied {
    placement: Placement,
    names: Names,
    writes: u64,
    open: BTreeSet<String>,
}

impl DataPlane for OvsPlane {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn apply(&mut self, target: &Target) -> Result<ApplyReport, ApplyError> {
        self.began = Instant::now();
        self.answered_after = Duration::ZERO;
        let mut target = strict(target);
        if let Some(known) = &self.in_force {
            target.view.share(&known.target.view);
        }
        let applied = self.enforce(&target).inspect_err(|_| self.disconnect());
        let Applied {
            placement,
            names,
            writes,
            open,
        } = applied?;
        let too_wide = self.too_wide(&target.view, &placement);
        let groups = target.view.groups.iter();
        let remarks = groups.filter_map(|(id, group)| remark(id, group));
        let remarks = remarks.chain(open.iter().map(|bridge| stays_open(bridge)));
        let remarks = remarks.chain(render::tunnel::remarks(&target.view));
        let remarks = remarks.chain(too_wide);
        let remarks = remarks.chain(placement.remarks.clone()).collect();
        let refused = placement.refused.clone();
        let ports = target.view.ports.keys();
        let applied = ports
            .filter(|id| !refused.contains_key(*id))
            .cloned()
            .collect();
        let revision = target.view.revision;
        self.in_force = Some(Enforced {
            target,
            placement,
            names,
            open,
        });
        Ok(ApplyReport {
            revision,
            applied,
            refused,
            remarks,
            writes,
            took: self.began.elapsed(),
        })
    }

    fn audit(&mut self) -> Result<Vec<Drift>, ApplyError> {
        let Some(known) = self.in_force.take() else {
            return Ok(Vec::new());
        };
        let drift = self.differences(&known);
        self.in_force = Some(known);
        drift.inspect_err(|_| self.disconnect())
    }

    fn audit_every(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Holds end by their time.
    fn tend(&mut self) -> Result<(), ApplyError> {
        let now = self.now();
        let over = |books: &Books| {
            let mut times = books.held.values().chain(books.lost.values());
            times.any(|until| *until <= now)
        };
        if !self.books.as_ref().is_some_and(over) {
            return Ok(());
        }
        if let Some(books) = &mut self.books {
            books.held.retain(|_, until| *until > now);
        }
        match &self.in_force {
            Some(known) => {
                let target = known.target.clone();
                self.apply(&target).map(drop)
            }
            None => Ok(()),
        }
    }

    fn counters(&mut self) -> Result<Counters, ApplyError> {
        let Some(known) = self.in_force.take() else {
            return Ok(Counters::default());
        };
        let counters = self.count(&known);
        self.in_force = Some(known);
        counters.map_err(failed("reading counters"))
    }

    /// An id that is on its way out may be the empty text.
    fn interface_ids(&mut self) -> Result<Option<BTreeMap<String, String>>, ApplyError> {
        let bridges = self
            .bridges()
            .map_err(failed("asking Open vSwitch for its interfaces"))?;
        let ports = bridges.into_iter().flat_map(|bridge| bridge.ports);
        let interfaces = ports.flat_map(|port| port.interfaces);
        let ids = interfaces.filter_map(|mut interface| {
            let id = interface.external_ids.remove("iface-id")?;
            (!id.is_empty()).then_some((interface.name, id))
        });
        Ok(Some(ids.collect()))
    }

    fn detach(&mut self) -> Result<(), ApplyError> {
        self.drop_lost_connections();
        let bridges = self
            .bridges()
            .map_err(failed("asking Open vSwitch for its bridges"))?;
        for bridge in &bridges {
            // One that nothing is enforced on need not be in order.
            if self.switch(&bridge.name).is_ok() || !secure::release(bridge).is_empty() {
                let step = format!("removing what is ours from bridge {}", bridge.name);
                self.detach_bridge(bridge).map_err(failed(&step))?;
            }
        }
        self.remove_tunnels(&bridges)
            .map_err(failed("removing the ports of tunnels"))?;
        let datapaths: BTreeSet<&str> = bridges.iter().map(datapath_type).collect();
        for datapath in datapaths {
            self.forget_timeouts(datapath)
                .map_err(failed("removing the zones' timeouts"))?;
        }
        let books = self.books.take().unwrap_or_else(|| Books::read(&bridges));
        let zones: Vec<u16> = books.zones.into_values().collect();
        self.empty(&zones)?;
        self.in_force = None;
        Ok(())
    }
}

impl OvsPlane {
    fn count(&mut self, known: &Enforced) -> io::Result<Counters> {
        let mut counters = Counters::default();
        for (bridge, board) in &known.placement.boards {
            let told = self.switch(bridge)?.told()?;
            counts::add(&mut counters, board, &known.names, told);
        }
        self.count_flows(known, &mut counters)?;
        Ok(counters)
    }
}

/// What is asked for as `on` is enforced as `strict`: OpenFlow can't look into ICMP errors.
fn strict(target: &Target) -> Target {
    let mut target = target.clone();
    let mode = &mut target.view.settings.elision;
    *mode = match *mode {
        Elision::On | Elision::Strict => Elision::Strict,
        Elision::Off => Elision::Off,
    };
    target
}

pub(crate) fn datapath_type(bridge: &Bridge) -> &str {
    match bridge.datapath_type.as_str() {
        "" => "system",
        other => other,
    }
}

fn at(step: &str, place: &Path, error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("{step} at {}: {error}", place.display()),
    )
}

fn failed(step: &str) -> impl FnOnce(io::Error) -> ApplyError {
    let step = step.to_owned();
    move |source| ApplyError { step, source }
}
