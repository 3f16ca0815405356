//! Fields, values and matches. The layout is in `field`.

use super::{Read, Reader, pad, write_length};
use crate::field::{EXPERIMENTER, NXM_OF, OXM, TUN_METADATA_BYTES};
use crate::{Bits, Field, Masked, Match, Value};

const MATCH_OXM: u16 = 1;

/// A header as it was read.
#[derive(Clone, Copy, Debug)]
struct Head {
    field: Field,
    class: u16,
    number: u8,
    masked: bool,
    /// Of the value.
    bytes: u8,
}

const IN_PORT: u8 = 0;
const VLAN_VID: u8 = 6;
const VLAN_PCP: u8 = 7;

/// Padded to 8 bytes, which the length doesn't count.
pub(crate) fn write_match(out: &mut Vec<u8>, matching: &Match) {
    let at = out.len();
    out.extend(MATCH_OXM.to_be_bytes());
    out.extend([0; 2]);
    for (field, masked) in matching.iter() {
        write_field(out, field, masked);
    }
    write_length(out, at);
    pad(out, at);
}

/// An option of a tunnel is as long as it needs to be, the switch knows the rest.
pub(crate) fn write_field(out: &mut Vec<u8>, field: Field, masked: Masked) {
    let exact = masked.mask == field.all_ones();
    let bytes = if !matches!(field, Field::TunMetadata(_)) {
        field.row().bytes.into()
    } else if exact {
        masked.value.length()
    } else {
        masked.mask.length()
    };
    write_header(out, field, !exact, bytes);
    out.extend(masked.value.low_bytes(bytes));
    if !exact {
        out.extend(masked.mask.low_bytes(bytes));
    }
}

/// `Field::InPort` as OpenFlow 1.0 has it, in 16 bits.
pub(crate) fn write_narrow_port(out: &mut Vec<u8>, port: Value) {
    out.extend(NXM_OF.to_be_bytes());
    out.extend([0, 2]);
    out.extend(port.low_bytes(2));
}

/// The header alone, where bits of the field are named.
pub(crate) fn write_name(out: &mut Vec<u8>, field: Field) {
    write_header(out, field, false, usize::from(field.row().bytes));
}

fn write_header(out: &mut Vec<u8>, field: Field, masked: bool, bytes: usize) {
    let row = field.row();
    let experimenter = if let Field::Other(other) = field
        && other.class == EXPERIMENTER
    {
        Some(other.experimenter)
    } else {
        None
    };
    let length = bytes * (1 + usize::from(masked)) + experimenter.map_or(0, |_| 4);
    out.extend(row.class.to_be_bytes());
    out.push(row.number << 1 | u8::from(masked));
    out.push(u8::try_from(length).expect("no field is that long"));
    if let Some(experimenter) = experimenter {
        out.extend(experimenter.to_be_bytes());
    }
}

/// With its padding.
pub(crate) fn read_match(from: &mut Reader) -> Read<Match> {
    let bad = from.bad();
    let (kind, length) = (from.u16()?, usize::from(from.u16()?));
    let mut fields = from.part(length.checked_sub(4).ok_or(bad)?, "match")?;
    from.skip(length.next_multiple_of(8) - length)?;
    if kind != MATCH_OXM {
        return Err(bad);
    }
    let mut matching = Match::new();
    while !fields.is_empty() {
        let head = read_head(&mut fields)?;
        let Masked { value, mask } = read_masked(&mut fields, head)?;
        match (head.class, head.number) {
            (OXM, VLAN_VID) => matching.insert(Field::VlanTci, value, mask.and(0x1fff.into())),
            (OXM, VLAN_PCP) => {
                matching.insert(Field::VlanTci, value.shifted_left(13), Value::from(0xe000))
            }
            _its_own => matching.insert(head.field, value, mask),
        }
    }
    Ok(matching)
}

/// One field with its value, as in a match, and nothing after it.
pub(crate) fn read_field(from: &mut Reader) -> Read<(Field, Masked)> {
    let head = read_head(from)?;
    Ok((head.field, read_masked(from, head)?))
}

/// A header alone: the bits of it that are named beside it.
pub(crate) fn read_name(from: &mut Reader, start: u16, count: u16) -> Read<Bits> {
    let head = read_head(from)?;
    if head.masked {
        return Err(from.bad());
    }
    Ok(Bits::new(head.field, start, count))
}

fn read_head(from: &mut Reader) -> Read<Head> {
    let (class, number) = (from.u16()?, from.u8()?);
    let (masked, number) = (number & 1 == 1, number >> 1);
    let mut length = from.u8()?;
    let mut experimenter = 0;
    if class == EXPERIMENTER {
        experimenter = from.u32()?;
        length = length.checked_sub(4).ok_or(from.bad())?;
    }
    let bytes = if masked { length / 2 } else { length };
    let field = Field::from_wire(class, experimenter, number, bytes);
    let fits = match (class, number) {
        (NXM_OF, IN_PORT) | (OXM, VLAN_VID) => bytes == 2,
        (OXM, VLAN_PCP) => bytes == 1,
        _ if matches!(field, Field::TunMetadata(_)) => bytes <= TUN_METADATA_BYTES,
        _ => bytes == field.row().bytes,
    };
    if bytes == 0 || !fits || masked && length % 2 == 1 {
        return Err(from.bad());
    }
    Ok(Head {
        field,
        class,
        number,
        masked,
        bytes,
    })
}

/// Without a mask, all of the field.
fn read_masked(from: &mut Reader, head: Head) -> Read<Masked> {
    let number = |from: &mut Reader| {
        let bytes = from.take(usize::from(head.bytes))?;
        Value::from_bytes(bytes).ok_or(from.bad())
    };
    let value = match number(from)? {
        narrow if head.field == Field::InPort && head.bytes == 2 => wide_port(narrow),
        value => value,
    };
    let all = head.field.all_ones();
    let mask = if head.masked {
        number(from)?.and(all)
    } else {
        all
    };
    Ok(Masked {
        value: value.and(mask),
        mask,
    })
}

/// The names of ports are the highest numbers, of 16 bits or of 32.
fn wide_port(narrow: Value) -> Value {
    if narrow >= Value::from(0xff00) {
        narrow.or(Value::from(0xffff_0000))
    } else {
        narrow
    }
}
