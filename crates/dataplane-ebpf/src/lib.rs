//! The eBPF data plane.

mod error;
pub mod layout;
mod object;
mod table;
pub use error::OpenError;
pub use object::{Attach, EbpfConfig};
