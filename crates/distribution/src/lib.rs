//! What each host needs of a global inventory, and what it has to hear when the inventory changes.
//!
//! Place on the line: store commit -> **watch** -> inventory -> compile.
//! Invariants: a host's part compiles to the same view as the whole does for this host; a part kept up to date by
//! the changes sent equals one made from scratch. Who isn't concerned hears nothing, so a part's own revision may be
//! older than the inventory's: it holds for both.
//! Cost: by who is concerned. No part is kept: interests and indices are, and messages come of the inventory.
//! Knows nothing of: streams, encodings, who listens; views.

mod difference;
mod distribution;
mod index;
mod interest;
mod merge;
mod objects;
mod part;
mod undo;

pub use difference::difference;
pub use distribution::{Distribution, Messages, Work};
pub use merge::merge;
