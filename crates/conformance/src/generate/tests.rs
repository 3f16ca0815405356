use super::*;

#[test]
fn a_seed_means_one_trace() {
    let text = |seed| format!("{:?}", trace(seed, 200).events);
    assert_eq!(text(7), text(7));
    assert_ne!(text(7), text(8));
}

#[test]
fn a_trace_begins_with_a_policy_and_has_its_packets() {
    for seed in 0..50 {
        let trace = trace(seed, 100);
        assert!(matches!(trace.events[0], Event::Policy(_)), "seed {seed}");
        let packets = trace.events.iter();
        let packets = packets.filter(|e| matches!(e, Event::Packet(_))).count();
        assert_eq!(packets, 100, "seed {seed}");
    }
}
