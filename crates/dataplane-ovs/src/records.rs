//! The tracker's entries, as records of a port's flows.
//!
//! Of a flow without states, as UDP's, the tracker doesn't say whether it was answered; only the time that it
//! has left may show it.

use crate::flows::key;
use dataplane::{FlowRecord, Standing};
use model::{Direction, FlowKey, FlowState, PortId, Timeouts};
use ovsdb::conntrack::Connection;
use policy::{HostView, PortView};
use std::net::IpAddr;
use std::time::Duration;

/// What an entry in this port's zone is to the port. `None`: no flow comes of it.
pub(crate) fn record(
    view: &HostView,
    port: &PortId,
    connection: &Connection,
) -> Option<FlowRecord> {
    let original = original(view, port, connection)?;
    let key = key(connection, original)?;
    let (state, replied) = state(&view.settings.timeouts, connection);
    let rule = policy::permitting(view, port, original, &key);
    let lasts = lasts(&view.settings.timeouts, &key, state, replied);
    let left = connection.timeout_seconds.unwrap_or(lasts);
    Some(FlowRecord {
        port: port.clone(),
        key,
        original,
        state,
        replied,
        idle: Duration::from_secs(lasts.saturating_sub(left).into()),
        standing: rule.map_or(Standing::Revoked, Standing::Rule),
    })
}

/// Which way its first packet went, by whose address is whose. Where both may be the port's, or neither (any
/// more), by which way a rule permits.
pub(crate) fn original(
    view: &HostView,
    port: &PortId,
    connection: &Connection,
) -> Option<Direction> {
    let of_port = view.ports.get(port)?;
    let permitted = |direction: &Direction| {
        let key = key(connection, *direction);
        key.is_some_and(|key| policy::permitting(view, port, *direction, &key).is_some())
    };
    Some(match ways(of_port, connection) {
        [way] => *way,
        ways => {
            let mut permitted = ways.iter().copied().filter(permitted);
            permitted.next().unwrap_or(Direction::Egress)
        }
    })
}

/// Which way its first packet may have gone.
pub(crate) fn ways(port: &PortView, connection: &Connection) -> &'static [Direction] {
    let (src, dst) = (connection.orig.src, connection.orig.dst);
    match (owns(port, src), owns(port, dst)) {
        (true, false) => &[Direction::Egress],
        (false, true) => &[Direction::Ingress],
        (true, true) | (false, false) => &Direction::BOTH,
    }
}

fn owns(port: &PortView, address: IpAddr) -> bool {
    let listed = port
        .addresses
        .iter()
        .any(|own| own.prefix.contains(address));
    listed || address == IpAddr::V6(port.mac.eui64_link_local())
}

/// And whether it was answered.
fn state(timeouts: &Timeouts, connection: &Connection) -> (FlowState, bool) {
    let Some(one) = connection.state.as_deref() else {
        let left = connection.timeout_seconds.unwrap_or(0);
        let replied = connection.protocol == "udp" && left > timeouts.udp_s;
        let state = match replied {
            true => FlowState::Established,
            false => FlowState::Opening,
        };
        return (state, replied);
    };
    let other = connection.state_reply.as_deref().unwrap_or(one);
    let ended = |state| matches!(state, "CLOSING" | "FIN_WAIT_2" | "LAST_ACK");
    let begins = |state| matches!(state, "CLOSED" | "LISTEN" | "SYN_SENT" | "SYN_RECV");
    let state = match (one, other) {
        // By a RST, from either end; else both ends' FIN would be waited for.
        ("TIME_WAIT", _) | (_, "TIME_WAIT") => FlowState::Reset,
        (one, other) if ended(one) && ended(other) => FlowState::Closing,
        (one, other) if begins(one) || begins(other) => FlowState::Opening,
        (_, _) => FlowState::Established,
    };
    (state, other != "CLOSED" && other != "LISTEN")
}

/// Seconds without a packet after which it is gone.
fn lasts(timeouts: &Timeouts, key: &FlowKey, state: FlowState, replied: bool) -> u32 {
    match (key.protocol, key.icmp, state) {
        (_, Some(_), _) => timeouts.icmp_s,
        (6, _, FlowState::Opening) => timeouts.tcp_opening_s,
        (6, _, FlowState::Established) => timeouts.tcp_established_s,
        (6, _, FlowState::Closing | FlowState::Reset) => timeouts.tcp_closing_s,
        // The tracker has one set of times for all the rest.
        (_, _, _) if replied => timeouts.udp_replied_s,
        (_, _, _) => timeouts.udp_s,
    }
}

#[cfg(test)]
mod tests;
