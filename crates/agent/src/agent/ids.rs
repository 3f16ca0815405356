//! The ids that a virtual switch has for its interfaces, for ports whose device is found by one.
//!
//! Place on the line: devices -> **what there is** -> target.
//!
//! They are asked for only while some port needs them: when devices change, and about once a second, since an
//! id may be set long after its device came. Before they are known for the first time nothing is applied: an
//! agent that comes back would close the devices of ports that are enforced. Later, a failure changes nothing.
//! Knows nothing of: which switch, how it is asked.

use super::{Agent, Effect, Timer};
use crate::link::Link;
use crate::report::Report;
use std::collections::BTreeMap;

pub(super) struct InterfaceIds {
    /// By the names of devices. `None` inside: nobody has such ids on this host.
    pub(super) known: Option<Option<BTreeMap<String, String>>>,
    /// They may have changed since they were asked for.
    pub(super) stale: bool,
    /// An answer is on its way.
    asked: bool,
    pub(super) error: Option<String>,
}

impl InterfaceIds {
    pub(super) fn new() -> Self {
        Self {
            known: None,
            stale: true,
            asked: false,
            error: None,
        }
    }

    pub(super) fn of(&self, link: &Link) -> Option<String> {
        let known = self.known.as_ref()?.as_ref()?;
        known.get(&link.name).cloned()
    }
}

impl Agent {
    pub(super) fn ask_interface_ids(&mut self, effects: &mut Vec<Effect>) {
        let Some(compiled) = self.compiled.as_ref().filter(|_| !self.ended) else {
            return;
        };
        if !compiled.by_interface_id {
            // By the time that a port needs them they may be others.
            self.ids = InterfaceIds::new();
        } else if self.ids.stale && !self.ids.asked {
            self.ids.stale = false;
            self.ids.asked = true;
            effects.push(Effect::ReadInterfaceIds);
        }
    }

    pub(super) fn interface_ids_read(&mut self, ids: Option<BTreeMap<String, String>>) {
        self.ids.asked = false;
        self.ids.error = None;
        if self.ids.known.as_ref() == Some(&ids) {
            return;
        }
        self.ids.known = Some(ids);
        self.stale = true;
        for link in self.links.iter_mut().flat_map(BTreeMap::values_mut) {
            link.interface_id = self.ids.of(link);
        }
    }

    pub(super) fn interface_ids_unread(&mut self, error: String, effects: &mut Vec<Effect>) {
        self.ids.asked = false;
        if self.ids.known.is_none() {
            effects.push(Effect::StartTimer(Timer::Retry, self.backoff()));
        }
        if self.ids.error.as_ref() != Some(&error) {
            effects.push(Effect::Report(Report::InterfaceIdsUnread(error.clone())));
        }
        self.ids.error = Some(error);
    }
}
