use super::encoding::checksum;
use super::*;
use model::IcmpRequest;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::net::IpAddr;

fn tcp() -> (FlowKey, MovedFlow) {
    let key = FlowKey {
        protocol: 6,
        local: [10, 0, 0, 1].into(),
        remote: [192, 0, 2, 1].into(),
        local_l4: 40_000,
        remote_l4: 443,
        icmp: None,
    };
    let flow = MovedFlow {
        original: Direction::Egress,
        state: FlowState::Established,
        replied: true,
        fin_local: false,
        fin_remote: true,
        turn: None,
        idle: Duration::from_secs(2),
    };
    (key, flow)
}

fn ping() -> (FlowKey, MovedFlow) {
    let key = FlowKey {
        protocol: 58,
        local: "fd00::1".parse().expect("an address"),
        remote: "2001:db8::1".parse().expect("an address"),
        local_l4: 7,
        remote_l4: 7,
        icmp: Some(IcmpRequest {
            icmp_type: 128,
            by_local: true,
        }),
    };
    let flow = MovedFlow {
        state: FlowState::Opening,
        replied: false,
        fin_remote: false,
        turn: Some(258),
        ..tcp().1
    };
    (key, flow)
}

fn of(flows: impl IntoIterator<Item = (FlowKey, MovedFlow)>) -> PortFlows {
    PortFlows {
        flows: flows.into_iter().collect(),
        hold: Some(Duration::from_secs(1)),
    }
}

#[test]
fn the_first_version_is_written_like_this() {
    let bytes = of([tcp(), ping()]).to_bytes();
    let parts = [
        "7063666c6f7773", // pcflows
        "01",
        "000000003b9aca00", // held for a second
        "00000002",
        // Established, replied, FIN from the remote end; TCP.
        "01160600",
        "0a000001c0000201",
        "9c4001bb0000",
        "0000000077359400", // idle for 2 s
        // Half-open, ICMPv6 that the local end asked; type 128.
        "00e33a80",
        "fd000000000000000000000000000001",
        "20010db8000000000000000000000001",
        "000700070102",
        "0000000077359400",
        "59425a3ed2af97d3",
    ];
    let seen: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(seen, parts.concat());
}

/// Bytes whose checksum is right.
fn sealed(told: &[u8]) -> Vec<u8> {
    [told, &checksum(told).to_be_bytes()].concat()
}

fn check_refused(bytes: &[u8], expected: BadFlows) {
    assert_eq!(PortFlows::from_bytes(bytes), Err(expected));
}

fn check_turns(places: usize, turns: &[u16], fitted: &[u16]) {
    let flows = turns.iter().zip(0..).map(|(turn, number)| {
        let key = FlowKey {
            local_l4: number,
            ..tcp().0
        };
        let turn = Some(*turn);
        (key, MovedFlow { turn, ..ping().1 })
    });
    let flows = of(flows.chain([tcp()]));
    let in_turn = flows.in_turn(places);
    assert_eq!(in_turn[0], (&tcp().0, tcp().1), "established ones first");
    let seen: Vec<_> = in_turn[1..].iter().map(|(_, flow)| flow.turn).collect();
    let fitted: Vec<_> = fitted.iter().map(|turn| Some(*turn)).collect();
    assert_eq!(seen, fitted, "{turns:?} on {places} places");
}

#[test]
fn half_open_flows_keep_their_turns_as_far_as_there_are_places() {
    check_turns(8, &[5, 0, 3], &[0, 3, 5]);
    check_turns(8, &[7, 7, 7], &[5, 6, 7]);
    check_turns(8, &[2, 2, 5], &[2, 3, 5]);
    check_turns(4, &[1, 700, 900], &[1, 2, 3]);
    check_turns(2, &[0, 1, 2, 3], &[NO_TURN, NO_TURN, 0, 1]);
    check_turns(0, &[0], &[NO_TURN]);
}

#[test]
fn what_is_no_flows_is_refused_with_a_reason() {
    let bytes = of([tcp()]).to_bytes();
    let told = &bytes[..bytes.len() - 8];
    let with = |at: usize, byte: u8| {
        let mut told = told.to_vec();
        told[at] = byte;
        sealed(&told)
    };
    check_refused(b"", BadFlows::Foreign);
    check_refused(b"pcflow", BadFlows::Foreign);
    check_refused(b"pcflows", BadFlows::Length);
    check_refused(b"pcflows\x01\0\0", BadFlows::Length);
    check_refused(&with(7, 2), BadFlows::Version(2));
    check_refused(&sealed(&told[..told.len() - 1]), BadFlows::Length);
    check_refused(&sealed(&[told, &[0]].concat()), BadFlows::Length);
    // More than are there; more than anybody has.
    check_refused(&with(19, 2), BadFlows::Length);
    check_refused(&with(16, 0x80), BadFlows::TooMany(0x8000_0001));
    check_refused(&with(20, 0x81), BadFlows::Flow(0, "it has unknown marks"));
    let (a, b) = (told[20..].to_vec(), ping());
    let twice = [&told[..19], &[2], &a, &a].concat();
    check_refused(&sealed(&twice), BadFlows::Flow(1, "it is out of order"));
    let unlikely = [
        (
            b.0,
            MovedFlow {
                fin_local: true,
                ..b.1
            },
            "only TCP ends",
        ),
        (
            tcp().0,
            MovedFlow {
                turn: Some(1),
                ..tcp().1
            },
            "it is established and half-open",
        ),
        (
            FlowKey { protocol: 6, ..b.0 },
            b.1,
            "no packet is of such a flow",
        ),
        (
            FlowKey {
                protocol: 1,
                ..tcp().0
            },
            b.1,
            "no packet is of such a flow",
        ),
        (
            FlowKey {
                protocol: 47,
                ..tcp().0
            },
            b.1,
            "no packet is of such a flow",
        ),
    ];
    for (key, flow, why) in unlikely {
        check_refused(&of([(key, flow)]).to_bytes(), BadFlows::Flow(0, why));
    }
}

fn address_pair() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    let v4 = any::<[[u8; 4]; 2]>().prop_map(|[a, b]| (a.into(), b.into()));
    let v6 = any::<[[u8; 16]; 2]>().prop_map(|[a, b]| (a.into(), b.into()));
    v4.boxed().prop_union(v6.boxed())
}

fn flow_key() -> impl Strategy<Value = FlowKey> {
    let l4 = prop_oneof![
        (
            prop_oneof![Just(6u8), Just(17), Just(132)],
            any::<[u16; 2]>()
        )
            .prop_map(|(protocol, ports)| (protocol, ports, false)),
        Just((47, [0, 0], false)),
        any::<u16>().prop_map(|id| (1, [id, id], true)),
    ];
    (address_pair(), l4, any::<bool>()).prop_map(|((local, remote), l4, by_local)| {
        let (protocol, [local_l4, remote_l4], icmp) = l4;
        let (icmp_protocol, icmp_type) = match local {
            IpAddr::V4(_) => (1, 13),
            IpAddr::V6(_) => (58, 128),
        };
        FlowKey {
            protocol: if icmp { icmp_protocol } else { protocol },
            local,
            remote,
            local_l4,
            remote_l4,
            icmp: icmp.then_some(IcmpRequest {
                icmp_type,
                by_local,
            }),
        }
    })
}

fn moved_flow() -> impl Strategy<Value = MovedFlow> {
    let state = prop_oneof![
        Just((FlowState::Established, None)),
        any::<u16>().prop_map(|turn| (FlowState::Opening, Some(turn))),
    ];
    (any::<(bool, bool)>(), state, any::<u64>()).prop_map(
        |((egress, replied), (state, turn), idle)| MovedFlow {
            original: match egress {
                true => Direction::Egress,
                false => Direction::Ingress,
            },
            state,
            replied,
            fin_local: false,
            fin_remote: false,
            turn,
            idle: Duration::from_nanos(idle),
        },
    )
}

fn port_flows() -> impl Strategy<Value = PortFlows> {
    let flows = btree_map(flow_key(), moved_flow(), 0..20);
    let hold = proptest::option::of(any::<u32>().prop_map(|s| Duration::from_secs(s.into())));
    (flows, hold).prop_map(|(flows, hold)| PortFlows { flows, hold })
}

/// What reads is what would be written.
fn check_strict(bytes: &[u8]) {
    if let Ok(flows) = PortFlows::from_bytes(bytes) {
        assert_eq!(flows.to_bytes(), bytes);
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(flows in port_flows()) {
        prop_assert_eq!(PortFlows::from_bytes(&flows.to_bytes()), Ok(flows));
    }

    #[test]
    fn parts_are_all_of_it(flows in port_flows(), most in 1usize..8) {
        let parts: Vec<PortFlows> = flows.parts(most).collect();
        prop_assert!(parts.iter().all(|part| part.flows.len() <= most && part.hold == flows.hold));
        let all = parts.iter().flat_map(|part| part.flows.clone()).collect();
        prop_assert_eq!(&flows.flows, &all);
        prop_assert_eq!(parts.iter().map(|part| part.flows.len()).sum::<usize>(), all.len());
        let turns = parts.iter().flat_map(|part| part.in_turn(99)).map(|(_, flow)| flow.turn.is_some());
        prop_assert!(turns.collect::<Vec<_>>().is_sorted(), "established ones first");
        prop_assert_eq!(parts.is_empty(), flows == PortFlows::default());
    }

    #[test]
    fn a_changed_byte_is_noticed(flows in port_flows(), at: prop::sample::Index, by in 1u8..) {
        let mut bytes = flows.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        prop_assert!(PortFlows::from_bytes(&bytes).is_err());
    }

    #[test]
    fn a_part_is_refused(flows in port_flows(), to: prop::sample::Index) {
        let bytes = flows.to_bytes();
        prop_assert!(PortFlows::from_bytes(&bytes[..to.index(bytes.len())]).is_err());
    }

    /// By somebody who knows the checksum.
    #[test]
    fn changed_bytes_are_refused_or_mean_what_they_say(
        flows in port_flows(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let bytes = flows.to_bytes();
        let mut told = bytes[..bytes.len() - 8].to_vec();
        for (at, byte) in changes {
            let at = at.index(told.len());
            told[at] = byte;
        }
        check_strict(&sealed(&told));
    }

    #[test]
    fn any_bytes_are_refused_or_mean_what_they_say(bytes in vec(any::<u8>(), 0..300)) {
        check_strict(&bytes);
        check_strict(&sealed(&[b"pcflows\x01", bytes.as_slice()].concat()));
    }
}
