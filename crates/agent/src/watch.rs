//! Follows a policy file: reads it again whenever it may have changed.
//!
//! Place on the line: **policy file -> text** -> inventory.
//!
//! Watched are the directories of the path and of every symbolic link on the way, so that writing in
//! place, renaming over it and swapping a link are all seen. A writer that has the file open is waited
//! for; a slow look every two seconds finds what inotify can't tell (a directory higher up that was
//! swapped, network file systems).
//! Knows nothing of: what the text means.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// No policy is larger: 100,000 rules by hand are some 10 MB.
pub const MAX_BYTES: u64 = 64 << 20;

pub struct Watch {
    path: PathBuf,
    inotify: OwnedFd,
    poke: Arc<OwnedFd>,
    /// By watch descriptor: the names in that directory that lead to the file.
    names: BTreeMap<i32, Vec<OsString>>,
}

/// Makes the watch read the file now.
#[derive(Clone, Debug)]
pub struct Poke(Arc<OwnedFd>);

#[derive(Debug, thiserror::Error)]
#[error("watching {path} for changes: {source}")]
pub struct WatchError {
    path: PathBuf,
    source: io::Error,
}

impl Poke {
    pub fn poke(&self) {
        // Fails only when the counter is full, and then the watch is about to read anyway.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

impl Watch {
    pub fn new(path: &Path) -> Result<(Self, Poke), WatchError> {
        let failed = |source: Errno| WatchError {
            path: path.to_owned(),
            source: source.into(),
        };
        let flags = CreateFlags::NONBLOCK | CreateFlags::CLOEXEC;
        let inotify = inotify::init(flags).map_err(failed)?;
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        let poke = Arc::new(eventfd(0, flags).map_err(failed)?);
        let watch = Self {
            path: path.to_owned(),
            inotify,
            poke: poke.clone(),
            names: BTreeMap::new(),
        };
        Ok((watch, Poke(poke)))
    }

    /// Tells what the file holds, or why it can't be read: now, and whenever that has changed or
    /// someone pokes. Ends when `tell` says `false`.
    pub fn follow(
        mut self,
        mut tell: impl FnMut(Result<&[u8], &str>) -> bool,
    ) -> Result<(), WatchError> {
        let mut told = None;
        loop {
            // Watched first: what changes while it is read wakes us again.
            self.watch_directories();
            let mark = Mark::of(&self.path);
            let now = read(&self.path);
            let new = told.as_ref() != Some(&now);
            if new && !tell(now.as_ref().map(Vec::as_slice).map_err(String::as_str)) {
                return Ok(());
            }
            if new {
                told = Some(now);
            }
            let poked = self.wait(&mark).map_err(|source| WatchError {
                path: self.path.clone(),
                source: source.into(),
            })?;
            if poked {
                told = None;
            }
        }
    }

    /// Until the file may have changed, and no one seems to be writing it. `true`: someone poked.
    fn wait(&mut self, mark: &Mark) -> rustix::io::Result<bool> {
        let mut due: Option<Instant> = None;
        let mut latest: Option<Instant> = None;
        loop {
            let now = Instant::now();
            if due.is_some_and(|due| due <= now) {
                return Ok(false);
            }
            let timeout = due.map_or(LOOK_EVERY, |due| due - now);
            let timeout = Timespec::try_from(timeout).expect("it is a few seconds");
            let mut ready = [
                PollFd::new(&self.inotify, PollFlags::IN),
                PollFd::new(&*self.poke, PollFlags::IN),
            ];
            match poll(&mut ready, Some(&timeout)) {
                Ok(0) if due.is_none() && Mark::of(&self.path) != *mark => return Ok(false),
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
            if !ready[1].revents().is_empty() {
                let mut count = [0; 8];
                // Emptied, or emptied by another reader: both are fine.
                let _ = rustix::io::read(&*self.poke, &mut count);
                return Ok(true);
            }
            if let Some(settles) = self.settles_after()? {
                let now = Instant::now();
                let latest = *latest.get_or_insert(now + PATIENCE);
                due = Some((now + settles).min(latest));
            }
        }
    }

    /// Takes what inotify has to say; how long to wait for more after the last that concerns us.
    fn settles_after(&self) -> rustix::io::Result<Option<Duration>> {
        let mut settles = None;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(self.inotify.as_fd(), &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::WOULDBLOCK) => return Ok(settles),
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e),
            };
            let concerns = match event.file_name() {
                // The directory itself, or more events than the kernel kept.
                None => true,
                Some(name) => {
                    let name = OsString::from_vec(name.to_bytes().to_vec());
                    self.names
                        .get(&event.wd())
                        .is_some_and(|names| names.contains(&name))
                }
            };
            if concerns {
                settles = Some(settling_time(event.events()));
            }
        }
    }

    /// What can't be watched (a directory that isn't there yet) is found by looking.
    fn watch_directories(&mut self) {
        let mut names: BTreeMap<i32, Vec<OsString>> = BTreeMap::new();
        for hop in hops(&self.path) {
            let directory = match hop.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                Some(_) | None => Path::new("."),
            };
            let Some(name) = hop.file_name() else {
                continue;
            };
            match inotify::add_watch(&self.inotify, directory, WATCHED) {
                Ok(watch) => names.entry(watch).or_default().push(name.to_owned()),
                Err(error) => {
                    tracing::debug!(directory = %directory.display(), %error, "not watched");
                }
            }
        }
        for stale in self.names.keys().filter(|w| !names.contains_key(w)) {
            // Gone already when its directory is.
            let _ = inotify::remove_watch(&self.inotify, *stale);
        }
        self.names = names;
    }
}

/// Looks even if nothing was told.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Reads at the latest this long after the first sign of a change.
const PATIENCE: Duration = Duration::from_secs(2);

const WATCHED: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

/// A file that is being written gets a `CLOSE_WRITE`, one that is away perhaps a successor.
fn settling_time(events: ReadFlags) -> Duration {
    let ms = if events.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO) {
        5
    } else if events.contains(ReadFlags::MODIFY) {
        1_000
    } else if events.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
        200
    } else {
        50
    };
    Duration::from_millis(ms)
}

/// The path, and where each symbolic link in its place leads; the last is the file.
fn hops(path: &Path) -> Vec<PathBuf> {
    /// As many as the kernel follows.
    const MAX_LINKS: usize = 40;
    let mut hops = vec![path.to_owned()];
    let mut at = 0;
    while at < hops.len() && hops.len() < MAX_LINKS {
        let here = hops[at].clone();
        at += 1;
        if let Ok(target) = fs::read_link(&here) {
            let parent = here.parent().unwrap_or(Path::new("."));
            hops.push(parent.join(target));
        }
        // A link among the directories right above it, as when a whole directory is swapped.
        if let Some(parent) = here.parent()
            && fs::read_link(parent).is_ok()
            && !hops.contains(&parent.to_owned())
        {
            hops.push(parent.to_owned());
        }
    }
    hops
}

/// Tells two states of a file apart without reading it.
#[derive(PartialEq, Eq)]
struct Mark(Option<(u64, u64, u64, i64, i64)>);

impl Mark {
    fn of(path: &Path) -> Self {
        Self(fs::metadata(path).ok().map(|m| {
            (
                m.dev(),
                m.ino(),
                m.size(),
                m.mtime()
                    .wrapping_mul(1_000_000_000)
                    .wrapping_add(m.mtime_nsec()),
                m.ctime()
                    .wrapping_mul(1_000_000_000)
                    .wrapping_add(m.ctime_nsec()),
            )
        }))
    }
}

/// The file's bytes, or a sentence.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|e| format!("can't read {}: {e}", path.display()))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!(
            "{} is larger than {} MiB, the most that is read",
            path.display(),
            MAX_BYTES >> 20
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc;

    type Step<'a> = (&'a dyn Fn(), &'a str);

    /// What is told at the start, then after each change.
    fn check(path: &Path, first: &str, steps: &[Step<'_>]) {
        let (watch, _poke) = Watch::new(path).expect("inotify is here");
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            watch.follow(|text| {
                let text = text.map_or("unreadable", |t| std::str::from_utf8(t).expect("text"));
                tell.send(text.to_owned()).is_ok()
            })
        });
        let next = || {
            told.recv_timeout(Duration::from_secs(10))
                .expect("the change is told")
        };
        assert_eq!(next(), first);
        for (change, expected) in steps {
            change();
            assert_eq!(&next(), expected);
        }
        drop(told);
        fs::write(path, "the end").expect("it can be written");
        thread
            .join()
            .expect("it doesn't panic")
            .expect("it ends when no one listens");
    }

    #[test]
    fn writing_renaming_and_removing_are_seen() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("policy.yaml");
        let other = root.path().join("other");
        let write = |text: &'static str| {
            let path = path.clone();
            move || fs::write(&path, text).expect("it can be written")
        };
        let rename = || {
            fs::write(&other, "three").expect("it can be written");
            fs::rename(&other, &path).expect("it can be renamed");
        };
        let remove = || fs::remove_file(&path).expect("it can be removed");
        check(
            &path,
            "unreadable",
            &[
                (&write("one"), "one"),
                (&write("two"), "two"),
                (&rename, "three"),
                (&write("four"), "four"),
                (&remove, "unreadable"),
                (&write("five"), "five"),
            ],
        );
    }

    #[test]
    fn a_file_is_read_when_its_writer_is_done() {
        use std::io::Write;
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("policy.yaml");
        fs::write(&path, "old").expect("it can be written");
        let write_in_parts = || {
            let mut file = File::create(&path).expect("it can be truncated");
            for part in [&b"ne"[..], b"w"] {
                file.write_all(part).expect("it can be written");
            }
        };
        check(&path, "old", &[(&write_in_parts, "new")]);
    }

    #[test]
    fn swapped_links_are_seen_for_the_file_and_for_its_directory() {
        let root = tempfile::tempdir().expect("a directory");
        for version in ["v1", "v2", "v3"] {
            fs::create_dir(root.path().join(version)).expect("a directory");
            fs::write(root.path().join(version).join("policy.yaml"), version).expect("a file");
        }
        let swap = |link: &'static str, target: &'static str| {
            let (link, new) = (root.path().join(link), root.path().join("new"));
            move || {
                symlink(target, &new).expect("a link");
                fs::rename(&new, &link).expect("it can be renamed");
            }
        };
        swap("current", "v1")();
        let path = root.path().join("current/policy.yaml");
        check(&path, "v1", &[(&swap("current", "v2"), "v2")]);
        swap("policy.yaml", "v3/policy.yaml")();
        let path = root.path().join("policy.yaml");
        let link = swap("policy.yaml", "v1/policy.yaml");
        check(&path, "v3", &[(&link, "v1")]);
    }

    #[test]
    fn a_poke_tells_again() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("policy.yaml");
        fs::write(&path, "same").expect("it can be written");
        let (watch, poke) = Watch::new(&path).expect("inotify is here");
        let mut times = 0;
        watch
            .follow(|text| {
                assert_eq!(text, Ok(&b"same"[..]));
                times += 1;
                poke.poke();
                times < 3
            })
            .expect("it ends when told to");
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("policy.yaml");
        let file = File::create(&path).expect("a file");
        file.set_len(MAX_BYTES + 1).expect("a sparse file");
        let error = read(&path).expect_err("it is too large");
        assert!(error.ends_with("is larger than 64 MiB, the most that is read"));
    }
}
