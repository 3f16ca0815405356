//! The last good policy, on disk: what a host enforces after a reboot when its policy file can't be
//! used.
//!
//! One file, so that it is whole or not there: a line of ours, then the policy's text.
//!
//! ```text
//! # portcullis: last good policy, revision 0.7, sha256 <64 digits of what follows this line>
//! ```
//! Knows nothing of: what a policy says.

use model::Revision;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    pub revision: Revision,
    pub text: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("the cached policy {path} is damaged ({what}); it is not used")]
    Damaged { path: PathBuf, what: &'static str },
    #[error("{step} the cached policy {path}: {source}")]
    Io {
        step: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// `None`: there is none yet.
pub fn load(path: &Path) -> Result<Option<Cached>, CacheError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("reading", path, source)),
    };
    parse(&bytes).map(Some).map_err(|what| CacheError::Damaged {
        path: path.to_owned(),
        what,
    })
}

/// The old one stays until the new one is safely on disk.
pub fn save(path: &Path, revision: Revision, text: &[u8]) -> Result<(), CacheError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let new = path.with_extension("new");
    let written = fs::create_dir_all(directory).and_then(|()| {
        let mut file = File::create(&new)?;
        file.write_all(header(revision, text).as_bytes())?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(directory)?.sync_all()
    });
    written.map_err(|source| {
        // A half-written one would only take room.
        let _ = fs::remove_file(&new);
        failed("writing", path, source)
    })
}

const MARK: &str = "# portcullis: last good policy, revision ";

fn header(revision: Revision, text: &[u8]) -> String {
    format!("{MARK}{revision}, sha256 {}\n", digest(text))
}

fn digest(text: &[u8]) -> String {
    Sha256::digest(text)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn parse(bytes: &[u8]) -> Result<Cached, &'static str> {
    let end = bytes
        .iter()
        .position(|b| *b == b'\n')
        .ok_or("it has no first line")?;
    let (line, text) = (&bytes[..end], &bytes[end + 1..]);
    let (revision, sum) = std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.strip_prefix(MARK))
        .and_then(|rest| rest.split_once(", sha256 "))
        .ok_or("its first line is not ours")?;
    let (epoch, commit) = revision.split_once('.').ok_or("it has no revision")?;
    if digest(text) != sum {
        return Err("its checksum is wrong");
    }
    Ok(Cached {
        revision: Revision {
            epoch: epoch.parse().map_err(|_| "its revision is no number")?,
            commit: commit.parse().map_err(|_| "its revision is no number")?,
        },
        text: text.to_vec(),
    })
}

fn failed(step: &'static str, path: &Path, source: io::Error) -> CacheError {
    CacheError::Io {
        step,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REVISION: Revision = Revision {
        epoch: 3,
        commit: 14,
    };

    #[test]
    fn a_saved_policy_comes_back_with_its_revision() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("deep/policy.yaml");
        assert_eq!(load(&path).expect("no file is no error"), None);
        for text in [&b"ports: {}\n"[..], b"", b"no newline at the end"] {
            save(&path, REVISION, text).expect("there is room");
            let expected = Cached {
                revision: REVISION,
                text: text.to_vec(),
            };
            assert_eq!(load(&path).expect("it is whole"), Some(expected));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let text = b"groups: {web: {}}\n";
        let whole = [header(REVISION, text).as_bytes(), text].concat();
        parse(&whole).expect("it is whole");
        for at in 0..whole.len() {
            assert!(parse(&whole[..at]).is_err(), "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            let seen = parse(&flipped);
            // A digit of the revision is the one thing that the sum doesn't cover, and only counts.
            assert!(
                seen.is_err() || seen.is_ok_and(|c| c.text == text),
                "flipped at {at}"
            );
        }
    }

    #[test]
    fn a_full_disk_leaves_the_old_policy() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("policy.yaml");
        save(&path, REVISION, b"old").expect("there is room");
        // What stands in the way of the new file makes the write fail as a full disk does.
        fs::create_dir(path.with_extension("new")).expect("a directory");
        let error = save(&path, REVISION, b"new").expect_err("it can't be written");
        assert!(error.to_string().starts_with("writing the cached policy"));
        let kept = load(&path).expect("it is whole").expect("it is there");
        assert_eq!(kept.text, b"old");
    }
}
