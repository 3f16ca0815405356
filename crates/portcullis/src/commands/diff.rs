//! `diff`: which flows another policy would open, and which it would close.

use crate::client::{ClientArgs, with_file};
use crate::failure::Failure;
use crate::output::{FormatArgs, Tone, print};
use crate::policy_source::{located, read_file, this_host, understand};
use crate::reach_view::{Listing, has_scopes, rows};
use clap::Args;
use model::{HostId, Inventory};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Say which flows a new policy opens and closes, against an old one
///
/// What is compared is what the files permit, for every address, protocol and port: rules that are written
/// otherwise and permit the same are no difference. "Outside" is whoever has an address that no port of either
/// file has; a port that is in one file only is compared with nothing. What is not looked at is that of `reach`;
/// nor what else is in the files: devices, settings, what the guard checks.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis diff policy.yaml new.yaml
  portcullis diff policy.yaml new.yaml -o wide     with all names, however many
  portcullis diff policy.yaml new.yaml -o json
  portcullis diff -f policy.yaml                   against a server's policy, as `apply` would change it
  git show HEAD:policy.yaml > old.yaml && portcullis diff old.yaml policy.yaml

Rules are those of the new file where a flow opens, and those of the old one where it closes.

Exit codes, as of diff(1): 0 no flow opens or closes, 1 some do, 2 a file is invalid or can't be read.")]
pub(crate) struct DiffArgs {
    /// The policy file as it is
    #[arg(required_unless_present = "file")]
    old: Option<PathBuf>,

    /// The policy file as it would be
    #[arg(required_unless_present = "file")]
    new: Option<PathBuf>,

    /// What `apply` of this file would open and close on a server
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["old", "new"])]
    file: Option<PathBuf>,

    #[command(flatten)]
    client: ClientArgs,

    /// The host, where the files have several [default: this machine's name]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,

    #[command(flatten)]
    format: FormatArgs,
}

/// It has exit codes of its own.
pub(crate) fn run(args: DiffArgs) -> ExitCode {
    match differs(&args) {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::from(1),
        Err(failure) => {
            failure.tell();
            ExitCode::from(2)
        }
    }
}

fn differs(args: &DiffArgs) -> Result<bool, Failure> {
    let host = this_host(args.host.as_deref())?;
    let (old, new, names) = match (&args.file, &args.old, &args.new) {
        (Some(file), _, _) => {
            let client = args.client.client()?;
            let there = client.inventory()?;
            let shown = file.display().to_string();
            let then = with_file(there.clone(), &read_file(file)?, &shown, &host)?;
            (there, then, [client.server().to_owned(), shown])
        }
        (None, Some(old), Some(new)) => {
            let names = [old, new].map(|path| path.display().to_string());
            (inventory(old, &host)?, inventory(new, &host)?, names)
        }
        (None, _, _) => return Err(Failure::Usage("two files, or -f FILE".to_owned())),
    };
    let changes = policy::changes(&old, &new);
    let scopes = has_scopes(&old) || has_scopes(&new);
    let value = json!({
        "old": names[0],
        "new": names[1],
        "opened": rows(&changes.opened),
        "closed": rows(&changes.closed),
    });
    print(args.format.output, &value, |value, wide| {
        table(value, wide, scopes)
    });
    Ok(!(changes.opened.is_empty() && changes.closed.is_empty()))
}

/// What looks wrong in it is told as `check` does.
fn inventory(path: &Path, host: &HostId) -> Result<Inventory, Failure> {
    let file = path.display().to_string();
    let (read, findings) = understand(&read_file(path)?, &file, host).map_err(Failure::Policy)?;
    for finding in &findings {
        eprintln!("warning: {}", located(finding, &file, &read.positions));
    }
    Ok(read.inventory)
}

fn table(value: &Value, wide: bool, scopes: bool) -> String {
    let is_empty = |rows: &Value| rows.as_array().is_none_or(Vec::is_empty);
    let (opened, closed) = (&value["opened"], &value["closed"]);
    if is_empty(opened) && is_empty(closed) {
        return "no flow opens or closes\n".to_owned();
    }
    let marked = [
        ("opens", Tone::Doubtful, opened),
        ("closes", Tone::Plain, closed),
    ];
    let listing = Listing {
        wide,
        scopes,
        marked: &marked,
    };
    listing.text()
}
