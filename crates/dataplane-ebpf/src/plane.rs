//! The plane: render, plan and execute in a row, and what one can ask of it.

use crate::attach::{self, Found, Hook};
use crate::contents::Contents;
use crate::counters::{self, Past};
use crate::error::OpenError;
use crate::events::{self, DropSample};
use crate::flows;
use crate::judge;
use crate::layout::{
    Answer, Config, DIR_EGRESS, DIR_INGRESS, HostState, PortState, SLOT_CLOSED, SWEEP_EXPIRED,
    WORD_RANK,
};
use crate::migration::{self, Place};
use crate::object::{Attach, EbpfConfig, META, Object};
use crate::render::Rendered;
use crate::render::books::Books;
use crate::{execute, plan, readback, render};
use dataplane::{
    ApplyError, ApplyReport, Capabilities, Counters, DataPlane, Device, DevicesInForce, Drift,
    FlowRecord, Imported, Outcome, PortFlows, Target,
};
use hurry::Hurry;
use model::{Direction, PortId, RuleRef, Verdict};
use policy::HostView;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// The eBPF data plane of one instance on this host.
///
/// Dropping it changes no verdict: maps, links and filters stay. Devices are looked up in the network
/// namespace of the thread that calls.
pub struct EbpfPlane {
    config: EbpfConfig,
    object: Object,
    hook: Hook,
    /// What the kernel holds, by our books. `None`: not known, to be read back first.
    state: Option<State>,
    /// The last applied.
    view: Option<HostView>,
    devices: BTreeMap<PortId, Device>,
    closed: BTreeSet<Device>,
    past: Past,
    detached: bool,
    /// Not before this is the next look at all flows.
    next_sweep: Instant,
}

/// A look at all flows may take this part of the time.
const SWEEP_SHARE: u32 = 100;

struct State {
    contents: Contents,
    books: Books,
}

impl EbpfPlane {
    /// Loads the programs, and takes over what an earlier process left in force.
    pub fn open(config: EbpfConfig) -> Result<Self, OpenError> {
        let hook = Hook::choose(config.attach)?;
        let object = Object::open(&config)?;
        let mut plane = Self::new(config, object, hook);
        plane.begin()?;
        Ok(plane)
    }

    /// What another process enforces, to look at, to ask, and to detach; applies nothing.
    pub fn open_existing(instance: &str) -> Result<Self, OpenError> {
        let object = Object::open_pinned(instance)?;
        let config = EbpfConfig {
            instance: instance.to_owned(),
            attach: Attach::Auto,
            ..EbpfConfig::default()
        };
        let hook = Hook::choose(config.attach)?;
        Ok(Self::new(config, object, hook))
    }

    pub fn instance(&self) -> &str {
        &self.config.instance
    }

    /// The names of instances whose enforcement is in place.
    pub fn instances() -> io::Result<Vec<String>> {
        crate::object::instances()
    }

    /// Removes what an instance enforces, also what a version with another layout of the maps left.
    /// `false`: there was nothing.
    pub fn remove(instance: &str) -> Result<bool, OpenError> {
        crate::object::remove_any(instance)
    }

    fn new(config: EbpfConfig, object: Object, hook: Hook) -> Self {
        Self {
            config,
            object,
            hook,
            state: None,
            view: None,
            devices: BTreeMap::new(),
            closed: BTreeSet::new(),
            past: Past::new(),
            detached: false,
            next_sweep: Instant::now(),
        }
    }

    /// A new instance gets its secret and the mark that it is complete; in an old one our programs
    /// take the place of its own.
    fn begin(&mut self) -> Result<(), OpenError> {
        let trouble = |what: &str| {
            let what = what.to_owned();
            move |error| OpenError::io(what, error)
        };
        if self.object.fresh {
            let random = || secret().map_err(trouble("reading random bytes"));
            let config = Config {
                jiffy_ns: flows::jiffy_ns(),
                hash_key: [random()?, random()?],
                judged_mark: random()?,
                direct: self.config.direct.into(),
                ..Config::default()
            };
            let tables = &self.object.tables;
            tables
                .config
                .put(&0, &config)
                .map_err(trouble("writing the settings"))?;
            let meta = crate::numbers::Numbers::new().meta();
            tables
                .names
                .put(&META, &meta)
                .map_err(trouble("writing the layout version"))?;
            return Ok(());
        }
        let state = self
            .read()
            .map_err(trouble("reading back what is enforced"))?;
        let direct = self.config.direct.into();
        if state.contents.config.direct != direct {
            let config = Config {
                direct,
                ..state.contents.config
            };
            self.put_config(config)
                .map_err(trouble("writing the settings"))?;
        }
        let known: BTreeSet<u32> = state.contents.devices.keys().copied().collect();
        let linked = Hook::Tcx
            .attached(&self.object, &known)
            .map_err(trouble("reading links"))?;
        let filtered = Hook::Clsact.attached(&self.object, &known);
        let filtered = filtered.map_err(trouble("reading tc filters"))?;
        let any = !(linked.is_empty() && filtered.is_empty());
        let _hurry = any.then(Hurry::up);
        for ifindex in linked.union(&filtered) {
            self.hook
                .take_over(&self.object, *ifindex)
                .map_err(trouble(&format!("taking over device {ifindex}")))?;
        }
        Ok(())
    }

    fn read(&self) -> io::Result<State> {
        let (contents, books) = readback::read(&self.object, self.hook)?;
        Ok(State { contents, books })
    }

    fn state(&mut self) -> io::Result<&mut State> {
        if self.state.is_none() {
            let mut state = self.read()?;
            if let Some(view) = &self.view {
                state.books.recognize(view, &state.contents);
            }
            self.state = Some(state);
        }
        Ok(self.state.as_mut().expect("read just now"))
    }

    /// Says what view is in force: the last one that an earlier process applied. So rules have their
    /// names, and a change is compared with it.
    pub fn adopt(&mut self, view: &HostView) -> io::Result<()> {
        self.view = Some(view.clone());
        self.state = None;
        self.state().map(|_| ())
    }

    /// By the loaded program, as if the packet were there: it moves state and counters.
    pub fn judge(
        &mut self,
        port: &PortId,
        direction: Direction,
        frame: &[u8],
    ) -> io::Result<Verdict> {
        let answer = self.ask(port, direction, false, frame)?;
        Ok(judge::verdict(&answer, |set, word| self.rule(set, word)))
    }

    /// By the loaded program, which writes and counts nothing.
    pub fn dry_run(
        &mut self,
        port: &PortId,
        direction: Direction,
        frame: &[u8],
    ) -> io::Result<Outcome> {
        let answer = self.ask(port, direction, true, frame)?;
        Ok(judge::outcome(&answer, |set, word| self.rule(set, word)))
    }

    /// A port that is not known is judged as a device of none.
    fn ask(
        &mut self,
        port: &PortId,
        direction: Direction,
        dry: bool,
        frame: &[u8],
    ) -> io::Result<Answer> {
        let slot = self.state()?.books.numbers.slot(port);
        let slot = slot.unwrap_or(SLOT_CLOSED);
        judge::run(&self.object, slot, number(direction), dry, frame)
    }

    /// How long the hook takes for a packet at a device, on average of so many runs.
    pub fn time_hook(
        &self,
        ifindex: u32,
        direction: Direction,
        frame: &[u8],
        repeat: u32,
    ) -> io::Result<Duration> {
        let looks = || io::Error::other("this process only looks; it holds no programs to run");
        let hooks = self.object.hooks.as_ref().ok_or_else(looks)?;
        let program = match direction {
            Direction::Ingress => &hooks.to_port,
            Direction::Egress => &hooks.from_port,
        };
        judge::time(program.as_raw_fd(), ifindex, frame, repeat)
    }

    fn rule(&self, set: u32, word: u32) -> RuleRef {
        let state = self.state.as_ref();
        let compiled = state.and_then(|state| state.books.compiled.get(&set));
        let rank = (word & WORD_RANK) as usize;
        let rule = compiled.and_then(|compiled| compiled.rules.get(rank.wrapping_sub(1)));
        rule.cloned().unwrap_or_else(|| judge::nameless(set, word))
    }

    /// All tracked flows, or one port's.
    pub fn flows(&mut self, of: Option<&PortId>) -> io::Result<Vec<FlowRecord>> {
        let state = self.state()?;
        let names = state.books.numbers.ports();
        let ports = state.contents.ports.clone();
        let config = self.config_now()?;
        let now = judge::now_ticks(&self.object)?;
        let mut records = Vec::new();
        for (_, flow) in self.object.tables.flows.entries_in_batches()? {
            if flows::is_expired(&flow, &config, now) {
                continue;
            }
            let slot = u32::from(flow.slot);
            let Some(port) = ports.get(&slot).filter(|p| p.record.number == flow.number) else {
                continue;
            };
            let Some(id) = names.get(&slot).filter(|id| of.is_none_or(|of| of == *id)) else {
                continue;
            };
            let set = port.record.set;
            let rule = |word| self.rule(set, word);
            records.push(flows::record(&flow, id.clone(), &config, now, rule));
        }
        Ok(records)
    }

    /// Removes expired flows now; how many went. `tend` does so now and then.
    pub fn sweep(&mut self) -> io::Result<u32> {
        execute::sweep(&self.object, SWEEP_EXPIRED, 0).map(|answer| answer.removed)
    }

    /// Removes all flows and remembered fragments, as if the host had just been started.
    pub fn forget_state(&mut self) -> io::Result<()> {
        let slots: Vec<(u32, u32)> = {
            let ports = &self.state()?.contents.ports;
            ports
                .iter()
                .map(|(slot, port)| (*slot, port.record.number))
                .collect()
        };
        let tables = &self.object.tables;
        let flows = tables.flows.entries_in_batches()?;
        let keys: Vec<u64> = flows.into_iter().map(|(key, _)| key).collect();
        tables.flows.delete_all(&keys)?;
        let fragments = tables.fragments.entries_in_batches()?;
        let keys: Vec<_> = fragments.into_iter().map(|(key, _)| key).collect();
        tables.fragments.delete_all(&keys)?;
        tables.host_state.put(&0, &HostState::default())?;
        for (slot, number) in slots {
            let state = PortState {
                number,
                ..PortState::default()
            };
            tables.port_state.put(&slot, &state)?;
        }
        Ok(())
    }

    /// Samples of drops since the last call.
    pub fn events(&mut self) -> io::Result<Vec<DropSample>> {
        let names = self.state()?.books.numbers.ports();
        events::consume(&self.object.events, |slot| names.get(&slot).cloned())
    }

    /// For tests of timeouts: the hooks' clock is ahead by this.
    pub fn set_clock_offset(&mut self, offset: Duration) -> io::Result<()> {
        let config = Config {
            clock_offset_ns: offset.as_nanos() as u64,
            fixed_clock_ns: 0,
            ..self.config_now()?
        };
        self.put_config(config)
    }

    /// For tests: the hooks' clock stands at this time (0: it runs).
    pub fn set_fixed_clock(&mut self, now: Duration) -> io::Result<()> {
        let config = Config {
            fixed_clock_ns: now.as_nanos() as u64,
            ..self.config_now()?
        };
        self.put_config(config)
    }

    fn config_now(&self) -> io::Result<Config> {
        if let Some(state) = &self.state {
            return Ok(state.contents.config);
        }
        Ok(self.object.tables.config.get(&0)?.unwrap_or_default())
    }

    fn put_config(&mut self, config: Config) -> io::Result<()> {
        self.object.tables.config.put(&0, &config)?;
        if let Some(state) = &mut self.state {
            state.contents.config = config;
        }
        Ok(())
    }

    /// The ports that are under a policy, by what the kernel holds.
    pub fn ports(&mut self) -> io::Result<Vec<PortId>> {
        let state = self.state()?;
        let names = state.books.numbers.ports();
        let slots = state.contents.ports.keys();
        Ok(slots.filter_map(|slot| names.get(slot).cloned()).collect())
    }

    /// The devices of ports, and the closed ones, by what the kernel holds; those that are gone are left
    /// out. For who looks in: the next audit looks at them, too.
    pub fn find_devices(&mut self) -> io::Result<DevicesInForce> {
        let state = self.state()?;
        let names = state.books.numbers.ports();
        let mut found = DevicesInForce {
            direct: state.contents.config.direct != 0,
            ..DevicesInForce::default()
        };
        for (ifindex, place) in &state.contents.devices {
            let Some(device) = attach::device(*ifindex)? else {
                continue;
            };
            match names.get(&place.slot) {
                Some(port) => drop(found.of_ports.insert(port.clone(), device)),
                None => drop(found.closed.insert(device)),
            }
        }
        self.devices.clone_from(&found.of_ports);
        self.closed.clone_from(&found.closed);
        Ok(found)
    }

    fn place_of(&mut self, port: &PortId, doing: &str) -> Result<Place, ApplyError> {
        let not_in_force = || dataplane::not_in_force(doing, port);
        if self.detached {
            return Err(not_in_force());
        }
        let state = self.state().map_err(failed("reading back"))?;
        let slot = state.books.numbers.slot(port).ok_or_else(not_in_force)?;
        let in_force = state.contents.ports.get(&slot).copied();
        let in_force = in_force.filter(|found| found.record.number != 0);
        Ok(Place {
            slot,
            in_force: in_force.ok_or_else(not_in_force)?,
        })
    }

    /// The port is under a hold from now on, for at least so long.
    fn hold(&mut self, place: &Place, hold: Duration) -> io::Result<()> {
        // Until it is written the books don't tell what is in the kernel.
        let state = self.state.take();
        let held = migration::hold(&self.object, place, hold)?;
        self.state = state;
        if let (Some(state), Some(held)) = (&mut self.state, held) {
            state.contents.ports.insert(place.slot, held);
        }
        Ok(())
    }

    fn render(&mut self, target: &Target) -> io::Result<(State, Rendered)> {
        self.state()?;
        let now = judge::now_ticks(&self.object)?;
        let mut state = self.state.take().expect("read just now");
        let old = self.view.as_ref();
        let rendered = render::render(target, old, &state.contents, &mut state.books, now);
        Ok((state, rendered))
    }
}

impl DataPlane for EbpfPlane {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn apply(&mut self, target: &Target) -> Result<ApplyReport, ApplyError> {
        let began = Instant::now();
        if self.detached {
            self.object = Object::open(&self.config).map_err(|error| ApplyError {
                step: "loading the programs again".to_owned(),
                source: io::Error::other(error.to_string()),
            })?;
            self.begin().map_err(|error| ApplyError {
                step: "making the instance again".to_owned(),
                source: io::Error::other(error.to_string()),
            })?;
            self.detached = false;
        }
        let (mut state, rendered) = self.render(target).map_err(failed("reading back"))?;
        rendered
            .check(&state.contents, &state.books.limits)
            .map_err(|text| ApplyError {
                step: "nothing was changed".to_owned(),
                source: io::Error::new(io::ErrorKind::StorageFull, text),
            })?;
        let (steps, ending) = plan::plan(&state.contents, &rendered);
        let mut ended = Past::new();
        for (number, set) in &state.contents.sets {
            if !rendered.desired.sets.contains_key(number) {
                counters::add_rules(&self.object, &state.books, *number, set, &mut ended)
                    .map_err(failed("reading counters"))?;
            }
        }
        // From the first write on, until all is done, the books don't tell what is in the kernel.
        let done = match execute::execute(&self.object, &self.hook, &steps) {
            Ok(done) => done,
            Err(error) => {
                self.view = None;
                return Err(error);
            }
        };
        counters::keep(&mut self.past, ended, &target.view);
        let Rendered {
            desired,
            passing_sets,
            mut refused,
            ..
        } = rendered;
        state
            .books
            .settle(&state.contents.sets, &passing_sets, &desired.sets);
        state.contents.advance(desired, ending);
        for (ifindex, _) in &done.unattached {
            state.contents.attached.remove(ifindex);
        }
        self.state = Some(state);
        if self.view.as_ref() != Some(&target.view) {
            self.view = Some(target.view.clone());
        }
        self.devices.clone_from(&target.devices);
        self.closed.clone_from(&target.closed);
        for (ifindex, error) in done.unattached {
            let of = |(_, device): &(&PortId, &Device)| device.ifindex == ifindex;
            let Some((port, device)) = target.devices.iter().find(of) else {
                return Err(failed(&format!("closing device {ifindex}, which is open"))(
                    error,
                ));
            };
            let why = format!(
                "device {} is open: attaching to it failed: {error}",
                device.name
            );
            refused.insert(port.clone(), why);
        }
        let ports = target.view.ports.keys();
        Ok(ApplyReport {
            revision: target.view.revision,
            applied: ports
                .filter(|id| !refused.contains_key(*id))
                .cloned()
                .collect(),
            refused,
            remarks: Vec::new(),
            writes: done.writes,
            took: began.elapsed(),
        })
    }

    fn audit(&mut self) -> Result<Vec<Drift>, ApplyError> {
        let mut drift = Vec::new();
        let look = |device: &Device| {
            let found = self.hook.look(&self.object, device.ifindex);
            found.map_err(failed(&format!("looking at device {}", device.name)))
        };
        for (port, device) in &self.devices {
            let (port, name) = (port.clone(), device.name.clone());
            match look(device)? {
                Found::Ours => {}
                Found::Behind(first) => drift.push(Drift::NotFirst {
                    port,
                    device: name,
                    first,
                }),
                Found::Nothing => drift.push(Drift::Detached { port, device: name }),
            }
        }
        for device in &self.closed {
            let what = match look(device)? {
                Found::Ours => continue,
                Found::Behind(first) => {
                    format!("on device {}, closed, {first} is first", device.name)
                }
                Found::Nothing => format!("device {}, to be closed, is open", device.name),
            };
            drift.push(Drift::Changed { what });
        }
        if let Some(state) = &self.state {
            let read = self.read().map_err(failed("reading back"))?.contents;
            let changed = state.contents.differing_parts(&read);
            drift.extend(changed.into_iter().map(|what| Drift::Changed {
                what: what.to_owned(),
            }));
        }
        let only_order = |d: &Drift| matches!(d, Drift::NotFirst { .. });
        if !drift.iter().all(only_order) {
            // The next apply puts it right.
            self.state = None;
        }
        Ok(drift)
    }

    fn counters(&mut self) -> Result<Counters, ApplyError> {
        self.state().map_err(failed("reading back"))?;
        let state = self.state.as_ref().expect("read just now");
        counters::read(&self.object, &state.contents, &state.books, &self.past)
            .map_err(failed("reading counters"))
    }

    /// Removes expired flows, each second or, where the table is large, as often as costs little.
    fn tend(&mut self) -> Result<(), ApplyError> {
        let began = Instant::now();
        if began >= self.next_sweep {
            self.sweep().map_err(failed("removing expired flows"))?;
            self.next_sweep = began + began.elapsed() * SWEEP_SHARE;
        }
        Ok(())
    }

    fn export_flows(&mut self, port: &PortId) -> Result<PortFlows, ApplyError> {
        let place = self.place_of(port, "exporting")?;
        migration::export(&self.object, &place)
            .map_err(failed(&format!("exporting the flows of port {port}")))
    }

    fn import_flows(&mut self, port: &PortId, flows: &PortFlows) -> Result<Imported, ApplyError> {
        let place = self.place_of(port, "importing")?;
        let step = format!("importing the flows of port {port}");
        // First, so that nothing begins in mid-stream meanwhile.
        if let Some(hold) = flows.hold {
            self.hold(&place, hold).map_err(failed(&step))?;
        }
        migration::import(&self.object, &place, flows).map_err(failed(&step))
    }

    fn detach(&mut self) -> Result<(), ApplyError> {
        attach::detach_all(&self.object.directory).map_err(failed("detaching from devices"))?;
        self.object.unpin().map_err(failed("removing pins"))?;
        self.state = None;
        self.view = None;
        self.devices.clear();
        self.closed.clear();
        self.detached = true;
        Ok(())
    }
}

fn failed(step: &str) -> impl FnOnce(io::Error) -> ApplyError {
    let step = step.to_owned();
    move |source| ApplyError { step, source }
}

fn number(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => DIR_INGRESS,
        Direction::Egress => DIR_EGRESS,
    }
}

fn secret() -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests;
