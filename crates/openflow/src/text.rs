//! Flows as ovs-ofctl writes them, for logs and errors. ovs-ofctl reads them, too, as far as it knows the words.

use std::fmt::{self, Display, Formatter};
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::field::Notation;
use crate::{
    Action, Bits, Change, Field, Flow, Learn, Masked, Match, Port, Source, Spec, Value, Zone,
};

impl Display for Flow {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "cookie={:#x},table={},", self.cookie, self.table)?;
        for (name, seconds) in [
            ("idle_timeout", self.idle_timeout_s),
            ("hard_timeout", self.hard_timeout_s),
        ] {
            if seconds != 0 {
                write!(f, "{name}={seconds},")?;
            }
        }
        write!(f, "priority={}", self.priority)?;
        if !self.matching.is_empty() {
            write!(f, ",{}", self.matching)?;
        }
        f.write_str(" actions=")?;
        let mut actions: Vec<_> = self.actions.iter().map(Action::to_string).collect();
        actions.extend(self.goto.map(|table| format!("goto_table:{table}")));
        if actions.is_empty() {
            return f.write_str("drop");
        }
        f.write_str(&actions.join(","))
    }
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Change::Add(flow) => write!(f, "add {flow}"),
            Change::Delete {
                table,
                priority,
                matching,
            } => {
                write!(
                    f,
                    "delete_strict table={table},priority={priority},{matching}"
                )
            }
            Change::DeleteAll {
                cookie,
                mask,
                table,
            } => {
                write!(f, "delete cookie={cookie:#x}/{mask:#x}")?;
                table.map_or(Ok(()), |table| write!(f, ",table={table}"))
            }
        }
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let protocol = protocol(self);
        let mut words: Vec<_> = protocol
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        let said = protocol.map_or(&[][..], |(_, said)| said);
        let fields = self.iter().filter(|(field, _)| !said.contains(field));
        words.extend(
            fields.map(|(field, masked)| format!("{}={}", field.name(), Worded { field, masked })),
        );
        f.write_str(&words.join(","))
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Action::Output(Port::Number(number)) => write!(f, "output:{number}"),
            Action::Output(port) => write!(f, "{port}"),
            Action::OutputReg(bits) => write!(f, "output:{bits}"),
            Action::Set { to, value, mask } => {
                let masked = Masked {
                    value: *value,
                    mask: *mask,
                };
                write!(
                    f,
                    "set_field:{}->{}",
                    Worded { field: *to, masked },
                    to.name()
                )
            }
            Action::Move { from, to } => write!(f, "move:{from}->{to}"),
            Action::Push(from) => write!(f, "push:{from}"),
            Action::Pop(to) => write!(f, "pop:{to}"),
            Action::Resubmit { port: None, table } => write!(f, "resubmit(,{table})"),
            Action::Resubmit {
                port: Some(port),
                table,
            } => write!(f, "resubmit({port},{table})"),
            Action::Ct {
                commit,
                force,
                zone,
                table,
                exec,
            } => {
                let mut words = Vec::new();
                words.extend(commit.then(|| "commit".to_owned()));
                words.extend(force.then(|| "force".to_owned()));
                words.extend(table.map(|table| format!("table={table}")));
                words.push(match zone {
                    Zone::Number(number) => format!("zone={number}"),
                    Zone::Field(bits) => format!("zone={bits}"),
                });
                words.extend((!exec.is_empty()).then(|| format!("exec({})", list(exec))));
                write!(f, "ct({})", words.join(","))
            }
            Action::CtClear => f.write_str("ct_clear"),
            Action::Clone(actions) => write!(f, "clone({})", list(actions)),
            Action::Learn(learn) => write!(f, "{learn}"),
            Action::CheckPktLarger { bytes, to } => write!(f, "check_pkt_larger({bytes})->{to}"),
            Action::PopVlan => f.write_str("pop_vlan"),
            Action::PushVlan(kind) => write!(f, "push_vlan:{kind:#06x}"),
            Action::DecTtl => f.write_str("dec_ttl"),
            Action::Other(bytes) => write!(f, "action:{}", Hex(bytes)),
            Action::Instruction(bytes) => write!(f, "instruction:{}", Hex(bytes)),
        }
    }
}

impl Display for Learn {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "learn(table={},priority={}", self.table, self.priority)?;
        for (name, seconds) in [
            ("idle_timeout", self.idle_timeout_s),
            ("hard_timeout", self.hard_timeout_s),
            ("fin_idle_timeout", self.fin_idle_timeout_s),
            ("fin_hard_timeout", self.fin_hard_timeout_s),
        ] {
            if seconds != 0 {
                write!(f, ",{name}={seconds}")?;
            }
        }
        if self.delete_learned {
            f.write_str(",delete_learned")?;
        }
        write!(f, ",cookie={:#x}", self.cookie)?;
        for spec in &self.specs {
            match spec {
                Spec::Match {
                    to,
                    from: Source::Field(from),
                } if from == to => write!(f, ",{to}")?,
                Spec::Match { to, from } => write!(f, ",{to}={from}")?,
                Spec::Load { to, from } => write!(f, ",load:{from}->{to}")?,
                Spec::Output(bits) => write!(f, ",output:{bits}")?,
            }
        }
        f.write_str(")")
    }
}

impl Display for Source {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Source::Field(bits) => bits.fmt(f),
            Source::Value(value) => value.fmt(f),
        }
    }
}

impl Display for Bits {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        // Its other name has only 16 bits.
        let name = if self.field == Field::InPort {
            "in_port_oxm".to_owned()
        } else {
            self.field.name()
        };
        let row = self.field.row();
        let whole = self.count == row.bits && row.bits == 8 * u16::from(row.bytes);
        if self.start == 0 && whole {
            return write!(f, "{name}[]");
        }
        match self.count {
            1 => write!(f, "{name}[{}]", self.start),
            count => {
                let end = (u32::from(self.start) + u32::from(count)).saturating_sub(1);
                write!(f, "{name}[{}..{end}]", self.start)
            }
        }
    }
}

impl Display for Port {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Port::Number(number) => number.fmt(f),
            Port::InPort => f.write_str("IN_PORT"),
            Port::Table => f.write_str("TABLE"),
            Port::Normal => f.write_str("NORMAL"),
            Port::Flood => f.write_str("FLOOD"),
            Port::All => f.write_str("ALL"),
            Port::Controller => f.write_str("CONTROLLER"),
            Port::Local => f.write_str("LOCAL"),
        }
    }
}

/// A value and its mask, in the field's own notation.
struct Worded {
    field: Field,
    masked: Masked,
}

impl Display for Worded {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let Masked { value, mask } = self.masked;
        let exact = mask == self.field.all_ones();
        if let Some(words) = words(self.field, value, mask) {
            return f.write_str(&words);
        }
        f.write_str(&number(self.field, value))?;
        if exact {
            return Ok(());
        }
        write!(f, "/{}", number(self.field, mask))
    }
}

/// Of value and mask together, where there are such.
fn words(field: Field, value: Value, mask: Value) -> Option<String> {
    match field.row().notation {
        Notation::CtState => (mask != field.all_ones()).then(|| ct_state(value, mask)),
        Notation::Fragment => fragment(value, mask).map(str::to_owned),
        Notation::TunnelFlags => Some(if value.is_zero() { "-oam" } else { "+oam" }.to_owned()),
        Notation::Number | Notation::Port | Notation::Ipv4 | Notation::Ipv6 | Notation::Mac => None,
    }
}

fn number(field: Field, value: Value) -> String {
    let number = value.u128().unwrap_or_default();
    match field.row().notation {
        Notation::Port => Port::from_number(number as u32).to_string(),
        Notation::Ipv4 => Ipv4Addr::from(number as u32).to_string(),
        Notation::Ipv6 => Ipv6Addr::from(number).to_string(),
        Notation::Mac => {
            let bytes = value.low_bytes(6).iter().map(|b| format!("{b:02x}"));
            bytes.collect::<Vec<_>>().join(":")
        }
        Notation::Number | Notation::CtState | Notation::Fragment | Notation::TunnelFlags => {
            value.to_string()
        }
    }
}

fn ct_state(value: Value, mask: Value) -> String {
    let names = ["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];
    let has = |number: Value, bit| !number.and(Value::ones(bit, 1)).is_zero();
    let asked = (0..).zip(names).filter(|(bit, _)| has(mask, *bit));
    asked
        .map(|(bit, name)| format!("{}{name}", if has(value, bit) { '+' } else { '-' }))
        .collect()
}

/// Bit 0: a fragment; bit 1: not the first.
fn fragment(value: Value, mask: Value) -> Option<&'static str> {
    match (value.u128()?, mask.u128()?) {
        (0, 3) => Some("no"),
        (1, 1) => Some("yes"),
        (1, 3) => Some("first"),
        (3, 3) => Some("later"),
        (0, 2) => Some("not_later"),
        _no_word => None,
    }
}

/// The word for the protocol, and the fields that it stands for.
fn protocol(matching: &Match) -> Option<(&'static str, &'static [Field])> {
    const BOTH: &[Field] = &[Field::EthType, Field::IpProto];
    let number = |field: Field| {
        let masked = matching.get(field)?;
        (masked.mask == field.all_ones()).then_some(masked.value.u128()?)
    };
    Some(match (number(Field::EthType)?, number(Field::IpProto)) {
        (0x0800, Some(1)) => ("icmp", BOTH),
        (0x0800, Some(6)) => ("tcp", BOTH),
        (0x0800, Some(17)) => ("udp", BOTH),
        (0x0800, Some(132)) => ("sctp", BOTH),
        (0x86dd, Some(58)) => ("icmp6", BOTH),
        (0x86dd, Some(6)) => ("tcp6", BOTH),
        (0x86dd, Some(17)) => ("udp6", BOTH),
        (0x86dd, Some(132)) => ("sctp6", BOTH),
        (0x0800, _) => ("ip", &[Field::EthType]),
        (0x86dd, _) => ("ipv6", &[Field::EthType]),
        (0x0806, _) => ("arp", &[Field::EthType]),
        _ => return None,
    })
}

fn list(actions: &[Action]) -> String {
    let words: Vec<_> = actions.iter().map(Action::to_string).collect();
    words.join(",")
}

struct Hex<'a>(&'a [u8]);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

#[cfg(test)]
mod tests;
