//! Conversations: two ends that exchange packets of one tuple in both directions, so that packets
//! have a history.

use super::TALKS;
use super::dice::Dice;
use super::inventory::L4_PORTS;
use super::scene::{GATEWAY, Local, Own, Scene};
use model::{Direction, Family, L4Match, MacAddr, PortId, Rule};
use std::net::IpAddr;
use wire::TcpFlags;
use wire::build::{self, Builder, Ip};

#[derive(Clone)]
pub(super) struct Talk {
    pub(super) port: PortId,
    pub(super) local: Own,
    pub(super) remote: IpAddr,
    port_mac: MacAddr,
    by_local: bool,
    kind: Kind,
    script: &'static [Step],
    at: usize,
}

/// One more; if there are as many as are kept, in place of another.
pub(super) fn keep(talks: &mut Vec<Talk>, talk: Talk, dice: &mut Dice) {
    if talks.len() == TALKS {
        talks.swap_remove(dice.below(TALKS));
    }
    talks.push(talk);
}

/// Goes on with one of them, `odd` times in 100 otherwise than it would: which one, and how. `None`: it had come to
/// its end, and begins anew, is turned round, or is over.
pub(super) fn go_on(talks: &mut Vec<Talk>, dice: &mut Dice, odd: usize) -> Option<(usize, Step)> {
    let i = dice.below(talks.len());
    let is_odd = dice.chance(odd);
    let talk = &mut talks[i];
    let step = match is_odd {
        true => Some(talk.odd_step(dice)),
        false => talk.next_step(),
    };
    if step.is_none() {
        match dice.below(4) {
            0..=1 => talk.again_from_start(),
            2 => *talk = talk.turned(),
            _ => {
                talks.swap_remove(i);
            }
        }
    }
    step.map(|step| (i, step))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp {
        local: u16,
        remote: u16,
    },
    Ported {
        protocol: u8,
        local: u16,
        remote: u16,
    },
    /// A request and its reply.
    Query {
        request: u8,
        reply: u8,
        identifier: u16,
    },
    Icmp {
        icmp_type: u8,
        code: u8,
    },
    Protocol(u8),
}

/// Who sends, and of TCP what.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) by_originator: bool,
    flags: u8,
}

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const FIN: u8 = TcpFlags::FIN;
const RST: u8 = TcpFlags::RST;
const PSH: u8 = 8;

const fn out(flags: u8) -> Step {
    Step {
        by_originator: true,
        flags,
    }
}

const fn back(flags: u8) -> Step {
    Step {
        by_originator: false,
        flags,
    }
}

const TCP_SCRIPTS: [&[Step]; 7] = [
    &[
        out(SYN),
        back(SYN | ACK),
        out(ACK),
        out(PSH | ACK),
        back(ACK),
        back(PSH | ACK),
        out(ACK),
        out(FIN | ACK),
        back(FIN | ACK),
        out(ACK),
    ],
    // Refused, and tried again.
    &[
        out(SYN),
        back(RST | ACK),
        out(SYN),
        back(SYN | ACK),
        out(ACK),
        out(RST),
    ],
    // Picked up in mid-stream.
    &[
        out(ACK),
        back(ACK),
        out(PSH | ACK),
        back(PSH | ACK),
        back(RST),
    ],
    &[back(ACK), out(ACK), back(PSH | ACK)],
    // Simultaneous open.
    &[out(SYN), back(SYN), out(SYN | ACK), back(ACK), out(ACK)],
    // Closed, and used again from either end.
    &[
        out(SYN),
        back(SYN | ACK),
        out(ACK),
        back(FIN | ACK),
        out(FIN | ACK),
        back(ACK),
        back(SYN),
        out(SYN | ACK),
        out(SYN),
        back(SYN | ACK),
        out(ACK),
    ],
    // A FIN of one end only.
    &[
        out(SYN),
        back(SYN | ACK),
        out(FIN | ACK),
        back(ACK),
        back(ACK),
        out(ACK),
    ],
];

const BOTH_WAYS: &[Step] = &[out(0), back(0), out(0), back(0)];

const ODD_FLAGS: [u8; 14] = [
    0,
    SYN,
    ACK,
    SYN | ACK,
    FIN,
    FIN | ACK,
    RST,
    RST | ACK,
    SYN | FIN,
    SYN | RST,
    SYN | ACK | FIN,
    SYN | ACK | RST,
    PSH,
    0xff,
];

impl Talk {
    /// Mostly one that a rule of the port permits, or just not.
    pub(super) fn new(dice: &mut Dice, scene: &Scene) -> Option<Self> {
        let mut port = dice.pick_if_any(&scene.ports)?;
        for _ in 0..2 {
            if port.rules.is_empty() {
                port = dice.pick(&scene.ports);
            }
        }
        let direction = *dice.pick(&Direction::BOTH);
        let rules: Vec<&Rule> = port.rules_of(direction).collect();
        let rule = dice.pick_if_any(&rules).copied();
        let rule = rule.filter(|_| dice.chance(85));
        let family = rule.map_or(*dice.pick(&Family::BOTH), |r| r.family);
        let remote = match rule {
            Some(rule) => scene.address_of(dice, family, &rule.peer),
            None => scene.any_address(dice, family),
        };
        let by_local = direction == Direction::Egress;
        let l4 = rule.map_or(L4Match::Any, |r| r.l4);
        let kind = kind(dice, port, family, l4, by_local);
        let script = match kind {
            Kind::Tcp { .. } => *dice.pick(&TCP_SCRIPTS),
            Kind::Ported { .. } | Kind::Query { .. } | Kind::Icmp { .. } | Kind::Protocol(_) => {
                BOTH_WAYS
            }
        };
        Some(Self {
            port: port.id.clone(),
            local: port.any_own(dice, family)?,
            remote,
            port_mac: port.mac,
            by_local,
            kind,
            script,
            at: 0,
        })
    }

    /// The same ends at other transport ports or with another identifier, from the start: more flows.
    pub(super) fn sibling(&self, dice: &mut Dice) -> Self {
        let mut sibling = self.clone();
        sibling.at = 0;
        let other = 40_000 + dice.below(8) as u16;
        match &mut sibling.kind {
            Kind::Tcp { local, remote } | Kind::Ported { local, remote, .. } => {
                *(if self.by_local { local } else { remote }) = other;
            }
            Kind::Query { identifier, .. } => *identifier = other,
            Kind::Icmp { code, .. } => *code ^= 1,
            Kind::Protocol(_) => {}
        }
        sibling
    }

    /// The same tuple, and the other end begins.
    pub(super) fn turned(&self) -> Self {
        let mut turned = self.clone();
        turned.by_local = !self.by_local;
        turned.at = 0;
        turned
    }

    /// What comes next in the script; `None` behind its end.
    pub(super) fn next_step(&mut self) -> Option<Step> {
        let step = self.script.get(self.at).copied();
        self.at += 1;
        step
    }

    pub(super) fn odd_step(&self, dice: &mut Dice) -> Step {
        Step {
            by_originator: dice.chance(50),
            flags: *dice.pick(&ODD_FLAGS),
        }
    }

    /// Any step whose packet goes this way.
    pub(super) fn step_towards(&self, direction: Direction) -> Step {
        Step {
            by_originator: (direction == Direction::Egress) == self.by_local,
            flags: ACK,
        }
    }

    pub(super) fn first_step(&self) -> Step {
        self.script[0]
    }

    pub(super) fn again_from_start(&mut self) {
        self.at = 0;
    }

    pub(super) fn direction(&self, step: Step) -> Direction {
        if step.by_originator == self.by_local {
            Direction::Egress
        } else {
            Direction::Ingress
        }
    }

    pub(super) fn packet(&self, step: Step) -> Builder<Ip> {
        let direction = self.direction(step);
        let packet = self.addressed(direction);
        let ends = |local, remote| match direction {
            Direction::Egress => (local, remote),
            Direction::Ingress => (remote, local),
        };
        match self.kind {
            Kind::Tcp { local, remote } => {
                let (src, dst) = ends(local, remote);
                packet.tcp(src, dst, step.flags)
            }
            Kind::Ported {
                protocol,
                local,
                remote,
            } => {
                let (src, dst) = ends(local, remote);
                match protocol {
                    wire::PROTOCOL_SCTP => packet.sctp(src, dst),
                    wire::PROTOCOL_UDPLITE => packet.udp_lite(src, dst),
                    wire::PROTOCOL_DCCP => packet.dccp(src, dst),
                    _ => packet.udp(src, dst),
                }
            }
            Kind::Query {
                request,
                reply,
                identifier,
            } => {
                let icmp_type = if step.by_originator { request } else { reply };
                packet.icmp_query(icmp_type, identifier, 1)
            }
            Kind::Icmp { icmp_type, code } => packet.icmp(icmp_type, code, [0; 4]),
            Kind::Protocol(protocol) => packet.protocol(protocol, &[1, 2, 3, 4, 5, 6, 7, 8]),
        }
    }

    /// From one end to the other, with the MACs that belong to them.
    pub(super) fn addressed(&self, direction: Direction) -> Builder<Ip> {
        match direction {
            Direction::Egress => {
                build::ip(self.local.address, self.remote).macs(self.local.mac, GATEWAY)
            }
            Direction::Ingress => {
                build::ip(self.remote, self.local.address).macs(GATEWAY, self.port_mac)
            }
        }
    }

    pub(super) fn port_mac(&self) -> MacAddr {
        self.port_mac
    }

    pub(super) fn family(&self) -> Family {
        Family::of(self.remote)
    }
}

/// What the rule's match asks for, at the ends of its range or one off.
fn kind(dice: &mut Dice, port: &Local, family: Family, l4: L4Match, by_local: bool) -> Kind {
    match l4 {
        L4Match::Ported { protocol, dst } => {
            let dst = match dice.below(16) {
                0..=6 => dst.first(),
                7..=13 => dst.last(),
                14 => dst.first().wrapping_sub(1),
                _ => dst.last().wrapping_add(1),
            };
            ported(dice, port, protocol.number(), dst, by_local)
        }
        L4Match::Icmp { kind } => {
            let query = query(dice, family);
            match kind {
                Some(kind) => match query {
                    Kind::Query { request, .. } if request == kind.icmp_type => query,
                    _ => Kind::Icmp {
                        icmp_type: kind.icmp_type,
                        code: kind.code.unwrap_or(0),
                    },
                },
                None => query,
            }
        }
        L4Match::Other(protocol) => Kind::Protocol(protocol.number()),
        L4Match::Any => match dice.below(12) {
            0..=4 => {
                let dst = *dice.pick(&L4_PORTS);
                ported(dice, port, wire::PROTOCOL_TCP, dst, by_local)
            }
            5..=7 => {
                let dst = *dice.pick(&L4_PORTS);
                let protocol = *dice.pick(&[17, 17, 17, 33, 132, 136]);
                ported(dice, port, protocol, dst, by_local)
            }
            8..=9 => query(dice, family),
            10 => Kind::Icmp {
                icmp_type: dice.byte(),
                code: *dice.pick(&[0, 0, 1]),
            },
            // Among them the other family's ICMP, and no next header.
            _ => Kind::Protocol(match family {
                Family::V4 => *dice.pick(&[58, 47, 50, 51, 0, 44, 59, 255]),
                Family::V6 => *dice.pick(&[1, 47, 50, 2, 59, 255]),
            }),
        },
    }
}

fn ported(dice: &mut Dice, port: &Local, protocol: u8, dst: u16, by_local: bool) -> Kind {
    // The other number is where rules of the other direction begin or end, often.
    let way_back = if by_local {
        Direction::Ingress
    } else {
        Direction::Egress
    };
    let ranges = port.rules_of(way_back).filter_map(|rule| match rule.l4 {
        L4Match::Ported { protocol: p, dst } if p.number() == protocol => Some(dst),
        L4Match::Ported { .. } | L4Match::Any | L4Match::Icmp { .. } | L4Match::Other(_) => None,
    });
    let ranges: Vec<_> = ranges.collect();
    let src = match dice.pick_if_any(&ranges) {
        Some(range) if dice.chance(50) => *dice.pick(&[
            range.first(),
            range.last(),
            range.first().wrapping_sub(1),
            range.last().wrapping_add(1),
        ]),
        Some(_) | None => match dice.below(4) {
            0 => *dice.pick(&L4_PORTS),
            n => 39_999 + n as u16,
        },
    };
    let (local, remote) = if by_local { (src, dst) } else { (dst, src) };
    match protocol {
        wire::PROTOCOL_TCP => Kind::Tcp { local, remote },
        _ => Kind::Ported {
            protocol,
            local,
            remote,
        },
    }
}

fn query(dice: &mut Dice, family: Family) -> Kind {
    let (request, reply) = match family {
        Family::V4 => *dice.pick(&[(8, 0), (8, 0), (13, 14)]),
        Family::V6 => (128, 129),
    };
    Kind::Query {
        request,
        reply,
        identifier: *dice.pick(&[0, 1, 7, 65_535]),
    }
}
