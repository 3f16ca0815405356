//! The eBPF data plane: programs on the host's side of each VM's device, and what keeps their maps
//! in step with a view.
//!
//! ```text
//! view -> render -> desired --+
//!                             +-> plan -> steps -> execute -> maps, hooks
//! maps -> readback -> actual -+
//! ```
//! `layout` is the one definition of what both sides share; the kernel side is in `bpf/`.
//! Knows nothing of: inventories, files, how devices are found.

mod attach;
mod contents;
mod counters;
mod error;
mod events;
mod execute;
mod flows;
mod judge;
pub mod layout;
mod migration;
mod numbers;
mod object;
mod plan;
mod plane;
mod readback;
mod render;
mod shown;
mod table;

pub use error::OpenError;
pub use events::DropSample;
pub use object::{Attach, EbpfConfig};
pub use plane::EbpfPlane;
