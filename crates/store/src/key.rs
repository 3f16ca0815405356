//! Where a record is: a path of text, such as `port/7f1c`.
//!
//! Knows nothing of: which paths there are.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

/// Segments between slashes. None is empty, and no character is a control character. Cheap to clone;
/// ordered as bytes, in every back end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// All keys below a path, or all there are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPrefix(Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a key is empty, or a part of it between slashes is: {0:?}")]
    EmptySegment(String),
    #[error("a key of {0} bytes; at most {MOST_KEY_BYTES} are possible")]
    TooLong(usize),
    #[error("a control character in a key: {0:?}")]
    ControlCharacter(String),
    #[error("a prefix ends with a slash: {0:?}")]
    NoSlash(String),
}

const MOST_KEY_BYTES: usize = 512;

impl Key {
    pub fn new(text: &str) -> Result<Self, KeyError> {
        check(text).map(|()| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl KeyPrefix {
    pub fn all() -> Self {
        Self("".into())
    }

    /// With the slash at its end: `port/` holds `port/1`, and not `portal/1`.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        let path = text
            .strip_suffix('/')
            .ok_or_else(|| KeyError::NoSlash(text.to_owned()))?;
        check(path).map(|()| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn contains(&self, key: &Key) -> bool {
        key.0.starts_with(&*self.0)
    }

    /// From where to where its keys are, in their order.
    pub fn range(&self) -> (Bound<String>, Bound<String>) {
        let end = match self.0.strip_suffix('/') {
            // The character after the slash.
            Some(path) => Bound::Excluded(format!("{path}0")),
            None => Bound::Unbounded,
        };
        (Bound::Included(self.0.to_string()), end)
    }
}

fn check(text: &str) -> Result<(), KeyError> {
    if text.len() > MOST_KEY_BYTES {
        return Err(KeyError::TooLong(text.len()));
    }
    if text.split('/').any(str::is_empty) {
        return Err(KeyError::EmptySegment(text.to_owned()));
    }
    if text.chars().any(char::is_control) {
        return Err(KeyError::ControlCharacter(text.to_owned()));
    }
    Ok(())
}

impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0)
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPrefix({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_key(text: &str, expected: Result<(), KeyError>) {
        assert_eq!(Key::new(text).map(|_| ()), expected, "{text:?}");
    }

    #[test]
    fn a_key_is_a_path() {
        check_key("port/7f1c", Ok(()));
        check_key("port", Ok(()));
        check_key("group/größe", Ok(()));
        for text in ["", "/", "port/", "/port", "port//1"] {
            check_key(text, Err(KeyError::EmptySegment(text.to_owned())));
        }
        check_key("a\nb", Err(KeyError::ControlCharacter("a\nb".to_owned())));
        check_key(&"a".repeat(512), Ok(()));
        check_key(&"a".repeat(513), Err(KeyError::TooLong(513)));
    }

    #[test]
    fn a_prefix_holds_what_is_below_it_and_its_range_the_same() {
        let prefix = KeyPrefix::new("port/").expect("a prefix");
        let (Bound::Included(begin), Bound::Excluded(end)) = prefix.range() else {
            panic!("a range with two ends");
        };
        for (text, expected) in [
            ("port/1", true),
            ("port/1/2", true),
            ("port/\u{10ffff}", true),
            ("port", false),
            ("port0", false),
            ("portal/1", false),
            ("group/1", false),
        ] {
            let key = Key::new(text).expect("a key");
            assert_eq!(prefix.contains(&key), expected, "{text}");
            let inside = begin.as_str() <= text && text < end.as_str();
            assert_eq!(inside, expected, "{text}");
            assert!(KeyPrefix::all().contains(&key));
        }
        assert_eq!(
            KeyPrefix::new("port"),
            Err(KeyError::NoSlash("port".to_owned()))
        );
    }
}
