//! The open file: its database, which is opened anew after a failed write.
//!
//! redb refuses everything after the first error of a write, reads as well, until the file is opened again
//! (which finds the last whole commit). A full disk must not cost the readers anything: so that is done at
//! once, and whoever was disturbed reads again. The file stays open, and locked, all the while.
//!
//! Knows nothing of: tables.

use super::file::LockedFile;
use crate::ReadError;
use redb::{Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, StorageBackend};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

pub(super) struct Handle {
    /// `None`: it was closed.
    slot: Mutex<Option<Slot>>,
}

struct Slot {
    file: Arc<LockedFile>,
    /// `None`: it couldn't be opened again; that is tried each time.
    opened: Option<Arc<Opened>>,
}

pub(super) struct Opened {
    pub(super) database: Database,
    fence: Arc<Fence>,
}

/// Once it is shut, this database touches the file no more: another one does. Whoever shuts it waits for
/// what has begun.
#[derive(Debug, Default)]
struct Fence(RwLock<bool>);

/// What redb keeps of the file in memory.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

impl Handle {
    pub(super) fn new(file: Arc<LockedFile>, opened: Opened) -> Self {
        let opened = Some(Arc::new(opened));
        Self {
            slot: Mutex::new(Some(Slot { file, opened })),
        }
    }

    pub(super) fn current(&self) -> Result<Arc<Opened>, ReadError> {
        let mut slot = self.lock();
        let slot = slot.as_mut().ok_or_else(closed)?;
        match &slot.opened {
            Some(opened) => Ok(opened.clone()),
            None => slot.reopen(),
        }
    }

    /// In the place of one that has failed, unless somebody else has been faster.
    pub(super) fn renew(&self, failed: &Arc<Opened>) -> Result<Arc<Opened>, ReadError> {
        let mut slot = self.lock();
        let slot = slot.as_mut().ok_or_else(closed)?;
        match &slot.opened {
            Some(opened) if !Arc::ptr_eq(opened, failed) => Ok(opened.clone()),
            Some(_) | None => {
                failed.fence.shut();
                slot.reopen()
            }
        }
    }

    pub(super) fn read<T>(
        &self,
        read: impl Fn(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, ReadError> {
        let on = |opened: &Opened| read(&opened.database.begin_read()?);
        let opened = self.current()?;
        on(&opened).or_else(|_| {
            let renewed = self.renew(&opened)?;
            on(&renewed).map_err(|error| ReadError::Broken(error.to_string()))
        })
    }

    /// The lock goes with the file, when the last read has ended.
    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Slot>> {
        self.slot.lock().expect("nobody panics while holding it")
    }
}

impl Slot {
    fn reopen(&mut self) -> Result<Arc<Opened>, ReadError> {
        self.opened = None;
        let opened = Opened::open(self.file.clone(), Integrity::Trusted);
        let opened = opened.map_err(|error| ReadError::Broken(error.to_string()))?;
        Ok(self.opened.insert(Arc::new(opened)).clone())
    }
}

fn closed() -> ReadError {
    ReadError::Unavailable("the store was closed".to_owned())
}

#[derive(Clone, Copy)]
pub(super) enum Integrity {
    /// Every page is read and its checksum compared.
    Checked,
    /// Only what a crash may have left is.
    Trusted,
}

impl Opened {
    /// An empty file becomes an empty database.
    pub(super) fn open(file: Arc<LockedFile>, integrity: Integrity) -> Result<Self, DatabaseError> {
        let fence = Arc::new(Fence::default());
        let backend = Backend {
            file,
            fence: fence.clone(),
        };
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(matches!(integrity, Integrity::Checked))
            .create_with_backend(backend)?;
        Ok(Self { database, fence })
    }
}

impl Fence {
    fn shut(&self) {
        *self.0.write().expect("nobody panics while holding it") = true;
    }

    fn pass<T>(&self, to: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let is_shut = self.0.read().expect("nobody panics while holding it");
        if *is_shut {
            return Err(io::Error::other("the file was opened anew"));
        }
        to()
    }
}

/// The file as redb sees it. Locking is ours: the lock stays while databases on it come and go.
#[derive(Debug)]
struct Backend {
    file: Arc<LockedFile>,
    fence: Arc<Fence>,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.fence.pass(|| Ok(self.file.metadata()?.len()))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.fence.pass(|| self.file.read_exact_at(out, offset))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fence.pass(|| self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fence.pass(|| self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fence.pass(|| self.file.write_all_at(data, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::file::{lock, writable};
    use redb::TableDefinition;
    use std::cell::Cell;

    const TABLE: TableDefinition<&str, u64> = TableDefinition::new("table");

    fn write(opened: &Opened, number: u64) -> Result<(), redb::Error> {
        let writing = opened.database.begin_write()?;
        writing.open_table(TABLE)?.insert("number", number)?;
        writing.commit()?;
        Ok(())
    }

    fn number(snapshot: &ReadTransaction) -> Result<u64, redb::Error> {
        let found = snapshot.open_table(TABLE)?.get("number")?;
        Ok(found.expect("it was written").value())
    }

    fn handle() -> (Handle, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let file = writable().create(true).open(&path).expect("a file");
        let file = Arc::new(lock(file, &path).expect("nobody else has it"));
        let opened = Opened::open(file.clone(), Integrity::Trusted);
        let opened = opened.expect("an empty database");
        write(&opened, 1).expect("there is room");
        (Handle::new(file, opened), directory)
    }

    #[test]
    fn a_database_whose_place_was_taken_touches_the_file_no_more() {
        let (handle, _directory) = handle();
        let old = handle.current().expect("it is open");
        let writing = old.database.begin_write().expect("it is open");
        let table = writing.open_table(TABLE).expect("a table");
        { table }.insert("number", 2).expect("in memory yet");
        let new = handle.renew(&old).expect("it can be opened anew");
        writing.commit().expect_err("its place was taken");
        assert_eq!(handle.read(number), Ok(1));
        write(&new, 3).expect("there is room");
        let again = handle.renew(&old).expect("it has been opened anew");
        assert!(Arc::ptr_eq(&again, &new), "once is enough");
        drop((old, new, again));
        assert_eq!(handle.read(number), Ok(3), "its end writes nothing either");
    }

    #[test]
    fn a_read_that_was_disturbed_is_done_again() {
        let (handle, _directory) = handle();
        let before = handle.current().expect("it is open");
        let attempts = Cell::new(0);
        let disturbed = |snapshot: &ReadTransaction| {
            attempts.set(attempts.get() + 1);
            if attempts.get() == 1 {
                return Err(redb::Error::PreviousIo);
            }
            number(snapshot)
        };
        assert_eq!(handle.read(disturbed), Ok(1));
        let after = handle.current().expect("it is open");
        assert!(!Arc::ptr_eq(&before, &after));
        let hopeless = |_: &ReadTransaction| Err::<u64, _>(redb::Error::PreviousIo);
        assert!(matches!(handle.read(hopeless), Err(ReadError::Broken(_))));
        handle.close();
        assert_eq!(handle.read(number), Err(closed()));
    }
}
