//! What is the same of each frame at both gates: tags, cut headers, ethertypes. Then the guard of the gate that it is
//! at, which begins by asking whose the source MAC or the destination address is.

use super::from_port::{FRAGMENT, SCTP, TCP, UDP};
use super::{Scene, own};
use crate::draft::{Draft, ETH_ARP, ETH_IP, ETH_IPV6, ETH_RARP};
use crate::registers::Flag;
use crate::tables::Table;
use model::{DropReason, Family};
use openflow::Field;

pub(super) fn render(scene: &mut Scene<'_>) {
    let table = Table::Frame;
    const TAG: u128 = 0x1000;
    let tagged = Draft::new(table, 40).on_masked(Field::VlanTci, TAG, TAG);
    scene.add(tagged.drop(DropReason::VlanTag));
    for family in Family::BOTH {
        cut_headers(scene, family);
    }
    let listed = scene.view.settings.ethertypes.iter().copied();
    for ethertype in [ETH_IP, ETH_IPV6, ETH_ARP, ETH_RARP]
        .into_iter()
        .chain(listed)
    {
        let of_type = || Draft::new(table, 20).eth(ethertype);
        let sent = of_type().with(Flag::FROM_PORT);
        scene.add(own::begin_mac(sent, Field::EthSrc).goto(Table::FromMac));
        let comes = of_type().with(Flag::TO_PORT);
        scene.add(match ethertype {
            ETH_IP => own::begin(comes, Field::IpDst, Family::V4).goto(Table::ToAddress),
            ETH_IPV6 => own::begin(comes, Field::Ipv6Dst, Family::V6).goto(Table::ToAddress),
            _other => comes.goto(Table::Passed),
        });
    }
    scene.add(Draft::new(table, 0).drop(DropReason::Ethertype));
}

/// A header that is cut short reads as zeros.
fn cut_headers(scene: &mut Scene<'_>, family: Family) {
    let ports = [
        (TCP, Field::TcpSrc, Field::TcpDst),
        (UDP, Field::UdpSrc, Field::UdpDst),
        (SCTP, Field::SctpSrc, Field::SctpDst),
    ];
    for (protocol, src, dst) in ports {
        let draft = Draft::new(Table::Frame, 30).eth(own::ethertype(family));
        let draft = draft.on(Field::IpProto, protocol).on(src, 0u8).on(dst, 0u8);
        let draft = draft.on_masked(Field::IpFrag, 0, FRAGMENT);
        scene.add(
            match protocol {
                TCP => draft.on(Field::TcpFlags, 0u8),
                _ => draft,
            }
            .drop(DropReason::BadHeader),
        );
    }
}
