//! `restore`: a store from a backup, as what comes after all that was handed out before.

use crate::cluster::store_choice::{StoreArgs, StoreChoice};
use crate::commands::server::runtime;
use crate::failure::Failure;
use clap::Args;
use std::path::PathBuf;

/// Make a server's store from a backup
///
/// What was committed after the backup is lost, and commit numbers are given a second time; so the store gets a new
/// epoch, by which every host notices and takes all its policy anew. Nothing is written over: move the old store away
/// first. Of an etcd, its own tools restore the snapshot; this tells the hosts then.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis restore policy.backup --store file:/var/lib/portcullis/store
  portcullis restore --store etcd:https://10.0.0.1:2379 --etcd-ca etcd-ca.pem   after `etcdctl snapshot restore`

Exit codes: 0 restored, 2 usage, 4 it can't be, and nothing was changed.")]
pub(crate) struct RestoreArgs {
    /// The backup of a store in a file
    backup: Option<PathBuf>,

    #[command(flatten)]
    store: StoreArgs,
}

pub(crate) fn run(args: RestoreArgs) -> Result<(), Failure> {
    let revision = match (&args.store.store, &args.backup) {
        (StoreChoice::File(path), Some(backup)) => {
            store::embedded::restore(backup, path).map_err(Failure::system)?
        }
        (StoreChoice::Etcd { .. }, None) => runtime()?.block_on(async {
            let etcd = args.store.connect().await?;
            etcd.renew_epoch().await.map_err(Failure::system)
        })?,
        (StoreChoice::File(_), None) => {
            return Err(Failure::Usage("which backup? It comes first".to_owned()));
        }
        (StoreChoice::Etcd { .. }, Some(_)) => {
            return Err(Failure::Usage(
                "etcd's own tools restore a snapshot; then this is run without one".to_owned(),
            ));
        }
    };
    println!("the store begins at revision {revision}; hosts take all their policy anew");
    Ok(())
}
