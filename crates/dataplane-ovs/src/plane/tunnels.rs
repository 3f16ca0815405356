//! What a tunnel needs of a switch before there are flows: the port that leads to other hosts, and the field that
//! stands for the option with the groups of the source.
//!
//! Both hosts have to mean the same option, so its class, type and length are fixed (see `policy`'s overlay); which
//! field stands for it is each switch's own matter. A restarted switch has forgotten it.

use super::{OvsPlane, failed};
use crate::books::Books;
use crate::numbers::hash;
use crate::place::{self, OWNER, Placement, TUNNEL};
use dataplane::{ApplyError, Target};
use openflow::TlvMapping;
use ovsdb::change::{self, Tunnel};
use ovsdb::{Bridge, ControlError, DatabaseError, Interface, SwitchPort};
use policy::{HostView, OPTION_BYTES, OPTION_CLASS, OPTION_TYPE, OverlayView};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

/// How long ovs-vswitchd may take to make a port.
const PATIENCE: Duration = Duration::from_secs(5);

/// Of a packet of the underlay: IPv4, UDP, Geneve, the option with its own header, and Ethernet.
const HEADERS: u32 = 20 + 8 + 8 + (4 + OPTION_BYTES as u32) + 14;

impl OvsPlane {
    /// The bridges as they are then.
    pub(super) fn prepare_tunnels(
        &mut self,
        target: &Target,
        bridges: Vec<Bridge>,
        placement: &Placement,
        books: &mut Books,
    ) -> Result<Vec<Bridge>, ApplyError> {
        let overlay = target.view.overlay.as_deref();
        let mut operations = Vec::new();
        let mut wanting = Vec::new();
        for bridge in &bridges {
            let board = placement.boards.get(&bridge.name);
            let wants = overlay
                .zip(board)
                .filter(|(o, board)| place::wants_tunnel(board, o));
            match (wants, place::tunnel_port(bridge)) {
                (Some((overlay, _)), None) => {
                    operations.extend(change::add_tunnel(&bridge.name, &tunnel(bridge, overlay)));
                }
                (None, Some(port)) => {
                    operations.extend(change::remove_port(&bridge.name, &port.uuid));
                }
                (Some((overlay, _)), Some(port)) if !leads_from(port, overlay) => {
                    operations.extend(change::remove_port(&bridge.name, &port.uuid));
                    operations.extend(change::add_tunnel(&bridge.name, &tunnel(bridge, overlay)));
                }
                (Some(_), Some(_)) | (None, None) => {}
            }
            wanting.extend(wants.map(|_| bridge.name.clone()));
        }
        let changed = !operations.is_empty();
        if changed {
            self.follow(&operations)
                .map_err(failed("making a port for tunnels"))?;
        }
        for name in wanting {
            let option = self.option(&name);
            let option = option.map_err(failed("mapping the option that tunnels carry"))?;
            books.options.insert(name, option);
        }
        match changed {
            true => self
                .bridges()
                .map_err(failed("asking Open vSwitch for its bridges")),
            false => Ok(bridges),
        }
    }

    /// Without what we made for tunnels.
    pub(super) fn remove_tunnels(&mut self, bridges: &[Bridge]) -> io::Result<()> {
        let ports = bridges
            .iter()
            .filter_map(|bridge| Some((bridge, place::tunnel_port(bridge)?)));
        let operations =
            ports.flat_map(|(bridge, port)| change::remove_port(&bridge.name, &port.uuid));
        let operations: Vec<_> = operations.collect();
        match operations.is_empty() {
            true => Ok(()),
            false => self.follow(&operations),
        }
    }

    /// Networks whose packets don't fit into what leads to the other hosts. There is taken to be one way to all of
    /// them: to ask about each would cost as many calls as there are hosts.
    pub(super) fn too_wide(&mut self, view: &HostView, placement: &Placement) -> Vec<String> {
        let mut boards = placement.boards.iter();
        let tunneled = boards.find(|(_, board)| board.tunnel.is_some());
        let (Some(overlay), Some((bridge, board))) = (&view.overlay, tunneled) else {
            return Vec::new();
        };
        let Ok(bridges) = self.bridges() else {
            return Vec::new();
        };
        let Some((device, room)) = self.underlay(overlay, &bridges) else {
            return Vec::new();
        };
        let of_bridge = bridges.iter().filter(|found| found.name == *bridge);
        let interfaces = of_bridge.flat_map(interfaces);
        let mtus: BTreeMap<u32, u32> = interfaces
            .filter_map(|i| Some((i.ofport?, i.mtu?)))
            .collect();
        let networks = overlay.networks.iter();
        let networks = networks.filter(|(_, network)| !network.hosts.is_empty());
        let too_wide = networks.filter_map(|(id, network)| {
            let ports = board.ports.values().filter(|port| port.view.network == *id);
            let widest = ports.filter_map(|port| mtus.get(&u32::from(port.of_port)).copied());
            let mtu = network.mtu.map(u32::from).or(widest.max())?;
            (mtu + HEADERS > room).then(|| {
                format!(
                    "network {id}: packets of {mtu} bytes don't fit into tunnels through {device}, whose MTU is {room}; \
                     its machines may have an MTU of at most {}, or {device} needs one of {}",
                    room.saturating_sub(HEADERS),
                    mtu + HEADERS
                )
            })
        });
        too_wide.collect()
    }

    /// The device that leads to another host, and its MTU; `None` if the switch can't say.
    fn underlay(&mut self, overlay: &OverlayView, bridges: &[Bridge]) -> Option<(String, u32)> {
        let peer = overlay.peers.values().next()?.address.to_string();
        let control = self.control().ok()?;
        let route = match control.call("ovs/route/lookup", &[&peer]) {
            Ok(route) => route,
            Err(ControlError::Refused { .. }) => return None,
            Err(ControlError::Connection { .. } | ControlError::Unreadable { .. }) => {
                self.control = None;
                return None;
            }
        };
        let device = route.lines().find_map(|line| line.strip_prefix("dev "))?;
        let mut interfaces = bridges.iter().flat_map(interfaces);
        let leads = interfaces.find(|interface| interface.name == device)?;
        Some((device.to_owned(), leads.mtu?))
    }

    fn follow(&mut self, operations: &[serde_json::Value]) -> io::Result<()> {
        let done = self.database()?.transact_and_follow(operations, PATIENCE);
        done.map(drop).map_err(|error| {
            if !matches!(error, DatabaseError::Refused { .. }) {
                self.database = None;
            }
            io::Error::other(error)
        })
    }

    /// Which field stands for it; it is mapped now if it wasn't.
    fn option(&mut self, bridge: &str) -> io::Result<u8> {
        let switch = self.switch(bridge)?;
        let map = switch.tlv_map()?;
        let same = |m: &&TlvMapping| (m.class, m.kind) == (OPTION_CLASS, OPTION_TYPE);
        if let Some(known) = map.iter().find(same) {
            return match known.bytes {
                OPTION_BYTES => field(known.index),
                bytes => Err(io::Error::other(format!(
                    "somebody else uses class {OPTION_CLASS:#x} type {OPTION_TYPE:#x}, with {bytes} bytes"
                ))),
            };
        }
        let taken: BTreeSet<u16> = map.iter().map(|mapping| mapping.index).collect();
        let free = (0..64).find(|index| !taken.contains(index));
        let index = free.ok_or_else(|| io::Error::other("all 64 fields for options are in use"))?;
        switch.map_option(TlvMapping {
            class: OPTION_CLASS,
            kind: OPTION_TYPE,
            bytes: OPTION_BYTES,
            index,
        })?;
        field(index)
    }
}

fn interfaces(bridge: &Bridge) -> impl Iterator<Item = &Interface> {
    bridge.ports.iter().flat_map(|port| &port.interfaces)
}

fn field(index: u16) -> io::Result<u8> {
    u8::try_from(index).map_err(|_| io::Error::other(format!("a field number of {index}")))
}

/// The host's address may have changed since it was made.
fn leads_from(port: &SwitchPort, overlay: &OverlayView) -> bool {
    let address = overlay.address.to_string();
    let mut interfaces = port.interfaces.iter();
    interfaces.any(|interface| interface.options.get("local_ip") == Some(&address))
}

/// Names of interfaces are unique in a switch.
fn tunnel(bridge: &Bridge, overlay: &OverlayView) -> Tunnel {
    Tunnel {
        name: format!("pcg{:08x}", hash(&bridge.name) as u32),
        kind: "geneve".to_owned(),
        external_ids: vec![(OWNER.to_owned(), TUNNEL.to_owned())],
        options: vec![("local_ip".to_owned(), overlay.address.to_string())],
    }
}
