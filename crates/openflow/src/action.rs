//! What a flow does with a packet.

use crate::{Field, Value};

/// Part of a field: bits `start .. start + count` counted from the least significant one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits {
    pub field: Field,
    pub start: u16,
    pub count: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    Number(u32),
    /// Back to where it came from, which a number doesn't do.
    InPort,
    Table,
    Normal,
    Flood,
    All,
    Controller,
    Local,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    Output(Port),
    OutputReg(Bits),
    /// `Action::set` and `Action::set_bits` make it. The mask of the whole field is `Field::all_ones`.
    Set {
        to: Field,
        value: Value,
        mask: Value,
    },
    /// As many bits to as from.
    Move {
        from: Bits,
        to: Bits,
    },
    /// Onto a stack that the packet has while it is translated.
    Push(Bits),
    Pop(Bits),
    Resubmit {
        /// `None`: as if it came from where it came from.
        port: Option<u16>,
        table: u8,
    },
    /// Wants a match on IPv4 or IPv6.
    Ct {
        commit: bool,
        force: bool,
        zone: Zone,
        table: Option<u8>,
        exec: Vec<Action>,
    },
    CtClear,
    Clone(Vec<Action>),
    Learn(Learn),
    CheckPktLarger {
        bytes: u16,
        /// One bit.
        to: Bits,
    },
    PopVlan,
    PushVlan(u16),
    DecTtl,
    /// One that this crate has no word for: all of its bytes.
    Other(Vec<u8>),
    /// An instruction other than to apply actions or to go to a table: all of its bytes. Only at the end
    /// of a flow's actions.
    Instruction(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Zone {
    Number(u16),
    Field(Bits),
}

/// Adds a flow, or refreshes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Learn {
    pub table: u8,
    pub priority: u16,
    pub cookie: u64,
    pub idle_timeout_s: u16,
    pub hard_timeout_s: u16,
    pub fin_idle_timeout_s: u16,
    pub fin_hard_timeout_s: u16,
    /// Removing the flow that learns removes what it learned.
    pub delete_learned: bool,
    pub specs: Vec<Spec>,
}

/// What the learned flow matches and does. A source has as many bits as where it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spec {
    Match { to: Bits, from: Source },
    Load { to: Bits, from: Source },
    Output(Bits),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    Field(Bits),
    Value(Value),
}

impl Bits {
    pub const fn new(field: Field, start: u16, count: u16) -> Self {
        Self {
            field,
            start,
            count,
        }
    }

    pub fn all(field: Field) -> Self {
        Self::new(field, 0, field.bits())
    }

    pub fn one(field: Field, bit: u16) -> Self {
        Self::new(field, bit, 1)
    }
}

impl Port {
    pub fn number(self) -> u32 {
        match self {
            Port::Number(number) => number,
            Port::InPort => 0xffff_fff8,
            Port::Table => 0xffff_fff9,
            Port::Normal => 0xffff_fffa,
            Port::Flood => 0xffff_fffb,
            Port::All => 0xffff_fffc,
            Port::Controller => 0xffff_fffd,
            Port::Local => 0xffff_fffe,
        }
    }

    pub fn from_number(number: u32) -> Self {
        match number {
            0xffff_fff8 => Port::InPort,
            0xffff_fff9 => Port::Table,
            0xffff_fffa => Port::Normal,
            0xffff_fffb => Port::Flood,
            0xffff_fffc => Port::All,
            0xffff_fffd => Port::Controller,
            0xffff_fffe => Port::Local,
            number => Port::Number(number),
        }
    }
}

impl Action {
    /// All of the field.
    pub fn set(to: Field, value: u128) -> Self {
        Self::Set {
            to,
            value: value.into(),
            mask: to.all_ones(),
        }
    }

    pub fn set_bits(to: Bits, value: u128) -> Self {
        let mask = Value::ones(to.start, to.count);
        Self::Set {
            to: to.field,
            value: Value::from(value).shifted_left(to.start).and(mask),
            mask,
        }
    }
}
