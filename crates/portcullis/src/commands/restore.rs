//! `restore`: a store from a backup, as what comes after all that was handed out before.

use crate::cluster::store_choice::{StoreArgs, StoreChoice};
use crate::commands::server::runtime;
use crate::failure::Failure;
use clap::Args;
use model::Revision;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

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
    if let Some(warning) = behind(revision, SystemTime::now()) {
        eprintln!("{warning}");
    }
    Ok(())
}

/// An epoch is the time when a store was made, unless the clock was before that of the one it is made of.
fn behind(revision: Revision, now: SystemTime) -> Option<String> {
    let now = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    (revision.epoch > now).then(|| {
        format!(
            "warning: this machine's clock ({now} s since 1970) is behind the store's beginning ({}): hosts that \
             follow a store which was restored later won't follow this one. Set the clock, and restore again",
            revision.epoch
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_clock_that_is_behind_is_told_of() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let revision = Revision {
            epoch: 1000,
            commit: 1,
        };
        assert_eq!(behind(revision, at(1000)), None);
        let warning = behind(revision, at(999)).expect("it is before");
        assert!(warning.contains("Set the clock"), "{warning}");
    }
}
