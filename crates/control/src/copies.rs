//! A copy of the store while it is in use, for whoever keeps backups: all of it, as of one revision.
//!
//! It lies beside the store, where there is room for what is as large, and nobody else may read; and it has lost its
//! name when it is handed out, so that it goes with whoever has it. One at a time.
//! Knows nothing of: where the copy goes.

use model::Revision;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::embedded::{BackupError, Embedded};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::info;

pub struct Copies {
    store: Arc<Embedded>,
    beside: PathBuf,
    place: Arc<Semaphore>,
}

pub struct Copied {
    pub revision: Revision,
    pub file: File,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("another copy of the store is being made or sent")]
    Busy,
    #[error(transparent)]
    Store(#[from] BackupError),
    #[error("there is no copy of the store at {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the copy of the store has ended: {0}")]
    Ended(String),
}

/// The one before may have been taken, or its client gone, and nobody has noticed yet.
const PATIENCE: Duration = Duration::from_secs(3);

impl Copies {
    /// `path`: of the store.
    pub fn new(store: Arc<Embedded>, path: &Path) -> Self {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".copy-under-way");
        Self {
            store,
            beside: beside.into(),
            place: Arc::new(Semaphore::new(1)),
        }
    }

    /// Takes the time that all of it takes to be written. Commits go on meanwhile.
    pub async fn make(&self) -> Result<Copied, CopyError> {
        let place = timeout(PATIENCE, self.place.clone().acquire_owned()).await;
        let place = place.map_err(|_| CopyError::Busy)?;
        let place = place.map_err(|closed| CopyError::Ended(closed.to_string()))?;
        let (store, beside) = (self.store.clone(), self.beside.clone());
        let made = spawn_blocking(move || {
            let (revision, file) = make(&store, &beside)?;
            Ok(Copied {
                revision,
                file,
                _place: place,
            })
        });
        let made = made.await;
        made.unwrap_or_else(|panic| Err(CopyError::Ended(panic.to_string())))
    }
}

fn make(store: &Embedded, beside: &Path) -> Result<(Revision, File), CopyError> {
    let failed = |source| {
        let path = beside.to_owned();
        CopyError::Io { path, source }
    };
    // Of a server that was killed between the two.
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let revision = store.backup(beside)?;
    let file = File::open(beside).map_err(failed)?;
    fs::remove_file(beside).map_err(failed)?;
    info!(%revision, "the store was copied");
    Ok((revision, file))
}
