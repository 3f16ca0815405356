//! The plane: place, render, plan and execute in a row, and what one can ask of it.

mod dry_run;
mod look;
mod tracked;
mod tunnels;

use crate::books::Books;
use crate::cookie::Cookie;
use crate::counts;
use crate::names::Names;
use crate::place::{self, Placement};
use crate::render::{self, Flows, Forwarding, Switchboard, rules::remark};
use crate::secure;
use crate::switch::Held;
use crate::timeouts;
use dataplane::{ApplyError, ApplyReport, Capabilities, Counters, DataPlane, Drift, Target};
use model::{Elision, Flows as FlowKeeper, Narrowing, NdOptions, PortId};
use ovsdb::{Bridge, Control, Database, change, conntrack};
use policy::ElisionChange;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OvsConfig {
    pub instance: String,
    /// Where the switch has its sockets.
    pub run_dir: PathBuf,
}

/// What Open vSwitch can do with the userspace datapath (docs/semantics.md, Capabilities).
pub const CAPABILITIES: Capabilities = Capabilities {
    flows: FlowKeeper::Userspace,
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

/// The Open vSwitch data plane of one instance.
///
/// Dropping it changes no verdict: flows stay.
pub struct OvsPlane {
    config: OvsConfig,
    /// `None`: not connected, or no more.
    database: Option<Database>,
    control: Option<Control>,
    switches: BTreeMap<String, Held>,
    /// What an earlier process left; read at the first apply.
    books: Option<Books>,
    in_force: Option<Enforced>,
    /// For tests: how far its clock is ahead.
    ahead: Duration,
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
            control: None,
            switches: BTreeMap::new(),
            books: None,
            in_force: None,
            ahead: Duration::ZERO,
            only_looks: false,
        };
        plane.database()?;
        Ok(plane)
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

    /// For tests: no connection is remembered.
    pub fn forget_state(&mut self) -> io::Result<()> {
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
        let socket = self.config.run_dir.join("db.sock");
        let database = match self.database.take() {
            Some(database) => database,
            None => Database::connect(&socket)
                .map_err(|error| at("connecting to Open vSwitch's database", &socket, error))?,
        };
        Ok(self.database.insert(database))
    }

    fn control(&mut self) -> io::Result<&mut Control> {
        let control = match self.control.take() {
            Some(control) => control,
            None => {
                let socket = ovsdb::vswitchd_socket(&self.config.run_dir)?;
                Control::connect(&socket)?
            }
        };
        Ok(self.control.insert(control))
    }

    /// Over a connection that may have been lost since it was used.
    fn bridges(&mut self) -> io::Result<Vec<Bridge>> {
        if let Some(database) = &mut self.database
            && let Ok(bridges) = database.bridges()
        {
            return Ok(bridges);
        }
        self.database = None;
        let bridges = self.database()?.bridges();
        bridges.map_err(|error| {
            self.database = None;
            io::Error::other(error)
        })
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
        self.control = None;
        self.switches.clear();
    }

    /// A switch drops connections on which nothing was said for long. What it holds is asked for anew.
    fn drop_lost_connections(&mut self) {
        let before = self.switches.len();
        self.switches.retain(|_, switch| switch.is_alive());
        if self.switches.len() < before {
            // It may be another process now.
            self.control = None;
        }
    }

    fn enforce(&mut self, target: &Target) -> Result<Applied, ApplyError> {
        self.drop_lost_connections();
        let bridges = self
            .bridges()
            .map_err(failed("asking Open vSwitch for its bridges"))?;
        let mut books = self.books.take().unwrap_or_else(|| Books::read(&bridges));
        let Moved { given, gone } = self.account(target, &bridges, &mut books);
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

    /// Zones for those that come, holds for those whose flows may be open without state.
    fn account(&mut self, target: &Target, bridges: &[Bridge], books: &mut Books) -> Moved {
        let present = place::on_bridges(target, bridges);
        let away = |id: &&PortId| !present.contains(*id);
        let away: Vec<PortId> = books.zones.keys().filter(away).cloned().collect();
        let gone = away.iter().filter_map(|id| books.zones.remove(id));
        let gone = gone.collect();
        let given = books.give(present);
        if let Some(known) = &self.in_force {
            let settings = &target.view.settings;
            let hold = Duration::from_secs(settings.timeouts.tcp_established_s.into());
            let mut change = ElisionChange::between(&known.target.view, &target.view);
            match settings.narrowing {
                Narrowing::Keep => {}
                Narrowing::Cut => {
                    let narrowed = target.view.ports.keys().filter(|id| change.stops(id));
                    let until = self.now() + hold;
                    books.held.extend(narrowed.map(|id| (id.clone(), until)));
                }
            }
        }
        books
            .held
            .retain(|id, _| target.view.ports.contains_key(id));
        self.account_lost(target, books);
        Moved { given, gone }
    }

    /// Where tags tell who is in which group, a flow remembers what its first packet said: whoever has left a group
    /// since is told by the address, as long as such a flow may be there.
    fn account_lost(&self, target: &Target, books: &mut Books) {
        let now = self.now();
        books.lost.retain(|_, until| *until > now);
        let (Some(known), Some(overlay)) = (&self.in_force, &target.view.overlay) else {
            return;
        };
        let longest = target.view.settings.timeouts.tcp_established_s.into();
        let until = now + Duration::from_secs(longest) + LATE;
        let (old, new) = (&known.target.view.members, &target.view.members);
        for ((scope, _), before, after) in policy::differing(old, new) {
            if !overlay.is_tagged(&target.view, scope) {
                continue;
            }
            let gone = before.into_iter().flat_map(|set| set.iter());
            let gone = gone.filter(|member| !after.is_some_and(|set| set.contains(*member)));
            books
                .lost
                .extend(gone.map(|member| ((scope.clone(), *member), until)));
        }
    }

    /// Zones are written down before anything is tracked in them.
    fn keep_books(
        &mut self,
        bridges: &[Bridge],
        placement: &Placement,
        books: &Books,
    ) -> Result<(), ApplyError> {
        let mut operations = Vec::new();
        for bridge in bridges {
            let board = placement.boards.get(&bridge.name);
            let ports = board.into_iter().flat_map(|board| board.ports.keys());
            let mut wanted = books.external_ids(ports);
            if board.is_some_and(|board| board.tunnel.is_some()) {
                wanted.extend(books.lost_ids());
            }
            let stale = Books::keys(bridge).filter(|key| !wanted.contains_key(*key));
            let stale: Vec<&str> = stale.map(String::as_str).collect();
            if !stale.is_empty() {
                operations.extend(change::remove_external_ids(&bridge.name, &stale));
            }
            let new = wanted
                .iter()
                .filter(|(key, value)| bridge.external_ids.get(*key) != Some(value));
            let new: Vec<(&str, &str)> = new.map(|(k, v)| (k.as_str(), v.as_str())).collect();
            if !new.is_empty() {
                operations.extend(change::set_external_ids(&bridge.name, &new));
            }
        }
        self.transact(operations)
            .map_err(failed("writing down the ports' conntrack zones"))
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

    /// What has to be so before the first packet is tracked.
    fn prepare(
        &mut self,
        target: &Target,
        bridges: &[Bridge],
        placement: &Placement,
    ) -> Result<(), ApplyError> {
        let ports = placement
            .boards
            .values()
            .flat_map(|board| board.ports.values());
        let zones: BTreeSet<u16> = ports.map(|port| port.number).collect();
        let datapaths: BTreeSet<&str> = bridges.iter().map(datapath_type).collect();
        for datapath in datapaths {
            let found = self
                .database()
                .and_then(|database| database.zones(datapath).map_err(io::Error::other));
            let found = found.map_err(failed("asking for the zones' timeouts"))?;
            let timeouts = &target.view.settings.timeouts;
            let operations = timeouts::operations(datapath, &found, &zones, timeouts);
            self.transact(operations)
                .map_err(failed("setting the zones' timeouts"))?;
            if datapath == "netdev" && !zones.is_empty() {
                self.set_tracker()
                    .map_err(failed("setting up the tracker"))?;
            }
        }
        Ok(())
    }

    fn set_tracker(&mut self) -> io::Result<()> {
        let control = self.control()?;
        let done = conntrack::tcp_sequence_check(control, None).and_then(|on| match on {
            true => conntrack::disable_tcp_sequence_check(control, None),
            false => Ok(()),
        });
        // Smaller pieces than this it doesn't put together; it takes no smaller number.
        let done = done.and_then(|()| {
            let mut set = |family| control.call("dpctl/ipf-set-min-frag", &[family, "400"]);
            set("v4").and_then(|_| set("v6")).map(drop)
        });
        done.map_err(|error| {
            self.control = None;
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
        let wanted = match board {
            Some(board) => render::render(&target.view, board, &applied.names),
            None => Flows::new(),
        };
        if let Some(board) = board {
            if secure::is_open(bridge, board.forwarding) && !self.make_secure(bridge)? {
                applied.open.insert(bridge.name.clone());
            }
            // First: what the bridge forwards by itself must not lead past a gate.
            self.mind_floods(bridge, board, had)
                .map_err(failed("keeping floods from the ports"))?;
        }
        let step = format!("writing the flows of bridge {}", bridge.name);
        let written = self.write_bridge(&bridge.name, &wanted);
        applied.writes += written.map_err(failed(&step))?;
        Ok(())
    }

    /// Whether it is so now: what the switch would forget must be such that it can be told again.
    fn make_secure(&mut self, bridge: &Bridge) -> Result<bool, ApplyError> {
        let step = format!("making bridge {} secure", bridge.name);
        let others = self.others(&bridge.name).map_err(failed(&step))?;
        if others.iter().any(secure::refers) {
            return Ok(false);
        }
        self.change_mode(bridge, &secure::secure(bridge), &others)
            .map_err(failed(&step))?;
        Ok(true)
    }

    /// Changes how a bridge forwards without controllers; what others have told it stays.
    fn change_mode(
        &mut self,
        bridge: &Bridge,
        operations: &[serde_json::Value],
        others: &[openflow::Flow],
    ) -> io::Result<()> {
        let done = self
            .database()?
            .transact_and_follow(operations, MODE_PATIENCE);
        done.map_err(|error| {
            self.database = None;
            io::Error::other(error)
        })?;
        let left = self.others(&bridge.name)?;
        let lost = others.iter().filter(|flow| !left.contains(flow));
        let lost: Vec<openflow::Change> = lost.cloned().map(openflow::Change::Add).collect();
        self.switch(&bridge.name)?.change(&lost)
    }

    fn others(&mut self, bridge: &str) -> io::Result<Vec<openflow::Flow>> {
        Ok(secure::others(self.switch(bridge)?.told_of_all()?))
    }

    fn write_bridge(&mut self, bridge: &str, wanted: &Flows) -> io::Result<u64> {
        let switch = self.switch(bridge)?;
        let wanted = &switch.without_taken(wanted)?;
        let plan = switch.plan(wanted)?;
        if plan.is_empty() {
            return Ok(0);
        }
        switch.change(&plan.switch)?;
        self.settle(bridge)?;
        self.switch(bridge)?.change(&plan.clear)?;
        self.switch(bridge)?.keep(wanted);
        Ok(plan.len())
    }

    /// Waits until the switch has forgotten decisions that it made by earlier flows: it looks through them after
    /// each change, but doesn't say when it is done. It may be doing so just now, so it is made to twice.
    fn settle(&mut self, bridge: &str) -> io::Result<()> {
        for _ in 0..2 {
            self.switch(bridge)?
                .change(&[openflow::Change::Add(render::nudge())])?;
            let waited = self.control()?.call("revalidator/wait", &[]);
            waited.map(|_| ()).map_err(|error| {
                self.control = None;
                io::Error::other(error)
            })?;
        }
        Ok(())
    }

    /// A bridge that forwards by itself floods; ports of ours get their copies by their gates.
    fn mind_floods(
        &mut self,
        bridge: &Bridge,
        board: &Switchboard,
        had: &Switchboard,
    ) -> io::Result<()> {
        let guarded = flooded_by_gates(board);
        let guarded_before = flooded_by_gates(had);
        if guarded.is_empty() && guarded_before.is_empty() {
            return Ok(());
        }
        let known = openflow::no_flood_ports(self.switch(&bridge.name)?.socket())?;
        let missing = guarded.difference(&known).copied().collect();
        let freed = guarded_before.difference(&guarded);
        let freed = freed.filter(|port| known.contains(port)).copied().collect();
        self.set_no_flood(&bridge.name, &freed, false)?;
        if self.set_no_flood(&bridge.name, &missing, true)? {
            // What it has learned so far would lead past a gate.
            let flushed = self.control()?.call("fdb/flush", &[&bridge.name]);
            flushed.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Whether there was something to do.
    fn set_no_flood(&mut self, bridge: &str, ports: &BTreeSet<u16>, on: bool) -> io::Result<bool> {
        if ports.is_empty() {
            return Ok(false);
        }
        let switch = self.switch(bridge)?;
        for port in switch.ports()? {
            if let Ok(number) = u16::try_from(port.number)
                && ports.contains(&number)
            {
                openflow::set_no_flood(switch.socket(), number, port.mac, on)?;
            }
        }
        Ok(true)
    }

    /// Whoever gets one of these zones finds nothing in it.
    fn empty(&mut self, zones: &[u16]) -> Result<(), ApplyError> {
        for zone in zones {
            let flushed = self.control().and_then(|control| {
                match conntrack::flush_zone(control, None, *zone) {
                    // Before the first bridge, and after the last.
                    Err(error) if !error.to_string().contains("no datapaths exist") => {
                        Err(io::Error::other(error))
                    }
                    Ok(_) | Err(_) => Ok(()),
                }
            });
            flushed.map_err(failed("ending the connections of a port that is gone"))?;
        }
        Ok(())
    }

    /// Connections that are kept no state for from now on.
    fn forget_elidable(&mut self, target: &Target) -> Result<(), ApplyError> {
        let Some(known) = &self.in_force else {
            return Ok(());
        };
        let mut change = ElisionChange::between(&known.target.view, &target.view);
        let becomes: Vec<&PortId> = target
            .view
            .ports
            .keys()
            .filter(|id| change.becomes(id))
            .collect();
        let zones: Vec<(PortId, u16)> = becomes
            .into_iter()
            .filter_map(|id| Some((id.clone(), *self.books.as_ref()?.zones.get(id)?)))
            .collect();
        for (port, zone) in zones {
            let done = self.control().and_then(|control| {
                crate::flows::forget_elidable(control, &target.view, &port, zone)
            });
            done.map_err(failed("ending connections that need no tracking any more"))?;
        }
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

/// Zones by what has become of them.
struct Moved {
    given: Vec<u16>,
    gone: Vec<u16>,
}

/// A tracker may be so late to forget.
const LATE: Duration = Duration::from_secs(30);
/// How long ovs-vswitchd may take to act on its database.
const MODE_PATIENCE: Duration = Duration::from_secs(5);

impl DataPlane for OvsPlane {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn apply(&mut self, target: &Target) -> Result<ApplyReport, ApplyError> {
        let began = Instant::now();
        let target = strict(target);
        let applied = self.enforce(&target).inspect_err(|_| self.disconnect());
        let Applied {
            placement,
            names,
            writes,
            open,
        } = applied?;
        let groups = target.view.groups.iter();
        let remarks = groups.filter_map(|(id, group)| remark(id, group));
        let remarks = remarks.chain(open.iter().map(|bridge| stays_open(bridge)));
        let remarks = remarks.collect();
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
            took: began.elapsed(),
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
    fn differences(&mut self, known: &Enforced) -> Result<Vec<Drift>, ApplyError> {
        self.drop_lost_connections();
        let bridges = self
            .bridges()
            .map_err(failed("asking Open vSwitch for its bridges"))?;
        let books = self.books.clone().unwrap_or_default();
        let placement = place::place(&known.target, &bridges, &books, self.now());
        let mut drift = Vec::new();
        let changed = |what: String| Drift::Changed { what };
        let names = known.placement.boards.keys();
        let names: BTreeSet<&String> = names.chain(placement.boards.keys()).collect();
        for name in names {
            let board = known.placement.boards.get(name);
            let bridge = bridges.iter().find(|bridge| bridge.name == *name);
            let (Some(board), Some(bridge)) = (board, bridge) else {
                drift.push(changed(format!("what hangs on bridge {name}")));
                continue;
            };
            if placement.boards.get(name) != Some(board) {
                drift.push(changed(format!("what hangs on bridge {name}")));
            } else if secure::is_open(bridge, board.forwarding) && !known.open.contains(name) {
                drift.push(changed(format!("the fail_mode of bridge {name}")));
            } else if let Some(what) = self.difference(known, name, board)? {
                drift.push(changed(what));
            }
        }
        if placement.refused != known.placement.refused {
            drift.push(changed("which devices can be guarded".to_owned()));
        }
        Ok(drift)
    }

    fn difference(
        &mut self,
        known: &Enforced,
        bridge: &str,
        board: &Switchboard,
    ) -> Result<Option<String>, ApplyError> {
        let wanted = render::render(&known.target.view, board, &known.names);
        let found = self.switch(bridge).and_then(|switch| {
            switch.forget();
            let wanted = switch.without_taken(&wanted)?;
            let guarded = flooded_by_gates(board);
            let is_flooded = !guarded.is_empty()
                && !guarded.is_subset(&openflow::no_flood_ports(switch.socket())?);
            Ok((switch.plan(&wanted)?.len(), is_flooded))
        });
        let found = found.map_err(failed(&format!("reading the flows of bridge {bridge}")))?;
        Ok(match found {
            (0, false) => None,
            (0, true) => Some(format!("floods reach guarded ports of bridge {bridge}")),
            (flows, _) => Some(format!("{flows} flows of bridge {bridge}")),
        })
    }

    /// All of ours goes, all else is as it was before us.
    fn detach_bridge(&mut self, bridge: &Bridge) -> io::Result<()> {
        let switch = self.switch(&bridge.name)?;
        let told = switch.told_of_all()?;
        let guarded = told
            .iter()
            .filter_map(|told| secure::guarded_port(&told.flow));
        let guarded: BTreeSet<u16> = guarded.collect();
        let no_flood = match place::forwarding(bridge) {
            Forwarding::Normal if !guarded.is_empty() => openflow::no_flood_ports(switch.socket())?,
            Forwarding::Normal | Forwarding::Whole => BTreeSet::new(),
        };
        let freed = guarded.intersection(&no_flood).copied().collect();
        let others = secure::others(told);
        match secure::is_secured(bridge) {
            true => self.change_mode(bridge, &secure::release(bridge), &others)?,
            false => self.transact(secure::release(bridge))?,
        }
        self.switch(&bridge.name)?
            .change(&[openflow::Change::DeleteAll {
                cookie: Cookie::OURS,
                mask: crate::cookie::OURS_MASK,
                table: None,
            }])?;
        self.set_no_flood(&bridge.name, &freed, false).map(drop)
    }

    fn forget_timeouts(&mut self, datapath: &str) -> io::Result<()> {
        let found = self.database()?.zones(datapath).map_err(io::Error::other)?;
        let none = BTreeSet::new();
        self.transact(timeouts::operations(
            datapath,
            &found,
            &none,
            &model::Timeouts::default(),
        ))
    }

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

/// The ports of a bridge that forwards by itself whose floods come by their gates.
fn flooded_by_gates(board: &Switchboard) -> BTreeSet<u16> {
    let guarded = board.ports.values().filter(|port| port.view.port_security);
    match board.forwarding {
        Forwarding::Normal => guarded.map(|port| port.of_port).collect(),
        Forwarding::Whole => BTreeSet::new(),
    }
}

fn stays_open(bridge: &str) -> String {
    format!(
        "bridge {bridge} stays as it is: to make it secure would lose groups or meters that others' flows refer \
         to; if ovs-vswitchd restarts, its ports are open until the flows are back"
    )
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

fn at(step: &str, place: &std::path::Path, error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("{step} at {}: {error}", place.display()),
    )
}

fn failed(step: &str) -> impl FnOnce(io::Error) -> ApplyError {
    let step = step.to_owned();
    move |source| ApplyError { step, source }
}
