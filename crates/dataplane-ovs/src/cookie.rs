//! A flow's cookie: that it is ours, and for what.
//!
//! ```text
//! 63..40 ours   39..32 kind   31..0 number
//! ```
//! So a flow says of itself which rule or port it is for, also to `ovs-ofctl dump-flows BRIDGE cookie=...`.

/// What a flow is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cookie {
    /// Neither a rule nor a port.
    Shared,
    /// The number of a rule.
    Rule(u32),
    /// The number of a port.
    Port(u16),
    /// Drops of a port that were counted.
    Count,
    /// Where a MAC was seen last.
    Learned,
}

/// Of a cookie, what says that it is ours.
pub(crate) const OURS_MASK: u64 = 0xff_ffff << 40;

impl Cookie {
    pub(crate) const OURS: u64 = 0x706f72 << 40;

    pub(crate) fn number(self) -> u64 {
        let (kind, number) = match self {
            Cookie::Shared => (0, 0),
            Cookie::Rule(number) => (1, number),
            Cookie::Port(number) => (2, u32::from(number)),
            Cookie::Count => (3, 0),
            Cookie::Learned => (4, 0),
        };
        Self::OURS | kind << 32 | u64::from(number)
    }

    /// `None`: it is somebody else's.
    pub(crate) fn from_number(cookie: u64) -> Option<Self> {
        let number = cookie as u32;
        match (cookie & OURS_MASK == Self::OURS, (cookie >> 32) as u8) {
            (true, 0) => Some(Cookie::Shared),
            (true, 1) => Some(Cookie::Rule(number)),
            (true, 2) => Some(Cookie::Port(number as u16)),
            (true, 3) => Some(Cookie::Count),
            (true, 4) => Some(Cookie::Learned),
            (true, _) | (false, _) => None,
        }
    }
}
