//! Of declarations of one label, only the one that began last goes on: otherwise two of different policies would undo
//! each other for ever, whoever of their clients is still there.
//!
//! ```text
//! held/declared/by-LABEL -> run      while a declaration takes more than one commit
//! ```
//! Knows nothing of: what is declared.

use crate::ids;
use crate::records;
use crate::refused::Refused;
use crate::state::State;
use store::{Condition, Key, Transaction};

pub(super) struct Turn {
    label: String,
    name: Key,
    run: String,
    /// A commit of ours says that it is our turn.
    pub(super) begun: bool,
}

/// What a commit has to ask and to write beside its own.
#[derive(Clone, Debug, Default)]
pub(super) struct OfTurn {
    /// If others follow it.
    pub(super) goes_on: Transaction,
    /// If it is the last.
    pub(super) ends: Transaction,
}

impl Turn {
    pub(super) fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            // Not a name that a port could have in a network.
            name: records::held("declared", &format!("by-{label}")),
            run: ids::new_id(),
            begun: false,
        }
    }

    /// It begins whoever's turn it is, and then ends when another one begins.
    pub(super) fn of(&self, state: &State) -> Result<OfTurn, Refused> {
        let holder = state.holder(&self.name);
        let over = Transaction::new().delete(self.name.clone());
        if !self.begun {
            return Ok(OfTurn {
                goes_on: Transaction::new().put(self.name.clone(), self.run.as_bytes()),
                ends: holder.map_or_else(Transaction::new, |_| over),
            });
        }
        let ours = holder.filter(|holder| holder.object.as_str() == self.run);
        let lost = || Refused::DeclaredAnew(self.label.clone());
        let still = Condition::Unchanged {
            key: self.name.clone(),
            modified: ours.ok_or_else(lost)?.modified,
        };
        Ok(OfTurn {
            goes_on: Transaction::new().when(still.clone()),
            ends: over.when(still),
        })
    }
}
