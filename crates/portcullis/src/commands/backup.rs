//! `backup`: a consistent copy of a store in a file, whether a server has it or not.

use crate::backup_file::{self, Whole};
use crate::client::MaybeServerArgs;
use crate::cluster::store_choice::{StoreArgs, StoreChoice};
use crate::failure::Failure;
use clap::Args;
use std::path::{Path, PathBuf};
use store::embedded::{Embedded, OpenError};

/// Make a backup of a server's store
///
/// Of a server that runs, with --server: it goes on meanwhile, and the backup is all that was there at one revision.
/// Without, of the file of one that is stopped. Of an etcd, its own tools make a snapshot (`etcdctl snapshot save`).
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis backup policy.backup --server http://127.0.0.1:9696 --token-file admin.token
  portcullis backup policy.backup --store file:/var/lib/portcullis/store    of a server that is stopped
  portcullis restore policy.backup --store file:/var/lib/portcullis/store   once the old one is moved away

Exit codes: 0 made, 1 the server refuses, 2 usage, 4 it can't be made. It is there whole, or not at all.")]
pub(crate) struct BackupArgs {
    /// Where the backup will be; nothing is written over
    to: PathBuf,

    #[command(flatten)]
    store: StoreArgs,

    #[command(flatten)]
    server: MaybeServerArgs,
}

pub(crate) fn run(args: BackupArgs) -> Result<(), Failure> {
    let revision = match args.server.client()? {
        Some(client) => {
            let Whole { revision } = backup_file::fetch(&client, &args.to)?;
            revision
        }
        None => of_file(&args.store.store, &args.to)?,
    };
    println!("{}: all up to revision {revision}", args.to.display());
    Ok(())
}

fn of_file(store: &StoreChoice, to: &Path) -> Result<String, Failure> {
    let StoreChoice::File(path) = store else {
        return Err(Failure::Usage(
            "of an etcd, its own tools make a snapshot: etcdctl snapshot save".to_owned(),
        ));
    };
    if !path.exists() {
        let path = path.display();
        return Err(Failure::System(format!("there is no store at {path}")));
    }
    let store = Embedded::open(path).map_err(|error| match error {
        OpenError::InUse { .. } => {
            Failure::System(format!("{error}; of a server that runs: --server"))
        }
        error => Failure::system(error),
    })?;
    let revision = store.backup(to).map_err(Failure::system)?;
    Ok(revision.to_string())
}
