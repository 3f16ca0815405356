//! What holds for any one judge by itself, whatever the contract says about a packet: each function
//! answers with the first case in which it doesn't.
//!
//! Knows nothing of: the oracle. So these catch what oracle and plane get wrong alike.

use crate::generate::{self, Event, Sent, Trace};
use crate::judge::Judge;
use crate::selftest::words;
use model::{Budgets, Elision, Inventory, Narrowing, Settings, Verdict};
use std::sync::Arc;

const PACKETS: usize = 300;

/// Policies are applied one after another, with no packet between; afterwards only the last counts.
/// But a hold may be left behind where flows are cut, so they are kept here.
pub fn only_the_last_policy_counts(judge: &mut dyn Judge, seed: u64) -> Result<(), String> {
    let mut trace = generate::trace(seed, PACKETS);
    change_settings(&mut trace, |settings| settings.narrowing = Narrowing::Keep);
    let policies: Vec<Event> = trace
        .events
        .iter()
        .filter(|e| is_policy(e))
        .cloned()
        .collect();
    let (Some(last), Some((_, rest))) = (policies.last(), trace.events.split_first()) else {
        return Ok(());
    };
    let after = rest.iter().filter(|e| !is_policy(e)).cloned();
    let at_once: Vec<Event> = [last.clone()].into_iter().chain(after.clone()).collect();
    let by_steps: Vec<Event> = policies.iter().cloned().chain(after).collect();
    same_verdicts(judge, seed, &at_once, &by_steps)
}

/// A policy that is applied once more, at any time, changes nothing.
pub fn doubled_policies_change_nothing(judge: &mut dyn Judge, seed: u64) -> Result<(), String> {
    let trace = generate::trace(seed, PACKETS);
    let mut dice = generate::Dice::new(seed);
    let mut current = None;
    let mut doubled = Vec::new();
    for event in &trace.events {
        doubled.push(event.clone());
        if is_policy(event) {
            current = Some(event.clone());
        }
        if dice.chance(5) {
            doubled.extend(current.clone());
        }
    }
    same_verdicts(judge, seed, &trace.events, &doubled)
}

/// At one policy, and with budgets that suffice, what is tracked matters for ICMP errors alone; and
/// `strict` doesn't even differ in these.
pub fn elision_shows_in_errors_alone(judge: &mut dyn Judge, seed: u64) -> Result<(), String> {
    let mut trace = generate::trace(seed, PACKETS);
    let mut first = true;
    trace
        .events
        .retain(|e| !is_policy(e) || std::mem::take(&mut first));
    let mut run = |mode| {
        change_settings(&mut trace, |settings| {
            settings.elision = mode;
            settings.budgets = Budgets::default();
        });
        verdicts(judge, &trace.events)
    };
    let off = run(Elision::Off);
    let strict = run(Elision::Strict);
    let on = run(Elision::On);
    for ((sent, off), (strict, on)) in off.iter().zip(strict.iter().zip(&on)) {
        let ((_, strict), (_, on)) = (strict, on);
        if strict.passes() != off.passes() {
            return Err(differs(seed, sent, ["off", "strict"], [off, strict]));
        }
        if on.passes() != off.passes() && !is_icmp(&sent.frame) {
            return Err(differs(seed, sent, ["off", "on"], [off, on]));
        }
    }
    Ok(())
}

fn same_verdicts(
    judge: &mut dyn Judge,
    seed: u64,
    one: &[Event],
    other: &[Event],
) -> Result<(), String> {
    let (one, other) = (verdicts(judge, one), verdicts(judge, other));
    for ((sent, one), (_, other)) in one.iter().zip(&other) {
        if one != other {
            return Err(differs(seed, sent, ["one way", "the other"], [one, other]));
        }
    }
    Ok(())
}

fn verdicts(judge: &mut dyn Judge, events: &[Event]) -> Vec<(Sent, Verdict)> {
    judge.reset();
    let mut verdicts = Vec::new();
    for event in events {
        match event {
            Event::Policy(inventory) => judge.apply(inventory),
            Event::Advance(by) => judge.advance(*by),
            Event::Packet(sent) => {
                let answer = judge.judge(&sent.port, sent.direction, &sent.frame);
                verdicts.push((sent.clone(), answer.verdict));
            }
        }
    }
    verdicts
}

fn is_policy(event: &Event) -> bool {
    matches!(event, Event::Policy(_))
}

fn change_settings(trace: &mut Trace, change: impl Fn(&mut Settings)) {
    for event in &mut trace.events {
        if let Event::Policy(inventory) = event {
            let mut changed = Inventory::clone(inventory);
            changed
                .hosts
                .values_mut()
                .for_each(|h| change(&mut h.settings));
            *inventory = Arc::new(changed);
        }
    }
}

/// An ICMP message of either family, or a later fragment of one.
fn is_icmp(frame: &[u8]) -> bool {
    let packet = match wire::parse(frame).map(|f| f.body) {
        Ok(wire::Body::Ip(Ok(packet))) => packet,
        Ok(_) | Err(_) => return false,
    };
    matches!(packet.protocol, wire::PROTOCOL_ICMP | wire::PROTOCOL_ICMPV6)
        // What a later IPv6 fragment holds may stand behind more headers.
        || (packet.l4 == wire::L4::Absent && packet.src.is_ipv6())
}

fn differs(seed: u64, sent: &Sent, names: [&str; 2], verdicts: [&Verdict; 2]) -> String {
    let packet = wire::words::describe(&sent.frame);
    let [a, b] = verdicts.map(words);
    format!(
        "seed {seed:#x}, {} at {}: {packet}: {}: {a}, {}: {b}",
        sent.direction, sent.port, names[0], names[1]
    )
}
