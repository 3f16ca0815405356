//! Policy from a server: whole at first and after a gap, then by changes.
//!
//! Place on the line: server -> **inventory** -> compile.
//!
//! While an apply runs, what comes waits, and is taken in as one when it is done: so between two applies the policy
//! taken in is the one in force, which is what the cache may have.
//!
//! ```text
//! InventoryReplaced, InventoryChanged --> incoming --(no apply runs)--> compiler --> view
//!                                                         cache <--(timer, end)--+
//! ```
//! The cache costs what there is, so it is written a few seconds after the first change that it lacks, and when the
//! agent stops. After a crash between, it holds a policy that was in force some seconds earlier; the server brings
//! what comes of it up to date.
//! Knows nothing of: connections, encodings, devices, the plane.

use super::{Agent, Compiled, Content, Effect, Policy, Timer};
use crate::report::{Report, Source};
use model::{Inventory, InventoryChange, Revision};
use policy::{Compiler, Finding};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// From an inventory to the bytes that the cache keeps of it.
#[derive(Clone)]
pub struct Encode(Arc<Encoding>);

type Encoding = dyn Fn(&Inventory) -> Vec<u8> + Send + Sync;

impl Encode {
    pub fn new(encode: impl Fn(&Inventory) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self(Arc::new(encode))
    }

    pub(super) fn bytes(&self, inventory: &Inventory) -> Arc<[u8]> {
        (self.0)(inventory).into()
    }
}

impl fmt::Debug for Encode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encode")
    }
}

/// What hasn't been taken in yet: all there is, and what changes it.
#[derive(Default)]
pub(super) struct Incoming {
    replaced: Option<Inventory>,
    changes: Vec<InventoryChange>,
}

impl Incoming {
    pub(super) fn revision(&self) -> Option<Revision> {
        let replaced = self.replaced.as_ref().map(|inventory| inventory.revision);
        self.changes.last().map(|c| c.revision).or(replaced)
    }
}

/// What the cache, and the log, lack of a policy from a server.
#[derive(Default)]
pub(super) struct Unsaved {
    /// The timer runs.
    waiting: bool,
    /// It ran out while an apply ran.
    due: bool,
    /// Findings that have been told.
    told: BTreeSet<Finding>,
}

impl Agent {
    const SAVE_AFTER: Duration = Duration::from_secs(5);

    pub(super) fn inventory_replaced(&mut self, inventory: Inventory) {
        self.policy_errors.clear();
        self.incoming = Incoming {
            replaced: Some(inventory),
            changes: Vec::new(),
        };
    }

    /// One that comes before there is anything to change says nothing.
    pub(super) fn inventory_changed(&mut self, change: InventoryChange) {
        let served = self.policy.as_ref().is_some_and(Policy::is_served);
        if served || self.incoming.replaced.is_some() {
            self.policy_errors.clear();
            self.incoming.changes.push(change);
        }
    }

    /// What is in force stays. At the start nothing is: then the cached policy, loudly, or nothing until a server
    /// is found.
    pub(super) fn server_unreached(&mut self, error: String, effects: &mut Vec<Effect>) {
        let known = self.policy_errors.contains(&error);
        self.policy_errors = vec![error.clone()];
        if !known {
            effects.push(Effect::Report(Report::ServerUnreached(error)));
        }
        if self.policy.is_none() && self.incoming.replaced.is_none() {
            self.enforce_cached(effects);
        }
    }

    pub(super) fn take_in(&mut self, effects: &mut Vec<Effect>) {
        if self.applying.is_some() || self.incoming.revision().is_none() {
            return;
        }
        let Incoming { replaced, changes } = std::mem::take(&mut self.incoming);
        let whole = replaced.is_some();
        let known = match self.policy.take() {
            Some(Policy {
                content: Content::Served(compiler),
                ..
            }) => Some(compiler),
            Some(_) | None => None,
        };
        let mut compiler = match (known, replaced) {
            (Some(mut compiler), Some(inventory)) => {
                compiler.replace(inventory);
                compiler
            }
            (Some(compiler), None) => compiler,
            (None, inventory) => {
                let inventory = inventory.expect("changes alone come to what is known");
                Box::new(Compiler::new(inventory, self.config.host.clone()))
            }
        };
        let host = &self.config.host;
        if whole {
            self.moves.replaced(compiler.inventory(), host);
        }
        for change in changes {
            self.moves.changed(&change, host);
            compiler.change(change);
        }
        let revision = compiler.inventory().revision;
        if whole {
            self.tell_whole(&compiler, effects);
        } else {
            effects.push(Effect::Report(Report::PolicyChanged { revision }));
        }
        self.compiled = Some(Compiled::of(compiler.view().clone(), Vec::new()));
        self.stale = true;
        self.policy = Some(Policy {
            revision,
            source: Source::Server,
            content: Content::Served(compiler),
        });
    }

    fn tell_whole(&mut self, compiler: &Compiler, effects: &mut Vec<Effect>) {
        let revision = compiler.inventory().revision;
        let findings = compiler.findings();
        effects.push(Effect::Report(Report::PolicyRead {
            revision,
            ports: compiler.inventory().ports.len(),
        }));
        effects.push(Effect::Report(Report::PolicyCompiled {
            revision,
            ports: compiler.view().ports.len(),
            findings: findings.iter().map(ToString::to_string).collect(),
        }));
        self.unsaved.told = findings.into_iter().collect();
    }

    pub(super) fn save_soon(&mut self, effects: &mut Vec<Effect>) {
        if self.unsaved.due {
            self.save_served(effects);
        } else if !self.unsaved.waiting {
            self.unsaved.waiting = true;
            effects.push(Effect::StartTimer(Timer::Save, Self::SAVE_AFTER));
        }
    }

    pub(super) fn save_fired(&mut self, effects: &mut Vec<Effect>) {
        self.unsaved.waiting = false;
        if self.applying.is_some() {
            self.unsaved.due = true;
        } else {
            self.save_served(effects);
        }
    }

    pub(super) fn save_at_end(&mut self, effects: &mut Vec<Effect>) {
        if (self.unsaved.waiting || self.unsaved.due) && self.applying.is_none() {
            self.save_served(effects);
        }
    }

    /// The policy, if it is in force, and what has come to light about it.
    fn save_served(&mut self, effects: &mut Vec<Effect>) {
        self.unsaved.due = false;
        let (Some(policy), Some(enforced)) = (&self.policy, &self.enforced) else {
            return;
        };
        let Content::Served(compiler) = &policy.content else {
            return;
        };
        if policy.revision != enforced.revision {
            return;
        }
        if let Some(encode) = &self.config.encode {
            effects.push(Effect::SaveCache {
                revision: policy.revision,
                text: encode.bytes(compiler.inventory()),
            });
        }
        let findings: BTreeSet<Finding> = compiler.findings().into_iter().collect();
        let new = findings.difference(&self.unsaved.told);
        let new: Vec<String> = new.map(ToString::to_string).collect();
        if !new.is_empty() {
            effects.push(Effect::Report(Report::NewFindings {
                revision: policy.revision,
                findings: new,
            }));
        }
        self.unsaved.told = findings;
    }
}
