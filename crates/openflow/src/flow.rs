//! Flows, how they are changed and asked for, and what else a switch tells of itself.

use crate::{Action, Match};

/// A flow as one wants it, or as the switch tells it. Equal content is `==`, whatever encoding the switch chose.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    pub table: u8,
    pub priority: u16,
    pub cookie: u64,
    pub matching: Match,
    pub actions: Vec<Action>,
    /// After the actions.
    pub goto: Option<u8>,
    pub idle_timeout_s: u16,
    pub hard_timeout_s: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowStats {
    pub flow: Flow,
    pub packets: u64,
    pub bytes: u64,
    pub duration_s: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Replaces the flow of the same table, priority and match, if there is one; its counters go on.
    Add(Flow),
    /// Just this flow, if it is there.
    Delete {
        table: u8,
        priority: u16,
        matching: Match,
    },
    /// All flows whose cookie is this one in the bits of the mask.
    DeleteAll {
        cookie: u64,
        mask: u64,
        /// `None`: of all tables.
        table: Option<u8>,
    },
}

/// Which flows to tell. The default is all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub cookie: u64,
    pub cookie_mask: u64,
    pub table: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortDesc {
    pub number: u32,
    pub name: String,
    pub mac: [u8; 6],
    pub link_down: bool,
}

/// An option of Geneve, and the `Field::TunMetadata` that stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TlvMapping {
    pub class: u16,
    pub kind: u8,
    /// A multiple of 4, up to 124.
    pub bytes: u8,
    pub index: u16,
}
