//! A number of up to 32 bytes: what a field holds, or a mask of it.

use std::fmt;

/// Big-endian and to the right, so that the order of the bytes is that of the numbers. 32 bytes, as
/// an option of a tunnel may be longer than any other field.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value([u8; Value::BYTES]);

impl Value {
    pub const BYTES: usize = 32;
    pub const ZERO: Self = Self([0; Self::BYTES]);

    /// `None` if it needs more than 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let excess = bytes.len().saturating_sub(Self::BYTES);
        let (beyond, bytes) = bytes.split_at(excess);
        if beyond.iter().any(|b| *b != 0) {
            return None;
        }
        let mut value = [0; Self::BYTES];
        value[Self::BYTES - bytes.len()..].copy_from_slice(bytes);
        Some(Self(value))
    }

    /// `count` ones, the lowest of them bit number `start`.
    pub fn ones(start: u16, count: u16) -> Self {
        let mut value = [0; Self::BYTES];
        let end = u32::from(start) + u32::from(count);
        for bit in u32::from(start)..end.min(8 * Self::BYTES as u32) {
            value[Self::BYTES - 1 - bit as usize / 8] |= 1 << (bit % 8);
        }
        Self(value)
    }

    /// `None` if it is more than that.
    pub fn u128(self) -> Option<u128> {
        let (high, low) = self.halves();
        (high == 0).then_some(low)
    }

    /// The last `count` of its bytes, which is at most 32.
    pub fn low_bytes(&self, count: usize) -> &[u8] {
        &self.0[Self::BYTES - count..]
    }

    /// How many bytes it takes; 1 for 0.
    pub fn length(&self) -> usize {
        let zeros = self.0.iter().take_while(|b| **b == 0).count();
        (Self::BYTES - zeros).max(1)
    }

    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    pub fn or(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & !other.0[i]))
    }

    /// What goes beyond the 32 bytes is lost.
    pub fn shifted_left(self, bits: u16) -> Self {
        let (bytes, bits) = (usize::from(bits / 8), bits % 8);
        let at = |i: usize| self.0.get(i + bytes).copied().unwrap_or(0);
        Self(std::array::from_fn(|i| {
            let low = u16::from(at(i + 1)) << bits >> 8;
            at(i) << bits | low as u8
        }))
    }

    fn halves(self) -> (u128, u128) {
        let (high, low) = self.0.split_at(Self::BYTES / 2);
        let number = |half: &[u8]| half.iter().fold(0, |n, b| n << 8 | u128::from(*b));
        (number(high), number(low))
    }
}

impl From<u128> for Value {
    fn from(number: u128) -> Self {
        Self::from_bytes(&number.to_be_bytes()).expect("16 bytes fit in 32")
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.halves() {
            (0, low) => write!(f, "{low:#x}"),
            (high, low) => write!(f, "{high:#x}{low:032x}"),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_bytes() {
        assert_eq!(Value::from(0x1234).low_bytes(3), [0, 0x12, 0x34]);
        assert_eq!(Value::from(0x1234).length(), 2);
        assert_eq!(Value::ZERO.length(), 1);
        assert_eq!(Value::from_bytes(&[0; 40]), Some(Value::ZERO));
        assert_eq!(Value::from_bytes(&[1; 33]), None);
        assert_eq!(Value::from_bytes(&[1; 20]).expect("it fits").u128(), None);
    }

    #[test]
    fn ones_and_shifts() {
        assert_eq!(Value::ones(4, 6), Value::from(0x3f0));
        assert_eq!(Value::ones(0, 128), Value::from(u128::MAX));
        assert_eq!(Value::ones(0, 256), Value([0xff; 32]));
        assert_eq!(Value::from(0x81).shifted_left(9), Value::from(0x10200));
        assert_eq!(Value::from(1).shifted_left(300), Value::ZERO);
        assert_eq!(
            Value::from(u128::MAX).shifted_left(128),
            Value::ones(128, 128)
        );
    }

    #[test]
    fn in_hex() {
        assert_eq!(Value::from(0x8001).to_string(), "0x8001");
        let long = Value::from(1).shifted_left(132);
        assert_eq!(long.to_string(), "0x1000000000000000000000000000000000");
    }
}
