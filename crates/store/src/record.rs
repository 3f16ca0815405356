//! How a record's bytes say which version of its encoding they are in, so that a newer program reads what an
//! older one has written, and an older one refuses what it would misread.
//!
//! ```text
//! version (one byte) | what that version of the encoding says
//! ```
//! Knows nothing of: any encoding itself.

/// The encoding of one kind of records, with the way to it from all its older versions.
#[derive(Clone, Copy, Debug)]
pub struct Encoding {
    /// For errors: `port`.
    kind: &'static str,
    /// The first one leads from version 1 to version 2, and so on. None is ever taken away.
    migrations: &'static [Migration],
}

/// From one version's bytes to the next one's; the text says what is wrong with them.
pub type Migration = fn(Vec<u8>) -> Result<Vec<u8>, String>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    #[error(
        "a {kind} record has version {version} of the encoding, this program knows {known} at most: \
         a newer Portcullis has written it, use that one"
    )]
    Newer {
        kind: &'static str,
        version: u8,
        known: u8,
    },
    #[error("a {kind} record has no version")]
    NoVersion { kind: &'static str },
    #[error("a {kind} record of version {version} can't be read: {what}")]
    Migration {
        kind: &'static str,
        version: u8,
        what: String,
    },
}

impl Encoding {
    pub const fn new(kind: &'static str, migrations: &'static [Migration]) -> Self {
        assert!(migrations.len() < u8::MAX as usize, "a version is one byte");
        Self { kind, migrations }
    }

    pub fn version(&self) -> u8 {
        self.migrations.len() as u8 + 1
    }

    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        [&[self.version()], payload].concat()
    }

    /// What the newest version would have said.
    pub fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, EncodingError> {
        let kind = self.kind;
        let (version, payload) = match bytes.split_first() {
            None | Some((0, _)) => return Err(EncodingError::NoVersion { kind }),
            Some((version, payload)) => (*version, payload),
        };
        if version > self.version() {
            let known = self.version();
            return Err(EncodingError::Newer {
                kind,
                version,
                known,
            });
        }
        let mut payload = payload.to_vec();
        for (version, migrate) in (1..).zip(self.migrations).skip(usize::from(version) - 1) {
            payload = migrate(payload).map_err(|what| EncodingError::Migration {
                kind,
                version,
                what,
            })?;
        }
        Ok(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 2 has an `a` more, version 3 a `b`.
    const LETTERS: Encoding =
        Encoding::new("letters", &[|old| add(old, b'a'), |old| add(old, b'b')]);

    fn add(mut old: Vec<u8>, letter: u8) -> Result<Vec<u8>, String> {
        if old.is_empty() {
            return Err("no letters".to_owned());
        }
        old.push(letter);
        Ok(old)
    }

    fn check(bytes: &[u8], expected: Result<&[u8], &str>) {
        let seen = LETTERS.decode(bytes).map_err(|e| e.to_string());
        let expected = expected.map(<[u8]>::to_vec).map_err(str::to_owned);
        assert_eq!(seen, expected, "{bytes:?}");
    }

    #[test]
    fn older_versions_are_led_step_by_step_to_the_newest() {
        check(b"\x03x", Ok(b"x"));
        check(b"\x02x", Ok(b"xb"));
        check(b"\x01x", Ok(b"xab"));
        check(&LETTERS.encode(b"x"), Ok(b"x"));
    }

    #[test]
    fn what_cant_be_read_is_refused() {
        check(
            b"\x04x",
            Err(
                "a letters record has version 4 of the encoding, this program knows 3 at most: \
                 a newer Portcullis has written it, use that one",
            ),
        );
        check(b"", Err("a letters record has no version"));
        check(b"\0x", Err("a letters record has no version"));
        check(
            b"\x01",
            Err("a letters record of version 1 can't be read: no letters"),
        );
    }
}
