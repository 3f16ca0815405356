//! From what is in force to a target, or back to it where that fails.
//!
//! Place on the line: inputs -> plan -> **execute**, and the record for the next process.

use super::{Enforced, IptablesPlane, asking_for_changes, failed, strict};
use crate::found::{Found, TABLE};
use crate::plan::{self, Step, Work};
use crate::render::{self, Inputs};
use crate::renew::Stale;
use crate::stamps::Stamps;
use crate::tools::Broken;
use dataplane::{ApplyError, Target};
use model::Narrowing;
use policy::ElisionChange;
use std::collections::BTreeMap;
use std::io;

impl IptablesPlane {
    /// Writes all of it anew.
    fn rebuild(&mut self, target: &Target) -> Result<(u64, Inputs), ApplyError> {
        self.remove_other()?;
        let before = self.read_stamps()?;
        let found = self.found()?;
        let stood = found.link_stands;
        match self.rebuild_over(found, before, target) {
            // Another build's sets may be called the same, and be others.
            Err(_) if stood => {
                let before = self.read_stamps()?;
                let found = Found {
                    link_stands: false,
                    ..self.found()?
                };
                self.rebuild_over(found, before, target)
            }
            done => done,
        }
    }

    fn rebuild_over(
        &mut self,
        found: Found,
        before: Stamps,
        target: &Target,
    ) -> Result<(u64, Inputs), ApplyError> {
        if let Some(other) = found.tables.iter().find(|table| **table != self.table) {
            let text = format!(
                "instance `{}` enforces by iptables here already; nothing was changed",
                other.trim_start_matches(TABLE)
            );
            return Err(failed("starting")(io::Error::other(text)));
        }
        Stale::all(&self.books).renew(&mut self.books);
        self.books.learn(&found.numbers(), target);
        let inputs = render::inputs(target, &mut self.books);
        let steps = plan::rebuild(&inputs, &self.gates, &found, &self.table);
        Ok((self.execute(&steps, Some(before))?, inputs))
    }

    /// What the other back end of iptables has of us: the host's default may have changed.
    pub(super) fn remove_other(&self) -> Result<(), ApplyError> {
        let reading = "reading back what the other back end of iptables holds";
        let Some(other) = self.tools.other().map_err(failed(reading))? else {
            return Ok(());
        };
        let found = Found::read_chains(&other).map_err(failed(reading))?;
        if found.has_chains() {
            other.execute(&plan::chains_removal(&found))?;
        }
        Ok(())
    }

    /// As this plane enforces it; what is in force of it already is there once.
    pub(super) fn prepared(&mut self, target: &Target) -> Target {
        let mut target = strict(target);
        if self.left.is_some() {
            self.recognize(&target.view);
        }
        if let Some(known) = &self.in_force {
            target.view.share(&known.target.view);
        }
        target
    }

    /// `old`: what is in force, where that is known.
    pub(super) fn write(
        &mut self,
        old: Option<&Enforced>,
        target: &Target,
        remarks: &mut Vec<String>,
    ) -> Result<(u64, Inputs), ApplyError> {
        let Some(old) = old else {
            return self.rebuild(target);
        };
        self.change(old, target).or_else(|error| {
            // What was found may not be what is there.
            remarks.push(format!(
                "a change failed ({error}), so all was written anew"
            ));
            self.rebuild(target)
        })
    }

    /// From what is in force to the target.
    fn change(&mut self, old: &Enforced, new: &Target) -> Result<(u64, Inputs), ApplyError> {
        Stale::between(&old.target.view, &new.view).renew(&mut self.books);
        let inputs = render::inputs(new, &mut self.books);
        let change = plan::change(&old.inputs, &inputs);
        let steps = plan::plan(&change, &self.table, &holds(&old.target, new));
        let stamps = self.stamps.take();
        let written = self.execute(&steps, stamps).map_err(|broken| {
            let back = plan::change(&inputs, &old.inputs);
            let back = plan::plan(&back, &self.table, &BTreeMap::new());
            let done = &steps[..broken.done];
            let switched = done.iter().any(|s| matches!(s.work, Work::Link(_)));
            self.tools.withdraw(&back, switched);
            broken.error
        });
        Ok((written?, inputs))
    }

    pub(super) fn execute(
        &mut self,
        steps: &[Step],
        before: Option<Stamps>,
    ) -> Result<u64, Broken> {
        self.stamps = None;
        if steps.is_empty() {
            self.stamps = before;
            return Ok(0);
        }
        let not_begun = |error| Broken { done: 0, error };
        self.file
            .begin()
            .map_err(failed("remembering that a change is made"))
            .map_err(not_begun)?;
        let writes = self.tools.execute(steps)?;
        let all_done = |error| Broken {
            done: steps.len(),
            error,
        };
        let after = Stamps::read_after(before.as_ref(), self.tools.backend, steps);
        let after = after.map_err(asking_for_changes()).map_err(all_done)?;
        let ours = before.is_some_and(|b| b.lead_to(&after, steps));
        self.stamps = ours.then_some(after);
        Ok(writes)
    }

    /// After a change that failed half-way: what was in force is in force again.
    pub(super) fn put_back(&mut self, error: ApplyError, old: Enforced) -> ApplyError {
        let then = match self.rebuild(&old.target) {
            Ok((_, inputs)) => {
                self.settle(Enforced { inputs, ..old });
                "what was in force before is in force again".to_owned()
            }
            Err(again) => format!("and putting back what was in force failed, too: {again}"),
        };
        ApplyError {
            step: error.step,
            source: io::Error::other(format!("{}; {then}", error.source)),
        }
    }

    /// It is in force, and the next process is told so. Where that can't be, it will write all anew.
    pub(super) fn settle(&mut self, now: Enforced) {
        render::keep_used(&mut self.books, &now.inputs, &now.target.view);
        self.in_force = Some(now);
        self.left = None;
        self.watch.forget();
        self.remember();
    }

    pub(super) fn remember(&self) {
        let Some(Enforced { target, digest, .. }) = &self.in_force else {
            return;
        };
        let stamps = self.stamps.as_ref();
        let written = self.file.end(&self.books, (target, *digest), stamps);
        if written.is_err() {
            // Then it says nothing rather than something old.
            drop(self.file.begin());
        }
    }
}

/// Devices at which TCP flows start by SYN only from now on, and for how many seconds.
fn holds(old: &Target, new: &Target) -> BTreeMap<u32, u32> {
    let settings = &new.view.settings;
    match settings.narrowing {
        Narrowing::Keep => return BTreeMap::new(),
        Narrowing::Cut => {}
    }
    let mut change = ElisionChange::between(&old.view, &new.view);
    let held = new.devices.iter().filter(|(id, _)| change.stops(id));
    held.map(|(_, device)| (device.ifindex, settings.timeouts.tcp_established_s))
        .collect()
}
