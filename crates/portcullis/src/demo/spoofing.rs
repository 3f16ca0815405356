//! What a machine may not say: exact frames out of web1, each seen to pass while nothing is enforced.
//!
//! The listener is the outsider: what leaves web1's device arrives there.

use super::cast::Role;
use super::report::Report;
use super::stage::Stage;
use crate::failure::Failure;
use crate::output::{Columns, Tone};
use conformance::lab::{Arrival, PacketSocket, probe};
use model::{DropReason, MacAddr};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::build::{self, TARGET_LINK_LAYER};

const SENDER: Role = Role::Web1;
const LISTENER: Role = Role::Outsider;
const VICTIM: Role = Role::Db1;

/// Nobody's, so that no machine is led astray while nothing is enforced.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xd, 0, 0, 0, 0, 0, 1);
const STRANGER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xee]);
const EVERYBODY: MacAddr = MacAddr([0xff; 6]);
const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The same frames before and after, by the same sockets.
pub(crate) struct Spoofing {
    sender: PacketSocket,
    listener: PacketSocket,
    attempts: Vec<Attempt>,
    unenforced: Vec<Arrival>,
}

struct Attempt {
    what: &'static str,
    frame: Vec<u8>,
    /// `None`: nothing is wrong with it.
    reason: Option<DropReason>,
}

impl Spoofing {
    /// While nothing is enforced.
    pub(crate) fn rehearse(stage: &Stage) -> Result<Self, Failure> {
        let sender = stage.machines.vm(SENDER).open_packets()?;
        let listener = stage.machines.vm(LISTENER).open_packets()?;
        let attempts = attempts();
        let frames: Vec<Vec<u8>> = attempts.iter().map(|a| a.frame.clone()).collect();
        let unenforced = probe(&sender, &listener, &frames, SENDER.mac())?;
        Ok(Self {
            sender,
            listener,
            attempts,
            unenforced,
        })
    }

    pub(crate) fn play(&self, stage: &Stage, report: &mut Report) -> Result<(), Failure> {
        report.act("Spoofing: frames that web1 may not send (dropped, and counted by reason), and two that it may")?;
        let mut columns = Columns::new(&["web1 SENDS", "UNENFORCED", "EXPECTED", "SEEN"]);
        for (attempt, unenforced) in self.attempts.iter().zip(&self.unenforced) {
            let what = attempt.what;
            let expected = match attempt.reason {
                None => "passes".to_owned(),
                Some(reason) => reason.name().to_owned(),
            };
            let seen = self.seen(stage, &attempt.frame)?;
            let tone = report.verdict(format!("web1 sends {what}"), &expected, &seen);
            let before = arrival(*unenforced);
            let rehearsed = format!("web1 sends {what}, nothing enforced");
            let before_tone = report.verdict(rehearsed, "passes", before);
            columns.row([
                (what.to_owned(), Tone::Plain),
                (before.to_owned(), before_tone),
                (expected, Tone::Plain),
                (seen, tone),
            ]);
        }
        report.table(&columns)
    }

    /// That it arrived, or for which reason it was counted as dropped.
    fn seen(&self, stage: &Stage, frame: &[u8]) -> Result<String, Failure> {
        let before = stage.enforcement.drops(SENDER)?;
        let frames = [frame.to_vec()];
        let arrivals = probe(&self.sender, &self.listener, &frames, SENDER.mac())?;
        let after = stage.enforcement.drops(SENDER)?;
        let grown = before.iter().zip(&after).filter(|(b, a)| a.1 > b.1);
        // What the other machines' kernels report to all meanwhile is dropped at it by no rule.
        let reasons = grown.map(|(_, (reason, _))| *reason);
        let reasons = reasons.filter(|reason| *reason != DropReason::NoRule);
        let reasons: Vec<&str> = reasons.map(DropReason::name).collect();
        let reasons = reasons.join(", ");
        Ok(match (arrivals.as_slice(), reasons.as_str()) {
            ([Arrival::Missing], "") => "dropped, not counted".to_owned(),
            ([Arrival::Missing], reasons) => reasons.to_owned(),
            (_, "") => "passes".to_owned(),
            (_, reasons) => format!("passes, counted as {reasons}"),
        })
    }
}

fn arrival(arrival: Arrival) -> &'static str {
    match arrival {
        Arrival::Arrived => "passes",
        Arrival::Missing => "dropped",
    }
}

fn attempts() -> Vec<Attempt> {
    let mac = SENDER.mac();
    let udp = |src: IpAddr, dst: IpAddr| build::ip(src, dst).macs(mac, LISTENER.mac()).udp(7, 9);
    let (own, listener) = (SENDER.v4(), LISTENER.v4());
    let link_local = mac.eui64_link_local();
    let attempt = |what, reason, frame| Attempt {
        what,
        frame,
        reason,
    };
    vec![
        attempt(
            "UDP from its own address",
            None,
            udp(own.into(), listener.into()).bytes(),
        ),
        attempt(
            "ARP: its own address is here",
            None,
            build::arp_reply((mac, own), (LISTENER.mac(), listener)).bytes(),
        ),
        attempt(
            "UDP from a stranger's MAC",
            Some(DropReason::SpoofedMac),
            udp(own.into(), listener.into()).src_mac(STRANGER).bytes(),
        ),
        attempt(
            "UDP from db1's IPv4 address",
            Some(DropReason::SpoofedIp),
            udp(VICTIM.v4().into(), listener.into()).bytes(),
        ),
        attempt(
            "UDP from db1's IPv6 address",
            Some(DropReason::SpoofedIp),
            udp(VICTIM.v6().into(), LISTENER.v6().into()).bytes(),
        ),
        attempt(
            "ARP: the gateway is here",
            Some(DropReason::SpoofedArp),
            build::arp_reply((mac, GATEWAY_V4), (LISTENER.mac(), listener)).bytes(),
        ),
        attempt(
            "ND advertisement: the gateway is here",
            Some(DropReason::SpoofedNd),
            build::ip(GATEWAY_V6.into(), LISTENER.v6().into())
                .macs(mac, LISTENER.mac())
                .neighbour_advertisement(GATEWAY_V6)
                .nd_link_layer(TARGET_LINK_LAYER, mac)
                .bytes(),
        ),
        attempt(
            "router advertisement",
            Some(DropReason::RogueRa),
            build::ip(link_local.into(), ALL_NODES.into())
                .macs(mac, ALL_NODES_MAC)
                .router_advertisement()
                .bytes(),
        ),
        attempt(
            "DHCP offer",
            Some(DropReason::RogueDhcp),
            build::ip(own.into(), Ipv4Addr::BROADCAST.into())
                .macs(mac, EVERYBODY)
                .dhcp_server(LISTENER.mac())
                .bytes(),
        ),
        attempt(
            "UDP inside of VLAN 5",
            Some(DropReason::VlanTag),
            udp(own.into(), listener.into()).tag(0x8100, 5).bytes(),
        ),
    ]
}
