//! What a switch does for one packet is bounded: it resubmits 4,096 times at most, and drops the packet then. A port
//! whose rules could need more is not enforced in part: it is refused. So is one too many of those that hear the same
//! broadcasts: a frame for all is taken to the gate of each.
//!
//! At each of the two gates on a packet's way, each of the port's groups is asked with each group of the other side,
//! about the packet and about the first packet of its flow.

use policy::{HostView, PortView, SHORT};
use std::collections::BTreeMap;

/// Of one gate, once: with room for all else that resubmits, and for prefixes that inherit groups.
const MOST: usize = 700;

/// Guarded ports of a bridge in one segment. At the gate of each 9 resubmits come before the tracker is asked, and
/// the sender's rules may have taken two times [`MOST`].
pub const MOST_RECEIVERS: usize = 250;

/// The most groups that an address has as far as the view knows, or more where it makes no difference.
pub(crate) fn most_tags(view: &HostView) -> usize {
    let groups = view.ports.values().map(|port| port.groups.len());
    let overlay = view.overlay.as_ref().map_or(0, |overlay| {
        let lists = overlay.identities.values().chain(overlay.crowded.values());
        lists.map(|groups| groups.len()).fold(SHORT, usize::max)
    });
    let sets = view.members.len().max(overlay).max(1);
    match groups.max().is_none_or(|groups| groups * sets <= MOST) {
        // Even if an address were in all of them.
        true => sets,
        false => named(view).max(overlay).max(1),
    }
}

/// The most groups that rules name and one address is in.
fn named(view: &HostView) -> usize {
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for ((scope, _), members) in &view.members {
        for member in members.iter() {
            *counts.entry((scope, *member)).or_default() += 1;
        }
    }
    counts.into_values().max().unwrap_or(0)
}

/// Why the port can't be served, if so.
pub(crate) fn exceeds(port: &PortView, most_tags: usize) -> Option<String> {
    let groups = port.groups.len();
    (groups * most_tags > MOST).then(|| {
        format!(
            "it is in {groups} groups, and addresses are in up to {most_tags}: more than Open vSwitch can go \
             through for one packet; it passes nothing"
        )
    })
}

/// Why a port can't be served that would be one too many to hear of.
pub(crate) fn is_one_too_many() -> String {
    format!(
        "{MOST_RECEIVERS} other ports of its bridge hear the same broadcasts: more than Open vSwitch can take a \
         frame to; it passes nothing"
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use model::{DeviceMatch, GroupId, MacAddr};
    use std::collections::BTreeSet;

    pub(crate) fn port(groups: usize) -> PortView {
        PortView {
            network: "n".into(),
            device: DeviceMatch::Mac,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            port_security: true,
            dhcp_server: false,
            router: false,
            addresses: BTreeSet::new(),
            groups: (0..groups).map(|n| GroupId::new(format!("g{n}"))).collect(),
        }
    }

    #[test]
    fn what_a_switch_can_go_through_is_bounded() {
        assert_eq!(most_tags(&HostView::default()), 1);
        assert_eq!(exceeds(&port(700), 1), None);
        assert_eq!(exceeds(&port(10), 63), None);
        let told = exceeds(&port(70), 63).expect("70 x 63 is too much");
        assert!(
            told.contains("70 groups") && told.contains("up to 63"),
            "{told}"
        );
    }
}
