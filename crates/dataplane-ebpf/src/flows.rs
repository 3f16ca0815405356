//! The flows that the hooks track, and the clock that they are told by.

use crate::layout::{
    Config, FLOW_ASKED_BY_LOCAL, FLOW_EGRESS, FLOW_REPLIED, FLOW_V6, Flow, TCP_CLOSING,
    TCP_ESTABLISHED, TCP_OPENING, TICK_SHIFT, TIMEOUT_ICMP, TIMEOUT_OTHER, TIMEOUT_UDP,
    TIMEOUT_UDP_REPLIED,
};
use dataplane::{FlowRecord, Standing};
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
    let state = match u32::from(flow.state) {
        TCP_OPENING => FlowState::Opening,
        TCP_ESTABLISHED => FlowState::Established,
        TCP_CLOSING => FlowState::Closing,
        _ => FlowState::Reset,
    };
    let kind = u32::from(flow.kind);
    let standing = match flow.word {
        _ if flow.generation != config.generation => Standing::NotAsked,
        0 => Standing::Revoked,
        word => Standing::Rule(rule(word)),
    };
    let idle_ticks = now_ticks.wrapping_sub(flow.seen_ticks) as i32;
    FlowRecord {
        port,
        key: key(flow),
        original: if kind & FLOW_EGRESS != 0 {
            Direction::Egress
        } else {
            Direction::Ingress
        },
        state,
        replied: u32::from(flow.marks) & FLOW_REPLIED != 0,
        idle: ticks(idle_ticks.max(0) as u32),
        standing,
    }
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

fn key(flow: &Flow) -> FlowKey {
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

fn ticks(ticks: u32) -> Duration {
    Duration::from_nanos(u64::from(ticks) << TICK_SHIFT)
}
