//! Runs a scenario against whoever judges.

use super::{Action, Change, OUTSIDER, Scenario, Step, here};
use crate::{Agreement, Answer, Judge, Open};
use model::{Direction, DropReason, Inventory, MacAddr, PassReason, Peer, PortId, Verdict};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use wire::words::{Words, describe};

/// Who is asked: anything that judges, or a plane that only shows whether a packet arrives.
pub trait Subject {
    fn name(&self) -> String;

    fn reset(&mut self);

    fn apply(&mut self, inventory: &Inventory);

    fn advance(&mut self, by: Duration);

    fn send(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> Seen;

    /// The port's VM goes on at another host, as [`Judge::migrate`] says; or why there is no such thing.
    fn migrate(&mut self, _port: &PortId, _inventory: &Inventory) -> Result<(), &'static str> {
        Err("it is not asked to migrate")
    }

    fn trace(&self) -> Vec<String>;
}

/// What was seen of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Judged(Answer),
    /// It arrived, or it didn't; nobody said why.
    Arrived(bool),
    /// The same, of a plane that lacks something, and what the contract says of such a plane.
    Lacking {
        arrived: bool,
        expected: Answer,
    },
    /// This subject can't be shown such a packet, for this reason.
    Unshown(&'static str),
}

/// A step that went otherwise than its scenario says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub place: String,
    pub scenario: String,
    pub says: String,
    pub step: String,
    pub subject: String,
    pub seen: String,
    /// The packet as the parser sees it.
    pub packet: String,
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} ({})", self.place, self.scenario, self.says)?;
        writeln!(f, "  step    {}", self.step)?;
        writeln!(f, "  packet  {}", self.packet)?;
        write!(f, "  {:7} {}", self.subject, self.seen)?;
        for line in &self.trace {
            write!(f, "\n          {line}")?;
        }
        Ok(())
    }
}

/// What was done of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    pub packets: usize,
    /// Packets that the subject could not be shown, by the reason.
    pub unshown: BTreeMap<&'static str, usize>,
}

const OPEN: &str = "the contract leaves it open to a plane that lacks something";
const OTHERWISE: &str = "the contract says otherwise of a plane that lacks something, as was seen";

/// From the scenario's first policy to its last step, or to the first that fails.
pub fn run(scenario: &Scenario, subject: &mut dyn Subject) -> Result<Ran, Box<Failure>> {
    let mut ran = Ran::default();
    subject.reset();
    let mut inventory = scenario.policies[&scenario.begin].clone();
    subject.apply(&inventory);
    for step in &scenario.steps {
        match &step.action {
            Action::Wait(time) => subject.advance(*time),
            Action::Migrate(port) => {
                if let Err(why) = subject.migrate(port, &inventory) {
                    // What comes then lives by what has moved.
                    let rest = scenario.packets() - ran.packets;
                    ran.packets += rest;
                    *ran.unshown.entry(why).or_default() += rest;
                    return Ok(ran);
                }
            }
            Action::Change(change) => {
                if let Err(what) = make(change, &mut inventory, scenario) {
                    return Err(failure(scenario, step, subject, what, String::new()));
                }
                inventory.revision.commit += 1;
                subject.apply(&inventory);
            }
            Action::Packet {
                port,
                direction,
                packets,
                outcome,
            } => {
                for words in packets {
                    let begin = &scenario.policies[&scenario.begin];
                    let Some(frame) = frame([&inventory, begin], port, *direction, words) else {
                        let what = format!("there is no port {port}");
                        return Err(failure(scenario, step, subject, what, String::new()));
                    };
                    let seen = subject.send(port, *direction, &frame);
                    ran.packets += 1;
                    if let Seen::Unshown(why) = &seen {
                        *ran.unshown.entry(why).or_default() += 1;
                    }
                    let wrong = match &seen {
                        Seen::Judged(answer) => {
                            answer.open != Open::No || !outcome.allows(&answer.verdict)
                        }
                        Seen::Arrived(arrived) => *arrived != outcome.passes(),
                        Seen::Lacking { arrived, expected } => {
                            let passes = matches!(expected.verdict, Verdict::Pass(_));
                            let seen = arrival(*arrived);
                            let agreement = expected.compare(&seen, false);
                            match agreement {
                                Agreement::Allowed | Agreement::Unknown => {
                                    *ran.unshown.entry(OPEN).or_default() += 1;
                                }
                                Agreement::Same if passes != outcome.passes() => {
                                    *ran.unshown.entry(OTHERWISE).or_default() += 1;
                                }
                                Agreement::Same | Agreement::Wrong => {}
                            }
                            agreement == Agreement::Wrong
                        }
                        Seen::Unshown(_) => false,
                    };
                    if wrong {
                        let packet = describe(&frame);
                        return Err(failure(
                            scenario,
                            step,
                            subject,
                            describe_seen(&seen),
                            packet,
                        ));
                    }
                }
            }
        }
    }
    Ok(ran)
}

/// What is known of a packet that arrived, or didn't.
pub(crate) fn arrival(arrived: bool) -> Verdict {
    match arrived {
        true => Verdict::Pass(PassReason::Unguarded),
        false => Verdict::Drop(DropReason::NotReady),
    }
}

fn make(change: &Change, inventory: &mut Inventory, scenario: &Scenario) -> Result<(), String> {
    let port = |inventory: &mut Inventory, id: &PortId, with: &mut dyn FnMut(&mut model::Port)| {
        let port = inventory.ports.get_mut(id);
        port.map(with)
            .ok_or_else(|| format!("there is no port {id}"))
    };
    match change {
        Change::Policy(name) => {
            let revision = inventory.revision;
            *inventory = scenario.policies[name].clone();
            inventory.revision = revision;
            Ok(())
        }
        Change::Join(id, group) => port(inventory, id, &mut |p| {
            p.groups.insert(group.clone());
        }),
        Change::Leave(id, group) => port(inventory, id, &mut |p| {
            p.groups.remove(group);
        }),
        Change::RemoveRule(rule) => {
            let group = inventory.groups.get_mut(&rule.group);
            let gone = group.and_then(|group| group.rules.remove(&rule.rule));
            gone.map(|_| ())
                .ok_or_else(|| format!("there is no rule {rule}"))
        }
        Change::Family(rule, family) => {
            let group = inventory.groups.get_mut(&rule.group);
            let found = group.and_then(|group| group.rules.get_mut(&rule.rule));
            let found = found.filter(|rule| rule.family != *family);
            found
                .map(|rule| rule.family = *family)
                .ok_or_else(|| format!("there is no rule {rule} of another family"))
        }
        Change::Forget(group) => {
            let known = inventory.groups.remove(group).is_some();
            let named = inventory.groups.values().any(|other| {
                let mut peers = other.rules.values().map(|rule| &rule.peer);
                peers.any(|peer| *peer == Peer::Group(group.clone()))
            });
            let member = inventory.ports.values().any(|p| p.groups.contains(group));
            match known && (named || member) {
                true => Ok(()),
                false => Err(format!("nothing names a group {group} that is there")),
            }
        }
        Change::Unplug(id) => {
            let gone = inventory.ports.remove(id);
            gone.map(|_| ())
                .ok_or_else(|| format!("there is no port {id}"))
        }
        Change::Elision(mode) => settings(inventory, |settings| settings.elision = *mode),
        Change::Narrowing(mode) => settings(inventory, |settings| settings.narrowing = *mode),
    }
}

fn settings(
    inventory: &mut Inventory,
    with: impl FnOnce(&mut model::Settings),
) -> Result<(), String> {
    let host = inventory.hosts.get_mut(&here());
    host.map(|host| with(&mut host.settings))
        .ok_or_else(|| format!("the policy has no host {}", here()))
}

/// With the MACs of the ports whose addresses the packet has. A port that is gone, but was there in the
/// beginning, is looked up there.
fn frame(
    inventories: [&Inventory; 2],
    port: &PortId,
    direction: Direction,
    words: &Words,
) -> Option<Vec<u8>> {
    let own = inventories.iter().find_map(|i| i.ports.get(port))?;
    let owner = |address: Option<IpAddr>| -> MacAddr {
        let mut there = inventories[0].ports.values();
        let owner = there.find(|other| {
            let has = address.is_some_and(|a| other.fixed_addresses.contains(&a));
            has && other.network == own.network
        });
        owner.map_or(OUTSIDER, |owner| owner.mac)
    };
    let (src, dst) = words.ends().unzip();
    let frame = match direction {
        Direction::Egress => words.frame(own.mac, owner(dst)),
        Direction::Ingress => words.frame(owner(src), own.mac),
    };
    Some(frame)
}

fn describe_seen(seen: &Seen) -> String {
    match seen {
        Seen::Judged(answer) => {
            let verdict = match &answer.verdict {
                Verdict::Pass(reason) => format!("pass {reason:?}"),
                Verdict::Drop(reason) => format!("drop {reason}"),
            };
            let open = match answer.open {
                Open::No => "",
                Open::MayDrop => ", or dropped",
                Open::Either => ", left open by the contract",
            };
            format!("{verdict}{open}")
        }
        Seen::Arrived(true) => "it arrived".to_owned(),
        Seen::Arrived(false) => "it did not arrive".to_owned(),
        Seen::Lacking { arrived, expected } => {
            let expected = describe_seen(&Seen::Judged(expected.clone()));
            let seen = describe_seen(&Seen::Arrived(*arrived));
            format!("{seen}; by what the plane lacks: {expected}")
        }
        Seen::Unshown(why) => format!("not shown: {why}"),
    }
}

fn failure(
    scenario: &Scenario,
    step: &Step,
    subject: &dyn Subject,
    seen: String,
    packet: String,
) -> Box<Failure> {
    Box::new(Failure {
        place: format!("{}:{}", scenario.file, step.line),
        scenario: scenario.name.clone(),
        says: scenario.says.clone(),
        step: step.text.clone(),
        subject: subject.name(),
        seen,
        packet,
        trace: subject.trace(),
    })
}

impl<J: Judge + ?Sized> Subject for J {
    fn name(&self) -> String {
        Judge::name(self).to_owned()
    }

    fn reset(&mut self) {
        Judge::reset(self);
    }

    fn apply(&mut self, inventory: &Inventory) {
        Judge::apply(self, inventory);
    }

    fn advance(&mut self, by: Duration) {
        Judge::advance(self, by);
    }

    fn send(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> Seen {
        Seen::Judged(self.judge(port, direction, frame))
    }

    fn migrate(&mut self, port: &PortId, inventory: &Inventory) -> Result<(), &'static str> {
        Judge::migrate(self, port, inventory)
    }

    fn trace(&self) -> Vec<String> {
        self.last_trace()
    }
}
