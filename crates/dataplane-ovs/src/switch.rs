//! One bridge: its connection, and the flows of ours that it holds as far as we know.
//!
//! Place on the line: plan -> **execute**; read back.

use crate::cookie::{Cookie, OURS_MASK};
use crate::plan::{self, Plan};
use crate::render::Flows;
use openflow::{Change, Filter, FlowStats, PortDesc, Switch};
use std::io;
use std::path::{Path, PathBuf};

pub(crate) struct Held {
    socket: PathBuf,
    switch: Switch,
    /// `None`: it has to be asked.
    known: Option<Flows>,
}

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
        })
    }

    pub(crate) fn ports(&mut self) -> io::Result<Vec<PortDesc>> {
        self.switch.ports()
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn told(&mut self) -> io::Result<Vec<FlowStats>> {
        self.switch.flows(&OURS)
    }

    /// As the switch has it now.
    pub(crate) fn read(&mut self) -> io::Result<&Flows> {
        let told = self.told()?;
        Ok(self.known.insert(plan::ours(told)))
    }

    /// What is to be done for these flows.
    pub(crate) fn plan(&mut self, wanted: &Flows) -> io::Result<Plan> {
        if self.known.is_none() {
            self.read()?;
        }
        Ok(match &self.known {
            Some(known) => plan::plan(known, wanted),
            None => Plan::default(),
        })
    }

    /// One bundle; whatever becomes of it, what is there is known by asking alone until `keep` is called.
    pub(crate) fn change(&mut self, changes: &[Change]) -> io::Result<()> {
        self.known = None;
        match changes.is_empty() {
            true => Ok(()),
            false => self.switch.change(changes).map_err(io::Error::other),
        }
    }

    /// All of it landed.
    pub(crate) fn keep(&mut self, wanted: &Flows) {
        self.known = Some(wanted.clone());
    }

    pub(crate) fn forget(&mut self) {
        self.known = None;
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.switch.echo().is_ok()
    }
}
