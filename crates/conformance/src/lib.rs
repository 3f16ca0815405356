//! The suite that everything that judges packets runs: scenarios as data, generated traces, and the
//! lab of network namespaces.
//!
//! Place on the line: around all of it, from the hook to the verdict.
//! Knows nothing of: how any data plane works; each hands itself in as a [`Judge`].

pub mod generate;
pub mod invariants;
mod judge;
pub mod lab;
mod migration;
pub mod scenario;
pub mod selftest;
mod shrink;

pub use judge::{Agreement, Answer, Judge, ModelPlaneJudge, Open, OracleJudge, PlaneJudge, START};
pub use migration::{HoldsPlane, compare_migrating, migrate};
