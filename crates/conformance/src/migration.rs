//! A port's VM that goes on at another host, as one host can show it: the plane says what it knows of the
//! port, loses the port, gets it anew as a host does that never had it, and is told.
//!
//! Place on the line: around conntrack. Knows nothing of: which plane it is, who carries flows between hosts.

use crate::generate::{self, Dice, Event};
use crate::{Agreement, Judge, OracleJudge};
use dataplane::{DataPlane, PortFlows};
use model::{Budgets, Inventory, PortId};
use policy::HostView;
use std::io::ErrorKind;

/// Whoever holds a plane, and tells it what to enforce.
pub trait HoldsPlane {
    fn plane(&mut self) -> &mut dyn DataPlane;

    fn enforce(&mut self, view: HostView);
}

/// The view is in force, and is at the end. Or why the plane can't.
pub fn migrate(
    holder: &mut dyn HoldsPlane,
    port: &PortId,
    view: HostView,
) -> Result<(), &'static str> {
    let exported = match holder.plane().export_flows(port) {
        Err(error) if error.source.kind() == ErrorKind::Unsupported => {
            return Err("the plane's flows are a tracker's, and stay");
        }
        exported => exported.unwrap_or_else(|error| panic!("{error}")),
    };
    let on_the_way = exported.to_bytes();
    let mut elsewhere = view.clone();
    elsewhere.ports.remove(port);
    holder.enforce(elsewhere);
    holder.enforce(view);
    let arrived = PortFlows::from_bytes(&on_the_way).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(arrived, exported);
    let imported = holder.plane().import_flows(port, &arrived);
    imported.unwrap_or_else(|error| panic!("{error}"));
    Ok(())
}

/// A generated trace in which now and then one of the ports migrates, shown to the oracle and to a judge. The
/// first case in which they differ; else how many packets were compared, up to one that the contract leaves open.
///
/// Budgets suffice: one that was lowered meanwhile keeps what exceeds it, but not at another host.
pub fn compare_migrating(
    oracle: &mut OracleJudge,
    judge: &mut dyn Judge,
    seed: u64,
    packets: usize,
) -> Result<usize, String> {
    let mut dice = Dice::new(seed);
    let mut inventory = Inventory::default();
    let mut compared = 0;
    Judge::reset(oracle);
    judge.reset();
    for event in generate::trace(seed, packets).events {
        match event {
            Event::Policy(policy) => {
                inventory = Inventory::clone(&policy);
                for host in inventory.hosts.values_mut() {
                    host.settings.budgets = Budgets::default();
                }
                Judge::apply(oracle, &inventory);
                judge.apply(&inventory);
            }
            Event::Advance(time) => {
                Judge::advance(oracle, time);
                judge.advance(time);
                let (view, _) = policy::compile(&inventory, &generate::host());
                let ports: Vec<&PortId> = view.ports.keys().collect();
                if !ports.is_empty() {
                    let port = *dice.pick(&ports);
                    Judge::migrate(oracle, port, &inventory)?;
                    judge.migrate(port, &inventory)?;
                }
            }
            Event::Packet(sent) => {
                let expected = oracle.judge(&sent.port, sent.direction, &sent.frame);
                let seen = judge.judge(&sent.port, sent.direction, &sent.frame);
                match expected.compare(&seen.verdict, true) {
                    Agreement::Same | Agreement::Allowed => compared += 1,
                    Agreement::Unknown => return Ok(compared),
                    Agreement::Wrong => {
                        let packet = wire::words::describe(&sent.frame);
                        return Err(format!(
                            "seed {seed}, packet {compared}, {} at {}: {packet}\n  expected {expected:?}\n  seen {seen:?}",
                            sent.direction, sent.port
                        ));
                    }
                }
            }
        }
    }
    Ok(compared)
}
