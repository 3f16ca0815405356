//! From one host to another: Geneve, with the groups of the source in an option.
//!
//! ```text
//! Tunnel         of a peer that has ports in this network, with the option that it owes; where the sender's
//!                MAC is -> Destination
//! Send           to the host that has the MAC, or to all that have ports in the network
//!
//! option, 20 bytes   159..152 form   151..144 1: inspected at the source   127..0 list of tags, as in a register
//! ```
//! A form of 0 is nobody's: a packet without the option has it. What comes without what it owes is dropped.
//! Where a remote MAC is, the switch learns from what comes: a flow for each would be a flow for each member.
//! With inspection at the source all remote ports are known.

use super::{Scene, Segment, ahead};
use crate::cookie::Cookie;
use crate::draft::Draft;
use crate::registers::{FLAGS, Flag, REMOTE, SEGMENT, SOURCE_TAGS};
use crate::tables::Table;
use model::{DropReason, GroupId, Inspection, NetworkId, PeerTrust};
use openflow::{Action, Bits, Field, Learn, Port, Source, Spec, Value};
use policy::{HostView, OverlayNetwork, OverlayView, PeerHost};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// The port of the bridge that leads to all other hosts, and where the option is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TunnelPort {
    pub(crate) of_port: u16,
    /// Which of the switch's fields stands for the option.
    pub(crate) option: u8,
}

/// A list of tags; the layout may change with it.
const FORM: u128 = 1;
const FORM_BITS: (u16, u16) = (152, 8);
const INSPECTED_BIT: u16 = 144;
const LEARNED_FOR_S: u16 = 300;

/// What renders the tunnels of a bridge.
struct Ends<'a> {
    port: TunnelPort,
    overlay: &'a OverlayView,
}

pub(super) fn render(scene: &mut Scene<'_>) {
    let (Some(port), Some(overlay)) = (scene.board.tunnel, scene.overlay()) else {
        return;
    };
    let ends = Ends { port, overlay };
    ends.arrivals(scene);
    for (id, network) in &overlay.networks {
        if let Some(number) = scene.names.networks.get(id) {
            ends.network(scene, id, network, Segment(*number));
        }
    }
}

impl Ends<'_> {
    fn option(&self, start: u16, count: u16) -> Bits {
        Bits::new(Field::TunMetadata(self.port.option), start, count)
    }

    fn arrivals(&self, scene: &mut Scene<'_>) {
        let arrives = Draft::new(Table::Classify, super::classify::OURS);
        let arrives = arrives
            .on(Field::InPort, self.port.of_port)
            .set(FLAGS, 0u32);
        scene.add(arrives.set(SOURCE_TAGS, 0u32).goto(Table::Tunnel));
        scene.add(Draft::new(Table::Tunnel, 0).drop(DropReason::UnknownTunnel));
    }

    fn tagged(&self, from: Draft, peer: &PeerHost) -> Draft {
        let (start, count) = FORM_BITS;
        let draft = from.on_value(
            Field::TunMetadata(self.port.option),
            Value::from(FORM).shifted_left(start),
            Value::ones(start, count),
        );
        let draft = draft.copy_bits(self.option(0, 128), Bits::all(SOURCE_TAGS));
        let draft = self.learning(draft, peer).raise(&[Flag::TAGGED]);
        match self.overlay.inspection {
            Inspection::Source => draft.copy_bits(
                self.option(INSPECTED_BIT, 1),
                Bits::one(FLAGS, Flag::INSPECTED.place()),
            ),
            Inspection::Destination | Inspection::Both => draft,
        }
    }

    /// Notes whether the peer wants the option, for what is learned next.
    fn learning(&self, draft: Draft, peer: &PeerHost) -> Draft {
        match peer.trust {
            PeerTrust::Address => draft.raise(&[Flag::PLAIN]),
            PeerTrust::Tag => draft,
        }
    }

    fn network(
        &self,
        scene: &mut Scene<'_>,
        id: &NetworkId,
        network: &OverlayNetwork,
        segment: Segment,
    ) {
        let peers = network.hosts.iter();
        for peer in peers.filter_map(|host| self.overlay.peers.get(host)) {
            let Some(address) = v4(peer.address) else {
                continue;
            };
            let from = Draft::new(Table::Tunnel, 20).on(Field::TunSrc, address);
            let from = from.on(Field::TunId, network.vni).set(SEGMENT, segment.0);
            let arrives = match peer.trust {
                // Who it is, its address says.
                PeerTrust::Address => self.learning(from, peer),
                PeerTrust::Tag => self.tagged(from, peer),
            };
            let arrives = arrives.act(learn()).clear(&[Flag::PLAIN]);
            scene.add(arrives.goto(Table::Destination));
        }

        let in_segment = |table, priority| Draft::new(table, priority).on(SEGMENT, segment.0);
        if self.overlay.inspection == Inspection::Destination {
            let asked = in_segment(Table::Destination, 10).set(REMOTE, 0u32);
            scene.add(asked.ask(Table::Learned).goto(Table::Send));
        } else {
            ahead::destinations(scene, id, segment);
        }
        for plain in [false, true] {
            let found = in_segment(Table::Send, 10).flag_is(Flag::PLAIN, plain);
            let found = found.act(Action::set(Field::TunId, network.vni.into()));
            let found = found.copy(REMOTE, Field::TunDst);
            let found = if plain {
                found
            } else {
                self.with_option(found)
            };
            scene.add(found.act(self.out()));
        }
        // Nobody has been heard with this MAC.
        let mut all = in_segment(Table::Send, 20).on(REMOTE, 0u32);
        for action in self.flood(network) {
            all = all.act(action);
        }
        scene.add(super::forward::to_others(scene, id, all));
    }

    /// To each other host that has ports in the network.
    fn flood(&self, network: &OverlayNetwork) -> Vec<Action> {
        let hosts = network
            .hosts
            .iter()
            .filter_map(|host| self.overlay.peers.get(host));
        let (tagged, plain): (Vec<_>, Vec<_>) = hosts.partition(|p| p.trust == PeerTrust::Tag);
        let to = |peers: &[&PeerHost]| {
            let addresses = peers.iter().filter_map(|peer| v4(peer.address));
            let each =
                addresses.flat_map(|address| [Action::set(Field::TunDst, address), self.out()]);
            each.collect::<Vec<_>>()
        };
        let number = [Action::set(Field::TunId, network.vni.into())];
        let plain = to(&plain);
        let tagged = match to(&tagged) {
            none if none.is_empty() => none,
            some => [self.option_actions(), some].concat(),
        };
        number.into_iter().chain(plain).chain(tagged).collect()
    }

    fn out(&self) -> Action {
        Action::Output(Port::Number(self.port.of_port.into()))
    }

    fn with_option(&self, draft: Draft) -> Draft {
        self.option_actions().into_iter().fold(draft, Draft::act)
    }

    fn option_actions(&self) -> Vec<Action> {
        let (start, count) = FORM_BITS;
        let inspected = Bits::new(FLAGS, Flag::INSPECTED.place(), 1);
        vec![
            Action::set_bits(self.option(start, count), FORM),
            Action::Move {
                from: Bits::all(SOURCE_TAGS),
                to: self.option(0, 128),
            },
            Action::Move {
                from: inspected,
                to: self.option(INSPECTED_BIT, 1),
            },
        ]
    }
}

/// What of the policy can't go from host to host.
pub(crate) fn remarks(view: &HostView) -> Vec<String> {
    let Some(overlay) = &view.overlay else {
        return Vec::new();
    };
    let not_by_tunnel = |host: &str, address: IpAddr| {
        format!(
            "no tunnel to host {host}: {address} is no IPv4 address, and tunnels are between those"
        )
    };
    let peers = overlay.peers.iter();
    let peers = peers.filter(|(_, peer)| v4(peer.address).is_none());
    let peers = peers.map(|(host, peer)| not_by_tunnel(host.as_str(), peer.address));
    let own = v4(overlay.address).is_none().then(|| {
        format!(
            "no tunnels: this host's {} is no IPv4 address",
            overlay.address
        )
    });
    let groups: BTreeSet<&GroupId> = view.ports.values().flat_map(|port| &port.groups).collect();
    let known = |group: &GroupId| {
        overlay.tags.contains_key(group) || view.groups.get(group).is_some_and(|g| g.tag.is_some())
    };
    let untagged = groups.into_iter().filter(|group| !known(group));
    let tagged = overlay
        .peers
        .values()
        .any(|peer| peer.trust == PeerTrust::Tag);
    let untagged = untagged
        .filter(|_| tagged)
        .map(|group| format!("group {group} has no tag: at other hosts nobody is in it"));
    own.into_iter().chain(peers).chain(untagged).collect()
}

/// What a frame for many, or for a MAC that nobody knows, does beside its copies on this host.
pub(super) fn flooded(scene: &Scene<'_>, network: &NetworkId) -> Vec<Action> {
    let (Some(port), Some(overlay)) = (scene.board.tunnel, scene.overlay()) else {
        return Vec::new();
    };
    match overlay.networks.get(network) {
        Some(of_network) => Ends { port, overlay }.flood(of_network),
        None => Vec::new(),
    }
}

/// Where the MAC is: at the host that sent this.
fn learn() -> Action {
    Action::Learn(Learn {
        table: Table::Learned.number(),
        priority: 10,
        cookie: Cookie::Learned.number(),
        hard_timeout_s: LEARNED_FOR_S,
        specs: vec![
            Spec::Match {
                to: Bits::all(SEGMENT),
                from: Source::Field(Bits::all(SEGMENT)),
            },
            Spec::Match {
                to: Bits::all(Field::EthDst),
                from: Source::Field(Bits::all(Field::EthSrc)),
            },
            Spec::Load {
                to: Bits::all(REMOTE),
                from: Source::Field(Bits::all(Field::TunSrc)),
            },
            Spec::Load {
                to: Bits::one(FLAGS, Flag::PLAIN.place()),
                from: Source::Field(Bits::one(FLAGS, Flag::PLAIN.place())),
            },
        ],
        ..Learn::default()
    })
}

/// Tunnels are between IPv4 addresses.
pub(super) fn v4(address: IpAddr) -> Option<u128> {
    match address {
        IpAddr::V4(address) => Some(number(address)),
        IpAddr::V6(_) => None,
    }
}

fn number(address: Ipv4Addr) -> u128 {
    u32::from(address).into()
}
