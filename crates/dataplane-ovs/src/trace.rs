//! What `ofproto/trace` answers, read.
//!
//! A trace that is given a packet learns MACs and carries out `learn`, as the packet would; of one that is
//! given fields nothing stays. So the switch reads a frame's fields by an action that does nothing, and traces
//! them in another call. It writes some fields in words that it doesn't read; here they are put right.
//! Where the tracker is asked a trace goes on with what the tracker might say, without the connection's own
//! fields, so only what comes before that is looked at.
//!
//! Source: ovs-vswitchd(8), ofproto/trace. Tried with Open vSwitch 3.1.

use crate::registers::Flag;
use crate::tables::Table;
use model::{Direction, DropReason};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The fields that it began with.
    pub(crate) flow: String,
    /// The flows that were met, in their order.
    pub(crate) steps: Vec<Step>,
    /// The fields as they are where the tracker is asked.
    pub(crate) tracked: Option<String>,
    /// The switch gave up.
    pub(crate) trouble: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) table: u8,
    /// `None`: no flow was met.
    pub(crate) cookie: Option<u64>,
    pub(crate) actions: Vec<String>,
}

/// How a gate ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// From this table of the gate.
    Passed {
        from: Table,
        said: Registers,
    },
    Dropped(DropReason),
    /// The tracker is asked; what is known by then.
    Asked {
        fields: String,
    },
    /// Nothing of ours decides it: where it ends.
    Elsewhere(u8),
}

/// What is carried from table to table, as far as an answer needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    flags: u32,
    pub(crate) rule: u32,
    reason: u32,
}

impl Trace {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut flows = text.lines().filter_map(|line| line.strip_prefix("Flow: "));
        let mut trace = Trace {
            flow: flows.next()?.to_owned(),
            steps: Vec::new(),
            tracked: flows.next().map(str::to_owned),
            trouble: None,
        };
        let lines = text.lines().skip_while(|line| !line.starts_with("bridge("));
        for line in lines {
            if line.starts_with("====") {
                break;
            }
            if let Some(why) = line.strip_prefix("Translation failed ") {
                trace.trouble = Some(why.to_owned());
            }
            match (step(line), trace.steps.last_mut()) {
                (Some(step), _) => trace.steps.push(step),
                (None, Some(step)) if line.starts_with(' ') => {
                    step.actions.push(line.trim().to_owned());
                }
                (None, _) => {}
            }
        }
        Some(trace)
    }

    /// What becomes of the packet at this gate.
    pub(crate) fn end(&self, gate: Direction) -> End {
        let mut said = Registers::of(&self.flow);
        let mut from = None;
        for step in &self.steps {
            let Some(table) = Table::from_number(step.table) else {
                return End::Elsewhere(step.table);
            };
            match (table, gate) {
                (Table::Drop, _) => {
                    let reason = u8::try_from(said.reason).ok();
                    return match reason.and_then(DropReason::from_number) {
                        Some(reason) => End::Dropped(reason),
                        None => End::Elsewhere(step.table),
                    };
                }
                (Table::Passed, _) | (Table::Destination, Direction::Egress) => {
                    let from = from.unwrap_or(Table::Classify);
                    return End::Passed { from, said };
                }
                // Straight out of the device of a port that nothing is asked at.
                (Table::Enter, Direction::Ingress)
                    if step.actions.iter().any(|a| a.starts_with("output:")) =>
                {
                    return End::Passed { from: table, said };
                }
                (table, _) if table > Table::Passed => {}
                (_, _) => from = Some(table),
            }
            step.actions.iter().for_each(|action| said.act(action));
        }
        match &self.tracked {
            Some(fields) => End::Asked {
                fields: readable(fields),
            },
            None => End::Elsewhere(self.steps.last().map_or(0, |step| step.table)),
        }
    }
}

impl Registers {
    fn of(flow: &str) -> Self {
        let mut registers = Self::default();
        for (register, value) in flow.split(',').filter_map(|field| field.split_once('=')) {
            registers.set(register, value, "");
        }
        registers
    }

    fn act(&mut self, action: &str) {
        let set = action.strip_prefix("set_field:");
        if let Some((value, register)) = set.and_then(|set| set.split_once("->")) {
            let (value, mask) = value.split_once('/').unwrap_or((value, ""));
            self.set(register, value, mask);
        }
    }

    fn set(&mut self, register: &str, value: &str, mask: &str) {
        let place = match register {
            "reg1" => &mut self.flags,
            "reg2" => &mut self.rule,
            "reg7" => &mut self.reason,
            _ => return,
        };
        let mask = number(mask).unwrap_or(u32::MAX);
        if let Some(value) = number(value) {
            *place = *place & !mask | value & mask;
        }
    }

    pub(crate) fn has(self, flag: Flag) -> bool {
        u128::from(self.flags) & flag.bit() != 0
    }
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `200. priority 0, cookie 0x706f720000000000`, or `200. No match.`
fn step(line: &str) -> Option<Step> {
    let (table, rest) = line.trim_start().split_once(". ")?;
    let table = table.parse().ok()?;
    let cookie = rest.split_once(", cookie 0x");
    let cookie = cookie.and_then(|(_, cookie)| u64::from_str_radix(cookie.trim(), 16).ok());
    Some(Step {
        table,
        cookie: match rest.starts_with("No match") {
            true => None,
            false => Some(cookie.unwrap_or(0)),
        },
        actions: Vec::new(),
    })
}

/// Fields as the switch writes them, in words that it reads.
pub(crate) fn readable(fields: &str) -> String {
    let fields: Vec<&str> = fields.split(',').collect();
    let has = |wanted: &[&str]| fields.iter().any(|field| wanted.contains(field));
    let l4 = match () {
        () if has(&["tcp", "tcp6"]) => "tcp",
        () if has(&["udp", "udp6"]) => "udp",
        () if has(&["sctp", "sctp6"]) => "sctp",
        () => "",
    };
    let whole = has(&["nw_frag=no"]);
    let readable = fields.iter().filter_map(|field| {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        Some(match name {
            // What is in no frame, or stands there for that.
            "recirc_id" | "vlan_tci1" | "eth" | "ct_state" => return None,
            // Where it shows ports that aren't any, flows don't see them.
            "tp_src" | "tp_dst" | "tcp_flags" if l4.is_empty() || !whole => return None,
            "tp_src" => format!("{l4}_src={value}"),
            "tp_dst" => format!("{l4}_dst={value}"),
            "icmp_type" | "icmp_code" if !whole => return None,
            "nd_sll" if has(&["icmp_type=136"]) => return None,
            "nd_tll" if has(&["icmp_type=135"]) => return None,
            "nd_reserved" | "nd_options_type" => return None,
            "icmp_type" if has(&["icmp6"]) => format!("icmpv6_type={value}"),
            "icmp_code" if has(&["icmp6"]) => format!("icmpv6_code={value}"),
            _ => (*field).to_owned(),
        })
    });
    readable.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
