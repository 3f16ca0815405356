//! Whose an entry of the kernel's tracker is, and what flow it is to that port.
//!
//! Place on the line: conntrack entries -> **flows of ports**. What permits a flow isn't kept with it: at
//! each packet the rules are asked again, and so they are here.
//! One entry is one flow of each end that is on this host. Link-local ends that no port lists are nobody's
//! here.

use crate::books::{Pool, zone};
use crate::mark;
use dataplane::{FlowRecord, Standing, Target};
use model::{Direction, FlowKey, FlowState, PortId, Prefix, Timeouts};
use netfilter::conntrack::{self, Entry, Filter, State, Status, Tcp};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// The addresses of ports, by zone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locals {
    single: BTreeMap<(u16, IpAddr), Vec<PortId>>,
    nets: Vec<(u16, Prefix, PortId)>,
}

/// An entry, as one of its ends sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalFlow<'a> {
    pub(crate) port: &'a PortId,
    pub(crate) key: FlowKey,
    pub(crate) original: Direction,
    /// Its replies may be live for this end.
    pub(crate) started: bool,
}

impl Locals {
    /// `bridges`: their numbers.
    pub(crate) fn of(target: &Target, bridges: &Pool<u32>) -> Self {
        let mut locals = Self::default();
        let mut zones = BTreeMap::new();
        for (device, bridge) in &target.bridges {
            if let Some(number) = bridges.get(&device.ifindex) {
                zones.extend(
                    bridge
                        .members
                        .iter()
                        .map(|member| (member.ifindex, zone(number))),
                );
            }
        }
        for (id, device) in &target.devices {
            let zone = zones.get(&device.ifindex);
            let (Some(port), Some(zone)) = (target.view.ports.get(id), zone) else {
                continue;
            };
            let own = port.addresses.iter().map(|address| address.prefix);
            let derived = Prefix::host(port.mac.eui64_link_local().into());
            for prefix in own.chain([derived]) {
                match prefix.as_host() {
                    Some(host) => locals
                        .single
                        .entry((*zone, host))
                        .or_default()
                        .push(id.clone()),
                    None => locals.nets.push((*zone, prefix, id.clone())),
                }
            }
        }
        locals
    }

    /// Ports with this address.
    fn at(&self, zone: u16, address: IpAddr) -> impl Iterator<Item = &PortId> {
        let single = self.single.get(&(zone, address)).into_iter().flatten();
        let nets = self
            .nets
            .iter()
            .filter(move |(z, net, _)| *z == zone && net.contains(address));
        single.chain(nets.map(|(_, _, id)| id))
    }

    /// What the entry is to each of its ends here. A port that may use both addresses is the end that it
    /// started as.
    pub(crate) fn flows<'a>(&'a self, entry: &'a Entry) -> Vec<LocalFlow<'a>> {
        let ends = [
            (entry.original.src, Direction::Egress, mark::STARTED_OUT),
            (entry.original.dst, Direction::Ingress, mark::STARTED_IN),
        ];
        let mut flows: Vec<LocalFlow<'a>> = Vec::new();
        for (address, original, bit) in ends {
            let started = entry.mark & bit != 0;
            for port in self.at(entry.zone, address) {
                let Some(key) = entry.flow_key(original) else {
                    continue;
                };
                let flow = LocalFlow {
                    port,
                    key,
                    original,
                    started,
                };
                match flows.iter_mut().find(|other| other.port == port) {
                    Some(other) if started && !other.started => *other = flow,
                    Some(_) => {}
                    None => flows.push(flow),
                }
            }
        }
        flows
    }
}

/// The flows that ports have, or one port has.
pub(crate) fn records(
    target: &Target,
    locals: &Locals,
    of: Option<&PortId>,
) -> io::Result<Vec<FlowRecord>> {
    let mut records = Vec::new();
    if conntrack::count().map_err(io::Error::other)? == 0 {
        return Ok(records);
    }
    let listed = conntrack::dump(&Filter::default(), |entry| {
        let flows = locals.flows(&entry).into_iter();
        let flows = flows.filter(|flow| flow.started && of.is_none_or(|of| of == flow.port));
        records.extend(flows.map(|flow| record(&flow, &entry, target)));
    });
    listed.map_err(io::Error::other)?;
    Ok(records)
}

fn record(flow: &LocalFlow<'_>, entry: &Entry, target: &Target) -> FlowRecord {
    let replied = entry.status.has(Status::SEEN_REPLY);
    let state = match entry.state {
        State::Tcp(Tcp { state, .. }) => match state {
            Tcp::SYN_SENT | Tcp::SYN_SENT2 | Tcp::SYN_RECV => FlowState::Opening,
            // Closed on one side, it is open on the other.
            Tcp::ESTABLISHED | Tcp::FIN_WAIT | Tcp::CLOSE_WAIT => FlowState::Established,
            Tcp::LAST_ACK | Tcp::TIME_WAIT => FlowState::Closing,
            _ => FlowState::Reset,
        },
        State::Sctp(_) | State::Stateless if replied => FlowState::Established,
        State::Sctp(_) | State::Stateless => FlowState::Opening,
    };
    let view = &target.view;
    let rule = policy::permitting(view, flow.port, flow.original, &flow.key);
    let lasts = lasts(&view.settings.timeouts, &flow.key, state, replied);
    FlowRecord {
        port: flow.port.clone(),
        key: flow.key,
        original: flow.original,
        state,
        replied,
        idle: Duration::from_secs(lasts.saturating_sub(entry.timeout_s).into()),
        standing: rule.map_or(Standing::Revoked, Standing::Rule),
    }
}

/// Seconds without a packet after which it is gone.
fn lasts(timeouts: &Timeouts, key: &FlowKey, state: FlowState, replied: bool) -> u32 {
    match (key.protocol, key.icmp, state) {
        (_, Some(_), _) => timeouts.icmp_s,
        (6, _, FlowState::Opening) => timeouts.tcp_opening_s,
        (6, _, FlowState::Established) => timeouts.tcp_established_s,
        (6, _, FlowState::Closing) => timeouts.tcp_closing_s,
        (6, _, FlowState::Reset) => timeouts.tcp_reset_s,
        (17, _, _) if replied => timeouts.udp_replied_s,
        (17, _, _) => timeouts.udp_s,
        _ => timeouts.other_s,
    }
}
