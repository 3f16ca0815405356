//! Tokens from a file: who is known where nothing else says who people are.
//!
//! ```text
//! # token                          user   project  roles
//! 7b0c6f1d9c0f4d0e8a3c5b2f1e6d7a90 alice  tenant-1 member
//! ```

use super::highest;
use control::Caller;
use model::ProjectId;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub struct Tokens {
    callers: HashMap<String, Caller>,
}

/// Shorter ones can be guessed.
const LEAST_LENGTH: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    #[error("the file of tokens {path} can't be read: {source}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Doesn't repeat the line: there is a token in it.
    #[error("line {line} of the tokens: {what}")]
    Line { line: usize, what: &'static str },
}

impl Tokens {
    pub fn read(path: &Path) -> Result<Self, TokensError> {
        let text = fs::read_to_string(path).map_err(|source| TokensError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text)
    }

    pub fn parse(text: &str) -> Result<Self, TokensError> {
        let mut callers = HashMap::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what| TokensError::Line { line: at + 1, what };
            let (token, caller) = entry(line).map_err(wrong)?;
            if callers.insert(token, caller).is_some() {
                return Err(wrong("the token is there twice"));
            }
        }
        Ok(Self { callers })
    }

    /// The table is keyed by a secret of the process's own, so how long a look-up takes says nothing of tokens.
    pub(super) fn caller(&self, token: &str) -> Option<Caller> {
        self.callers.get(token).cloned()
    }
}

fn entry(line: &str) -> Result<(String, Caller), &'static str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [token, user, project, roles] = words[..] else {
        return Err("expected are token, user, project, and roles with commas between them");
    };
    if token.len() < LEAST_LENGTH {
        return Err("the token is shorter than 16 characters");
    }
    if !control::ids::is_id(project) {
        return Err("the project is none: letters, digits, '-', '_' and '.'");
    }
    let role = highest(roles.split(',')).ok_or("no role is admin, member or reader")?;
    let caller = Caller {
        user: user.to_owned(),
        project: ProjectId::from(project),
        role,
    };
    Ok((token.to_owned(), caller))
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::Role;

    #[test]
    fn a_file_names_callers() {
        let text = "# comment\n\n0123456789abcdef alice p1 reader,member\nfedcba9876543210 root p2 admin\n";
        let tokens = Tokens::parse(text).expect("it is a file of tokens");
        let alice = tokens.caller("0123456789abcdef").expect("she is there");
        assert_eq!((alice.user.as_str(), alice.role), ("alice", Role::Member));
        assert_eq!(alice.project, "p1".into());
        assert!(tokens.caller("0123456789abcdeg").is_none());
        assert!(tokens.caller("").is_none());
    }

    fn refused(text: &str, line: usize, what: &str) {
        let error = Tokens::parse(text)
            .err()
            .expect("it is refused")
            .to_string();
        assert!(
            error.starts_with(&format!("line {line} ")) && error.contains(what),
            "{error}"
        );
    }

    #[test]
    fn what_is_wrong_is_named_without_the_token() {
        refused("0123456789abcdef alice p1", 1, "expected are");
        refused("\nshort alice p1 member", 2, "shorter");
        refused("0123456789abcdef alice p1 king", 1, "no role");
        refused("0123456789abcdef alice p/1 member", 1, "project");
        let twice = "0123456789abcdef a p member\n0123456789abcdef b p member";
        refused(twice, 2, "twice");
    }
}
