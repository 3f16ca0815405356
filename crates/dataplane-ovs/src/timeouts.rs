//! How long the tracker keeps what it knows, by zone: the contract's times under the names that it has.

use model::Timeouts;
use ovsdb::zones::{self, Zones, set_timeouts};
use std::collections::{BTreeMap, BTreeSet};

const OWNER: (&str, &str) = ("portcullis", "zone");

/// The operations after which these zones have these times, and ours that aren't among them have none.
pub(crate) fn operations(
    datapath: &str,
    found: &Zones,
    zones: &BTreeSet<u16>,
    timeouts: &Timeouts,
) -> Vec<serde_json::Value> {
    let policy = policy(timeouts);
    let differs = |zone: &u16| {
        found
            .zones
            .get(zone)
            .is_none_or(|known| known.timeouts != policy)
    };
    let wanted: BTreeMap<u16, zones::Timeouts> = zones
        .iter()
        .copied()
        .filter(differs)
        .map(|zone| (zone, policy.clone()))
        .collect();
    let ours = found
        .zones
        .iter()
        .filter(|(_, known)| known.external_ids.get(OWNER.0).map(String::as_str) == Some(OWNER.1));
    let removed: Vec<u16> = ours
        .map(|(zone, _)| *zone)
        .filter(|zone| !zones.contains(zone))
        .collect();
    if wanted.is_empty() && removed.is_empty() {
        return Vec::new();
    }
    set_timeouts(datapath, found, &wanted, &removed, OWNER)
}

fn policy(t: &Timeouts) -> zones::Timeouts {
    let times = [
        ("tcp_syn_sent", t.tcp_opening_s),
        ("tcp_syn_recv", t.tcp_opening_s),
        ("tcp_established", t.tcp_established_s),
        ("tcp_fin_wait", t.tcp_established_s),
        ("tcp_close_wait", t.tcp_established_s),
        ("tcp_last_ack", t.tcp_closing_s),
        ("tcp_time_wait", t.tcp_closing_s),
        ("tcp_close", t.tcp_closing_s),
        ("tcp_syn_sent2", t.tcp_opening_s),
        ("tcp_retransmit", t.tcp_established_s),
        ("tcp_unack", t.tcp_established_s),
        ("udp_first", t.udp_s),
        ("udp_single", t.udp_s),
        ("udp_multiple", t.udp_replied_s),
        ("icmp_first", t.icmp_s),
        ("icmp_reply", t.icmp_s),
    ];
    times
        .map(|(name, seconds)| (name.to_owned(), seconds))
        .into()
}
