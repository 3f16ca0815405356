//! How commands ask a running agent: one line there, one line of JSON back, over a socket that only
//! its owner may open.
//!
//! ```text
//! status   -> {"snapshot": ..., ...}        (status_view.rs)
//! policy   -> {"host": ..., "inspection": ..., "revision": ..., "text": text, or bytes if a server sent it}
//! confirm  -> {"confirmed": bool}           false: there was nothing to confirm
//! detach   -> {"error": null | text}        the agent ends behind it
//! ```

use crate::failure::Failure;
use crate::policy_source::InspectionArgs;
use crate::served_policy;
use agent::{Ask, Input, Instance, Mailbox};
use model::{HostId, Revision};
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// A large apply may be in the way of an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Requests are single words.
const MAX_REQUEST: u64 = 64;

/// For whom the agent reads its policy file, and what it puts over it.
pub(crate) struct PolicyOf {
    pub(crate) host: HostId,
    pub(crate) inspection: InspectionArgs,
}

/// Who asked last may still be waiting for the answer to be written.
pub(crate) struct Answering(Arc<Mutex<()>>);

impl Answering {
    /// Waits for that; the agent has ended, so that nothing new is answered.
    pub(crate) fn finish(self) {
        drop(self.0.lock());
    }
}

/// Answers until the agent ends. `status` makes a status of what the agent says.
pub(crate) fn serve(
    instance: &Instance,
    mailbox: Mailbox,
    status: impl Fn(&agent::Status) -> Value + Send + 'static,
    policy_of: PolicyOf,
) -> io::Result<Answering> {
    let path = instance.socket_path();
    // The lock says that whoever made it is gone.
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    let busy = Arc::new(Mutex::new(()));
    let answering = Answering(Arc::clone(&busy));
    let serve = move || {
        for stream in listener.incoming() {
            // One that can't be accepted, or goes away, concerns only who asked.
            let Ok(stream) = stream else { continue };
            let _busy = busy.lock();
            if let Err(error) = answer(stream, &mailbox, &status, &policy_of) {
                tracing::debug!(%error, "control request not answered");
            }
        }
    };
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(serve)
        .map(|_| answering)
}

fn answer(
    stream: UnixStream,
    mailbox: &Mailbox,
    status: &dyn Fn(&agent::Status) -> Value,
    policy_of: &PolicyOf,
) -> io::Result<()> {
    // Who connects and says nothing must not keep others out for long.
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    let mut request = String::new();
    BufReader::new((&stream).take(MAX_REQUEST)).read_line(&mut request)?;
    let answer = match request.trim() {
        "status" => ask(mailbox, Ask::Status).map(|s| status(&s)),
        "policy" => ask(mailbox, Ask::Policy).map(|p| policy(p, policy_of)),
        "confirm" => ask(mailbox, Ask::Confirm).map(|c| json!({ "confirmed": c })),
        "detach" => ask(mailbox, Ask::Detach).map(|r| json!({ "error": r.err() })),
        other => Some(json!({ "error": format!("unknown request {other:?}") })),
    };
    let answer = answer.unwrap_or_else(|| json!({ "error": "the agent is ending" }));
    writeln!(&stream, "{answer}")
}

fn policy(newest: Option<(Revision, Arc<[u8]>)>, of: &PolicyOf) -> Value {
    let (revision, text) = newest.unzip();
    json!({
        "host": of.host.as_str(),
        "inspection": of.inspection.name(),
        "revision": revision.map(|revision| revision.to_string()),
        "text": text.map(|bytes| match std::str::from_utf8(&bytes) {
            Ok(text) if !served_policy::is_one(&bytes) => json!(text),
            Ok(_) | Err(_) => json!(*bytes),
        }),
    })
}

/// Of an answer to `policy`; `None`: the agent has none.
pub(crate) fn policy_bytes(answer: &Value) -> Option<Vec<u8>> {
    match &answer["text"] {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Array(bytes) => bytes
            .iter()
            .map(|byte| u8::try_from(byte.as_u64()?).ok())
            .collect(),
        _ => None,
    }
}

fn ask<T>(mailbox: &Mailbox, question: impl FnOnce(mpsc::Sender<T>) -> Ask) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    mailbox.send(Input::Ask(question(sender)));
    receiver.recv_timeout(PATIENCE).ok()
}

/// `None`: no agent runs.
pub(crate) fn request(instance: &Instance, word: &str) -> Result<Option<Value>, Failure> {
    let path = instance.socket_path();
    let failed = |step: &str, e: io::Error| {
        Failure::System(format!(
            "asking the agent of instance {} ({step} {}): {e}",
            instance.name(),
            path.display()
        ))
    };
    let stream = match connect(&path) {
        Ok(stream) => stream,
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(failed("connecting to", e)),
    };
    writeln!(&stream, "{word}").map_err(|e| failed("writing to", e))?;
    let mut line = String::new();
    BufReader::new(&stream)
        .read_line(&mut line)
        .map_err(|e| failed("reading from", e))?;
    let value = serde_json::from_str(&line).map_err(|e| failed("reading from", e.into()))?;
    Ok(Some(value))
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE + Duration::from_secs(5)))?;
    Ok(stream)
}
