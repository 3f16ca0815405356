//! Being told that somebody has changed what a plane looks at: bridges, ports, interfaces, zones.

use crate::stream::{SILENCE, Stream, garbled};
use crate::{rows, zones};
use serde_json::{Value, json};
use std::io;
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

    /// Whether anything was changed between the last call and this one. The server is asked, and tells what it has
    /// to tell before it answers.
    pub fn changed(&mut self) -> io::Result<bool> {
        self.stream
            .send(&json!({"id": "now", "method": "echo", "params": []}))?;
        let mut changed = false;
        loop {
            let message = self.stream.receive(SILENCE)?;
            if message["id"] == "now" {
                return Ok(changed);
            }
            changed |= self.is_update(&message)?;
        }
    }

    /// Or else the server's question whether we are alive.
    fn is_update(&mut self, message: &Value) -> io::Result<bool> {
        if self.stream.answer_echo(message)? {
            return Ok(false);
        }
        match message["method"] == "update" {
            true => Ok(true),
            false => Err(garbled("something else than an update")),
        }
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
