//! Actions and instructions.
//!
//! ```text
//! action        type 2 | length 2 | body                                    lengths are multiples of 8
//! extension     0xffff 2 | length 2 | 0x00002320 4 | subtype 2 | body
//! instruction   type 2 | length 2 | body: [padding 4 | actions], or a table 1
//! ```

use super::oxm::{read_field, read_name, write_field, write_name, write_narrow_port};
use super::{NICIRA, Read, Reader, padded};
use crate::{Action, Bits, Field, Flow, Masked, Port, Value, Zone};

mod learn;

const GOTO_TABLE: u16 = 1;
const APPLY_ACTIONS: u16 = 4;

const OUTPUT: u16 = 0;
const PUSH_VLAN: u16 = 17;
const POP_VLAN: u16 = 18;
const DEC_TTL: u16 = 24;
const SET_FIELD: u16 = 25;
const EXTENSION: u16 = 0xffff;

const REG_MOVE: u16 = 6;
const REG_LOAD: u16 = 7;
const RESUBMIT_TABLE: u16 = 14;
const OUTPUT_REG: u16 = 15;
const LEARN: u16 = 16;
const STACK_PUSH: u16 = 27;
const STACK_POP: u16 = 28;
const REG_LOAD2: u16 = 33;
const CT: u16 = 35;
const CLONE: u16 = 42;
const CT_CLEAR: u16 = 43;
const CHECK_PKT_LARGER: u16 = 49;

const RESUBMIT_IN_PORT: u16 = 0xfff8;
const CT_COMMIT: u16 = 1;
const CT_FORCE: u16 = 2;
const CT_NO_TABLE: u8 = 0xff;
/// How much of a packet a controller gets. Others get all of it.
const WHOLE_PACKET: u16 = 0xffff;

pub(crate) fn write_instructions(out: &mut Vec<u8>, flow: &Flow) {
    let others = |action: &&Action| matches!(action, Action::Instruction(_));
    if flow.actions.iter().any(|action| !others(&action)) {
        padded(out, APPLY_ACTIONS, |out| {
            out.extend([0; 4]);
            write_actions(out, &flow.actions);
        });
    }
    for action in &flow.actions {
        if let Action::Instruction(bytes) = action {
            out.extend(bytes);
        }
    }
    if let Some(table) = flow.goto {
        padded(out, GOTO_TABLE, |out| out.push(table));
    }
}

fn write_actions(out: &mut Vec<u8>, actions: &[Action]) {
    for action in actions {
        write_action(out, action);
    }
}

fn write_action(out: &mut Vec<u8>, action: &Action) {
    match action {
        Action::Output(port) => padded(out, OUTPUT, |out| {
            out.extend(port.number().to_be_bytes());
            let limit = if *port == Port::Controller {
                WHOLE_PACKET
            } else {
                0
            };
            out.extend(limit.to_be_bytes());
            // Up to 16 bytes.
            out.extend([0; 6]);
        }),
        Action::OutputReg(bits) => extension(out, OUTPUT_REG, |out| {
            out.extend(start_and_count(*bits).to_be_bytes());
            write_name(out, bits.field);
            out.extend(WHOLE_PACKET.to_be_bytes());
        }),
        Action::Set { to, value, mask } => write_set(out, *to, *value, *mask),
        Action::Move { from, to } => extension(out, REG_MOVE, |out| {
            out.extend(
                [to.count, from.start, to.start]
                    .map(u16::to_be_bytes)
                    .as_flattened(),
            );
            write_name(out, from.field);
            write_name(out, to.field);
        }),
        Action::Push(from) => extension(out, STACK_PUSH, |out| write_stacked(out, *from)),
        Action::Pop(to) => extension(out, STACK_POP, |out| write_stacked(out, *to)),
        Action::Resubmit { port, table } => extension(out, RESUBMIT_TABLE, |out| {
            out.extend(port.unwrap_or(RESUBMIT_IN_PORT).to_be_bytes());
            out.push(*table);
        }),
        Action::Ct {
            commit,
            force,
            zone,
            table,
            exec,
        } => extension(out, CT, |out| {
            let flags = u16::from(*commit) * CT_COMMIT + u16::from(*force) * CT_FORCE;
            out.extend(flags.to_be_bytes());
            write_zone(out, *zone);
            out.extend([table.unwrap_or(CT_NO_TABLE), 0, 0, 0, 0, 0]);
            write_actions(out, exec);
        }),
        Action::CtClear => extension(out, CT_CLEAR, |_| ()),
        Action::Clone(actions) => extension(out, CLONE, |out| {
            out.extend([0; 6]);
            write_actions(out, actions);
        }),
        Action::Learn(learn) => extension(out, LEARN, |out| learn::write(out, learn)),
        Action::CheckPktLarger { bytes, to } => extension(out, CHECK_PKT_LARGER, |out| {
            out.extend(bytes.to_be_bytes());
            out.extend(to.start.to_be_bytes());
            write_name(out, to.field);
        }),
        Action::PopVlan => padded(out, POP_VLAN, |_| ()),
        Action::PushVlan(kind) => padded(out, PUSH_VLAN, |out| out.extend(kind.to_be_bytes())),
        Action::DecTtl => padded(out, DEC_TTL, |_| ()),
        Action::Other(bytes) => out.extend(bytes),
        // After the actions, where `write_instructions` puts it.
        Action::Instruction(_) => (),
    }
}

fn write_stacked(out: &mut Vec<u8>, bits: Bits) {
    out.extend(bits.start.to_be_bytes());
    write_name(out, bits.field);
    out.extend(bits.count.to_be_bytes());
}

fn read_stacked(mut body: Reader) -> Read<Bits> {
    let start = body.u16()?;
    let bits = read_name(&mut body, start, 0)?;
    let count = body.u16()?;
    Ok(Bits { count, ..bits })
}

/// OpenFlow 1.4 can't set part of a field, Open vSwitch's own action can.
fn write_set(out: &mut Vec<u8>, to: Field, value: Value, mask: Value) {
    let masked = Masked {
        value: value.and(mask),
        mask,
    };
    if mask == to.all_ones() && to == Field::InPort {
        // The switch refuses to set the one of 32 bits.
        padded(out, SET_FIELD, |out| write_narrow_port(out, value));
    } else if mask == to.all_ones() {
        padded(out, SET_FIELD, |out| write_field(out, to, masked));
    } else {
        extension(out, REG_LOAD2, |out| write_field(out, to, masked));
    }
}

fn write_zone(out: &mut Vec<u8>, zone: Zone) {
    match zone {
        Zone::Number(number) => {
            out.extend([0; 4]);
            out.extend(number.to_be_bytes());
        }
        Zone::Field(bits) => {
            write_name(out, bits.field);
            out.extend(start_and_count(bits).to_be_bytes());
        }
    }
}

fn extension(out: &mut Vec<u8>, subtype: u16, body: impl FnOnce(&mut Vec<u8>)) {
    padded(out, EXTENSION, |out| {
        out.extend(NICIRA.to_be_bytes());
        out.extend(subtype.to_be_bytes());
        body(out);
    });
}

/// 10 bits and 6.
fn start_and_count(bits: Bits) -> u16 {
    bits.start << 6 | bits.count.wrapping_sub(1) & 0x3f
}

fn bits_of(packed: u16) -> (u16, u16) {
    (packed >> 6, (packed & 0x3f) + 1)
}

/// The actions and the table to go to.
pub(crate) fn read_instructions(mut from: Reader) -> Read<(Vec<Action>, Option<u8>)> {
    let (mut actions, mut others, mut goto) = (Vec::new(), Vec::new(), None);
    while !from.is_empty() {
        let (kind, whole) = read_whole(&mut from)?;
        let mut body = Reader::new(&whole[4..], "instruction");
        match kind {
            APPLY_ACTIONS => {
                body.skip(4)?;
                actions.extend(read_actions(body, 0)?);
            }
            GOTO_TABLE => goto = Some(body.u8()?),
            _other => others.push(Action::Instruction(whole.to_vec())),
        }
    }
    actions.extend(others);
    Ok((actions, goto))
}

/// The switch takes `clone` in `clone`, but not endlessly.
const NESTED_AT_MOST: usize = 16;

fn read_actions(mut from: Reader, depth: usize) -> Read<Vec<Action>> {
    if depth > NESTED_AT_MOST {
        return Err(from.bad());
    }
    let mut actions = Vec::new();
    while !from.is_empty() {
        let (kind, whole) = read_whole(&mut from)?;
        let action = read_action(kind, Reader::new(&whole[4..], "action"), depth)?;
        actions.push(action.unwrap_or_else(|| Action::Other(whole.to_vec())));
    }
    Ok(actions)
}

/// Its type, and all of it, at least 8 bytes.
fn read_whole<'a>(from: &mut Reader<'a>) -> Read<(u16, &'a [u8])> {
    let mut peek = *from;
    let (kind, length) = (peek.u16()?, peek.u16()?);
    if length < 8 || length % 8 != 0 {
        return Err(from.bad());
    }
    Ok((kind, from.take(length.into())?))
}

/// `None`: not one of ours.
fn read_action(kind: u16, mut body: Reader, depth: usize) -> Read<Option<Action>> {
    Ok(Some(match kind {
        OUTPUT => Action::Output(Port::from_number(body.u32()?)),
        PUSH_VLAN => Action::PushVlan(body.u16()?),
        POP_VLAN => Action::PopVlan,
        DEC_TTL => Action::DecTtl,
        SET_FIELD => set(read_field(&mut body)?),
        EXTENSION if body.u32()? == NICIRA => return read_extension(body.u16()?, body, depth),
        _other => return Ok(None),
    }))
}

fn read_extension(subtype: u16, mut body: Reader, depth: usize) -> Read<Option<Action>> {
    Ok(Some(match subtype {
        OUTPUT_REG => {
            let (start, count) = bits_of(body.u16()?);
            Action::OutputReg(read_name(&mut body, start, count)?)
        }
        REG_MOVE => {
            let (count, from, to) = (body.u16()?, body.u16()?, body.u16()?);
            Action::Move {
                from: read_name(&mut body, from, count)?,
                to: read_name(&mut body, to, count)?,
            }
        }
        STACK_PUSH => Action::Push(read_stacked(body)?),
        STACK_POP => Action::Pop(read_stacked(body)?),
        REG_LOAD => {
            let (start, count) = bits_of(body.u16()?);
            let to = read_name(&mut body, start, count)?;
            Action::set_bits(to, body.u64()?.into())
        }
        REG_LOAD2 => set(read_field(&mut body)?),
        RESUBMIT_TABLE => {
            let port = body.u16()?;
            Action::Resubmit {
                port: (port != RESUBMIT_IN_PORT).then_some(port),
                table: body.u8()?,
            }
        }
        CT => return read_ct(body, depth),
        CT_CLEAR => Action::CtClear,
        CLONE => {
            body.skip(6)?;
            Action::Clone(read_actions(body, depth + 1)?)
        }
        LEARN => match learn::read(body)? {
            Some(learn) => Action::Learn(learn),
            None => return Ok(None),
        },
        CHECK_PKT_LARGER => {
            let (bytes, bit) = (body.u16()?, body.u16()?);
            let to = read_name(&mut body, bit, 1)?;
            Action::CheckPktLarger { bytes, to }
        }
        _other => return Ok(None),
    }))
}

/// `None` if it has a helper (ALG), or flags that we don't know.
fn read_ct(mut body: Reader, depth: usize) -> Read<Option<Action>> {
    let flags = body.u16()?;
    let mut after_zeros = body;
    let zone = if after_zeros.u32()? == 0 {
        body = after_zeros;
        Zone::Number(body.u16()?)
    } else {
        let field = read_name(&mut body, 0, 0)?.field;
        let (start, count) = bits_of(body.u16()?);
        Zone::Field(Bits::new(field, start, count))
    };
    let table = body.u8()?;
    body.skip(3)?;
    let helper = body.u16()?;
    let exec = read_actions(body, depth + 1)?;
    Ok(
        (helper == 0 && flags & !(CT_COMMIT | CT_FORCE) == 0).then_some(Action::Ct {
            commit: flags & CT_COMMIT != 0,
            force: flags & CT_FORCE != 0,
            zone,
            table: (table != CT_NO_TABLE).then_some(table),
            exec,
        }),
    )
}

fn set((to, Masked { value, mask }): (Field, Masked)) -> Action {
    Action::Set { to, value, mask }
}
