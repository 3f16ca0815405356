//! The world's refusals.

use std::fmt;
use std::io;

/// What was tried, and why it didn't work. Reading has no effect, so after a failed question nothing
/// has changed; each function that changes something says what is true then.
#[derive(Debug)]
pub struct Error {
    tried: String,
    source: io::Error,
}

impl Error {
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// The kernel's error number. Ipset has some of its own, from 4096.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// For who words it better.
    pub(crate) fn into_source(self) -> io::Error {
        self.source
    }

    pub(crate) fn new(tried: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self {
            tried: tried.into(),
            source: source.into(),
        }
    }

    /// The kernel answered with this number.
    pub(crate) fn answered(tried: impl Into<String>, errno: i32) -> Self {
        Self::new(tried, io::Error::from_raw_os_error(errno))
    }

    /// The kernel answered, and it isn't what its headers promise.
    pub(crate) fn unreadable(tried: impl Into<String>, what: &'static str) -> Self {
        Self::new(tried, io::Error::new(io::ErrorKind::InvalidData, what))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.tried, self.source)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
