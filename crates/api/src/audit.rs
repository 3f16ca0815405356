//! What was changed, by whom: a line of JSON for each request that would change something, also if it was refused.
//!
//! ```text
//! {"time":"...","request":"req-...","user":"u","project":"p","role":"member","method":"PUT",
//!  "path":"/v2.0/ports/P","status":200,"kind":"port","id":"P","before":{...},"after":{...}}
//! ```
//! *Before* is what the server's copy had when the request came, *after* what it had when it was answered: another
//! change of the same object in between is in both lines.
//! A line that can't be written is an error in the log, with all that is in it; the change is made by then. Where
//! just its beginning could be (a full disk), the next one begins a line of its own all the same.

use crate::times;
use control::{Caller, Role};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::error;

/// Where the lines go. What it is given is one line at a time, with its end.
pub struct Audit {
    to: Mutex<Lines>,
}

struct Lines {
    to: Box<dyn Write + Send>,
    /// What was written last is no whole line.
    is_torn: bool,
}

/// What a request has changed: one object each.
#[derive(Debug, PartialEq)]
pub(crate) struct Touched {
    pub(crate) kind: &'static str,
    pub(crate) id: String,
    pub(crate) before: Value,
    pub(crate) after: Value,
}

/// Whose request, and what came of it.
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a str,
    pub(crate) who: &'a Caller,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) status: StatusCode,
    /// If it was refused.
    pub(crate) refusal: Option<&'a str>,
}

impl Audit {
    pub fn new(to: impl Write + Send + 'static) -> Self {
        Self::after(to, false)
    }

    /// Goes on in a file, or begins it.
    pub fn append_to(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        // Who may write to it need not be allowed to read it.
        let is_torn = file.metadata()?.is_file() && ends_torn(path).unwrap_or(false);
        Ok(Self::after(file, is_torn))
    }

    fn after(to: impl Write + Send + 'static, is_torn: bool) -> Self {
        let to = Box::new(to);
        Self {
            to: Mutex::new(Lines { to, is_torn }),
        }
    }

    pub(crate) fn write(&self, asked: &Asked<'_>, touched: &[Touched]) {
        let mut lines = String::new();
        for touched in touched {
            let mut line = asked.json();
            line["kind"] = touched.kind.into();
            line["id"] = touched.id.as_str().into();
            line["before"] = touched.before.clone();
            line["after"] = touched.after.clone();
            lines += &format!("{line}\n");
        }
        if touched.is_empty() {
            lines = format!("{}\n", asked.json());
        }
        let mut to = self.to.lock().expect("nothing panics while it is held");
        if let Err(cause) = to.write(&lines) {
            error!(%cause, lines, "the audit log can't be written");
        }
    }
}

impl Lines {
    fn write(&mut self, lines: &str) -> io::Result<()> {
        let end = if self.is_torn { "\n" } else { "" };
        let bytes = [end.as_bytes(), lines.as_bytes()].concat();
        let mut written = 0;
        while written < bytes.len() {
            let more = match self.to.write(&bytes[written..]) {
                Ok(0) => Err(ErrorKind::WriteZero.into()),
                Err(cause) if cause.kind() == ErrorKind::Interrupted => continue,
                more => more,
            };
            written += more?;
            self.is_torn = bytes[written - 1] != b'\n';
        }
        self.to.flush()
    }
}

fn ends_torn(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

impl Asked<'_> {
    fn json(&self) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut line = json!({
            "time": times::written(now.map_or(0, |now| now.as_secs())),
            "request": self.request,
            "user": self.who.user,
            "project": self.who.project.as_str(),
            "role": match self.who.role {
                Role::Reader => "reader",
                Role::Member => "member",
                Role::Admin => "admin",
            },
            "method": self.method.as_str(),
            "path": self.path,
            "status": self.status.as_u16(),
        });
        if let Some(refusal) = self.refusal {
            line["refusal"] = refusal.into();
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ProjectId;
    use std::fs;
    use std::os::unix::net::UnixStream;

    /// One request's, whose object is of so many bytes.
    fn write(audit: &Audit, request: &str, bytes: usize) {
        let who = Caller {
            user: "ann".to_owned(),
            project: ProjectId::from("p"),
            role: Role::Admin,
        };
        let asked = Asked {
            request,
            who: &who,
            method: &Method::PUT,
            path: "/v2.0/ports/vm",
            status: StatusCode::OK,
            refusal: None,
        };
        let touched = Touched {
            kind: "port",
            id: "vm".to_owned(),
            before: Value::Null,
            after: "x".repeat(bytes).into(),
        };
        audit.write(&asked, &[touched]);
    }

    /// Of the lines that are whole, whose they are.
    fn requests(text: &[u8]) -> Vec<String> {
        let lines = text.split(|byte| *byte == b'\n');
        let whole = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let request = |line: Value| line["request"].as_str().map(str::to_owned);
        whole.filter_map(request).collect()
    }

    /// A socket that nobody reads takes the beginning of a line and then nothing, as a full disk does.
    #[test]
    fn a_line_that_was_torn_spoils_no_other() {
        const TOO_MUCH: usize = 4 << 20;
        let (to, mut from) = UnixStream::pair().expect("sockets");
        to.set_nonblocking(true).expect("it is set");
        from.set_nonblocking(true).expect("it is set");
        let audit = Audit::new(to);
        let mut all = Vec::new();
        let mut drain = || {
            let drained = from.read_to_end(&mut all);
            drained.expect_err("the other end is open");
            all.clone()
        };
        write(&audit, "first", 10);
        write(&audit, "torn", TOO_MUCH);
        // There is no room for this one at all.
        write(&audit, "lost", 10);
        drain();
        write(&audit, "next", 10);
        write(&audit, "last", 10);
        assert_eq!(requests(&drain()), ["first", "next", "last"]);
    }

    #[test]
    fn a_file_that_ends_torn_is_gone_on_with_in_a_new_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit");
        let append = |request| write(&Audit::append_to(&path).expect("a file"), request, 10);
        append("first");
        append("second");
        let whole = fs::read(&path).expect("it is there");
        assert_eq!(requests(&whole), ["first", "second"]);
        assert!(!whole.windows(2).any(|two| two == b"\n\n"));
        fs::write(&path, &whole[..whole.len() - 5]).expect("it is ours");
        append("third");
        let after = fs::read(&path).expect("it is there");
        assert_eq!(requests(&after), ["first", "third"]);
    }
}
