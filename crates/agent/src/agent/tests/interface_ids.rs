//! Ports that are found by their interface ids.

use super::*;

#[test]
fn a_port_is_found_by_an_interface_id_that_comes_later_than_its_device() {
    check(
        &["apply", "ids"],
        vec![
            (listed(&[(7, "tap1"), (8, "tap2")]), &[]),
            (read("web:@a db:tap2"), &["ids"]),
            (ids(""), &["apply 0.1 [db=tap2@8] closed []"]),
            (applied(), &[]),
            (Event::TimerFired(Timer::Tend), &["ids"]),
            // What is asked for isn't asked for again.
            (Event::TimerFired(Timer::Tend), &[]),
            (
                ids("tap1=a tap2=c"),
                &["apply 0.1 [db=tap2@8 web=tap1@7] closed []", "ids"],
            ),
            (ids("tap1=a tap2=c"), &[]),
            (applied(), &[]),
            (Event::TimerFired(Timer::Tend), &["ids"]),
            (ids("tap1=b"), &["apply 0.1 [db=tap2@8] closed [tap1]"]),
        ],
    );
}

#[test]
fn a_device_that_comes_is_asked_about_at_once() {
    check(
        &["apply", "ids"],
        vec![
            (listed(&[]), &[]),
            (read("web:@a"), &["ids"]),
            (ids(""), &["apply 0.1 [] closed []"]),
            (applied(), &[]),
            (seen(link(7, "tap1")), &["ids"]),
            (ids("tap1=a"), &["apply 0.1 [web=tap1@7] closed []"]),
            (applied(), &[]),
            // The switch takes it in: the kernel tells nothing that we look at.
            (seen(link(7, "tap1")), &["ids"]),
            (ids("tap1=a"), &[]),
            // Made again, while the switch still has its interface.
            (
                Event::DeviceGone { ifindex: 7 },
                &["apply 0.1 [] closed []"],
            ),
            (applied(), &[]),
            (
                seen(link(8, "tap1")),
                &["apply 0.1 [web=tap1@8] closed []", "ids"],
            ),
        ],
    );
}

#[test]
fn a_renamed_device_loses_the_interface_id_of_its_old_name() {
    check(
        &["apply"],
        vec![
            (listed(&[(7, "tap1")]), &[]),
            (read("web:@a"), &[]),
            (ids("tap1=a"), &["apply 0.1 [web=tap1@7] closed []"]),
            (applied(), &[]),
            (seen(link(7, "tap2")), &["apply 0.1 [] closed [tap2]"]),
        ],
    );
}

#[test]
fn interface_ids_are_asked_for_only_while_a_port_needs_them() {
    check(
        &["apply", "ids"],
        vec![
            (listed(&[(7, "tap1")]), &[]),
            (read("web:tap1"), &["apply 0.1 [web=tap1@7] closed []"]),
            (applied(), &[]),
            (Event::TimerFired(Timer::Tend), &[]),
            (read("web:@a"), &["ids"]),
            (ids("tap1=a"), &["apply 0.2 [web=tap1@7] closed []"]),
            (applied(), &[]),
            (read("web:tap1"), &["apply 0.3 [web=tap1@7] closed []"]),
            (applied(), &[]),
            (Event::TimerFired(Timer::Tend), &[]),
            // What was known then counts no more.
            (read("web:@a"), &["ids"]),
            (ids(""), &["apply 0.4 [] closed [tap1]"]),
        ],
    );
}

#[test]
fn without_interface_ids_an_agent_that_comes_back_closes_nothing() {
    let config = Config {
        ours: BTreeSet::from([link(7, "tap1").device()]),
        ..config()
    };
    let unread = || Event::InterfaceIdsUnread("nobody listens".to_owned());
    let agent = check_config(
        config,
        &["apply", "ids", "timer Retry", "say InterfaceIds"],
        vec![
            (listed(&[(7, "tap1")]), &[]),
            (read("web:@a"), &["ids"]),
            (unread(), &["timer Retry 500", "say InterfaceIdsUnread"]),
            (Event::TimerFired(Timer::Retry), &["ids"]),
            (unread(), &["timer Retry 1000"]),
            (Event::TimerFired(Timer::Retry), &["ids"]),
            (ids("tap1=a"), &["apply 0.1 [web=tap1@7] closed []"]),
            (applied(), &[]),
            (Event::TimerFired(Timer::Tend), &["ids"]),
            (unread(), &["say InterfaceIdsUnread"]),
        ],
    );
    let [finding] = &agent.snapshot(MS).findings[..] else {
        panic!("one finding");
    };
    assert!(finding.contains("nobody listens"), "{finding}");
}

#[test]
fn a_plane_that_knows_no_interface_ids_is_said_so() {
    let mut agent = check(
        &["apply", "say DeviceFindings"],
        vec![
            (listed(&[(7, "tap1"), (8, "tap2")]), &[]),
            (read("web:@a db:tap2"), &[]),
            (
                Event::InterfaceIdsRead(None),
                &["say DeviceFindings", "apply 0.1 [db=tap2@8] closed []"],
            ),
            (applied(), &[]),
        ],
    );
    assert_eq!(
        agent.snapshot(MS).findings,
        [
            "this data plane knows of no interface ids: ports that want a device by one get none (1: web)"
        ]
    );
    agent.step(MS, read("db:tap2"));
    assert!(agent.snapshot(MS).findings.is_empty());
}
