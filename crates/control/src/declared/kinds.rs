//! What a declaration needs to know of each kind of object.

use super::Kind;
use crate::objects::{Addresses, Group, GroupRule, Host, Network, Port, Resource, Seconds, Subnet};
use crate::quotas::Counted;
use crate::records::Kept;
use arcstr::ArcStr;
use model::FrozenSet;
use model::ProjectId;

pub(super) trait Declarable: Kept + Clone + PartialEq {
    const KIND_OF_IT: Kind;
    fn tags(&self) -> &FrozenSet<ArcStr>;
    fn changed(&mut self, at: Seconds);
    /// Whose it is, and as what it counts there.
    fn counted(&self) -> Option<(&ProjectId, Resource)>;
}

macro_rules! declarable {
    ($($of:ident)+) => {$(
        impl Declarable for $of {
            const KIND_OF_IT: Kind = declarable!(@ $of);

            fn tags(&self) -> &FrozenSet<ArcStr> {
                &self.said.tags
            }

            fn changed(&mut self, at: Seconds) {
                self.said.updated_at = at;
            }

            fn counted(&self) -> Option<(&ProjectId, Resource)> {
                Some((&self.project, <$of as Counted>::RESOURCE))
            }
        }
    )+};
    (@ Addresses) => { Kind::AddressGroup };
    (@ Group) => { Kind::Group };
    (@ GroupRule) => { Kind::Rule };
    (@ Network) => { Kind::Network };
    (@ Subnet) => { Kind::Subnet };
    (@ Port) => { Kind::Port };
}
declarable! { Addresses Group GroupRule Network Subnet Port }

impl Declarable for Host {
    const KIND_OF_IT: Kind = Kind::Host;

    fn tags(&self) -> &FrozenSet<ArcStr> {
        &self.tags
    }

    fn changed(&mut self, _: Seconds) {}

    fn counted(&self) -> Option<(&ProjectId, Resource)> {
        None
    }
}
