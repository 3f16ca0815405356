//! From a path to an open store: made if there is none, locked, checked.
//!
//! A new file is made under another name and appears whole. Each page of an old one is checked before
//! anything is believed, because redb may panic at what it takes for its own.
//!
//! Knows nothing of: records.

use super::handle::{Handle, Integrity, Opened};
use super::tables::{FORMAT, LOG, META, Meta, PRESENCE, RECORDS};
use redb::{DatabaseError, ReadableDatabase, StorageError, TableError};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the store {path} is in use by another process; only one can have it")]
    InUse { path: PathBuf },
    #[error(
        "the store {path} is damaged ({what}). Stop the service first, as a server that is started without a store \
         makes an empty one; then move this one away, restore the last backup, and start it. Keep this one, to find \
         out what happened"
    )]
    Damaged { path: PathBuf, what: String },
    #[error(
        "{path} is no store of Portcullis ({what}); nothing was changed. Is it the right path?"
    )]
    NotAStore { path: PathBuf, what: String },
    #[error(
        "the store {path} has format {format}, this program knows {FORMAT} at most: a newer Portcullis has \
         written it, use that one"
    )]
    Newer { path: PathBuf, format: u64 },
    #[error("{path} is a backup; restore it to another path and open that")]
    IsBackup { path: PathBuf },
    #[error("{step} the store {path}: {source}")]
    Io {
        step: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// Nobody else has it while this lives.
#[derive(Debug)]
pub(super) struct LockedFile(File);

impl std::ops::Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

/// Said, because closing isn't enough: a process that is being started has the file as well, for a moment.
impl Drop for LockedFile {
    fn drop(&mut self) {
        // If it can't be unlocked, the close that follows does what can be done.
        let _ = self.0.unlock();
    }
}

impl OpenError {
    pub(super) fn io(step: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self::Io { step, path, source }
    }
}

pub(super) fn open(path: &Path) -> Result<(Handle, Meta), OpenError> {
    let file = match writable().open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path)?,
        Err(source) => return Err(OpenError::io("opening", path, source)),
    };
    let (opened, meta) = open_file(lock(file, path)?, path)?;
    if meta.is_backup {
        let path = path.to_owned();
        return Err(OpenError::IsBackup { path });
    }
    Ok((opened, meta))
}

/// Everything in it is checked.
pub(super) fn open_file(file: LockedFile, path: &Path) -> Result<(Handle, Meta), OpenError> {
    let length = file.metadata().map(|metadata| metadata.len());
    if length.map_err(|source| OpenError::io("reading", path, source))? == 0 {
        return Err(OpenError::NotAStore {
            path: path.to_owned(),
            what: "it is empty".to_owned(),
        });
    }
    let file = Arc::new(file);
    let opened = open_checked(file.clone()).map_err(|error| refused(path, error))?;
    let meta = load_meta(&opened).map_err(|error| match error {
        redb::Error::TableDoesNotExist(_) | redb::Error::TableTypeMismatch { .. } => {
            OpenError::NotAStore {
                path: path.to_owned(),
                what: error.to_string(),
            }
        }
        error => OpenError::Damaged {
            path: path.to_owned(),
            what: error.to_string(),
        },
    })?;
    if meta.format > FORMAT {
        let (path, format) = (path.to_owned(), meta.format);
        return Err(OpenError::Newer { path, format });
    }
    Ok((Handle::new(file, opened), meta))
}

/// On a thread of its own: a file that is damaged in just the right way makes redb panic, which must not be
/// the end of us.
fn open_checked(file: Arc<LockedFile>) -> Result<Opened, DatabaseError> {
    let opening = thread::spawn(move || Opened::open(file, Integrity::Checked));
    opening.join().unwrap_or_else(|_| {
        let what = "it makes no sense to its reader".to_owned();
        Err(StorageError::Corrupted(what).into())
    })
}

fn load_meta(opened: &Opened) -> Result<Meta, redb::Error> {
    let snapshot = opened.database.begin_read()?;
    for table in [
        snapshot.open_table(RECORDS).err(),
        snapshot.open_table(LOG).err(),
    ] {
        table.map_or(Ok(()), |error: TableError| Err(error))?;
    }
    snapshot.open_table(PRESENCE)?;
    Meta::load(&snapshot.open_table(META)?)
}

fn refused(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::Storage(StorageError::Io(source)) => match source.kind() {
            io::ErrorKind::InvalidData => OpenError::NotAStore {
                path,
                what: source.to_string(),
            },
            // The file ends before what it says is in it.
            io::ErrorKind::UnexpectedEof => OpenError::Damaged {
                path,
                what: "it is cut short".to_owned(),
            },
            _ => OpenError::io("reading", &path, source),
        },
        other => OpenError::Damaged {
            path,
            what: other.to_string(),
        },
    }
}

fn create(path: &Path) -> Result<File, OpenError> {
    let meta = Meta {
        format: FORMAT,
        epoch: epoch_after(0),
        commit: 0,
        forgotten: 0,
        log_bytes: 0,
        is_backup: false,
    };
    let made = make(path, |opened| write_tables(opened, &meta, |_| Ok(())));
    match made {
        // Somebody else has been faster.
        Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    let file = writable().open(path);
    file.map_err(|source| OpenError::io("opening", path, source))
}

/// A file at `path` appears when `fill` is done, or not at all. What is there already stays.
pub(super) fn make(
    path: &Path,
    fill: impl FnOnce(Opened) -> Result<(), redb::Error>,
) -> Result<(), OpenError> {
    let new = beside(path);
    let failed = |step| move |source| OpenError::io(step, path, source);
    let file = writable().create(true).truncate(false).open(&new);
    let file = lock(file.map_err(failed("creating"))?, path)?;
    file.set_len(0).map_err(failed("creating"))?;
    let filled = Opened::open(Arc::new(file), Integrity::Trusted)
        .map_err(redb::Error::from)
        .and_then(fill)
        .map_err(into_io)
        .and_then(|()| fs::hard_link(&new, path));
    let removed = fs::remove_file(&new);
    filled.and(removed).map_err(failed("creating"))?;
    sync_directory(path).map_err(failed("creating"))
}

/// A store's tables, with something in them. Closes the database.
pub(super) fn write_tables(
    opened: Opened,
    meta: &Meta,
    fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    let writing = opened.database.begin_write()?;
    writing.open_table(RECORDS)?;
    writing.open_table(LOG)?;
    writing.open_table(PRESENCE)?;
    meta.save(&mut writing.open_table(META)?)?;
    fill(&writing)?;
    writing.commit()?;
    opened.database.close()?;
    Ok(())
}

/// The name of a file that isn't there yet.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

pub(super) fn lock(file: File, path: &Path) -> Result<LockedFile, OpenError> {
    match file.try_lock() {
        Ok(()) => Ok(LockedFile(file)),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(OpenError::io("locking", path, source)),
    }
}

/// Nobody else's to read: it says who may talk to whom.
pub(super) const MODE: u32 = 0o600;

pub(super) fn writable() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(MODE);
    options
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| *parent != Path::new(""));
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Greater than another one, and than that of any store made before: the time in seconds, if the clock is
/// right. So a store that was lost and made anew, or restored twice, is another one to everybody.
pub(super) fn epoch_after(epoch: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs()).max(epoch + 1)
}

pub(super) fn into_io(error: redb::Error) -> io::Error {
    match error {
        redb::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}
