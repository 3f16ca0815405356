//! Identifiers and the revision. Ids are opaque text: a name from a policy file or a UUID of an API.

use arcstr::ArcStr;
use std::borrow::Borrow;
use std::fmt;

macro_rules! text_ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        /// Cheap to clone, and one pointer in size; ordered as text.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(ArcStr);

        impl $name {
            pub fn new(text: impl Into<ArcStr>) -> Self { Self(text.into()) }
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
        impl From<&str> for $name { fn from(text: &str) -> Self { Self(text.into()) } }
        impl Borrow<str> for $name { fn borrow(&self) -> &str { &self.0 } }
    )+};
}

text_ids! {
    /// A machine that runs VMs.
    HostId,
    /// Where addresses are unique; two tenants' scopes may hold the same address.
    ScopeId,
    /// A layer-2 segment.
    NetworkId,
    /// One virtual NIC of one VM.
    PortId,
    /// The owner of groups.
    ProjectId,
    /// A security group.
    GroupId,
    /// A rule; unique inside its group.
    RuleId,
    /// A named set of prefixes.
    AddressGroupId,
}

/// Which commit of which store a state comes from. A restored store has a new epoch, so that its
/// commits come after everything that was handed out before the restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    pub epoch: u64,
    pub commit: u64,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.commit)
    }
}
