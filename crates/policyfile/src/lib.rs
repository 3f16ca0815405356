//! The policy file: YAML, written by hand, read into an inventory.
//!
//! Place on the line: text -> reader -> draft -> resolve -> **inventory** -> compile.
//! A file is good as a whole or refused as a whole, with every error found and where; so nothing
//! half-read is ever enforced.
//! Knows nothing of: files on disk, devices that exist, how rules are enforced. What is well-formed
//! and still doubtful (a pair that enters no group, say) is for the compiler to find.
//! Source: docs/policy-file.md.

mod draft;
mod error;
mod expand;
mod nearest;
mod ports;
mod positions;
mod protocols;
mod reader;
mod resolve;
pub mod spoken;
mod words;

#[cfg(test)]
mod tests;

pub use error::{Error, ErrorKind, Errors, Excerpt, Position};
pub use nearest::suggestion;
pub use positions::Positions;

use error::Complaint;
use model::{HostId, Inventory};
use reader::Reader;
use resolve::Here;

/// The JSON schema of the file, for editors. It is weaker than [`parse`]: what it takes may still name
/// groups that aren't there. Only of quoted numbers it thinks worse.
pub const SCHEMA: &str = include_str!("../schema/policy.schema.json");

/// Longer files are refused.
pub const MAX_BYTES: usize = 64 << 20;
/// So many errors are reported of one file.
pub const MAX_ERRORS: usize = 20;
/// Rules of the model that a file may stand for.
pub const MAX_RULES: usize = 1_000_000;
/// Rules of the model that one rule of the file may stand for.
pub const MAX_RULES_OF_ONE: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    /// Its revision is the default one: whoever reads the file counts.
    pub inventory: Inventory,
    /// The host it was read for; [`parse`] has it in the inventory.
    pub host: HostId,
    pub positions: Positions,
}

/// Reads a policy file for one host. `file` is its name in messages.
///
/// A file without `hosts` describes this host alone, whatever its name; one with `hosts` has to name
/// it.
pub fn parse(text: &str, file: &str, host: &HostId) -> Result<PolicyFile, Errors> {
    let here = Here {
        host,
        is_one_of_them: true,
    };
    read(text, file, here)
}

/// As [`parse_bytes`], for all of a file's hosts; one without `hosts` is about `host`.
pub fn parse_whole(bytes: &[u8], file: &str, host: &HostId) -> Result<PolicyFile, Errors> {
    let here = Here {
        host,
        is_one_of_them: false,
    };
    read(utf8(bytes, file)?, file, here)
}

fn read(text: &str, file: &str, here: Here<'_>) -> Result<PolicyFile, Errors> {
    if text.len() > MAX_BYTES {
        let what = format!("the file has {} bytes", text.len());
        let advice = "a policy file has at most 64 MiB: 67108864 bytes";
        let mut log = error::Log::new("");
        let _ = log.note(None, Complaint::new(ErrorKind::TooLarge, what, advice));
        return Err(log.into_errors(file));
    }
    // The YAML reader would take it for the end of the file.
    if let Some(nul) = text.find('\0') {
        let what = "here is a NUL character";
        let complaint = Complaint::new(ErrorKind::Syntax, what, "a policy file is text: remove it");
        let mut log = error::Log::new(text);
        let _ = log.note(Some(error::end_of(&text[..nul])), complaint);
        return Err(log.into_errors(file));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::new(text);
    let drafted = draft::read(&mut reader);
    let mut log = reader.log;
    let resolved = drafted.and_then(|draft| resolve::resolve(draft, here, &mut log));
    match resolved {
        Ok((inventory, positions)) if log.len() == 0 => Ok(PolicyFile {
            inventory,
            host: here.host.clone(),
            positions,
        }),
        Ok(_) | Err(_) => Err(log.into_errors(file)),
    }
}

/// As [`parse`], from the bytes of a file.
pub fn parse_bytes(bytes: &[u8], file: &str, host: &HostId) -> Result<PolicyFile, Errors> {
    parse(utf8(bytes, file)?, file, host)
}

fn utf8<'a>(bytes: &'a [u8], file: &str) -> Result<&'a str, Errors> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let good = &bytes[..error.valid_up_to()];
            let good = std::str::from_utf8(good).expect("it is valid up to there");
            let what = "the file is not UTF-8: here is a byte of another encoding";
            let complaint = Complaint::new(ErrorKind::NotUtf8, what, "save it as UTF-8");
            let mut log = error::Log::new(good);
            let _ = log.note(Some(error::end_of(good)), complaint);
            Err(log.into_errors(file))
        }
    }
}
