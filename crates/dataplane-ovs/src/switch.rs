//! One bridge: its connection, and the flows of ours that it holds as far as we know.
//!
//! Place on the line: plan -> **execute**; read back.

use crate::cookie::{Cookie, OURS_MASK};
use crate::flow_set::FlowSet;
use crate::names::Names;
use crate::plan::{self, Plan};
use crate::render::{self, Switchboard};
use crate::secure;
use crate::tables::Table;
use openflow::{Change, Filter, FlowStats, FlowWatch, PortDesc, Switch, TlvMapping};
use policy::HostView;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) struct Held {
    socket: PathBuf,
    switch: Switch,
    /// `None`: it has to be asked.
    known: Option<FlowSet>,
    rendered: render::Known,
    /// Says whether a flow has changed since all were read and were as they should be.
    watch: Option<FlowWatch>,
    read: Instant,
}

const READ_EVERY: Duration = Duration::from_secs(60);

/// All flows of ours.
const OURS: Filter = Filter {
    cookie: Cookie::OURS,
    cookie_mask: OURS_MASK,
    table: None,
};

impl Held {
    pub(crate) fn connect(run_dir: &Path, bridge: &str) -> io::Result<Self> {
        let socket = run_dir.join(format!("{bridge}.mgmt"));
        let switch = Switch::connect(&socket)?;
        Ok(Self {
            socket,
            switch,
            known: None,
            rendered: render::Known::default(),
            watch: None,
            read: Instant::now(),
        })
    }

    /// What the bridge has to hold.
    pub(crate) fn render(
        &mut self,
        view: &HostView,
        board: &Switchboard,
        names: &Names,
    ) -> FlowSet {
        render::render(view, board, names, &mut self.rendered)
    }

    pub(crate) fn ports(&mut self) -> io::Result<Vec<PortDesc>> {
        self.switch.ports()
    }

    pub(crate) fn tlv_map(&mut self) -> io::Result<Vec<TlvMapping>> {
        self.switch.tlv_map()
    }

    pub(crate) fn map_option(&mut self, mapping: TlvMapping) -> io::Result<()> {
        self.switch.add_tlv(&[mapping])
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn told(&mut self) -> io::Result<Vec<FlowStats>> {
        self.switch.flows(&OURS)
    }

    /// Of others too.
    pub(crate) fn told_of_all(&mut self) -> io::Result<Vec<FlowStats>> {
        self.switch.flows(&Filter::default())
    }

    /// Others may have a flow of their own where our last one of the first table would be. Theirs stays.
    pub(crate) fn vacate_taken(&mut self, wanted: &mut FlowSet) -> io::Result<()> {
        let floor = secure::floor().flow();
        if wanted.has_place_of(&floor) && !self.known()?.has_place_of(&floor) {
            let first_table = Filter {
                table: Some(floor.table),
                ..Filter::default()
            };
            let told = self.switch.flows(&first_table)?;
            let mut flows = told.iter().map(|told| &told.flow);
            if flows.any(|f| f.priority == floor.priority && f.matching == floor.matching) {
                wanted.vacate(&floor);
            }
        }
        Ok(())
    }

    /// What is to be done for these flows.
    pub(crate) fn plan(&mut self, wanted: &FlowSet) -> io::Result<Plan> {
        Ok(plan::plan(self.known()?, wanted))
    }

    pub(crate) fn known(&mut self) -> io::Result<&FlowSet> {
        let known = match self.known.take() {
            Some(known) => known,
            None => self.read()?,
        };
        Ok(self.known.insert(known))
    }

    /// The first table is everybody's, and may be long.
    pub(crate) fn read(&mut self) -> io::Result<FlowSet> {
        let mut told = Vec::new();
        for table in Table::ALL {
            let filter = if table == Table::Classify {
                OURS
            } else {
                Filter::default()
            };
            let table = Some(table.number());
            told.extend(self.switch.flows(&Filter { table, ..filter })?);
        }
        Ok(plan::ours(told))
    }

    /// One bundle; whatever becomes of it, what is there is known by asking alone until `keep` is called.
    pub(crate) fn change(&mut self, changes: &[Change]) -> io::Result<()> {
        self.known = None;
        match changes.is_empty() {
            true => Ok(()),
            false => self.switch.change(changes).map_err(io::Error::other),
        }
    }

    /// Where MACs were seen; no flow that we write.
    pub(crate) fn forget_learned(&mut self) -> io::Result<()> {
        let learned = Change::DeleteAll {
            cookie: Cookie::Learned.number(),
            mask: u64::MAX,
            table: None,
        };
        self.switch.change(&[learned]).map_err(io::Error::other)
    }

    /// All of it landed.
    pub(crate) fn keep(&mut self, wanted: FlowSet) {
        self.known = Some(wanted);
    }

    pub(crate) fn forget(&mut self) {
        self.known = None;
    }

    /// How many flows aren't as they should be. All are read where the switch can't say that none has changed since
    /// they were found in order, and now and then.
    pub(crate) fn drift(
        &mut self,
        view: &HostView,
        board: &Switchboard,
        names: &Names,
    ) -> io::Result<u64> {
        if self.read.elapsed() < READ_EVERY && self.is_untouched() {
            return Ok(0);
        }
        let begun = FlowWatch::begin(&self.socket);
        let mut wanted = self.render(view, board, names);
        self.forget();
        self.vacate_taken(&mut wanted)?;
        let drift = self.plan(&wanted)?.len();
        self.watch = begun.ok().filter(|_| drift == 0);
        self.read = Instant::now();
        Ok(drift)
    }

    fn is_untouched(&mut self) -> bool {
        let changed = self.watch.as_mut().map(FlowWatch::changed);
        matches!(changed, Some(Ok(false)))
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.echo().is_ok()
    }

    pub(crate) fn echo(&mut self) -> io::Result<()> {
        self.switch.echo()
    }
}
