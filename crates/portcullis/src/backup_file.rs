//! A backup that comes from a running server, into a file: whole, or not at all.
//!
//! ```text
//! FILE.new (locked, written, length and digest compared, on the disk) -> FILE
//! ```
//! What is called as asked is a backup. One that was cut short is removed; where nobody could (`kill -9`), it keeps its
//! other name, and the next try begins there anew.
//! Knows nothing of: what is in a backup.

use crate::client::Client;
use crate::failure::Failure;
use sha2::{Digest, Sha256};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write, stderr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use ureq::http::HeaderMap;

pub(crate) struct Whole {
    pub(crate) revision: String,
}

/// The server copies its store first.
const BEGINS: Duration = Duration::from_secs(660);
const CHUNK_BYTES: usize = 256 * 1024;
const TELL: Duration = Duration::from_millis(200);
/// Nobody else's to read: it says who may talk to whom.
const MODE: u32 = 0o600;

struct Promise {
    bytes: u64,
    sha256: String,
    revision: String,
}

pub(crate) fn fetch(client: &Client, to: &Path) -> Result<Whole, Failure> {
    if to.exists() {
        return Err(exists(to));
    }
    let signals = Signals::new([SIGINT, SIGTERM]).map_err(failed("minding signals for", to))?;
    let (new, mut file) = beside(to)?;
    remove_when_interrupted(signals, new.clone());
    let written = write(client, &mut file, &new).and_then(|promise| {
        publish(&new, to)?;
        Ok(promise)
    });
    let _ = fs::remove_file(&new);
    written.map(|Promise { revision, .. }| Whole { revision })
}

/// What has got its right name by then is whole, and stays.
fn remove_when_interrupted(mut signals: Signals, new: PathBuf) {
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let _ = fs::remove_file(new);
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    });
}

fn exists(to: &Path) -> Failure {
    let to = to.display();
    Failure::System(format!(
        "{to} is there already, and nothing is written over it"
    ))
}

fn beside(to: &Path) -> Result<(PathBuf, File), Failure> {
    let mut new = to.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(MODE);
    let file = options.open(&new).map_err(failed("creating", &new))?;
    if file.try_lock().is_err() {
        let to = to.display();
        return Err(Failure::System(format!(
            "another backup to {to} is under way"
        )));
    }
    file.set_len(0).map_err(failed("creating", &new))?;
    Ok((new, file))
}

fn write(client: &Client, file: &mut File, new: &Path) -> Result<Promise, Failure> {
    let mut progress = Progress::new();
    progress.tell("the server copies its store");
    let mut answer = client.download("/portcullis/v1/backup", BEGINS)?;
    let promise = Promise::of(answer.headers()).ok_or_else(|| {
        let server = client.server();
        Failure::System(format!(
            "{server} sends no backup: is it a Portcullis server?"
        ))
    })?;
    let mut body = answer.body_mut().as_reader();
    let (mut digest, mut bytes) = (Sha256::new(), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = body.read(&mut chunk).map_err(|error| {
            let (server, of) = (client.server(), promise.bytes);
            Failure::System(format!(
                "there is no backup: {server} has sent {bytes} of {of} bytes: {error}"
            ))
        })?;
        if read == 0 {
            break;
        }
        digest.update(&chunk[..read]);
        file.write_all(&chunk[..read])
            .map_err(failed("writing", new))?;
        bytes += read as u64;
        progress.maybe(|| format!("{bytes} of {} bytes", promise.bytes));
    }
    progress.end();
    let digits = digest.finalize();
    let digits: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    if (bytes, &digits) != (promise.bytes, &promise.sha256) {
        let (server, of) = (client.server(), promise.bytes);
        return Err(Failure::System(format!(
            "there is no backup: what {server} has sent, {bytes} of {of} bytes, is not what it has"
        )));
    }
    file.sync_all().map_err(failed("writing", new))?;
    Ok(promise)
}

fn publish(new: &Path, to: &Path) -> Result<(), Failure> {
    let directory = to.parent().filter(|parent| *parent != Path::new(""));
    let directory = directory.unwrap_or(Path::new("."));
    match fs::hard_link(new, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists(to)),
        linked => linked.map_err(failed("creating", to))?,
    }
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(failed("writing the directory of", to))
}

fn failed<'a>(step: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Failure + 'a {
    move |error| {
        let path = path.display();
        Failure::System(format!("there is no backup: {step} {path}: {error}"))
    }
}

impl Promise {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        Some(Self {
            bytes: text("content-length")?.parse().ok()?,
            sha256: text("x-portcullis-sha256")?.to_owned(),
            revision: text("x-portcullis-revision")?.to_owned(),
        })
    }
}

/// On a terminal alone.
struct Progress {
    on_terminal: bool,
    told: Instant,
}

impl Progress {
    fn new() -> Self {
        Self {
            on_terminal: stderr().is_terminal(),
            told: Instant::now(),
        }
    }

    fn maybe(&mut self, text: impl Fn() -> String) {
        if self.told.elapsed() >= TELL {
            self.tell(&text());
        }
    }

    fn tell(&mut self, text: &str) {
        self.told = Instant::now();
        if self.on_terminal {
            eprint!("\r{text}\x1b[K");
            // Who closed stderr sees no progress; the backup goes on.
            let _ = stderr().flush();
        }
    }

    fn end(&self) {
        if self.on_terminal {
            eprint!("\r\x1b[K");
        }
    }
}
