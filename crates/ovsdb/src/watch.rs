//! Being told that somebody has changed what a plane looks at: bridges, ports, interfaces, zones.

use crate::stream::{SILENCE, Stream, garbled};
use crate::{rows, zones};
use serde_json::{Value, json};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// A connection of its own, on which the server tells changes. It tells our own, too. After an error it is
/// of no use: connect again, and take it that something has changed.
#[derive(Debug)]
pub struct Watch {
    stream: Stream,
}

impl Watch {
    /// Changes from now on. Read the database after this, not before.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let mut stream = Stream::connect(socket)?;
        let question = json!({
            "id": "watch", "method": "monitor", "params": ["Open_vSwitch", Value::Null, tables()],
        });
        stream.send(&question)?;
        loop {
            let message = stream.receive(SILENCE)?;
            if stream.answer_echo(&message)? || message["id"] != "watch" {
                continue;
            }
            return match message["error"].is_null() {
                true => Ok(Self { stream }),
                false => Err(io::Error::other(format!(
                    "ovsdb-server refuses to tell changes: {}",
                    message["error"]
                ))),
            };
        }
    }

    /// Whether anything was told since the last call. Waits for nothing. Call it now and then even if the
    /// answer doesn't matter: the server asks whether we are alive.
    pub fn changed(&mut self) -> io::Result<bool> {
        let mut changed = false;
        while let Some(message) = self.stream.pending()? {
            if self.stream.answer_echo(&message)? {
                continue;
            }
            if message["method"] != "update" {
                return Err(garbled("something else than an update"));
            }
            changed = true;
        }
        Ok(changed)
    }
}

/// Readable when something may have been told.
impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// What is there already needn't be told. The uuid of a row is told with it, and can't be asked for.
fn tables() -> Value {
    let looked_at = rows::LOOKED_AT.into_iter().chain(zones::LOOKED_AT);
    let tables = looked_at.map(|(table, columns)| {
        let columns: Vec<&str> = columns.iter().copied().filter(|c| *c != "_uuid").collect();
        let what = json!({"columns": columns, "select": {"initial": false}});
        (table.to_owned(), what)
    });
    Value::Object(tables.collect())
}
