//! What the switch would do about a packet, by its own trace of it: nothing is counted, learned or tracked.
//!
//! ```text
//! frame -> its fields, as the switch sees them
//!       -> trace of the gate's first half -- decided there, or
//!       -> what the tracker would say, by its entries -> trace of the second half
//! ```
//! The gate of what the port sends begins in table 0, that of what it gets at the hand-over point. The other
//! gate that a packet may meet on this host is not asked.

use super::{Enforced, OvsPlane};
use crate::registers::Flag;
use crate::render::Attached;
use crate::seen::{self, Seen, State};
use crate::tables::Table;
use crate::trace::{End, Registers, Trace, readable};
use dataplane::Outcome;
use model::{Direction, PassReason, PortId, RuleRef, Verdict};
use ovsdb::ControlError;
use std::io;
use wire::{Body, Fragment, Packet};

/// It can't be asked, and why.
type Unasked = String;

struct Question<'a> {
    known: &'a Enforced,
    bridge: &'a str,
    port: &'a Attached,
    direction: Direction,
    frame: &'a [u8],
}

impl OvsPlane {
    /// Of this frame of a port. `Err` inside: it can't be asked that, and why.
    pub fn dry_run(
        &mut self,
        port: &PortId,
        direction: Direction,
        frame: &[u8],
    ) -> io::Result<Result<Outcome, Unasked>> {
        let Some(known) = self.in_force.take() else {
            return Ok(Err("not asked: the policy in force is not known".to_owned()));
        };
        let mut boards = known.placement.boards.iter();
        let found = boards.find_map(|(bridge, board)| Some((bridge, board.ports.get(port)?)));
        let outcome = match found {
            None => Ok(Err(format!(
                "not asked: port {port} is on no bridge of Open vSwitch"
            ))),
            Some((bridge, port)) => self.ask(&Question {
                known: &known,
                bridge,
                port,
                direction,
                frame,
            }),
        };
        self.in_force = Some(known);
        outcome
    }

    fn ask(&mut self, question: &Question<'_>) -> io::Result<Result<Outcome, Unasked>> {
        let hex: String = question.frame.iter().map(|b| format!("{b:02x}")).collect();
        let in_port = match question.direction {
            Direction::Egress => question.port.of_port.to_string(),
            // Anybody but a port.
            Direction::Ingress => "LOCAL".to_owned(),
        };
        let in_port = format!("in_port={in_port}");
        // With no action at all it would go through the tables, and leave there what a packet leaves.
        let read = self.trace_packet_out(question, &[&in_port, &hex], "set_field:0->reg0")?;
        let fields = match read {
            Ok(read) => readable(&read.flow),
            Err(why) => return Ok(Err(why)),
        };
        let actions = match question.direction {
            Direction::Egress => "resubmit(,0)".to_owned(),
            Direction::Ingress => {
                let place = u32::from(question.port.of_port) << 16;
                let hand_over = Table::HandOver.number();
                format!("set_field:{place:#x}/0xffff0000->reg4,resubmit(,{hand_over})")
            }
        };
        let first = match self.trace_packet_out(question, &[&fields], &actions)? {
            Ok(first) => first,
            Err(why) => return Ok(Err(why)),
        };
        // So that it is asked about the frame, and not about what else its words may mean.
        if readable(&first.flow) != fields {
            return Ok(Err(
                "not asked: the switch can't be told all of it".to_owned()
            ));
        }
        match first.end(question.direction) {
            End::Asked { fields } => self.ask_on(question, &fields),
            end => Ok(outcome(question, end, None)),
        }
    }

    /// The half of the gate that comes once the tracker has been asked.
    fn ask_on(
        &mut self,
        question: &Question<'_>,
        fields: &str,
    ) -> io::Result<Result<Outcome, Unasked>> {
        let packet = match packet(question.frame) {
            Ok(packet) => packet,
            Err(why) => return Ok(Err(why)),
        };
        let connections = self.connections(Some(question.port.number))?;
        let seen = seen::seen(&packet, &connections);
        let fields = format!("{},{fields}", seen.fields());
        let actions = format!("resubmit(,{})", Table::State.number());
        let second = self.trace_packet_out(question, &[&fields], &actions)?;
        Ok(
            second
                .and_then(|second| outcome(question, second.end(question.direction), Some(&seen))),
        )
    }

    fn trace_packet_out(
        &mut self,
        question: &Question<'_>,
        what: &[&str],
        actions: &str,
    ) -> io::Result<Result<Trace, Unasked>> {
        let mut arguments = vec![question.bridge];
        arguments.extend(what);
        arguments.push(actions);
        let control = self.control()?;
        let text = match control.call("ofproto/trace-packet-out", &arguments) {
            Ok(text) => text,
            // In words about fields: it has no better ones.
            Err(ControlError::Refused { text, .. }) => {
                return Ok(Err(format!("not asked: the switch can't trace it: {text}")));
            }
            Err(error) => {
                self.control = None;
                return Err(io::Error::other(error));
            }
        };
        let trace = Trace::parse(&text).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "a trace that can't be read")
        })?;
        Ok(match &trace.trouble {
            None => Ok(trace),
            Some(why) => Err(format!("the switch gives up on it {why}")),
        })
    }
}

/// As the tracker reads it, once it can.
fn packet(frame: &[u8]) -> Result<Packet<'_>, Unasked> {
    let unreadable = || "not asked: what the tracker makes of such a frame isn't known".to_owned();
    let Ok(frame) = wire::parse(frame) else {
        return Err(unreadable());
    };
    match frame.body {
        Body::Ip(Ok(packet)) => match packet.fragment {
            Fragment::Whole => Ok(packet),
            Fragment::First { .. } | Fragment::Later { .. } => {
                Err("it keeps a fragment until its datagram is whole, and judges that".to_owned())
            }
        },
        Body::Ip(Err(_)) | Body::Arp(_) | Body::Tagged | Body::Other => Err(unreadable()),
    }
}

/// `seen`: what the tracker says, if it was asked.
fn outcome(question: &Question<'_>, end: End, seen: Option<&Seen>) -> Result<Outcome, Unasked> {
    let found = seen.is_some_and(|seen| match seen.state {
        State::Established | State::Related => true,
        State::New | State::Invalid => false,
    });
    let outcome = |verdict, said: Registers| Outcome {
        verdict,
        flow_found: found,
        live: said.has(Flag::LIVE),
        elidable: said.has(Flag::ELIDED),
    };
    match end {
        End::Passed { from, said } => {
            let reason = passed(question, from, said)?;
            Ok(outcome(Verdict::Pass(reason), said))
        }
        End::Dropped(reason) => Ok(outcome(Verdict::Drop(reason), Registers::default())),
        End::Asked { .. } => Err("the tracker is asked twice: it is not our gate".to_owned()),
        End::Elsewhere(table) => Err(format!(
            "what is loaded is not our gate any more: it ends in table {table}"
        )),
    }
}

fn passed(question: &Question<'_>, from: Table, said: Registers) -> Result<PassReason, Unasked> {
    if !question.port.view.port_security {
        return Ok(PassReason::Unguarded);
    }
    let rule = || -> Result<RuleRef, Unasked> {
        let mut rules = question.known.names.rules.iter();
        let rule = rules.find(|(_, number)| **number == said.rule);
        let (rule, _) = rule.ok_or_else(|| {
            format!(
                "it passes by rule number {:#x}, which the policy doesn't have",
                said.rule
            )
        })?;
        Ok(rule.clone())
    };
    // What passes without the rules, the guard lets pass.
    Ok(match (from == Table::Verdict, said.has(Flag::LIVE)) {
        (true, true) => PassReason::Live(rule()?),
        (true, false) => PassReason::Rule(rule()?),
        (false, _) => PassReason::Infrastructure,
    })
}
