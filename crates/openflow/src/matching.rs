//! What a flow matches: fields to values and masks, in one form for all that means the same.

use crate::{Field, Value};

/// Bits of the value outside of the mask are 0. All ones that the field has: an exact match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Masked {
    pub value: Value,
    pub mask: Value,
}

/// In the order of the fields. An empty mask isn't stored; `XReg` and `XxReg` are stored as the registers that they consist of.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Match(Vec<(Field, Masked)>);

/// In a VLAN tag: that there is one, and what of it is the VLAN.
const TAGGED: u128 = 0x1000;
const PRIORITY: u128 = 0xe000;

impl Match {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn exact(self, field: Field, value: u128) -> Self {
        self.with(field, value.into(), field.all_ones())
    }

    #[must_use]
    pub fn masked(self, field: Field, value: u128, mask: u128) -> Self {
        self.with(field, value.into(), mask.into())
    }

    /// For what is longer than a `u128`. Says the same as `exact` if the mask is that of an exact match; of an
    /// option of a tunnel only its length decides that, which isn't known here, so choose one or the other.
    #[must_use]
    pub fn with(mut self, field: Field, value: Value, mask: Value) -> Self {
        self.insert(field, value, mask);
        self
    }

    pub fn get(&self, field: Field) -> Option<Masked> {
        let at = self.place_of(field).ok()?;
        Some(self.0[at].1)
    }

    /// In the order of the fields.
    pub fn iter(&self) -> impl Iterator<Item = (Field, Masked)> {
        self.0.iter().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds to what is asked of the field already. Of a bit that is asked for twice, the later word counts.
    pub(crate) fn insert(&mut self, field: Field, value: Value, mask: Value) {
        let mask = mask.and(field.all_ones());
        let value = value.and(mask);
        if mask.is_zero() {
            return;
        }
        if let Field::XReg(n) = field {
            self.insert_registers(2 * n, 2, value, mask);
        } else if let Field::XxReg(n) = field {
            self.insert_registers(4 * n, 4, value, mask);
        } else if field == Field::VlanTci {
            self.add(field, value, tag_mask(value, mask));
        } else {
            self.add(field, value, mask);
        }
    }

    /// The first register holds the highest bits.
    fn insert_registers(&mut self, first: u8, count: u8, value: Value, mask: Value) {
        for (n, at) in (first..first + count).zip((0..usize::from(count)).map(|i| 4 * i)) {
            let part = |all: &Value| {
                let bytes = &all.low_bytes(4 * usize::from(count))[at..][..4];
                Value::from_bytes(bytes).expect("4 bytes fit")
            };
            self.insert(Field::Reg(n), part(&value), part(&mask));
        }
    }

    fn add(&mut self, field: Field, value: Value, mask: Value) {
        match self.place_of(field) {
            Err(at) => self.0.insert(at, (field, Masked { value, mask })),
            Ok(at) => {
                let masked = &mut self.0[at].1;
                masked.value = masked.value.without(mask).or(value);
                masked.mask = masked.mask.or(mask);
            }
        }
    }

    fn place_of(&self, field: Field) -> Result<usize, usize> {
        self.0.binary_search_by_key(&field, |(field, _)| *field)
    }
}

/// A frame without a tag has no priority either, and the switch forgets that it was asked for.
fn tag_mask(value: Value, mask: Value) -> Value {
    let untagged = !mask.and(TAGGED.into()).is_zero() && value.and(TAGGED.into()).is_zero();
    if untagged && value.and(PRIORITY.into()).is_zero() {
        mask.and((!PRIORITY).into())
    } else {
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(matching: Match, expected: &[(Field, u128, u128)]) {
        let number = |value: Value| value.u128().expect("it is short");
        let found: Vec<_> = matching
            .iter()
            .map(|(field, masked)| (field, number(masked.value), number(masked.mask)))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_same_is_kept_in_one_form() {
        let reg = Field::Reg(0);
        check(Match::new().masked(reg, 7, 0), &[]);
        check(Match::new().masked(reg, 7, 5), &[(reg, 5, 5)]);
        check(
            Match::new().exact(reg, 1 << 40 | 7),
            &[(reg, 7, 0xffff_ffff)],
        );
        check(
            Match::new().exact(Field::IpFrag, 3),
            &[(Field::IpFrag, 3, 3)],
        );
        check(
            Match::new().masked(reg, 1, 3).masked(reg, 6, 6),
            &[(reg, 7, 7)],
        );
        check(
            Match::new().exact(reg, 1).exact(reg, 2),
            &[(reg, 2, 0xffff_ffff)],
        );
    }

    #[test]
    fn long_registers_are_their_parts() {
        let long = Match::new().masked(Field::XxReg(1), 1 << 96 | 5, 0xf << 96 | 0xff);
        check(long, &[(Field::Reg(4), 1, 0xf), (Field::Reg(7), 5, 0xff)]);
        let long = Match::new().masked(Field::XReg(3), 1 << 32, 1 << 32);
        check(long, &[(Field::Reg(6), 1, 1)]);
    }

    #[test]
    fn no_tag_has_no_priority() {
        check(
            Match::new().exact(Field::VlanTci, 0),
            &[(Field::VlanTci, 0, 0x1fff)],
        );
        check(
            Match::new().exact(Field::VlanTci, 0xb064),
            &[(Field::VlanTci, 0xb064, 0xffff)],
        );
    }

    #[test]
    #[should_panic(expected = "no such register or option")]
    fn there_are_sixteen_registers() {
        let _ = Match::new().exact(Field::Reg(16), 0);
    }
}
