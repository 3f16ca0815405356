//! The control socket of a daemon of Open vSwitch: what `ovs-appctl` speaks.

use crate::stream::{SILENCE, Stream};
use serde_json::{Value, json};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A standing connection. One command at a time.
#[derive(Debug)]
pub struct Control {
    stream: Stream,
    last_id: u64,
}

#[derive(Debug)]
pub enum ControlError {
    /// Whether the command was carried out isn't known.
    Connection { command: String, source: io::Error },
    /// In the daemon's words. It doesn't say what it had done by then.
    Refused { command: String, text: String },
    /// The command was carried out; its answer has something that we don't know.
    Unreadable { command: String, text: String },
}

impl Control {
    pub fn connect(socket: &Path) -> io::Result<Self> {
        Ok(Self {
            stream: Stream::connect(socket)?,
            last_id: 0,
        })
    }

    /// What the command answers.
    pub fn call(&mut self, command: &str, arguments: &[&str]) -> Result<String, ControlError> {
        self.call_rousing(command, arguments, SILENCE, || Ok(()))
    }

    /// The same of a command whose answer may be ready while the daemon sleeps: it is roused again and again, by
    /// something that it has to do.
    pub fn call_rousing(
        &mut self,
        command: &str,
        arguments: &[&str],
        every: Duration,
        rouse: impl FnMut() -> io::Result<()>,
    ) -> Result<String, ControlError> {
        self.last_id += 1;
        let question = json!({"id": self.last_id, "method": command, "params": arguments});
        let failed = |source| ControlError::Connection {
            command: command.to_owned(),
            source,
        };
        let answer = self.exchange(&question, every, rouse);
        let mut answer = answer.map_err(failed)?;
        // The one of the two that doesn't hold is null or not there.
        match (answer["error"].take(), answer["result"].take()) {
            (Value::String(text), _) => Err(ControlError::Refused {
                command: command.to_owned(),
                text: text.trim_end().to_owned(),
            }),
            (Value::Null, Value::String(text)) => Ok(text),
            (error, result) => Err(unreadable(command, &format!("{result}, {error}"))),
        }
    }

    fn exchange(
        &mut self,
        question: &Value,
        every: Duration,
        mut rouse: impl FnMut() -> io::Result<()>,
    ) -> io::Result<Value> {
        self.stream.send(question)?;
        let asked = Instant::now();
        loop {
            match self.stream.receive(every) {
                Ok(message) if message["id"] == question["id"] => return Ok(message),
                // The answer to a command that we gave up on may come now: nobody waits for it.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    if asked.elapsed() >= SILENCE {
                        return Err(error);
                    }
                    rouse()?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Of the ovs-vswitchd that has this run directory: the one that its pidfile names, else the one that has
/// the plain name.
pub fn vswitchd_socket(run_dir: &Path) -> io::Result<PathBuf> {
    let plain = run_dir.join("ovs-vswitchd.ctl");
    let numbered = fs::read_to_string(run_dir.join("ovs-vswitchd.pid"))
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .map(|process| run_dir.join(format!("ovs-vswitchd.{process}.ctl")));
    let found = numbered
        .into_iter()
        .chain([plain])
        .find(|path| path.exists());
    found.ok_or_else(|| {
        let what = format!("no control socket of ovs-vswitchd in {}", run_dir.display());
        io::Error::new(io::ErrorKind::NotFound, what)
    })
}

/// At most the beginning of what was answered: it may be long.
pub(crate) fn unreadable(command: &str, text: &str) -> ControlError {
    ControlError::Unreadable {
        command: command.to_owned(),
        text: text.chars().take(200).collect(),
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection { command, source } => {
                write!(f, "{command}: the connection to the daemon: {source}")
            }
            Self::Refused { command, text } => write!(f, "{command}: refused: {text}"),
            Self::Unreadable { command, text } => {
                write!(f, "{command}: an answer that we don't know: {text}")
            }
        }
    }
}

impl std::error::Error for ControlError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connection { source, .. } => Some(source),
            Self::Refused { .. } | Self::Unreadable { .. } => None,
        }
    }
}
