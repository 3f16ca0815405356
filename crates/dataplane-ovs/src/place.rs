//! Which port of the view hangs on which bridge.
//!
//! Place on the line: target + what the switch's database says -> **switchboards** -> render. Pure.
//! Knows nothing of: flows.

use crate::books::Books;
use crate::limits;
use crate::render::inlets::{Inlet, Tagged};
use crate::render::tunnel::TunnelPort;
use crate::render::{Attached, Forwarding, Switchboard};
use crate::secure;
use dataplane::{Device, Target};
use model::{NetworkId, PortId};
use ovsdb::{Bridge, Interface, SwitchPort};
use policy::OverlayView;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

/// A bridge's own word on how it forwards; without it `secure` is [`Forwarding::Whole`].
pub(crate) const FORWARDING: &str = "portcullis-forwarding";
/// Of an interface that we have made, with [`TUNNEL`].
pub(crate) const OWNER: &str = "portcullis";
pub(crate) const TUNNEL: &str = "tunnel";
/// Of an interface that isn't a port's: in which network what it brings is, on a bridge that we drive whole.
pub(crate) const NETWORK: &str = "portcullis-network";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) boards: BTreeMap<String, Switchboard>,
    /// Ports that nothing can be enforced for, and why.
    pub(crate) refused: BTreeMap<PortId, String>,
    /// Bridges that can't have what they want, and why.
    pub(crate) remarks: Vec<String>,
}

pub(crate) fn place(
    target: &Target,
    bridges: &[Bridge],
    books: &Books,
    now: SystemTime,
) -> Placement {
    let mut placement = Placement::default();
    let interfaces = by_name(bridges);
    let most_tags = limits::most_tags(&target.view);
    for (id, device) in &target.devices {
        let Some(view) = target.view.ports.get(id) else {
            continue;
        };
        let found = match interfaces.get(device.name.as_str()) {
            Some(found) => found,
            None => {
                let why = format!("device {} is on no bridge of Open vSwitch", device.name);
                placement.refused.insert(id.clone(), why);
                continue;
            }
        };
        let of_port = match of_port(found.interface) {
            Ok(of_port) => of_port,
            Err(why) => {
                placement.refused.insert(id.clone(), why);
                continue;
            }
        };
        if let Some(why) = limits::exceeds(view, most_tags) {
            placement.refused.insert(id.clone(), why);
            placement.board(found.bridge).closed.insert(of_port);
            continue;
        }
        let Some(number) = books.zones.get(id) else {
            let why = "no conntrack zone is left".to_owned();
            placement.refused.insert(id.clone(), why);
            continue;
        };
        let attached = Attached {
            view: Arc::clone(view),
            of_port,
            number: *number,
            vlan: found.port.tag.filter(|tag| *tag != 0),
            held: books.held.get(id).is_some_and(|until| *until > now),
        };
        let board = placement.board(found.bridge);
        board.ports.insert(id.clone(), attached);
    }
    placement.refuse_receivers();
    for device in &target.closed {
        if let Some(found) = interfaces.get(device.name.as_str())
            && let Ok(of_port) = of_port(found.interface)
        {
            placement.board(found.bridge).closed.insert(of_port);
        }
    }
    for bridge in bridges.iter().filter(|bridge| secure::is_secured(bridge)) {
        // It forwards by our flow, whether or not it has ports of ours.
        placement.board(bridge);
    }
    inlets(&mut placement, &interfaces);
    for found in interfaces.values() {
        let Some(network) = found.interface.external_ids.get(NETWORK) else {
            continue;
        };
        let Ok(of_port) = of_port(found.interface) else {
            continue;
        };
        if let Some(board) = placement.boards.get_mut(&found.bridge.name)
            && board.ports.values().all(|port| port.of_port != of_port)
        {
            let network = NetworkId::from(network.as_str());
            board.outside.entry(network).or_default().insert(of_port);
        }
    }
    if let Some(overlay) = &target.view.overlay {
        tunnels(&mut placement, overlay, bridges, books);
    }
    placement
}

/// Ports of others on bridges that forward by themselves.
fn inlets(placement: &mut Placement, interfaces: &BTreeMap<&str, Found<'_>>) {
    for found in interfaces.values() {
        let Some(board) = placement.boards.get_mut(&found.bridge.name) else {
            continue;
        };
        let (Forwarding::Normal, Ok(of_port)) = (board.forwarding, of_port(found.interface)) else {
            continue;
        };
        let is_ours = board.closed.contains(&of_port)
            || board.ports.values().any(|port| port.of_port == of_port);
        let inlet = inlet(found.port);
        if !is_ours && inlet != Inlet::PLAIN {
            board.inlets.insert(of_port, inlet);
        }
    }
}

fn inlet(port: &SwitchPort) -> Inlet {
    let tag = port.tag.unwrap_or(0);
    let tagged = match port.trunks.is_empty() {
        true => Tagged::All,
        false => Tagged::These(port.trunks.iter().copied().collect()),
    };
    let (untagged, tagged) = match (port.vlan_mode.as_deref(), port.tag) {
        (Some("native-tagged" | "native-untagged"), _) => (tag, tagged),
        // Without a mode the tag decides.
        (Some("trunk"), _) | (None, None) => match tagged {
            // Then what has no tag is in VLAN 0, which has to be listed.
            Tagged::These(vlans) if !vlans.contains(&0) => (NO_VLAN, Tagged::These(vlans)),
            tagged => (0, tagged),
        },
        (Some(_), _) | (None, Some(_)) => (tag, Tagged::None),
    };
    Inlet { untagged, tagged }
}

/// No port is in it.
const NO_VLAN: u16 = 0xfff;

/// The port that leads to other hosts, on bridges that we drive whole and that have ports in networks with a number.
fn tunnels(placement: &mut Placement, overlay: &OverlayView, bridges: &[Bridge], books: &Books) {
    for bridge in bridges {
        let Some(board) = placement.boards.get_mut(&bridge.name) else {
            continue;
        };
        if !wants_tunnel(board, overlay) {
            continue;
        }
        // Before the first time there is neither.
        let interface = tunnel_port(bridge).and_then(|port| port.interfaces.first());
        let (Some(interface), Some(option)) = (interface, books.options.get(&bridge.name)) else {
            continue;
        };
        match of_port(interface) {
            Ok(of_port) => {
                board.tunnel = Some(TunnelPort {
                    of_port,
                    option: *option,
                });
                board.lost = books.lost.keys().cloned().collect();
            }
            Err(why) => {
                let what = format!("bridge {} has no tunnel to other hosts: {why}", bridge.name);
                placement.remarks.push(what);
            }
        }
    }
}

/// Whether it has a port in a network that goes on at other hosts.
pub(crate) fn wants_tunnel(board: &Switchboard, overlay: &OverlayView) -> bool {
    let mut networks = board.ports.values().map(|port| &port.view.network);
    board.forwarding == Forwarding::Whole
        && networks.any(|network| overlay.networks.contains_key(network))
}

/// The one that we made.
pub(crate) fn tunnel_port(bridge: &Bridge) -> Option<&SwitchPort> {
    let is_ours = |interface: &Interface| {
        interface.external_ids.get(OWNER).map(String::as_str) == Some(TUNNEL)
    };
    let mut ports = bridge.ports.iter();
    ports.find(|port| port.interfaces.iter().any(is_ours))
}

/// The ports of the view that can have a zone: those whose device is on a bridge.
pub(crate) fn on_bridges<'a>(target: &'a Target, bridges: &[Bridge]) -> BTreeSet<&'a PortId> {
    let interfaces = by_name(bridges);
    let there = |device: &Device| interfaces.contains_key(device.name.as_str());
    let devices = target.devices.iter().filter(|(_, device)| there(device));
    let ids = devices.map(|(id, _)| id);
    ids.filter(|id| target.view.ports.contains_key(*id))
        .collect()
}

#[derive(Clone, Copy)]
struct Found<'a> {
    bridge: &'a Bridge,
    port: &'a SwitchPort,
    interface: &'a Interface,
}

fn by_name(bridges: &[Bridge]) -> BTreeMap<&str, Found<'_>> {
    let ports = bridges
        .iter()
        .flat_map(|bridge| bridge.ports.iter().map(move |port| (bridge, port)));
    let interfaces = ports.flat_map(|(bridge, port)| {
        port.interfaces.iter().map(move |interface| {
            let found = Found {
                bridge,
                port,
                interface,
            };
            (interface.name.as_str(), found)
        })
    });
    interfaces.collect()
}

fn of_port(interface: &Interface) -> Result<u16, String> {
    match (interface.ofport, &interface.error) {
        (Some(number), _) => u16::try_from(number)
            .map_err(|_| format!("device {} has OpenFlow port {number}", interface.name)),
        (None, Some(error)) => Err(format!(
            "Open vSwitch can't use device {}: {error}",
            interface.name
        )),
        (None, None) => Err(format!(
            "Open vSwitch hasn't taken device {} yet",
            interface.name
        )),
    }
}

impl Placement {
    /// Whoever came last, where too many would hear the same.
    fn refuse_receivers(&mut self) {
        for board in self.boards.values_mut() {
            let mut segments: BTreeMap<_, Vec<(u16, PortId)>> = BTreeMap::new();
            for (id, port) in board.ports.iter().filter(|(_, p)| p.view.port_security) {
                let segment = match board.forwarding {
                    Forwarding::Normal => (port.vlan, None),
                    Forwarding::Whole => (None, Some(port.view.network.clone())),
                };
                let receivers = segments.entry(segment).or_default();
                receivers.push((port.number, id.clone()));
            }
            for mut receivers in segments.into_values() {
                receivers.sort();
                for (_, id) in receivers.into_iter().skip(limits::MOST_RECEIVERS) {
                    if let Some(port) = board.ports.remove(&id) {
                        board.closed.insert(port.of_port);
                        self.refused.insert(id, limits::is_one_too_many());
                    }
                }
            }
        }
    }

    fn board(&mut self, bridge: &Bridge) -> &mut Switchboard {
        let board = self.boards.entry(bridge.name.clone());
        board.or_insert_with(|| Switchboard {
            forwarding: forwarding(bridge),
            floor: secure::is_secured(bridge) || secure::is_open(bridge, forwarding(bridge)),
            ..Switchboard::default()
        })
    }
}

pub(crate) fn forwarding(bridge: &Bridge) -> Forwarding {
    let said = bridge.external_ids.get(FORWARDING).map(String::as_str);
    match (said, bridge.fail_mode.as_deref()) {
        (Some("normal"), _) => Forwarding::Normal,
        (Some("whole"), _) | (None, Some("secure")) => Forwarding::Whole,
        (_, _) => Forwarding::Normal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::PortView;

    fn attached(number: u16, network: &str) -> Attached {
        let view = PortView {
            network: network.into(),
            ..limits::tests::port(0)
        };
        Attached {
            view: Arc::new(view),
            of_port: number,
            number,
            vlan: None,
            held: false,
        }
    }

    #[test]
    fn whoever_comes_last_is_one_too_many_to_hear_of() {
        let mut board = Switchboard {
            forwarding: Forwarding::Whole,
            ..Switchboard::default()
        };
        let most = limits::MOST_RECEIVERS as u16;
        // The last one's name is the first.
        for number in 1..=most + 1 {
            let id = PortId::new(format!("p{:05}", 10_000 - number));
            board.ports.insert(id, attached(number, "lan"));
        }
        let elsewhere = attached(most + 2, "other");
        board.ports.insert("elsewhere".into(), elsewhere);
        let mut placement = Placement::default();
        placement.boards.insert("br0".to_owned(), board);
        placement.refuse_receivers();
        let last = PortId::new(format!("p{:05}", 10_000 - most - 1));
        let refused: Vec<&PortId> = placement.refused.keys().collect();
        assert_eq!(refused, [&last]);
        let board = &placement.boards["br0"];
        assert_eq!(board.closed, BTreeSet::from([most + 1]));
        assert_eq!(board.ports.len(), limits::MOST_RECEIVERS + 1);
    }
}
