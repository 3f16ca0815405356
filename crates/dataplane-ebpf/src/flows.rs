//! The flows that the hooks track, and the clock that they are told by.

use crate::layout::{
    Config, FLOW_ASKED_BY_LOCAL, FLOW_EGRESS, FLOW_FIN_LOCAL, FLOW_FIN_REMOTE, FLOW_REPLIED,
    FLOW_V6, Flow, TCP_CLOSING, TCP_ESTABLISHED, TCP_OPENING, TCP_RESET, TICK_SHIFT, TIMEOUT_ICMP,
    TIMEOUT_OTHER, TIMEOUT_UDP, TIMEOUT_UDP_REPLIED,
};
use dataplane::{FlowRecord, MovedFlow, Standing};
use model::{Direction, FlowKey, FlowState, IcmpRequest, PortId, RuleRef};
use std::net::IpAddr;
use std::time::Duration;

/// `rule` finds the rule behind a word that is of the generation in force.
pub(crate) fn record(
    flow: &Flow,
    port: PortId,
    config: &Config,
    now_ticks: u32,
    rule: impl Fn(u32) -> RuleRef,
) -> FlowRecord {
    let standing = match flow.word {
        _ if flow.generation != config.generation => Standing::NotAsked,
        0 => Standing::Revoked,
        word => Standing::Rule(rule(word)),
    };
    FlowRecord {
        port,
        key: key(flow),
        original: original(flow),
        state: state(flow),
        replied: u32::from(flow.marks) & FLOW_REPLIED != 0,
        idle: idle(flow, now_ticks),
        standing,
    }
}

/// For another host. `turn` says how many places come before this one.
pub(crate) fn moved(flow: &Flow, now_ticks: u32, turn: impl Fn(u32) -> u16) -> MovedFlow {
    let has = |mark: u32| u32::from(flow.marks) & mark != 0;
    let state = state(flow);
    // A flow that is being established while it is read has no place to keep.
    let half_open = flow.place != 0 && state != FlowState::Established;
    MovedFlow {
        original: original(flow),
        state,
        replied: has(FLOW_REPLIED),
        fin_local: has(FLOW_FIN_LOCAL),
        fin_remote: has(FLOW_FIN_REMOTE),
        turn: half_open.then(|| turn(flow.place - 1)),
        idle: idle(flow, now_ticks),
    }
}

/// From another host, for the port of this number and slot; its place is not given yet.
pub(crate) fn arrived(
    key: &FlowKey,
    moved: &MovedFlow,
    slot: u16,
    number: u32,
    now_ticks: u32,
) -> Flow {
    let mut flow = Flow {
        number,
        slot,
        protocol: key.protocol,
        local_l4: key.local_l4,
        remote_l4: key.remote_l4,
        seen_ticks: now_ticks.wrapping_sub(whole_ticks(moved.idle)),
        ..Flow::default()
    };
    let mut kind = 0;
    for (place, address) in [(&mut flow.local, key.local), (&mut flow.remote, key.remote)] {
        match address {
            IpAddr::V4(address) => place[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => {
                *place = address.octets();
                kind |= FLOW_V6;
            }
        }
    }
    if let Some(request) = key.icmp {
        flow.remote_l4 = u16::from(request.icmp_type) << 8;
        kind |= if request.by_local {
            FLOW_ASKED_BY_LOCAL
        } else {
            0
        };
    }
    if moved.original == Direction::Egress {
        kind |= FLOW_EGRESS;
    }
    flow.kind = kind as u8;
    let state = match moved.state {
        FlowState::Opening => TCP_OPENING,
        FlowState::Established => TCP_ESTABLISHED,
        FlowState::Closing => TCP_CLOSING,
        FlowState::Reset => TCP_RESET,
    };
    flow.state = state as u8;
    let marks = [
        (FLOW_REPLIED, moved.replied),
        (FLOW_FIN_LOCAL, moved.fin_local),
        (FLOW_FIN_REMOTE, moved.fin_remote),
    ];
    let set = marks.iter().filter(|(_, is)| *is).map(|(mark, _)| mark);
    flow.marks = set.sum::<u32>() as u8;
    flow
}

/// conntrack.h, `is_expired`.
pub(crate) fn is_expired(flow: &Flow, config: &Config, now_ticks: u32) -> bool {
    let opening = u32::from(flow.state) == TCP_OPENING;
    let icmp = if u32::from(flow.kind) & FLOW_V6 != 0 {
        58
    } else {
        1
    };
    let timeout = match flow.protocol {
        6 => u32::from(flow.state) & 3,
        17 if opening => TIMEOUT_UDP,
        17 => TIMEOUT_UDP_REPLIED,
        protocol if protocol == icmp => TIMEOUT_ICMP,
        _ => TIMEOUT_OTHER,
    };
    let idle = now_ticks.wrapping_sub(flow.seen_ticks) as i32;
    idle > config.timeouts_ticks[timeout as usize] as i32
}

fn state(flow: &Flow) -> FlowState {
    match u32::from(flow.state) {
        TCP_OPENING => FlowState::Opening,
        TCP_ESTABLISHED => FlowState::Established,
        TCP_CLOSING => FlowState::Closing,
        _ => FlowState::Reset,
    }
}

fn original(flow: &Flow) -> Direction {
    match u32::from(flow.kind) & FLOW_EGRESS {
        0 => Direction::Ingress,
        _ => Direction::Egress,
    }
}

fn idle(flow: &Flow, now_ticks: u32) -> Duration {
    let idle = now_ticks.wrapping_sub(flow.seen_ticks) as i32;
    ticks(idle.max(0) as u32)
}

pub(crate) fn key(flow: &Flow) -> FlowKey {
    let kind = u32::from(flow.kind);
    let address = |octets: [u8; 16]| -> IpAddr {
        if kind & FLOW_V6 != 0 {
            IpAddr::from(octets)
        } else {
            IpAddr::from([octets[0], octets[1], octets[2], octets[3]])
        }
    };
    let icmp = flow.protocol == if kind & FLOW_V6 != 0 { 58 } else { 1 };
    let request = IcmpRequest {
        icmp_type: (flow.remote_l4 >> 8) as u8,
        by_local: kind & FLOW_ASKED_BY_LOCAL != 0,
    };
    FlowKey {
        protocol: flow.protocol,
        local: address(flow.local),
        remote: address(flow.remote),
        local_l4: flow.local_l4,
        // ICMP has the identifier in both, and the request's type in place of the other.
        remote_l4: if icmp { flow.local_l4 } else { flow.remote_l4 },
        icmp: icmp.then_some(request),
    }
}

/// Length of the kernel's tick: the resolution of the clocks that it moves.
pub(crate) fn jiffy_ns() -> u32 {
    let mut resolution = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `resolution` is there to be written; this clock is always there.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &mut resolution) };
    u32::try_from(resolution.tv_nsec).expect("ticks are shorter than a second")
}

/// Those that are over; more than a clock of ticks can tell is as much as it can.
pub(crate) fn whole_ticks(time: Duration) -> u32 {
    let ticks = time.as_nanos() >> TICK_SHIFT;
    u32::try_from(ticks)
        .unwrap_or(u32::MAX)
        .min(i32::MAX as u32)
}

pub(crate) fn ticks(ticks: u32) -> Duration {
    Duration::from_nanos(u64::from(ticks) << TICK_SHIFT)
}
