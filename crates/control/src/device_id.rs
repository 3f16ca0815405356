//! What a port is for, as whoever made it says: of a VM's port mostly the VM's UUID.
//!
//! Shape: a million ports have one each, so a UUID is kept in its 16 bytes.

use crate::text::Text;
use arcstr::ArcStr;
use std::fmt;
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceId(Kept);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    /// Written as UUIDs are: with hyphens, in lower case.
    Uuid(Uuid),
    /// Whatever else.
    Text(ArcStr),
}

impl DeviceId {
    pub(crate) fn is_empty(&self) -> bool {
        match &self.0 {
            Kept::Uuid(_) => false,
            Kept::Text(text) => text.is_empty(),
        }
    }
}

impl Default for DeviceId {
    fn default() -> Self {
        Self(Kept::Text(ArcStr::new()))
    }
}

impl From<&str> for DeviceId {
    fn from(text: &str) -> Self {
        let uuid = Uuid::try_parse(text).ok();
        let usual =
            |uuid: &Uuid| *uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *text;
        Self(match uuid.filter(usual) {
            Some(uuid) => Kept::Uuid(uuid),
            None => Kept::Text(text.into()),
        })
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kept::Uuid(uuid) => uuid.hyphenated().fmt(f),
            Kept::Text(text) => f.write_str(text),
        }
    }
}

impl Text for DeviceId {
    fn read(text: &str) -> Option<Self> {
        Some(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, is_uuid: bool) {
        let id = DeviceId::from(text);
        assert_eq!(id.to_string(), text);
        assert_eq!(matches!(id.0, Kept::Uuid(_)), is_uuid, "{text}");
        assert_eq!(id.is_empty(), text.is_empty());
    }

    #[test]
    fn it_is_written_as_it_was_given() {
        check("", false);
        check("vm1", false);
        check("dhcp2a1b-0000-4000-8000-000000000000", false);
        check("00000001-0000-4000-8000-00000000002a", true);
        check("00000001-0000-4000-8000-00000000002A", false);
        check("00000001000040008000-00000000002a", false);
        check("0000000100004000800000000000002a", false);
        check("{00000001-0000-4000-8000-00000000002a}", false);
        check("urn:uuid:00000001-0000-4000-8000-00000000002a", false);
    }
}
