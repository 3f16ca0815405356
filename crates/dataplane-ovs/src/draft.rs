//! A flow while it is written: a table, a priority, what it asks, what it does.
//!
//! Knows nothing of: what any table is for.

use crate::cookie::Cookie;
use crate::registers::{FLAGS, Flag, Part, REASON};
use crate::tables::Table;
use model::{DropReason, Prefix};
use openflow::{Action, Bits, Field, Flow, Match, Value};
use std::net::IpAddr;

pub(crate) const ETH_IP: u16 = 0x0800;
pub(crate) const ETH_ARP: u16 = 0x0806;
pub(crate) const ETH_RARP: u16 = 0x8035;
pub(crate) const ETH_IPV6: u16 = 0x86dd;

#[derive(Clone, Debug)]
pub(crate) struct Draft {
    table: Table,
    priority: u16,
    cookie: Cookie,
    matching: Match,
    /// What is asked of the flags, and which.
    flags: (u128, u128),
    actions: Vec<Action>,
    goto: Option<Table>,
}

impl Draft {
    pub(crate) fn new(table: Table, priority: u16) -> Self {
        Self {
            table,
            priority,
            cookie: Cookie::Shared,
            matching: Match::new(),
            flags: (0, 0),
            actions: Vec::new(),
            goto: None,
        }
    }

    pub(crate) fn cookie(mut self, cookie: Cookie) -> Self {
        self.cookie = cookie;
        self
    }

    // What it asks.

    pub(crate) fn on(mut self, field: Field, value: impl Into<u128>) -> Self {
        self.matching = self.matching.exact(field, value.into());
        self
    }

    pub(crate) fn on_masked(mut self, field: Field, value: u128, mask: u128) -> Self {
        self.matching = self.matching.masked(field, value, mask);
        self
    }

    pub(crate) fn on_value(mut self, field: Field, value: Value, mask: Value) -> Self {
        self.matching = self.matching.with(field, value, mask);
        self
    }

    pub(crate) fn on_bits(self, bits: Bits, value: u128) -> Self {
        let mask = ones(bits.count.into()) << bits.start;
        self.on_masked(bits.field, value << bits.start, mask)
    }

    /// What others of the same register ask stays.
    pub(crate) fn on_part(self, part: Part, value: u16) -> Self {
        self.on_masked(part.field, part.value(value), part.mask())
    }

    pub(crate) fn with(mut self, flag: Flag) -> Self {
        self.flags.0 |= flag.bit();
        self.flags.1 |= flag.bit();
        self
    }

    pub(crate) fn without(mut self, flag: Flag) -> Self {
        self.flags.1 |= flag.bit();
        self
    }

    pub(crate) fn flag_is(self, flag: Flag, on: bool) -> Self {
        match on {
            true => self.with(flag),
            false => self.without(flag),
        }
    }

    pub(crate) fn eth(self, ethertype: u16) -> Self {
        self.on(Field::EthType, ethertype)
    }

    pub(crate) fn ip(self, protocol: u8) -> Self {
        self.eth(ETH_IP).on(Field::IpProto, protocol)
    }

    pub(crate) fn ip6(self, protocol: u8) -> Self {
        self.eth(ETH_IPV6).on(Field::IpProto, protocol)
    }

    /// An IPv4 or an IPv6 field, by the prefix's family; of the whole family it asks nothing.
    pub(crate) fn on_prefix(self, fields: [Field; 2], prefix: Prefix) -> Self {
        let (field, value, width) = match prefix.network() {
            IpAddr::V4(a) => (fields[0], u128::from(u32::from(a)), 32),
            IpAddr::V6(a) => (fields[1], u128::from(a), 128),
        };
        match prefix.length() {
            0 => self,
            length => self.on_masked(field, value, ones(width) & !ones(width - u32::from(length))),
        }
    }

    // What it does.

    pub(crate) fn act(mut self, action: Action) -> Self {
        self.actions.push(action);
        self
    }

    pub(crate) fn set(self, field: Field, value: impl Into<u128>) -> Self {
        self.act(Action::set(field, value.into()))
    }

    pub(crate) fn set_part(self, part: Part, value: u16) -> Self {
        self.act(Action::set_bits(part.bits(), value.into()))
    }

    pub(crate) fn raise(self, flags: &[Flag]) -> Self {
        self.act(raise(flags))
    }

    pub(crate) fn clear(self, flags: &[Flag]) -> Self {
        self.act(set_masked(FLAGS, 0, bits(flags)))
    }

    pub(crate) fn copy(self, from: Field, to: Field) -> Self {
        self.copy_bits(Bits::all(from), Bits::all(to))
    }

    pub(crate) fn copy_bits(self, from: Bits, to: Bits) -> Self {
        self.act(Action::Move { from, to })
    }

    pub(crate) fn copy_flag(self, from: Flag, to: Flag) -> Self {
        let bit = |flag: Flag| Bits::one(FLAGS, flag.place());
        self.copy_bits(bit(from), bit(to))
    }

    /// Asks a table, and comes back.
    pub(crate) fn ask(self, table: Table) -> Self {
        self.act(ask(table))
    }

    /// The end. To a table before this one, which OpenFlow's goto can't, a resubmit goes.
    pub(crate) fn goto(mut self, table: Table) -> Self {
        if table <= self.table {
            return self.ask(table);
        }
        self.goto = Some(table);
        self
    }

    pub(crate) fn drop(self, reason: DropReason) -> Self {
        self.set(REASON, reason.number()).goto(Table::Drop)
    }

    pub(crate) fn flow(mut self) -> Flow {
        let (value, mask) = self.flags;
        if mask != 0 {
            self.matching = self.matching.masked(FLAGS, value, mask);
        }
        Flow {
            table: self.table.number(),
            priority: self.priority,
            cookie: self.cookie.number(),
            matching: self.matching,
            actions: self.actions,
            goto: self.goto.map(Table::number),
            idle_timeout_s: 0,
            hard_timeout_s: 0,
        }
    }
}

pub(crate) fn ones(count: u32) -> u128 {
    match count {
        128 => u128::MAX,
        count => (1 << count) - 1,
    }
}

pub(crate) fn set_masked(field: Field, value: u128, mask: u128) -> Action {
    Action::Set {
        to: field,
        value: value.into(),
        mask: mask.into(),
    }
}

pub(crate) fn raise(flags: &[Flag]) -> Action {
    let mask = bits(flags);
    set_masked(FLAGS, mask, mask)
}

pub(crate) fn ask(table: Table) -> Action {
    Action::Resubmit {
        port: None,
        table: table.number(),
    }
}

fn bits(flags: &[Flag]) -> u128 {
    flags
        .iter()
        .map(|flag| flag.bit())
        .fold(0, |all, bit| all | bit)
}
