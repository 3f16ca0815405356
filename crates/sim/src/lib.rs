//! A whole cluster in one process, from one seed: use cases on a store in memory, distribution, the watch protocol's
//! messages, agents and planes in memory; random changes, and faults.
//!
//! Place on the line: all of it, request -> use case -> store commit -> watch -> inventory -> compile -> host view ->
//! apply -> report. Sockets, files and kernels are left out.
//!
//! ```text
//! changes --> Controls --> Faulty(Memory) --> Desks --> Line ~~lost, late, doubled, reordered~~> Listener
//!                |                                                                                |
//!             Ledger: what was committed, at every revision <==compared, each step==  plane <-- Agent
//! ```
//! Invariants: the same seed, the same trace: one thread, time that is counted in steps, no clock in a decision.
//! Clocks only measure what work took. What a host enforces is judged by what was committed, which the ledger has by a
//! way of its own: not from distribution, and not from messages.

#![forbid(unsafe_code)]

mod change;
mod check;
mod cluster;
mod config;
mod dice;
mod faulty;
mod figures;
mod host;
mod ledger;
mod server;
mod world;

pub use check::Violation;
pub use cluster::{Outcome, Progress, run};
pub use config::{Config, Defect};
pub use figures::{Class, Figures, Row, Spread};
