//! Why the data plane could not be opened.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Opening changed nothing that is enforced.
#[derive(Debug)]
pub enum OpenError {
    /// Loading programs takes CAP_BPF and CAP_NET_ADMIN, and mounting bpffs CAP_SYS_ADMIN.
    NoPrivilege {
        tried: String,
        source: io::Error,
    },
    /// The kernel lacks something that the programs need.
    Unsupported {
        lacks: String,
        source: io::Error,
    },
    /// The kernel's verifier refused a program; its log.
    Verifier {
        log: String,
    },
    /// What is pinned was made by a version of Portcullis with another layout.
    Layout {
        path: PathBuf,
        found: String,
        needed: u32,
    },
    /// Nothing is pinned there.
    NotRunning {
        path: PathBuf,
    },
    /// The name of an instance is a directory's name.
    BadInstance {
        instance: String,
    },
    Io {
        tried: String,
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(tried: impl Into<String>, source: io::Error) -> Self {
        let tried = tried.into();
        match source.kind() {
            io::ErrorKind::PermissionDenied => OpenError::NoPrivilege { tried, source },
            io::ErrorKind::Unsupported => OpenError::Unsupported {
                lacks: tried,
                source,
            },
            _ => OpenError::Io { tried, source },
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::NoPrivilege { tried, source } => write!(
                f,
                "{tried}: {source}; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN"
            ),
            OpenError::Unsupported { lacks, source } => {
                write!(f, "this kernel can't do what is needed: {lacks}: {source}")
            }
            OpenError::Verifier { log } => {
                write!(f, "the kernel refused a program; its verifier says:\n{log}")
            }
            OpenError::Layout {
                path,
                found,
                needed,
            } => write!(
                f,
                "{} was pinned with layout {found}, and this version has {needed}: \
                 nothing was changed; `portcullis detach` removes it, and opens its ports",
                path.display()
            ),
            OpenError::NotRunning { path } => {
                write!(
                    f,
                    "nothing is enforced here: {} is not there",
                    path.display()
                )
            }
            OpenError::BadInstance { instance } => write!(
                f,
                "`{instance}` can't be the name of an instance: letters, digits, `-` and `_` make one"
            ),
            OpenError::Io { tried, source } => write!(f, "{tried}: {source}"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::NoPrivilege { source, .. }
            | OpenError::Unsupported { source, .. }
            | OpenError::Io { source, .. } => Some(source),
            OpenError::Verifier { .. }
            | OpenError::Layout { .. }
            | OpenError::NotRunning { .. }
            | OpenError::BadInstance { .. } => None,
        }
    }
}
