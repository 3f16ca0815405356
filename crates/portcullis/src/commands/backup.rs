//! `backup`: a consistent copy of a store in a file.

use crate::cluster::store_choice::{StoreArgs, StoreChoice};
use crate::failure::Failure;
use clap::Args;
use std::path::PathBuf;
use store::embedded::Embedded;

/// Make a backup of a server's store
///
/// Of the file of a server that is stopped for this moment: a file has one user at a time. Hosts go on meanwhile. Of
/// an etcd, its own tools make a snapshot (`etcdctl snapshot save`).
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis backup policy.backup --store file:/var/lib/portcullis/store
  portcullis restore policy.backup --store file:/var/lib/portcullis/store   once the old one is moved away

Exit codes: 0 made, 2 usage, 4 it can't be: a server has the store open, say.")]
pub(crate) struct BackupArgs {
    /// Where the backup will be; nothing is written over
    to: PathBuf,

    #[command(flatten)]
    store: StoreArgs,
}

pub(crate) fn run(args: BackupArgs) -> Result<(), Failure> {
    let StoreChoice::File(path) = &args.store.store else {
        return Err(Failure::Usage(
            "of an etcd, its own tools make a snapshot: etcdctl snapshot save".to_owned(),
        ));
    };
    if !path.exists() {
        let path = path.display();
        return Err(Failure::System(format!("there is no store at {path}")));
    }
    let store = Embedded::open(path).map_err(Failure::system)?;
    let revision = store.backup(&args.to).map_err(Failure::system)?;
    println!("{}: all up to revision {revision}", args.to.display());
    Ok(())
}
