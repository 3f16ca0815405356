//! The server's end: one task that knows what each host needs, and per connection a queue and its writer.
//!
//! ```text
//! feed -> Watchers' task (Distribution) -> outbox of each host -> writer -> stream
//!                  ^                            | too much: forgotten, and the part is asked for anew
//!                  +---- wants its part <-------+
//! who follows elsewhere -> Watchers' task -> fenced, or not
//! ```

mod carrying;
mod desk;
mod outbox;
mod service;
mod table;
mod watchers;

pub use carrying::Moves;
pub use desk::{Desk, Line, Message, MessageKind, NotTaken};
pub use service::{ServeError, serve};
pub use table::{HostStatus, Lag, PortReport, PortState, Report};
pub use watchers::{Elsewhere, Feed, Limits, Watchers};

pub(crate) use table::report_message;
