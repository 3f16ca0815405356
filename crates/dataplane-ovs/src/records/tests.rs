use super::*;

/// A TCP connection as far as its states go, and the seconds that it has left.
fn tcp(states: [&str; 2], left: u32) -> Connection {
    with("tcp", Some(states), left)
}

fn with(protocol: &str, states: Option<[&str; 2]>, left: u32) -> Connection {
    let tuple = ovsdb::conntrack::Tuple {
        src: IpAddr::from([10, 0, 0, 1]),
        dst: IpAddr::from([10, 0, 0, 2]),
        sport: 1,
        dport: 2,
        icmp: None,
    };
    Connection {
        protocol: protocol.to_owned(),
        zone: 7,
        orig: tuple,
        reply: tuple,
        state: states.map(|s| s[0].to_owned()),
        state_reply: states.map(|s| s[1].to_owned()),
        timeout_seconds: Some(left),
        mark: 0,
        labels: 0,
    }
}

#[test]
fn states_of_both_ends_are_one() {
    let timeouts = Timeouts::default();
    for (states, expected, replied) in [
        (["SYN_SENT", "CLOSED"], FlowState::Opening, false),
        (["SYN_SENT", "SYN_SENT"], FlowState::Opening, true),
        (["ESTABLISHED", "ESTABLISHED"], FlowState::Established, true),
        (["FIN_WAIT_2", "ESTABLISHED"], FlowState::Established, true),
        (["CLOSING", "CLOSING"], FlowState::Closing, true),
        (["FIN_WAIT_2", "FIN_WAIT_2"], FlowState::Closing, true),
        (["TIME_WAIT", "TIME_WAIT"], FlowState::Reset, true),
    ] {
        let seen = state(&timeouts, &tcp(states, 1));
        assert_eq!(seen, (expected, replied), "{states:?}");
    }
}

#[test]
fn an_answer_without_states_shows_in_the_time_left() {
    let timeouts = Timeouts::default();
    for (left, expected) in [
        (timeouts.udp_s, (FlowState::Opening, false)),
        (timeouts.udp_s + 1, (FlowState::Established, true)),
    ] {
        assert_eq!(state(&timeouts, &with("udp", None, left)), expected);
    }
}
