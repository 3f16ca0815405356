//! The learn action.
//!
//! ```text
//! learn   idle 2 | hard 2 | priority 2 | cookie 8 | flags 2 | table 1 | 0 1
//!         idle after FIN 2 | hard after FIN 2 | specs
//! spec    zeros 2, source is a value 1, what for 2, count of bits 11 | source | destination
//! source  field and first bit 6, or a value in as many 16-bit words as it needs
//! ```

use super::super::oxm::{read_name, write_name};
use super::super::{Read, Reader};
use crate::{Bits, Learn, Source, Spec, Value};

const DELETE_LEARNED: u16 = 2;

const COUNT: u16 = 0x7ff;
const PURPOSE: u16 = 0x1800;
const MATCH: u16 = 0;
const LOAD: u16 = 0x0800;
const OUTPUT: u16 = 0x1000;
const FROM_VALUE: u16 = 0x2000;

pub(super) fn write(out: &mut Vec<u8>, learn: &Learn) {
    out.extend(learn.idle_timeout_s.to_be_bytes());
    out.extend(learn.hard_timeout_s.to_be_bytes());
    out.extend(learn.priority.to_be_bytes());
    out.extend(learn.cookie.to_be_bytes());
    let flags = u16::from(learn.delete_learned) * DELETE_LEARNED;
    out.extend(flags.to_be_bytes());
    out.extend([learn.table, 0]);
    out.extend(learn.fin_idle_timeout_s.to_be_bytes());
    out.extend(learn.fin_hard_timeout_s.to_be_bytes());
    for spec in &learn.specs {
        match spec {
            Spec::Match { to, from } => write_pair(out, MATCH, *to, *from),
            Spec::Load { to, from } => write_pair(out, LOAD, *to, *from),
            Spec::Output(bits) => {
                out.extend((OUTPUT | bits.count & COUNT).to_be_bytes());
                write_bits(out, *bits);
            }
        }
    }
}

fn write_pair(out: &mut Vec<u8>, purpose: u16, to: Bits, from: Source) {
    let header = purpose | to.count & COUNT;
    match from {
        Source::Field(bits) => {
            out.extend(header.to_be_bytes());
            write_bits(out, bits);
        }
        Source::Value(value) => {
            out.extend((header | FROM_VALUE).to_be_bytes());
            out.extend(value.low_bytes(value_bytes(to.count).min(Value::BYTES)));
        }
    }
    write_bits(out, to);
}

fn write_bits(out: &mut Vec<u8>, bits: Bits) {
    write_name(out, bits.field);
    out.extend(bits.start.to_be_bytes());
}

fn value_bytes(bits: u16) -> usize {
    2 * usize::from(bits.div_ceil(16))
}

/// `None` if it has flags that we don't know.
pub(super) fn read(mut body: Reader) -> Read<Option<Learn>> {
    let mut learn = Learn {
        idle_timeout_s: body.u16()?,
        hard_timeout_s: body.u16()?,
        priority: body.u16()?,
        cookie: body.u64()?,
        ..Learn::default()
    };
    let flags = body.u16()?;
    learn.delete_learned = flags & DELETE_LEARNED != 0;
    learn.table = body.u8()?;
    body.skip(1)?;
    learn.fin_idle_timeout_s = body.u16()?;
    learn.fin_hard_timeout_s = body.u16()?;
    // Zeros: the padding at the end.
    while body.rest().len() >= 2 {
        match body.u16()? {
            0 => break,
            header => learn.specs.push(read_spec(header, &mut body)?),
        }
    }
    Ok((flags & !DELETE_LEARNED == 0).then_some(learn))
}

fn read_spec(header: u16, body: &mut Reader) -> Read<Spec> {
    let count = header & COUNT;
    let purpose = header & PURPOSE;
    if count == 0 || header & !(COUNT | PURPOSE | FROM_VALUE) != 0 {
        return Err(body.bad());
    }
    let from = if header & FROM_VALUE != 0 {
        let bytes = body.take(value_bytes(count))?;
        Source::Value(Value::from_bytes(bytes).ok_or(body.bad())?)
    } else {
        Source::Field(read_bits(body, count)?)
    };
    match (purpose, from) {
        (MATCH, from) => Ok(Spec::Match {
            to: read_bits(body, count)?,
            from,
        }),
        (LOAD, from) => Ok(Spec::Load {
            to: read_bits(body, count)?,
            from,
        }),
        (OUTPUT, Source::Field(bits)) => Ok(Spec::Output(bits)),
        _no_such => Err(body.bad()),
    }
}

fn read_bits(body: &mut Reader, count: u16) -> Read<Bits> {
    let mut bits = read_name(body, 0, count)?;
    bits.start = body.u16()?;
    Ok(bits)
}
