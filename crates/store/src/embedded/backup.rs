//! A consistent copy of a store, and a store from such a copy.
//!
//! A backup is a file of the same format, marked as one, without the log. What was committed after it is
//! lost when it is restored, and its commit numbers will be given a second time: so the new store has a
//! greater epoch, by which every watcher notices that it has to list again.
//!
//! Knows nothing of: command lines, when backups are made.

use super::file::{
    OpenError, beside, epoch_after, lock, make, open_file, sync_directory, writable,
};
use super::handle::Handle;
use super::tables::{META, Meta, PRESENCE, RECORDS};
use crate::ReadError;
use model::Revision;
use redb::{ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("there is no backup at {path}: {source}")]
    Write { path: PathBuf, source: OpenError },
    #[error("there is no backup: {0}")]
    Read(#[from] ReadError),
}

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{path} is there already, and nothing is written over it")]
    Exists { path: PathBuf },
    #[error(
        "the backup {path} is damaged ({what}), and nothing was restored. Is there an earlier one?"
    )]
    Damaged { path: PathBuf, what: String },
    #[error("the backup can't be restored: {0}")]
    Backup(OpenError),
    #[error("{path} is a store and no backup: it may be in use, or not up to date")]
    NoBackup { path: PathBuf },
    #[error("nothing was restored: {step} {path}: {source}")]
    Io {
        step: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

pub(super) fn backup(handle: &Handle, to: &Path) -> Result<Revision, BackupError> {
    let opened = handle.current()?;
    let snapshot = opened.database.begin_read();
    let snapshot = snapshot.map_err(|error| ReadError::Broken(error.to_string()))?;
    let meta = read_meta(&snapshot).map_err(|error| ReadError::Broken(error.to_string()))?;
    let kept = Meta {
        forgotten: meta.commit,
        log_bytes: 0,
        is_backup: true,
        ..meta
    };
    make(to, |copy| {
        super::file::write_tables(copy, &kept, |writing| copy_records(&snapshot, writing))
    })
    .map_err(|source| BackupError::Write {
        path: to.to_owned(),
        source,
    })?;
    Ok(meta.revision())
}

/// Not those of processes: they will have ended.
fn copy_records(from: &ReadTransaction, to: &WriteTransaction) -> Result<(), redb::Error> {
    let presence = from.open_table(PRESENCE)?;
    let mut copied = to.open_table(RECORDS)?;
    for entry in from.open_table(RECORDS)?.iter()? {
        let (key, bytes) = entry?;
        if presence.get(key.value())?.is_none() {
            copied.insert(key.value(), bytes.value())?;
        }
    }
    Ok(())
}

fn read_meta(snapshot: &ReadTransaction) -> Result<Meta, redb::Error> {
    Meta::load(&snapshot.open_table(META)?)
}

/// Makes a store at `path` from a backup, which stays as it is. The revision is where the new store
/// begins.
pub fn restore(backup: &Path, path: &Path) -> Result<Revision, RestoreError> {
    if path.exists() {
        let path = path.to_owned();
        return Err(RestoreError::Exists { path });
    }
    let new = beside(path);
    let restored = copy_with_new_epoch(backup, &new).and_then(|revision| {
        publish(&new, path)?;
        Ok(revision)
    });
    // Its other name stays, if it has got that far.
    let _ = fs::remove_file(&new);
    restored
}

/// The copy is what is checked and changed, so the backup may be on a medium that can't be written.
fn copy_with_new_epoch(backup: &Path, new: &Path) -> Result<Revision, RestoreError> {
    let failed = |step, path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::Io { step, path, source }
    };
    let file = copy(backup, new).map_err(failed("copying", backup))?;
    let file = lock(file, new).map_err(RestoreError::Backup)?;
    let (handle, meta) = open_file(file, backup).map_err(|error| match error {
        OpenError::Damaged { path, what } => RestoreError::Damaged { path, what },
        error => RestoreError::Backup(error),
    })?;
    if !meta.is_backup {
        let path = backup.to_owned();
        return Err(RestoreError::NoBackup { path });
    }
    let meta = Meta {
        epoch: epoch_after(meta.epoch),
        is_backup: false,
        ..meta
    };
    write_meta(&handle, &meta).map_err(|error| {
        let source = super::file::into_io(error);
        failed("writing", new)(source)
    })?;
    Ok(meta.revision())
}

fn copy(backup: &Path, new: &Path) -> io::Result<File> {
    let mut from = File::open(backup)?;
    let mut file = writable().create(true).truncate(true).open(new)?;
    io::copy(&mut from, &mut file)?;
    Ok(file)
}

fn write_meta(handle: &Handle, meta: &Meta) -> Result<(), redb::Error> {
    let opened = handle.current().map_err(|error| {
        let why = error.to_string();
        redb::Error::Io(io::Error::other(why))
    })?;
    let writing = opened.database.begin_write()?;
    meta.save(&mut writing.open_table(META)?)?;
    writing.commit()?;
    Ok(())
}

fn publish(new: &Path, path: &Path) -> Result<(), RestoreError> {
    let linked = fs::hard_link(new, path).and_then(|()| sync_directory(path));
    linked.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => RestoreError::Exists {
            path: path.to_owned(),
        },
        _ => RestoreError::Io {
            step: "creating",
            path: path.to_owned(),
            source,
        },
    })
}
