//! A packet behind the guard: the stages conntrack, identity and policy.

use crate::connections::{
    DatagramName, Flow, LaterFragment, flags, flow_key, is_plain_ack, is_syn,
};
use crate::rules::{Permission, Question, Remote};
use crate::tracker::{Seen, userspace};
use crate::{Judgement, Notes, Policy, Port, Surroundings, guard, limit};
use model::{
    Direction, DropReason, Elision, Family, FlowKey, FlowState, Flows, PassReason, RuleRef, Stage,
};
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use wire::{
    Fragment, Frame, L4, PROTOCOL_DCCP, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_SCTP,
    PROTOCOL_UDPLITE, Packet, TcpFlags,
};

impl Port {
    /// Stages conntrack, identity and policy.
    pub(crate) fn judge(
        &mut self,
        direction: Direction,
        frame: &Frame<'_>,
        packet: &Packet<'_>,
        around: &Surroundings<'_>,
        notes: &mut Notes,
    ) -> Judgement {
        if let Fragment::Later { offset, .. } = packet.fragment {
            return self.judge_later_fragment(direction, packet, offset, around, notes);
        }
        let policy = Arc::clone(&self.policy);
        let question = Question::about(packet, direction);
        let permission = policy.rules.permits(&question);
        notes.say(Stage::Identity, || policy.identities(question.remote));
        notes.say(Stage::Policy, || match permission {
            Some(Permission { rule, .. }) => format!("static: {rule}"),
            None => "static: no rule".to_owned(),
        });
        let by_rule = permission.map(|p| PassReason::Rule(p.rule.clone()));
        let for_many = guard::is_for_many(&policy.guard, frame, packet);
        // To a kernel's tracker, what many receive is of no flow.
        let untracked = for_many && around.capabilities.flows == Flows::Netfilter;
        let Some(key) = flow_key(packet, direction) else {
            return match by_rule {
                Some(rule) => Ok(rule),
                None if untracked => Err(DropReason::NoRule),
                None if is_error(packet) => self.judge_error(direction, packet, around, notes),
                None => Err(DropReason::NoRule),
            };
        };
        if policy.rules.elide(policy.elision, &key) {
            notes.say(Stage::Conntrack, || "elidable".to_owned());
            if !around.capabilities.own_flows() {
                // To track it is allowed: should it need to be some day, it may be known.
                self.connections.tracker.doubt(&key, around.now);
            }
            return by_rule.ok_or(DropReason::NoRule);
        }

        let timeouts = &around.settings.timeouts;
        let doubtful = self
            .connections
            .is_doubtful_flow(&key, around.now, timeouts);
        // What is known for certain is that a rule permits it, if one does.
        let own_flows = around.capabilities.own_flows();
        notes.leave_if(doubtful && (own_flows || by_rule.is_none()));
        if doubtful && !own_flows {
            self.connections.tracker.doubt(&key, around.now);
        }
        let flags = flags(packet);
        let may_start = permission.is_some_and(|p| p.stateful)
            && !around.other_gate_refuses
            && !for_many
            && self.can_be_first(&key, flags, direction, around, notes);
        if !own_flows && !untracked {
            let by_rule = permission.map(|p| p.rule.clone());
            let judgement =
                self.judge_by_tracker(direction, packet, &key, by_rule, may_start, around, notes);
            // Of a kernel's entries that are past their time it is open whether they are gone, until all that
            // expires is looked through.
            if around.capabilities.flows == Flows::Userspace {
                self.connections.note_entry(&key, timeouts);
            }
            return judgement;
        }
        let flow = self.connections.flow(&key);
        let first = flow.and_then(|f| self.permits_first(&key, f.original));
        notes.say(Stage::Conntrack, || describe(flow.as_ref(), first.as_ref()));
        let Some(flow) = flow else {
            if may_start && by_rule.is_some() {
                self.start(key, direction, around)?;
            }
            return by_rule.ok_or(DropReason::NoRule);
        };

        let room = self.connections.established() < limit(around.settings.budgets.flows_per_port);
        let is_reply = direction != flow.original;
        let is_new_attempt = flags.is_some_and(|f| f.has(TcpFlags::SYN) && !f.has(TcpFlags::ACK));
        if let Some(rule) = &first
            && is_reply
            && (!is_new_attempt || flow.state == FlowState::Opening)
        {
            self.connections
                .keep_alive(&key, flags, direction, around.now, room, timeouts);
            return Ok(PassReason::Live(rule.clone()));
        }
        let by_rule = by_rule.ok_or(DropReason::NoRule)?;
        let is_over = matches!(flow.state, FlowState::Closing | FlowState::Reset);
        if flags.is_some_and(is_syn) && may_start && (is_over || first.is_none()) {
            self.start(key, direction, around)?;
        } else if !is_reply {
            self.connections
                .keep_alive(&key, flags, direction, around.now, room, timeouts);
        }
        Ok(by_rule)
    }

    /// The same, of a plane whose flows are entries of a tracker.
    #[expect(
        clippy::too_many_arguments,
        reason = "what the stages before have found out"
    )]
    fn judge_by_tracker(
        &mut self,
        direction: Direction,
        packet: &Packet<'_>,
        key: &FlowKey,
        by_rule: Option<RuleRef>,
        may_start: bool,
        around: &Surroundings<'_>,
        notes: &mut Notes,
    ) -> Judgement {
        let denied = || Err(DropReason::NoRule);
        let verdict = by_rule
            .clone()
            .map_or_else(denied, |rule| Ok(PassReason::Rule(rule)));
        let whose = around.capabilities.flows;
        if !is_trackable(key, whose) {
            return verdict;
        }
        if around.may_be_lost {
            // Whether the tracker ever sees it, nobody knows.
            self.connections.tracker.doubt(key, around.now);
            let entry = self.connections.tracker.entry(key);
            let reply = entry.filter(|entry| entry.started && entry.original != direction);
            let live = reply.and_then(|entry| self.permits_first(key, entry.original));
            return live.map_or(verdict, |rule| Ok(PassReason::Live(rule)));
        }
        let now = around.now;
        let tracker = &mut self.connections.tracker;
        // Of SCTP Linux wants to see sound chunks, GRE it reads more closely.
        let reads_closely =
            whose == Flows::Netfilter && matches!(key.protocol, PROTOCOL_SCTP | PROTOCOL_GRE);
        // What an address sends to itself has no direction.
        if reads_closely || key.local == key.remote {
            tracker.doubt(key, now);
            notes.leave_if(verdict.is_err());
        }
        let seen = tracker.see(key, packet, direction, now);
        notes.say(Stage::Conntrack, || format!("the tracker: {seen:?}"));
        let confirms = match whose {
            Flows::Own | Flows::Netfilter => by_rule.is_some() && !around.other_gate_refuses,
            Flows::Userspace => may_start,
        };
        match seen {
            Seen::First if confirms => {
                tracker.confirm(key, packet, direction, now);
                if may_start {
                    tracker.start(key);
                }
            }
            Seen::Original(entry) if may_start && !entry.started => tracker.start(key),
            Seen::Reply(entry) if entry.started => {
                if let Some(rule) = self.permits_first(key, entry.original) {
                    return Ok(PassReason::Live(rule));
                }
            }
            Seen::First | Seen::Original(_) | Seen::Reply(_) | Seen::Attempt | Seen::Invalid => {}
        }
        verdict
    }

    /// The rule that permits a flow's first packet now; `None` of a dead flow.
    fn permits_first(&self, key: &FlowKey, original: Direction) -> Option<RuleRef> {
        let question = Question::about_flow(key, original);
        let permission = self.policy.rules.permits(&question);
        permission.map(|p| p.rule.clone())
    }

    /// Is it a packet that starts a flow?
    fn can_be_first(
        &self,
        key: &FlowKey,
        flags: Option<TcpFlags>,
        direction: Direction,
        around: &Surroundings<'_>,
        notes: &mut Notes,
    ) -> bool {
        let timeouts = &around.settings.timeouts;
        match (flags, key.icmp) {
            (Some(flags), _) if is_plain_ack(flags) => {
                notes.leave_if(self.connections.is_doubtful_hold(around.now, timeouts));
                !self.connections.is_held(around.now, timeouts)
            }
            (Some(flags), _) => is_syn(flags),
            (None, Some(request)) => request.by_local == (direction == Direction::Egress),
            (None, None) => true,
        }
    }

    /// Starts a flow, or starts it anew, if the budgets allow.
    fn start(
        &mut self,
        key: FlowKey,
        direction: Direction,
        around: &Surroundings<'_>,
    ) -> Result<(), DropReason> {
        let budgets = &around.settings.budgets;
        let port_has_room = self.connections.established() < limit(budgets.flows_per_port);
        let host_has_room =
            around.host_has_room || self.connections.len() < limit(budgets.reserve_per_port);
        if !port_has_room || !host_has_room || budgets.half_open_per_port == 0 {
            return Err(DropReason::FlowBudget);
        }
        let timeouts = &around.settings.timeouts;
        let places = budgets.half_open_per_port;
        self.connections
            .start(key, direction, around.now, places, timeouts);
        Ok(())
    }

    /// An ICMP error that no rule permits.
    fn judge_error(
        &mut self,
        direction: Direction,
        packet: &Packet<'_>,
        around: &Surroundings<'_>,
        notes: &mut Notes,
    ) -> Judgement {
        let timeouts = &around.settings.timeouts;
        let quoted = packet.payload.get(8..).unwrap_or_default();
        let quoted = wire::parse_quoted(quoted, Family::of(packet.src));
        // Who can't look into the quote relies on who reads it less strictly.
        notes.leave_if(quoted.is_none() && !around.capabilities.quote_match);
        let quoted = quoted
            .filter(|quoted| quoted.src == packet.dst)
            .ok_or(DropReason::NoRule)?;
        let key = flow_key(&quoted, direction.opposite()).ok_or(DropReason::NoRule)?;
        notes.leave_if(
            self.connections
                .is_doubtful_flow(&key, around.now, timeouts),
        );
        match around.capabilities.flows {
            Flows::Own => {}
            Flows::Netfilter => return self.judge_error_by_netfilter(&key, notes),
            Flows::Userspace => {
                return self.judge_error_in_userspace(packet, &quoted, &key, notes);
            }
        }
        let flow = self.connections.flow(&key);
        let first = flow.and_then(|f| self.permits_first(&key, f.original));
        notes.say(Stage::Conntrack, || {
            format!(
                "quotes {key:?}: {}",
                describe(flow.as_ref(), first.as_ref())
            )
        });
        if let Some(first) = first {
            return Ok(PassReason::Live(first));
        }
        let rules = &self.policy.rules;
        let by_stateful = Direction::BOTH.into_iter().any(|direction| {
            let permission = rules.permits(&Question::about_flow(&key, direction));
            permission.is_some_and(|p| p.stateful)
        });
        let elided = self.policy.elision == Elision::On
            && rules.elide(Elision::On, &key)
            && self.policy.guard.receives_at(key.local);
        if !elided || !by_stateful {
            return Err(DropReason::NoRule);
        }
        let per_second = around.settings.budgets.elided_errors_per_s;
        match self
            .connections
            .count_error(direction, around.now, per_second)
        {
            true => Ok(PassReason::ElidedError),
            false => Err(DropReason::ErrorRate),
        }
    }

    /// The tracker relates it to an entry, or doesn't; whether that is still live it can't be asked.
    fn judge_error_by_netfilter(&self, key: &FlowKey, notes: &mut Notes) -> Judgement {
        let entry = self.connections.tracker.entry(key);
        notes.say(Stage::Conntrack, || format!("quotes {key:?}: {entry:?}"));
        let entry = entry.filter(|entry| entry.started && is_trackable(key, Flows::Netfilter));
        let entry = entry.ok_or(DropReason::NoRule)?;
        Ok(match self.permits_first(key, entry.original) {
            Some(rule) => PassReason::Live(rule),
            None => PassReason::ElidedError,
        })
    }

    /// What it relates to an entry shows the tuple of the entry's first packet, so it can be asked.
    fn judge_error_in_userspace(
        &self,
        packet: &Packet<'_>,
        quoted: &Packet<'_>,
        key: &FlowKey,
        notes: &mut Notes,
    ) -> Judgement {
        let entry = self.connections.tracker.entry(key);
        notes.say(Stage::Conntrack, || format!("quotes {key:?}: {entry:?}"));
        // What an address sends to itself has no direction.
        notes.leave_if(key.local == key.remote);
        let related = userspace::reads(packet) && userspace::reads_quote(quoted);
        let entry = entry.filter(|entry| related && entry.started);
        let first = entry.and_then(|entry| self.permits_first(key, entry.original));
        notes.leave_if(first.is_some() && userspace::may_be_short_quote(quoted));
        first.map_or(Err(DropReason::NoRule), |rule| Ok(PassReason::Live(rule)))
    }

    fn judge_later_fragment(
        &self,
        direction: Direction,
        packet: &Packet<'_>,
        offset: u32,
        around: &Surroundings<'_>,
        notes: &mut Notes,
    ) -> Judgement {
        let orphan = Err(DropReason::OrphanFragment);
        let Some(name) = DatagramName::of(packet, direction) else {
            return orphan;
        };
        notes.leave_if(self.connections.is_doubtful_datagram(&name, around.now));
        let remembered = self.connections.later_fragment(&name, offset, around.now);
        notes.say(Stage::Conntrack, || {
            format!("later fragment: {remembered:?}")
        });
        // Who reassembles passes it when all are there.
        let reassembles = !around.capabilities.fragment_verdict;
        match remembered {
            LaterFragment::Fits => Ok(PassReason::Fragment),
            LaterFragment::Overlaps => {
                notes.leave_if(reassembles);
                Err(DropReason::BadFragment)
            }
            LaterFragment::Orphan => {
                notes.leave_if(reassembles);
                orphan
            }
        }
    }

    /// Later fragments get the verdict of the first.
    pub(crate) fn note_first_fragment(
        &mut self,
        direction: Direction,
        packet: &Packet<'_>,
        passed: bool,
        now: Duration,
    ) {
        if let Fragment::First { end, .. } = packet.fragment
            && let Some(name) = DatagramName::of(packet, direction)
        {
            match passed {
                true => self.connections.remember(name, end, now),
                false => self.connections.forget(&name),
            }
        }
    }
}

const PROTOCOL_GRE: u8 = 47;
/// In IPv6: no next header.
const PROTOCOL_NONE: u8 = 59;
const NO_PROTOCOL: u8 = 0;

/// Linux tracks neither DCCP nor UDP-Lite by ports any more, and ICMP in its own family alone. So does Open
/// vSwitch, which doesn't track SCTP by ports either: one entry would be a reply's for all of them. Where the
/// protocol of a first packet is 0, it tells nothing of that.
fn is_trackable(key: &FlowKey, whose: Flows) -> bool {
    let foreign_icmp =
        key.icmp.is_none() && matches!(key.protocol, PROTOCOL_ICMP | PROTOCOL_ICMPV6);
    let nothing_in_it = key.protocol == PROTOCOL_NONE && key.remote.is_ipv6();
    let ported = matches!(key.protocol, PROTOCOL_DCCP | PROTOCOL_UDPLITE)
        || (matches!(key.protocol, PROTOCOL_SCTP | NO_PROTOCOL) && whose == Flows::Userspace);
    !foreign_icmp && !nothing_in_it && !ported
}

/// Types 3, 11, 12 in IPv4, 1 to 4 in IPv6: neither redirect nor source quench.
fn is_error(packet: &Packet<'_>) -> bool {
    match (packet.l4, packet.src) {
        (L4::Icmp { icmp_type, .. }, IpAddr::V4(_)) => matches!(icmp_type, 3 | 11 | 12),
        (L4::Icmp { icmp_type, .. }, IpAddr::V6(_)) => matches!(icmp_type, 1..=4),
        _ => false,
    }
}

impl Policy {
    /// Which remotes of the port's rules an address is.
    fn identities(&self, address: IpAddr) -> String {
        let mut text = format!("{address} is");
        let mut said = Vec::new();
        for rule in &self.rules.0 {
            let name = match &rule.remote {
                Remote::Any => "any".to_owned(),
                Remote::Prefix(prefix) => format!("in {prefix}"),
                Remote::Group(id, _) => format!("in group {id}"),
                Remote::AddressGroup(id, _) => format!("in address group {id}"),
            };
            if rule.remote.contains(address) && !said.contains(&name) {
                let separator = if said.is_empty() { ' ' } else { ',' };
                let _ = write!(text, "{separator}{name}");
                said.push(name);
            }
        }
        if said.is_empty() {
            text.push_str(" nobody that the rules name");
        }
        text
    }
}

fn describe(flow: Option<&Flow>, first: Option<&RuleRef>) -> String {
    match (flow, first) {
        (None, _) => "no flow".to_owned(),
        (Some(flow), Some(rule)) => {
            format!(
                "{:?} flow since {}, permitted by {rule}",
                flow.state, flow.original
            )
        }
        (Some(flow), None) => format!(
            "{:?} flow since {}, dead: no rule permits its first packet now",
            flow.state, flow.original
        ),
    }
}
