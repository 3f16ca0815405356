//! Flows of ports that go to other hosts, and of ports that come.

use super::served::{at, changed, replaced};
use super::*;
use model::Moving;

/// The port `web` as it was, but on its way to another host.
fn leaves(commit: u64) -> Event {
    let mut port = policy("web:tap1").inventory.ports[&PortId::new("web")].clone();
    port.moving = Some(Box::new(Moving {
        to: HostId::new("elsewhere"),
        device: DeviceMatch::Mac,
    }));
    Event::InventoryChanged(InventoryChange {
        revision: at(commit),
        ports: [(PortId::new("web"), Some(port))].into(),
        ..InventoryChange::default()
    })
}

fn arrives(port: &str) -> Event {
    Event::FlowsArrived(PortId::new(port), PortFlows::default())
}

/// A port under its policy, and what is said of it when that has been applied.
fn enforced(then: Vec<(Event, &[&str])>) {
    let mut steps: Vec<(Event, &[&str])> = vec![
        (listed(&[(7, "tap1")]), &[]),
        (
            replaced(1, "web:tap1"),
            &["apply 7.1 [web=tap1@7] closed []"],
        ),
        (applied(), &[]),
    ];
    steps.extend(then);
    check(&["apply", "export", "import", "say FlowsDropped"], steps);
}

#[test]
fn o11_flows_leave_before_the_plane_forgets_them() {
    let gone: &[&str] = &["export web", "apply 7.2 [] closed []"];
    enforced(vec![
        (leaves(2), &[]),
        (Event::DeviceGone { ifindex: 7 }, gone),
        (applied(), &[]),
        (changed(3, "-web:"), &["apply 7.3 [] closed []"]),
    ]);
    let activated: &[&str] = &["export web", "apply 7.3 [] closed [tap1]"];
    enforced(vec![(leaves(2), &[]), (changed(3, "-web:"), activated)]);
}

#[test]
fn o11_flows_of_a_port_that_goes_nowhere_go_nowhere() {
    enforced(vec![(changed(2, "-web:"), &["apply 7.2 [] closed [tap1]"])]);
    enforced(vec![
        (leaves(2), &[]),
        (changed(3, "web:tap1"), &[]),
        (changed(4, "-web:"), &["apply 7.4 [] closed [tap1]"]),
    ]);
}

#[test]
fn o11_flows_come_in_under_the_policy_of_their_port() {
    enforced(vec![
        (changed(2, "db:tap2"), &["apply 7.2 [web=tap1@7] closed []"]),
        (arrives("db"), &[]),
        (arrives("web"), &[]),
        (applied(), &["import db", "import web"]),
        (arrives("db"), &["import db"]),
        (arrives("other"), &["say FlowsDropped"]),
    ]);
}
