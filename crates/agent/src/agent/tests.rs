//! The core by tables: what happens, and what it wants done, each in a few words.

use super::*;
use model::{DeviceMatch, FrozenSet, Host, Network, NetworkId, Port, ScopeId, Settings};
use proptest::prelude::*;

mod interface_ids;
mod moves;
mod served;

const MS: Duration = Duration::from_millis(1);

/// A policy in words: `web:tap1 db:tap2 app:@a`; port and device, or interface id. Ports carry fixed
/// data otherwise.
fn policy(text: &str) -> PolicyText {
    let host = HostId::new("h");
    let network = NetworkId::new("lan");
    let mut inventory = Inventory::default();
    inventory.hosts.insert(
        host.clone(),
        Host {
            id: host.clone(),
            tunnel_address: None,
            peer_trust: model::PeerTrust::default(),
            settings: Settings::default(),
        },
    );
    inventory.networks.insert(
        network.clone(),
        Network {
            id: network.clone(),
            scope: ScopeId::new("s"),
            vni: None,
            mtu: None,
            subnets: BTreeSet::new(),
            dhcp_servers: BTreeSet::new(),
            routers: BTreeSet::new(),
            eui64_only: false,
        },
    );
    // What comes behind a # is a comment, as in the file.
    let words = text.split('#').next().unwrap_or_default();
    for (index, word) in words.split_whitespace().enumerate() {
        let (port, device) = word.split_once(':').expect("port:device");
        let id = PortId::new(port);
        inventory.ports.insert(
            id.clone(),
            Port {
                id,
                network: network.clone(),
                host: Some(host.clone()),
                device: match device.strip_prefix('@') {
                    Some(id) => DeviceMatch::InterfaceId(id.to_owned()),
                    None => DeviceMatch::Name(device.to_owned()),
                },
                moving: None,
                mac: model::MacAddr([2, 0, 0, 0, 0, index as u8]),
                fixed_addresses: FrozenSet::new(),
                address_pairs: FrozenSet::new(),
                groups: FrozenSet::new(),
                port_security: true,
                dhcp_server: false,
                router: false,
            },
        );
    }
    PolicyText {
        text: text.as_bytes().into(),
        inventory,
    }
}

fn link(ifindex: u32, name: &str) -> Link {
    Link {
        ifindex,
        name: name.to_owned(),
        mac: Some(model::MacAddr([0xfe, 0, 0, 0, 1, ifindex as u8])),
        kind: Some("tun".to_owned()),
        up: true,
        master: None,
        interface_id: None,
    }
}

/// Devices with their interface ids: `tap1=a tap2=b`.
fn ids(text: &str) -> Event {
    let ids = text.split_whitespace().map(|word| {
        let (device, id) = word.split_once('=').expect("device=id");
        (device.to_owned(), id.to_owned())
    });
    Event::InterfaceIdsRead(Some(ids.collect()))
}

fn seen(link: Link) -> Event {
    Event::DeviceSeen {
        link,
        at: Duration::ZERO,
    }
}

fn read(text: &str) -> Event {
    Event::PolicyRead(policy(text))
}

fn cached(text: &str) -> Event {
    let revision = Revision {
        epoch: 0,
        commit: 41,
    };
    Event::CacheRead(policy(text), revision)
}

fn invalid() -> Event {
    Event::PolicyInvalid(vec!["line 1: no".to_owned()])
}

fn listed(links: &[(u32, &str)]) -> Event {
    Event::DevicesListed(links.iter().map(|(i, n)| link(*i, n)).collect())
}

fn applied() -> Event {
    Event::Applied(ApplyReport::default())
}

/// Ports, with why: `web:large db:room`.
fn refused(ports: &str) -> Event {
    let ports = ports.split_whitespace().map(|word| {
        let (port, why) = word.split_once(':').expect("port:why");
        (PortId::new(port), why.to_owned())
    });
    Event::Applied(ApplyReport {
        refused: ports.collect(),
        ..ApplyReport::default()
    })
}

fn failed() -> Event {
    Event::ApplyFailed("no memory".to_owned())
}

fn config() -> Config {
    Config {
        host: HostId::new("h"),
        ours: BTreeSet::new(),
        confirm: None,
        guard_names: BTreeSet::new(),
        audit_every: Duration::from_secs(10),
        encode: None,
    }
}

/// Effects in a few words; reports by name and whom they are about, since their text is the log's
/// matter.
fn words(effect: &Effect) -> String {
    let devices = |devices: &mut dyn Iterator<Item = String>| devices.collect::<Vec<_>>().join(" ");
    match effect {
        Effect::Apply(target) => format!(
            "apply {} [{}] closed [{}]",
            target.view.revision,
            devices(
                &mut target
                    .devices
                    .iter()
                    .map(|(p, d)| format!("{p}={}@{}", d.name, d.ifindex))
            ),
            devices(&mut target.closed.iter().map(|d| d.name.clone())),
        ),
        Effect::ExportFlows(port) => format!("export {port}"),
        Effect::ImportFlows { port, .. } => format!("import {port}"),
        Effect::Audit => "audit".to_owned(),
        Effect::Tend => "tend".to_owned(),
        Effect::ReadInterfaceIds => "ids".to_owned(),
        Effect::StartTimer(timer, after) => format!("timer {timer:?} {}", after.as_millis()),
        Effect::Guard(state) => format!("guard {:?} armed {:?}", state.names, state.armed),
        Effect::RememberOurs(ours) => {
            format!(
                "ours [{}]",
                devices(&mut ours.iter().map(|d| d.name.clone()))
            )
        }
        Effect::SaveCache { revision, .. } => format!("save {revision}"),
        Effect::MarkConfirmed => "mark confirmed".to_owned(),
        Effect::Detach => "detach".to_owned(),
        Effect::Report(Report::Refused { ports, .. }) => format!(
            "say Refused [{}]",
            devices(&mut ports.iter().map(|(port, why)| format!("{port}:{why}")))
        ),
        Effect::Report(Report::DevicesClosed(closed)) => format!(
            "say DevicesClosed [{}]",
            devices(&mut closed.iter().map(|d| d.name.clone()))
        ),
        Effect::Report(report) => {
            let text = format!("{report:?}");
            let end = text.find([' ', '(']).unwrap_or(text.len());
            format!("say {}", &text[..end])
        }
        Effect::Exit(exit) => format!("exit {exit:?}"),
    }
}

/// Each event with what must come of it; of the effects only those that begin with one of `of`.
fn check_config(config: Config, of: &[&str], steps: Vec<(Event, &[&str])>) -> Agent {
    let mut agent = Agent::new(config);
    for (at, (event, expected)) in steps.into_iter().enumerate() {
        let name = format!("step {at}: {event:?}");
        let effects = agent.step(at as u32 * MS, event);
        let seen: Vec<String> = effects
            .iter()
            .map(words)
            .filter(|w| of.iter().any(|of| w.starts_with(of)))
            .collect();
        assert_eq!(seen, expected, "{name}");
    }
    agent
}

fn check(of: &[&str], steps: Vec<(Event, &[&str])>) -> Agent {
    check_config(config(), of, steps)
}

#[test]
fn nothing_is_changed_before_policy_and_devices_are_both_known() {
    let tap = [(7, "tap1")];
    check(
        &["apply"],
        vec![
            (seen(link(7, "tap1")), &[]),
            (read("web:tap1"), &[]),
            (listed(&tap), &["apply 0.1 [web=tap1@7] closed []"]),
        ],
    );
    check(
        &["apply"],
        vec![
            (listed(&tap), &[]),
            (read("web:tap1"), &["apply 0.1 [web=tap1@7] closed []"]),
        ],
    );
}

#[test]
fn changes_during_an_apply_make_one_more() {
    check(
        &["apply"],
        vec![
            (listed(&[]), &[]),
            (read("web:tap1"), &["apply 0.1 [] closed []"]),
            (seen(link(7, "tap1")), &[]),
            (read("web:tap1 db:tap2"), &[]),
            (seen(link(8, "tap2")), &[]),
            (applied(), &["apply 0.2 [db=tap2@8 web=tap1@7] closed []"]),
            (applied(), &[]),
        ],
    );
}

#[test]
fn what_is_equal_is_not_applied_again() {
    check(
        &["apply", "save", "say NothingToApply"],
        vec![
            (listed(&[(7, "tap1")]), &[]),
            (read("web:tap1"), &["apply 0.1 [web=tap1@7] closed []"]),
            (applied(), &["save 0.1"]),
            (read("web:tap1"), &[]),
            (
                read("web:tap1 # a remark"),
                &["say NothingToApply", "save 0.2"],
            ),
            (seen(link(9, "eth0")), &[]),
            (seen(link(7, "tap1")), &[]),
        ],
    );
}

#[test]
fn an_invalid_edit_changes_nothing() {
    let agent = check(
        &["apply", "exit", "say PolicyInvalid"],
        vec![
            (listed(&[(7, "tap1")]), &[]),
            (read("web:tap1"), &["apply 0.1 [web=tap1@7] closed []"]),
            (applied(), &[]),
            (invalid(), &["say PolicyInvalid"]),
        ],
    );
    assert_eq!(agent.snapshot(MS).policy_errors, ["line 1: no"]);
}

#[test]
fn a_corrected_edit_clears_the_error() {
    let agent = check(
        &["apply", "say PolicyRead"],
        vec![
            (listed(&[]), &[]),
            (
                read("web:tap1"),
                &["say PolicyRead", "apply 0.1 [] closed []"],
            ),
            (applied(), &[]),
            (invalid(), &[]),
            (read("web:tap1"), &[]),
        ],
    );
    assert!(agent.snapshot(MS).policy_errors.is_empty());
}

#[test]
fn without_a_usable_policy_the_cached_one_is_enforced_loudly() {
    check(
        &["apply", "exit", "say EnforcingCached", "save"],
        vec![
            (cached("web:tap1"), &[]),
            (listed(&[(7, "tap1")]), &[]),
            (
                invalid(),
                &["say EnforcingCached", "apply 0.41 [web=tap1@7] closed []"],
            ),
            (applied(), &[]),
            (
                read("web:tap1 db:tap2"),
                &["apply 0.42 [web=tap1@7] closed []"],
            ),
            (applied(), &["save 0.42"]),
        ],
    );
}

#[test]
fn without_any_policy_the_agent_ends_and_has_changed_nothing() {
    check(
        &["apply", "exit", "detach"],
        vec![
            (listed(&[(7, "tap1")]), &[]),
            (invalid(), &["exit NoPolicy([\"line 1: no\"])"]),
            (read("web:tap1"), &[]),
        ],
    );
}

#[test]
fn revisions_go_on_where_the_last_agent_stopped() {
    for (text, expected) in [
        ("web:tap1", "apply 0.41 [] closed []"),
        ("web:tap2", "apply 0.42 [] closed []"),
    ] {
        check(
            &["apply"],
            vec![
                (cached("web:tap1"), &[]),
                (listed(&[]), &[]),
                (read(text), &[expected]),
            ],
        );
    }
}

#[test]
fn a_device_that_lost_its_port_is_closed_until_it_is_gone() {
    check(
        &["apply", "ours", "say Device"],
        vec![
            (listed(&[(7, "tap1")]), &[]),
            (read("web:tap1"), &["apply 0.1 [web=tap1@7] closed []"]),
            (applied(), &["say DeviceArmed", "ours [tap1]"]),
            (read("db:tap2"), &["apply 0.2 [] closed [tap1]"]),
            (applied(), &["say DevicesClosed [tap1]"]),
            (read("db:tap2 web:tap3"), &["apply 0.3 [] closed [tap1]"]),
            (applied(), &[]),
            (
                Event::DeviceGone { ifindex: 7 },
                &["say DeviceGone", "apply 0.3 [] closed []"],
            ),
            (applied(), &["ours []"]),
        ],
    );
}

#[test]
fn an_agent_that_comes_back_closes_what_is_ours_and_no_port_s() {
    let device = |ifindex, name: &str| link(ifindex, name).device();
    let config = Config {
        ours: BTreeSet::from([device(7, "tap1"), device(8, "tap2"), device(9, "tap3")]),
        ..config()
    };
    check_config(
        config,
        &["apply"],
        vec![
            // 8 means another device by now, and 9 is gone.
            (listed(&[(7, "tap1"), (8, "eth5")]), &[]),
            (read("db:tap9"), &["apply 0.1 [] closed [tap1]"]),
        ],
    );
}

#[test]
fn a_renamed_device_stays_ours() {
    check(
        &["apply"],
        vec![
            (listed(&[(7, "tap1")]), &[]),
            (read("web:tap1"), &["apply 0.1 [web=tap1@7] closed []"]),
            (applied(), &[]),
            (seen(link(7, "tapX")), &["apply 0.1 [] closed [tapX]"]),
        ],
    );
}

#[test]
fn a_device_made_again_under_its_name_is_another() {
    check(
        &["apply", "guard"],
        vec![
            (listed(&[(7, "tap1")]), &[]),
            (read("web:tap1"), &["apply 0.1 [web=tap1@7] closed []"]),
            (applied(), &["guard {\"tap1\"} armed {7}"]),
            (
                Event::DeviceGone { ifindex: 7 },
                &["apply 0.1 [] closed []"],
            ),
            (seen(link(8, "tap1")), &[]),
            (
                applied(),
                &[
                    "guard {\"tap1\"} armed {}",
                    "apply 0.1 [web=tap1@8] closed []",
                ],
            ),
            (applied(), &["guard {\"tap1\"} armed {8}"]),
        ],
    );
}

#[test]
fn a_lost_message_is_made_good_by_the_next_list() {
    check(
        &["apply"],
        vec![
            (listed(&[(7, "tap1"), (8, "tap2")]), &[]),
            (
                read("web:tap1 db:tap2"),
                &["apply 0.1 [db=tap2@8 web=tap1@7] closed []"],
            ),
            (applied(), &[]),
            (
                listed(&[(8, "tap2"), (9, "tap1")]),
                &["apply 0.1 [db=tap2@8 web=tap1@9] closed []"],
            ),
            (applied(), &[]),
            (listed(&[(8, "tap2"), (9, "tap1")]), &[]),
        ],
    );
}

#[test]
fn a_failed_apply_is_tried_again_ever_more_slowly() {
    check(
        &["apply", "timer Retry", "say ApplyFailed"],
        vec![
            (listed(&[]), &[]),
            (read("web:tap1"), &["apply 0.1 [] closed []"]),
            (failed(), &["timer Retry 500", "say ApplyFailed"]),
            (Event::TimerFired(Timer::Retry), &["apply 0.1 [] closed []"]),
            (failed(), &["timer Retry 1000"]),
            (Event::TimerFired(Timer::Retry), &["apply 0.1 [] closed []"]),
            (applied(), &[]),
            (Event::TimerFired(Timer::Retry), &["apply 0.1 [] closed []"]),
        ],
    );
}

#[test]
fn a_refused_port_is_named_once_and_tried_again() {
    let again = || Event::TimerFired(Timer::Retry);
    let agent = check(
        &["apply", "timer Retry", "say Refused"],
        vec![
            (listed(&[]), &[]),
            (read("web:tap1 db:tap2"), &["apply 0.1 [] closed []"]),
            (
                refused("web:large"),
                &["say Refused [web:large]", "timer Retry 500"],
            ),
            (again(), &["apply 0.1 [] closed []"]),
            (refused("web:large"), &["timer Retry 1000"]),
            (again(), &["apply 0.1 [] closed []"]),
            (
                refused("web:large db:large"),
                &["say Refused [db:large]", "timer Retry 2000"],
            ),
            (again(), &["apply 0.1 [] closed []"]),
            (
                refused("web:room db:large"),
                &["say Refused [web:room]", "timer Retry 4000"],
            ),
        ],
    );
    let snapshot = agent.snapshot(MS);
    let expected = PortState::Refused("room".to_owned());
    assert_eq!(snapshot.ports[&PortId::new("web")].state, expected);
}

#[test]
fn drift_is_repaired_and_a_program_before_ours_is_only_told() {
    let detached = Drift::Detached {
        port: PortId::new("web"),
        device: "tap1".to_owned(),
    };
    let not_first = Drift::NotFirst {
        port: PortId::new("web"),
        device: "tap1".to_owned(),
        first: "another".to_owned(),
    };
    check(
        &["apply", "audit", "timer Audit", "say Drifted"],
        vec![
            (listed(&[(7, "tap1")]), &[]),
            (read("web:tap1"), &["apply 0.1 [web=tap1@7] closed []"]),
            (applied(), &["timer Audit 10000"]),
            (Event::TimerFired(Timer::Audit), &["audit"]),
            (
                Event::Audited(vec![detached]),
                &[
                    "timer Audit 10000",
                    "say Drifted",
                    "apply 0.1 [web=tap1@7] closed []",
                ],
            ),
            (Event::TimerFired(Timer::Audit), &["timer Audit 10000"]),
            (applied(), &[]),
            (
                Event::Audited(vec![not_first.clone()]),
                &["timer Audit 10000", "say Drifted"],
            ),
            (Event::Audited(vec![not_first]), &["timer Audit 10000"]),
        ],
    );
}

#[test]
fn the_plane_is_tended_once_it_enforces_something() {
    check(
        &["tend", "timer Tend"],
        vec![
            (listed(&[]), &[]),
            (read("web:tap1"), &[]),
            (applied(), &["timer Tend 1000"]),
            (Event::TimerFired(Timer::Tend), &["tend", "timer Tend 1000"]),
        ],
    );
}

#[test]
fn a_first_enforcement_that_nobody_confirms_is_rolled_back() {
    let confirm = Config {
        confirm: Some(5_000 * MS),
        ..config()
    };
    let of = ["apply", "timer Confirm", "detach", "exit", "save", "mark"];
    check_config(
        confirm.clone(),
        &of,
        vec![
            (listed(&[]), &[]),
            (read("web:tap1"), &["apply 0.1 [] closed []"]),
            (applied(), &["timer Confirm 5000"]),
            (read("web:tap2"), &["apply 0.2 [] closed []"]),
            (applied(), &[]),
            (
                Event::TimerFired(Timer::Confirm),
                &["detach", "exit RolledBack"],
            ),
        ],
    );
    check_config(
        confirm,
        &of,
        vec![
            (listed(&[]), &[]),
            (read("web:tap1"), &["apply 0.1 [] closed []"]),
            (applied(), &["timer Confirm 5000"]),
            (Event::Confirmed, &["mark confirmed", "save 0.1"]),
            (Event::TimerFired(Timer::Confirm), &[]),
        ],
    );
}

#[test]
fn stopping_leaves_enforcement_and_only_detach_removes_it() {
    for (event, expected) in [
        (Event::StopAsked, &["exit Stopped"][..]),
        (Event::DetachAsked, &["detach", "exit Detached"]),
    ] {
        check(
            &["detach", "exit"],
            vec![
                (listed(&[]), &[]),
                (read("web:tap1"), &[]),
                (applied(), &[]),
                (event, expected),
            ],
        );
    }
}

#[test]
fn the_time_from_up_to_armed_is_measured() {
    let agent = check(
        &["apply"],
        vec![
            (listed(&[]), &[]),
            (read("web:tap1"), &["apply 0.1 [] closed []"]),
            (applied(), &[]),
            (seen(link(7, "tap1")), &["apply 0.1 [web=tap1@7] closed []"]),
            (Event::AuditFailed("busy".to_owned()), &[]),
            (applied(), &[]),
        ],
    );
    let times = agent.snapshot(MS).arming;
    assert_eq!((times.devices, times.p50, times.p99), (1, 5 * MS, 5 * MS));
}

/// What a history ends in must not depend on the way there.
fn final_target(events: &[Event]) -> Option<Arc<Target>> {
    let mut agent = Agent::new(config());
    let mut last = None;
    let mut waiting: Vec<Event> = events.to_vec();
    waiting.reverse();
    while let Some(event) = waiting.pop() {
        let step = agent.step(MS, event);
        for effect in step {
            // The plane's answer comes at some later time: here after the next event.
            let at = waiting.len().saturating_sub(1);
            if let Effect::Apply(target) = effect {
                last = Some(target);
                waiting.insert(at, applied());
            } else if effect == Effect::ReadInterfaceIds {
                waiting.insert(at, ids("tap4=a"));
            }
        }
    }
    last
}

proptest! {
    #[test]
    fn the_final_target_depends_on_the_final_state(
        noise in prop::collection::vec(0..9u8, 0..30),
        order in Just(vec![0usize, 1, 2, 3]).prop_shuffle(),
    ) {
        let history = noise.iter().map(|kind| match kind {
            0 => read("web:tap1"),
            1 => read("web:tap1 db:tap2 app:tap3"),
            2 => seen(link(7, "tap1")),
            3 => Event::DeviceGone { ifindex: 7 },
            4 => listed(&[(5, "eth0"), (9, "tap3")]),
            5 => ids("tap1=a tap4=b"),
            6 => seen(link(10, "tap4")),
            7 => read("web:@a db:@b"),
            _ => seen(link(8, "tap2")),
        });
        let settled = [
            read("web:tap1 db:tap2 app:@a # last"),
            listed(&[(7, "tap1"), (8, "tap2"), (10, "tap4")]),
            seen(link(7, "tap1")),
            read("web:tap1 db:tap2 app:@a # last"),
        ];
        // The list comes last among the links: it replaces what was there.
        let mut events: Vec<Event> = vec![listed(&[])];
        events.extend(history);
        events.extend(order.iter().map(|i| settled[*i].clone()));
        events.push(settled[1].clone());
        events.push(Event::TimerFired(Timer::Tend));
        let target = final_target(&events).expect("something is applied");
        let devices: Vec<String> = target
            .devices
            .iter()
            .map(|(p, d)| format!("{p}={}@{}", d.name, d.ifindex))
            .collect();
        prop_assert_eq!(devices, ["app=tap4@10", "db=tap2@8", "web=tap1@7"]);
        // tap3 may have been ours, and is gone with the last list.
        prop_assert!(target.closed.is_empty());
        let ports: Vec<&str> = target.view.ports.keys().map(PortId::as_str).collect();
        prop_assert_eq!(ports, ["app", "db", "web"]);
    }
}
