//! How a command ends when it doesn't end well.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | an answer that is no: a mismatch, nothing confirmed, a bug |
//! | 2 | the command line makes no sense |
//! | 3 | the policy is invalid; nothing was changed |
//! | 4 | the system refused: no privilege, the kernel lacks something, something isn't there |

use std::fmt;
use std::process::ExitCode;

/// Each holds what was tried, and what is true now.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The answer is no.
    No(String),
    Usage(String),
    Policy(String),
    System(String),
    /// Something that should not happen.
    Internal(anyhow::Error),
}

impl Failure {
    pub(crate) fn system(error: impl fmt::Display) -> Self {
        Failure::System(error.to_string())
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::No(_) | Failure::Internal(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Policy(_) => 3,
            Failure::System(_) => 4,
        })
    }

    /// What happened, for use inside another sentence.
    pub(crate) fn text(&self) -> String {
        match self {
            Failure::No(text)
            | Failure::Usage(text)
            | Failure::Policy(text)
            | Failure::System(text) => text.clone(),
            Failure::Internal(error) => format!("{error:#}"),
        }
    }

    pub(crate) fn tell(&self) {
        match self {
            // What there was to tell is on stdout.
            Failure::No(text) if text.is_empty() => {}
            // Complete sentences, with lines of their own.
            Failure::No(text) | Failure::Policy(text) => eprintln!("{text}"),
            Failure::Usage(text) | Failure::System(text) => eprintln!("portcullis: {text}"),
            Failure::Internal(error) => eprintln!("portcullis: internal error: {error:#}"),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Internal(error)
    }
}
