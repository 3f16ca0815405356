//! What was changed, by whom: a line of JSON for each request that would change something, also if it was refused.
//!
//! ```text
//! {"time":"...","request":"req-...","user":"u","project":"p","role":"member","method":"PUT",
//!  "path":"/v2.0/ports/P","status":200,"kind":"port","id":"P","before":{...},"after":{...}}
//! ```
//! *Before* is what the server's copy had when the request came, *after* what it had when it was answered: another
//! change of the same object in between is in both lines.
//! A line that can't be written is an error in the log, with all that is in it; the change is made by then.

use crate::times;
use control::{Caller, Role};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::error;

/// Where the lines go. What it is given is one line at a time, with its end.
pub struct Audit {
    to: Mutex<Box<dyn Write + Send>>,
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
        Self {
            to: Mutex::new(Box::new(to)),
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
        if let Err(cause) = to.write_all(lines.as_bytes()).and_then(|()| to.flush()) {
            error!(%cause, lines, "the audit log can't be written");
        }
    }
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
